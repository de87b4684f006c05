from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_COLUMNS: _ClassVar[Encoding]
    ENCODING_ARROW: _ClassVar[Encoding]
ENCODING_UNSPECIFIED: Encoding
ENCODING_COLUMNS: Encoding
ENCODING_ARROW: Encoding

class Reason(_message.Message):
    __slots__ = ("indicator", "contribution")
    INDICATOR_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    indicator: str
    contribution: float
    def __init__(self, indicator: _Optional[str] = ..., contribution: _Optional[float] = ...) -> None: ...

class Opportunity(_message.Message):
    __slots__ = ("opportunity_id", "capability_id", "product", "variant", "message_text", "channel", "family", "rank", "propensity", "expected_value", "reasons", "is_control")
    OPPORTUNITY_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TEXT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    IS_CONTROL_FIELD_NUMBER: _ClassVar[int]
    opportunity_id: str
    capability_id: str
    product: str
    variant: str
    message_text: str
    channel: str
    family: str
    rank: int
    propensity: float
    expected_value: float
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    is_control: bool
    def __init__(self, opportunity_id: _Optional[str] = ..., capability_id: _Optional[str] = ..., product: _Optional[str] = ..., variant: _Optional[str] = ..., message_text: _Optional[str] = ..., channel: _Optional[str] = ..., family: _Optional[str] = ..., rank: _Optional[int] = ..., propensity: _Optional[float] = ..., expected_value: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., is_control: _Optional[bool] = ...) -> None: ...

class OpportunityColumns(_message.Message):
    __slots__ = ("opportunity_count", "is_control", "capability_ids", "capability_index", "propensity", "expected_value", "reason_count", "indicator_names", "indicator_index", "contribution")
    OPPORTUNITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_CONTROL_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_INDEX_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNT_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_NAMES_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    opportunity_count: bytes
    is_control: bytes
    capability_ids: _containers.RepeatedScalarFieldContainer[str]
    capability_index: bytes
    propensity: bytes
    expected_value: bytes
    reason_count: bytes
    indicator_names: _containers.RepeatedScalarFieldContainer[str]
    indicator_index: bytes
    contribution: bytes
    def __init__(self, opportunity_count: _Optional[bytes] = ..., is_control: _Optional[bytes] = ..., capability_ids: _Optional[_Iterable[str]] = ..., capability_index: _Optional[bytes] = ..., propensity: _Optional[bytes] = ..., expected_value: _Optional[bytes] = ..., reason_count: _Optional[bytes] = ..., indicator_names: _Optional[_Iterable[str]] = ..., indicator_index: _Optional[bytes] = ..., contribution: _Optional[bytes] = ...) -> None: ...
