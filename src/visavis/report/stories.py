"""Three customers, told from a match: what each gets and why, and why not the next best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine, Matches
from visavis.report.reached import open_capabilities
from visavis.words import reason_in_words

__all__ = ["customer_stories"]

Float64 = npt.NDArray[np.float64]


def customer_stories(
    engine: Engine, matches: Matches, table: pa.Table, count: int = 3
) -> list[dict[str, Any]]:
    """Customers spread evenly over those with full lists, so that nobody picked them.

    Parameters
    ----------
    engine : Engine
    matches : Matches
        Of that engine.
    table : pyarrow.Table
        ``matches.to_table()``, with the reasons to tell.
    count : int

    Returns
    -------
    list of dict
        ``customer_id``, ``is_control``, ``opportunities`` (rank, capability_id, name, product,
        channel, family, propensity, expected_value, reasons in words) and ``not_chosen`` (kind,
        the capability as above, verdict, remedies), where kind is

        - ``next_best``: the open capability of highest expected value that is no opportunity;
        - ``next_product``: the same among products that the customer is not offered, where the
          next best is only another form of one that is;
        - ``closed``: the closed one of highest expected value, where it would have come before
          the last opportunity.
    """
    counts = matches.result.opportunity_count
    begins = np.concatenate([[0], np.cumsum(counts.astype(np.int64))])
    told = []
    for place in _spread(counts, count):
        rows = table.slice(int(begins[place]), int(counts[place])).to_pylist()
        i = int(matches.customer_index[place])
        held = matches.result.capability_index[place, : counts[place]].tolist()
        told.append(
            {
                "customer_id": rows[0][CUSTOMER_ID],
                "is_control": rows[0]["control"],
                "opportunities": [
                    _opportunity(engine, i, j, row) for j, row in zip(held, rows, strict=True)
                ],
                "not_chosen": _not_chosen(engine, i, held),
            }
        )
    return told


def _spread(counts: npt.NDArray[np.int32], count: int) -> list[int]:
    """Places in the match, evenly spread over the customers with most opportunities."""
    most = int(counts.max(initial=0))
    if not most or count < 1:
        return []
    rows = np.flatnonzero(counts == most)
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return [int(rows[int(place)]) for place in chosen]


def _opportunity(engine: Engine, i: int, j: int, row: dict[str, Any]) -> dict[str, Any]:
    base, catalog = engine.base, engine.catalog
    reasons = [
        reason_in_words(base, catalog, i, j, each["indicator"], as_of=engine.as_of)
        for each in row["reasons"]
    ]
    return {
        "rank": row["rank"],
        **_capability(engine, j),
        "propensity": row["propensity"],
        "expected_value": row["expected_value"],
        "reasons": reasons,
    }


def _capability(engine: Engine, j: int) -> dict[str, Any]:
    catalog = engine.catalog
    return {
        "capability_id": catalog.ids[j],
        "name": catalog.names[j],
        "product": catalog.products[j],
        "channel": catalog.channels[j],
        "family": catalog.families[j],
    }


def _not_chosen(engine: Engine, i: int, held: Sequence[int]) -> list[dict[str, Any]]:
    numbers = engine.scores([i])
    # No score exists where a fact excludes: such a pair is nobody's next best.
    value = np.nan_to_num(numbers.expected_value[0], nan=-np.inf)
    others = np.isfinite(value)
    others[held] = False
    is_open = open_capabilities(engine, i)
    found: list[tuple[str, int]] = []
    products = engine.catalog.codes("product")[0]
    if (j := _best(value, others & is_open)) is not None:
        found.append(("next_best", j))
        if products[j] in products[held]:
            elsewhere = others & is_open & ~np.isin(products, products[held])
            if (other := _best(value, elsewhere)) is not None:
                found.append(("next_product", other))
    shut = _best(value, others & ~is_open)
    # Ties go to the lower index, as everywhere.
    if shut is not None and (-value[shut], shut) < (-value[held[-1]], held[-1]):
        found.append(("closed", shut))
    return [_explained(engine, i, kind, j) for kind, j in found]


def _best(value: Float64, among: npt.NDArray[np.bool_]) -> int | None:
    if not among.any():
        return None
    return int(np.argmax(np.where(among, value, -np.inf)))


def _explained(engine: Engine, i: int, kind: str, j: int) -> dict[str, Any]:
    why = engine.explain(engine.base.customer_ids[i].as_py(), engine.catalog.ids[j])
    return {
        "kind": kind,
        **_capability(engine, j),
        "propensity": why.propensity,
        "expected_value": why.expected_value,
        "verdict": why.verdict,
        "remedies": list(why.remedies),
    }
