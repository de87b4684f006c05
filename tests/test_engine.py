"""The match of whole worlds against the oracle, bit for bit, however the work is cut."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import visavis
from assertions import assert_same_match, assert_same_scores
from visavis import kernel
from visavis.catalog import Catalog
from visavis.engine import OPPORTUNITY_SCHEMA, Engine, Matches, blocks, matches
from visavis.errors import InputError, LimitError, NotFoundError, RuleError, SchemaError
from visavis.policy import Exclusions, Policy
from worlds import AS_OF, World, ago, worlds

FREE = {"consent_not_needed": ("email",)}


def exactly(rows: Any) -> Any:
    """Floats by their bits: −0.0 is not 0.0 here."""
    if isinstance(rows, list):
        return [exactly(row) for row in rows]
    if isinstance(rows, dict):
        return {name: exactly(cell) for name, cell in rows.items()}
    return rows.hex() if isinstance(rows, float) else rows


def small(
    weights: list[list[float]], ids: str = "abcdefgh", *, policy: Any = None, **columns: list[Any]
) -> World:
    """A capability per row of weights, a customer per column, identity link: ev is the weight."""
    n = len(weights[0])
    rows = [
        {
            "id": f"t{number}",
            "product": f"p{number}",
            "channel": "email",
            "weights": {f"x{d}": weight for d, weight in enumerate(row)},
            "bias": 0.0,
            "value": 1.0,
            "cost": 0.0,
            "link": "identity",
            **{name: cells[number] for name, cells in columns.items()},
        }
        for number, row in enumerate(weights)
    ]
    return World(
        indicators=np.eye(n, dtype=np.float32),
        indicator_names=tuple(f"x{d}" for d in range(n)),
        customer_ids=tuple(ids[:n]),
        attributes={},
        facts=(),
        capabilities=tuple(rows),
        policy=Policy(**{"ev_min": None, **FREE, **(policy or {})}),
    )


@settings(max_examples=150)
@given(worlds())
def test_a_match_is_the_definition_to_the_bit(world: World) -> None:
    found = world.engine(threads=1).match()
    inside = [i for i in range(len(world.customers)) if not world.is_out(i)]
    assert found.customer_index.tolist() == inside
    expected = reference.Match(*(field[inside] for field in world.matched))
    assert_same_match(found.result, expected)
    assert exactly(found.to_table().to_pylist()) == exactly(world.expected_rows())
    assert found.opportunity_count == len(world.expected_rows())


@settings(max_examples=60)
@given(
    worlds(customers_max=12),
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 2**32 - 1),
)
def test_nothing_depends_on_how_the_work_is_cut_or_the_rows_are_ordered(
    world: World, block_rows: int, threads: int, seed: int
) -> None:
    wanted = world.engine(threads=1).match()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(world.customer_ids))
    shuffled = replace(
        world,
        indicators=world.indicators[order],
        customer_ids=tuple(world.customer_ids[i] for i in order),
        attributes={name: world.attributes[name] for name in rng.permutation([*world.attributes])},
        facts=tuple(world.facts[i] for i in rng.permutation(len(world.facts))),
        capabilities=tuple(world.capabilities[i] for i in rng.permutation(len(world.offers))),
    )
    for variant in (name for name, is_supported in kernel.variants().items() if is_supported):
        with mock.patch.object(blocks, "BLOCK_ROWS", block_rows):
            found = shuffled.engine(threads=threads, variant=variant).match()
        assert found.variant == variant
        assert_same_match(found.result, wanted.result)
        assert found.digest() == wanted.digest()


def test_the_table_has_its_schema_and_contiguous_ranks() -> None:
    world = small([[1, 5], [2, 4], [3, 3]], policy={"k": 2, "control_share": 0.5})
    table = world.engine().match().to_table()
    assert table.schema == OPPORTUNITY_SCHEMA
    rows = table.drop_columns("reasons").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("a", 1, "t2", 3.0, 3.0, world.is_control(0)),
        ("a", 2, "t1", 2.0, 2.0, world.is_control(0)),
        ("b", 1, "t0", 5.0, 5.0, world.is_control(1)),
        ("b", 2, "t1", 4.0, 4.0, world.is_control(1)),
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 100])
def test_as_many_reasons_as_asked_and_no_more_than_there_are(count: int) -> None:
    names = ("b", "h", "é", "a", "i", "zero", "down")
    term = {"kind": "bought", "feature": "ever", "weight": 2.0}
    world = replace(
        small([[0]]),
        indicators=np.array([[2, 2, 2, 3, 2, 0, 1]], np.float32),
        indicator_names=names,
        facts=({"customer_id": "a", "product": "p", "kind": "bought", "date": AS_OF, "count": 1},),
        capabilities=(
            {
                **small([[0]]).capabilities[0],
                "product": "p",
                "weights": {**dict.fromkeys(names, 1.0), "down": -1.0},
                "history_weights": [term],
            },
        ),
    )
    (row,) = world.engine().match().to_table(reasons=count).to_pylist()
    ordered = [("a", 3.0), ("b", 2.0), ("h", 2.0), ("history", 2.0), ("i", 2.0), ("é", 2.0)]
    assert [tuple(reason.values()) for reason in row["reasons"]] == ordered[:count]


@settings(max_examples=40)
@given(worlds(), st.integers(0, 12) | st.just(1_000), st.booleans())
def test_reasons_are_the_largest_positive_terms(
    world: World, count: int, distinctive: bool
) -> None:
    with mock.patch.object(matches, "_REASON_CELLS", 7):
        matched = world.engine(threads=1).match()
        found = matched.to_table(reasons=count, distinctive=distinctive)
    assert exactly(found.to_pylist()) == exactly(world.expected_rows(count, distinctive))


def test_what_every_capability_weighs_alike_is_no_distinctive_reason() -> None:
    world = small([[2, 2]], policy={"k": 2})
    plain = world.engine().match().to_table()
    assert [len(reasons) for reasons in plain["reasons"].to_pylist()] == [1, 1]
    distinctive = world.engine().match().to_table(distinctive=True)
    assert distinctive["reasons"].to_pylist() == [[], []]


def test_reasons_may_be_left_out() -> None:
    found = small([[1]]).engine().match()
    assert found.to_table(reasons=None).equals(found.to_table().drop_columns(["reasons"]))


@pytest.mark.parametrize("wrong", [-1, 1.0, "3", True])
def test_the_number_of_reasons_is_checked(wrong: Any) -> None:
    found = small([[1]]).engine().match()
    with pytest.raises(InputError) as caught:
        found.to_table(reasons=wrong)
    assert caught.value.field == "reasons"


def all_objected(world: World) -> World:
    consents = {f"consent_{channel}": True for channel in ("email", "phone", "letter")}
    unknown = dict.fromkeys(("age", "country", "member", "born", "score"))
    row = {**unknown, **consents, "objected": True}
    return replace(world, attributes=dict.fromkeys(world.customer_ids, row))


NOBODY = {
    "all objected": all_objected(small([[1, 2]])),
    "all excluded": small([[1, 2]], policy={"exclusions": Exclusions(customers=("a", "b"))}),
    "not valid": small([[1, 2]], valid_to=[ago(1)]),
    "nothing worth it": small([[1, 2]], policy={"ev_min": float("inf")}),
    "no rule holds": small([[1, 2]], rule=["null"]),
}


@pytest.mark.parametrize("world", NOBODY.values(), ids=NOBODY.keys())
def test_a_match_of_nothing_is_an_empty_table(world: World) -> None:
    for threads in (1, 3):
        engine = world.engine(threads=threads)
        found = engine.match()
        assert found.opportunity_count == 0
        assert found.to_table().schema == OPPORTUNITY_SCHEMA
        assert found.to_table().num_rows == 0
        assert found.digest() == small([[1]], rule=["null"]).engine().match().digest()
        assert set(found.stats) == set(small([[1]]).engine().match().stats)
        people = engine.audience(["t0"], k=3)
        assert people.num_rows == 0
        assert people.schema == small([[1]]).engine().audience(["t0"], k=3).schema


def test_as_of_changes_validity_and_decay() -> None:
    term = {"kind": "bought", "feature": "days", "half_life_days": 1.0, "weight": 8.0}
    world = replace(
        small([[0], [1]], history_weights=[[term], []], valid_to=[None, AS_OF]),
        facts=({"customer_id": "a", "product": "p0", "kind": "bought", "date": AS_OF, "count": 1},),
    )
    found = {}
    for days in (0, 1, 2):
        day = AS_OF + timedelta(days=days)
        found[days] = visavis.match(
            world.base, world.catalog, world.policy, as_of=day.isoformat()
        ).to_table()
    for days, ids, values in (
        (0, ["t0", "t1"], [8.0, 1.0]),
        (1, ["t0"], [4.0]),
        (2, ["t0"], [2.0]),
    ):
        assert found[days]["capability_id"].to_pylist() == ids
        assert found[days]["expected_value"].to_pylist() == values
    default = visavis.match(world.base, world.catalog, world.policy)
    assert default.to_table().equals(found[0])
    with pytest.raises(InputError, match="before the base's as_of") as caught:
        Engine(world.base, world.catalog, world.policy, as_of=AS_OF - timedelta(days=1))
    assert caught.value.field == "as_of"


@settings(max_examples=40)
@given(worlds(customers_max=10), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_the_oracle_for_any_rows(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    objected = world.base.attributes["objected"].to_numpy()
    willing = np.flatnonzero(~objected.astype(bool))
    rows = rng.choice(willing, rng.integers(0, 9)) if len(willing) else willing
    wanted = reference.Scores(*(field[rows] for field in world.scores))
    assert_same_scores(world.engine().scores(rows), wanted)
    wanted = reference.Scores(*(field[willing] for field in world.scores))
    assert_same_scores(world.engine().scores(willing), wanted)
    if objected.any():
        with pytest.raises(InputError, match="objected") as caught:
            world.engine().scores(np.arange(len(world.customers)))
        assert caught.value.row == int(np.argmax(objected))


@pytest.mark.parametrize(
    ("wrong", "row"),
    [
        ([0, 2], 1),
        ([0, -1], 1),
        ([[0]], None),
        ([True, False], None),
        ([0.5], None),
        (["a"], None),
        (0, None),
    ],
)
def test_rows_that_the_base_does_not_hold_have_no_scores(wrong: Any, row: int | None) -> None:
    with pytest.raises(InputError) as caught:
        small([[1, 2]]).engine().scores(wrong)
    assert (caught.value.field, caught.value.row) == ("customer_index", row)


def test_dense_scores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = small([[1, 2, 3], [1, 2, 3]]).engine()
    monkeypatch.setattr(kernel, "DENSE_PAIRS_MAX", 4)
    assert engine.scores([0, 1]).expected_value.shape == (2, 2)
    with pytest.raises(LimitError) as caught:
        engine.scores([0, 1, 2])
    assert caught.value.field == "customer_index"


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_the_number_of_threads_is_checked(wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        small([[1]]).engine(threads=wrong)
    assert caught.value.field == "threads"


def test_what_does_not_fit_together_is_refused_when_the_engine_is_made() -> None:
    world = small([[1]])
    with pytest.raises(InputError, match="'b' is not in the base") as caught:
        replace(world, policy=Policy(**FREE, exclusions=Exclusions(customers=("a", "b")))).engine()
    assert caught.value.field == "policy.exclusions.customers"
    with pytest.raises(SchemaError, match="consent_fax"):
        small([[1], [2]], channel=["email", "fax"]).engine()
    with pytest.raises(RuleError, match="capability 't0'"):
        small([[1]], rule=["nobody >= 3"]).engine()
    with pytest.raises(InputError) as caught:
        Engine(world.base, world.catalog, world.policy, as_of="2020-02-30")
    assert caught.value.field == "as_of"
    with pytest.raises(InputError) as caught:
        world.engine(variant="abacus")
    assert caught.value.field == "variant"
    catalog = Catalog.from_rows([{**world.capabilities[0], "weights": {"y": 1}}])
    with pytest.raises(SchemaError, match="capability 't0'"):
        Engine(world.base, catalog, world.policy)


def test_progress_counts_customers_up_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 2)
    world = small([[1] * 7])
    for question in (Engine.match, lambda engine, **o: engine.audience(["t0"], k=2, **o)):
        seen: list[tuple[int, int]] = []

        def tick(*at: int, seen: list[Any] = seen) -> None:
            seen.append(at)

        question(world.engine(threads=2), progress=tick)
        done = [count for count, _ in seen]
        assert done[0] == 0
        assert done == sorted(done)
        assert seen[-1] == (7, 7)
        assert {total for _, total in seen} == {7}


class Stop(BaseException):
    """As KeyboardInterrupt, but nobody else raises it."""


def test_the_first_failure_stops_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 1)
    begun: list[int] = []
    rows = np.arange(500)

    def work(block: np.ndarray) -> int:
        begun.append(int(block[0]))
        if block[0] == 3:
            raise Stop
        if block[0] > 3:
            time.sleep(0.005)
        return 0

    with pytest.raises(Stop):
        list(blocks.over_blocks(rows, 2, work, None))
    assert 3 in begun
    assert len(begun) < len(rows) - 100


def test_a_progress_bar_that_fails_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 1)
    gate, begun = threading.Event(), []

    def work(block: np.ndarray) -> None:
        begun.append(block)
        if len(begun) > 1:
            gate.wait(timeout=20)
            # A thread takes less for all the others than a busy machine to get to the failure.
            time.sleep(0.005)

    def progress(done: int, _: int) -> None:
        if done:
            gate.set()
            raise Stop

    with pytest.raises(Stop):
        list(blocks.over_blocks(np.arange(5_000), 2, work, progress))
    assert len(begun) < 5_000


def test_blocks_come_back_in_the_order_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for block_rows, threads in ((1, 4), (3, 2), (100, 3)):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
        rows = np.array([2, 3, 5, 7, 11, 13, 17])
        found = list(blocks.over_blocks(rows, threads, lambda block: block.sum(), None))
        assert np.concatenate([block for block, _ in found]).tolist() == rows.tolist()
        assert all(block.sum() == total for block, total in found)
        assert len(found) >= min(threads, 7)


def test_the_answers_name_their_engine() -> None:
    world = small([[1]])
    found = visavis.match(world.base, world.catalog, world.policy, threads=1)
    assert isinstance(found, Matches)
    assert found.engine.as_of == AS_OF
    assert found.variant in kernel.variants()
    assert found.stats["screened"] == 1
    with pytest.raises(NotFoundError, match="'t9'"):
        visavis.explain(world.base, world.catalog, world.policy, "a", "t9")


def test_the_history_of_some_rows_is_that_of_each() -> None:
    rng = np.random.default_rng(3)
    present = rng.random((9, 7)) < 0.4
    present[[0, 4]] = False
    present[5] = True
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    values = rng.normal(size=present.sum()).astype(np.float32)
    history = kernel.History(indptr, np.nonzero(present)[1].astype(np.int32), values)
    wanted = np.zeros(present.shape)
    wanted[present] = values
    for rows in ([], [0], [8], [1, 2, 3], [3, 1], [5, 5, 0, 5], list(range(9)), [0, 4, 8]):
        part = blocks.history_of(history, np.array(rows, np.int64))
        dense = reference.history_matrix(part, len(rows), 7)
        np.testing.assert_array_equal(dense, wanted[rows])


def test_a_table_of_many_customers_is_joined_in_order() -> None:
    n = 3 * blocks.BLOCK_ROWS + 5
    ids = pa.array([f"c{number:06}" for number in range(n)])
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    base = visavis.Base.from_tables(
        pa.table({"customer_id": ids, "x0": x[:, 0], "x1": x[:, 1]}), as_of=AS_OF
    )
    world = small([[1, 0], [0, 1]], policy={"k": 1})
    table = visavis.match(base, world.catalog, world.policy, threads=2).to_table()
    assert table["customer_id"].to_pylist() == ids.to_pylist()
    assert table["expected_value"].to_pylist() == x.max(axis=1).astype(np.float64).tolist()
