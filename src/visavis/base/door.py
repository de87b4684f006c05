"""The door of the base: nothing wrong gets in, and every refusal names column and row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.catalog.door import TEXT_BYTES_MAX, is_text, one_array
from visavis.domain import CUSTOMER_ID, HISTORY, OBJECTED, FactKind, day_number
from visavis.errors import InputError, LimitError, SchemaError

__all__ = [
    "COUNT_MAX",
    "FACT_SCHEMA",
    "check_attributes",
    "check_customer_ids",
    "check_facts",
    "check_id_column",
    "check_indicators",
    "check_text",
    "incoming_attributes",
    "incoming_facts",
    "refuse_repeated",
]

#: Facts inside a base: `customer_index` is the row of the customer.
FACT_SCHEMA: Final = pa.schema(
    [
        pa.field("customer_index", pa.int64(), nullable=False),
        pa.field("product", pa.string()),
        pa.field("capability_id", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)

_INCOMING_FACTS: Final = (CUSTOMER_ID, "product", "capability_id", "kind", "date", "count")

#: Largest count of one customer, subject, kind and day: what history adds up exactly.
COUNT_MAX: Final = 2**31 - 1

#: What rules call the date of the match: no attribute may have that name.
_AS_OF: Final = "as_of"

_DAY_MS: Final = 86_400_000


def _check_table(table: pa.Table, field: str) -> None:
    if not isinstance(table, pa.Table):
        raise SchemaError(f"must be a pyarrow.Table, got {type(table).__name__}", field=field)
    seen = set()
    for name in table.column_names:
        if name in seen:
            raise SchemaError("stands twice", field=f"{field}.{name}")
        if not name:
            raise SchemaError("has a column without a name", field=field)
        seen.add(name)


def check_customer_ids(table: pa.Table, field: str) -> pa.StringArray:
    """The id column as one array of unique, non-empty strings."""
    ids = check_id_column(table, field)
    refuse_repeated(ids, field, np.arange(len(ids)))
    return ids


def refuse_repeated(ids: pa.StringArray, field: str, rows: npt.NDArray[np.int64]) -> None:
    """Refuse an id that stands twice; `rows` are the rows of the input that the ids come from."""
    counts = ids.value_counts()
    repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(repeated):
        twice = repeated[0].as_py()
        first, second = np.sort(rows[pc.equal(ids, twice).to_numpy(zero_copy_only=False)])[:2]
        raise InputError(
            f"customer {twice!r} stands in row {first} already",
            field=f"{field}.{CUSTOMER_ID}",
            row=int(second),
        )


def check_id_column(table: pa.Table, field: str) -> pa.StringArray:
    """The id column as one array of non-empty strings."""
    _check_table(table, field)
    if CUSTOMER_ID not in table.column_names:
        raise SchemaError("is missing", field=f"{field}.{CUSTOMER_ID}")
    ids = check_text(table[CUSTOMER_ID], f"{field}.{CUSTOMER_ID}")
    wrong = pc.or_kleene(ids.is_null(), pc.equal(ids, ""))
    _refuse_rows(wrong, f"{field}.{CUSTOMER_ID}", "must not be null or empty")
    return ids


def check_text(column: pa.ChunkedArray, field: str) -> pa.StringArray:
    """A column of text, in whatever layout, as one array of valid UTF-8."""
    if not is_text(column.type):
        raise SchemaError(f"must be string, got {column.type}", field=field)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"is malformed: {error}", field=field, row=_malformed(column)) from None
    wide = column.cast(pa.large_string())
    size = pc.sum(pc.binary_length(wide)).as_py() or 0
    if size > TEXT_BYTES_MAX:
        raise LimitError(f"holds {size} bytes of text, more than {TEXT_BYTES_MAX}", field=field)
    return one_array(wide).cast(pa.string())


def _malformed(column: pa.ChunkedArray) -> int | None:
    """The first row whose text is malformed; None where rows share their texts."""
    if pa.types.is_dictionary(column.type):
        return None

    def is_malformed(begin: int, end: int) -> bool:
        try:
            column.slice(begin, end - begin).validate(full=True)
        except pa.ArrowInvalid:
            return True
        return False

    begin, end = 0, len(column)
    while end - begin > 1:
        middle = (begin + end) // 2
        begin, end = (begin, middle) if is_malformed(begin, middle) else (middle, end)
    return begin


def check_indicators(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The indicators of `names` as (n, d) float32, row after row."""
    if not names:
        raise SchemaError("must hold at least one indicator", field="indicators")
    if HISTORY in names:
        raise SchemaError("the name is reserved", field=f"indicators.{HISTORY}")
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for column, name in enumerate(names):
        values = table[name]
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            raise SchemaError(f"must be a number, got {values.type}", field=f"indicators.{name}")
        with np.errstate(over="ignore"):  # what overflows to inf is refused by name below
            matrix[:, column] = values.to_numpy()
    wrong = ~np.isfinite(matrix)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        got = table[names[column]][row].as_py()
        raise InputError(
            f"must be finite as float32, got {got}", field=f"indicators.{names[column]}", row=row
        )
    return matrix


