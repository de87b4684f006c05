"""Whatever a client sends has a reason: messages made at random, bytes, and what is too large."""

from __future__ import annotations

import asyncio
import io
import os
import random
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.rpc.status_pb2 import Status

from gateways import IDS, INDICATORS, Client, World, served
from visavis.gateway.entrance import SCOPE_OF
from visavis.v1 import (
    catalog_service_pb2,
    job_service_pb2,
    match_service_pb2,
    profile_service_pb2,
)

#: Messages of each call; `make test-long` asks for more.
EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "80"))

#: Words that mean something here, so that what is random gets past the first door.
WORDS = (
    *("", "é\0", "x" * 500, "2026-03-01", "0000-00-00", "9999-12-31", "../..", "tea", "mail"),
    *("k00", "k05", "k99", "age", "first_name", "consent_mail", "objected", "bought", "ever"),
    *INDICATORS,
    *IDS[:4],
)
NUMBERS = (0, 1, 2, 3, -1, 7, 2**31 - 1, -(2**31))
FLOATS = (0.0, -0.0, 1.5, float("nan"), float("inf"), 1e300, -1.0)

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (match_service_pb2, profile_service_pb2, catalog_service_pb2, job_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def a_value(rng: random.Random, field: Any) -> Any:
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.choice((0, 1, 4, 8, 12, 36)))
        return rng.choice(WORDS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 99))
    return rng.choice(NUMBERS)


def fill(rng: random.Random, message: Any, depth: int = 0) -> Any:
    """Set some fields at random."""
    share = rng.choice((0.15, 0.4, 0.7))
    for field in message.DESCRIPTOR.fields:
        if rng.random() > share:
            continue
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            held, value = getattr(message, field.name), entry.fields_by_name["value"]
            for _ in range(rng.randrange(3)):
                key = a_value(rng, entry.fields_by_name["key"])
                if value.message_type is not None:
                    fill(rng, held[key], depth + 1)
                else:
                    held[key] = a_value(rng, value)
        elif field.is_repeated:
            held = getattr(message, field.name)
            for _ in range(rng.randrange(4)):
                if entry is not None:
                    fill(rng, held.add(), depth + 1)
                else:
                    held.append(a_value(rng, field))
        elif entry is not None:
            fill(rng, getattr(message, field.name), depth + 1)
            if rng.random() < 0.5:
                getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, a_value(rng, field))
    return message


async def ended(client: Client, method: str, content: bytes) -> None:
    """The call answers, or ends with a reason that says what was wrong."""
    kind = METHODS[method]
    try:
        if kind.client_streaming:

            async def sent() -> Any:
                yield content

            async for answer in client.channel.stream_stream(method)(sent()):
                frame = match_service_pb2.StreamMatchesResponse.FromString(answer)
                assert frame.error.code not in (2, 13), (frame.error, content)
        elif kind.server_streaming:
            async for _ in client.channel.unary_stream(method)(content):
                pass
        else:
            await client.channel.unary_unary(method)(content)
    except grpc.aio.AioRpcError as error:
        code, trailers = error.code(), dict(error.trailing_metadata() or ())
        assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), (method, content)
        assert Status.FromString(trailers["grpc-status-details-bin"]).details


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_message_ends_without_a_reason(tmp_path: Path, method: str) -> None:
    rng = random.Random(method)

    audit = io.StringIO()

    async def scene(client: Client) -> None:
        for _ in range(EXAMPLES):
            request = METHODS[method].input_type._concrete_class()
            content = fill(rng, request).SerializeToString()
            await asyncio.wait_for(ended(client, method, content), 60)
            broken = bytearray(content or b"\0")
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            await asyncio.wait_for(ended(client, method, bytes(broken)), 60)
        await client.one("c01")

    with World(tmp_path) as world:
        served(world, scene, audit=audit, jobs=str(tmp_path / "jobs"))
    assert '"fault"' not in audit.getvalue()


def test_every_call_was_sent_something() -> None:
    assert METHODS.keys() == SCOPE_OF.keys()


@pytest.mark.parametrize("size", [4 * 2**20, 5 * 2**20])
def test_a_message_above_the_limit_is_refused_and_the_next_answered(
    tmp_path: Path, size: int
) -> None:
    async def scene(client: Client) -> None:
        call = client.channel.unary_unary("/visavis.v1.MatchService/MatchCustomer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\x0a" + b"\xff" * size)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=(("x-long", "y" * 100_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await client.one("c01")).customer_id == "c01"

    with World(tmp_path) as world:
        served(world, scene)
