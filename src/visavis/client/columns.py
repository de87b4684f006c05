"""Tables of profiles, overrides and facts → the columns of the contract, some rows at a time.

::

    Profiles.of(table, facts, info).message(start, end) ─► ProfileColumns of those rows
    Overrides.of(table, info).message(start, end)       ─► OverrideColumns of those rows

Which columns are indicators, and of what type attributes are, the server says (`ServingInfo`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.client.results import ServingInfo
from visavis.domain import CUSTOMER_ID, FactKind
from visavis.errors import InputError, SchemaError
from visavis.v1 import profile_pb2

__all__ = ["Overrides", "Profiles", "ids_of"]

_DAY: Final = pa.date32()

#: By the contract's name of a type: what Arrow calls it, how it travels.
_TYPES: Final[Mapping[str, tuple[pa.DataType, str]]] = {
    "bool": (pa.bool_(), "u1"),
    "int64": (pa.int64(), "<i8"),
    "double": (pa.float64(), "<f8"),
    "date": (_DAY, "<i4"),
    "string": (pa.string(), ""),
}

_FACT_COLUMNS: Final = (CUSTOMER_ID, "product", "capability_id", "kind", "date", "count")

_KIND_NUMBERS: Final = {
    kind.value: profile_pb2.FactKind.Value(f"FACT_KIND_{kind.name}") for kind in FactKind
}

Mask = npt.NDArray[np.bool_]


def ids_of(table: pa.Table, field: str) -> list[str]:
    """The ids of a table's customers.

    Raises
    ------
    SchemaError
        If there is no such column, or it holds no texts.
    InputError
        If one is null.
    """
    return _texts(_column(table, CUSTOMER_ID, field), f"{field}.{CUSTOMER_ID}")


def _column(table: pa.Table, name: str, field: str) -> pa.Array:
    count = table.column_names.count(name)
    if count != 1:
        raise SchemaError("must be there, once", field=f"{field}.{name}")
    column = table.column(name).combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _texts(column: pa.Array, field: str) -> list[str]:
    texts: list[str] = _cast(column, pa.string(), field).to_pylist()
    if column.null_count:
        row = texts.index(None)  # type: ignore[arg-type]
        raise InputError("must not be null", field=field, row=row)
    return texts


def _cast(column: pa.Array, kind: pa.DataType, field: str) -> pa.Array:
    """The values in another type; nothing is rounded, and no text becomes a number."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    is_day = pa.types.is_date(kind) and (is_text or pa.types.is_date(column.type))
    alike = (
        pa.types.is_null(column.type)
        or is_day
        or (pa.types.is_string(kind) and is_text)
        or (pa.types.is_boolean(kind) and pa.types.is_boolean(column.type))
        or (pa.types.is_integer(kind) and pa.types.is_integer(column.type))
        or (pa.types.is_floating(kind) and pa.types.is_floating(column.type))
    )
    if not alike:
        raise SchemaError(f"must be {kind}, got {column.type}", field=field)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"does not fit {kind}: {error}", field=field) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Attribute:
    """One attribute of some customers, in the type of the base."""

    name: str
    kind: str
    values: pa.Array

    def message(self, start: int, end: int) -> profile_pb2.AttributeColumn:
        held = self.values.slice(start, end - start)
        column = profile_pb2.AttributeColumn(name=self.name)
        if held.null_count:
            column.is_given = held.is_valid().to_numpy(zero_copy_only=False).tobytes()
        if self.kind == "string":
            texts = held.fill_null("").to_pylist()
            column.string_values.CopyFrom(profile_pb2.TextColumn(texts=texts))
            return column
        plain = held.cast(pa.int32()) if self.kind == "date" else held
        zero = pa.scalar(0, plain.type) if self.kind != "bool" else pa.scalar(False)
        numbers = plain.fill_null(zero).to_numpy(zero_copy_only=False)
        content = np.ascontiguousarray(numbers, dtype=_TYPES[self.kind][1]).tobytes()
        setattr(column, f"{self.kind}_values", content)
        return column


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Indicators and attributes of n customers.

    Attributes
    ----------
    names : sequence of d str
    indicators : ndarray of shape (n, d), float32
        0 where not given.
    given : ndarray of shape (n, d), bool
    attributes : sequence of _Attribute
    """

    names: Sequence[str]
    indicators: npt.NDArray[np.float32]
    given: Mask
    attributes: Sequence[_Attribute]

    @classmethod
    def of(cls, table: pa.Table, info: ServingInfo, field: str) -> _Rows:
        known = {*info.indicator_names, *info.attributes, CUSTOMER_ID}
        for name in table.column_names:
            if name not in known:
                reason = "is neither an indicator nor an attribute of the served base"
                raise SchemaError(reason, field=f"{field}.{name}")
        names = [name for name in info.indicator_names if name in table.column_names]
        shape = table.num_rows, len(names)
        indicators, given = np.zeros(shape, np.float32), np.ones(shape, np.bool_)
        for d, name in enumerate(names):
            column = _column(table, name, field)
            indicators[:, d], given[:, d] = _numbers(column, f"{field}.{name}")
        attributes = [
            _Attribute(name, kind, _attribute(table, name, kind, field))
            for name, kind in info.attributes.items()
            if name in table.column_names
        ]
        return cls(names, indicators, given, attributes)

    def indicator_columns(self, start: int, end: int) -> profile_pb2.IndicatorColumns:
        given = self.given[start:end]
        return profile_pb2.IndicatorColumns(
            indicator_names=self.names,
            values=np.ascontiguousarray(self.indicators[start:end], dtype="<f4").tobytes(),
            is_given=b"" if given.all() else given.tobytes(),
        )

    def attribute_columns(self, start: int, end: int) -> list[profile_pb2.AttributeColumn]:
        return [each.message(start, end) for each in self.attributes]


def _numbers(column: pa.Array, field: str) -> tuple[npt.NDArray[np.float32], Mask]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SchemaError(f"must be numbers, got {kind}", field=field)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(pa.scalar(0, kind)).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what overflows to inf is refused by name below
        rounded = values.astype(np.float32)
    wrong = ~np.isfinite(rounded)
    if wrong.any():
        raise InputError("must be finite as float32", field=field, row=int(np.argmax(wrong)))
    return rounded, given


def _attribute(table: pa.Table, name: str, kind: str, field: str) -> pa.Array:
    if kind not in _TYPES:
        raise SchemaError(f"is of a type that this client lacks: {kind}", field=f"{field}.{name}")
    return _cast(_column(table, name, field), _TYPES[kind][0], f"{field}.{name}")


@dataclass(frozen=True, slots=True, eq=False)
class Overrides:
    """What is otherwise than the base says, for each customer of a batch by row."""

    rows: _Rows

    @classmethod
    def of(cls, table: pa.Table, info: ServingInfo, row_count: int) -> Overrides:
        """Overrides, one row for each id that is asked for; null: as the base says.

        Raises
        ------
        SchemaError
            If there are not so many rows, or a column is unknown or of a wrong type.
        InputError
            If a value is not finite.
        """
        if table.num_rows != row_count:
            reason = f"must have {row_count} rows, one for each customer, got {table.num_rows}"
            raise SchemaError(reason, field="overrides")
        if CUSTOMER_ID in table.column_names:
            raise SchemaError("overrides stand in the order of the ids", field="overrides")
        return cls(_Rows.of(table, info, "overrides"))

    def message(self, start: int, end: int) -> profile_pb2.OverrideColumns:
        """Those of some rows."""
        return profile_pb2.OverrideColumns(
            indicators=self.rows.indicator_columns(start, end),
            attributes=self.rows.attribute_columns(start, end),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """Profiles given with the request, and what happened to them so far.

    Attributes
    ----------
    customer_ids : list of n str
    """

    customer_ids: list[str]
    rows: _Rows
    facts: _Facts | None

    @classmethod
    def of(cls, table: pa.Table, facts: pa.Table | None, info: ServingInfo) -> Profiles:
        """Profiles from tables.

        Parameters
        ----------
        table : pyarrow.Table
            customer_id, every indicator, and attributes by name; null attributes are unknown.
        facts : pyarrow.Table, optional
            customer_id, product, capability_id, kind, date and, at will, count.
        info : ServingInfo

        Raises
        ------
        SchemaError
            If a column is missing, unknown or of a wrong type.
        InputError
            If a value is null that must not be, or not finite; if an id stands twice.
        """
        ids = ids_of(table, "profiles")
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            row = next(row for row, each in enumerate(ids) if each in seen or seen.add(each))  # type: ignore[func-returns-value]
            reason = "names a customer a second time"
            raise InputError(reason, field="profiles.customer_id", row=row)
        missing = [name for name in info.indicator_names if name not in table.column_names]
        if missing:
            reason = "must be there: a profile has every indicator of the served base"
            raise SchemaError(reason, field=f"profiles.{missing[0]}")
        rows = _Rows.of(table, info, "profiles")
        if not rows.given.all():
            row, column = (int(place) for place in np.argwhere(~rows.given)[0])
            field = f"profiles.{rows.names[column]}"
            raise InputError("must be given in a profile", field=field, row=row)
        return cls(ids, rows, None if facts is None else _Facts.of(facts, ids))

    def message(self, start: int, end: int) -> profile_pb2.ProfileColumns:
        """Those of some rows."""
        return profile_pb2.ProfileColumns(
            customer_ids=self.customer_ids[start:end],
            indicators=self.rows.indicator_columns(start, end),
            attributes=self.rows.attribute_columns(start, end),
            facts=None if self.facts is None else self.facts.message(start, end),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Facts:
    """Facts by the row of their customer, ascending, in their order."""

    row: npt.NDArray[np.int64]
    product: pa.StringArray
    capability_id: pa.StringArray
    kind: npt.NDArray[np.uint8]
    day: npt.NDArray[np.int32]
    count: npt.NDArray[np.int32]

    @classmethod
    def of(cls, table: pa.Table, ids: list[str]) -> _Facts:
        for name in table.column_names:
            if name not in _FACT_COLUMNS:
                raise SchemaError("is no column of facts", field=f"facts.{name}")
        columns = {
            name: _column(table, name, "facts")
            for name in _FACT_COLUMNS
            if name in table.column_names or name in (CUSTOMER_ID, "kind", "date")
        }
        nothing = pa.nulls(table.num_rows, pa.string())
        subjects = {
            name: _cast(columns.get(name, nothing), pa.string(), f"facts.{name}")
            for name in ("product", "capability_id")
        }
        row = _owner_rows(_texts(columns[CUSTOMER_ID], f"facts.{CUSTOMER_ID}"), ids)
        _check_subjects(subjects["product"], subjects["capability_id"])
        day = _cast(columns["date"], _DAY, "facts.date")
        _refuse_null(day, "facts.date")
        count = np.ones(table.num_rows, np.int32)
        if "count" in columns:
            said = _cast(columns["count"], pa.int32(), "facts.count")
            count = said.fill_null(1).to_numpy(zero_copy_only=False)
        order = np.argsort(row, kind="stable")
        taken = pa.array(order)
        return cls(
            row[order],
            subjects["product"].take(taken),
            subjects["capability_id"].take(taken),
            _kind_numbers(_texts(columns["kind"], "facts.kind"))[order],
            day.cast(pa.int32()).to_numpy(zero_copy_only=False)[order],
            count[order],
        )

    def message(self, start: int, end: int) -> profile_pb2.FactColumns:
        first, last = np.searchsorted(self.row, [start, end]).tolist()
        held = slice(first, last)
        products, product_index = _coded(self.product[held])
        capability_ids, capability_index = _coded(self.capability_id[held])
        return profile_pb2.FactColumns(
            row_index=_bytes(self.row[held] - start, "<i4"),
            products=products,
            product_index=product_index,
            capability_ids=capability_ids,
            capability_index=capability_index,
            kind=_bytes(self.kind[held], "u1"),
            day=_bytes(self.day[held], "<i4"),
            count=_bytes(self.count[held], "<i4"),
        )


def _owner_rows(owners: list[str], ids: list[str]) -> npt.NDArray[np.int64]:
    row_of = {each: row for row, each in enumerate(ids)}
    rows = np.array([row_of.get(each, -1) for each in owners], dtype=np.int64)
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        raise InputError("names nobody among the profiles", field=f"facts.{CUSTOMER_ID}", row=row)
    return rows


def _check_subjects(product: pa.Array, capability_id: pa.Array) -> None:
    wrong = pc.equal(product.is_valid(), capability_id.is_valid()).to_numpy(zero_copy_only=False)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError("must be about a product or a capability", field="facts", row=row)


def _refuse_null(column: pa.Array, field: str) -> None:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise InputError("must not be null", field=field, row=row)


def _kind_numbers(kinds: list[str]) -> npt.NDArray[np.uint8]:
    for row, kind in enumerate(kinds):
        if kind not in _KIND_NUMBERS:
            known = ", ".join(_KIND_NUMBERS)
            reason = f"must be one of {known}, got {kind!r:.80}"
            raise InputError(reason, field="facts.kind", row=row)
    return np.array([_KIND_NUMBERS[kind] for kind in kinds], dtype=np.uint8)


def _coded(texts: pa.StringArray) -> tuple[list[str], bytes]:
    """A dictionary, and positions in it: −1 where there is nothing."""
    coded = texts.dictionary_encode()
    index = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return coded.dictionary.to_pylist(), _bytes(index, "<i4")


def _bytes(values: npt.NDArray[Any], kind: str) -> bytes:
    return np.ascontiguousarray(values, dtype=kind).tobytes()
