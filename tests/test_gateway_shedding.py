"""What is refused before it is read: when, with what words, and how it is counted."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateways import IDS, Code, World, batch_request, listening, refused_as
from visavis.gateway import patience
from visavis.gateway.admission import Line
from visavis.gateway.audit import Audit
from visavis.gateway.desk import Desk
from visavis.gateway.metrics import Meters
from visavis.gateway.patience import Patience
from visavis.gateway.shedding import Gate
from visavis.gateway.tokens import TokenFile
from visavis.gateway.tracing import Tracing
from visavis.v1 import catalog_service_pb2, match_service_pb2

#: Of one connection.
STREAMS_MAX = 256

ONE, MANY = (f"/visavis.v1.MatchService/{name}" for name in ("MatchCustomer", "MatchCustomers"))


class Clock:
    """What `time.monotonic` says, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def test_patience_is_short_after_a_refusal_and_long_once_it_is_calm(clock: Clock) -> None:
    of_line = Patience(0.02, 1.0)
    assert not of_line.is_over(1.0)
    assert not of_line.is_over(0.02, is_standing=True)
    assert of_line.is_over(0.03, is_standing=True)
    # The line empties, and would be a burst again.
    assert not of_line.is_over(0.02)
    assert of_line.is_over(0.03)
    clock.now += 0.2
    # Each refusal prolongs it.
    assert of_line.is_over(0.03)
    clock.now += 0.2
    assert of_line.is_over(0.03)
    clock.now += 0.3
    assert not of_line.is_over(0.03)
    assert not of_line.is_over(1.0)
    assert of_line.is_over(1.1)


