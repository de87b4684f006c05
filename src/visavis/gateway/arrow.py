"""Arrow IPC streams of strangers → tables: bounded before a byte of them is unfolded.

What a stream says of itself may be anything. So its messages are looked through first: compressed
bodies, dictionaries that grow and more rows than may be are refused while they still are a few
bytes. Then Arrow reads it, checks it in full, and text that rows share is bounded before it is
written out row by row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.errors import InputError, LimitError, SchemaError

__all__ = ["TEXT_BYTES_MAX", "check_unfolded", "row_count_of", "table_of"]

#: What texts that rows share may grow to when each row gets its own: four messages.
TEXT_BYTES_MAX: Final = 16 * 2**20

#: Messages that are looked at to say how much work a stream will be.
_MESSAGES_LOOKED_AT: Final = 16

#: Places in the tables of Arrow's format (Message.fbs).
_HEADER, _LENGTH, _COMPRESSION = 2, 0, 3
_DATA, _IS_DELTA = 1, 2

#: What reading may raise: Arrow's errors, its texts that are no UTF-8, offsets beyond the bytes.
_UNREADABLE: Final = (pa.ArrowException, ValueError, OSError, EOFError, struct.error, IndexError)


def table_of(content: bytes, *, columns_max: int, rows_max: int, field: str) -> pa.Table:
    """The table that an Arrow IPC stream holds, every cell of it checked.

    Parameters
    ----------
    content : bytes
    columns_max, rows_max : int
    field : str
        Where the stream stands in the request.

    Raises
    ------
    SchemaError
        If the bytes are no stream, or hold what is not taken: compressed bodies, nested types,
        dictionaries that grow.
    LimitError
        If there are too many columns or rows, or their texts would be too long.
    """
    with _read_as_stream(field):
        rows = sum(_row_counts(content, field))
    if rows > rows_max:
        raise LimitError(f"must be at most {rows_max} rows, got {rows}", field=field)
    with _read_as_stream(field):
        options = pa.ipc.IpcReadOptions(
            use_threads=False, ensure_alignment=pa.ipc.Alignment.DataTypeSpecific
        )
        with pa.ipc.open_stream(pa.py_buffer(content), options=options) as reader:
            _check_schema(reader.schema, columns_max, field)
            table = reader.read_all()
            table.validate(full=True)
    _check_texts(table, field)
    return table


def row_count_of(content: bytes, most: int) -> int:
    """How many rows a stream says that it has, up to `most`; 0 if it cannot be read."""
    try:
        rows = 0
        for number, count in enumerate(_row_counts(content, "")):
            rows += count
            if number == _MESSAGES_LOOKED_AT or rows >= most:
                return most
        return rows
    except (*_UNREADABLE, InputError):
        return 0


@contextmanager
def _read_as_stream(field: str) -> Iterator[None]:
    try:
        yield
    except (SchemaError, LimitError):
        raise
    except _UNREADABLE as error:
        # What Arrow says of damaged bytes may quote them at any length.
        reason = f"is no Arrow IPC stream: {error!s:.200}"
        raise SchemaError(reason, field=field) from None


def _row_counts(content: bytes, field: str) -> Iterator[int]:
    """The rows of each record batch, as its message says; nothing is unfolded."""
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(content)):
        if message.type == "schema":
            continue
        metadata = memoryview(message.metadata)
        header = _table_at(metadata, _root(metadata), _HEADER)
        if message.type == "dictionary":
            delta = _slot(metadata, header, _IS_DELTA)
            if delta is not None and _number(metadata, delta, "<B"):
                raise SchemaError("must not hold dictionaries that grow", field=field)
            header = _table_at(metadata, header, _DATA)
        elif message.type != "record batch":
            raise SchemaError(f"must not hold a {message.type}", field=field)
        if _slot(metadata, header, _COMPRESSION) is not None:
            raise SchemaError("must not be compressed", field=field)
        if message.type == "record batch":
            place = _slot(metadata, header, _LENGTH)
            count = 0 if place is None else _number(metadata, place, "<q")
            if count < 0:
                raise SchemaError("has a negative number of rows", field=field)
            yield count


# A table of a flatbuffer: where it begins it says how far before it its list of places stands.


def _root(metadata: memoryview) -> int:
    return _number(metadata, 0, "<I")


def _slot(metadata: memoryview, table: int, number: int) -> int | None:
    """Where the field of that number stands; None if the table does not have it."""
    places = table - _number(metadata, table, "<i")
    entry = 4 + 2 * number
    if entry + 2 > _number(metadata, places, "<H"):
        return None
    offset = _number(metadata, places + entry, "<H")
    return table + offset if offset else None


def _table_at(metadata: memoryview, table: int, number: int) -> int:
    """Where the table that a field refers to begins."""
    place = _slot(metadata, table, number)
    if place is None:
        raise ValueError("a message without its header")
    return place + _number(metadata, place, "<I")


def _number(metadata: memoryview, place: int, kind: str) -> int:
    if place < 0:
        raise IndexError("a place before the message")
    (number,) = struct.unpack_from(kind, metadata, place)
    return int(number)


_PLAIN: Final[tuple[Callable[[pa.DataType], bool], ...]] = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_date,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_null,
)


def _check_schema(schema: pa.Schema, columns_max: int, field: str) -> None:
    if len(schema) > columns_max:
        raise LimitError(f"must be at most {columns_max} columns, got {len(schema)}", field=field)
    for column in schema:
        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
            is_taken = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        else:
            is_taken = any(is_of(kind) for is_of in _PLAIN)
        if not is_taken:
            reason = f"must be bool, integer, float, string or date, got {column.type!s:.80}"
            raise SchemaError(reason, field=f"{field}.{column.name:.80}")


def _check_texts(table: pa.Table, field: str) -> None:
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:
                check_unfolded(chunk.dictionary, chunk.indices, f"{field}.{name:.80}")


def check_unfolded(texts: pa.Array, index: pa.Array, field: str) -> None:
    """Refuse texts that would be too long if each position of `index` had its own.

    Raises
    ------
    LimitError
    """
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy().astype(np.int64)
    places: Any = index.drop_null().to_numpy(zero_copy_only=False)
    total = int(sizes[places].sum()) if len(places) else 0
    if total > TEXT_BYTES_MAX:
        reason = f"holds {total} bytes of text when written out, of at most {TEXT_BYTES_MAX}"
        raise LimitError(reason, field=field)
