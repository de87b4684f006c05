"""Load on a gRPC server from a process of its own: `python bench/gateway_load.py`.

Reads plans from standard input, a line of JSON each, and carries one out after the other.

Open-loop with a rate: calls begin at arrival times of a seeded Poisson process whether or not
earlier ones have been answered, and latency counts from the *intended* time, so that a call which
this process sent late, or which a connection kept back, has waited. How late it was itself is told
beside it. Closed-loop with a concurrency: so many callers, each with one call open; one who is told
to come again later does so.

Requests are serialised before the clock starts, answers are not looked into, and a client of its
own sends them (gateway_wire.py), so that little is missing for a server on the same processors.
Lines of JSON on standard output for each plan: ``begin`` and ``end`` of the counted time, then
``done`` with what was counted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np
from hdrh.histogram import HdrHistogram

from full_base import customer_id
from gateway_wire import connected
from visavis.client.congestion import Congestion, is_held_back
from visavis.client.errors import GatewayError, error_of_call
from visavis.v1 import match_service_pb2 as v1

ECHO = "/bench.Echo/Echo"
ONE = "/visavis.v1.MatchService/MatchCustomer"
MANY = "/visavis.v1.MatchService/MatchCustomers"

#: How a call ends that its client did not send.
HELD_BACK = "HELD_BACK"

#: Longest latency that a histogram tells apart, and how well.
LONGEST_US = 120_000_000
DIGITS = 3
DETAILS_MAX = 200
PERCENTILES = (50, 90, 99, 99.9, 100)


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes
    ----------
    port : int
    path : str
        ONE, MANY or ECHO.
    customers : int
        Of the base.
    batch : int
        Customers of a call; 1 for ONE and ECHO.
    rate : float
        Calls a second, open-loop; 0: closed-loop.
    concurrency : int
        Callers, closed-loop.
    seconds : float
        That are counted.
    settle_s : float
        Before them.
    deadline_s : float
        Of a call.
    channels : int
        Each a connection of its own.
    heeds : bool
        Whether callers hold back when they are refused, as `visavis.Client` does, one client for
        each connection: what it holds back counts as HELD_BACK.
    seed : int
    """

    port: int
    path: str
    customers: int
    batch: int = 1
    rate: float = 0.0
    concurrency: int = 1
    seconds: float = 1.0
    settle_s: float = 0.2
    deadline_s: float = 10.0
    channels: int = 1
    heeds: bool = False
    seed: int = 0

    def text(self) -> str:
        """A line, without its end."""
        return json.dumps(asdict(self))


Call = Callable[..., Awaitable[bytes]]


