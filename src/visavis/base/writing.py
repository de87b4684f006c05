"""Writing the next version of a base: parts first, in any order, then the manifest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base.base import Base
from visavis.base.layout import part_bytes
from visavis.base.manifest import Manifest, PartEntry, part_file
from visavis.base.stored import MANIFEST, StoredBase, version_folder, versions_at
from visavis.errors import CorruptionError, InputError, StorageError
from visavis.parts import PART_COUNT_MAX, part_count_for, sorted_by_part
from visavis.store import Place, bytes_digest, open_place

__all__ = [
    "VersionWriter",
    "are_forgotten",
    "check_forgotten",
    "check_part_count",
    "forgotten_at",
    "next_part_count",
    "part_entry",
    "remove_strays",
    "remove_version",
    "rows_of_base",
    "without_forgotten",
    "write_base",
]


class VersionWriter:
    """Writes the parts of the next version of a base, then its manifest.

    As a context, it removes what it has written if the block fails.

    Parameters
    ----------
    place : Place
    part_count : int
    journal_offset : int
        Up to which the journal's entries are in the profiles.
    forgotten : iterable of str
        Tombstones of customers that must not come back, in hex.
    """

    def __init__(
        self,
        place: Place,
        part_count: int,
        *,
        journal_offset: int = 0,
        forgotten: Iterable[str] = (),
    ) -> None:
        check_part_count(part_count)
        self.place = place
        if journal_offset < 0:
            raise InputError(f"must be at least 0, got {journal_offset}", field="journal_offset")
        self.version = max(versions_at(place), default=0) + 1
        self.part_count = part_count
        self._journal_offset = journal_offset
        self._forgotten = check_forgotten(forgotten)
        self._entries: dict[int, PartEntry] = {}
        self._squares: dict[int, npt.NDArray[np.float64]] = {}
        self._made: list[str] = []
        self._schemas: tuple[pa.Schema, pa.Schema] | None = None
        self._as_of: date | None = None
        self._folder = version_folder(self.version)
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abandon()

    def add(self, index: int, base: Base) -> None:
        """Write one part; may be called from several threads.

        Raises
        ------
        InputError
            If there is no such part, or its columns are not those of the others.
        StorageError
            If it cannot be written.
        """
        if not 0 <= index < self.part_count:
            raise InputError(f"must lie in [0, {self.part_count}), got {index}", field="part")
        content = part_bytes(base)
        digest = bytes_digest(content)
        name = part_file(index, digest)
        try:
            is_ours = self.place.create(f"{self._folder}/{name}", content)
        except StorageError:
            # It may stand there all the same, if only what came behind it failed.
            self._made.append(f"{self._folder}/{name}")
            raise
        if is_ours:
            self._made.append(f"{self._folder}/{name}")
        schemas = (base.indicator_schema, base.attributes.schema)
        with self._lock:
            if self._schemas is None:
                self._schemas, self._as_of = schemas, base.as_of
            elif not all(a.equals(b) for a, b in zip(self._schemas, schemas, strict=True)):
                raise InputError(f"part {index} has other columns than the first", field="schema")
            self._entries[index] = part_entry(base, name, digest)
            if base.customer_count:
                scale = base.indicator_scale.astype(np.float64)
                self._squares[index] = scale * scale * base.customer_count

    def publish(self) -> StoredBase:
        """Publish the manifest: from now on the version is there.

        Raises
        ------
        InputError
            If the version lacks a part or holds no customer, or another writer published it
            meanwhile.
        StorageError
            If it cannot be written, or somebody removed parts of it meanwhile.
        """
        missing = sorted(set(range(self.part_count)) - set(self._entries))
        if missing:
            raise InputError(f"part {missing[0]} was not added", field="part")
        entries = [self._entries[index] for index in range(self.part_count)]
        count = sum(entry.customer_count for entry in entries)
        if not count or self._schemas is None or self._as_of is None:
            raise InputError("must hold at least one customer", field="indicators")
        indicators, attributes = self._schemas
        # In the order of the parts: whichever was added first, the sum is the same.
        squares = np.sum([self._squares[index] for index in sorted(self._squares)], axis=0)
        scale = np.sqrt(squares / count).astype(np.float32)
        manifest = Manifest(
            as_of=self._as_of,
            indicators=tuple(indicators.names),
            attributes={each.name: str(each.type) for each in attributes},
            indicator_scale=tuple(float(each) for each in scale),
            journal_offset=self._journal_offset,
            forgotten=self._forgotten,
            parts=tuple(entries),
        )
        stored = StoredBase(self.place, self.version, manifest, bytes_digest(manifest.to_bytes()))
        self._put_manifest(manifest)
        # The version is there, whatever becomes of what else lies about.
        with contextlib.suppress(StorageError):
            self._remove_strays()
        return stored

    def _put_manifest(self, manifest: Manifest) -> None:
        name, content = f"{self._folder}/{MANIFEST}", manifest.to_bytes()
        lost = self._names_of(manifest) - set(self.place.names(self._folder))
        if lost:
            raise StorageError("was removed before it was published", path=min(lost))
        # An object store may answer a repeated request that was fulfilled: then it is ours.
        if not self.place.create(name, content) and self.place.read(name) != content:
            raise InputError(
                f"{self.place} has a version {self.version} by another writer now", field="path"
            )

    def _names_of(self, manifest: Manifest) -> set[str]:
        return {f"{self._folder}/{entry.file}" for entry in manifest.parts}

    def _remove_strays(self) -> None:
        """Remove what earlier attempts left: at this version, or killed when theirs was there."""
        for version in versions_at(self.place):
            # What stands beside a manifest that cannot be read is not ours to judge.
            with contextlib.suppress(CorruptionError, InputError):
                manifest = StoredBase.open(self.place, version=version).manifest
                remove_strays(self.place, version, manifest)
        self.place.remove_leftovers()

    def abandon(self) -> None:
        """Remove what was written, as far as no published version names it."""
        with contextlib.suppress(StorageError, CorruptionError, InputError):
            content = self.place.read(f"{self._folder}/{MANIFEST}")
            if content is not None:
                self._remove_strays()
                return
            self.place.remove(*self._made)
            self.place.remove_folder(self._folder)


def part_entry(base: Base, file: str, sha256: str) -> PartEntry:
    """What the manifest says of a part's file."""
    return PartEntry(
        file=file, sha256=sha256, customer_count=base.customer_count, fact_count=len(base.facts)
    )


