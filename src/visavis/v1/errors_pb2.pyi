from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_VALUE: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_SCHEMA: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_RULE: _ClassVar[ErrorReason]
    ERROR_REASON_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_LOOSER_POLICY: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_TOKEN: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_CUSTOMER: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_CAPABILITY: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_JOB: _ClassVar[ErrorReason]
    ERROR_REASON_REQUEST_ID_REUSED: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_CHANGED: _ClassVar[ErrorReason]
    ERROR_REASON_DIGEST_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_VERSION_UNFIT: _ClassVar[ErrorReason]
    ERROR_REASON_JOURNAL_ABSENT: _ClassVar[ErrorReason]
    ERROR_REASON_JOBS_ABSENT: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_NOT_SUCCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_NOT_READY: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_CORRUPTED: _ClassVar[ErrorReason]
    ERROR_REASON_CREDENTIALS_MISSING: _ClassVar[ErrorReason]
    ERROR_REASON_CREDENTIALS_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_SCOPE_MISSING: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_PASSED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_VALUE: ErrorReason
ERROR_REASON_INVALID_SCHEMA: ErrorReason
ERROR_REASON_INVALID_RULE: ErrorReason
ERROR_REASON_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_LOOSER_POLICY: ErrorReason
ERROR_REASON_INVALID_TOKEN: ErrorReason
ERROR_REASON_UNKNOWN_CUSTOMER: ErrorReason
ERROR_REASON_UNKNOWN_CAPABILITY: ErrorReason
ERROR_REASON_UNKNOWN_JOB: ErrorReason
ERROR_REASON_REQUEST_ID_REUSED: ErrorReason
ERROR_REASON_VERSION_CHANGED: ErrorReason
ERROR_REASON_DIGEST_MISMATCH: ErrorReason
ERROR_REASON_VERSION_UNFIT: ErrorReason
ERROR_REASON_JOURNAL_ABSENT: ErrorReason
ERROR_REASON_JOBS_ABSENT: ErrorReason
ERROR_REASON_JOB_NOT_SUCCEEDED: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_NOT_READY: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_STORAGE_FAILED: ErrorReason
ERROR_REASON_CORRUPTED: ErrorReason
ERROR_REASON_CREDENTIALS_MISSING: ErrorReason
ERROR_REASON_CREDENTIALS_INVALID: ErrorReason
ERROR_REASON_SCOPE_MISSING: ErrorReason
ERROR_REASON_DEADLINE_PASSED: ErrorReason

class RowError(_message.Message):
    __slots__ = ("row_index", "reason", "field", "message")
    ROW_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    row_index: int
    reason: ErrorReason
    field: str
    message: str
    def __init__(self, row_index: _Optional[int] = ..., reason: _Optional[_Union[ErrorReason, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("code", "reason", "field", "message", "retry_delay_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: ErrorReason
    field: str
    message: str
    retry_delay_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[_Union[ErrorReason, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., retry_delay_ms: _Optional[int] = ...) -> None: ...
