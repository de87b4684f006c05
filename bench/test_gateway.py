"""The gateway under load, as its clients see it, beside its bars.

One server (`visavis serve`, a million customers × 10,240 capabilities × 128 indicators, rules and
history) and one generator of load, each a process of its own, on this machine's processors
together: what the generator spends is not there for the server, and is printed. All loads are
Poisson arrivals with latency from the intended time (gateway_load.py), but where it says
closed-loop. A table of all bars ends the run; build/bench/gateway-load.png is drawn::

    pip install -e '.[bench,peers]'
    make bench BENCH_ARGS='-k gateway -s'

The base is made once and kept below build/bench. BENCH_CUSTOMERS, BENCH_CAPABILITIES and
BENCH_SECONDS (of one load) make it smaller, BENCH_SERVE gives the server further options, and
BENCH_CHANNELS is how many connections its callers share.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest

import gateway_bars as bars
from full_base import INDICATORS, kept
from gateway_bars import Bar, draw, overload_bars
from gateway_load import ECHO, MANY, ONE, Plan
from gateway_peaks import Beyond, beyond_peaks, look, search
from gateway_servers import HERE, Generator, Load, Server, echo, gateway, generator, milvus_lite
from kernel_worlds import THREADS, say
from visavis import kernel
from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.policy import Policy
from visavis.v1 import job_service_pb2, job_service_pb2_grpc
from watching import processor_s

CUSTOMERS = int(os.environ.get("BENCH_CUSTOMERS", "1_000_000"))
CAPABILITIES = int(os.environ.get("BENCH_CAPABILITIES", "10_240"))
#: Of one load; some last twice as long.
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
#: Rounds by turns of what is compared.
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
OVERLOAD_ROUNDS = int(os.environ.get("BENCH_OVERLOAD_ROUNDS", "3"))
CHANNELS = int(os.environ.get("BENCH_CHANNELS", "4"))
BATCH = min(1_000, CUSTOMERS)
OVERLOAD_BATCHES = (100, BATCH)
#: Times capacity, and whether callers hold back when they are refused.
OVERLOADS = ((2, False), (4, False), (2, True), (4, True))
K = 10
#: Shares of capacity, for the picture.
SHARES = [
    float(each)
    for each in os.environ.get("BENCH_SHARES", "0.1 0.25 0.5 0.65 0.8 0.9 1 1.1 1.3").split()
]
#: Beyond capacity a caller gives up after this; below it, nobody should have to.
PATIENCE_S = 2.0
#: Expected of an open-loop load: fewer say nothing, and a small one might have none.
CALLS_MIN = 10
OUT = bars.OUT

Row = tuple[Bar, float | str]


@pytest.fixture(scope="module")
def seen(capsys_of_module) -> Iterator[list[Row]]:
    """Bars and what was seen; the table at the end."""
    rows: list[Row] = []
    yield rows
    lines = "\n".join(bar.row(value) for bar, value in rows)
    size = f"{CUSTOMERS:,} customers × {CAPABILITIES:,} capabilities × {INDICATORS} indicators"
    table = f"{size}, {THREADS} processors, {kernel.choose_variant(None)}\n\n{bars.HEAD}\n{lines}\n"
    (OUT / "gateway.md").write_text(table)
    with capsys_of_module():
        print(f"\n{table}", flush=True)


@pytest.fixture(scope="module")
def capsys_of_module(request):
    """What `capsys.disabled` is, where no test is under way."""
    return request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled


@pytest.fixture(scope="module")
def inputs() -> Path:
    return kept(CUSTOMERS, CAPABILITIES)


@pytest.fixture(scope="module")
def server(inputs, tmp_path_factory, capsys_of_module) -> Iterator[Server]:
    """The gateway; it stands from test to test, as it would."""
    OUT.mkdir(parents=True, exist_ok=True)
    with gateway(inputs, tmp_path_factory.mktemp("jobs"), OUT / "gateway.log") as started:
        with capsys_of_module():
            print(f"\nready after {started.started_s:.1f} s", flush=True)
        yield started


@pytest.fixture(scope="module")
def load() -> Iterator[Generator]:
    """What asks."""
    with generator() as started:
        yield started


def plan_of(server: Server, path: str, batch: int = 1) -> Plan:
    return Plan(
        port=server.port,
        path=path,
        customers=CUSTOMERS,
        batch=batch,
        seconds=SECONDS,
        settle_s=SECONDS / 4,
        channels=CHANNELS,
    )


def impatient(plan: Plan) -> Plan:
    """Of callers who give up, once queues have had time to grow."""
    return replace(plan, deadline_s=PATIENCE_S, settle_s=2 * plan.settle_s)


@pytest.fixture
def offer(load, server):
    """Puts an open-loop load on the server, or another, for some times as long."""

    def offered(plan: Plan, rate: float, *, times: float = 1.0, to: Server = server) -> Load:
        seconds = max(plan.seconds * times, CALLS_MIN / rate)
        return load.drive(to, replace(plan, rate=rate, seconds=seconds))

    return offered


@pytest.fixture(scope="module")
def capacities() -> dict[int, Load]:
    """What was found, by the size of a batch."""
    return {}


@pytest.fixture
def capacity(server, load, capsys, capacities):
    """Finds the most that the server answers, of each size of batch once; or `anew`."""

    def found(batch: int, *, anew: bool = False) -> Load:
        if anew and batch in capacities:
            # How fast a shared machine is may be another matter some minutes later.
            again = look(load, server, capacities[batch].plan)
            say(capsys, f"capacity now, calls of {batch:,}: {again.goodput:,.0f}/s")
            return again
        if batch not in capacities:
            plan = plan_of(server, ONE if batch == 1 else MANY, batch)
            capacities[batch] = search(load, server, plan, partial(say, capsys))
            say(
                capsys,
                f"capacity, calls of {batch:,}: {capacities[batch].goodput:,.0f}/s with"
                f" {capacities[batch].plan.concurrency} callers",
            )
        return capacities[batch]

    return found


def once(benchmark, work):
    """Run it once, so that pytest-benchmark lets it run at all."""
    return benchmark.pedantic(work, rounds=1)


def test_gateway_processor(benchmark, capsys, server, offer, capacity, seen):
    """By turns with a bare echo of the same sizes, at the same rate."""
    plan, rate = plan_of(server, ONE), capacity(1).goodput / 2
    size = round(capacity(1).response_bytes)
    with echo(size, OUT / "echo.log") as bare:

        def by_turns() -> list[tuple[Load, Load]]:
            return [
                (
                    offer(replace(plan, seed=turn), rate),
                    offer(replace(plan, seed=turn, port=bare.port, path=ECHO), rate, to=bare),
                )
                for turn in range(ROUNDS)
            ]

        pairs = once(benchmark, by_turns)
    ours = [ours.server_us for ours, _ in pairs]
    theirs = [theirs.server_us for _, theirs in pairs]
    beyond = np.subtract(ours, theirs)
    low, middle, high = np.percentile(beyond, [25, 50, 75])
    say(
        capsys,
        f"server CPU per MatchCustomer at {rate:,.0f}/s, {ROUNDS} rounds by turns: median"
        f" {np.median(ours):,.0f} µs, a bare echo of {pairs[0][0].request_bytes:.0f} and {size:,}"
        f" bytes {np.median(theirs):,.0f} µs; beyond it {middle:,.0f} µs (quartiles {low:,.0f} and"
        f" {high:,.0f}); with all that the server can take {capacity(1).server_us:,.0f} µs in all",
    )
    seen.append((bars.PROCESSOR, middle))
    assert all(each.codes.get("OK") for pair in pairs for each in pair)


def test_gateway_latency(benchmark, capsys, server, offer, capacity, seen):
    plan, rate = plan_of(server, ONE), capacity(1).goodput / 2
    found = once(benchmark, lambda: offer(plan, rate, times=2))
    say(capsys, f"MatchCustomer at half capacity: {found.text()}")
    # Latency is that of OK answers: shedding must not improve it unseen.
    answered = found.codes.get("OK", 0) / sum(found.codes.values())
    seen += [(bars.MEDIAN, found.at("50")), (bars.TAIL, found.at("99"))]
    seen.append((bars.ANSWERED, answered))
    assert answered > 0


def test_gateway_picture(benchmark, capsys, server, offer, capacity):
    plan = impatient(plan_of(server, ONE))
    most = capacity(1).goodput
    loads = once(benchmark, lambda: [offer(plan, most * share) for share in SHARES])
    head = "| × capacity | offered/s | OK/s | p50, ms | p99, ms | sent late p99, ms | codes |"
    rows = [
        f"| {share:g} | {found.plan.rate:,.0f} | {found.goodput:,.0f} | {found.at('50'):.2f} |"
        f" {found.at('99'):.2f} | {found.lag_ms['99']:.2f} | {found.told_codes} |"
        for share, found in zip(SHARES, loads, strict=True)
    ]
    say(capsys, "\n".join([head, "|---:|---:|---:|---:|---:|---:|---|", *rows]))
    title = (
        f"MatchCustomer, {CUSTOMERS:,} customers × {CAPABILITIES:,} capabilities,"
        f" {THREADS} processors shared with the generator"
    )
    say(capsys, draw(loads, most, title))


def test_gateway_batches(benchmark, capsys, server, load, inputs, capacity, seen):
    """By turns with the kernel alone, on the same processors, over customers of the same base."""
    plan = replace(plan_of(server, MANY, BATCH), concurrency=capacity(BATCH).plan.concurrency)
    stored, catalog = StoredBase.open(inputs / "base"), Catalog.read(inputs / "catalog.parquet")
    engine = Engine(stored.part(0), catalog, Policy.read(inputs / "policy.toml"), is_part=True)
    engine.prepare()
    rows = engine.customer_index

    def alone() -> float:
        ends, done = time.perf_counter() + plan.seconds, 0
        began = time.perf_counter()
        while time.perf_counter() < ends:
            engine.match_rows(rows)
            done += len(rows)
        return done / (time.perf_counter() - began)

    def by_turns() -> list[tuple[float, float]]:
        return [(load.drive(server, plan).customers_per_s, alone()) for _ in range(ROUNDS)]

    rates = np.array(once(benchmark, by_turns))
    low, middle = np.percentile(rates[:, 0] / rates[:, 1], [25, 50])
    ours, theirs = np.median(rates, axis=0)
    say(
        capsys,
        f"batches of {BATCH:,}, {plan.concurrency} callers, {ROUNDS} rounds by turns: median"
        f" {ours:,.0f} customers/s ({ours * CAPABILITIES / 1e9:.2f} G pairs/s), the kernel alone on"
        f" {THREADS} threads {theirs:,.0f}: {low:.2f} of it (lower quartile; median {middle:.2f})",
    )
    seen += [(bars.BATCH, ours), (bars.BESIDE_KERNEL, middle)]
    assert ours > 0


def test_gateway_beside_batches(benchmark, capsys, server, offer, capacity):
    """By turns: single customers alone, and while batches take all that is left."""
    plan, rate = plan_of(server, ONE), capacity(1).goodput / 8
    most = capacity(BATCH).plan
    busy = replace(most, settle_s=0.0, seconds=2 * (plan.settle_s + plan.seconds))
    with generator() as beside, ThreadPoolExecutor(1) as pool:

        def by_turns() -> list[tuple[Load, Load, Load]]:
            rounds = []
            for turn in range(ROUNDS):
                alone = offer(replace(plan, seed=turn), rate)
                batches = pool.submit(beside.drive, server, busy)
                rounds.append((alone, offer(replace(plan, seed=turn), rate), batches.result()))
            return rounds

        rounds = once(benchmark, by_turns)
    told = [
        " and ".join(f"{np.median([each[at].at(share) for each in rounds]):.2f}" for at in (0, 1))
        for share in ("50", "99")
    ]
    say(
        capsys,
        f"MatchCustomer at {rate:,.0f}/s, {ROUNDS} rounds by turns alone and beside"
        f" {most.concurrency} callers of batches of {BATCH:,}: p50 {told[0]} ms, p99 {told[1]} ms",
    )
    assert all(set(each.codes) == {"OK"} for alone, ours, _ in rounds for each in (alone, ours))


def test_gateway_results(benchmark, capsys, server, seen):
    """A job of the full base first; then its result is read again and again."""
    try:
        job = finished_job(server.port)
    except grpc.RpcError as error:
        # JobService answers so where the server was started without a place for jobs.
        if error.code().name not in {"UNIMPLEMENTED", "FAILED_PRECONDITION"}:
            raise
        reason = f"{error.code().name}: {error.details()}"
        seen.append((bars.RESULTS, reason))
        pytest.skip(f"the server runs no jobs: {reason}")
    command = [sys.executable, HERE / "gateway_read.py", str(server.port), job.job_id]

    def read() -> list[dict[str, float]]:
        told = [subprocess.run(command, check=True, capture_output=True) for _ in range(ROUNDS)]
        return [json.loads(each.stdout) for each in told]

    before = processor_s(server.pid)
    reads = once(benchmark, read)
    seconds = sum(each["seconds"] for each in reads)
    served = (processor_s(server.pid) - before) / seconds
    asked = sum(each["processor_s"] for each in reads) / seconds
    rates = [each["bytes"] / each["seconds"] / 1e9 for each in reads]
    say(
        capsys,
        f"ReadResults of {job.opportunity_count:,} opportunities, {reads[0]['bytes'] / 1e6:,.0f} MB"
        f" in {reads[0]['frames']:,} frames: {np.median(rates):.2f} GB/s (median of {ROUNDS};"
        f" {min(rates):.2f} to {max(rates):.2f}), of a processor the server {served:.0%} and the"
        f" reader {asked:.0%}",
    )
    seen.append((bars.RESULTS, float(np.median(rates))))
    assert job.opportunity_count > 0


def finished_job(port: int) -> job_service_pb2.Job:
    """A job of what is served, when it has succeeded."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        asked = job_service_pb2.CreateRescoreJobRequest(request_id="bench")
        job = jobs.CreateRescoreJob(asked, timeout=60.0).job
        watched = job_service_pb2.WatchJobRequest(job_id=job.job_id)
        for each in jobs.WatchJob(watched, timeout=300.0):
            job = each.job
        assert job.state == job_service_pb2.JOB_STATE_SUCCEEDED, job
        return job


