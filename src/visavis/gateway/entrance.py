"""What every call passes before it reaches a service: who calls, with what scope, in what bytes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import grpc

from visavis.gateway.audit import Audit
from visavis.gateway.errors import Fault, RefusedError, abort
from visavis.gateway.tokens import Token, TokenFile

__all__ = ["CALLER", "SCOPE_OF", "Entrance", "Malformed"]

_MATCH, _PROFILE, _CATALOG, _JOB = (
    f"/visavis.v1.{name}Service/" for name in ("Match", "Profile", "Catalog", "Job")
)

#: The scope of every call of the contract.
SCOPE_OF: Final = {
    **{
        _MATCH + name: "read"
        for name in ("MatchCustomer", "MatchCustomers", "StreamMatches", "Explain", "FindAudience")
    },
    _PROFILE + "RecordFacts": "record",
    _PROFILE + "ForgetCustomer": "forget",
    _CATALOG + "GetServingInfo": "read",
    _CATALOG + "ListCapabilities": "read",
    _CATALOG + "PublishVersion": "publish",
    **{
        _JOB + name: "jobs"
        for name in (
            *("CreateRescoreJob", "GetJob", "ListJobs", "CancelJob", "WatchJob", "ReadResults"),
        )
    },
}

#: Asked by what has no token: balancers and the machines' own supervisors.
_OPEN: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection."

#: Who makes the call that is answered now, for the audit log.
CALLER: Final[ContextVar[str]] = ContextVar("caller", default="anonymous")

_BEARER: Final = "bearer "

Behaviour = Callable[..., Any]


class Malformed:
    """A request whose bytes are no message of its type."""

    fault = Fault(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SCHEMA", "the bytes are no message of this call"
    )


class Entrance(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a fitting token, and bytes that are no message.

    Parameters
    ----------
    tokens : TokenFile or None
        None: whoever reaches the port may call everything.
    audit : Audit
    """

    def __init__(self, tokens: TokenFile | None, audit: Audit) -> None:
        self._tokens = tokens
        self._audit = audit

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Grpc's hook: the handler of a call, or one that refuses it."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if method.startswith(_OPEN):
            return handler if handler is None else _guarded(handler, "anonymous")
        try:
            caller = self._caller(method, handler_call_details.invocation_metadata)
        except RefusedError as refused:
            self._audit.write(method, "unknown", refused.fault.code.name)
            return _refusing(handler, refused.fault)
        if handler is None or method.startswith(_REFLECTION):
            return handler
        return _guarded(handler, caller)

    def _caller(self, method: str, metadata: Any) -> str:
        """The name of who calls.

        Raises
        ------
        RefusedError
            If the token is missing, unknown or expired, or has not the scope of the call.
        """
        if self._tokens is None:
            return "anonymous"
        given = [value for key, value in metadata or () if key == "authorization"]
        code = grpc.StatusCode.UNAUTHENTICATED
        if not given:
            raise RefusedError(code, "CREDENTIALS_MISSING", "a bearer token is needed")
        token = self._token(given[0]) if len(given) == 1 else None
        if token is None:
            raise RefusedError(code, "CREDENTIALS_INVALID", "the token is unknown or has expired")
        scope = "read" if method.startswith(_REFLECTION) else SCOPE_OF.get(method)
        if scope is None or scope not in token.scopes:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                "SCOPE_MISSING",
                f"the scope {scope or 'of an unknown call'} is needed",
                metadata={"scope": scope or ""},
            )
        return token.name

    def _token(self, given: str | bytes) -> Token | None:
        if self._tokens is None or not isinstance(given, str):
            return None
        if given[: len(_BEARER)].lower() != _BEARER:
            return None
        return self._tokens.find(given[len(_BEARER) :].strip())


def _guarded(handler: Any, caller: str) -> Any:
    """A handler that knows who calls, and that no bytes bring to an exception."""
    behaviour: Behaviour = _behaviour(handler)

    async def answered(request: Any, call: Any) -> Any:
        CALLER.set(caller)
        if isinstance(request, Malformed):
            await abort(call, Malformed.fault)
        if not inspect.iscoroutinefunction(behaviour):
            await abort(call, _UNIMPLEMENTED)
        return await behaviour(request, call)

    return _handler(handler, answered, _tolerant(handler.request_deserializer))


#: What the generated base classes answer, with details as every other error has them.
_UNIMPLEMENTED: Final = Fault(
    grpc.StatusCode.UNIMPLEMENTED, "UNSPECIFIED", "this server does not have this call yet"
)


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(content: bytes) -> Any:
        try:
            return parse(content)
        except Exception:  # grpc would end the call as INTERNAL
            return Malformed()

    return parsed


def _refusing(handler: Any, fault: Fault) -> Any:
    async def refused(_: Any, call: Any) -> None:
        await abort(call, fault)

    if handler is None:
        # Whether there is such a call is not for everybody to know.
        return grpc.unary_unary_rpc_method_handler(refused)
    return _handler(handler, refused, None)


def _behaviour(handler: Any) -> Behaviour:
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    behaviour: Behaviour = next(each for each in kinds if each is not None)
    return behaviour


def _handler(handler: Any, behaviour: Behaviour, parse: Callable[[bytes], Any] | None) -> Any:
    """A handler of the same kind that does something else."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(
        behaviour, request_deserializer=parse, response_serializer=handler.response_serializer
    )
