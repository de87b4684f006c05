"""`Single`: customers matched one at a time, with all that is the same for them bound once.

A call of `match` looks at each argument, and has room for any. Of one customer that costs as much
as the kernel itself. So who asks again and again of the same panel has the lasting arguments looked
at here, and gives each time what is the customer's own.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.kernel.arguments import as_count, as_guess, as_vector
from visavis.kernel.calls import check_status, limit_numbers, screening
from visavis.kernel.request import request_of
from visavis.kernel.types import Eligibility, Float32, Float64, Int32, Limits, Panel, Terms

__all__ = ["NO_HISTORY", "Single", "SingleMatch"]

#: Of who has no adjustments.
NO_HISTORY: Final = (np.zeros(0, np.int32), np.zeros(0, np.float32))


class SingleMatch(NamedTuple):
    """The opportunities of one customer, best first.

    Attributes
    ----------
    capability_index : ndarray of shape (count,), int32
    expected_value, propensity : ndarray of shape (count,), float64
    terms : Terms or None
        The reasons of each, if they were asked for.
    stats : dict of str to int
        As of `MatchResult`.
    """

    capability_index: Int32
    expected_value: Float64
    propensity: Float64
    terms: Terms | None
    stats: dict[str, int]


class Single:
    """Matches single customers as `match` would, to the byte.

    Parameters
    ----------
    panel : Panel
    k : int
        At most so many opportunities, ≥ 1.
    plane_index : array_like of shape (n_capabilities,), int32
        As of `Eligibility`.
    plane_words : int
        The length of a customer's planes.
    limits : Limits, optional
    ev_min : float or None
        Least expected value; None = no minimum.
    guess : float
        As of `match`.
    variant : str, optional
        See `choose_variant`.
    by_name : array_like of shape (n_indicators + 1,), int64
        As of `largest_terms`.
    against : array_like of shape (n_indicators,), float64
        Taken from the weights of distinctive reasons.

    Raises
    ------
    InputError
        Naming the argument.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        k: int,
        plane_index: npt.ArrayLike,
        plane_words: int,
        limits: Limits | None = None,
        ev_min: float | None = 0.0,
        guess: float = math.nan,
        variant: str | None = None,
        by_name: npt.ArrayLike,
        against: npt.ArrayLike,
    ) -> None:
        chosen = screening(variant, panel)
        columns = panel.indicator_count
        nobody = np.zeros((0, columns), np.float32)
        planes = np.zeros((0, as_count(plane_words, "plane_words")), np.uint64)
        index = as_vector(plane_index, np.int32, "plane_index", panel.capability_count).copy()
        # Through the same doors as `match`.
        request = request_of(
            nobody,
            panel,
            k=k,
            eligible=Eligibility(planes, index),
            limits=limits,
            ev_min=ev_min,
        )
        self._k = request.k
        self._columns = columns
        #: One row, to which all pairs belong.
        self._owner = np.zeros(request.k, dtype=np.int64)
        self._bound = _kernel.BoundRow(
            chosen.index,
            panel.packed,
            index,
            planes.shape[1],
            request.ev_min,
            as_guess(guess),
            limit_numbers(request.limits),
            as_vector(by_name, np.int64, "by_name", columns + 1).copy(),
            as_vector(against, np.float64, "against", columns).copy(),
        )

    def match(
        self,
        indicators: Float32,
        planes: npt.NDArray[np.uint64],
        history: tuple[Int32, Float32] = NO_HISTORY,
        *,
        reasons: int | None = None,
        distinctive: bool = False,
    ) -> SingleMatch:
        """The best opportunities of one customer, exactly.

        Parameters
        ----------
        indicators : ndarray of shape (n_indicators,), float32
        planes : ndarray of shape (plane_words,), uint64
        history : tuple of ndarrays of shape (n_entries,), int32 and float32
            Capabilities, ascending, and their adjustments.
        reasons : int, optional
            At most so many for each opportunity, ≥ 0; None = none are looked for.
        distinctive : bool
            Reasons by weights less `against`.

        Raises
        ------
        InputError
            Naming the argument.
        ValueError
            If an array is of another type or length.
        """
        k = self._k
        capability_index = np.empty(k, dtype=np.int32)
        expected_value, propensity = np.empty(k), np.empty(k)
        status, count, stats = self._bound.match(
            indicators, planes, *history, capability_index, expected_value, propensity
        )
        if status[0]:
            check_status(status, indicators[None])
        terms = None
        if reasons is not None:
            width = min(reasons, self._columns + 1)
            offsets = np.empty(count + 1, dtype=np.int64)
            name_index = np.empty(count * width, dtype=np.int64)
            contribution = np.empty(count * width)
            status = self._bound.largest_terms(
                indicators,
                *history,
                self._owner,
                capability_index,
                count,
                width,
                distinctive,
                offsets,
                name_index,
                contribution,
            )
            if status[0]:
                check_status(status, indicators[None])
            found = offsets[count]
            terms = Terms(offsets, name_index[:found], contribution[:found])
        return SingleMatch(
            capability_index[:count], expected_value[:count], propensity[:count], terms, stats
        )
