"""The best customers of one capability, and how many would get it among their own best.

The capability is one that is served, or a draft: what somebody is about to invent. Its *reach* is
the number of customers in whose match it is, exactly. For that each customer's last opportunity
has to be known: they are all matched once per version and context, on first use, and the last of
each list is kept (16 bytes a customer). Then, as in `visavis.rescore.delta`:

- what ranks behind the last of a full list is in no list;
- where no limit can bind, what ranks before it, or meets a list that is not full, is in;
- where a limit can, those customers are matched anew with the capability among the others;
- so is everybody of whom the journal speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.domain import OBJECTED
from visavis.eligibility import without
from visavis.engine import Engine
from visavis.engine.blocks import BLOCK_ROWS, check_count
from visavis.errors import InputError, LimitError
from visavis.history import adjustments
from visavis.kernel import History
from visavis.kernel.arguments import require
from visavis.serving.context import Context, Terms
from visavis.serving.customers import Part
from visavis.serving.matching import match_block
from visavis.serving.touched import State
from visavis.serving.version import ServingVersion, Version

__all__ = ["AUDIENCE_MAX", "Audience", "find_audience"]

#: At most so many customers are named; a campaign that needs more is a job.
AUDIENCE_MAX: Final = 100_000

#: Contexts whose last opportunities are kept, of each version.
_KEPT_MAX: Final = 4

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
    """

    name: ServingVersion
    capability_id: str
    customer_ids: list[str]
    propensity: Float64
    expected_value: Float64
    control: Bools
    possible_count: int
    reach: int | None


class _Asked(NamedTuple):
    """A capability among those that are served.

    Attributes
    ----------
    engine : Engine
        Of a catalog that holds it.
    j : int
        Its index there.
    alone : Catalog
    panel : Panel
        Of it alone.
    rank : float
        Its place in the order of the served catalog, between two if it is a draft.
    closed : ndarray of bool, or None
        What the context leaves out of the engine's catalog.
    """

    engine: Engine
    j: int
    alone: Catalog
    panel: kernel.Panel
    rank: float
    closed: Bools | None

    @property
    def is_draft(self) -> bool:
        """Whether it is not served."""
        return self.rank != self.j


class _Pairs(NamedTuple):
    """Customers who may meet the capability and are worth it, in any order."""

    rows: Int64
    expected_value: Float64
    propensity: Float64


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


def find_audience(
    state: State,
    capability: str | Mapping[str, object],
    context: Context,
    *,
    k: int,
    reach: bool,
    pool: ThreadPoolExecutor,
) -> Audience:
    """See `Serving.find_audience`."""
    version = state.version
    if check_count(k, "k", 1) > AUDIENCE_MAX:
        raise LimitError(f"must be at most {AUDIENCE_MAX}, got {k}", field="k")
    terms = Terms.of(version, context)
    for name in ("as_of", "indicators", "attributes"):
        given = getattr(context, name)
        if given is not None and given != {}:
            reason = "is of one customer: an audience is of all, on the server's day"
            raise InputError(reason, field=f"context.{name}")
    asked = _asked(version, capability, context, terms)
    pairs = _possible(state, asked, terms, pool)
    best = _best(version, pairs, k)
    return Audience(
        state.name,
        asked.alone.ids[0],
        version.customers.ids(pairs.rows[best]),
        pairs.propensity[best],
        pairs.expected_value[best],
        version.control[pairs.rows[best]],
        len(pairs.rows),
        _reach(state, asked, terms, pairs, pool) if reach else None,
    )


def _asked(
    version: Version, capability: str | Mapping[str, object], context: Context, terms: Terms
) -> _Asked:
    require(capability, (str, Mapping), "capability", "an id or a row of a catalog")
    if isinstance(capability, str):
        j = version.catalog.index_of(capability)
        engine, rank, closed = version.engine, float(j), terms.closed
    else:
        engine, j = _with_draft(version, capability)
        rank, closed = j - 0.5, terms.closed
        if closed is not None:
            channels = context.available_channels
            # `only` and `without` say what else there is; a channel that is shut is shut.
            is_shut = channels is not None and engine.catalog.channels[j] not in set(channels)
            closed = np.insert(closed, j, is_shut)
    index = np.array([j])
    return _Asked(engine, j, engine.catalog.take(index), engine.panel_of(index), rank, closed)


