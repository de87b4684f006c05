"""Fifty publications under load: no call fails, and each answer is of the version that it names."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gateways import IDS, Client, World, a_base, a_catalog, batch_request, served
from parity import Expected
from processes import POLICY
from visavis.policy import Policy
from visavis.v1 import catalog_service_pb2, match_service_pb2, opportunity_pb2

SOURCES = ("base", "catalog", "policy")

Triple = tuple[str, str, str]


def triple_of(version: Any) -> Triple:
    return version.base_digest, version.catalog_digest, version.policy_digest


class Versions:
    """Two of each source on disk, and what the batch makes of all eight."""

    def __init__(self, world: World) -> None:
        folder = world.folder
        other = a_base(seed=1)
        bases = {"base": (world.stored, world.base)}
        bases["base2"] = (other.write(folder / "base2", parts=4), other)
        catalogs = {"one.parquet": world.catalog, "two.parquet": a_catalog(bias=1.0)}
        policies = {}
        for name, k in (("one.toml", 3), ("two.toml", 2)):
            (folder / name).write_text(POLICY.replace("k = 3", f"k = {k}"))
            policies[name] = Policy.read(folder / name)
        assert policies["one.toml"].digest() == world.policy.digest()
        for name, catalog in catalogs.items():
            catalog.write(folder / name)
        self.digests: list[dict[str, str]] = [
            {name: stored.digest for name, (stored, _) in bases.items()},
            {name: catalog.digest() for name, catalog in catalogs.items()},
            {name: policy.digest() for name, policy in policies.items()},
        ]
        overlay = world.journal.overlay()
        self.expected = {
            (stored.digest, catalog.digest(), policy.digest()): Expected(
                overlay.apply(base), catalog, policy
            )
            for (stored, base), catalog, policy in product(
                bases.values(), catalogs.values(), policies.values()
            )
        }

    def check_many(self, ids: list[str], answer: Any, *, with_reasons: bool) -> Triple:
        found = triple_of(answer.version)
        self.expected[found].check_many(ids, answer, with_reasons=with_reasons)
        return found


async def swapped(client: Client, versions: Versions, count: int) -> None:
    """Publish one, two or all three sources at a time, the last ones again by name as well."""
    rng = random.Random(3)
    served_now = [next(iter(each)) for each in versions.digests]
    for number in range(count):
        changed = rng.sample(range(3), rng.choice((1, 1, 2, 3)))
        for which in changed:
            (served_now[which],) = set(versions.digests[which]) - {served_now[which]}
        sources = {
            SOURCES[which]: {
                "location": served_now[which],
                "digest": versions.digests[which][served_now[which]],
            }
            for which in changed
        }
        request = catalog_service_pb2.PublishVersionRequest(request_id=f"swap-{number}", **sources)
        done = await client.catalog.PublishVersion(request)
        want = tuple(
            digests[name] for digests, name in zip(versions.digests, served_now, strict=True)
        )
        assert triple_of(done.version) == want
        assert triple_of(done.replaced_version) != want
        # What begins after the answer is of the new version.
        assert triple_of((await client.many([])).version) == want


def loads(client: Client, versions: Versions) -> list[Callable[[int], Awaitable[set[Triple]]]]:
    """Calls of every kind, each of which says what it was answered from."""

    async def one(number: int) -> set[Triple]:
        customer_id = IDS[number % len(IDS)]
        answer = await client.one(customer_id)
        versions.expected[triple_of(answer.version)].check_one(customer_id, answer)
        return {triple_of(answer.version)}

    async def columns(number: int) -> set[Triple]:
        ids = IDS[number % 7 :]
        answer = await client.many(ids, reason_count=3)
        return {versions.check_many(ids, answer, with_reasons=True)}

    async def arrow(number: int) -> set[Triple]:
        ids = IDS[: 1 + number % len(IDS)]
        answer = await client.many(ids, encoding=opportunity_pb2.ENCODING_ARROW)
        return {versions.check_many(ids, answer, with_reasons=False)}

    async def stream(number: int) -> set[Triple]:
        frames = {at: IDS[at : at + 1 + number % 9] for at in range(12)}

        async def sent() -> AsyncIterator[Any]:
            for at, ids in frames.items():
                yield match_service_pb2.StreamMatchesRequest(frame_id=at, match=batch_request(ids))
                await asyncio.sleep(0.002)

        found, answered = set(), []
        async for frame in client.match.StreamMatches(sent()):
            assert frame.WhichOneof("outcome") == "match", frame.error
            ids = frames[frame.frame_id]
            found.add(versions.check_many(ids, frame.match, with_reasons=False))
            answered.append(frame.frame_id)
        assert sorted(answered) == sorted(frames)
        return found

    return [one, columns, arrow, stream]


async def under_load(client: Client, versions: Versions, count: int) -> None:
    stopped, seen, calls = asyncio.Event(), set(), [0]

    async def repeated(ask: Callable[[int], Awaitable[set[Triple]]], number: int) -> None:
        while not stopped.is_set():
            seen.update(await ask(number))
            calls[0] += 1
            number += 1

    async with asyncio.TaskGroup() as group:
        for at, ask in enumerate(loads(client, versions)):
            group.create_task(repeated(ask, at))
        try:
            await swapped(client, versions, count)
        finally:
            stopped.set()
    print(f"{count} swaps under {calls[0]} calls of {len(seen)} versions: none failed")  # noqa: T201
    assert calls[0] >= count
    assert len(seen) > 1


def run(folder: Path, count: int) -> None:
    with World(folder) as world:
        world.journal.append(objections=["c05"])
        versions = Versions(world)
        served(world, lambda client: under_load(client, versions, count))


def test_swaps_of_every_source_fail_no_call_and_mix_no_answer(tmp_path: Path) -> None:
    run(tmp_path, 6)


@pytest.mark.faults
def test_fifty_swaps_fail_no_call_and_mix_no_answer(tmp_path: Path) -> None:
    run(tmp_path, 50)
