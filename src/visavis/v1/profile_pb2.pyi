from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FactKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FACT_KIND_UNSPECIFIED: _ClassVar[FactKind]
    FACT_KIND_BOUGHT: _ClassVar[FactKind]
    FACT_KIND_REFUSED: _ClassVar[FactKind]
    FACT_KIND_CONTACTED: _ClassVar[FactKind]
    FACT_KIND_EXCLUDED: _ClassVar[FactKind]
FACT_KIND_UNSPECIFIED: FactKind
FACT_KIND_BOUGHT: FactKind
FACT_KIND_REFUSED: FactKind
FACT_KIND_CONTACTED: FactKind
FACT_KIND_EXCLUDED: FactKind

class AttributeValue(_message.Message):
    __slots__ = ("bool_value", "int64_value", "double_value", "string_value", "date_value")
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    DATE_VALUE_FIELD_NUMBER: _ClassVar[int]
    bool_value: bool
    int64_value: int
    double_value: float
    string_value: str
    date_value: str
    def __init__(self, bool_value: _Optional[bool] = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., string_value: _Optional[str] = ..., date_value: _Optional[str] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("product", "capability_id", "kind", "date", "count")
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    product: str
    capability_id: str
    kind: FactKind
    date: str
    count: int
    def __init__(self, product: _Optional[str] = ..., capability_id: _Optional[str] = ..., kind: _Optional[_Union[FactKind, str]] = ..., date: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("customer_id", "indicators", "attributes", "facts")
    class IndicatorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    indicators: _containers.ScalarMap[str, float]
    attributes: _containers.MessageMap[str, AttributeValue]
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    def __init__(self, customer_id: _Optional[str] = ..., indicators: _Optional[_Mapping[str, float]] = ..., attributes: _Optional[_Mapping[str, AttributeValue]] = ..., facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ...) -> None: ...

class IndicatorColumns(_message.Message):
    __slots__ = ("indicator_names", "values", "is_given")
    INDICATOR_NAMES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    IS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    indicator_names: _containers.RepeatedScalarFieldContainer[str]
    values: bytes
    is_given: bytes
    def __init__(self, indicator_names: _Optional[_Iterable[str]] = ..., values: _Optional[bytes] = ..., is_given: _Optional[bytes] = ...) -> None: ...

class AttributeColumn(_message.Message):
    __slots__ = ("name", "bool_values", "int64_values", "double_values", "string_values", "date_values", "is_given")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUES_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUES_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUES_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUES_FIELD_NUMBER: _ClassVar[int]
    DATE_VALUES_FIELD_NUMBER: _ClassVar[int]
    IS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    bool_values: bytes
    int64_values: bytes
    double_values: bytes
    string_values: TextColumn
    date_values: bytes
    is_given: bytes
    def __init__(self, name: _Optional[str] = ..., bool_values: _Optional[bytes] = ..., int64_values: _Optional[bytes] = ..., double_values: _Optional[bytes] = ..., string_values: _Optional[_Union[TextColumn, _Mapping]] = ..., date_values: _Optional[bytes] = ..., is_given: _Optional[bytes] = ...) -> None: ...

class TextColumn(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class FactColumns(_message.Message):
    __slots__ = ("row_index", "products", "product_index", "capability_ids", "capability_index", "kind", "day", "count")
    ROW_INDEX_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_INDEX_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_IDS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    row_index: bytes
    products: _containers.RepeatedScalarFieldContainer[str]
    product_index: bytes
    capability_ids: _containers.RepeatedScalarFieldContainer[str]
    capability_index: bytes
    kind: bytes
    day: bytes
    count: bytes
    def __init__(self, row_index: _Optional[bytes] = ..., products: _Optional[_Iterable[str]] = ..., product_index: _Optional[bytes] = ..., capability_ids: _Optional[_Iterable[str]] = ..., capability_index: _Optional[bytes] = ..., kind: _Optional[bytes] = ..., day: _Optional[bytes] = ..., count: _Optional[bytes] = ...) -> None: ...

class ProfileColumns(_message.Message):
    __slots__ = ("customer_ids", "indicators", "attributes", "facts")
    CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    customer_ids: _containers.RepeatedScalarFieldContainer[str]
    indicators: IndicatorColumns
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeColumn]
    facts: FactColumns
    def __init__(self, customer_ids: _Optional[_Iterable[str]] = ..., indicators: _Optional[_Union[IndicatorColumns, _Mapping]] = ..., attributes: _Optional[_Iterable[_Union[AttributeColumn, _Mapping]]] = ..., facts: _Optional[_Union[FactColumns, _Mapping]] = ...) -> None: ...

class ArrowProfiles(_message.Message):
    __slots__ = ("profiles", "facts")
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    profiles: bytes
    facts: bytes
    def __init__(self, profiles: _Optional[bytes] = ..., facts: _Optional[bytes] = ...) -> None: ...

class OverrideColumns(_message.Message):
    __slots__ = ("indicators", "attributes")
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    indicators: IndicatorColumns
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeColumn]
    def __init__(self, indicators: _Optional[_Union[IndicatorColumns, _Mapping]] = ..., attributes: _Optional[_Iterable[_Union[AttributeColumn, _Mapping]]] = ...) -> None: ...
