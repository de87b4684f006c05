"""History features: what the facts between one customer and one subject say, as a number.

A capability's ``history_weights`` name features of this registry. A feature is computed in three
steps, so that the part over all facts is done once per (customer, subject) and only the last step
depends on a capability's scale::

    facts ──base──▶ one number per (customer, product) and per (customer, capability)
                       └──combine──▶ one number per (customer, capability): both levels together
                                        └──shape(·, scale)──▶ the feature

=============  =========================================  ==========================  ============
feature        formula                                    says                        scale
=============  =========================================  ==========================  ============
``days``       Σ over fact days of 2^(−age/half_life)     how often, lately           not used
``log_days``   log1p(days / scale)                        the same, with fading gain  days
``log_count``  log1p(Σ count·2^(−age/half_life) / scale)  how much, with fading gain  count
``recency``    2^(−age of the last fact / half_life)      how lately                  not used
``ever``       1                                          whether at all              not used
``log_since``  log1p(age of the last fact / scale)        how long ago                days
``due``        log1p(age of the last fact / mean gap)     how overdue                 not used
``regularity`` m / (m + mean of |gap − m|), m = mean gap  how steadily                not used
=============  =========================================  ==========================  ============

A *fact day* is one (customer, subject, kind, date): several rows of it are one day, and their
counts add up. A day on which a product **and** a capability of it have a fact counts once for
each, and of ``recency``, ``log_since``, ``due`` and ``regularity`` the level with the larger base
speaks. Ages are in days; no half-life means no decay (2^0 = 1). A *gap* lies between two fact days
that follow each other: ``due`` is 0 below two fact days, ``regularity`` below three. Every feature
is 0 for a customer without a fact of its kind.

The arithmetic is bit-reproducible: exp and log1p are the kernel's, and sums run in float64 over
days in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visavis import kernel
from visavis.arithmetic import decay, sum_by

__all__ = ["FEATURES", "FactDays", "Feature"]

Floats: TypeAlias = NDArray[np.float64]


class FactDays(NamedTuple):
    """The fact days of one kind with one level of subject (products or capabilities).

    A *pair* is one (customer, subject) that has at least one fact day.

    Attributes
    ----------
    pair : ndarray of shape (days,), int64
        Which pair each day belongs to, ascending.
    age_days : ndarray of shape (days,), float64
        Days from the fact to as_of, ≥ 0, descending within a pair.
    counts : ndarray of shape (days,), float64
        How often it happened that day; exact integers.
    pair_count : int
    """

    pair: NDArray[np.int64]
    age_days: Floats
    counts: Floats
    pair_count: int


def _decayed_days(days: FactDays, half_life_days: float) -> Floats:
    """Σ over fact days of 2^(−age/half_life)."""
    weights = decay(days.age_days, half_life_days)
    return sum_by(days.pair, weights, days.pair_count)


def _decayed_counts(days: FactDays, half_life_days: float) -> Floats:
    """Σ over fact days of count·2^(−age/half_life)."""
    weights = days.counts * decay(days.age_days, half_life_days)
    return sum_by(days.pair, weights, days.pair_count)


def _last_decay(days: FactDays, half_life_days: float) -> Floats:
    """2^(−age of the last fact / half_life)."""
    return decay(days.age_days[_last_of_pair(days)], half_life_days)


def _closeness(days: FactDays, half_life_days: float) -> Floats:  # noqa: ARG001 - one shape for all
    """1 / (1 + age of the last fact): the later fact of two levels is the larger number."""
    return 1.0 / (1.0 + days.age_days[_last_of_pair(days)])


def _overdue(days: FactDays, half_life_days: float) -> Floats:  # noqa: ARG001 - one shape for all
    """log1p(age of the last fact / mean gap); 0 below two fact days."""
    gap_count, mean_gap, _ = _gaps(days)
    last_age = days.age_days[_last_of_pair(days)]
    return np.where(gap_count > 0, kernel.log1p(last_age / np.maximum(mean_gap, 1.0)), 0.0)


def _steadiness(days: FactDays, half_life_days: float) -> Floats:  # noqa: ARG001 - one shape for all
    """Mean gap / (mean gap + mean absolute deviation of the gaps); 0 below three fact days."""
    gap_count, mean_gap, deviation = _gaps(days)
    mean_deviation = deviation / np.maximum(gap_count, 1.0)
    # Gaps are at least one day, so that the quotient is defined wherever there is a gap.
    return np.where(gap_count > 1, mean_gap / (np.maximum(mean_gap, 1.0) + mean_deviation), 0.0)


def _last_of_pair(days: FactDays) -> NDArray[np.bool_]:
    return np.append(days.pair[1:] != days.pair[:-1], True)[: len(days.pair)]


def _gaps(days: FactDays) -> tuple[Floats, Floats, Floats]:
    """Of each pair: how many gaps, their mean, and the sum of |gap − mean|."""
    inner = days.pair[1:] == days.pair[:-1]
    pair = days.pair[1:][inner]
    gap = (days.age_days[:-1] - days.age_days[1:])[inner]
    gap_count = sum_by(pair, np.ones(len(gap)), days.pair_count)
    mean_gap = sum_by(pair, gap, days.pair_count) / np.maximum(gap_count, 1.0)
    return gap_count, mean_gap, sum_by(pair, np.abs(gap - mean_gap[pair]), days.pair_count)


def _presence(days: FactDays, half_life_days: float) -> Floats:  # noqa: ARG001 - one shape for all
    """1: a pair without a fact does not exist."""
    return np.ones(days.pair_count)


def _as_is(base: Floats, scale: Floats) -> Floats:  # noqa: ARG001 - one shape for all
    """Leave the base: the scale is not used."""
    return base


def _log_scaled(base: Floats, scale: Floats) -> Floats:
    """``log1p(base / scale)``."""
    # A tiny scale may overflow; the adjustment is then refused as not finite.
    with np.errstate(over="ignore"):
        ratio = base / scale
    finite = np.isfinite(ratio)
    return np.where(finite, kernel.log1p(np.where(finite, ratio, 0.0)), np.inf)


def _log_age(base: Floats, scale: Floats) -> Floats:
    """``log1p(age / scale)`` of a closeness 1 / (1 + age)."""
    return _log_scaled(1.0 / base - 1.0, scale)


class Feature(NamedTuple):
    """One way to turn facts into a number.

    Attributes
    ----------
    base : callable (FactDays, half_life_days) -> ndarray of shape (pair_count,), float64
        The number of each pair, ≥ 0.
    combine : callable (ndarray, ndarray) -> ndarray
        How the product's and the capability's numbers join; a missing one is 0.
    shape : callable (ndarray, scale) -> ndarray
        The last step, element by element; `scale` has the shape of its first argument.
    """

    base: Callable[[FactDays, float], Floats]
    combine: Callable[[Floats, Floats], Floats]
    shape: Callable[[Floats, Floats], Floats]


#: Every feature that ``history_weights`` may name.
FEATURES: Final[Mapping[str, Feature]] = MappingProxyType(
    {
        "days": Feature(_decayed_days, np.add, _as_is),
        "due": Feature(_overdue, np.maximum, _as_is),
        "ever": Feature(_presence, np.maximum, _as_is),
        "log_count": Feature(_decayed_counts, np.add, _log_scaled),
        "log_days": Feature(_decayed_days, np.add, _log_scaled),
        "log_since": Feature(_closeness, np.maximum, _log_age),
        "recency": Feature(_last_decay, np.maximum, _as_is),
        "regularity": Feature(_steadiness, np.maximum, _as_is),
    }
)
