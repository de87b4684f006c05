"""The files that jobs of the gateway are remembered by: sealed, created once, never changed.

::

    JOBS/jobs/<job id>.0000.json       what the job computes from (JobRecord)
              <job id>.0001.json …     what happened to it since (JobEvent), without gaps
         requests/<sha256>.json        what a request id was used for (RequestRecord)
         inputs/catalog.<digest>.parquet, policy.<digest>.json
         results/<job id>/             as `visavis rescore` makes it

A job's state is its last event. Catalog and policy are copied beside the jobs, because what is
served may come from files that change; the base stays where it is, it is named by its digest.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, Field

from visavis.catalog import Catalog
from visavis.errors import CorruptionError, InputError
from visavis.policy import Policy
from visavis.rescore import Plan
from visavis.sealed import Sealed
from visavis.store import Folder, Place, bytes_digest, json_bytes, parsed_json

__all__ = [
    "JOBS",
    "EventKind",
    "JobEvent",
    "JobRecord",
    "RequestRecord",
    "catalog_at",
    "event_name",
    "keep_inputs",
    "named_event",
    "place_text",
    "policy_at",
    "request_name",
    "result_at",
]

#: The folder of records and events.
JOBS: Final = "jobs"

_EVENT: Final = re.compile(r"jobs/([0-9a-f]{64})\.([0-9]{4,9})\.json")

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]

EventKind = Literal["resumed", "started", "succeeded", "failed", "cancelled"]


class JobRecord(Sealed):
    """What a job computes from.

    Attributes
    ----------
    plan : Plan
        Its digest is the job's id.
    base : str
        Where the base lies.
    created_at : datetime
    """

    readable_format: ClassVar[int] = 1

    format: int = 1
    plan: Plan
    base: str
    created_at: AwareDatetime

    @property
    def job_id(self) -> str:
        """The digest of the plan."""
        return self.plan.job_id


class JobEvent(Sealed):
    """What happened to a job.

    Attributes
    ----------
    job_id : str
    number : int
        From 1, without gaps: whoever wants the next one and finds it taken has missed something.
    kind : str
        ``resumed``: it was created again; ``started``: its first part was begun; or how it ended.
    at : datetime
    reason, message : str
        Of a failure: an ErrorReason without its prefix, and the same for people.
    customer_count, opportunity_count : int
    result_digest : str
        Of a success.
    """

    readable_format: ClassVar[int] = 1

    format: int = 1
    job_id: _Digest
    number: Annotated[int, Field(ge=1)]
    kind: EventKind
    at: AwareDatetime
    reason: str = ""
    message: str = ""
    customer_count: _Count = 0
    opportunity_count: _Count = 0
    result_digest: str = ""


class RequestRecord(Sealed):
    """What a request id was used for.

    Attributes
    ----------
    content : str
        Digest of the request without its id.
    record : JobRecord
        The job that it was answered with.
    number : int or None
        Of the event that it caused: 0 where it created the job; None where the job was there.
        Written before that event, so that a request that was broken off is finished when it is sent
        again.
    """

    readable_format: ClassVar[int] = 1

    format: int = 1
    content: _Digest
    record: JobRecord
    number: _Count | None


def event_name(job_id: str, number: int) -> str:
    """What a job's record (number 0) and its events are called."""
    return f"{JOBS}/{job_id}.{number:04d}.json"


def named_event(name: str) -> tuple[str, int] | None:
    """Job and number by a name; None if it is no record's."""
    found = _EVENT.fullmatch(name)
    if found is None or event_name(found[1], int(found[2])) != name:
        return None
    return found[1], int(found[2])


def request_name(request_id: str) -> str:
    """What the record of a request id is called."""
    return f"requests/{bytes_digest(request_id.encode())}.json"


def place_text(place: Place) -> str:
    """A place as another process opens it, wherever that runs."""
    return str(place.path.absolute()) if isinstance(place, Folder) else str(place)


def result_at(place: Place, job_id: str) -> Place:
    """Where a job's result lies."""
    return place.at(f"results/{job_id}")


def keep_inputs(place: Place, catalog: Catalog, policy: Policy, plan: Plan) -> None:
    """Copy catalog and policy beside the jobs, unless they lie there whole.

    Raises
    ------
    StorageError
    """
    for name, digest, content, found in (
        (_catalog_name(plan), plan.catalog_digest, _catalog_bytes(catalog), catalog_at),
        (_policy_name(plan), plan.policy_digest, _policy_bytes(policy), policy_at),
    ):
        if place.create(name, content):
            continue
        try:
            found(place, digest)
        except CorruptionError:
            place.replace(name, content)


def catalog_at(place: Place, digest: str) -> Catalog:
    """The catalog that was copied, by its digest.

    Raises
    ------
    CorruptionError
        If it is not there, or not as it was written.
    """
    name = f"inputs/catalog.{digest}.parquet"
    content = _read(place, name)
    try:
        catalog = Catalog.from_table(pq.read_table(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, InputError) as error:
        raise CorruptionError(f"{place}/{name} is damaged: {error}") from error
    if catalog.digest() != digest:
        raise CorruptionError(f"{place}/{name} does not fit its digest")
    return catalog


def policy_at(place: Place, digest: str) -> Policy:
    """The policy that was copied, by its digest; errors as of `catalog_at`."""
    name = f"inputs/policy.{digest}.json"
    content = parsed_json(_read(place, name), f"{place}/{name}")
    try:
        if content["ev_min"] is not None:
            content["ev_min"] = float.fromhex(content["ev_min"])
        content["control_share"] = float.fromhex(content["control_share"])
        policy = Policy(**content)
    except (InputError, TypeError, KeyError, ValueError) as error:
        raise CorruptionError(f"{place}/{name} is damaged: {error}") from error
    if policy.digest() != digest:
        raise CorruptionError(f"{place}/{name} does not fit its digest")
    return policy


def _catalog_name(plan: Plan) -> str:
    return f"inputs/catalog.{plan.catalog_digest}.parquet"


def _policy_name(plan: Plan) -> str:
    return f"inputs/policy.{plan.policy_digest}.json"


def _catalog_bytes(catalog: Catalog) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(catalog.to_table(), sink, compression="zstd")
    return sink.getvalue()


def _policy_bytes(policy: Policy) -> bytes:
    content = policy.model_dump()
    # JSON knows no infinity.
    content["ev_min"] = None if policy.ev_min is None else policy.ev_min.hex()
    content["control_share"] = policy.control_share.hex()
    return json_bytes(content)


def _read(place: Place, name: str) -> bytes:
    content = place.read(name)
    if content is None:
        raise CorruptionError(f"{place}/{name} is missing")
    return content
