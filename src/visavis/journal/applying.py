"""What a journal says, put onto a base whose own rows are trusted and never checked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base import FACT_SCHEMA, Base
from visavis.base.door import COUNT_MAX
from visavis.catalog.door import one_array
from visavis.domain import CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, SchemaError

__all__ = ["applied"]

_INDEX: Final = FACT_SCHEMA.names[0]


def applied(
    base: Base,
    *,
    facts: pa.Table,
    attributes: pa.Table,
    objections: pa.StringArray,
    forgotten: frozenset[str],
) -> Base:
    """The base that also knows these; see `Overlay.apply`."""
    changed: dict[str, pa.Table] = {}
    known = _of_the_base(facts, base)
    if known.num_rows:
        changed["facts"] = _with_facts(base, known)
    columns: dict[str, pa.Array] = {}
    said = _of_the_base(attributes, base)
    if said.num_rows:
        columns |= _with_attributes(base, said)
    out = _objectors(base, objections, forgotten)
    if len(out):
        columns[OBJECTED] = _replaced(
            _plain(base.attributes[OBJECTED]), out, pa.array(np.ones(len(out), dtype=bool))
        )
    if columns:
        changed["attributes"] = _with_columns(base.attributes, columns)
    return replace(base, **changed) if changed else base


def _of_the_base(table: pa.Table, base: Base) -> pa.Table:
    """The rows about customers of the base, with their rows in it in the place of their ids."""
    if not table.num_rows:
        return table
    index = pc.index_in(one_array(table[CUSTOMER_ID]), base.customer_ids)
    mask = index.is_valid()
    field = FACT_SCHEMA.field(_INDEX)
    return table.set_column(0, field, index.cast(pa.int64())).filter(mask)


def _with_facts(base: Base, added: pa.Table) -> pa.Table:
    """The base's facts and `added` ones: only the customers who are touched are summed anew."""
    held = base.facts
    if held.schema.types != FACT_SCHEMA.types:
        held = held.cast(FACT_SCHEMA)
    touched = np.zeros(base.customer_count, dtype=bool)
    touched[added[_INDEX].to_numpy()] = True
    of_touched = touched[held[_INDEX].to_numpy()]
    merged = _summed(base, pa.concat_tables([held.filter(pa.array(of_touched)), added]))
    both = pa.concat_tables([held.filter(pa.array(~of_touched)), merged])
    # Of each customer all rows come from one of the two, in order: a stable sort merges them.
    order = np.argsort(both[_INDEX].to_numpy(), kind="stable")
    return both.take(pa.array(order)).combine_chunks()


def _summed(base: Base, facts: pa.Table) -> pa.Table:
    """Facts in the order of a base, one row per customer, subject, kind and day."""
    keys = FACT_SCHEMA.names[:-1]
    summed = facts.group_by(keys).aggregate([("count", "sum")])
    renamed = summed.rename_columns([*keys, "count"]).select(FACT_SCHEMA.names)
    merged = renamed.sort_by([(key, "ascending") for key in keys]).cast(FACT_SCHEMA)
    most = pc.index(pc.greater(merged["count"], COUNT_MAX), True).as_py()
    if most >= 0:
        customer_id = base.customer_ids[merged[_INDEX][most].as_py()].as_py()
        raise InputError(
            f"with the journal the counts of one subject, kind and day add up to "
            f"{merged['count'][most].as_py()}, more than {COUNT_MAX}",
            field="facts.count",
            subject=f"customer {customer_id!r}",
        )
    return merged


def _with_attributes(base: Base, said: pa.Table) -> dict[str, pa.Array]:
    """The columns that attributes change, by name."""
    columns = {}
    for name in pc.unique(said["attribute"]).sort().to_pylist():
        rows = said.filter(pc.equal(said["attribute"], name)).sort_by(_INDEX)
        if name not in base.attributes.column_names:
            raise SchemaError(
                f"the base has no such attribute, which the journal sets {_where(rows)}",
                field=f"attributes.{name}",
            )
        column = _plain(base.attributes[name])
        wrong = rows.filter(pc.not_equal(rows["type"], str(column.type)))
        if wrong.num_rows:
            raise SchemaError(
                f"is {column.type} in the base, but the journal sets {wrong['type'][0].as_py()} "
                f"{_where(wrong)}",
                field=f"attributes.{name}",
            )
        columns[name] = _replaced(column, rows[_INDEX].to_numpy(), _cells(rows, column.type))
    return columns


def _where(rows: pa.Table) -> str:
    return f"at offset {pc.min(rows['offset']).as_py()}"


def _cells(rows: pa.Table, dtype: pa.DataType) -> pa.Array:
    cells = [json.loads(text) for text in rows["value"].to_pylist()]
    if pa.types.is_date32(dtype):
        return pa.array(cells, pa.int32()).cast(dtype)
    return pa.array(cells, dtype)


def _replaced(column: pa.Array, rows: npt.NDArray[np.int64], cells: pa.Array) -> pa.Array:
    """The column with `cells` in `rows`, which ascend."""
    mask = np.zeros(len(column), dtype=bool)
    mask[rows] = True
    return pc.replace_with_mask(column, pa.array(mask), cells)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, text as plain string."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return one_array(column)


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        index = table.schema.get_field_index(name)
        field: Any = table.schema.field(index).with_type(column.type)
        table = table.set_column(index, field, column)
    return table


def _objectors(
    base: Base, objections: pa.StringArray, forgotten: frozenset[str]
) -> npt.NDArray[np.int64]:
    """Rows of who objected or was forgotten, ascending."""
    rows = pc.index_in(objections, base.customer_ids).drop_null().to_numpy().astype(np.int64)
    if not forgotten:
        return np.unique(rows)
    # 0.6 µs an id: the price of keeping no id of whom was forgotten.
    buried = [
        row
        for row, customer_id in enumerate(base.customer_ids.to_pylist())
        if hashlib.sha256(customer_id.encode()).hexdigest() in forgotten
    ]
    return np.union1d(rows, np.array(buried, dtype=np.int64))