def check_attributes(table: pa.Table | None, customer_ids: pa.StringArray) -> pa.Table:
    """Attributes in the order of the customers; null where the table lacks a customer."""
    if table is None:
        # A table without columns forgets how many rows it stands for.
        never = pa.array(np.zeros(len(customer_ids), dtype=bool))
        return pa.table({OBJECTED: never})
    ids = check_customer_ids(table, "attributes")
    if _AS_OF in table.column_names:
        reason = "is the date of the match in rules: rename it"
        raise SchemaError(reason, field=f"attributes.{_AS_OF}")
    row_of = pc.index_in(ids, customer_ids)
    _refuse_unknown(row_of, ids, "attributes")
    taken = pc.index_in(customer_ids, ids)
    columns = {}
    for name in table.column_names:
        if name != CUSTOMER_ID:
            columns[name] = _attribute(table[name], name).take(taken)
    objected = columns.get(OBJECTED)
    if objected is None:
        columns[OBJECTED] = pa.array(np.zeros(len(customer_ids), dtype=bool))
    elif not pa.types.is_boolean(objected.type):
        raise SchemaError(f"must be bool, got {objected.type}", field=f"attributes.{OBJECTED}")
    else:
        # A customer without a row has not objected; a row must say which.
        if one_array(table[OBJECTED]).null_count:
            row = int(np.argmax(one_array(table[OBJECTED]).is_null().to_numpy(False)))
            raise InputError("must not be null", field=f"attributes.{OBJECTED}", row=row)
        columns[OBJECTED] = pc.fill_null(objected, fill_value=False)
    return pa.table(columns)


def incoming_attributes(table: pa.Table) -> pa.Table:
    """Ids and attributes of customers whom no base has to know yet, rows as they come.

    Columns and cells pass the same door as those of a base; text is plain string.
    """
    columns = {CUSTOMER_ID: check_customer_ids(table, "attributes")}
    for name in table.column_names:
        if name == _AS_OF:
            reason = "is the date of the match in rules: rename it"
            raise SchemaError(reason, field=f"attributes.{name}")
        if name != CUSTOMER_ID:
            columns[name] = _attribute(table[name], name)
    return pa.table(columns)


def _attribute(column: pa.ChunkedArray, name: str) -> pa.Array:
    kind = column.type
    if is_text(kind):
        return check_text(column, f"attributes.{name}")
    readable = (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_date32(kind)
    )
    if not readable:
        raise SchemaError(
            f"must be bool, integer, float, string or date32, got {kind}",
            field=f"attributes.{name}",
        )
    array = one_array(column)
    if pa.types.is_floating(kind):
        wrong = pc.fill_null(pc.invert(pc.is_finite(array)), fill_value=False)
        rows = wrong.to_numpy(zero_copy_only=False)
        if rows.any():
            row = int(np.argmax(rows))
            raise InputError(
                f"must be finite or null, got {array[row].as_py()}",
                field=f"attributes.{name}",
                row=row,
            )
    return array


