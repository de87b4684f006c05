"""Nothing wrong gets into a base, and every refusal says where it is."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.base import Base, door
from visavis.errors import InputError, LimitError, SchemaError
from visavis.history import facts as history_facts

AS_OF = date(2020, 2, 29)
DAY = pa.array([AS_OF] * 3, pa.date32())
NAN, INF = float("nan"), float("inf")

INDICATORS: dict[str, Any] = {"customer_id": ["b", "a", "c"], "x": [1.0, 2.0, 3.0]}
ATTRIBUTES: dict[str, Any] = {"customer_id": ["c", "a", "b"], "age": [1, 2, None]}
FACTS: dict[str, Any] = {
    "customer_id": ["c", "a", "c"],
    "product": ["tea", "tea", None],
    "capability_id": [None, None, "t"],
    "kind": ["bought", "bought", "refused"],
    "date": DAY,
}
BAD_TEXT = pa.Array.from_buffers(
    pa.string(),
    3,
    [None, pa.py_buffer(np.array([0, 1, 3, 4], np.int32)), pa.py_buffer(b"c\xff\xfea")],
)


def tables(**changed: dict[str, Any]) -> dict[str, pa.Table]:
    """The three tables; a column given as ... is left out."""
    given = {"indicators": INDICATORS, "attributes": ATTRIBUTES, "facts": FACTS}
    return {
        name: pa.table(
            {
                column: cells
                for column, cells in {**columns, **changed.get(name, {})}.items()
                if cells is not ...
            }
        )
        for name, columns in given.items()
    }


def refusal(kind: type[InputError] = InputError, **given: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        Base.from_tables(given.pop("indicators"), as_of=AS_OF, **given)
    assert type(caught.value) is kind
    return caught.value


def test_the_tables_that_the_refusals_start_from_are_right() -> None:
    assert Base.from_tables(**tables(), as_of=AS_OF).customer_count == 3


ID, X = "customer_id", "x"

#: table, column, cells, the row named, a part of the reason
REFUSED_ROWS = [
    ("indicators", ID, ["b", None, "c"], 1, "null or empty"),
    ("indicators", ID, ["b", "a", ""], 2, "null or empty"),
    ("indicators", ID, ["b", "a", "b"], 2, "'b' stands in row 0 already"),
    ("indicators", ID, pa.array(["b", "a", "a"]).dictionary_encode(), 2, "row 1 already"),
    ("indicators", ID, BAD_TEXT, 1, "malformed"),
    ("indicators", X, [1.0, NAN, NAN], 1, "must be finite as float32, got nan"),
    ("indicators", X, [1.0, 2.0, INF], 2, "got inf"),
    ("indicators", X, [-INF, 2.0, INF], 0, "got -inf"),
    ("indicators", X, [1.0, None, 3.0], 1, "got None"),
    ("indicators", X, pa.array([1, 2, None], pa.int64()), 2, "got None"),
    ("indicators", X, [1.0, 1e39, 3.0], 1, "got 1e+39"),
    ("indicators", X, [3.4028235e38, -3.4028236e38, 3.0], 1, "got -3.4028236e+38"),
    ("attributes", ID, ["c", "a", "a"], 2, "'a' stands in row 1 already"),
    ("attributes", ID, ["c", None, "b"], 1, "null or empty"),
    ("attributes", ID, ["c", "a", "d"], 2, "customer 'd' has no indicators"),
    ("attributes", "age", [1.0, NAN, None], 1, "finite or null, got nan"),
    ("attributes", "age", pa.array([1.0, None, INF], pa.float32()), 2, "got inf"),
    ("attributes", "age", BAD_TEXT, 1, "malformed"),
    ("attributes", "objected", [True, None, False], 1, "must not be null"),
    ("facts", ID, ["c", "", "c"], 1, "null or empty"),
    ("facts", ID, ["c", "a", "d"], 2, "customer 'd' has no indicators"),
    ("facts", "product", ["tea", "tea", "tea"], 2, "either product or capability_id"),
    ("facts", "product", [None, "tea", None], 0, "either product or capability_id"),
    ("facts", "product", ["tea", "", None], 1, "must not be empty"),
    ("facts", "capability_id", [None, None, ""], 2, "must not be empty"),
    ("facts", "capability_id", ..., 2, "either product or capability_id"),
    ("facts", "product", pa.nulls(3), 0, "either product or capability_id"),
    ("facts", "kind", ["bought", "eaten", "refused"], 1, "one of bought, refused, contacted"),
    ("facts", "kind", ["bought", "Bought", "refused"], 1, "one of bought"),
    ("facts", "kind", ["bought", "bought", None], 2, "must not be null"),
    ("facts", "date", pa.array([AS_OF, None, AS_OF]), 1, "must not be null"),
    ("facts", "date", pa.nulls(3), 0, "must not be null"),
    ("facts", "date", pa.array([0, 2**31 - 1, 0], pa.int32()).cast(pa.date32()), 1, "years 1 to"),
    ("facts", "date", pa.array([0, 0, -719163], pa.int32()).cast(pa.date32()), 2, "years 1 to"),
    ("facts", "date", pa.array([0, 2**62, 0]).cast(pa.date64()), 1, "time of day|years 1 to"),
    ("facts", "date", pa.array([0, 86400000 * 2**32, 0]).cast(pa.date64()), 1, "years 1 to"),
    ("facts", "date", pa.array([0, 86399999, 0]).cast(pa.date64()), 1, "not a time of day"),
    ("facts", "count", [1, 0, 1], 1, "1 … 2147483647"),
    ("facts", "count", [1, 1, -1], 2, "1 … 2147483647"),
    ("facts", "count", [1, None, 1], 1, "must not be null"),
    ("facts", "count", [1, 2**31, 1], 1, "1 … 2147483647"),
    ("facts", "count", pa.array([1, 1, 2**64 - 1], pa.uint64()), 2, "1 … 2147483647"),
]


@pytest.mark.parametrize(("table", "column", "cells", "row", "reason"), REFUSED_ROWS)
def test_a_wrong_cell_is_refused_by_column_and_row(
    table: str, column: str, cells: Any, row: int, reason: str
) -> None:
    error = refusal(**tables(**{table: {column: cells}}))
    # That neither or both subjects are given is told of the first of the two.
    told = "product" if "either product" in reason else column
    assert error.field == f"{table}.{told}"
    assert error.row == row
    assert any(part in str(error) for part in reason.split("|"))
    assert f"row {row}" in str(error)


#: table, column, cells, the field named, a part of the reason
REFUSED_COLUMNS = [
    ("indicators", ID, ..., f"indicators.{ID}", "missing"),
    ("indicators", ID, [1, 2, 3], f"indicators.{ID}", "must be string, got int64"),
    ("indicators", ID, pa.array([1, 2, 3]).dictionary_encode(), f"indicators.{ID}", "string"),
    ("indicators", ID, [b"b", b"a", b"c"], f"indicators.{ID}", "must be string, got binary"),
    ("indicators", X, ..., "indicators", "at least one indicator"),
    ("indicators", X, ["1", "2", "3"], "indicators.x", "must be a number, got string"),
    ("indicators", X, [True, False, True], "indicators.x", "must be a number, got bool"),
    ("indicators", X, pa.nulls(3), "indicators.x", "must be a number, got null"),
    ("indicators", X, DAY, "indicators.x", "must be a number, got date32"),
    ("indicators", "history", [1.0, 2.0, 3.0], "indicators.history", "reserved"),
    ("indicators", "", [1.0, 2.0, 3.0], "indicators", "without a name"),
    ("attributes", ID, ..., f"attributes.{ID}", "missing"),
    ("attributes", "seen", pa.array([datetime(2020, 1, 1)] * 3), "attributes.seen", "timestamp"),
    ("attributes", "seen", DAY.cast(pa.date64()), "attributes.seen", "got date64"),
    ("attributes", "tags", [["a"], [], None], "attributes.tags", "got list"),
    ("attributes", "raw", [b"1", b"2", None], "attributes.raw", "got binary"),
    ("attributes", "none", pa.nulls(3), "attributes.none", "got null"),
    ("attributes", "half", pa.array(np.zeros(3, np.float16)), "attributes.half", "halffloat"),
    ("attributes", "code", pa.array([1, 2, 2]).dictionary_encode(), "attributes.code", "diction"),
    ("attributes", "objected", [0, 1, 0], "attributes.objected", "must be bool, got int64"),
    ("attributes", "objected", ["", "no", ""], "attributes.objected", "must be bool, got string"),
    ("attributes", "as_of", DAY, "attributes.as_of", "rename"),
    ("facts", ID, ..., f"facts.{ID}", "missing"),
    ("facts", "kind", ..., "facts.kind", "missing"),
    ("facts", "date", ..., "facts.date", "missing"),
    ("facts", "amount", [1, 2, 3], "facts.amount", "is not one of customer_id, product"),
    ("facts", "kind", [1, 2, 3], "facts.kind", "must be string, got int64"),
    ("facts", "product", [1, 2, None], "facts.product", "must be string, got int64"),
    ("facts", "date", ["2020-02-29"] * 3, "facts.date", "must be a date, got string"),
    ("facts", "date", [20200229] * 3, "facts.date", "must be a date, got int64"),
    ("facts", "date", pa.array([20200229] * 3, pa.int32()), "facts.date", "got int32"),
    ("facts", "date", pa.array([datetime(2020, 1, 1)] * 3), "facts.date", "not a time of day"),
    ("facts", "count", [1.0, 2.0, 3.0], "facts.count", "must be an integer, got double"),
    ("facts", "count", ["1", "2", "3"], "facts.count", "must be an integer, got string"),
    ("facts", "count", [True, True, True], "facts.count", "must be an integer, got bool"),
]


@pytest.mark.parametrize(("table", "column", "cells", "field", "reason"), REFUSED_COLUMNS)
def test_a_wrong_column_is_refused_by_name(
    table: str, column: str, cells: Any, field: str, reason: str
) -> None:
    error = refusal(SchemaError, **tables(**{table: {column: cells}}))
    assert (error.field, error.row) == (field, None)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("table", "column"), [("indicators", X), ("attributes", "age"), ("facts", "kind")]
)
@pytest.mark.parametrize("is_id", [False, True])
def test_a_column_that_stands_twice_is_refused(table: str, column: str, is_id: bool) -> None:
    given = tables()
    name = ID if is_id else column
    given[table] = given[table].append_column(name, given[table][name])
    error = refusal(SchemaError, **given)
    assert error.field == f"{table}.{name}"
    assert "twice" in str(error)


def test_a_base_holds_at_least_one_customer() -> None:
    empty = tables()["indicators"].slice(0, 0)
    error = refusal(indicators=empty)
    assert error.field == "indicators"
    assert "at least one customer" in str(error)


@pytest.mark.parametrize("wrong", [None, 3, 20200229, "2020-02-30", "today", datetime(2020, 1, 1)])
def test_as_of_is_a_date(wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        Base.from_tables(tables()["indicators"], as_of=wrong)
    assert caught.value.field == "as_of"


@pytest.mark.parametrize("table", ["indicators", "attributes", "facts"])
def test_what_is_no_table_is_refused(table: str) -> None:
    for wrong in ({"customer_id": ["a"]}, [1], tables()[table].to_batches()[0]):
        error = refusal(SchemaError, **{**tables(), table: wrong})
        assert error.field == table
        assert "pyarrow.Table" in str(error)


def test_counts_of_one_day_that_history_could_not_add_up_are_refused() -> None:
    assert door.COUNT_MAX == history_facts.COUNT_MAX
    counts = {
        "customer_id": ["c", "a", "c"],
        "product": ["tea"] * 3,
        "capability_id": ...,
        "kind": ["bought"] * 3,
    }
    most = door.COUNT_MAX
    Base.from_tables(**tables(facts={**counts, "count": [1, most, most - 1]}), as_of=AS_OF)
    error = refusal(**tables(facts={**counts, "count": [1, most, most]}))
    assert (error.field, error.subject) == ("facts.count", "customer 'c'")
    assert "2147483648" in str(error)


def test_text_beyond_the_offsets_of_arrow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "TEXT_BYTES_MAX", 2)
    error = refusal(LimitError, **tables())
    assert error.field == "indicators.customer_id"


def test_malformed_text_is_found_in_any_chunk() -> None:
    for row in range(8):
        cells = [pa.array(["a", "b"]), pa.array([], pa.string()), pa.array(["c", "d", "e"])]
        good = [text for chunk in cells for text in chunk.to_pylist()]
        chunked = pa.chunked_array([*cells, BAD_TEXT.slice(0, 2)])
        table = pa.table({ID: chunked, X: range(len(good) + 2)})
        error = refusal(indicators=table.slice(min(row, 5)))
        assert error.row == len(good) + 1 - min(row, 5)
    shared = pa.DictionaryArray.from_arrays(pa.array([0, 1]), BAD_TEXT)
    error = refusal(indicators=pa.table({ID: shared, X: [1, 2]}))
    assert (error.field, error.row) == (f"indicators.{ID}", None)


CELLS = st.lists(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=2)
    )
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=2),
    min_size=3,
    max_size=3,
)


@settings(max_examples=150)
@given(
    st.sampled_from(
        [(name, column) for name, table in tables().items() for column in table.column_names]
    ),
    CELLS,
    st.booleans(),
)
def test_no_column_yields_an_unspecified_error(
    place: tuple[str, str], cells: list[Any], is_dictionary: bool
) -> None:
    try:
        column = pa.array(cells)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        column = pa.array([repr(cell) for cell in cells])
    if is_dictionary and not pa.types.is_null(column.type):
        column = column.dictionary_encode()
    table, name = place
    try:
        base = Base.from_tables(**tables(**{table: {name: column}}), as_of=AS_OF)
    except InputError:
        return
    assert len(base.digest) == 64
    assert base.facts.to_pylist() is not None
