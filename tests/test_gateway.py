"""The gateway over loopback: the batch's bytes, errors with details, tokens, publish, drain."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from commands import refused as refused_command
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.errors import InputError
from visavis.gateway import audiences, match_service
from visavis.gateway.audit import Audit
from visavis.gateway.codec import decoded
from visavis.gateway.entrance import SCOPE_OF
from visavis.gateway.naming import named_opportunity, opportunity_id
from visavis.gateway.server import Certificates, Gateway, Settings
from visavis.gateway.tokens import SCOPES, TokenFile
from visavis.gateway.wording import filled_in
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Serving
from visavis.v1 import (
    capability_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    errors_pb2,
    job_service_pb2_grpc,
    match_service_pb2,
    match_service_pb2_grpc,
    opportunity_pb2,
    profile_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
)

AS_OF = date(2026, 3, 1)
COUNT = 40
INDICATORS = ("days", "spend", "visits")
IDS = [f"c{number:02d}" for number in range(COUNT)]
POLICY = Policy(k=3, product_limit=1, ev_min=0.0, control_share=0.25, cool_down_days={"mail": 10})

Code = grpc.StatusCode
NAMES = frozenset(errors_pb2.ErrorReason.keys())


def a_base(seed: int = 0) -> Base:
    rng = np.random.default_rng(seed)
    indicators = pa.table(
        {
            "customer_id": pa.array(IDS),
            **{name: pa.array(rng.normal(size=COUNT).astype(np.float32)) for name in INDICATORS},
        }
    )
    attributes = pa.table(
        {
            "customer_id": pa.array(IDS),
            "age": pa.array(rng.integers(10, 80, COUNT), pa.int64()),
            "first_name": pa.array([None if n % 5 == 0 else f"N{n}" for n in range(COUNT)]),
            "consent_mail": pa.array([n % 7 != 0 for n in range(COUNT)]),
            "consent_shop": pa.array([n % 11 != 0 for n in range(COUNT)]),
            "objected": pa.array([n % 13 == 0 for n in range(COUNT)]),
        }
    )
    facts = pa.table(
        {
            "customer_id": pa.array([IDS[n] for n in range(0, COUNT, 3)]),
            "product": pa.array(["tea"] * len(range(0, COUNT, 3))),
            "kind": pa.array(["bought"] * len(range(0, COUNT, 3))),
            "date": pa.array([AS_OF - timedelta(days=n + 1) for n in range(0, COUNT, 3)]),
        }
    )
    return Base.from_tables(indicators, attributes=attributes, facts=facts, as_of=AS_OF)


def a_catalog(bias: float = 0.0) -> Catalog:
    rng = np.random.default_rng(7)
    rows = []
    for number in range(12):
        product = ("tea", "wine", "bread", "oil")[number % 4]
        rows.append(
            {
                "id": f"k{number:02d}",
                "product": product,
                "channel": ("mail", "shop")[number % 2],
                "family": "food",
                "message": "Dear {first_name}, {{now}}: " + product if number % 2 else "",
                "weights": {name: float(rng.normal()) for name in INDICATORS},
                "bias": bias,
                "value": float(1 + number),
                "cost": 0.25,
                "rule": "age >= 18" if number % 3 == 0 else None,
                "history_weights": [{"kind": "bought", "feature": "ever", "weight": 0.5}],
            }
        )
    return Catalog.from_rows(rows)


class World:
    """What is served, on disk, and the batch of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = a_base()
        self.stored = self.base.write(folder / "base", parts=4)
        self.catalog = a_catalog()
        self.policy = POLICY
        self.journal = Journal.open(folder / "journal", create=True)

    def batch(self, **options: Any) -> pa.Table:
        base = self.journal.overlay().apply(self.base)
        return Engine(base, self.catalog, self.policy).match().to_table(**options)

    def serving(self) -> Serving:
        return Serving.open(self.stored, self.catalog, self.policy, journal=self.journal, threads=1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.journal.close()


class Client:
    """The stubs of one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.match = match_service_pb2_grpc.MatchServiceStub(channel)
        self.profile = profile_service_pb2_grpc.ProfileServiceStub(channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.job = job_service_pb2_grpc.JobServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def one(self, customer_id: str, **more: Any) -> Any:
        request = match_service_pb2.MatchCustomerRequest(customer_id=customer_id, **more)
        return await self.match.MatchCustomer(request)

    async def many(self, ids: list[str], **more: Any) -> Any:
        return await self.match.MatchCustomers(batch_request(ids, **more))


def batch_request(ids: list[str], **more: Any) -> Any:
    named = match_service_pb2.CustomerIds(customer_ids=ids)
    return match_service_pb2.MatchCustomersRequest(ids=named, **more)


@asynccontextmanager
async def listening(
    world: World, *, is_open: bool = True, audit: io.StringIO | None = None, **settings: Any
) -> AsyncIterator[tuple[Gateway, Client]]:
    chosen = Settings(
        address="127.0.0.1:0", audit=Audit(audit or io.StringIO()), roots=[str(world.folder)],
        **settings,
    )  # fmt: skip
    gateway = Gateway(chosen, journal=world.journal)
    await gateway.start()
    try:
        with world.serving() as serving:
            if is_open:
                await gateway.open(serving)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                yield gateway, Client(channel)
    finally:
        await gateway.drain(1.0)


def served(world: World, scene: Callable[[Client], Awaitable[None]], **settings: Any) -> None:
    async def played() -> None:
        async with listening(world, **settings) as (_, client):
            await scene(client)

    asyncio.run(played())


async def refused(call: Awaitable[Any]) -> tuple[Any, dict[str, Any]]:
    """The code of a call that fails, and its details by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailers = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    details = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        detail = getattr(error_details_pb2, name)()
        assert packed.Unpack(detail)
        details[name] = detail
    assert details["ErrorInfo"].domain == "visavis"
    return error.code(), details


async def refused_as(call: Awaitable[Any], code: Any, reason: str, field: str | None = None) -> Any:
    found, details = await refused(call)
    assert (found, details["ErrorInfo"].reason) == (code, reason)
    assert f"ERROR_REASON_{reason}" in NAMES
    assert ("BadRequest" in details) == (code is Code.INVALID_ARGUMENT)
    if field is not None:
        assert details["BadRequest"].field_violations[0].field == field
    return details


def table_of(response: Any, ids: list[str], *, with_reasons: bool) -> pa.Table:
    """A batch's columns as the table of a result."""
    found = decoded(response.columns, response.customer_count)
    columns = {
        "customer_id": pa.array(ids, pa.string()).take(pa.array(found.customer_index)),
        "rank": pa.array(found.rank),
        "capability_id": found.capability_ids.take(pa.array(found.capability_index)),
        "propensity": pa.array(found.propensity),
        "expected_value": pa.array(found.expected_value),
        "control": pa.array(found.is_control[found.customer_index]),
    }
    if with_reasons:
        assert found.reasons is not None
        columns["reasons"] = found.reasons
    return pa.table(columns)


def rows_of(response: Any) -> list[dict[str, Any]]:
    """One customer's answer as rows of a result."""
    return [
        {
            "customer_id": response.customer_id,
            "rank": each.rank,
            "capability_id": each.capability_id,
            "propensity": each.propensity,
            "expected_value": each.expected_value,
            "control": each.is_control,
            "reasons": [
                {"indicator": why.indicator, "contribution": why.contribution}
                for why in each.reasons
            ],
        }
        for each in response.opportunities
    ]


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
        await refused_as(client.job.ListJobs(b_list_jobs()), Code.UNIMPLEMENTED, "UNSPECIFIED")

    served(world, scene)


def b_list_jobs() -> Any:
    from visavis.v1 import job_service_pb2

    return job_service_pb2.ListJobsRequest()


def test_bytes_that_are_no_message_are_a_wrong_argument(world: World) -> None:
    async def scene(client: Client) -> None:
        for method in sorted(SCOPE_OF):
            if "StreamMatches" in method or "JobService" in method:
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
        assert shut.obstacle == match_service_pb2.OBSTACLE_CONTEXT
        seen = set()
        for customer_id in ("c01", "c02", "c07", "c11"):
            for j in range(12):
                each = await explain(ask(customer_id=customer_id, capability_id=f"k{j:02d}"))
                seen.add(each.obstacle)
                assert each.verdict
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
        page.page_token, page.audience_count = answer_token(answer), 19
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


def answer_token(answer: Any) -> str:
    return str(answer.next_page_token)


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


def publish_request(request_id: str, **more: Any) -> Any:
    return catalog_service_pb2.PublishVersionRequest(request_id=request_id, **more)


def test_a_published_catalog_is_swapped_in_under_load(world: World, tmp_path: Path) -> None:
    other = a_catalog(bias=1.0)
    other.write(tmp_path / "other.parquet")
    world.catalog.write(tmp_path / "first.parquet")
    (tmp_path.parent / "outside.toml").write_text("k = 1\n")
    (tmp_path / "loose.toml").write_text("cool_down_days = { pigeon = 3 }\n")
    tables = {}
    for catalog in (world.catalog, other):
        table = Engine(world.base, catalog, world.policy).match().to_table(reasons=None)
        tables[catalog.digest()] = table.to_pylist()

    async def scene(client: Client) -> None:
        publish = client.catalog.PublishVersion
        stopped, seen = asyncio.Event(), set()

        async def load() -> None:
            while not stopped.is_set():
                answer = await client.many(IDS)
                digest = answer.version.catalog_digest
                seen.add(digest)
                found = table_of(answer, IDS, with_reasons=False).to_pylist()
                assert found == tables[digest]

        loads = [asyncio.create_task(load()) for _ in range(2)]
        for number in range(6):
            name, catalog = (("other", other), ("first", world.catalog))[number % 2]
            source = {"location": str(tmp_path / f"{name}.parquet"), "digest": catalog.digest()}
            done = await publish(publish_request(str(number), catalog=source))
            assert done.version.catalog_digest == catalog.digest()
            assert done.replaced_version.catalog_digest != catalog.digest()
            assert (await client.many(["c01"])).version.catalog_digest == catalog.digest()
        stopped.set()
        await asyncio.gather(*loads)
        assert seen == set(tables)
        again = await publish(publish_request("5", catalog=source))
        assert again.is_repeated
        source["digest"] = "0" * 64
        unfit = Code.FAILED_PRECONDITION
        await refused_as(publish(publish_request("a", catalog=source)), unfit, "DIGEST_MISMATCH")
        await refused_as(publish(publish_request("5", catalog=source)), Code.ALREADY_EXISTS,
                         "REQUEST_ID_REUSED")  # fmt: skip
        loose = {"location": "loose.toml"}
        await refused_as(publish(publish_request("b", policy=loose)), unfit, "VERSION_UNFIT")
        for location in ("../outside.toml", "/etc/passwd", "", "s3://bucket/x", "a\0b"):
            await refused_as(
                publish(publish_request("c", policy={"location": location})),
                Code.INVALID_ARGUMENT,
                "INVALID_VALUE",
                "policy.location",
            )
        dry = publish_request("d", catalog={"location": "other.parquet"}, validate_only=True)
        assert (await publish(dry)).version.catalog_digest == other.digest()
        assert (await client.many([])).version.catalog_digest == world.catalog.digest()

    served(world, scene)


def token_file(folder: Path) -> Path:
    lines = []
    for name in (*SCOPES, "old"):
        digest = hashlib.sha256(f"token of {name}".encode()).hexdigest()
        scopes = json.dumps(list(SCOPES) if name == "old" else [name])
        lines += ["[[token]]", f'name = "{name}"', f'sha256 = "{digest}"', f"scopes = {scopes}"]
        lines += ["expires = 2026-01-01"] if name == "old" else []
    path = folder / "tokens.toml"
    path.write_text("\n".join(lines))
    return path


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer token of {name}"),)


def test_every_call_needs_a_token_of_its_scope(world: World) -> None:
    audit = io.StringIO()
    tokens = TokenFile(token_file(world.folder), today=lambda: date(2026, 1, 2))

    def ask(client: Client, method: str, metadata: Any) -> Awaitable[Any]:
        if method.endswith("StreamMatches"):

            async def streamed() -> None:
                call = client.channel.stream_stream(method)
                async for _ in call(none(), metadata=metadata):
                    pass

            return streamed()
        if method.endswith(("WatchJob", "ReadResults")):

            async def watched() -> None:
                async for _ in client.channel.unary_stream(method)(b"", metadata=metadata):
                    pass

            return watched()
        return client.channel.unary_unary(method)(b"", metadata=metadata)  # type: ignore[no-any-return]

    async def none() -> AsyncIterator[bytes]:
        for nothing in ():
            yield nothing

    async def scene(client: Client) -> None:
        methods = {
            f"/{service.full_name}/{each.name}"
            for module in (match_service_pb2, profile_service_pb2, catalog_service_pb2, jobs())
            for service in module.DESCRIPTOR.services_by_name.values()
            for each in service.methods
        }
        assert methods == set(SCOPE_OF)
        for method, scope in SCOPE_OF.items():
            missing = ask(client, method, ())
            await refused_as(missing, Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")
            for wrong in (
                bearer("nobody"),
                bearer("old"),
                (("authorization", "token of read"),),
                bearer(scope) + bearer(scope),
            ):
                call = ask(client, method, wrong)
                await refused_as(call, Code.UNAUTHENTICATED, "CREDENTIALS_INVALID")
            for other in SCOPES:
                if other != scope:
                    call = ask(client, method, bearer(other))
                    await refused_as(call, Code.PERMISSION_DENIED, "SCOPE_MISSING")
            try:
                await ask(client, method, bearer(scope))
            except grpc.aio.AioRpcError as error:
                assert error.code() in (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED)  # noqa: PT017
        unknown = client.channel.unary_unary("/visavis.v1.MatchService/Guess")
        call = unknown(b"", metadata=bearer("read"))
        await refused_as(call, Code.PERMISSION_DENIED, "SCOPE_MISSING")
        await client.health.Check(health_pb2.HealthCheckRequest())

    served(world, scene, tokens=tokens, audit=audit)
    assert "token of" not in audit.getvalue()


def jobs() -> Any:
    from visavis.v1 import job_service_pb2

    return job_service_pb2


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    tokens = TokenFile(path, today=lambda: date(2026, 1, 1))
    assert tokens.find("token of read") is not None
    assert tokens.find("token of old") is not None
    text = path.read_text()
    path.write_text("half a fi")
    assert tokens.find("token of read") is not None
    digest = hashlib.sha256(b"new").hexdigest()
    path.write_text(text.replace(hashlib.sha256(b"token of read").hexdigest(), digest))
    assert tokens.find("token of read") is None
    found = tokens.find("new")
    assert found is not None
    assert found.scopes == {"read"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "tokens"),
        ("token = 1", "tokens"),
        ("x = 1", "tokens.x"),
        ('[[token]]\nname = ""', "tokens.token.name"),
        ('[[token]]\nname = "a"\nsha256 = "secret"', "tokens.token.sha256"),
        (f'[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["all"]', "tokens.token.scopes"),
        ("[[token]]\nkey = 1", "tokens.token.key"),
        ("[[token", "tokens"),
    ],
)
def test_a_token_file_that_is_wrong_is_refused(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        TokenFile(path)
    assert caught.value.field == field


def test_an_address_that_others_reach_needs_tls_and_tokens(tmp_path: Path) -> None:
    tokens = TokenFile(token_file(tmp_path))
    files = Certificates(tmp_path / "cert", tmp_path / "key")
    for address in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"):
        for settings in ({}, {"tokens": tokens}, {"certificates": files}):
            with pytest.raises(InputError, match="can be reached by others"):
                Gateway(Settings(address=address, **settings))
        Gateway(Settings(address=address, tokens=tokens, certificates=files))
    for address in ("127.0.0.1:0", "localhost:0", "[::1]:0"):
        Gateway(Settings(address=address))
    for address in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ""):
        with pytest.raises(InputError, match="host:port"):
            Gateway(Settings(address=address))


