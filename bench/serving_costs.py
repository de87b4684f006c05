"""What one process spends on a request, beside the kernel: `python bench/serving_costs.py`.

Gaussian customers and capabilities, 20 rules over 5 channels, a few facts a customer. Figures are
medians of single calls, so that a busy machine is heard less. BENCH_ONLY=batches stops after what
some customers cost together.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from visavis import kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Context, Selection, Serving

N = int(os.environ.get("BENCH_CUSTOMERS", "100_000"))
M = int(os.environ.get("BENCH_CAPABILITIES", "10_240"))
D = int(os.environ.get("BENCH_INDICATORS", "128"))
FACTS = int(os.environ.get("BENCH_FACTS", "5"))
DAY = date(2026, 1, 31)
CHANNELS = ("email", "phone", "letter", "app", "branch")


def base(rng):
    ids = [f"customer-{number:08d}" for number in range(N)]
    x = rng.standard_normal((N, D), dtype=np.float32)
    columns = {f"i{column:03d}": x[:, column] for column in range(D)}
    attributes = {
        "customer_id": ids,
        "age": pa.array(rng.integers(10, 90, N), pa.int32()),
        **{f"consent_{each}": pa.array(rng.random(N) < 0.8) for each in CHANNELS},
    }
    owner = rng.integers(0, N, N * FACTS)
    days = rng.integers(0, 300, N * FACTS)
    facts = {
        "customer_id": pa.array(ids).take(pa.array(owner)),
        "product": [f"p{number}" for number in rng.integers(0, M // 5, N * FACTS)],
        "kind": ["bought"] * (N * FACTS),
        "date": pa.array([DAY - timedelta(days=int(each)) for each in days]),
    }
    return Base.from_tables(
        pa.table({"customer_id": ids, **columns}),
        as_of=DAY,
        attributes=pa.table(attributes),
        facts=pa.table(facts),
    )


def catalog(rng):
    w = rng.standard_normal((M, D)) / np.sqrt(D)
    names = [f"i{column:03d}" for column in range(D)]
    return Catalog.from_rows(
        {
            "id": f"capability-{j:05d}",
            "product": f"p{j // 5}",
            "channel": CHANNELS[j % 5],
            "family": f"f{j % 40}",
            "weights": dict(zip(names, w[j].tolist(), strict=True)),
            "bias": -2.0,
            "value": 10.0,
            "cost": 0.1,
            "rule": f"age >= {18 + j % 20}",
            "history_weights": [{"kind": "bought", "feature": "days", "weight": 0.5}],
        }
        for j in range(M)
    )


def told(name, work, count=300, per=1):
    work()
    spent = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    each = statistics.median(spent) / per
    print(f"{name:52} {each * 1e6:10.1f} µs", flush=True)
    return each


def told_batches(serving, rng):
    """By how many are asked for at once, always others: processors' time and time of each."""
    for count in (16, 50, 100, 128, 250, 256, 500, 1_000):
        spent, lasted = [], []
        for _ in range(10 + 20_000 // count):
            ids = [f"customer-{number:08d}" for number in rng.integers(0, N, count)]
            started, began = time.perf_counter(), time.process_time()
            serving.match(ids)
            spent.append((time.process_time() - began) / count)
            lasted.append((time.perf_counter() - started) / count)
        name = f"match, {count:,} customers, each"
        processors, elapsed = statistics.median(spent), statistics.median(lasted)
        print(f"{name:32} {processors * 1e6:7.1f} µs of processors, {elapsed * 1e6:7.1f} µs")


def main():
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        stored = base(rng).write(Path(folder) / "base")
        offers = catalog(rng)
        policy = Policy(k=10, ev_min=None)
        with Journal.open(Path(folder) / "journal", create=True) as journal:
            started = time.perf_counter()
            with Serving.open(stored, offers, policy, journal=journal) as serving:
                print(f"{N} customers open in {time.perf_counter() - started:.1f} s", flush=True)
                told_batches(serving, rng)
                if os.environ.get("BENCH_ONLY") != "batches":
                    ask(serving, rng)
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


def ask(serving, rng):
    ids = [f"customer-{number:08d}" for number in rng.integers(0, N, 1_000)]
    names = iter(rng.integers(0, N, 1 << 22).tolist())
    version = serving.version
    row = version.customers.row(ids[0])
    x = version.customers.indicators(np.array([row]))
    eligible = kernel.Eligibility(version.eligible.planes[row : row + 1], version.eligible[1])
    panel = version.engine.panel

    def one(**options):
        serving.match([f"customer-{next(names):08d}"], **options)

    told("the kernel, one row", lambda: kernel.match(x, panel, k=10, eligible=eligible))
    told("the kernel, one row, k = 1", lambda: kernel.match(x, panel, k=1, eligible=eligible))
    told("match, one customer", one)
    told("match, one customer, 3 reasons", lambda: one(reasons=3))
    channels = Context(available_channels=["email", "app"], without=Selection(families=["f3"]))
    told("match, one customer, some channels", lambda: one(context=channels))
    told("match, one customer, an attribute", lambda: one(context=Context(attributes={"age": 40})))
    told("match, 1,000 with 3 reasons, each", lambda: serving.match(ids, reasons=3), 10, 1_000)
    rows, _ = version.customers.rows(ids)
    block = version.customers.indicators(rows)
    planes = kernel.Eligibility(version.eligible.planes[rows], version.eligible[1])
    told(
        "the kernel, 1,000 rows on one thread, each",
        lambda: kernel.match(block, panel, k=10, eligible=planes),
        10,
        1_000,
    )
    told("looking 1,000 ids up, each", lambda: version.customers.rows(ids), 10, 1_000)
    turn = iter(range(1 << 30))

    def record():
        serving.record(
            f"r{next(turn)}",
            facts=pa.table(
                {
                    "customer_id": [ids[next(turn) % 1_000]],
                    "product": ["p1"],
                    "kind": ["bought"],
                    "date": [DAY],
                }
            ),
        )

    told("record, one fact", record, 50)
    told("match, one customer, 50 touched", one)
    told("audience, k = 100", lambda: serving.find_audience("capability-00001", k=100), 3)
    started = time.perf_counter()
    serving.find_audience("capability-00001", k=100, reach=True)
    print(f"its reach, the first time {time.perf_counter() - started:.1f} s")
    told(
        "its reach, then",
        lambda: serving.find_audience("capability-00001", k=100, reach=True),
        3,
    )
    draft = {"id": "draft", "product": "p1", "channel": "email", "weights": {"i001": 1.0}}
    told("a draft's, and its reach", lambda: serving.find_audience(draft, k=100, reach=True), 3)


if __name__ == "__main__":
    main()
