"""The gateway over loopback: the bytes of the batch, and a reason for every refusal."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gateways import (
    AS_OF,
    COUNT,
    IDS,
    INDICATORS,
    POLICY,
    Client,
    Code,
    World,
    batch_request,
    refused_as,
    rows_of,
    served,
    table_of,
)
from visavis.catalog import Catalog
from visavis.catalog.wording import filled_in
from visavis.gateway import audiences
from visavis.gateway.entrance import SCOPE_OF
from visavis.v1 import (
    capability_pb2,
    catalog_service_pb2,
    errors_pb2,
    job_service_pb2,
    match_service_pb2,
    opportunity_pb2,
    profile_pb2,
    profile_service_pb2,
)


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


async def check_parity(client: Client, world: World) -> None:
    table = world.batch()
    assert table.num_rows > COUNT
    rows = []
    for customer_id in IDS:
        answer = await client.one(customer_id)
        assert answer.version.journal_offset == world.journal.offset
        rows += rows_of(answer)
    assert rows == table.to_pylist()
    answer = await client.many(IDS, reason_count=3)
    assert table_of(answer, IDS, with_reasons=True).to_pylist() == table.to_pylist()
    arrow = await client.many(IDS, reason_count=3, encoding=opportunity_pb2.ENCODING_ARROW)
    read = pa.ipc.open_stream(arrow.arrow).read_all()
    assert pa.types.is_dictionary(read.schema.field("customer_id").type)
    assert read.to_pylist() == table.to_pylist()
    plain = world.batch(reasons=None).to_pylist()
    frames = {number: IDS[number * 4 : number * 4 + 4] for number in range(COUNT // 4)}

    async def sent() -> AsyncIterator[Any]:
        for number, ids in frames.items():
            yield match_service_pb2.StreamMatchesRequest(frame_id=number, match=batch_request(ids))

    found = {}
    async for each in client.match.StreamMatches(sent()):
        assert each.WhichOneof("outcome") == "match"
        ids = frames[each.frame_id]
        found[each.frame_id] = table_of(each.match, ids, with_reasons=False).to_pylist()
    assert [row for number in sorted(found) for row in found[number]] == plain


def test_every_customer_is_answered_as_the_batch_does_after_facts_too(world: World) -> None:
    async def scene(client: Client) -> None:
        await check_parity(client, world)
        first = (await client.one("c01")).opportunities[0]
        fact = profile_pb2.Fact
        request = profile_service_pb2.RecordFactsRequest(
            request_id="one",
            facts=[
                profile_service_pb2.CustomerFact(
                    customer_id="c02",
                    fact=fact(product="wine", kind=profile_pb2.FACT_KIND_EXCLUDED, date=str(AS_OF)),
                )
            ],
            outcomes=[
                profile_service_pb2.OpportunityOutcome(
                    opportunity_id=first.opportunity_id,
                    kind=profile_pb2.FACT_KIND_BOUGHT,
                    date=str(AS_OF),
                )
            ],
            attributes=[
                profile_service_pb2.CustomerAttributes(
                    customer_id="c03", attributes={"age": profile_pb2.AttributeValue(int64_value=9)}
                ),
                profile_service_pb2.CustomerAttributes(
                    customer_id="c04",
                    attributes={"consent_mail": profile_pb2.AttributeValue(bool_value=False)},
                ),
            ],
            objecting_customer_ids=["c05"],
        )
        before = world.batch().to_pylist()
        done = await client.profile.RecordFacts(request)
        assert (done.first_offset, done.last_offset, done.is_repeated) == (1, 5, False)
        assert done.version.journal_offset == 5
        assert world.batch().to_pylist() != before
        await check_parity(client, world)
        again = await client.profile.RecordFacts(request)
        assert (again.last_offset, again.is_repeated) == (5, True)
        request.objecting_customer_ids.append("c06")
        await refused_as(
            client.profile.RecordFacts(request), Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"
        )
        gone = profile_service_pb2.ForgetCustomerRequest(customer_id="c03")
        forgot = await client.profile.ForgetCustomer(gone)
        assert forgot.emptied_count == 1
        assert not (await client.one("c03")).opportunities
        await check_parity(client, world)

    served(world, scene)


def a_profile(world: World, customer_id: str, named: str) -> Any:
    i = world.base.index_of(customer_id)
    attributes = {}
    kinds = {bool: "bool_value", int: "int64_value", str: "string_value"}
    for name in ("age", "first_name", "consent_mail", "consent_shop"):
        value = world.base.attributes[name][i].as_py()
        said = {} if value is None else {kinds[type(value)]: value}
        attributes[name] = profile_pb2.AttributeValue(**said)
    row = dict(zip(INDICATORS, world.base.indicators[i].tolist(), strict=True))
    return profile_pb2.Profile(customer_id=named, indicators=row, attributes=attributes)


def test_a_profile_is_answered_as_the_customer_unless_the_journal_knows_an_objection(
    world: World,
) -> None:
    async def scene(client: Client) -> None:
        for customer_id in ("c01", "c02", "c04"):  # without facts
            profile = a_profile(world, customer_id, customer_id)
            asked = match_service_pb2.MatchCustomerRequest(profile=profile)
            found = await client.match.MatchCustomer(asked)
            assert found.opportunities == (await client.one(customer_id)).opportunities
        asked.profile.customer_id = "stranger"
        assert (await client.match.MatchCustomer(asked)).opportunities
        await client.profile.RecordFacts(
            profile_service_pb2.RecordFactsRequest(
                request_id="no", objecting_customer_ids=["stranger"]
            )
        )
        assert not (await client.match.MatchCustomer(asked)).opportunities

    served(world, scene)


def test_messages_are_filled_in_or_empty_where_something_is_unknown(world: World) -> None:
    async def scene(client: Client) -> None:
        texts = set()
        for number, customer_id in enumerate(IDS):
            for each in (await client.one(customer_id)).opportunities:
                if int(each.capability_id[1:]) % 2 == 0 or number % 5 == 0:
                    assert each.message_text == ""
                else:
                    assert each.message_text == f"Dear N{number}, {{now}}: {each.product}"
                    texts.add(each.message_text)
        assert texts

    served(world, scene)
    assert filled_in("{a.__class__} {b}", {"b": 1}) == ""
    assert filled_in("{b} {b}", {"b": True}) == "true true"


def test_what_a_client_does_wrong_has_a_reason_and_a_field(world: World) -> None:
    one, many = match_service_pb2.MatchCustomerRequest, match_service_pb2.MatchCustomersRequest
    bad = Code.INVALID_ARGUMENT
    wrong_contexts: list[tuple[dict[str, Any], str, str]] = [
        ({"as_of": "yesterday"}, "INVALID_VALUE", "context.as_of"),
        ({"as_of": "2020-01-01"}, "INVALID_VALUE", "context.as_of"),
        (
            {"policy_overrides": {"k": 4}},
            "LOOSER_POLICY",
            "context.policy_overrides.k",
        ),
        (
            {"policy_overrides": {"ev_min": -1.0}},
            "LOOSER_POLICY",
            "context.policy_overrides.ev_min",
        ),
        (
            {"policy_overrides": {"k": 0}},
            "INVALID_VALUE",
            "context.policy_overrides.k",
        ),
        (
            {"capability_filter": {"products": {"names": ["coal"]}}},
            "INVALID_VALUE",
            "context.capability_filter.products.names",
        ),
        (
            {"exclusions": {"capability_ids": ["k99"]}},
            "INVALID_VALUE",
            "context.exclusions.capability_ids",
        ),
        (
            {"indicator_overrides": {"dayz": 1.0}},
            "INVALID_SCHEMA",
            "context.indicator_overrides.dayz",
        ),
        (
            {"indicator_overrides": {"days": float("nan")}},
            "INVALID_VALUE",
            "context.indicator_overrides.days",
        ),
        (
            {"attribute_overrides": {"objected": {"bool_value": False}}},
            "INVALID_VALUE",
            "context.attribute_overrides.objected",
        ),
        (
            {"attribute_overrides": {"age": {"string_value": "9"}}},
            "INVALID_SCHEMA",
            "context.attribute_overrides.age",
        ),
    ]

    async def scene(client: Client) -> None:
        details = await refused_as(client.one("nobody"), Code.NOT_FOUND, "UNKNOWN_CUSTOMER")
        held = details["ResourceInfo"]
        assert (held.resource_type, held.resource_name) == ("customer", "nobody")
        call = client.match.MatchCustomer
        await refused_as(call(one()), bad, "INVALID_SCHEMA", "customer_id")
        for context, reason, field in wrong_contexts:
            await refused_as(client.one("c01", context=context), bad, reason, field)
        await refused_as(client.one("c01", reason_count=-1), bad, "INVALID_VALUE", "reason_count")
        await refused_as(client.one("c01", reason_count=999), bad, "LIMIT_EXCEEDED", "reason_count")
        long = {"x" * 100_000: 1.0}
        await refused_as(
            client.one("c01", context={"indicator_overrides": long}), bad, "INVALID_SCHEMA"
        )
        profile = a_profile(world, "c01", "new")
        del profile.indicators["days"]
        await refused_as(call(one(profile=profile)), bad, "INVALID_SCHEMA", "profile.indicators")
        await refused_as(client.match.MatchCustomers(many()), bad, "INVALID_SCHEMA", "ids")
        ids = ["c01"] * 10_001
        await refused_as(client.many(ids), bad, "LIMIT_EXCEEDED", "ids.customer_ids")
        some = await client.many(["c01", "nobody", "c02"])
        assert [each.row_index for each in some.row_errors] == [1]
        assert some.row_errors[0].reason == errors_pb2.ERROR_REASON_UNKNOWN_CUSTOMER
        assert (await client.many([])).customer_count == 0
        record = client.profile.RecordFacts
        empty = profile_service_pb2.RecordFactsRequest(request_id="x")
        await refused_as(record(empty), bad, "INVALID_VALUE", "facts")
        empty.objecting_customer_ids.append("")
        await refused_as(record(empty), bad, "INVALID_VALUE", "objecting_customer_ids[0]")
        empty.request_id = "y" * 129
        await refused_as(record(empty), bad, "INVALID_VALUE", "request_id")
        outcome = profile_service_pb2.RecordFactsRequest(request_id="o")
        outcome.outcomes.add(opportunity_id="AAAA")
        await refused_as(record(outcome), bad, "INVALID_VALUE", "outcomes.opportunity_id[0]")
        await refused_as(
            client.job.ListJobs(job_service_pb2.ListJobsRequest()),
            Code.FAILED_PRECONDITION,
            "JOBS_ABSENT",
        )

    served(world, scene)


def test_bytes_that_are_no_message_are_a_wrong_argument(world: World) -> None:
    async def scene(client: Client) -> None:
        for method in sorted(SCOPE_OF):
            if method.endswith("StreamMatches"):
                continue
            if method.endswith(("WatchJob", "ReadResults")):
                reading = client.channel.unary_stream(method)(b"\xff\xff\xff")
                await refused_as(reading.read(), Code.INVALID_ARGUMENT, "INVALID_SCHEMA")
                continue
            call = client.channel.unary_unary(method)
            await refused_as(call(b"\xff\xff\xff"), Code.INVALID_ARGUMENT, "INVALID_SCHEMA")
        stream = client.channel.stream_stream("/visavis.v1.MatchService/StreamMatches")

        async def garbage() -> AsyncIterator[bytes]:
            yield b"\xff\xff\xff"

        async def read() -> None:
            async for _ in stream(garbage()):
                pass

        await refused_as(read(), Code.INVALID_ARGUMENT, "INVALID_SCHEMA")

    served(world, scene)


def test_a_frame_that_is_wrong_is_answered_in_its_place(world: World) -> None:
    async def sent() -> AsyncIterator[Any]:
        frame = match_service_pb2.StreamMatchesRequest
        yield frame(frame_id=1)
        yield frame(frame_id=2, match=batch_request(["c01"]))

    async def scene(client: Client) -> None:
        found = {each.frame_id: each async for each in client.match.StreamMatches(sent())}
        assert found[1].error.code == Code.INVALID_ARGUMENT.value[0]
        assert found[1].error.reason == errors_pb2.ERROR_REASON_INVALID_SCHEMA
        assert found[2].match.customer_count == 1

    served(world, scene)


def test_an_explanation_names_the_first_obstacle(world: World) -> None:
    audit = io.StringIO()
    ask = match_service_pb2.ExplainRequest
    filled = (match_service_pb2.OBSTACLE_K, match_service_pb2.OBSTACLE_PRODUCT_LIMIT)

    async def scene(client: Client) -> None:
        explain = client.match.Explain
        best = (await client.one("c01")).opportunities[0]
        found = await explain(ask(customer_id="c01", capability_id=best.capability_id))
        assert (found.rank, found.obstacle) == (1, match_service_pb2.OBSTACLE_NONE)
        assert found.expected_value == best.expected_value
        assert all(gate.is_open for gate in found.gates)
        out = await explain(ask(customer_id="c13", capability_id="k00"))
        assert out.obstacle == match_service_pb2.OBSTACLE_OBJECTION
        assert not out.HasField("linear_predictor")
        shut = await explain(
            ask(
                customer_id="c01",
                capability_id=best.capability_id,
                context={"exclusions": {"capability_ids": [best.capability_id]}},
            )
        )
        assert shut.obstacle == match_service_pb2.OBSTACLE_EXCLUSION
        profile = a_profile(world, "c01", "c01")
        inline = await explain(ask(profile=profile, capability_id=best.capability_id))
        assert inline == found
        names = {"available_channels": {"names": ["fax"]}}
        names["capability_filter"] = {"products": {"names": ["oil"]}}
        for name, obstacle in (
            ("available_channels", match_service_pb2.OBSTACLE_AVAILABILITY),
            ("capability_filter", match_service_pb2.OBSTACLE_FILTER),
        ):
            asked = ask(profile=profile, capability_id="k01", context={name: names[name]})
            assert (await explain(asked)).obstacle == obstacle
        seen = set()
        for customer_id in ("c01", "c02", "c07", "c11"):
            for j in range(12):
                each = await explain(ask(customer_id=customer_id, capability_id=f"k{j:02d}"))
                seen.add(each.obstacle)
                assert each.verdict
                taken = (await client.one(customer_id)).opportunities
                by_id = {opportunity.capability_id: opportunity for opportunity in taken}
                better = [by_id[name] for name in each.better_capability_ids]
                assert [one.rank for one in better] == sorted(one.rank for one in better)
                assert bool(better) == (each.obstacle in filled)
                if each.obstacle == match_service_pb2.OBSTACLE_K:
                    assert len(better) == POLICY.k
        assert seen >= {
            match_service_pb2.OBSTACLE_NONE,
            match_service_pb2.OBSTACLE_CONSENT,
            match_service_pb2.OBSTACLE_K,
            match_service_pb2.OBSTACLE_PRODUCT_LIMIT,
        }
        for customer_id, capability_id, kind in (
            ("nobody", "k00", "CUSTOMER"),
            ("c01", "k99", "CAPABILITY"),
        ):
            wrong = explain(ask(customer_id=customer_id, capability_id=capability_id))
            details = await refused_as(wrong, Code.NOT_FOUND, f"UNKNOWN_{kind}")
            assert details["ResourceInfo"].resource_type == kind.lower()

    served(world, scene, audit=audit)
    lines = [json.loads(line) for line in audit.getvalue().splitlines()]
    assert {line["method"] for line in lines} == {"MatchService/Explain"}
    assert {"OK", "NOT_FOUND"} == {line["code"] for line in lines}
    assert not any(name in audit.getvalue() for name in ("c01", "c13", "nobody"))


def test_an_audience_comes_page_by_page_from_one_version(world: World) -> None:
    request = match_service_pb2.FindAudienceRequest(
        capability_id="k05", audience_count=20, page_size=7, include_reach=True
    )

    async def scene(client: Client) -> None:
        whole = (await world_audience(client, request)).members
        assert len(whole) == 20
        found, pages, token = [], 0, ""
        while pages == 0 or token:
            page = match_service_pb2.FindAudienceRequest()
            page.CopyFrom(request)
            page.page_token = token
            answer = await client.match.FindAudience(page)
            assert answer.HasField("reach_count") == (pages == 0)
            found += answer.members
            token = answer.next_page_token
            if pages == 0:
                await client.profile.RecordFacts(an_objection("c01"))
            pages += 1
        assert (found, pages) == (list(whole), 3)
        values = [each.expected_value for each in found]
        assert values == sorted(values, reverse=True)
        page.page_token = base64.urlsafe_b64encode(bytes(36)).decode()
        call = client.match.FindAudience
        await refused_as(call(page), Code.INVALID_ARGUMENT, "INVALID_TOKEN", "page_token")
        draft = capability_pb2.Capability(
            capability_id="new", product="tea", channel="shop", weights={"spend": 1.0}
        )
        drafted = await call(
            match_service_pb2.FindAudienceRequest(draft=draft, audience_count=5, include_reach=True)
        )
        assert len(drafted.members) == 5
        assert 0 < drafted.reach_count <= drafted.eligible_count
        unknown = match_service_pb2.FindAudienceRequest(capability_id="k99", audience_count=1)
        await refused_as(call(unknown), Code.NOT_FOUND, "UNKNOWN_CAPABILITY")

    served(world, scene)


async def world_audience(client: Client, request: Any) -> Any:
    whole = match_service_pb2.FindAudienceRequest()
    whole.CopyFrom(request)
    whole.page_size = 0
    return await client.match.FindAudience(whole)


def an_objection(customer_id: str) -> Any:
    return profile_service_pb2.RecordFactsRequest(
        request_id=f"objection of {customer_id}", objecting_customer_ids=[customer_id]
    )


def test_the_catalog_is_listed_as_it_is(world: World) -> None:
    async def scene(client: Client) -> None:
        about = await client.catalog.GetServingInfo(catalog_service_pb2.GetServingInfoRequest())
        assert about.version.catalog_digest == world.catalog.digest()
        assert list(about.indicator_names) == list(INDICATORS)
        assert (about.customer_count, about.capability_count) == (COUNT, 12)
        assert (about.policy.k, about.has_journal, about.has_jobs) == (3, True, False)
        ask = catalog_service_pb2.ListCapabilitiesRequest(
            view=capability_pb2.CAPABILITY_VIEW_FULL, page_size=5
        )
        found = []
        while True:
            answer = await client.catalog.ListCapabilities(ask)
            found += answer.capabilities
            ask.page_token = answer.next_page_token
            if not ask.page_token:
                break
        # What is listed is what a draft takes: the round trip is the catalog.
        again = Catalog.from_rows([audiences._draft(each) for each in found])
        assert again.digest() == world.catalog.digest()
        ask.capability_filter.products.names.append("tea")
        few = await client.catalog.ListCapabilities(ask)
        assert [each.capability_id for each in few.capabilities] == ["k00", "k04", "k08"]

    served(world, scene)
