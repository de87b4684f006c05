"""Several processes behind one port: one journal, one version, whoever of them dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateways import IDS, Client, Code, World, a_catalog, refused_as
from visavis.gateway.fellows import Fellows, Published, Tick
from visavis.gateway.workers import _Worker
from visavis.v1 import (
    catalog_service_pb2,
    match_service_pb2,
    profile_pb2,
    profile_service_pb2,
)

#: A client that comes again where a worker has gone; every call here may be sent twice.
_RETRYING = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 200),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 5,
                            "initialBackoff": "0.2s",
                            "maxBackoff": "2s",
                            "backoffMultiplier": 2,
                            # gRPC cancels what reaches a server in the moment that it stops.
                            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                        },
                    }
                ]
            }
        ),
    ),
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        made.catalog.write(tmp_path / "catalog.parquet")
        a_catalog(bias=1.5).write(tmp_path / "other.parquet")
        (tmp_path / "policy.toml").write_text(
            "k = 3\nproduct_limit = 1\nev_min = 0.0\ncontrol_share = 0.25\n"
            "[cool_down_days]\nmail = 10\n"
        )
        yield made


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            target = str(each.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:  # it has ended, or closed one of them
        return set()
    return found


class Served:
    """``visavis serve`` with some workers."""

    def __init__(self, process: subprocess.Popen[str], said: dict[str, Any]) -> None:
        self.process = process
        self.port = said["port"]
        self.said = said

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in children.read_text().split()]

    def listening_count(self) -> int:
        """How many workers listen at the port: they do when they can answer."""
        tables = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
        lines = [line.split() for table in tables for line in table.splitlines()[1:]]
        owners = {
            each[9] for each in lines if each[1].endswith(f":{self.port:04X}") and each[3] == "0A"
        }
        return sum(bool(owners & sockets_of(pid)) for pid in self.workers())

    async def kill(self, pid: int) -> None:
        """Kill a worker, and wait until another one answers in its place."""
        os.kill(pid, signal.SIGKILL)
        while pid in self.workers() or self.listening_count() < 2:
            await asyncio.sleep(0.02)


def command_of(world: World, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "visavis.cli", "serve", "--json", "--address", "127.0.0.1:0"),
        *("--base", str(world.folder / "base"), "--catalog", str(world.folder / "catalog.parquet")),
        *("--policy", str(world.folder / "policy.toml"), "--root", str(world.folder)),
        *("--journal", str(world.folder / "journal"), "--workers", "2", "--threads", "1"),
        *options,
    ]


@contextmanager
def serving(world: World, *options: str) -> Iterator[Served]:
    command = command_of(world, *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            line = it.stdout.readline()
            assert line, it.stderr.read() if it.stderr else ""
            yield Served(it, json.loads(line))
        finally:
            if it.poll() is None:
                it.send_signal(signal.SIGTERM)
                try:
                    it.wait(60)
                except subprocess.TimeoutExpired:
                    it.kill()
                    raise


@asynccontextmanager
async def clients(served: Served, count: int) -> AsyncIterator[list[Client]]:
    """Clients of a connection each, so that the kernel spreads them over the workers."""
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", _RETRYING) for _ in range(count)
    ]
    try:
        yield [Client(channel) for channel in channels]
    finally:
        for channel in channels:
            await channel.close()


def bought(number: int) -> Any:
    fact = profile_pb2.Fact(
        product="oil", kind=profile_pb2.FACT_KIND_BOUGHT, date="2026-02-01", count=1
    )
    held = profile_service_pb2.CustomerFact(customer_id=IDS[number % len(IDS)], fact=fact)
    return profile_service_pb2.RecordFactsRequest(request_id=f"request-{number}", facts=[held])


def free_ports() -> int:
    """A port behind which another one is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def read_metrics(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as stream:
        found: bytes = stream.read()
    return found


def test_a_tick_is_seen_by_whoever_looks(tmp_path: Path) -> None:
    ours, theirs = Tick(tmp_path / "tick"), Tick(tmp_path / "tick")
    seen = [theirs()]
    for _ in range(3):
        ours.change()
        seen.append(theirs())
    assert len(set(seen)) == 4
    ours.close()
    theirs.close()


def test_what_was_published_is_read_by_who_begins_later(tmp_path: Path) -> None:
    Fellows.prepare(tmp_path)
    first, second = Fellows(tmp_path, 0), Fellows(tmp_path, 1)
    assert first.leads
    assert not second.leads
    assert first.secret == second.secret
    assert second.published == Published()
    first.publish(Published(catalog="c", as_of="2026-03-01"))
    assert second.published == Published(catalog="c", as_of="2026-03-01")
    first.lead()
    assert (tmp_path / "leader").readlink().name == Path(first.address.removeprefix("unix:")).name


def test_what_one_worker_records_all_answer_from(world: World) -> None:
    metrics = free_ports()

    async def scene(served: Served) -> None:
        async with clients(served, 12) as each:
            for number in range(24):
                done = await each[number % 12].profile.RecordFacts(bought(number))
                assert not done.is_repeated
                found = await asyncio.gather(*(one.one(IDS[number]) for one in each))
                assert {one.version.journal_offset for one in found} == {number + 1}
                assert len({one.SerializeToString() for one in found}) == 1
            again = await each[0].profile.RecordFacts(bought(3))
            assert again.is_repeated
            forget = profile_service_pb2.ForgetCustomerRequest(customer_id=IDS[1])
            await each[5].profile.ForgetCustomer(forget)
            for one in each:
                assert not (await one.one(IDS[1])).opportunities
            # An error of the leader's reaches the client of another worker whole.
            for one in each:
                empty = profile_service_pb2.RecordFactsRequest(request_id="x")
                await refused_as(
                    one.profile.RecordFacts(empty), Code.INVALID_ARGUMENT, "INVALID_VALUE", "facts"
                )
                raw = one.channel.unary_unary("/visavis.gateway.Worker/Follow")
                await refused_as(raw(b"{}"), Code.UNIMPLEMENTED, "UNSPECIFIED")
        for port in (metrics, metrics + 1):
            text = await asyncio.to_thread(read_metrics, port)
            assert b'code="OK",method="MatchService/MatchCustomer"' in text

    with serving(world, "--metrics-address", f"127.0.0.1:{metrics}") as served:
        asyncio.run(scene(served))
    assert served.process.returncode == 0


def test_a_version_is_published_to_all_and_to_who_begins_after(world: World) -> None:
    def publish(number: int, name: str) -> Any:
        source = catalog_service_pb2.PublishedSource(location=str(world.folder / name))
        return catalog_service_pb2.PublishVersionRequest(
            request_id=f"publish-{number}", catalog=source
        )

    digests = {
        "catalog.parquet": world.catalog.digest(),
        "other.parquet": a_catalog(bias=1.5).digest(),
    }

    async def scene(served: Served) -> None:
        async with clients(served, 10) as each:
            for number in range(6):
                name = ("other.parquet", "catalog.parquet")[number % 2]
                await each[number].catalog.PublishVersion(publish(number, name))
                found = await asyncio.gather(*(one.one(IDS[4]) for one in each))
                assert {one.version.catalog_digest for one in found} == {digests[name]}
            await each[0].catalog.PublishVersion(publish(9, "other.parquet"))
            for pid in served.workers():
                await served.kill(pid)
        async with clients(served, 10) as each:
            found = await asyncio.gather(*(one.one(IDS[4]) for one in each))
            assert {one.version.catalog_digest for one in found} == {digests["other.parquet"]}

    with serving(world) as served:
        asyncio.run(scene(served))


@pytest.mark.faults
def test_workers_are_renewed_and_killed_under_load_and_nothing_is_lost(world: World) -> None:
    """Every acknowledged fact is there, none twice; no call fails where clients come again."""
    acknowledged: list[str] = []

    async def recording(one: Client, stopped: asyncio.Event, first: int) -> None:
        number = first
        while not stopped.is_set():
            request = bought(number)
            await one.profile.RecordFacts(request, timeout=60)
            acknowledged.append(request.request_id)
            number += 10

    async def asking(one: Client, stopped: asyncio.Event) -> int:
        count = 0
        while not stopped.is_set():
            request = match_service_pb2.MatchCustomerRequest(customer_id=IDS[count % len(IDS)])
            answer = await one.match.MatchCustomer(request, timeout=60)
            assert answer.customer_id == IDS[count % len(IDS)]
            count += 1
        return count

    async def scene(served: Served) -> None:
        async with clients(served, 8) as each:
            stopped = asyncio.Event()
            askers = [asyncio.create_task(asking(one, stopped)) for one in each[:4]]
            recorders = [
                asyncio.create_task(recording(one, stopped, at)) for at, one in enumerate(each[4:])
            ]
            for _ in range(2):
                before = set(served.workers())
                served.process.send_signal(signal.SIGHUP)
                while before & set(served.workers()) or served.listening_count() != 2:
                    await asyncio.sleep(0.05)
            for _ in range(6):
                await served.kill(served.workers()[0])
            stopped.set()
            await asyncio.gather(*recorders)
            assert sum(await asyncio.gather(*askers)) > 100

    with serving(world) as served:
        asyncio.run(scene(served))
    assert len(acknowledged) > 20
    world.journal.verify()
    entries = world.journal.since(0).entries
    assert len(entries) == len(set(acknowledged))
    assert all(world.journal.knows(each) for each in acknowledged)


@pytest.mark.faults
def test_workers_end_with_their_supervisor(world: World) -> None:
    with serving(world) as served:
        workers = served.workers()
        assert len(workers) == 2
        served.process.kill()
        served.process.wait(10)

        async def gone() -> None:
            while any(Path(f"/proc/{pid}").exists() for pid in workers):
                await asyncio.sleep(0.05)

        asyncio.run(asyncio.wait_for(gone(), 30))


def test_who_is_sent_a_signal_too_late_keeps_its_status() -> None:
    async def scene() -> int:
        if sys.version_info < (3, 12):
            # Looks for a status on the event loop, which is busy here; since then it is the rule.
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.set_child_watcher(watcher)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        _Worker(process, asyncio.StreamReader()).send(signal.SIGTERM)
        return await process.wait()

    try:
        assert asyncio.run(scene()) == 3
    finally:
        if sys.version_info < (3, 12):
            asyncio.set_child_watcher(None)


def test_what_is_wrong_is_told_once_and_ends_it(world: World) -> None:
    (world.folder / "policy.toml").write_text("k = 0\n")
    done = subprocess.run(command_of(world), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert json.loads(done.stdout)["message"] == "--policy k: must be at least 1, got 0"
    assert not done.stderr
