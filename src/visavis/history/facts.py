"""Facts at the door of history: checked, coded against a catalog, and grouped into fact days.

The *level* of a fact is its subject: one that names a capability is about that capability, whatever
product it names beside it; one that names only a product is about the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visavis.catalog import Catalog
from visavis.catalog.door import is_text
from visavis.catalog.schema import KINDS, did_you_mean
from visavis.domain import day_number
from visavis.errors import InputError, SchemaError
from visavis.features import FactDays, Floats

__all__ = [
    "COUNT_MAX",
    "FactRows",
    "Level",
    "Stream",
    "Streams",
    "fact_rows",
    "fact_streams",
    "group_starts",
]

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

#: Largest count of one fact: the counts of a day then add up exactly.
COUNT_MAX: Final = 2**31 - 1


class Level(IntEnum):
    """What a fact is about."""

    PRODUCT = 0
    CAPABILITY = 1


class FactRows(NamedTuple):
    """Facts up to as_of as columns of codes, each of shape (rows,)."""

    customer: Ints
    level: NDArray[np.int8]
    #: A product code or a capability index, by level; −1 where the catalog does not hold it.
    subject: Ints
    kind: Ints
    age_days: Ints
    counts: Ints


def fact_rows(facts: pa.Table, catalog: Catalog, as_of: date, customer_count: int) -> FactRows:
    """Check the facts and turn them into codes."""
    customer = _integers(facts, "customer_index", 0, customer_count - 1)
    counts = _integers(facts, "count", 1, COUNT_MAX)
    kind_text = _text(facts, "kind")
    kind = _codes(kind_text, [str(kind) for kind in KINDS])
    _refuse(kind < 0, "kind", lambda row: _unknown_kind(kind_text[row].as_py()))
    day = _column(facts, "date")
    if not pa.types.is_date32(day.type):
        raise SchemaError(f"must be a date, got a column of {day.type}", field="date")
    _refuse(_nulls(day), "date", lambda _: "is required, got null")
    age_days = day_number(as_of) - day.cast(pa.int32()).to_numpy().astype(np.int64)
    product, capability = _text(facts, "product"), _text(facts, "capability_id")
    names_capability = ~_nulls(capability)
    _refuse(
        ~names_capability & _nulls(product),
        "product",
        lambda _: "a fact must name a product or a capability",
    )
    subject = np.where(
        names_capability,
        _codes(capability, catalog.column("id")),
        _codes(product, list(catalog.codes("product")[1])),
    )
    known = age_days >= 0
    return FactRows(
        customer[known],
        names_capability[known].astype(np.int8),
        subject[known].astype(np.int64),
        kind[known],
        age_days[known],
        counts[known],
    )


def _column(facts: pa.Table, name: str) -> Any:
    if name not in facts.column_names:
        raise SchemaError("is required, but facts have no such column", field=name)
    return facts[name]


def _integers(facts: pa.Table, name: str, low: int, high: int) -> Ints:
    column = _column(facts, name)
    if not pa.types.is_integer(column.type):
        raise SchemaError(f"must be an integer, got a column of {column.type}", field=name)
    _refuse(_nulls(column), name, lambda _: "is required, got null")
    # safe=False wraps an unsigned value beyond int64 to a negative one, which the bounds refuse.
    values: Ints = column.cast(pa.int64(), safe=False).to_numpy()
    _refuse(
        (values < low) | (values > high),
        name,
        lambda row: f"must lie in {low} … {high}, got {column[row].as_py()}",
    )
    return values


def _text(facts: pa.Table, name: str) -> Any:
    column = _column(facts, name)
    if not is_text(column.type) and not pa.types.is_null(column.type):
        raise SchemaError(f"must be text, got a column of {column.type}", field=name)
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _nulls(column: Any) -> Bools:
    if not column.null_count:
        return np.zeros(len(column), dtype=np.bool_)
    return np.asarray(pc.is_null(column).to_numpy(), dtype=np.bool_)


def _codes(column: Any, known: Any) -> Ints:
    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    codes: Ints = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return codes


def _unknown_kind(kind: str | None) -> str:
    known = [str(each) for each in KINDS]
    return f"must be one of {', '.join(known)}, got {kind!r}{did_you_mean(kind or '', known)}"


def _refuse(wrong: Bools, name: str, reason: Any) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(reason(row), field=name, row=row)


def group_starts(*sorted_columns: NDArray[Any]) -> Ints:
    """Return where a new tuple begins in columns sorted together."""
    if not len(sorted_columns[0]):
        return np.zeros(0, dtype=np.int64)
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in sorted_columns])
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Stream:
    """The facts of one level and kind, by pair of (customer, subject), pairs ascending.

    Attributes
    ----------
    customer, subject : ndarray of shape (pairs,), int64
    daygroup_starts : ndarray of shape (pairs + 1,), int64
        The fact days of pair p are ``daygroup_starts[p]:daygroup_starts[p + 1]``.
    age_days, counts : ndarray of shape (days,), float64
        Ages descend within a pair.
    """

    customer: Ints
    subject: Ints
    daygroup_starts: Ints
    age_days: Floats
    counts: Floats

    def cut(self, first: int, last: int) -> Stream:
        """Return the pairs of customers ``first … last − 1``, counted from `first`."""
        low, high = np.searchsorted(self.customer, [first, last])
        days = slice(int(self.daygroup_starts[low]), int(self.daygroup_starts[high]))
        return Stream(
            self.customer[low:high] - first,
            self.subject[low:high],
            self.daygroup_starts[low : high + 1] - days.start,
            self.age_days[days],
            self.counts[days],
        )

    def days(self) -> FactDays:
        """Return the fact days in the form that a feature's base reads."""
        lengths = np.diff(self.daygroup_starts)
        pair = np.repeat(np.arange(len(lengths)), lengths)
        return FactDays(pair, self.age_days, self.counts, len(lengths))


