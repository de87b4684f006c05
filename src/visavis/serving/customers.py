"""`Customers`: where each customer of a base stands, for lookups that touch no Arrow.

A customer's *row* here counts through the parts, one after the other. What it costs: 17 bytes a
customer for the index of ids, 8 for the bounds of facts, 8 more once audiences are asked for. Ids,
indicators, attributes and facts stay mapped from the files of the base; only which customer each
fact belongs to, 8 bytes a fact, is dropped and made again for the few rows that are asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis._rows import Rows, heads_of
from visavis.base import FACT_SCHEMA, Base, StoredBase
from visavis.domain import CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, NotFoundError, VisavisError

__all__ = ["Customers", "Part"]

Int64 = npt.NDArray[np.int64]


class Part(NamedTuple):
    """One part, mapped.

    Attributes
    ----------
    start : int
        Its first row.
    base : Base
        Without facts.
    facts : pyarrow.Table
        Of ``FACT_SCHEMA`` without its first column.
    fact_bounds : ndarray of shape (n + 1,), int64
    ends : memoryview of n + 1 int32
        Where each id begins in `text`.
    text : memoryview
    """

    start: int
    base: Base
    facts: pa.Table
    fact_bounds: Int64
    ends: memoryview
    text: memoryview

    @classmethod
    def of(cls, base: Base, start: int) -> Part:
        """A part whose facts forget their customers."""
        bounds = base.fact_bounds
        rest = base.facts.select(FACT_SCHEMA.names[1:])
        slim = Base(
            base.customer_ids,
            base.indicators,
            base.indicator_schema,
            base.attributes,
            FACT_SCHEMA.empty_table(),
            base.as_of,
            base.indicator_scale,
        )
        return cls(start, slim, rest, bounds, *_id_text(base.customer_ids))

    def whole(self) -> Base:
        """The part with all its facts."""
        return self.rows(np.arange(self.base.customer_count))

    def rows(self, rows: Int64) -> Base:
        """The profiles of some customers of the part, rows counted in it and ascending."""
        base = self.base
        is_all = len(rows) == base.customer_count
        sizes = np.diff(self.fact_bounds)[rows]
        owner = pa.array(np.repeat(np.arange(len(rows)), sizes))
        facts = self.facts
        if not is_all:
            ends = np.cumsum(sizes)
            places = np.arange(ends[-1] if len(ends) else 0)
            places += np.repeat(self.fact_bounds[rows] - (ends - sizes), sizes)
            facts = facts.take(pa.array(places))
        chosen = None if is_all else pa.array(rows)
        return Base(
            base.customer_ids if chosen is None else base.customer_ids.take(chosen),
            base.indicators if chosen is None else base.indicators[rows],
            base.indicator_schema,
            base.attributes if chosen is None else base.attributes.take(chosen),
            facts.add_column(0, FACT_SCHEMA.names[0], owner),
            base.as_of,
            base.indicator_scale,
        )


def _id_text(ids: pa.StringArray) -> tuple[memoryview, memoryview]:
    _, offsets, text = ids.buffers()
    if offsets is None or text is None:
        return memoryview(bytes(4 * (len(ids) + 1))).cast("i"), memoryview(b"")
    ends = memoryview(offsets).cast("b").cast("i")
    return ends[ids.offset : ids.offset + len(ids) + 1], memoryview(text).cast("B")


@dataclass(frozen=True, eq=False)
class Customers:
    """All customers of a version of a base.

    Attributes
    ----------
    stored : StoredBase
    parts : tuple of Part
    starts : ndarray of shape (parts + 1,), int64
        The first row of each part, and the number of customers.
    heads : ndarray of shape (n,), uint64, ascending
        The first eight bytes of the sha256 of each id: what a part is chosen by, too.
    row_of : ndarray of shape (n,), int64
        The row of each head.
    """

    stored: StoredBase
    parts: tuple[Part, ...]
    starts: Int64
    heads: npt.NDArray[np.uint64]
    row_of: Int64

    @classmethod
    def open(
        cls, stored: StoredBase, threads: int, parts: Sequence[int] | None = None
    ) -> Customers:
        """Map parts and check every byte of them.

        Parameters
        ----------
        stored : StoredBase
        threads : int
        parts : sequence of int, optional
            Only these, of which there may be none. Default: all.

        Raises
        ------
        CorruptionError
            Naming the file.
        """
        chosen = range(stored.part_count) if parts is None else parts
        if not chosen:
            return cls._of_nobody(stored)
        sizes = [stored.manifest.parts[index].customer_count for index in chosen]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

        def opened(index: int, start: int) -> tuple[Part, npt.NDArray[np.uint64]]:
            part = Part.of(stored.part(index), start)
            return part, heads_of(part.ends, part.text)

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(opened, chosen, starts[:-1].tolist()))
        heads = np.concatenate([each for _, each in found])
        order = np.argsort(heads, kind="stable")
        return cls(stored, tuple(part for part, _ in found), starts, heads[order], order)

    @classmethod
    def _of_nobody(cls, stored: StoredBase) -> Customers:
        """One part in which nobody is, so that what is asked of parts has its types."""
        nobody = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return cls(stored, (Part.of(stored.head, 0),), np.zeros(2, np.int64), *nobody)

    @property
    def count(self) -> int:
        """How many customers there are, n."""
        return len(self.heads)

    @cached_property
    def _heads_view(self) -> memoryview:
        return self.heads.data

    @cached_property
    def _starts(self) -> list[int]:
        starts: list[int] = self.starts.tolist()
        return starts

    @cached_property
    def _lying(self) -> Rows:
        parts = self.parts
        return Rows(
            [part.base.indicators for part in parts],
            [part.ends for part in parts],
            [part.text for part in parts],
            self.starts,
            self.heads,
            self.row_of,
        )

    @cached_property
    def id_rank(self) -> Int64:
        """The place of each row in the order of ids, (n,)."""
        ids = pa.concat_arrays([part.base.customer_ids for part in self.parts])
        rank = np.empty(len(ids), dtype=np.int64)
        rank[pc.sort_indices(ids).to_numpy().astype(np.int64)] = np.arange(len(ids))
        return rank

    def row(self, customer_id: str) -> int:
        """The row of one customer.

        Raises
        ------
        InputError
            If `customer_id` is no text.
        NotFoundError
            If the base does not hold the customer.
        """
        if (row := self._lying.find_one(customer_id)) >= 0:
            return row
        if not isinstance(customer_id, str):
            raise InputError(f"must be text, got {customer_id!r:.60}", field=CUSTOMER_ID)
        try:
            wanted = customer_id.encode()
        except UnicodeEncodeError:
            raise _unknown(customer_id) from None
        head = int.from_bytes(hashlib.sha256(wanted).digest()[:8])
        heads = self._heads_view
        at = bisect_left(heads, head)
        # Heads of two ids may be equal, so the id itself decides.
        while at < len(heads) and heads[at] == head:
            row = int(self.row_of[at])
            if self._is(row, wanted):
                return row
            at += 1
        raise _unknown(customer_id)

    def unknown(self, customer_id: str) -> NotFoundError | None:
        """Why there is no such customer; None if there is one."""
        try:
            self.row(customer_id)
        except NotFoundError as error:
            return error
        return None

    def rows(self, customer_ids: Sequence[str]) -> tuple[Int64, dict[int, VisavisError]]:
        """The rows of some customers, −1 where there is none, and why."""
        # What is not found together, for whatever reason, is looked at one by one.
        rows: Int64 = self._lying.find(list(customer_ids))
        errors: dict[int, VisavisError] = {}
        for position in np.flatnonzero(rows < 0).tolist():
            try:
                rows[position] = self.row(customer_ids[position])
            except (InputError, NotFoundError) as error:
                errors[position] = error
        return rows, errors

    def rows_of_tombstone(self, tombstone: str) -> list[int]:
        """The row of who was forgotten, if the base still holds the customer."""
        head = int(tombstone[:16], 16)
        at, found = bisect_left(self._heads_view, head), []
        while at < len(self.heads) and self._heads_view[at] == head:
            row = int(self.row_of[at])
            if hashlib.sha256(self.id_bytes(row)).hexdigest() == tombstone:
                found.append(row)
            at += 1
        return found

    def part_of(self, row: int) -> int:
        """The index of the part of a row."""
        return bisect_right(self._starts, row) - 1

    def place(self, row: int) -> tuple[Part, int]:
        """The part of a row, and the row in it."""
        part = self.parts[self.part_of(row)]
        return part, row - part.start

    def parts_of(self, rows: Int64) -> Int64:
        """The part index of each row."""
        found: Int64 = np.searchsorted(self.starts, rows, side="right") - 1
        return found

    def id_bytes(self, row: int) -> bytes:
        """The id of a row, as UTF-8."""
        part, at = self.place(row)
        return bytes(part.text[part.ends[at] : part.ends[at + 1]])

    def _is(self, row: int, wanted: bytes) -> bool:
        part, at = self.place(row)
        return part.text[part.ends[at] : part.ends[at + 1]] == wanted

    def ids(self, rows: Int64) -> list[str]:
        """The ids of some rows, in their order."""
        return [self.id_bytes(row).decode() for row in rows.tolist()]

    def indicators(self, rows: Int64) -> npt.NDArray[np.float32]:
        """The indicators of some rows as one block, in their order: (rows, d) float32."""
        if len(rows) == 1:
            part, at = self.place(int(rows[0]))
            return part.base.indicators[at : at + 1]
        return self._lying.indicators(np.ascontiguousarray(rows))

    def objected(self, rows: Int64) -> npt.NDArray[np.bool_]:
        """Who of some rows had objected when the base was made."""
        found = np.zeros(len(rows), dtype=np.bool_)
        for part, at, rows_in in self.by_part(rows):
            found[at] = part.base.attributes[OBJECTED].take(pa.array(rows_in)).to_numpy()
        return found

    def by_part(self, rows: Int64) -> list[tuple[Part, Any, Int64]]:
        """The parts of some rows: where in `rows` each part's stand, and their rows in the part."""
        index = self.parts_of(rows)
        if len(index) and (index == index[0]).all():
            part = self.parts[int(index[0])]
            return [(part, slice(None), rows - part.start)]
        order = np.argsort(index, kind="stable")
        bounds = np.searchsorted(index[order], np.arange(len(self.parts) + 1))
        found = []
        for number in np.flatnonzero(np.diff(bounds)):
            at = order[bounds[number] : bounds[number + 1]]
            part = self.parts[number]
            found.append((part, at, rows[at] - part.start))
        return found


def _unknown(customer_id: str) -> NotFoundError:
    return NotFoundError(f"customer {customer_id!r} is not in the base")
