"""What every call passes before it reaches a service: who calls, with what scope, in what bytes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import grpc

from visavis.gateway.audit import Audit
from visavis.gateway.errors import Fault, RefusedError, abort
from visavis.gateway.metrics import Meters, label_of
from visavis.gateway.shedding import Gate
from visavis.gateway.tokens import Token, TokenFile
from visavis.gateway.tracing import Tracing

__all__ = ["CALLER", "MALFORMED", "SCOPE_OF", "Entrance", "Malformed"]

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


MALFORMED: Final = Malformed()

#: Callers are names in a file of tokens, so there are few; but nothing here may grow for ever.
_HANDLERS_MAX: Final = 10_000

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Entrance(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a fitting token, and bytes that are no message; counts what passes.

    Parameters
    ----------
    tokens : TokenFile or None
        None: whoever reaches the port may call everything.
    audit : Audit
    meters : Meters, optional
    access : Audit, optional
        Where every call is written to; None: nowhere.
    tracing : Tracing, optional
    gate : Gate, optional
        Refuses what would be shed, before it is read; None: nothing.
    """

    def __init__(
        self,
        tokens: TokenFile | None,
        audit: Audit,
        meters: Meters | None = None,
        access: Audit | None = None,
        tracing: Tracing | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate
        self._tokens = tokens
        self._audit = audit
        self._meters = Meters() if meters is None else meters
        self._access = access
        self._tracing = tracing
        #: The handlers of the services never change: one is made for each call and caller.
        self._handlers: dict[tuple[str, str], Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Grpc's hook: the handler of a call, or one that refuses it."""
        method = handler_call_details.method
        caller = "anonymous"
        if not method.startswith(_OPEN):
            try:
                caller = self._caller(method, handler_call_details.invocation_metadata)
            except RefusedError as refused:
                code = refused.fault.code.name
                self._audit.write(method, "unknown", code)
                handler = await continuation(handler_call_details)
                # Names that callers make up are no labels.
                self._meters.arrived()
                self._meters.answered("" if handler is None else label_of(method), code, 0.0)
                return _refusing(handler, refused.fault)
        if self._gate is not None and (refusing := self._gate.refusing(method, caller)):
            return refusing
        guarded = self._handlers.get((method, caller))
        if guarded is None:
            guarded = await continuation(handler_call_details)
            if guarded is not None and not method.startswith(_REFLECTION):
                guarded = self._guarded(guarded, method, caller)
                if len(self._handlers) < _HANDLERS_MAX:
                    self._handlers[method, caller] = guarded
        return guarded

    def _guarded(self, handler: Any, method: str, caller: str) -> Any:
        """A handler that knows who calls, that counts, and that no bytes bring to an exception."""
        behaviour: Behaviour = _behaviour(handler)
        name, tracing = label_of(method), self._tracing
        if not inspect.iscoroutinefunction(behaviour):
            behaviour = _unimplemented

        async def answered(request: Any, call: Any) -> Any:
            CALLER.set(caller)
            began, code = time.perf_counter(), "OK"
            self._meters.arrived()
            span = None
            if tracing is not None:
                span = tracing.begin(name, caller, call.invocation_metadata())
            try:
                if request is MALFORMED:
                    await abort(call, Malformed.fault)
                return await behaviour(request, call)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except BaseException:
                code = _code_of(call)
                raise
            finally:
                seconds = time.perf_counter() - began
                self._meters.answered(name, code, seconds)
                if self._access is not None:
                    self._access.write(name, caller, code, seconds=round(seconds, 6))
                if tracing is not None:
                    tracing.end(span, code)

        return _handler(handler, answered, _tolerant(handler.request_deserializer))

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


#: What the generated base classes answer, with details as every other error has them.
_UNIMPLEMENTED: Final = Fault(
    grpc.StatusCode.UNIMPLEMENTED, "UNSPECIFIED", "this server does not have this call yet"
)


async def _unimplemented(_: Any, call: Any) -> None:
    await abort(call, _UNIMPLEMENTED)


def _code_of(call: Any) -> str:
    """How a call was ended."""
    code = call.code()
    if isinstance(code, int):
        code = _CODES.get(code)
    return "UNKNOWN" if code is None else str(code.name)


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(content: bytes) -> Any:
        try:
            return parse(content)
        except Exception:  # grpc would end the call as INTERNAL
            return MALFORMED

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
    write = handler.response_serializer

    def written(response: Any) -> bytes:
        # What a thread has written already is sent as it is.
        content: bytes = response if type(response) is bytes else write(response)
        return content

    return make(behaviour, request_deserializer=parse, response_serializer=written)
