"""The kernel beside a bare float32 GEMM, itself with more asked, and the campaign loop.

Ratios are taken pair by pair, by turns in one run; what is printed is the lower quartile and the
median::

    make bench BENCH_ARGS='-k kernel -s'
    BENCH_VARIANT=avx2 OPENBLAS_CORETYPE=Haswell make bench BENCH_ARGS='-k "kernel and gemm" -s'
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernel_worlds import (
    PAIRED_ROUNDS,
    THREADS,
    VARIANT,
    M,
    N,
    World,
    gemm_all,
    match_all,
    paired,
    peaks,
    say,
    timed,
    world,
)
from visavis import kernel

#: What a variant's products are done with, and what R's are.
UNITS = {"avx2": "maddubs_256", "avx512": "vnni_512", "amx": "amx_int8"}

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
    say(capsys, f"one customer alone: median {middle:.0f} µs ({low:.0f} … {high:.0f})")
    benchmark.pedantic(
        kernel.match, (rows[0], panel), {"k": 10, "eligible": eligible[0]}, rounds=200
    )


def test_kernel_on_the_demos_customers(benchmark, capsys):
    """The demo's indicators, learned weights, rules and full histories, jittered to N customers."""
    given, panel = demo_world(Path("demo-output"), N)
    name = f"the demo's customers, jittered to {N:,}, × {len(given.w):,} × {given.x.shape[1]}"
    paired(capsys, name, given, panel, lambda: gemm_all(given), "R")
    benchmark.pedantic(match_all, (given, panel), rounds=1)


def demo_world(folder, count):
    """Customers of the demo drawn again and again, their indicators moved by 5 %."""
    from visavis.base import Base
    from visavis.catalog import Catalog
    from visavis.engine import Engine
    from visavis.engine.blocks import history_of
    from visavis.policy import Policy

    if not (folder / "base").exists():
        pytest.skip(f"{folder} is not there: run `make demo` first")
    policy = Policy.read(folder / "policy.toml")
    engine = Engine(Base.read(folder / "base"), Catalog.read(folder / "catalog.parquet"), policy)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, engine.base.customer_count, count)
    x = engine.base.indicators[rows]
    x = (x * rng.normal(1.0, 0.05, x.shape)).astype(np.float32)
    planes, index = engine.eligibility
    catalog, panel = engine.catalog, engine.panel
    panel.prepare()
    given = World(
        x,
        engine.weights,
        catalog.bias,
        {},
        kernel.Eligibility(planes[rows], index),
        history_of(engine.history, rows),
        ev_min=policy.ev_min,
    )
    return given, panel


def test_kernel_beside_the_campaign_loop(benchmark, capsys):
    """As a marketing script has it: one capability after the other, all customers, the best 5 %.

    A sample of campaigns, scaled up linearly to all; the match is timed on a share of the
    customers and scaled likewise. Both have rules at 50 %.
    """
    customers, campaigns, rounds = 1_000_000, 4, 5
    given = world(n=customers, rate=0.5)
    panel = given.pack()
    part = given._replace(
        x=given.x[:N], eligible=given.eligible._replace(planes=given.eligible.planes[:N])
    )
    match_all(part, panel)
    sample = np.linspace(0, M - 1, campaigns).astype(int)
    ratios = []
    for _ in range(rounds):
        loop = sum(timed(campaign, given, int(j)) for j in sample) * M / campaigns
        ratios.append(loop / (timed(match_all, part, panel) * customers / N))
    low, middle = np.percentile(ratios, [25, 50])
    say(
        capsys,
        f"the campaign loop (numpy) ÷ match, {customers:,} × {M:,} × 128: {low:.0f} (lower "
        f"quartile of {rounds}; median {middle:.0f}); extrapolated from {campaigns} campaigns "
        f"and from a match of {N:,} customers",
    )
    benchmark.pedantic(campaign, (given, 0), rounds=1)


def campaign(given, j):
    """Who gets capability j: scores of everybody, those who may be asked, the best 5 % of them."""
    z = given.x @ given.w[j] + given.b[j]
    ev = given.prices["value"][j] / (1.0 + np.exp(-z)) - given.prices["cost"][j]
    plane = np.uint64(given.eligible.plane_index[j])
    ev[(given.eligible.planes[:, 0] >> plane) & np.uint64(1) == 0] = -np.inf
    size = len(ev) // 20
    return np.argpartition(-ev, size)[:size]


@pytest.mark.parametrize("name", SETTINGS)
def test_kernel_stages(benchmark, capsys, name):
    """Nanoseconds of one thread per customer by stage, and the share of what the unit could do."""
    given = world(n=min(N, 20_000), **SETTINGS[name])
    panel = given.pack()
    match_all(given, panel)
    spent, stages = [], []
    for _ in range(PAIRED_ROUNDS):
        results = []
        spent.append(timed(lambda: results.extend(match_all(given, panel))))  # noqa: B023
        total = {
            stage: sum(result.nanoseconds[stage] for result in results)
            for stage in results[0].nanoseconds
        }
        stages.append([amount / len(given.x) for amount in total.values()])
    by_stage = dict(zip(total, np.median(stages, axis=0), strict=True))
    told = ", ".join(f"{stage} {amount:,.0f}" for stage, amount in by_stage.items())
    variant = kernel.choose_variant(VARIANT)
    verified = sum(result.stats["verified"] for result in results) / len(given.x)
    screened = sum(result.stats["screened"] for result in results)
    told = (
        f"{name}, {variant}: ns per customer and thread: {told}; "
        f"{verified:.0f} pairs verified of {screened / len(given.x):,.0f} screened"
    )
    unit, peak = UNITS.get(variant), peaks()
    if unit in peak:
        done = screened * given.x.shape[1] / np.median(spent) / 1e9 / THREADS
        told += (
            f"\n  {done:.0f} of {peak[unit]:.0f} G products/s a thread ({unit}), "
            f"{done / peak[unit]:.0%} of the peak; in float32 the peak is "
            f"{peak.get('fma_512', peak['fma_256']):.0f}"
        )
    say(capsys, told)
    benchmark.pedantic(match_all, (given, panel), rounds=1)
