"""`Runner`: computes the jobs of a place one at a time, each in a process of its own.

The process is niced and knows nothing of the server; when it dies the job is run again, and when
the server is told to stop, or dies, it ends and the job is gone on with by whoever comes next. Of
several servers on one folder one computes; the others take over when it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from visavis.domain import utc_now
from visavis.errors import CorruptionError, StorageError, VisavisError
from visavis.gateway.audit import Audit
from visavis.gateway.job_files import place_text
from visavis.gateway.jobs import Jobs, JobState, JobStatus
from visavis.journal import Journal
from visavis.store import FolderLock

__all__ = ["Changes", "Runner"]

#: How often it is looked for what other processes wrote.
_LOOK_S: Final = 1.0

#: A job whose process dies so often without a part more is given up.
_DEATHS_MAX: Final = 3

#: Before what failed for want of storage, or died, is tried again; then twice as long, and so on.
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 30.0

#: How long a process that was told to end may take.
_END_S: Final = 5.0

#: Who objects so soon after a job was created is as one who objects while it runs.
_AT_ONCE: Final = timedelta(seconds=10)

_MODULE: Final = "visavis.gateway.job_process"


class Changes:
    """Wakes whoever waits for a job to have changed; of one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        """Belong to the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def notify_soon(self) -> None:
        """Wake all who wait, from any thread."""
        if self._loop is not None:
            # A loop that has been closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.notify)

    def notify(self) -> None:
        """Wake all who wait."""
        event, self._next = self._next, asyncio.Event()
        event.set()

    def next(self) -> asyncio.Event:
        """What is set at the next change: to be taken before one looks whether one must wait."""
        return self._next

    @staticmethod
    async def wait(change: asyncio.Event, timeout_s: float | None) -> None:
        """Wait for a change, or for some time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), timeout_s)


@dataclass(slots=True)
class _Trouble:
    """How often a job's process died since it got as far as this."""

    job_id: str
    done: int = 0
    deaths: int = 0


