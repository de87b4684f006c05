"""``visavis rescore``: the whole base, part by part, to a result that is all there or not."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visavis.cli.logs import log
from visavis.cli.options import (
    AsOf,
    BaseFolder,
    CatalogFile,
    Insecure,
    JournalFile,
    PolicyFile,
    VariantName,
    named,
    read_overlay,
)
from visavis.cli.output import print_pairs
from visavis.errors import InputError
from visavis.terminal import new_console

if TYPE_CHECKING:
    from visavis.base import StoredBase
    from visavis.rescore import Job, Plan, Report
    from visavis.rescore.part import PartMaker
    from visavis.schedule import Event, Pool

__all__ = ["rescore"]

#: As main() has it.
_EXIT_INTERRUPTED = 130


def rescore(
    base: BaseFolder,
    catalog: CatalogFile,
    out: Annotated[str, typer.Option(help="Folder, or URL of an object store's prefix.")],
    policy: PolicyFile = None,
    journal: JournalFile = None,
    as_of: AsOf = None,
    since: Annotated[
        str | None,
        typer.Option(help="An earlier result: where only the catalog changed, what it changes."),
    ] = None,
    reasons: Annotated[
        int | None, typer.Option(min=0, help="At most so many reasons each; default: none kept.")
    ] = None,
    distinctive: Annotated[
        bool, typer.Option("--distinctive", help="Reasons: why this, rather than why anything.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Parts on Ray: 'local', 'auto' or the head's host:port. Every worker must see "
            "base and result under the same names.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Parts at a time; default: one per processor, or what fits.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="That work on one part.")] = 1,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Screen on GPUs (extra: gpu); with --ray beside the CPUs.")
    ] = False,
    insecure: Insecure = False,
    variant: VariantName = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for everything that happens.")
    ] = False,
) -> None:
    """Match every customer with every capability; killed anywhere, run it again to go on."""
    if ray is None and insecure:
        raise InputError("is for --ray, which is not given", field="--insecure")
    if distinctive and reasons is None:
        raise InputError("is about --reasons, which are not given", field="--distinctive")
    job = _job(
        (base, catalog, policy, journal),
        out,
        as_of,
        reasons=reasons,
        distinctive=distinctive,
        threads=threads,
        variant=variant,
    )
    if journal is not None:
        _refuse_objections(job, journal)
    if gpu and ray is None:
        _check_device()
    make_pool = _pools(ray, workers, threads, gpu, insecure)
    began = time.perf_counter()
    with _telling(job, as_json) as tell, named(path="--since", out="--out", device="--gpu"):
        try:
            report = job.run(make_pool, on_event=tell, since=since)
        except KeyboardInterrupt:
            said = "visavis: stopped; what is done is kept: run the same command again to go on"
            print(said, file=sys.stderr)
            sys.exit(_EXIT_INTERRUPTED)
    if gpu and ray is not None and report.computed_count and "gpu" not in report.kinds:
        report = replace(report, note=_noted(report.note, "no worker with a GPU took part"))
    if journal is not None:
        report = replace(report, note=_noted(report.note, _recorded_since(job, journal)))
    _print_report(report, time.perf_counter() - began, as_json)


def _check_device() -> None:
    """Say before anything is written that there is no device."""
    from visavis import gpu

    with named(device="--gpu"):
        gpu.check_device("cuda")


def _refuse_objections(job: Job, journal: Path) -> None:
    """An objection counts in every result made from then on, so in one that is gone on with too."""
    from visavis.rescore import is_unfinished

    if not is_unfinished(job.out):
        return
    count = len(read_overlay(journal, after=job.plan.journal_offset).objections)
    if count:
        raise InputError(
            f"{job.out} was planned at offset {job.plan.journal_offset} of the journal, and"
            f" {count:,} customers objected since: begin anew under another --out",
            field="--out",
        )


def _recorded_since(job: Job, journal: Path) -> str | None:
    """What a job that was planned earlier does not know, in words; None if that is nothing."""
    since = read_overlay(journal, after=job.plan.journal_offset)
    count = since.through - since.after
    if not count:
        return None
    return (
        f"the journal holds {count:,} entries since offset {since.after}, up to which this job was "
        f"planned, {len(since.objections):,} of them objections: a result with them goes elsewhere"
    )


def _noted(*notes: str | None) -> str | None:
    return "; ".join(each for each in notes if each) or None


def _job(
    inputs: tuple[str, Path, Path | None, Path | None], out: str, as_of: str | None, **options: Any
) -> Job:
    """Plan the job from base, catalog, policy and journal."""
    from visavis.catalog import Catalog
    from visavis.policy import Policy
    from visavis.rescore import Job, is_unfinished, planned

    base, catalog, policy, journal = inputs
    overlay = None
    with named(path="--out"):
        plan = planned(out)
    with named(path="--base"):
        stored = _base_of(plan if is_unfinished(out) else None, base)
    with named("--journal", path="--journal"):
        if journal is not None:
            after = stored.manifest.journal_offset
            # A plan from before the base's offset is another job's: its own error says so.
            is_later = plan is not None and plan.journal_offset >= after
            through = plan.journal_offset if plan is not None and is_later else None
            overlay = read_overlay(journal, after=after, through=through)
    with named("--catalog", path="--catalog"):
        capabilities = Catalog.read(catalog)
    with named(policy="--policy", as_of="--as-of", variant="--variant", path="--out"):
        return Job.make(
            stored,
            capabilities,
            Policy() if policy is None else Policy.read(policy),
            out,
            as_of=as_of,
            overlay=overlay,
            **options,
        )


def _base_of(plan: Plan | None, base: str) -> StoredBase:
    """The newest version, or the one that an unfinished job was planned with, if it is there."""
    from visavis.base import StoredBase
    from visavis.base.stored import versions_at

    stored = StoredBase.open(base)
    if plan is None or plan.base_version not in versions_at(stored.place):
        return stored
    earlier = StoredBase.open(stored.place, version=plan.base_version)
    return earlier if earlier.digest == plan.base_digest else stored


def _pools(
    ray: str | None, workers: int | None, threads: int, gpu: bool, insecure: bool
) -> Callable[[PartMaker], Pool]:
    """What computes the parts: threads of this process, or workers on Ray."""
    if workers is not None and workers < 1:
        raise InputError(f"must be at least 1, got {workers}", field="--workers")

    def here(task: PartMaker) -> Pool:
        from visavis.schedule import ThreadPool

        count = workers or max(1, len(os.sched_getaffinity(0)) // threads)
        return ThreadPool(task.with_match(device="cuda") if gpu else task, count)

    def there(task: PartMaker) -> Pool:
        from visavis.cluster import RayPool

        assert ray is not None  # noqa: S101  (else the other one is taken)
        on_gpu = task.with_match(device="cuda") if gpu else None
        with named(address="--ray", workers="--workers", threads="--threads"):
            return RayPool(
                task, address=ray, workers=workers, threads=threads, gpu=on_gpu, insecure=insecure
            )

    return here if ray is None else there


@contextmanager
def _telling(job: Job, as_json: bool) -> Iterator[Callable[[Event], None]]:
    """Tell what happens: lines of JSON, or a bar where there is a terminal."""
    plan = job.plan
    if as_json:
        yield _tell_in_json
        return
    console = new_console(stderr=True)
    progress = Progress(
        TextColumn("Rescore"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts  {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    if progress.disable:
        console.print(f"Rescore: {plan.part_count:,} parts …")
    began = time.perf_counter()
    with progress:
        bar = progress.add_task("", total=plan.part_count, speed="")
        pairs_of_part = plan.customer_count / plan.part_count * plan.capability_count

        def tell(event: Event) -> None:
            counts = event.counts
            if event.kind in ("failed", "poison", "retried", "lost", "refused"):
                part = "" if event.part_index is None else f"part {event.part_index} "
                console.print(f"{part}{event.kind}: {event.reason or event.worker}", markup=False)
            speed = counts.done * pairs_of_part / (time.perf_counter() - began) / 1e9
            customers = counts.done * plan.customer_count // plan.part_count
            ended = counts.done + counts.failed + counts.poison
            done_before = plan.part_count - counts.parts
            said = f"{customers:,} customers, {speed:.2f} G pairs/s, {counts.workers} workers"
            progress.update(bar, completed=done_before + ended, speed=said)

        yield tell


def _tell_in_json(event: Event) -> None:
    said: dict[str, Any] = {"event": event.kind, "part": event.part_index, "worker": event.worker}
    said |= {"reason": event.reason, **event.counts._asdict()}
    print(json.dumps({key: each for key, each in said.items() if each is not None}), flush=True)


def _print_report(report: Report, seconds: float, as_json: bool) -> None:
    from visavis.showing import show_notice

    result = report.result
    pairs = sum(report.stats.get(n, 0) for n in ("skipped_by_rule", "skipped_by_bound", "screened"))
    summary: dict[str, Any] = {
        "out": str(result.place),
        "job_id": result.plan.job_id,
        "customer_count": result.customer_count,
        "opportunity_count": result.opportunity_count,
        "part_count": result.plan.part_count,
        "computed_parts": report.computed_count,
        "seconds": round(seconds, 3),
        "pairs": pairs,
        "digest": result.manifest.digest,
    }
    if report.note is not None:
        summary["note"] = report.note
    log.info("rescore", **summary, nanoseconds=report.nanoseconds)
    if as_json:
        said = {"event": "finished", **summary, "kernel_ns": report.nanoseconds}
        print(json.dumps(said))
        return
    print_pairs(summary)
    show_notice(result.plan.notice, new_console())
