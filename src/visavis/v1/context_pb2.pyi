from visavis.v1 import profile_pb2 as _profile_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NameSet(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class CapabilityFilter(_message.Message):
    __slots__ = ("capability_ids", "products", "channels", "families")
    CAPABILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    capability_ids: NameSet
    products: NameSet
    channels: NameSet
    families: NameSet
    def __init__(self, capability_ids: _Optional[_Union[NameSet, _Mapping]] = ..., products: _Optional[_Union[NameSet, _Mapping]] = ..., channels: _Optional[_Union[NameSet, _Mapping]] = ..., families: _Optional[_Union[NameSet, _Mapping]] = ...) -> None: ...

class Exclusions(_message.Message):
    __slots__ = ("capability_ids", "products", "channels", "families")
    CAPABILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FAMILIES_FIELD_NUMBER: _ClassVar[int]
    capability_ids: _containers.RepeatedScalarFieldContainer[str]
    products: _containers.RepeatedScalarFieldContainer[str]
    channels: _containers.RepeatedScalarFieldContainer[str]
    families: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, capability_ids: _Optional[_Iterable[str]] = ..., products: _Optional[_Iterable[str]] = ..., channels: _Optional[_Iterable[str]] = ..., families: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyOverrides(_message.Message):
    __slots__ = ("k", "ev_min", "product_limit", "channel_limit", "family_limit")
    K_FIELD_NUMBER: _ClassVar[int]
    EV_MIN_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FAMILY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    k: int
    ev_min: float
    product_limit: int
    channel_limit: int
    family_limit: int
    def __init__(self, k: _Optional[int] = ..., ev_min: _Optional[float] = ..., product_limit: _Optional[int] = ..., channel_limit: _Optional[int] = ..., family_limit: _Optional[int] = ...) -> None: ...

class RequestContext(_message.Message):
    __slots__ = ("as_of", "available_channels", "capability_filter", "exclusions", "indicator_overrides", "attribute_overrides", "policy_overrides")
    class IndicatorOverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class AttributeOverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _profile_pb2.AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_profile_pb2.AttributeValue, _Mapping]] = ...) -> None: ...
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    POLICY_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    as_of: str
    available_channels: NameSet
    capability_filter: CapabilityFilter
    exclusions: Exclusions
    indicator_overrides: _containers.ScalarMap[str, float]
    attribute_overrides: _containers.MessageMap[str, _profile_pb2.AttributeValue]
    policy_overrides: PolicyOverrides
    def __init__(self, as_of: _Optional[str] = ..., available_channels: _Optional[_Union[NameSet, _Mapping]] = ..., capability_filter: _Optional[_Union[CapabilityFilter, _Mapping]] = ..., exclusions: _Optional[_Union[Exclusions, _Mapping]] = ..., indicator_overrides: _Optional[_Mapping[str, float]] = ..., attribute_overrides: _Optional[_Mapping[str, _profile_pb2.AttributeValue]] = ..., policy_overrides: _Optional[_Union[PolicyOverrides, _Mapping]] = ...) -> None: ...
