"""The journal: durable facts per second, in groups of 1,000 and one by one, and what reading costs.

make bench BENCH_ARGS='-k journal -s'
"""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from visavis.base import Base
from visavis.journal import Journal

FACTS = int(os.environ.get("BENCH_JOURNAL_FACTS", "100_000"))
CUSTOMERS = int(os.environ.get("BENCH_JOURNAL_CUSTOMERS", "1_000_000"))
#: What the issue asks for, of groups of 1,000.
BAR = 5_000


def groups_of(size: int, count: int) -> list[pa.Table]:
    rng = np.random.default_rng(7)
    return [
        pa.table(
            {
                "customer_id": [f"customer-{n:08}" for n in rng.integers(0, CUSTOMERS, size)],
                "product": [f"product-{n:04}" for n in rng.integers(0, 1_408, size)],
                "kind": ["bought"] * size,
                "date": [date(2026, 1, 31)] * size,
            }
        )
        for _ in range(count)
    ]


def synced_writes_per_s(folder: Path) -> float:
    """What the disk itself gives: 4 KiB written and synchronised, again and again."""
    handle = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    started = time.perf_counter()
    for _ in range(200):
        os.write(handle, bytes(4_096))
        os.fdatasync(handle)
    seconds = time.perf_counter() - started
    os.close(handle)
    return 200 / seconds


@pytest.mark.parametrize("size", [1_000, 1])
def test_journal_append(benchmark, tmp_path, capsys, size):
    groups = groups_of(size, FACTS // 1_000 if size > 1 else 1_000)

    def append() -> None:
        for group in groups:
            journal.append(facts=group)

    with Journal.open(tmp_path / "journal", create=True) as journal:
        benchmark.pedantic(append, rounds=1)
        assert journal.verify().facts == size * len(groups)
    facts_per_s = size * len(groups) / benchmark.stats.stats.min
    syncs_per_s = synced_writes_per_s(tmp_path)
    benchmark.extra_info.update(facts_per_s=facts_per_s, syncs_per_s=syncs_per_s)
    with capsys.disabled():
        print(
            f"\ngroups of {size:,}: {facts_per_s:,.0f} durable facts/s; the disk alone"
            f" {syncs_per_s:,.0f} synchronised writes/s"
        )
    assert size == 1 or facts_per_s >= BAR


def test_journal_overlay(benchmark, tmp_path, capsys):
    with Journal.open(tmp_path / "journal", create=True) as journal:
        for group in groups_of(1_000, FACTS // 1_000):
            journal.append(facts=group)
        journal.forget("nobody")
        overlay = benchmark.pedantic(journal.overlay, rounds=1)
        read_s = benchmark.stats.stats.min
        started = time.perf_counter()
        assert journal.verify().facts == FACTS
        verify_s = time.perf_counter() - started
        started = time.perf_counter()
        journal.forget("customer-00000007")
        forget_s = time.perf_counter() - started
    ids = [f"customer-{n:08}" for n in range(CUSTOMERS)]
    base = Base.from_tables(
        pa.table({"customer_id": ids, "x": np.zeros(CUSTOMERS)}), as_of="2026-01-31"
    )
    started = time.perf_counter()
    assert overlay.apply(base).facts.num_rows == overlay.facts.num_rows > 0
    apply_s = time.perf_counter() - started
    with capsys.disabled():
        print(
            f"\n{FACTS:,} entries: overlay {read_s:.2f} s, verify {verify_s:.2f} s, forget one"
            f" customer {forget_s:.2f} s; applied to {CUSTOMERS:,} customers with a tombstone"
            f" {apply_s:.2f} s"
        )
