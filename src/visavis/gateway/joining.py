"""`Joiner`: requests for one customer each that wait at the same time are answered in one piece.

What is so small that handing it to a thread would cost more than to do it is done at once, on the
event loop. Otherwise a request that meets an idle server begins at once in a thread. While one
piece is under way, what else is asked gathers, until the piece ends, `GATHER_S` has passed or
`GATHERED_MAX` are together. A row among many costs the kernel less than alone, and threads are
changed once for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from visavis.gateway.admission import Line, expire, late
from visavis.gateway.metrics import Meters
from visavis.serving.waiting import within

__all__ = ["GATHERED_MAX", "GATHER_S", "Joiner"]

GATHER_S: Final = 0.002
GATHERED_MAX: Final = 64

Item = TypeVar("Item")

#: What answers the items of one key: for each a result or the error that it alone ends with.
Together = Callable[[Any, Sequence[Any]], Sequence[Any]]

#: What answers one item of a key at once, or declines.
AtOnce = Callable[[Any, Any], Any | None]


class _Asked(NamedTuple, Generic[Item]):
    item: Item
    ends: float
    answer: asyncio.Future[Any]


class Joiner(Generic[Item]):
    """Puts requests of the same key together.

    Parameters
    ----------
    line : Line
        Where the pieces wait.
    together : callable
        Answers some items of one key; called in a thread.
    amount : callable
        The work of one item.
    meters : Meters
    at_once : callable, optional
        Answers one item on the event loop; None where it would have to wait for something, or where
        more is to be done than usual.
    """

    def __init__(
        self,
        line: Line,
        together: Together,
        amount: Callable[[], int],
        meters: Meters,
        at_once: AtOnce = lambda *_: None,
    ) -> None:
        self._at_once = at_once
        self._line = line
        self._together = together
        self._amount = amount
        self._meters = meters
        #: What still takes items, by key, and how many pieces of a key are under way.
        self._gathering: dict[Hashable, _Piece] = {}
        self._under_way: dict[Hashable, int] = {}

    async def ask(self, key: Hashable, item: Item, ends: float) -> Any:
        """Answer an item.

        Parameters
        ----------
        key : Hashable
            Only what has the same is answered together.
        item
        ends : float
            By `time.monotonic`; what has not begun by then is not begun.

        Raises
        ------
        RefusedError
            If it is shed, or late.
        """
        if key not in self._gathering and self._line.is_quick(amount := self._amount()):
            found = self._here(key, item, ends, amount)
            if found is not None:
                return found
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        asked = _Asked(item, ends, answer)
        piece = self._gathering.get(key)
        if piece is None:
            self._open(key, asked)
        else:
            self._add(piece, asked)
        timer = loop.call_at(ends, expire, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _here(self, key: Hashable, item: Item, ends: float, amount: int) -> Any:
        """Answer on the event loop what is small and waits for nothing; None where it is not so."""
        if time.monotonic() >= ends:
            raise late()
        found = self._line.run_here(partial(self._at_once, key, item), amount)
        if found is not None:
            self.measure(1, 0.0)
        return found

    def _open(self, key: Hashable, asked: _Asked[Item]) -> None:
        """Begin a piece: it is offered at once, unless others of its key are under way."""
        piece = _Piece(self, key, self._amount(), asked)
        if not self._under_way.get(key):
            # Put in its place before: an idle line begins it at once, and takes it out again.
            self._gathering[key] = piece
            self._offer(piece)
            return
        self._line.check()
        self._gathering[key] = piece
        piece.timer = asyncio.get_running_loop().call_later(GATHER_S, self._offer_late, piece)

    def _add(self, piece: _Piece, asked: _Asked[Item]) -> None:
        """Put an item into a piece that has not begun."""
        amount = self._amount()
        if piece.is_offered:
            self._line.grow(piece, amount)
        else:
            self._line.check()
            piece.amount += amount
        piece.asked.append(asked)
        if len(piece.asked) >= GATHERED_MAX:
            self._forget(piece)
            self._offer_late(piece)

    def _offer(self, piece: _Piece) -> None:
        piece.is_offered = True
        if piece.timer is not None:
            piece.timer.cancel()
        try:
            self._line.offer(piece)
        except BaseException:
            self._forget(piece)
            raise

    def _offer_late(self, piece: _Piece) -> None:
        """Offer what has gathered; nobody waits for this but those in the piece."""
        if piece.is_offered:
            return
        try:
            self._offer(piece)
        except Exception as error:
            piece.end(None, error)

    def _forget(self, piece: _Piece) -> None:
        if self._gathering.get(piece.key) is piece:
            del self._gathering[piece.key]

    def begun(self, piece: _Piece) -> None:
        """A piece is under way."""
        self._forget(piece)
        self._under_way[piece.key] = self._under_way.get(piece.key, 0) + 1

    def ended(self, piece: _Piece) -> None:
        """A piece is through: what has gathered meanwhile is next."""
        left = self._under_way[piece.key] - 1
        if left:
            self._under_way[piece.key] = left
        else:
            del self._under_way[piece.key]
        following = self._gathering.get(piece.key)
        if following is not None:
            self._offer_late(following)

    def answered(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        """Answer some items, in a thread."""
        return self._together(key, items)

    def measure(self, count: int, waited_s: float) -> None:
        """Note how many are answered together, and how long they waited."""
        self._meters.begun(self._line.name, waited_s, count)


class _Piece:
    """Items of one key that are answered together; see `Task`."""

    def __init__(self, joiner: Joiner[Any], key: Hashable, amount: int, first: _Asked[Any]) -> None:
        self.joiner = joiner
        self.key = key
        self.amount = amount
        self.offered_at = 0.0
        self.asked = [first]
        self.is_offered = False
        self.timer: asyncio.TimerHandle | None = None
        self._is_under_way = False

    def begin(self, waited_s: float) -> Callable[[], Any] | None:
        """Leave out who has gone and who is late; the others are answered in a thread."""
        now, live = time.monotonic(), []
        for each in self.asked:
            if each.answer.done():
                continue
            if now >= each.ends:
                expire(each.answer)
            else:
                live.append(each)
        self.asked = live
        if not live:
            self.joiner._forget(self)
            return None
        self.joiner.begun(self)
        self._is_under_way = True
        self.joiner.measure(len(live), waited_s)
        items = [each.item for each in live]
        # Who is late is told so by the clock; the others are waited for.
        return within(
            max(each.ends for each in live), lambda: self.joiner.answered(self.key, items)
        )

    def end(self, result: Any, error: BaseException | None) -> None:
        """Tell everybody what was found for them."""
        if self._is_under_way:
            self.joiner.ended(self)
        results = [error] * len(self.asked) if error is not None else result
        for each, found in zip(self.asked, results, strict=True):
            if each.answer.done():
                continue
            if isinstance(found, BaseException):
                each.answer.set_exception(found)
            else:
                each.answer.set_result(found)