def test_nothing_is_answered_before_it_is_loaded_or_while_it_drains(world: World) -> None:
    async def scene() -> None:
        async with listening(world, is_open=False) as (gateway, client):
            ask = health_pb2.HealthCheckRequest()
            assert (await client.health.Check(ask)).status == 2  # NOT_SERVING
            details = await refused_as(client.one("c01"), Code.UNAVAILABLE, "NOT_READY")
            assert details["RetryInfo"].retry_delay.seconds == 1
            with world.serving() as serving:
                await gateway.open(serving)
                assert (await client.health.Check(ask)).status == 1
                assert (await client.one("c01")).opportunities
                more = asyncio.Event()

                async def sent() -> AsyncIterator[Any]:
                    frame = match_service_pb2.StreamMatchesRequest
                    yield frame(frame_id=1, match=batch_request(["c01"]))
                    await more.wait()
                    yield frame(frame_id=2, match=batch_request(["c01"]))

                stream = client.match.StreamMatches(sent())
                assert (await stream.read()).match.customer_count == 1
                draining = asyncio.create_task(gateway.drain(5.0))
                while not gateway._desk._is_draining:
                    await asyncio.sleep(0.001)
                more.set()
                last = await stream.read()
                assert last.error.reason == errors_pb2.ERROR_REASON_DRAINING
                assert last.error.retry_delay_ms > 0
                assert await stream.read() is grpc.aio.EOF
                await draining

    asyncio.run(scene())


