"""What the messages of opportunities need to know of their customers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.serving.context import Terms
from visavis.serving.overrides import OfRows
from visavis.serving.touched import State, with_attributes

__all__ = ["attributes_told"]

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


def attributes_told(
    state: State,
    rows: Int64,
    terms: Terms,
    opportunity_count: Int32,
    capability_index: Int32,
    of_rows: OfRows | None = None,
) -> dict[int, dict[str, Any]]:
    """What the messages of some customers' opportunities need to know of them.

    Parameters
    ----------
    state : State
        That the opportunities were found in, so that both are of one offset.
    rows : ndarray of shape (n,), int64
    terms : Terms
    opportunity_count : ndarray of shape (n,), int32
    capability_index : ndarray of shape (total,), int32
    of_rows : OfRows, optional
        What is otherwise for each of them.

    Returns
    -------
    dict of int to dict
        By place in `rows`; who needs nothing is not there.
    """
    needed_by = state.version.placeholders
    if not needed_by:
        return {}
    told: dict[int, dict[str, Any]] = {}
    columns, start = capability_index.tolist(), 0
    for place, count in enumerate(opportunity_count.tolist()):
        names: set[str] = set()
        for j in columns[start : start + count]:
            names |= needed_by.get(j, frozenset())
        start += count
        if names:
            told[place] = _cells(state, rows[place : place + 1], names, terms)
            said = {} if of_rows is None else of_rows.attributes_of(place)
            told[place] |= {name: said[name] for name in names if name in said}
    return told


def _cells(state: State, row: Int64, names: set[str], terms: Terms) -> dict[str, Any]:
    if state.touched_in(row):
        table, at = with_attributes(state.profiles(row)[0], terms.attributes).attributes, 0
    else:
        part, at = state.version.customers.place(int(row[0]))
        table = part.base.attributes
    found = {name: table[name][at].as_py() for name in names if name in table.column_names}
    said = terms.attributes
    return found | {name: said[name].as_py() for name in names if name in said}
