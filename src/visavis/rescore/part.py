"""One part of a job: from the mapped file to a published one.

::

    part file ─► Base ─► overlay ─► Engine.beside ─► kernel ─► table ─► Parquet ─► create-only
     (digest)          (journal)   (planes, history)                   (named by its digest)
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from visavis.base import Base, StoredBase
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.engine import Engine
from visavis.errors import CorruptionError
from visavis.journal import Overlay
from visavis.policy import Policy
from visavis.rescore.plan import PartEntry
from visavis.schedule import PartReceipt
from visavis.store import Place, bytes_digest

__all__ = [
    "MatchPart",
    "Matcher",
    "PartMaker",
    "PartMatch",
    "entry_of",
    "named_part",
    "part_name",
    "read_part",
    "summed",
    "write_part",
]

_DIGEST: Final = b"visavis.digest"
_CUSTOMERS: Final = b"visavis.customer_count"
_JOB: Final = b"visavis.job_id"
_PART: Final = b"visavis.part_index"

#: Of columns, nested ones by their path. Scores hardly shrink, and unfolding them is a good part of
#: the work of whoever reads.
_CODECS: Final = {
    **dict.fromkeys(("propensity", "expected_value"), "none"),
    **dict.fromkeys(("customer_id", "rank", "capability_id", "control"), "zstd"),
    "reasons.list.element.indicator": "zstd",
    "reasons.list.element.contribution": "zstd",
}

_PART_FILE: Final = re.compile(r"parts/part-([0-9]{5,7})\.([0-9a-f]{64})\.parquet")


class PartMatch(NamedTuple):
    """The opportunities of a part, and what the kernel counted on the way.

    Attributes
    ----------
    table : pyarrow.Table
    customer_count : int
        Customers matched.
    stats, nanoseconds : dict of str to int
    """

    table: pa.Table
    customer_count: int
    stats: dict[str, int]
    nanoseconds: dict[str, int]


class Matcher(Protocol):
    """How a part is matched: in full, or by what changed."""

    def __call__(self, part_index: int) -> PartMatch:
        """The opportunities of a part."""

    def replaced(self, **changes: Any) -> Matcher:
        """The same, matched in another way."""

    def prepare(self) -> None:
        """Open and pack what all parts share."""


@dataclass(frozen=True)
class MatchPart:
    """Matches the customers of one part; the shared half is packed once per process.

    Attributes
    ----------
    base : StoredBase
    catalog : Catalog
    policy : Policy
    as_of : date
    overlay : Overlay, optional
        What the journal says beyond the base.
    reasons : int, optional
    distinctive : bool
    threads : int
        Of one part.
    variant : str, optional
    device : str, optional
        Where torch screens (``cuda``); default: the compiled screen.
    """

    base: StoredBase
    catalog: Catalog
    policy: Policy
    as_of: date
    overlay: Overlay | None = None
    reasons: int | None = None
    distinctive: bool = False
    threads: int = 1
    variant: str | None = None
    device: str | None = None
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)
    _shared: list[Engine] = field(default_factory=list, repr=False, compare=False)
    _overlays: list[Overlay] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is packed stays at home."""
        given = (self.base, self.catalog, self.policy, self.as_of, self.overlay, self.reasons)
        return MatchPart, (*given, self.distinctive, self.threads, self.variant, self.device)

    def profiles(self, part_index: int) -> Base:
        """The profiles of a part as they are at the plan's journal offset."""
        base = self.base.part(part_index)
        if self.overlay is None:
            return base
        with self._lock:
            if not self._overlays:
                self._overlays.extend(self.overlay.split(self.base.part_count))
        return self._overlays[part_index].apply(base)

    def head(self) -> Engine:
        """The engine of nobody, from which those of the parts are made.

        Raises
        ------
        InputError
            If base, catalog, policy and date do not fit together.
        """
        with self._lock:
            if not self._shared:
                head = Engine(
                    self.base.head,
                    self.catalog,
                    self.policy,
                    as_of=self.as_of,
                    threads=self.threads,
                    variant=self.variant,
                    device=self.device,
                    is_part=True,
                )
                self._shared.append(head)
        return self._shared[0]

    def engine(self, base: Base) -> Engine:
        """An engine for the customers of a part."""
        head = self.head()
        with self._lock:
            head.prepare()
        return head.beside(base)

    def prepare(self) -> None:
        """See `Matcher`."""
        self.engine(self.base.head)

    def replaced(self, **changes: Any) -> MatchPart:
        """The same, matched in another way."""
        return replace(self, **changes, _lock=Lock(), _shared=[], _overlays=[])

    def __call__(self, part_index: int) -> PartMatch:
        """The opportunities of a part."""
        engine = self.engine(self.profiles(part_index))
        found = engine.match()
        table = found.to_table(reasons=self.reasons, distinctive=self.distinctive, coded=True)
        counted = found.result
        return PartMatch(table, len(found.customer_index), counted.stats, counted.nanoseconds)


