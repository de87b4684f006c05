"""What the schedule itself costs a part, with workers that have nothing to do."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest

from visavis.schedule import Ended, PartReceipt, Running, run_parts

PARTS = 20_000


class _IdleWorker(NamedTuple):
    name: str
    kind: str = "cpu"


class _IdlePool:
    """Every part is done at once; two in a hundred flights end between two looks."""

    independent = True

    def __init__(self, count: int) -> None:
        self._workers = [_IdleWorker(f"worker-{number}") for number in range(count)]

    def workers(self):
        return self._workers

    def refused(self):
        return ()

    def start(self, worker, part_index):
        return Running(worker, part_index)

    def wait(self, running, _):
        ended = running[: max(1, len(running) // 50)]
        receipt = PartReceipt(0, "", "", "", 1, 1, {}, {}, 1.0)
        return [Ended(each, receipt._replace(part_index=each.part_index)) for each in ended]

    def close(self):
        pass


@pytest.mark.parametrize("workers", [10, 100, 1_000])
def test_schedule(benchmark, capsys, workers):
    seconds = []

    def once() -> None:
        began = time.perf_counter()
        assert len(run_parts(range(PARTS), _IdlePool(workers)).receipts) == PARTS
        seconds.append(time.perf_counter() - began)

    benchmark.pedantic(once, rounds=3)
    with capsys.disabled():
        print(f"\nschedule, {workers:,} workers: {min(seconds) / PARTS * 1e6:.1f} µs a part")
