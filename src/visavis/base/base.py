"""`Base`: all profiles, or those of a part, in memory."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base.door import (
    check_attributes,
    check_customer_ids,
    check_facts,
    check_indicators,
)
from visavis.digest import canonical_digest
from visavis.domain import AS_OF_METADATA, CUSTOMER_ID, NOTICE_METADATA, parse_date
from visavis.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from visavis.base.stored import StoredBase

__all__ = ["Base"]

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
        Of ``FACT_SCHEMA``, sorted by its columns from left to right; of a part, its text is
        dictionary-encoded.
    as_of : datetime.date
        The UTC day up to which (inclusive) the indicators know the customers.
    scale : ndarray of shape (d,), float32, optional
        The `indicator_scale` of the whole, for the base of a part.
    """

    customer_ids: pa.StringArray
    indicators: npt.NDArray[np.float32]
    indicator_schema: pa.Schema
    attributes: pa.Table
    facts: pa.Table
    as_of: date
    scale: npt.NDArray[np.float32] | None = None

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
        ids = check_customer_ids(indicators, "indicators")
        day = check_as_of(as_of, indicators.schema)
        if not len(ids):
            raise InputError("must hold at least one customer", field="indicators")
        order = pc.sort_indices(ids).to_numpy()
        sorted_ids = ids.take(pa.array(order))
        fields = indicator_fields(indicators.schema)
        matrix = check_indicators(indicators, tuple(each.name for each in fields))
        if (np.diff(order.astype(np.int64)) < 0).any():
            matrix = matrix[order]
        matrix.flags.writeable = False
        return cls(
            customer_ids=sorted_ids,
            indicators=matrix,
            indicator_schema=pa.schema(
                fields,
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
        if self.scale is not None:
            return self.scale
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
        ends, text = self._id_text
        try:
            wanted = customer_id.encode()
        except UnicodeEncodeError:
            raise NotFoundError(f"customer {customer_id!r} is not in the base") from None
        rows = range(self.customer_count)
        index = bisect_left(rows, wanted, key=lambda row: text[ends[row] : ends[row + 1]])
        if index == len(rows) or text[ends[index] : ends[index + 1]] != wanted:
            raise NotFoundError(f"customer {customer_id!r} is not in the base")
        return index

    @cached_property
    def _id_text(self) -> tuple[memoryview, bytes]:
        """Where each id ends and the next begins, and the bytes of all: for binary searches."""
        ids = self.customer_ids
        _, offsets, text = ids.buffers()
        if offsets is None or text is None:
            return memoryview(bytes(4 * (len(ids) + 1))).cast("i"), b""
        ends = memoryview(offsets).cast("b").cast("i")
        return ends[ids.offset : ids.offset + len(ids) + 1], text.to_pybytes()

    def facts_of(self, customer_index: int) -> pa.Table:
        """The facts of one customer, in order."""
        if not 0 <= customer_index < self.customer_count:
            raise InputError(f"is no row of the base: {customer_index}", field="customer_index")
        begin, end = self.fact_bounds[customer_index : customer_index + 2].tolist()
        return self.facts.slice(begin, end - begin)

    @cached_property
    def fact_bounds(self) -> npt.NDArray[np.int64]:
        """Where the facts of each customer begin, and the end of all; shape (n + 1,)."""
        rows = self.facts["customer_index"].to_numpy()
        return np.searchsorted(rows, np.arange(self.customer_count + 1)).astype(np.int64)

    def write(self, path: str | Path, *, parts: int | None = None) -> StoredBase:
        """Write the base as the next version of the one at `path`, which it makes if need be.

        Customers whom that one has forgotten are left out.

        Parameters
        ----------
        path : str or Path
            A folder, or the URL of an object store's prefix.
        parts : int, optional
            A power of two; default: as many as `visavis.parts` recommends, never fewer than the
            last version has.

        Returns
        -------
        StoredBase
            The version that was published; who was forgotten in the last one is not in it.
        """
        # What is on disk is made of what is in memory: `writing` stands above this module.
        from visavis.base.writing import write_base

        return write_base(self, path, parts=parts)

    @classmethod
    def read(cls, path: str | Path, *, version: int | None = None) -> Base:
        """Read a whole base into memory; `StoredBase` reads it part by part.

        Parameters
        ----------
        path : str or Path
            Where `write` or `visavis load` put it.
        version : int, optional
            Default: the newest.

        Raises
        ------
        InputError
            If there is no base at `path`, or no such version.
        CorruptionError
            If any byte of it is not as it was written.
        """
        from visavis.base.stored import StoredBase

        return StoredBase.open(path, version=version).read()


def indicator_fields(schema: pa.Schema) -> list[pa.Field]:
    """The indicators of a table of profiles, as float32 fields."""
    return [each.with_type(pa.float32()) for each in schema if each.name != CUSTOMER_ID]


def check_as_of(as_of: date | str, schema: pa.Schema) -> date:
    """The day, if the indicators of `schema` do not say that they are of another.

    Raises
    ------
    InputError
    """
    day = parse_date(as_of, field="as_of")
    known = (schema.metadata or {}).get(AS_OF_METADATA)
    if known is not None and known != day.isoformat().encode():
        reason = (
            f"is {day}, but the indicators were computed as of {known.decode(errors='replace')}"
        )
        raise InputError(reason, field="as_of")
    return day
