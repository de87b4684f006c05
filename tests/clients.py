"""Both clients behind one face, gateways in a thread of their own, and servers that do as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from gateways import World, listening
from visavis.client import AsyncClient, Client

KINDS = ("sync", "async")


class Asked:
    """An `AsyncClient`, asked from a thread: results when they are there, iterators stepped."""

    def __init__(self, target: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()

        async def made() -> AsyncClient:
            return AsyncClient(target, **options)

        self.client = self._loop.run_until_complete(made())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            came = getattr(self.client, name)(*args, **kwargs)
            if isinstance(came, AsyncIterator):
                return self._stepped(came)
            return self._loop.run_until_complete(came)

        return asked

    def _stepped(self, values: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(values))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(values.aclose())

    def finish(self) -> None:
        self._loop.run_until_complete(self.client.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@contextmanager
def client_of(kind: str, target: str, **options: Any) -> Iterator[Any]:
    """A client of either kind, with the methods of `Client`."""
    if kind == "sync":
        with Client(target, **options) as client:
            yield client
        return
    asked = Asked(target, **options)
    try:
        yield asked
    finally:
        asked.finish()


@contextmanager
def gateway_of(world: World, **settings: Any) -> Iterator[str]:
    """The address of a gateway that answers from a thread."""
    loop = asyncio.new_event_loop()
    started: futures.Future[str] = futures.Future()
    ended = asyncio.Event()

    async def played() -> None:
        try:
            async with listening(world, **settings) as (gateway, _):
                started.set_result(f"127.0.0.1:{gateway.port}")
                await ended.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=loop.run_until_complete, args=(played(),))
    thread.start()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@contextmanager
def server_of(*added: tuple[Callable[[Any, Any], None], Any]) -> Iterator[str]:
    """The address of a server of such servicers: ``(add_MatchServiceServicer_to_server, it)``."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    for add, servicer in added:
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
