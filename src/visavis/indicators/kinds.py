"""The kinds of indicators: one small function each, from exact integers to float64 columns.

::

    @kind("recency", RecencyParameters)
    def recency(days: CustomerDays, parameters: RecencyParameters) -> list[Column]: ...

A new kind is such a function here and its test; specs, digests, definitions and files follow. Its
float sums go through `sum_by`, its e^x and log1p through the kernel (days.py says why).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from visavis.arithmetic import LN2, sum_by
from visavis.errors import InputError
from visavis.indicators.days import (
    AGE_BITS,
    KINDS,
    Column,
    CustomerDays,
    Float64,
    HalfLife,
    Int64,
    Level,
    Parameters,
    Undefined,
    fade,
    kind,
    ratio,
    read_labels,
)
from visavis.kernel import exp, log1p

__all__ = ["KINDS"]


def _labels_or_all(given: object) -> tuple[str, ...] | str:
    return "taxonomy" if given == "taxonomy" else read_labels(given)


#: The listed values of a column; ``"taxonomy"`` for all that the taxonomy lists.
_Labels = Annotated[tuple[str, ...] | str, BeforeValidator(_labels_or_all)]
_Measure = Literal["visits", "spend"]


class _MeasureParameters(Parameters):
    of: _Measure = "visits"

    def reads(self) -> frozenset[str]:
        return frozenset({"amount"} if self.of == "spend" else ())


class _LevelParameters(_MeasureParameters):
    level: Annotated[str, Field(min_length=1)]

    def level_read(self) -> str | None:
        return self.level


def _fading(half_life_days: float | None) -> tuple[str, str]:
    """Return the name's suffix and the formula's weight for a half-life, None = no decay."""
    if half_life_days is None:
        return "", "1"
    return f"_h{half_life_days:g}d", f"2^(−age/{half_life_days:g} days)"


def _weights(age: Int64, half_life_days: float | None) -> Float64:
    return np.ones(age.shape) if half_life_days is None else fade(age, half_life_days)


class RecencyParameters(Parameters):
    """`recency`: a customer who never came counts as ten years away."""

    undefined: Undefined = 3650.0


@kind("recency", RecencyParameters)
def recency(days: CustomerDays, _: RecencyParameters) -> list[Column]:
    """Days since the last visit."""
    formula = "age of the last visit"
    return [Column("recency", "days", formula, days.last_age().astype(np.float64))]


class SeveralHalfLivesParameters(Parameters):
    """One column per half-life; none listed: one column without decay."""

    half_lives_days: tuple[HalfLife, ...] = ()

    def half_lives(self) -> tuple[float | None, ...]:
        """Return the half-lives, or a single None."""
        return self.half_lives_days or (None,)


@kind("frequency", SeveralHalfLivesParameters)
def frequency(days: CustomerDays, parameters: SeveralHalfLivesParameters) -> list[Column]:
    """Visits, each counting half for every half-life of its age."""
    columns = []
    for half_life_days in parameters.half_lives():
        suffix, weight = _fading(half_life_days)
        total = days.total(_weights(days.age, half_life_days))
        columns.append(Column(f"frequency{suffix}", "visits", f"Σ {weight} over visits", total))
    return columns


class SpendParameters(SeveralHalfLivesParameters):
    """`spend`: reads the amount."""

    def reads(self) -> frozenset[str]:
        """Name the parts of an event that are read."""
        return frozenset({"amount"})


@kind("spend", SpendParameters)
def spend(days: CustomerDays, parameters: SpendParameters) -> list[Column]:
    """Amounts net of returns, each counting half for every half-life of its age."""
    columns = []
    for half_life_days in parameters.half_lives():
        suffix, weight = _fading(half_life_days)
        total = days.total(_weights(days.age, half_life_days) * days.spend)
        formula = f"Σ {weight}·amount over events"
        columns.append(Column(f"spend{suffix}", "amount units", formula, total / days.minor_units))
    return columns


class ShareParameters(_LevelParameters):
    """`share`: of visits or spend, per listed value of a level."""

    values: _Labels
    half_life_days: HalfLife | None = None

    def labels_read(self) -> tuple[str, ...]:
        """List the values that are named one by one."""
        return () if isinstance(self.values, str) else self.values


@kind("share", ShareParameters)
def share(days: CustomerDays, parameters: ShareParameters) -> list[Column]:
    """Divide one's own visits (or what one bought) among the listed values of a level.

    Ages count from the last visit: numerator and denominator change by one factor, the share does
    not, and the denominator cannot vanish for those who left long ago.
    """
    rows = days.levels[parameters.level]
    labels = _listed(rows.level, parameters.values)
    suffix, weight = _fading(parameters.half_life_days)
    last_age = days.last_age()
    position_of_code = np.full(1 + max(rows.level.codes.values(), default=0), -1, dtype=np.int64)
    for position, label in enumerate(labels):
        if label in rows.level.codes:
            position_of_code[rows.level.codes[label]] = position
    known = rows.code < len(position_of_code)
    positions = np.where(known, position_of_code[np.where(known, rows.code, 0)], -1)
    listed = positions >= 0
    customer = rows.customer[listed]
    part = _weights(rows.age[listed] - last_age[customer], parameters.half_life_days)
    whole = _weights(days.age - last_age[days.customer], parameters.half_life_days)
    if parameters.of == "spend":
        part = part * rows.bought[listed]
        whole = whole * days.bought
    cell = customer * len(labels) + positions[listed]
    parts = sum_by(cell, part, days.customer_count * len(labels)).reshape(-1, len(labels))
    shares = ratio(parts, days.total(whole)[:, np.newaxis])
    noun = {"visits": "visits", "spend": "positive amounts"}[parameters.of]
    return [
        Column(
            f"share_{parameters.of}{suffix}:{parameters.level}={label}",
            "share",
            f"Σ {weight} of {noun} with {parameters.level} = {label} ÷ the same of all {noun}",
            shares[:, position],
        )
        for position, label in enumerate(labels)
    ]


def _listed(level: Level, values: tuple[str, ...] | str) -> tuple[str, ...]:
    """Return the labels of a share; one that the taxonomy lacks is a slip of the pen."""
    if isinstance(values, str):
        if not level.in_taxonomy:
            raise InputError(
                f"the taxonomy has no column {level.name!r}, so its values must be listed",
                field="values",
            )
        if not level.values:
            raise InputError(f"the taxonomy has no value of {level.name!r}", field="values")
        return level.values
    unknown = [label for label in values if level.in_taxonomy and label not in level.codes]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is no value of {level.name!r} in the taxonomy, or is excluded",
            field="values",
        )
    return values


class CadenceParameters(Parameters):
    """`cadence`: one visit or none shows no rhythm; it counts as one a year."""

    undefined: Undefined = 365.0


@kind("cadence", CadenceParameters)
def cadence(days: CustomerDays, _: CadenceParameters) -> list[Column]:
    """Median gap between visits, in days; undefined below two visits."""
    formula = "median of the days between consecutive visits"
    return [Column("cadence", "days", formula, _median_gap(days))]


@kind("overdue", Parameters)
def overdue(days: CustomerDays, _: Parameters) -> list[Column]:
    """How many median gaps ago the last visit was; undefined below two visits."""
    formula = "age of the last visit ÷ median of the days between consecutive visits"
    return [Column("overdue", "ratio", formula, days.last_age() / _median_gap(days))]


def _median_gap(days: CustomerDays) -> Float64:
    """Median days between consecutive visits per customer; NaN below two visits."""
    same = days.customer[1:] == days.customer[:-1]
    gap = (days.age[:-1] - days.age[1:])[same]
    customer = days.customer[1:][same]
    sorted_gap = np.sort((customer << AGE_BITS) | gap) & ((1 << AGE_BITS) - 1)
    count = np.bincount(customer, minlength=days.customer_count)
    start = np.cumsum(count) - count
    defined = count > 0
    median = np.full(days.customer_count, np.nan)
    low = sorted_gap[(start + (count - 1) // 2)[defined]]
    high = sorted_gap[(start + count // 2)[defined]]
    median[defined] = (low + high) / 2
    return median


class TrendParameters(_MeasureParameters):
    """`trend`: a short half-life against a long one."""

    short_half_life_days: HalfLife
    long_half_life_days: HalfLife

    @model_validator(mode="after")
    def _ordered(self) -> TrendParameters:
        if self.short_half_life_days >= self.long_half_life_days:
            raise ValueError("short_half_life_days must be below long_half_life_days")
        return self


@kind("trend", TrendParameters)
def trend(days: CustomerDays, parameters: TrendParameters) -> list[Column]:
    """Compare the recent rate with the long-run rate: 1 is steady, 0 gone, at most long/short.

    A rate is Σ 2^(−age/h) ÷ h. Ages count from the last visit and the factor that this leaves,
    2^(−age of the last visit·(1/short − 1/long)), is applied once: no 0/0 for those who left.
    """
    short, long = parameters.short_half_life_days, parameters.long_half_life_days
    last_age = days.last_age()
    age = days.age - last_age[days.customer]
    amount = np.ones(len(age)) if parameters.of == "visits" else days.bought.astype(np.float64)
    steadiness = ratio(days.total(fade(age, short) * amount), days.total(fade(age, long) * amount))
    away = exp(-(last_age * LN2) * (1.0 / short - 1.0 / long))
    noun = {"visits": "visits", "spend": "positive amounts"}[parameters.of]
    formula = f"(Σ 2^(−age/{short:g}) of {noun} ÷ {short:g}) ÷ (the same with {long:g})"
    name = f"trend_{parameters.of}_h{short:g}d_over_h{long:g}d"
    return [Column(name, "ratio", formula, away * steadiness * (long / short))]


@kind("diversity", _LevelParameters)
def diversity(days: CustomerDays, parameters: _LevelParameters) -> list[Column]:
    """Entropy of one's visits (or of what one bought) over the values of a level, in nats.

    log T − (Σ c·log c)/T with integer counts c and T = Σ c; log c = log1p(c − 1). Exactly 0 for a
    single value; undefined if nothing has a value.
    """
    rows = days.levels[parameters.level]
    order = np.lexsort((rows.code, rows.customer))
    customer, code = rows.customer[order], rows.code[order]
    amount = np.ones_like(code) if parameters.of == "visits" else rows.bought[order]
    first = np.ones(len(code), dtype=np.bool_)
    first[1:] = (customer[1:] != customer[:-1]) | (code[1:] != code[:-1])
    start = np.flatnonzero(first)
    count = np.add.reduceat(amount, start) if len(start) else amount
    holds = count > 0
    owner, count = customer[start][holds], count[holds]
    total = sum_by(owner, count.astype(np.float64), days.customer_count)
    kept = sum_by(owner, count * log1p(count - 1), days.customer_count)
    value_count = np.bincount(owner, minlength=days.customer_count)
    entropy = log1p(np.maximum(total - 1.0, 0.0)) - ratio(kept, total)
    noun = {"visits": "visits", "spend": "minor units bought"}[parameters.of]
    return [
        Column(
            f"diversity_{parameters.of}:{parameters.level}",
            "nats",
            f"log T − (Σ c·log c)/T over the {noun} c per value of {parameters.level}, T = Σ c",
            np.where(value_count == 1, 0.0, np.maximum(entropy, 0.0)),
        )
    ]


class BasketSizeParameters(Parameters):
    """`basket_size`: in spend or in lines."""

    of: Literal["spend", "lines"] = "spend"
    half_life_days: HalfLife | None = None

    def reads(self) -> frozenset[str]:
        """Name the parts of an event that are read."""
        return frozenset({"basket", "amount"} if self.of == "spend" else {"basket"})


@kind("basket_size", BasketSizeParameters)
def basket_size(days: CustomerDays, parameters: BasketSizeParameters) -> list[Column]:
    """Mean spend, net of returns, or mean lines per basket; a line is an event.

    Ages count from the last visit, as for shares. A basket that spans two days is one on each.
    """
    suffix, weight = _fading(parameters.half_life_days)
    age = days.age - days.last_age()[days.customer]
    weights = _weights(age, parameters.half_life_days)
    size = days.spend if parameters.of == "spend" else days.line_count
    mean = ratio(days.total(weights * size), days.total(weights * days.basket_count))
    if parameters.of == "spend":
        mean = mean / days.minor_units
    noun, unit = {"spend": ("amount", "amount units"), "lines": ("lines", "lines")}[parameters.of]
    formula = f"Σ {weight}·{noun} ÷ Σ {weight}·baskets, over visits"
    return [Column(f"basket_size_{parameters.of}{suffix}", unit, formula, mean)]