def remove_strays(place: Place, version: int, manifest: Manifest) -> None:
    """Remove what lies in the folder of a version and is not of it."""
    folder = version_folder(version)
    named = {f"{folder}/{each}" for each in (MANIFEST, *(e.file for e in manifest.parts))}
    place.remove(*sorted(set(place.names(folder)) - named))


def remove_version(place: Place, version: int) -> int:
    """Remove a version and whatever lies in its folder; return how many files that were.

    Raises
    ------
    InputError
        If there is nothing of it.
    """
    folder = version_folder(version)
    names = place.names(folder)
    if not names:
        raise InputError(f"{place} has no version {version}", field="version")
    # The manifest first, for good: from then on nobody opens it, however far the rest comes.
    manifest = f"{folder}/{MANIFEST}"
    place.remove(manifest)
    place.remove(*(name for name in names if name != manifest))
    place.remove_folder(folder)
    return len(names)


def check_part_count(part_count: object) -> None:
    """Refuse what is no power of two up to `PART_COUNT_MAX`."""
    if (
        not isinstance(part_count, int)
        or isinstance(part_count, bool)
        or not 0 < part_count <= PART_COUNT_MAX
        or part_count.bit_count() != 1
    ):
        raise InputError(
            f"must be a power of two, at most {PART_COUNT_MAX}, got {part_count!r}", field="parts"
        )


def check_forgotten(forgotten: Iterable[str]) -> tuple[str, ...]:
    """Tombstones in order, each once; refuse what is no sha256 in hex."""
    found = sorted(set(forgotten))
    for each in found:
        if not re.fullmatch("[0-9a-f]{64}", each):
            raise InputError(f"must be sha256 in hex, got {each!r:.80}", field="forgotten")
    return tuple(found)


def forgotten_at(place: Place) -> tuple[str, ...]:
    """The tombstones of the last version at a place; none if there is no version."""
    known = versions_at(place)
    return StoredBase.open(place, version=known[-1]).manifest.forgotten if known else ()


def are_forgotten(ids: pa.StringArray, forgotten: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which ids have a tombstone, (n,)."""
    if not forgotten:
        return np.zeros(len(ids), dtype=bool)
    found = [bytes_digest(each.encode()) in forgotten for each in ids.to_pylist()]
    return np.array(found, dtype=bool)


def next_part_count(place: Place, customer_count: int, given: int | None) -> int:
    """How many parts the next version has: a base grows by splitting, and never shrinks."""
    known = versions_at(place)
    least = StoredBase.open(place, version=known[-1]).part_count if known else 1
    if given is None:
        return max(least, part_count_for(customer_count))
    check_part_count(given)
    if given < least:
        raise InputError(
            f"must be at least {least}, as many as there are, got {given}", field="parts"
        )
    return given


def write_base(base: Base, path: str | Path | Place, *, parts: int | None = None) -> StoredBase:
    """Write a base that is in memory; see `Base.write`."""
    place = open_place(path)
    forgotten = forgotten_at(place)
    base = without_forgotten(base, set(forgotten))
    count = next_part_count(place, base.customer_count, parts)
    order, bounds = sorted_by_part(base.customer_ids, count)
    with VersionWriter(place, count, forgotten=forgotten) as writer:
        for index in range(count):
            writer.add(index, rows_of_base(base, order[bounds[index] : bounds[index + 1]]))
        return writer.publish()


def without_forgotten(base: Base, forgotten: Collection[str]) -> Base:
    """The base of the customers whose ids are not among the tombstones, sha256 in hex."""
    rows = np.flatnonzero(~are_forgotten(base.customer_ids, forgotten))
    return base if len(rows) == base.customer_count else rows_of_base(base, rows)


def rows_of_base(base: Base, rows: npt.NDArray[np.int64]) -> Base:
    """The base of some customers, whose rows ascend."""
    sizes = np.diff(base.fact_bounds)[rows]
    ends = np.cumsum(sizes)
    places = np.arange(ends[-1] if len(ends) else 0)
    places += np.repeat(base.fact_bounds[rows] - (ends - sizes), sizes)
    owner = pa.array(np.repeat(np.arange(len(rows)), sizes))
    facts = base.facts.take(pa.array(places)).set_column(0, "customer_index", owner)
    return Base(
        base.customer_ids.take(pa.array(rows)),
        base.indicators[rows],
        base.indicator_schema,
        base.attributes.take(pa.array(rows)),
        facts.combine_chunks(),
        base.as_of,
        base.indicator_scale,
    )
