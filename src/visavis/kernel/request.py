"""What a call is asked: through the doors, for some rows only, bound for the compiled core."""

from __future__ import annotations

import math
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis._rows import entries_of
from visavis.errors import InputError, LimitError, SchemaError
from visavis.kernel.arguments import (
    any_array,
    as_array,
    as_not_negative,
    as_number,
    as_parts,
    as_positive,
    as_vector,
    refuse_where,
    require,
)
from visavis.kernel.types import Eligibility, Float32, History, Int64, Limits, Panel

__all__ = [
    "RESULT_CELLS_MAX",
    "Request",
    "bound",
    "checked_history",
    "history_of",
    "request_of",
    "rows_of",
]

#: Upper bound of rows × k in one result: 2^28 cells fill 5 GiB, and a mistyped k must not take the
#: machine's memory.
RESULT_CELLS_MAX: Final = 2**28

Scalar = TypeVar("Scalar", bound=np.generic)


def rows_of(array: npt.NDArray[Scalar], rows: Int64) -> npt.NDArray[Scalar]:
    """Some rows of an array; neighbours, the usual case, without a copy."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return array[rows[0] : rows[-1] + 1]
    return array[rows]


def history_of(history: History, rows: Int64) -> History:
    """The adjustments of some rows, in their order."""
    begin, end = history.indptr[rows], history.indptr[rows + 1]
    if len(rows) and np.array_equal(begin[1:], end[:-1]):
        # Neighbouring rows need no copy of the entries.
        return History(np.append(begin, end[-1]), *history[1:])
    return History(*entries_of(*history, np.ascontiguousarray(rows)))


class Request(NamedTuple):
    """The arguments of a match after its doors: right types, right shapes, dense memory.

    Attributes
    ----------
    indicators : ndarray of shape (n_customers, n_indicators), float32
    k : int
    eligible : ndarray of shape (n_customers, n_capabilities), bool, or Eligibility, or None
    history : History or None
    limits : Limits
    ev_min : float
        −inf = no minimum.
    """

    indicators: Float32
    k: int
    eligible: npt.NDArray[np.bool_] | Eligibility | None
    history: History | None
    limits: Limits
    ev_min: float

    @property
    def customer_count(self) -> int:
        """The number of customers, n."""
        return len(self.indicators)

    def of_rows(self, rows: Int64) -> Request:
        """The same request for some customers, in the order of `rows`."""
        eligible = self.eligible
        if isinstance(eligible, Eligibility):
            eligible = Eligibility(rows_of(eligible.planes, rows), eligible.plane_index)
        elif eligible is not None:
            eligible = rows_of(eligible, rows)
        return self._replace(
            indicators=rows_of(self.indicators, rows),
            eligible=eligible,
            history=None if self.history is None else history_of(self.history, rows),
        )


def request_of(
    indicators: npt.ArrayLike,
    panel: Panel,
    *,
    k: int = 1,
    eligible: npt.NDArray[np.bool_] | Eligibility | None = None,
    history: History | None = None,
    limits: Limits | None = None,
    ev_min: float | None = None,
) -> Request:
    """Check the arguments of a call, but for what the compiled core looks at itself: the cells."""
    x, eligible, history = _checked_arrays(indicators, panel, eligible, history)
    least = -math.inf if ev_min is None else as_number(ev_min, "ev_min")
    size = as_positive(k, "k")
    if len(x) * size > RESULT_CELLS_MAX:
        raise LimitError(f"{len(x)} customers × {size} ranks exceed 2^28: ask for less", field="k")
    limits = Limits() if limits is None else limits
    require(limits, Limits, "limits", "Limits")
    given = (
        None if limit is None else as_positive(limit, f"limits.{name}")
        for name, limit in limits._asdict().items()
    )
    return Request(x, size, eligible, history, Limits(*given), least)


def bound(
    request: Request, panel: Panel, block: tuple[int, int] = (0, 0), guess: float = math.nan
) -> _kernel.BoundProblem:
    """Bind a request and a panel for the compiled core."""
    dense = planes = plane_index = indptr = capability_index = adjustment = None
    if isinstance(request.eligible, Eligibility):
        planes, plane_index = request.eligible
    elif request.eligible is not None:
        dense = request.eligible.view(np.uint8)
    if request.history is not None:
        indptr, capability_index, adjustment = request.history
    rows, width = (
        as_not_negative(size, "block") for size in as_parts(block, "block", "rows, capabilities")
    )
    return _kernel.BoundProblem(
        request.indicators,
        panel.packed,
        dense,
        planes,
        plane_index,
        indptr,
        capability_index,
        adjustment,
        request.ev_min,
        rows,
        width,
        guess,
    )


def _checked_arrays(
    indicators: npt.ArrayLike,
    panel: Panel,
    eligible: npt.NDArray[np.bool_] | Eligibility | None,
    history: History | None,
) -> tuple[Float32, npt.NDArray[np.bool_] | Eligibility | None, History | None]:
    require(panel, Panel, "panel", "made by pack")
    x = as_array(indicators, np.float32, "indicators", ndim=2)
    if x.shape[1] != panel.indicator_count:
        raise SchemaError(
            f"must have the panel's {panel.indicator_count} columns, got {x.shape[1]}",
            field="indicators",
        )
    eligible = _eligibility(eligible, len(x), panel.capability_count)
    return x, eligible, None if history is None else checked_history(history, len(x))


def checked_history(history: History, rows: int) -> History:
    """The adjustments of `rows` customers, but for what the compiled core looks at itself."""
    given = history
    if type(history) is not History:
        given = History(*as_parts(history, "history", ", ".join(History._fields)))
    indptr = as_vector(given.indptr, np.int64, "history.indptr", rows + 1)
    capability_index = as_array(
        given.capability_index, np.int32, "history.capability_index", ndim=1
    )
    adjustment = as_vector(
        given.adjustment, np.float32, "history.adjustment", len(capability_index)
    )
    if indptr[0] < 0 or indptr[-1] > len(capability_index):
        reason = f"must lie in [0, {len(capability_index)}], the number of entries"
        raise InputError(reason, field="history.indptr")
    return History(indptr, capability_index, adjustment)


def _eligibility(
    eligible: npt.NDArray[np.bool_] | Eligibility | None, rows: int, capabilities: int
) -> npt.NDArray[np.bool_] | Eligibility | None:
    if eligible is None:
        return None
    if not isinstance(eligible, Eligibility):
        dense = any_array(eligible, "eligible")
        if dense.dtype != np.bool_ or dense.shape != (rows, capabilities):
            raise SchemaError(
                f"must be bool of shape ({rows}, {capabilities}), "
                f"got {dense.dtype} of shape {dense.shape}",
                field="eligible",
            )
        return np.ascontiguousarray(dense)
    planes = as_array(eligible.planes, np.uint64, "eligible.planes", ndim=2)
    if len(planes) != rows:
        raise SchemaError(f"must have {rows} rows, got {len(planes)}", field="eligible.planes")
    plane_index = as_vector(eligible.plane_index, np.int32, "eligible.plane_index", capabilities)
    bits = planes.shape[1] * 64
    # Twice as quick as to compare each.
    if plane_index.min(initial=-1) >= -1 and plane_index.max(initial=-1) < bits:
        return Eligibility(planes, plane_index)
    refuse_where(
        (plane_index < -1) | (plane_index >= bits),
        "eligible.plane_index",
        f"must lie in [−1, {bits})",
        plane_index,
    )
    return Eligibility(planes, plane_index)
