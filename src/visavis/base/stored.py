"""`StoredBase`: one version of a base on disk or in an object store, opened part by part.

::

    BASE/v0001/part-00000.8f3a….arrow     one part (visavis.base.layout), named by its digest too
         v0001/manifest.json              published last, create-only: what belongs to the version
         v0002/…                          the next load; readers of v0001 never notice

A version is what its manifest names; other files are not looked at. The manifest carries its own
digest and that of every part, so that no changed byte is taken for what was written.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base.base import Base
from visavis.base.door import FACT_SCHEMA
from visavis.base.layout import part_from
from visavis.base.manifest import Manifest
from visavis.domain import CUSTOMER_ID
from visavis.errors import CorruptionError, InputError, NotFoundError, SetupError
from visavis.parts import part_of, parts_of
from visavis.store import Place, bytes_digest, open_place

__all__ = [
    "MANIFEST",
    "VERSION_FOLDER",
    "Profile",
    "StoredBase",
    "is_of_version",
    "joined",
    "version_folder",
    "versions_at",
]

MANIFEST: Final = "manifest.json"

VERSION_FOLDER: Final = re.compile(r"v([0-9]{4,9})/")

#: Parts that lookups keep mapped: those that were asked for last.
_OPEN_PARTS: Final = 4_096


class Profile(NamedTuple):
    """One customer of a part: the part's base and the row."""

    part_index: int
    base: Base
    customer_index: int


def version_folder(version: int) -> str:
    """The folder of a version: ``v0001``."""
    return f"v{version:04d}"


def is_of_version(name: str) -> bool:
    """Whether a file of a base's place stands in the folder of a version."""
    return VERSION_FOLDER.match(name) is not None


def versions_at(place: Place) -> list[int]:
    """The versions published at a place, ascending."""
    names = {name for name in place.names() if name.endswith(f"/{MANIFEST}")}
    found = (VERSION_FOLDER.fullmatch(name[: -len(MANIFEST)]) for name in names)
    # What is not spelled as we do, v00001, is somebody else's.
    numbers = {int(each[1]) for each in found if each} - {0}
    return sorted(each for each in numbers if f"{version_folder(each)}/{MANIFEST}" in names)


