"""The typed face of the compiled core: arrays in, arrays out, every argument checked.

::

    weights, bias, value, cost, link ── pack() ──► Panel ┐
    indicators ────────────────────────────────────────► match()    ──► MatchResult
    eligible, history, limits, ev_min ─────────────────► audience() ──► AudienceResult
                                                         scores()   ──► ScoresResult

What a score is, to the bit, is said in docs/score.md. A call runs on one thread and releases the
GIL: callers spread blocks of rows over threads. No result depends on the variant, on the block or
on how the rows are spread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.domain import MAGNITUDE_MAX, Link
from visavis.errors import InputError, LimitError, SchemaError, VariantError

__all__ = [
    "CONTRACT_VERSION",
    "AudienceResult",
    "Eligibility",
    "History",
    "Limits",
    "MatchResult",
    "Panel",
    "ScoresResult",
    "audience",
    "choose_variant",
    "exp",
    "log1p",
    "match",
    "pack",
    "scores",
    "variants",
]

#: The version of docs/score.md that this core computes; results name it.
CONTRACT_VERSION: Final = 1

#: Names the variant to use when the caller names none.
VARIANT_ENVIRONMENT: Final = "VISAVIS_VARIANT"

#: Upper bound of customers × capabilities in one call of `scores`: 2^26 pairs fill 1.5 GiB.
DENSE_PAIRS_MAX: Final = 2**26

#: Upper bound of rows × k in one result: 2^28 cells fill 5 GiB, and a mistyped k must not take the
#: machine's memory.
RESULT_CELLS_MAX: Final = 2**28

#: Columns are padded to a multiple of the eight partial sums of a dot product.
LANE_COUNT: Final = 8

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_STATUS_REASON: Final = {
    2: ("indicators", "must be finite"),
    3: ("history.indptr", "must ascend from 0 to the number of entries"),
    4: ("history.capability_index", "is out of range"),
    5: ("history.capability_index", "must ascend within a row, without duplicates"),
    6: ("history.adjustment", "must be finite or −inf"),
}


_STATS: Final = ("skipped_by_rule", "skipped_by_bound", "screened", "verified", "rescreens")


class Eligibility(NamedTuple):
    """Which pairs may meet, as bit planes that capabilities share.

    Attributes
    ----------
    planes : ndarray of shape (n_customers, ceil(n_planes / 64)), uint64
        Bit q of row i says that plane q holds for customer i.
    plane_index : ndarray of shape (n_capabilities,), int32
        The plane of each capability; −1 = eligible for everybody.
    """

    planes: npt.NDArray[np.uint64]
    plane_index: Int32


class History(NamedTuple):
    """Adjustments h per (customer, capability) in CSR form; absent = 0, −inf = ineligible.

    Attributes
    ----------
    indptr : ndarray of shape (n_customers + 1,), int64
    capability_index : ndarray of shape (n_entries,), int32
        Ascending within a row, without duplicates.
    adjustment : ndarray of shape (n_entries,), float32
    """

    indptr: Int64
    capability_index: Int32
    adjustment: Float32


class Limits(NamedTuple):
    """At most so many opportunities per customer and product, channel, family; None = no limit."""

    product: int | None = None
    channel: int | None = None
    family: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A catalog in the form that the kernel reads; made by `pack`.

    Attributes
    ----------
    capability_count, indicator_count : int
    packed : _kernel.PackedPanel
        The arrays behind it; opaque.
    """

    capability_count: int
    indicator_count: int
    packed: _kernel.PackedPanel


