from visavis.v1 import capability_pb2 as _capability_pb2
from visavis.v1 import context_pb2 as _context_pb2
from visavis.v1 import errors_pb2 as _errors_pb2
from visavis.v1 import opportunity_pb2 as _opportunity_pb2
from visavis.v1 import profile_pb2 as _profile_pb2
from visavis.v1 import version_pb2 as _version_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Obstacle(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBSTACLE_UNSPECIFIED: _ClassVar[Obstacle]
    OBSTACLE_NONE: _ClassVar[Obstacle]
    OBSTACLE_OBJECTION: _ClassVar[Obstacle]
    OBSTACLE_EXCLUSION: _ClassVar[Obstacle]
    OBSTACLE_FILTER: _ClassVar[Obstacle]
    OBSTACLE_AVAILABILITY: _ClassVar[Obstacle]
    OBSTACLE_VALIDITY: _ClassVar[Obstacle]
    OBSTACLE_CONSENT: _ClassVar[Obstacle]
    OBSTACLE_COOL_DOWN: _ClassVar[Obstacle]
    OBSTACLE_RULE: _ClassVar[Obstacle]
    OBSTACLE_HISTORY: _ClassVar[Obstacle]
    OBSTACLE_EV_MIN: _ClassVar[Obstacle]
    OBSTACLE_K: _ClassVar[Obstacle]
    OBSTACLE_PRODUCT_LIMIT: _ClassVar[Obstacle]
    OBSTACLE_CHANNEL_LIMIT: _ClassVar[Obstacle]
    OBSTACLE_FAMILY_LIMIT: _ClassVar[Obstacle]
    OBSTACLE_CONTEXT: _ClassVar[Obstacle]
OBSTACLE_UNSPECIFIED: Obstacle
OBSTACLE_NONE: Obstacle
OBSTACLE_OBJECTION: Obstacle
OBSTACLE_EXCLUSION: Obstacle
OBSTACLE_FILTER: Obstacle
OBSTACLE_AVAILABILITY: Obstacle
OBSTACLE_VALIDITY: Obstacle
OBSTACLE_CONSENT: Obstacle
OBSTACLE_COOL_DOWN: Obstacle
OBSTACLE_RULE: Obstacle
OBSTACLE_HISTORY: Obstacle
OBSTACLE_EV_MIN: Obstacle
OBSTACLE_K: Obstacle
OBSTACLE_PRODUCT_LIMIT: Obstacle
OBSTACLE_CHANNEL_LIMIT: Obstacle
OBSTACLE_FAMILY_LIMIT: Obstacle
OBSTACLE_CONTEXT: Obstacle

class MatchCustomerRequest(_message.Message):
    __slots__ = ("customer_id", "profile", "context", "reason_count", "distinctive_reasons")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNT_FIELD_NUMBER: _ClassVar[int]
    DISTINCTIVE_REASONS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    profile: _profile_pb2.Profile
    context: _context_pb2.RequestContext
    reason_count: int
    distinctive_reasons: bool
    def __init__(self, customer_id: _Optional[str] = ..., profile: _Optional[_Union[_profile_pb2.Profile, _Mapping]] = ..., context: _Optional[_Union[_context_pb2.RequestContext, _Mapping]] = ..., reason_count: _Optional[int] = ..., distinctive_reasons: _Optional[bool] = ...) -> None: ...

class MatchCustomerResponse(_message.Message):
    __slots__ = ("version", "customer_id", "opportunities")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    OPPORTUNITIES_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    customer_id: str
    opportunities: _containers.RepeatedCompositeFieldContainer[_opportunity_pb2.Opportunity]
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., customer_id: _Optional[str] = ..., opportunities: _Optional[_Iterable[_Union[_opportunity_pb2.Opportunity, _Mapping]]] = ...) -> None: ...

class CustomerIds(_message.Message):
    __slots__ = ("customer_ids",)
    CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    customer_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, customer_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class MatchCustomersRequest(_message.Message):
    __slots__ = ("ids", "profiles", "arrow_profiles", "context", "overrides", "encoding", "reason_count", "distinctive_reasons")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    ARROW_PROFILES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNT_FIELD_NUMBER: _ClassVar[int]
    DISTINCTIVE_REASONS_FIELD_NUMBER: _ClassVar[int]
    ids: CustomerIds
    profiles: _profile_pb2.ProfileColumns
    arrow_profiles: _profile_pb2.ArrowProfiles
    context: _context_pb2.RequestContext
    overrides: _profile_pb2.OverrideColumns
    encoding: _opportunity_pb2.Encoding
    reason_count: int
    distinctive_reasons: bool
    def __init__(self, ids: _Optional[_Union[CustomerIds, _Mapping]] = ..., profiles: _Optional[_Union[_profile_pb2.ProfileColumns, _Mapping]] = ..., arrow_profiles: _Optional[_Union[_profile_pb2.ArrowProfiles, _Mapping]] = ..., context: _Optional[_Union[_context_pb2.RequestContext, _Mapping]] = ..., overrides: _Optional[_Union[_profile_pb2.OverrideColumns, _Mapping]] = ..., encoding: _Optional[_Union[_opportunity_pb2.Encoding, str]] = ..., reason_count: _Optional[int] = ..., distinctive_reasons: _Optional[bool] = ...) -> None: ...