@dataclass(frozen=True, eq=False)
class StoredBase:
    """One published version of a base.

    Attributes
    ----------
    place : Place
        Of the base, whose folders are its versions.
    version : int
    manifest : Manifest
    digest : str
        The sha256 of the manifest's bytes: it names every byte of the version.
    """

    place: Place
    version: int
    manifest: Manifest
    digest: str
    _open: OrderedDict[int, Base] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def open(cls, path: str | Path | Place, *, version: int | None = None) -> StoredBase:
        """Open a version; only its manifest is read.

        Parameters
        ----------
        path : str, Path or Place
        version : int, optional
            Default: the newest.

        Raises
        ------
        InputError
            If there is no base at `path`, or no such version.
        CorruptionError
            If its manifest is not as it was written.
        """
        place = open_place(path)
        if version is None:
            known = versions_at(place)
            if not known:
                raise InputError(f"{place} holds no base", field="path")
            version = known[-1]
        named = f"{version_folder(version)}/{MANIFEST}"
        content = place.read(named)
        if content is None:
            raise InputError(f"{place} has no version {version}", field="version")
        manifest = Manifest.parse(content, f"{place}/{named}")
        return cls(place, version, manifest, bytes_digest(content))

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open nothing but what the manifest here says."""
        return StoredBase, (self.place, self.version, self.manifest, self.digest)

    @property
    def part_count(self) -> int:
        """How many parts it has, a power of two."""
        return len(self.manifest.parts)

    @property
    def customer_count(self) -> int:
        """How many customers it holds."""
        return sum(part.customer_count for part in self.manifest.parts)

    @property
    def fact_count(self) -> int:
        """How many facts it holds."""
        return sum(part.fact_count for part in self.manifest.parts)

    @property
    def as_of(self) -> date:
        """The UTC day up to which (inclusive) the indicators know the customers."""
        return self.manifest.as_of

    @cached_property
    def indicator_scale(self) -> npt.NDArray[np.float32]:
        """See `Base.indicator_scale`: from all parts."""
        return np.array(self.manifest.indicator_scale, dtype=np.float32)

    @cached_property
    def head(self) -> Base:
        """A base without customers, with the schemas of this one: of any part that is whole."""
        first = self._any_part()
        return Base(
            first.customer_ids[:0],
            first.indicators[:0],
            first.indicator_schema,
            first.attributes[:0],
            first.facts[:0],
            first.as_of,
            self.indicator_scale,
        )

    def _any_part(self) -> Base:
        # One damaged part must not keep a job from the others.
        for index in range(self.part_count - 1):
            with suppress(SetupError):
                return self.part(index)
        return self.part(self.part_count - 1)

    def part(self, index: int) -> Base:
        """The profiles of a part, mapped, its digest checked.

        Raises
        ------
        InputError
            If there is no such part.
        CorruptionError
            If any byte of it is not as it was written.
        """
        if not 0 <= index < self.part_count:
            raise InputError(f"must lie in [0, {self.part_count}), got {index}", field="part")
        entry = self.manifest.parts[index]
        name = f"{version_folder(self.version)}/{entry.file}"
        base = part_from(
            self.place.fetch(name, entry.sha256),
            as_of=self.as_of,
            scale=self.indicator_scale,
            named=f"{self.place}/{name}",
        )
        types = {each.name: str(each.type) for each in base.attributes.schema}
        if (
            (base.customer_count, len(base.facts)) != (entry.customer_count, entry.fact_count)
            or base.indicator_names != self.manifest.indicators
            or types != self.manifest.attributes
        ):
            raise CorruptionError(f"{self.place}/{name} does not hold what the manifest says")
        return base

    def parts(self) -> Iterator[Base]:
        """All parts, one after the other."""
        return (self.part(index) for index in range(self.part_count))

    def profile(self, customer_id: str) -> Profile:
        """Where one customer stands; parts stay mapped, so the next lookup is quick.

        Raises
        ------
        NotFoundError
            If the base does not hold the customer.
        """
        if not isinstance(customer_id, str):
            raise InputError(f"must be text, got {customer_id!r}", field=CUSTOMER_ID)
        try:
            index = part_of(customer_id, self.part_count)
        except UnicodeEncodeError:
            raise NotFoundError(f"customer {customer_id!r} is not in the base") from None
        base = self._open_part(index)
        return Profile(index, base, base.index_of(customer_id))

    def _open_part(self, index: int) -> Base:
        with self._lock:
            base = self._open.get(index)
            if base is not None:
                self._open.move_to_end(index)
                return base
        base = self.part(index)
        with self._lock:
            self._open[index] = base
            while len(self._open) > _OPEN_PARTS:
                self._open.popitem(last=False)
        return base

    def read(self) -> Base:
        """All parts as one base in memory, sorted by customer id."""
        return joined(list(self.parts()), self.as_of)

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Open every part; `progress` is called with (parts done, parts in all).

        Raises
        ------
        CorruptionError
            Naming the first file that is not as it was written, or that holds another part's
            customers.
        """
        for index, entry in enumerate(self.manifest.parts):
            # What stands there is asked for, and not what this machine has kept of it.
            self.place.drop_cached(entry.sha256)
            found = parts_of(self.part(index).customer_ids, self.part_count)
            if (found != index).any():
                raise CorruptionError(f"{self.place}: part {index} holds customers of another")
            if progress is not None:
                progress(index + 1, self.part_count)


def joined(parts: list[Base], as_of: date) -> Base:
    """The base of the customers of some parts."""
    ids = pa.concat_arrays([part.customer_ids for part in parts])
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    matrix = np.empty((len(order), parts[0].indicators.shape[1]), dtype=np.float32)
    facts = []
    start = 0
    for part in parts:
        of_part = place[start : start + part.customer_count]
        matrix[of_part] = part.indicators
        owner = of_part[part.facts["customer_index"].to_numpy()]
        facts.append(part.facts.set_column(0, "customer_index", pa.array(owner)).cast(FACT_SCHEMA))
        start += part.customer_count
    matrix.flags.writeable = False
    together = pa.concat_tables(facts)
    # A customer's facts stay in their order.
    by_owner = np.argsort(together["customer_index"].to_numpy(), kind="stable")
    attributes = pa.concat_tables([part.attributes for part in parts])
    return Base(
        ids.take(pa.array(order)),
        matrix,
        parts[0].indicator_schema,
        attributes.take(pa.array(order)).combine_chunks(),
        together.take(pa.array(by_owner)).combine_chunks(),
        as_of,
    )