def _with_draft(version: Version, row: Mapping[str, object]) -> tuple[Engine, int]:
    """An engine of the served catalog and a draft, and the draft's index."""
    draft = Catalog.from_rows([row])
    name = draft.ids[0]
    if name in version.capability_index:
        raise InputError(f"{name!r} is served: draft under an id of its own", field="id")
    for part in version.customers.parts:
        # Contacts by an id that nobody knew cooled every channel down; of a known one they do not.
        if _names(part.facts, name):
            raise InputError(f"facts name {name!r} already: draft under another id", field="id")
    both = pa.concat_tables([version.catalog.to_table(), draft.to_table()])
    engine = Engine(
        version.customers.stored.head,
        Catalog.from_table(both),
        version.policy,
        as_of=version.as_of,
        variant=version.engine.variant,
        is_part=True,
    )
    return engine, engine.catalog.index_of(name)


def _names(facts: pa.Table, capability_id: str) -> bool:
    column = facts["capability_id"]
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for chunk in chunks:
        named = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if named.index(capability_id).as_py() >= 0:
            return True
    return False


def _possible(state: State, asked: _Asked, terms: Terms, pool: ThreadPoolExecutor) -> _Pairs:
    """Everybody who may meet the capability and is worth it."""
    if asked.closed is not None and asked.closed[asked.j]:
        return _together([])

    def of_part(index: int) -> list[_Pairs]:
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


def _together(found: list[_Pairs]) -> _Pairs:
    nobody = _Pairs(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    return _Pairs(*(np.concatenate(columns) for columns in zip(nobody, *found, strict=True)))


def _of_untouched(state: State, asked: _Asked, terms: Terms, part: Part, touched: Int64) -> _Pairs:
    """The pairs of a part's customers of whom the journal says nothing."""
    version = state.version
    count = part.base.customer_count
    rows = np.arange(part.start, part.start + count)
    is_in = ~version.is_out[rows]
    is_in[touched - part.start] = False
    if asked.is_draft or version.history_rows < part.start + count:
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


def _of_base(asked: _Asked, terms: Terms, base: Base, rows: Int64) -> _Pairs:
    """The pairs of a base, whose customers stand in `rows`: gates and history are computed."""
    engine = asked.engine
    is_in = engine.gates.open_to(asked.j, base.attributes, base.facts, engine.as_of)
    is_in &= ~base.attributes[OBJECTED].to_numpy().astype(np.bool_)
    history = adjustments(base.facts, asked.alone, engine.as_of, customer_count=base.customer_count)
    found = _scored(asked, terms, base.indicators, history, np.arange(len(rows)))
    kept = is_in[found.rows]
    return _Pairs(rows[found.rows[kept]], found.expected_value[kept], found.propensity[kept])


def _scored(
    asked: _Asked, terms: Terms, x: npt.NDArray[np.float32], history: History, rows: Int64
) -> _Pairs:
    numbers = kernel.scores(x, asked.panel, history=history, variant=asked.engine.variant)
    ev, propensity = numbers.expected_value[:, 0], numbers.propensity[:, 0]
    # NaN, where a fact excludes the pair, is not at least anything.
    kept = ev >= (-np.inf if terms.ev_min is None else terms.ev_min)
    return _Pairs(rows[kept], ev[kept], propensity[kept])


def _best(version: Version, pairs: _Pairs, k: int) -> Int64:
    """The places of the k best pairs, best first."""
    ev = pairs.expected_value
    places = np.arange(len(ev))
    if len(ev) > k:
        places = np.flatnonzero(ev >= np.partition(ev, len(ev) - k)[len(ev) - k])
    rank = version.customers.id_rank[pairs.rows[places]]
    best: Int64 = places[np.lexsort((rank, -ev[places]))[:k]]
    return best


def _reach(
    state: State, asked: _Asked, terms: Terms, pairs: _Pairs, pool: ThreadPoolExecutor
) -> int:
    """How many customers would have the capability among their own best."""
    if not len(pairs.rows):
        return 0
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
    blocks = [rows[begin : begin + BLOCK_ROWS] for begin in range(0, len(rows), BLOCK_ROWS)]
    found = pool.map(lambda block: _count_anew(state, asked, terms, block), blocks)
    return int((enters & ~anew).sum()) + sum(found)


def _count_anew(state: State, asked: _Asked, terms: Terms, rows: Int64) -> int:
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
    key: Any = (terms.k, terms.ev_min, terms.limits, closed)
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
