"""JobService: the full base rescored beside what is served, and what came of it, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import grpc

from visavis.errors import CorruptionError, NotFoundError
from visavis.gateway.desk import Desk, remaining_s
from visavis.gateway.errors import RETRY_S, RefusedError, abort
from visavis.gateway.job_creation import content_of, record_of
from visavis.gateway.job_files import result_at
from visavis.gateway.job_messages import job_of, page_of_jobs
from visavis.gateway.job_runner import Changes, Runner
from visavis.gateway.job_streams import Frames, Seats, busy, looked_at
from visavis.gateway.jobs import Jobs, JobStatus
from visavis.gateway.limits import page_size
from visavis.gateway.profile_service import check_request_id
from visavis.gateway.results import ResultReader, Spot, opened
from visavis.store import Place
from visavis.v1 import job_service_pb2 as v1
from visavis.v1.job_service_pb2_grpc import JobServiceServicer

__all__ = ["JobService"]

#: Results that are read at a time: each keeps two parts in memory.
_READERS_MAX: Final = 8

#: Jobs that are watched at a time, by everybody.
_WATCHERS_MAX: Final = 1_000

#: Who does not read for so long gives up the seat, and may go on behind the last frame.
_STALL_S: Final = 60.0

#: Between two messages about one job: parts may end faster than anybody looks.
_BREATH_S: Final = 0.1

T = TypeVar("T")


class JobService(JobServiceServicer):
    """Remembers, computes and reads jobs at one place.

    Parameters
    ----------
    desk : Desk
    place : Place or None
        None: every call is refused.
    journal : Path, optional
        Of what is served.
    threads : int
        Of a job.
    variant : str, optional
        See `kernel.choose_variant`.
    """

    def __init__(
        self,
        desk: Desk,
        place: Place | None,
        *,
        journal: Path | None,
        threads: int,
        variant: str | None,
    ) -> None:
        self._desk = desk
        self._journal = journal
        self._changes = Changes()
        self._creating = threading.Lock()
        self._is_draining = False
        self._looks: dict[str, _Look] = {}
        self._readers = Seats(_READERS_MAX)
        self._watchers = Seats(_WATCHERS_MAX)
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="visavis-results")
        self._held = None if place is None else Jobs(place, self._tell_damage)
        self._runner = None
        if self._held is not None:
            self._runner = Runner(
                self._held,
                self._changes,
                desk.audit,
                journal=journal,
                threads=threads,
                variant=variant,
            )

    @property
    def has_jobs(self) -> bool:
        """Whether there is a place for results."""
        return self._held is not None

    async def load(self) -> None:
        """Read which jobs there are.

        Raises
        ------
        StorageError
            If the place cannot be read.
        """
        if self._held is not None:
            await asyncio.to_thread(self._held.refresh)

    def open(self) -> None:
        """Compute what waits, from now on."""
        if self._runner is not None:
            self._runner.start()

    async def drain(self) -> None:
        """Stop computing, and end streams; both are gone on with later."""
        self._is_draining = True
        self._changes.notify()
        if self._runner is not None:
            await self._runner.stop()

    def close(self) -> None:
        """Wait for the threads."""
        self._reading.shutdown(cancel_futures=True)

    async def CreateRescoreJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        told = {"request_id": request.request_id[:128]}
        return await self._answer(
            context, partial(self._create, request, told), "", ("CreateRescoreJob", told)
        )

    async def GetJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._answer(context, partial(self._get, request.job_id), request.job_id)

    async def ListJobs(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._answer(context, partial(self._list, request), "")

    async def CancelJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        told: dict[str, str] = {}
        work = partial(self._cancel, request.job_id, told)
        return await self._answer(context, work, request.job_id, ("CancelJob", told))

    async def WatchJob(self, request: Any, context: Any) -> None:  # noqa: N802
        """See the contract."""
        await self._stream(context, partial(self._watch, request.job_id, context), request.job_id)

    async def ReadResults(self, request: Any, context: Any) -> None:  # noqa: N802
        """See the contract."""
        await self._stream(context, partial(self._read, request, context), request.job_id)

    # ---- one answer ------------------------------------------------------------------------

    async def _answer(
        self,
        call: Any,
        work: Callable[[], T],
        job_id: str,
        audited: tuple[str, dict[str, str]] | None = None,
    ) -> T:
        method, told = audited or ("", None)
        return await self._desk.answer(
            call,
            work,
            queue="job",
            missing=("job", job_id),
            audited=told,
            method=f"JobService/{method}",
        )

    @property
    def _jobs(self) -> Jobs:
        if self._held is None:
            reason = "the server runs without a place for results"
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "JOBS_ABSENT", reason)
        return self._held

    def _create(
        self, request: v1.CreateRescoreJobRequest, told: dict[str, str]
    ) -> v1.CreateRescoreJobResponse:
        jobs = self._jobs
        check_request_id(request.request_id)
        content = content_of(request)
        with self._creating:
            created = jobs.answered(request.request_id, content)
            if created is None:
                record = record_of(request, self._desk.serving, self._journal, jobs.place)
                created = jobs.create(request.request_id, content, record)
        told["job_id"] = created.status.job_id
        self._changes.notify_soon()
        job = self._message(created.status)
        return v1.CreateRescoreJobResponse(job=job, is_repeated=created.is_repeated)

    def _get(self, job_id: str) -> v1.GetJobResponse:
        return v1.GetJobResponse(job=self._message(self._status(job_id)))

    def _list(self, request: v1.ListJobsRequest) -> v1.ListJobsResponse:
        jobs = self._jobs
        size = page_size(request.page_size)
        jobs.refresh()
        shown, token = page_of_jobs(jobs.all(), request, size)
        return v1.ListJobsResponse(jobs=map(self._message, shown), next_page_token=token)

    def _cancel(self, job_id: str, told: dict[str, str]) -> v1.CancelJobResponse:
        status = self._status(job_id)
        # Not before: what is no job's id may be anybody's.
        told["job_id"] = status.job_id
        status = self._jobs.happened(status.job_id, "cancelled")
        self._changes.notify_soon()
        return v1.CancelJobResponse(job=self._message(status))

    def _status(self, job_id: str) -> JobStatus:
        """A job as it is now.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        self._jobs.refresh()
        return self._known(job_id)

    def _known(self, job_id: str) -> JobStatus:
        """A job as it was when the files were looked at last."""
        status = self._jobs.find(job_id)
        if status is None:
            raise NotFoundError(f"there is no job {job_id!r:.80}")
        return status

    def _message(self, status: JobStatus) -> v1.Job:
        return job_of(status, self._jobs.done_part_count(status))

    def _tell_damage(self, error: CorruptionError) -> None:
        self._desk.audit.write("fault", "CorruptionError", "DATA_LOSS", said=str(error))

    # ---- streams ---------------------------------------------------------------------------

    async def _stream(self, call: Any, work: Callable[[], Awaitable[None]], job_id: str) -> None:
        """Answer with a stream, or end it with what went wrong."""
        try:
            await work()
        except Exception as error:
            await abort(call, self._desk.fault(error, "job", missing=("job", job_id)))

    def _check_draining(self) -> None:
        if self._is_draining:
            code = grpc.StatusCode.UNAVAILABLE
            reason = "the server is about to stop"
            raise RefusedError(code, "DRAINING", reason, retry_s=RETRY_S)

    async def _watch(self, job_id: str, call: Any) -> None:
        left, work = remaining_s(call), partial(self._get, job_id)
        # What is not there is refused before a seat is taken.
        await self._desk.run(work, remaining_s=left, queue="job")
        look_s = None if self._runner is None else self._runner.look_s
        told = None
        with self._watchers.one("watched"):
            while True:
                change = self._changes.next()
                job, has_ended = await self._look(job_id, change)
                if job != told:
                    await call.write(v1.WatchJobResponse(job=job))
                    told = job
                if has_ended:
                    return
                self._check_draining()
                await Changes.wait(change, look_s)
                await asyncio.sleep(_BREATH_S)

    async def _look(self, job_id: str, change: asyncio.Event) -> tuple[v1.Job, bool]:
        """A job as it is now, and whether it has ended: one look for all who wait for one."""
        look = self._looks.get(job_id)
        if look is None or look.change is not change:
            task = asyncio.create_task(asyncio.to_thread(self._seen, job_id))
            task.add_done_callback(looked_at)
            look = self._looks[job_id] = _Look(change, task)
        try:
            return await asyncio.shield(look.task)
        finally:
            if look.task.done() and self._looks.get(job_id) is look:
                del self._looks[job_id]

    def _seen(self, job_id: str) -> tuple[v1.Job, bool]:
        status = self._known(job_id)
        return self._message(status), status.has_ended

    async def _read(self, request: v1.ReadResultsRequest, call: Any) -> None:
        loop, work = asyncio.get_running_loop(), partial(self._opened, request)
        reader, spot = await self._desk.run(work, remaining_s=remaining_s(call), queue="job")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._readers.one("read"))
            frames = Frames(self._reading, reader, spot)
            stack.callback(frames.stop)
            while (frame := await frames.next()) is not None:
                self._check_draining()
                # Cheaper than a task of each write, to wait for.
                stalled = loop.call_later(_STALL_S, stack.close)
                try:
                    await call.write(frame)
                finally:
                    stalled.cancel()
                if frames.is_stopped:
                    raise busy(f"nothing was read for {_STALL_S:g} s: go on behind this frame")

    def _opened(self, request: v1.ReadResultsRequest) -> tuple[ResultReader, Spot]:
        status = self._status(request.job_id)
        if status.state != "succeeded":
            code, reason = grpc.StatusCode.FAILED_PRECONDITION, f"the job is {status.state}"
            raise RefusedError(code, "JOB_NOT_SUCCEEDED", reason)
        reader = ResultReader(opened(result_at(self._jobs.place, status.job_id)))
        return reader, reader.spot(request.resume_token)


class _Look(NamedTuple):
    """A look at a job, begun before some change, and what is seen."""

    change: asyncio.Event
    task: asyncio.Task[tuple[v1.Job, bool]]
