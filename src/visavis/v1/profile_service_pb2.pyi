from visavis.v1 import profile_pb2 as _profile_pb2
from visavis.v1 import version_pb2 as _version_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CustomerFact(_message.Message):
    __slots__ = ("customer_id", "fact")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    FACT_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    fact: _profile_pb2.Fact
    def __init__(self, customer_id: _Optional[str] = ..., fact: _Optional[_Union[_profile_pb2.Fact, _Mapping]] = ...) -> None: ...

class OpportunityOutcome(_message.Message):
    __slots__ = ("opportunity_id", "kind", "date", "count")
    OPPORTUNITY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    opportunity_id: str
    kind: _profile_pb2.FactKind
    date: str
    count: int
    def __init__(self, opportunity_id: _Optional[str] = ..., kind: _Optional[_Union[_profile_pb2.FactKind, str]] = ..., date: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class CustomerAttributes(_message.Message):
    __slots__ = ("customer_id", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _profile_pb2.AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_profile_pb2.AttributeValue, _Mapping]] = ...) -> None: ...
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    attributes: _containers.MessageMap[str, _profile_pb2.AttributeValue]
    def __init__(self, customer_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _profile_pb2.AttributeValue]] = ...) -> None: ...

class RecordFactsRequest(_message.Message):
    __slots__ = ("request_id", "facts", "outcomes", "attributes", "objecting_customer_ids")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    OBJECTING_CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    facts: _containers.RepeatedCompositeFieldContainer[CustomerFact]
    outcomes: _containers.RepeatedCompositeFieldContainer[OpportunityOutcome]
    attributes: _containers.RepeatedCompositeFieldContainer[CustomerAttributes]
    objecting_customer_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., facts: _Optional[_Iterable[_Union[CustomerFact, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[OpportunityOutcome, _Mapping]]] = ..., attributes: _Optional[_Iterable[_Union[CustomerAttributes, _Mapping]]] = ..., objecting_customer_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RecordFactsResponse(_message.Message):
    __slots__ = ("version", "first_offset", "last_offset", "is_repeated", "dropped_count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    IS_REPEATED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    first_offset: int
    last_offset: int
    is_repeated: bool
    dropped_count: int
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ..., is_repeated: _Optional[bool] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class ForgetCustomerRequest(_message.Message):
    __slots__ = ("customer_id",)
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    def __init__(self, customer_id: _Optional[str] = ...) -> None: ...

class ForgetCustomerResponse(_message.Message):
    __slots__ = ("version", "emptied_count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EMPTIED_COUNT_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    emptied_count: int
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., emptied_count: _Optional[int] = ...) -> None: ...
