"""What waits, what is answered together, what is shed, and what is told of it."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateways import IDS, Client, Code, World, batch_request, listening, refused_as, rows_of, served
from visavis.errors import InputError
from visavis.gateway import admission, joining, match_service, patience
from visavis.gateway.admission import Line
from visavis.gateway.audit import Audit
from visavis.gateway.desk import Desk, Queue
from visavis.gateway.errors import RefusedError
from visavis.gateway.joining import Joiner
from visavis.gateway.metrics import Meters
from visavis.gateway.server import Gateway, Settings
from visavis.gateway.tracing import Tracing
from visavis.v1 import context_pb2, match_service_pb2


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


class Held:
    """A task whose thread waits to be let go."""

    def __init__(self, amount: int = 1) -> None:
        self.amount = amount
        self.offered_at = 0.0
        self.is_wanted = True
        self.go = threading.Event()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    def begin(self, waited_s: float) -> Callable[[], Any] | None:
        assert waited_s >= 0
        self.begun.set()
        return (lambda: self.go.wait(30)) if self.is_wanted else None

    def end(self, result: Any, error: BaseException | None) -> None:  # noqa: ARG002
        assert error is None
        self.ended.set()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits is enough to speak of a line."""
    monkeypatch.setattr(admission, "_FEW", 1)


def a_line(**more: Any) -> Line:
    return Line("test", **{"slots": 1, "target_s": 0.01, "burst_s": 1.0, **more})


def test_a_line_begins_in_order_and_leaves_out_who_has_gone() -> None:
    async def scene() -> None:
        line = a_line()
        tasks = [Held() for _ in range(4)]
        for task in tasks:
            line.offer(task)
        assert [task.begun.is_set() for task in tasks] == [True, False, False, False]
        tasks[1].is_wanted = False
        tasks[0].go.set()
        await tasks[2].begun.wait()
        assert not tasks[3].begun.is_set()
        assert not tasks[1].ended.is_set()
        for task in tasks[2:]:
            task.go.set()
            await task.ended.wait()
        assert line.has_room
        line.close()

    asyncio.run(scene())


def test_a_thread_goes_on_without_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        line = a_line(at_door=1)
        at_work = [threading.Event() for _ in range(3)]

        class Seen(Held):
            def __init__(self, seen: threading.Event) -> None:
                super().__init__()
                self.seen = seen

            def begin(self, waited_s: float) -> Callable[[], Any] | None:
                work = super().begin(waited_s)
                return work and (lambda: self.seen.set() or work())

        tasks = [Seen(each) for each in at_work]
        for task in tasks:
            line.offer(task)
        assert [task.begun.is_set() for task in tasks] == [True, True, False]
        assert at_work[0].wait(30)
        assert not at_work[1].is_set()
        # Before what is offered now stand one piece at the door and one that waits.
        monkeypatch.setattr(line, "_seconds", 0.25)
        monkeypatch.setattr(line, "_amount", 1.0)
        assert line.expected_wait_s() == pytest.approx(0.5, rel=0.01)
        tasks[0].go.set()
        # The event loop does nothing but to wait here.
        assert at_work[1].wait(30)
        assert not tasks[2].begun.is_set()
        for task in tasks[1:]:
            task.go.set()
            await task.ended.wait()
        assert line.has_room
        line.close()

    asyncio.run(scene())


def test_what_takes_long_stands_back_for_the_event_loop_and_single_customers() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)

    async def scene() -> dict[str, int]:
        desk = Desk(1, Audit(io.StringIO()))
        desk.open(cast(Any, object()))

        def of_thread() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        queues: tuple[Queue, ...] = ("match", "batch", "audience", "change", "job")
        found = {each: await desk.run(of_thread, remaining_s=30, queue=each) for each in queues}
        desk.close()
        return found

    behind = min(own + 10, 19)
    expected = {"match": own, "batch": behind, "audience": behind, "change": own, "job": own}
    assert asyncio.run(scene()) == expected
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_system_that_knows_no_priorities_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(nice: int) -> None:
        raise PermissionError(nice)

    monkeypatch.setattr(admission.os, "nice", refused)

    async def scene() -> None:
        line, task = a_line(nice=10), Held()
        task.go.set()
        line.offer(task)
        await asyncio.wait_for(task.ended.wait(), 30)
        line.close()

    asyncio.run(scene())


