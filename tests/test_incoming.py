"""Profiles and facts, from the contract's bytes."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visavis.base import Base
from visavis.errors import InputError, SchemaError
from visavis.gateway.incoming import (
    attribute_column,
    attribute_row,
    indicator_cells,
    indicator_matrix,
    indicator_row,
)
from visavis.gateway.incoming_facts import fact_columns, fact_table
from visavis.v1 import profile_pb2

NAMES = ("days", "spend", "visits")
SCHEMA = pa.schema(
    {
        "adult": pa.bool_(),
        "age": pa.int16(),
        "score": pa.float32(),
        "country": pa.string(),
        "since": pa.date32(),
    }
)


def little(values: Any, kind: str) -> bytes:
    return np.array(values, dtype=kind).tobytes()


def test_indicators_of_one_profile_come_in_the_order_of_the_base() -> None:
    row = indicator_row({"visits": 3.0, "days": 0.1, "spend": 2.0}, NAMES, field="profile")
    assert row.dtype == np.float32
    assert row.tolist() == [[float(np.float32(0.1)), 2.0, 3.0]]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"visits": None}, SchemaError, "profile: 'visits' is missing"),
        ({"spent": 1.0}, SchemaError, "has no 'spent'; did you mean 'spend'?"),
        ({"spend": float("nan")}, InputError, r"profile\.spend: must be finite"),
        ({"spend": 1e300}, InputError, r"profile\.spend: must be finite as float32"),
    ],
)
def test_indicators_of_one_profile_are_refused_by_name(
    change: dict[str, Any], error: type[Exception], said: str
) -> None:
    values = {"days": 1.0, "spend": 2.0, "visits": 3.0, **change}
    values = {name: value for name, value in values.items() if value is not None}
    with pytest.raises(error, match=said):
        indicator_row(values, NAMES, field="profile")


def test_columns_of_indicators_come_in_the_order_of_the_base() -> None:
    columns = profile_pb2.IndicatorColumns(
        indicator_names=["visits", "days", "spend"], values=little(range(6), "<f4")
    )
    values = indicator_matrix(columns, NAMES, 2, field="x")
    assert values.tolist() == [[1.0, 2.0, 0.0], [4.0, 5.0, 3.0]]


def test_an_override_leaves_what_is_not_given() -> None:
    columns = profile_pb2.IndicatorColumns(
        indicator_names=["visits"], values=little([7.0, np.nan], "<f4"), is_given=b"\1\0"
    )
    named, values, given_ = indicator_cells(columns, NAMES, 2, field="x")
    assert named == ["visits"]
    assert given_.tolist() == [[True], [False]]
    assert values.tolist() == [[7.0], [0.0]]


@pytest.mark.parametrize(
    ("change", "field", "row"),
    [
        ({"indicator_names": ["days", "spend"]}, "x.indicator_names", None),
        ({"indicator_names": ["days", "days", "spend"]}, "x.indicator_names", None),
        ({"indicator_names": ["days", "spend", "rank"]}, "x.indicator_names", None),
        ({"values": little(range(5), "<f4")}, "x.values", None),
        ({"values": little([0, 0, 0, 0, np.inf, 0], "<f4")}, "x.spend", 1),
        ({"is_given": b"\1\1"}, "x.is_given", None),
        ({"is_given": b"\1\1\1\1\0\1"}, "x.is_given", 1),
        ({"is_given": b"\1\1\1\1\2\1"}, "x.is_given", 4),
    ],
)
def test_columns_of_indicators_are_refused_by_field_and_row(
    change: dict[str, Any], field: str, row: int | None
) -> None:
    good = {"indicator_names": NAMES, "values": little(range(6), "<f4")}
    columns = profile_pb2.IndicatorColumns(**{**good, **change})
    with pytest.raises(InputError) as caught:
        indicator_matrix(columns, NAMES, 2, field="x")
    assert (caught.value.field, caught.value.row) == (field, row)


def value(**member: Any) -> profile_pb2.AttributeValue:
    return profile_pb2.AttributeValue(**member)


def test_attributes_of_one_customer_take_the_types_of_the_base() -> None:
    row = attribute_row(
        {
            "adult": value(bool_value=False),
            "age": value(int64_value=33),
            "score": value(double_value=0.5),
            "country": value(string_value=""),
            "since": value(date_value="2017-10-20"),
        },
        SCHEMA,
        field="x",
    )
    assert {name: array.type for name, array in row.items()} == dict(
        zip(SCHEMA.names, SCHEMA.types, strict=True)
    )
    cells = {name: array[0].as_py() for name, array in row.items()}
    assert cells == {
        "adult": False, "age": 33, "score": 0.5, "country": "", "since": date(2017, 10, 20),
    }  # fmt: skip
    assert attribute_row({"age": value()}, SCHEMA, field="x")["age"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("name", "given_", "field"),
    [
        ("aged", value(int64_value=1), "x"),
        ("age", value(double_value=1.0), "x.age"),
        ("age", value(int64_value=2**40), "x.age"),
        ("score", value(double_value=float("inf")), "x.score"),
        ("score", value(double_value=1e300), "x.score"),
        ("since", value(string_value="2017-10-20"), "x.since"),
        ("since", value(date_value="20 October"), "x.since"),
        ("adult", value(int64_value=1), "x.adult"),
    ],
)
def test_attributes_of_one_customer_are_refused_by_name(
    name: str, given_: profile_pb2.AttributeValue, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        attribute_row({name: given_}, SCHEMA, field=field.partition(".")[0])
    assert caught.value.field == field


def column(name: str, given_: bytes = b"", **member: Any) -> profile_pb2.AttributeColumn:
    return profile_pb2.AttributeColumn(name=name, is_given=given_, **member)


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        (column("adult", bool_values=b"\1\0"), [True, False]),
        (column("age", b"\0\1", int64_values=little([2**60, 9], "<i8")), [None, 9]),
        (column("score", b"\1\0", double_values=little([0.5, np.nan], "<f8")), [0.5, None]),
        (
            column("country", b"\1\0", string_values=profile_pb2.TextColumn(texts=["fr", "?"])),
            ["fr", None],
        ),
        (
            column("since", date_values=little([0, 17459], "<i4")),
            [date(1970, 1, 1), date(2017, 10, 20)],
        ),
    ],
)
def test_columns_of_attributes_take_the_types_of_the_base(
    columns: profile_pb2.AttributeColumn, cells: list[Any]
) -> None:
    array = attribute_column(columns, SCHEMA, 2, field="x")
    assert array.type == SCHEMA.field(columns.name).type
    assert array.to_pylist() == cells


@pytest.mark.parametrize(
    ("columns", "field", "row"),
    [
        (column("nobody", bool_values=b"\1\0"), "x.name", None),
        (column("adult"), "x.values", None),
        (column("adult", bool_values=b"\1\2"), "x.bool_values", 1),
        (column("adult", bool_values=b"\1"), "x.bool_values", None),
        (column("age", bool_values=b"\1\0"), "x.bool_values", None),
        (column("age", int64_values=little([1, 2**20], "<i8")), "x.int64_values", None),
        (column("score", double_values=little([1, np.nan], "<f8")), "x.double_values", 1),
        (column("score", b"\1", double_values=little([1, 2], "<f8")), "x.is_given", None),
        (column("country", string_values=profile_pb2.TextColumn()), "x.string_values", None),
    ],
)
def test_columns_of_attributes_are_refused_by_field_and_row(
    columns: profile_pb2.AttributeColumn, field: str, row: int | None
) -> None:
    with pytest.raises(InputError) as caught:
        attribute_column(columns, SCHEMA, 2, field="x")
    assert (caught.value.field, caught.value.row) == (field, row)


FACTS = [
    profile_pb2.Fact(product="tea", kind=profile_pb2.FACT_KIND_BOUGHT, date="2017-10-20", count=2),
    profile_pb2.Fact(capability_id="c1", kind=profile_pb2.FACT_KIND_EXCLUDED, date="1970-01-01"),
]

FACT_COLUMNS: dict[str, Any] = {
    "row_index": little([1, 0], "<i4"),
    "products": ["tea"],
    "product_index": little([0, -1], "<i4"),
    "capability_ids": ["c1"],
    "capability_index": little([-1, 0], "<i4"),
    "kind": bytes([profile_pb2.FACT_KIND_BOUGHT, profile_pb2.FACT_KIND_EXCLUDED]),
    "day": little([17459, 0], "<i4"),
    "count": little([2, 1], "<i4"),
}


def test_facts_as_messages_and_as_columns_are_the_table_that_a_base_takes() -> None:
    from_messages = fact_table(["b", "a"], FACTS, field="facts")
    columns = profile_pb2.FactColumns(**FACT_COLUMNS)
    from_columns = fact_columns(columns, pa.array(["a", "b"]), field="facts")
    assert from_messages.equals(from_columns)
    ids = pa.array(["a", "b"])
    indicators = pa.table({"customer_id": ids, "spend": pa.array([1.0, 2.0])})
    base = Base.from_tables(indicators, facts=from_columns, as_of=date(2017, 10, 20))
    assert base.facts.to_pylist() == [
        {
            "customer_index": 0, "product": None, "capability_id": "c1", "kind": "excluded",
            "date": date(1970, 1, 1), "count": 1,
        },
        {
            "customer_index": 1, "product": "tea", "capability_id": None, "kind": "bought",
            "date": date(2017, 10, 20), "count": 2,
        },
    ]  # fmt: skip


def test_without_facts_there_is_an_empty_table() -> None:
    empty = fact_columns(profile_pb2.FactColumns(), pa.array(["a"]), field="facts")
    assert empty.num_rows == 0
    assert empty.schema == fact_table([], [], field="facts").schema


@pytest.mark.parametrize(
    ("change", "field", "row"),
    [
        ({"row_index": little([1, 2], "<i4")}, "facts.row_index", 1),
        ({"row_index": little([-1, 0], "<i4")}, "facts.row_index", 0),
        ({"row_index": b""}, "facts.row_index", None),
        ({"product_index": little([0, -2], "<i4")}, "facts.product_index", 1),
        ({"capability_index": little([1, 0], "<i4")}, "facts.capability_index", 0),
        ({"kind": bytes([1, 0])}, "facts.kind", 1),
        ({"kind": bytes([1, 99])}, "facts.kind", 1),
        ({"day": b"\0" * 7}, "facts.day", None),
        ({"count": b"\0" * 12}, "facts.count", None),
    ],
)
def test_columns_of_facts_are_refused_by_field_and_row(
    change: dict[str, Any], field: str, row: int | None
) -> None:
    columns = profile_pb2.FactColumns(**{**FACT_COLUMNS, **change})
    with pytest.raises(InputError) as caught:
        fact_columns(columns, pa.array(["a", "b"]), field="facts")
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.parametrize(
    ("fact", "field"),
    [
        (profile_pb2.Fact(kind=profile_pb2.FACT_KIND_BOUGHT, date="2017-10-20"), "facts"),
        (profile_pb2.Fact(product="tea", date="2017-10-20"), "facts.kind"),
        (profile_pb2.Fact(product="tea", kind=77, date="2017-10-20"), "facts.kind"),
        (profile_pb2.Fact(product="tea", kind=1), "facts.date"),
        (profile_pb2.Fact(product="tea", kind=1, date="2017-10-20T00:00"), "facts.date"),
    ],
)
def test_facts_as_messages_are_refused_by_field_and_row(fact: profile_pb2.Fact, field: str) -> None:
    with pytest.raises(InputError) as caught:
        fact_table(["a", "a"], [FACTS[0], fact], field="facts")
    assert (caught.value.field, caught.value.row) == (field, 1)
