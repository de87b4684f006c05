"""Several processes behind one port: one leads, the others forward to it what changes things.

::

    client ─► any worker ──matches, explanations, audiences──► answers by itself
                   │
                   └─RecordFacts, ForgetCustomer, PublishVersion──► worker 0, which leads
                                                                              │
                    every worker ◄─ tick: something was recorded ─────────────┤
                    every worker ◄─ follow: something else is served ─────────┘

So there is one writer of the journal, and what was acknowledged is seen by the next request to
whichever worker: the leader changes a number in shared memory before it answers, and every worker
looks at that number before it does. A published version is served by all of them before
PublishVersion is answered; for a moment before, some answer from the old one and some from the new,
each answer from exactly one.

Workers speak to each other over Unix sockets in a folder that only their user can enter.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from visavis.errors import StorageError
from visavis.gateway.errors import RETRY_S, Fault, abort

__all__ = ["Fellows", "Forwarding", "Published", "Tick"]

#: Calls that the leader alone answers.
_FORWARDED: Final = (
    "/visavis.v1.ProfileService/",
    "/visavis.v1.CatalogService/PublishVersion",
)

_FOLLOW: Final = "/visavis.gateway.Worker/Follow"
_SECRET: Final = "visavis-secret"  # noqa: S105 (the name of a header)

#: What of a caller's metadata the leader needs: who calls.
_PASSED_ON: Final = ("authorization",)

_UNIX: Final = "unix:"
_WORKER: Final = "worker-"
_LEADER: Final = "leader"


#: gRPC waits up to two minutes before it looks again whether there is a leader.
_RECONNECTING: Final = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Its answers were bounded when they were made.
    ("grpc.max_receive_message_length", -1),
]


class Tick:
    """A number that processes share: the leader changes it, everybody looks at it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as stream:
            if stream.seek(0, os.SEEK_END) < mmap.PAGESIZE:
                stream.truncate(mmap.PAGESIZE)
            self._shared = mmap.mmap(stream.fileno(), mmap.PAGESIZE)

    def __call__(self) -> int:
        """What it is now."""
        (now,) = struct.unpack_from("<Q", self._shared)
        return int(now)

    def change(self) -> None:
        """Tell everybody that something was recorded."""
        # Never a number that was there before: two processes may write it, while one replaces the
        # other, and what one of them overwrites must not look as if nothing had happened.
        struct.pack_into("<Q", self._shared, 0, time.monotonic_ns())

    def close(self) -> None:
        """Look at it no more."""
        self._shared.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where what is served lies; None: as the command line says.

    Attributes
    ----------
    base, catalog, policy : str or None
    base_version : int or None
    as_of : str or None
    """

    base: str | None = None
    catalog: str | None = None
    policy: str | None = None
    base_version: int | None = None
    as_of: str | None = None


class Fellows:
    """One worker's view of them all.

    Parameters
    ----------
    folder : Path
        That only their user can enter; made by the supervisor with `prepare`.
    index : int
        Which one this is; 0 leads.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self.folder = folder
        self.index = index
        self.tick = Tick(folder / "tick")
        self.secret = (folder / "secret").read_text()

    @staticmethod
    def prepare(folder: Path) -> None:
        """Put into a new folder what workers share."""
        Tick(folder / "tick").close()
        (folder / "secret").write_text(secrets.token_urlsafe(32))

    @property
    def leads(self) -> bool:
        """Whether this one changes things."""
        return self.index == 0

    @property
    def address(self) -> str:
        """Where this one listens for the others."""
        return f"{_UNIX}{self._socket}"

    @property
    def leader(self) -> str:
        """Where the leader listens, whichever process that is."""
        return f"{_UNIX}{self.folder / _LEADER}"

    @property
    def _socket(self) -> Path:
        return self.folder / f"{_WORKER}{os.getpid()}"

    def lead(self) -> None:
        """Be the leader from now on."""
        beside = self.folder / f"{_LEADER}.{os.getpid()}"
        beside.symlink_to(self._socket.name)
        beside.replace(self.folder / _LEADER)

    @property
    def published(self) -> Published:
        """What was published last."""
        try:
            return Published(**json.loads((self.folder / "published").read_text()))
        except FileNotFoundError:
            return Published()

    def publish(self, published: Published) -> None:
        """Remember what a worker that begins now shall serve."""
        beside = self.folder / "published.new"
        beside.write_text(json.dumps(asdict(published)))
        beside.replace(self.folder / "published")

    async def tell(self, published: Published, *, timeout_s: float) -> None:
        """Have every other worker serve it.

        Raises
        ------
        StorageError
            If one that runs cannot. One that does not run will, once it does.
        """
        content = json.dumps(asdict(published)).encode()
        others = [
            path
            for path in self.folder.iterdir()
            if path.name.startswith(_WORKER) and path != self._socket
        ]
        told = await asyncio.gather(
            *(self._tell(path, content, timeout_s) for path in others), return_exceptions=True
        )
        for outcome in told:
            if isinstance(outcome, BaseException):
                raise StorageError("a worker cannot follow", path="workers") from outcome

    async def _tell(self, path: Path, content: bytes, timeout_s: float) -> None:
        async with grpc.aio.insecure_channel(f"{_UNIX}{path}") as channel:
            try:
                await channel.unary_unary(_FOLLOW)(
                    content, timeout=timeout_s, metadata=((_SECRET, self.secret),)
                )
            except grpc.aio.AioRpcError as error:
                # It has died: whoever takes its place reads what was published when it begins.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


