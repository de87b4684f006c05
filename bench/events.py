"""Synthetic events for the benchmarks, the same at every call, in memory that does not grow.

::

    python bench/events.py --events 10_000_000 --customers 100_000 --out FOLDER

writes ``events-000.parquet`` and so on, in the order of time, and ``taxonomy.parquet``; the spec
beside this file, indicators.toml, makes 128 indicators of them. Nobody's data: activity falls as a
power of a customer's rank, so that few customers make many events; baskets hold five lines on
average; half of all lines are what everybody buys, half what this customer does; one line in fifty
is a return. Every customer has at least one basket.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

AS_OF: Final = date(2025, 12, 31)
FIRST_DAY: Final = np.datetime64("2024-01-01", "us")
DAYS: Final = 731

PRODUCTS: Final = 20_000
#: 17 departments of 4 categories of 5 types: indicators.toml counts on the first two.
CATEGORIES_PER_DEPARTMENT: Final = 4
TYPES_PER_CATEGORY: Final = 5
TYPES: Final = 17 * CATEGORIES_PER_DEPARTMENT * TYPES_PER_CATEGORY

CHUNK_EVENTS: Final = 500_000
CHUNKS_PER_FILE: Final = 10
LINES_PER_BASKET: Final = 5

Int64 = npt.NDArray[np.int64]


def write_events(folder: Path, event_count: int, customer_count: int) -> list[Path]:
    """Write events and taxonomy into `folder`; return the files of events.

    Raises
    ------
    ValueError
        If there are too few events for every customer to have a basket.
    """
    if event_count < 4 * LINES_PER_BASKET * customer_count:
        raise ValueError(f"{customer_count} customers need more than {event_count} events")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(taxonomy(), folder / "taxonomy.parquet")
    writer, paths = None, []
    for number, chunk in enumerate(chunks(event_count, customer_count)):
        if number % CHUNKS_PER_FILE == 0:
            if writer is not None:
                writer.close()
            paths.append(folder / f"events-{len(paths):03}.parquet")
            writer = pq.ParquetWriter(paths[-1], chunk.schema)
        assert writer is not None
        writer.write_table(chunk)
    if writer is not None:
        writer.close()
    return paths


def taxonomy() -> pa.Table:
    """Every product with its department, category and type."""
    product = np.arange(PRODUCTS)
    product_type = _scrambled(product) % TYPES
    category = product_type // TYPES_PER_CATEGORY
    levels = {
        "department": category // CATEGORIES_PER_DEPARTMENT,
        "category": category,
        "product_type": product_type,
    }
    named = {name: [f"{name} {code:03}" for code in codes] for name, codes in levels.items()}
    return pa.table({"product_id": product, **named})


def chunks(event_count: int, customer_count: int) -> Iterator[pa.Table]:
    """Yield tables of at most CHUNK_EVENTS events, each of its own span of time."""
    names = pa.array([f"c{number:08}" for number in range(customer_count)])
    by_activity = _falling(customer_count, 0.7)
    by_popularity = _falling(PRODUCTS, 0.8)
    # Ranks say nothing about ids: the busiest customers lie all over.
    who = np.random.default_rng(0).permutation(customer_count)
    chunk_count = -(-event_count // CHUNK_EVENTS)
    ends = np.linspace(0, customer_count, chunk_count + 1).astype(np.int64)
    for number in range(chunk_count):
        rng = np.random.default_rng([1, number])
        size = min(CHUNK_EVENTS, event_count - number * CHUNK_EVENTS)
        basket = _baskets(rng, size)
        basket_count = int(basket[-1]) + 1
        customer = who[np.searchsorted(by_activity, rng.random(basket_count), side="right")]
        everybody = np.arange(ends[number], ends[number + 1])
        customer[: len(everybody)] = everybody
        customer = rng.permutation(customer)
        product = np.searchsorted(by_popularity, rng.random(size), side="right")
        own = rng.random(size) < 0.5
        product = np.where(own, product + _scrambled(customer)[basket], product) % PRODUCTS
        yield pa.table(
            {
                "customer_id": pa.DictionaryArray.from_arrays(customer[basket], names),
                "time": _times(rng, number, chunk_count, basket_count)[basket],
                "basket_id": number * CHUNK_EVENTS + basket,
                "product_id": product,
                "amount": _cents(rng, product) / 100,
            }
        )


def _falling(count: int, exponent: float) -> npt.NDArray[np.float64]:
    """Cumulative shares of ranks whose weights fall as a power of the rank."""
    weights = (np.arange(count) + 10.0) ** -exponent
    return np.cumsum(weights)[:-1] / weights.sum()


def _baskets(rng: np.random.Generator, size: int) -> Int64:
    """The number of each event's basket within its chunk, ascending from 0."""
    lines = rng.geometric(1 / LINES_PER_BASKET, 100 + size // 2)
    return np.repeat(np.arange(len(lines)), lines)[:size]


def _times(
    rng: np.random.Generator, number: int, chunk_count: int, basket_count: int
) -> npt.NDArray[np.datetime64]:
    share = (number + np.sort(rng.random(basket_count))) / chunk_count
    return FIRST_DAY + (share * (DAYS * 86_400_000_000)).astype("timedelta64[us]")


def _cents(rng: np.random.Generator, product: Int64) -> Int64:
    cents = (50 + _scrambled(product) % 1950) * rng.integers(1, 4, len(product))
    return np.where(rng.random(len(product)) < 0.02, -cents, cents)


def _scrambled(number: Int64) -> Int64:
    return number * 2_654_435_761 % 4_294_967_291


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--customers", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    paths = write_events(given.out, given.events, given.customers)
    size = sum(path.stat().st_size for path in paths)
    print(f"{given.events:,} events of {given.customers:,} customers: {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
