"""What a base is: one order whatever the order of the input; on disk, see test_stored_base."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.base import FACT_SCHEMA, Base
from visavis.errors import InputError, NotFoundError
from worlds import AS_OF, NAMES, World, worlds

FIELD = pa.field("spend", pa.float64(), metadata={b"visavis.indicator": "é".encode()})
INDICATORS = pa.table(
    {"customer_id": ["b", "é", "a"], "spend": [1.5, -2, 3], "visits": [4, 5, 6]},
    schema=pa.schema(
        [pa.field("customer_id", pa.string(), nullable=False), FIELD, ("visits", pa.int16())],
        metadata={b"visavis.as_of": b"2020-02-29"},
    ),
)
ATTRIBUTES = pa.table(
    {
        "age": pa.array([40, None], pa.uint8()),
        "country": pa.array(["FR", "été"]).dictionary_encode(),
        "objected": [True, False],
        "customer_id": ["é", "b"],
    }
)
FACTS = pa.Table.from_pylist(
    [
        {"customer_id": "é", "product": "tea", "kind": "bought", "date": date(2020, 1, 1)},
        {"customer_id": "a", "product": "tea", "kind": "bought", "date": date(2020, 1, 2)},
        {"customer_id": "a", "capability_id": "t", "kind": "refused", "date": date(2020, 1, 1)},
        {"customer_id": "a", "product": "tea", "kind": "bought", "date": date(2020, 1, 2)},
        {"customer_id": "a", "product": "milk", "kind": "excluded", "date": date(1, 1, 1)},
    ],
    pa.schema(
        [
            ("customer_id", pa.string()),
            ("product", pa.string()),
            ("capability_id", pa.large_string()),
            ("kind", pa.string()),
            ("date", pa.date32()),
        ]
    ),
)


@pytest.fixture
def base() -> Base:
    return Base.from_tables(INDICATORS, as_of=AS_OF, attributes=ATTRIBUTES, facts=FACTS)


def facts_in_short(facts: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in facts.to_pylist()]


def test_everything_arrives_in_the_order_of_the_ids(base: Base) -> None:
    assert base.customer_ids.to_pylist() == ["a", "b", "é"]
    assert base.customer_count == 3
    assert base.as_of == AS_OF
    assert base.indicator_names == ("spend", "visits")
    assert base.indicators.dtype == np.float32
    assert base.indicators.flags.c_contiguous
    np.testing.assert_array_equal(base.indicators, [[3, 6], [1.5, 4], [-2, 5]])
    assert base.attributes.to_pylist() == [
        {"age": None, "country": None, "objected": False},
        {"age": None, "country": "été", "objected": False},
        {"age": 40, "country": "FR", "objected": True},
    ]
    assert base.attributes.schema.types == [pa.uint8(), pa.string(), pa.bool_()]


def test_facts_are_sorted_and_those_of_one_day_are_one(base: Base) -> None:
    assert base.facts.schema == FACT_SCHEMA
    assert facts_in_short(base.facts) == [
        (0, "milk", None, "excluded", date(1, 1, 1), 1),
        (0, "tea", None, "bought", date(2020, 1, 2), 2),
        (0, None, "t", "refused", date(2020, 1, 1), 1),
        (2, "tea", None, "bought", date(2020, 1, 1), 1),
    ]


def test_facts_of_one_customer(base: Base) -> None:
    assert facts_in_short(base.facts_of(0)) == facts_in_short(base.facts)[:3]
    assert base.facts_of(1).num_rows == 0
    assert base.facts_of(1).schema == FACT_SCHEMA
    assert base.facts_of(2)["product"].to_pylist() == ["tea"]
    for row in (-1, 3):
        with pytest.raises(InputError, match="no row") as caught:
            base.facts_of(row)
        assert caught.value.field == "customer_index"


def test_what_is_not_given_is_unknown() -> None:
    base = Base.from_tables(INDICATORS, as_of="2020-02-29")
    assert base.as_of == AS_OF
    assert base.attributes.to_pylist() == [{"objected": False}] * 3
    assert base.facts.schema == FACT_SCHEMA
    assert base.facts.num_rows == 0
    nothing_known = Base.from_tables(
        INDICATORS, as_of=AS_OF, attributes=ATTRIBUTES.slice(0, 0), facts=FACTS.slice(0, 0)
    )
    assert nothing_known.attributes["age"].to_pylist() == [None] * 3
    assert nothing_known.attributes["objected"].to_pylist() == [False] * 3
    assert nothing_known.facts.num_rows == 0


def test_the_meaning_of_an_indicator_stays(base: Base) -> None:
    assert base.indicator_schema.types == [pa.float32()] * 2
    assert base.indicator_schema.field("spend").metadata == FIELD.metadata
    assert base.indicator_schema.metadata[b"visavis.as_of"] == b"2020-02-29"


def test_what_was_checked_can_not_be_written_to(base: Base) -> None:
    with pytest.raises(ValueError, match="read-only"):
        base.indicators[0, 0] = np.nan


def test_the_input_may_change_after_it_was_read() -> None:
    cells = np.ones(2, dtype=np.float32)
    table = pa.table({"customer_id": ["a", "b"], "x": pa.array(cells)})
    base = Base.from_tables(table, as_of=AS_OF)
    cells[:] = 7
    assert base.indicators.tolist() == [[1], [1]]


def test_index_of_finds_every_customer_and_no_other() -> None:
    names = sorted(NAMES, key=str.encode)
    base = Base.from_tables(pa.table({"customer_id": NAMES, "x": [0] * len(NAMES)}), as_of=AS_OF)
    assert base.customer_ids.to_pylist() == names
    assert [base.index_of(name) for name in names] == list(range(len(names)))
    for unknown in ("", "aaa", "\U0010ffff", "\ud800", "é "):
        with pytest.raises(NotFoundError, match="not in the base"):
            base.index_of(unknown)
    for wrong in (None, 3, b"a"):
        with pytest.raises(InputError) as caught:
            base.index_of(wrong)  # type: ignore[arg-type]
        assert caught.value.field == "customer_id"


@pytest.mark.parametrize(
    "dtype",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()],
    ids=str,
)
def test_any_number_is_an_indicator(dtype: pa.DataType) -> None:
    table = pa.table({"customer_id": ["a"], "x": pa.array([3], pa.int8()).cast(dtype)})
    assert Base.from_tables(table, as_of=AS_OF).indicators.tolist() == [[3.0]]


def test_numbers_are_rounded_to_float32_once() -> None:
    exact = [2**24 + 1, 2**64 - 1]
    table = pa.table(
        {"customer_id": ["a", "b"], "x": pa.array(exact, pa.uint64()), "y": [0.1, -0.0]}
    )
    found = Base.from_tables(table, as_of=AS_OF).indicators
    assert found[:, 0].tolist() == [2.0**24, 2.0**64]
    assert found[:, 1].tobytes() == np.array([0.1, -0.0], np.float32).tobytes()


@pytest.mark.parametrize("layout", [pa.large_string(), pa.string_view(), "dictionary"], ids=str)
def test_text_may_come_in_any_layout(base: Base, layout: Any) -> None:
    def laid_out(table: pa.Table) -> pa.Table:
        columns = []
        for column in table.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                is_dictionary = layout == "dictionary"
                column = column.dictionary_encode() if is_dictionary else column.cast(layout)
            columns.append(column)
        return pa.table(columns, names=table.column_names)

    attributes = ATTRIBUTES.set_column(1, "country", ATTRIBUTES["country"].cast(pa.string()))
    other = Base.from_tables(
        laid_out(INDICATORS),
        as_of=AS_OF,
        attributes=laid_out(attributes),
        facts=laid_out(FACTS),
    )
    assert other.digest == base.digest
    assert other.attributes.equals(base.attributes)


def test_dates_may_come_as_date64(base: Base) -> None:
    facts = FACTS.set_column(4, "date", FACTS["date"].cast(pa.date64()))
    other = Base.from_tables(INDICATORS, as_of=AS_OF, attributes=ATTRIBUTES, facts=facts)
    assert other.digest == base.digest


def rearranged(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The same rows in another order, as slices of chunks, texts as dictionaries of each chunk."""
    n = table.num_rows
    table = table.take(pa.array(rng.permutation(n)))
    cuts = np.sort(rng.integers(0, n + 1, size=3)).tolist()
    padded = pa.concat_tables([table.slice(0, 1), table])
    chunks = [
        padded.slice(begin + 1, end - begin)
        for begin, end in zip([0, *cuts], [*cuts, n], strict=True)
    ]
    columns = []
    for index, name in enumerate(table.column_names):
        pieces = [piece for chunk in chunks for piece in chunk.column(index).chunks]
        if pa.types.is_string(table.schema.field(name).type) and rng.random() < 0.5:
            pieces = [piece.dictionary_encode() for piece in pieces]
        columns.append(pa.chunked_array(pieces, None if pieces else table.schema.field(name).type))
    return pa.table(columns, names=table.column_names)


