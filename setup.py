"""Builds what is compiled: one static library per kernel variant, one extension that links them;
one that gathers rows, and two that write the gateway's messages.

Every variant is compiled with its own flags, so that no instruction set leaks into another file.
Everything else about the package is declared in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

#: Compilers at a time, unless ``--parallel`` says so.
JOBS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

CSRC = Path("csrc")
HEADERS = sorted(str(path) for path in CSRC.glob("*.h"))

# -ffp-contract=off: docs/score.md says where a product is rounded, the compiler must not fuse it.
# -fno-fast-math stands last but one so that no CXXFLAGS of the surroundings can undo it.
# -fno-trapping-math: nobody looks at floating-point exceptions, and without them in the way GCC
# turns choices into vector code; no result depends on it.
FLAGS = [
    *("-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-fno-fast-math", "-fno-trapping-math"),
]

# Nothing throws: an exception table would bring weak symbols into the variants' objects.
LIBRARY_FLAGS = ["-fno-exceptions", "-fno-rtti"]

#: Each variant's own flags beyond FLAGS; the portable one runs on every processor.
VARIANT_FLAGS: dict[str, list[str]] = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    avx2 = ["-mavx2", "-mfma", "-mbmi2", "-mpopcnt"]
    avx512 = [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni")]
    VARIANT_FLAGS["avx2"] = avx2
    VARIANT_FLAGS["avx512"] = [*avx2, *avx512, "-mprefer-vector-width=512"]
    # Tile instructions are written as assembly: no flag of their own.
    VARIANT_FLAGS["amx"] = VARIANT_FLAGS["avx512"]
    VARIANT_FLAGS["amx_emulated"] = VARIANT_FLAGS["avx512"]


def library(name: str, sources: list[str], flags: list[str]) -> tuple[str, dict[str, Any]]:
    """One static library whose objects are rebuilt when a header changes."""
    return (
        f"visavis_{name}",
        {
            "sources": sources,
            "cflags": [*flags, *LIBRARY_FLAGS, *FLAGS, "-fPIC"],
            "include_dirs": [str(CSRC)],
            "obj_deps": {"": HEADERS},
        },
    )


# The linker resolves from left to right: core refers to the variants, so core stands first.
LIBRARIES = [
    library(
        "core",
        [str(CSRC / f"{name}.cpp") for name in ("dispatch", "elementary", "terms", "cpu")],
        [],
    ),
    *(
        library(name, [str(CSRC / f"variant_{name}.cpp")], flags)
        for name, flags in VARIANT_FLAGS.items()
    ),
]


class BuildLibraries(build_clib):
    """build_clib that builds the libraries beside each other, for each is one large source."""

    def build_libraries(self, libraries: list[tuple[str, dict[str, Any]]]) -> None:
        """Build each, and raise what the first of them raises that cannot be built."""
        # The option is of the other command: ``build_ext --parallel 1`` is of both.
        jobs = self.get_finalized_command("build_ext").parallel
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(super().build_libraries, ([each] for each in libraries)))


class BuildExtension(build_ext):
    """build_ext that builds the static libraries first, for --inplace and editable installs too."""

    def finalize_options(self) -> None:
        """Build extensions beside each other, unless told otherwise."""
        super().finalize_options()
        self.parallel = self.parallel or JOBS

    def run(self) -> None:
        """Build the libraries, then the extensions, of which the kernel's links them."""
        self.run_command("build_clib")
        super().run()


KERNEL = Extension(
    "visavis._kernel",
    sources=[str(CSRC / "_kernel.pyx")],
    include_dirs=[str(CSRC)],
    # A static library is not among an extension's dependencies: without its sources here, a change
    # in one would be compiled and never linked.
    depends=[*HEADERS, *(source for _, built in LIBRARIES for source in built["sources"])],
    extra_compile_args=FLAGS,
    language="c++",
)

ROWS = Extension(
    "visavis._rows",
    sources=[str(CSRC / "_rows.pyx")],
    include_dirs=[str(CSRC)],
    depends=[str(CSRC / "sha256.h")],
    extra_compile_args=FLAGS,
    language="c++",
)

# C in all but name: in C++, one compiler and one set of flags serve everything.
MESSAGES = [
    Extension(
        f"visavis.gateway.{name}",
        sources=[str(CSRC / f"{name}.pyx")],
        extra_compile_args=FLAGS,
        language="c++",
    )
    for name in ("_wire", "_columns")
]

setup(
    libraries=LIBRARIES,
    ext_modules=cythonize([KERNEL, ROWS, *MESSAGES], build_dir="build", language_level=3),
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtension},
)
