from visavis.v1 import profile_pb2 as _profile_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Link(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINK_UNSPECIFIED: _ClassVar[Link]
    LINK_LOGISTIC: _ClassVar[Link]
    LINK_COUNT: _ClassVar[Link]
    LINK_IDENTITY: _ClassVar[Link]

class CapabilityView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_VIEW_UNSPECIFIED: _ClassVar[CapabilityView]
    CAPABILITY_VIEW_BASIC: _ClassVar[CapabilityView]
    CAPABILITY_VIEW_FULL: _ClassVar[CapabilityView]
LINK_UNSPECIFIED: Link
LINK_LOGISTIC: Link
LINK_COUNT: Link
LINK_IDENTITY: Link
CAPABILITY_VIEW_UNSPECIFIED: CapabilityView
CAPABILITY_VIEW_BASIC: CapabilityView
CAPABILITY_VIEW_FULL: CapabilityView

class HistoryTerm(_message.Message):
    __slots__ = ("kind", "feature", "half_life_days", "scale", "weight")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_DAYS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    kind: _profile_pb2.FactKind
    feature: str
    half_life_days: float
    scale: float
    weight: float
    def __init__(self, kind: _Optional[_Union[_profile_pb2.FactKind, str]] = ..., feature: _Optional[str] = ..., half_life_days: _Optional[float] = ..., scale: _Optional[float] = ..., weight: _Optional[float] = ...) -> None: ...

class Capability(_message.Message):
    __slots__ = ("capability_id", "name", "product", "variant", "message", "channel", "family", "weights", "bias", "history_terms", "value", "cost", "link", "rule", "valid_from", "valid_to")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_TERMS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    VALID_FROM_FIELD_NUMBER: _ClassVar[int]
    VALID_TO_FIELD_NUMBER: _ClassVar[int]
    capability_id: str
    name: str
    product: str
    variant: str
    message: str
    channel: str
    family: str
    weights: _containers.ScalarMap[str, float]
    bias: float
    history_terms: _containers.RepeatedCompositeFieldContainer[HistoryTerm]
    value: float
    cost: float
    link: Link
    rule: str
    valid_from: str
    valid_to: str
    def __init__(self, capability_id: _Optional[str] = ..., name: _Optional[str] = ..., product: _Optional[str] = ..., variant: _Optional[str] = ..., message: _Optional[str] = ..., channel: _Optional[str] = ..., family: _Optional[str] = ..., weights: _Optional[_Mapping[str, float]] = ..., bias: _Optional[float] = ..., history_terms: _Optional[_Iterable[_Union[HistoryTerm, _Mapping]]] = ..., value: _Optional[float] = ..., cost: _Optional[float] = ..., link: _Optional[_Union[Link, str]] = ..., rule: _Optional[str] = ..., valid_from: _Optional[str] = ..., valid_to: _Optional[str] = ...) -> None: ...
