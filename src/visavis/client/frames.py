"""A stream of batches: so many frames open at a time, from whichever side they are fed.

A frame is open from when it is sent until who iterates has come back for the next: neither a slow
server nor a slow caller lets batches pile up, and the caller's batches are taken one by one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from visavis.client import decoding
from visavis.client.errors import ServerError
from visavis.client.results import Frame
from visavis.client.state import check_size
from visavis.errors import InputError, LimitError
from visavis.v1 import match_service_pb2

__all__ = ["OPEN_FRAMES", "Window"]

#: As many as a server reads at a time: enough to keep it busy while answers travel.
OPEN_FRAMES: Final = 8
_OPEN_FRAMES_MAX: Final = 256


class Window:
    """Frames that are open.

    Parameters
    ----------
    batches : iterable or async iterable
    request : callable
        A batch → its MatchCustomersRequest.
    open_frames : int
        At most so many.

    Attributes
    ----------
    batches, open_frames
        As given.
    room : semaphore
        Of threads or of tasks: who sends acquires, who reads releases.
    failure : BaseException or None
        What went wrong with the caller's batches.
    """

    def __init__(self, batches: Any, request: Callable[[Any], Any], open_frames: int) -> None:
        if not 1 <= open_frames <= _OPEN_FRAMES_MAX:
            reason = f"must lie in 1 … {_OPEN_FRAMES_MAX}, got {open_frames}"
            raise InputError(reason, field="open_frames")
        self.batches = batches
        self.open_frames = open_frames
        self.room: Any = None
        self.failure: BaseException | None = None
        self._request = request
        self._sent_at: dict[int, float] = {}
        self._count = 0
        self._is_closed = False

    def messages(self) -> Iterator[Any]:
        """What is sent; taken by gRPC in a thread of its own."""
        batches = iter(self.batches)
        while self.room.acquire() and not self._is_closed:
            try:
                message = self._message(next(batches))
            except StopIteration:
                return
            except BaseException as error:
                # Raised where the answers are read, behind those that are still to come.
                self.failure = error
                return
            yield message

    async def messages_async(self) -> AsyncIterator[Any]:
        """What is sent; of batches that come from either kind of iterable."""
        is_async = hasattr(self.batches, "__aiter__")
        batches: Any = aiter(self.batches) if is_async else iter(self.batches)
        while await self.room.acquire() and not self._is_closed:
            try:
                batch = await anext(batches) if is_async else next(batches)
                message = self._message(batch)
            except (StopIteration, StopAsyncIteration):
                return
            except Exception as error:
                self.failure = error
                return
            yield message

    def _message(self, batch: Any) -> Any:
        index = self._count
        self._count += 1
        try:
            request = self._request(batch)
            frame = match_service_pb2.StreamMatchesRequest(frame_id=index, match=request)
            check_size(frame)
        except LimitError as error:
            raise LimitError(error.reason, field="batches", row=index) from None
        self._sent_at[index] = time.monotonic()
        return frame

    def taken(self, answer: Any) -> Frame:
        """An answer, by the place of its batch.

        Raises
        ------
        ServerError
            If it answers nothing that is open.
        """
        if self._sent_at.pop(answer.frame_id, None) is None:
            raise ServerError(f"frame {answer.frame_id} was answered and is not open")
        return decoding.frame(answer.frame_id, answer)

    def is_due(self, after_s: float) -> bool:
        """Whether a frame has been open for so long."""
        # A copy: another thread may send meanwhile.
        oldest = min(list(self._sent_at.values()), default=None)
        return oldest is not None and time.monotonic() - oldest >= after_s

    def close(self) -> None:
        """Let who sends go."""
        self._is_closed = True
        if self.room is not None:
            self.room.release()

    def check_answered(self) -> None:
        """Raise what went wrong with the caller's batches, or frames that nobody answered.

        Raises
        ------
        ServerError
        """
        if self.failure is not None:
            raise self.failure
        if self._sent_at:
            raise ServerError(f"the stream ended without answers to {len(self._sent_at)} frames")
