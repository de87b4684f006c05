"""Jobs over gRPC: created once, computed beside, watched, stopped, gone on with, read by frames."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

from gateways import AS_OF, Client, Code, World, a_catalog, listening, refused_as
from visavis.digest import canonical_digest
from visavis.domain import utc_now
from visavis.engine.matches import OPPORTUNITY_SCHEMA
from visavis.erasure import forget_in_result
from visavis.errors import CorruptionError, ReusedError, StorageError
from visavis.gateway import job_runner, job_service, results
from visavis.gateway.audit import Audit
from visavis.gateway.job_files import (
    JobEvent,
    JobRecord,
    catalog_at,
    event_name,
    keep_inputs,
    policy_at,
    result_at,
)
from visavis.gateway.jobs import Jobs
from visavis.gateway.results import ResultReader, Spot
from visavis.policy import Exclusions, Policy
from visavis.rescore import Job, Plan, Result, ResultManifest
from visavis.rescore.part import write_part
from visavis.store import Folder, FolderLock, bytes_digest, faults
from visavis.v1 import catalog_service_pb2, errors_pb2, job_service_pb2

V1 = job_service_pb2

_NUMBERS = count(1)

#: Twenty thousand rows of it are more than a connection takes unread.
LONG = "x" * 500 + "{}"


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
    """Read a stream that is to be refused to its end."""
    while await call.read() is not grpc.aio.EOF:
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
                assert (
                    await frames_of(client, job.job_id, frames[at].resume_token)
                    == (frames[at + 1 :])
                )
            # An erasure makes it another result: nobody goes on in the middle of it.
            gone = table_in(frames[0])["customer_id"][0].as_py()
            forget_in_result(Folder(world.folder / "jobs" / "results" / job.job_id), gone)
            await refused_as(
                frames_of(client, job.job_id, frames[0].resume_token),
                Code.INVALID_ARGUMENT,
                "INVALID_TOKEN",
            )
            for frame in await frames_of(client, job.job_id):
                assert gone not in table_in(frame)["customer_id"].to_pylist()
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


def begun_by(pid: int) -> set[str]:
    """The processes that threads of one began and that are there still."""
    found: set[str] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # One may have ended since it was named.
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update((thread / "children").read_text().split())
    return found


def children() -> list[int]:
    """The processes that compute a job for this one; others may have other children of it."""
    return sorted(int(each) for each in begun_by(os.getpid()) if _computes(each))


def _computes(pid: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"visavis.gateway.job_process" in command or b"held_job" in command


def part_files(world: World, job_id: str) -> dict[str, int]:
    folder = world.folder / "jobs" / "results" / job_id / "parts"
    return {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}


def test_jobs_wait_for_each_other_and_a_cancelled_one_goes_on(world: World, gate: Gate) -> None:
    pending, running = V1.JOB_STATE_PENDING, V1.JOB_STATE_RUNNING
    audit = io.StringIO()
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
        async with jobs_of(world, audit=audit) as (_, client):
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
    lines = [json.loads(line) for line in audit.getvalue().splitlines()]
    assert {"JobService/CancelJob", first} <= {each for line in lines for each in line.values()}
    assert '"fault"' not in audit.getvalue()
    for job_id, out, options in ((first, "one", {}), (second, "two", {"as_of": "2026-03-02"})):
        found = Result.open(world.folder / "jobs" / "results" / job_id)
        assert found.manifest.digest == batch(world, out, **options).manifest.digest


def _publish(request_id: str, **more: Any) -> Any:
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


def test_storage_that_fails_while_a_process_is_heard_costs_an_attempt(
    world: World, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_PAUSE_S", 0.05)
    happened, popen = Jobs.happened, subprocess.Popen
    failures: list[list[int]] = []
    begun: list[Any] = []

    def remembered(*args: Any, **options: Any) -> Any:
        begun.append(popen(*args, **options))
        return begun[-1]

    def failing(jobs: Jobs, job_id: str, event: Any, **fields: Any) -> Any:
        if event == "started" and len(failures) < 2:
            failures.append(children())
            raise StorageError("out of reach", path="jobs")
        return happened(jobs, job_id, event, **fields)

    monkeypatch.setattr(Jobs, "happened", failing)
    monkeypatch.setattr(subprocess, "Popen", remembered)
    gate.open(4)

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            job_id = (await create(client, "one")).job.job_id
            assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED
            # Each attempt had a process of its own, ended it, and left nothing open.
            assert len({tuple(each) for each in failures}) == 2
            assert children() == []
            assert len(begun) == 3
            assert all(each.stdin.closed and each.stdout.closed for each in begun)

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


def a_plan(part_count: int, **more: Any) -> Plan:
    digest = "0" * 64
    held: dict[str, Any] = {
        "contract": 1, "base_version": 1, "base_digest": digest, "part_count": part_count,
        "customer_count": 1, "capability_count": 1, "catalog_digest": digest,
        "policy_digest": digest, "as_of": AS_OF,
    }  # fmt: skip
    return Plan(**held | more)


def opportunities(rows: int, customer: str = "customer-{:09d}", reasons: int = 0) -> pa.Table:
    columns = {
        "customer_id": pa.array([customer.format(n // 5) for n in range(rows)], pa.string()),
        "rank": pa.array([n % 5 + 1 for n in range(rows)], pa.int32()),
        "capability_id": pa.array([f"k{n % 7}" for n in range(rows)], pa.string()),
        "propensity": pa.array([n / 7 for n in range(rows)], pa.float64()),
        "expected_value": pa.array([n / 3 for n in range(rows)], pa.float64()),
        "control": pa.array([n % 3 == 0 for n in range(rows)]),
    }
    if reasons:
        why = [
            [{"indicator": f"i{n % 11}" * (n % 4), "contribution": n / 2}] * (n % (reasons + 1))
            for n in range(rows)
        ]
        columns["reasons"] = pa.array(why, OPPORTUNITY_SCHEMA.field("reasons").type)
    return pa.table(columns)


def a_result(world: World, *parts: pa.Table, **more: Any) -> str:
    """A job that has succeeded, made by hand: its id."""
    place = Folder(world.folder / "jobs")
    jobs = Jobs(place)
    # Each is a job of its own.
    more.setdefault("customer_count", next(_NUMBERS))
    record = JobRecord(plan=a_plan(len(parts), **more), base="nowhere", created_at=utc_now())
    jobs.create(f"of {record.job_id}", "0" * 64, record)
    out = result_at(place, record.job_id)
    out.create("plan.json", record.plan.to_bytes())
    entries = tuple(
        write_part(out, index, table, 1, record.job_id) for index, table in enumerate(parts)
    )
    manifest = ResultManifest.of(record.job_id, entries, marks_sha256="0" * 64)
    out.create("manifest.json", manifest.to_bytes())
    jobs.happened(record.job_id, "succeeded", result_digest=manifest.digest)
    return record.job_id


def coded(table: pa.Table) -> pa.Table:
    """Ids as dictionaries, as jobs write them."""
    for name in ("customer_id", "capability_id"):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].dictionary_encode())
    return table


@pytest.mark.parametrize("reasons", [0, 3])
def test_frames_hold_every_row_and_fit_whatever_the_rows(
    world: World, monkeypatch: pytest.MonkeyPatch, reasons: int
) -> None:
    monkeypatch.setattr(results, "FRAME_BYTES", 40_000)
    sizes = (0, 20_000, 1, 0, 3_000, 0)
    tables = [opportunities(size, reasons=reasons) for size in sizes]
    job_id = a_result(world, *map(coded, tables), reasons=reasons or None)

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            frames = await frames_of(client, job_id)
            for index, table in enumerate(tables):
                own = [frame for frame in frames if frame.part_index == index]
                assert own[-1].is_part_end
                found = pa.concat_tables([table_in(frame) for frame in own])
                assert found.schema.names == table.schema.names
                assert found.schema.types == table.schema.types
                assert found.equals(table.cast(found.schema))
                assert canonical_digest(found) == own[-1].part_digest
                for frame in own:
                    assert len(frame.arrow) < 40_000 + results._SLACK
                # As many as fit, not as few.
                assert all(len(frame.arrow) > 35_000 for frame in own[:-1])
            for at in range(0, len(frames), 5):
                assert await frames_of(client, job_id, frames[at].resume_token) == frames[at + 1 :]
            assert await frames_of(client, job_id, frames[-1].resume_token) == []

    asyncio.run(scene())


def test_frames_stay_below_the_message_limit_and_what_cannot_is_refused(world: World) -> None:
    long = "x" * 900_000 + "{:03d}"
    job_id = a_result(world, opportunities(40, customer=long))
    wide = a_result(world, opportunities(1, customer="x" * (5 * 2**20)))

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            frames = await frames_of(client, job_id)
            assert sum(frame.row_count for frame in frames) == 40
            request = V1.ReadResultsRequest(job_id=wide)
            reading = client.job.ReadResults(request)
            await refused_as(none_of(reading), Code.INVALID_ARGUMENT, "LIMIT_EXCEEDED", "job_id")

    asyncio.run(scene())


def test_a_resume_token_is_of_one_result(world: World) -> None:
    first = a_result(world, opportunities(10), opportunities(0), opportunities(3))
    second = a_result(world, opportunities(11), opportunities(2))
    place = Folder(world.folder / "jobs")
    readers = [ResultReader(Result.open(result_at(place, each))) for each in (first, second)]
    good = [Spot(0, 9), Spot(1, 0), Spot(2, 2), Spot(3, 0)]
    for spot in good:
        assert readers[0].spot(readers[0].token(spot)) == spot
    token = readers[0].token(Spot(0, 9))
    wrong = [readers[1].token(Spot(0, 9)), "x", "é", token[:-4], token + "AAAA", "A" * 5_000]
    wrong += [readers[0].token(spot) for spot in (Spot(0, 10), Spot(1, 1), Spot(3, 1), Spot(4, 0))]
    for at in range(0, len(token), 3):
        wrong.append(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            for each in wrong:
                reading = client.job.ReadResults(
                    V1.ReadResultsRequest(job_id=first, resume_token=each)
                )
                await refused_as(
                    none_of(reading), Code.INVALID_ARGUMENT, "INVALID_TOKEN", "resume_token"
                )

    asyncio.run(scene())


def test_a_flipped_byte_never_becomes_a_row(world: World) -> None:
    tables = [opportunities(50), opportunities(60)]
    job_id = a_result(world, *tables)
    folder = world.folder / "jobs" / "results" / job_id

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                content = path.read_bytes()
                for at in range(0, len(content), max(1, len(content) // 15)):
                    path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
                    rows: list[Any] = []
                    call = client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id))

                    async def read(call: Any = call, rows: list[Any] = rows) -> None:
                        async for frame in call:
                            assert table_in(frame).equals(tables[frame.part_index])
                            rows.append(frame)

                    await refused_as(read(), Code.DATA_LOSS, "CORRUPTED")
                path.unlink()
                reading = client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id))
                await refused_as(none_of(reading), Code.DATA_LOSS, "CORRUPTED")
                path.write_bytes(content)
            assert len(await frames_of(client, job_id)) == 2

    asyncio.run(scene())


def test_what_is_remembered_of_a_job_is_checked_and_one_damaged_job_is_one(world: World) -> None:
    whole, broken = (a_result(world, opportunities(n)) for n in (1, 2))
    place = Folder(world.folder / "jobs")
    path = place.path / event_name(broken, 1)
    content = path.read_bytes()
    audit = io.StringIO()

    async def scene() -> None:
        async with jobs_of(world, audit=audit) as (_, client):
            await refused_as(get(client, broken), Code.DATA_LOSS, "CORRUPTED")
            await refused_as(cancel(client, broken), Code.DATA_LOSS, "CORRUPTED")
            listed = (await client.job.ListJobs(V1.ListJobsRequest())).jobs
            assert [each.job_id for each in listed] == [whole]
            assert (await get(client, whole)).state == V1.JOB_STATE_SUCCEEDED

    for number in (0, 1):
        path = place.path / event_name(broken, number)
        content = path.read_bytes()
        for at in range(0, len(content), len(content) // 20):
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(CorruptionError):
                read_again(place).find(broken)
            assert [each.job_id for each in read_again(place).all()] == [whole]
        asyncio.run(scene())
        path.write_bytes(content)
    assert audit.getvalue().count('"CorruptionError"') == 2
    # A file of another job or place, whole as it is.
    for source in (event_name(whole, 1), event_name(broken, 0)):
        path = place.path / event_name(broken, 1)
        path.write_bytes((place.path / source).read_bytes())
        with pytest.raises(CorruptionError):
            read_again(place).find(broken)
    path.unlink()
    path.with_name(f"{broken}.0002.json").write_bytes(content)
    with pytest.raises(CorruptionError):
        read_again(place).find(broken)


def read_again(place: Folder) -> Jobs:
    jobs = Jobs(place)
    jobs.refresh()
    return jobs


def test_a_request_that_was_broken_off_is_finished_when_it_is_sent_again(tmp_path: Path) -> None:
    record = JobRecord(plan=a_plan(1), base="nowhere", created_at=utc_now())
    content = "0" * 64

    def ends(place: Folder, request_id: str, fault: str, number: int) -> bool:
        """Whether a request got through a fault at an operation; it is there then."""
        jobs = Jobs(place)
        faults.install(faults.Plan(fault, number))
        try:
            jobs.create(request_id, content, record)
        except StorageError:
            return False
        finally:
            faults.install(None)
        return True

    for number in count(1):
        broken = 0
        place = Folder(tmp_path / str(number))
        if not ends(place, "one", "EIO", number):
            broken += 1
            created = Jobs(place).answered("one", content)
            if created is None:
                created = Jobs(place).create("one", content, record)
        jobs = read_again(place)
        (status,) = jobs.all()
        assert status.state == "pending"
        jobs.happened(record.job_id, "cancelled")
        if not ends(place, "two", "EIO", number):
            broken += 1
            jobs = read_again(place)
            again = jobs.answered("two", content)
            if again is None:
                again = jobs.create("two", content, record)
            assert again.is_repeated
        (status,) = read_again(place).all()
        assert status.state == "pending"
        jobs = read_again(place)
        jobs.happened(record.job_id, "cancelled")
        # Answered before: it wakes nobody now.
        for request_id in ("one", "two"):
            before = jobs.answered(request_id, content)
            assert before is not None
            assert before.status.state == "cancelled"
        with pytest.raises(ReusedError):
            jobs.answered("one", "1" * 64)
        if not broken:
            break
    assert number > 10


def test_two_servers_on_one_folder_know_the_same_jobs(tmp_path: Path) -> None:
    place = Folder(tmp_path / "jobs")
    here, there = Jobs(place), Jobs(place)
    record = JobRecord(plan=a_plan(1), base="nowhere", created_at=utc_now())
    assert not here.create("one", "0" * 64, record).is_repeated
    assert there.create("two", "0" * 64, record).is_repeated
    assert there.happened(record.job_id, "started").state == "running"
    assert here.happened(record.job_id, "cancelled").has_ended
    assert there.happened(record.job_id, "succeeded").state == "cancelled"
    locks = [FolderLock(place, "runner.lock") for _ in range(2)]
    assert [each.take() for each in locks] == [True, False]
    assert locks[0].take()
    locks[0].release()
    assert locks[1].take()
    locks[1].release()


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(ev_min=None, control_share=0.1, cool_down_days={"mail": 3}),
        Policy(ev_min=float("-inf"), exclusions=Exclusions(products=("tea",)), k=7),
        Policy(ev_min=0.1, consent_not_needed=("shop",)),
    ],
)
def test_inputs_beside_a_job_are_what_was_served(tmp_path: Path, policy: Policy) -> None:
    place, catalog = Folder(tmp_path), a_catalog()
    plan = a_plan(1, catalog_digest=catalog.digest(), policy_digest=policy.digest())
    for _ in range(2):
        keep_inputs(place, catalog, policy, plan)
        assert catalog_at(place, plan.catalog_digest).digest() == catalog.digest()
        assert policy_at(place, plan.policy_digest) == policy
    for path in (tmp_path / "inputs").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    for found, digest in ((catalog_at, plan.catalog_digest), (policy_at, plan.policy_digest)):
        with pytest.raises(CorruptionError):
            found(place, digest)  # type: ignore[operator]
        with pytest.raises(CorruptionError):
            found(place, "1" * 64)  # type: ignore[operator]
    # What is damaged is put right by the next job.
    keep_inputs(place, catalog, policy, plan)
    assert policy_at(place, plan.policy_digest) == policy
    assert catalog_at(place, plan.catalog_digest).digest() == catalog.digest()


def test_what_a_client_may_get_wrong_is_told_as_such(world: World) -> None:
    unknown = "f" * 64

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            wrong: list[tuple[dict[str, Any], str, str]] = [
                ({"request_id": ""}, "INVALID_VALUE", "request_id"),
                ({"request_id": "x" * 129}, "INVALID_VALUE", "request_id"),
                ({"request_id": "a", "as_of": "tomorrow"}, "INVALID_VALUE", "as_of"),
                ({"request_id": "a", "as_of": "2026-02-28"}, "INVALID_VALUE", "as_of"),
                ({"request_id": "a", "reason_count": -1}, "INVALID_VALUE", "reason_count"),
                ({"request_id": "a", "reason_count": 101}, "LIMIT_EXCEEDED", "reason_count"),
            ]
            for fields, reason, field in wrong:
                call = create(client, **fields)
                await refused_as(call, Code.INVALID_ARGUMENT, reason, field)
            for given in (unknown, "", "../../etc", "\0", "x" * 100_000):
                watch, read = V1.WatchJobRequest(job_id=given), V1.ReadResultsRequest(job_id=given)
                calls: list[Callable[[], Awaitable[Any]]] = [
                    lambda given=given: get(client, given),
                    lambda given=given: cancel(client, given),
                    lambda watch=watch: none_of(client.job.WatchJob(watch)),
                    lambda read=read: none_of(client.job.ReadResults(read)),
                ]
                for call in calls:
                    details = await refused_as(call(), Code.NOT_FOUND, "UNKNOWN_JOB")
                    assert details["ResourceInfo"].resource_type == "job"
            for fields, reason, field in (
                ({"page_size": -1}, "INVALID_VALUE", "page_size"),
                ({"state": 17}, "INVALID_SCHEMA", "state"),
                ({"page_token": "x"}, "INVALID_TOKEN", "page_token"),
                ({"page_token": "A" * 64}, "INVALID_TOKEN", "page_token"),
            ):
                call = client.job.ListJobs(V1.ListJobsRequest(**fields))
                await refused_as(call, Code.INVALID_ARGUMENT, reason, field)
            assert not (await client.job.ListJobs(V1.ListJobsRequest())).jobs
            assert not (world.folder / "jobs" / "jobs").exists()

    asyncio.run(scene())


def test_a_page_token_is_of_its_listing(world: World) -> None:
    ids = {a_result(world, opportunities(n)) for n in range(1, 4)}

    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            first = await client.job.ListJobs(V1.ListJobsRequest(page_size=2))
            request = V1.ListJobsRequest(page_token=first.next_page_token)
            # What is created meanwhile moves nothing.
            a_result(world, opportunities(9))
            rest = await client.job.ListJobs(request)
            assert {each.job_id for each in (*first.jobs, *rest.jobs)} == ids
            assert not rest.next_page_token
            request.state = V1.JOB_STATE_FAILED
            call = client.job.ListJobs(request)
            await refused_as(call, Code.INVALID_ARGUMENT, "INVALID_TOKEN", "page_token")

    asyncio.run(scene())


def test_without_a_place_there_are_no_jobs(world: World) -> None:
    async def scene() -> None:
        async with listening(world) as (_, client):
            calls = [
                create(client, "one"),
                get(client, "x"),
                cancel(client, "x"),
                client.job.ListJobs(V1.ListJobsRequest()),
                none_of(client.job.WatchJob(V1.WatchJobRequest(job_id="x"))),
                none_of(client.job.ReadResults(V1.ReadResultsRequest(job_id="x"))),
            ]
            for call in calls:
                await refused_as(call, Code.FAILED_PRECONDITION, "JOBS_ABSENT")
            assert not (await client.catalog.GetServingInfo(_info())).has_jobs

    asyncio.run(scene())


def test_streams_are_bounded_and_end_when_the_server_drains(
    world: World, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    monkeypatch.setattr(job_service, "_READERS_MAX", 1)
    monkeypatch.setattr(job_service, "_WATCHERS_MAX", 1)
    job_id = a_result(world, *(opportunities(20_000, customer=LONG) for _ in range(2)))

    async def scene() -> None:
        async with jobs_of(world) as (gateway, client):
            waiting = (await create(client, "one")).job.job_id
            reading = client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id))
            watching = client.job.WatchJob(V1.WatchJobRequest(job_id=waiting))
            assert (await reading.read()).row_count
            assert (await watching.read()).job.job_id == waiting
            for call in (
                client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id)),
                client.job.WatchJob(V1.WatchJobRequest(job_id=waiting)),
            ):
                details = await refused_as(none_of(call), Code.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert details["RetryInfo"].retry_delay.seconds == 1
            reading.cancel()
            while not gateway._jobs._readers._left:
                await asyncio.sleep(0.01)
            reading = client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id))
            frame = await reading.read()
            draining = asyncio.create_task(gateway.drain(5.0))
            await refused_as(none_of(watching), Code.UNAVAILABLE, "DRAINING")
            await refused_as(none_of(reading), Code.UNAVAILABLE, "DRAINING")
            await draining
        async with jobs_of(world) as (_, client):
            # It goes on elsewhere.
            rest = await frames_of(client, job_id, frame.resume_token)
            assert frame.row_count + sum(each.row_count for each in rest) == 40_000

    asyncio.run(scene())


def test_who_does_not_read_gives_up_the_seat(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_service, "_STALL_S", 0.05)
    job_id = a_result(world, *(opportunities(20_000, customer=LONG) for _ in range(4)))

    async def scene() -> None:
        async with jobs_of(world) as (gateway, client):
            most = gateway._jobs._readers._left
            reading = client.job.ReadResults(V1.ReadResultsRequest(job_id=job_id))
            frames = [await reading.read()]
            while gateway._jobs._readers._left == most:
                await asyncio.sleep(0.01)
            while gateway._jobs._readers._left != most:
                await asyncio.sleep(0.01)

            async def rest() -> None:
                while (frame := await reading.read()) is not grpc.aio.EOF:
                    frames.append(frame)

            await refused_as(rest(), Code.RESOURCE_EXHAUSTED, "OVERLOADED")
            monkeypatch.setattr(job_service, "_STALL_S", 60.0)
            frames += await frames_of(client, job_id, frames[-1].resume_token)
            assert sum(frame.row_count for frame in frames) == 4 * 20_000

    asyncio.run(scene())


@asynccontextmanager
async def command(world: World) -> AsyncIterator[tuple[Any, Client]]:
    """``visavis serve`` with jobs, in a process of its own that may be killed."""
    args = [
        "serve", "--base", world.folder / "base", "--catalog", world.folder / "catalog.parquet",
        "--policy", world.folder / "policy.toml", "--journal", world.folder / "journal",
        "--jobs", world.folder / "jobs", "--job-threads", "1", "--threads", "1",
        "--address", "127.0.0.1:0", "--json",
    ]  # fmt: skip
    with (world.folder / "log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "visavis.cli", *map(str, args)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        port = json.loads(await process.stdout.readline())["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process, Client(channel)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.faults
def test_a_killed_server_takes_its_jobs_up_again(world: World) -> None:
    world.catalog.write(world.folder / "catalog.parquet")
    (world.folder / "policy.toml").write_text("k = 3\nproduct_limit = 1\n")

    async def scene() -> None:
        ids, cancelled, begun = [], "", 0
        for number in range(4):
            async with command(world) as (process, client):
                if number == 0:
                    cancelled = (await create(client, "gone", reason_count=9)).job.job_id
                    await cancel(client, cancelled)
                # It is durable when it is answered.
                made = await create(client, str(number), reason_count=number)
                ids.append(made.job.job_id)
                await asyncio.sleep(0.4 * number)
                own = begun_by(process.pid)
                begun += len(own)
                process.kill()
                await process.wait()
                # Without the server it ends by itself.
                while any(Path(f"/proc/{each}/cmdline").exists() for each in own):
                    await asyncio.sleep(0.01)
        assert begun, "no job had a process yet when its server was killed"
        async with command(world) as (_, client):
            for number, job_id in enumerate(ids):
                assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED
                again = await create(client, str(number), reason_count=number)
                assert (again.is_repeated, again.job.job_id) == (True, job_id)
            assert (await get(client, cancelled)).state == V1.JOB_STATE_CANCELLED
            for request_id, day in (("far", "9999-12-31"), ("near", "2026-03-01")):
                job_id = (await create(client, request_id, as_of=day)).job.job_id
                assert (await watched(client, job_id))[-1].state == V1.JOB_STATE_SUCCEEDED

    asyncio.run(scene())
    # gRPC writes of each fork beside its threads, and may break connections by it.
    assert "fork" not in (world.folder / "log").read_text()


def test_a_job_that_lost_its_base_or_its_journal_says_so(world: World) -> None:
    async def ended(job_id: str, journal: Path | None) -> JobEvent:
        """How it ends on a server with some journal."""
        jobs = read_again(Folder(world.folder / "jobs"))
        audit = Audit(io.StringIO())
        runner = job_runner.Runner(
            jobs, job_runner.Changes(), audit, journal=journal, threads=1, variant=None
        )
        runner.start()
        while (status := jobs.find(job_id)) is None or status.end is None:
            await asyncio.sleep(0.05)
        await runner.stop()
        return status.end

    async def scene() -> None:
        world.journal.append(objections=["c05"])
        async with jobs_of(world) as (gateway, client):
            # Nothing computes yet.
            await gateway._jobs._runner.stop()
            first = (await create(client, "one")).job.job_id
        failed = await ended(first, None)
        assert (failed.kind, failed.reason) == ("failed", "JOURNAL_ABSENT")
        async with jobs_of(world) as (gateway, client):
            await gateway._jobs._runner.stop()
            assert (await create(client, "two")).job.job_id == first
        world.folder.joinpath("base").rename(world.folder / "elsewhere")
        failed = await ended(first, world.journal.path)
        assert (failed.kind, failed.reason) == ("failed", "DIGEST_MISMATCH")
        assert str(world.folder) not in failed.message
        world.folder.joinpath("elsewhere").rename(world.folder / "base")
        async with jobs_of(world) as (gateway, client):
            await gateway._jobs._runner.stop()
            assert (await create(client, "three")).job.job_id == first
        # Who is forgotten takes the plan along.
        world.journal.forget("c09")
        failed = await ended(first, world.journal.path)
        assert (failed.kind, failed.reason) == ("failed", "VERSION_CHANGED")

    asyncio.run(scene())


def test_jobs_may_lie_in_an_object_store(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))

    async def scene() -> Any:
        async with listening(world, jobs=f"file://{tmp_path}/bucket/shop") as (_, client):
            job_id = (await create(client, "one")).job.job_id
            job = (await watched(client, job_id))[-1]
            assert job.state == V1.JOB_STATE_SUCCEEDED
            frames = await frames_of(client, job_id)
            assert frames[-1].result_digest == job.result_digest
        async with listening(world, jobs=f"file://{tmp_path}/bucket/shop") as (_, client):
            assert await get(client, job_id) == job
        return job

    job = asyncio.run(scene())
    assert job.result_digest == batch(world, "batch").manifest.digest


def test_who_asks_at_the_same_time_creates_one_job(world: World, gate: Gate) -> None:
    async def scene() -> None:
        async with jobs_of(world) as (_, client):
            made = await asyncio.gather(*(create(client, f"r{n // 8}") for n in range(24)))
            assert len({each.job.job_id for each in made}) == 1
            assert sorted(each.is_repeated for each in made) == [False] + [True] * 23
            days = ["2026-03-01", "2026-03-02", ""]
            calls = (create(client, "same", as_of=days[n % 3]) for n in range(12))
            found = await asyncio.gather(*calls, return_exceptions=True)
            # Whoever was first decided what the id stands for.
            assert sum(isinstance(each, grpc.aio.AioRpcError) for each in found) == 8
            assert len(list((world.folder / "jobs" / "jobs").iterdir())) <= 3

    asyncio.run(scene())


@pytest.mark.faults
def test_two_servers_on_one_folder_take_turns(world: World, gate: Gate) -> None:
    gate.open(1)

    async def scene() -> None:
        async with jobs_of(world) as (first, here), jobs_of(world) as (_, there):
            one = (await create(here, "one")).job.job_id
            await until(here, one, lambda job: job.done_part_count == 1)
            # What one computes is seen at the other, and stopped there.
            await until(there, one, lambda job: job.done_part_count == 1)
            assert len(children()) == 1
            two = (await create(there, "two", reason_count=1)).job.job_id
            await cancel(there, one)
            assert (await watched(here, one))[-1].state == V1.JOB_STATE_CANCELLED
            await until(there, two, lambda job: job.done_part_count == 1)
            # When the one that computed is gone the other goes on.
            await first.drain(1.0)
            gate.open(4)
            assert (await watched(there, two))[-1].state == V1.JOB_STATE_SUCCEEDED

    asyncio.run(scene())
