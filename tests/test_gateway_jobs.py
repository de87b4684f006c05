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


class Gate:
    """Lets the parts of jobs through: so many of each process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "gate"
        self.folder.mkdir()

    def open(self, count: int) -> None:
        for number in range(1, count + 1):
            (self.folder / str(number)).touch()


@pytest.fixture(name="gate")
def a_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate(tmp_path)
    monkeypatch.setattr(job_runner, "_MODULE", "held_job")
    monkeypatch.setenv("VISAVIS_GATE", str(gate.folder))
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return gate


async def until(client: Client, job_id: str, holds: Callable[[Any], bool]) -> Any:
    """The first message about a job for which something holds."""
    call = client.job.WatchJob(V1.WatchJobRequest(job_id=job_id), timeout=60)
    async for each in call:
        if holds(each.job):
            call.cancel()
            return each.job
    raise AssertionError("the job has ended otherwise")


def children() -> list[int]:
    """The processes that this one has started and that are not gone."""
    said = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for task in Path("/proc/self/task").iterdir():
        said += (task / "children").read_text().split()
    return sorted({int(each) for each in said})


def part_files(world: World, job_id: str) -> dict[str, int]:
    folder = world.folder / "jobs" / "results" / job_id / "parts"
    return {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}


def test_jobs_wait_for_each_other_and_a_cancelled_one_goes_on(world: World, gate: Gate) -> None:
    pending, running = V1.JOB_STATE_PENDING, V1.JOB_STATE_RUNNING
    other = a_catalog(bias=1.0)
    other.write(world.folder / "other.parquet")
    gate.open(2)

    async def listed(client: Client, **more: Any) -> list[str]:
        ids, token = [], ""
        while True:
            request = V1.ListJobsRequest(page_size=1, page_token=token, **more)
            answer = await client.job.ListJobs(request)
            ids += [each.job_id for each in answer.jobs]
            token = answer.next_page_token
            if not token:
                return ids

    async def scene() -> tuple[str, str]:
        async with jobs_of(world) as (_, client):
            first = (await create(client, "first")).job.job_id
            job = await until(client, first, lambda job: job.done_part_count == 2)
            assert job.state == running
            assert not job.HasField("end_time")
            day = AS_OF.replace(day=2).isoformat()
            second = (await create(client, "second", as_of=day)).job.job_id
            third = (await create(client, "third", reason_count=1)).job.job_id
            assert await listed(client) == [third, second, first]
            assert await listed(client, state=pending) == [third, second]
            assert await listed(client, state=running) == [first]
            assert await listed(client, state=V1.JOB_STATE_FAILED) == []
            # What is computed is what was served when it was created.
            location = {"location": "other.parquet"}
            await client.catalog.PublishVersion(_publish("p", catalog=location))
            before = part_files(world, first)
            assert (await cancel(client, third)).state == V1.JOB_STATE_CANCELLED
            stopped = await cancel(client, first)
            assert (stopped.state, stopped.HasField("end_time")) == (V1.JOB_STATE_CANCELLED, True)
            assert await cancel(client, first) == stopped
            assert (await watched(client, first))[-1] == stopped
            reading = client.job.ReadResults(V1.ReadResultsRequest(job_id=first))
            await refused_as(none_of(reading), Code.FAILED_PRECONDITION, "JOB_NOT_SUCCEEDED")
            # The next one is computed.
            await until(client, second, lambda job: job.done_part_count == 2)
            # Who only asks again what came of the request wakes nobody.
            assert (await create(client, "first")).job.state == V1.JOB_STATE_CANCELLED
            location = {"location": "first.parquet"}
            world.catalog.write(world.folder / "first.parquet")
            await client.catalog.PublishVersion(_publish("q", catalog=location))
            made = await create(client, "once more")
            assert (made.is_repeated, made.job.job_id) == (True, first)
            assert (made.job.state, made.job.done_part_count) == (pending, 2)
            assert (made.job.create_time, made.job.start_time) == (
                stopped.create_time, stopped.start_time)  # fmt: skip
            gate.open(4)
            assert (await watched(client, second))[-1].state == V1.JOB_STATE_SUCCEEDED
            ended = (await watched(client, first))[-1]
            assert ended.state == V1.JOB_STATE_SUCCEEDED
            assert await cancel(client, first) == ended
            after = part_files(world, first)
            assert {name: after[name] for name in before} == before
            assert (await get(client, third)).state == V1.JOB_STATE_CANCELLED
            return first, second

    first, second = asyncio.run(scene())
    for job_id, out, options in ((first, "one", {}), (second, "two", {"as_of": "2026-03-02"})):
        found = Result.open(world.folder / "jobs" / "results" / job_id)
        assert found.manifest.digest == batch(world, out, **options).manifest.digest


def _publish(request_id: str, **more: Any) -> Any:
    from visavis.v1 import catalog_service_pb2

    return catalog_service_pb2.PublishVersionRequest(request_id=request_id, **more)


def test_a_killed_process_is_started_again(world: World, gate: Gate) -> None:
    gate.open(1)

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            job_id = (await create(client, "one")).job.job_id
            await until(client, job_id, lambda job: job.done_part_count == 1)
            (child,) = children()
            assert os.getpriority(os.PRIO_PROCESS, child) == 19
            gate.open(4)
            os.kill(child, signal.SIGKILL)
            assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED
            assert children() == []

    asyncio.run(scene())


@pytest.mark.faults
def test_a_process_that_always_dies_fails_its_job_which_goes_on_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = io.StringIO()

    async def scene() -> None:
        async with jobs_of(world, audit=audit) as (_, client):
            # Before it publishes its first part.
            monkeypatch.setenv("VISAVIS_FAULT", "kill-before:16")
            job_id = (await create(client, "one")).job.job_id
            failed = (await watched(client, job_id))[-1]
            assert failed.state == V1.JOB_STATE_FAILED
            assert "died 3 times" in failed.error.message
            assert failed.HasField("end_time")
            monkeypatch.setenv("VISAVIS_FAULT", "ENOSPC:30")
            await create(client, "two")
            assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED
            assert not (await get(client, job_id)).HasField("error")

    asyncio.run(scene())
    assert audit.getvalue().count('"DIED"') == 3


def test_a_drained_server_leaves_its_job_to_the_next(world: World, gate: Gate) -> None:
    gate.open(2)

    async def first() -> str:
        async with jobs_of(world) as (gateway, client):
            job_id = (await create(client, "one")).job.job_id
            await create(client, "two", reason_count=1)
            gone = (await create(client, "three", reason_count=2)).job.job_id
            await cancel(client, gone)
            watching = client.job.WatchJob(V1.WatchJobRequest(job_id=job_id))
            await until(client, job_id, lambda job: job.done_part_count == 2)
            draining = asyncio.create_task(gateway.drain(5.0))
            details = await refused_as(none_of(watching), Code.UNAVAILABLE, "DRAINING")
            assert details["RetryInfo"].retry_delay.seconds == 1
            await draining
            assert children() == []
            return job_id

    async def second(job_id: str) -> None:
        async with jobs_of(world) as (_, client):
            # The second one first waits, then hears of an objection that it does not know.
            job = await get(client, job_id)
            assert (job.state, job.done_part_count) == (V1.JOB_STATE_RUNNING, 2)
            gate.open(4)
            assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED
            request = V1.ListJobsRequest(state=V1.JOB_STATE_CANCELLED)
            assert len((await client.job.ListJobs(request)).jobs) == 1

    job_id = asyncio.run(first())
    before = part_files(world, job_id)
    asyncio.run(second(job_id))
    after = part_files(world, job_id)
    assert {name: after[name] for name in before} == before


def test_a_job_is_not_gone_on_with_after_an_objection(world: World, gate: Gate) -> None:
    gate.open(1)

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            job_id = (await create(client, "one")).job.job_id
            await until(client, job_id, lambda job: job.done_part_count == 1)
            world.journal.append(objections=["c07"])
        async with jobs_of(world) as (_, client):
            failed = (await watched(client, job_id))[-1]
            assert failed.state == V1.JOB_STATE_FAILED
            assert failed.error.reason == errors_pb2.ERROR_REASON_VERSION_CHANGED
            assert "c07" not in failed.error.message
            # What is served knows the objection: another job.
            assert (await create(client, "two")).job.job_id != job_id

    asyncio.run(scene())
