"""The full base as commands of their own: load, rescore, what changed, the same on Ray.

A million customers × 10,240 capabilities × 128 indicators by default; what each command costs
beside the kernel's own time, and what it holds in memory. Four million customers, for flat memory::

    BENCH_CUSTOMERS=4_000_000 make bench BENCH_ARGS='-k rescore -s'

Time of the kernel is the sum over threads of what the kernel says it spent; processor time is that
of the command with all it started. Beyond the kernel, both contain what a job costs once: starting
Python, reading the catalog, packing it.
"""

from __future__ import annotations

import cProfile
import io
import json
import os
import pstats
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from full_base import AS_OF, INDICATORS, POLICY, VISAVIS, write_catalog, write_profiles
from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.policy import Policy
from visavis.rescore import Job
from watching import memory_of

CUSTOMERS = int(os.environ.get("BENCH_CUSTOMERS", "1_000_000"))
CAPABILITIES = int(os.environ.get("BENCH_CAPABILITIES", "10_240"))
#: So many capabilities make the work on Ray last: beyond a minute on two cores.
RAY_CAPABILITIES = int(os.environ.get("BENCH_RAY_CAPABILITIES", "163_840"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SAMPLE_S = 0.02


class Measured(NamedTuple):
    """What a command cost, and the events that it told."""

    seconds: float
    processor_s: float
    memory_mb: float
    files_mb: float
    events: list[dict[str, Any]]

    @property
    def finished(self) -> dict[str, Any]:
        """The last that it told."""
        return self.events[-1]

    @property
    def kernel_s(self) -> float:
        """Over all threads."""
        return sum(self.finished["kernel_ns"].values()) / 1e9

    @property
    def began_s(self) -> float:
        """When the first part was handed out."""
        return next(each["at"] for each in self.events if each.get("event") == "started")


def run(*arguments: object) -> Measured:
    """Run a visavis command that prints lines of JSON; watch its memory and its children's."""
    command = [str(VISAVIS), *map(str, arguments), "--json"]
    before = os.times()
    started = time.perf_counter()
    events: list[dict[str, Any]] = []
    text: list[str] = []

    def listen(told: Iterable[str]) -> None:
        for line in told:
            text.append(line)
            if line.startswith("{") and line.endswith("}\n"):
                events.append({"at": time.perf_counter() - started, **json.loads(line)})

    peak = {"RssAnon": 0.0, "RssFile": 0.0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        listener = threading.Thread(target=listen, args=[process.stdout])
        listener.start()
        while process.poll() is None:
            for name, value in memory_of(process.pid).items():
                peak[name] = max(peak[name], value)
            time.sleep(SAMPLE_S)
        listener.join()
    seconds = time.perf_counter() - started
    assert process.returncode == 0, "".join(text)
    after = os.times()
    spent = after.children_user - before.children_user
    spent += after.children_system - before.children_system
    if not events:
        events = [json.loads("".join(text))]
    return Measured(seconds, spent, peak["RssAnon"], peak["RssFile"], events)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Profiles, attributes, a catalog and a policy as files."""
    folder = tmp_path_factory.mktemp("inputs")
    write_profiles(folder, CUSTOMERS)
    write_catalog(folder / "catalog.parquet", CAPABILITIES)
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def base(inputs) -> Path:
    run(*load(inputs, inputs / "base"))
    return inputs / "base"


def load(inputs: Path, out: Path) -> tuple[object, ...]:
    given = ("--profiles", inputs / "profiles.parquet", "--attributes")
    return ("load", *given, inputs / "attributes.parquet", "--as-of", AS_OF, "--out", out)


def rescore(inputs: Path, base: Path, out: Path, *more: object) -> tuple[object, ...]:
    given = ("--base", base, "--catalog", inputs / "catalog.parquet")
    return ("rescore", *given, "--policy", inputs / "policy.toml", "--out", out, *more)


def test_load(benchmark, inputs, tmp_path, capsys):
    measured = benchmark.pedantic(lambda: run(*load(inputs, tmp_path / "base")), rounds=1)
    benchmark.extra_info.update(measured._asdict(), events=None)
    with capsys.disabled():
        print(
            f"\nload {CUSTOMERS:,} × {INDICATORS}: {measured.seconds:.1f} s, processors"
            f" {measured.processor_s:.1f} s, RssAnon + RssShmem {measured.memory_mb:.0f} MB"
        )
    assert measured.finished["customer_count"] == CUSTOMERS


def test_rescore(benchmark, inputs, base, tmp_path, capsys):
    found: list[Measured] = []

    def once() -> None:
        found.append(run(*rescore(inputs, base, tmp_path / f"out-{len(found)}")))

    benchmark.pedantic(once, rounds=ROUNDS)
    best = min(found, key=lambda each: each.seconds)
    beyond = [(each.processor_s - each.kernel_s) / CUSTOMERS * 1e6 for each in found]
    threads = len(os.sched_getaffinity(0))
    with capsys.disabled():
        print(
            f"\nrescore {CUSTOMERS:,} × {CAPABILITIES:,} × {INDICATORS}, {threads} threads,"
            f" {ROUNDS} rounds: fastest {best.seconds:.2f} s from disk to a published result"
            f" ({CUSTOMERS * CAPABILITIES / best.seconds / 1e9:.2f} G pairs/s), kernel"
            f" {best.kernel_s / threads:.2f} s of each thread; processor time beyond the kernel"
            f" {min(beyond):.2f} to {max(beyond):.2f} µs a customer; RssAnon + RssShmem"
            f" {best.memory_mb:.0f} MB (files {best.files_mb:.0f})"
        )
    assert {each.finished["digest"] for each in found} == {best.finished["digest"]}
    assert best.finished["customer_count"] == CUSTOMERS


def test_rescore_by_step(benchmark, inputs, base, tmp_path, capsys):
    """Where a part spends its time beside the kernel, by the functions that take most of it."""
    catalog = Catalog.read(inputs / "catalog.parquet")
    job = Job.make(
        StoredBase.open(base), catalog, Policy.read(inputs / "policy.toml"), tmp_path / "out"
    )
    task = job.task
    task(0)
    parts = range(1, min(9, job.plan.part_count))
    profile = cProfile.Profile()
    benchmark.pedantic(lambda: profile.runcall(lambda: [task(part) for part in parts]), rounds=1)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(14)
    with capsys.disabled():
        print(f"\nrescore by step, seconds over {len(parts)} parts (waiting is the kernel):")
        print(text.getvalue().partition("ncalls")[2])


def test_rescore_what_changed(benchmark, inputs, base, tmp_path, capsys):
    """One capability in a hundred has another value; the bytes are those of a full run."""
    old = run(*rescore(inputs, base, tmp_path / "old"))
    catalog = Catalog.read(inputs / "catalog.parquet")
    value = catalog.value.copy()
    value[:: max(1, CAPABILITIES // (CAPABILITIES // 100 or 1))] *= 1.1
    changed = inputs / "changed"
    changed.mkdir()
    catalog.with_columns(value=value).write(changed / "catalog.parquet")
    (changed / "policy.toml").write_text(POLICY)
    full = run(*rescore(changed, base, tmp_path / "full"))
    since = ("--since", tmp_path / "old")
    delta = benchmark.pedantic(
        lambda: run(*rescore(changed, base, tmp_path / "delta", *since)), rounds=1
    )
    with capsys.disabled():
        print(
            f"\nrescore what changed (1 % of capabilities): kernel {delta.kernel_s:.2f} s of"
            f" {full.kernel_s:.2f} s in full ({delta.kernel_s / full.kernel_s:.1%}), wall"
            f" {delta.seconds:.2f} s of {full.seconds:.2f} s"
        )
    assert delta.finished["digest"] == full.finished["digest"] != old.finished["digest"]


def test_rescore_on_ray(benchmark, inputs, base, tmp_path, capsys):
    """Two workers of one thread each beside two threads here, from the first part to the last."""
    large = inputs / "large"
    large.mkdir()
    write_catalog(large / "catalog.parquet", RAY_CAPABILITIES)
    (large / "policy.toml").write_text(POLICY)
    here = run(*rescore(large, base, tmp_path / "here", "--workers", 2))
    ray = ("--ray", "local", "--workers", 2)
    there = benchmark.pedantic(
        lambda: run(*rescore(large, base, tmp_path / "there", *ray)), rounds=1
    )
    work = [each.finished["at"] - each.began_s for each in (here, there)]
    with capsys.disabled():
        print(
            f"\nrescore on Ray, {CUSTOMERS:,} × {RAY_CAPABILITIES:,}: {work[1]:.1f} s of work"
            f" beside {work[0]:.1f} s in one process ({work[1] / work[0]:.2f} times), after"
            f" {there.began_s:.1f} s of starting ({here.began_s:.1f} s in one process)"
        )
    assert here.finished["digest"] == there.finished["digest"]