@pytest.mark.parametrize("handed_over", ["late", "gone"])
def test_what_is_given_up_before_a_thread_is_free_is_not_done(handed_over: str) -> None:
    async def scene() -> None:
        desk, go, done = Desk(1, Audit(io.StringIO())), threading.Event(), []
        desk.open(cast(Any, object()))

        def asked(name: str, remaining_s: float) -> asyncio.Task[None]:
            def work() -> None:
                assert go.wait(30)
                done.append(name)

            run = desk.run(work, remaining_s=remaining_s, queue="batch", amount=1)
            return asyncio.create_task(run)

        names = dict.fromkeys(["first", handed_over, "late", "gone", "last"])
        remaining_s = {name: 0.01 if name == "late" else 30 for name in names}
        tasks = {name: asked(name, left_s) for name, left_s in remaining_s.items()}
        await asyncio.sleep(0)
        tasks["gone"].cancel()
        await asyncio.sleep(0)
        # The event loop is late: nobody has told a thread yet that a deadline has passed.
        time.sleep(0.05)
        go.set()
        found = await asyncio.gather(*tasks.values(), return_exceptions=True)
        ended = dict(zip(tasks, found, strict=True))
        assert isinstance(ended["late"], RefusedError)
        assert ended["late"].fault.reason == "DEADLINE_PASSED"
        assert isinstance(ended["gone"], asyncio.CancelledError)
        assert done == ["first", "last"]
        desk.close()

    asyncio.run(scene())


def test_a_burst_may_wait_and_a_standing_line_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        line = a_line()
        first = Held(amount=100)
        line.offer(first)
        # Before anything is measured nothing is known to be too long.
        assert line.expected_wait_s() == 0.0
        first.go.set()
        await first.ended.wait()
        monkeypatch.setattr(line, "_seconds", 0.001)
        monkeypatch.setattr(line, "_amount", 1.0)
        monkeypatch.setattr(admission, "_WEIGHT", 0.0)
        running, waiting = Held(amount=100), [Held(amount=200) for _ in range(6)]
        line.offer(running)
        for task in waiting[:5]:
            line.offer(task)
        assert line.expected_wait_s() == pytest.approx(1.0, rel=0.01)
        with pytest.raises(RefusedError) as shed:
            line.offer(waiting[5])
        fault = shed.value.fault
        assert (fault.code, fault.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert fault.retry_s is not None
        assert 1.9 < fault.retry_s < 2.2
        # What was shed a moment ago is no burst when it comes again.
        with pytest.raises(RefusedError):
            line.check()
        monkeypatch.setattr(patience, "_CALM_S", 0.0)
        # Once it has stood for a while, what would have waited in a burst is shed as well.
        running.go.set()
        for task in waiting[:4]:
            task.go.set()
            await task.ended.wait()
        line.offer(waiting[5])
        assert line.expected_wait_s() == pytest.approx(0.2, rel=0.01)
        line.check()
        monkeypatch.setattr(admission, "_STANDING_S", 0.0)
        assert line.is_standing
        with pytest.raises(RefusedError):
            line.check()
        for task in waiting[4:]:
            task.go.set()
            await task.ended.wait()
        assert not line.is_standing
        line.close()

    asyncio.run(scene())


def test_what_fails_in_a_thread_ends_its_task_alone() -> None:
    async def scene() -> None:
        line = a_line()
        told = []

        class Broken(Held):
            def begin(self, _: float) -> Callable[[], Any] | None:
                return lambda: 1 // 0

            def end(self, _: Any, error: BaseException | None) -> None:
                told.append(error)
                self.ended.set()

        broken, after = Broken(), Held()
        line.offer(broken)
        line.offer(after)
        after.go.set()
        await after.ended.wait()
        assert isinstance(told[0], ZeroDivisionError)
        line.close()

    asyncio.run(scene())


def test_what_is_asked_meanwhile_is_answered_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "GATHER_S", 30.0)
    pieces: list[tuple[str, list[int]]] = []
    go = threading.Event()

    def together(key: str, items: Sequence[int]) -> list[Any]:
        pieces.append((key, list(items)))
        assert go.wait(30)
        return [InputError("odd") if item % 2 else f"{key}{item}" for item in items]

    async def scene() -> None:
        line = a_line(slots=2)
        joiner: Joiner[int] = Joiner(line, together, lambda: 1, Meters())
        ends = time.monotonic() + 30
        asked = [asyncio.create_task(joiner.ask("a", item, ends)) for item in range(4)]
        other = asyncio.create_task(joiner.ask("b", 8, ends))
        while len(pieces) < 2:
            await asyncio.sleep(0.001)
        late = asyncio.create_task(joiner.ask("a", 20, time.monotonic() + 0.01))
        gone = asyncio.create_task(joiner.ask("a", 22, ends))
        await asyncio.sleep(0.03)
        gone.cancel()
        go.set()
        found = await asyncio.gather(*asked, other, late, gone, return_exceptions=True)
        assert found[0] == "a0"
        assert found[2] == "a2"
        assert isinstance(found[1], InputError)
        assert isinstance(found[3], InputError)
        assert found[4] == "b8"
        assert isinstance(found[5], RefusedError)
        assert found[5].fault.reason == "DEADLINE_PASSED"
        assert isinstance(found[6], asyncio.CancelledError)
        # One began at once, and what was still wanted of the others after it, together.
        assert sorted(pieces) == [("a", [0]), ("a", [1, 2, 3]), ("b", [8])]
        line.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("gather_s", "most", "sizes"), [(30.0, 3, [1, 3]), (0.005, 64, [1, 2])])
