"""A client holds back what a server that sheds load would have to refuse."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import grpc
import pytest

from visavis.client import GatewayError, OverloadedError, congestion
from visavis.client.congestion import Congestion, in_turn, is_held_back
from visavis.client.errors import new_error
from visavis.client.rpcs import MATCH_CUSTOMERS
from visavis.client.steps import Budget, Call, Sleep

Code = grpc.StatusCode


def shed(retry_s: float | None = 0.5) -> GatewayError:
    return new_error(Code.RESOURCE_EXHAUSTED, "too much", reason="OVERLOADED", retry_s=retry_s)


class Calls:
    """Calls that are open, each until it is ended."""

    def __init__(self, of: Congestion) -> None:
        self._of = of
        self._open: deque[ExitStack] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, count: int) -> None:
        for _ in range(count):
            with ExitStack() as call:
                call.enter_context(self._of.call())
                self._open.append(call.pop_all())

    def end(self, count: int = 1, failed: BaseException | None = None) -> None:
        """The oldest ones."""
        for _ in range(count):
            call = self._open.popleft()
            if failed is None:
                call.close()
                continue
            with pytest.raises(type(failed)), call:
                raise failed


@pytest.fixture(name="clock")
def a_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(congestion, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_who_was_never_refused_may_open_as_many_as_they_like() -> None:
    one = Congestion("Match")
    calls = Calls(one)
    calls.begin(10_000)
    calls.end(10_000)
    assert one.limit == math.inf


def test_refusals_of_one_round_count_once_and_answers_bring_one_more_a_round(
    clock: SimpleNamespace,
) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    calls.begin(100)
    calls.end(50, shed(0.25))
    # Of the 100 that were open at the first refusal; the others began before anything was learnt.
    assert one.limit == pytest.approx(70)
    calls.begin(20)
    with pytest.raises(OverloadedError, match="no more than 70 of Match at a time") as caught:
        calls.begin(1)
    assert is_held_back(caught.value)
    assert not is_held_back(shed())
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert caught.value.retry_s == 0.25
    # 50 that are older, however they end, then one that was sent within the new limit.
    calls.end(25, shed())
    calls.end(25)
    assert one.limit == pytest.approx(70)
    calls.end(1, shed())
    assert one.limit == pytest.approx(0.7 * 20)
    calls.end(19)
    assert one.limit == pytest.approx(0.7 * 20)
    for _ in range(3):
        calls.begin(14)
        calls.end(7)
        calls.begin(7)
        calls.end(14)
    assert 0.7 * 20 + 2 < one.limit < 0.7 * 20 + 6
    # Hardly any of them used: nothing is known of more.
    before = one.limit
    for _ in range(100):
        calls.begin(3)
        calls.end(3)
    assert one.limit == before


def test_what_was_sent_beside_what_was_shed_does_not_make_up_for_it(
    clock: SimpleNamespace,
) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    calls.begin(2)
    for times in range(1, 4):
        calls.end(1, shed(0.1))
        calls.end(len(calls))
        # Of two that were open, then of one at a time.
        assert one.limit == pytest.approx(0.7 * 2 if times == 1 else 0.7 ** (times - 1))
        clock.now += 1.0
        calls.begin(1)
        with pytest.raises(OverloadedError):
            calls.begin(1)


def test_who_asks_one_by_one_waits_as_long_as_the_server_says(clock: SimpleNamespace) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    for times in range(4):
        calls.begin(1)
        calls.end(1, shed(0.5))
        # Longer and longer, while it goes on.
        wait_s = 0.5 / 0.7**times
        clock.now += wait_s - 0.2
        with pytest.raises(OverloadedError, match=r"sends no Match for 0\.20 s") as caught:
            calls.begin(1)
        assert caught.value.retry_s == pytest.approx(0.2)
        clock.now += 0.21
    calls.begin(1)
    with pytest.raises(OverloadedError, match="no more than 1 of Match"):
        calls.begin(1)
    calls.end(1)
    calls.begin(1)
    calls.end(1, shed(None))
    # Told nothing: at once.
    calls.begin(1)


def test_what_was_refused_long_ago_is_forgotten(clock: SimpleNamespace) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    calls.begin(4)
    calls.end(4, shed())
    calls.begin(2)
    with pytest.raises(OverloadedError):
        calls.begin(1)
    clock.now += congestion._BELIEVED_S
    with pytest.raises(OverloadedError):
        calls.begin(1)
    # What the server asked for comes before.
    clock.now += 0.5
    calls.begin(500)
    assert one.limit == math.inf


def test_nothing_is_forgotten_before_the_longest_wait_is_over(clock: SimpleNamespace) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    for times in range(8):
        calls.begin(1)
        calls.end(1, shed(5.0))
        assert one.limit < 1
        clock.now += 5.0 * min(0.7**-times, congestion._LONGER_MAX) - 0.1
        with pytest.raises(OverloadedError) as caught:
            calls.begin(1)
        assert caught.value.retry_s == pytest.approx(0.1)
        clock.now += 0.2
    calls.begin(1)
    with pytest.raises(OverloadedError):
        calls.begin(1)


@pytest.mark.parametrize(
    "failed",
    [
        new_error(Code.RESOURCE_EXHAUSTED, "larger than 4 MiB"),
        new_error(Code.UNAVAILABLE, "about to stop", reason="DRAINING"),
        new_error(Code.NOT_FOUND, "nobody", reason="UNKNOWN_CUSTOMER"),
        new_error(Code.DEADLINE_EXCEEDED, "late", reason="DEADLINE_PASSED"),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
)
def test_other_ends_say_nothing_of_the_load(failed: BaseException) -> None:
    one = Congestion("Match")
    calls = Calls(one)
    calls.begin(8)
    calls.end(8, failed)
    assert one.limit == math.inf
    calls.begin(10)
    calls.end(1, shed())
    limit = one.limit
    assert limit == pytest.approx(7)
    calls.end(9, failed)
    assert one.limit == limit
    # None of them is counted as open any more.
    calls.begin(7)


class Shop:
    """A server in simulated time: a door, two threads, 10 ms a call, and a line of eight.

    Who comes in at the door or is refused there keeps it busy for half a millisecond.
    """

    THREADS, TAKES_S, LINE, TRAVELS_S, DOOR_S = 2, 0.010, 8, 0.002, 0.0005
    #: Twice what the whole line takes, in the steps of the gateway (`shedding`).
    RETRY_S = 0.1

    def __init__(self, clock: SimpleNamespace, clients: int) -> None:
        self._clock = clock
        self._clients = [Congestion("Match") for _ in range(clients)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self._door_free_at = 0.0
        self._busy = 0
        self._line: deque[tuple[int, ExitStack]] = deque()
        self.ends: Counter[str] = Counter()
        self.answered: Counter[int] = Counter()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self) -> None:
        while self._events:
            self._clock.now, _, what = heapq.heappop(self._events)
            what()

    def ask(self, client: int) -> None:
        try:
            with ExitStack() as call:
                call.enter_context(self._clients[client].call())
                kept = call.pop_all()
        except OverloadedError:
            self.ends["held back"] += 1
            return
        there = max(self._clock.now + self.TRAVELS_S, self._door_free_at) + self.DOOR_S
        self._door_free_at = there
        self.at(there, lambda: self._arrives(client, kept))

    def _arrives(self, client: int, call: ExitStack) -> None:
        if self._busy < self.THREADS:
            self._begins(client, call)
        elif len(self._line) < self.LINE:
            self._line.append((client, call))
        else:
            self.at(self._clock.now + self.TRAVELS_S, lambda: self._told(call, shed(self.RETRY_S)))

    def _begins(self, client: int, call: ExitStack) -> None:
        self._busy += 1
        self.at(self._clock.now + self.TAKES_S, lambda: self._ends(client, call))

    def _ends(self, client: int, call: ExitStack) -> None:
        self._busy -= 1
        self.answered[client] += 1
        self.at(self._clock.now + self.TRAVELS_S, lambda: self._told(call, None))
        if self._line:
            self._begins(*self._line.popleft())

    def _told(self, call: ExitStack, failed: GatewayError | None) -> None:
        self.ends["OK" if failed is None else "shed"] += 1
        try:
            with call:
                if failed is not None:
                    raise failed
        except OverloadedError:
            pass


@pytest.mark.parametrize("clients", [1, 4, 16, 200])
@pytest.mark.parametrize("times", [0.5, 2, 4, 20])
def test_servers_stay_busy_and_refuse_little(
    clock: SimpleNamespace, clients: int, times: float
) -> None:
    shop, draw, seconds = Shop(clock, clients), random.Random(11), 20
    able = Shop.THREADS / Shop.TAKES_S * seconds
    for number in range(int(able * times)):
        when = clock.now + draw.uniform(0, seconds)
        shop.at(when, lambda client=number % clients: shop.ask(client))  # type: ignore[misc]
    shop.run()
    shares = [shop.answered[client] * clients / shop.ends["OK"] for client in range(clients)]
    if times < 1:
        assert shop.ends["OK"] > 0.99 * sum(shop.ends.values())
        return
    assert shop.ends["OK"] > 0.95 * able
    # Without it, `times - 1` for each that is answered: one, three and nineteen.
    most = min(0.3 * (times - 1), 0.8) if clients <= 16 else min(0.8 * (times - 1), 4.0)
    assert shop.ends["shed"] < most * shop.ends["OK"]
    # Nobody goes without.
    assert min(shares) > 0.2


def test_a_later_piece_waits_for_its_turn_and_the_first_does_not(clock: SimpleNamespace) -> None:
    one, call = Congestion("Match"), Call(MATCH_CUSTOMERS, None, Budget(10.0))
    call.budget.left_s(10.0)
    calls = Calls(one)
    calls.begin(2)
    calls.end(1, shed())
    with pytest.raises(OverloadedError) as caught:
        calls.begin(1)
    held_back = caught.value

    first = in_turn(call, is_first=True)
    assert next(first) is call
    with pytest.raises(OverloadedError):
        first.throw(held_back)

    later = in_turn(call, is_first=False)
    assert next(later) is call
    for _ in range(3):
        assert isinstance(later.throw(held_back), Sleep)
        assert next(later) is call
    with pytest.raises(StopIteration, match="answer"):
        later.send("answer")

    shed_later = in_turn(call, is_first=False)
    next(shed_later)
    with pytest.raises(OverloadedError, match="too much"):
        shed_later.throw(shed())

    late = in_turn(Call(MATCH_CUSTOMERS, None, Budget(0.01)), is_first=False)
    next(late).budget.left_s(0.0)  # type: ignore[union-attr]
    with pytest.raises(OverloadedError):
        late.throw(held_back)
