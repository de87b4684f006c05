"""Answers that nobody reads: the room they take is bounded, and so is the time."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from attackers import MATCH, PREFACE, headers, message, settings
from gateways import IDS, Code, World, batch_request, listening
from visavis.gateway import match_service
from visavis.gateway.errors import RefusedError
from visavis.gateway.unread import Unread
from visavis.v1 import errors_pb2, match_service_pb2


class Taken:
    """A call whose client takes messages when it is told to."""

    def __init__(self) -> None:
        self.room = asyncio.Event()

    async def write(self, _: Any) -> None:
        await self.room.wait()


def test_what_is_held_leaves_no_room_until_it_is_read_or_given_up() -> None:
    async def scene() -> None:
        unread, slow = Unread(bytes_max=100, stall_s=0.01), Taken()
        with unread.held(99):
            unread.check()
            with unread.held(1), pytest.raises(RefusedError) as caught:
                unread.check()
            fault = caught.value.fault
            assert (fault.code, fault.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert fault.retry_s
            with pytest.raises(RefusedError, match="nothing was read") as caught:
                await unread.write(slow, b"")
            assert caught.value.fault.reason == "OVERLOADED"
        slow.room.set()
        await unread.write(slow, b"")

    asyncio.run(scene())


def frames_of(*asked: list[str]) -> list[Any]:
    frame = match_service_pb2.StreamMatchesRequest
    return [
        frame(frame_id=number, match=batch_request(ids, reason_count=3))
        for number, ids in enumerate(asked)
    ]


def test_who_does_not_read_a_stream_loses_it_and_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Unread(bytes_max=20_000, stall_s=0.5)
    monkeypatch.setattr(match_service, "Unread", lambda: unread)

    async def scene(world: World) -> None:
        async with listening(world) as (gateway, client):
            with socket.create_connection(("127.0.0.1", gateway.port)) as stalled:
                # It leaves no room for any byte of an answer.
                stalled.sendall(PREFACE + settings(window=0))
                stalled.sendall(headers(MATCH + "StreamMatches", 1))
                for frame in frames_of(*[IDS * 5] * 4):
                    stalled.sendall(message(1, frame.SerializeToString()))
                while unread._left > 0:
                    await asyncio.sleep(0.005)
                answers = client.match.StreamMatches(iter(frames_of(IDS[:2])))
                shed = await answers.read()
                assert shed.error.reason == errors_pb2.ERROR_REASON_OVERLOADED
                assert shed.error.retry_delay_ms > 0
                while unread._left < 20_000:
                    await asyncio.sleep(0.005)
                answers = client.match.StreamMatches(iter(frames_of(IDS[:2])))
                assert (await answers.read()).match.customer_count == 2

    with World(tmp_path) as world:
        asyncio.run(asyncio.wait_for(scene(world), 60))
