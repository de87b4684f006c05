"""Profiles, overrides and facts as a request has them → the arrays and tables that doors take.

Only the form is checked here: lengths, names, types. What a value may be is said at the doors of
base and journal (``visavis.base``). Errors name the field by its path below the message given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base import FACT_SCHEMA
from visavis.catalog.schema import did_you_mean
from visavis.domain import CUSTOMER_ID, FactKind, day_number, parse_date
from visavis.errors import InputError, SchemaError
from visavis.gateway.codec import BYTE, FLOAT64, INT32, numbers
from visavis.v1 import profile_pb2 as v1

__all__ = [
    "attribute_column",
    "attribute_row",
    "fact_columns",
    "fact_table",
    "indicator_cells",
    "indicator_matrix",
    "indicator_row",
]

_FLOAT32: Final[np.dtype[np.float32]] = np.dtype("<f4")
_INT64: Final[np.dtype[np.int64]] = np.dtype("<i8")

#: The contract's numbers of kinds; 0 is none.
_KINDS: Final = {
    number: FactKind(name.removeprefix("FACT_KIND_").lower())
    for name, number in v1.FactKind.items()
    if number
}

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
    _check_complete(values.keys(), names, field)
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
    _check_complete(columns.indicator_names, names, f"{field}.indicator_names")
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
    _check_known(named, names, f"{field}.indicator_names")
    shape = row_count, len(named)
    cells = row_count * len(named)
    values = numbers(columns.values, _FLOAT32, cells, f"{field}.values").reshape(shape)
    given = _mask(columns.is_given, cells, f"{field}.is_given").reshape(shape)
    values = np.where(given, values, np.float32(0.0))
    _check_finite(values, named, field, is_one=False)
    return named, values, given


def _check_complete(given: Any, names: Sequence[str], field: str) -> None:
    _check_known(given, names, field)
    missing = sorted(set(names) - set(given))
    if missing:
        raise SchemaError(f"{missing[0]!r} is missing, of {len(missing)}", field=field)


def _check_known(given: Any, names: Sequence[str], field: str) -> None:
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
    _check_known(values.keys(), schema.names, field)
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
    _check_known([column.name], schema.names, f"{field}.name")
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


def fact_table(customer_ids: Sequence[str], facts: Sequence[v1.Fact], *, field: str) -> pa.Table:
    """Facts as doors take them, one row each, in their order.

    Parameters
    ----------
    customer_ids : sequence of n str
    facts : sequence of n Fact
    field : str
        Where the facts stand in the request.

    Raises
    ------
    InputError
        If a fact is about nothing, is of no kind or has no date.
    """
    columns: dict[str, list[Any]] = {name: [] for name in FACT_SCHEMA.names[1:]}
    for row, fact in enumerate(facts):
        about = fact.WhichOneof("subject")
        if about is None:
            raise InputError("product or capability_id must be given", field=field, row=row)
        if fact.kind not in _KINDS:
            reason = f"must be a kind of fact, got {fact.kind}"
            raise InputError(reason, field=f"{field}.kind", row=row)
        columns["product"].append(fact.product if about == "product" else None)
        columns["capability_id"].append(fact.capability_id if about == "capability_id" else None)
        columns["kind"].append(_KINDS[fact.kind].value)
        columns["date"].append(_day(fact.date, f"{field}.date", row))
        columns["count"].append(fact.count if fact.HasField("count") else 1)
    arrays = {
        "product": pa.array(columns["product"], pa.string()),
        "capability_id": pa.array(columns["capability_id"], pa.string()),
        "kind": pa.array(columns["kind"], pa.string()),
        "date": pa.array(columns["date"], pa.int32()).cast(pa.date32()),
        "count": pa.array(columns["count"], pa.int64()),
    }
    return pa.table({CUSTOMER_ID: pa.array(customer_ids, pa.string()), **arrays})


def _day(text: str, field: str, row: int) -> int:
    try:
        return day_number(parse_date(text, field=field))
    except InputError as error:
        raise InputError(error.reason, field=field, row=row) from None


def fact_columns(columns: v1.FactColumns, customer_ids: pa.StringArray, *, field: str) -> pa.Table:
    """Facts of many customers as doors take them.

    Parameters
    ----------
    columns : FactColumns
    customer_ids : pyarrow.StringArray of length n
        What `row_index` points into.
    field : str
        Where `columns` stands in the request.

    Raises
    ------
    SchemaError
        If lengths do not fit one another.
    InputError
        If a position or a kind is none.
    """
    n = len(columns.kind)
    owner = _places(columns.row_index, n, len(customer_ids), f"{field}.row_index", least=0)
    kinds = numbers(columns.kind, BYTE, n, f"{field}.kind")
    known = np.isin(kinds, list(_KINDS))
    if not known.all():
        row = int(np.argmin(known))
        raise InputError(
            f"must be a kind of fact, got {kinds[row]}", field=f"{field}.kind", row=row
        )
    labels = pa.array([_KINDS[number].value if number else "" for number in range(len(_KINDS) + 1)])
    subjects = {}
    for name, ids, index in (
        ("product", columns.products, columns.product_index),
        ("capability_id", columns.capability_ids, columns.capability_index),
    ):
        where = f"{field}.{name.removesuffix('_id')}_index"
        places = _places(index, n, len(ids), where, least=-1)
        texts = pa.array(ids, pa.string())
        subjects[name] = texts.take(pa.array(places, mask=places < 0))
    days = numbers(columns.day, INT32, n, f"{field}.day")
    if columns.count:
        counts = numbers(columns.count, INT32, n, f"{field}.count").astype(np.int64)
    else:
        counts = np.ones(n, dtype=np.int64)
    return pa.table(
        {
            CUSTOMER_ID: customer_ids.take(pa.array(owner)),
            **subjects,
            "kind": labels.take(pa.array(kinds)),
            "date": pa.array(days).cast(pa.date32()),
            "count": pa.array(counts),
        }
    )


def _places(
    content: bytes, count: int, size: int, field: str, *, least: int
) -> npt.NDArray[np.int32]:
    places = numbers(content, INT32, count, field)
    outside = (places < least) | (places >= size)
    if outside.any():
        row = int(np.argmax(outside))
        reason = f"must lie in {least} … {size - 1}, got {places[row]}"
        raise InputError(reason, field=field, row=row)
    return places
