"""`State`: one version at one offset of the journal; `Touched`: a customer the journal speaks of.

A state never changes. What is recorded makes the next one, which shares everything with it but
the dictionaries of the parts whose customers it touches; so whoever answers from a state sees one
offset, however long the answer takes. What a customer's entries mean is computed once, when they
are read, by the code that the batch uses: the overlay, the gates, the adjustments.

Entries that do not fit the base (an attribute it lacks, counts beyond the bound) make a batch fail;
here they make one customer an error, and everybody else is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base import Base
from visavis.base.stored import joined
from visavis.errors import InputError, NotFoundError
from visavis.history import adjustments
from visavis.journal.entries import Entry, Kind, id_digest
from visavis.journal.overlay import overlay_of
from visavis.serving.context import Context, Terms
from visavis.serving.customers import Customers, Part
from visavis.serving.version import ServingVersion, Version

__all__ = ["State", "Touched", "with_attributes"]

Int64 = npt.NDArray[np.int64]


class Touched(NamedTuple):
    """A customer of whom the journal says something.

    Attributes
    ----------
    entries : tuple of Entry
        In the order of their offsets; none of who was forgotten.
    is_forgotten : bool
    planes : ndarray of shape (words,), uint64
    is_out : bool
        The customer objected, or is excluded.
    capability_index : ndarray of shape (e,), int32
    adjustment : ndarray of shape (e,), float32
    error : InputError or None
        The entries do not fit the base.
    """

    entries: tuple[Entry, ...]
    is_forgotten: bool
    planes: npt.NDArray[np.uint64]
    is_out: bool
    capability_index: npt.NDArray[np.int32]
    adjustment: npt.NDArray[np.float32]
    error: InputError | None = None

    @property
    def fault(self) -> InputError | None:
        """The error, anew: one that is raised again and again keeps every frame it passed."""
        return copy(self.error)


#: What is known of the touched customers of a part, by row.
_OfPart = Mapping[int, Touched]


@dataclass(frozen=True, eq=False)
class State:
    """One version at one offset of the journal.

    Attributes
    ----------
    version : Version
    offset : int
    touched : tuple of mappings
        By part: of whom the journal speaks, by row.
    forgotten : frozenset of str
        The tombstones that the journal knows.
    plain : Terms
        Of an empty context.
    objecting : frozenset of bytes
        Ids of those whose objection the journal knows, from its first entry on and in the base or
        not: a profile that comes with a request does not lift it.
    """

    version: Version
    offset: int
    touched: tuple[_OfPart, ...]
    forgotten: frozenset[str]
    plain: Terms
    objecting: frozenset[bytes] = frozenset()

    @classmethod
    def first(
        cls, version: Version, offset: int, objecting: frozenset[bytes] = frozenset()
    ) -> State:
        """The state that nothing was recorded in since the base was made."""
        nobody: tuple[_OfPart, ...] = ({},) * len(version.customers.parts)
        plain = Terms.of(version, Context())
        return cls(version, offset, nobody, frozenset(), plain, objecting)

    @cached_property
    def name(self) -> ServingVersion:
        """What answers from this state are named by."""
        return self.version.named(self.offset)

    def name_on(self, as_of: date) -> ServingVersion:
        """The same for what is reckoned from another day."""
        return self.name if as_of == self.version.as_of else self.name._replace(as_of=as_of)

    @cached_property
    def is_touched(self) -> bool:
        """Whether the journal speaks of anybody."""
        return any(self.touched)

    def touched_in(self, rows: Int64) -> dict[int, Touched]:
        """Those of some rows of whom the journal speaks, by their place in `rows`."""
        if not self.is_touched:
            return {}
        parts = self.version.customers.parts_of(rows).tolist()
        found = {}
        for position, (part, row) in enumerate(zip(parts, rows.tolist(), strict=True)):
            known = self.touched[part].get(row)
            if known is not None:
                found[position] = known
        return found

    def advanced(
        self, entries: Iterable[Entry], through: int, forgotten: frozenset[str] | None
    ) -> State:
        """The state after some more entries.

        Parameters
        ----------
        entries : iterable of Entry
            Behind those that this state knows, in order.
        through : int
            The offset of the new state.
        forgotten : frozenset of str, optional
            All tombstones, where one may be new.
        """
        customers = self.version.customers
        entries = list(entries)
        added = _by_row(entries, customers)
        gone: set[int] = set()
        buried = (forgotten or frozenset()) - self.forgotten
        for tombstone in buried:
            gone.update(customers.rows_of_tombstone(tombstone))
        rows = np.array(sorted({*added, *gone}), dtype=np.int64)
        touched = list(self.touched)
        for part, at, _ in customers.by_part(rows) if len(rows) else []:
            index = int(customers.parts_of(rows[at][:1])[0])
            before = touched[index]
            said = {
                row: _said(before.get(row), added.get(row, []), row in gone)
                for row in rows[at].tolist()
            }
            touched[index] = {**before, **_computed(self.version, part, said)}
        return State(
            self.version,
            through,
            tuple(touched),
            self.forgotten if forgotten is None else forgotten,
            self.plain,
            _objecting(self.objecting, entries, buried),
        )

    def objections_of(self, customer_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Who of some objected or was forgotten, as the base or the journal has it."""
        customers = self.version.customers
        rows, _ = customers.rows(customer_ids)
        # Most are nobody of the base, or somebody who may be matched.
        places = np.flatnonzero((rows >= 0) & self.version.is_out[rows])
        found = np.zeros(len(customer_ids), dtype=np.bool_)
        found[places] = customers.objected(rows[places])
        if self.objecting:
            found |= np.array([each.encode() in self.objecting for each in customer_ids], np.bool_)
        if gone := self._gone:
            found |= np.array([id_digest(each).hex() in gone for each in customer_ids], np.bool_)
        return found

    @cached_property
    def _gone(self) -> frozenset[str]:
        """The tombstones of journal and base."""
        return self.forgotten.union(self.version.customers.stored.manifest.forgotten)

    def profiles(self, rows: Int64) -> tuple[Base, Int64]:
        """What is known of some customers now.

        Returns
        -------
        Base
            Of these customers, each once, in the order of their ids.
        ndarray of shape (rows,), int64
            Where in it each row stands.
        """
        customers = self.version.customers
        distinct, place = np.unique(rows, return_inverse=True)
        bases = []
        for part, at, rows_in in customers.by_part(distinct):
            known = self.touched_in(distinct[at])
            said = {
                int(rows_in[position]): (each.entries, each.is_forgotten)
                for position, each in known.items()
            }
            bases.append(_amended(part.rows(rows_in), rows_in, said))
        if len(bases) == 1:
            return bases[0], place
        base = joined(bases, bases[0].as_of)
        # Distinct rows ascend by part; the joined base by id.
        order = np.argsort(np.array(customers.ids(distinct), dtype=object), kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return base, rank[place]


def _by_row(entries: Iterable[Entry], customers: Customers) -> dict[int, list[Entry]]:
    """Entries by the row of their customer; what is about nobody of the base is left out."""
    row_of: dict[bytes, int] = {}
    added: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.kind == Kind.FORGOTTEN:
            continue
        row = row_of.get(entry.customer_id)
        if row is None:
            try:
                row = customers.row(entry.customer_id.decode())
            except NotFoundError:
                row = -1
            row_of[entry.customer_id] = row
        if row >= 0:
            added.setdefault(row, []).append(entry)
    return added


def _objecting(
    known: frozenset[bytes], entries: Iterable[Entry], buried: frozenset[str]
) -> frozenset[bytes]:
    """Who objected; the ids of those who were forgotten are not kept."""
    said = {entry.customer_id for entry in entries if entry.kind == Kind.OBJECTION}
    if not said <= known:
        known |= said
    if buried:
        known = frozenset(each for each in known if id_digest(each.decode()).hex() not in buried)
    return known


#: Entries, and whether the customer was forgotten.
_Said = tuple[tuple[Entry, ...], bool]


def _said(before: Touched | None, added: Sequence[Entry], is_gone: bool) -> _Said:
    if is_gone or (before is not None and before.is_forgotten):
        # What was known of who is forgotten must not stay in memory either.
        return (), True
    return (*(() if before is None else before.entries), *added), False


def _amended(base: Base, rows: Int64, said: Mapping[int, _Said]) -> Base:
    """The base of some rows of a part with what the journal says of them."""
    if not said:
        return base
    entries = sorted(each for kept, _ in said.values() for each in kept)
    buried = {row for row, (_, is_forgotten) in said.items() if is_forgotten}
    ids = base.customer_ids.to_pylist() if buried else []
    tombstones = {
        id_digest(customer_id).hex()
        for row, customer_id in zip(rows.tolist(), ids, strict=False)
        if row in buried
    }
    overlay = overlay_of(entries, after=0, through=0, forgotten=frozenset(tombstones))
    return overlay.apply(base)


def _computed(version: Version, part: Part, said: Mapping[int, _Said]) -> dict[int, Touched]:
    """What entries mean to some customers of a part, by row."""
    rows = np.array(sorted(said), dtype=np.int64)
    rows_in = rows - part.start
    try:
        base = _amended(
            part.rows(rows_in), rows_in, {row - part.start: each for row, each in said.items()}
        )
        engine = version.engine.beside(base)
        planes, _ = engine.eligibility
        is_in = np.zeros(len(rows), dtype=np.bool_)
        is_in[engine.customer_index] = True
        history = adjustments(base.facts, version.catalog, version.as_of, customer_count=len(rows))
    except InputError as error:
        if len(rows) == 1:
            return {int(rows[0]): _misfit(version, said[int(rows[0])], error)}
        halves = np.array_split(rows, 2)
        both = [_computed(version, part, {r: said[r] for r in half.tolist()}) for half in halves]
        return both[0] | both[1]
    words = version.eligible.planes.shape[1]
    found = {}
    for position, row in enumerate(rows.tolist()):
        # Copies: a view would keep the arrays of everybody who was recorded with the customer.
        of_row = np.zeros(words, dtype=np.uint64)
        of_row[: planes.shape[1]] = planes[position]
        cut = slice(int(history.indptr[position]), int(history.indptr[position + 1]))
        entries, is_forgotten = said[row]
        found[row] = Touched(
            entries,
            is_forgotten,
            of_row,
            not is_in[position],
            history.capability_index[cut].copy(),
            history.adjustment[cut].copy(),
        )
    return found


def _misfit(version: Version, said: _Said, error: InputError) -> Touched:
    entries, is_forgotten = said
    words = version.eligible.planes.shape[1]
    none = np.zeros(0, np.int32), np.zeros(0, np.float32)
    # An error outlives the frames that it was raised in, and what they hold.
    kept = error.with_traceback(None)
    return Touched(entries, is_forgotten, np.zeros(words, np.uint64), True, *none, kept)


def with_attributes(base: Base, attributes: Mapping[str, pa.Scalar]) -> Base:
    """The base with some attributes the same for everybody."""
    if not attributes:
        return base
    table = base.attributes
    for name, cell in attributes.items():
        at = table.schema.get_field_index(name)
        column = pa.repeat(cell, base.customer_count)
        table = table.set_column(at, table.schema.field(at).with_type(column.type), column)
    return replace(base, attributes=table)
