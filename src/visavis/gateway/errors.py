"""Errors → google.rpc.Status, row errors and frame errors of the contract.

::

    VisavisError ─► Fault: code, reason, field, row ─┬─► Status with details, in the trailers
    RefusedError ─────────▲                               ├─► RowError
                                                     └─► FrameError

Everything that a client can cause has a reason of its own (proto/visavis/v1/errors.proto). What is
left is a fault of ours: INTERNAL, told to the client without a word of what was in the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from visavis.errors import (
    CorruptionError,
    ExtraError,
    InputError,
    LimitError,
    NotFoundError,
    ReusedError,
    RuleError,
    SchemaError,
    SetupError,
    UnreachableError,
    VariantError,
    VisavisError,
)
from visavis.v1.errors_pb2 import ErrorReason, FrameError, RowError

__all__ = [
    "DETAILS_KEY",
    "Fault",
    "RefusedError",
    "abort",
    "fault_of",
    "frame_error",
    "row_error",
    "status_of",
]

DOMAIN: Final = "visavis"

#: After how long a client may come back, unless the error says otherwise.
RETRY_S: Final = 1.0

#: What is told in trailers is cut to so many characters: they share 8 KiB with their base64 form,
#: and a name in a request may be as long as a message.
_TOLD_MAX: Final = 300

Code = grpc.StatusCode

#: Where a status travels in the trailers.
DETAILS_KEY: Final = "grpc-status-details-bin"


class RefusedError(VisavisError):
    """A call that the gateway refuses by itself.

    Parameters
    ----------
    code : grpc.StatusCode
    reason : str
        The name of an ErrorReason without its prefix.
    message : str
    field : str, optional
        The path in the request.
    metadata : mapping of str to str, optional
    retry_s : float, optional
        After how long it may be sent again.
    resource : (str, str), optional
        Type and name of what was not found.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_s: float | None = None,
        resource: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = Fault(
            code, reason, message, field, None, dict(metadata or {}), retry_s, resource
        )


class Fault(NamedTuple):
    """How a call, a row or a frame ended.

    Attributes
    ----------
    code : grpc.StatusCode
    reason : str
        The name of an ErrorReason without its prefix.
    message : str
    field : str or None
        The path in the request.
    row : int or None
    metadata : mapping of str to str
    retry_s : float or None
    resource : (str, str) or None
    """

    code: grpc.StatusCode
    reason: str
    message: str
    field: str | None = None
    row: int | None = None
    metadata: Mapping[str, str] = {}
    retry_s: float | None = None
    resource: tuple[str, str] | None = None

    @property
    def number(self) -> ErrorReason:
        """The reason as the contract numbers it."""
        number: ErrorReason = ErrorReason.Value(f"ERROR_REASON_{self.reason}")
        return number

    @property
    def is_ours(self) -> bool:
        """Whether no client caused it."""
        return self.code is Code.INTERNAL


