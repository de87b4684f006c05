"""The canonical digest: of values, never of layout."""

import hashlib
import struct
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.digest import canonical_digest
from visavis.errors import SchemaError

PAIRS = pa.map_(pa.string(), pa.float32())

COLUMNS = {
    "bool": pa.array([True, None, False, True, True]),
    "int8": pa.array([1, None, 3, -4, 5], pa.int8()),
    "float32": pa.array([1, None, -0.0, float("nan"), 5], pa.float32()),
    "float64": pa.array([1, None, -0.0, float("nan"), 5]),
    "decimal": pa.array([Decimal("1.20"), None, Decimal("-3.00"), None, Decimal("0.01")]),
    "date": pa.array([date(2020, 1, 1), None, date(1969, 1, 1), None, date(9999, 12, 31)]),
    "timestamp": pa.array([datetime(2020, 1, 1), None, None, None, None], pa.timestamp("us")),
    "string": pa.array(["a", None, "", "é𝄞", "zz"]),
    "binary": pa.array([b"a", None, b"", b"\0\xff", b"zz"]),
    "null": pa.nulls(5),
    "list": pa.array([[1, 2], None, [], [3], [None]]),
    "fixed": pa.array([[1, 2], None, [3, 4], [None, 5], [6, 7]], pa.list_(pa.int64(), 2)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 2}, {"b": "q"}]),
    "map": pa.array([[("b", 1), ("a", 2)], None, [], [("c", 3), ("a", None)], [("z", 1)]], PAIRS),
    "deep": pa.array([[{"k": "a", "w": [1]}], None, [], [{"k": None, "w": None}, None], []]),
}


def digest(column):
    return canonical_digest(pa.table({"column": column}))


@pytest.mark.parametrize("name", COLUMNS)
def test_chunks_slices_and_offsets_do_not_show(name):
    column = COLUMNS[name]
    expected = digest(column)
    padded = pa.concat_arrays([column.slice(3), column, column.slice(0, 2)])
    assert digest(padded.slice(2, 5)) == expected
    cut = pa.chunked_array([column.slice(0, 2), column.slice(2, 0), padded.slice(4, 3)])
    assert digest(cut) == expected


@pytest.mark.parametrize("name", COLUMNS)
def test_no_rows_are_the_same_with_and_without_a_chunk(name):
    column = COLUMNS[name]
    assert digest(column.slice(5)) == digest(pa.chunked_array([], column.type))


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "null"])
def test_each_row_and_the_order_of_rows_show(name):
    column = COLUMNS[name]
    others = [column.slice(1), column.slice(0, 4), column.take(pa.array([1, 0, 2, 3, 4]))]
    others.append(column.take(pa.array([0, 0, 2, 3, 4])))
    assert len({digest(column), *map(digest, others)}) == 5


@pytest.mark.parametrize(
    "layout",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_layouts_of_text_do_not_show(layout):
    column = COLUMNS["string"]
    other = column.dictionary_encode() if pa.types.is_dictionary(layout) else column
    assert digest(other.cast(layout)) == digest(column)
    assert digest(other.cast(layout).slice(1, 3)) == digest(column.slice(1, 3))
    assert digest(pa.chunked_array([], layout)) == digest(column.slice(5))


def test_a_dictionary_keyed_map_is_the_same_map():
    column = COLUMNS["map"].take(pa.array([0, 2, 3]))
    keyed = pa.MapArray.from_arrays(column.offsets, column.keys.dictionary_encode(), column.items)
    assert digest(keyed) == digest(column)


def test_the_order_of_keys_in_a_map_does_not_show_but_their_values_do():
    one = pa.array([[("a", 1), ("b", 2)], [("é", 3), ("z", 4)]], PAIRS)
    two = pa.array([[("b", 2), ("a", 1)], [("z", 4), ("é", 3)]], PAIRS)
    other = pa.array([[("b", 1), ("a", 2)], [("z", 4), ("é", 3)]], PAIRS)
    assert digest(one) == digest(two) != digest(other)


def test_what_lies_under_a_null_does_not_show():
    mask = pa.array([False, True])
    for name, values, other in (
        ("int64", [1, 2], [1, 3]),
        ("float64", [1.0, 2.0], [1.0, float("nan")]),
    ):
        given_values, other_values = (np.array(each, dtype=name) for each in (values, other))
        assert digest(pa.array(given_values, mask=mask.to_numpy(zero_copy_only=False))) == digest(
            pa.array(other_values, mask=mask.to_numpy(zero_copy_only=False))
        )
    texts = pa.StringArray.from_buffers(
        2, pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"abc"), pa.py_buffer(b"\1")
    )
    assert texts.to_pylist() == ["a", None]
    assert digest(texts) == digest(pa.array(["a", None]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3]), pa.array([7, 8, 9]), mask=mask)
    assert digest(lists) == digest(pa.array([[7], None]))


