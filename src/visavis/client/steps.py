"""What a method wants done, told apart from how it is done.

A *plan* is a generator: it yields steps, is sent what came of each, and an error of a step is
raised where the step was yielded. `visavis.client.sync` and `visavis.client.aio` carry steps out,
so that what a method means stands once, in `visavis.client.plans` and its neighbours.

::

    Call            one request, one answer            → the answer
    Open            begin a call with many answers     → nothing
    Read            its next answer                    → the answer; None: there is none any more
    Sleep           wait                               → nothing
    Emit            hand a value to who iterates       → nothing
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from visavis.errors import InputError

__all__ = [
    "STREAM_S",
    "Budget",
    "Call",
    "Emit",
    "Open",
    "Plan",
    "Read",
    "Rpc",
    "Sleep",
    "Step",
    "Stream",
    "checked_timeout",
]

T = TypeVar("T")

#: How long a call with many answers may live; connections are not made for longer.
STREAM_S: Final = 86_400.0


class Rpc(NamedTuple):
    """A call of the contract.

    Attributes
    ----------
    path : str
        ``/visavis.v1.MatchService/MatchCustomer``
    answer : type
        Of message.
    kind : str
        As gRPC's channels call it: ``unary_unary`` and the like.
    """

    path: str
    answer: Any
    kind: str


class Budget:
    """The time that a method has, from its first step on.

    Parameters
    ----------
    timeout_s : float, optional
        None: the client's.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = None if timeout_s is None else checked_timeout(timeout_s)
        self._ends: float | None = None

    def left_s(self, default_s: float) -> float:
        """What is left of it."""
        now = time.monotonic()
        if self._ends is None:
            self._ends = now + (default_s if self._timeout_s is None else self._timeout_s)
        return max(self._ends - now, 0.0)


def checked_timeout(given: float) -> float:
    """A time that gRPC takes.

    Raises
    ------
    InputError
    """
    if not 0.0 < given <= STREAM_S:
        raise InputError(f"must lie in 0 … {STREAM_S:.0f}, got {given}", field="timeout_s")
    return float(given)


@dataclass(frozen=True, slots=True)
class Call:
    """Ask once."""

    rpc: Rpc
    request: Any
    budget: Budget


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a call with many answers.

    `request` is a message, or what feeds frames (`visavis.client.frames.Window`).
    """

    rpc: Rpc
    request: Any


@dataclass(frozen=True, slots=True)
class Read:
    """The next answer, within `timeout_s`, counted only while `is_due`."""

    timeout_s: float | None
    is_due: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand a value to who iterates."""

    value: T


Step: TypeAlias = Call | Open | Read | Sleep

#: A method with one result, and one that is iterated over.
Plan: TypeAlias = Generator[Step, Any, T]
Stream: TypeAlias = Generator[Step | Emit[T], Any, None]
