"""Whose best differ most from what is popular, measured in bits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine, Matches

__all__ = ["divergent_customers"]

MEASURE: Final = (
    "mean over the customer's opportunities of −log2 of the share of customers, among those with "
    "opportunities, who are offered that product"
)

#: Width of a bar in the distribution, in bits.
_BAR_BITS: Final = 0.5

#: Sums of the same terms in another order must not decide who comes first.
_DIGITS: Final = 9


def divergent_customers(
    engine: Engine, matches: Matches, *, count: int = 8, popular_count: int = 5
) -> dict[str, Any]:
    """The customers whose opportunities are least like everybody's.

    A product that one customer in 2^b is offered counts b bits, and a customer is the mean of what
    they are offered. It goes by product and not by capability: the channel follows consent, not
    taste. Only customers with as many opportunities as anybody has are listed, because the mean of
    one rare product says little.

    Parameters
    ----------
    engine : Engine
    matches : Matches
        Of that engine.
    count, popular_count : int
        At most so many customers, and popular products.

    Returns
    -------
    dict
        ``measure``, ``customer_count`` (with opportunities), ``median_bits``; ``distribution``
        (low, high, customer_count per half bit); ``popular`` (product, customer_count, share),
        most popular first; ``customers`` (customer_id, bits, opportunities with rank, product,
        channel, and the customer_count that is offered it), most divergent first, ties by id. Empty
        lists where nobody has any.
    """
    result, catalog = matches.result, engine.catalog
    counts = result.opportunity_count
    held = np.arange(result.capability_index.shape[1]) < counts[:, None]
    places, ranks = np.nonzero(held)
    capability = result.capability_index[places, ranks]
    codes, products = catalog.codes("product")
    customers = _customers_by_product(places, codes[capability], len(products))
    total = int((counts > 0).sum())
    share = customers / max(1, total)
    with np.errstate(divide="ignore"):
        product_bits = -np.log2(share)
    sums = np.bincount(places, weights=product_bits[codes[capability]], minlength=len(counts))
    # −0.0 where everybody has all of it.
    bits = np.round(sums / np.maximum(counts, 1), _DIGITS) + 0.0
    full = np.flatnonzero((counts == counts.max(initial=0)) & (counts > 0))
    chosen = full[np.lexsort((full, -bits[full]))][:count]
    popular = np.argsort(-customers, kind="stable")[:popular_count]
    return {
        "measure": MEASURE,
        "customer_count": total,
        "median_bits": float(np.median(bits[counts > 0])) if total else None,
        "distribution": _distribution(bits[counts > 0]),
        "popular": [
            {
                "product": products[p],
                "customer_count": int(customers[p]),
                "share": float(share[p]),
            }
            for p in popular
            if customers[p]
        ],
        "customers": [
            {
                CUSTOMER_ID: engine.base.customer_ids[int(matches.customer_index[place])].as_py(),
                "bits": float(bits[place]),
                "opportunities": _offered(engine, matches, int(place), customers[codes]),
            }
            for place in chosen
        ],
    }


def _offered(
    engine: Engine, matches: Matches, place: int, customers: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """One customer's opportunities; `customers` counts those offered each capability's product."""
    result, catalog = matches.result, engine.catalog
    held = result.capability_index[place, : result.opportunity_count[place]].tolist()
    return [
        {
            "rank": rank + 1,
            "product": catalog.products[j],
            "channel": catalog.channels[j],
            "customer_count": int(customers[j]),
        }
        for rank, j in enumerate(held)
    ]


def _customers_by_product(
    places: npt.NDArray[np.int64], codes: npt.NDArray[np.int32], product_count: int
) -> npt.NDArray[np.int64]:
    """How many customers are offered each product, each customer counted once."""
    pairs = np.unique(places * product_count + codes)
    return np.bincount(pairs % max(1, product_count), minlength=product_count)


def _distribution(bits: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    counts = np.bincount((bits / _BAR_BITS).astype(np.int64)) if len(bits) else np.empty(0, int)
    return [
        {
            "low": _BAR_BITS * place,
            "high": _BAR_BITS * (place + 1),
            "customer_count": int(amount),
        }
        for place, amount in enumerate(counts)
    ]
