"""The reach of a capability: how many customers would have it among their own best, exactly.

Each customer's last opportunity has to be known for that: everybody is matched once per version and
context, on first use, and the last of each list is kept (16 bytes a customer). Then, as in
`visavis.rescore.delta`:

- what ranks behind the last of a full list is in no list;
- where no limit can bind, what ranks before it, or meets a list that is not full, is in;
- where a limit can, those customers are matched anew with the capability among the others;
- so is everybody of whom the journal speaks;
- and everybody who may meet a draft that stands in a served one's place: lists change that the
  served one was in, whether or not the draft is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.eligibility import without
from visavis.engine.blocks import BLOCK_ROWS
from visavis.history import adjustments
from visavis.serving.asked import Asked, Pairs
from visavis.serving.context import Terms
from visavis.serving.matching import match_block
from visavis.serving.touched import State
from visavis.serving.version import Version

__all__ = ["reach_of"]

#: Contexts whose last opportunities are kept, of each version.
_KEPT_MAX: Final = 4

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class _Lasts(NamedTuple):
    """The last opportunity of each full list: whatever ranks behind it is in none.

    Attributes
    ----------
    expected_value : ndarray of shape (n,), float64
        −inf where the list is not full.
    capability : ndarray of shape (n,), float64
        Its index; +inf where the list is not full.
    """

    expected_value: Float64
    capability: Float64


def reach_of(
    state: State, asked: Asked, terms: Terms, pairs: Pairs, pool: ThreadPoolExecutor
) -> int:
    """How many customers would have the capability among their own best."""
    if not len(pairs.rows):
        return 0
    if asked.stands_in:
        return _counted(state, asked, terms, np.sort(pairs.rows), pool)
    lasts = _lasts(state.version, terms, pool)
    ev, last = pairs.expected_value, lasts.expected_value[pairs.rows]
    before = lasts.capability[pairs.rows] >= asked.rank
    enters = (ev > last) | ((ev == last) & before)
    part = state.version.customers.parts_of(pairs.rows)
    is_touched = np.zeros(len(ev), dtype=np.bool_)
    for index in np.flatnonzero([bool(each) for each in state.touched]):
        known = np.array(sorted(state.touched[index]), dtype=np.int64)
        of_part = part == index
        is_touched[of_part] = np.isin(pairs.rows[of_part], known)
    anew = is_touched
    if any(limit is not None and limit < terms.k for limit in terms.limits):
        anew = anew | enters
    rows = np.sort(pairs.rows[anew])
    return int((enters & ~anew).sum()) + _counted(state, asked, terms, rows, pool)


def _counted(
    state: State, asked: Asked, terms: Terms, rows: Int64, pool: ThreadPoolExecutor
) -> int:
    blocks = [rows[begin : begin + BLOCK_ROWS] for begin in range(0, len(rows), BLOCK_ROWS)]
    return sum(pool.map(lambda block: _count_anew(state, asked, terms, block), blocks))


def _count_anew(state: State, asked: Asked, terms: Terms, rows: Int64) -> int:
    """How many of some customers have the capability in their match."""
    if not asked.is_draft:
        found = match_block(state, rows, terms, reasons=None, distinctive=False)
        return int((found.capability_index == asked.j).sum())
    engine = asked.engine
    base, _ = state.profiles(rows)
    eligible = engine.gates.planes(base.attributes, base.facts, engine.as_of)
    if asked.closed is not None:
        eligible = without(eligible, asked.closed)
    result = kernel.match(
        base.indicators,
        engine.panel,
        k=terms.k,
        eligible=eligible,
        history=adjustments(
            base.facts, engine.catalog, engine.as_of, customer_count=base.customer_count
        ),
        limits=terms.limits,
        ev_min=terms.ev_min,
        variant=engine.variant,
    )
    return int((result.capability_index == asked.j).sum())


def _lasts(version: Version, terms: Terms, pool: ThreadPoolExecutor) -> _Lasts:
    """The last opportunities of everybody, of whom nothing was recorded; kept for the next time."""
    closed = b"" if terms.closed is None else np.packbits(terms.closed).tobytes()
    key: Any = (terms.as_of, terms.k, terms.ev_min, terms.limits, closed)
    # One at a time: two who ask for the same at once would match everybody twice.
    with version.lock:
        known = version.kept.pop(key, None)
        if known is None:
            known = _computed_lasts(version, terms, pool)
        version.kept[key] = known
        while len(version.kept) > _KEPT_MAX:
            del version.kept[next(iter(version.kept))]
    lasts: _Lasts = known
    return lasts


def _computed_lasts(version: Version, terms: Terms, pool: ThreadPoolExecutor) -> _Lasts:
    state = State.first(version, 0)
    n = version.customers.count
    lasts = _Lasts(np.full(n, -np.inf), np.full(n, np.inf))

    def run(begin: int) -> None:
        rows = np.arange(begin, min(n, begin + BLOCK_ROWS))
        found = match_block(state, rows, terms, reasons=None, distinctive=False)
        ends = np.cumsum(found.opportunity_count)
        is_full = found.opportunity_count == terms.k
        lasts.expected_value[rows[is_full]] = found.expected_value[ends[is_full] - 1]
        lasts.capability[rows[is_full]] = found.capability_index[ends[is_full] - 1]

    for _ in pool.map(run, range(0, n, BLOCK_ROWS)):
        pass
    return lasts
