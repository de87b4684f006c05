"""What the rows of a journal hold, byte for byte, and the checksums that cover them.

Every row of every table carries 16 bytes of BLAKE2b over what it says and where it stands, and the
*head* carries the sum of them all (mod 2^128), so that a row that was changed, moved, removed or
put in is found when it is read. An entry's payload is JSON of one spelling::

    fact         [product, capability_id, kind, day number, count]
    attributes   {name: [Arrow type, value], …}, names ascending, dates as day numbers
    objection    nothing
    forgotten    nothing, and no customer either
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from visavis.errors import CorruptionError

__all__ = [
    "CHECKSUM_BYTES",
    "Content",
    "Entry",
    "Head",
    "Kind",
    "Request",
    "Sum",
    "answer_checksum",
    "content_digest",
    "encoded",
    "entry_checksum",
    "id_digest",
    "tombstone_checksum",
]

#: 2^−128 is the chance that damage goes unseen; the cost per row is that of eight bytes.
CHECKSUM_BYTES: Final = 16

_SUM_MODULUS: Final = 2 ** (8 * CHECKSUM_BYTES)

_ENTRY: Final = struct.Struct("<cQBQ")
_REQUEST: Final = struct.Struct("<QQQ")
_HEAD: Final = struct.Struct(f"<QQQB{CHECKSUM_BYTES}s{CHECKSUM_BYTES}s{CHECKSUM_BYTES}s")

_JSON: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


class Kind(IntEnum):
    """What an entry is; codes as in the file."""

    FACT = 1
    ATTRIBUTES = 2
    OBJECTION = 3
    FORGOTTEN = 4


class Content(NamedTuple):
    """An entry before it has an offset."""

    kind: int
    customer_id: bytes
    payload: bytes


class Entry(NamedTuple):
    """One row of the journal."""

    offset: int
    kind: int
    customer_id: bytes
    payload: bytes


class Request(NamedTuple):
    """What a request id was answered with; `content` is empty where it may not be kept."""

    first_offset: int
    last_offset: int
    dropped_count: int
    content: bytes

    def checksum(self, key: bytes) -> bytes:
        """Over the row of the request whose id has the digest `key`."""
        numbers = _REQUEST.pack(self.first_offset, self.last_offset, self.dropped_count)
        return _checksum(b"r" + numbers + key + self.content)


def encoded(payload: object) -> bytes:
    """A payload's JSON."""
    return _JSON.encode(payload).encode()


def _checksum(said: bytes) -> bytes:
    return hashlib.blake2b(said, digest_size=CHECKSUM_BYTES).digest()


def entry_checksum(offset: int, kind: int, customer_id: bytes, payload: bytes) -> bytes:
    """Over one entry and its place."""
    return _checksum(_ENTRY.pack(b"e", offset, kind, len(customer_id)) + customer_id + payload)


def tombstone_checksum(key: bytes) -> bytes:
    """Over one tombstone."""
    return _checksum(b"t" + key)


def answer_checksum(key: bytes, content: bytes, answer: bytes) -> bytes:
    """Over one answer of the request whose id has the digest `key`."""
    sizes = _REQUEST.pack(len(key), len(content), len(answer))
    return _checksum(b"a" + sizes + key + content + answer)


def id_digest(text: str) -> bytes:
    """The sha256 under which an id is known where the id itself must not stand."""
    return hashlib.sha256(text.encode()).digest()


def content_digest(contents: list[Content]) -> bytes:
    """The sha256 of a whole group, by which a request that comes again is told from another."""
    sink = hashlib.sha256()
    for kind, customer_id, payload in contents:
        sink.update(struct.pack("<BQQ", kind, len(customer_id), len(payload)))
        sink.update(customer_id + payload)
    return sink.digest()


class Sum:
    """The sum of checksums mod 2^128: in whatever order, each as often as it was added."""

    def __init__(self, start: bytes = bytes(CHECKSUM_BYTES)) -> None:
        self._sum = int.from_bytes(start, "little")

    def add(self, checksum: bytes) -> None:
        """Count one in."""
        self._sum += int.from_bytes(checksum, "little")

    def remove(self, checksum: bytes) -> None:
        """Take one out."""
        self._sum -= int.from_bytes(checksum, "little")

    def packed(self) -> bytes:
        """The sum, in the bytes of one checksum."""
        return (self._sum % _SUM_MODULUS).to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Head:
    """How many rows the journal holds and what their checksums add up to.

    Attributes
    ----------
    last_offset : int
        Of the last entry, and so their number; 0 when empty.
    tombstone_count, request_count : int
    is_unclean : bool
        Bytes of forgotten customers may still lie in pages that nothing reads.
    entry_sum, tombstone_sum, request_sum : bytes
        As of `Sum`.
    """

    last_offset: int = 0
    tombstone_count: int = 0
    request_count: int = 0
    is_unclean: bool = False
    entry_sum: bytes = bytes(CHECKSUM_BYTES)
    tombstone_sum: bytes = bytes(CHECKSUM_BYTES)
    request_sum: bytes = bytes(CHECKSUM_BYTES)

    def packed(self) -> bytes:
        """The head's row: its numbers, its sums and a checksum over them."""
        said = _HEAD.pack(
            self.last_offset,
            self.tombstone_count,
            self.request_count,
            self.is_unclean,
            self.entry_sum,
            self.tombstone_sum,
            self.request_sum,
        )
        return said + _checksum(b"h" + said)

    @classmethod
    def unpacked(cls, row: object, path: object) -> Head:
        """Read a head's row.

        Raises
        ------
        CorruptionError
            If it does not fit its checksum.
        """
        if isinstance(row, bytes) and len(row) == _HEAD.size + CHECKSUM_BYTES:
            said = row[: _HEAD.size]
            if row == said + _checksum(b"h" + said):
                last, tombstones, requests, is_unclean, *sums = _HEAD.unpack(said)
                return cls(last, tombstones, requests, bool(is_unclean), *sums)
        raise CorruptionError(f"{path}: the head of the journal is damaged")
