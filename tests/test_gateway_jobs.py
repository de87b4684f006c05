"""Jobs over gRPC: created once, computed beside, watched, stopped, gone on with, read by frames."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

from gateways import AS_OF, IDS, Client, Code, World, a_catalog, listening, refused_as
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.errors import CorruptionError, StorageError
from visavis.gateway import job_runner, job_service, results
from visavis.gateway.job_files import JobEvent, event_name, policy_at, result_at
from visavis.gateway.jobs import Jobs
from visavis.gateway.results import ResultReader, Spot
from visavis.policy import Policy
from visavis.rescore import Job, Result
from visavis.store import Folder, FolderLock, bytes_digest
from visavis.v1 import errors_pb2, job_service_pb2

V1 = job_service_pb2


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def create(client: Client, request_id: str, **more: Any) -> Awaitable[Any]:
    return client.job.CreateRescoreJob(V1.CreateRescoreJobRequest(request_id=request_id, **more))


async def get(client: Client, job_id: str) -> Any:
    return (await client.job.GetJob(V1.GetJobRequest(job_id=job_id))).job


async def cancel(client: Client, job_id: str) -> Any:
    return (await client.job.CancelJob(V1.CancelJobRequest(job_id=job_id))).job


async def watched(client: Client, job_id: str) -> list[Any]:
    """Every message about a job, until it has ended."""
    call = client.job.WatchJob(V1.WatchJobRequest(job_id=job_id))
    return [each.job async for each in call]


async def frames_of(client: Client, job_id: str, token: str = "") -> list[Any]:
    request = V1.ReadResultsRequest(job_id=job_id, resume_token=token)
    return [each async for each in client.job.ReadResults(request)]


async def none_of(call: Any) -> None:
    """Read a stream that is to be refused."""
    async for _ in call:
        pass


@asynccontextmanager
async def jobs_of(world: World, **settings: Any) -> AsyncIterator[tuple[Any, Client]]:
    async with listening(world, jobs=str(world.folder / "jobs"), **settings) as found:
        yield found


def batch(world: World, out: str, **options: Any) -> Result:
    """The same job by the batch."""
    overlay = world.journal.overlay()
    made = Job.make(
        world.stored, world.catalog, world.policy, world.folder / out, overlay=overlay, **options
    )
    return made.run().result


def table_in(frame: Any) -> pa.Table:
    assert hashlib.sha256(frame.arrow).hexdigest() == frame.arrow_sha256
    table = pa.ipc.open_stream(frame.arrow).read_all()
    assert table.num_rows == frame.row_count
    return table


def test_a_job_is_the_batch_byte_for_byte(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Frames of two or three rows.
    monkeypatch.setattr(results, "FRAME_BYTES", 300)
    world.journal.append(objections=["c05"])
    audit = io.StringIO()

    async def scene() -> tuple[Any, list[Any]]:
        async with jobs_of(world, audit=audit) as (_, client):
            made = await create(client, "one", reason_count=2)
            assert not made.is_repeated
            assert (made.job.state, made.job.part_count) == (V1.JOB_STATE_PENDING, 4)
            assert not made.job.HasField("start_time")
            told = await watched(client, made.job.job_id)
            assert [each.job_id for each in told] == [made.job.job_id] * len(told)
            done = [each.done_part_count for each in told]
            assert done == sorted(done)
            job = told[-1]
            assert job == await get(client, job.job_id)
            assert (job.state, job.done_part_count) == (V1.JOB_STATE_SUCCEEDED, 4)
            assert job.create_time.ToDatetime() <= job.start_time.ToDatetime()
            assert job.start_time.ToDatetime() <= job.end_time.ToDatetime()
            again = await create(client, "one", reason_count=2)
            assert (again.is_repeated, again.job) == (True, job)
            other = await create(client, "two", reason_count=2)
            assert (other.is_repeated, other.job) == (True, job)
            reused = create(client, "one", reason_count=3)
            await refused_as(reused, Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            info = await client.catalog.GetServingInfo(_info())
            assert info.has_jobs
            assert info.version == job.version
            frames = await frames_of(client, job.job_id)
            for at in range(len(frames)):
                assert await frames_of(client, job.job_id, frames[at].resume_token) == (
                    frames[at + 1 :]
                )
            return job, frames

    job, frames = asyncio.run(scene())
    result = batch(world, "batch", reasons=2)
    assert job.job_id == result.plan.job_id
    assert job.result_digest == result.manifest.digest == frames[-1].result_digest
    assert (job.customer_count, job.opportunity_count) == (
        result.customer_count,
        result.opportunity_count,
    )
    assert len(frames) > 20
    by_part: dict[int, list[pa.Table]] = {}
    for frame in frames:
        assert frame.version == job.version
        assert len(frame.arrow) < 4_000
        by_part.setdefault(frame.part_index, []).append(table_in(frame))
    ends = [frame for frame in frames if frame.is_part_end]
    assert [frame.part_index for frame in ends] == list(by_part) == [0, 1, 2, 3]
    assert [bool(frame.result_digest) for frame in ends] == [False, False, False, True]
    for frame, tables in zip(ends, by_part.values(), strict=True):
        assert canonical_digest(pa.concat_tables(tables)) == frame.part_digest
        assert frame.part_digest == result.manifest.parts[frame.part_index].digest
    digests = "\n".join(frame.part_digest for frame in ends)
    assert bytes_digest(digests.encode()) == job.result_digest
    found = pa.concat_tables([each for tables in by_part.values() for each in tables])
    found = found.sort_by([("customer_id", "ascending"), ("rank", "ascending")])
    assert found.equals(world.batch(reasons=2).cast(found.schema))
    lines = [json.loads(line) for line in audit.getvalue().splitlines()]
    assert [(line["method"], line["code"]) for line in lines] == [
        ("JobService/CreateRescoreJob", code) for code in ("OK", "OK", "OK", "ALREADY_EXISTS")
    ]
    assert lines[0]["job_id"] == job.job_id


def _info() -> Any:
    from visavis.v1 import catalog_service_pb2

    return catalog_service_pb2.GetServingInfoRequest()