@settings(max_examples=60)
@given(worlds(), st.integers(0, 2**32 - 1))
def test_the_order_and_the_layout_of_the_input_do_not_matter(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = Base.from_tables(
        rearranged(world.indicator_table(), rng),
        as_of=world.base.as_of,
        attributes=rearranged(world.attribute_table(), rng),
        facts=rearranged(world.fact_table(), rng),
    )
    assert other.digest == world.base.digest
    assert other.customer_ids.to_pylist() == world.customers
    np.testing.assert_array_equal(other.indicators, world.x)
    assert other.attributes.equals(world.base.attributes)
    assert other.facts.equals(world.base.facts)


@pytest.mark.parametrize(
    "change",
    [
        {"indicators": INDICATORS.rename_columns(["customer_id", "spend", "visit"])},
        {"indicators": INDICATORS.set_column(1, "spend", pa.array([1.5, -2, 3.0000002]))},
        {"attributes": ATTRIBUTES.set_column(0, "age", pa.array([41, None], pa.uint8()))},
        {"attributes": ATTRIBUTES.set_column(0, "age", pa.array([40, None], pa.int8()))},
        {"attributes": ATTRIBUTES.drop_columns("age")},
        {"facts": FACTS.slice(1)},
        {"facts": FACTS.append_column("count", pa.array([1, 1, 1, 1, 2]))},
        {"indicators": INDICATORS.replace_schema_metadata(None), "as_of": date(2020, 2, 28)},
    ],
)
def test_another_content_has_another_digest(base: Base, change: dict[str, Any]) -> None:
    given = {"indicators": INDICATORS, "attributes": ATTRIBUTES, "facts": FACTS, "as_of": AS_OF}
    assert Base.from_tables(**{**given, **change}).digest != base.digest


def test_a_day_other_than_that_of_the_indicators_is_refused() -> None:
    with pytest.raises(InputError, match="computed as of 2020-02-29") as caught:
        Base.from_tables(INDICATORS, as_of=date(2020, 2, 28))
    assert caught.value.field == "as_of"
