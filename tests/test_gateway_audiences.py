"""FindAudience: reasons of members, other days, and drafts in the place of what is served."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateways import AS_OF, IDS, Client, Code, World, refused_as, rows_of, served
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.gateway import audiences
from visavis.v1 import (
    capability_pb2,
    catalog_service_pb2,
    context_pb2,
    match_service_pb2,
    profile_pb2,
)

ask = match_service_pb2.FindAudienceRequest


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def members_of(found: Any) -> list[tuple[str, float, float, bool]]:
    return [
        (each.customer_id, each.propensity, each.expected_value, each.is_control)
        for each in found.members
    ]


def members_in(engine: Engine, name: str, k: int) -> list[tuple[str, float, float, bool]]:
    rows = engine.audience([name], k=k).to_pylist()
    names = ("customer_id", "propensity", "expected_value", "control")
    return [tuple(row[name] for name in names) for row in rows]  # type: ignore[misc]


def test_members_have_the_reasons_of_their_matches_on_every_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(client: Client) -> None:
        of_match = {}
        for customer_id in IDS:
            for row in rows_of(await client.one(customer_id, reason_count=2)):
                of_match[customer_id, row["capability_id"]] = row["reasons"]
        seen = 0
        for number in range(12):
            name = f"k{number:02d}"
            request = ask(capability_id=name, audience_count=40, page_size=7, reason_count=2)
            while True:
                page = await client.match.FindAudience(request)
                for each in page.members:
                    told = [
                        {"indicator": why.indicator, "contribution": why.contribution}
                        for why in each.reasons
                    ]
                    meant = of_match.get((each.customer_id, name))
                    assert meant in (None, told)
                    seen += meant is not None
                request.page_token = page.next_page_token
                if not request.page_token:
                    break
        assert seen == len(of_match)
        bare = await client.match.FindAudience(ask(capability_id="k05", audience_count=40))
        assert not any(each.reasons for each in bare.members)
        # However small a message, a page holds somebody, and pages go on where the last ended.
        monkeypatch.setattr(audiences, "_PAGE_BYTES", 1)
        few = ask(capability_id="k05", audience_count=3, reason_count=2)
        names = []
        for _ in range(3):
            page = await client.match.FindAudience(few)
            names += [each.customer_id for each in page.members]
            assert len(page.members) == 1
            few.page_token = page.next_page_token
        assert names == [each.customer_id for each in bare.members[:3]]
        assert not few.page_token

    served(world, scene)


def test_an_audience_on_another_day_is_that_of_the_batch(world: World) -> None:
    async def scene(client: Client) -> None:
        for days in (0, 1, 30):
            day = AS_OF + timedelta(days=days)
            engine = Engine(world.base, world.catalog, world.policy, as_of=day)
            context = context_pb2.RequestContext(as_of=day.isoformat())
            matched = engine.match().to_table()["capability_id"].to_pylist()
            for name in ("k00", "k05"):
                found = await client.match.FindAudience(
                    ask(capability_id=name, context=context, audience_count=40, include_reach=True)
                )
                assert found.version.as_of == day.isoformat()
                assert members_of(found) == members_in(engine, name, 40)
                assert found.reach_count == matched.count(name)

    served(world, scene)


def test_a_draft_with_a_served_id_stands_in_its_place(world: World) -> None:
    async def scene(client: Client) -> None:
        listed = await client.catalog.ListCapabilities(
            catalog_service_pb2.ListCapabilitiesRequest(view=capability_pb2.CAPABILITY_VIEW_FULL)
        )
        drafts = {each.capability_id: each for each in listed.capabilities}
        plain = await client.match.FindAudience(
            ask(capability_id="k03", audience_count=40, include_reach=True, reason_count=3)
        )
        request = ask(draft=drafts["k03"], audience_count=40, include_reach=True, reason_count=3)
        assert await client.match.FindAudience(request) == plain
        request.draft.value *= 3
        request.draft.channel = "mail"
        rows = [audiences._draft(each) for each in drafts.values() if each.capability_id != "k03"]
        catalog = Catalog.from_rows([*rows, audiences._draft(request.draft)])
        engine = Engine(world.base, catalog, world.policy)
        found = await client.match.FindAudience(request)
        assert members_of(found) == members_in(engine, "k03", 40)
        matched = engine.match().to_table()["capability_id"].to_pylist()
        assert found.reach_count == matched.count("k03") != plain.reach_count

    served(world, scene)


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"capability_filter": {}}, "context.capability_filter"),
        ({"indicator_overrides": {"days": 1.0}}, "context.indicator_overrides"),
        (
            {"attribute_overrides": {"age": profile_pb2.AttributeValue(int64_value=9)}},
            "context.attribute_overrides",
        ),
        ({"policy_overrides": {"k": 1}}, "context.policy_overrides.k"),
        ({"policy_overrides": {"family_limit": 1}}, "context.policy_overrides.family_limit"),
        ({"as_of": "2020-01-01"}, "context.as_of"),
    ],
)
def test_a_context_that_says_nothing_of_an_audience_is_refused(
    world: World, context: dict[str, Any], field: str
) -> None:
    async def scene(client: Client) -> None:
        request = ask(capability_id="k05", audience_count=1, context=context)
        call = client.match.FindAudience
        await refused_as(call(request), Code.INVALID_ARGUMENT, "INVALID_VALUE", field)
        for count, reason in ((-1, "INVALID_VALUE"), (101, "LIMIT_EXCEEDED")):
            wrong = ask(capability_id="k05", audience_count=1, reason_count=count)
            await refused_as(call(wrong), Code.INVALID_ARGUMENT, reason, "reason_count")

    served(world, scene)


def test_audiences_are_kept_up_to_a_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audiences, "_KEPT_BYTES", 6_000)
    kept = audiences.Audiences()
    with world.serving() as serving:
        for number in range(6):
            request = ask(capability_id=f"k{number:02d}", audience_count=20, reason_count=3)
            kept.found(serving, request)
            assert sum(map(audiences._size, kept._kept.values())) <= 6_000
    assert 1 <= len(kept._kept) < 6
