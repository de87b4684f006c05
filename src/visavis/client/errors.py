"""What a gateway answers with when a call, a row or a frame goes wrong, as exceptions.

::

    VisavisError
    └── GatewayError                       whatever a gateway, or the way to it, refuses
        ├── RequestError (ValueError)      what was sent is wrong: field says where
        ├── UnknownIdError (NotFoundError) no such customer, capability or job: resource
        ├── AccessError                    no token or certificate, an unknown one, a scope missing
        ├── VersionChangedError            pages or pieces of one answer from two versions
        ├── OverloadedError (SetupError)   shed, or too large for gRPC itself: come back in retry_s
        ├── UnavailableError (SetupError)  not reached, not ready, about to stop
        ├── DeadlineError (SetupError)     not answered in time
        ├── StateError (SetupError)        no journal, no jobs, versions that do not fit, no result
        ├── DamageError (CorruptionError)  bytes that do not fit their digest
        ├── UnsupportedError (SetupError)  a call, or a part of one, that this server does not have
        └── ServerError (SetupError)       a fault of the server

``except`` clauses for what the embedded engine raises (`visavis.errors`) catch the same here, but
for ``InputError``: catch ``ValueError``, which both are. What is wrong with an argument before
anything is sent is an ``InputError`` here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from visavis.errors import CorruptionError, NotFoundError, SetupError, VisavisError
from visavis.v1.errors_pb2 import ErrorReason, FrameError

__all__ = [
    "AccessError",
    "DamageError",
    "DeadlineError",
    "GatewayError",
    "OverloadedError",
    "RequestError",
    "ServerError",
    "StateError",
    "UnavailableError",
    "UnknownIdError",
    "UnsupportedError",
    "VersionChangedError",
    "error_of_call",
    "error_of_frame",
    "late",
    "new_error",
    "reason_name",
]

Code = grpc.StatusCode

_DETAILS: Final = "grpc-status-details-bin"

#: The reason of what names none: gRPC's own refusals, and reasons that this client does not know.
NO_REASON: Final = "UNSPECIFIED"


class GatewayError(VisavisError):
    """Whatever a gateway, or the way to it, refuses.

    Parameters
    ----------
    message : str
        For people; it may change.

    Attributes
    ----------
    code : grpc.StatusCode
    reason : str
        The name of an ErrorReason of the contract without its prefix (``"UNKNOWN_CUSTOMER"``);
        ``"UNSPECIFIED"`` where gRPC itself refused. Reasons that you do not know are to be treated
        by their class.
    message : str
        What is wrong, without the field.
    field : str or None
        The path in the request, with the row where there is one (``"profiles.facts.day[17]"``).
    metadata : mapping of str to str
        What a program may want to read: a limit, a digest.
    retry_s : float or None
        After how long to send it again, if the server said so. UNAVAILABLE, and what a
        stopping server cancelled, has been sent again by then, where that is safe; nothing else is.
    resource : (str, str) or None
        Type and name of what was not found: ``("customer", "997")``.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = Code.UNKNOWN,
        reason: str = NO_REASON,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_s: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_s = retry_s
        self.resource = resource
        super().__init__(f"{field}: {message}" if field else message)


class RequestError(GatewayError, ValueError):
    """What was sent is wrong: correct it and call again."""


class UnknownIdError(GatewayError, NotFoundError):
    """No such customer, capability or job."""


class AccessError(GatewayError):
    """No token or certificate, one that is unknown or has expired, or a scope that it lacks."""


class VersionChangedError(GatewayError):
    """Another version is served than the one that an answer began with: begin again."""


class OverloadedError(GatewayError, SetupError):
    """The server sheds load; it is never sent again by itself, `retry_s` says when to come back.

    Where ``metadata["refused_by"]`` is ``"client"``, it was not sent: the server has just shed
    calls of the method, and this client holds back (`visavis.client.congestion`).
    """


class UnavailableError(GatewayError, SetupError):
    """The server is not reached, not ready, or about to stop."""


