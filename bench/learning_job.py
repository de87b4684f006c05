"""One learning job on a synthetic base, as a process of its own: seconds, peak memory, sanity.

    python bench/learning_job.py --customers 1000000 --products 10000 --indicators 128

Bases are made up in memory (customers with indicators that move what they buy again and what they
buy for the first time, five purchases each before a cut), then `visavis.learning.learn` runs on two
windows, in blocks, with a checkpoint folder, and is judged on a window that it never saw. It fails
where a bar is missed.
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
import pyarrow.compute as pc

from visavis.base import Base
from visavis.base.door import FACT_SCHEMA
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.learning import LearnSpec, Window, learn, reliability
from visavis.policy import Policy

AS_OF = date(2026, 1, 1)
PURCHASES_EACH = 5
NEW_PURCHASES_EACH = 2.0
JUDGED_PAIRS = 20_000_000

#: What the job must keep to at its full size: seconds, bytes, and calibration in every bin.
SECONDS_MAX, BYTES_MAX, RATIOS = 900, 4e9, (0.9, 1.1)


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


def outcomes_of(base, names, seed):
    """Who buys what in the window: again what they bought, and what they never bought.

    A customer buys again with chance σ(0.8·x0 − 1.2), and buys a product for the first time at a
    rate that grows with exp(0.8·x0) and falls off with the product's rank.
    """
    rng = np.random.default_rng(seed)
    customers = base.facts["customer_index"].to_numpy()
    again = rng.random(len(customers)) < 1.0 / (
        1.0 + np.exp(1.2 - 0.8 * base.indicators[customers, 0])
    )
    # One draw per pair, not per purchase-day.
    product = pc.index_in(base.facts["product"], pa.array(names)).to_numpy()
    first_of_pair = np.append(
        True, (customers[1:] != customers[:-1]) | (product[1:] != product[:-1])
    )
    again &= first_of_pair
    weight = np.exp(0.8 * base.indicators[:, 0].astype(np.float64))
    new_count = int(NEW_PURCHASES_EACH * len(weight))
    buyers = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(new_count))
    new = (len(names) * rng.random(new_count) ** 3).astype(np.int64)
    rows = np.unique(
        np.concatenate([customers[again], buyers]) * len(names)
        + np.concatenate([product[again], new])
    )
    return pa.table(
        {
            "customer_id": base.customer_ids.take(pa.array(rows // len(names))),
            "product": pa.array(names).take(pa.array(rows % len(names))),
        }
    )


def calibration(learned, base, names, customer_count):
    """Observed ÷ expected by bin in a window that nothing was learned from, for some customers."""
    outcomes = outcomes_of(base, names, 99)
    engine = Engine(base, learned, Policy(ev_min=None, consent_not_needed=("email",)))
    rows = np.sort(np.random.default_rng(5).choice(base.customer_count, customer_count, False))
    row = pc.index_in(
        outcomes["customer_id"].combine_chunks(), base.customer_ids.take(pa.array(rows))
    )
    held = row.is_valid()
    column = pc.index_in(
        outcomes["product"].combine_chunks().filter(held), pa.array(learned.products)
    )
    bought = np.zeros((len(rows), len(names)), dtype=np.float32)
    bought[row.filter(held).to_numpy(), column.to_numpy()] = 1.0
    propensity = np.concatenate(
        [engine.scores(rows[begin : begin + 500]).propensity for begin in range(0, len(rows), 500)]
    )
    return reliability(propensity.ravel(), bought.ravel())


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
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    with PeakMemory() as peak, tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        shape = (given.customers, given.products, given.indicators)
        spec = LearnSpec(window_days=28)
        names = [f"p{number:06}" for number in range(given.products)]
        windows = []
        for number in range(given.windows):
            cut = AS_OF - timedelta(days=spec.window_days * (number + 1))
            then = synthetic_base(2 * number, *shape, cut)
            windows.append(Window(then, outcomes_of(then, names, 2 * number + 1)))
        now = synthetic_base(97, *shape, AS_OF)
        catalog = Catalog.from_rows(
            {"id": name, "product": name, "channel": "email", "weights": {}} for name in names
        )
        made = time.perf_counter()
        learned = learn(windows, now, catalog, spec, checkpoint=Path(folder), threads=given.threads)
        done = time.perf_counter()
    judged = calibration(
        learned.catalog, now, names, min(JUDGED_PAIRS // given.products, given.customers)
    )
    ratios = [bin_["ratio"] for bin_ in judged["bins"]]
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
                "windows": given.windows,
                "ridge": learned.validation.get("ridge"),
                "observed_over_expected_by_bin": [round(ratio, 3) for ratio in ratios],
                "log_loss": judged["log_loss"],
                "coefficient_of_i000": dict(learned.pooled)["i000"],
                "coefficient_of_i001": dict(learned.pooled)["i001"],
            }
        )
    )
    assert done - made <= SECONDS_MAX
    assert peak.bytes <= BYTES_MAX
    assert all(RATIOS[0] <= ratio <= RATIOS[1] for ratio in ratios)


if __name__ == "__main__":
    main()