@pytest.mark.parametrize("size", OVERLOAD_BATCHES)
def test_gateway_overload(benchmark, capsys, server, offer, capacity, seen, size):
    """By turns: the peak, and loads in proportion to it, of callers of either kind."""
    plan = impatient(plan_of(server, MANY, size))
    peak = partial(capacity, size, anew=True)

    def overload() -> list[list[Beyond]]:
        return [
            beyond_peaks(offer, peak, replace(plan, seed=turn), [(0.8, False), *OVERLOADS])
            for turn in range(OVERLOAD_ROUNDS)
        ]

    rounds = once(benchmark, overload)
    assert all(below.load.codes.get("OK") for below, *_ in rounds)
    for below, *_ in rounds:
        say(capsys, f"batches of {size:,} at 0.8 × capacity: {below.load.text()}")
    for place, (over, heeds) in enumerate(OVERLOADS, start=1):
        asked = overload_bars(size, over, heeds=heeds)
        found = [each[place] for each in rounds]
        for each in found:
            name = asked[0].what.partition(":")[0]
            say(capsys, f"{name}, {each.goodput_share:.2f} of the peak: {each.load.text()}")
        slower = [each[place].load.at("99") / each[0].load.at("99") for each in rounds]
        figures = (
            float(np.median([each.goodput_share for each in found])),
            float(np.median(slower)),
            max(each.load.growth for each in found),
        )
        seen += zip(asked, figures, strict=True)


