"""The job: plan, parts, manifest; killed anywhere, it goes on to the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from visavis.base import StoredBase
from visavis.base.stored import versions_at
from visavis.catalog import Catalog
from visavis.domain import parse_date
from visavis.errors import (
    CorruptionError,
    InputError,
    NotFoundError,
    SetupError,
    StorageError,
)
from visavis.journal import Overlay
from visavis.policy import Policy
from visavis.rescore.delta import delta_of
from visavis.rescore.marks import marks_of
from visavis.rescore.part import MatchPart, PartMaker, entry_of, named_part, summed
from visavis.rescore.plan import PLAN, PartEntry, Plan, ResultManifest
from visavis.rescore.results import MANIFEST, Result, marks_name, remove_strays
from visavis.schedule import Event, Outcome, PartReceipt, Pool, ThreadPool, run_parts
from visavis.store import Place, bytes_digest, open_place

__all__ = ["Job", "Report", "is_unfinished", "planned", "rescore"]

#: Makes the pool that computes parts, given the task.
PoolMaker = Callable[[PartMaker], Pool]


@dataclass(frozen=True)
class Report:
    """What one run of a job did.

    Attributes
    ----------
    result : Result
    computed_count : int
        Parts that this run computed; the others were there.
    stats, nanoseconds : dict
        The kernel's, of those.
    note : str or None
        What whoever asked should know.
    kinds : frozenset of str
        What computed them began its name with: ``cpu``, ``gpu``, ``thread``.
    """

    result: Result
    computed_count: int
    stats: dict[str, int] = field(default_factory=dict)
    nanoseconds: dict[str, int] = field(default_factory=dict)
    note: str | None = None
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Job:
    """A plan, how its parts are matched, and where they go.

    Attributes
    ----------
    plan : Plan
    match : MatchPart
    out : Place
    """

    plan: Plan
    match: MatchPart
    out: Place

    @property
    def task(self) -> PartMaker:
        """What workers are given."""
        return PartMaker(self.match, self.out, self.plan.job_id)

    @classmethod
    def make(
        cls,
        base: StoredBase,
        catalog: Catalog,
        policy: Policy,
        out: str | Path | Place,
        *,
        as_of: date | str | None = None,
        overlay: Overlay | None = None,
        reasons: int | None = None,
        distinctive: bool = False,
        threads: int = 1,
        variant: str | None = None,
    ) -> Job:
        """Plan a job; nothing is written yet.

        Parameters
        ----------
        base : StoredBase
        catalog : Catalog
        policy : Policy
        out : str, Path or Place
            Where the result goes: a folder, or the URL of an object store's prefix.
        as_of : date or str, optional
            Default: the base's.
        overlay : Overlay, optional
            Of the journal's entries after the base's offset.
        reasons : int, optional
            At most so many reasons per opportunity; default: no such column.
        distinctive : bool
            As of `Matches.to_table`.
        threads : int
            That work on one part.
        variant : str, optional
            See `kernel.choose_variant`.

        Raises
        ------
        InputError
            If base, catalog, policy and date do not fit together.
        """
        day = base.as_of if as_of is None else parse_date(as_of, field="as_of")
        if reasons is not None and reasons < 0:
            raise InputError(f"must be at least 0, got {reasons}", field="reasons")
        changes = overlay is not None and not overlay.is_empty
        match = MatchPart(
            base=base,
            catalog=catalog,
            policy=policy,
            as_of=day,
            overlay=overlay if changes else None,
            reasons=reasons,
            distinctive=distinctive,
            threads=threads,
            variant=variant,
        )
        # What does not fit together is said before anything is written.
        match.head()
        for customer_id in policy.exclusions.customers:
            try:
                base.profile(customer_id)
            except NotFoundError as error:
                raise InputError(str(error), field="policy.exclusions.customers") from None
            except (CorruptionError, StorageError):
                # The part that cannot be opened fails by itself, and the others are done.
                continue
        plan = Plan.of(
            base,
            overlay,
            capability_count=catalog.capability_count,
            catalog_digest=catalog.digest(),
            policy_digest=policy.digest(),
            as_of=day,
            reasons=reasons,
            distinctive=distinctive,
        )
        return cls(plan, match, open_place(out))

    def run(
        self,
        make_pool: PoolMaker | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
        since: str | Path | Place | None = None,
    ) -> Report:
        """Compute what is missing, then publish the manifest.

        Parameters
        ----------
        make_pool : callable, optional
            Default: the threads of this process.
        on_event : callable, optional
            Told of every part that begins and ends.
        since : str, Path or Place, optional
            An earlier result: where only the catalog changed, most lists are taken from it. The
            bytes are those of a full run.

        Returns
        -------
        Report

        Raises
        ------
        InputError
            If another job stands there.
        SetupError
            If some parts could not be computed: what was is kept, and the job can be run again.
        """
        done = self._begin()
        if done is not None:
            return Report(done, 0)
        task, note = self._since(since)
        entries = self.published()
        missing = [part for part in range(self.plan.part_count) if part not in entries]
        outcome = Outcome()
        if missing:
            pool = (make_pool or _threads_here)(task)
            try:
                outcome = run_parts(missing, pool, on_event=on_event or (lambda _: None))
            finally:
                pool.close()
        _raise_if_failed(outcome, self.out)
        for part, receipt in outcome.receipts.items():
            entries[part] = _entry(receipt)
        result = self._finish(entries)
        return Report(
            result,
            len(outcome.receipts),
            summed([each.stats for each in outcome.receipts.values()]),
            summed([each.nanoseconds for each in outcome.receipts.values()]),
            note,
            frozenset(each.worker.partition("-")[0] for each in outcome.receipts.values()),
        )

    def _since(self, since: str | Path | Place | None) -> tuple[PartMaker, str | None]:
        """The task by what changed, or the full one and why."""
        if since is None:
            return self.task, None
        found = delta_of(self.match, self.plan, Result.open(since))
        if isinstance(found, str):
            return self.task, f"ran in full, for the earlier result does not serve: {found}"
        return replace(self.task, match=found), None

    def _begin(self) -> Result | None:
        """Put the plan in place; the result, if it is there already."""
        content = self.plan.to_bytes()
        if self.out.read(PLAN) is None and versions_at(self.out):
            raise InputError(f"{self.out} holds a base: name another place", field="out")
        if not self.out.create(PLAN, content):
            stands = self.out.read(PLAN)
            if stands is not None and stands != content:
                other = Plan.parse(stands, f"{self.out}/{PLAN}")
                reason = f"{self.out} holds another job, {other.job_id[:16]}"
                raise InputError(f"{reason}: {_difference(other, self.plan)}", field="out")
        if self.out.read(MANIFEST) is None:
            return None
        result = Result.open(self.out)
        # Of whoever was killed between publishing it and cleaning up.
        remove_strays(result)
        return result

    def published(self) -> dict[int, PartEntry]:
        """The parts that are there; what is damaged is removed and computed again."""
        entries: dict[int, PartEntry] = {}
        for name in self.out.names("parts"):
            found = named_part(name)
            if found is None or found[0] >= self.plan.part_count:
                continue
            try:
                entry = entry_of(self.out, name, self.plan.job_id)
            except CorruptionError:
                self.out.remove(name)
                continue
            entries.setdefault(found[0], entry)
        return entries

    def _finish(self, entries: dict[int, PartEntry]) -> Result:
        parts = tuple(entries[part] for part in range(self.plan.part_count))
        marks = marks_of(self.match.catalog, self.match.base.manifest.indicators).to_bytes()
        marks_sha256 = bytes_digest(marks)
        self.out.create(marks_name(marks_sha256), marks)
        manifest = ResultManifest.of(self.plan.job_id, parts, marks_sha256=marks_sha256)
        self.out.create(MANIFEST, manifest.to_bytes())
        # Another driver may have been first, with parts that another version of Parquet wrote.
        result = Result.open(self.out)
        remove_strays(result)
        return result


def rescore(
    base: StoredBase,
    catalog: Catalog,
    policy: Policy,
    out: str | Path | Place,
    *,
    make_pool: PoolMaker | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: object,
) -> Report:
    """Match every customer of a base with every capability into a result; see `Job`.

    Options are those of `Job.make`.
    """
    job = Job.make(base, catalog, policy, out, **options)  # type: ignore[arg-type]
    return job.run(make_pool, on_event=on_event)


def planned(out: str | Path | Place) -> Plan | None:
    """The plan that stands at a place; None if there is none.

    Whoever goes on with it stays at its version of the base and its offset of the journal, or it
    would be another job.
    """
    place = open_place(out)
    content = place.read(PLAN)
    return None if content is None else Plan.parse(content, f"{place}/{PLAN}")


def is_unfinished(out: str | Path | Place) -> bool:
    """Whether a job was begun at a place that has not published its manifest."""
    place = open_place(out)
    return place.read(PLAN) is not None and place.read(MANIFEST) is None


def _threads_here(task: PartMaker) -> Pool:
    return ThreadPool(task, len(os.sched_getaffinity(0)))


def _entry(receipt: PartReceipt) -> PartEntry:
    return PartEntry(
        file=receipt.file,
        sha256=receipt.sha256,
        digest=receipt.digest,
        customer_count=receipt.customer_count,
        opportunity_count=receipt.opportunity_count,
    )


def _raise_if_failed(outcome: Outcome, out: Place) -> None:
    if not outcome.failed and not outcome.poison:
        return
    # What several parts say alike is said once.
    said: dict[str, list[int]] = {}
    for part, error in outcome.failed.items():
        said.setdefault(str(error), []).append(part)
    told = [f"part {_listed(parts)}: {text}" for text, parts in said.items()]
    told += [f"part {part} killed {', '.join(names)}" for part, names in outcome.poison.items()]
    more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
    lost, done = len(outcome.failed) + len(outcome.poison), len(outcome.receipts)
    reason = (
        f"{lost} of the parts could not be computed, {done} were; run it again to go on at"
        f" {out}: {'; '.join(told[:3])}{more}"
    )
    if any(isinstance(error, CorruptionError) for error in outcome.failed.values()):
        raise CorruptionError(reason)
    if outcome.failed and all(isinstance(each, InputError) for each in outcome.failed.values()):
        raise InputError(reason, field="parts")
    raise SetupError(reason)


def _listed(parts: list[int]) -> str:
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return ", ".join(map(str, parts[:3])) + more


def _difference(other: Plan, mine: Plan) -> str:
    """The first thing in which two plans differ, in words."""
    for name in Plan.model_fields:
        theirs, ours = getattr(other, name), getattr(mine, name)
        if theirs != ours:
            return f"its {name} is {theirs}, not {ours}"
    return "its plan is written in another way"
