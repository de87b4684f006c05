"""`Journal`: append, read, verify and forget, in one file that several processes share."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa

from visavis.errors import InputError, ReusedError, SchemaError, StorageError
from visavis.journal.answers import Answer
from visavis.journal.connection import connect, failures, make_file, transaction
from visavis.journal.entries import Entry, Head, Kind, Request, content_digest, id_digest
from visavis.journal.incoming import contents_of, id_bytes
from visavis.journal.overlay import Overlay, overlay_of
from visavis.journal.rows import Rows

__all__ = ["Appended", "Counts", "Journal", "Since"]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an `append` is answered with.

    Attributes
    ----------
    first_offset, last_offset : int
        Of the group's entries; a group that left none has ``first_offset = last_offset + 1``.
    repeated : bool
        The request had been answered before, and nothing was appended now.
    dropped_count : int
        Entries about forgotten customers, which were not kept.
    """

    first_offset: int
    last_offset: int
    repeated: bool
    dropped_count: int


@dataclass(frozen=True, slots=True)
class Since:
    """What came after an offset, as one transaction saw it.

    Attributes
    ----------
    through : int
        The last offset.
    entries : list of Entry
        In order.
    forgotten : frozenset of str or None
        All tombstones, sha256 in hex; None where nobody was forgotten since.
    """

    through: int
    entries: list[Entry]
    forgotten: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What `Journal.verify` found, all of it right."""

    facts: int
    attributes: int
    objections: int
    forgotten: int
    tombstones: int
    requests: int


class Journal:
    """An append-only journal; made by `open`.

    Several processes may append to one journal and read it, and several threads may share one
    `Journal`. It does not outlive a fork: a child opens its own.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection
        self._process = os.getpid()
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> Journal:
        """Open the journal at `path`.

        Parameters
        ----------
        path : str or Path
        create : bool
            Make an empty one if nothing stands there.

        Raises
        ------
        InputError
            If there is none, or something else.
        CorruptionError
            If its head, its requests or its tombstones are damaged; entries are checked when they
            are read.
        StorageError
            If the system refuses to read or write it.
        """
        path = Path(path)
        if create and not os.path.lexists(path):
            make_file(path)
        journal = cls(path, connect(path))
        try:
            with journal._transaction("BEGIN") as rows:
                rows.check_small_tables()
        except BaseException:
            journal.close()
            raise
        return journal

    def close(self) -> None:
        """Close it; whoever closes it last leaves one file."""
        with self._lock:
            connection, self._connection = self._connection, None
            # A child process must not fold in what its parent still writes.
            if connection is not None and os.getpid() == self._process:
                with failures(self.path):
                    connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def offset(self) -> int:
        """The offset of the last entry; 0 when empty."""
        with self._transaction("BEGIN") as rows:
            return rows.head.last_offset

    @property
    def forgotten(self) -> frozenset[str]:
        """The tombstones: sha256 of the ids that were forgotten, in hex."""
        with self._transaction("BEGIN") as rows:
            return rows.tombstones()

    def is_forgotten(self, customer_id: str) -> bool:
        """Whether a customer was forgotten."""
        id_bytes(customer_id, field="customer_id")
        return id_digest(customer_id).hex() in self.forgotten

    def append(
        self,
        *,
        facts: pa.Table | None = None,
        attributes: pa.Table | Sequence[pa.Table] | None = None,
        objections: Sequence[str] = (),
        request_id: str | None = None,
    ) -> Appended:
        """Append one group: all of it is on disk when this returns, or nothing is.

        Parameters
        ----------
        facts : pyarrow.Table, optional
            As those of a base: see ``visavis.base``.
        attributes : pyarrow.Table, optional
            ``customer_id`` and typed columns (bool, integer, float, string, date), of which only
            those that are there change; null = now unknown. Several tables, where not everybody's
            columns are the same, count one after the other.
        objections : sequence of str
            Ids of customers who objected, which nothing takes back.
        request_id : str, optional
            Sent again with the same content, it is answered with the same offsets and appends
            nothing: what to do when an answer was lost.

        Raises
        ------
        InputError
            Naming column and row; or if the request was something else before.
        StorageError
            If it could not be made durable: unless the same request is repeated, nobody knows
            whether it was.
        """
        contents = contents_of(facts, attributes, objections)
        key = None if request_id is None else _request_key(request_id)
        digest = b"" if key is None else content_digest(contents)
        with self._transaction("BEGIN IMMEDIATE") as rows:
            known = None if key is None else rows.request(key)
            if known is not None:
                return _repeated(known, digest)
            kept = rows.without_forgotten(contents)
            first, dropped = rows.head.last_offset + 1, len(contents) - len(kept)
            rows.add_entries(kept)
            last = rows.head.last_offset
            if key is not None:
                # A digest of what a forgotten customer did would tell on them.
                rows.add_request(key, Request(first, last, dropped, b"" if dropped else digest))
            rows.store_head()
        return Appended(first, last, repeated=False, dropped_count=dropped)

    def overlay(self, *, after: int = 0, through: int | None = None) -> Overlay:
        """What the entries with ``after < offset ≤ through`` say; by default all of them.

        Raises
        ------
        InputError
            If the journal does not reach as far as `after` or `through`.
        CorruptionError
            Naming the offset of a damaged entry.
        """
        with self._transaction("BEGIN") as rows:
            after, through = _bounds(rows.head, after, through)
            return overlay_of(
                rows.entries(after, through),
                after=after,
                through=through,
                forgotten=rows.tombstones(),
            )

    def since(self, after: int, *, forgotten: bool = False) -> Since:
        """The entries after an offset one by one, for whoever keeps up with the journal.

        Parameters
        ----------
        after : int
        forgotten : bool
            Read the tombstones even if nobody was forgotten since.

        Raises
        ------
        InputError
            If the journal does not reach as far as `after`.
        CorruptionError
            Naming the offset of a damaged entry.
        """
        with self._transaction("BEGIN") as rows:
            after, through = _bounds(rows.head, after, None)
            entries = list(rows.entries(after, through))
            # Whoever is forgotten leaves an entry without a customer behind all others.
            is_wanted = forgotten or any(each.kind == Kind.FORGOTTEN for each in entries)
            return Since(through, entries, rows.tombstones() if is_wanted else None)

    def objecting(self, *, through: int | None = None) -> frozenset[bytes]:
        """Who objected up to an offset, as ids in UTF-8: every entry is read and checked.

        Who was forgotten is not among them: see `forgotten`.

        Raises
        ------
        InputError
            If the journal does not reach as far as `through`.
        CorruptionError
            Naming the offset of a damaged entry.
        """
        with self._transaction("BEGIN") as rows:
            after, through = _bounds(rows.head, 0, through)
            entries = rows.entries(after, through)
            return frozenset(each.customer_id for each in entries if each.kind == Kind.OBJECTION)

    def knows(self, request_id: str) -> bool:
        """Whether a request was answered before: sent again, it appends nothing.

        Raises
        ------
        InputError
            If `request_id` is no id.
        """
        key = _request_key(request_id)
        with self._transaction("BEGIN") as rows:
            return rows.request(key) is not None

    def answer(self, request_id: str, content: bytes) -> bytes | None:
        """What a request that appends nothing was answered with; None if it was not, yet.

        Parameters
        ----------
        request_id : str
            Not looked up among those of groups.
        content : bytes
            The sha256 of what is asked.

        Raises
        ------
        InputError
            If `request_id` is no id, or was something else before.
        """
        key = _request_key(request_id)
        with self._transaction("BEGIN") as rows:
            known = rows.answers.find(key)
        if known is None:
            return None
        if known.content != content:
            raise _reused()
        return known.answer

    def keep_answer(self, request_id: str, content: bytes, answer: bytes) -> None:
        """Remember what a request is answered with, unless it is known: on disk when this returns.

        Parameters
        ----------
        request_id, content
            As in `answer`.
        answer : bytes

        Raises
        ------
        InputError
            If `request_id` is no id, or was something else before.
        StorageError
            If it could not be made durable.
        """
        key = _request_key(request_id)
        with self._transaction("BEGIN IMMEDIATE") as rows:
            known = rows.answers.find(key)
            if known is None:
                rows.answers.add(key, Answer(content, answer))
            elif known.content != content:
                raise _reused()

    def digest(self, after: int = 0, through: int | None = None) -> str:
        """The sha256 of the entries with ``after < offset ≤ through``, in hex; errors as above."""
        sink = hashlib.sha256()
        with self._transaction("BEGIN") as rows:
            after, through = _bounds(rows.head, after, through)
            for entry in rows.entries(after, through):
                sizes = (len(entry.customer_id), len(entry.payload))
                sink.update(struct.pack("<QBQQ", entry.offset, entry.kind, *sizes))
                sink.update(entry.customer_id + entry.payload)
        return sink.hexdigest()

    def verify(self) -> Counts:
        """Read every entry, tombstone and request, and check everything that can be checked.

        Raises
        ------
        CorruptionError
            If anything is damaged, naming the offset where it is an entry.
        """
        counts = dict.fromkeys(Kind, 0)
        with self._transaction("BEGIN") as rows:
            head = rows.head
            rows.check_small_tables()
            for entry in rows.entries(0, head.last_offset):
                counts[Kind(entry.kind)] += 1
            rows.check_structure()
        return Counts(
            facts=counts[Kind.FACT],
            attributes=counts[Kind.ATTRIBUTES],
            objections=counts[Kind.OBJECTION],
            forgotten=counts[Kind.FORGOTTEN],
            tombstones=head.tombstone_count,
            requests=head.request_count,
        )

    def forget(self, customer_id: str) -> int:
        """Erase a customer: the entries become empty, and every file that held them is rewritten.

        What stays is the sha256 of the id, which counts as an objection. Offsets do not shift. The
        first time, one empty entry is added, so that whoever watches the offset hears of it.
        Broken off, it is finished by calling it again.

        Returns
        -------
        int
            How many entries were emptied by this call.

        Raises
        ------
        StorageError
            If others read or write the journal for so long that the old bytes cannot be removed.
        """
        wanted, key = id_bytes(customer_id, field="customer_id"), id_digest(customer_id)
        with self._transaction("BEGIN IMMEDIATE") as rows:
            rows.check_small_tables()
            entries = rows.entries(0, rows.head.last_offset)
            held = [entry for entry in entries if entry.customer_id == wanted]
            is_new = key.hex() not in rows.tombstones()
            if is_new:
                rows.add_tombstone(key)
                rows.empty(held)
                rows.store_head()
            is_unclean = rows.head.is_unclean
        if is_unclean:
            self._clean()
        return len(held)

    def _clean(self) -> None:
        """Rewrite the file from what it holds now, and empty the write-ahead log."""
        with self._lock, failures(self.path):
            connection = self._open_connection()
            connection.execute("VACUUM")
            self._fold(connection)
            with self._transaction("BEGIN IMMEDIATE") as rows:
                rows.head = replace(rows.head, is_unclean=False)
                rows.store_head()
            self._fold(connection)

    def _fold(self, connection: sqlite3.Connection) -> None:
        """Everything from the write-ahead log into the file, and not a byte left behind."""
        is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if is_busy:
            raise StorageError(
                "is being read: forget the customer again to finish the erasure", path=self.path
            )

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise InputError(f"{self.path} has been closed", field="journal")
        if os.getpid() != self._process:
            # SQLite's locks belong to the process that took them.
            raise InputError(f"{self.path} was opened by another process", field="journal")
        return self._connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Rows]:
        with self._lock, failures(self.path):
            connection = self._open_connection()
            with transaction(connection, begin):
                yield Rows(connection, self.path)


def _request_key(request_id: str) -> bytes:
    if not isinstance(request_id, str):
        raise SchemaError(f"must be text, got {request_id!r:.60}", field="request_id")
    return hashlib.sha256(id_bytes(request_id, field="request_id")).digest()


def _reused() -> ReusedError:
    return ReusedError("was used before, for something else", field="request_id")


def _repeated(known: Request, digest: bytes) -> Appended:
    if known.content and known.content != digest:
        raise _reused()
    return Appended(
        known.first_offset, known.last_offset, repeated=True, dropped_count=known.dropped_count
    )


def _bounds(head: Head, after: int, through: int | None) -> tuple[int, int]:
    through = head.last_offset if through is None else through
    for name, offset in (("after", after), ("through", through)):
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise SchemaError(f"must be an integer, got {offset!r:.60}", field=name)
        if not 0 <= offset <= head.last_offset:
            reason = f"must lie in 0 … {head.last_offset}, the last offset, got {offset}"
            raise InputError(reason, field=name)
    if after > through:
        raise InputError(f"must be at most through, {through}, got {after}", field="after")
    return after, through
