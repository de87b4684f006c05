"""One customer who is asked for without a context: the usual request, by the short way.

What is unusual about a customer (unknown, out, an entry that does not fit, a history that is not
kept) is left to the long way, which answers all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visavis.errors import InputError, NotFoundError
from visavis.serving.answer import Answer
from visavis.serving.telling import attributes_told
from visavis.serving.touched import State

__all__ = ["answer_single"]


def answer_single(
    state: State,
    customer_ids: Sequence[str],
    *,
    reasons: int | None,
    distinctive: bool,
    wording: bool,
) -> Answer | None:
    """What `Serving.match` answers about one customer; None if it has to look closer.

    Parameters
    ----------
    state : State
    customer_ids : sequence of one str
    reasons, distinctive, wording
        As of `Serving.match`.
    """
    version = state.version
    customers = version.customers
    try:
        row = customers.row(customer_ids[0])
    except (InputError, NotFoundError):
        return None
    index = customers.part_of(row)
    part, known = customers.parts[index], state.touched[index].get(row)
    if known is not None:
        if known.is_out or known.error is not None or (wording and version.placeholders):
            return None
        planes, history = known.planes, (known.capability_index, known.adjustment)
    else:
        if version.is_out[row] or row >= version.history_rows:
            return None
        planes, kept = version.eligible.planes[row], version.history
        entries = slice(kept.indptr[row], kept.indptr[row + 1])
        history = kept.capability_index[entries], kept.adjustment[entries]
    x = part.base.indicators[row - part.start]
    found = version.single.match(x, planes, history, reasons=reasons, distinctive=distinctive)
    count = np.array([len(found.capability_index)], dtype=np.int32)
    told: dict[int, dict[str, Any]] = {}
    if wording and version.placeholders:
        rows = np.array([row])
        told = attributes_told(state, rows, state.plain, count, found.capability_index)
    return Answer(
        state.name,
        version,
        customer_ids,
        {},
        count,
        version.control[row : row + 1],
        found.capability_index,
        found.propensity,
        found.expected_value,
        found.terms,
        found.stats,
        told,
    )
