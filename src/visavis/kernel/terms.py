"""The largest terms of pairs, which are their reasons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.errors import SchemaError
from visavis.kernel.arguments import as_array, as_count, as_vector, require
from visavis.kernel.calls import check_status
from visavis.kernel.request import checked_history
from visavis.kernel.types import History, Panel, Terms

__all__ = ["largest_terms"]


def largest_terms(
    indicators: npt.ArrayLike,
    panel: Panel,
    customer_index: npt.ArrayLike,
    capability_index: npt.ArrayLike,
    *,
    by_name: npt.ArrayLike,
    count: int,
    history: History | None = None,
    against: npt.ArrayLike | None = None,
) -> Terms:
    """The largest positive terms of some pairs, contribution descending, then name.

    A pair's terms are the products x·w of every indicator, and its adjustment h (docs/score.md,
    "Reasons"). Bias, value and rules play no part.

    Parameters
    ----------
    indicators : array_like of shape (n_customers, n_indicators), float32
    panel : Panel
    customer_index : array_like of shape (n_pairs,), int64
        Rows of `indicators`. Only rows that are named here are looked at.
    capability_index : array_like of shape (n_pairs,), int32
    by_name : array_like of shape (n_indicators + 1,), int64
        The columns in order of their names; the history, as column ``n_indicators``, among them.
    count : int
        At most so many per pair, ≥ 0.
    history : History, optional
        Of the rows of `indicators`.
    against : array_like of shape (n_indicators,), float64, optional
        Taken from the weights first, for distinctive reasons: x·(w − against).

    Returns
    -------
    Terms

    Raises
    ------
    InputError
        Naming the argument and the row or pair.
    """
    require(panel, Panel, "panel", "made by pack")
    x = as_array(indicators, np.float32, "indicators", ndim=2)
    columns = panel.indicator_count
    if x.shape[1] != columns:
        reason = f"must have the panel's {columns} columns, got {x.shape[1]}"
        raise SchemaError(reason, field="indicators")
    customer = as_array(customer_index, np.int64, "customer_index", ndim=1)
    pair_count = len(customer)
    capability = as_vector(capability_index, np.int32, "capability_index", pair_count)
    order = as_vector(by_name, np.int64, "by_name", columns + 1)
    indptr = entries = adjustment = subtracted = None
    if history is not None:
        indptr, entries, adjustment = checked_history(history, len(x))
    if against is not None:
        subtracted = as_vector(against, np.float64, "against", columns)
    width = min(as_count(count, "count"), columns + 1)
    offsets = np.empty(pair_count + 1, dtype=np.int64)
    name_index = np.empty(pair_count * width, dtype=np.int64)
    contribution = np.empty(pair_count * width)
    status = _kernel.largest_terms(
        x,
        panel.packed,
        customer,
        capability,
        indptr,
        entries,
        adjustment,
        order,
        subtracted,
        width,
        offsets,
        name_index,
        contribution,
    )
    check_status(status, x)
    found = offsets[-1]
    return Terms(offsets, name_index[:found], contribution[:found])
