"""The demo's catalog with declared weights: what each capability is says how it is scored.

The declared rate of purchase within the window is

    (own decayed purchase-days + PRIOR_DAYS · share of the product) · window · ln 2 / half-life

and its logarithm is linear in a history feature, log1p(days / (PRIOR_DAYS · share)). Learning
(visavis.learning) keeps what is declared here and finds the numbers.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import pyarrow as pa

from visavis.arithmetic import LN2, log
from visavis.catalog import Catalog
from visavis.demo.dataset import CHANNELS, HALF_LIFE_DAYS, WINDOW_DAYS
from visavis.domain import Link

__all__ = ["declare_catalog", "plain_catalog"]

PRIOR_DAYS: Final = 5.0
#: Below 1, own purchase-days count a little less than in proportion. On the window before the cut
#: every customer's own five hit .456 with 0.8, .458 with 0.9, .453 with 1 and .443 with 1.1.
HISTORY_WEIGHT: Final = 0.9
CATEGORY_WEIGHT: Final = 1.0
RECENCY_WEIGHT: Final = -0.01

#: The rule of each category that has one. Alcohol and tobacco ask for a known age (the data set has
#: bands, known by their lower bound); what is for small children is not offered where it is known
#: that there are none.
_ADULT_RULE: Final = "age_from >= 25"
_CHILD_RULE: Final = "kids_count >= 1 or kids_count is null"
CATEGORY_RULES: Final = {
    **dict.fromkeys(
        (
            *("BEERS/ALES", "DOMESTIC WINE", "IMPORTED WINE", "LIQUOR", "MISC WINE"),
            *("CIGARETTES", "CIGARS", "TOBACCO OTHER"),
        ),
        _ADULT_RULE,
    ),
    **dict.fromkeys(
        (
            *("BABY FOODS", "BABY HBC", "BABYFOOD", "DIAPERS & DISPOSABLES"),
            *("INFANT CARE PRODUCTS", "INFANT FORMULA"),
        ),
        _CHILD_RULE,
    ),
}

#: Seasonal categories are offered in their season only: (first day, last day).
CATEGORY_SEASONS: Final = {
    "EASTER": (date(2017, 3, 1), date(2017, 4, 16)),
    "VALENTINE": (date(2017, 1, 15), date(2017, 2, 14)),
    "SPRING/SUMMER SEASONAL": (date(2017, 3, 1), date(2017, 8, 31)),
    "HALLOWEEN": (date(2017, 9, 15), date(2017, 10, 31)),
    "CHRISTMAS  SEASONAL": (date(2017, 11, 1), date(2017, 12, 25)),
}


def declare_catalog(products: pa.Table, indicator_names: tuple[str, ...]) -> Catalog:
    """Every product on every channel.

    Parameters
    ----------
    products : pyarrow.Table
        As `Purchases.products` gives it.
    indicator_names : tuple of str
        The indicators of the base: a category share is weighed where the base has it.
    """
    known = set(indicator_names)
    window = WINDOW_DAYS * LN2 / HALF_LIFE_DAYS
    prior = PRIOR_DAYS * products["share"].to_numpy()
    bias = log(prior * window)
    rows = []
    for position, product in enumerate(products.to_pylist()):
        model = _model(product, float(prior[position]), float(bias[position]), known)
        for channel, cost, _ in CHANNELS:
            rows.append({**model, **_offer(product, channel, cost)})
    return Catalog.from_rows(rows)


def plain_catalog(catalog: Catalog) -> Catalog:
    """One capability per product, without rule, season and cost: the ranking of products alone."""
    first = CHANNELS[0][0]
    one_channel = [j for j, channel in enumerate(catalog.channels) if channel == first]
    table = catalog.take(one_channel).with_columns(cost=0.0).to_table()
    unruled = [
        name for name in table.column_names if name not in ("rule", "valid_from", "valid_to")
    ]
    return Catalog.from_table(table.select(unruled))


def _model(product: dict[str, Any], prior: float, bias: float, known: set[str]) -> dict[str, Any]:
    weights = {"recency": RECENCY_WEIGHT}
    category = f"share_visits_h90d:product_category={product['category']}"
    if category in known:
        weights[category] = CATEGORY_WEIGHT
    term = {
        "kind": "bought",
        "feature": "log_days",
        "half_life_days": HALF_LIFE_DAYS,
        "scale": prior,
        "weight": HISTORY_WEIGHT,
    }
    return {
        "weights": weights,
        "bias": bias,
        "history_weights": [term],
        "link": Link.COUNT.label,
    }


def _offer(product: dict[str, Any], channel: str, cost: float) -> dict[str, Any]:
    name, category = product["product"], product["category"]
    valid_from, valid_to = CATEGORY_SEASONS.get(category, (None, None))
    return {
        "id": f"{name}|{channel}",
        "name": f"{name} by {channel}",
        "product": name,
        "message": f"For you this week: {name.lower()}.",
        "channel": channel,
        "family": product["family"],
        "value": product["cents"] / 100 / product["purchase_days"],
        "cost": cost,
        "rule": CATEGORY_RULES.get(category),
        "valid_from": valid_from,
        "valid_to": valid_to,
    }