class Forwarding(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sends to the leader what the leader alone answers, and takes what the leader says.

    Parameters
    ----------
    fellows : Fellows
    follow : callable
        Serves what was published; awaited.
    """

    def __init__(self, fellows: Fellows, follow: Callable[[Published], Awaitable[None]]) -> None:
        self._fellows = fellows
        self._follow = follow
        self._channel = None
        if not fellows.leads:
            self._channel = grpc.aio.insecure_channel(fellows.leader, _RECONNECTING)

    async def close(self) -> None:
        """Speak to the leader no more."""
        if self._channel is not None:
            await self._channel.close()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Grpc's hook."""
        method = handler_call_details.method
        if method == _FOLLOW:
            return grpc.unary_unary_rpc_method_handler(self._followed)
        if self._channel is None or not method.startswith(_FORWARDED):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_forwarded(self._channel.unary_unary(method)))

    async def _followed(self, request: bytes, call: Any) -> bytes:
        given = dict(call.invocation_metadata() or ()).get(_SECRET, "")
        if not secrets.compare_digest(str(given).encode(), self._fellows.secret.encode()):
            await abort(call, _NO_SUCH_CALL)
        await self._follow(Published(**json.loads(request)))
        return b""


_NO_SUCH_CALL: Final = Fault(
    grpc.StatusCode.UNIMPLEMENTED, "UNSPECIFIED", "this server does not have this call"
)

_LEADER_AWAY: Final = Fault(
    grpc.StatusCode.UNAVAILABLE,
    "NOT_READY",
    "the worker that leads is not ready",
    retry_s=RETRY_S,
)


def _forwarded(stub: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def forwarded(request: bytes, call: Any) -> bytes:
        try:
            answer: bytes = await stub(request, **_passed_on(call))
        except grpc.aio.AioRpcError as error:
            await _ended_as(call, error)
        return answer

    return forwarded


def _passed_on(call: Any) -> dict[str, Any]:
    metadata: Sequence[tuple[str, Any]] = call.invocation_metadata() or ()
    left = call.time_remaining()
    return {
        "metadata": tuple(pair for pair in metadata if pair[0] in _PASSED_ON),
        "timeout": None if left is None or left > 1e8 else left,
        # Another leader is begun within seconds: what has not been sent yet can wait for it.
        "wait_for_ready": True,
    }


async def _ended_as(call: Any, error: grpc.aio.AioRpcError) -> None:
    """End a call as the leader did; where there is none, so that it comes again."""
    trailers = tuple(error.trailing_metadata() or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not trailers:
        await abort(call, _LEADER_AWAY)
    await call.abort(error.code(), error.details() or "", trailers)
