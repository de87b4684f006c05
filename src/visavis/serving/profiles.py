"""`Profiles`: customers whom no base holds, given with the request, through the same doors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base.base import Base
from visavis.base.door import FACT_SCHEMA, incoming_attributes, incoming_facts
from visavis.catalog.schema import did_you_mean
from visavis.domain import CUSTOMER_ID, OBJECTED
from visavis.eligibility import without
from visavis.errors import InputError, LimitError, SchemaError, fields_below
from visavis.history import adjustments
from visavis.journal.incoming import id_bytes
from visavis.kernel import Eligibility
from visavis.kernel.arguments import as_array
from visavis.kernel.request import history_of
from visavis.policy import control_marks
from visavis.serving.context import Terms
from visavis.serving.matching import Block
from visavis.serving.touched import State, with_attributes
from visavis.serving.version import Version

__all__ = ["Checked", "Profiles", "checked_profiles", "profile_block"]

_INDEX: Final = FACT_SCHEMA.names[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profiles:
    """Customers whom no base holds.

    Attributes
    ----------
    indicators : array_like of shape (n, d), float32
        In the order of the server's indicators, all of them.
    attributes : pyarrow.Table of n rows, optional
        Of the base's names and types; what it lacks is unknown.
    facts : pyarrow.Table, optional
        ``customer_index``, the row of `indicators`, and the other columns of facts: see
        ``visavis.base``.
    customer_ids : sequence of n str, optional
        What the control group is drawn by, and what answers are named by; not looked up.
    """

    indicators: npt.ArrayLike
    attributes: pa.Table | None = None
    facts: pa.Table | None = None
    customer_ids: Sequence[str] | None = None

    def objecting(self, has_objected: npt.NDArray[np.bool_]) -> Profiles:
        """The same where some are known to have objected; what does not fit stays as it is."""
        table = self.attributes
        if not has_objected.any():
            return self
        said = pa.array(has_objected)
        if table is None:
            return replace(self, attributes=pa.table({OBJECTED: said}))
        if not isinstance(table, pa.Table) or table.num_rows != len(said):
            return self
        count = table.column_names.count(OBJECTED)
        if not count:
            return replace(self, attributes=table.append_column(OBJECTED, said))
        known = table.column(table.column_names.index(OBJECTED))
        if count > 1 or not pa.types.is_boolean(known.type):
            return self
        at = table.column_names.index(OBJECTED)
        # Null stays null, and is refused.
        return replace(self, attributes=table.set_column(at, OBJECTED, pc.or_(known, said)))


class Checked(NamedTuple):
    """Profiles that fit the base.

    Attributes
    ----------
    base : Base
        Without ids; whose objection is known otherwise has objected.
    ids : pyarrow.StringArray or None
    is_excluded : ndarray of shape (n,), bool
        Whom the policy excludes.
    """

    base: Base
    ids: pa.StringArray | None
    is_excluded: npt.NDArray[np.bool_]


def checked_profiles(state: State, given: Profiles, *, rows_max: int) -> Checked:
    """Profiles, through the doors.

    Raises
    ------
    InputError
        Naming field and row.
    """
    version = state.version
    if not isinstance(given, Profiles):
        raise SchemaError(f"must be Profiles, got {type(given).__name__}", field="profiles")
    x = _indicators(version, given.indicators, rows_max)
    attributes = _attributes(version, given.attributes, len(x))
    facts = _facts(given.facts, len(x))
    ids = _ids(given.customer_ids, len(x))
    is_excluded = np.zeros(len(x), dtype=np.bool_)
    if ids is not None:
        excluded = pa.array(version.policy.exclusions.customers, pa.string())
        is_excluded = pc.is_in(ids, excluded).to_numpy(zero_copy_only=False)
        objected = attributes[OBJECTED].to_numpy() | state.objections_of(ids.to_pylist())
        at = attributes.column_names.index(OBJECTED)
        attributes = attributes.set_column(at, OBJECTED, pa.array(objected))
    base = Base(
        pa.nulls(len(x), pa.string()),
        x,
        version.engine.base.indicator_schema,
        attributes,
        facts,
        version.customers.stored.as_of,
        version.engine.base.indicator_scale,
    )
    return Checked(base, ids, is_excluded)


def profile_block(
    state: State, given: Profiles, terms: Terms, rows_max: int
) -> tuple[npt.NDArray[np.int64] | None, Block, npt.NDArray[np.bool_]]:
    """Profiles as a block.

    Returns
    -------
    ndarray of int64, or None
        Who may be matched; None = all.
    Block
        Of these.
    ndarray of shape (n,), bool
        Who is in the control group.

    Raises
    ------
    InputError
        Naming field and row.
    """
    version = state.version
    base, ids, is_out = checked_profiles(state, given, rows_max=rows_max)
    x, facts = base.indicators, base.facts
    is_out = is_out | base.attributes[OBJECTED].to_numpy().astype(np.bool_)
    attributes = with_attributes(base, terms.attributes).attributes
    eligible = version.engine.gates.planes(attributes, facts, terms.as_of)
    if terms.closed is not None:
        eligible = without(eligible, terms.closed)
    history = adjustments(facts, version.catalog, terms.as_of, customer_count=len(x))
    if len(terms.columns):
        x = x.copy()
        x[:, terms.columns] = terms.values
    control = np.zeros(len(x), np.bool_) if ids is None else control_marks(ids, version.policy)
    if not is_out.any():
        return None, Block(x, eligible, history), control
    live = np.flatnonzero(~is_out)
    planes, plane_index = eligible
    block = Block(x[live], Eligibility(planes[live], plane_index), history_of(history, live))
    return live, block, control


def _indicators(version: Version, given: npt.ArrayLike, rows_max: int) -> npt.NDArray[np.float32]:
    x = as_array(given, np.float32, "profiles.indicators", ndim=2)
    width = len(version.indicator_names)
    if x.shape[1] != width:
        reason = f"must have the base's {width} columns, got {x.shape[1]}"
        raise SchemaError(reason, field="profiles.indicators")
    if len(x) > rows_max:
        reason = f"must be at most {rows_max} at a time, got {len(x)}"
        raise LimitError(reason, field="profiles.indicators")
    wrong = ~np.isfinite(x)
    if wrong.any():
        row, column = (int(at) for at in np.argwhere(wrong)[0])
        name = version.indicator_names[column]
        reason = f"must be finite as float32, got {x[row, column]}"
        raise InputError(reason, field=f"profiles.indicators.{name}", row=row)
    return x


def _attributes(version: Version, given: pa.Table | None, count: int) -> pa.Table:
    schema = version.engine.base.attributes.schema
    columns = {each.name: pa.nulls(count, _plain(each.type)) for each in schema}
    columns[OBJECTED] = pa.array(np.zeros(count, dtype=np.bool_))
    if given is None:
        return pa.table(columns)
    if not isinstance(given, pa.Table):
        reason = f"must be a pyarrow.Table, got {type(given).__name__}"
        raise SchemaError(reason, field="profiles.attributes")
    if given.num_rows != count:
        reason = f"must have a row for each of {count} profiles, got {given.num_rows}"
        raise SchemaError(reason, field="profiles.attributes")
    if CUSTOMER_ID in given.column_names:
        reason = "is no attribute: give ids beside the table"
        raise SchemaError(reason, field=f"profiles.attributes.{CUSTOMER_ID}")
    numbered = pa.array([str(row) for row in range(count)], pa.string())
    with fields_below("profiles"):
        checked = incoming_attributes(given.add_column(0, CUSTOMER_ID, numbered))
    for name in given.column_names:
        field = f"profiles.attributes.{name}"
        if name not in columns:
            hint = did_you_mean(name, columns)
            raise SchemaError(f"the base has no such attribute{hint}", field=field)
        column = checked[name].combine_chunks()
        if column.type != columns[name].type:
            reason = f"must be {columns[name].type}, got {column.type}"
            raise SchemaError(reason, field=field)
        columns[name] = column
    objected = columns[OBJECTED]
    if objected.null_count:
        row = int(np.argmax(objected.is_null().to_numpy(zero_copy_only=False)))
        raise InputError("must not be null", field=f"profiles.attributes.{OBJECTED}", row=row)
    return pa.table(columns)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _facts(given: pa.Table | None, count: int) -> pa.Table:
    if given is None:
        return FACT_SCHEMA.empty_table()
    if not isinstance(given, pa.Table):
        reason = f"must be a pyarrow.Table, got {type(given).__name__}"
        raise SchemaError(reason, field="profiles.facts")
    if given.column_names.count(_INDEX) != 1:
        raise SchemaError("is missing, or there twice", field=f"profiles.facts.{_INDEX}")
    at = given.column_names.index(_INDEX)
    index = given.column(at)
    if not pa.types.is_integer(index.type):
        reason = f"must be an integer, got {index.type}"
        raise SchemaError(reason, field=f"profiles.facts.{_INDEX}")
    rows = pc.fill_null(index.cast(pa.int64(), safe=False), -1).to_numpy()
    outside = (rows < 0) | (rows >= count)
    if outside.any():
        raise InputError(
            f"must lie in [0, {count})",
            field=f"profiles.facts.{_INDEX}",
            row=int(np.argmax(outside)),
        )
    # The door knows customers by ids.
    ids = pa.array([str(row) for row in rows.tolist()], pa.string())
    with fields_below("profiles"):
        checked = incoming_facts(given.set_column(at, CUSTOMER_ID, ids))
    return checked.set_column(0, _INDEX, pa.array(rows)).cast(FACT_SCHEMA)


def _ids(given: Sequence[str] | None, count: int) -> pa.StringArray | None:
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or len(given) != count:
        raise SchemaError(f"must be a list of {count} ids", field="profiles.customer_ids")
    for row, each in enumerate(given):
        id_bytes(each, field="profiles.customer_ids", row=row)
    return pa.array(given, pa.string())
