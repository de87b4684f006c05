"""`Base`: all profiles, made from tables or read from a folder."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
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

from visavis.base.door import (
    check_attributes,
    check_customer_ids,
    check_facts,
    check_indicators,
)
from visavis.catalog.door import one_array
from visavis.digest import canonical_digest
from visavis.domain import AS_OF_METADATA, CUSTOMER_ID, NOTICE_METADATA, parse_date
from visavis.errors import CorruptionError, InputError, NotFoundError
from visavis.store import file_digest, json_bytes, new_folder, read_json, write_json

__all__ = ["Base"]

_FORMAT: Final = 1
_MANIFEST: Final = "base.json"
_TABLES: Final = ("indicators", "attributes", "facts")

#: About so many rows tell how large indicators usually are.
_SCALE_ROWS: Final = 8_192


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
        Of ``FACT_SCHEMA``, sorted by its columns from left to right.
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
            See ``visavis.base``.

        Raises
        ------
        InputError
            Naming the column and the row.
        """
        day = parse_date(as_of, field="as_of")
        ids = check_customer_ids(indicators, "indicators")
        known = (indicators.schema.metadata or {}).get(AS_OF_METADATA)
        if known is not None and known != day.isoformat().encode():
            reason = (
                f"is {day}, but the indicators were computed as of {known.decode(errors='replace')}"
            )
            raise InputError(reason, field="as_of")
        if not len(ids):
            raise InputError("must hold at least one customer", field="indicators")
        order = pc.sort_indices(ids).to_numpy()
        sorted_ids = ids.take(pa.array(order))
        fields = [each for each in indicators.schema if each.name != CUSTOMER_ID]
        matrix = check_indicators(indicators, tuple(each.name for each in fields))
        if (np.diff(order.astype(np.int64)) < 0).any():
            matrix = matrix[order]
        matrix.flags.writeable = False
        return cls(
            customer_ids=sorted_ids,
            indicators=matrix,
            indicator_schema=pa.schema(
                [each.with_type(pa.float32()) for each in fields],
                metadata=indicators.schema.metadata,
            ),
            attributes=check_attributes(attributes, sorted_ids),
            facts=check_facts(facts, sorted_ids),
            as_of=day,
        )

    @property
    def customer_count(self) -> int:
        """How many customers the base holds."""
        return len(self.customer_ids)

    @property
    def notice(self) -> str | None:
        """What must stand wherever results of this base are shown; None if nothing must.

        It travels in the metadata of the indicators' schema, under ``visavis.notice``.
        """
        said = (self.indicator_schema.metadata or {}).get(NOTICE_METADATA)
        return None if said is None else said.decode()

    @cached_property
    def indicator_scale(self) -> npt.NDArray[np.float32]:
        """The usual size of each indicator, (d,): a hint for the kernel, never a result.

        The root mean square over rows spread evenly.
        """
        step = max(1, len(self.indicators) // _SCALE_ROWS)
        some = self.indicators[::step].astype(np.float64)
        return np.asarray(np.sqrt(np.mean(some * some, axis=0)), dtype=np.float32)

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
        if not isinstance(customer_id, str):
            raise InputError(f"must be text, got {customer_id!r}", field=CUSTOMER_ID)
        ids = self.customer_ids
        # Python compares code points, which order as their UTF-8 bytes do.
        index = bisect_left(range(len(ids)), customer_id, key=lambda row: ids[row].as_py())
        if index == len(ids) or ids[index].as_py() != customer_id:
            raise NotFoundError(f"customer {customer_id!r} is not in the base")
        return index

    def facts_of(self, customer_index: int) -> pa.Table:
        """The facts of one customer, in order."""
        if not 0 <= customer_index < self.customer_count:
            raise InputError(f"is no row of the base: {customer_index}", field="customer_index")
        begin, end = self._fact_bounds[customer_index : customer_index + 2].tolist()
        return self.facts.slice(begin, end - begin)

    @cached_property
    def _fact_bounds(self) -> npt.NDArray[np.int64]:
        """Where the facts of each customer begin, and the end of all; shape (n + 1,)."""
        rows = self.facts["customer_index"].to_numpy()
        return np.searchsorted(rows, np.arange(self.customer_count + 1)).astype(np.int64)

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
            files = {f"{name}.parquet": file_digest(folder / f"{name}.parquet") for name in tables}
            write_json(folder / _MANIFEST, self._manifest(files))

    def _manifest(self, files: Mapping[str, str]) -> dict[str, object]:
        """What the manifest says about this base: every byte of it follows from the rest."""
        return {
            "format": _FORMAT,
            "as_of": self.as_of.isoformat(),
            "customer_count": self.customer_count,
            "digest": self.digest,
            "files": dict(files),
        }

    @classmethod
    def read(cls, path: str | Path) -> Base:
        """Read a base that `write` made.

        Raises
        ------
        InputError
            If there is no base at `path`, or it is of another format.
        CorruptionError
            If any byte of it is not as it was written.
        """
        folder = Path(path)
        manifest = read_json(folder / _MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise InputError(
                f"{folder / _MANIFEST} is no manifest of format {_FORMAT}", field="path"
            )
        files = manifest.get("files")
        if not isinstance(files, dict):
            raise CorruptionError(f"{folder / _MANIFEST} names no files")
        for name in _TABLES:
            file = folder / f"{name}.parquet"
            if not file.is_file() or file_digest(file) != files.get(file.name):
                raise CorruptionError(f"{file} does not fit its digest in {_MANIFEST}")
        try:
            base = cls._from_files(folder, manifest.get("as_of"))
        except (InputError, pa.ArrowException, KeyError) as error:
            raise CorruptionError(f"{folder} holds no base: {error}") from error
        if (folder / _MANIFEST).read_bytes() != json_bytes(base._manifest(files)):
            raise CorruptionError(f"{folder} does not fit what its {_MANIFEST} says")
        return base

    @classmethod
    def _from_files(cls, folder: Path, as_of: object) -> Base:
        tables = {name: pq.read_table(folder / f"{name}.parquet") for name in _TABLES}
        facts = tables["facts"]
        ids = one_array(tables["indicators"][CUSTOMER_ID])
        named = ids.take(one_array(facts["customer_index"]))
        return cls.from_tables(
            tables["indicators"],
            as_of=as_of,  # type: ignore[arg-type]  # from_tables refuses what is no date
            attributes=tables["attributes"],
            facts=facts.set_column(0, CUSTOMER_ID, named),
        )
