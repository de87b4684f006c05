"""Numbers as the report writes them: one way for each kind, everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "ABSENT",
    "Interval",
    "amount",
    "bounds",
    "count",
    "decimal",
    "interval",
    "number",
    "percent",
    "points",
    "ratio",
    "seconds",
    "signed",
]

#: What stands where a number is not known.
ABSENT: Final = "–"

_NARROW_SPACE: Final = "\u202f"
_MINUS: Final = "−"


class Interval(NamedTuple):
    """An estimate and, where known, the interval around it."""

    value: float
    low: float | None = None
    high: float | None = None


def number(value: object) -> float | None:
    """`value` if it is a number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def interval(value: object) -> Interval | None:
    """An `Interval` from a number or from a mapping with value, low and high."""
    if not isinstance(value, Mapping):
        alone = number(value)
        return None if alone is None else Interval(alone)
    held: Mapping[str, Any] = value
    middle = number(held.get("value"))
    if middle is None:
        return None
    low, high = number(held.get("low")), number(held.get("high"))
    return Interval(middle) if low is None or high is None else Interval(middle, low, high)


def count(value: object) -> str:
    """``12,240``."""
    known = number(value)
    return ABSENT if known is None else _negative(f"{known:,.0f}")


def decimal(value: object, digits: int = 2) -> str:
    """``3.35``, with thousands apart."""
    known = number(value)
    return ABSENT if known is None else _negative(f"{known:,.{digits}f}")


def amount(value: object) -> str:
    """``3.35`` or ``46,213``: an amount in the unit of the catalog's values."""
    known = number(value)
    return ABSENT if known is None else decimal(known, 2 if abs(known) < 1_000 else 0)


def percent(value: object, digits: int = 1) -> str:
    """``47.7 %`` from 0.477."""
    known = number(value)
    return ABSENT if known is None else f"{decimal(100 * known, digits)}{_NARROW_SPACE}%"


def points(value: object) -> str:
    """``+16.5`` from 0.165: a difference of shares, in percentage points."""
    known = number(value)
    return ABSENT if known is None else signed(100 * known, 1)


def signed(value: float, digits: int) -> str:
    """``+16.5`` or ``−3.0``."""
    shown = decimal(value, digits)
    return shown if shown.startswith(_MINUS) or not shown.strip("0.") else f"+{shown}"


def ratio(value: object) -> str:
    """``7.2×``, ``520×`` or ``0.42×``: two or three digits that count."""
    known = number(value)
    if known is None:
        return ABSENT
    digits = 0 if known >= 100 else 1 if known >= 1 else 2
    return f"{known:,.{digits}f}×"


def seconds(value: object) -> str:
    """``4.2 ms``, ``0.72 s``, ``5.1 s`` or ``3 min 20 s``."""
    known = number(value)
    if known is None:
        return ABSENT
    if known < 0.1:
        return f"{1_000 * known:.1f}{_NARROW_SPACE}ms"
    if known < 120:
        return f"{known:.{2 if known < 10 else 1}f}{_NARROW_SPACE}s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes:,}{_NARROW_SPACE}min {rest}{_NARROW_SPACE}s"


def bounds(value: Interval, factor: float = 1.0, digits: int = 1) -> str:
    """``46.9–48.5``, or ``−0.4 to 1.2`` where a minus would meet the dash; empty if not known."""
    if value.low is None or value.high is None:
        return ""
    low, high = (decimal(factor * end, digits) for end in (value.low, value.high))
    return f"{low} to {high}" if _MINUS in low + high else f"{low}–{high}"


def _negative(shown: str) -> str:
    if not shown.strip("-0.,"):
        return shown.lstrip("-")
    return shown.replace("-", _MINUS)
