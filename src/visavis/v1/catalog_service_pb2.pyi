from visavis.v1 import capability_pb2 as _capability_pb2
from visavis.v1 import context_pb2 as _context_pb2
from visavis.v1 import version_pb2 as _version_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttributeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTE_TYPE_UNSPECIFIED: _ClassVar[AttributeType]
    ATTRIBUTE_TYPE_BOOL: _ClassVar[AttributeType]
    ATTRIBUTE_TYPE_INT64: _ClassVar[AttributeType]
    ATTRIBUTE_TYPE_DOUBLE: _ClassVar[AttributeType]
    ATTRIBUTE_TYPE_STRING: _ClassVar[AttributeType]
    ATTRIBUTE_TYPE_DATE: _ClassVar[AttributeType]
ATTRIBUTE_TYPE_UNSPECIFIED: AttributeType
ATTRIBUTE_TYPE_BOOL: AttributeType
ATTRIBUTE_TYPE_INT64: AttributeType
ATTRIBUTE_TYPE_DOUBLE: AttributeType
ATTRIBUTE_TYPE_STRING: AttributeType
ATTRIBUTE_TYPE_DATE: AttributeType

class AttributeColumnType(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: AttributeType
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[AttributeType, str]] = ...) -> None: ...

class ServingPolicy(_message.Message):
    __slots__ = ("k", "ev_min", "product_limit", "channel_limit", "family_limit", "cool_down_days", "channels_without_consent", "exclusions", "control_share")
    class CoolDownDaysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    K_FIELD_NUMBER: _ClassVar[int]
    EV_MIN_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FAMILY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    COOL_DOWN_DAYS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_WITHOUT_CONSENT_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SHARE_FIELD_NUMBER: _ClassVar[int]
    k: int
    ev_min: float
    product_limit: int
    channel_limit: int
    family_limit: int
    cool_down_days: _containers.ScalarMap[str, int]
    channels_without_consent: _containers.RepeatedScalarFieldContainer[str]
    exclusions: _context_pb2.Exclusions
    control_share: float
    def __init__(self, k: _Optional[int] = ..., ev_min: _Optional[float] = ..., product_limit: _Optional[int] = ..., channel_limit: _Optional[int] = ..., family_limit: _Optional[int] = ..., cool_down_days: _Optional[_Mapping[str, int]] = ..., channels_without_consent: _Optional[_Iterable[str]] = ..., exclusions: _Optional[_Union[_context_pb2.Exclusions, _Mapping]] = ..., control_share: _Optional[float] = ...) -> None: ...

class ServingLimits(_message.Message):
    __slots__ = ("message_bytes_max", "metadata_bytes_max", "customer_count_max", "entry_count_max", "reason_count_max", "audience_count_max", "page_size_max", "open_frame_count_max", "default_deadline_s")
    MESSAGE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    METADATA_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_MAX_FIELD_NUMBER: _ClassVar[int]
    OPEN_FRAME_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    message_bytes_max: int
    metadata_bytes_max: int
    customer_count_max: int
    entry_count_max: int
    reason_count_max: int
    audience_count_max: int
    page_size_max: int
    open_frame_count_max: int
    default_deadline_s: float
    def __init__(self, message_bytes_max: _Optional[int] = ..., metadata_bytes_max: _Optional[int] = ..., customer_count_max: _Optional[int] = ..., entry_count_max: _Optional[int] = ..., reason_count_max: _Optional[int] = ..., audience_count_max: _Optional[int] = ..., page_size_max: _Optional[int] = ..., open_frame_count_max: _Optional[int] = ..., default_deadline_s: _Optional[float] = ...) -> None: ...

class GetServingInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServingInfoResponse(_message.Message):
    __slots__ = ("version", "release", "score_contract_version", "kernel_variant", "customer_count", "capability_count", "indicator_names", "attributes", "policy", "limits", "notice", "has_journal", "has_jobs")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SCORE_CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_VARIANT_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_NAMES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    HAS_JOURNAL_FIELD_NUMBER: _ClassVar[int]
    HAS_JOBS_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    release: str
    score_contract_version: int
    kernel_variant: str
    customer_count: int
    capability_count: int
    indicator_names: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeColumnType]
    policy: ServingPolicy
    limits: ServingLimits
    notice: str
    has_journal: bool
    has_jobs: bool
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., release: _Optional[str] = ..., score_contract_version: _Optional[int] = ..., kernel_variant: _Optional[str] = ..., customer_count: _Optional[int] = ..., capability_count: _Optional[int] = ..., indicator_names: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[AttributeColumnType, _Mapping]]] = ..., policy: _Optional[_Union[ServingPolicy, _Mapping]] = ..., limits: _Optional[_Union[ServingLimits, _Mapping]] = ..., notice: _Optional[str] = ..., has_journal: _Optional[bool] = ..., has_jobs: _Optional[bool] = ...) -> None: ...

class ListCapabilitiesRequest(_message.Message):
    __slots__ = ("capability_filter", "view", "page_size", "page_token")
    CAPABILITY_FILTER_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    capability_filter: _context_pb2.CapabilityFilter
    view: _capability_pb2.CapabilityView
    page_size: int
    page_token: str
    def __init__(self, capability_filter: _Optional[_Union[_context_pb2.CapabilityFilter, _Mapping]] = ..., view: _Optional[_Union[_capability_pb2.CapabilityView, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCapabilitiesResponse(_message.Message):
    __slots__ = ("version", "capabilities", "next_page_token")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    capabilities: _containers.RepeatedCompositeFieldContainer[_capability_pb2.Capability]
    next_page_token: str
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., capabilities: _Optional[_Iterable[_Union[_capability_pb2.Capability, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PublishedSource(_message.Message):
    __slots__ = ("location", "digest")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    location: str
    digest: str
    def __init__(self, location: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class PublishVersionRequest(_message.Message):
    __slots__ = ("request_id", "base", "base_version", "catalog", "policy", "validate_only")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    base: PublishedSource
    base_version: int
    catalog: PublishedSource
    policy: PublishedSource
    validate_only: bool
    def __init__(self, request_id: _Optional[str] = ..., base: _Optional[_Union[PublishedSource, _Mapping]] = ..., base_version: _Optional[int] = ..., catalog: _Optional[_Union[PublishedSource, _Mapping]] = ..., policy: _Optional[_Union[PublishedSource, _Mapping]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PublishVersionResponse(_message.Message):
    __slots__ = ("version", "replaced_version", "is_repeated")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLACED_VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_REPEATED_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    replaced_version: _version_pb2.ServingVersion
    is_repeated: bool
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., replaced_version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., is_repeated: _Optional[bool] = ...) -> None: ...
