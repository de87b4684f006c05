"""The match beside the naive campaign loop, on the same customers, capabilities and scores.

Ratios are taken pair by pair within one run, because machines are noisy: match and loop take turns,
and what is printed is the lower quartile and the median of the paired ratios.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

from visavis.base import Base
from visavis.campaign import run_campaigns
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.policy import Policy

CUSTOMERS, CAPABILITIES, INDICATORS = 20_000, 500, 128
PAIRED_ROUNDS = 15


@pytest.fixture(scope="module")
def engine() -> Engine:
    rng = np.random.default_rng(0)
    names = [f"i{d:03}" for d in range(INDICATORS)]
    x = rng.normal(size=(CUSTOMERS, INDICATORS)).astype(np.float32)
    ids = pa.array([f"c{i:06}" for i in range(CUSTOMERS)])
    base = Base.from_tables(
        pa.table({"customer_id": ids, **dict(zip(names, x.T, strict=True))}),
        attributes=pa.table({"customer_id": ids, "age": rng.integers(10, 90, CUSTOMERS)}),
        as_of="2026-01-01",
    )
    weights = rng.normal(size=(CAPABILITIES, INDICATORS)) / np.sqrt(INDICATORS)
    catalog = Catalog.from_rows(
        {
            "id": f"p{j:05}",
            "product": f"p{j // 4:05}",
            "channel": f"channel{j % 4}",
            "family": f"family{j % 40}",
            "weights": dict(zip(names, row.tolist(), strict=True)),
            "value": float(rng.uniform(1, 20)),
            "rule": f"age >= {18 + 5 * (j % 8)}",
        }
        for j, row in enumerate(weights)
    )
    channels = tuple(f"channel{c}" for c in range(4))
    policy = Policy(k=10, product_limit=1, channel_limit=4, consent_not_needed=channels)
    engine = Engine(base, catalog, policy)
    assert engine.panel is not None
    assert engine.eligibility is not None
    assert engine.history is not None
    return engine


def test_match(benchmark, engine):
    matches = benchmark.pedantic(engine.match, rounds=5, warmup_rounds=1)
    assert matches.opportunity_count > CUSTOMERS
    benchmark.extra_info["pairs"] = CUSTOMERS * CAPABILITIES


def test_campaign_loop(benchmark, engine):
    run = benchmark.pedantic(lambda: run_campaigns(engine), rounds=5, warmup_rounds=1)
    assert run.campaign_count == CAPABILITIES
    benchmark.extra_info["pairs"] = run.pair_count


def test_paired_ratio(benchmark, engine, capsys):
    ratios = []

    def one_pair():
        started = time.perf_counter()
        engine.match()
        spent = time.perf_counter() - started
        ratios.append(run_campaigns(engine).seconds / spent)

    benchmark.pedantic(one_pair, rounds=PAIRED_ROUNDS, warmup_rounds=1)
    lower, median = np.percentile(ratios[1:], [25, 50])
    benchmark.extra_info["campaign_over_match"] = median
    with capsys.disabled():
        print(
            f"\ncampaign loop ÷ match, {CUSTOMERS:,} × {CAPABILITIES:,} × {INDICATORS}, "
            f"variant {engine.variant}, {engine.threads} threads, {PAIRED_ROUNDS} pairs: "
            f"lower quartile {lower:.2f}, median {median:.2f}"
        )