class MatchCustomersResponse(_message.Message):
    __slots__ = ("version", "customer_count", "columns", "arrow", "row_errors")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_COUNT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    ROW_ERRORS_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    customer_count: int
    columns: _opportunity_pb2.OpportunityColumns
    arrow: bytes
    row_errors: _containers.RepeatedCompositeFieldContainer[_errors_pb2.RowError]
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., customer_count: _Optional[int] = ..., columns: _Optional[_Union[_opportunity_pb2.OpportunityColumns, _Mapping]] = ..., arrow: _Optional[bytes] = ..., row_errors: _Optional[_Iterable[_Union[_errors_pb2.RowError, _Mapping]]] = ...) -> None: ...

class StreamMatchesRequest(_message.Message):
    __slots__ = ("frame_id", "match")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    match: MatchCustomersRequest
    def __init__(self, frame_id: _Optional[int] = ..., match: _Optional[_Union[MatchCustomersRequest, _Mapping]] = ...) -> None: ...

class StreamMatchesResponse(_message.Message):
    __slots__ = ("frame_id", "match", "error")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    match: MatchCustomersResponse
    error: _errors_pb2.FrameError
    def __init__(self, frame_id: _Optional[int] = ..., match: _Optional[_Union[MatchCustomersResponse, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.FrameError, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("customer_id", "profile", "capability_id", "context")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    profile: _profile_pb2.Profile
    capability_id: str
    context: _context_pb2.RequestContext
    def __init__(self, customer_id: _Optional[str] = ..., profile: _Optional[_Union[_profile_pb2.Profile, _Mapping]] = ..., capability_id: _Optional[str] = ..., context: _Optional[_Union[_context_pb2.RequestContext, _Mapping]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("name", "value", "weight", "contribution")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    weight: float
    contribution: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., weight: _Optional[float] = ..., contribution: _Optional[float] = ...) -> None: ...

class HistoryContribution(_message.Message):
    __slots__ = ("term", "contribution")
    TERM_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    term: str
    contribution: float
    def __init__(self, term: _Optional[str] = ..., contribution: _Optional[float] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("obstacle", "is_open", "detail", "remedy")
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    IS_OPEN_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    obstacle: Obstacle
    is_open: bool
    detail: str
    remedy: str
    def __init__(self, obstacle: _Optional[_Union[Obstacle, str]] = ..., is_open: _Optional[bool] = ..., detail: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("version", "customer_id", "capability_id", "linear_predictor", "bias", "contributions", "history_contributions", "propensity", "expected_value", "gates", "rank", "obstacle", "verdict", "better_capability_ids", "remedies")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAR_PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    BETTER_CAPABILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    REMEDIES_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    customer_id: str
    capability_id: str
    linear_predictor: float
    bias: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    history_contributions: _containers.RepeatedCompositeFieldContainer[HistoryContribution]
    propensity: float
    expected_value: float
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    rank: int
    obstacle: Obstacle
    verdict: str
    better_capability_ids: _containers.RepeatedScalarFieldContainer[str]
    remedies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., customer_id: _Optional[str] = ..., capability_id: _Optional[str] = ..., linear_predictor: _Optional[float] = ..., bias: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., history_contributions: _Optional[_Iterable[_Union[HistoryContribution, _Mapping]]] = ..., propensity: _Optional[float] = ..., expected_value: _Optional[float] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., rank: _Optional[int] = ..., obstacle: _Optional[_Union[Obstacle, str]] = ..., verdict: _Optional[str] = ..., better_capability_ids: _Optional[_Iterable[str]] = ..., remedies: _Optional[_Iterable[str]] = ...) -> None: ...

class FindAudienceRequest(_message.Message):
    __slots__ = ("capability_id", "draft", "context", "audience_count", "page_size", "page_token", "reason_count", "include_reach")
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_REACH_FIELD_NUMBER: _ClassVar[int]
    capability_id: str
    draft: _capability_pb2.Capability
    context: _context_pb2.RequestContext
    audience_count: int
    page_size: int
    page_token: str
    reason_count: int
    include_reach: bool
    def __init__(self, capability_id: _Optional[str] = ..., draft: _Optional[_Union[_capability_pb2.Capability, _Mapping]] = ..., context: _Optional[_Union[_context_pb2.RequestContext, _Mapping]] = ..., audience_count: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., reason_count: _Optional[int] = ..., include_reach: _Optional[bool] = ...) -> None: ...

class AudienceMember(_message.Message):
    __slots__ = ("customer_id", "propensity", "expected_value", "reasons", "is_control")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VALUE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    IS_CONTROL_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    propensity: float
    expected_value: float
    reasons: _containers.RepeatedCompositeFieldContainer[_opportunity_pb2.Reason]
    is_control: bool
    def __init__(self, customer_id: _Optional[str] = ..., propensity: _Optional[float] = ..., expected_value: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[_opportunity_pb2.Reason, _Mapping]]] = ..., is_control: _Optional[bool] = ...) -> None: ...

class FindAudienceResponse(_message.Message):
    __slots__ = ("version", "members", "next_page_token", "eligible_count", "reach_count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    REACH_COUNT_FIELD_NUMBER: _ClassVar[int]
    version: _version_pb2.ServingVersion
    members: _containers.RepeatedCompositeFieldContainer[AudienceMember]
    next_page_token: str
    eligible_count: int
    reach_count: int
    def __init__(self, version: _Optional[_Union[_version_pb2.ServingVersion, _Mapping]] = ..., members: _Optional[_Iterable[_Union[AudienceMember, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., eligible_count: _Optional[int] = ..., reach_count: _Optional[int] = ...) -> None: ...
