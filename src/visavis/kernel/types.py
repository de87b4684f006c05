"""What goes into the kernel and what comes out: shapes and dtypes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.kernel.screen import build_screen

__all__ = [
    "AudienceResult",
    "Candidates",
    "Eligibility",
    "Float32",
    "Float64",
    "History",
    "Int32",
    "Int64",
    "Limits",
    "MatchResult",
    "Panel",
    "ScoresResult",
    "Terms",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]


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


class Candidates(NamedTuple):
    """Pairs that a screen of one's own could not exclude, in CSR form, for `verify`.

    Attributes
    ----------
    indptr : ndarray of shape (n_customers + 1,), int64
    capability_index : ndarray of shape (n_candidates,), int32
        Ascending within a row, without duplicates.
    beyond : ndarray of shape (n_customers,), float64
        What the screen has proven: every other capability of the customer is ineligible or has an
        expected value strictly below it. −inf: all eligible ones are candidates; +inf: nothing.
    """

    indptr: Int64
    capability_index: Int32
    beyond: Float64


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
    packed : _kernel.PackedPanel
        The arrays behind it; opaque.
    indicator_scale, plane_index : ndarray, optional
        What `pack` was told for the screen.
    """

    packed: _kernel.PackedPanel
    indicator_scale: Float32 | None = None
    plane_index: Int32 | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def prepare(self) -> None:
        """Build the screen, unless it is there: what the first screened call would do."""
        with self._lock:
            if self.packed.has_screen:
                return
            padded, bias, value, cost, link = map(np.asarray, self.packed.arrays)
            screen = build_screen(
                padded[:, : self.indicator_count],
                bias,
                value,
                cost,
                link,
                indicator_scale=self.indicator_scale,
                plane_index=self.plane_index,
            )
            self.packed.set_screen(*screen)

    @property
    def capability_count(self) -> int:
        """The number of capabilities, m."""
        return self.packed.capability_count

    @property
    def indicator_count(self) -> int:
        """The number of indicators, d."""
        return self.packed.indicator_count


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
    nanoseconds : dict
        What a screened variant spent on ``quantise`` (reading rows), ``history`` (pairs with an
        adjustment), ``screen`` (products and bounds), ``verify`` (exact scores and lists) and
        ``walk`` (limits); of the portable variant, zeros.
    guess : float
        What the next match of customers like these may be given; NaN where too few were matched.
        Not promised bytes.
    """

    capability_index: Int32
    expected_value: Float64
    propensity: Float64
    opportunity_count: Int32
    stats: dict[str, int]
    nanoseconds: dict[str, int]
    guess: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class AudienceResult:
    """The customers of each asked capability, best first.

    Attributes
    ----------
    customer_index : ndarray of shape (n_asked, min(k, n_customers)), int64
        −1 beyond the count.
    expected_value, propensity : ndarray of shape (n_asked, min(k, n_customers)), float64
        0.0 beyond the count.
    customer_count : ndarray of shape (n_asked,), int64
    stats : dict
        As in `MatchResult`, over customers × asked capabilities.
    nanoseconds : dict
        As in `MatchResult`.
    """

    customer_index: Int64
    expected_value: Float64
    propensity: Float64
    customer_count: Int64
    stats: dict[str, int]
    nanoseconds: dict[str, int]


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


class Terms(NamedTuple):
    """The largest positive terms of some pairs, in CSR form.

    Attributes
    ----------
    offsets : ndarray of shape (n_pairs + 1,), int64
    name_index : ndarray of shape (n_terms,), int64
        The column of the indicator; behind the last, the history.
    contribution : ndarray of shape (n_terms,), float64
    """

    offsets: Int64
    name_index: Int64
    contribution: Float64
