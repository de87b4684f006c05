"""Messages of the contract that somebody hostile could send, drawn by hypothesis."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.internal.encoder import _VarintBytes
from hypothesis import strategies as st

from gateways import AS_OF, IDS, INDICATORS
from visavis.gateway.limits import MESSAGE_BYTES_MAX
from visavis.v1 import (
    catalog_service_pb2,
    job_service_pb2,
    match_service_pb2,
    profile_service_pb2,
)

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (match_service_pb2, profile_service_pb2, catalog_service_pb2, job_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

#: A request of each call that is nearly right: what is drawn is laid over it, or not.
_ROW = {"product": "tea", "kind": 2, "date": str(AS_OF)}
_CELLS = b"\0\0\x80\x3f" * len(INDICATORS)
PLAUSIBLE: dict[str, list[dict[str, Any]]] = {
    "MatchCustomer": [
        {"customer_id": "c01", "context": {"indicator_overrides": {"spend": 1.0}}},
        {"profile": {"customer_id": "new", "indicators": dict.fromkeys(INDICATORS, 1.0)}},
    ],
    "MatchCustomers": [
        {"ids": {"customer_ids": IDS[:5]}, "reason_count": 2},
        {
            "profiles": {
                "customer_ids": ["a"],
                "indicators": {"indicator_names": INDICATORS, "values": _CELLS},
            },
            "encoding": 1,
        },
        {
            "ids": {"customer_ids": ["c03"]},
            "overrides": {"indicators": {"indicator_names": INDICATORS, "values": _CELLS}},
            "encoding": 2,
        },
    ],
    "StreamMatches": [{"frame_id": 1, "match": {"ids": {"customer_ids": IDS[:5]}}}],
    "Explain": [{"customer_id": "c02", "capability_id": "k03"}],
    "FindAudience": [
        {"capability_id": "k05", "audience_count": 20, "page_size": 3},
        {
            "draft": {
                "capability_id": "new",
                "product": "tea",
                "channel": "shop",
                "weights": {"spend": 1.0},
            },
            "audience_count": 5,
            "include_reach": True,
        },
    ],
    "RecordFacts": [
        {"request_id": "a", "facts": [{"customer_id": "c01", "fact": _ROW}]},
        {
            "request_id": "b",
            "attributes": [{"customer_id": "c02", "attributes": {"age": {"int64_value": 30}}}],
        },
    ],
    "ForgetCustomer": [{"customer_id": "nobody"}],
    "GetServingInfo": [{}],
    "ListCapabilities": [{"page_size": 5}],
    "PublishVersion": [
        {"request_id": "p", "catalog": {"location": "catalog.parquet"}, "validate_only": True},
        {"request_id": "q", "policy": {"location": "policy.toml"}},
        {"request_id": "r", "base": {"location": "base"}, "base_version": 1},
    ],
    "CreateRescoreJob": [{"request_id": "j", "reason_count": 1}],
    "GetJob": [{"job_id": "0" * 64}],
    "ListJobs": [{"page_size": 2}],
    "CancelJob": [{"job_id": "0" * 64}],
    "WatchJob": [{"job_id": "0" * 64}],
    "ReadResults": [{"job_id": "0" * 64, "resume_token": "x"}],
}

_TEXTS = st.sampled_from(
    (
        *(
            "",
            "é\0",
            "\U0010ffff",
            "x" * 500,
            "x" * 70_000,
            "2026-03-01",
            "0000-00-00",
            "9999-12-31",
        ),
        *("../..", "/etc/passwd", "base", "catalog.parquet", "policy.toml", "s3://x/y", "tea"),
        *("mail", "k00", "k05", "k99", "age", "age >= 18", "(" * 400, "first_name", "consent_mail"),
        *("objected", "bought", "ever", *INDICATORS, *IDS[:4]),
    )
) | st.text(max_size=12)

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_DOUBLES = st.sampled_from((0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324, 1.7e308))
_FLOATS = st.sampled_from((0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 1e-45, 3.4e38))


def _values(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is no message."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return _DOUBLES
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return _FLOATS
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=40) | st.sampled_from([b"\0" * 4096, _CELLS])
        return _TEXTS
    low, high = _RANGES[kind]
    return st.sampled_from((low, high, max(low, -1), 0, 1, 2, 3, 7, 1000)) | st.integers(low, high)


def _put(draw: st.DrawFn, message: Any, field: Any, depth: int) -> None:
    """Set one field to something."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        held, value = getattr(message, field.name), entry.fields_by_name["value"]
        for _ in range(draw(st.integers(0, 2))):
            key = draw(_values(entry.fields_by_name["key"]))
            if value.message_type is not None:
                _lay(draw, held[key], depth + 1)
            else:
                held[key] = draw(_values(value))
    elif field.is_repeated:
        held = getattr(message, field.name)
        # A huge one is made by repeating what is small: drawing it would take minutes.
        times = draw(st.sampled_from((1, 1, 1, 1, 3, 10_001)))
        for _ in range(draw(st.integers(0, 2))):
            if entry is not None:
                _lay(draw, held.add(), depth + 1)
                held.extend([held[-1]] * (min(times, 1_001) - 1))
            else:
                value = draw(_values(field))
                size = len(value) if isinstance(value, (str, bytes)) else 10
                held.extend([value] * min(times, MESSAGE_BYTES_MAX // 8 // (size + 8) + 1))
    elif entry is not None:
        held = getattr(message, field.name)
        held.SetInParent()
        _lay(draw, held, depth + 1)
    else:
        setattr(message, field.name, draw(_values(field)))


def _lay(draw: st.DrawFn, message: Any, depth: int = 0) -> None:
    """Set some of a message's fields, one after the other."""
    descriptor: Descriptor = message.DESCRIPTOR
    names = sorted(descriptor.fields_by_name)
    if not names:
        return
    most = 4 if depth == 0 else 2
    for name in draw(st.lists(st.sampled_from(names), max_size=most, unique=True)):
        _put(draw, message, descriptor.fields_by_name[name], depth)


@st.composite
def messages(draw: st.DrawFn, method: str) -> bytes:
    """A request of the call, at most as large as the server reads."""
    kind = METHODS[method].input_type._concrete_class
    start = draw(st.sampled_from([{}, *PLAUSIBLE[method.rpartition("/")[2]]]))
    message = kind(**start)
    _lay(draw, message)
    content: bytes = message.SerializeToString()
    return content[: MESSAGE_BYTES_MAX - 1]


def _nested(depth: int, number: int) -> bytes:
    """A message in a message in a message …, each as the same field of the other."""
    tag, content = _VarintBytes(number << 3 | 2), b""
    for _ in range(depth):
        content = tag + _VarintBytes(len(content)) + content
    return content


#: Bytes that parsers are afraid of.
HORRORS = (
    *(b"\0", b"\xff" * 11, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 5_000, b"\x0c", b"\x08\x80"),
    *(_nested(200, number) for number in (1, 2, 3)),
    *(b"\x0a\x03\xed\xa0\x80", b"\x0a\x02\xc3\x28", b"\xf8\xff\xff\xff\x0f\x01" * 1_000),
)


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with something done to them."""
    at = draw(st.integers(0, max(0, len(content) - 1)))
    match draw(st.sampled_from(["flip", "cut", "insert", "replace", "twice", "horror"])):
        case "flip" if content:
            bit = 1 << draw(st.integers(0, 7))
            return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "insert":
            return content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]
        case "replace":
            return draw(st.binary(max_size=60))
        case "twice":
            # Of repeated fields both are kept, of others the last: so do two messages become one.
            return (content * draw(st.sampled_from((2, 300))))[: MESSAGE_BYTES_MAX - 1]
        case _:
            horror = draw(st.sampled_from(HORRORS))
            return (content + horror)[: MESSAGE_BYTES_MAX - 1]


class Sequence(list[bytes]):
    """What is sent one after the other; told in short, for it may be megabytes."""

    def __repr__(self) -> str:
        return f"Sequence({[content[:200] for content in self]})"


@st.composite
def sequences(draw: st.DrawFn, method: str, count: int) -> Sequence:
    """A message and ways to spoil it, `count` in all."""
    content = draw(messages(method))
    return Sequence([content, *(draw(spoiled(content)) for _ in range(count - 1))])
