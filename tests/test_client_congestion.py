"""A client holds back what a server that sheds load would have to refuse."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from clients import KINDS, server_of
from test_client_faults import VERSION, abort, matching
from visavis.client import AsyncClient, Client, GatewayError, OverloadedError, congestion
from visavis.client.congestion import Congestion
from visavis.client.errors import new_error
from visavis.gateway.errors import Fault
from visavis.v1 import match_service_pb2, match_service_pb2_grpc

Code = grpc.StatusCode


def shed(retry_s: float | None = 0.5) -> GatewayError:
    return new_error(Code.RESOURCE_EXHAUSTED, "too much", reason="OVERLOADED", retry_s=retry_s)


class Calls:
    """Calls that are open, each until it is ended."""

    def __init__(self, of: Congestion) -> None:
        self._of = of
        self._open: deque[ExitStack] = deque()

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
    one = Congestion()
    calls = Calls(one)
    calls.begin(10_000)
    calls.end(10_000)
    assert one.limit == math.inf


def test_refusals_of_one_round_count_once_and_answers_bring_one_more_a_round(
    clock: SimpleNamespace,
) -> None:
    one = Congestion()
    calls = Calls(one)
    calls.begin(100)
    calls.end(50, shed(0.25))
    # Of the 100 that were open at the first refusal; the others began before anything was learnt.
    assert one.limit == pytest.approx(70)
    calls.begin(20)
    with pytest.raises(OverloadedError, match="opens 70 calls of the method") as caught:
        calls.begin(1)
    assert caught.value.metadata == {"refused_by": "client", "open_calls_max": "70"}
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert caught.value.retry_s == 0.25
    # 50 that are older, then one that was sent within the new limit.
    calls.end(50, shed())
    assert one.limit == pytest.approx(70)
    calls.end(1, shed())
    assert one.limit == pytest.approx(0.7 * 20)
    calls.end(19)
    before = one.limit
    for _ in range(3):
        calls.begin(14)
        calls.end(7)
        calls.begin(7)
        calls.end(14)
    assert before + 2 < one.limit < before + 6
    # Hardly any of them used: nothing is known of more.
    before = one.limit
    for _ in range(100):
        calls.begin(3)
        calls.end(3)
    assert one.limit == before


def test_who_asks_one_by_one_waits_as_long_as_the_server_says(clock: SimpleNamespace) -> None:
    one = Congestion()
    calls = Calls(one)
    for _ in range(3):
        calls.begin(1)
        calls.end(1, shed(0.5))
        clock.now += 0.4
        with pytest.raises(OverloadedError, match="opens 0 calls"):
            calls.begin(1)
        clock.now += 0.2
    calls.begin(1)
    with pytest.raises(OverloadedError):
        calls.begin(1)
    calls.end(1)
    calls.begin(1)
    calls.end(1, shed(None))
    # Told nothing: at once.
    calls.begin(1)


def test_what_was_refused_long_ago_is_forgotten(clock: SimpleNamespace) -> None:
    one = Congestion()
    calls = Calls(one)
    calls.begin(4)
    calls.end(4, shed())
    calls.begin(2)
    with pytest.raises(OverloadedError):
        calls.begin(1)
    clock.now += congestion._BELIEVED_S
    calls.begin(500)
    assert one.limit == math.inf


@pytest.mark.parametrize(
    "failed",
    [
        new_error(Code.RESOURCE_EXHAUSTED, "larger than 4 MiB"),
        new_error(Code.UNAVAILABLE, "about to stop", reason="DRAINING"),
        new_error(Code.NOT_FOUND, "nobody", reason="UNKNOWN_CUSTOMER"),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
)
def test_other_ends_say_nothing_of_the_load(failed: BaseException) -> None:
    one = Congestion()
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
    """A server in simulated time: two threads, 10 ms a call, and a line of eight."""

    THREADS, TAKES_S, LINE, TRAVELS_S = 2, 0.010, 8, 0.002

    def __init__(self, clock: SimpleNamespace, clients: int) -> None:
        self._clock = clock
        self._clients = [Congestion() for _ in range(clients)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = iter(range(10**9))
        self._busy = 0
        self._line: deque[ExitStack] = deque()
        self.ends: Counter[str] = Counter()

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
            self.ends["kept back"] += 1
            return
        self.at(self._clock.now + self.TRAVELS_S, lambda: self._arrives(kept))

    def _arrives(self, call: ExitStack) -> None:
        if self._busy < self.THREADS:
            self._begins(call)
        elif len(self._line) < self.LINE:
            self._line.append(call)
        else:
            self.at(self._clock.now + self.TRAVELS_S, lambda: self._told(call, shed()))

    def _begins(self, call: ExitStack) -> None:
        self._busy += 1
        self.at(self._clock.now + self.TAKES_S, lambda: self._ends(call))

    def _ends(self, call: ExitStack) -> None:
        self._busy -= 1
        self.at(self._clock.now + self.TRAVELS_S, lambda: self._told(call, None))
        if self._line:
            self._begins(self._line.popleft())

    def _told(self, call: ExitStack, failed: GatewayError | None) -> None:
        self.ends["OK" if failed is None else "shed"] += 1
        try:
            with call:
                if failed is not None:
                    raise failed
        except OverloadedError:
            pass


@pytest.mark.parametrize("clients", [1, 4, 16])
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
    if times < 1:
        assert shop.ends["OK"] > 0.99 * sum(shop.ends.values())
        return
    assert shop.ends["OK"] > 0.93 * able
    # Without it, `times - 1` for each that is answered.
    assert shop.ends["shed"] < min(0.2 * (times - 1), 0.6) * shop.ends["OK"]


class Half(match_service_pb2_grpc.MatchServiceServicer):  # type: ignore[misc]
    """Sheds four of the first eight calls, and answers the others once the client knows of it."""

    def __init__(self) -> None:
        self.seen = 0
        self._lock = threading.Lock()
        self._refused = 0
        self._first, self._later = threading.Event(), threading.Event()

    def _match(self, _: Any, call: Any) -> Any:
        with self._lock:
            self.seen += 1
            number = self.seen
        if number <= 4:
            abort(call, Fault(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "shed", retry_s=0.75))
        assert (self._first if number <= 8 else self._later).wait(30)
        return match_service_pb2.MatchCustomerResponse(version=VERSION, customer_id="c01")

    def heard(self, error: GatewayError) -> GatewayError:
        """What a caller was told: four refusals of the server, then some of the client."""
        with self._lock:
            self._refused += "refused_by" not in error.metadata
        if self._refused == 4:
            self._first.set()
        if error.metadata:
            self._later.set()
        return error

    def _explain(self, _: Any, call: Any) -> Any:
        abort(call, Fault(Code.NOT_FOUND, "UNKNOWN_CUSTOMER", "nobody"))

    MatchCustomer, Explain = _match, _explain


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_beyond_is_refused_here_and_never_sent(kind: str) -> None:
    servicer = Half()

    def kept_back(ends: list[Any]) -> list[Any]:
        told = [each for each in ends if isinstance(each, OverloadedError)]
        assert all(each.retry_s == 0.75 for each in told)
        return [each for each in told if each.metadata.get("refused_by") == "client"]

    def check(first: list[Any], second: list[Any], other: BaseException) -> None:
        assert sum(isinstance(each, OverloadedError) for each in first) == 4
        assert not kept_back(first)
        refused = kept_back(second)
        # Between five and eight were open when the first was refused.
        assert 1 <= len(refused) <= 5
        assert servicer.seen == 16 - len(refused)
        # Of another method nothing was refused.
        assert "nobody" in str(other)

    with server_of(matching(servicer)) as target:
        if kind == "sync":
            with Client(target, timeout_s=30) as client, ThreadPoolExecutor(8) as pool:

                def ask(_: int) -> Any:
                    try:
                        return client.match("c01")
                    except GatewayError as error:
                        return servicer.heard(error)

                first, second = list(pool.map(ask, range(8))), list(pool.map(ask, range(8)))
                with pytest.raises(GatewayError) as caught:
                    client.explain("c01", "tea/a/b/c")
            check(first, second, caught.value)
            return

        async def played() -> tuple[list[Any], list[Any], BaseException]:
            async with AsyncClient(target, timeout_s=30) as client:

                async def ask() -> Any:
                    try:
                        return await client.match("c01")
                    except GatewayError as error:
                        return servicer.heard(error)

                rounds = [await asyncio.gather(*(ask() for _ in range(8))) for _ in range(2)]
                with pytest.raises(GatewayError) as caught:
                    await client.explain("c01", "tea/a/b/c")
                return rounds[0], rounds[1], caught.value

        check(*asyncio.run(played()))
