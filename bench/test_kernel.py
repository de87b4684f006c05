"""The kernel beside a bare float32 GEMM and beside itself with more asked, by turns, in one run.

R is numpy's OpenBLAS float32 GEMM alone for the same customers, capabilities and indicators,
blocked so that its output stays in cache, without any selection. Ratios are taken pair by pair;
what is printed is the lower quartile and the median::

    make bench BENCH_ARGS='-k kernel -s'
    BENCH_CUSTOMERS=100_000 BENCH_VARIANT=avx2 OPENBLAS_CORETYPE=Haswell make bench BENCH_ARGS=…
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

from visavis import kernel

N = int(os.environ.get("BENCH_CUSTOMERS", "100_000"))
M = int(os.environ.get("BENCH_CAPABILITIES", "10_240"))
VARIANT = os.environ.get("BENCH_VARIANT") or None
THREADS = len(os.sched_getaffinity(0))
ROWS = 4_096
PAIRED_ROUNDS = 15


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

    def pack(self):
        """The panel, with its screen, as the engine would pack it."""
        index = None if self.eligible is None else self.eligible.plane_index
        panel = kernel.pack(self.w, self.b, **self.prices, plane_index=index)
        panel.prepare()
        return panel


def world(n=N, m=M, d=128, rate=None, entries=0, planes=20, **more):
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
    prices = {"value": np.full(m, 10.0), "cost": np.full(m, 0.1), "link": "logistic"}
    return World(x, w, rng.normal(-2, 0.5, m).astype(np.float32), prices, eligible, history, **more)


def match_all(given, panel, variant=VARIANT):
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
            variant=variant,
        )

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
        rates.append(len(given.x) * len(given.w) / spent / 1e9)
    low, middle = np.percentile(ratios, [25, 50])
    by = f"{kernel.choose_variant(VARIANT)}, {THREADS} threads"
    with capsys.disabled():
        print(
            f"\n{name}: {np.median(rates):.2f} G pairs/s ({by}) "
            f"= {low:.2f} × {other_name} (lower quartile of {rounds}; median {middle:.2f})"
        )
    return low


SETTINGS = {
    "D=128, rules at 50 %": {"rate": 0.5},
    "D=128, no rules": {},
    "D=64, rules at 50 %": {"d": 64, "rate": 0.5},
    "D=256, rules at 50 %": {"d": 256, "rate": 0.5},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_kernel_beside_gemm(benchmark, capsys, name):
    given = world(**SETTINGS[name])
    panel = given.pack()
    paired(capsys, name, given, panel, lambda: gemm_all(given), "R")
    benchmark.pedantic(match_all, (given, panel), rounds=1)


#: What is asked beyond the plain match, and beside what.
BESIDE = {
    "k=100 beside k=10": ({"k": 100}, {}),
    "rules at 50 % + 20 history entries beside neither": ({"rate": 0.5, "entries": 20}, {}),
    "eligibility 1 % beside unmasked": ({"rate": 0.01}, {}),
    "product 1, channel 2, family 2 beside unlimited": (
        {"limits": kernel.Limits(product=1, channel=2, family=2)},
        {},
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_kernel_beside_itself(benchmark, capsys, name):
    more, plain = (world(**each) for each in BESIDE[name])
    codes = np.arange(M, dtype=np.int32)
    groups = {"channel": codes % 4, "family": codes % 40}
    more = more._replace(prices={**more.prices, **groups})
    panels = more.pack(), plain.pack()
    paired(capsys, name, more, panels[0], lambda: match_all(plain, panels[1]), "the other")
    benchmark.pedantic(match_all, (more, panels[0]), rounds=1)


def test_kernel_for_one_customer(benchmark, capsys):
    given = world(n=256, rate=0.5)
    panel = given.pack()
    rows = [given.x[i : i + 1] for i in range(len(given.x))]
    eligible = [
        kernel.Eligibility(given.eligible.planes[i : i + 1], given.eligible.plane_index)
        for i in range(len(rows))
    ]
    spent = [
        timed(lambda i=i: kernel.match(rows[i], panel, k=10, eligible=eligible[i], variant=VARIANT))
        for i in range(len(rows))
    ]
    low, middle, high = np.percentile(spent, [25, 50, 99]) * 1e6
    with capsys.disabled():
        print(f"\none customer alone: median {middle:.0f} µs ({low:.0f} … {high:.0f})")
    benchmark.pedantic(
        kernel.match, (rows[0], panel), {"k": 10, "eligible": eligible[0]}, rounds=200
    )
