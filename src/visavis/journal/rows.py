"""The rows of a journal, inside one transaction: read with every check, written with every sum."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from visavis.errors import CorruptionError
from visavis.journal.answers import Answers
from visavis.journal.entries import (
    Content,
    Entry,
    Head,
    Kind,
    Request,
    Sum,
    entry_checksum,
    tombstone_checksum,
)

__all__ = ["Rows"]

#: Below and above every offset: rows that stand where none may stand are to be found, too.
_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1


class Rows:
    """The rows as one transaction sees them; `head` is read when it begins.

    What writes changes `head` as well, and `store_head` writes it: last, in the same transaction.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        states = connection.execute("SELECT state FROM head").fetchall()
        self.head = Head.unpacked(states[0][0] if len(states) == 1 else None, path)

    @cached_property
    def answers(self) -> Answers:
        """The table of what requests were answered with that append nothing."""
        return Answers(self._connection, self._path)

    def store_head(self) -> None:
        """Write the head as it is now."""
        self._connection.execute("UPDATE head SET state = ?", (self.head.packed(),))

    def entries(self, after: int, through: int) -> Iterator[Entry]:
        """Entries in order, each checked; of a whole journal also that they are all.

        Raises
        ------
        CorruptionError
            Naming the offset.
        """
        last = self.head.last_offset
        bounds = (after if after else _FIRST, through if through < last else _LAST)
        total, expected = Sum(), after
        for row in self._connection.execute(
            "SELECT offset, kind, customer_id, payload, checksum FROM entries"
            " WHERE offset > ? AND offset <= ? ORDER BY offset",
            bounds,
        ):
            expected += 1
            *said, checksum = row
            if said[0] != expected or expected > through:
                raise self._damaged(f"entry {min(said[0], expected)} is not where it belongs")
            if not _is_whole(said, checksum):
                raise self._damaged(f"entry {expected} is damaged")
            total.add(checksum)
            yield Entry(*said)
        if expected != through:
            raise self._damaged(f"entry {expected + 1} is missing")
        if (after, through) == (0, last) and total.packed() != self.head.entry_sum:
            raise self._damaged("the entries do not add up to what the head says")

    def tombstones(self) -> frozenset[str]:
        """All tombstones in hex, checked."""
        total, keys, last = Sum(), set(), b""
        for key, checksum in self._connection.execute("SELECT id, checksum FROM tombstones"):
            if not isinstance(key, bytes) or tombstone_checksum(key) != checksum or key <= last:
                raise self._damaged("a tombstone is damaged")
            total.add(checksum)
            keys.add(key.hex())
            last = key
        if len(keys) != self.head.tombstone_count or total.packed() != self.head.tombstone_sum:
            raise self._damaged("the tombstones are not those that the head says")
        return frozenset(keys)

    def check_small_tables(self) -> None:
        """Read what is later looked up by key: a lookup cannot tell damage from absence.

        Rows come as they lie in the tree; only where they ascend does a lookup find each of them.
        """
        self.tombstones()
        self.answers.check()
        total, count, last = Sum(), 0, b""
        for row in self._connection.execute("SELECT * FROM requests"):
            self._checked_request(row)
            if row[0] <= last:
                raise self._damaged("the requests are not in order")
            last = row[0]
            total.add(row[-1])
            count += 1
        if count != self.head.request_count or total.packed() != self.head.request_sum:
            raise self._damaged("the requests are not those that the head says")

    def check_structure(self) -> None:
        """Let SQLite look at every page."""
        found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(f"is damaged: {found}")

    def request(self, key: bytes) -> Request | None:
        """What the request whose id has the digest `key` was answered with, if it was."""
        row = self._connection.execute("SELECT * FROM requests WHERE id = ?", (key,)).fetchone()
        return None if row is None else self._checked_request(row)

    def add_request(self, key: bytes, request: Request) -> None:
        """Remember what a request is answered with."""
        checksum = request.checksum(key)
        self._connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", (key, *request, checksum)
        )
        total = Sum(self.head.request_sum)
        total.add(checksum)
        count = self.head.request_count + 1
        self.head = replace(self.head, request_count=count, request_sum=total.packed())

    def add_entries(self, contents: Sequence[Content]) -> None:
        """Put entries behind the last."""
        total, rows = Sum(self.head.entry_sum), []
        for offset, content in enumerate(contents, start=self.head.last_offset + 1):
            checksum = entry_checksum(offset, *content)
            total.add(checksum)
            rows.append((offset, *content, checksum))
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        last = self.head.last_offset + len(rows)
        self.head = replace(self.head, last_offset=last, entry_sum=total.packed())

    def without_forgotten(self, contents: list[Content]) -> list[Content]:
        """Those contents that are about nobody who was forgotten."""
        if not self.head.tombstone_count:
            return contents
        find = "SELECT 1 FROM tombstones WHERE id = ?"
        forgotten = {
            customer_id
            for customer_id in {content.customer_id for content in contents}
            if self._connection.execute(find, (hashlib.sha256(customer_id).digest(),)).fetchone()
        }
        return [content for content in contents if content.customer_id not in forgotten]

    def add_tombstone(self, key: bytes) -> None:
        """Mark a customer as forgotten, and move the offset so that readers hear of it."""
        checksum = tombstone_checksum(key)
        self._connection.execute("INSERT INTO tombstones VALUES (?, ?)", (key, checksum))
        total = Sum(self.head.tombstone_sum)
        total.add(checksum)
        count = self.head.tombstone_count + 1
        self.head = replace(
            self.head, tombstone_count=count, tombstone_sum=total.packed(), is_unclean=True
        )
        self.add_entries([Content(Kind.FORGOTTEN, b"", b"")])

    def empty(self, entries: Sequence[Entry]) -> None:
        """Take customer and payload out of entries, and digests out of the groups they came in."""
        total = Sum(self.head.entry_sum)
        for entry in entries:
            total.remove(entry_checksum(*entry))
            checksum = entry_checksum(entry.offset, Kind.FORGOTTEN, b"", b"")
            total.add(checksum)
            self._connection.execute(
                "UPDATE entries SET kind = ?, customer_id = x'', payload = x'', checksum = ?"
                " WHERE offset = ?",
                (Kind.FORGOTTEN, checksum, entry.offset),
            )
        self.head = replace(self.head, entry_sum=total.packed(), is_unclean=True)
        self._empty_requests([entry.offset for entry in entries])

    def _empty_requests(self, offsets: list[int]) -> None:
        total = Sum(self.head.request_sum)
        for row in self._connection.execute(
            "SELECT * FROM requests WHERE content <> x''"
        ).fetchall():
            key, checksum = row[0], row[-1]
            request = self._checked_request(row)
            place = bisect_left(offsets, request.first_offset)
            if place == len(offsets) or offsets[place] > request.last_offset:
                continue
            request = request._replace(content=b"")
            total.remove(checksum)
            checksum = request.checksum(key)
            total.add(checksum)
            self._connection.execute(
                "UPDATE requests SET content = x'', checksum = ? WHERE id = ?", (checksum, key)
            )
        self.head = replace(self.head, request_sum=total.packed())

    def _checked_request(self, row: Sequence[Any]) -> Request:
        key, *said, checksum = row
        try:
            request = Request(*said)
            if request.checksum(key) == checksum:
                return request
        except (TypeError, struct.error):
            pass
        raise self._damaged("a request is damaged")

    def _damaged(self, what: str) -> CorruptionError:
        return CorruptionError(f"{self._path}: {what}")


def _is_whole(said: Sequence[Any], checksum: object) -> bool:
    offset, kind, customer_id, payload = said
    try:
        return entry_checksum(offset, kind, customer_id, payload) == checksum
    except (TypeError, struct.error):
        # Damage may have made the numbers texts, or more than their bytes can say.
        return False