@dataclass(frozen=True, slots=True, eq=False)
class MatchResult:
    """The opportunities of each customer, best first.

    Attributes
    ----------
    capability_index : ndarray of shape (n_customers, k), int32
        −1 beyond the count.
    expected_value, propensity : ndarray of shape (n_customers, k), float64
        0.0 beyond the count.
    opportunity_count : ndarray of shape (n_customers,), int32
    stats : dict
        ``skipped_by_rule + skipped_by_bound + screened`` = pairs; ``verified`` pairs were scored in
        float64; ``rescreens`` counts extra rounds that limits made necessary. Not promised bytes.
    """

    capability_index: Int32
    expected_value: Float64
    propensity: Float64
    opportunity_count: Int32
    stats: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class AudienceResult:
    """The customers of each asked capability, best first.

    Attributes
    ----------
    customer_index : ndarray of shape (n_asked, k), int64
        −1 beyond the count.
    expected_value, propensity : ndarray of shape (n_asked, k), float64
    customer_count : ndarray of shape (n_asked,), int64
    stats : dict
        As in `MatchResult`.
    """

    customer_index: Int64
    expected_value: Float64
    propensity: Float64
    customer_count: Int64
    stats: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class ScoresResult:
    """Every pair's numbers; NaN where the adjustment is −inf, for no score exists there.

    Attributes
    ----------
    linear_predictor, expected_value, propensity : ndarray of shape (n_customers, n_capabilities)
        float64.
    """

    linear_predictor: Float64
    expected_value: Float64
    propensity: Float64


def variants() -> dict[str, bool]:
    """Every variant in this build, slowest first, and whether this processor can run it."""
    return dict(_kernel.variants())


def choose_variant(variant: str | None = None) -> str:
    """The variant that a call would use.

    Parameters
    ----------
    variant : str, optional
        A name from `variants`. Default: the environment's ``VISAVIS_VARIANT``, else the best one
        that this processor can run.

    Raises
    ------
    InputError
        If the name is unknown.
    VariantError
        If this processor cannot run it: forcing a variant never falls back to another.
    """
    known = variants()
    name: object = variant if variant is not None else os.environ.get(VARIANT_ENVIRONMENT) or None
    if name is None:
        return [candidate for candidate, supported in known.items() if supported][-1]
    if not isinstance(name, str) or name not in known:
        source = "variant" if variant is not None else VARIANT_ENVIRONMENT
        raise InputError(
            f"unknown variant {name!r}; this build has {', '.join(known)}", field=source
        )
    if not known[name]:
        raise VariantError(f"variant {name!r} cannot run on this processor")
    return name


def exp(y: npt.ArrayLike) -> Float64:
    """e^y for y ≤ 0, the same bits on every processor; 0 below −708.

    Parameters
    ----------
    y : array_like of float64
        Not positive, no NaN.

    Returns
    -------
    ndarray of float64, of the shape of `y`
        Within 1 ulp.
    """
    return _elementary(y, _kernel.exp_nonpositive, "y", -math.inf, 0.0)


def log1p(x: npt.ArrayLike) -> Float64:
    """log(1 + x) for x ≥ 0, the same bits on every processor.

    Parameters
    ----------
    x : array_like of float64
        Finite, not negative.

    Returns
    -------
    ndarray of float64, of the shape of `x`
        Within 1 ulp up to x = 1, within 2 ulp beyond.
    """
    return _elementary(x, _kernel.log1p_nonnegative, "x", 0.0, np.finfo(np.float64).max)


