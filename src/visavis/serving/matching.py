"""A request's rows as blocks for the kernel: gathered from many parts, matched on threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.base import Base
from visavis.eligibility import without
from visavis.engine.blocks import BLOCK_ROWS
from visavis.errors import VisavisError
from visavis.history import adjustments
from visavis.kernel import Eligibility, History, MatchResult
from visavis.kernel import Terms as ReasonTerms
from visavis.kernel.request import history_of
from visavis.serving.context import Terms
from visavis.serving.overrides import OfRows, recent_contacts
from visavis.serving.touched import State, with_attributes
from visavis.serving.version import Version

__all__ = [
    "Block",
    "Found",
    "block_of",
    "found_in",
    "match_block",
    "over_threads",
    "reasons_together",
]

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Fewer rows than this are not shared among threads, for each piece reads all capabilities: 16 rows
#: together took 16 µs of processors each, 50 took 13, and 100 to 250 took 11 to 12 (10,240
#: capabilities; `BENCH_ONLY=batches python bench/serving_costs.py`).
_ROWS_OF_A_THREAD: Final = 128

#: The adjustments of one row.
_OfRow = tuple[Int32, npt.NDArray[np.float32]]

_NO_ROW: Final[_OfRow] = (np.zeros(0, np.int32), np.zeros(0, np.float32))

T = TypeVar("T")


class Block(NamedTuple):
    """Some customers, as the kernel takes them.

    Attributes
    ----------
    indicators : ndarray of shape (n, d), float32
    eligible : Eligibility
    history : History or None
    """

    indicators: npt.NDArray[np.float32]
    eligible: Eligibility
    history: History | None


class Found(NamedTuple):
    """The opportunities of some asked customers.

    Attributes
    ----------
    opportunity_count : ndarray of shape (n,), int32
        Of each who was asked for; 0 of who may not be matched.
    capability_index : ndarray of shape (total,), int32
        Customer after customer, best first.
    propensity, expected_value : ndarray of shape (total,), float64
    reasons : Terms or None
        Of each opportunity.
    stats : dict of str to int
        The kernel's counts.
    errors : dict of int to VisavisError
        By place among those asked for.
    """

    opportunity_count: Int32
    capability_index: Int32
    propensity: Float64
    expected_value: Float64
    reasons: ReasonTerms | None
    stats: dict[str, int]
    errors: dict[int, VisavisError]

    @classmethod
    def together(cls, found: Sequence[Found]) -> Found:
        """Those of several blocks, in their order."""
        if len(found) == 1:
            return found[0]
        errors: dict[int, VisavisError] = {}
        start = 0
        for each in found:
            errors |= {start + place: error for place, error in each.errors.items()}
            start += len(each.opportunity_count)
        return cls(
            np.concatenate([each.opportunity_count for each in found]),
            np.concatenate([each.capability_index for each in found]),
            np.concatenate([each.propensity for each in found]),
            np.concatenate([each.expected_value for each in found]),
            None if found[0].reasons is None else reasons_together(_given(found)),
            {name: sum(each.stats[name] for each in found) for name in found[0].stats},
            errors,
        )


def _given(found: Sequence[Found]) -> list[ReasonTerms]:
    return [each.reasons for each in found if each.reasons is not None]


def reasons_together(found: Sequence[ReasonTerms]) -> ReasonTerms:
    """The reasons of several blocks, in their order; at least one."""
    sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(each.offsets) for each in found)])
    return ReasonTerms(
        np.cumsum(sizes),
        np.concatenate([each.name_index for each in found]),
        np.concatenate([each.contribution for each in found]),
    )


def over_threads(
    rows: Int64, pool: ThreadPoolExecutor, threads: int, work: Callable[[Int64], T]
) -> list[T]:
    """Run `work` over blocks of rows; the answers in their order."""
    count = len(rows)
    if count < 2 * _ROWS_OF_A_THREAD or (threads == 1 and count <= BLOCK_ROWS):
        return [work(rows)]
    pieces = max(-(-count // BLOCK_ROWS), min(threads, count // _ROWS_OF_A_THREAD))
    return list(pool.map(work, np.array_split(rows, pieces)))


def match_block(
    state: State,
    rows: Int64,
    terms: Terms,
    *,
    reasons: int | None,
    distinctive: bool,
    of_rows: OfRows | None = None,
) -> Found:
    """The opportunities of some rows.

    Parameters
    ----------
    state : State
    rows : ndarray of shape (n,), int64
        −1 stands for nobody, who has no opportunity.
    terms : Terms
    reasons : int, optional
        At most so many for each; None = none are looked for.
    distinctive : bool
        As of `Matches.to_table`.
    of_rows : OfRows, optional
        What is otherwise for each of them.
    """
    live, block, errors = block_of(state, rows, terms, of_rows)
    return found_in(state.version, terms, len(rows), live, block, errors, reasons, distinctive)


def found_in(
    version: Version,
    terms: Terms,
    count: int,
    live: Int64 | None,
    block: Block,
    errors: dict[int, VisavisError],
    reasons: int | None,
    distinctive: bool,
) -> Found:
    """The opportunities of `count` customers, of whom those at `live` make a block; None = all."""
    engine = version.engine
    result = kernel.match(
        block.indicators,
        engine.panel,
        k=terms.k,
        eligible=block.eligible,
        history=block.history,
        limits=terms.limits,
        ev_min=terms.ev_min,
        variant=engine.variant,
        guess=version.guess,
    )
    counts = result.opportunity_count
    of_asked = counts
    if live is not None:
        of_asked = np.zeros(count, dtype=np.int32)
        of_asked[live] = counts
    capability_index, propensity, expected_value = _flat(result)
    told = None
    if reasons is not None:
        told = kernel.largest_terms(
            block.indicators,
            engine.panel,
            np.arange(len(counts)).repeat(counts),
            capability_index,
            history=block.history,
            by_name=version.reason_order,
            count=reasons,
            against=engine.mean_weights if distinctive else None,
        )
    return Found(of_asked, capability_index, propensity, expected_value, told, result.stats, errors)


def _flat(result: MatchResult) -> tuple[Int32, Float64, Float64]:
    """Capability, propensity and expected value without the places that nothing fills."""
    cells = result.capability_index, result.propensity, result.expected_value
    counts = result.opportunity_count
    if len(counts) == 1:
        cut = slice(0, int(counts[0]))
        return cells[0][0, cut], cells[1][0, cut], cells[2][0, cut]
    if (counts == cells[0].shape[1]).all():
        return cells[0].ravel(), cells[1].ravel(), cells[2].ravel()
    held = np.arange(cells[0].shape[1]) < counts[:, None]
    return cells[0][held], cells[1][held], cells[2][held]


def block_of(
    state: State, rows: Int64, terms: Terms, of_rows: OfRows | None = None
) -> tuple[Int64 | None, Block, dict[int, VisavisError]]:
    """Some rows as a block.

    Returns
    -------
    ndarray of int64, or None
        The places in `rows` of who may be matched, ascending; None = all.
    Block
        Of these.
    dict of int to VisavisError
        By place in `rows`: whose entries in the journal do not fit the base.
    """
    version = state.version
    touched = state.touched_in(rows)
    is_out = version.is_out[rows]
    is_out[rows < 0] = True
    errors: dict[int, VisavisError] = {}
    for place, known in touched.items():
        is_out[place] = known.is_out
        if (fault := known.fault) is not None:
            errors[place] = fault
    live = None
    if is_out.any():
        live = np.flatnonzero(~is_out)
        touched = {at: touched[place] for at, place in enumerate(live.tolist()) if place in touched}
        rows = rows[live]
        of_rows = None if of_rows is None else of_rows.take(live)
    x = _indicators(version, rows, terms, of_rows)
    on_day: History | None = None
    if terms.is_evaluated:
        eligible, on_day = _evaluated(state, rows, terms, of_rows)
    else:
        planes = version.eligible.planes[rows]
        for place, known in touched.items():
            planes[place] = known.planes
        if of_rows is not None:
            _evaluate_some(planes, state, rows, terms, of_rows)
        eligible = Eligibility(planes, terms.plane_index)
    if on_day is not None:
        return live, Block(x, eligible, on_day), errors
    patches = {
        place: (known.capability_index, known.adjustment) for place, known in touched.items()
    }
    return live, Block(x, eligible, history_from(version, rows, patches)), errors


def _indicators(
    version: Version, rows: Int64, terms: Terms, of_rows: OfRows | None
) -> npt.NDArray[np.float32]:
    x = version.customers.indicators(rows)
    if len(terms.columns):
        x = x.copy()
        x[:, terms.columns] = terms.values
    if of_rows is not None and len(of_rows.columns):
        x = x.copy()
        of_rows.replace_indicators(x)
    return x


def _evaluated(
    state: State, rows: Int64, terms: Terms, of_rows: OfRows | None
) -> tuple[Eligibility, History | None]:
    """What the gates say of attributes of the request's own; on another day, history as well."""
    version = state.version
    base, place = state.profiles(rows) if len(rows) else (version.engine.base, rows)
    eligible = _planes(version, base, place, terms, of_rows)
    if terms.closed is not None:
        eligible = without(eligible, terms.closed)
    if terms.as_of == version.as_of:
        return eligible, None
    history = adjustments(
        base.facts, version.catalog, terms.as_of, customer_count=base.customer_count
    )
    return eligible, history_of(history, place)


