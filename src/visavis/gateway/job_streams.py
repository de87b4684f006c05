"""What streams of jobs share: seats, of which there are so many, and frames made ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import grpc

from visavis.gateway.errors import RETRY_S, RefusedError
from visavis.gateway.job_messages import version_in
from visavis.gateway.results import Frame, ResultReader, Spot, message_of

__all__ = ["Frames", "Seats", "busy", "looked_at"]

#: Frames that a thread makes before it hands them over: changing threads costs the event loop.
_AT_ONCE: Final = 2

#: How often so many lie ready, beside those that are written and those that are made.
_AHEAD: Final = 1


class Seats:
    """So many streams at a time."""

    def __init__(self, most: int) -> None:
        self._left = most

    @contextmanager
    def one(self, done: str) -> Iterator[None]:
        """A seat, or a refusal that says when to come back."""
        if not self._left:
            raise busy(f"as many results or jobs as can be are being {done}")
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1


def busy(reason: str) -> RefusedError:
    """The refusal of who may come back soon."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return RefusedError(code, "OVERLOADED", reason, retry_s=RETRY_S)


class Frames:
    """Messages of a result, made in threads a little ahead of who writes them.

    Attributes
    ----------
    is_stopped : bool
        Who wrote them has gone.
    """

    def __init__(self, pool: ThreadPoolExecutor, reader: ResultReader, spot: Spot) -> None:
        self.is_stopped = False
        self._pool = pool
        self._reader = reader
        self._version = version_in(reader.result.plan)
        self._ready: deque[bytes] = deque()
        self._made: asyncio.Queue[list[bytes] | Exception]
        self._made = asyncio.Queue(_AHEAD)
        self._task = asyncio.create_task(self._make(spot))

    async def next(self) -> bytes | None:
        """The next message; None behind the last.

        Raises
        ------
        VisavisError
            What went wrong when it was made.
        """
        if not self._ready:
            made = await self._made.get()
            if isinstance(made, Exception):
                raise made
            self._ready.extend(made)
        return self._ready.popleft() if self._ready else None

    def stop(self) -> None:
        """Make no more, and keep nothing."""
        self.is_stopped = True
        self._task.cancel()
        self._ready.clear()
        while not self._made.empty():
            self._made.get_nowait()

    async def _make(self, spot: Spot) -> None:
        loop, reader = asyncio.get_running_loop(), self._reader
        ahead: asyncio.Future[Any] | None = None
        try:
            for index in range(spot.part_index, reader.part_count):
                part = ahead or loop.run_in_executor(self._pool, reader.part, index)
                ahead, batch = None, await part
                if index + 1 < reader.part_count:
                    ahead = loop.run_in_executor(self._pool, reader.part, index + 1)
                    ahead.add_done_callback(looked_at)
                row = spot.row if index == spot.part_index else 0
                frames = reader.frames(batch, Spot(index, row))
                made = [b""] * _AT_ONCE
                while len(made) == _AT_ONCE:
                    made = await loop.run_in_executor(self._pool, self._some_of, frames)
                    if made:
                        await self._made.put(made)
            await self._made.put([])
        except Exception as error:
            await self._made.put(error)
        finally:
            if ahead is not None:
                ahead.cancel()

    def _some_of(self, frames: Iterator[Frame]) -> list[bytes]:
        return [message_of(frame, self._version) for frame in islice(frames, _AT_ONCE)]


def looked_at(future: asyncio.Future[Any]) -> None:
    """Who is gone must not be told of what went wrong."""
    if not future.cancelled():
        future.exception()