class Runner:
    """Computes what waits.

    Parameters
    ----------
    jobs : Jobs
    changes : Changes
        Told of everything that happens to a job.
    audit : Audit
        For faults of the server.
    journal : Path, optional
    threads : int
        Of a job.
    variant : str, optional
        See `kernel.choose_variant`.
    """

    def __init__(
        self,
        jobs: Jobs,
        changes: Changes,
        audit: Audit,
        *,
        journal: Path | None,
        threads: int,
        variant: str | None,
    ) -> None:
        self._jobs = jobs
        self._changes = changes
        self._audit = audit
        self._journal = journal
        self._threads = threads
        self._variant = variant
        self._lock = FolderLock(jobs.place, "runner.lock")
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._trouble = _Trouble("")

    @property
    def look_s(self) -> float | None:
        """How often others may have changed something; None where nobody else can."""
        return _LOOK_S if self._lock.is_shared else None

    def start(self) -> None:
        """Compute from now on."""
        self._changes.bind()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Compute nothing more; what is under way is left to be gone on with."""
        self._is_stopping = True
        self._changes.notify()
        if self._task is not None:
            await self._task
        self._lock.release()

    async def _run(self) -> None:
        pause_s = _PAUSE_S
        while not self._is_stopping:
            change, wait_s = self._changes.next(), self.look_s
            try:
                status = await asyncio.to_thread(self._take)
                if status is not None:
                    await self._attempt(status)
                pause_s = _PAUSE_S
            except Exception as error:
                # Storage that is out of reach now may be back later.
                self._audit.write("fault", type(error).__name__, "JOBS")
                status, wait_s, pause_s = None, pause_s, min(2 * pause_s, _PAUSE_MAX_S)
            if status is None and not self._is_stopping:
                await Changes.wait(change, wait_s)

    def _take(self) -> JobStatus | None:
        """The next job, if it is for this process to compute it."""
        is_ours = self._lock.take()
        self._jobs.refresh()
        status = self._jobs.next_waiting()
        if is_ours or status is None:
            return status
        # Another process computes it: how far it is, is counted when somebody asks.
        self._jobs.set_done(status.job_id, None)
        return None

    async def _attempt(self, status: JobStatus) -> None:
        """Run a job's process once, and write down how the job ended, if it did."""
        job_id = status.job_id
        stale = await asyncio.to_thread(self._stale, status)
        end = stale or await self._process(status)
        done = await asyncio.to_thread(self._jobs.count_parts, job_id)
        if end is None:
            end = self._died(job_id, done)
            if end is None:
                await Changes.wait(self._changes.next(), _PAUSE_S)
                return
        if end["event"] == "stopped":
            self._changes.notify()
            return
        if "kind" in end and end["reason"] == "UNSPECIFIED":
            self._audit.write("fault", end["kind"], "INTERNAL", where=end["where"])
        fields = {key: each for key, each in end.items() if key not in ("event", "kind", "where")}
        await asyncio.to_thread(self._jobs.happened, job_id, end["event"], **fields)
        self._changes.notify()

    def _died(self, job_id: str, done: int) -> dict[str, Any] | None:
        """What a death means: None, it is tried again; or the end of the job."""
        self._audit.write("fault", "JobProcess", "DIED", job_id=job_id)
        trouble = self._trouble
        if (trouble.job_id, trouble.done) != (job_id, done):
            # Death after death, but a part more each time, is no reason to give up.
            trouble = self._trouble = _Trouble(job_id, done)
        trouble.deaths += 1
        if trouble.deaths < _DEATHS_MAX:
            return None
        self._trouble = _Trouble("")
        message = f"its process died {_DEATHS_MAX} times, with {done} parts done"
        return _failed("UNSPECIFIED", message)

    async def _process(self, status: JobStatus) -> dict[str, Any] | None:
        """Run a process to its end; what it said last, None if it died."""
        process = await asyncio.to_thread(self._begin)
        stopped = asyncio.Event()
        minder = asyncio.create_task(self._mind(status.job_id, process, stopped))
        try:
            end = await asyncio.to_thread(self._hear, process, status)
        finally:
            minder.cancel()
            await asyncio.to_thread(_end, process)
        return {"event": "stopped"} if end is None and stopped.is_set() else end

    def _begin(self) -> subprocess.Popen[bytes]:
        # Not by the event loop: uvloop would fork, and gRPC's handlers of forks then stop and
        # restart what other threads are at work with. Python's own way is vfork, which runs none.
        return subprocess.Popen(  # noqa: S603 (this Python, and a module of this package)
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            # An interrupt at a terminal is for the server, which tells it then.
            start_new_session=True,
        )

    def _hear(self, process: subprocess.Popen[bytes], status: JobStatus) -> dict[str, Any] | None:
        """Tell a process its job, and note what it says of it until it ends."""
        assert process.stdin is not None  # noqa: S101 (asked for above)
        assert process.stdout is not None  # noqa: S101
        end: dict[str, Any] | None = None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(self._task_of(status))
                process.stdin.flush()
            with process.stdout as lines:
                for line in lines:
                    said = json.loads(line)
                    if said["event"] != "parts":
                        end = said
                        continue
                    if said["has_begun"] and self._state(status.job_id) == "pending":
                        self._jobs.happened(status.job_id, "started")
                    self._jobs.set_done(status.job_id, said["done"])
                    self._changes.notify_soon()
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        return end

    def _task_of(self, status: JobStatus) -> bytes:
        place = self._jobs.place
        said = {
            "place": place_text(place),
            "job_id": status.job_id,
            "journal": None if self._journal is None else str(self._journal.absolute()),
            "threads": self._threads,
            "variant": self._variant,
        }
        return json.dumps(said).encode() + b"\n"

    async def _mind(
        self, job_id: str, process: subprocess.Popen[bytes], stopped: asyncio.Event
    ) -> None:
        """End a process whose job was cancelled, or whose server is about to stop."""
        looked_at = time.monotonic()
        while True:
            change = self._changes.next()
            # Another process may have cancelled it; what was done here is known.
            if self._lock.is_shared and time.monotonic() - looked_at >= _LOOK_S:
                with contextlib.suppress(StorageError):
                    await asyncio.to_thread(self._jobs.refresh)
                looked_at = time.monotonic()
            if self._is_stopping or self._state(job_id) not in ("pending", "running"):
                stopped.set()
                await asyncio.to_thread(_end, process)
                return
            await Changes.wait(change, self.look_s)

    def _state(self, job_id: str) -> JobState | None:
        """Where a job is; None where that cannot be told any more."""
        try:
            status = self._jobs.find(job_id)
        except CorruptionError:
            return None
        return None if status is None else status.state

    def _stale(self, status: JobStatus) -> dict[str, Any] | None:
        """Why a job must not be begun or gone on with any more; None if it may."""
        plan = status.record.plan
        is_new = status.state == "pending" and utc_now() - status.queued_at < _AT_ONCE
        if self._journal is None:
            if plan.overlay_digest is None:
                return None
            return _failed("JOURNAL_ABSENT", "the server runs without the journal")
        if is_new:
            return None
        try:
            with Journal.open(self._journal) as journal:
                overlay = journal.overlay(after=plan.journal_offset)
        except CorruptionError:
            return _failed("CORRUPTED", "the journal is not as it was written")
        except StorageError:
            raise
        except VisavisError:
            return _failed("VERSION_CHANGED", "the journal is another: create another job")
        if not len(overlay.objections):
            return None
        # An objection counts in every result that is made from then on.
        message = f"customers objected since offset {plan.journal_offset}: create another job"
        return _failed("VERSION_CHANGED", message)


def _failed(reason: str, message: str) -> dict[str, Any]:
    return {"event": "failed", "reason": reason, "message": message}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, gently at first; killed anywhere, it loses nothing but time."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
