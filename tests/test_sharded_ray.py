"""Serving from actors of Ray: the bytes of one process, and no failed call when workers are killed.

One Ray of two processors serves what runs in `make test`; a cluster of several nodes the faults.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clusters import Nodes, cluster, nodes
from commands import refused
from gateways import (
    AS_OF,
    IDS,
    Client,
    World,
    a_catalog,
    batch_request,
    listening,
    rows_of,
    table_of,
)
from test_gateway import check_parity
from visavis.cluster import RayOwners
from visavis.errors import InputError
from visavis.serving import Serving, ShardedServing
from visavis.v1 import catalog_service_pb2, profile_pb2, profile_service_pb2

__all__ = ["cluster", "nodes"]

KILLS = int(os.environ.get("VISAVIS_KILLS", "20"))

#: Answers that are compared while workers are killed.
ANSWERS = 1_000 * KILLS


class Spread(World):
    """A world that is served from workers."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder)
        self.options = options

    def serving(self) -> Serving:
        self.owners = RayOwners(**self.options)
        self.sharded = ShardedServing.across(
            self.owners, self.stored, self.catalog, self.policy, journal=self.journal
        )
        return self.sharded

    def pids(self) -> list[int]:
        """Of those workers that have loaded what is served."""
        return [pid for pid, _ in self.places()]

    def places(self) -> list[tuple[int, str]]:
        """The process and the node of each of them."""
        import ray

        def place(_: Any) -> tuple[int, str]:
            return os.getpid(), ray.get_runtime_context().get_node_id()

        key = self.sharded.state.name._replace(journal_offset=0)
        able = [seat.index for seat in self.sharded._crew.seats if key in seat.loaded]
        actors = [self.owners._actors[index] for index in able]
        try:
            return ray.get([each.__ray_call__.remote(place) for each in actors])
        except ray.exceptions.RayError:
            return []  # somebody is dying just now


@contextmanager
def ray_of_two() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        import ray
        from ray._private.authentication.authentication_token_setup import (
            ensure_token_if_auth_enabled,
        )

        ensure_token_if_auth_enabled(create_token_if_missing=True)
        options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init("local", num_cpus=2, object_store_memory=100_000_000, **options)
        try:
            yield
        finally:
            ray.shutdown()


def test_the_gateway_over_ray_gives_the_bytes_of_the_batch(tmp_path: Path) -> None:
    async def scene(world: Spread) -> None:
        async with listening(world) as (_, client):
            await check_parity(client, world)
            await check_records_and_publishes(client, world)
            # One worker dies; nobody who asks hears of it.
            pids = world.pids()
            assert len(set(pids)) == 2
            os.kill(pids[0], signal.SIGKILL)
            await check_parity(client, world)

    with ray_of_two(), Spread(tmp_path, workers=2) as world:
        asyncio.run(scene(world))
        for options in ({"workers": 0}, {"threads": 0}, {"workers": 3}, {"threads": 99}):
            with pytest.raises(InputError):
                RayOwners(address="local", **options)


async def check_records_and_publishes(client: Client, world: Spread) -> None:
    request = profile_service_pb2.RecordFactsRequest(
        request_id="one",
        facts=[
            profile_service_pb2.CustomerFact(
                customer_id="c02",
                fact=profile_pb2.Fact(
                    product="wine", kind=profile_pb2.FACT_KIND_BOUGHT, date=str(AS_OF)
                ),
            )
        ],
        objecting_customer_ids=["c05"],
    )
    done = await client.profile.RecordFacts(request)
    assert done.version.journal_offset == world.journal.offset == 2
    await check_parity(client, world)
    other = a_catalog(0.5)
    other.write(world.folder / "other.parquet")
    source = catalog_service_pb2.PublishedSource(location="other.parquet", digest=other.digest())
    publish = catalog_service_pb2.PublishVersionRequest(request_id="two", catalog=source)
    told = await client.catalog.PublishVersion(publish)
    assert told.version.catalog_digest == other.digest()
    world.catalog = other
    await check_parity(client, world)
    info = await client.catalog.GetServingInfo(catalog_service_pb2.GetServingInfoRequest())
    assert info.customer_count == len(IDS)


