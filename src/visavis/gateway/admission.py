"""`Line`: so much at a time; what waits is bounded by the time it would wait, the rest is shed.

::

    offer ─► place free? ─yes─► handed over at once
                 │no
                 ▼
             expected wait = work ahead ÷ measured speed
                 │
                 ├─ above the bound ─► shed: RESOURCE_EXHAUSTED, with when to come back
                 └─ below ─► waits, first come first served ─► begins, unless it is late by then

The bound is that of controlled delay: a burst may wait `burst_s`; a line that has not been empty
for `_STANDING_S`, or has just shed something, is no burst but too much work, and then only
`target_s` may be waited (`Patience`). So the queue is long when that evens something out, and short
when it would only make everybody late.

A place is a thread, or one at the threads' door. Everything here runs on the event loop; only the
work itself runs in threads, and not even that where it is small.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from resource import RUSAGE_THREAD, getrusage
from typing import Any, Final, Protocol, TypeVar

import grpc

from visavis.gateway.errors import RefusedError
from visavis.gateway.patience import Patience

__all__ = [
    "Line",
    "Task",
    "expire",
    "late",
    "overloaded",
    "retry_after_s",
    "shed_until",
]

#: How long a line must have had somebody waiting to count as standing.
_STANDING_S: Final = 0.1

#: A piece of work is never taken to need less: handing it over costs that much.
_PIECE_S: Final = 1e-4

#: So few for each slot are never too many: what is measured of them may be a machine's hiccup.
_FEW: Final = 4

#: What needs the processor no longer than this is done by the event loop: a thread would be handed
#: the work, woken and waited for in half of the time. If the disk had to be waited for, threads do
#: it for a while.
_QUICK_S: Final = 0.001
_SLOW_S: Final = 0.005
_UNQUICK_S: Final = 1.0

#: What one piece weighs in the mean speed.
_WEIGHT: Final = 0.1

_RETRY_MIN_S: Final = 0.05
_RETRY_MAX_S: Final = 5.0

T = TypeVar("T")


class Task(Protocol):
    """What waits in a line.

    Attributes
    ----------
    amount : int
        Pairs of customer and capability, or whatever else the line counts.
    offered_at : float
        By `time.monotonic`; set by the line.
    """

    amount: int
    offered_at: float

    def begin(self, waited_s: float) -> Callable[[], Any] | None:
        """What a thread shall do, at once or as soon as it is free; None: nothing any more."""

    def end(self, result: Any, error: BaseException | None) -> None:
        """Called on the event loop when the thread is through."""


class Line:
    """Work that waits for threads of its own.

    Parameters
    ----------
    name : str
        For threads and metrics.
    slots : int
        Threads: pieces of work at a time.
    target_s, burst_s : float
        How long may be waited in a standing line, and in one that was empty just now.
    at_door : int
        Pieces that are handed over beyond what the threads are at: a thread that is through goes
        on with one of them, and need not wait until the event loop comes to it.
    nice : int
        By how much its threads stand back for others where processors are short, as of ``nice``;
        Linux knows that by thread.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        *,
        target_s: float,
        burst_s: float,
        at_door: int = 0,
        nice: int = 0,
    ) -> None:
        self.name = name
        self._slots = slots
        self._places = self._free = slots + at_door
        self._patience = Patience(target_s, burst_s)
        self._pool = ThreadPoolExecutor(
            slots, thread_name_prefix=f"visavis-{name}", initializer=_stand_back, initargs=(nice,)
        )
        self._waiting: deque[Task] = deque()
        self._ahead = 0.0
        self._was_empty_at = time.monotonic()
        #: Seconds in threads and the work done in them, both fading; equally, so that large pieces,
        #: of which a long line consists, tell more about it than single customers before it.
        self._seconds = 0.0
        self._cpu_seconds = 0.0
        self._amount = 0.0
        self._unquick_until = 0.0
        self._pages_read = getrusage(RUSAGE_THREAD).ru_majflt

    def close(self) -> None:
        """Wait for the threads; what stands at their door, or waits, is not done any more."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def is_standing(self) -> bool:
        """Whether more comes in than is worked off."""
        return bool(self._waiting) and time.monotonic() - self._was_empty_at >= _STANDING_S

    @property
    def has_room(self) -> bool:
        """Whether what is offered now would be handed over at once."""
        return self._free > 0 and not self._waiting

    def expected_wait_s(self) -> float:
        """How long what is offered now would wait."""
        if self.has_room:
            return 0.0
        of_one = self._seconds / self._amount if self._amount else 0.0
        handed_s = max(0, self._places - self._free - self._slots) * self._seconds
        waiting_s = self._ahead * of_one + len(self._waiting) * _PIECE_S
        return (handed_s + waiting_s) / self._slots

    def check(self) -> None:
        """Shed what would wait too long.

        Raises
        ------
        RefusedError
        """
        wait_s = self.excess_s()
        if wait_s is not None:
            raise overloaded(wait_s)

    def excess_s(self) -> float | None:
        """How long what is offered now would wait, where that is too long."""
        if len(self._waiting) < _FEW * self._slots:
            return None
        wait_s = self.expected_wait_s()
        return wait_s if self._patience.is_over(wait_s, is_standing=self.is_standing) else None

    def offer(self, task: Task) -> None:
        """Begin it, or let it wait.

        Raises
        ------
        RefusedError
            If it would wait too long.
        """
        task.offered_at = time.monotonic()
        if self.has_room:
            self._was_empty_at = task.offered_at
            self._start(task)
            return
        self.check()
        if not self._waiting:
            self._was_empty_at = task.offered_at
        self._waiting.append(task)
        self._ahead += task.amount

    def grow(self, task: Task, amount: int) -> None:
        """Add to a task that waits.

        Raises
        ------
        RefusedError
            If the line is too long already.
        """
        self.check()
        task.amount += amount
        self._ahead += amount

    def is_quick(self, amount: int) -> bool:
        """Whether something is so small that the event loop may as well do it itself."""
        if not self.has_room or not self._amount or time.monotonic() < self._unquick_until:
            return False
        return amount * self._cpu_seconds <= _QUICK_S * self._amount

    def run_here(self, work: Callable[[], T | None], amount: int) -> T | None:
        """Do something on the event loop, which does nothing else meanwhile.

        What declines, by None, tells nothing of the speed.
        """
        began, cpu_began = time.perf_counter(), time.thread_time()
        found = work()
        seconds = time.perf_counter() - began
        if seconds > _SLOW_S and self._has_read():
            self._unquick_until = time.monotonic() + _UNQUICK_S
        if found is not None:
            self._measured(amount, seconds, time.thread_time() - cpu_began)
        return found

    def _has_read(self) -> bool:
        """Whether the event loop has waited for a page of a file since this was last asked."""
        before, self._pages_read = self._pages_read, getrusage(RUSAGE_THREAD).ru_majflt
        return self._pages_read > before

    def _measured(self, amount: int, seconds: float, cpu_seconds: float) -> None:
        self._seconds += _WEIGHT * (seconds - self._seconds)
        # In a thread, most of the time may have been spent waiting for the interpreter.
        self._cpu_seconds += _WEIGHT * (cpu_seconds - self._cpu_seconds)
        self._amount += _WEIGHT * (amount - self._amount)

    def _start(self, task: Task) -> bool:
        now = time.monotonic()
        work = task.begin(now - task.offered_at)
        if work is None:
            return False
        self._free -= 1
        loop = asyncio.get_running_loop()

        def worked() -> None:
            began, cpu_began = time.perf_counter(), time.thread_time()
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            seconds = time.perf_counter() - began
            cpu_seconds = time.thread_time() - cpu_began
            loop.call_soon_threadsafe(self._ended, task, result, error, seconds, cpu_seconds)

        self._pool.submit(worked)
        return True

    def _ended(
        self,
        task: Task,
        result: Any,
        error: BaseException | None,
        seconds: float,
        cpu_seconds: float,
    ) -> None:
        self._free += 1
        if error is None and task.amount > 0:
            self._measured(task.amount, seconds, cpu_seconds)
        # The next one first: a thread that is free costs more than an answer that waits.
        while self._free and self._waiting:
            following = self._waiting.popleft()
            self._ahead -= following.amount
            self._start(following)
        if not self._waiting:
            self._was_empty_at = time.monotonic()
            self._ahead = 0.0
        task.end(result, error)


def _stand_back(nice: int) -> None:
    """Lower the priority of this thread; where the system refuses that, it works all the same."""
    with contextlib.suppress(OSError):
        os.nice(nice)


def retry_after_s(wait_s: float) -> float:
    """When to come back who would have waited so long."""
    return min(max(2 * wait_s, _RETRY_MIN_S), _RETRY_MAX_S)


def shed_until(retry_s: float) -> RefusedError:
    """What is shed is told so, and when to come back."""
    return RefusedError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        "there is more to do than can be done in time",
        retry_s=retry_s,
    )


def overloaded(wait_s: float) -> RefusedError:
    """What would have waited so long is shed."""
    return shed_until(retry_after_s(wait_s))


def late() -> RefusedError:
    """What has not been answered by its deadline is told so."""
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return RefusedError(code, "DEADLINE_PASSED", "the deadline has passed")


def expire(answer: asyncio.Future[Any]) -> None:
    """End what has not been answered by its deadline."""
    if not answer.done():
        answer.set_exception(late())
