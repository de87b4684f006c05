"""kill -9 and rolling restarts: what was acknowledged is there, once; no call of a client fails."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateways import IDS, World
from parity import Expected
from processes import process_of, write_sources
from test_gateway_workers import Served, serving
from visavis.client import AsyncClient, Client
from visavis.v1 import (
    match_service_pb2,
    match_service_pb2_grpc,
    profile_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
)

ROUNDS = 12
CLIENTS = 4

#: Between two calls of a client: a server with too much to do would rightly shed.
PAUSE_S = 0.02

#: Facts of one request: all of them are there, or none.
FACTS = 3


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        write_sources(world)
        yield world


def is_gone(error: Any) -> bool:
    """Whether the server answered nothing, rather than that something was wrong."""
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)


@dataclass
class Recorder:
    """One client that records and remembers what it was told."""

    number: int
    sent: int = 0
    answered: dict[str, tuple[int, int]] = field(default_factory=dict)

    def request(self, at: int) -> Any:
        """Its facts are told apart by how often they say that something was bought."""
        request = profile_service_pb2.RecordFactsRequest(request_id=f"{self.number}-{at}")
        for n in range(FACTS):
            fact = profile_pb2.Fact(
                product="oil",
                kind=profile_pb2.FACT_KIND_BOUGHT,
                date="2026-02-01",
                count=1 + (at * CLIENTS + self.number) * FACTS + n,
            )
            request.facts.add(customer_id=IDS[(at + n) % len(IDS)], fact=fact)
        return request

    def run(self, address: str, progress: threading.Semaphore) -> None:
        """Record until the server is gone; what was not answered is sent first next time."""
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            record = profile_service_pb2_grpc.ProfileServiceStub(channel).RecordFacts
            for request_id, offsets in random.Random(self.sent).sample(
                list(self.answered.items()), min(5, len(self.answered))
            ):
                try:
                    again = record(self.request(int(request_id.split("-")[1])), timeout=60)
                except grpc.RpcError as error:
                    if not is_gone(error):
                        raise
                    return
                assert again.is_repeated
                assert (again.first_offset, again.last_offset) == offsets
            while True:
                request = self.request(self.sent)
                try:
                    answer = record(request, timeout=60)
                except grpc.RpcError as error:
                    if not is_gone(error):
                        raise
                    return
                offsets = answer.first_offset, answer.last_offset
                assert answer.last_offset - answer.first_offset == FACTS - 1
                self.answered[request.request_id] = offsets
                self.sent += 1
                progress.release()


def test_what_was_acknowledged_survives_kill_9_once(world: World) -> None:
    check_kills(world, rounds=1, each=10)


@pytest.mark.faults
def test_what_was_acknowledged_survives_a_dozen_kills_once(world: World) -> None:
    check_kills(world, rounds=ROUNDS, each=60)


def check_kills(world: World, rounds: int, each: int) -> None:
    rng = random.Random(1)
    recorders = [Recorder(number) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(rounds):
            with process_of(world) as served:
                progress = threading.Semaphore(0)
                running = [pool.submit(one.run, served.address, progress) for one in recorders]
                for _ in range(rng.randrange(each // 2, each)):
                    assert progress.acquire(timeout=60), [one.exception(0) for one in running]
                served.kill()
                for one in running:
                    one.result(60)
    with process_of(world) as served, grpc.insecure_channel(served.address) as channel:
        record = profile_service_pb2_grpc.ProfileServiceStub(channel).RecordFacts
        for one in recorders:
            # Every id again: what was acknowledged, and the one that may have been written.
            for at in range(one.sent + 1):
                request = one.request(at)
                answer = record(request, timeout=60)
                known = one.answered.setdefault(
                    request.request_id, (answer.first_offset, answer.last_offset)
                )
                assert (answer.first_offset, answer.last_offset) == known
                assert answer.is_repeated or at == one.sent
        match = match_service_pb2_grpc.MatchServiceStub(channel).MatchCustomer
        expected = Expected(world.journal.overlay().apply(world.base), world.catalog, world.policy)
        for customer_id in IDS:
            asked = match_service_pb2.MatchCustomerRequest(customer_id=customer_id)
            expected.check_one(customer_id, match(asked, timeout=60))
    world.journal.verify()
    check_entries(world, recorders)
    count = sum(len(one.answered) for one in recorders)
    print(f"{rounds} kills under {count} requests: nothing lost, nothing twice")  # noqa: T201


def check_entries(world: World, recorders: list[Recorder]) -> None:
    """Each entry is the fact that its request was told of, and there is no other."""
    told = {}
    for one in recorders:
        for request_id, (first, last) in one.answered.items():
            facts = one.request(int(request_id.split("-")[1])).facts
            told.update(zip(range(first, last + 1), facts, strict=True))
    entries = world.journal.since(0).entries
    assert [entry.offset for entry in entries] == sorted(told)
    for entry in entries:
        said = told[entry.offset]
        assert entry.customer_id.decode() == said.customer_id
        assert said.fact.count in json.loads(entry.payload)


@pytest.mark.faults
def test_a_rolling_restart_fails_no_call_of_any_client(world: World) -> None:
    """Two processes, each renewed four times; threads and coroutines ask and record meanwhile."""
    stopped = threading.Event()
    recorded: list[str] = []
    asked = [0]

    def bought(customer_id: str) -> list[dict[str, Any]]:
        fact = {"product": "oil", "kind": "bought", "date": "2026-02-01", "count": 1}
        return [{"customer_id": customer_id, **fact}]

    def in_thread(address: str, start: int) -> None:
        with Client(address, timeout_s=60) as client:
            for number in range(start, 10**9):
                if stopped.is_set():
                    return
                customer_id = IDS[number % len(IDS)]
                assert client.match(customer_id).customer_id == customer_id
                assert client.match_many(IDS[:9]).customer_count == 9
                recorded.append(client.record_facts(bought(customer_id)).request_id)
                asked[0] += 2
                stopped.wait(PAUSE_S)

    async def in_loop(address: str, served: Served) -> None:
        async with (
            AsyncClient(address, timeout_s=60) as first,
            AsyncClient(address, timeout_s=60) as second,
        ):

            async def asking(client: AsyncClient, number: int) -> None:
                while not stopped.is_set():
                    customer_id = IDS[number % len(IDS)]
                    assert (await client.match(customer_id)).customer_id == customer_id
                    assert (await client.match_many(IDS)).customer_count == len(IDS)
                    asked[0] += 2
                    number += 1
                    await asyncio.sleep(PAUSE_S)

            async def recording(client: AsyncClient) -> None:
                number = 0
                while not stopped.is_set():
                    done = await client.record_facts(bought(IDS[number % len(IDS)]))
                    recorded.append(done.request_id)
                    number += 1
                    await asyncio.sleep(PAUSE_S)

            async with asyncio.TaskGroup() as group:
                for client in (first, second):
                    group.create_task(recording(client))
                    group.create_task(asking(client, 0))
                    group.create_task(asking(client, 7))
                try:
                    await renewed(served)
                finally:
                    stopped.set()

    async def renewed(served: Served) -> None:
        for _ in range(4):
            before = set(served.workers())
            served.process.send_signal(signal.SIGHUP)
            while before & set(served.workers()) or served.listening_count() != 2:
                await asyncio.sleep(0.05)

    with serving(world) as served, ThreadPoolExecutor(2) as pool:
        address = f"127.0.0.1:{served.port}"
        running = [pool.submit(in_thread, address, at) for at in range(2)]
        try:
            asyncio.run(asyncio.wait_for(in_loop(address, served), 200))
        finally:
            stopped.set()
        for one in running:
            one.result(60)
    print(f"4 rolling restarts under {asked[0]} questions and {len(recorded)} records: none failed")  # noqa: T201
    assert asked[0] > 200
    world.journal.verify()
    assert len(recorded) == len(set(recorded)) == len(world.journal.since(0).entries)
    assert all(world.journal.knows(each) for each in recorded)
