"""What is refused before it is read: when, with what words, and how it is counted."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import selectors
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
from visavis.gateway import patience, shedding
from visavis.gateway.admission import Line
from visavis.gateway.audit import Audit
from visavis.gateway.desk import Desk
from visavis.gateway.metrics import Meters
from visavis.gateway.patience import Patience
from visavis.gateway.shedding import Gate, WatchedLoop, busy_time
from visavis.gateway.tokens import TokenFile
from visavis.gateway.tracing import Tracing
from visavis.v1 import catalog_service_pb2, match_service_pb2

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
    monkeypatch.setattr(shedding, "time", clock)
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


def test_a_loop_knows_how_long_it_has_been_busy(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    took_s = 0.0

    def select(_: Any, timeout: float | None = None) -> list[Any]:
        clock.now += took_s
        assert timeout is None or timeout <= 1.0
        return []

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)
    watched = shedding._Watched()
    began = watched.idle_at
    # Asked whether something has happened, while there is more to do.
    took_s = 0.5
    watched.select(0)
    assert watched.idle_at == began
    # Something happened at once.
    took_s = 0.0001
    watched.select(1.0)
    watched.select(None)
    assert watched.idle_at == began
    took_s = 0.01
    watched.select(1.0)
    assert watched.idle_at == clock.now
    watched.close()


def test_the_loop_of_a_server_is_watched_and_any_other_is_never_behind() -> None:
    async def busy_s() -> float:
        await asyncio.sleep(0.01)
        return busy_time(asyncio.get_running_loop())()

    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        assert runner.run(busy_s()) < 0.01 + shedding._BEHIND_S
        loop = runner.get_loop()
        assert isinstance(loop, WatchedLoop)
        # It is not run: nothing is done, and nothing is waited for either.
        assert loop.busy_s() > 0
    assert asyncio.run(busy_s()) == 0.0


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
    gate = Gate(lambda line, is_behind: wait_s, lambda: 0.0, meters)  # noqa: ARG005
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


def test_a_loop_that_is_behind_refuses_until_it_has_been_through(clock: Clock) -> None:
    busy_s, asked = 0.0, []

    def crowding(line: str, is_behind: bool) -> float | None:
        asked.append((line, is_behind))
        return 0.0 if is_behind else None

    gate = Gate(crowding, lambda: busy_s, Meters())
    for seconds, is_behind in ((0.9, False), (1.1, True), (0.04, False), (0.06, True)):
        busy_s = seconds
        handler = gate.refusing(ONE, "shop")
        assert asked.pop() == ("match", is_behind)
        assert (handler is not None) == is_behind
        if handler is not None:
            # Nobody waits in its line; what is behind is before it.
            assert ended(handler)[1] >= min(2 * seconds, 5.0)
    # After a while without refusals it may be a burst again.
    clock.now += 1.0
    busy_s = 0.9
    assert gate.refusing(ONE, "shop") is None


def test_a_desk_tells_what_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(1, Audit(io.StringIO()))
    try:
        monkeypatch.setattr(Line, "excess_s", lambda line: 0.5 if line.name == "batch" else None)
        # What is not ready says so itself.
        assert desk.crowding("batch", True) is None
        desk.open(object())  # type: ignore[arg-type]
        assert desk.crowding("batch", False) == 0.5
        assert desk.crowding("match", False) is None
        # Single customers keep the loop busy; a batch is let in where a thread is free.
        assert desk.crowding("match", True) == 0.0
        monkeypatch.setattr(Line, "excess_s", lambda _: None)
        assert desk.crowding("batch", True) is None
        monkeypatch.setattr(Line, "has_room", property(lambda _: False))
        assert desk.crowding("batch", True) == 0.0
        assert desk.crowding("batch", False) is None
        # Batches are shed before single customers.
        monkeypatch.setattr(Line, "is_standing", property(lambda line: line.name == "match"))
        assert desk.crowding("batch", False) == 0.0
        assert desk.crowding("match", False) is None
        desk.drain()
        assert desk.crowding("batch", True) is None
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