Streams: TypeAlias = dict[tuple[Level, int], Stream]


def fact_streams(
    rows: FactRows, concerned: Mapping[tuple[Level, int], Bools]
) -> dict[tuple[Level, int], Stream]:
    """Split the facts by level and kind.

    Parameters
    ----------
    rows : FactRows
    concerned : mapping
        By (level, kind code): which subjects (product codes or capability indices) matter; facts
        of other kinds, or about others, are left out.
    """
    streams = {}
    for (level, kind), matters in concerned.items():
        chosen = np.flatnonzero((rows.level == level) & (rows.kind == kind) & (rows.subject >= 0))
        chosen = chosen[matters[rows.subject[chosen]]]
        if len(chosen):
            streams[level, kind] = _stream(rows, chosen)
    return streams


def _stream(rows: FactRows, chosen: Ints) -> Stream:
    customer, subject = rows.customer[chosen], rows.subject[chosen]
    day, counts = -rows.age_days[chosen], rows.counts[chosen]
    if not _ascends(customer, subject, day):
        order = np.lexsort((day, subject, customer))
        customer, subject = customer[order], subject[order]
        day, counts = day[order], counts[order]
    days = group_starts(customer, subject, day)
    pairs = group_starts(customer[days], subject[days])
    return Stream(
        customer[days][pairs],
        subject[days][pairs],
        np.append(pairs, len(days)),
        -day[days].astype(np.float64),
        np.add.reduceat(counts, days).astype(np.float64),
    )


def _ascends(*columns: Ints) -> bool:
    """Tell whether the rows are in lexicographic order of the columns."""
    tied = np.ones(max(len(columns[0]) - 1, 0), dtype=np.bool_)
    for column in columns:
        if np.any(tied & (column[1:] < column[:-1])):
            return False
        tied &= column[1:] == column[:-1]
    return True