def test_a_call_that_is_late_is_dropped_before_the_kernel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with listening(world, threads=1, deadline_s=0.2) as (gateway, client):
            begun = []
            released = asyncio.Event()
            loop = asyncio.get_running_loop()

            def held(*_: Any) -> Any:
                begun.append(1)
                asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
                return match_service_pb2.MatchCustomerResponse()

            monkeypatch.setattr(match_service.MatchService, "_match_customer", held)
            first = asyncio.create_task(refused(client.one("c01")))
            while not begun:
                await asyncio.sleep(0.001)
            # It waits behind the first, and is late before a thread is free.
            second = client.one("c01")
            await refused_as(second, Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
            await first
            waiting = client.match.MatchCustomer(
                match_service_pb2.MatchCustomerRequest(customer_id="c01"), timeout=60
            )
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.sleep(0.05)
            released.set()
            await gateway._desk.run(lambda: None, remaining_s=60)
            assert len(begun) == 1

    asyncio.run(scene())


def test_a_fault_of_ours_is_told_without_a_word_of_the_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = io.StringIO()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("c01 did it")

    monkeypatch.setattr(match_service.MatchService, "_match_customer", broken)

    async def scene(client: Client) -> None:
        code, details = await refused(client.one("c01"))
        assert code is Code.INTERNAL
        assert "c01" not in str(details)

    served(world, scene, audit=audit)
    assert "ZeroDivisionError" in audit.getvalue()
    assert "c01" not in audit.getvalue()


def test_an_opportunity_id_says_whose_it_is_and_nothing_else_is_one() -> None:
    for customer_id, capability_id in (("a", "b"), ("été\0", "k" * 300), ("1:2", ":")):
        text = opportunity_id(customer_id, capability_id)
        assert named_opportunity(text, field="x", row=0) == (customer_id, capability_id)
        for wrong in (text[:-4], "A" + text[1:] if text[0] != "A" else "B" + text[1:], "", "é"):
            with pytest.raises(InputError):
                named_opportunity(wrong, field="x", row=0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_command_serves_until_sigterm_and_ends_well(world: World, tmp_path: Path) -> None:
    world.catalog.write(tmp_path / "catalog.parquet")
    (tmp_path / "policy.toml").write_text("k = 3\nproduct_limit = 1\n")
    port = free_port()
    command = [
        sys.executable, "-m", "visavis.cli", "serve", "--base", str(tmp_path / "base"),
        "--catalog", str(tmp_path / "catalog.parquet"), "--policy", str(tmp_path / "policy.toml"),
        "--journal", str(tmp_path / "journal"), "--address", f"127.0.0.1:{port}", "--reflection",
        "--threads", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("Serving: "):
                    break

            async def scene() -> None:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    assert (await Client(channel).one("c01")).opportunities

            asyncio.run(scene())
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(30) == 0, rest
        finally:
            process.kill()


def test_the_command_refuses_what_others_could_reach(world: World, tmp_path: Path) -> None:
    world.catalog.write(tmp_path / "catalog.parquet")
    said = refused_command(
        "serve", "--base", tmp_path / "base", "--catalog", tmp_path / "catalog.parquet",
        "--address", "0.0.0.0:8420",
    )  # fmt: skip
    assert "--address" in said
    assert "TLS" in said