#: From the most special on: the first that fits tells.
_KINDS: Final[tuple[tuple[type[VisavisError], grpc.StatusCode, str], ...]] = (
    (ReusedError, Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    (LimitError, Code.INVALID_ARGUMENT, "LIMIT_EXCEEDED"),
    (RuleError, Code.INVALID_ARGUMENT, "INVALID_RULE"),
    (SchemaError, Code.INVALID_ARGUMENT, "INVALID_SCHEMA"),
    (InputError, Code.INVALID_ARGUMENT, "INVALID_VALUE"),
    (CorruptionError, Code.DATA_LOSS, "CORRUPTED"),
    (VariantError, Code.FAILED_PRECONDITION, "VERSION_UNFIT"),
    (ExtraError, Code.FAILED_PRECONDITION, "VERSION_UNFIT"),
    (UnreachableError, Code.UNAVAILABLE, "NOT_READY"),
    (SetupError, Code.UNAVAILABLE, "STORAGE_FAILED"),
)

#: What is told of an installation's faults. Paths of the server's disk are nobody's business.
_SAID: Final = {
    "CORRUPTED": "stored bytes do not fit their digest",
    "NOT_READY": "a part of the customers has no worker now",
}

#: What fields of the engine are called in a request, the longest first that fits.
_CONTEXT_PATHS: Final = {
    "context.available_channels": "context.available_channels.names",
    "context.only.capabilities": "context.capability_filter.capability_ids.names",
    "context.only.products": "context.capability_filter.products.names",
    "context.only.channels": "context.capability_filter.channels.names",
    "context.only.families": "context.capability_filter.families.names",
    "context.without.capabilities": "context.exclusions.capability_ids",
    "context.without": "context.exclusions",
    "context.indicators": "context.indicator_overrides",
    "context.attributes": "context.attribute_overrides",
    **{
        f"context.{name}": f"context.policy_overrides.{name}"
        for name in ("k", "ev_min", "product_limit", "channel_limit", "family_limit")
    },
    "reasons": "reason_count",
}


def fault_of(
    error: BaseException,
    *,
    paths: Mapping[str, str] | None = None,
    missing: tuple[str, str] = ("customer", ""),
) -> Fault:
    """How an error is told.

    Parameters
    ----------
    error : BaseException
    paths : mapping of str to str, optional
        What fields of the engine are called in this request, beside those of a context.
    missing : (str, str)
        Type and name of what a NotFoundError is about.
    """
    if isinstance(error, RefusedError):
        return error.fault
    if isinstance(error, NotFoundError):
        reason = f"UNKNOWN_{missing[0].upper()}"
        return Fault(Code.NOT_FOUND, reason, str(error), resource=missing)
    found = next((each for each in _KINDS if isinstance(error, each[0])), None)
    if found is None:
        return Fault(Code.INTERNAL, "UNSPECIFIED", "a fault of the server")
    _, code, reason = found
    if isinstance(error, SetupError):
        retry_s = RETRY_S if code is Code.UNAVAILABLE else None
        return Fault(code, reason, _SAID.get(reason, "storage failed"), retry_s=retry_s)
    assert isinstance(error, InputError)  # noqa: S101 (what is left)
    field = _path(error.field, {**_CONTEXT_PATHS, **(paths or {})})
    return Fault(code, reason, error.reason, field, error.row, _metadata(error))


def _metadata(error: InputError) -> dict[str, str]:
    if isinstance(error, RuleError) and error.position is not None:
        return {"position": str(error.position)}
    return {}


def _path(field: str | None, paths: Mapping[str, str]) -> str | None:
    if field is None:
        return None
    for named in sorted(paths, key=len, reverse=True):
        if field == named or field.startswith((f"{named}.", f"{named}[")):
            return paths[named] + field[len(named) :]
    return field


def _cut(text: str) -> str:
    return text if len(text) <= _TOLD_MAX else text[: _TOLD_MAX - 1] + "…"


def status_of(fault: Fault) -> Status:
    """A fault as google.rpc.Status, with its details."""
    metadata = {name: _cut(said) for name, said in fault.metadata.items()}
    details: list[Any] = [ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=metadata)]
    message = _cut(fault.message)
    if fault.code is Code.INVALID_ARGUMENT:
        where = _cut(fault.field or "")
        if fault.row is not None:
            where = f"{where}[{fault.row}]"
        violation = BadRequest.FieldViolation(field=where, description=message)
        details.append(BadRequest(field_violations=[violation]))
        message = f"{where}: {message}" if where else message
    if fault.resource is not None:
        kind, name = fault.resource
        details.append(ResourceInfo(resource_type=kind, resource_name=_cut(name)))
    if fault.retry_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(fault.retry_s * 1000))
        details.append(RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        held = AnyMessage()
        held.Pack(detail)
        packed.append(held)
    return Status(code=fault.code.value[0], message=message, details=packed)


async def abort(call: Any, fault: Fault) -> NoReturn:
    """End a call with a fault."""
    status = status_of(fault)
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    await call.abort(fault.code, status.message, trailers)
    raise AssertionError("abort does not return")


def row_error(row: int, fault: Fault) -> RowError:
    """A fault as the error of a row of a batch."""
    return RowError(
        row_index=row, reason=fault.number, field=fault.field or "", message=_cut(fault.message)
    )


def frame_error(fault: Fault) -> FrameError:
    """A fault as the error of a frame of a stream."""
    where = fault.field or ""
    if where and fault.row is not None:
        where = f"{where}[{fault.row}]"
    error = FrameError(
        code=fault.code.value[0],
        reason=fault.number,
        field=_cut(where),
        message=_cut(fault.message),
    )
    if fault.retry_s is not None:
        error.retry_delay_ms = round(fault.retry_s * 1000)
    return error
