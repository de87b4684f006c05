"""What an arm captured, with intervals over customers.

Nothing was sent: a *hit* is a contact whose customer bought the product in the window anyway. So a
figure says what was *captured*, never what was caused.

Intervals are percentile bootstraps (Efron 1979): customers are drawn with replacement, as many as
there are, and every figure is worked out again. All arms see the same draws, so that the interval
of a difference is that of paired differences. Contacts, hits and cents are integers below 2^53:
their sums are exact, in whatever order the processor adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from visavis.catalog import Catalog
from visavis.evaluate.arms import Contacts
from visavis.evaluate.outcomes import Outcomes
from visavis.evaluate.scored import Float64, Int64

__all__ = [
    "COLUMNS",
    "CONFIDENCE",
    "Interval",
    "Resampled",
    "Tally",
    "interval",
    "rate",
    "resample",
    "tally",
]

#: Points of a cumulative curve, the last contact included.
CURVE_POINTS: Final = 50

#: What is summed over customers, in this order.
COLUMNS: Final = ("contacts", "hits", "cents", "new_hits", "new_contacts")

#: How much of the bootstrap an interval holds.
CONFIDENCE: Final = 0.95

#: Drawn customers held at a time: 2^22 are 32 MiB of int64.
_DRAWS_AT_ONCE: Final = 1 << 22


class Interval(NamedTuple):
    """A figure and the 95 % of its bootstrap; None where nothing was resampled."""

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """The figure as JSON holds it."""
        return self._asdict()


@dataclass(frozen=True, eq=False)
class Tally:
    """What one arm's contacts captured.

    Attributes
    ----------
    per_customer : ndarray of shape (n, len(COLUMNS)), int64
        Sums by customer who may be matched.
    coverage : float
        Share of the catalog's products that anyone was contacted about.
    redundancy : float
        Of a random pair (customer, product) contacted, the chance that another customer, drawn at
        random, was contacted about that product too: Σ c_p (c_p − 1) / ((n − 1) Σ c_p) with c_p
        the customers contacted about product p. Where everyone is contacted about equally many
        products it is the mean over all pairs of customers of |A ∩ B| / |A|, and their Jaccard
        index follows: J = r / (2 − r) where all overlaps are alike. 1: all get the same; 0: no two
        get the same.
    curve : list of dict
        Contacts, hits and spend after the first contacts of the arm, in its order.
    """

    per_customer: Int64
    coverage: float
    redundancy: float
    curve: list[dict[str, Any]]

    @property
    def sums(self) -> Int64:
        """Of shape (len(COLUMNS),)."""
        return np.asarray(self.per_customer.sum(axis=0))

    @property
    def contacts_per_customer(self) -> dict[str, Any]:
        """Mean, maximum, Gini coefficient and histogram, customers without a contact included."""
        contacts = self.per_customer[:, 0]
        return {
            "mean": float(contacts.mean()),
            "max": int(contacts.max()),
            "gini": gini(contacts),
            "histogram": np.bincount(contacts).tolist(),
        }


def tally(
    contacts: Contacts,
    outcomes: Outcomes,
    catalog: Catalog,
    customer_index: Int64,
    bought: tuple[Int64, Int64],
) -> Tally:
    """Count what an arm's contacts captured.

    A customer's second contact about the same product, through another channel say, is a contact
    but never a hit: the purchase is captured once.

    Parameters
    ----------
    contacts : Contacts
    outcomes : Outcomes
    catalog : Catalog
    customer_index : ndarray of shape (n,), int64
        Rows of the base that may be matched, ascending.
    bought : (customer_index, product_code)
        Pairs bought up to as_of, ascending.
    """
    codes, labels = catalog.codes("product")
    count = len(labels)
    key = contacts.customer_index * count + codes[contacts.capability_index]
    is_first = np.zeros(len(key), dtype=np.bool_)
    is_first[np.unique(key, return_index=True)[1]] = True
    place, is_bought = _find(key, outcomes.customer_index * count + outcomes.product_code)
    is_hit = is_bought & is_first
    cents = np.zeros(len(key), dtype=np.int64)
    cents[is_hit] = outcomes.cents[place[is_hit]]
    is_new = ~_find(key, bought[0] * count + bought[1])[1]
    row = np.searchsorted(customer_index, contacts.customer_index)
    columns = (np.ones(len(key), np.int64), is_hit, cents, is_hit & is_new, is_new)
    per_customer = np.zeros((len(customer_index), len(COLUMNS)), dtype=np.int64)
    for c, column in enumerate(columns):
        np.add.at(per_customer[:, c], row, column)
    reached = np.bincount(key[is_first] % count, minlength=count)
    return Tally(
        per_customer=per_customer,
        coverage=float((reached > 0).mean()),
        redundancy=redundancy(reached, len(customer_index)),
        curve=_curve(is_hit, cents),
    )


def redundancy(reached: Int64, customer_count: int) -> float:
    """How alike what customers get is; see `Tally`.

    Parameters
    ----------
    reached : ndarray of shape (products,), int64
        Customers contacted about each product.
    customer_count : int
    """
    pairs = int(reached.sum())
    if pairs == 0 or customer_count < 2:
        return 0.0
    return int((reached * (reached - 1)).sum()) / (pairs * (customer_count - 1))


def gini(amounts: Int64) -> float:
    """The Gini coefficient: 0 where all have the same, towards 1 where one has everything.

    Σ (2 i − n − 1) a_i / (n Σ a_i) over ascending a_i, i = 1 … n; 0 where nobody has anything.
    """
    ordered, n, total = np.sort(amounts), len(amounts), int(amounts.sum())
    if total == 0:
        return 0.0
    return int(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum()) / (n * total)


def rate(numerator: Float64, denominator: Float64) -> Float64:
    """Their ratio, 0 where nothing is divided by nothing."""
    ratio = np.zeros(np.broadcast(numerator, denominator).shape)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def resample(per_customer: Int64, replicates: int, seed: int) -> Float64:
    """Sums over customers drawn with replacement, as many as there are.

    Parameters
    ----------
    per_customer : ndarray of shape (n, q), int64
    replicates : int
    seed : int

    Returns
    -------
    ndarray of shape (replicates, q), float64
        Whole numbers.
    """
    n = len(per_customer)
    totals = per_customer.astype(np.float64)
    generator = np.random.default_rng(seed)
    sums = np.empty((replicates, per_customer.shape[1]))
    size = max(1, _DRAWS_AT_ONCE // n)
    for begin in range(0, replicates, size):
        drawn_count = min(size, replicates - begin)
        drawn = generator.integers(0, n, size=(drawn_count, n))
        drawn += np.arange(drawn_count)[:, None] * n
        weights = np.bincount(drawn.ravel(), minlength=drawn_count * n).reshape(drawn_count, n)
        sums[begin : begin + drawn_count] = weights.astype(np.float64) @ totals
    return sums


@dataclass(frozen=True, eq=False)
class Resampled:
    """Figures of several arms over the same draws of customers.

    Attributes
    ----------
    observed : ndarray of shape (q,), float64
        Sums over all customers.
    drawn : ndarray of shape (replicates, q), float64
        The same over each draw.
    """

    observed: Float64
    drawn: Float64

    @classmethod
    def of(cls, per_customer: Int64, replicates: int, seed: int) -> Resampled:
        """Draw customers, once for all arms."""
        observed = per_customer.sum(axis=0).astype(np.float64)
        return cls(observed, resample(per_customer, replicates, seed))

    def interval(self, figure: Callable[[Float64], Float64]) -> Interval:
        """A figure of the sums, with its interval; `figure` maps (…, q) to (…)."""
        return interval(float(figure(self.observed)), figure(self.drawn))


def interval(value: float, drawn: Float64) -> Interval:
    """A figure with the 95 % percentile interval of its replicates."""
    if not len(drawn):
        return Interval(value, None, None)
    outside = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(drawn, [outside, 1.0 - outside])
    return Interval(value, float(low), float(high))


def _find(keys: Int64, known: Int64) -> tuple[Int64, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Where each key stands among ascending known ones, and whether it does."""
    place = np.searchsorted(known, keys)
    found = place < len(known)
    found[found] = known[place[found]] == keys[found]
    return place, found


def _curve(is_hit: Sequence[bool] | np.ndarray[Any, Any], cents: Int64) -> list[dict[str, Any]]:
    count = len(cents)
    points = np.unique(np.linspace(0, count, min(CURVE_POINTS, count) + 1).round().astype(int))
    hits = np.concatenate([[0], np.cumsum(is_hit)])
    spent = np.concatenate([[0], np.cumsum(cents)])
    return [
        {"contacts": int(at), "hits": int(hits[at]), "spend": int(spent[at]) / 100} for at in points
    ]
