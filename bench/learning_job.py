"""One learning job on a synthetic base, as a process of its own: seconds, peak memory, sanity.

    python bench/learning_job.py --customers 1000000 --products 10000 --indicators 128

The base is made up in memory (customers with indicators that move what they buy, ten purchases
each before the cut), then `visavis.learning.learn` runs on one window, in blocks, with a checkpoint
folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from visavis.base import Base
from visavis.base.door import FACT_SCHEMA
from visavis.catalog import Catalog
from visavis.learning import LearnSpec, Window, learn

AS_OF = date(2026, 1, 1)
PURCHASES_EACH = 10
BUYING_SHARE = 0.3


def facts_table(rng, customers, products, names, as_of, per_customer):
    """Facts in the order that a base keeps, made without the strings of a whole table."""
    count = customers * per_customer
    customer = np.repeat(np.arange(customers), per_customer)
    # Popularity falls off like a power of the rank, as in every shop.
    product = (products * rng.random(count) ** 3).astype(np.int32)
    day = (as_of - date(1970, 1, 1)).days - rng.integers(0, 180, count)
    order = np.lexsort((day, product, customer))
    labels = pa.array(names)
    columns = [
        pa.array(customer),
        labels.take(pa.array(product[order])),
        pa.nulls(count, pa.string()),
        pa.array(["bought"]).take(pa.array(np.zeros(count, dtype=np.int8))),
        pa.array(day[order].astype(np.int32), pa.date32()),
        pa.array(np.ones(count, dtype=np.int64)),
    ]
    return pa.Table.from_arrays(columns, schema=FACT_SCHEMA)


def synthetic_base(seed, customers, products, indicators, as_of):
    rng = np.random.default_rng(seed)
    names = [f"p{number:06}" for number in range(products)]
    return Base(
        customer_ids=pa.array(np.char.mod("c%08d", np.arange(customers))),
        indicators=rng.standard_normal((customers, indicators), dtype=np.float32),
        indicator_schema=pa.schema([(f"i{d:03}", pa.float32()) for d in range(indicators)]),
        attributes=pa.table({"objected": np.zeros(customers, dtype=bool)}),
        facts=facts_table(rng, customers, products, names, as_of, PURCHASES_EACH),
        as_of=as_of,
    )


def outcomes_of(base, seed):
    """Who buys what in the window: again what they bought, or what everybody buys."""
    rng = np.random.default_rng(seed)
    again = rng.random(len(base.facts)) < BUYING_SHARE * (base.indicators[:, 0] > 0).repeat(
        PURCHASES_EACH
    )
    rows = base.facts.filter(pa.array(again))
    return pa.table(
        {
            "customer_id": base.customer_ids.take(rows["customer_index"].combine_chunks()),
            "product": rows["product"],
        }
    )


class PeakMemory:
    """The largest anonymous resident memory seen, sampled ten times a second."""

    def __init__(self):
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(0.1):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.bytes = max(self.bytes, int(line.split()[1]) * 1024)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--indicators", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    with PeakMemory() as peak, tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        shape = (given.customers, given.products, given.indicators)
        spec = LearnSpec(window_days=28)
        then = synthetic_base(0, *shape, AS_OF - timedelta(days=spec.window_days))
        window = Window(then, outcomes_of(then, 2))
        now = synthetic_base(1, *shape, AS_OF)
        catalog = Catalog.from_rows(
            {"id": f"p{number:06}", "product": f"p{number:06}", "channel": "email", "weights": {}}
            for number in range(given.products)
        )
        made = time.perf_counter()
        learned = learn(
            [window], now, catalog, spec, checkpoint=Path(folder), threads=given.threads
        )
        done = time.perf_counter()
    print(
        json.dumps(
            {
                "customers": given.customers,
                "products": given.products,
                "indicators": given.indicators,
                "making_the_base_seconds": round(made - started, 1),
                "learning_seconds": round(done - made, 1),
                "peak_rss_anon_bytes": peak.bytes,
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "coefficient_of_i000": dict(learned.pooled)["i000"],
                "coefficient_of_i001": dict(learned.pooled)["i001"],
            }
        )
    )


if __name__ == "__main__":
    main()
