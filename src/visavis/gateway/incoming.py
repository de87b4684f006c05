"""Indicators and attributes as a request has them → the arrays and tables that doors take.

Only the form is checked here: lengths, names, types. What a value may be is said at the doors of
base and journal (``visavis.base``). Errors name the field by its path below the message given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.catalog.schema import did_you_mean
from visavis.domain import parse_date
from visavis.errors import InputError, SchemaError
from visavis.gateway.codec import BYTE, FLOAT64, INT32, numbers
from visavis.v1 import profile_pb2 as v1

__all__ = [
    "attribute_column",
    "attribute_row",
    "cast_attribute",
    "check_complete",
    "check_known",
    "indicator_cells",
    "indicator_matrix",
    "indicator_row",
]

_FLOAT32: Final[np.dtype[np.float32]] = np.dtype("<f4")
_INT64: Final[np.dtype[np.int64]] = np.dtype("<i8")

#: Which member of a oneof holds an attribute, by what the base declares.
_BOOL, _INTEGER, _FLOAT, _TEXT, _DATE = "bool", "int64", "double", "string", "date"

Matrix = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def indicator_row(values: Mapping[str, float], names: Sequence[str], *, field: str) -> Matrix:
    """The indicators of one profile, shape (1, d), in the order of `names`.

    Raises
    ------
    SchemaError
        If one is missing, or is none of them.
    InputError
        If one is not finite as float32.
    """
    check_complete(values.keys(), names, field)
    with np.errstate(over="ignore"):  # what overflows to inf is refused by name below
        row = np.array([[values[name] for name in names]], dtype=np.float64).astype(np.float32)
    _check_finite(row, names, field, is_one=True)
    return row


def indicator_matrix(
    columns: v1.IndicatorColumns, names: Sequence[str], row_count: int, *, field: str
) -> Matrix:
    """The indicators of many profiles, shape (n, d), in the order of `names`.

    Parameters
    ----------
    columns : IndicatorColumns
    names : sequence of d str
        Of the served base; all must be given.
    row_count : int
        n.
    field : str
        Where `columns` stands in the request.

    Raises
    ------
    SchemaError
        If names or lengths do not fit.
    InputError
        If a value is not given, or not finite.
    """
    check_complete(columns.indicator_names, names, f"{field}.indicator_names")
    named, values, given = indicator_cells(columns, names, row_count, field=field)
    if not given.all():
        row = int(np.argwhere(~given)[0][0])
        raise InputError("must all be given in a profile", field=f"{field}.is_given", row=row)
    column_of = {name: column for column, name in enumerate(named)}
    return values[:, [column_of[name] for name in names]]


def indicator_cells(
    columns: v1.IndicatorColumns, names: Sequence[str], row_count: int, *, field: str
) -> tuple[list[str], Matrix, Bools]:
    """Some indicators of many customers, in the order of the request.

    Parameters
    ----------
    columns, names, row_count, field
        As in `indicator_matrix`.

    Returns
    -------
    list of c str
        Of `names`.
    values : ndarray of shape (n, c), float32
        0 where not given.
    is_given : ndarray of shape (n, c), bool

    Raises
    ------
    SchemaError
        If names or lengths do not fit.
    InputError
        If a value that is given is not finite.
    """
    named = list(columns.indicator_names)
    if len(set(named)) != len(named):
        raise SchemaError("must name each indicator once", field=f"{field}.indicator_names")
    check_known(named, names, f"{field}.indicator_names")
    shape = row_count, len(named)
    cells = row_count * len(named)
    values = numbers(columns.values, _FLOAT32, cells, f"{field}.values").reshape(shape)
    given = _mask(columns.is_given, cells, f"{field}.is_given").reshape(shape)
    values = np.where(given, values, np.float32(0.0))
    _check_finite(values, named, field, is_one=False)
    return named, values, given


def check_complete(given: Iterable[str], names: Sequence[str], field: str) -> None:
    """Refuse what does not name all of `names`, and nothing else."""
    given = set(given)
    check_known(given, names, field)
    missing = sorted(set(names) - given)
    if missing:
        raise SchemaError(f"{missing[0]!r} is missing, of {len(missing)}", field=field)


def check_known(given: Iterable[str], names: Sequence[str], field: str) -> None:
    """Refuse what names anything beside `names`."""
    unknown = sorted(set(given) - set(names))
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise SchemaError(f"the base has no {unknown[0]!r}{hint}", field=field)


def _check_finite(matrix: Matrix, names: Sequence[str], field: str, *, is_one: bool) -> None:
    wrong = ~np.isfinite(matrix)
    if wrong.any():
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        raise InputError(
            "must be finite as float32",
            field=f"{field}.{names[column]}",
            row=None if is_one else row,
        )


def _mask(content: bytes, count: int, field: str) -> Bools:
    """One byte for each value; none at all: all are given."""
    if not content:
        return np.ones(count, dtype=np.bool_)
    flags = numbers(content, BYTE, count, field)
    _check_flags(flags, field)
    return flags.astype(np.bool_)


def _check_flags(flags: npt.NDArray[Any], field: str) -> None:
    if (flags > 1).any():
        raise InputError("must be 0 or 1", field=field, row=int(np.argmax(flags > 1)))


def attribute_row(
    values: Mapping[str, v1.AttributeValue], schema: pa.Schema, *, field: str
) -> dict[str, pa.Array]:
    """The attributes of one customer, each an array of length 1 in the type of the base.

    Raises
    ------
    SchemaError
        If the base has no such attribute, or another type.
    InputError
        If a value does not fit its type.
    """
    check_known(values.keys(), schema.names, field)
    row = {}
    for name, value in values.items():
        kind, where = schema.field(name).type, f"{field}.{name}"
        member = value.WhichOneof("value")
        if member is None:
            row[name] = pa.nulls(1, kind)
            continue
        _check_type(member.removesuffix("_value"), kind, where)
        cell = getattr(value, member)
        if member == "date_value":
            cell = parse_date(cell, field=where)
        row[name] = _typed(pa.array([cell]), kind, where, is_one=True)
    return row


def attribute_column(
    column: v1.AttributeColumn, schema: pa.Schema, row_count: int, *, field: str
) -> pa.Array:
    """One attribute of many customers in the type of the base; null where not given.

    Raises
    ------
    SchemaError
        If the base has no such attribute, or another type, or lengths do not fit.
    InputError
        If a value does not fit its type.
    """
    check_known([column.name], schema.names, f"{field}.name")
    member = column.WhichOneof("values")
    if member is None:
        raise SchemaError("must be given", field=f"{field}.values")
    kind, where = schema.field(column.name).type, f"{field}.{member}"
    _check_type(member.removesuffix("_values"), kind, where)
    given = _mask(column.is_given, row_count, f"{field}.is_given")
    content = getattr(column, member)
    if member == "string_values":
        if len(content.texts) != row_count:
            raise SchemaError(f"must be {row_count} texts, got {len(content.texts)}", field=where)
        array = pa.array(content.texts, pa.string(), mask=~given)
    elif member == "bool_values":
        flags = numbers(content, BYTE, row_count, where)
        _check_flags(flags, where)
        array = pa.array(flags.astype(np.bool_), mask=~given)
    elif member == "date_values":
        array = pa.array(numbers(content, INT32, row_count, where), mask=~given)
        array = array.cast(pa.date32())
    else:
        width = _INT64 if member == "int64_values" else FLOAT64
        array = pa.array(numbers(content, width, row_count, where), mask=~given)
    return _typed(array, kind, where, is_one=False)


def cast_attribute(array: pa.Array, kind: pa.DataType, field: str) -> pa.Array:
    """Values of one attribute as the base declares them: of the same type, or a wider one.

    Raises
    ------
    SchemaError
        If they are of another type.
    InputError
        If one does not fit, naming its row where that can be told.
    """
    if pa.types.is_date64(array.type) or not _is_typed(array.type):
        raise SchemaError(f"must be {kind}, as the base declares, got {array.type}", field=field)
    _check_type(_type_of(array.type), kind, field)
    return _typed(array, kind, field, is_one=False)


def _is_typed(kind: pa.DataType) -> bool:
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_date)
    return pa.types.is_string(kind) or any(is_of(kind) for is_of in tests)


def _check_type(given: str, kind: pa.DataType, field: str) -> None:
    wanted = _type_of(kind)
    if given != wanted:
        raise SchemaError(f"must be {wanted}, as the base declares, got {given}", field=field)


def _type_of(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return _BOOL
    if pa.types.is_integer(kind):
        return _INTEGER
    if pa.types.is_floating(kind):
        return _FLOAT
    return _DATE if pa.types.is_date(kind) else _TEXT


def _typed(array: pa.Array, kind: pa.DataType, field: str, *, is_one: bool) -> pa.Array:
    """The values in the type of the base: a narrower integer or float, a dictionary of texts."""
    try:
        cast = array.cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"does not fit {kind}: {error}", field=field) from None
    if pa.types.is_floating(kind):
        # A float32 does not hold every float64: what overflows became infinite.
        wrong = ~np.isfinite(cast.fill_null(0.0).to_numpy(zero_copy_only=False))
        if wrong.any():
            row = None if is_one else int(np.argmax(wrong))
            raise InputError(f"must be finite as {kind}", field=field, row=row)
    return cast
