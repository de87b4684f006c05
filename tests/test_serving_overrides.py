"""What is otherwise for a row of a request is what a context would say of that customer alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_overlay import Group, groups
from test_serving import EXAMPLES, drawn_context, richest
from test_serving_explain import served
from visavis.errors import InputError
from visavis.serving import Context, Overrides, Serving
from visavis.serving.overrides import recent_contacts
from worlds import AS_OF, ATTRIBUTE_TYPES, World, worlds

#: What a row may say of attributes.
SAID: dict[str, list[Any]] = {
    "age": [7, 40],
    "country": ["FR", "été"],
    "member": [True, False],
    "born": [AS_OF],
    "score": [0.75],
    "consent_email": [False],
}


def drawn(world: World, count: int, rng: np.random.Generator) -> tuple[Overrides, list[dict]]:
    """Overrides of some rows, and what each says as a context would."""
    names = [name for name in world.indicator_names if rng.random() < 0.5]
    values = rng.normal(size=(count, len(names))).astype(np.float32)
    is_given = rng.random((count, len(names))) < 0.6
    values[~is_given] = np.nan
    columns = {}
    for name, options in SAID.items():
        if rng.random() < 0.5:
            columns[name] = [
                options[int(rng.integers(len(options)))] if rng.random() < 0.4 else None
                for _ in range(count)
            ]
    table = pa.table(
        {name: pa.array(said, ATTRIBUTE_TYPES[name]) for name, said in columns.items()}
    )
    said = [
        {
            "indicators": {
                name: values[row, column]
                for column, name in enumerate(names)
                if is_given[row, column]
            },
            "attributes": {
                name: cells[row] for name, cells in columns.items() if cells[row] is not None
            },
        }
        for row in range(count)
    ]
    overrides = Overrides(
        indicator_names=names,
        values=values,
        is_given=is_given,
        attributes=table if columns else None,
    )
    return overrides, said


@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(
    world=worlds(),
    journalled=st.lists(groups(), max_size=2),
    seed=st.integers(0, 2**32 - 1),
    history_bytes=st.sampled_from([0, 2**30]),
)
def test_each_row_is_the_customer_alone_with_the_row_in_the_context(
    world: World, journalled: list[Group], seed: int, history_bytes: int
) -> None:
    rng = np.random.default_rng(seed)
    context = drawn_context(world, rng)[0] if rng.random() < 0.6 else Context()
    asked = [str(name) for name in rng.choice([*world.customers, "nobody"], size=12)]
    overrides, said = drawn(world, len(asked), rng)
    with served(world, journalled, history_bytes=history_bytes) as (serving, _):
        found = serving.match(asked, context, reasons=2, overrides=overrides)
        assert (serving.match(asked, context, overrides=Overrides()).to_table()).equals(
            serving.match(asked, context).to_table()
        )
        tables = []
        for name, row in zip(asked, said, strict=True):
            merged = {kind: {**getattr(context, kind), **row[kind]} for kind in row}
            tables.append(serving.match([name], replace(context, **merged), reasons=2).to_table())
        assert found.to_table().equals(pa.concat_tables(tables).combine_chunks())
        assert sorted(found.errors) == [row for row, each in enumerate(asked) if each == "nobody"]


@pytest.fixture(name="world", scope="module")
def a_world() -> World:
    return richest()


@pytest.fixture(name="serving", scope="module")
def a_serving(world: World) -> Iterator[Serving]:
    with served(world, [], history_bytes=2**30) as (serving, _):
        yield serving


@pytest.mark.parametrize(
    ("change", "field", "row"),
    [
        ({"indicator_names": ["nothing"]}, "indicator_names", None),
        ({"indicator_names": ["first", "first"]}, "indicator_names", None),
        ({"indicator_names": "first"}, "indicator_names", None),
        ({"indicator_names": ["first"], "values": [[1.0]]}, "values", None),
        ({"indicator_names": ["first"], "values": [[1.0], [np.inf]]}, "indicators.first", 1),
        ({"indicator_names": ["first"], "values": [["x"], ["y"]]}, "values", None),
        ({"indicator_names": ["first"], "is_given": [[True]]}, "is_given", None),
        ({"indicator_names": ["first"], "is_given": [[1], [1]]}, "is_given", None),
        ({"attributes": {}}, "attributes", None),
        ({"attributes": pa.table({"age": pa.array([1], pa.int32())})}, "attributes", None),
        ({"attributes": pa.table({"age": pa.array([1, 2], pa.int64())})}, "attributes.age", None),
        ({"attributes": pa.table({"city": ["x", "y"]})}, "attributes.city", None),
        ({"attributes": pa.table({"objected": [True, False]})}, "attributes.objected", None),
        ({"attributes": pa.table({"consent_email": [None, True]})}, "attributes.consent_email", 1),
        ({"attributes": pa.table({"score": [None, np.nan]})}, "attributes.score", 1),
    ],
)
def test_overrides_that_do_not_fit_are_refused_by_field_and_row(
    serving: Serving, world: World, change: dict[str, Any], field: str, row: int | None
) -> None:
    if change.get("indicator_names", [""])[0] == "first":
        first = world.indicator_names[0]
        change = {**change, "indicator_names": [first] * len(change["indicator_names"])}
        field = field.replace("first", first)
    with pytest.raises(InputError) as caught:
        serving.match(world.customers[:2], overrides=Overrides(**change))
    assert (caught.value.field, caught.value.row) == (f"overrides.{field}", row)


def test_only_contacts_that_still_cool_are_repeated_row_by_row() -> None:
    day = date(2026, 3, 1)
    dates = [day - timedelta(days=age) for age in (0, 9, 10, 400)]
    facts = pa.table(
        {
            "customer_index": pa.array([0] * 8, pa.int64()),
            "product": ["tea"] * 8,
            "capability_id": pa.nulls(8, pa.string()),
            "kind": ["contacted"] * 4 + ["bought"] * 4,
            "date": pa.array(dates * 2, pa.date32()),
            "count": pa.array([1] * 8, pa.int64()),
        }
    )
    kept = recent_contacts(facts, {"email": 10, "phone": 3}, day)
    assert kept["date"].to_pylist() == dates[:2]
    assert set(kept["kind"].to_pylist()) == {"contacted"}
    assert recent_contacts(facts, {}, day).num_rows == 0
    assert recent_contacts(facts, {"email": 2**31 - 1}, date.min).num_rows == 4
