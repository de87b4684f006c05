"""*Same bytes*, made checkable: one sha256 per table, of its values in a canonical serialisation.

A Parquet file embeds the version of its writer, and Arrow holds equal columns in many layouts
(chunks, slices, dictionaries, garbage under nulls). None of that may show in a digest, so it is
taken of the values themselves, written in one defined way.

The serialisation, *form 1*. ``u64`` is 8 bytes, little-endian; a *text* is its u64 byte length,
then its UTF-8 bytes. ::

    table    "visavis columns 1", newline, u64 row count, u64 column count, then each column
    column   text name, then its values
    values   text type tag, u64 count, validity, then by type:
               bool            a byte per value, 0 or 1
               numbers, dates  the values, little-endian, in their own width
               string, binary  count + 1 offsets as u64, then the bytes, end to end
               list            count + 1 offsets as u64, then the elements as values
               map             as a list of struct<key, value>, the keys of each map ascending
               struct          u64 field count, then each field as a column
    validity a byte 0 if no value is null; else a byte 1, then a byte per value, 1 if not null

A null counts as zero, as empty or, in a struct, as null in every field. Type tags leave the layout
out: ``string`` stands for string, large_string, string_view and dictionaries of them. The values
count as they are: −0.0 and 0.0 differ, and so do two NaNs with other bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.errors import SchemaError

__all__ = ["canonical_digest"]

_MAGIC: Final = b"visavis columns 1\n"


class _Sink(Protocol):
    """What bytes are fed to: a hashlib object, or a test's recorder."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""


def canonical_digest(table: pa.Table) -> str:
    """Return the sha256 of the canonical column buffers of `table`, in hex.

    Parameters
    ----------
    table : pyarrow.Table
        Columns of booleans, integers, floats, decimals, dates, times, text, binary, and lists,
        structs and maps of these. The order of columns and of rows counts; schema metadata does
        not.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SchemaError
        If a column's type has no canonical form.
    """
    sink = hashlib.sha256()
    sink.update(_MAGIC + _u64(table.num_rows) + _u64(table.num_columns))
    for name, column in zip(table.column_names, table.columns, strict=True):
        sink.update(_text(name))
        _values(sink, [_plain(chunk) for chunk in column.chunks], column.type, name)
    return sink.hexdigest()


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _u64(len(encoded)) + encoded


def _plain(chunk: pa.Array) -> pa.Array:
    """Undo a dictionary; the layouts that Arrow cannot iterate by buffer become those it can."""
    if pa.types.is_dictionary(chunk.type):
        return _plain(chunk.dictionary_decode())
    if pa.types.is_string_view(chunk.type):
        return chunk.cast(pa.large_string())
    if pa.types.is_binary_view(chunk.type):
        return chunk.cast(pa.large_binary())
    return chunk


def _values(sink: _Sink, chunks: list[pa.Array], dtype: pa.DataType, field: str) -> None:
    """Feed one column, given as decoded chunks of one type.

    Each buffer goes through all chunks before the next buffer starts: that is what makes the
    bytes independent of where the chunks are cut.
    """
    dtype = chunks[0].type if chunks else _decoded(dtype)
    sink.update(_text(_tag(dtype, field)))
    sink.update(_u64(sum(len(chunk) for chunk in chunks)))
    _validity(sink, chunks)
    if pa.types.is_null(dtype):
        return
    if _is_text(dtype) or _is_binary(dtype):
        _feed_bytes(sink, chunks)
    elif pa.types.is_map(dtype):
        _map(sink, chunks, dtype, field)
    elif _is_list(dtype):
        _list(sink, chunks, dtype, field)
    elif pa.types.is_struct(dtype):
        _struct(sink, chunks, dtype, field)
    else:
        for chunk in chunks:
            sink.update(_fixed_width(chunk))


def _decoded(dtype: pa.DataType) -> pa.DataType:
    return dtype.value_type if pa.types.is_dictionary(dtype) else dtype


def _is_text(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_string_view(dtype)
    )


def _is_binary(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(dtype)
        or pa.types.is_large_binary(dtype)
        or pa.types.is_binary_view(dtype)
    )


def _is_list(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(dtype)
        or pa.types.is_large_list(dtype)
        or pa.types.is_fixed_size_list(dtype)
    )


def _tag(dtype: pa.DataType, field: str) -> str:
    """Name the type without its layout; children carry their own tags."""
    nested = (
        (_is_text, "string"),
        (_is_binary, "binary"),
        (pa.types.is_map, "map"),
        (_is_list, "list"),
        (pa.types.is_struct, "struct"),
    )
    for holds, tag in nested:
        if holds(dtype):
            return tag
    if pa.types.is_null(dtype) or pa.types.is_primitive(dtype) or pa.types.is_decimal(dtype):
        return str(dtype)
    raise SchemaError(f"type {dtype} has no canonical form", field=field)


