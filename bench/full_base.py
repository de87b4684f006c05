"""A full base for benchmarks, written as files by blocks: Gaussian customers, rules, and history.

What is made depends on the sizes alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visavis.catalog import Catalog

INDICATORS = 128
AS_OF = "2026-01-01"
BLOCK_ROWS = 2**16
#: Capabilities of a product.
PRODUCT_SIZE = 4
RULES = ("age >= 18", "country = 'fr'", "age >= 30 and country != 'it'", "age < 50")
POLICY = 'k = 10\nev_min = "none"\nconsent_not_needed = ["email"]\n'
NAMES = [f"x{d:03}" for d in range(INDICATORS)]
VISAVIS = Path(sys.executable).with_name("visavis")


def customer_id(row: int) -> str:
    """Of a row, in the order of rows."""
    return f"customer-{row:09d}"


def blocks(customers: int) -> Iterator[tuple[pa.Array, int]]:
    """Ids, block after block, and how many."""
    for begin in range(0, customers, BLOCK_ROWS):
        size = min(BLOCK_ROWS, customers - begin)
        yield pa.array([customer_id(row) for row in range(begin, begin + size)]), size


def write_profiles(folder: Path, customers: int) -> None:
    """profiles.parquet and attributes.parquet."""
    rng = np.random.default_rng(0)
    profiles = pa.schema([("customer_id", pa.string()), *((each, pa.float32()) for each in NAMES)])
    known = pa.schema([("customer_id", pa.string()), ("age", pa.int64()), ("country", pa.string())])
    with (
        pq.ParquetWriter(folder / "profiles.parquet", profiles, use_dictionary=False) as to,
        pq.ParquetWriter(folder / "attributes.parquet", known) as to_known,
    ):
        for ids, size in blocks(customers):
            x = rng.standard_normal((INDICATORS, size), dtype=np.float32)
            to.write_table(pa.Table.from_arrays([ids, *map(pa.array, x)], schema=profiles))
            age, country = rng.integers(10, 90, size), rng.choice(["fr", "de", "it"], size)
            rows = [ids, pa.array(age), pa.array(country)]
            to_known.write_table(pa.Table.from_arrays(rows, schema=known))


def write_facts(path: Path, customers: int, capabilities: int, each: int = 5) -> None:
    """So many purchases of every customer, on days of the last 300."""
    rng = np.random.default_rng(2)
    products = pa.array([product(j) for j in range(0, capabilities, PRODUCT_SIZE)])
    last = date.fromisoformat(AS_OF)
    days = pa.array([last - timedelta(days=age) for age in range(300)])
    schema = pa.schema(
        [
            ("customer_id", pa.string()),
            ("product", pa.string()),
            ("kind", pa.string()),
            ("date", pa.date32()),
        ]
    )
    with pq.ParquetWriter(path, schema) as to:
        for ids, size in blocks(customers):
            count = size * each
            columns = [
                ids.take(pa.array(np.repeat(np.arange(size), each))),
                products.take(pa.array(rng.integers(0, len(products), count))),
                pa.array(["bought"]).take(pa.array(np.zeros(count, np.int64))),
                days.take(pa.array(rng.integers(0, len(days), count))),
            ]
            to.write_table(pa.Table.from_arrays(columns, schema=schema))


def product(j: int) -> str:
    """Of a capability."""
    return f"p{j // PRODUCT_SIZE:07}"


def write_catalog(path: Path, count: int, *, has_history: bool = False) -> None:
    """So many capabilities, rules on; with history, what was bought before counts."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((count, INDICATORS)) / np.sqrt(INDICATORS)
    history = [{"kind": "bought", "feature": "days", "weight": 0.5}] if has_history else []
    Catalog.from_rows(
        {
            "id": f"p{j:07}",
            "product": product(j),
            "channel": "email",
            "family": f"f{j % 40}",
            "weights": dict(zip(NAMES, row.tolist(), strict=True)),
            "value": 10.0,
            "bias": -2.0,
            "rule": RULES[j % len(RULES)],
            "history_weights": history,
        }
        for j, row in enumerate(weights)
    ).write(path)


def kept(customers: int, capabilities: int) -> Path:
    """A folder with base/, catalog.parquet and policy.toml, history included.

    It stays below build/ until the sizes, or this file, are others: a million customers take a
    minute to make.
    """
    maker = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path("build/bench") / f"base-{customers}-{capabilities}-{maker}"
    if folder.exists():
        return folder
    making = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    write_profiles(making, customers)
    write_facts(making / "facts.parquet", customers, capabilities)
    write_catalog(making / "catalog.parquet", capabilities, has_history=True)
    (making / "policy.toml").write_text(POLICY)
    given = [f"--{each}={making / each}.parquet" for each in ("profiles", "attributes", "facts")]
    command = [VISAVIS, "load", *given, "--as-of", AS_OF, "--out", making / "base"]
    subprocess.run(command, check=True, capture_output=True)
    for each in ("profiles", "attributes", "facts"):
        (making / f"{each}.parquet").unlink()
    making.rename(folder)
    return folder