def test_gateway_unary_overload(benchmark, capsys, server, offer, capacity, seen):
    """By turns: the peak, and then more."""
    plan = impatient(plan_of(server, ONE))
    peak = partial(capacity, 1, anew=True)

    def overload() -> list[Beyond]:
        return [
            each
            for turn in range(OVERLOAD_ROUNDS)
            for each in beyond_peaks(offer, peak, replace(plan, seed=turn), [(1.3, False)])
        ]

    found = once(benchmark, overload)
    for each in found:
        name = f"MatchCustomer at 1.3 × capacity, {each.goodput_share:.2f} of it"
        say(capsys, f"{name}: {each.load.text()}")
    goodput = float(np.median([each.goodput_share for each in found]))
    growth = max(each.load.growth for each in found)
    seen += [(bars.ONE_GOODPUT, goodput), (bars.ONE_MEMORY, growth)]
    assert all(each.load.codes.get("OK") for each in found)


def test_gateway_neighbour(benchmark, capsys, server, load, inputs, capacity, seen, tmp_path):
    """By turns: the same capabilities as vectors, no rules there, all of ours on here."""
    if not all(map(importlib.util.find_spec, ("milvus_lite", "pymilvus"))):
        seen.append((bars.NEIGHBOUR, "milvus-lite or pymilvus is not installed"))
        pytest.skip("milvus-lite or pymilvus is not installed: pip install -e '.[peers]'")
    plan = replace(plan_of(server, MANY, BATCH), concurrency=capacity(BATCH).plan.concurrency)
    with (
        milvus_lite(tmp_path / "milvus", OUT / "milvus.log") as port,
        subprocess.Popen(
            [
                *(sys.executable, HERE / "gateway_peer.py", str(port)),
                *(str(inputs / "catalog.parquet"), str(BATCH), str(K)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as client,
    ):
        shared = json.loads(client.stdout.readline())["shared"]
        assert shared > 0.99, f"milvus-lite finds something else: {shared:.3f} is shared"

        def searched() -> float:
            client.stdin.write("\n")
            return BATCH / json.loads(client.stdout.readline())["seconds"]

        def by_turns() -> list[tuple[float, float]]:
            return [(load.drive(server, plan).customers_per_s, searched()) for _ in range(ROUNDS)]

        rates = np.array(once(benchmark, by_turns))
        client.stdin.close()
    ratios = rates[:, 0] / rates[:, 1]
    low, middle = np.percentile(ratios, [25, 50])
    ours, theirs = np.median(rates, axis=0)
    say(
        capsys,
        f"batches of {BATCH:,}, k = {K}, {CAPABILITIES:,} × 128, {ROUNDS} rounds by turns:"
        f" {ours:,.0f} customers/s, milvus-lite (FLAT, inner product, its own server and client,"
        f" asked for {ROUNDS * BATCH:,} customers) {theirs:,.0f}:"
        f" {low:,.0f} times (lower quartile; median {middle:,.0f})",
    )
    seen.append((bars.NEIGHBOUR, middle))