class DeadlineError(GatewayError, SetupError):
    """There was no answer in time. What was to be recorded may have been: repeat it by its id."""


class StateError(GatewayError, SetupError):
    """The server lacks something: a journal, a place for results, versions that fit, a result."""


class DamageError(GatewayError, CorruptionError):
    """Bytes, stored or received, do not fit their digest."""


class UnsupportedError(GatewayError, SetupError):
    """The server does not have the call, or what was asked of it."""


class ServerError(GatewayError, SetupError):
    """A fault of the server, or an answer that breaks the contract."""


_KINDS: Final[Mapping[grpc.StatusCode, type[GatewayError]]] = {
    Code.INVALID_ARGUMENT: RequestError,
    Code.OUT_OF_RANGE: RequestError,
    Code.ALREADY_EXISTS: RequestError,
    Code.NOT_FOUND: UnknownIdError,
    Code.UNAUTHENTICATED: AccessError,
    Code.PERMISSION_DENIED: AccessError,
    Code.ABORTED: VersionChangedError,
    Code.RESOURCE_EXHAUSTED: OverloadedError,
    Code.UNAVAILABLE: UnavailableError,
    Code.DEADLINE_EXCEEDED: DeadlineError,
    Code.FAILED_PRECONDITION: StateError,
    Code.DATA_LOSS: DamageError,
    Code.UNIMPLEMENTED: UnsupportedError,
    Code.INTERNAL: ServerError,
    Code.UNKNOWN: ServerError,
}

_CODES: Final = {code.value[0]: code for code in Code}


def new_error(code: grpc.StatusCode, message: str, **more: Any) -> GatewayError:
    """An error of the class that belongs to `code`; the rest as of `GatewayError`."""
    return _KINDS.get(code, GatewayError)(message, code=code, **more)


def error_of_call(failed: Any) -> GatewayError:
    """A call that failed, in either of gRPC's faces, with the details of its trailers.

    Parameters
    ----------
    failed : grpc.RpcError
    """
    code, message = failed.code(), failed.details() or ""
    told: dict[str, Any] = {}
    try:
        status = Status.FromString(dict(failed.trailing_metadata() or ())[_DETAILS])
        # The message of a Status begins with its field, for those who read nothing else.
        told = {"message": status.message or message, **_told(status)}
    except Exception:  # there are none, or what a proxy made of them: the code alone remains
        told = {}
    message = told.pop("message", message)
    return new_error(code, message or f"the call ended with {code.name}", **told)


def _told(status: Status) -> dict[str, Any]:
    told: dict[str, Any] = {}
    info, wrong, found, again = ErrorInfo(), BadRequest(), ResourceInfo(), RetryInfo()
    for packed in status.details:
        if packed.Unpack(info):
            told["reason"] = info.reason or NO_REASON
            told["metadata"] = dict(info.metadata)
        elif packed.Unpack(wrong):
            for first in list(wrong.field_violations)[:1]:
                told["field"] = first.field or None
                told["message"] = first.description
        elif packed.Unpack(found):
            told["resource"] = (found.resource_type, found.resource_name)
        elif packed.Unpack(again):
            told["retry_s"] = again.retry_delay.seconds + again.retry_delay.nanos / 1e9
    return told


def error_of_frame(given: FrameError) -> GatewayError:
    """What is wrong with one frame of a stream."""
    return new_error(
        _CODES.get(given.code, Code.UNKNOWN),
        given.message,
        reason=reason_name(given.reason),
        field=given.field or None,
        retry_s=given.retry_delay_ms / 1000 if given.HasField("retry_delay_ms") else None,
    )


def late() -> GatewayError:
    """A stream whose next answer did not come in time."""
    return new_error(Code.DEADLINE_EXCEEDED, "the next answer did not come in time")


def reason_name(number: int) -> str:
    """The name of an ErrorReason without its prefix; of one that is not known, its number."""
    if number not in ErrorReason.values():
        return str(number)
    name: str = ErrorReason.Name(number)
    return name.removeprefix("ERROR_REASON_")
