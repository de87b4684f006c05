"""What arms captured: figures worked out by hand, intervals, refusals, and the whole comparison."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import visavis.evaluate.timing as timing
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.errors import InputError, LimitError, SchemaError
from visavis.evaluate import (
    ARMS,
    Contacts,
    Evaluation,
    Outcomes,
    PairScores,
    compare_times,
    evaluate,
    outcomes_of,
    popularity_of,
    sensitivity,
)
from visavis.evaluate.metrics import Resampled, gini, redundancy, resample, tally
from visavis.evaluate.outcomes import bought_pairs
from visavis.policy import Policy

AS_OF = date(2026, 3, 1)
PRODUCTS = ("bread", "milk", "tea")


def day(after: int) -> date:
    return AS_OF + timedelta(days=after)


def table_of(rows: list[tuple[str, str, date, int]]) -> pa.Table:
    names = ("customer_id", "product", "date", "cents")
    types = (pa.string(), pa.string(), pa.date32(), pa.int64())
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


def small_world(k: int = 2, **policy: Any) -> Engine:
    """Four customers, three products on two channels; what is bought is a fact, mostly."""
    facts = [
        ("ann", "bread", None, "bought", day(-1)),
        ("ann", "bread", None, "bought", day(0)),
        # Another fact about the same day, through the capability: no second day.
        ("ann", None, "bread|letter", "bought", day(0)),
        ("ann", None, "milk|email", "bought", day(-9)),
        ("bob", "bread", None, "bought", day(-3)),
        ("bob", "tea", None, "refused", day(-3)),
        ("cid", "tea", None, "bought", day(1)),
        ("dan", "retired", None, "bought", day(-1)),
    ]
    base = Base.from_tables(
        pa.table({"customer_id": ["dan", "ann", "cid", "bob"], "visits": [1.0, 4.0, 2.0, 3.0]}),
        as_of=AS_OF,
        facts=pa.table(
            {
                "customer_id": [fact[0] for fact in facts],
                "product": pa.array([fact[1] for fact in facts], pa.string()),
                "capability_id": pa.array([fact[2] for fact in facts], pa.string()),
                "kind": [fact[3] for fact in facts],
                "date": pa.array([fact[4] for fact in facts], pa.date32()),
            }
        ),
    )
    catalog = Catalog.from_rows(
        {
            "id": f"{product}|{channel}",
            "product": product,
            "channel": channel,
            "weights": {"visits": weight},
            "bias": bias,
            "link": "identity",
        }
        for product, weight in zip(PRODUCTS, (1.0, 0.5, 0.25), strict=True)
        for channel, bias in (("email", 0.125), ("letter", 0.0))
    )
    settled = {"product_limit": 1, "consent_not_needed": ("email", "letter"), **policy}
    return Engine(base, catalog, Policy(k=k, ev_min=None, **settled), threads=1)


PURCHASES = [
    ("ann", "bread", day(1), 150),
    ("ann", "bread", day(28), 100),
    ("ann", "tea", day(2), 300),
    ("bob", "milk", day(3), 450),
    ("cid", "tea", day(5), 0),
    # Not of the window, of another base, of another catalog:
    ("ann", "milk", day(0), 1_000),
    ("ann", "milk", day(29), 1_000),
    ("eve", "milk", day(1), 1_000),
    ("dan", "retired", day(1), 1_000),
]


def small_outcomes(engine: Engine) -> Outcomes:
    return outcomes_of(table_of(PURCHASES), engine.base, engine.catalog, window_days=28)


def contacts_of(engine: Engine, *pairs: tuple[str, str]) -> Contacts:
    return Contacts(
        np.array([engine.base.index_of(customer) for customer, _ in pairs], np.int64),
        np.array([engine.catalog.index_of(capability) for _, capability in pairs], np.int32),
        np.arange(len(pairs), 0, -1).astype(np.float64),
    )


def test_outcomes_are_the_windows_purchases_by_pair():
    engine = small_world()
    outcomes = small_outcomes(engine)
    assert outcomes.products == PRODUCTS
    assert outcomes.customer_index.tolist() == [0, 0, 1, 2]
    assert outcomes.product_code.tolist() == [0, 2, 1, 2]
    assert outcomes.cents.tolist() == [250, 300, 450, 0]
    assert outcomes.left_out == {
        "outside the window": 2,
        "unknown customer": 1,
        "product not in the catalog": 1,
    }
    shuffled = table_of(PURCHASES[::-1])
    again = outcomes_of(shuffled, engine.base, engine.catalog, window_days=28, as_of="2026-03-01")
    assert again.cents.tolist() == outcomes.cents.tolist()
    none = outcomes_of(table_of([]), engine.base, engine.catalog, window_days=1)
    assert len(none.cents) == 0


def test_bought_before_counts_days_up_to_as_of():
    engine = small_world()
    assert np.stack(bought_pairs(engine), axis=1).tolist() == [[0, 0, 2], [0, 1, 1], [1, 0, 1]]
    assert popularity_of(engine).tolist() == [3, 3, 1, 1, 0, 0]


def test_figures_of_one_arm_by_hand():
    engine = small_world()
    contacts = contacts_of(
        engine,
        ("ann", "bread|email"),  # a hit, bought before
        ("ann", "bread|letter"),  # the same purchase is captured once
        ("bob", "milk|email"),  # a hit, never bought before
        ("cid", "tea|letter"),  # a hit of nothing spent; the fact of the day after is unknown
        ("bob", "tea|email"),  # never bought, no hit
        ("ann", "milk|email"),  # bought before, no hit
    )
    counted = tally(
        contacts,
        small_outcomes(engine),
        engine.catalog,
        engine.customer_index,
        bought_pairs(engine)[:2],
    )
    # contacts, hits, cents, hits never bought before, contacts never bought before
    assert counted.per_customer.tolist() == [
        [3, 1, 250, 0, 0],
        [2, 1, 450, 1, 2],
        [1, 1, 0, 1, 1],
        [0, 0, 0, 0, 0],
    ]
    assert counted.coverage == 1.0
    assert counted.contacts_per_customer == {
        "mean": 1.5,
        "max": 3,
        # Ascending 0 1 2 3: (−3·0 − 1·1 + 1·2 + 3·3) / (4·6)
        "gini": 10 / 24,
        "histogram": [1, 1, 1, 1],
    }
    # bread 1, milk 2, tea 2 customers of 4: (0 + 2 + 2) / (3 · 5)
    assert counted.redundancy == pytest.approx(4 / 15, rel=1e-15)
    assert counted.curve == [
        {"contacts": 0, "hits": 0, "spend": 0.0},
        {"contacts": 1, "hits": 1, "spend": 2.5},
        {"contacts": 2, "hits": 1, "spend": 2.5},
        {"contacts": 3, "hits": 2, "spend": 7.0},
        {"contacts": 4, "hits": 3, "spend": 7.0},
        {"contacts": 5, "hits": 3, "spend": 7.0},
        {"contacts": 6, "hits": 3, "spend": 7.0},
    ]


def test_an_arm_without_contacts_captures_nothing():
    engine = small_world()
    counted = tally(
        contacts_of(engine),
        small_outcomes(engine),
        engine.catalog,
        engine.customer_index,
        bought_pairs(engine)[:2],
    )
    assert counted.sums.tolist() == [0] * 5
    assert (counted.coverage, counted.redundancy) == (0.0, 0.0)
    assert counted.contacts_per_customer == {"mean": 0.0, "max": 0, "gini": 0.0, "histogram": [4]}
    assert counted.curve == [{"contacts": 0, "hits": 0, "spend": 0.0}]


@settings(max_examples=50)
@given(st.lists(st.sets(st.integers(0, 5)), min_size=2, max_size=7))
def test_redundancy_is_the_mean_overlap_of_two_customers(contacted):
    reached = np.bincount([p for own in contacted for p in own], minlength=6)
    n, total = len(contacted), sum(map(len, contacted))
    shared = 2 * sum(len(one & other) for one, other in combinations(contacted, 2))
    expected = Fraction(shared, (n - 1) * total) if total else Fraction(0)
    assert redundancy(reached, n) == pytest.approx(float(expected), rel=1e-14)


def test_redundancy_gives_jaccard_where_all_get_equally_many():
    same, apart = np.array([4, 4, 0]), np.array([1, 1, 1])
    assert redundancy(same, 4) == 1.0
    assert redundancy(apart, 3) == 0.0
    assert redundancy(same, 1) == 0.0


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_gini_is_half_the_relative_mean_difference(amounts):
    total = sum(amounts)
    apart = sum(abs(a - b) for a in amounts for b in amounts)
    expected = apart / (2 * len(amounts) * total) if total else 0.0
    assert gini(np.array(amounts)) == pytest.approx(expected, abs=1e-12)


def test_resampling_draws_as_many_customers_as_there_are():
    totals = np.stack([np.ones(50, np.int64), np.arange(50)], axis=1)
    drawn = resample(totals, 2_000, 1)
    assert (drawn[:, 0] == 50).all()
    assert (drawn == np.rint(drawn)).all()
    mean, deviation = drawn[:, 1].mean(), drawn[:, 1].std()
    expected = np.arange(50).std() * math.sqrt(50)
    assert abs(mean - totals[:, 1].sum()) < 4 * expected / math.sqrt(2_000)
    assert abs(deviation / expected - 1) < 0.08
    assert np.array_equal(drawn, resample(totals, 2_000, 1))
    assert not np.array_equal(drawn, resample(totals, 2_000, 2))
    assert resample(totals, 0, 1).shape == (0, 2)


def test_an_interval_covers_what_it_should_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        hits = rng.binomial(5, 0.3, size=80)
        sums = np.stack([np.full(80, 5), hits], axis=1)
        found = Resampled.of(sums, 300, seed).interval(lambda s: s[..., 1] / s[..., 0])
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.3 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


@pytest.fixture(scope="module")
def random_engine() -> Engine:
    rng = np.random.default_rng(11)
    n, m = 120, 24
    x = rng.normal(size=(n, 6)).astype(np.float32)
    ids = [f"c{i:03}" for i in range(n)]
    products = rng.integers(0, 12, m)
    base = Base.from_tables(
        pa.table({"customer_id": ids, **{f"i{d}": x[:, d] for d in range(6)}}),
        as_of=AS_OF,
        attributes=pa.table({"customer_id": ids, "age": rng.integers(10, 80, n)}),
        facts=pa.table(
            {
                "customer_id": [ids[i] for i in rng.integers(0, n, 400)],
                "product": [f"p{p:02}" for p in rng.choice(products, 400)],
                "kind": ["bought"] * 400,
                "date": pa.array([day(-int(d)) for d in rng.integers(0, 60, 400)], pa.date32()),
            }
        ),
    )
    catalog = Catalog.from_rows(
        {
            "id": f"o{j:02}",
            "product": f"p{products[j]:02}",
            "channel": ("email", "letter")[j % 2],
            "weights": {f"i{d}": float(rng.normal()) for d in range(6)},
            "bias": float(rng.normal() - 1),
            "value": float(rng.uniform(1, 9)),
            "cost": 0.25,
            "link": ("logistic", "count")[j % 2],
            "rule": "age >= 18" if j % 3 == 0 else None,
        }
        for j in range(m)
    )
    policy = Policy(k=3, product_limit=1, consent_not_needed=("email", "letter"))
    return Engine(base, catalog, policy, threads=2)


@pytest.fixture(scope="module")
def random_outcomes(random_engine: Engine) -> Outcomes:
    rng = np.random.default_rng(12)
    ids, labels = random_engine.base.customer_ids.to_pylist(), random_engine.catalog.products
    rows = [
        (
            ids[rng.integers(len(ids))],
            labels[rng.integers(len(labels))],
            day(int(rng.integers(1, 29))),
            int(rng.integers(50, 900)),
        )
        for _ in range(500)
    ]
    return outcomes_of(table_of(rows), random_engine.base, random_engine.catalog, window_days=28)


@pytest.fixture(scope="module")
def evaluation(random_engine: Engine, random_outcomes: Outcomes) -> Evaluation:
    return evaluate(random_engine, random_outcomes, bootstrap=200, seed=4)


def without_seconds(found: Evaluation) -> dict[str, Any]:
    return {name: part for name, part in found.to_dict().items() if name != "seconds"}


def test_the_comparison_says_what_was_asked(evaluation):
    assert evaluation.setting == {
        "as_of": "2026-03-01",
        "window_days": 28,
        "contacts_per_customer": 3,
        "customer_count": 120,
        "capability_count": 24,
        "budget": 360,
        "by": "expected_value",
        "cap": 6,
        "campaign_share": 0.2,
        "confidence": 0.95,
        "bootstrap": 200,
        "seed": 4,
    }
    assert [figures.name for figures in evaluation.arms] == list(ARMS)
    assert set(evaluation.seconds) == {"scores", *ARMS}
    assert json.loads(json.dumps(evaluation.to_dict(), allow_nan=False)) == evaluation.to_dict()
    assert evaluation.arm("A1").label == "campaigns, each to its best 20 %"
    with pytest.raises(InputError, match="arm"):
        evaluation.arm("A9")


def test_a_rerun_gives_the_same_numbers(evaluation, random_engine, random_outcomes):
    fresh = Engine(random_engine.base, random_engine.catalog, random_engine.policy, threads=1)
    again = evaluate(fresh, random_outcomes, bootstrap=200, seed=4)
    assert without_seconds(again) == without_seconds(evaluation)
    few = evaluate(fresh, random_outcomes, arms=("G", "A1"), bootstrap=200, seed=4)
    assert few.arm("G").to_dict() == evaluation.arm("G").to_dict()
    assert [(each.arm, each.against) for each in few.differences] == [("G", "A1")]


def test_figures_follow_from_contacts(evaluation, random_engine, random_outcomes):
    spent_in_all = int(random_outcomes.cents.sum())
    bought = set(
        zip(
            random_outcomes.customer_index.tolist(),
            random_outcomes.product_code.tolist(),
            strict=True,
        )
    )
    codes = random_engine.catalog.codes("product")[0]
    for figures in evaluation.arms:
        said = figures.to_dict()
        contacts = figures.contacts
        pairs = list(
            zip(
                contacts.customer_index.tolist(),
                codes[contacts.capability_index].tolist(),
                strict=True,
            )
        )
        assert said["contact_count"] == len(pairs)
        assert said["hit_count"] == len(bought & set(pairs))
        assert said["hit_rate"]["value"] == said["hit_count"] / len(pairs)
        assert said["spend_share"]["value"] == pytest.approx(
            100 * said["spend"]["value"] / spent_in_all
        )
        assert said["curve"][-1] == {
            "contacts": len(pairs),
            "hits": said["hit_count"],
            "spend": said["spend"]["value"],
        }
        assert len(said["curve"]) <= 51
        histogram = said["contacts_per_customer"]["histogram"]
        assert sum(histogram) == 120
        assert sum(i * count for i, count in enumerate(histogram)) == len(pairs)
        assert said["never_bought_hit_count"] <= said["never_bought_contact_count"] <= len(pairs)
        rate = said["never_bought_hit_rate"]["value"]
        assert rate == said["never_bought_hit_count"] / len(pairs)
        for name in ("hit_rate", "spend", "spend_share", "never_bought_hit_rate"):
            held = said[name]
            assert held["low"] <= held["value"] <= held["high"]


def test_differences_are_paired_and_within_one_contact_policy(evaluation):
    compared = [(each.arm, each.against) for each in evaluation.differences]
    assert compared == [
        *[("B", name) for name in ("A0", "A2", "A2w", "A4", "S")],
        *[("G", name) for name in ("A1", "A3")],
    ]
    policy_of = {figures.name: figures.contact_policy for figures in evaluation.arms}
    assert policy_of["G_cap"] == "at most 6 per customer"
    for each in evaluation.differences:
        one, other = evaluation.arm(each.arm), evaluation.arm(each.against)
        assert each.contact_policy == policy_of[each.against]
        assert policy_of[each.arm] == each.contact_policy
        value = one.hit_rate.value - other.hit_rate.value
        assert each.hit_rate.value == pytest.approx(value, abs=1e-15)
        # Two intervals laid side by side are wider than that of the paired difference.
        apart = one.hit_rate.high - one.hit_rate.low + other.hit_rate.high - other.hit_rate.low
        assert each.hit_rate.high - each.hit_rate.low < apart


def test_under_the_cap_of_k_the_global_best_is_one_to_one(random_engine, random_outcomes):
    found = evaluate(random_engine, random_outcomes, arms=("B", "G_cap"), cap=3, bootstrap=50)
    (difference,) = found.differences
    assert difference.contact_policy == found.arm("G_cap").contact_policy
    assert found.arm("G_cap").contact_policy == "at most k per customer"
    assert difference.hit_rate == (0.0, 0.0, 0.0)
    assert difference.spend_share == (0.0, 0.0, 0.0)


def test_whoever_objected_counts_nowhere():
    engine = small_world()
    ids = engine.base.customer_ids
    objecting = Base.from_tables(
        pa.table({"customer_id": ids, "visits": engine.base.indicators[:, 0]}),
        as_of=AS_OF,
        attributes=pa.table(
            {"customer_id": ids, "objected": [name == "ann" for name in ids.to_pylist()]}
        ),
    )
    quiet = Engine(objecting, engine.catalog, engine.policy, threads=1)
    found = evaluate(quiet, small_outcomes(quiet), bootstrap=0)
    assert found.setting["customer_count"] == 3
    for figures in found.arms:
        assert 0 not in figures.contacts.customer_index
        assert sum(figures.tally.contacts_per_customer["histogram"]) == 3
    # Everybody gets bread and milk from the match; of 4.50 + 0.00 spent, bob's milk is captured.
    assert found.arm("B").spend_share == (1.0, None, None)
    assert found.arm("B").hit_rate == (1 / 6, None, None)


def test_propensity_ranks_as_if_every_value_were_one(random_engine, random_outcomes):
    by_propensity = evaluate(random_engine, random_outcomes, by="propensity", bootstrap=0)
    policy = random_engine.policy.model_copy(update={"ev_min": None})
    plain = Engine(
        random_engine.base, random_engine.catalog.with_columns(value=1.0, cost=0.0), policy
    )
    # The minimum stays one of expected value, so that the plain engine may contact more pairs.
    allowed = PairScores(random_engine).rows(np.arange(120)) > -np.inf
    kept = PairScores(random_engine, "propensity").rows(np.arange(120))
    assert np.array_equal(kept > -np.inf, allowed)
    assert np.array_equal(kept[allowed], PairScores(plain).rows(np.arange(120))[allowed])
    assert by_propensity.setting["by"] == "propensity"


def test_sensitivity_has_a_row_per_setting_and_arm(random_engine):
    asked = []

    def make_world(as_of: date, window_days: int) -> tuple[Engine, Outcomes]:
        asked.append((as_of, window_days))
        engine = Engine(
            random_engine.base, random_engine.catalog, random_engine.policy, as_of=as_of, threads=1
        )
        rows = [("c001", "p01", as_of + timedelta(days=window_days), 100)]
        return engine, outcomes_of(
            table_of(rows), engine.base, engine.catalog, window_days=window_days, as_of=as_of
        )

    ticks: list[tuple[int, int]] = []
    rows = sensitivity(
        make_world,
        ["2026-03-01", date(2026, 3, 8)],
        [7, 14],
        [1, 3],
        arms=("B", "A1"),
        progress=lambda *tick: ticks.append(tick),
    )
    assert len(asked) == 4
    assert ticks == [(done, 8) for done in range(1, 9)]
    assert len(rows) == 16
    assert set(rows[0]) == {
        *("as_of", "window_days", "contacts_per_customer"),
        *("arm", "hit_rate", "spend_share"),
    }
    keys = [(r["as_of"], r["window_days"], r["contacts_per_customer"], r["arm"]) for r in rows]
    assert len(set(keys)) == 16
    one = evaluate(*make_world(date(2026, 3, 8), 14), arms=("B",), bootstrap=0).arm("B")
    (row,) = [row for row, key in zip(rows, keys, strict=True) if key == ("2026-03-08", 14, 3, "B")]
    assert (row["hit_rate"], row["spend_share"]) == (one.hit_rate.value, one.spend_share.value)


@pytest.mark.parametrize(
    ("column", "cells", "error", "said"),
    [
        ("customer_id", pa.array([1, 2]), SchemaError, r"outcomes\.customer_id.*string"),
        ("product", pa.array(["tea", None]), InputError, r"outcomes\.product, row 1.*null"),
        ("date", pa.array(["2026-03-02"] * 2), SchemaError, r"outcomes\.date.*a date"),
        ("cents", pa.array([1.5, 2.0]), SchemaError, r"outcomes\.cents.*integer"),
        ("cents", pa.array([5, -1]), InputError, r"outcomes\.cents, row 1.*-1"),
        ("cents", pa.array([2**64 - 1, 1], pa.uint64()), InputError, r"outcomes\.cents, row 0"),
        ("cents", pa.array([2**46, 1]), LimitError, r"outcomes\.cents.*2\^46"),
        ("amount", pa.array([1, 1]), SchemaError, r"outcomes\.amount"),
    ],
)
def test_outcomes_refuse_what_does_not_fit(column, cells, error, said):
    engine = small_world()
    table = table_of([("ann", "tea", day(1), 5)] * 2)
    names = table.column_names
    table = (
        table.set_column(names.index(column), column, cells)
        if column in names
        else table.append_column(column, cells)
    )
    with pytest.raises(error, match=said):
        outcomes_of(table, engine.base, engine.catalog, window_days=28)


def test_outcomes_refuse_other_shapes():
    engine = small_world()
    for missing in ("customer_id", "product", "date", "cents"):
        table = table_of(PURCHASES).drop_columns([missing])
        with pytest.raises(SchemaError, match=rf"outcomes\.{missing}: is missing"):
            outcomes_of(table, engine.base, engine.catalog, window_days=28)
    with pytest.raises(SchemaError, match=r"pyarrow\.Table"):
        outcomes_of([], engine.base, engine.catalog, window_days=28)
    with pytest.raises(InputError, match="window_days"):
        outcomes_of(table_of([]), engine.base, engine.catalog, window_days=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "value"}, "by: must be one of"),
        ({"arms": ("B", "C")}, "arms, row 1"),
        ({"arms": ("B", "B")}, "arms: must not repeat"),
        ({"arms": ()}, "arms"),
        ({"arms": "B"}, "arms"),
        ({"cap": 1}, "cap"),
        ({"share": 0.0}, "share"),
        ({"bootstrap": -1}, "bootstrap"),
        ({"seed": 1.5}, "seed"),
        ({"popularity": [1.0]}, "popularity"),
        ({"popularity": ["a"] * 6}, "popularity"),
        ({"popularity": [1, 2, math.nan, 4, 5, 6]}, "popularity, row 2"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(options, said):
    engine = small_world()
    with pytest.raises(InputError, match=said):
        evaluate(engine, small_outcomes(engine), **options)


def test_evaluate_refuses_outcomes_of_another_world():
    engine = small_world()
    other = Engine(engine.base, engine.catalog, engine.policy, as_of=day(1))
    with pytest.raises(InputError, match=r"outcomes\.as_of"):
        evaluate(other, small_outcomes(engine))
    fewer = Engine(engine.base, engine.catalog.take([0, 1]), engine.policy)
    with pytest.raises(InputError, match=r"outcomes\.products"):
        evaluate(fewer, small_outcomes(engine))
    one = pa.table({"customer_id": ["ann"], "visits": [1.0]})
    alone = Engine(Base.from_tables(one, as_of=AS_OF), engine.catalog, engine.policy)
    with pytest.raises(InputError, match=r"outcomes\.customer_index"):
        evaluate(alone, small_outcomes(engine))
    nobody = small_world(exclusions={"customers": ["ann", "bob", "cid", "dan"]})
    with pytest.raises(InputError, match="nobody"):
        evaluate(nobody, small_outcomes(nobody))
    with pytest.raises(InputError, match="contacts"):
        sensitivity(lambda *_: None, [AS_OF], [7], [0])
    with pytest.raises(InputError, match="windows"):
        sensitivity(lambda *_: None, [AS_OF], [0], [5])
    with pytest.raises(InputError, match="cuts"):
        sensitivity(lambda *_: None, ["yesterday"], [7], [5])


def test_the_forms_of_the_same_work_send_the_same(random_engine):
    # What float32 rounds away decides nothing on these data, so all forms agree on contacts.
    work = timing._Work.of(random_engine, 0.2)
    assert timing._batched(work) == random_engine.match().opportunity_count
    loop = timing.run_campaigns(random_engine, share=0.2)
    pytest.importorskip("pandas")
    assert timing._pandas_loop(work, np.arange(24)) == len(loop.customer_index)


def test_times_are_compared_by_turns(random_engine):
    ticks = []
    found = compare_times(
        random_engine, rounds=2, campaigns_max=6, progress=lambda *tick: ticks.append(tick)
    )
    forms = list(found["seconds"])
    assert set(forms) <= set(timing.FORMS)
    assert {"campaigns_numpy", "batched_blas", "match"} <= set(forms)
    assert found["pairs"] == 120 * 24
    assert found["rounds"] == 2
    assert ticks[-1] == (3 * len(forms), 3 * len(forms))
    assert found["ratio_to_match"]["match"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    if "campaigns_pandas" in forms:
        assert found["extrapolated"] == {"campaigns_pandas": 6}
        assert "ran 6 of 24" in found["note"]
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(InputError, match="share"):
        compare_times(random_engine, share=0.0)
    with pytest.raises(InputError, match="rounds"):
        compare_times(random_engine, rounds=0)


def test_without_pandas_its_form_is_skipped_by_name(random_engine, monkeypatch):
    monkeypatch.setattr(timing.importlib.util, "find_spec", lambda _: None)
    found = compare_times(random_engine, rounds=1)
    assert found["skipped"] == {"campaigns_pandas": "pandas is not installed"}
    assert "campaigns_pandas was skipped" in found["note"]
    assert "campaigns_pandas" not in found["seconds"]
    assert found["extrapolated"] == {}


def test_nothing_is_said_to_be_caused(evaluation):
    assert "caus" not in json.dumps(evaluation.to_dict())
