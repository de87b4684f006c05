"""The reverse question, against every customer sorted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import visavis
from visavis.engine import blocks
from visavis.errors import InputError, NotFoundError, SchemaError
from visavis.policy import Policy
from worlds import World, worlds

SCHEMA = pa.schema(
    {
        "capability_id": pa.string(),
        "rank": pa.int32(),
        "customer_id": pa.string(),
        "propensity": pa.float64(),
        "expected_value": pa.float64(),
        "control": pa.bool_(),
    }
)


def expected(world: World, asked: set[int], k: int) -> list[tuple[Any, ...]]:
    least = -np.inf if world.policy.ev_min is None else world.policy.ev_min
    rows = []
    for j in sorted(asked):
        ev, propensity = world.scores.expected_value[:, j], world.scores.propensity[:, j]
        # NaN, where no score exists, is not at least anything.
        fits = [i for i in range(len(ev)) if world.allowed[i, j] and ev[i] >= least]
        for rank, i in enumerate(sorted(fits, key=lambda i: (-ev[i], i))[:k]):
            about = (world.offers[j]["id"], rank + 1, world.customers[i])
            rows.append((*about, propensity[i].hex(), ev[i].hex(), world.is_control(i)))
    return rows


def in_short(table: pa.Table) -> list[tuple[Any, ...]]:
    return [
        (*about, propensity.hex(), ev.hex(), control)
        for *about, propensity, ev, control in (row.values() for row in table.to_pylist())
    ]


@settings(max_examples=120)
@given(
    worlds(customers_max=14, capabilities_max=6),
    st.data(),
    st.sampled_from([1, 2, 3, 14, 20]),
    st.sampled_from([1, 2, 3, 4096]),
    st.sampled_from([1, 3]),
)
def test_an_audience_is_the_best_of_everybody(
    world: World, data: st.DataObject, k: int, block_rows: int, threads: int
) -> None:
    asked = data.draw(st.lists(st.integers(0, len(world.offers) - 1), min_size=1, max_size=8))
    ids = [world.offers[j]["id"] for j in asked]
    with mock.patch.object(blocks, "BLOCK_ROWS", block_rows):
        found = world.engine(threads=threads).audience(ids, k=k)
    assert found.schema == SCHEMA
    assert in_short(found) == expected(world, set(asked), k)


@pytest.fixture(scope="module")
def world() -> World:
    """Five customers, of whom four tie."""
    return World(
        indicators=np.array([[1], [2], [1], [1], [1]], np.float32),
        indicator_names=("x",),
        customer_ids=("é", "b", "𝄞", "ﬀ", "a"),
        attributes={},
        facts=(),
        capabilities=tuple(
            {
                "id": name,
                "product": "p",
                "channel": "email",
                "weights": {"x": 1.0},
                "bias": 0.0,
                "value": 1.0,
                "cost": 0.0,
                "link": "identity",
            }
            for name in ("one", "two")
        ),
        policy=Policy(consent_not_needed=("email",), product_limit=1, k=1),
    )


def test_ties_go_by_customer_id_across_blocks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block_rows in (1, 2, 3, 5):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
        found = world.engine(threads=2).audience(["one"], k=4)
        assert found["customer_id"].to_pylist() == ["b", "a", "é", "ﬀ"]
        assert found["rank"].to_pylist() == [1, 2, 3, 4]


def test_no_limit_of_a_customer_applies_to_an_audience(world: World) -> None:
    found = world.engine().audience(["two", "one", "two"], k=9)
    assert found["capability_id"].to_pylist() == ["one"] * 5 + ["two"] * 5


def test_the_function_asks_the_engine(world: World) -> None:
    args = (world.base, world.catalog, world.policy)
    found = visavis.audience(*args, ["one"], k=2, threads=1, as_of="2020-02-29")
    assert found.equals(world.engine().audience(["one"], k=2))


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "3", None, True])
def test_the_size_of_an_audience_is_checked_even_where_there_is_nobody(
    world: World, wrong: Any
) -> None:
    nobody = replace(world, policy=world.policy.model_copy(update={"ev_min": float("inf")}))
    for each in (world, nobody):
        with pytest.raises(InputError) as caught:
            each.engine().audience(["one"], k=wrong)
        assert caught.value.field == "k"


def test_the_capabilities_asked_are_checked(world: World) -> None:
    with pytest.raises(NotFoundError, match="'three'"):
        world.engine().audience(["one", "three"], k=1)
    with pytest.raises(InputError, match="at least one") as caught:
        world.engine().audience([], k=1)
    assert caught.value.field == "capability_ids"
    with pytest.raises(SchemaError, match="one text") as caught:
        world.engine().audience("one", k=1)
    assert caught.value.field == "capability_ids"