def _planes(
    version: Version, base: Base, place: Int64, terms: Terms, of_rows: OfRows | None
) -> Eligibility:
    """Every gate but the objection, of a row for each of `place`; what is closed is not."""
    gates = version.engine.gates
    base = with_attributes(base, terms.attributes)
    if of_rows is not None and of_rows.attributes:
        # One customer may stand in every row: all that each row needs of the facts is what cools
        # a channel down.
        recent = recent_contacts(base.facts, version.policy.cool_down_days, terms.as_of)
        base = of_rows.spread(replace(base, facts=recent), place)
        return gates.planes(base.attributes, base.facts, terms.as_of)
    planes, plane_index = gates.planes(base.attributes, base.facts, terms.as_of)
    return Eligibility(planes[place], plane_index)


def _evaluate_some(
    planes: npt.NDArray[np.uint64], state: State, rows: Int64, terms: Terms, of_rows: OfRows
) -> None:
    """Put in place what the gates say of those whose attributes are otherwise."""
    places = np.flatnonzero(of_rows.is_evaluated)
    if not len(places):
        return
    base, place = state.profiles(rows[places])
    found, _ = _planes(state.version, base, place, terms, of_rows.take(places))
    # The version's have room for a plane that nobody is in.
    planes[places] = 0
    planes[places, : found.shape[1]] = found