def test_options_of_ray_need_ray(tmp_path: Path) -> None:
    given = ["serve", "--base", tmp_path, "--catalog", tmp_path / "catalog.csv"]
    assert refused(*given, "--ray-workers", 2).startswith("--ray-workers: is for --ray")
    assert refused(*given, "--insecure").startswith("--insecure: is for --ray")
    both = refused(*given, "--ray", "local", "--workers", 2)
    assert both.startswith("--workers: is for one process that serves by itself")
    assert refused(*given, "--ray", "ray://head:1").startswith("--ray: must be the head's")


# ---- faults ------------------------------------------------------------------------------


class Load:
    """Clients who ask all the time, and compare every answer with the batch."""

    def __init__(self, world: World) -> None:
        self.expected: dict[str, list[Any]] = {each: [] for each in IDS}
        for row in world.batch().to_pylist():
            self.expected[row["customer_id"]].append(row)
        self.counted = 0
        self.failed: list[str] = []
        self.wrong = 0
        self.worst_s = 0.0
        self.kills = 0

    async def one(self, client: Client) -> None:
        name = random.choice(IDS)
        answer = await client.one(name)
        self.wrong += rows_of(answer) != self.expected[name]

    async def many(self, client: Client) -> None:
        names = random.sample(IDS, 20)
        answer = await client.match.MatchCustomers(batch_request(names))
        found = table_of(answer, names, with_reasons=False).to_pylist()
        meant = [row for name in names for row in self.expected[name]]
        self.wrong += found != [
            {name: cell for name, cell in row.items() if name != "reasons"} for row in meant
        ]

    async def run(self, client: Client, is_over: Callable[[], bool], pause_s: float) -> None:
        while not is_over():
            began = time.monotonic()
            try:
                await (self.many if random.random() < 0.2 else self.one)(client)
            except Exception as error:
                self.failed.append(str(error)[:300])
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            self.counted += 1
            await asyncio.sleep(pause_s)


def loaded(world: Spread, killing: Callable[[], int], answers: int) -> Load:
    """Ask until so many are answered and whoever is to be killed was."""
    load, begun, killed = Load(world), threading.Event(), threading.Event()

    async def scene() -> None:
        async with listening(world, threads=16) as (_, client):
            begun.set()

            def is_over() -> bool:
                return killed.is_set() and load.counted >= answers

            await asyncio.gather(*(load.run(client, is_over, 0.005) for _ in range(6)))

    # Nodes are added by the main thread alone.
    asking = threading.Thread(target=asyncio.run, args=(scene(),))
    asking.start()
    try:
        assert begun.wait(120)
        load.kills = killing()
    finally:
        killed.set()
        asking.join()
    return load


@pytest.mark.faults
def test_killed_workers_cost_no_answer(tmp_path: Path) -> None:
    with ray_of_two(), Spread(tmp_path, workers=2) as world:

        def killing() -> int:
            kills = 0
            while kills < KILLS:
                time.sleep(0.3 + random.random())
                pids = world.pids()
                if len(pids) == 2:
                    os.kill(random.choice(pids), signal.SIGKILL)
                    kills += 1
            return kills

        load = loaded(world, killing, ANSWERS)
    assert load.failed == []
    assert load.wrong == 0
    assert load.kills == KILLS
    assert load.counted >= ANSWERS


@pytest.mark.faults
def test_killed_nodes_cost_no_answer(tmp_path: Path, nodes: Nodes) -> None:
    for node in nodes.present():
        nodes.remove(node)
    for _ in range(4):
        nodes.add(num_cpus=1)
    with Spread(tmp_path, address="auto", workers=3) as world:

        def killing() -> int:
            kills = 0
            # The first is replaced on the node that is left over, the second by nobody.
            while kills < 2:
                time.sleep(1.0)
                places = world.places()
                if len(places) == 3:
                    taken = {node for _, node in places}
                    chosen = [node for node in nodes.present() if node.node_id in taken]
                    nodes.kill_raylet(chosen[0])
                    kills += 1
            time.sleep(5.0)
            return kills

        load = loaded(world, killing, 1_000)
    assert load.failed == []
    assert (load.wrong, load.kills) == (0, 2)
