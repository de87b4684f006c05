"""One job in a process of its own: the runner starts it, tells it one line, hears it line by line.

::

    stdin   {"place": …, "job_id": …, "journal": …, "threads": …, "variant": …}
    stdout  {"event": "parts", "done": 3, "has_begun": true}     whenever that has changed
            {"event": "succeeded", …} or {"event": "failed", "reason": …, "message": …}

It is polite (nice 19), and ends when its standard input does: that is how it learns that whoever
started it is gone. Killed anywhere, it leaves what `visavis rescore` leaves, and is run again.
Nothing that it says holds the id of a customer.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from visavis.base import StoredBase
from visavis.errors import CorruptionError, InputError, VisavisError
from visavis.gateway.job_files import JobRecord, catalog_at, event_name, policy_at, result_at
from visavis.journal import Journal
from visavis.rescore import Job, Report
from visavis.schedule import Event, ThreadPool
from visavis.store import Place, open_place

__all__ = ["StaleError", "main"]

#: The least that a processor can be asked for.
_NICE: Final = 19


class StaleError(VisavisError):
    """What a job was planned with is not there any more.

    Parameters
    ----------
    reason : str
        The name of an ErrorReason without its prefix.
    message : str
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


def main() -> None:
    """Compute one job."""
    os.nice(_NICE)
    # What a library prints must not be taken for what is said here.
    say = partial(_say, os.dup(1))
    os.dup2(2, 1)
    said = json.loads(_first_line())
    threading.Thread(target=_end_with_input, daemon=True).start()
    end: dict[str, Any]
    try:
        end = {"event": "succeeded", **_about(_computed(said, say))}
    except Exception as error:
        end = {"event": "failed", **_why(error)}
    say(end)
    # The thread waits for input for ever, and an orderly end would wait for the thread.
    os._exit(0)


def _first_line() -> bytes:
    """The first line of standard input, and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        line += byte
    return line


def _end_with_input() -> None:
    while os.read(0, 1_024):
        pass
    os._exit(1)


def _computed(said: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> Report:
    place, threads = open_place(said["place"]), said["threads"]
    pa.set_cpu_count(threads)
    job = planned_again(place, said["job_id"], said["journal"], said["variant"])
    has_begun, told = False, (False, -1)

    def tell(event: Event) -> None:
        nonlocal has_begun, told
        has_begun = has_begun or event.kind == "started"
        done = job.plan.part_count - event.counts.parts + event.counts.done
        if (has_begun, done) != told:
            told = has_begun, done
            say({"event": "parts", "done": done, "has_begun": has_begun})

    return job.run(partial(ThreadPool, threads=threads), on_event=tell)


def planned_again(place: Place, job_id: str, journal: str | None, variant: str | None) -> Job:
    """The job of a record, planned from what it names.

    Raises
    ------
    StaleError
        If that is not there any more.
    VisavisError
    """
    name = event_name(job_id, 0)
    content = place.read(name)
    if content is None:
        raise CorruptionError(f"{place}/{name} is missing")
    record = JobRecord.parse(content, f"{place}/{name}")
    plan = record.plan
    base = _base_of(record)
    overlay = None
    if journal is not None:
        with Journal.open(Path(journal)) as opened:
            overlay = opened.overlay(
                after=base.manifest.journal_offset, through=plan.journal_offset
            )
    job = Job.make(
        base,
        catalog_at(place, plan.catalog_digest),
        policy_at(place, plan.policy_digest),
        result_at(place, job_id),
        as_of=plan.as_of,
        overlay=overlay,
        reasons=plan.reasons,
        distinctive=plan.distinctive,
        variant=variant,
    )
    if job.plan.job_id != job_id:
        # Somebody was forgotten, or another release scores by another contract.
        raise StaleError(
            "VERSION_CHANGED", "what it was planned with has changed since: create another"
        )
    return job


def _base_of(record: JobRecord) -> StoredBase:
    plan = record.plan
    try:
        base = StoredBase.open(record.base, version=plan.base_version)
    except InputError:
        reason = f"version {plan.base_version} of the base is not where it was"
        raise StaleError("DIGEST_MISMATCH", reason) from None
    if base.digest != plan.base_digest:
        reason = f"version {plan.base_version} of the base has another digest than it had"
        raise StaleError("DIGEST_MISMATCH", reason)
    return base


def _about(report: Report) -> dict[str, Any]:
    result = report.result
    return {
        "customer_count": result.customer_count,
        "opportunity_count": result.opportunity_count,
        "result_digest": result.manifest.digest,
    }


def _why(error: Exception) -> dict[str, Any]:
    """How a failure is told: by its kind and place, never by what the error says of customers."""
    if isinstance(error, StaleError):
        return {"reason": error.reason, "message": error.message}
    if isinstance(error, InputError):
        field = f" ({error.field})" if error.field else ""
        return {"reason": "VERSION_UNFIT", "message": f"what it computes from does not fit{field}"}
    # Only here: who succeeds needs no gRPC.
    from visavis.gateway.errors import fault_of

    fault = fault_of(error)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    told = {"reason": fault.reason, "message": fault.message, "kind": type(error).__name__}
    return {**told, "where": where}


def _say(out: int, what: dict[str, Any]) -> None:
    line = json.dumps(what).encode() + b"\n"
    while line:
        line = line[os.write(out, line) :]


if __name__ == "__main__":
    main()
