"""`JobStatus` → `Job` of the contract, and the page tokens of ListJobs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import grpc

from visavis.errors import SchemaError
from visavis.gateway.answers import version_of
from visavis.gateway.errors import RefusedError
from visavis.gateway.jobs import JobState, JobStatus
from visavis.rescore import Plan
from visavis.serving import ServingVersion
from visavis.v1 import errors_pb2, version_pb2
from visavis.v1 import job_service_pb2 as v1

__all__ = ["job_of", "page_of_jobs", "version_in"]

_STATES: Final[dict[JobState, v1.JobState]] = {
    "pending": v1.JOB_STATE_PENDING,
    "running": v1.JOB_STATE_RUNNING,
    "succeeded": v1.JOB_STATE_SUCCEEDED,
    "failed": v1.JOB_STATE_FAILED,
    "cancelled": v1.JOB_STATE_CANCELLED,
}

#: Of the last job of a page: when it was created, in microseconds, and its id; then a digest.
_TOKEN: Final = struct.Struct(">Q32s8s")


def version_in(plan: Plan) -> version_pb2.ServingVersion:
    """What a job computes from."""
    return version_of(
        ServingVersion(
            plan.base_version,
            plan.base_digest,
            plan.catalog_digest,
            plan.policy_digest,
            plan.journal_offset,
            plan.as_of,
        )
    )


def job_of(status: JobStatus, done_part_count: int) -> v1.Job:
    """A job as the contract has it."""
    plan, end = status.record.plan, status.end
    job = v1.Job(
        job_id=status.job_id,
        state=_STATES[status.state],
        version=version_in(plan),
        create_time=status.record.created_at,
        part_count=plan.part_count,
        done_part_count=done_part_count,
    )
    if status.started_at is not None:
        job.start_time.FromDatetime(status.started_at)
    if plan.reasons is not None:
        job.reason_count = plan.reasons
    if end is None:
        return job
    job.end_time.FromDatetime(end.at)
    job.customer_count = end.customer_count
    job.opportunity_count = end.opportunity_count
    job.result_digest = end.result_digest
    if end.kind == "failed":
        # A newer release may have written a reason that this one does not know.
        reasons = dict(errors_pb2.ErrorReason.items())
        reason = reasons.get(f"ERROR_REASON_{end.reason}", errors_pb2.ERROR_REASON_UNSPECIFIED)
        job.error.CopyFrom(v1.JobError(reason=reason, message=end.message))
    return job


def page_of_jobs(
    found: Sequence[JobStatus], request: v1.ListJobsRequest, size: int
) -> tuple[list[JobStatus], str]:
    """The jobs of a page, and the token of the next one.

    Jobs that are created meanwhile stand before the first page, and move nothing.

    Parameters
    ----------
    found : sequence of JobStatus
        All, in the order of a listing.
    request : ListJobsRequest
    size : int
        Of a page.

    Raises
    ------
    SchemaError
        If the state is none.
    RefusedError
        If no server gave the token for this request.
    """
    if request.state not in v1.JobState.values():
        raise SchemaError(f"must be a state, got {request.state}", field="state")
    after = _after(request)
    wanted = [
        each
        for each in found
        if request.state in (v1.JOB_STATE_UNSPECIFIED, _STATES[each.state])
        and (after is None or _key(each) > after)
    ]
    shown = wanted[:size]
    return shown, _token(shown[-1], request) if len(wanted) > size else ""


def _key(status: JobStatus) -> tuple[int, bytes]:
    """Where a job stands in a listing: newest first, then by id."""
    return -_micros(status.record.created_at), bytes.fromhex(status.job_id)


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def _after(request: v1.ListJobsRequest) -> tuple[int, bytes] | None:
    if not request.page_token:
        return None
    try:
        held = base64.b64decode(request.page_token.encode(), altchars=b"-_", validate=True)
        micros, job, seal = _TOKEN.unpack(held)
    except (ValueError, binascii.Error, struct.error):
        raise _no_token() from None
    if _seal(micros, job, request) != seal:
        raise _no_token()
    return -micros, job


def _token(last: JobStatus, request: v1.ListJobsRequest) -> str:
    micros, job = _micros(last.record.created_at), bytes.fromhex(last.job_id)
    packed = _TOKEN.pack(micros, job, _seal(micros, job, request))
    return base64.urlsafe_b64encode(packed).decode()


def _seal(micros: int, job: bytes, request: v1.ListJobsRequest) -> bytes:
    said = struct.pack(">QI", micros, request.state) + job
    return hashlib.sha256(b"jobs\0" + said).digest()[:8]


def _no_token() -> Any:
    reason = "was not given for this request"
    return RefusedError(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN", reason, field="page_token"
    )
