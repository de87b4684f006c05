"""`Overrides`: what is otherwise than the base says, for each customer of a request by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base import Base
from visavis.base.door import incoming_attributes
from visavis.base.writing import rows_of_base
from visavis.catalog.schema import did_you_mean
from visavis.domain import CONSENT_PREFIX, CUSTOMER_ID, OBJECTED, FactKind, day_number
from visavis.errors import InputError, SchemaError, fields_below
from visavis.kernel.arguments import as_array, require
from visavis.serving.version import Version

__all__ = ["OfRows", "Overrides", "recent_contacts"]

_VALUES: Final = "overrides.values"

Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overrides:
    """What is otherwise for each of n customers, as a context would say it of one.

    Attributes
    ----------
    indicator_names : sequence of c str
    values : array_like of shape (n, c), float32, optional
        None: no indicators.
    is_given : array_like of shape (n, c), bool, optional
        What is not given stays as it is. None: all are given.
    attributes : pyarrow.Table of n rows, optional
        Of the base's names and types; what is null stays as it is.
    """

    indicator_names: Sequence[str] = ()
    values: npt.ArrayLike | None = None
    is_given: npt.ArrayLike | None = None
    attributes: pa.Table | None = None

    def take(self, places: Int64) -> Overrides:
        """Those of some customers, of overrides that fit."""
        taken = pa.array(places)
        return Overrides(
            indicator_names=self.indicator_names,
            values=None if self.values is None else np.asarray(self.values)[places],
            is_given=None if self.is_given is None else np.asarray(self.is_given)[places],
            attributes=None if self.attributes is None else self.attributes.take(taken),
        )


@dataclass(frozen=True, eq=False)
class OfRows:
    """Overrides, checked against a version; they go before those of the context.

    Attributes
    ----------
    columns : ndarray of shape (c,), int64
        Indicators that are replaced,
    values : ndarray of shape (n, c), float32
        by what,
    is_given : ndarray of shape (n, c), bool
        and of whom.
    attributes : dict of str to pyarrow.Array of length n
        Null where nothing is replaced.
    """

    columns: Int64
    values: Matrix
    is_given: Bools
    attributes: dict[str, pa.Array]

    @classmethod
    def of(cls, version: Version, given: Overrides, count: int) -> OfRows:
        """Check overrides of `count` customers.

        Raises
        ------
        InputError
            Naming field and row.
        """
        require(given, Overrides, "overrides", "Overrides")
        columns = _columns(version, given.indicator_names)
        values, is_given = _cells(given, (count, len(columns)))
        return cls(columns, values, is_given, _attributes(version, given.attributes, count))

    @cached_property
    def is_evaluated(self) -> Bools:
        """Of whom eligibility has to be computed, (n,): an attribute is otherwise."""
        found = np.zeros(len(self.values), dtype=np.bool_)
        for column in self.attributes.values():
            found |= column.is_valid().to_numpy(zero_copy_only=False)
        return found

    def take(self, places: Int64) -> OfRows:
        """Those of some customers."""
        taken = pa.array(places)
        return OfRows(
            self.columns,
            self.values[places],
            self.is_given[places],
            {name: column.take(taken) for name, column in self.attributes.items()},
        )

    def replace_indicators(self, x: Matrix) -> None:
        """Put the indicators in place, in (n, d) float32."""
        x[:, self.columns] = np.where(self.is_given, self.values, x[:, self.columns])

    def spread(self, base: Base, place: Int64) -> Base:
        """A row for each customer, of those of `base` at `place`, with the attributes in place."""
        base = rows_of_base(base, place)
        table = base.attributes
        for name, column in self.attributes.items():
            at = table.schema.get_field_index(name)
            # Texts may be a dictionary in the base.
            known = table.column(at).cast(column.type).combine_chunks()
            held = pc.if_else(column.is_valid(), column, known)
            table = table.set_column(at, table.schema.field(at).with_type(column.type), held)
        return Base(
            base.customer_ids,
            base.indicators,
            base.indicator_schema,
            table,
            base.facts,
            base.as_of,
            base.indicator_scale,
        )

    def attributes_of(self, row: int) -> dict[str, Any]:
        """The attributes that are otherwise for one customer."""
        cells = {name: column[row].as_py() for name, column in self.attributes.items()}
        return {name: cell for name, cell in cells.items() if cell is not None}


def recent_contacts(facts: pa.Table, cool_down_days: Mapping[str, int], as_of: date) -> pa.Table:
    """The facts that may cool a channel down on a day: no others matter to the gates."""
    if not cool_down_days:
        return facts.slice(0, 0)
    # A channel is open again on the day of the contact plus its days.
    last_open = day_number(as_of) - max(cool_down_days.values())
    is_recent = pc.greater(facts["date"].cast(pa.int32()).cast(pa.int64()), last_open)
    is_contact = pc.equal(facts["kind"], FactKind.CONTACTED.value)
    return facts.filter(pc.and_(is_recent, is_contact))


def _columns(version: Version, names: Sequence[str]) -> Int64:
    where, known = "overrides.indicator_names", version.indicator_index
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise SchemaError("must be a list of names", field=where)
    for name in names:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise SchemaError(f"the base has no {name!r:.80}{hint}", field=where)
    if len(set(names)) != len(names):
        raise SchemaError("must name each indicator once", field=where)
    return np.array([known[name] for name in names], dtype=np.int64)


def _cells(given: Overrides, shape: tuple[int, int]) -> tuple[Matrix, Bools]:
    none = np.zeros(shape, dtype=np.float32)
    values = as_array(none if given.values is None else given.values, np.float32, _VALUES, ndim=2)
    is_given = np.full(shape, given.values is not None)
    if given.is_given is not None:
        is_given = np.asarray(given.is_given)
    for array, where in ((values, _VALUES), (is_given, "overrides.is_given")):
        if array.shape != shape:
            raise SchemaError(f"must be of shape {shape}, got {array.shape}", field=where)
    if is_given.dtype != np.bool_:
        raise SchemaError(f"must be bool, got {is_given.dtype}", field="overrides.is_given")
    wrong = is_given & ~np.isfinite(values)
    if wrong.any():
        row, column = (int(at) for at in np.argwhere(wrong)[0])
        where = f"overrides.indicators.{given.indicator_names[column]}"
        raise InputError("must be finite as float32", field=where, row=row)
    return values, is_given


def _attributes(version: Version, given: pa.Table | None, count: int) -> dict[str, pa.Array]:
    if given is None:
        return {}
    require(given, pa.Table, "overrides.attributes", "a pyarrow.Table")
    if given.num_rows != count and given.num_columns:
        reason = f"must have a row for each of {count} customers, got {given.num_rows}"
        raise SchemaError(reason, field="overrides.attributes")
    schema = version.engine.base.attributes.schema
    for name in given.column_names:
        where = f"overrides.attributes.{name}"
        if name not in schema.names:
            hint = did_you_mean(name, schema.names)
            raise SchemaError(f"the base has no such attribute{hint}", field=where)
        if name == OBJECTED:
            raise InputError("cannot be said by a request: record it", field=where)
    numbered = pa.array([str(row) for row in range(count)], pa.string())
    with fields_below("overrides"):
        checked = incoming_attributes(given.add_column(0, CUSTOMER_ID, numbered))
    columns = {}
    for name in given.column_names:
        where = f"overrides.attributes.{name}"
        column = checked[name].combine_chunks()
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if column.type != kind:
            raise SchemaError(f"must be {kind}, got {column.type}", field=where)
        if name.startswith(CONSENT_PREFIX):
            said = np.array([bool(cell) for cell in column.to_pylist()], dtype=np.bool_)
            if said.any():
                reason = "can be withdrawn by a request but not given: record it"
                raise InputError(reason, field=where, row=int(np.argmax(said)))
        columns[name] = column
    return columns
