"""Some questions, to one owner of each shard: answered from one state, or not at all.

What is lost with its owner is asked of the other one. Who says nothing, not even that it lives, is
not waited for to the end: the other is asked beside, and who answers first has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from visavis.errors import UnreachableError
from visavis.serving.crew import Crew, wanted_by
from visavis.serving.owner import Missed, Question, Told, Want
from visavis.serving.seat import LostError, Seat, Ticket
from visavis.serving.version import ServingVersion

__all__ = ["MovedError", "ask"]

#: An owner that has not answered for so long, or for a third of the time that is left, is not
#: waited for alone unless it gives signs of life.
PATIENCE_S: Final = 1.0

#: So often a question may be lost with an owner. One that kills whoever is asked must not go round.
LOSSES_MAX: Final = 2

#: So often an owner may say that it lacks entries.
BEHIND_MAX: Final = 8

#: How often to look whether a shard that has no owner at the moment has one again.
LOOK_S: Final = 0.02


class MovedError(Exception):
    """The state that is wanted is not kept any more: ask for a newer one."""


@dataclass(eq=False, slots=True)
class _Call:
    """Some questions that one owner has been asked."""

    seat: Seat
    generation: int
    places: list[int]
    sent_at: float
    look_at: float


@dataclass(eq=False, slots=True)
class _Place:
    """One question: what became of it so far."""

    question: Question
    value: Any = None
    is_answered: bool = False
    calls: int = 0
    asked: set[tuple[int, int]] = field(default_factory=set)
    losses: int = 0


def ask(
    crew: Crew, key: ServingVersion, offset: int, questions: Sequence[Question], ends: float
) -> list[Any]:
    """Ask some questions about one state.

    Parameters
    ----------
    crew : Crew
    key : ServingVersion
    offset : int
    questions : sequence of Question
    ends : float
        By the clock of the crew's transport.

    Returns
    -------
    list
        An answer to each; what a client caused is a VisavisError.

    Raises
    ------
    MovedError
    UnreachableError
        If some shard has no owner that answers in time.
    """
    asking = _Asking(crew, Want(key, offset, None), questions, ends)
    try:
        return asking.run()
    finally:
        asking.leave()


class _Asking:
    def __init__(self, crew: Crew, want: Want, questions: Sequence[Question], ends: float) -> None:
        self._crew = crew
        self._want = want
        self._ends = ends
        self._places = [_Place(each) for each in questions]
        self._open: dict[Ticket, _Call] = {}
        self._behind = 0
        now = crew.transport.now()
        self._patience_s = min(PATIENCE_S, max(0.0, ends - now) / 3)
        #: Where a shard has no owner, one may be back soon; others want this thread, too.
        self._owned_until = now + max(0.0, ends - now) / 2

    def run(self) -> list[Any]:
        """Ask, and ask again, until everything is answered."""
        transport = self._crew.transport
        while missing := [place for place in self._places if not place.is_answered]:
            has_owners = self._send([place for place in missing if not place.calls])
            now = transport.now()
            if now >= self._ends:
                raise UnreachableError("no worker answered in time")
            until = min([self._ends, *(call.look_at for call in self._open.values())])
            if not has_owners:
                if now >= self._owned_until:
                    raise UnreachableError("a shard has no worker now")
                until = min(until, now + LOOK_S)
            ended = transport.wait(list(self._open), max(0.0, until - now))
            for ticket in ended:
                self._take(ticket)
            if not has_owners:
                self._crew.tend()
            self._look()
        return [place.value for place in self._places]

    def leave(self) -> None:
        """Wait for nothing any more."""
        for ticket, call in self._open.items():
            self._crew.stray(ticket, call.seat)

    def _send(self, places: Sequence[_Place]) -> bool:
        """Ask the least loaded owner of each; False if some have none."""
        by_seat: dict[int, list[_Place]] = {}
        chosen: dict[int, tuple[Seat, int]] = {}
        has_owners = True
        for place in places:
            with self._crew.lock:
                seat = self._crew.choose(place.question.shard, self._want.key, place.asked)
                if seat is None:
                    has_owners = False
                    continue
                if seat.index not in by_seat:
                    # Counted before it is sent, so that the next shard goes to another.
                    seat.in_flight += 1
                    chosen[seat.index] = seat, seat.generation
                by_seat.setdefault(seat.index, []).append(place)
        for index, of_seat in by_seat.items():
            self._call(*chosen[index], of_seat)
        if not has_owners and not self._crew.is_wanted(self._want.key):
            # It was replaced, and let go of: answer from what is served now.
            raise MovedError
        return has_owners

    def _call(self, seat: Seat, generation: int, places: list[_Place]) -> None:
        transport, now = self._crew.transport, self._crew.transport.now()
        for place in places:
            place.asked.add((seat.index, generation))
            place.calls += 1
        numbers = [self._places.index(place) for place in places]
        call = _Call(seat, generation, numbers, now, now + self._patience_s)
        want = wanted_by(self._want, seat, self._crew)
        try:
            ticket = transport.start(
                seat.index, "answer", want, [place.question for place in places]
            )
        except LostError:
            self._lose(call)
        else:
            self._open[ticket] = call

    def _take(self, ticket: Ticket) -> None:
        call, crew = self._open.pop(ticket), self._crew
        try:
            answer: Told | Missed = crew.transport.answer(ticket)
        except LostError:
            self._lose(call)
            return
        finally:
            with crew.lock:
                if call.seat.generation == call.generation:
                    call.seat.in_flight -= 1
        is_same = call.seat.generation == call.generation
        with crew.lock:
            if is_same:
                call.seat.heard(crew.transport.now())
        places = [self._places[number] for number in call.places]
        for place in places:
            place.calls -= 1
        key = self._want.key
        if isinstance(answer, Told):
            if is_same and key in call.seat.loaded:
                call.seat.loaded[key] = max(answer.offset, call.seat.loaded[key])
            for place, value in zip(places, answer.values, strict=True):
                place.value, place.is_answered = value, True
        elif answer.why == "gone":
            raise MovedError
        elif answer.why == "unloaded":
            call.seat.loaded.pop(key, None)
        else:
            self._catch_up(call, answer.offset, places)

    def _catch_up(self, call: _Call, offset: int, places: list[_Place]) -> None:
        """The owner lacks entries before those that it was sent: it may be asked again."""
        self._behind += 1
        if self._behind > BEHIND_MAX:
            raise UnreachableError("a worker does not catch up with the journal")
        with self._crew.lock:
            if call.seat.generation == call.generation and self._want.key in call.seat.loaded:
                call.seat.loaded[self._want.key] = offset
        for place in places:
            place.asked.discard((call.seat.index, call.generation))

    def _lose(self, call: _Call) -> None:
        self._crew.lost(call.seat, call.generation)
        for number in call.places:
            place = self._places[number]
            place.calls -= 1
            place.losses += 1
            if place.losses >= LOSSES_MAX and not place.is_answered and not place.calls:
                raise UnreachableError("the workers of a shard died of, or during, the request")

    def _look(self) -> None:
        """Ask others beside those that give no sign of life."""
        now = self._crew.transport.now()
        for call in list(self._open.values()):
            if now < call.look_at:
                continue
            heard_at = call.seat.heard_at
            call.look_at = now + self._patience_s
            if heard_at is not None and heard_at > call.sent_at and not call.seat.is_silent:
                # It lives and is at it, or has more to do than it should: so has the other.
                call.sent_at = now
                continue
            call.seat.is_silent = True
            places = [self._places[number] for number in call.places]
            alone = [place for place in places if not place.is_answered and place.calls == 1]
            if self._send(alone):
                call.look_at = self._ends
            else:
                # The other one may be on its way back.
                self._crew.tend()