def _elementary(
    argument: npt.ArrayLike, function: Any, name: str, low: float, high: float
) -> Float64:
    values = _given(argument, name)
    flat = _array(values.reshape(-1), np.float64, name, ndim=1)
    wrong = ~((flat >= low) & (flat <= high))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"must lie in [{low}, {high}], got {flat[row]}", field=name, row=row)
    result = np.empty_like(flat)
    function(flat, result)
    return result.reshape(values.shape)


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

    Returns
    -------
    Panel

    Raises
    ------
    InputError
        Naming the argument and the row: nothing is silently repaired.
    """
    w = _array(weights, np.float32, "weights", ndim=2)
    count, columns = w.shape
    if count < 1:
        raise InputError("must hold at least one capability", field="weights")
    if columns < 1:
        raise InputError("must hold at least one indicator", field="weights")
    _refuse(~np.isfinite(w), "weights", "must be finite", w)
    padded = np.zeros((count, -(-columns // LANE_COUNT) * LANE_COUNT), dtype=np.float32)
    padded[:, :columns] = w
    # Copies: what was checked must still hold when the caller writes to its arrays.
    b = _vector(bias, np.float32, "bias", count).copy()
    v = _vector(value, np.float64, "value", count).copy()
    c = _vector(cost, np.float64, "cost", count).copy()
    _refuse(~np.isfinite(b), "bias", "must be finite", b)
    _refuse(~((v >= 0) & (v <= MAGNITUDE_MAX)), "value", "must lie in [0, 2^100]", v)
    _refuse(~(np.abs(c) <= MAGNITUDE_MAX), "cost", "must lie in [−2^100, 2^100]", c)
    groups = [
        _group_codes(given, name, count)
        for given, name in ((product, "product"), (channel, "channel"), (family, "family"))
    ]
    products, channels, families = groups
    counts = (int(products.max()) + 1, int(channels.max()) + 1, int(families.max()) + 1)
    codes = _link_codes(link, count)
    packed = _kernel.PackedPanel(
        padded, columns, b, v, c, codes, products, channels, families, counts
    )
    return Panel(count, columns, packed)


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

    Returns
    -------
    MatchResult

    Raises
    ------
    InputError
        Naming the argument and the row.
    """
    index = _variant_index(variant)
    x, bound = _bind(indicators, panel, eligible, history, ev_min, block)
    size = _positive(k, "k")
    if len(x) * size > RESULT_CELLS_MAX:
        raise LimitError(f"{len(x)} customers × {size} ranks exceed 2^28: ask for less", field="k")
    limits = Limits() if limits is None else limits
    _require(limits, Limits, "limits", "Limits")
    product, channel, family = (
        0 if limit is None else _positive(limit, f"limits.{name}")
        for name, limit in limits._asdict().items()
    )
    result = MatchResult(
        np.empty((len(x), size), dtype=np.int32),
        np.empty((len(x), size), dtype=np.float64),
        np.empty((len(x), size), dtype=np.float64),
        np.empty(len(x), dtype=np.int32),
        dict.fromkeys(_STATS, 0),
    )
    if len(x):
        status, stats = _kernel.match(
            index,
            bound,
            (product, channel, family),
            result.capability_index,
            result.expected_value,
            result.propensity,
            result.opportunity_count,
        )
        _check(status, x)
        result.stats.update(stats)
    return result