def history_from(version: Version, rows: Int64, patches: dict[int, _OfRow]) -> History | None:
    """The adjustments of some rows; those in `patches`, by place, instead of the version's."""
    kept = version.history
    is_kept = version.history_rows == version.customers.count
    if is_kept and not len(kept.adjustment) and not patches:
        return None
    if is_kept and not patches:
        if len(rows) == 1:
            row = rows[0]
            begin, end = kept.indptr[row], kept.indptr[row + 1]
            indptr = np.array([0, end - begin], dtype=np.int64)
            return History(indptr, kept.capability_index[begin:end], kept.adjustment[begin:end])
        return history_of(kept, rows)
    if not is_kept:
        patches = {**_from_facts(version, rows, patches), **patches}
    base_rows = np.where(rows < version.history_rows, rows, 0)
    sizes = kept.indptr[base_rows + 1] - kept.indptr[base_rows] if len(kept.indptr) > 1 else 0
    sizes = np.zeros(len(rows), dtype=np.int64) + sizes
    for place, (capability_index, _) in patches.items():
        sizes[place] = len(capability_index)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    capability = np.empty(indptr[-1], dtype=np.int32)
    adjustment = np.empty(indptr[-1], dtype=np.float32)
    starts = indptr.tolist()
    rest = np.ones(len(rows), dtype=np.bool_)
    for place, (of_row, amounts) in patches.items():
        capability[starts[place] : starts[place + 1]] = of_row
        adjustment[starts[place] : starts[place + 1]] = amounts
        rest[place] = False
    others = np.flatnonzero(rest)
    if len(others):
        of_others = history_of(kept, rows[others])
        begins = of_others.indptr[:-1]
        # Neighbouring rows come as a view whose first entry is not the first of the arrays.
        source = np.arange(of_others.indptr[0], of_others.indptr[-1])
        at = source + np.repeat(indptr[others] - begins, sizes[others])
        capability[at] = of_others.capability_index[source]
        adjustment[at] = of_others.adjustment[source]
    return History(indptr, capability, adjustment)


def _from_facts(version: Version, rows: Int64, patches: dict[int, _OfRow]) -> dict[int, _OfRow]:
    """The adjustments of rows that are not kept in memory, by place."""
    places = [
        place
        for place, row in enumerate(rows.tolist())
        if row >= version.history_rows and place not in patches
    ]
    if not places:
        return {}
    distinct, back = np.unique(rows[places], return_inverse=True)
    found: list[_OfRow] = [_NO_ROW] * len(distinct)
    for part, at, rows_in in version.customers.by_part(distinct):
        facts = part.rows(rows_in).facts
        history = adjustments(facts, version.catalog, version.as_of, customer_count=len(rows_in))
        starts = history.indptr.tolist()
        for number, place in enumerate(np.arange(len(distinct))[at].tolist()):
            cut = slice(starts[number], starts[number + 1])
            found[place] = history.capability_index[cut], history.adjustment[cut]
    return {place: found[number] for place, number in zip(places, back.tolist(), strict=True)}
