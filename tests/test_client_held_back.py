"""Both clients against servers that shed load: what they hold back is never sent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import grpc
import pytest

from clients import KINDS, client_of, server_of
from test_client_faults import VERSION, abort, at, matching
from visavis.client import AsyncClient, Client, GatewayError, OverloadedError, jobs, matches, plans
from visavis.client.congestion import Congestion, is_held_back
from visavis.client.pieces import Asked, in_pieces
from visavis.client.rpcs import MATCH_CUSTOMER, MATCH_CUSTOMERS
from visavis.client.state import State
from visavis.client.steps import Budget, Call, Emit, Sleep
from visavis.errors import InputError
from visavis.gateway.errors import Fault
from visavis.v1 import (
    catalog_service_pb2,
    job_service_pb2,
    match_service_pb2,
    match_service_pb2_grpc,
)

Code = grpc.StatusCode


def batch_plan() -> Any:
    def request(start: int, end: int) -> Any:
        ids = match_service_pb2.CustomerIds(customer_ids=["c01", "c02", "c03"][start:end])
        return match_service_pb2.MatchCustomersRequest(ids=ids)

    asked = Asked(["c01", "c02", "c03"], request)
    return in_pieces(MATCH_CUSTOMERS, asked, size=2, bytes_max=2**20, budget=Budget(None))


LATER = "later"

#: What is asked in more than one call, and the answer to the first.
PLANS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "match_many": (batch_plan, lambda request: at(7)(request, None)),
    "find_audience": (
        lambda: matches.find_audience(cast("State", None), "tea", 10),
        lambda _: match_service_pb2.FindAudienceResponse(version=VERSION, next_page_token=LATER),
    ),
    "list_capabilities": (
        lambda: plans.list_capabilities(cast("State", None)),
        lambda _: catalog_service_pb2.ListCapabilitiesResponse(
            version=VERSION, next_page_token=LATER
        ),
    ),
    "jobs": (
        lambda: jobs.jobs(cast("State", None)),
        lambda _: job_service_pb2.ListJobsResponse(next_page_token=LATER),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_later_pieces_and_pages_are_tried_again_and_the_first_is_not(name: str) -> None:
    begun, answer = PLANS[name]
    held_back = Congestion("Match")._held_back("waits", 0.1)

    def sent(step: Any) -> Any:
        assert isinstance(step, Call)
        step.budget.left_s(10.0)
        return step

    refused = begun()
    sent(next(refused))
    with pytest.raises(OverloadedError):
        refused.throw(held_back)

    plan = begun()
    step = plan.send(answer(sent(next(plan)).request))
    while isinstance(step, Emit):
        step = plan.send(None)
    later = sent(step)
    assert isinstance(plan.throw(held_back), Sleep)
    assert plan.send(None) is later


class Half(match_service_pb2_grpc.MatchServiceServicer):  # type: ignore[misc]
    """Sheds four of the first eight calls, and answers the others once the client knows of it."""

    def __init__(self) -> None:
        self.seen = 0
        self._lock = threading.Lock()
        self._refused = 0
        self._all_here = threading.Event()
        self._first, self._later = threading.Event(), threading.Event()

    def _match(self, _: Any, call: Any) -> Any:
        with self._lock:
            self.seen += 1
            number = self.seen
        if number == 8:
            self._all_here.set()
        if number <= 4:
            # So that all eight were open when the first was refused.
            assert self._all_here.wait(30)
            abort(call, Fault(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "shed", retry_s=0.75))
        assert (self._first if number <= 8 else self._later).wait(30)
        return match_service_pb2.MatchCustomerResponse(version=VERSION, customer_id="c01")

    def heard(self, error: GatewayError) -> GatewayError:
        """What a caller was told: four refusals of the server, then three of the client."""
        with self._lock:
            self._refused += 1
        if self._refused == 4:
            self._first.set()
        if self._refused == 4 + 3:
            self._later.set()
        return error

    def _explain(self, _: Any, call: Any) -> Any:
        abort(call, Fault(Code.NOT_FOUND, "UNKNOWN_CUSTOMER", "nobody"))

    MatchCustomer, Explain = _match, _explain


class Answering(match_service_pb2_grpc.MatchServiceServicer):  # type: ignore[misc]
    """Answers after a while."""

    def _match(self, _: Any, call: Any) -> Any:  # noqa: ARG002
        time.sleep(0.2)
        return match_service_pb2.MatchCustomerResponse(version=VERSION, customer_id="c01")

    MatchCustomer = _match


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_beyond_is_refused_here_and_never_sent(kind: str) -> None:
    servicer = Half()

    def check(first: list[Any], second: list[Any], other: BaseException) -> None:
        told = [each for each in first if isinstance(each, OverloadedError)]
        assert [is_held_back(each) for each in told] == [False] * 4
        # 0.7 of the eight that were open.
        held_back = [each for each in second if isinstance(each, OverloadedError)]
        assert [is_held_back(each) for each in held_back] == [True] * 3
        assert {each.retry_s for each in told + held_back} == {0.75}
        assert "no more than 5 of MatchCustomer" in str(held_back[0])
        assert servicer.seen == 8 + 5
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


def test_who_asks_again_at_once_keeps_nobody_from_the_loop() -> None:
    """The others' answers are taken between two refusals."""

    async def played() -> None:
        async with AsyncClient(target, timeout_s=30) as client:
            one = client._congestion(MATCH_CUSTOMER)
            one.limit, one._shed_at = 1.0, time.monotonic() + 60
            other = asyncio.ensure_future(client.match("c01"))
            await asyncio.sleep(0)
            assert one._open == 1
            for _ in range(100_000):
                if other.done():
                    break
                with suppress(OverloadedError):
                    await client.match("c01")
            assert other.done()
            assert (await other).customer_id == "c01"

    with server_of(matching(Answering())) as target:
        asyncio.run(played())


def test_a_call_that_is_cancelled_makes_room() -> None:
    async def played() -> None:
        async with AsyncClient(target, timeout_s=30) as client:
            call = asyncio.ensure_future(client.match("c01"))
            while not servicer.seen:
                await asyncio.sleep(0.01)
            one = client._congestion(MATCH_CUSTOMER)
            assert one._open == 1
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert one._open == 0

    servicer = Half()
    with server_of(matching(servicer)) as target:
        asyncio.run(played())
        servicer._all_here.set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_client_says_so_first(kind: str) -> None:
    with server_of(matching(Half())) as target, client_of(kind, target) as client:
        one = (client if kind == "sync" else client.client)._congestion(MATCH_CUSTOMER)
        one.limit, one._shed_at, one._open = 1.0, time.monotonic(), 1
        with pytest.raises(OverloadedError):
            client.match("c01")
        client.close()
        with pytest.raises(InputError, match="is closed"):
            client.match("c01")
