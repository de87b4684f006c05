"""`State`: what a client holds beside its channel, and the checks before each method."""

from __future__ import annotations

import os
from typing import Any

from visavis.client import decoding
from visavis.client.channel import MESSAGE_BYTES_MAX, Certificates, Token, Way, metadata_of
from visavis.client.congestion import Congestion
from visavis.client.results import ServingInfo
from visavis.client.rpcs import GET_SERVING_INFO
from visavis.client.steps import Budget, Call, Plan, Rpc, checked_timeout
from visavis.errors import InputError, LimitError
from visavis.v1 import catalog_service_pb2

__all__ = ["State", "check_size", "known_info"]


class State:
    """What both clients hold.

    Parameters
    ----------
    target : str
        ``host:port``.
    token : str or callable, optional
        The bearer token, or what gives the one that holds now.
    certificates : Certificates, optional
        For TLS; None: without.
    timeout_s : float
        How long a method may take, unless it is told otherwise.
    module : module
        ``grpc`` or ``grpc.aio``.

    Attributes
    ----------
    timeout_s : float
    info : ServingInfo or None
        What the server said last of limits and schema.
    """

    def __init__(
        self,
        target: str,
        token: Token | None,
        certificates: Certificates | None,
        timeout_s: float,
        module: Any,
    ) -> None:
        self.timeout_s = checked_timeout(timeout_s)
        self.info: ServingInfo | None = None
        self._way = Way(target, token, certificates)
        self._process = os.getpid()
        self._is_closed = False
        self._channel = self._way.open(module)
        self._methods: dict[str, Any] = {}
        self._congestions: dict[str, Congestion] = {}

    def __repr__(self) -> str:
        # Without the token.
        return f"{type(self).__name__}({self._way.target!r})"

    def __reduce__(self) -> Any:
        raise TypeError("a client has a connection of its own: make one in each process")

    def _check_usable(self) -> None:
        """Refuse what was closed, or came along in a fork.

        Raises
        ------
        InputError
        """
        if self._process != os.getpid():
            reason = "was made in another process: make a client after the fork"
            raise InputError(reason, field="client")
        if self._is_closed:
            raise InputError("is closed", field="client")

    def _method(self, rpc: Rpc) -> Any:
        """What gRPC calls.

        Raises
        ------
        InputError
            If the client was closed, or came along in a fork.
        """
        self._check_usable()
        method = self._methods.get(rpc.path)
        if method is None:
            method = getattr(self._channel, rpc.kind)(
                rpc.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=rpc.answer.FromString,
            )
            self._methods[rpc.path] = method
        return method

    def _congestion(self, rpc: Rpc) -> Congestion:
        """What the server had to refuse of a method: it sheds batches before single customers."""
        found = self._congestions.get(rpc.path)
        if found is None:
            # In one step: calls of two threads count together from the first one on.
            new = Congestion(rpc.path.rpartition("/")[2])
            found = self._congestions.setdefault(rpc.path, new)
        return found

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata_of(self._way.token)


def known_info(state: State, budget: Budget, *, is_fresh: bool = False) -> Plan[ServingInfo]:
    """What the server said of itself, asked once; its limits are for cutting, not for trusting."""
    if state.info is None or is_fresh:
        request = catalog_service_pb2.GetServingInfoRequest()
        answer = yield Call(GET_SERVING_INFO, request, budget)
        state.info = decoding.serving_info(answer)
    return state.info


def check_size(request: Any) -> None:
    """Refuse what gRPC would not send.

    Raises
    ------
    LimitError
    """
    size = request.ByteSize()
    if size > MESSAGE_BYTES_MAX:
        reason = f"must be at most {MESSAGE_BYTES_MAX} bytes, is {size}"
        raise LimitError(reason, field="request")
