"""Owners of this process for a crew: they die, stall and fall behind when they are told to.

What is sent is pickled both ways, as it would be between processes. The clock is the test's: it
moves when somebody waits for what has not happened.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from visavis.errors import VisavisError
from visavis.serving.owner import Owner
from visavis.serving.seat import LostError


@dataclass(eq=False)
class Call:
    """What was asked of an owner, and what came of it."""

    index: int
    generation: int
    method: str
    content: bytes | None = None
    is_lost: bool = False


@dataclass(eq=False)
class Pretended:
    """A transport without any.

    Attributes
    ----------
    count : int
    fate : callable
        Given each call before it is run: "answer", "die" before answering, "die after" having done
        it, or "stall".
    """

    count: int
    fate: Callable[[Call], str] = lambda _: "answer"
    options: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0
    calls: list[Call] = field(default_factory=list)
    owners: dict[int, Owner] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)
    is_closed: bool = False

    def now(self) -> float:
        return self.time

    def held(self, value: Any) -> Any:
        return value

    def replace(self, index: int) -> None:
        assert not self.is_closed
        self.kill(index)
        self.generations[index] = self.generations.get(index, 0) + 1
        self.owners[index] = Owner(index, self.count, **self.options)

    def kill(self, index: int) -> None:
        """What is open is lost with the owner."""
        self.owners.pop(index, None)
        for call in self.calls:
            call.is_lost |= call.index == index and call.content is None

    def start(self, index: int, method: str, *args: Any) -> Call:
        call = Call(index, self.generations.get(index, 0), method)
        self.calls.append(call)
        fate = self.fate(call)
        if fate == "die":
            self.kill(index)
        owner = self.owners.get(index)
        if owner is None:
            call.is_lost = True
            return call
        if fate != "stall":
            call.content = pickle.dumps(returned(getattr(owner, method), pickled(args)))
        if fate == "die after":
            self.kill(index)
            call.content, call.is_lost = None, True
        return call

    def wait(self, tickets: Sequence[Call], timeout_s: float) -> Collection[Call]:
        ended = [each for each in tickets if each.is_lost or each.content is not None]
        if not ended:
            self.time += timeout_s
        return ended

    def answer(self, ticket: Call) -> Any:
        if ticket.is_lost:
            raise LostError("died")
        assert ticket.content is not None
        return pickle.loads(ticket.content)  # noqa: S301 (from this process)

    def close(self) -> None:
        self.is_closed = True
        self.owners.clear()


def pickled(args: Any) -> Any:
    return pickle.loads(pickle.dumps(args))  # noqa: S301 (from this process)


def returned(method: Callable[..., Any], args: Any) -> Any:
    try:
        return method(*args)
    except VisavisError as error:
        return error.with_traceback(None)
