"""`Gate`: what would be shed is refused before its request is read.

::

    call ─► token ─► Gate ─┬─ its line is too long ─► a status made before
                           └─ else ─► the request is read, parsed and answered

A refused call costs what gRPC makes of any call; all the rest is saved: the bytes of the request,
their parsing, a handler's exception, and the making of a status.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import grpc

from visavis.gateway.admission import retry_after_s, shed_until
from visavis.gateway.audit import Audit
from visavis.gateway.errors import DETAILS_KEY, status_of
from visavis.gateway.metrics import Meters, label_of
from visavis.gateway.tracing import Tracing

__all__ = ["Crowding", "Gate"]

#: Statuses are made for these, up to the longest that is told, and then kept.
_RETRIES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

#: What is refused here, and the line that it would wait in.
_LINES: Final[dict[str, Literal["match", "batch"]]] = {
    "/visavis.v1.MatchService/MatchCustomer": "match",
    "/visavis.v1.MatchService/MatchCustomers": "batch",
}

#: How long a call of a line would wait, where that is too long.
Crowding = Callable[[Literal["match", "batch"]], float | None]


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
    meters : Meters
    access : Audit, optional
    tracing : Tracing, optional
        As of `Entrance`.
    """

    def __init__(
        self,
        crowding: Crowding,
        meters: Meters,
        access: Audit | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._crowding = crowding
        self._meters = meters
        self._access = access
        self._tracing = tracing

    def refusing(self, method: str, caller: str) -> Any:
        """A handler that refuses a call, without its request; None: it may come in."""
        line = _LINES.get(method)
        if line is None:
            return None
        wait_s = self._crowding(line)
        if wait_s is None:
            return None
        refusal = _refusal(bisect_left(_RETRIES_S, retry_after_s(wait_s)))
        name, tracing = label_of(method), self._tracing

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


@lru_cache
def _refusal(retry: int) -> _Refusal:
    """By the place in `_RETRIES_S`."""
    fault = shed_until(_RETRIES_S[retry]).fault
    status = status_of(fault)
    return _Refusal(fault.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
