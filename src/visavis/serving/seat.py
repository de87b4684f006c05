"""`Transport`: where owners are; `Seat`: a place for one, and what is known of who has it now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from visavis.errors import VisavisError
from visavis.serving.version import ServingVersion

__all__ = ["LostError", "Seat", "Ticket", "Transport"]

#: A call that is open; hashable.
Ticket = Any


class LostError(VisavisError):
    """An owner died, or cannot be reached."""


class Transport(Protocol):
    """Where owners are."""

    @property
    def count(self) -> int:
        """How many owners there are."""

    def now(self) -> float:
        """The time in seconds, as `time.monotonic`."""

    def held(self, value: Any) -> Any:
        """What to send in the place of a value that is sent to many."""

    def replace(self, index: int) -> None:
        """End the owner of a place, if there is one, and ask for another."""

    def start(self, index: int, method: str, *args: Any) -> Ticket:
        """Call a method of an `Owner`.

        Raises
        ------
        LostError
        """

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> Collection[Ticket]:
        """Those calls that have ended, as soon as there is one; without any, let the time pass."""

    def answer(self, ticket: Ticket) -> Any:
        """What a call that has ended returned; errors of ours are returned, too.

        Raises
        ------
        LostError
        """

    def close(self) -> None:
        """End all owners."""


@dataclass(eq=False, slots=True)
class Seat:
    """A place for an owner, and what is known of who has it now.

    Attributes
    ----------
    index : int
    generation : int
        How often it was taken.
    loaded : dict of ServingVersion to int
        Versions that it answers for, and the offset that it is known to be at.
    in_flight : int
        Calls that are open.
    heard_at : float or None
        When it gave the last sign of life.
    is_silent : bool
        It has not answered for a while.
    is_lost : bool
    """

    index: int
    generation: int = 0
    loaded: dict[ServingVersion, int] = field(default_factory=dict)
    in_flight: int = 0
    heard_at: float | None = None
    is_silent: bool = False
    is_lost: bool = True
    loading: dict[ServingVersion, Ticket | None] = field(default_factory=dict)
    failures: dict[ServingVersion, VisavisError] = field(default_factory=dict)
    ping: Ticket | None = None
    ping_at: float = 0.0
    retry_at: float = 0.0
    failed_starts: int = 0

    def begin(self) -> None:
        """Somebody new sits here."""
        self.generation += 1
        self.loaded, self.loading, self.failures = {}, {}, {}
        self.in_flight, self.heard_at, self.ping = 0, None, None
        self.is_silent = self.is_lost = False

    def heard(self, now: float) -> None:
        """It gave a sign of life."""
        self.heard_at, self.is_silent = now, False
