"""Worlds for the kernel's benchmarks, and what is timed on them.

R is numpy's OpenBLAS float32 GEMM alone for the same customers, capabilities and indicators,
blocked so that its output stays in cache, without any selection.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visavis import kernel

N = int(os.environ.get("BENCH_CUSTOMERS", "100_000"))
M = int(os.environ.get("BENCH_CAPABILITIES", "10_240"))
VARIANT = os.environ.get("BENCH_VARIANT") or None
THREADS = len(os.sched_getaffinity(0))
ROWS = 4_096
PAIRED_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
CSRC = Path(__file__).parents[1] / "csrc"


class World(NamedTuple):
    """One problem, cut into blocks of rows as the engine cuts it."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    prices: dict
    eligible: kernel.Eligibility | None = None
    history: kernel.History | None = None
    k: int = 10
    limits: kernel.Limits | None = None
    ev_min: float | None = 0.0

    def pack(self):
        """The panel, with its screen, as the engine would pack it."""
        index = None if self.eligible is None else self.eligible.plane_index
        panel = kernel.pack(self.w, self.b, **self.prices, plane_index=index)
        panel.prepare()
        return panel

    @property
    def pairs(self):
        """Customers × capabilities."""
        return len(self.x) * len(self.w)


def world(n=N, m=M, d=128, rate=None, entries=0, planes=20, link="logistic", **more):
    """Gaussian customers and capabilities; `rate` of the pairs are eligible, by plane."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), dtype=np.float32)
    w = (rng.standard_normal((m, d)) / np.sqrt(d)).astype(np.float32)
    eligible = history = None
    if rate is not None:
        open_to = rng.random((n, planes)) < rate
        words = (open_to.astype(np.uint64) << np.arange(planes, dtype=np.uint64)).sum(axis=1)
        index = rng.integers(0, planes, m).astype(np.int32)
        eligible = kernel.Eligibility(words.astype(np.uint64)[:, None], index)
    if entries:
        step = m // entries
        offsets = rng.integers(0, step, (n, entries)) + step * np.arange(entries)
        h = rng.normal(1.0, 1.0, n * entries).astype(np.float32)
        indptr = np.arange(n + 1, dtype=np.int64) * entries
        history = kernel.History(indptr, offsets.astype(np.int32).ravel(), h)
    prices = {"value": np.full(m, 10.0), "cost": np.full(m, 0.1), "link": link}
    return World(x, w, rng.normal(-2, 0.5, m).astype(np.float32), prices, eligible, history, **more)


def match_all(given, panel, variant=VARIANT):
    """The results of all blocks, on as many threads as there are processors."""

    def block(begin):
        rows = slice(begin, begin + ROWS)
        eligible, history = given.eligible, given.history
        if eligible is not None:
            eligible = kernel.Eligibility(eligible.planes[rows], eligible.plane_index)
        if history is not None:
            indptr = history.indptr[begin : begin + ROWS + 1]
            history = kernel.History(indptr, history.capability_index, history.adjustment)
        return kernel.match(
            given.x[rows],
            panel,
            k=given.k,
            eligible=eligible,
            history=history,
            limits=given.limits,
            ev_min=given.ev_min,
            variant=variant,
        )

    if len(given.x) <= ROWS:
        return [block(0)]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(block, range(0, len(given.x), ROWS)))


def gemm_all(given, rows=1_024, width=512):
    """R's work: every product, nothing chosen; the output is overwritten block after block."""
    right = [np.ascontiguousarray(given.w[j : j + width].T) for j in range(0, len(given.w), width)]
    out = np.empty((rows, width), np.float32)
    for begin in range(0, len(given.x), rows):
        left = given.x[begin : begin + rows]
        for block in right:
            np.matmul(left, block, out=out[: len(left), : block.shape[1]])


def timed(work, *arguments):
    """Seconds."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def paired(capsys, name, given, panel, other, other_name, rounds=PAIRED_ROUNDS):
    """Print the ratio of `other`'s time to the match's, over rounds by turns after a warm-up."""
    match_all(given, panel)
    other()
    ratios, rates = [], []
    for _ in range(rounds):
        spent = timed(match_all, given, panel)
        ratios.append(timed(other) / spent)
        rates.append(given.pairs / spent / 1e9)
    low, middle = np.percentile(ratios, [25, 50])
    by = f"{kernel.choose_variant(VARIANT)}, {THREADS} threads"
    say(
        capsys,
        f"{name}: {np.median(rates):.2f} G pairs/s ({by}) "
        f"= {low:.2f} × {other_name} (lower quartile of {rounds}; median {middle:.2f})",
    )
    return low


def say(capsys, text):
    """Print past pytest's capture."""
    with capsys.disabled():
        print(f"\n{text}", flush=True)


@cache
def peaks():
    """10⁹ multiply-adds a second of one thread by instruction, measured now; {} without a compiler.

    See peak.cpp.
    """
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return {}
    program = Path("build/bench/peak")
    program.parent.mkdir(parents=True, exist_ok=True)
    sources = [Path(__file__).with_name("peak.cpp"), CSRC / "cpu.cpp"]
    subprocess.run(
        [compiler, "-O2", "-std=c++17", f"-I{CSRC}", "-o", program, *sources], check=True
    )
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {name: float(rate) for name, rate in map(str.split, told.splitlines())}
