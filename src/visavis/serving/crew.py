"""`Crew`: owners that die, stall and come back, each shard with two of them.

::

    transport: start, wait, answer, replace ──► Seat: a place for an owner, what is known of it
                                                  │
    tend(), now and then ─────────────────────────┼─► who is lost is replaced, versions are loaded,
                                                  │   signs of life are asked for
    asking.py ────────────────────────────────────┘   questions go to who is loaded

The crew knows no transport: `visavis.cluster` brings owners on Ray, tests bring some of their own
process that die when they are told to. Errors of a client come back as answers; what a transport
raises is `LostError`, and means that nobody knows what became of the question. All questions are
pure, so they are asked again, of somebody else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from visavis.errors import UnreachableError, VisavisError
from visavis.serving.owner import Want, owners_of
from visavis.serving.seat import LostError, Seat, Ticket, Transport
from visavis.serving.tail import Delta
from visavis.serving.version import ServingVersion

__all__ = ["Crew", "wanted_by"]

#: How often an owner is asked for a sign of life; it is told of the journal by the way.
PING_S: Final = 0.5

#: Who says nothing for so long is asked last, and after a longer while replaced. A process that is
#: only slow, on a machine that does ten things, has answered within seconds.
SILENT_S: Final = 2.0
GONE_S: Final = 30.0

#: How long after a failed start the next one waits: doubled each time, up to the last.
RESTART_S: Final = 0.25
RESTART_MAX_S: Final = 30.0

#: How long a version stays loaded after its last use: somebody may have just read its name.
LINGER_S: Final = 2.0

#: How long a shard may be without any owner that has found room, before anything is served.
PLACED_S: Final = 120.0


class _Errand(NamedTuple):
    """What an owner is to do: load a version, or say that it lives (None)."""

    seat: Seat
    generation: int
    key: ServingVersion | None


class Crew:
    """Keeps owners, and knows whom to ask.

    Parameters
    ----------
    transport : Transport
    delta_of : callable
        Given a version and an offset, what the journal says beyond it up to another; None: up to
        the newest.
    objecting : callable
        Given an offset, who objected up to it, as the journal has it.
    """

    def __init__(
        self,
        transport: Transport,
        delta_of: Callable[[ServingVersion, int, int | None], Delta | None],
        objecting: Callable[[int], frozenset[bytes]],
    ) -> None:
        self.transport = transport
        self.delta_of = delta_of
        self._objecting = objecting
        self.lock = threading.RLock()
        self.seats = [Seat(index) for index in range(transport.count)]
        self._wanted: dict[ServingVersion, tuple[Any, int]] = {}
        self._used: Counter[ServingVersion] = Counter()
        self._left_at: dict[ServingVersion, float] = {}
        self._offsets: dict[ServingVersion, int] = {}
        self._strays: dict[Ticket, tuple[Seat, int]] = {}
        self._turn = 0

    def want(self, key: ServingVersion, source: Any, base_offset: int) -> None:
        """Have a version loaded by everybody, now and whenever somebody comes."""
        with self.lock:
            self._wanted[key] = self.transport.held(source), base_offset
            self._left_at.pop(key, None)
            for seat in self.seats:
                seat.failures.pop(key, None)

    def leave(self, key: ServingVersion) -> None:
        """Load a version no more, and let go of it once nobody uses it."""
        with self.lock:
            self._wanted.pop(key, None)
            self._left_at[key] = self.transport.now()

    def is_wanted(self, key: ServingVersion) -> bool:
        """Whether a version is to be loaded."""
        return key in self._wanted

    def note(self, key: ServingVersion, offset: int) -> None:
        """An offset that owners are to be told of."""
        with self.lock:
            if key in self._wanted:
                self._offsets[key] = max(offset, self._offsets.get(key, 0))

    @contextmanager
    def using(self, key: ServingVersion, offset: int) -> Iterator[None]:
        """Keep a version loaded for the block."""
        with self.lock:
            self._used[key] += 1
            self.note(key, offset)
        try:
            yield
        finally:
            with self.lock:
                self._used[key] -= 1
                if key in self._left_at:
                    self._left_at[key] = self.transport.now()

    def load(self, key: ServingVersion, *, is_stopped: Callable[[], bool]) -> None:
        """Wait until everybody who is there has loaded a version, and each shard has an owner.

        Raises
        ------
        VisavisError
            Of the first owner that cannot load it.
        UnreachableError
            If for some shard no owner has found room, or `is_stopped` says so.
        """
        began = self.transport.now()
        while True:
            self.tend()
            with self.lock:
                for seat in self.seats:
                    if key in seat.failures:
                        raise seat.failures[key]
                if self._is_loaded(key):
                    return
                placed = self._is_owned(lambda seat: seat.heard_at is not None)
                loading = [
                    ticket
                    for seat in self.seats
                    for ticket in seat.loading.values()
                    if ticket is not None
                ]
            if is_stopped():
                raise UnreachableError("the server is about to stop")
            if not placed and self.transport.now() - began > PLACED_S:
                raise UnreachableError(f"the cluster has no room for {len(self.seats)} workers")
            self.transport.wait(loading, PING_S)

    def _is_loaded(self, key: ServingVersion) -> bool:
        """Whether each shard has an owner, and nobody is at it who may still fail."""
        is_busy = any(key in each.loading and each.heard_at is not None for each in self.seats)
        return not is_busy and self._is_owned(lambda seat: key in seat.loaded)

    def _is_owned(self, is_good: Callable[[Seat], bool]) -> bool:
        count = len(self.seats)
        return all(
            any(is_good(self.seats[index]) for index in owners_of(shard, count))
            for shard in range(count)
        )

    def choose(
        self, shard: int | None, key: ServingVersion, without: Collection[tuple[int, int]]
    ) -> Seat | None:
        """The owner to ask: one that has loaded the version, answers, and has least to do.

        Parameters
        ----------
        shard : int or None
            None: anybody.
        key : ServingVersion
        without : collection of (int, int)
            Places and generations that are not to be asked.
        """
        count = len(self.seats)
        with self.lock:
            self._turn += 1
            able = [
                seat
                for seat in map(
                    self.seats.__getitem__,
                    range(count) if shard is None else owners_of(shard, count),
                )
                if key in seat.loaded and (seat.index, seat.generation) not in without
            ]
            if not able:
                return None
            turn = self._turn
            return min(
                able,
                key=lambda each: (each.is_silent, each.in_flight, (each.index + turn) % count),
            )

    def lost(self, seat: Seat, generation: int) -> None:
        """An owner is no more; another takes its place at once."""
        with self.lock:
            if seat.generation == generation and not seat.is_lost:
                self._lose(seat)
        self.tend()

    def _lose(self, seat: Seat) -> None:
        if not seat.loaded:
            seat.failed_starts += 1
            wait_s = min(RESTART_S * 2**seat.failed_starts, RESTART_MAX_S)
            seat.retry_at = self.transport.now() + wait_s
        seat.is_lost = True
        seat.loaded, seat.loading, seat.ping = {}, {}, None

    def stray(self, ticket: Ticket, seat: Seat) -> None:
        """Nobody waits for this call any more, but it is open."""
        with self.lock:
            self._strays[ticket] = seat, seat.generation

    def tend(self) -> None:
        """Replace, load, listen; waits for nothing but the journal."""
        errands: list[_Errand] = []
        with self.lock:
            now = self.transport.now()
            self._end_strays()
            self._let_go(now)
            for seat in self.seats:
                try:
                    self._hear(seat, now)
                    errands += self._errands(seat, now)
                except LostError:
                    self._lose(seat)
        # The journal is read while others go on.
        while errands:
            try:
                self._run(errands[0])
            except BaseException:
                # What was not begun is begun by whoever tends next.
                for left in errands:
                    if left.key is not None:
                        left.seat.loading.pop(left.key, None)
                raise
            del errands[0]

    def _end_strays(self) -> None:
        if not self._strays:
            return
        for ticket in self.transport.wait(list(self._strays), 0.0):
            seat, generation = self._strays.pop(ticket)
            if seat.generation == generation:
                seat.in_flight -= 1

    def _let_go(self, now: float) -> None:
        """Tell everybody of versions that nobody uses any more."""
        late = [
            key
            for key, left_at in self._left_at.items()
            if not self._used[key] and now - left_at > LINGER_S
        ]
        if not late:
            return
        for key in late:
            del self._left_at[key], self._used[key]
            self._offsets.pop(key, None)
        kept = {*self._wanted, *self._left_at}
        for seat in self.seats:
            if seat.is_lost:
                continue
            try:
                self.transport.start(seat.index, "keep", kept)
            except LostError:
                self._lose(seat)
            seat.loaded = {key: offset for key, offset in seat.loaded.items() if key in kept}

    def _hear(self, seat: Seat, now: float) -> None:
        """Take what an owner has answered to a ping, or to what it was to load.

        Raises
        ------
        LostError
        """
        calls = {ticket: key for key, ticket in seat.loading.items() if ticket is not None}
        pings = [] if seat.ping is None else [seat.ping]
        ended = set(self.transport.wait([*calls, *pings], 0.0)) if calls or pings else set()
        if seat.ping in ended:
            answer, seat.ping = self.transport.answer(seat.ping), None
            seat.heard(now)
            known = {} if isinstance(answer, VisavisError) else answer
            for key, offset in known.items():
                if key in seat.loaded:
                    seat.loaded[key] = max(offset, seat.loaded[key])
        elif seat.ping is not None and seat.heard_at is not None:
            # Who has never said anything may be waiting for room.
            seat.is_silent = seat.is_silent or now - seat.ping_at > SILENT_S
            if now - seat.ping_at > GONE_S:
                raise LostError("says nothing")
        for ticket, key in calls.items():
            if ticket not in ended:
                continue
            answer = self.transport.answer(ticket)
            del seat.loading[key]
            seat.heard(now)
            if isinstance(answer, VisavisError):
                seat.failures[key] = answer
                seat.retry_at = now + RESTART_MAX_S
            else:
                seat.loaded[key], seat.failed_starts = answer, 0

    def _errands(self, seat: Seat, now: float) -> Iterator[_Errand]:
        """What an owner is to be asked now.

        Raises
        ------
        LostError
        """
        if seat.is_lost:
            if now < seat.retry_at:
                return
            seat.begin()
            self.transport.replace(seat.index)
        for key in self._wanted:
            if key in seat.loaded or key in seat.loading:
                continue
            if key in seat.failures:
                if now < seat.retry_at:
                    continue
                del seat.failures[key]
            seat.loading[key] = None
            yield _Errand(seat, seat.generation, key)
        if seat.ping is None and now - seat.ping_at >= PING_S:
            seat.ping_at = now
            yield _Errand(seat, seat.generation, None)

    def _run(self, errand: _Errand) -> None:
        seat, key = errand.seat, errand.key
        args = self._news(seat) if key is None else self._to_load(key)
        with self.lock:
            if seat.generation != errand.generation or seat.is_lost:
                return
            try:
                if key is None:
                    seat.ping = self.transport.start(seat.index, "hear", *args)
                elif args and key in self._wanted:
                    seat.loading[key] = self.transport.start(seat.index, "load", *args)
                else:
                    del seat.loading[key]
            except LostError:
                self._lose(seat)

    def _to_load(self, key: ServingVersion) -> tuple[Any, ...]:
        wanted = self._wanted.get(key)
        if wanted is None:
            return ()
        source, base_offset = wanted
        objecting = self._objecting(base_offset)
        return key, source, self.delta_of(key, base_offset, None), objecting

    def _news(self, seat: Seat) -> tuple[list[Want]]:
        with self.lock:
            behind = [
                (key, seat.loaded[key], offset)
                for key, offset in self._offsets.items()
                if key in self._wanted and seat.loaded.get(key, offset) < offset
            ]
        return (
            [
                Want(key, through, self.delta_of(key, after, through))
                for key, after, through in behind
            ],
        )

    def close(self) -> None:
        """End all owners."""
        self.transport.close()


def wanted_by(want: Want, seat: Seat, crew: Crew) -> Want:
    """What is wanted, with what this owner may not know yet."""
    known = seat.loaded.get(want.key, want.offset)
    if known >= want.offset:
        return want
    return want._replace(delta=crew.delta_of(want.key, known, want.offset))
