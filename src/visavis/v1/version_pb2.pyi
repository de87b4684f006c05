from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ServingVersion(_message.Message):
    __slots__ = ("base_version", "base_digest", "catalog_digest", "policy_digest", "journal_offset", "as_of")
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CATALOG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    base_version: int
    base_digest: str
    catalog_digest: str
    policy_digest: str
    journal_offset: int
    as_of: str
    def __init__(self, base_version: _Optional[int] = ..., base_digest: _Optional[str] = ..., catalog_digest: _Optional[str] = ..., policy_digest: _Optional[str] = ..., journal_offset: _Optional[int] = ..., as_of: _Optional[str] = ...) -> None: ...
