"""The benchmark's own client: what gRPC's client does, and a server relies on, it does as well."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status

from visavis.gateway.admission import overloaded
from visavis.gateway.errors import abort

BENCH = Path(__file__).parent.parent / "bench"
PATH = "/bench.Echo/Echo"
Code = grpc.StatusCode

pytestmark = pytest.mark.skipif(not BENCH.exists(), reason="needs the source tree")


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("gateway_wire")


@asynccontextmanager
async def echoing(
    wire: ModuleType, behaviour: Callable[[bytes, Any], Awaitable[bytes]], *, streams: int = 100
) -> AsyncIterator[tuple[Any, Any, int]]:
    """A connection, the server, and its port."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", streams)])
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = await wire.connected(port)
    try:
        yield connection, server, port
    finally:
        connection.close()
        await server.stop(None)


async def failure(call: Awaitable[bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_it_sends_and_gets_what_grpc_does(wire: ModuleType) -> None:
    async def echo(request: bytes, context: Any) -> bytes:
        assert 20 < context.time_remaining() <= 30
        return request[::-1]

    async def scene() -> None:
        async with echoing(wire, echo) as (connection, _, port):
            call = connection.unary(PATH)
            # Beyond a frame, and all together beyond every window.
            contents = [bytes([n]) * size for n, size in enumerate((0, 1, 16_379, 16_384, 50_000))]
            contents += [bytes(40_000)] * 100
            found = await asyncio.gather(*(call(each, timeout=30) for each in contents))
            assert found == [each[::-1] for each in contents]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert await channel.unary_unary(PATH)(b"ab", timeout=30) == b"ba"

    asyncio.run(scene())


def test_it_opens_no_more_streams_than_the_server_allows(wire: ModuleType) -> None:
    open_now, most, seen = 0, 0, []

    async def slow(request: bytes, context: Any) -> bytes:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        seen.append(request)
        await asyncio.sleep(0.01)
        open_now -= 1
        return request

    async def scene() -> None:
        async with echoing(wire, slow, streams=4) as (connection, _, _):
            call = connection.unary(PATH)
            asked = [bytes([number]) for number in range(40)]
            assert await asyncio.gather(*(call(each, timeout=30) for each in asked)) == asked
            # What waits begins in its order, up to what may begin together.
            assert sorted(seen) == asked
            assert seen.index(asked[0]) < 4
            assert seen.index(asked[-1]) >= 36

    asyncio.run(scene())
    assert most <= 4


def test_a_call_ends_with_its_deadline_and_the_server_is_told(wire: ModuleType) -> None:
    cancelled = asyncio.Event()

    async def stuck(request: bytes, context: Any) -> bytes:
        if not request:
            return b"answer"
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async def scene() -> None:
        async with echoing(wire, stuck, streams=1) as (connection, _, _):
            call = connection.unary(PATH)
            first, second = call(b"x", timeout=0.2), call(b"y", timeout=0.1)
            third = call(b"", timeout=30)
            for each in (second, first):
                assert (await failure(each)).code() is Code.DEADLINE_EXCEEDED
            await asyncio.wait_for(cancelled.wait(), 30)
            # The one that never had a stream takes none from who comes after it.
            assert await third == b"answer"

    asyncio.run(scene())


def test_what_is_refused_comes_with_its_details(wire: ModuleType) -> None:
    async def shedding(request: bytes, context: Any) -> bytes:
        await abort(context, overloaded(0.1).fault)

    async def scene() -> None:
        async with echoing(wire, shedding) as (connection, _, _):
            call = connection.unary(PATH)
            for _ in range(3):
                error = await failure(call(b"", timeout=30))
                assert error.code() is Code.RESOURCE_EXHAUSTED
                assert error.details() == overloaded(0.1).fault.message
                trailers = dict(error.trailing_metadata())
                status = Status.FromString(trailers["grpc-status-details-bin"])
                assert [each.TypeName() for each in status.details] == [
                    "google.rpc.ErrorInfo",
                    "google.rpc.RetryInfo",
                ]

    asyncio.run(scene())


def test_a_server_that_goes_fails_what_is_open(wire: ModuleType) -> None:
    begun = asyncio.Event()

    async def stuck(request: bytes, context: Any) -> bytes:
        begun.set()
        await asyncio.sleep(30)
        return b""

    async def scene() -> None:
        async with echoing(wire, stuck) as (connection, server, _):
            answer = connection.unary(PATH)(b"", timeout=30)
            await begun.wait()
            await server.stop(None)
            assert (await failure(answer)).code() in {Code.UNAVAILABLE, Code.CANCELLED}

    asyncio.run(scene())