def _refuse_unknown(row_of: pa.Array, ids: pa.StringArray, field: str) -> None:
    if row_of.null_count:
        row = int(np.argmax(row_of.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(
            f"customer {ids[row].as_py()!r} has no indicators",
            field=f"{field}.{CUSTOMER_ID}",
            row=row,
        )


def check_facts(table: pa.Table | None, customer_ids: pa.StringArray) -> pa.Table:
    """Facts by row of the base, sorted, one row per customer, subject, kind and day."""
    if table is None:
        return FACT_SCHEMA.empty_table()
    columns = _fact_columns(table)
    ids = check_id_column(table, "facts")
    owner = pc.index_in(ids, customer_ids)
    _refuse_unknown(owner, ids, "facts")
    columns["customer_index"] = owner.cast(pa.int64())
    order, starts = _in_order([columns[name] for name in FACT_SCHEMA.names[:-1]])
    counts = columns["count"].to_numpy()[order]
    first = pa.array(order[starts])
    held = [columns[name].take(first) for name in FACT_SCHEMA.names[:-1]]
    total = np.add.reduceat(counts, starts) if len(starts) else counts
    facts = pa.Table.from_arrays([*held, pa.array(total)], schema=FACT_SCHEMA)
    most = np.flatnonzero(total > COUNT_MAX)
    if len(most):
        customer_id = customer_ids[facts["customer_index"][most[0]].as_py()].as_py()
        raise InputError(
            f"the counts of one subject, kind and day add up to {total[most[0]]}, "
            f"more than {COUNT_MAX}",
            field="facts.count",
            subject=f"customer {customer_id!r}",
        )
    return facts


def _in_order(
    columns: Sequence[pa.Array],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How to sort rows by columns from left to right, and where equal rows begin in that order.

    Texts become their ranks, and the ranks of all columns one integer where they fit: checking 5 M
    facts so took 3 s and 0.7 GB; grouping and sorting the texts took 12 to 13 s and 1.4 GB.
    """
    ranks = [_ranks(column) for column in columns]
    sizes = [int(rank.max(initial=0)) + 1 for rank in ranks]
    if math.prod(sizes) < 2**63:
        key = np.zeros(len(ranks[0]), dtype=np.int64)
        for rank, size in zip(ranks, sizes, strict=True):
            key *= size
            key += rank
        keys = [key]
    else:
        keys = ranks
    order = np.lexsort(keys[::-1])
    changes = [np.diff(key[order]) != 0 for key in keys]
    starts = np.flatnonzero(np.concatenate([[True], np.logical_or.reduce(changes)]))
    return order, starts[: len(order)]


def _ranks(column: pa.Array) -> npt.NDArray[np.int64]:
    """Integers that order as the values do, null last."""
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy(), dtype=np.int64)
    if pa.types.is_date32(column.type):
        days = column.cast(pa.int32()).to_numpy().astype(np.int64)
        since: npt.NDArray[np.int64] = days - days.min(initial=0)
        return since
    encoded = column.dictionary_encode()
    rank = np.empty(len(encoded.dictionary) + 1, dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank) - 1)
    rank[-1] = len(rank) - 1
    codes: npt.NDArray[np.int32] = pc.fill_null(encoded.indices, len(rank) - 1).to_numpy()
    return rank[codes]


def incoming_facts(table: pa.Table) -> pa.Table:
    """Facts of customers whom no base has to know yet, rows as they come.

    Returns
    -------
    pyarrow.Table
        ``customer_id``, then the columns of ``FACT_SCHEMA`` behind its first.
    """
    columns = _fact_columns(table)
    return pa.table({CUSTOMER_ID: check_id_column(table, "facts"), **columns})


def _fact_columns(table: pa.Table) -> dict[str, pa.Array]:
    _check_table(table, "facts")
    for name in table.column_names:
        if name not in _INCOMING_FACTS:
            raise SchemaError(f"is not one of {', '.join(_INCOMING_FACTS)}", field=f"facts.{name}")
    rows = table.num_rows
    columns: dict[str, pa.Array] = {}
    for name in FACT_SCHEMA.names[1:]:
        wanted = FACT_SCHEMA.field(name)
        if name in table.column_names:
            columns[name] = _fact_column(table[name], wanted)
        elif name == "count":
            columns[name] = pa.array(np.ones(rows, dtype=np.int64))
        elif wanted.nullable:
            columns[name] = pa.nulls(rows, wanted.type)
        else:
            raise SchemaError("is missing", field=f"facts.{name}")
    both = pc.equal(columns["product"].is_null(), columns["capability_id"].is_null())
    _refuse_rows(both, "facts.product", "either product or capability_id must be given, not both")
    kinds = pa.array([kind.value for kind in FactKind])
    unknown = pc.invert(pc.is_in(columns["kind"], kinds))
    _refuse_rows(unknown, "facts.kind", f"must be one of {', '.join(kinds.to_pylist())}")
    return columns


def _fact_column(column: pa.ChunkedArray, wanted: pa.Field) -> pa.Array:
    field = f"facts.{wanted.name}"
    if pa.types.is_null(column.type):
        array = pa.nulls(len(column), wanted.type)
    elif wanted.name == "date":
        array = _days(column, field)
    elif wanted.name == "count":
        array = _counts(column, field)
    else:
        array = check_text(column, field)
        _refuse_rows(pc.equal(array, ""), field, "must not be empty")
    if not wanted.nullable:
        _refuse_rows(array.is_null(), field, "must not be null")
    return array


def _counts(column: pa.ChunkedArray, field: str) -> pa.Array:
    if not pa.types.is_integer(column.type):
        raise SchemaError(f"must be an integer, got {column.type}", field=field)
    # safe=False wraps an unsigned value beyond int64 to a negative one, which the bounds refuse.
    counts = one_array(column.cast(pa.int64(), safe=False))
    outside = pc.or_(pc.less(counts, 1), pc.greater(counts, COUNT_MAX))
    _refuse_rows(outside, field, f"must lie in 1 … {COUNT_MAX}")
    return counts


def _days(column: pa.ChunkedArray, field: str) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        raise SchemaError("must be a date, not a time of day", field=field)
    if not pa.types.is_date(column.type):
        raise SchemaError(f"must be a date, got {column.type}", field=field)
    days = one_array(column)
    if pa.types.is_date64(column.type):
        milliseconds = days.cast(pa.int64())
        days = pc.divide(milliseconds, _DAY_MS)
        timed = pc.not_equal(pc.multiply(days, _DAY_MS), milliseconds)
        _refuse_rows(timed, field, "must be a date, not a time of day")
    else:
        days = days.cast(pa.int32())
    # Beyond these years no Python date can hold the day.
    outside = pc.or_(pc.less(days, day_number(date.min)), pc.greater(days, day_number(date.max)))
    _refuse_rows(outside, field, "must lie in the years 1 to 9999")
    return days.cast(pa.int32()).cast(pa.date32())


def _refuse_rows(wrong: pa.Array, field: str, reason: str) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise InputError(reason, field=field, row=row)
