"""What requests were answered with that append nothing: to be answered alike when they come again.

They stand in a table of their own, made with the first of them. Its first row, under the empty key,
counts the others and holds the sum of their checksums, so that one that is gone is missed.
"""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

from visavis.errors import CorruptionError
from visavis.journal.entries import CHECKSUM_BYTES, Sum, answer_checksum

__all__ = ["TABLE", "Answer", "Answers"]

TABLE: Final = (
    "CREATE TABLE answers (id BLOB PRIMARY KEY, content BLOB NOT NULL, answer BLOB NOT NULL,"
    " checksum BLOB NOT NULL) WITHOUT ROWID"
)

_COUNT: Final = struct.Struct(f"<Q{CHECKSUM_BYTES}s")


class Answer(NamedTuple):
    """A request that was answered.

    Attributes
    ----------
    content : bytes
        The sha256 of what was asked.
    answer : bytes
    """

    content: bytes
    answer: bytes


class Answers:
    """The table as one transaction sees it, which may be that it is not there yet.

    Parameters
    ----------
    connection : sqlite3.Connection
    path : Path
        For errors.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        named = "SELECT 1 FROM sqlite_schema WHERE name = 'answers'"
        self._is_there = connection.execute(named).fetchone() is not None

    def find(self, key: bytes) -> Answer | None:
        """What the request whose id has the digest `key` was answered with, if it was.

        Raises
        ------
        CorruptionError
        """
        if not self._is_there:
            return None
        row = self._connection.execute("SELECT * FROM answers WHERE id = ?", (key,)).fetchone()
        return None if row is None else self._checked(row)

    def add(self, key: bytes, answer: Answer) -> None:
        """Remember an answer."""
        if self._is_there:
            count, total = self._counted()
        else:
            self._connection.execute(TABLE)
            self._is_there, count, total = True, 0, Sum()
        checksum = self._put(key, answer)
        total.add(checksum)
        self._put(b"", Answer(_COUNT.pack(count + 1, total.packed()), b""))

    def check(self) -> int:
        """Read all of them: a lookup cannot tell damage from absence. Returns how many.

        Raises
        ------
        CorruptionError
        """
        if not self._is_there:
            return 0
        counted, total, found, last = self._counted(), Sum(), 0, b""
        for row in self._connection.execute("SELECT * FROM answers WHERE id <> x''"):
            self._checked(row)
            if row[0] <= last:
                raise self._damaged("the answers are not in order")
            last = row[0]
            total.add(row[-1])
            found += 1
        if (found, total.packed()) != (counted[0], counted[1].packed()):
            raise self._damaged("the answers are not those that were counted")
        return found

    def _put(self, key: bytes, answer: Answer) -> bytes:
        checksum = answer_checksum(key, *answer)
        self._connection.execute(
            "REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, *answer, checksum)
        )
        return checksum

    def _counted(self) -> tuple[int, Sum]:
        first = self.find(b"")
        if first is None or len(first.content) != _COUNT.size:
            raise self._damaged("the count of the answers is damaged")
        count, total = _COUNT.unpack(first.content)
        return count, Sum(total)

    def _checked(self, row: tuple[Any, ...]) -> Answer:
        key, content, answer, checksum = row
        is_bytes = all(isinstance(each, bytes) for each in row)
        if not is_bytes or answer_checksum(key, content, answer) != checksum:
            raise self._damaged("an answer is damaged")
        return Answer(content, answer)

    def _damaged(self, what: str) -> CorruptionError:
        return CorruptionError(f"{self._path}: {what}")
