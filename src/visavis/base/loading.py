"""From streams of tables to the parts of a base, with memory for a few parts.

::

    profiles   ┐                       ┌ part 0: read back, checked, sorted ─┐
    attributes ├─ scatter by part ─► spilled rows ┤ part 1 …                 ├─► manifest
    facts      ┘   (one pass each)     └ part n−1 ───────────────────────────┘

Rows go to unnamed temporary files in the order in which they come, with the number of the row, so
that what is wrong with one is said with its place in the input.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import IO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base.base import Base, check_as_of, indicator_fields
from visavis.base.door import (
    check_attributes,
    check_customer_ids,
    check_facts,
    check_id_column,
    check_indicators,
    check_text,
    refuse_repeated,
)
from visavis.base.stored import StoredBase
from visavis.base.writing import (
    VersionWriter,
    are_forgotten,
    check_forgotten,
    check_part_count,
    forgotten_at,
    next_part_count,
)
from visavis.catalog.door import is_text
from visavis.domain import CUSTOMER_ID, INDICATOR_METADATA, THREADS_MAX
from visavis.errors import InputError, LimitError, SchemaError, StorageError
from visavis.parts import PART_CUSTOMERS, parts_of, sorted_by_part
from visavis.store import Place, open_place

__all__ = ["TableStream", "load"]

#: Rows of a batch, where a reader lets us choose.
BATCH_ROWS: Final = 2**15

#: Rows wait in memory for so many bytes of each slice before they are sorted and written: below,
#: what a piece of a slice costs beside its rows counts. They are held three times for a moment, so
#: the least keeps small loads small, and the most large ones.
_PIECE_BYTES: Final = 2**14
_WAITING_BYTES_MIN: Final = 2**23
_WAITING_BYTES_MAX: Final = 2**26

#: At most so many slices in a spilled file; a base of more parts has several in a slice.
_SLICE_COUNT_MAX: Final = 2**12

#: The number of a row in its input; tables with a column of this name are refused at the door.
_ROW: Final = ""

_SAME_CLASS: Final = (InputError, SchemaError, LimitError)

#: Called with (parts done, parts in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TableStream:
    """A table that is read batch by batch.

    Attributes
    ----------
    schema : pyarrow.Schema
    row_count_max : int
        Not below its number of rows.
    batches : callable
        Yields its rows as tables, in order.
    """

    schema: pa.Schema
    row_count_max: int
    batches: Callable[[], Iterator[pa.Table]]

    @classmethod
    def of(cls, table: pa.Table) -> TableStream:
        """The stream of a table in memory."""
        starts = range(0, table.num_rows, BATCH_ROWS)
        return cls(
            table.schema, table.num_rows, lambda: (table.slice(at, BATCH_ROWS) for at in starts)
        )

    def read(self) -> pa.Table:
        """All rows in memory."""
        batches = [self.schema.empty_table(), *self.batches()]
        return pa.concat_tables(batches).replace_schema_metadata(self.schema.metadata)


def load(
    path: str | Path | Place,
    profiles: TableStream,
    *,
    as_of: date | str,
    attributes: TableStream | None = None,
    facts: TableStream | None = None,
    parts: int | None = None,
    amend: Callable[[Base], Base] | None = None,
    journal_offset: int = 0,
    forgotten: Iterable[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> StoredBase:
    """Make the next version of a base from streams of tables.

    Customers that only attributes or facts name are added where every indicator says, in its
    field's metadata, what it is where it is undefined, as those of `visavis indicators` do: they
    did nothing that could be counted. Otherwise they are refused.

    Parameters
    ----------
    path : str, Path or Place
        A folder or the URL of an object store's prefix; made if it is not there.
    profiles, attributes, facts : TableStream
        As the tables of `Base.from_tables`.
    as_of : date
    parts : int, optional
        A power of two; default: as many as `visavis.parts` recommends, never fewer than the last
        version has.
    amend : callable, optional
        What is done to the profiles of a part before they are written (a journal's overlay); it
        must be fit to be called from several threads.
    journal_offset : int
        Up to which a journal's entries are in the profiles.
    forgotten : iterable of str
        sha256 of ids, in hex, that are left out; those of the last version stay.
    threads : int
        Parts that are put together at a time.
    progress : callable, optional

    Raises
    ------
    InputError
        Naming the column and the row; nothing is published then.
    StorageError
        If something cannot be written.
    """
    place = open_place(path)
    day = check_as_of(as_of, profiles.schema)
    if parts is not None:
        check_part_count(parts)
    _check_threads(threads)
    forgotten = {*check_forgotten(forgotten), *forgotten_at(place)}
    slice_count = min(_SLICE_COUNT_MAX, _power_above(profiles.row_count_max // PART_CUSTOMERS))
    slice_count = max(slice_count, min(parts or 1, _SLICE_COUNT_MAX))
    streams = [("attributes", attributes), ("facts", facts)]
    with _Spill.open(slice_count) as rows:
        row_count = rows.scatter(_checked_profiles(profiles))
        if not row_count:
            raise InputError("must hold at least one customer", field="indicators")
        spills = {"indicators": rows}
        for field, stream in streams:
            if stream is not None:
                spills[field] = rows.beside()
                spills[field].scatter(_checked_ids(stream, field))
        count = next_part_count(place, row_count, parts)
        writer = VersionWriter(place, count, journal_offset=journal_offset, forgotten=forgotten)
        fields = indicator_fields(profiles.schema)
        schema = pa.schema(fields, metadata=profiles.schema.metadata)
        assemble = _Assembler(schema, undefined_values(fields), day, forgotten, amend)
        groups = min(count, slice_count)

        def work(group: int) -> None:
            held = {name: spill.read(group, groups) for name, spill in spills.items()}
            for index in range(group, count, groups):
                writer.add(index, assemble(_of_part(held, index, count, groups)))

        with writer:
            _over_groups(groups, work, threads, progress)
            return writer.publish()


def _check_threads(threads: object) -> None:
    if isinstance(threads, bool) or threads not in range(1, THREADS_MAX + 1):
        reason = f"must be an integer from 1 to {THREADS_MAX}, got {threads!r:.60}"
        raise InputError(reason, field="threads")


def undefined_values(fields: list[pa.Field]) -> npt.NDArray[np.float32] | None:
    """What each indicator is where it is undefined, (d,); None if one does not say."""
    values = []
    for each in fields:
        try:
            said = json.loads((each.metadata or {})[INDICATOR_METADATA])
            values.append(float(said["undefined"]))
        except (KeyError, TypeError, ValueError, RecursionError):
            return None
    with np.errstate(over="ignore"):
        found = np.array(values, dtype=np.float32)
    return found if np.isfinite(found).all() else None


def _over_groups(
    groups: int, work: Callable[[int], None], threads: int, progress: Progress | None
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done, _ in enumerate(pool.map(work, range(groups)), 1):
                if progress is not None:
                    progress(done, groups)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _power_above(wanted: int) -> int:
    return 1 << max(0, wanted).bit_length()


def _checked_profiles(profiles: TableStream) -> Iterator[pa.Table]:
    """Ids and indicators as one column of float32 lists, checked, with the number of the row."""
    names = tuple(each.name for each in indicator_fields(profiles.schema))
    check_customer_ids(profiles.schema.empty_table(), "indicators")
    check_indicators(profiles.schema.empty_table(), names)
    start = 0
    for batch in profiles.batches():
        with _rows_named(np.arange(start, start + batch.num_rows)):
            ids = check_id_column(batch, "indicators")
            matrix = check_indicators(batch, names)
        values = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), len(names))
        number = pa.array(np.arange(start, start + batch.num_rows))
        yield pa.table({_ROW: number, CUSTOMER_ID: ids, "indicators": values})
        start += batch.num_rows


def _checked_ids(stream: TableStream, field: str) -> Iterator[pa.Table]:
    """Batches with the number of the row; types, ids and texts are checked, and no more so far."""
    empty = stream.schema.empty_table()
    check_customer_ids(empty, field)
    check = check_attributes if field == "attributes" else check_facts
    check(empty, pa.array([], pa.string()))
    start = 0
    # One without rows says what the columns are, where no other comes.
    for batch in chain([empty], stream.batches()):
        number = np.arange(start, start + batch.num_rows)
        with _rows_named(number):
            ids = check_id_column(batch, field)
            plain = _in_plain_text(batch, field)
        place = batch.schema.get_field_index(CUSTOMER_ID)
        yield plain.set_column(place, CUSTOMER_ID, ids).add_column(0, _ROW, pa.array(number))
        start += batch.num_rows


def _in_plain_text(table: pa.Table, field: str) -> pa.Table:
    """Texts in one layout: a spilled batch has no place for dictionaries."""
    for place, each in enumerate(table.schema):
        if is_text(each.type):
            plain = check_text(table.column(place), f"{field}.{each.name}")
            table = table.set_column(place, each.name, plain)
    return table


@contextmanager
def _rows_named(rows: npt.NDArray[np.int64]) -> Iterator[None]:
    """Name the row of the input instead of that of the table at hand."""
    try:
        yield
    except InputError as error:
        if type(error) not in _SAME_CLASS or error.row is None:
            raise
        raise type(error)(
            error.reason, field=error.field, row=int(rows[error.row]), subject=error.subject
        ) from None


class _Spill:
    """Rows on disk by slice: an unnamed file, and where the pieces of each slice stand in it.

    It stands in the folder for temporary files (``TMPDIR``), which must have room for the tables.
    """

    def __init__(self, slice_count: int, stream: IO[bytes]) -> None:
        self._slice_count = slice_count
        self._stream = stream
        self._lock = Lock()
        # Of each writing, where the slices begin and where the last one ends.
        self._bounds: list[npt.NDArray[np.int64]] = []
        self._waiting_bytes = min(
            max(slice_count * _PIECE_BYTES, _WAITING_BYTES_MIN), _WAITING_BYTES_MAX
        )
        self._schema: pa.Schema | None = None
        self._size = 0
        self._opened: list[_Spill] = []

    @classmethod
    @contextmanager
    def open(cls, slice_count: int) -> Iterator[_Spill]:
        """A spill for the block; its file has no name and is gone with it."""
        spill = cls(slice_count, _temporary())
        try:
            yield spill
        finally:
            for each in (spill, *spill._opened):
                # What a full disk did not take is not wanted any more.
                with contextlib.suppress(OSError):
                    each._stream.close()

    def beside(self) -> _Spill:
        """Another one, closed with this one."""
        other = _Spill(self._slice_count, _temporary())
        self._opened.append(other)
        return other

    def scatter(self, batches: Iterator[pa.Table]) -> int:
        """Write all rows, each to the slice of its customer; return how many there are."""
        waiting: list[pa.Table] = []
        size = row_count = 0
        for batch in batches:
            self._schema = batch.schema
            waiting.append(batch)
            size += batch.nbytes
            row_count += batch.num_rows
            if size > self._waiting_bytes:
                self._write(pa.concat_tables(waiting))
                waiting, size = [], 0
        if waiting:
            self._write(pa.concat_tables(waiting))
        return row_count

    def _write(self, table: pa.Table) -> None:
        order, rows = sorted_by_part(table[CUSTOMER_ID].combine_chunks(), self._slice_count)
        sorted_rows = table.take(pa.array(order)).combine_chunks()
        sizes = np.zeros(self._slice_count + 1, dtype=np.int64)
        sizes[0] = self._size
        for index in np.flatnonzero(np.diff(rows)):
            begin, end = rows[index : index + 2].tolist()
            for batch in sorted_rows.slice(begin, end - begin).to_batches():
                content = batch.serialize()
                with _spilling():
                    self._stream.write(content)
                sizes[index + 1] += content.size
        self._bounds.append(np.cumsum(sizes))
        self._size = int(self._bounds[-1][-1])

    def read(self, group: int, groups: int) -> pa.Table | None:
        """The rows of the slices group, group + groups …, in the order of the input."""
        if self._schema is None:
            return None
        batches = []
        for index in range(group, self._slice_count, groups):
            for bounds in self._bounds:
                begin, end = bounds[index : index + 2].tolist()
                with self._lock, _spilling():
                    self._stream.seek(begin)
                    messages = pa.BufferReader(self._stream.read(end - begin))
                while messages.tell() < end - begin:
                    batches.append(pa.ipc.read_record_batch(messages, self._schema))
        table = pa.Table.from_batches(batches, self._schema)
        order = np.argsort(table[_ROW].to_numpy(), kind="stable")
        return table.take(pa.array(order)).combine_chunks()


def _temporary() -> IO[bytes]:
    with _spilling():
        return tempfile.TemporaryFile()


@contextmanager
def _spilling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        # Where no folder takes temporary files, none can be named.
        path = tempfile.tempdir or "TMPDIR"
        raise StorageError(reason, path=path) from error


def _of_part(
    held: dict[str, pa.Table | None], index: int, count: int, groups: int
) -> dict[str, pa.Table | None]:
    """The rows of one part, of those of a group that may hold several."""
    if count == groups:
        return held
    return {
        name: None
        if table is None
        else table.filter(pa.array(parts_of(table[CUSTOMER_ID].combine_chunks(), count) == index))
        for name, table in held.items()
    }


@dataclass(frozen=True, slots=True)
class _Assembler:
    """Puts the rows of one part together."""

    schema: pa.Schema
    undefined: npt.NDArray[np.float32] | None
    as_of: date
    forgotten: set[str]
    amend: Callable[[Base], Base] | None

    def __call__(self, held: dict[str, pa.Table | None]) -> Base:
        held = {name: self._without_forgotten(table) for name, table in held.items()}
        table = held["indicators"]
        assert table is not None  # noqa: S101  (profiles are always there)
        ids = table[CUSTOMER_ID].combine_chunks()
        refuse_repeated(ids, "indicators", table[_ROW].to_numpy())
        values = table["indicators"].combine_chunks().flatten().to_numpy()
        matrix = values.reshape(len(ids), len(self.schema))
        if self.undefined is not None:
            added = self._only_elsewhere(held, ids)
            ids = pa.concat_arrays([ids, added])
            matrix = np.vstack([matrix, np.tile(self.undefined, (len(added), 1))])
        order = pc.sort_indices(ids)
        matrix = matrix[order.to_numpy()]
        matrix.flags.writeable = False
        sorted_ids = ids.take(order)
        base = Base(
            customer_ids=sorted_ids,
            indicators=matrix,
            indicator_schema=self.schema,
            attributes=_checked("attributes", held.get("attributes"), sorted_ids, check_attributes),
            facts=_checked("facts", held.get("facts"), sorted_ids, check_facts),
            as_of=self.as_of,
        )
        return base if self.amend is None else self.amend(base)

    def _only_elsewhere(
        self, held: dict[str, pa.Table | None], ids: pa.StringArray
    ) -> pa.StringArray:
        """Customers that the other tables name and the profiles do not, each once."""
        others = [
            table[CUSTOMER_ID].combine_chunks()
            for name, table in held.items()
            if name != "indicators" and table is not None
        ]
        named = pc.unique(pa.concat_arrays([ids[:0], *others]))
        return named.filter(pc.invert(pc.is_in(named, ids)))

    def _without_forgotten(self, table: pa.Table | None) -> pa.Table | None:
        if table is None or not self.forgotten:
            return table
        gone = are_forgotten(table[CUSTOMER_ID].combine_chunks(), self.forgotten)
        return table.filter(pa.array(~gone))


def _checked(
    field: str,
    table: pa.Table | None,
    ids: pa.StringArray,
    check: Callable[[pa.Table | None, pa.StringArray], pa.Table],
) -> pa.Table:
    if table is None:
        return check(None, ids)
    rows = table[_ROW].to_numpy()
    plain = table.drop_columns([_ROW])
    if field == "attributes":
        refuse_repeated(plain[CUSTOMER_ID].combine_chunks(), field, rows)
    with _rows_named(rows):
        return check(plain, ids)
