"""The base: all profiles, sorted by customer id.

::

    indicators (table)  ┐
    attributes (table)  ├── Base.from_tables() ──► Base ──► write() / read()
    facts (table)       ┘

A profile is a customer's indicators, attributes and facts. Everything is checked on the way in, so
that what reads a base can trust it: ids are unique and sorted by their UTF-8 bytes, indicators are
finite float32, attributes have types that rules can read, and facts name customers of the base.

Facts, as they come in:

==============  ========  ==========================================================================
column          type      meaning
==============  ========  ==========================================================================
customer_id     string    the customer
product         string    the product that the fact is about; null if it is about a capability
capability_id   string    the capability that the fact is about; null if it is about a product
kind            string    bought, refused, contacted or excluded
date            date      the UTC day on which it happened
count           int64     how often on that day, ≥ 1; default 1
==============  ========  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis.digest import canonical_digest
from visavis.domain import CUSTOMER_ID, HISTORY, OBJECTED, FactKind, parse_date
from visavis.errors import CorruptionError, InputError, NotFoundError, SchemaError
from visavis.store import file_digest, new_folder, read_json, write_json

__all__ = ["FACT_SCHEMA", "Base"]

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

_FORMAT: Final = 1
_MANIFEST: Final = "base.json"
_INCOMING_FACTS: Final = (CUSTOMER_ID, "product", "capability_id", "kind", "date", "count")


@dataclass(frozen=True, eq=False)
class Base:
    """All profiles; made by `from_tables` or `read`, which check what this class trusts.

    Attributes
    ----------
    customer_ids : pyarrow.StringArray of length n
        Sorted by UTF-8 bytes, unique.
    indicators : ndarray of shape (n, d), float32
        Read-only, row after row.
    indicator_schema : pyarrow.Schema
        The d indicators as float32 fields; what each means stands in its field's metadata.
    attributes : pyarrow.Table of n rows
        In the order of `customer_ids`; null = unknown.
    facts : pyarrow.Table
        Of `FACT_SCHEMA`, sorted by its columns from left to right.
    as_of : datetime.date
        The UTC day up to which (inclusive) the indicators know the customers.
    """

    customer_ids: pa.StringArray
    indicators: npt.NDArray[np.float32]
    indicator_schema: pa.Schema
    attributes: pa.Table
    facts: pa.Table
    as_of: date

    @classmethod
    def from_tables(
        cls,
        indicators: pa.Table,
        *,
        as_of: date | str,
        attributes: pa.Table | None = None,
        facts: pa.Table | None = None,
    ) -> Base:
        """Check and sort three tables into a base.

        Parameters
        ----------
        indicators : pyarrow.Table
            ``customer_id`` and one numeric column per indicator, finite as float32.
        as_of : date or str
            The UTC day up to which the tables know the customers.
        attributes : pyarrow.Table, optional
            ``customer_id`` and typed columns (bool, integer, float, string, date). Customers that
            it lacks have unknown attributes.
        facts : pyarrow.Table, optional
            See the module.

        Raises
        ------
        InputError
            Naming the column and the row.
        """
        ids = _customer_ids(indicators, "indicators")
        order = pc.sort_indices(ids).to_numpy()
        sorted_ids = ids.take(pa.array(order))
        fields = [each for each in indicators.schema if each.name != CUSTOMER_ID]
        names = tuple(each.name for each in fields)
        matrix = _matrix(indicators, names)[order]
        matrix.flags.writeable = False
        return cls(
            customer_ids=sorted_ids,
            indicators=matrix,
            indicator_schema=pa.schema(
                [each.with_type(pa.float32()) for each in fields],
                metadata=indicators.schema.metadata,
            ),
            attributes=_attributes(attributes, sorted_ids),
            facts=_facts(facts, sorted_ids),
            as_of=parse_date(as_of, field="as_of"),
        )

    @property
    def customer_count(self) -> int:
        """How many customers the base holds."""
        return len(self.customer_ids)

    @cached_property
    def indicator_names(self) -> tuple[str, ...]:
        """The names of the d indicators, in the order of their columns."""
        return tuple(self.indicator_schema.names)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical column buffers of everything in the base, in hex."""
        columns = {
            CUSTOMER_ID: self.customer_ids,
            **{
                f"indicator:{name}": pa.array(np.ascontiguousarray(self.indicators[:, column]))
                for column, name in enumerate(self.indicator_names)
            },
            **{f"attribute:{name}": self.attributes[name] for name in self.attributes.column_names},
        }
        parts = [canonical_digest(pa.table(columns)), canonical_digest(self.facts)]
        return canonical_digest(pa.table({"part": [*parts, self.as_of.isoformat()]}))

    def index_of(self, customer_id: str) -> int:
        """The row of a customer.

        Raises
        ------
        NotFoundError
            If the base does not hold the customer.
        """
        low, high = 0, self.customer_count
        wanted = customer_id.encode()
        while low < high:
            middle = (low + high) // 2
            if self.customer_ids[middle].as_py().encode() < wanted:
                low = middle + 1
            else:
                high = middle
        if low == self.customer_count or self.customer_ids[low].as_py() != customer_id:
            raise NotFoundError(f"customer {customer_id!r} is not in the base")
        return low

    def facts_of(self, customer_index: int) -> pa.Table:
        """The facts of one customer, in order."""
        rows = self.facts["customer_index"].to_numpy()
        begin, end = np.searchsorted(rows, [customer_index, customer_index + 1])
        return self.facts.slice(int(begin), int(end - begin))

    def write(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the base as a folder that appears as a whole.

        Parameters
        ----------
        path : str or Path
            The folder to make.
        replace : bool
            Replace what stands there; otherwise its existence is an error.
        """
        with new_folder(Path(path), replace=replace) as folder:
            columns = [pa.array(np.ascontiguousarray(column)) for column in self.indicators.T]
            tables = {
                "indicators": pa.Table.from_arrays(
                    [self.customer_ids, *columns],
                    schema=self.indicator_schema.insert(0, pa.field(CUSTOMER_ID, pa.string())),
                ),
                "attributes": self.attributes.add_column(0, CUSTOMER_ID, self.customer_ids),
                "facts": self.facts,
            }
            for name, table in tables.items():
                pq.write_table(table, folder / f"{name}.parquet", write_page_checksum=True)
            write_json(
                folder / _MANIFEST,
                {
                    "format": _FORMAT,
                    "as_of": self.as_of.isoformat(),
                    "customer_count": self.customer_count,
                    "digest": self.digest,
                    "files": {
                        f"{name}.parquet": file_digest(folder / f"{name}.parquet")
                        for name in tables
                    },
                },
            )

    @classmethod
    def read(cls, path: str | Path) -> Base:
        """Read a base that `write` made.

        Raises
        ------
        InputError
            If there is no base at `path`, or it is of another format.
        CorruptionError
            If a file does not fit the digest in the manifest.
        """
        folder = Path(path)
        manifest = read_json(folder / _MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise InputError(
                f"{folder / _MANIFEST} is no manifest of format {_FORMAT}", field="path"
            )
        tables = {}
        for name in ("indicators", "attributes", "facts"):
            file = folder / f"{name}.parquet"
            if not file.exists() or file_digest(file) != manifest["files"].get(file.name):
                raise CorruptionError(f"{file} does not fit its digest in {_MANIFEST}")
            tables[name] = pq.read_table(file)
        facts = tables["facts"]
        ids = tables["indicators"][CUSTOMER_ID].combine_chunks()
        facts = facts.set_column(0, CUSTOMER_ID, ids.take(facts["customer_index"].combine_chunks()))
        base = cls.from_tables(
            tables["indicators"],
            as_of=manifest["as_of"],
            attributes=tables["attributes"],
            facts=facts,
        )
        if base.digest != manifest["digest"]:
            raise CorruptionError(f"{folder} does not fit the digest in its {_MANIFEST}")
        return base


def _customer_ids(table: pa.Table, field: str) -> pa.StringArray:
    """The id column as one array of unique, non-empty strings."""
    ids = _id_column(table, field)
    if not len(ids):
        raise InputError("must hold at least one customer", field=field)
    counts = ids.value_counts()
    repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(repeated):
        twice = repeated[0].as_py()
        rows = np.flatnonzero(pc.equal(ids, twice).to_numpy(zero_copy_only=False))
        raise InputError(
            f"customer {twice!r} stands in row {rows[0]} already",
            field=f"{field}.{CUSTOMER_ID}",
            row=int(rows[1]),
        )
    return ids


def _id_column(table: pa.Table, field: str) -> pa.StringArray:
    if CUSTOMER_ID not in table.column_names:
        raise SchemaError("is missing", field=f"{field}.{CUSTOMER_ID}")
    column = table[CUSTOMER_ID]
    if pa.types.is_dictionary(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        raise SchemaError(f"must be string, got {column.type}", field=f"{field}.{CUSTOMER_ID}")
    ids = _one_array(column)
    wrong = pc.or_kleene(ids.is_null(), pc.equal(ids, "")).to_numpy(zero_copy_only=False)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError("must not be null or empty", field=f"{field}.{CUSTOMER_ID}", row=row)
    return ids


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    # A chunked array without chunks combines into another chunked array in some versions.
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _matrix(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    if not names:
        raise SchemaError("must hold at least one indicator", field="indicators")
    if len(set(names)) != len(names):
        raise SchemaError("has two columns of the same name", field="indicators")
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


def _attributes(table: pa.Table | None, customer_ids: pa.StringArray) -> pa.Table:
    """Attributes in the order of the customers; null where the table lacks a customer."""
    if table is None:
        # A table without columns forgets how many rows it stands for.
        never = pa.array(np.zeros(len(customer_ids), dtype=bool))
        return pa.table({OBJECTED: never})
    ids = _customer_ids(table, "attributes")
    row_of = pc.index_in(ids, customer_ids)
    _refuse_unknown(row_of, ids, "attributes")
    taken = pc.index_in(customer_ids, ids)
    columns = {}
    for name in table.column_names:
        if name != CUSTOMER_ID:
            if name in columns:
                raise SchemaError("stands twice", field=f"attributes.{name}")
            columns[name] = _attribute(table[name], name).take(taken)
    objected = columns.get(OBJECTED)
    if objected is None:
        columns[OBJECTED] = pa.array(np.zeros(len(customer_ids), dtype=bool))
    elif not pa.types.is_boolean(objected.type):
        raise SchemaError(f"must be bool, got {objected.type}", field=f"attributes.{OBJECTED}")
    else:
        # A customer without a row has not objected; a row must say which.
        if _one_array(table[OBJECTED]).null_count:
            row = int(np.argmax(_one_array(table[OBJECTED]).is_null().to_numpy(False)))
            raise InputError("must not be null", field=f"attributes.{OBJECTED}", row=row)
        columns[OBJECTED] = pc.fill_null(objected, fill_value=False)
    return pa.table(columns)


def _attribute(column: pa.ChunkedArray, name: str) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        column, kind = column.cast(pa.string()), pa.string()
    readable = (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_string(kind)
        or pa.types.is_date32(kind)
    )
    if not readable:
        raise SchemaError(
            f"must be bool, integer, float, string or date32, got {kind}",
            field=f"attributes.{name}",
        )
    array = _one_array(column)
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


def _facts(table: pa.Table | None, customer_ids: pa.StringArray) -> pa.Table:
    """Facts by row of the base, sorted, one row per customer, subject, kind and day."""
    if table is None:
        return FACT_SCHEMA.empty_table()
    columns = _fact_columns(table)
    ids = _id_column(table, "facts")
    customer_index = pc.index_in(ids, customer_ids)
    _refuse_unknown(customer_index, ids, "facts")
    keys = FACT_SCHEMA.names[:-1]
    by_row = pa.table({"customer_index": customer_index.cast(pa.int64()), **columns})
    summed = by_row.group_by(keys).aggregate([("count", "sum")])
    renamed = summed.rename_columns([*keys, "count"]).select(FACT_SCHEMA.names)
    ordered = renamed.sort_by([(key, "ascending") for key in keys])
    return ordered.cast(FACT_SCHEMA).combine_chunks()


def _fact_columns(table: pa.Table) -> dict[str, pa.Array]:
    for name in table.column_names:
        if name not in _INCOMING_FACTS:
            raise SchemaError(f"is not one of {', '.join(_INCOMING_FACTS)}", field=f"facts.{name}")
    count = table.num_rows
    columns: dict[str, pa.Array] = {}
    for name in FACT_SCHEMA.names[1:]:
        wanted = FACT_SCHEMA.field(name)
        if name in table.column_names:
            columns[name] = _fact_column(table[name], wanted)
        elif name == "count":
            columns[name] = pa.array(np.ones(count, dtype=np.int64))
        elif wanted.nullable:
            columns[name] = pa.nulls(count, wanted.type)
        else:
            raise SchemaError("is missing", field=f"facts.{name}")
    both = pc.equal(columns["product"].is_null(), columns["capability_id"].is_null())
    _refuse_rows(both, "facts.product", "either product or capability_id must be given, not both")
    kinds = pa.array([kind.value for kind in FactKind])
    unknown = pc.invert(pc.is_in(columns["kind"], kinds))
    _refuse_rows(unknown, "facts.kind", f"must be one of {', '.join(kinds.to_pylist())}")
    _refuse_rows(pc.less(columns["count"], 1), "facts.count", "must be at least 1")
    return columns


def _fact_column(column: pa.ChunkedArray, wanted: pa.Field) -> pa.Array:
    field = f"facts.{wanted.name}"
    if pa.types.is_timestamp(column.type):
        raise SchemaError("must be a date, not a time of day", field=field)
    try:
        array = _one_array(column.cast(wanted.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(f"must be {wanted.type}, got {column.type}", field=field) from None
    if not wanted.nullable:
        _refuse_rows(array.is_null(), field, "must not be null")
    return array


def _refuse_rows(wrong: pa.Array, field: str, reason: str) -> None:
    rows = wrong.to_numpy(zero_copy_only=False)
    if rows.any():
        raise InputError(reason, field=field, row=int(np.argmax(rows)))
