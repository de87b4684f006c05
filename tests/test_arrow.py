"""Arrow IPC streams of strangers: what is right is read, what is hostile is refused while small."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visavis.errors import InputError, LimitError, SchemaError
from visavis.gateway.arrow import TEXT_BYTES_MAX, check_unfolded, row_count_of, table_of

EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "80"))

TABLE = pa.table(
    {
        "customer_id": ["a", "b", "c"],
        "days": pa.array([1.0, 2.0, 3.0], pa.float32()),
        "age": pa.array([1, None, 3], pa.int64()),
        "country": pa.array(["FR", None, "FR"]).dictionary_encode(),
        "member": [True, False, None],
        "nothing": pa.nulls(3),
    }
)


def streamed(*tables: pa.Table, compression: str | None = None, deltas: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, tables[0].schema, options=options) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read(content: bytes, **options: Any) -> pa.Table:
    return table_of(content, **{"columns_max": 9, "rows_max": 100, "field": "x", **options})


def test_a_stream_is_read_whole() -> None:
    assert read(streamed(TABLE)).equals(TABLE)
    content = streamed(TABLE, TABLE.slice(1), TABLE.slice(3))
    assert read(content).equals(pa.concat_tables([TABLE, TABLE.slice(1)]))
    assert row_count_of(content, 100) == 5
    assert row_count_of(content, 4) == 4
    assert row_count_of(content[:50], 100) == row_count_of(b"", 9) == 0
    # Wherever the bytes happen to lie.
    assert read((b"x" + content)[1:]).num_rows == 5
    empty = streamed(TABLE.slice(0, 0))
    assert read(empty).num_rows == row_count_of(empty, 9) == 0


def test_many_batches_count_as_all_that_may_come() -> None:
    assert row_count_of(streamed(*[TABLE] * 40), 100) == 100


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_what_is_compressed_is_refused_before_it_is_unfolded(compression: str) -> None:
    zeros = pa.table({"days": np.zeros(50_000_000, np.float32)})
    content = streamed(zeros, compression=compression)
    assert len(content) < 2**20
    before = pa.total_allocated_bytes()
    with pytest.raises(SchemaError, match="must not be compressed"):
        read(content, rows_max=2**40)
    texts = pa.table({"country": pa.array(["x" * 999] * 9).dictionary_encode()})
    with pytest.raises(SchemaError, match="must not be compressed"):
        read(streamed(texts, compression=compression))
    assert pa.total_allocated_bytes() - before < 2**20


def test_dictionaries_that_grow_are_refused() -> None:
    tables = [pa.table({"c": pa.array(names).dictionary_encode()}) for names in (["a"], ["a", "b"])]
    with pytest.raises(SchemaError, match="that grow"):
        read(streamed(*tables, deltas=True))
    assert read(streamed(*tables))["c"].to_pylist() == ["a", "a", "b"]


def test_text_that_rows_share_is_bounded_before_it_is_written_out() -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 50), pa.array(["x" * 2**19]))
    with pytest.raises(LimitError, match="written out") as caught:
        read(streamed(pa.table({"country": long})))
    assert caught.value.field == "x.country"
    assert read(streamed(pa.table({"country": long[:9]}))).num_rows == 9
    texts = pa.array(["a" * TEXT_BYTES_MAX, None])
    check_unfolded(texts, pa.array([0, None, 1]), "x")
    with pytest.raises(LimitError):
        check_unfolded(texts, pa.array([0, 0]), "x")


def test_rows_and_columns_are_bounded() -> None:
    with pytest.raises(LimitError, match="at most 4 rows, got 5"):
        read(streamed(TABLE, TABLE.slice(1)), rows_max=4)
    with pytest.raises(LimitError, match="at most 5 columns, got 6"):
        read(streamed(TABLE), columns_max=5)
    # No bytes at all for as many rows as one likes.
    nobody = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    nothing = pa.table({"nothing": nobody})
    with pytest.raises(LimitError, match="rows"):
        read(streamed(nothing))
    with pytest.raises(LimitError, match="rows"):
        read(streamed(nothing.select([])))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([b"x"]),
        pa.array([1], pa.time32("s")),
        pa.array([1], pa.timestamp("s")),
        pa.array([None], pa.decimal128(9, 2)),
        pa.array(["x"], pa.string_view()),
        pa.array([1]).dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays([1], pa.array([1.0])),
        pa.array([b"0" * 16], pa.uuid()),
        pa.ListArray.from_arrays([0, 1], pa.array(["x"]).dictionary_encode()),
    ],
)
def test_types_that_no_base_takes_are_refused_by_column(column: pa.Array) -> None:
    with pytest.raises(SchemaError, match="must be bool, integer") as caught:
        read(streamed(pa.table({"strange": column})))
    assert caught.value.field == "x.strange"


GOOD = streamed(TABLE, TABLE.slice(1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff" * 8,
        b"\xff\xff\xff\xff\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 99,
        b"ARROW1\0\0" + GOOD,
        GOOD[8:],
        GOOD[:-20],
        GOOD[: len(GOOD) // 2],
    ],
)
def test_what_is_no_stream_is_refused(content: bytes) -> None:
    with pytest.raises(SchemaError) as caught:
        read(content)
    assert caught.value.field == "x"
    assert row_count_of(content, 9) <= 9


@settings(max_examples=EXAMPLES * 10, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    words=st.lists(
        st.tuples(
            st.integers(0, len(GOOD) // 4 - 1),
            st.sampled_from([-1, 0, 1, 2, 2**31 - 1, -(2**31), 2**24]),
        ),
        max_size=2,
    ),
    cut=st.integers(0, 64),
)
@example(changes=[(0, 0)], words=[], cut=0)
def test_damaged_streams_are_read_or_refused(
    changes: list[tuple[int, int]], words: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    for place, value in words:
        struct.pack_into("<i", content, 4 * place, value)
    damaged = bytes(content[: len(content) - cut])
    before = pa.total_allocated_bytes()
    field: str | None = "x"
    try:
        table = read(damaged)
        assert table.num_rows <= 100
        table.to_pylist()
        del table
    except InputError as error:
        field = error.field
    assert field is not None
    assert field.startswith("x")
    assert pa.total_allocated_bytes() - before < 2**24
    assert 0 <= row_count_of(damaged, 100) <= 100