@dataclass(frozen=True)
class PartMaker:
    """Matches a part and publishes it: the task that workers are given.

    Attributes
    ----------
    match : Matcher
    out : Place
        The result's.
    job_id : str
    """

    match: Matcher
    out: Place
    job_id: str

    def __call__(self, part_index: int) -> PartReceipt:
        """Compute and publish one part; a part that stands there already is left as it is."""
        began = time.perf_counter()
        found = self.match(part_index)
        count = found.customer_count
        entry = write_part(self.out, part_index, found.table, count, self.job_id)
        return PartReceipt(
            part_index=part_index,
            file=entry.file,
            sha256=entry.sha256,
            digest=entry.digest,
            customer_count=count,
            opportunity_count=entry.opportunity_count,
            stats=found.stats,
            nanoseconds=found.nanoseconds,
            seconds=time.perf_counter() - began,
        )

    def prepare(self) -> None:
        """Open and pack what all parts share.

        Raises
        ------
        SetupError
            If this machine lacks something for it.
        """
        self.match.prepare()

    def with_match(self, **changes: Any) -> PartMaker:
        """The same task, matched in another way."""
        return replace(self, match=self.match.replaced(**changes))


def part_name(part_index: int, sha256: str) -> str:
    """What a part of a result is called: its name is its receipt."""
    return f"parts/part-{part_index:05d}.{sha256}.parquet"


def named_part(name: str) -> tuple[int, str] | None:
    """Index and sha256 of a part by its name; None if it is no part's."""
    found = _PART_FILE.fullmatch(name)
    return None if found is None else (int(found[1]), found[2])


def write_part(
    out: Place, part_index: int, table: pa.Table, customer_count: int, job_id: str
) -> PartEntry:
    """Publish the opportunities of a part."""
    digest = canonical_digest(table)
    said = {_DIGEST: digest, _CUSTOMERS: str(customer_count)}
    said |= {_JOB: job_id, _PART: str(part_index)}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), **said}),
        sink,
        compression=_CODECS,
        write_page_checksum=True,
        # Scores hardly repeat: a dictionary of them would be built in vain.
        use_dictionary=["customer_id", "capability_id", "rank"],
        write_statistics=False,
    )
    content = sink.getvalue()
    sha256 = bytes_digest(content)
    name = part_name(part_index, sha256)
    out.create(name, content)
    return PartEntry(
        file=name,
        sha256=sha256,
        digest=digest,
        customer_count=customer_count,
        opportunity_count=table.num_rows,
    )


def read_part(out: Place, file: str, sha256: str, *, is_threaded: bool = True) -> pa.Table:
    """The opportunities of a published part, every byte of it checked.

    Parameters
    ----------
    out : Place
    file, sha256 : str
    is_threaded : bool
        Columns may be read side by side, in Arrow's own threads.

    Raises
    ------
    CorruptionError
        Naming the file.
    """
    content = out.fetch(file, sha256)
    try:
        # The checksums of its pages are for others: the digest of the whole file says more.
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            return source.read(use_threads=is_threaded)
    except (pa.ArrowException, OSError) as error:
        raise CorruptionError(f"{out}/{file} is no part of a result: {error}") from error


def entry_of(out: Place, file: str, job_id: str) -> PartEntry:
    """What a part that was published earlier is, from its own bytes.

    Raises
    ------
    CorruptionError
        If it is not as it was written, or of another job or part.
    """
    part_index, sha256 = named_part(file) or (-1, "")
    content = out.fetch(file, sha256)
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            said = source.schema_arrow.metadata or {}
            if (said.get(_JOB), said.get(_PART)) != (job_id.encode(), b"%d" % part_index):
                raise CorruptionError(f"{out}/{file} is of another job or part")
            return PartEntry(
                file=file,
                sha256=sha256,
                digest=said[_DIGEST].decode(),
                customer_count=int(said[_CUSTOMERS]),
                opportunity_count=source.metadata.num_rows,
            )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptionError(f"{out}/{file} is no part of a result: {error}") from error


def summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """What was counted several times, by name; who lacks a name has counted nothing of it."""
    names = dict.fromkeys(name for each in counts for name in each)
    return {name: sum(each.get(name, 0) for each in counts) for name in names}
