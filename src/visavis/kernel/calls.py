"""The calls: arguments bound to the compiled core, its answers as arrays, its status as errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.domain import MAGNITUDE_MAX
from visavis.errors import InputError, LimitError
from visavis.kernel.arguments import (
    as_array,
    as_guess,
    as_number,
    as_parts,
    as_positive,
    as_vector,
    group_codes,
    link_codes,
    refuse_where,
    require,
)
from visavis.kernel.request import RESULT_CELLS_MAX, Request, bound, request_of
from visavis.kernel.types import (
    AudienceResult,
    Candidates,
    Eligibility,
    Float32,
    Float64,
    History,
    Limits,
    MatchResult,
    Panel,
    ScoresResult,
)
from visavis.kernel.variant import Variant, chosen_variant

__all__ = [
    "audience",
    "check_status",
    "checked",
    "empty_match",
    "limit_numbers",
    "match",
    "pack",
    "scores",
    "screening",
    "verify",
]

#: Upper bound of customers × capabilities in one call of `scores`: 2^26 pairs fill 1.5 GiB.
DENSE_PAIRS_MAX: Final = 2**26

#: Columns are padded to a multiple of the eight partial sums of a dot product.
LANE_COUNT: Final = 8

_STATUS_REASON: Final = {
    2: ("indicators", "must be finite"),
    3: ("history.indptr", "must ascend within the number of entries"),
    4: ("history.capability_index", "is out of range"),
    5: ("history.capability_index", "must ascend within a row, without duplicates"),
    6: ("history.adjustment", "must be finite or −inf"),
    7: ("candidates.indptr", "must ascend within the number of entries"),
    8: ("candidates.capability_index", "is out of range"),
    9: ("candidates.capability_index", "must ascend within a row, without duplicates"),
    10: ("candidates.beyond", "must not be NaN"),
    11: ("customer_index", "is no row of the indicators"),
    12: ("capability_index", "is out of range"),
    13: ("by_name", "must hold every column, and one for the history, once"),
    14: ("against", "must be finite"),
}

_STATS: Final = ("skipped_by_rule", "skipped_by_bound", "screened", "verified", "rescreens")
_STAGES: Final = ("quantise", "history", "screen", "verify", "walk")


def pack(
    weights: npt.ArrayLike,
    bias: npt.ArrayLike,
    *,
    value: npt.ArrayLike,
    cost: npt.ArrayLike,
    link: str | Sequence[str],
    product: npt.ArrayLike | None = None,
    channel: npt.ArrayLike | None = None,
    family: npt.ArrayLike | None = None,
    indicator_scale: npt.ArrayLike | None = None,
    plane_index: npt.ArrayLike | None = None,
) -> Panel:
    """Pack capabilities for `match`, `audience` and `scores`.

    Parameters
    ----------
    weights : array_like of shape (n_capabilities, n_indicators), float32
    bias : array_like of shape (n_capabilities,), float32
    value : array_like of shape (n_capabilities,), float64
        0 ≤ value ≤ 2^100.
    cost : array_like of shape (n_capabilities,), float64
        |cost| ≤ 2^100; may be negative.
    link : str or sequence of str
        ``logistic``, ``count`` or ``identity``, one for all or one per capability.
    product, channel, family : array_like of shape (n_capabilities,), int32, optional
        Codes that limits count by; default: each capability is a group of its own.
    indicator_scale : array_like of shape (n_indicators,), float32, optional
        The usual size of each indicator, say its root mean square. No result depends on it, but
        with indicators of very different sizes a screen excludes far more pairs.
    plane_index : array_like of shape (n_capabilities,), int32, optional
        The planes of the eligibility that calls will bring. No result depends on it, but
        capabilities that share a plane are then passed over together.

    Returns
    -------
    Panel

    Raises
    ------
    InputError
        Naming the argument and the row: nothing is silently repaired.
    """
    w = as_array(weights, np.float32, "weights", ndim=2)
    count, columns = w.shape
    if count < 1:
        raise InputError("must hold at least one capability", field="weights")
    if columns < 1:
        raise InputError("must hold at least one indicator", field="weights")
    if count >= 2**31:
        raise LimitError("must hold fewer than 2^31 capabilities", field="weights")
    refuse_where(~np.isfinite(w), "weights", "must be finite", w)
    padded = np.zeros((count, -(-columns // LANE_COUNT) * LANE_COUNT), dtype=np.float32)
    padded[:, :columns] = w
    # Copies: what was checked must still hold when the caller writes to its arrays.
    b = as_vector(bias, np.float32, "bias", count).copy()
    v = as_vector(value, np.float64, "value", count).copy()
    c = as_vector(cost, np.float64, "cost", count).copy()
    refuse_where(~np.isfinite(b), "bias", "must be finite", b)
    refuse_where(~((v >= 0) & (v <= MAGNITUDE_MAX)), "value", "must lie in [0, 2^100]", v)
    refuse_where(~(np.abs(c) <= MAGNITUDE_MAX), "cost", "must lie in [−2^100, 2^100]", c)
    groups = [
        group_codes(given, name, count)
        for given, name in ((product, "product"), (channel, "channel"), (family, "family"))
    ]
    products, channels, families = groups
    counts = (int(products.max()) + 1, int(channels.max()) + 1, int(families.max()) + 1)
    codes = link_codes(link, count)
    packed = _kernel.PackedPanel(
        padded, columns, b, v, c, codes, products, channels, families, counts
    )
    scale = planes = None
    if indicator_scale is not None:
        scale = as_vector(indicator_scale, np.float32, "indicator_scale", columns).copy()
    if plane_index is not None:
        planes = as_vector(plane_index, np.int32, "plane_index", count).copy()
    return Panel(packed, scale, planes)


def match(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    k: int,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    limits: Limits | None = None,
    ev_min: float | None = 0.0,
    variant: str | None = None,
    block: tuple[int, int] = (0, 0),
    guess: float = math.nan,
) -> MatchResult:
    """The best opportunities of every customer, exactly.

    Parameters
    ----------
    indicators : array_like of shape (n_customers, n_indicators), float32
    panel : Panel
    k : int
        At most so many opportunities per customer, ≥ 1.
    eligible : ndarray of shape (n_customers, n_capabilities), bool, or Eligibility, optional
        Default: every pair may meet.
    history : History, optional
    limits : Limits, optional
    ev_min : float or None
        Least expected value; None = no minimum.
    variant : str, optional
        See `choose_variant`.
    block : (int, int)
        Rows and capabilities handled together; 0 = the variant's choice. No result depends on it.
    guess : float
        The ``guess`` of an earlier result over the same panel, which spares the first customers
        looking for a threshold; NaN = none. No result depends on it.

    Returns
    -------
    MatchResult

    Raises
    ------
    InputError
        Naming the argument and the row.
    """
    chosen = screening(variant, panel)
    request = request_of(
        indicators,
        panel,
        k=k,
        eligible=eligible,
        history=history,
        limits=limits,
        ev_min=ev_min,
    )
    problem = bound(request, panel, block, as_guess(guess))
    result = empty_match(request.customer_count, request.k)
    if request.customer_count:
        status, stats, nanoseconds, learned = _kernel.match(
            chosen.index,
            problem,
            limit_numbers(request.limits),
            result.capability_index,
            result.expected_value,
            result.propensity,
            result.opportunity_count,
        )
        check_status(status, request.indicators)
        result.stats.update(stats)
        result.nanoseconds.update(nanoseconds)
        if not math.isnan(learned):
            result = replace(result, guess=learned)
    return result


def checked(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    k: int,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    limits: Limits | None = None,
    ev_min: float | None = 0.0,
) -> Request:
    """The arguments of a match, of which `match` would refuse nothing.

    For whoever screens elsewhere, where a wrong index is no error but a crash.

    Parameters
    ----------
    indicators, panel, k, eligible, history, limits, ev_min
        As in `match`.

    Returns
    -------
    Request

    Raises
    ------
    InputError
        As `match` would.
    """
    request = request_of(
        indicators,
        panel,
        k=k,
        eligible=eligible,
        history=history,
        limits=limits,
        ev_min=ev_min,
    )
    problem = bound(request, panel)
    if request.customer_count:
        check_status(_kernel.validate(problem), request.indicators)
    return request


def verify(
    indicators: npt.ArrayLike,
    panel: Panel,
    candidates: Candidates,
    *,
    k: int,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    limits: Limits | None = None,
    ev_min: float | None = 0.0,
    variant: str | None = None,
) -> tuple[MatchResult, npt.NDArray[np.bool_]]:
    """The match of every customer among candidates, exactly, and whether it is the match.

    Parameters
    ----------
    indicators, panel, k, eligible, history, limits, ev_min, variant
        As in `match`.
    candidates : Candidates
        What a screen left, and what it has proven of the rest; it is believed.

    Returns
    -------
    result : MatchResult
        Each row is the beginning of what `match` finds. ``stats`` count the candidates.
    is_certain : ndarray of shape (n_customers,), bool
        The row is what `match` finds: it reaches k, or no other capability could follow.

    Raises
    ------
    InputError
        Naming the argument and the row.
    """
    chosen = chosen_variant(variant)
    request = request_of(
        indicators,
        panel,
        k=k,
        eligible=eligible,
        history=history,
        limits=limits,
        ev_min=ev_min,
    )
    problem = bound(request, panel)
    count = request.customer_count
    given = Candidates(*as_parts(candidates, "candidates", ", ".join(Candidates._fields)))
    indptr = as_vector(given.indptr, np.int64, "candidates.indptr", count + 1)
    index = as_array(given.capability_index, np.int32, "candidates.capability_index", ndim=1)
    beyond = as_vector(given.beyond, np.float64, "candidates.beyond", count)
    result = empty_match(count, request.k)
    is_certain = np.zeros(count, dtype=np.uint8)
    if count:
        status, stats = _kernel.verify(
            chosen.index,
            problem,
            limit_numbers(request.limits),
            indptr,
            index,
            beyond,
            result.capability_index,
            result.expected_value,
            result.propensity,
            result.opportunity_count,
            is_certain,
        )
        check_status(status, request.indicators)
        result.stats.update(stats)
    return result, is_certain.view(np.bool_)


def audience(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    capability_index: npt.ArrayLike,
    k: int,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    ev_min: float | npt.ArrayLike | None = 0.0,
    variant: str | None = None,
    block: tuple[int, int] = (0, 0),
) -> AudienceResult:
    """The best customers of each asked capability, in the order: ev descending, then row.

    Parameters
    ----------
    indicators, panel, eligible, history, variant, block
        As in `match`.
    ev_min : float, array_like of shape (n_asked,), or None
        The least expected value, of all or of each asked capability; None = no minimum.
    capability_index : array_like of shape (n_asked,), int32
        Ascending, without duplicates.
    k : int
        At most so many customers per capability, ≥ 1.

    Returns
    -------
    AudienceResult
    """
    chosen = screening(variant, panel)
    request = request_of(indicators, panel, eligible=eligible, history=history)
    problem, x = bound(request, panel, block), request.indicators
    size = min(as_positive(k, "k"), max(1, len(x)))
    asked = as_array(capability_index, np.int32, "capability_index", ndim=1)
    if not len(asked):
        raise InputError("must name at least one capability", field="capability_index")
    if len(asked) * size > RESULT_CELLS_MAX:
        raise LimitError(
            f"{len(asked)} capabilities × {size} ranks exceed 2^28: ask for less", field="k"
        )
    outside = (asked < 0) | (asked >= panel.capability_count)
    refuse_where(outside, "capability_index", f"must lie in [0, {panel.capability_count})", asked)
    refuse_where(np.diff(asked, prepend=-1) <= 0, "capability_index", "must ascend strictly", asked)
    least = _least_of_each(ev_min, len(asked))
    shape = (len(asked), size)
    result = AudienceResult(
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.float64),
        np.zeros(shape, dtype=np.float64),
        np.zeros(len(asked), dtype=np.int64),
        dict.fromkeys(_STATS, 0),
        dict.fromkeys(_STAGES, 0),
    )
    if len(x):
        status, stats, nanoseconds = _kernel.audience(
            chosen.index,
            problem,
            asked,
            least,
            result.customer_index,
            result.expected_value,
            result.propensity,
            result.customer_count,
        )
        check_status(status, x)
        result.stats.update(stats)
        result.nanoseconds.update(nanoseconds)
    return result


def scores(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    history: History | None = None,
    variant: str | None = None,
    block: tuple[int, int] = (0, 0),
) -> ScoresResult:
    """Every pair's numbers, for baselines and explanations; bounded, for it is dense.

    Raises
    ------
    LimitError
        If customers × capabilities exceed 2^26: ask for fewer rows at a time.
    """
    chosen = chosen_variant(variant)
    request = request_of(indicators, panel, history=history)
    problem, x = bound(request, panel, block), request.indicators
    shape = (len(x), panel.capability_count)
    if shape[0] * shape[1] > DENSE_PAIRS_MAX:
        rows = max(1, DENSE_PAIRS_MAX // shape[1])
        raise LimitError(
            f"{shape[0]} × {shape[1]} pairs exceed 2^26: ask for at most {rows} rows at a time",
            field="indicators",
        )
    result = ScoresResult(np.empty(shape), np.empty(shape), np.empty(shape))
    if len(x):
        check_status(
            _kernel.scores(
                chosen.index,
                problem,
                result.linear_predictor,
                result.expected_value,
                result.propensity,
            ),
            x,
        )
    return result


def screening(variant: str | None, panel: Panel) -> Variant:
    """The variant, with what it screens by in place."""
    chosen = chosen_variant(variant)
    require(panel, Panel, "panel", "made by pack")
    if chosen.is_screened:
        panel.prepare()
    return chosen


def _least_of_each(ev_min: float | npt.ArrayLike | None, count: int) -> Float64:
    if ev_min is None:
        return np.full(count, -math.inf)
    if isinstance(ev_min, (bool, int, float, np.number, str)):
        return np.full(count, as_number(ev_min, "ev_min"))
    least = as_vector(ev_min, np.float64, "ev_min", count)
    refuse_where(np.isnan(least), "ev_min", "must not be NaN", least)
    return least


def empty_match(rows: int, k: int) -> MatchResult:
    """Places for a result, with nothing in them."""
    return MatchResult(
        np.empty((rows, k), dtype=np.int32),
        np.empty((rows, k), dtype=np.float64),
        np.empty((rows, k), dtype=np.float64),
        np.empty(rows, dtype=np.int32),
        dict.fromkeys(_STATS, 0),
        dict.fromkeys(_STAGES, 0),
    )


def limit_numbers(limits: Limits) -> tuple[int, int, int]:
    """As the compiled core counts: 0 = no limit."""
    return limits.product or 0, limits.channel or 0, limits.family or 0


def check_status(status: tuple[int, int, int], indicators: Float32) -> None:
    """Raise what the compiled core refused."""
    code, row, column = status
    if code == 0:
        return
    if code == 1:
        raise MemoryError("the kernel found no memory for its blocks")
    field, reason = _STATUS_REASON[code]
    if field == "indicators":
        reason = f"{reason}, got {indicators[row, column]} in column {column}"
    elif column >= 0:
        reason = f"{reason} (entry {column})"
    raise InputError(reason, field=field, row=row)
