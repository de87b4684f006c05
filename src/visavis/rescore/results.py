"""`Result`: what a job published, read through its manifest and never without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from visavis.digest import canonical_digest
from visavis.domain import CUSTOMER_ID
from visavis.errors import CorruptionError, InputError
from visavis.parts import part_of
from visavis.rescore.marks import Marks
from visavis.rescore.part import named_part, read_part
from visavis.rescore.plan import PLAN, Plan, ResultManifest
from visavis.store import Place, open_place

__all__ = [
    "MANIFEST",
    "Result",
    "files_of_jobs",
    "marks_name",
    "plain",
    "remove_strays",
    "sorted_by_customer",
]

MANIFEST: Final = "manifest.json"

_MARKS_FILE: Final = re.compile(r"capabilities\.[0-9a-f]{64}\.arrow")


@dataclass(frozen=True)
class Result:
    """The published opportunities of a base.

    Attributes
    ----------
    place : Place
    plan : Plan
    manifest : ResultManifest
    """

    place: Place
    plan: Plan
    manifest: ResultManifest

    @classmethod
    def open(cls, path: str | Path | Place) -> Result:
        """Open a result; only plan and manifest are read.

        Raises
        ------
        InputError
            If there is none, or its job is not finished.
        CorruptionError
            If plan or manifest are not as they were written, or do not belong together.
        """
        place = open_place(path)
        stands = place.read(PLAN)
        if stands is None:
            raise InputError(f"{place} holds no result", field="path")
        plan = Plan.parse(stands, f"{place}/{PLAN}")
        content = place.read(MANIFEST)
        if content is None:
            reason = f"the job at {place} is not finished: run `visavis rescore` again to go on"
            raise InputError(reason, field="path")
        manifest = ResultManifest.parse(content, f"{place}/{MANIFEST}")
        if manifest.job_id != plan.job_id or len(manifest.parts) != plan.part_count:
            raise CorruptionError(f"{place}/{MANIFEST} is of another job than {PLAN}")
        return cls(place, plan, manifest)

    @property
    def customer_count(self) -> int:
        """Customers that were matched."""
        return sum(part.customer_count for part in self.manifest.parts)

    @property
    def opportunity_count(self) -> int:
        """Opportunities in all."""
        return sum(part.opportunity_count for part in self.manifest.parts)

    def part(self, index: int, *, is_threaded: bool = True) -> pa.Table:
        """The opportunities of one part, customers in order of their ids, best first.

        Parameters
        ----------
        index : int
        is_threaded : bool
            See `read_part`.

        Raises
        ------
        CorruptionError
            If any byte of it is not as it was written.
        """
        entry = self.manifest.parts[index]
        table = read_part(self.place, entry.file, entry.sha256, is_threaded=is_threaded)
        if table.num_rows != entry.opportunity_count:
            raise CorruptionError(f"{self.place}/{entry.file} does not hold what the manifest says")
        return table.replace_schema_metadata(None)

    def marks(self) -> Marks:
        """What each capability was, by digest."""
        name = marks_name(self.manifest.marks_sha256)
        content = self.place.fetch(name, self.manifest.marks_sha256)
        return Marks.from_bytes(content, f"{self.place}/{name}")

    def parts(self) -> Iterator[pa.Table]:
        """All parts, one after the other."""
        return (self.part(index) for index in range(len(self.manifest.parts)))

    def lookup(self, customer_id: str) -> pa.Table:
        """The opportunities of one customer, best first; none where the customer has none.

        Raises
        ------
        CorruptionError
            If the customer's part is not as it was written.
        """
        if not isinstance(customer_id, str):
            raise InputError(f"must be text, got {customer_id!r:.60}", field=CUSTOMER_ID)
        try:
            index = part_of(customer_id, self.plan.part_count)
        except UnicodeEncodeError:
            raise InputError("must be text that UTF-8 can hold", field=CUSTOMER_ID) from None
        table = plain(self.part(index))
        return table.filter(pc.equal(table[CUSTOMER_ID], customer_id))

    def read(self) -> pa.Table:
        """All opportunities in memory, customers in order of their ids, best first."""
        return sorted_by_customer(pa.concat_tables([plain(part) for part in self.parts()]))

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every byte and compare it with its digests.

        Raises
        ------
        CorruptionError
            Naming the first file that is not as it was written.
        """
        count = len(self.manifest.parts)
        for index, entry in enumerate(self.manifest.parts):
            # What stands there is asked for, and not what this machine has kept of it.
            self.place.drop_cached(entry.sha256)
            if canonical_digest(self.part(index)) != entry.digest:
                raise CorruptionError(f"{self.place}/{entry.file} does not fit its digest")
            if progress is not None:
                progress(index + 1, count)
        self.place.drop_cached(self.manifest.marks_sha256)
        self.marks()
        held = self.manifest
        again = ResultManifest.of(
            held.job_id,
            held.parts,
            marks_sha256=held.marks_sha256,
            forgotten_count=held.forgotten_count,
        )
        if again != held:
            raise CorruptionError(f"{self.place}/{MANIFEST} does not fit its parts")


def marks_name(sha256: str) -> str:
    """What the marks of a result's capabilities are called."""
    return f"capabilities.{sha256}.arrow"


def files_of_jobs(place: Place) -> list[str]:
    """What jobs have written at a place, plan and manifest apart; other files are not ours."""
    return [
        name
        for name in place.names()
        if named_part(name) is not None or _MARKS_FILE.fullmatch(name)
    ]


def remove_strays(result: Result) -> None:
    """Remove what is not of a result: of killed drivers, or of another version of a writer."""
    held = result.manifest
    named = {marks_name(held.marks_sha256), *(part.file for part in held.parts)}
    for name in files_of_jobs(result.place):
        if name not in named:
            result.place.remove(name)
    result.place.remove_leftovers()


def plain(table: pa.Table) -> pa.Table:
    """Ids as text rather than as dictionaries."""
    for place, each in enumerate(table.schema):
        if pa.types.is_dictionary(each.type):
            column = table.column(place).cast(each.type.value_type)
            table = table.set_column(place, each.with_type(each.type.value_type), column)
    return table


def sorted_by_customer(table: pa.Table) -> pa.Table:
    """Rows by customer id, then rank."""
    return table.sort_by([(CUSTOMER_ID, "ascending"), ("rank", "ascending")]).combine_chunks()
