"""Whatever bytes reach whatever call: a reason, a server that stands, and no memory that grows."""

from __future__ import annotations

import io
import os
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings

from clients import gateway_of
from frames import METHODS, PLAUSIBLE, Sequence, sequences
from gateways import IDS, World
from parity import Expected
from processes import Process, process_of, write_sources
from visavis.gateway.entrance import SCOPE_OF
from visavis.v1 import catalog_service_pb2, match_service_pb2

Code = grpc.StatusCode

#: Of one message and what is made of it.
SEQUENCE = 8

#: Frames of the long run: 20,000, unless VISAVIS_EXAMPLES asks for more or fewer.
FRAMES = int(os.environ.get("VISAVIS_EXAMPLES", "80")) * 250

#: What the second half may add: the journal it wrote, and what allocators keep of requests of 4 MiB
#: (from one call to the next it goes up and down by 50).
GROWTH_BYTES = 96 * 2**20

#: No answer to anything that somebody sends: faults, a server that is gone, and work without end.
NEVER = (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)


def send(channel: grpc.Channel, method: str, contents: list[bytes]) -> None:
    """Each as a call of its own; to a stream of matches all of them as frames of one as well."""
    kind = METHODS[method]
    for content in contents:
        if kind.client_streaming:
            call = channel.stream_stream(method)(iter([content]), timeout=120)
        elif kind.server_streaming:
            call = channel.unary_stream(method)(content, timeout=120)
        else:
            call = channel.unary_unary(method)
        try:
            if kind.client_streaming or kind.server_streaming:
                check_frames(method, islice(call, 3))
                # Of what goes on for long, the beginning is enough.
                call.cancel()
            else:
                call(content, timeout=120)
        except grpc.RpcError as error:
            check_refusal(error, method, content)
    if kind.client_streaming:
        try:
            found = list(channel.stream_stream(method)(iter(contents), timeout=120))
            assert len(found) == len(contents)
            check_frames(method, found)
        except grpc.RpcError as error:
            check_refusal(error, method, contents[0])


def check_frames(method: str, answers: Any) -> None:
    for answer in answers:
        if METHODS[method].client_streaming:
            frame = match_service_pb2.StreamMatchesResponse.FromString(answer)
            never = {code.value[0] for code in NEVER}
            assert frame.error.code not in never, frame.error


def check_refusal(error: Any, method: str, content: bytes) -> None:
    assert error.code() not in NEVER, (method, content[:500], error.details())
    trailers = dict(error.trailing_metadata() or ())
    details = Status.FromString(trailers["grpc-status-details-bin"]).details
    assert any(detail.TypeName() == "google.rpc.ErrorInfo" for detail in details)


def fuzz(channel: grpc.Channel, method: str, examples: int) -> None:
    """So many sequences to one call."""

    @settings(
        max_examples=examples,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(contents=sequences(method, SEQUENCE))
    def sent(contents: Sequence) -> None:
        send(channel, method, contents)

    sent()


def check_answers(world: World, channel: grpc.Channel) -> None:
    """The server answers right, after everything that it took in."""
    sources = {
        "base": {"location": "base", "digest": world.stored.digest},
        "catalog": {"location": "catalog.parquet", "digest": world.catalog.digest()},
        "policy": {"location": "policy.toml", "digest": world.policy.digest()},
    }
    publish = catalog_service_pb2.PublishVersionRequest(request_id="the last", **sources)
    method = "/visavis.v1.CatalogService/PublishVersion"
    channel.unary_unary(method)(publish.SerializeToString(), timeout=120)
    read = match_service_pb2.MatchCustomerResponse.FromString
    match = channel.unary_unary(
        "/visavis.v1.MatchService/MatchCustomer", response_deserializer=read
    )
    overlay = world.journal.overlay()
    expected = Expected(overlay.apply(world.base), world.catalog, world.policy)
    assert expected.rows
    for customer_id in IDS:
        asked = match_service_pb2.MatchCustomerRequest(customer_id=customer_id)
        answer = match(asked.SerializeToString(), timeout=120)
        assert answer.version.journal_offset == overlay.through
        expected.check_one(customer_id, answer)


def test_every_call_is_fuzzed() -> None:
    assert METHODS.keys() == SCOPE_OF.keys()
    assert PLAUSIBLE.keys() == {method.rpartition("/")[2] for method in METHODS}


def test_no_frame_ends_without_a_reason(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        write_sources(world)
        audit = io.StringIO()
        with (
            gateway_of(world, audit=audit, jobs=str(tmp_path / "jobs")) as address,
            grpc.insecure_channel(address) as channel,
        ):
            for method in sorted(METHODS):
                fuzz(channel, method, examples=4)
            check_answers(world, channel)
        assert '"fault"' not in audit.getvalue()


@pytest.mark.faults
def test_twenty_thousand_frames_harm_nothing(tmp_path: Path) -> None:
    """In a process of its own, so that a crash is seen and memory is the server's alone."""
    examples = max(1, FRAMES // (2 * SEQUENCE * len(METHODS)))
    with World(tmp_path) as world:
        write_sources(world)
        with process_of(world, "--jobs", str(tmp_path / "jobs")) as served:
            held = [served.anonymous_bytes()]
            with grpc.insecure_channel(served.address) as channel:
                for _ in range(2):
                    for method in sorted(METHODS):
                        fuzz(channel, method, examples)
                        assert served.process.poll() is None
                    held.append(served.anonymous_bytes())
                check_answers(world, channel)
            tell(served, held, 2 * examples * SEQUENCE * len(METHODS))
        assert '"fault"' not in served.log()


def tell(served: Process, held: list[int], count: int) -> None:
    sizes = ", ".join(f"{size / 2**20:.0f}" for size in held)
    print(f"{count} frames; MiB held at first, after half and after all: {sizes}")  # noqa: T201
    assert served.process.poll() is None
    assert held[2] - held[1] <= GROWTH_BYTES