def test_values_count_as_they_are():
    quiet, other = struct.unpack("<2d", struct.pack("<2Q", 0x7FF8 << 48, 0x7FF8 << 48 | 1))
    columns = [pa.array([value]) for value in (0.0, -0.0, quiet, other)]
    assert len({digest(column) for column in columns}) == 4


def test_types_names_and_the_order_of_columns_show():
    one, two = pa.array([1]), pa.array([2])
    tables = [
        pa.table({"a": one, "b": two}),
        pa.table({"b": two, "a": one}),
        pa.table({"a": two, "b": one}),
        pa.table({"a": one.cast(pa.int32()), "b": two}),
        pa.table({"a": one}),
        pa.table({"ab": one}),
        pa.table({}),
    ]
    assert len({canonical_digest(table) for table in tables}) == len(tables)


def test_nulls_differ_from_what_they_count_as():
    empties = [pa.array([None], pa.string()), pa.array([""]), pa.array([None], pa.list_(pa.int8()))]
    empties += [pa.array([[]], pa.list_(pa.int8())), pa.array([None], pa.bool_())]
    empties += [pa.array([False]), pa.array([None], PAIRS), pa.array([[]], PAIRS)]
    assert len({digest(column) for column in empties}) == len(empties)


def test_schema_metadata_does_not_show():
    table = pa.table({"a": [1]})
    assert canonical_digest(table.replace_schema_metadata({"x": "y"})) == canonical_digest(table)


def test_the_bytes_are_the_documented_ones():
    def u64(number):
        return struct.pack("<Q", number)

    def text(value):
        return u64(len(value)) + value

    expected = hashlib.sha256(
        b"visavis columns 1\n"
        + u64(2)
        + u64(2)
        + text(b"s")
        + text(b"string")
        + u64(2)
        + b"\1\1\0"
        + u64(0)
        + u64(2)
        + u64(2)
        + "é".encode()
        + text(b"m")
        + text(b"map")
        + u64(2)
        + b"\0"
        + u64(0)
        + u64(2)
        + u64(2)
        + text(b"struct")
        + u64(2)
        + b"\0"
        + u64(2)
        + text(b"key")
        + text(b"string")
        + u64(2)
        + b"\0"
        + u64(0)
        + u64(1)
        + u64(2)
        + b"ab"
        + text(b"value")
        + text(b"float")
        + u64(2)
        + b"\0"
        + struct.pack("<2f", 2, 1)
    )
    table = pa.table({"s": ["é", None], "m": pa.array([[("b", 1), ("a", 2)], []], PAIRS)})
    assert canonical_digest(table) == expected.hexdigest()


def test_a_type_without_a_form_is_refused():
    encoded = pa.RunEndEncodedArray.from_arrays([2], [1])
    with pytest.raises(SchemaError, match="no canonical form") as caught:
        digest(encoded)
    assert caught.value.field == "column"


cells = st.lists(
    st.none()
    | st.lists(
        st.none() | st.fixed_dictionaries({"k": st.none() | st.text(max_size=3)}), max_size=3
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(cells, st.data())
def test_any_cut_gives_the_same_digest(rows, data):
    kind = pa.list_(pa.struct([pa.field("k", pa.string())]))
    column = pa.array(rows, kind)
    at = data.draw(st.integers(0, len(rows)))
    cut = pa.chunked_array([pa.array(rows[:at], kind), column.slice(at)])
    assert digest(cut) == digest(column)
