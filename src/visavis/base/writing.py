"""Writing the next version of a base: parts first, in any order, then the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base.base import Base
from visavis.base.layout import part_bytes
from visavis.base.manifest import Manifest, PartEntry
from visavis.base.stored import MANIFEST, StoredBase, version_folder, versions_at
from visavis.errors import CorruptionError, InputError
from visavis.parts import PART_COUNT_MAX, part_count_for, parts_of
from visavis.store import Place, bytes_digest, open_place

__all__ = [
    "VersionWriter",
    "check_part_count",
    "next_part_count",
    "part_file",
    "remove_strays",
    "remove_version",
    "rows_of_base",
    "without_forgotten",
    "write_base",
]


class VersionWriter:
    """Writes the parts of the next version of a base, then its manifest.

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
        self.version = max(versions_at(place), default=0) + 1
        self.part_count = part_count
        self._journal_offset = journal_offset
        self._forgotten = sorted(set(forgotten))
        self._entries: dict[int, PartEntry] = {}
        self._squares: npt.NDArray[np.float64] | float = 0.0
        self._schemas: tuple[pa.Schema, pa.Schema] | None = None
        self._as_of: date | None = None
        self._folder = version_folder(self.version)
        self._lock = Lock()

    def add(self, index: int, base: Base) -> None:
        """Write one part; may be called from several threads."""
        content = part_bytes(base)
        entry = part_file(index, content, base)
        self.place.create(f"{self._folder}/{entry.file}", content)
        schemas = (base.indicator_schema, base.attributes.schema)
        with self._lock:
            if self._schemas is None:
                self._schemas, self._as_of = schemas, base.as_of
            elif not all(a.equals(b) for a, b in zip(self._schemas, schemas, strict=True)):
                raise InputError(f"part {index} has other columns than the first", field="schema")
            self._entries[index] = entry
            scale = base.indicator_scale.astype(np.float64) if base.customer_count else 0.0
            self._squares = self._squares + scale * scale * base.customer_count

    def publish(self) -> StoredBase:
        """Publish the manifest: from now on the version is there.

        Raises
        ------
        InputError
            If the version holds no customer, or another writer published it meanwhile.
        """
        entries = [self._entries[index] for index in range(self.part_count)]
        count = sum(entry.customer_count for entry in entries)
        if not count or self._schemas is None or self._as_of is None:
            raise InputError("must hold at least one customer", field="indicators")
        indicators, attributes = self._schemas
        scale = np.sqrt(self._squares / count).astype(np.float32)
        manifest = Manifest(
            as_of=self._as_of,
            indicators=tuple(indicators.names),
            attributes={each.name: str(each.type) for each in attributes},
            indicator_scale=tuple(float(each) for each in scale),
            journal_offset=self._journal_offset,
            forgotten=tuple(self._forgotten),
            parts=tuple(entries),
        )
        content = manifest.to_bytes()
        if not self.place.create(f"{self._folder}/{MANIFEST}", content):
            raise InputError(
                f"{self.place} has a version {self.version} by another writer now", field="path"
            )
        self._remove_strays()
        return StoredBase(self.place, self.version, manifest, bytes_digest(content))

    def _remove_strays(self) -> None:
        """Remove what earlier attempts left: at this version, or killed when theirs was there."""
        for version in versions_at(self.place):
            # What stands beside a manifest that cannot be read is not ours to judge.
            with suppress(CorruptionError, InputError):
                manifest = StoredBase.open(self.place, version=version).manifest
                remove_strays(self.place, version, manifest)
        self.place.remove_leftovers()


def part_file(index: int, content: pa.Buffer, base: Base) -> PartEntry:
    """What the manifest says of a part's file."""
    digest = bytes_digest(content)
    return PartEntry(
        file=f"part-{index:05d}.{digest[:16]}.arrow",
        sha256=digest,
        customer_count=base.customer_count,
        fact_count=len(base.facts),
    )


def remove_strays(place: Place, version: int, manifest: Manifest) -> None:
    """Remove what lies in the folder of a version and is not of it."""
    folder = version_folder(version)
    named = {f"{folder}/{each}" for each in (MANIFEST, *(e.file for e in manifest.parts))}
    for name in place.names(folder):
        if name not in named:
            place.remove(name)


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
    # The manifest first: from then on nobody opens it, however far the rest comes.
    for name in sorted(names, key=lambda name: not name.endswith(f"/{MANIFEST}")):
        place.remove(name)
    place.remove_folder(folder)
    return len(names)


def check_part_count(part_count: int) -> None:
    """Refuse what is no power of two up to `PART_COUNT_MAX`."""
    if not 0 < part_count <= PART_COUNT_MAX or part_count.bit_count() != 1:
        raise InputError(
            f"must be a power of two, at most {PART_COUNT_MAX}, got {part_count!r}", field="parts"
        )


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
    place = path if isinstance(path, Place) else open_place(path)
    count = next_part_count(place, base.customer_count, parts)
    known = versions_at(place)
    forgotten = StoredBase.open(place, version=known[-1]).manifest.forgotten if known else ()
    base = without_forgotten(base, frozenset(forgotten))
    writer = VersionWriter(place, count, forgotten=forgotten)
    part_index = parts_of(base.customer_ids, count)
    order = np.argsort(part_index, kind="stable")
    bounds = np.searchsorted(part_index[order], np.arange(count + 1))
    for index in range(count):
        writer.add(index, rows_of_base(base, order[bounds[index] : bounds[index + 1]]))
    return writer.publish()


def without_forgotten(base: Base, forgotten: AbstractSet[str]) -> Base:
    """The base of the customers whose ids are not among the tombstones, sha256 in hex."""
    if not forgotten:
        return base
    ids = base.customer_ids.to_pylist()
    kept = np.array([bytes_digest(each.encode()) not in forgotten for each in ids], dtype=np.bool_)
    return base if kept.all() else rows_of_base(base, np.flatnonzero(kept))


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