def audience(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    capability_index: npt.ArrayLike,
    k: int,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    ev_min: float | None = 0.0,
    variant: str | None = None,
    block: tuple[int, int] = (0, 0),
) -> AudienceResult:
    """The best customers of each asked capability, in the order: ev descending, then row.

    Parameters
    ----------
    indicators, panel, eligible, history, ev_min, variant, block
        As in `match`.
    capability_index : array_like of shape (n_asked,), int32
        Ascending, without duplicates.
    k : int
        At most so many customers per capability, ≥ 1.

    Returns
    -------
    AudienceResult
    """
    index = _variant_index(variant)
    x, bound = _bind(indicators, panel, eligible, history, ev_min, block)
    size = min(_positive(k, "k"), max(1, len(x)))
    asked = _array(capability_index, np.int32, "capability_index", ndim=1)
    if not len(asked):
        raise InputError("must name at least one capability", field="capability_index")
    if len(asked) * size > RESULT_CELLS_MAX:
        raise LimitError(
            f"{len(asked)} capabilities × {size} ranks exceed 2^28: ask for less", field="k"
        )
    outside = (asked < 0) | (asked >= panel.capability_count)
    _refuse(outside, "capability_index", f"must lie in [0, {panel.capability_count})", asked)
    _refuse(np.diff(asked, prepend=-1) <= 0, "capability_index", "must ascend strictly", asked)
    shape = (len(asked), size)
    result = AudienceResult(
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.float64),
        np.zeros(shape, dtype=np.float64),
        np.zeros(len(asked), dtype=np.int64),
        dict.fromkeys(_STATS, 0),
    )
    if len(x):
        status, stats = _kernel.audience(
            index,
            bound,
            asked,
            result.customer_index,
            result.expected_value,
            result.propensity,
            result.customer_count,
        )
        _check(status, x)
        result.stats.update(stats)
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
    index = _variant_index(variant)
    x, bound = _bind(indicators, panel, None, history, None, block)
    shape = (len(x), panel.capability_count)
    if shape[0] * shape[1] > DENSE_PAIRS_MAX:
        rows = max(1, DENSE_PAIRS_MAX // shape[1])
        raise LimitError(
            f"{shape[0]} × {shape[1]} pairs exceed 2^26: ask for at most {rows} rows at a time",
            field="indicators",
        )
    result = ScoresResult(np.empty(shape), np.empty(shape), np.empty(shape))
    if len(x):
        _check(
            _kernel.scores(
                index, bound, result.linear_predictor, result.expected_value, result.propensity
            ),
            x,
        )
    return result


def _bind(
    indicators: npt.ArrayLike,
    panel: Panel,
    eligible: npt.NDArray[np.bool_] | Eligibility | None,
    history: History | None,
    ev_min: float | None,
    block: tuple[int, int],
) -> tuple[Float32, _kernel.BoundProblem]:
    """Check every argument that the calls share and bind them; NaN and ±inf are found below."""
    _require(panel, Panel, "panel", "made by pack")
    x = _array(indicators, np.float32, "indicators", ndim=2)
    if x.shape[1] != panel.indicator_count:
        raise SchemaError(
            f"must have the panel's {panel.indicator_count} columns, got {x.shape[1]}",
            field="indicators",
        )
    least = -math.inf if ev_min is None else _number(ev_min, "ev_min")
    dense, planes, plane_index = _eligibility(eligible, len(x), panel.capability_count)
    indptr = capability_index = adjustment = None
    if history is not None:
        history = History(*_parts(history, "history", ", ".join(History._fields)))
        indptr = _vector(history.indptr, np.int64, "history.indptr", len(x) + 1)
        capability_index = _array(
            history.capability_index, np.int32, "history.capability_index", ndim=1
        )
        adjustment = _vector(
            history.adjustment, np.float32, "history.adjustment", len(capability_index)
        )
        if indptr[0] < 0 or indptr[-1] > len(capability_index):
            reason = f"must lie in [0, {len(capability_index)}], the number of entries"
            raise InputError(reason, field="history.indptr")
    rows, width = (
        _not_negative(size, "block") for size in _parts(block, "block", "rows, capabilities")
    )
    return x, _kernel.BoundProblem(
        x,
        panel.packed,
        dense,
        planes,
        plane_index,
        indptr,
        capability_index,
        adjustment,
        least,
        rows,
        width,
    )


def _eligibility(
    eligible: npt.NDArray[np.bool_] | Eligibility | None, rows: int, capabilities: int
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.uint64] | None, Int32 | None]:
    if eligible is None:
        return None, None, None
    if not isinstance(eligible, Eligibility):
        dense = _given(eligible, "eligible")
        if dense.dtype != np.bool_ or dense.shape != (rows, capabilities):
            raise SchemaError(
                f"must be bool of shape ({rows}, {capabilities}), "
                f"got {dense.dtype} of shape {dense.shape}",
                field="eligible",
            )
        return np.ascontiguousarray(dense).view(np.uint8), None, None
    planes = _array(eligible.planes, np.uint64, "eligible.planes", ndim=2)
    if len(planes) != rows:
        raise SchemaError(f"must have {rows} rows, got {len(planes)}", field="eligible.planes")
    plane_index = _vector(eligible.plane_index, np.int32, "eligible.plane_index", capabilities)
    bits = planes.shape[1] * 64
    _refuse(
        (plane_index < -1) | (plane_index >= bits),
        "eligible.plane_index",
        f"must lie in [−1, {bits})",
        plane_index,
    )
    return None, planes, plane_index


def _require(given: object, kinds: type | tuple[type, ...], field: str, wanted: str) -> None:
    """Refuse other types by name: annotations bind nobody at run time."""
    if not isinstance(given, kinds):
        raise SchemaError(f"must be {wanted}, got {type(given).__name__}", field=field)


def _parts(given: object, field: str, names: str) -> tuple[Any, ...]:
    """Accept a tuple with as many parts as there are names."""
    if not isinstance(given, tuple) or len(given) != len(names.split()):
        raise SchemaError(f"must be ({names}), got {type(given).__name__}", field=field)
    return given