class Generator:
    """Sends what a plan says, and counts.

    Parameters
    ----------
    plan : Plan
    calls : list of callable
        One for each connection: bytes to bytes.
    """

    def __init__(self, plan: Plan, calls: list[Call]) -> None:
        self._plan = plan
        self._calls = calls
        self._requests = requests_of(plan)
        self._began = self._ended = 0.0
        self._answered: Counter[str] = Counter()
        self._in_window: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._latency = HdrHistogram(1, LONGEST_US, DIGITS)
        self._lag = HdrHistogram(1, LONGEST_US, DIGITS)
        self._response_bytes = 0
        self._processor_s = 0.0

    async def run(self) -> dict[str, Any]:
        """Settle, count, wait for what is still under way."""
        plan = self._plan
        start = time.perf_counter() + 0.05
        self._began = start + plan.settle_s
        self._ended = self._began + plan.seconds
        telling = asyncio.create_task(self._tell())
        if plan.rate:
            await self._open_loop(start)
        else:
            callers = [self._caller(number) for number in range(plan.concurrency)]
            await asyncio.gather(*callers)
        await telling
        return self._counted()

    async def _tell(self) -> None:
        await asyncio.sleep(self._began - time.perf_counter())
        spent = time.process_time()
        say("begin")
        await asyncio.sleep(self._ended - time.perf_counter())
        say("end")
        self._processor_s = time.process_time() - spent

    async def _open_loop(self, start: float) -> None:
        plan = self._plan
        rng = np.random.default_rng(plan.seed)
        lasting = plan.settle_s + plan.seconds
        # A Poisson process: so many arrivals, each anywhere.
        arrivals = start + np.sort(rng.uniform(0, lasting, rng.poisson(plan.rate * lasting)))
        open_calls: set[asyncio.Task[float]] = set()
        for number, intended in enumerate(arrivals.tolist()):
            left = intended - time.perf_counter()
            # Also where it is late, so that answers are not kept waiting by what is sent.
            await asyncio.sleep(max(0.0, left))
            if intended >= self._began:
                self._record(self._lag, time.perf_counter() - intended)
            task = asyncio.create_task(self._call(number, intended))
            open_calls.add(task)
            task.add_done_callback(open_calls.discard)
        await asyncio.gather(*open_calls)

    async def _caller(self, number: int) -> None:
        turn = number
        while (now := time.perf_counter()) < self._ended:
            await asyncio.sleep(await self._call(turn, now))
            turn += self._plan.concurrency

    async def _call(self, number: int, intended: float) -> float:
        """One call; seconds to wait before another, as the server asks."""
        request = self._requests[number % len(self._requests)]
        call = self._calls[number % len(self._calls)]
        retry_s = 0.0
        try:
            response = await call(request, timeout=self._plan.deadline_s)
            code = "OK"
        except grpc.aio.AioRpcError as error:
            response, code = b"", error.code().name
            if not self._plan.rate:
                retry_s = error_of_call(error).retry_s or 0.0
            self._details.setdefault(code, (error.details() or "")[:DETAILS_MAX])
        except GatewayError as error:
            response, code = b"", HELD_BACK if is_held_back(error) else error.code.name
            if not self._plan.rate:
                retry_s = error.retry_s or 0.0
            self._details.setdefault(code, error.message[:DETAILS_MAX])
        now = time.perf_counter()
        if self._began <= now < self._ended:
            self._in_window[code] += 1
        if self._began <= intended < self._ended:
            self._answered[code] += 1
            if code == "OK":
                self._record(self._latency, now - intended)
                self._response_bytes += len(response)
        return retry_s

    @staticmethod
    def _record(histogram: HdrHistogram, seconds: float) -> None:
        histogram.record_value(min(max(1, round(seconds * 1e6)), LONGEST_US))

    def _counted(self) -> dict[str, Any]:
        answered = self._answered["OK"]
        return {
            "codes": dict(self._answered),
            "in_window": dict(self._in_window),
            "details": self._details,
            "latency_ms": milliseconds(self._latency),
            "lag_ms": milliseconds(self._lag),
            "request_bytes": float(np.mean([len(each) for each in self._requests])),
            "response_bytes": self._response_bytes / answered if answered else 0.0,
            "generator_s": self._processor_s,
        }


def heeding(call: Call, path: str) -> Call:
    """The same call, of a client that holds back when the server sheds load."""
    congestion = Congestion(path)

    async def asked(request: bytes, timeout: float) -> bytes:
        with congestion.call():
            try:
                return await call(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                raise error_of_call(error) from error

    return asked


def milliseconds(histogram: HdrHistogram) -> dict[str, float]:
    """By percentile; empty where nothing was recorded."""
    if not histogram.get_total_count():
        return {}
    return {f"{each:g}": histogram.get_value_at_percentile(each) / 1e3 for each in PERCENTILES}


def requests_of(plan: Plan) -> list[bytes]:
    """Seeded customers, serialised: as many calls as name 16,384 of them, at least 16."""
    rng = np.random.default_rng(plan.seed + 1)
    rows = rng.integers(0, plan.customers, (max(16, 16_384 // plan.batch), plan.batch)).tolist()
    if plan.path == MANY:
        return [
            v1.MatchCustomersRequest(
                ids=v1.CustomerIds(customer_ids=map(customer_id, batch))
            ).SerializeToString()
            for batch in rows
        ]
    return [
        v1.MatchCustomerRequest(customer_id=customer_id(row)).SerializeToString() for (row,) in rows
    ]


def say(event: str, **more: Any) -> None:
    """One line."""
    print(json.dumps({"event": event, **more}), flush=True)


async def carry_out(plan: Plan) -> None:
    """Connect, then run."""
    connections = [await connected(plan.port) for _ in range(plan.channels)]
    try:
        calls: list[Call] = [each.unary(plan.path) for each in connections]
        if plan.heeds:
            calls = [heeding(each, plan.path) for each in calls]
        generator = Generator(plan, calls)
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        say("done", **await generator.run())
    finally:
        for each in connections:
            each.close()


async def main() -> None:
    """Until no more plans come."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await carry_out(Plan(**json.loads(line)))


def new_loop() -> asyncio.AbstractEventLoop:
    """The default waits in whole milliseconds, as epoll does; select knows microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
