"""The benchmark of the gateway: it runs, and what it counts with counts right."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from visavis.gateway.errors import DETAILS_KEY

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"

pytestmark = pytest.mark.skipif(not BENCH.exists(), reason="needs the source tree")

#: Customers by the hundred, and looks of a blink: nothing is measured here.
SMALL = {
    "BENCH_CUSTOMERS": "300",
    "BENCH_CAPABILITIES": "40",
    "BENCH_SECONDS": "0.1",
    "BENCH_SHARES": "0.5 1.3",
    "BENCH_ROUNDS": "1",
    "BENCH_OVERLOAD_ROUNDS": "1",
    "BENCH_CONCURRENCY": "1",
}


@pytest.fixture
def load(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("gateway_load")


@pytest.fixture
def bars(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("gateway_bars")


@pytest.mark.long
def test_it_runs_from_the_base_to_the_table_of_bars(tmp_path: Path, bars: ModuleType) -> None:
    """All but milvus-lite, which the tests do not install."""
    # Relative paths lead below build/ of where it is started.
    command = [sys.executable, "-m", "pytest", BENCH / "test_gateway.py", "--benchmark-only"]
    command += ["-c", ROOT / "pyproject.toml", "-k", "not neighbour", "-s"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path,
        env={**os.environ, **SMALL},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    table = (tmp_path / "build" / "bench" / "gateway.md").read_text()
    wanted = [bars.PROCESSOR, bars.MEDIAN, bars.TAIL, bars.BATCH, bars.BESIDE_KERNEL, bars.RESULTS]
    wanted += [bars.ONE_GOODPUT, bars.ONE_MEMORY]
    for times, heeds in itertools.product((2, 4), (False, True)):
        wanted += bars.overload_bars(100, times, heeds=heeds)
    assert all(f"| {each.what} |" in table for each in wanted), table
    assert table in done.stdout


def counted(load: ModuleType, call: Any, **plan: Any) -> dict[str, Any]:
    """What a generator counts of calls that are made here."""
    given = load.Plan(port=0, path=load.ONE, customers=10, **plan)
    return asyncio.run(load.Generator(given, [call]).run())


def test_calls_that_were_sent_late_have_waited(load: ModuleType) -> None:
    async def busy(request: bytes, timeout: float) -> bytes:
        # Nothing else runs meanwhile: the next is sent late, though each takes no longer.
        time.sleep(0.02)
        return b"answer"

    found = counted(load, busy, rate=200, seconds=0.5, settle_s=0.0)
    # 100 arrivals in half a second, 20 ms each: the last ones begin a second late.
    assert found["latency_ms"]["100"] > 500
    assert found["lag_ms"]["100"] > 500
    assert found["latency_ms"]["100"] >= found["lag_ms"]["100"]


def test_calls_begin_whether_or_not_earlier_ones_are_answered(load: ModuleType) -> None:
    begun = []

    async def silent(request: bytes, timeout: float) -> bytes:
        begun.append(request)
        await asyncio.sleep(0.5)
        return b""

    found = counted(load, silent, rate=200, seconds=0.3, settle_s=0.0)
    assert sum(found["codes"].values()) == len(begun) > 20
    assert found["in_window"] == {}


def test_callers_wait_for_their_answers(load: ModuleType) -> None:
    open_now, most = 0, 0

    async def slow(request: bytes, timeout: float) -> bytes:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        open_now -= 1
        return bytes(7)

    found = counted(load, slow, concurrency=3, seconds=0.3, settle_s=0.1)
    assert most == 3
    assert set(found["codes"]) == {"OK"}
    assert found["response_bytes"] == 7
    assert found["lag_ms"] == {}


def test_what_is_refused_is_counted_by_code_and_has_no_latency(load: ModuleType) -> None:
    turn = 0

    async def refusing(request: bytes, timeout: float) -> bytes:
        nonlocal turn
        turn += 1
        await asyncio.sleep(0)
        if turn % 2:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, nothing, nothing)
        return b"x"

    found = counted(load, refusing, rate=400, seconds=0.3, settle_s=0.0)
    assert set(found["codes"]) == {"OK", "RESOURCE_EXHAUSTED"}
    assert found["codes"]["RESOURCE_EXHAUSTED"] - found["codes"]["OK"] in {0, 1}


def test_callers_who_heed_hold_back(load: ModuleType) -> None:
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    status.details.add().Pack(ErrorInfo(reason="OVERLOADED"))
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    open_now = sent = 0

    async def shedding(request: bytes, timeout: float) -> bytes:
        nonlocal open_now, sent
        open_now, sent = open_now + 1, sent + 1
        try:
            await asyncio.sleep(0.01)
            if open_now > 3:
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailing, "too much"
                )
            return b"x"
        finally:
            open_now -= 1

    found = counted(load, load.heeding(shedding, load.MANY), rate=1_000, seconds=0.5, settle_s=0.0)
    codes = found["codes"]
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED", load.HELD_BACK}
    assert codes["OK"] + codes["RESOURCE_EXHAUSTED"] == sent
    assert codes["RESOURCE_EXHAUSTED"] < codes["OK"] < codes[load.HELD_BACK]
    assert "at a time" in found["details"][load.HELD_BACK]


def test_callers_come_again_when_they_are_told_to(load: ModuleType) -> None:
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    status.details.add().Pack(RetryInfo(retry_delay=Duration(nanos=200_000_000)))
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))

    async def shedding(request: bytes, timeout: float) -> bytes:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailing, "too much"
        )

    found = counted(load, shedding, concurrency=2, seconds=0.5, settle_s=0.0)
    # At 0, 0.2 and 0.4 s at the earliest.
    assert 1 <= found["codes"]["RESOURCE_EXHAUSTED"] <= 2 * 3
    assert found["details"] == {"RESOURCE_EXHAUSTED": "too much"}


def test_the_same_seed_asks_for_the_same(load: ModuleType) -> None:
    plan = load.Plan(port=0, path=load.MANY, customers=1_000, batch=5)
    other = load.Plan(port=0, path=load.MANY, customers=1_000, batch=5, seed=1)
    assert load.requests_of(plan) == load.requests_of(plan) != load.requests_of(other)


def test_a_bar_is_missed_met_or_its_aim_is(bars: ModuleType) -> None:
    most = bars.Bar("most", "≤", 10, 5)
    assert [most.verdict(seen) for seen in (11, 10, 5)] == ["missed", "met, aim missed", "aim met"]
    least = bars.Bar("least", "≥", None, 0.5)
    assert [least.verdict(seen) for seen in (0.4, 0.5)] == ["aim missed", "aim met"]
    assert most.verdict(float("nan")) == "missed"
    assert "not measured" in most.row("because")
