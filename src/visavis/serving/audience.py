"""The best customers of one capability, and how many would get it among their own best.

The capability is one that is served, or a draft: what somebody is about to invent. Of one that is
served, on the served day, planes and adjustments are ready; otherwise gates and history of that one
capability are computed for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.base import Base
from visavis.domain import OBJECTED
from visavis.engine.blocks import BLOCK_ROWS, check_count
from visavis.errors import InputError, LimitError
from visavis.history import adjustments
from visavis.kernel import History
from visavis.kernel import Terms as ReasonTerms
from visavis.serving.asked import Asked, Pairs
from visavis.serving.context import Context, Terms
from visavis.serving.customers import Part
from visavis.serving.matching import reasons_together
from visavis.serving.reach import reach_of
from visavis.serving.touched import State
from visavis.serving.version import ServingVersion, Version

__all__ = ["AUDIENCE_MAX", "Audience", "find_audience"]

#: At most so many customers are named; a campaign that needs more is a job.
AUDIENCE_MAX: Final = 100_000

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Audience:
    """The best customers of a capability.

    Attributes
    ----------
    name : ServingVersion
    capability_id : str
    customer_ids : list of str
        By expected value descending, then id.
    propensity, expected_value : ndarray of float64
    control : ndarray of bool
        Who must not be contacted.
    possible_count : int
        Customers who may meet it at all, and are worth it.
    reach : int or None
        Customers who would get it among their own best; None if not asked for.
    indicator_names : tuple of str
        What `reasons` point into.
    reasons : Terms or None
        Of each customer, as of an opportunity, in CSR form; None if not asked for.
    """

    name: ServingVersion
    capability_id: str
    customer_ids: list[str]
    propensity: Float64
    expected_value: Float64
    control: Bools
    possible_count: int
    reach: int | None
    indicator_names: tuple[str, ...] = ()
    reasons: ReasonTerms | None = None


def find_audience(
    state: State,
    capability: str | Mapping[str, object],
    context: Context,
    *,
    k: int,
    reach: bool,
    reasons: int | None,
    pool: ThreadPoolExecutor,
) -> Audience:
    """See `Serving.find_audience`."""
    version = state.version
    if check_count(k, "k", 1) > AUDIENCE_MAX:
        raise LimitError(f"must be at most {AUDIENCE_MAX}, got {k}", field="k")
    terms = Terms.of(version, context)
    for name in ("indicators", "attributes"):
        if getattr(context, name) != {}:
            reason = "is of one customer: an audience is of all"
            raise InputError(reason, field=f"context.{name}")
    asked = Asked.of(version, capability, context, terms)
    pairs = _possible(state, asked, terms, pool)
    best = _best(version, pairs, k)
    rows = pairs.rows[best]
    return Audience(
        state.name_on(terms.as_of),
        asked.alone.ids[0],
        version.customers.ids(rows),
        pairs.propensity[best],
        pairs.expected_value[best],
        version.control[rows],
        len(pairs.rows),
        reach_of(state, asked, terms, pairs, pool) if reach else None,
        version.indicator_names,
        None if reasons is None else _reasons(state, asked, rows, reasons),
    )


def _reasons(state: State, asked: Asked, rows: Int64, count: int) -> ReasonTerms:
    """The reasons of some customers, in their order."""
    version, found = state.version, []
    for begin in range(0, max(1, len(rows)), BLOCK_ROWS):
        block = rows[begin : begin + BLOCK_ROWS]
        base, place = state.profiles(block) if len(block) else (version.engine.base, block)
        history = adjustments(
            base.facts, asked.alone, asked.engine.as_of, customer_count=base.customer_count
        )
        told = kernel.largest_terms(
            base.indicators,
            asked.panel,
            place,
            np.zeros(len(block), dtype=np.int32),
            history=history,
            by_name=version.reason_order,
            count=count,
        )
        found.append(told)
    return reasons_together(found)


def _possible(state: State, asked: Asked, terms: Terms, pool: ThreadPoolExecutor) -> Pairs:
    """Everybody who may meet the capability and is worth it."""
    if asked.closed is not None and asked.closed[asked.j]:
        return _together([])

    def of_part(index: int) -> list[Pairs]:
        part, known = state.version.customers.parts[index], state.touched[index]
        found = [_of_untouched(state, asked, terms, part, np.array(sorted(known), np.int64))]
        rows = np.array(
            sorted(row for row, each in known.items() if not each.is_out and each.error is None),
            dtype=np.int64,
        )
        if len(rows):
            # Rows of a part stand in the order of their ids, as the profiles do.
            found.append(_of_base(asked, terms, state.profiles(rows)[0], rows))
        return found

    parts = pool.map(of_part, range(len(state.touched)))
    return _together([each for found in parts for each in found])


def _together(found: list[Pairs]) -> Pairs:
    nobody = Pairs(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    return Pairs(*(np.concatenate(columns) for columns in zip(nobody, *found, strict=True)))


def _of_untouched(state: State, asked: Asked, terms: Terms, part: Part, touched: Int64) -> Pairs:
    """The pairs of a part's customers of whom the journal says nothing."""
    version = state.version
    count = part.base.customer_count
    rows = np.arange(part.start, part.start + count)
    is_in = ~version.is_out[rows]
    is_in[touched - part.start] = False
    if not asked.is_ready or version.history_rows < part.start + count:
        base = part.rows(np.flatnonzero(is_in))
        return _of_base(asked, terms, base, rows[is_in])
    q = int(version.eligible.plane_index[asked.j])
    if q >= 0:
        words = version.eligible.planes[rows, q // 64]
        is_in &= (words >> np.uint64(q % 64)) & np.uint64(1) != 0
    x = part.base.indicators[is_in]
    history = _column(version.history, rows[is_in], asked.j)
    return _scored(asked, terms, x, history, rows[is_in])


def _column(history: History, rows: Int64, j: int) -> History:
    """The adjustments of some rows with one capability."""
    begin, end = history.indptr[rows], history.indptr[rows + 1]
    if not len(rows):
        nothing = history.capability_index[:0], history.adjustment[:0]
        return History(np.zeros(1, np.int64), *nothing)
    cut = slice(int(begin[0]), int(end[-1]))
    at = np.flatnonzero(history.capability_index[cut] == j) + cut.start
    row = np.searchsorted(begin, at, side="right") - 1
    # Entries between two rows belong to somebody who was not asked for.
    inside = at < end[row]
    at, row = at[inside], row[inside]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
    zeros = np.zeros(len(at), dtype=np.int32)
    return History(indptr.astype(np.int64), zeros, history.adjustment[at])


def _of_base(asked: Asked, terms: Terms, base: Base, rows: Int64) -> Pairs:
    """The pairs of a base, whose customers stand in `rows`: gates and history are computed."""
    engine = asked.engine
    is_in = engine.gates.open_to(asked.j, base.attributes, base.facts, engine.as_of)
    is_in &= ~base.attributes[OBJECTED].to_numpy().astype(np.bool_)
    history = adjustments(base.facts, asked.alone, engine.as_of, customer_count=base.customer_count)
    found = _scored(asked, terms, base.indicators, history, np.arange(len(rows)))
    kept = is_in[found.rows]
    return Pairs(rows[found.rows[kept]], found.expected_value[kept], found.propensity[kept])


def _scored(
    asked: Asked, terms: Terms, x: npt.NDArray[np.float32], history: History, rows: Int64
) -> Pairs:
    numbers = kernel.scores(x, asked.panel, history=history, variant=asked.engine.variant)
    ev, propensity = numbers.expected_value[:, 0], numbers.propensity[:, 0]
    # NaN, where a fact excludes the pair, is not at least anything.
    kept = ev >= (-np.inf if terms.ev_min is None else terms.ev_min)
    return Pairs(rows[kept], ev[kept], propensity[kept])


def _best(version: Version, pairs: Pairs, k: int) -> Int64:
    """The places of the k best pairs, best first."""
    ev = pairs.expected_value
    places = np.arange(len(ev))
    if len(ev) > k:
        places = np.flatnonzero(ev >= np.partition(ev, len(ev) - k)[len(ev) - k])
    rank = version.customers.id_rank[pairs.rows[places]]
    best: Int64 = places[np.lexsort((rank, -ev[places]))[:k]]
    return best
