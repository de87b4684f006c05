# visavis: `make help` lists the targets. Everything lives in .venv; nothing outside is touched.
SHELL := /bin/bash
PYTHON ?= python3
CXX ?= c++
VENV := .venv
BIN := $(VENV)/bin
CORE := $(wildcard csrc/*) setup.py pyproject.toml
# Installs what one key of pyproject.toml asks for, without building visavis again.
REQUIREMENTS = $(BIN)/python -c "import sys, tomllib; \
  project = tomllib.load(open('pyproject.toml', 'rb')); \
  wanted = {'build': project['build-system']['requires'], **project['project']['optional-dependencies']}; \
  print(*wanted[sys.argv[1]], sep='\n')"
# A finding ends the process. Leaks are not looked for: the interpreter itself leaves some.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined
# The interpreter is not built with sanitizers: their libraries must come before all others.
SANITIZED = LD_PRELOAD="$(foreach library,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(library).so)) \
  $(CURDIR)/build/asan/trace_pc.so" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  PYTHONMALLOC=malloc PYTHONPATH="$(CURDIR)/$$(echo build/asan/lib.*)"
FUZZ_SECONDS ?= 60
IMAGE := proto/visavis.v1.binpb
COMPILED_TESTS := $(patsubst %,tests/test_%.py,screen kernel kernel_doors terms verify score selfcheck rows single wire columns)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-long asan fuzz symbols aarch64 proto lint types format bench build clean check-machine

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.core $(VENV)/.demo ## set up, then match one real data set end to end (DEMO_ARGS=…)
	@$(BIN)/visavis demo $(DEMO_ARGS)

test: $(VENV)/.core $(VENV)/.test ## set up, then run the tests (TEST_ARGS=…)
	@$(BIN)/python -m pytest -m 'not faults and not long' $(TEST_ARGS)

test-faults: $(VENV)/.core $(VENV)/.test ## whoever is killed, whatever fails: jobs, journals, clusters
	@$(BIN)/python -m pytest -m faults $(TEST_ARGS)

test-long: $(VENV)/.core $(VENV)/.test ## the demo, against the oracle, and twice; the wheel and the bench of the gateway; ten thousand hostile worlds for the screened variants, and for torch's screen
	@$(BIN)/python -m pytest -m long
	@VISAVIS_EXAMPLES=3500 $(BIN)/python -m pytest tests/test_screen.py tests/test_gpu.py
	@VISAVIS_EXAMPLES=300 VISAVIS_KILLS=1000 $(BIN)/python -m pytest tests/test_rescore.py tests/test_rescore_faults.py

asan: $(VENV)/.core $(VENV)/.test build/asan/trace_pc.so ## the tests of what is compiled, under AddressSanitizer and UBSan
	@$(SANITIZED) $(BIN)/python -m pytest --capture=sys $(COMPILED_TESTS)

fuzz: $(VENV)/.core $(VENV)/.fuzz build/asan/trace_pc.so ## coverage-guided arguments for the kernel (FUZZ_SECONDS=…)
	@mkdir -p build/fuzz/corpus
	@$(SANITIZED) $(BIN)/python tests/fuzz/fuzz_match.py -max_total_time=$(FUZZ_SECONDS) \
	  -len_control=0 -max_len=512 -print_final_stats=1 -verbosity=0 -artifact_prefix=build/fuzz/ build/fuzz/corpus

build/asan/trace_pc.so: $(CORE) tests/fuzz/trace_pc.c | $(VENV)/.core
	@echo "building the compiled core with sanitizers"
	@CXXFLAGS="$(SANITIZE) -fsanitize-coverage=trace-pc -fno-omit-frame-pointer -g1" LDFLAGS="$(SANITIZE)" \
	  $(BIN)/python setup.py --quiet build --build-base build/asan --build-temp build/asan/temp
	@$(CXX) -x c -O2 -shared -fPIC tests/fuzz/trace_pc.c -o $@

symbols: $(VENV)/.core ## no symbol of a variant but its table may be picked by the linker for others
	@$(BIN)/python setup.py --quiet build_clib --build-clib build/symbols --build-temp build/symbols
	@for library in build/symbols/libvisavis_*.a; do \
	  if nm --demangle "$$library" | grep -E ' [VWu] '; then \
	    echo "$$library: weak symbols" >&2; exit 1; fi; done
	@for library in build/symbols/libvisavis_{portable,avx2,avx512,amx,amx_emulated}.a; do \
	  [ ! -e "$$library" ] || [ "$$(nm --extern-only --defined-only "$$library" | grep -c ' [A-Z] ')" = 1 ] || \
	  { echo "$$library: exports more than its table" >&2; exit 1; }; done

aarch64: ## the portable variant's bits on another processor, emulated (needs a cross compiler and qemu)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	  { echo "make aarch64 needs a cross compiler and an emulator (on Debian and Ubuntu: the packages g++-aarch64-linux-gnu and qemu-user)" >&2; exit 1; }
	@mkdir -p build/aarch64
	@for compiler in aarch64-linux-gnu-g++ $(firstword $(CXX)); do \
	  $$compiler -std=c++17 -O3 -ffp-contract=off -fno-fast-math -fno-trapping-math -Wall -Wextra -Icsrc -static \
	    -o build/aarch64/$$compiler csrc/variant_portable.cpp tests/aarch64/same_bits.cpp || exit 1; done
	@there=$$(qemu-aarch64 build/aarch64/aarch64-linux-gnu-g++) && here=$$(build/aarch64/$(firstword $(CXX))) && \
	  echo "aarch64 $$there, here $$here" && [ "$$there" = "$$here" ]

# What breaks the contract is refused before anything is written. To break it on purpose, remove its
# image first. buf keeps a cache, and nothing outside this folder is touched.
proto: export BUF_CACHE_DIR := $(CURDIR)/build/buf
proto: $(VENV)/.test ## check the public contract (proto/), then generate src/visavis/v1 from it
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/buf lint
	@[ ! -e $(IMAGE) ] || $(BIN)/buf breaking --against $(IMAGE)
	@$(BIN)/buf build --exclude-source-info --output $(IMAGE)
	@rm -f src/visavis/v1/*_pb2*
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=src --pyi_out=src proto/visavis/v1/*.proto
	@$(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out=src proto/visavis/v1/*_service.proto

lint: $(VENV)/.core $(VENV)/.test ## ruff: rules and format; no merge left half done
	@! git grep -nE '^(<<<<<<<|>>>>>>>)( |$$)'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.core $(VENV)/.test ## mypy, strict, on src
	@$(BIN)/mypy

format: $(VENV)/.test ## let ruff format and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.core $(VENV)/.test $(VENV)/.bench ## time the match beside the campaign loop
	@$(BIN)/python -m pytest bench --benchmark-only --benchmark-disable-gc $(BENCH_ARGS)

build: $(VENV)/.core ## rebuild the extensions in place, only what changed
	@$(BIN)/python setup.py --quiet build_ext --inplace

clean: ## remove the environment and everything built
	@rm -rf $(VENV) build dist src/*.egg-info src/visavis/*.so src/visavis/gateway/*.so
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

check-machine: ## say plainly what this machine lacks
	@command -v $(PYTHON) >/dev/null || \
	  { echo "visavis needs Python 3.11 or newer: '$(PYTHON)' was not found (try PYTHON=python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "visavis needs Python 3.11 or newer: '$(PYTHON)' is $$($(PYTHON) -V) (try PYTHON=python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "visavis needs Python's venv module (on Debian and Ubuntu: the package python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
	  { echo "visavis needs Python's headers (on Debian and Ubuntu: the package python3-dev)" >&2; exit 1; }
	@command -v $(firstword $(CXX)) >/dev/null || \
	  { echo "visavis needs a C++17 compiler: '$(CXX)' was not found (on Debian and Ubuntu: the package g++)" >&2; exit 1; }
	@echo 'int main() { if constexpr (true) return 0; }' | $(CXX) -std=c++17 -x c++ -fsyntax-only - 2>/dev/null || \
	  { echo "visavis needs a C++17 compiler: '$(CXX)' does not accept C++17" >&2; exit 1; }

$(VENV)/.python:
	@$(MAKE) --no-print-directory check-machine
	@echo "setting up $(VENV) ($$($(PYTHON) -V))"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.python $(CORE)
	@$(MAKE) --no-print-directory check-machine
	@echo "building the compiled core, installing visavis"
	@$(REQUIREMENTS) build > $(VENV)/build.txt && $(PIP) --requirement $(VENV)/build.txt
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.demo: $(VENV)/.core
	@echo "installing what the demo needs"
	@$(REQUIREMENTS) demo > $(VENV)/demo.txt && $(PIP) --requirement $(VENV)/demo.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.core
	@echo "installing what the benchmarks need"
	@$(REQUIREMENTS) bench > $(VENV)/bench.txt && $(PIP) --requirement $(VENV)/bench.txt
	@touch $@

$(VENV)/.fuzz: $(VENV)/.core
	@echo "installing what the fuzzer needs"
	@$(REQUIREMENTS) fuzz > $(VENV)/fuzz.txt && $(PIP) --requirement $(VENV)/fuzz.txt
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "installing what the tests need"
	@$(REQUIREMENTS) test > $(VENV)/test.txt && $(PIP) --requirement $(VENV)/test.txt
	@touch $@
