"""The flat columns of a catalog at the door: texts, numbers, links and dates, checked.

Every refusal names the field, the row (0-based, in the order of the input) and the capability.
Checks run over whole Arrow columns, never row by row in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visavis.catalog.schema import (
    CATALOG_SCHEMA,
    DATE_COLUMNS,
    NUMBER_DEFAULTS,
    REQUIRED,
    capability_subject,
    did_you_mean,
)
from visavis.domain import MAGNITUDE_MAX, Link, day_number
from visavis.errors import InputError, LimitError, SchemaError

__all__ = [
    "Bools",
    "Door",
    "Floats",
    "Ints",
    "check_dates",
    "check_link",
    "check_magnitudes",
    "check_names",
    "check_number",
    "check_text",
    "check_texts",
    "equals",
    "floats",
    "is_number",
    "is_text",
    "narrowed",
    "nulls",
    "one_array",
    "order_of_ids",
    "refuse_column",
]

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

#: Most bytes of text in one column: Arrow's 32-bit offsets.
TEXT_BYTES_MAX: Final = 2**31 - 1

_LINK_LABELS: Final = tuple(link.label for link in Link)


class Door:
    """The input table, and how a refusal names a row of it."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.row_count: int = table.num_rows
        self.ids = pa.nulls(table.num_rows, pa.string())

    def refuse(self, wrong: Bools, field: str, reason: str | Callable[[int], str]) -> None:
        """Raise for the first row that is `wrong` (shape (rows,)), if any is."""
        if wrong.any():
            row = int(np.argmax(wrong))
            said = reason if isinstance(reason, str) else reason(row)
            raise InputError(said, field=field, row=row, subject=self.subject(row))

    def subject(self, row: int) -> str | None:
        """Return how an error names the capability of a row."""
        return capability_subject(self.ids[row].as_py())

    def column(self, name: str) -> pa.ChunkedArray | None:
        """Return a validated column, or None where it is absent or holds nulls only."""
        if name not in self.table.column_names:
            return None
        column = self.table[name]
        if name in REQUIRED:
            self.refuse(nulls(column), name, "is required, got null")
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(f"holds malformed values: {error}", field=name) from None
        return None if pa.types.is_null(column.type) else column


def check_magnitudes(
    numbers: Mapping[str, Floats],
    refuse: Callable[[Bools, str, str | Callable[[int], str]], None],
) -> None:
    """Hold value, cost and bias (each of shape (m,), float64) to the bounds of the score's law.

    Parameters
    ----------
    numbers : mapping
        Any of ``bias``, ``value``, ``cost``.
    refuse : callable (wrong, field, reason)
        Raises for the first wrong row, if any.
    """
    for name, values in numbers.items():

        def must(what: str, values: Floats = values) -> Callable[[int], str]:
            return lambda row: f"must {what}, got {float(values[row])!r}"

        refuse(~np.isfinite(values), name, must("be finite"))
        if name == "bias":
            refuse(~np.isfinite(narrowed(values)), name, must("fit float32"))
            continue
        if name == "value":
            refuse(values < 0, name, must("not be negative"))
        refuse(np.abs(values) > MAGNITUDE_MAX, name, must("not exceed 2^100 in magnitude"))


def refuse_column(name: str, *, row: int | None = None, subject: str | None = None) -> None:
    """Raise if `name` is no column of a catalog."""
    if name == "capacity":
        raise SchemaError(
            "a capacity is refused until something plans with it",
            field=name,
            row=row,
            subject=subject,
        )
    if name not in CATALOG_SCHEMA.names:
        hint = did_you_mean(name, CATALOG_SCHEMA.names)
        raise SchemaError(f"is no column of a catalog{hint}", field=name, row=row, subject=subject)


def check_names(table: pa.Table) -> None:
    """Refuse columns that are unknown, repeated or missing."""
    for name in table.column_names:
        refuse_column(name)
        if table.column_names.count(name) > 1:
            raise SchemaError("appears more than once", field=name)
    for name in REQUIRED:
        if name not in table.column_names:
            raise SchemaError("is required, but there is no such column", field=name)


def nulls(column: pa.Array | pa.ChunkedArray) -> Bools:
    """Tell which values are null."""
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False), dtype=np.bool_)