class Called:
    """What a handler does to a call."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.said.__setitem__(name, value)


def ended(handler: Any) -> tuple[Any, float]:
    """How a handler refuses: its reason, and when to come back."""
    # A stream's: gRPC asks it before it has read a request.
    assert handler.request_streaming
    assert handler.response_streaming
    call = Called()
    asyncio.run(handler.stream_stream(None, call))
    assert call.said["set_code"] is Code.RESOURCE_EXHAUSTED
    ((key, content),) = call.said["set_trailing_metadata"]
    assert key == "grpc-status-details-bin"
    status = Status.FromString(content)
    assert (status.code, status.message) == (8, call.said["set_details"])
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert info.domain == "visavis"
    return info.reason, retry.retry_delay.ToMilliseconds() / 1_000


def test_a_gate_refuses_what_would_wait_and_says_when_to_come_back() -> None:
    wait_s: float | None = None
    meters = Meters()
    gate = Gate(lambda _: wait_s, meters)
    assert gate.refusing(ONE, "shop") is None
    for waited, told in ((0.0, 0.05), (0.03, 0.1), (0.3, 1.0), (9.0, 5.0), (99.0, 5.0)):
        wait_s = waited
        assert ended(gate.refusing(MANY, "shop")) == ("OVERLOADED", told)
    # Everything else has a line of its own, or has to be read to know what it is.
    for name in ("StreamMatches", "Explain", "FindAudience", "None"):
        assert gate.refusing(f"/visavis.v1.MatchService/{name}", "shop") is None
    read = meters.registry.get_sample_value
    assert read("visavis_shed_total", {"line": "batch", "reason": "overloaded"}) == 5
    labels = {"method": "MatchService/MatchCustomers", "code": "RESOURCE_EXHAUSTED"}
    assert read("visavis_rpc_seconds_count", labels) == 5


def test_a_desk_tells_what_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(1, Audit(io.StringIO()))
    try:
        monkeypatch.setattr(Line, "excess_s", lambda line: 0.5 if line.name == "batch" else None)
        # What is not ready says so itself.
        assert desk.crowding("batch") is None
        desk.open(object())  # type: ignore[arg-type]
        assert desk.crowding("batch") == 0.5
        assert desk.crowding("match") is None
        # Batches are shed before single customers.
        monkeypatch.setattr(Line, "excess_s", lambda _: None)
        assert desk.crowding("batch") is None
        monkeypatch.setattr(Line, "is_standing", property(lambda line: line.name == "match"))
        assert desk.crowding("batch") == 0.0
        assert desk.crowding("match") is None
        desk.drain()
        assert desk.crowding("batch") is None
    finally:
        desk.close()


def test_what_is_refused_is_not_read_and_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, memory = io.StringIO(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(Desk, "crowding", lambda *_: 0.03)
    overloaded = Code.RESOURCE_EXHAUSTED, "OVERLOADED"

    async def scene() -> None:
        async with listening(
            world, access=Audit(access, event="access"), tracing=Tracing(provider)
        ) as (gateway, client):
            details = await refused_as(client.one(IDS[1]), *overloaded)
            assert details["RetryInfo"].retry_delay.ToMilliseconds() == 100
            await refused_as(client.many(IDS), *overloaded)
            # Neither what is no message nor what is large is looked at, or waited for.
            for method, content in ((ONE, b"\xff" * 9), (MANY, bytes(3 * 2**20))):
                await refused_as(client.channel.unary_unary(method)(content), *overloaded)
            # The rest is answered.
            info = await client.catalog.GetServingInfo(catalog_service_pb2.GetServingInfoRequest())
            assert info.version.base_digest
            read = gateway._meters.registry.get_sample_value
            for line in ("match", "batch"):
                shed = read("visavis_shed_total", {"line": line, "reason": "overloaded"})
                assert shed == 2
            assert read("visavis_rpcs_in_flight") == 0
            while len(memory.get_finished_spans()) < 5:
                await asyncio.sleep(0.001)

    asyncio.run(scene())
    lines = [json.loads(line) for line in access.getvalue().splitlines()]
    told = [(line["method"], line["code"]) for line in lines]
    for name in ("MatchCustomer", "MatchCustomers"):
        assert told.count((f"MatchService/{name}", "RESOURCE_EXHAUSTED")) == 2
    spans = [each for each in memory.get_finished_spans() if "Match" in each.name]
    assert [each.status.description for each in spans] == ["RESOURCE_EXHAUSTED"] * 4


def test_who_calls_is_asked_before_anything_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Desk, "crowding", lambda *_: 0.03)
    digest = hashlib.sha256(b"token").hexdigest()
    known = f'[[token]]\nname = "shop"\nsha256 = "{digest}"\nscopes = ["read"]\n'
    (tmp_path / "tokens.toml").write_text(known)

    async def scene() -> None:
        tokens = TokenFile(tmp_path / "tokens.toml")
        async with listening(world, tokens=tokens) as (_, client):
            await refused_as(client.one(IDS[1]), Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")
            asked = match_service_pb2.MatchCustomerRequest(customer_id=IDS[1])
            known = client.match.MatchCustomer(asked, metadata=(("authorization", "Bearer token"),))
            await refused_as(known, Code.RESOURCE_EXHAUSTED, "OVERLOADED")

    asyncio.run(scene())


def test_a_line_that_is_full_sheds_unread_and_then_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the gate is replaced here."""
    full = True
    plain = Line.excess_s
    monkeypatch.setattr(Line, "excess_s", lambda line: 0.5 if full else plain(line))

    async def scene() -> None:
        nonlocal full
        async with listening(world) as (_, client):
            content = batch_request(IDS).SerializeToString()
            for asked in (client.one(IDS[1]), client.channel.unary_unary(MANY)(content)):
                details = await refused_as(asked, Code.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1_000
            full = False
            assert (await client.one(IDS[1])).customer_id == IDS[1]
            assert (await client.many(IDS)).customer_count == len(IDS)

    asyncio.run(scene())


def test_calls_of_every_kind_may_be_refused_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand on one connection: each is told why, none is lost."""
    monkeypatch.setattr(Desk, "crowding", lambda *_: 0.03)

    async def scene() -> None:
        async with listening(world) as (_, client):
            content = batch_request(IDS * 3).SerializeToString()
            call = client.channel.unary_unary(MANY)

            async def refused() -> Any:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(content, timeout=60)
                return caught.value.code()

            codes = await asyncio.gather(*(refused() for _ in range(1_000)))
            assert set(codes) == {Code.RESOURCE_EXHAUSTED}

    asyncio.run(scene())


def test_what_the_loop_has_not_taken_over_yet_is_not_cancelled(world: World) -> None:
    """Of so many, gRPC's defaults cancel one in three, without a word."""

    def begun(port: int) -> tuple[list[Any], list[Any]]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(8)]
        for channel in channels:
            grpc.channel_ready_future(channel).result(30)
        content = batch_request(IDS[:1]).SerializeToString()
        calls = [each.unary_unary(MANY) for each in channels]
        return channels, [
            call.future(content, timeout=60) for call in calls for _ in range(STREAMS_MAX)
        ]

    async def scene() -> None:
        async with listening(world) as (gateway, _):
            channels, answers = await asyncio.to_thread(begun, gateway.port)
            # The loop is busy with something else, while they are read from their sockets.
            time.sleep(1.0)
            codes = await asyncio.to_thread(lambda: {each.code() for each in answers})
            assert codes <= {Code.OK, Code.RESOURCE_EXHAUSTED}
            for channel in channels:
                channel.close()

    asyncio.run(scene())