def _validity(sink: _Sink, chunks: list[pa.Array]) -> None:
    if not any(chunk.null_count for chunk in chunks):
        sink.update(b"\0")
        return
    sink.update(b"\1")
    for chunk in chunks:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        sink.update(np.ascontiguousarray(valid).view(np.uint8).data)


def _fixed_width(chunk: pa.Array) -> memoryview:
    """Return the values' bytes, with nulls as zero."""
    if pa.types.is_boolean(chunk.type):
        flags = chunk.fill_null(False).to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(flags).view(np.uint8).data
    width = chunk.type.bit_width // 8
    buffer = chunk.buffers()[1]
    if buffer is None:
        return memoryview(bytes(width * len(chunk)))
    raw = np.frombuffer(buffer, dtype=np.uint8, count=width * (chunk.offset + len(chunk)))
    cells = raw[width * chunk.offset :].reshape(len(chunk), width)
    if chunk.null_count:
        # fill_null has no kernel for every type; the bytes under a null are undefined.
        cells = np.where(chunk.is_valid().to_numpy(zero_copy_only=False)[:, None], cells, 0)
    return np.ascontiguousarray(cells).reshape(-1).data


def _offsets(sink: _Sink, lengths: Iterator[np.ndarray[Any, np.dtype[np.int64]]]) -> None:
    """Feed running totals over all chunks, from 0."""
    total = 0
    sink.update(_u64(0))
    for each in lengths:
        ends = np.cumsum(each, dtype=np.int64) + total
        if len(ends):
            total = int(ends[-1])
            sink.update(np.ascontiguousarray(ends.astype("<i8")).view(np.uint8).data)


def _feed_bytes(sink: _Sink, chunks: list[pa.Array]) -> None:
    filled = [chunk.fill_null(b"" if _is_binary(chunk.type) else "") for chunk in chunks]
    _offsets(sink, (pc.binary_length(chunk).to_numpy(zero_copy_only=False) for chunk in filled))
    for chunk in filled:
        _, offsets, data = chunk.buffers()
        if data is None or not len(chunk):
            continue
        wide = pa.types.is_large_string(chunk.type) or pa.types.is_large_binary(chunk.type)
        bounds = np.frombuffer(offsets, dtype=np.int64 if wide else np.int32)
        first, last = int(bounds[chunk.offset]), int(bounds[chunk.offset + len(chunk)])
        sink.update(memoryview(data)[first:last])


def _list(sink: _Sink, chunks: list[pa.Array], dtype: pa.DataType, field: str) -> None:
    if pa.types.is_fixed_size_list(dtype):
        chunks = [chunk.cast(pa.large_list(dtype.value_field)) for chunk in chunks]
    _offsets(
        sink,
        (
            pc.list_value_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
            for chunk in chunks
        ),
    )
    # flatten() leaves out what lies under nulls and outside a slice.
    _values(sink, [_plain(chunk.flatten()) for chunk in chunks], dtype.value_type, field)


def _struct(sink: _Sink, chunks: list[pa.Array], dtype: pa.DataType, field: str) -> None:
    # flatten() also carries a struct's own nulls down into its fields.
    flattened = [chunk.flatten() for chunk in chunks]
    sink.update(_u64(dtype.num_fields))
    for index in range(dtype.num_fields):
        child = dtype.field(index)
        sink.update(_text(child.name))
        _values(
            sink,
            [_plain(fields[index]) for fields in flattened],
            child.type,
            f"{field}.{child.name}",
        )


def _map(sink: _Sink, chunks: list[pa.Array], dtype: pa.DataType, field: str) -> None:
    entry = pa.struct([pa.field("key", dtype.key_type), pa.field("value", dtype.item_type)])
    ordered = [_with_sorted_keys(chunk.cast(pa.list_(entry))) for chunk in chunks]
    _offsets(
        sink,
        (
            pc.list_value_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
            for chunk, _ in ordered
        ),
    )
    _values(sink, [entries for _, entries in ordered], entry, field)


def _with_sorted_keys(lists: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return `lists` of struct<key, value> and their entries, each list's sorted by key.

    Equal keys keep their order: such a map is malformed, and its digest shows it as it is.
    """
    entries = lists.flatten()
    keys = _plain(entries.field("key"))
    encoded = keys.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    key_rank = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(lists)), lengths)
    same_row = row[1:] == row[:-1]
    if np.any(same_row & (key_rank[1:] < key_rank[:-1])):
        entries = entries.take(pa.array(np.lexsort((key_rank, row))))
    return lists, entries