def equals(column: pa.Array, text: str) -> Bools:
    """Tell which values are `text`."""
    return np.asarray(
        pc.fill_null(pc.equal(column, text), False).to_numpy(zero_copy_only=False), dtype=np.bool_
    )


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Join the chunks of a column."""
    merged = column.combine_chunks()
    return pa.concat_arrays(merged.chunks) if isinstance(merged, pa.ChunkedArray) else merged


def is_text(dtype: pa.DataType) -> bool:
    """Tell whether a column of this type holds text, in whatever layout."""
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_string_view(dtype)
        or (pa.types.is_dictionary(dtype) and is_text(dtype.value_type))
    )


def is_number(dtype: pa.DataType) -> bool:
    """Tell whether a column of this type holds integers or floats."""
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


def check_text(door: Door, name: str) -> pa.Array:
    """Return a text column as one StringArray; nulls stay."""
    column = door.column(name)
    if column is None:
        return pa.nulls(door.row_count, pa.string())
    if not is_text(column.type):
        raise SchemaError(f"must be text, got a column of {column.type}", field=name)
    wide = column.cast(pa.large_string())
    byte_count = pc.sum(pc.binary_length(wide)).as_py() or 0
    if byte_count > TEXT_BYTES_MAX:
        raise LimitError(
            f"holds {byte_count} bytes of text, more than {TEXT_BYTES_MAX}", field=name
        )
    return one_array(wide).cast(pa.string())


def order_of_ids(door: Door) -> Ints:
    """Return the rows in UTF-8 byte order of their ids; Arrow compares text as bytes."""
    order: Ints = pc.array_sort_indices(door.ids).to_numpy().astype(np.int64)
    ordered = door.ids.take(pa.array(order))
    repeated = _equals_next(ordered)
    if repeated.any():
        first = int(np.argmax(repeated))
        rows = sorted(int(row) for row in order[first : first + 2])
        raise InputError(
            f"must be unique; row {rows[0]} has the same",
            field="id",
            row=rows[1],
            subject=door.subject(rows[1]),
        )
    return order


def _equals_next(ordered: pa.Array) -> Bools:
    if len(ordered) < 2:
        return np.zeros(0, dtype=np.bool_)
    same = pc.equal(ordered.slice(1), ordered.slice(0, len(ordered) - 1))
    return np.asarray(same.to_numpy(zero_copy_only=False), dtype=np.bool_)


def check_texts(door: Door) -> dict[str, pa.Array]:
    """Return the text columns but ``link``, with their defaults; empty text counts as absent."""
    text = {"id": door.ids}
    for name in ("product", "channel"):
        text[name] = check_text(door, name)
        door.refuse(equals(text[name], ""), name, "must not be empty")
    defaults = {
        "name": door.ids,
        "family": text["product"],
        "variant": pa.scalar("", pa.string()),
        "message": pa.scalar("", pa.string()),
        "rule": pa.scalar(None, pa.string()),
    }
    for name, default in defaults.items():
        column = check_text(door, name)
        absent = pa.array(nulls(column) | equals(column, ""))
        text[name] = pc.if_else(absent, default, column)
    return text


def check_link(door: Door) -> NDArray[np.uint8]:
    """Return the codes of ``domain.Link``; an absent link is logistic."""
    labels = check_text(door, "link")
    absent = nulls(labels) | equals(labels, "")
    found = pc.fill_null(pc.index_in(labels, pa.array(_LINK_LABELS)), -1).to_numpy()
    codes = np.where(absent, int(Link.LOGISTIC), found)

    def reason(row: int) -> str:
        label = labels[row].as_py()
        known = ", ".join(_LINK_LABELS)
        return f"must be one of {known}, got {label!r}{did_you_mean(label, _LINK_LABELS)}"

    door.refuse(codes < 0, "link", reason)
    return codes.astype(np.uint8)


def check_number(door: Door, name: str) -> Floats:
    """Return a numeric column, not yet held to any bound; nulls become the default."""
    column = door.column(name)
    default = NUMBER_DEFAULTS[name]
    if column is None:
        return np.full(door.row_count, default)
    if not is_number(column.type):
        raise SchemaError(f"must be a number, got a column of {column.type}", field=name)
    return floats(column.cast(pa.float64(), safe=False), default)


def floats(column: pa.Array | pa.ChunkedArray, default: float) -> Floats:
    """Return float64 values, nulls replaced; adding 0.0 turns −0.0 into +0.0."""
    values = pc.fill_null(column, default).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64) + 0.0


def narrowed(values: Floats) -> NDArray[np.float32]:
    """Round to float32; what overflows becomes infinite, what underflows becomes +0.0."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32) + np.float32(0)


def check_dates(door: Door) -> dict[str, pa.Array]:
    """Return the validity bounds as Date32Arrays, null where unbounded."""
    dates = {name: _date(door, name) for name in DATE_COLUMNS}
    first, last = (dates[name] for name in DATE_COLUMNS)
    backwards = pc.fill_null(pc.greater(first, last), False)
    door.refuse(
        backwards.to_numpy(zero_copy_only=False),
        "valid_from",
        lambda row: f"{first[row].as_py()} lies after valid_to {last[row].as_py()}",
    )
    return dates


def _date(door: Door, name: str) -> pa.Array:
    column = door.column(name)
    if column is None:
        return pa.nulls(door.row_count, pa.date32())
    if is_text(column.type):
        return _dates_of_text(door, name)
    if not pa.types.is_date(column.type):
        raise SchemaError(f"must be a date, got a column of {column.type}", field=name)
    dates = one_array(column.cast(pa.date32()))
    days = pc.fill_null(dates.cast(pa.int32()), 0).to_numpy()
    # Beyond these years no Python date, and so no ISO text, can hold the day.
    outside = (days < day_number(date.min)) | (days > day_number(date.max))
    door.refuse(outside, name, "must lie in the years 1 to 9999")
    return dates


def _dates_of_text(door: Door, name: str) -> pa.Array:
    texts = check_text(door, name)
    distinct = texts.dictionary_encode()
    parsed: list[date | None] = []
    wrong = np.zeros(len(distinct.dictionary) + 1, dtype=np.bool_)
    for code, text in enumerate(distinct.dictionary.to_pylist()):
        try:
            parsed.append(date.fromisoformat(text) if text else None)
        except ValueError:
            parsed.append(None)
            wrong[code] = True
    codes = pc.fill_null(distinct.indices, -1)
    door.refuse(
        wrong[codes.to_numpy()],
        name,
        lambda row: f"must be an ISO date such as 2017-10-20, got {texts[row].as_py()!r}",
    )
    return pa.array(parsed, pa.date32()).take(distinct.indices)
