"""Do the learned propensities hold on the days after the cut? Every pair, none sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.demo.dataset import Purchases
from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine
from visavis.learning import outliers, recalibrated, reliability

__all__ = ["calibration_figures"]

#: Customers scored at a time: dense scores of 2^20 pairs and a thousand capabilities or so.
_ROWS: Final = 1_000

Float64 = npt.NDArray[np.float64]


def calibration_figures(
    purchases: Purchases, learned: Engine, declared: Engine, declared_before: Engine
) -> dict[str, Any]:
    """Reliability of the learned propensities in the window after the base's as_of.

    Parameters
    ----------
    purchases : Purchases
    learned : Engine
        One capability per product, learned weights.
    declared : Engine
        The same with declared weights: the untuned score.
    declared_before : Engine
        The untuned score as of the last window learned from: its scaling is fitted there, so that
        its log-loss is compared as a calibrated score's.

    Returns
    -------
    dict
        As `reliability`, with ``untuned_log_loss`` and ``outliers``.
    """
    propensity, bought = _pairs(purchases, learned, "propensity")
    figures = reliability(propensity.ravel(), bought.ravel())
    untuned, untuned_bought = _pairs(purchases, declared, "linear_predictor")
    before, before_bought = _pairs(purchases, declared_before, "linear_predictor")
    return {
        **figures,
        "untuned_log_loss": recalibrated(
            untuned.ravel(), untuned_bought.ravel(), before.ravel(), before_bought.ravel()
        ),
        "outliers": outliers(propensity.sum(axis=0), bought.sum(axis=0), learned.catalog.ids),
    }


def _pairs(purchases: Purchases, engine: Engine, what: str) -> tuple[Float64, Float64]:
    """One number and whether it was bought, for every pair; (customers, capabilities) each."""
    rows = engine.customer_index
    bought = np.zeros((len(rows), engine.catalog.capability_count))
    outcomes = purchases.outcomes(engine.as_of)
    ids = engine.base.customer_ids.take(pa.array(rows))
    row = pc.index_in(outcomes[CUSTOMER_ID].combine_chunks(), ids)
    column = pc.index_in(outcomes["product"].combine_chunks(), pa.array(engine.catalog.products))
    held = pc.and_(row.is_valid(), column.is_valid())
    bought[row.filter(held).to_numpy(), column.filter(held).to_numpy()] = 1.0
    return np.concatenate(list(_scored(engine, rows, what))), bought


def _scored(engine: Engine, rows: npt.NDArray[np.int64], what: str) -> Iterator[Float64]:
    for begin in range(0, len(rows), _ROWS):
        yield getattr(engine.scores(rows[begin : begin + _ROWS]), what)
