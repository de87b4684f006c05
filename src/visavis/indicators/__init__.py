"""Indicators: what is known about each customer, from that customer's own events alone.

::

    spec.py       the declarative spec (TOML)
    sources.py    Parquet, CSV and Arrow as one relation, every cell checked
    levels.py     the taxonomy, and values as codes
    parts.py      slices of the customers by a hash of the id, and merging them
    events.py     events → a table sorted by customer (DuckDB)
    blocks.py     exact integers per customer, day and value of a block
    days.py       what a kind is given, and sums in fixed order
    kinds.py      the kinds: one small function each
    assemble.py   compute: block after block into one float32 matrix; Indicators
"""

from visavis.indicators.assemble import (
    IndicatorDefinition,
    Indicators,
    compute,
    find_definition,
)
from visavis.indicators.events import MEMORY_LIMIT
from visavis.indicators.parts import merge_parts
from visavis.indicators.spec import IndicatorSpec

__all__ = [
    "MEMORY_LIMIT",
    "IndicatorDefinition",
    "IndicatorSpec",
    "Indicators",
    "compute",
    "find_definition",
    "merge_parts",
]
