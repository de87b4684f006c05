"""The sorted events of a block of customers as exact integers per day and per value.

Reads the table `events` that `EventLedger.ingest` makes: customer_index, day, minor, basket and a
code per level, sorted by customer, so that a block is read without passing over the others.
"""

# ruff: noqa: S608
# (SQL is put together from constants and indices; values are bound)

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from visavis.indicators.days import CustomerDays, Int64, Level, ValueDays

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["integers", "no_days", "read_days"]


def read_days(
    connection: DuckDBPyConnection,
    block: tuple[int, int],
    *,
    as_of_day: int,
    minor_units: int,
    levels: Mapping[str, Level],
) -> CustomerDays:
    """Return the exact integers of the customers of `block`, [start, stop)."""
    start, stop = block
    rows = connection.execute(
        "SELECT customer_index, day, CAST(sum(spend) AS BIGINT) AS spend,"
        " CAST(sum(bought) AS BIGINT) AS bought, CAST(sum(lines) AS BIGINT) AS lines,"
        " count(basket) AS baskets FROM (SELECT customer_index, day, basket,"
        " sum(minor) AS spend, sum(greatest(minor, 0)) AS bought, count(*) AS lines"
        " FROM events WHERE customer_index >= ? AND customer_index < ? GROUP BY ALL)"
        " GROUP BY customer_index, day ORDER BY customer_index, day",
        [start, stop],
    )
    column = integers(rows)
    return CustomerDays(
        customer_count=stop - start,
        minor_units=minor_units,
        customer=column["customer_index"] - start,
        age=as_of_day - column["day"],
        spend=column["spend"],
        bought=column["bought"],
        line_count=column["lines"],
        basket_count=column["baskets"],
        levels={
            name: _read_value_days(connection, block, i, level, as_of_day)
            for i, (name, level) in enumerate(levels.items())
        },
    )


def _read_value_days(
    connection: DuckDBPyConnection,
    block: tuple[int, int],
    index: int,
    level: Level,
    as_of_day: int,
) -> ValueDays:
    rows = connection.execute(
        f"SELECT customer_index, day, code_{index} AS code,"
        " CAST(sum(greatest(minor, 0)) AS BIGINT) AS bought FROM events"
        f" WHERE customer_index >= ? AND customer_index < ? AND code_{index} IS NOT NULL"
        " GROUP BY ALL ORDER BY customer_index, day, code",
        list(block),
    )
    column = integers(rows)
    age = as_of_day - column["day"]
    return ValueDays(
        level, column["customer_index"] - block[0], age, column["code"], column["bought"]
    )


def no_days(minor_units: int, levels: Mapping[str, Level]) -> CustomerDays:
    """Return the days of no customer."""
    none = np.zeros(0, dtype=np.int64)
    return CustomerDays(
        customer_count=0,
        minor_units=minor_units,
        customer=none,
        age=none,
        spend=none,
        bought=none,
        line_count=none,
        basket_count=none,
        levels={name: ValueDays(level, none, none, none, none) for name, level in levels.items()},
    )


def integers(rows: DuckDBPyConnection) -> dict[str, Int64]:
    """Fetch all rows as int64 columns."""
    return {name: np.asarray(array).astype(np.int64) for name, array in rows.fetchnumpy().items()}
