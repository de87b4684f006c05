"""`Gate`: what would be shed is refused before its request is read.

::

    call ─► token ─► Gate ─┬─ too long a line, or a loop that is behind ─► a status made before
                           └─ else ─► the request is read, parsed and answered

A refused call costs as much as gRPC makes of any call; what can be saved is all the rest: the bytes
of the request, its parsing, a handler, an exception, and the making of a status.

Calls wait in gRPC before this process knows of them, without a bound in time: the event loop takes
them out one by one, between everything else. `WatchedLoop` tells how long it has not been through.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import grpc

from visavis.gateway.admission import overloaded
from visavis.gateway.audit import Audit
from visavis.gateway.errors import DETAILS_KEY, status_of
from visavis.gateway.metrics import Meters
from visavis.gateway.patience import Patience
from visavis.gateway.tracing import Tracing

__all__ = ["SWITCH_S", "Crowding", "Gate", "WatchedLoop", "busy_time"]

#: How long a thread that matches may keep the interpreter while the loop wants it. The loop lets go
#: of it several times for every call; five milliseconds each, which is Python's default, would be
#: most of the time that a call takes, and could not be told from having nothing to do.
SWITCH_S: Final = 0.0005

#: A loop that waits so long for something to happen has nothing left to do: while calls wait in
#: gRPC the next one is there within some 50 µs, and then what `SWITCH_S` may add for each thread.
_IDLE_S: Final = 0.002

#: How long the loop may be behind: in a burst, and while there is too much to do.
_BEHIND_S: Final = 1.0
_BEHIND_TARGET_S: Final = 0.05

#: Statuses are made for these, and then kept.
_RETRIES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

#: What is refused here, and the line that it would wait in.
_LINES: Final[dict[str, Literal["match", "batch"]]] = {
    "/visavis.v1.MatchService/MatchCustomer": "match",
    "/visavis.v1.MatchService/MatchCustomers": "batch",
}

#: How long a call of a line would wait, where that is too long; also told: is the loop behind?
Crowding = Callable[[Literal["match", "batch"], bool], float | None]


class _Watched(selectors.DefaultSelector):
    """Knows when there was nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_at = time.monotonic()

    def select(self, timeout: float | None = None) -> Any:
        """See the base class."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        began = time.monotonic()
        found = super().select(timeout)
        now = time.monotonic()
        if now - began >= _IDLE_S:
            self.idle_at = now
        return found


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that knows how long it has been busy."""

    def __init__(self) -> None:
        self._watched = _Watched()
        super().__init__(self._watched)

    def busy_s(self) -> float:
        """Seconds since it last had nothing to do."""
        return time.monotonic() - self._watched.idle_at


def busy_time(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What tells how long a loop has been busy; one that is not watched never is."""
    return loop.busy_s if isinstance(loop, WatchedLoop) else lambda: 0.0


class _Refusal(NamedTuple):
    """What a refused call ends with."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, bytes], ...]


class Gate:
    """Refuses calls that would wait too long, knowing no more of them than their name.

    Parameters
    ----------
    crowding : Crowding
    busy_s : callable
        How long the event loop has been busy; see `WatchedLoop`.
    meters : Meters
    access : Audit, optional
    tracing : Tracing, optional
        As of `Entrance`.
    """

    def __init__(
        self,
        crowding: Crowding,
        busy_s: Callable[[], float],
        meters: Meters,
        access: Audit | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._crowding = crowding
        self._busy_s = busy_s
        self._patience = Patience(_BEHIND_TARGET_S, _BEHIND_S)
        self._meters = meters
        self._access = access
        self._tracing = tracing

    def refusing(self, method: str, caller: str) -> Any:
        """A handler that refuses a call, without its request; None: it may come in."""
        line = _LINES.get(method)
        if line is None:
            return None
        busy_s = self._busy_s()
        is_behind = self._patience.is_over(busy_s)
        wait_s = self._crowding(line, is_behind)
        if wait_s is None:
            return None
        refusal = _refusal(bisect_left(_RETRIES_S, _retry_s(max(wait_s, busy_s * is_behind))))
        name, tracing = method.rpartition(".")[2], self._tracing

        async def refused(_: Any, call: Any) -> None:
            self._meters.refused(line, name, refusal.code.name)
            if self._access is not None:
                self._access.write(name, caller, refusal.code.name, seconds=0.0)
            if tracing is not None:
                metadata = call.invocation_metadata()
                tracing.end(tracing.begin(name, caller, metadata), refusal.code.name)
            call.set_code(refusal.code)
            call.set_details(refusal.details)
            call.set_trailing_metadata(refusal.trailers)

        # gRPC reads the request of a call before it asks the handler, unless it is a stream's.
        return grpc.stream_stream_rpc_method_handler(refused)


def _retry_s(wait_s: float) -> float:
    """When to come back, as one of a few."""
    retry_s = overloaded(wait_s).fault.retry_s
    return 0.0 if retry_s is None else retry_s


@lru_cache
def _refusal(retry: int) -> _Refusal:
    """By the place in `_RETRIES_S`."""
    retry_s = _RETRIES_S[min(retry, len(_RETRIES_S) - 1)]
    fault = overloaded(retry_s / 2).fault
    status = status_of(fault)
    return _Refusal(fault.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
