"""Until when an answer is waited for, for whoever has to wait on others to give it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Final, TypeVar

__all__ = ["ends_at", "within"]

#: Where nobody says until when.
DEADLINE_S: Final = 10.0

_ENDS: Final[ContextVar[float | None]] = ContextVar("visavis_ends", default=None)

T = TypeVar("T")


def within(ends: float, work: Callable[[], T]) -> Callable[[], T]:
    """Work whose answer is waited for until `ends`, by `time.monotonic`."""
    return partial(_done, ends, work)


def _done(ends: float, work: Callable[[], T]) -> T:
    token = _ENDS.set(ends)
    try:
        return work()
    finally:
        _ENDS.reset(token)


def ends_at() -> float:
    """Until when the answer of this thread's work is waited for, by `time.monotonic`."""
    ends = _ENDS.get()
    return time.monotonic() + DEADLINE_S if ends is None else ends