def _given(values: npt.ArrayLike, field: str) -> npt.NDArray[Any]:
    """Make an array of `values`; ragged lists and foreign objects are refused by name."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"is no array: {error}", field=field) from error


def _array(values: npt.ArrayLike, dtype: Any, field: str, *, ndim: int) -> npt.NDArray[Any]:
    """As a contiguous array of `dtype`: converted within its kind, wider numbers rounded."""
    array = _given(values, field)
    if array.ndim != ndim:
        raise SchemaError(f"must have {ndim} dimension(s), got {array.ndim}", field=field)
    if array.dtype != dtype:
        wanted = np.dtype(dtype)
        same_family = np.can_cast(array.dtype, wanted, casting="same_kind")
        number = array.dtype.kind in "biuf"
        fits = same_family or _is_small_integer(array, wanted) or not array.size
        if not (number and fits):
            raise SchemaError(f"must be {wanted}, got {array.dtype}", field=field)
        with np.errstate(all="ignore"):  # what overflows to inf is refused by name further on
            converted = array.astype(wanted)
        if wanted.kind in "iu" and not np.array_equal(converted, array):
            raise InputError(f"does not fit {wanted}", field=field)
        array = converted
    return np.ascontiguousarray(array)


def _is_small_integer(array: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    return array.dtype.kind in "iu" and wanted.kind in "iuf"


def _vector(values: npt.ArrayLike, dtype: Any, field: str, size: int) -> npt.NDArray[Any]:
    array = _array(values, dtype, field, ndim=1)
    if len(array) != size:
        raise SchemaError(f"must have {size} entries, got {len(array)}", field=field)
    return array


def _refuse(wrong: npt.NDArray[np.bool_], field: str, reason: str, array: npt.NDArray[Any]) -> None:
    if wrong.any():
        cell = tuple(int(i) for i in np.argwhere(wrong)[0])
        column = f" in column {cell[1]}" if len(cell) > 1 else ""
        raise InputError(f"{reason}, got {array[cell]}{column}", field=field, row=cell[0])


def _link_codes(link: Any, count: int) -> npt.NDArray[np.uint8]:
    codes = {known.label: int(known) for known in Link}
    _require(link, (Sequence, np.ndarray), "link", "a name or a list of names")
    one_for_all = isinstance(link, str) or getattr(link, "ndim", 1) == 0
    names = [link] * count if one_for_all else list(link)
    if len(names) != count:
        raise SchemaError(f"must have {count} entries, got {len(names)}", field="link")
    for row, name in enumerate(names):
        if not isinstance(name, str) or name not in codes:
            raise InputError(
                f"must be one of {', '.join(codes)}, got {name!r}", field="link", row=row
            )
    return np.array([codes[name] for name in names], dtype=np.uint8)


def _group_codes(codes: npt.ArrayLike | None, field: str, count: int) -> Int32:
    """Dense codes from 0, so that the kernel counts groups in plain arrays."""
    if codes is None:
        return np.arange(count, dtype=np.int32)
    given = _vector(codes, np.int32, field, count)
    return np.unique(given, return_inverse=True)[1].astype(np.int32)


def _positive(value: int, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise SchemaError(f"must be an integer, got {value!r}", field=field)
    if not 1 <= value < 2**31:
        raise InputError(f"must lie in [1, 2^31), got {value}", field=field)
    return int(value)


def _not_negative(value: int, field: str) -> int:
    return 0 if type(value) is int and value == 0 else _positive(value, field)


def _number(value: float, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise SchemaError(f"must be a number, got {value!r}", field=field)
    try:
        number = float(value)
    except OverflowError:
        raise InputError("does not fit float64", field=field) from None
    if math.isnan(number):
        raise InputError("must not be NaN", field=field)
    return number


def _variant_index(variant: str | None) -> int:
    return list(variants()).index(choose_variant(variant))


def _check(status: tuple[int, int, int], indicators: Float32) -> None:
    code, row, column = status
    if code == 0:
        return
    if code == 1:
        raise MemoryError("the kernel found no memory for its blocks")
    field, reason = _STATUS_REASON[code]
    if field == "indicators":
        reason = f"{reason}, got {indicators[row, column]} in column {column}"
    raise InputError(reason, field=field, row=row)