def test_a_full_piece_and_one_that_waited_begin_beside(
    monkeypatch: pytest.MonkeyPatch, gather_s: float, most: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(joining, "GATHER_S", gather_s)
    monkeypatch.setattr(joining, "GATHERED_MAX", most)
    begun: list[int] = []
    go = threading.Event()

    def together(_: str, items: Sequence[int]) -> list[int]:
        begun.append(len(items))
        assert go.wait(30)
        return list(items)

    async def scene() -> None:
        line = a_line(slots=2)
        joiner: Joiner[int] = Joiner(line, together, lambda: 1, Meters())
        ends = time.monotonic() + 30
        asked = [asyncio.create_task(joiner.ask("a", item, ends)) for item in range(sum(sizes))]
        while len(begun) < 2:
            await asyncio.sleep(0.001)
        assert begun == sizes
        go.set()
        assert await asyncio.gather(*asked) == list(range(sum(sizes)))
        line.close()

    asyncio.run(scene())


def test_what_is_small_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    here, in_threads = [], []

    def at_once(key: str, item: int) -> str | None:
        if item % 2:
            raise InputError("odd")
        here.append(item)
        return f"{item} at once" if key == "plain" else None

    def together(_: str, items: Sequence[int]) -> list[int]:
        in_threads.extend(items)
        return list(items)

    async def scene() -> None:
        line, amounts = a_line(), {"now": 1}
        joiner: Joiner[int] = Joiner(line, together, lambda: amounts["now"], Meters(), at_once)
        ends = time.monotonic() + 30
        # Nothing is known of the speed before something was done.
        assert await joiner.ask("plain", 0, ends) == 0
        assert (here, in_threads) == ([], [0])
        monkeypatch.setattr(admission, "_QUICK_S", 10.0)
        assert await joiner.ask("plain", 2, ends) == "2 at once"
        with pytest.raises(InputError, match="odd"):
            await joiner.ask("plain", 3, ends)
        with pytest.raises(RefusedError) as late:
            await joiner.ask("plain", 4, time.monotonic())
        assert late.value.fault.reason == "DEADLINE_PASSED"
        assert (here, in_threads) == ([2], [0])
        # What declines, what is much, and what had to wait for the disk is for threads.
        speed = line._cpu_seconds
        assert await joiner.ask("other", 6, ends) == 6
        assert here.pop() == 6
        assert line._cpu_seconds != speed
        amounts["now"] = 10**12
        assert await joiner.ask("plain", 8, ends) == 8
        amounts["now"] = 1
        monkeypatch.setattr(line, "_unquick_until", math.inf)
        assert await joiner.ask("plain", 10, ends) == 10
        assert (here, in_threads) == ([2], [0, 6, 8, 10])
        line.close()

    asyncio.run(scene())


def test_what_declines_tells_nothing_of_the_speed() -> None:
    line = a_line()
    assert line.run_here(lambda: None, 1) is None
    assert not line.is_quick(1)
    assert line.run_here(lambda: "done", 1) == "done"
    assert line.is_quick(1)
    line.close()


def test_a_page_that_is_read_sends_work_to_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    line = a_line()
    line.run_here(int, 1)
    assert line.is_quick(1)
    monkeypatch.setattr(admission, "_SLOW_S", 0.0)
    line.run_here(int, 1)
    assert line.is_quick(1)
    monkeypatch.setattr(line, "_pages_read", -1)
    line.run_here(int, 1)
    assert not line.is_quick(1)
    line.close()


def test_single_customers_together_are_answered_as_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody is shed, however slow the machine is.
    monkeypatch.setattr(admission, "_FEW", 1_000)
    rng = random.Random(5)
    contexts = [
        None,
        context_pb2.RequestContext(available_channels=context_pb2.NameSet(names=["shop"])),
        context_pb2.RequestContext(indicator_overrides={"spend": 2.5}),
    ]
    asked = [
        match_service_pb2.MatchCustomerRequest(
            customer_id=rng.choice([*IDS, "nobody"]),
            context=rng.choice(contexts),
            reason_count=rng.choice([0, 2]),
            distinctive_reasons=rng.random() < 0.5,
        )
        for _ in range(300)
    ]

    async def scene(client: Client) -> None:
        alone = {}
        for request in asked:
            key = request.SerializeToString(deterministic=True)
            if key not in alone and request.customer_id != "nobody":
                alone[key] = await client.match.MatchCustomer(request)

        async def checked(request: Any) -> None:
            call = client.match.MatchCustomer(request)
            if request.customer_id == "nobody":
                details = await refused_as(call, Code.NOT_FOUND, "UNKNOWN_CUSTOMER")
                assert details["ResourceInfo"].resource_name == "nobody"
                return
            assert await call == alone[request.SerializeToString(deterministic=True)]

        await asyncio.gather(*(checked(request) for request in asked))
        want = [row for row in world.batch(reasons=3).to_pylist() if row["customer_id"] == IDS[4]]
        assert rows_of(await client.one(IDS[4])) == want

    served(world, scene)


def test_batches_are_shed_before_single_customers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_STANDING_S", 0.0)
    monkeypatch.setattr(joining, "GATHER_S", 0.0)
    go, begun = threading.Event(), threading.Event()
    plain = match_service.MatchService._match_together

    def held(*given: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return plain(*given)

    monkeypatch.setattr(match_service.MatchService, "_match_together", held)

    async def scene() -> None:
        async with listening(world, threads=1) as (gateway, client):
            first = asyncio.create_task(client.one(IDS[1]))
            await asyncio.to_thread(begun.wait, 30)
            second = asyncio.create_task(client.one(IDS[2]))
            while not gateway._desk._lines["match"].is_standing:
                await asyncio.sleep(0.001)
            details = await refused_as(client.many(IDS[:3]), Code.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert details["RetryInfo"].retry_delay.ToMilliseconds() >= 50
            stream = client.match.StreamMatches(
                iter(
                    [
                        match_service_pb2.StreamMatchesRequest(
                            frame_id=9, match=batch_request(["c01"])
                        )
                    ]
                )
            )
            frame = await stream.read()
            assert frame.error.code == Code.RESOURCE_EXHAUSTED.value[0]
            assert frame.error.retry_delay_ms >= 50
            third = asyncio.create_task(client.one(IDS[3]))
            await asyncio.sleep(0.01)
            go.set()
            for number, call in enumerate((first, second, third), start=1):
                assert (await call).customer_id == IDS[number]
            assert (await client.many(IDS[:3])).customer_count == 3
            read = gateway._meters.registry.get_sample_value
            shed = read("visavis_shed_total", {"line": "batch", "reason": "overloaded"})
            assert shed == 2

    asyncio.run(scene())


def test_what_is_counted_is_read_over_http_and_names_no_customer(world: World) -> None:
    access, audit = io.StringIO(), io.StringIO()

    async def scene() -> None:
        async with listening(
            world, metrics_address="127.0.0.1:0", access=Audit(access, event="access"), audit=audit
        ) as (gateway, client):
            for customer_id in IDS[:5]:
                await client.one(customer_id)
            await client.many(IDS)
            await refused_as(client.one("nobody"), Code.NOT_FOUND, "UNKNOWN_CUSTOMER")
            url = f"http://127.0.0.1:{gateway.metrics_port}/metrics"
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
            one = 'visavis_rpc_seconds_count{code="%s",method="MatchService/MatchCustomer"} %s'
            assert one % ("OK", "5.0") in text
            assert one % ("NOT_FOUND", "1.0") in text
            assert "visavis_ready 1.0" in text
            assert f'catalog_digest="{world.catalog.digest()}"' in text
            assert "visavis_journal_lag_entries 0.0" in text
            assert 'visavis_batch_customers_sum{line="batch"} 40.0' in text
            assert "visavis_rpcs_in_flight 0.0" in text
            read = gateway._meters.registry.get_sample_value
            # Who objected is not scored at all.
            live = [number for number in range(len(IDS)) if number % 13]
            pairs = 12 * (len(live) + len([number for number in live if number < 5]))
            assert read("visavis_pairs_scored_total") == pairs
            told = [line for line in text.splitlines() if "digest" not in line]
            assert not [each for each in (*IDS, "nobody") if each in "\n".join(told)]
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(urllib.request.urlopen, url)

    asyncio.run(scene())
    lines = [json.loads(line) for line in access.getvalue().splitlines()]
    codes = [(line["event"], line["method"], line["code"]) for line in lines]
    assert codes.count(("access", "MatchService/MatchCustomer", "OK")) == 5
    assert codes.count(("access", "MatchService/MatchCustomer", "NOT_FOUND")) == 1
    assert all(line["seconds"] >= 0 for line in lines)
    assert not [each for each in (*IDS, "nobody") if each in access.getvalue()]


@pytest.mark.parametrize("address", ["", "here", "127.0.0.1:", "127.0.0.1:99999"])
def test_an_address_for_metrics_is_an_address(address: str) -> None:
    with pytest.raises(InputError) as caught:
        Gateway(Settings(address="127.0.0.1:0", metrics_address=address))
    assert caught.value.field == "metrics_address"


def test_a_span_is_of_its_callers_trace_and_names_no_customer(world: World) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    said: list[Any] = []

    async def scene(client: Client) -> None:
        request = match_service_pb2.MatchCustomerRequest(customer_id=IDS[1])
        metadata = (("traceparent", f"00-{trace}-{parent}-01"),)
        await client.match.MatchCustomer(request, metadata=metadata)
        await refused_as(client.one("nobody"), Code.NOT_FOUND, "UNKNOWN_CUSTOMER")
        while len(memory.get_finished_spans()) < 2:
            await asyncio.sleep(0.001)
        said.extend(memory.get_finished_spans())

    served(world, scene, tracing=Tracing(provider))
    first, second = said
    assert first.name == "visavis.v1.MatchService/MatchCustomer"
    assert f"{first.context.trace_id:032x}" == trace
    assert f"{first.parent.span_id:016x}" == parent
    assert first.attributes["rpc.grpc.status_code"] == 0
    assert second.parent is None
    assert second.attributes["rpc.grpc.status_code"] == Code.NOT_FOUND.value[0]
    assert second.status.description == "NOT_FOUND"
    assert not [each for each in ("nobody", IDS[1]) if each in first.to_json() + second.to_json()]
