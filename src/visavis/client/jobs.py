"""The methods of jobs: the full base, rescored by the server. See `plans`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from visavis.client import decoding, results
from visavis.client.congestion import in_turn
from visavis.client.encoding import checked_count, checked_text, day_text
from visavis.client.errors import UnavailableError
from visavis.client.plans import new_request_id
from visavis.client.reading import Reading
from visavis.client.rpcs import (
    CANCEL_JOB,
    CREATE_RESCORE_JOB,
    GET_JOB,
    LIST_JOBS,
    READ_RESULTS,
    WATCH_JOB,
)
from visavis.client.state import State
from visavis.client.steps import Budget, Call, Emit, Open, Plan, Read, Sleep, Step, Stream
from visavis.v1 import job_service_pb2 as v1

__all__ = ["cancel_job", "create_rescore_job", "job", "jobs", "read_results", "watch_job"]

#: Between one attempt to go on with a stream and the next: doubled up to the second.
_BACKOFF_S = 0.1
_BACKOFF_MAX_S = 2.0


def create_rescore_job(
    state: State,  # noqa: ARG001 (every plan has one)
    *,
    as_of: date | str | None = None,
    reasons: int | None = None,
    distinctive: bool = False,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Plan[results.CreatedJob]:
    """Begin to rescore the full base as it is served now; returns long before it ends.

    Parameters
    ----------
    as_of : date or str, optional
        None: the served version's.
    reasons : int, optional
        At most so many per opportunity; None: no such column.
    distinctive : bool
    request_id : str, optional
        The same id is answered with the same job.
    timeout_s : float, optional

    Raises
    ------
    GatewayError
        StateError: the server runs without a place for results.
    """
    named = new_request_id(request_id)
    request = v1.CreateRescoreJobRequest(
        request_id=named,
        as_of=day_text(as_of, "as_of"),
        reason_count=None if reasons is None else checked_count(reasons, "reason_count"),
        distinctive_reasons=distinctive,
    )
    answer = yield Call(CREATE_RESCORE_JOB, request, Budget(timeout_s))
    return results.CreatedJob(named, decoding.job(answer.job), answer.is_repeated)


def job(
    state: State,  # noqa: ARG001
    job_id: str,
    *,
    timeout_s: float | None = None,
) -> Plan[results.Job]:
    """One job.

    Raises
    ------
    GatewayError
        UnknownIdError: there is no such job.
    """
    request = v1.GetJobRequest(job_id=checked_text(job_id, "job_id"))
    answer = yield Call(GET_JOB, request, Budget(timeout_s))
    return decoding.job(answer.job)


def jobs(
    state: State,  # noqa: ARG001
    *,
    job_state: results.JobState | None = None,
    page_size: int = 0,
    timeout_s: float | None = None,
) -> Stream[results.Job]:
    """Jobs, the newest first.

    Parameters
    ----------
    job_state : JobState, optional
        Only those in this state.
    page_size : int
        Asked for at a time; 0: the server's choice.
    timeout_s : float, optional
        For each page.

    Raises
    ------
    GatewayError
    """
    request = v1.ListJobsRequest(page_size=checked_count(page_size, "page_size"))
    if job_state is not None:
        request.state = v1.JobState.Value(f"JOB_STATE_{results.JobState(job_state).name}")
    while True:
        call = Call(LIST_JOBS, request, Budget(timeout_s))
        answer = yield from in_turn(call, is_first=not request.page_token)
        for each in answer.jobs:
            yield Emit(decoding.job(each))
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def cancel_job(
    state: State,  # noqa: ARG001
    job_id: str,
    *,
    timeout_s: float | None = None,
) -> Plan[results.Job]:
    """Stop a job; parts that are done stay for when it is created again.

    Raises
    ------
    GatewayError
        UnknownIdError: there is no such job.
    """
    request = v1.CancelJobRequest(job_id=checked_text(job_id, "job_id"))
    answer = yield Call(CANCEL_JOB, request, Budget(timeout_s))
    return decoding.job(answer.job)


def watch_job(state: State, job_id: str, *, timeout_s: float | None = None) -> Stream[results.Job]:
    """The job at once, then whenever it has changed, until it has ended.

    A watch that breaks off is taken up again.

    Parameters
    ----------
    job_id : str
    timeout_s : float, optional
        For how long the server may be away; a job itself may stay as it is for longer.

    Raises
    ------
    GatewayError
        UnknownIdError: there is no such job.
    """
    request = v1.WatchJobRequest(job_id=checked_text(job_id, "job_id"))
    last: results.Job | None = None
    patience = _Patience(state, timeout_s)
    while True:
        try:
            yield Open(WATCH_JOB, request)
            while (answer := (yield Read(None))) is not None:
                patience.renew()
                now = decoding.job(answer.job)
                if now != last:
                    yield Emit(now)
                last = now
            return
        except UnavailableError as error:
            yield from patience.wait(error)


def read_results(
    state: State, job_id: str, *, resume_token: str = "", timeout_s: float | None = None
) -> Stream[results.ResultFrame]:
    """What a job found, as frames of a table each, every digest verified.

    A reading that breaks off goes on behind the last frame. To go on in another process, keep the
    frame's `resume_token`; what was read from its beginning is compared with its digest as a whole
    too: each part, and the result.

    Parameters
    ----------
    job_id : str
        It must have succeeded.
    resume_token : str
        Of the last frame that somebody has; empty: from the beginning.
    timeout_s : float, optional
        For each frame, and for how long the server may be away.

    Raises
    ------
    GatewayError
        DamageError: what was read is not what its digest says, or ended too early; StateError: the
        job has no result.
    """
    reading = Reading(checked_text(job_id, "job_id"), checked_text(resume_token, "resume_token"))
    patience = _Patience(state, timeout_s)
    while True:
        try:
            yield Open(READ_RESULTS, reading.request())
            while (answer := (yield Read(patience.timeout_s))) is not None:
                patience.renew()
                yield Emit(reading.taken(answer))
            reading.check_end()
            return
        except UnavailableError as error:
            if reading.is_complete:
                return
            yield from patience.wait(error)


class _Patience:
    """For how long a server may be away before a stream is given up."""

    def __init__(self, state: State, timeout_s: float | None) -> None:
        self.timeout_s = state.timeout_s if timeout_s is None else timeout_s
        self.renew()

    def renew(self) -> None:
        """It has answered."""
        self._budget = Budget(self.timeout_s)
        self._pause_s = _BACKOFF_S

    def wait(self, error: UnavailableError) -> Iterator[Step]:
        """Wait before the next attempt, as long as the server said, or longer each time.

        Raises
        ------
        UnavailableError
            If there is no time left.
        """
        left_s = self._budget.left_s(self.timeout_s)
        if not left_s:
            raise error
        yield Sleep(min(max(self._pause_s, error.retry_s or 0.0), left_s))
        self._pause_s = min(2 * self._pause_s, _BACKOFF_MAX_S)
