"""The best customers of each asked capability, gathered from blocks that end in any order."""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis import kernel

__all__ = ["Audiences"]

#: The row of nobody: behind every real one.
_NOBODY: Final = np.iinfo(np.int64).max


class Audiences:
    """The first k of each asked capability among all blocks added so far.

    What the order of docs/score.md §7 puts first does not depend on which block ends first, and a
    threshold that one block has reached spares the next ones most of their pairs.

    Parameters
    ----------
    count : int
        Asked capabilities.
    k : int
        At most so many customers each.
    ev_min : float or None
        The least expected value; None = no minimum.
    """

    def __init__(self, count: int, k: int, ev_min: float | None) -> None:
        self._lock = Lock()
        self._row = np.full((count, k), _NOBODY, dtype=np.int64)
        self._expected_value = np.full((count, k), -np.inf)
        self._propensity = np.zeros((count, k))
        self._least = np.full(count, -np.inf if ev_min is None else ev_min, dtype=np.float64)

    @property
    def least(self) -> npt.NDArray[np.float64]:
        """What an expected value must reach, of shape (count,); replaced, never written into."""
        return self._least

    def add(self, rows: npt.NDArray[np.int64], found: kernel.AudienceResult) -> None:
        """Take in the audiences of one block, whose customers are `rows` of the base."""
        told = np.flatnonzero(found.customer_count)
        if not len(told):
            return
        width = int(found.customer_count.max())
        index = found.customer_index[told, :width]
        held = index >= 0
        with self._lock:
            row = np.hstack([self._row[told], np.where(held, rows[index], _NOBODY)])
            ev = np.where(held, found.expected_value[told, :width], -np.inf)
            ev = np.hstack([self._expected_value[told], ev])
            propensity = np.hstack([self._propensity[told], found.propensity[told, :width]])
            order = np.lexsort((row, -ev), axis=1)[:, : self._row.shape[1]]
            self._row[told] = np.take_along_axis(row, order, axis=1)
            self._expected_value[told] = np.take_along_axis(ev, order, axis=1)
            self._propensity[told] = np.take_along_axis(propensity, order, axis=1)
            # Below the last of k nobody is needed; where there are fewer, that is −inf.
            last = np.maximum(self._expected_value[told, -1], self._least[told])
            least = self._least.copy()
            least[told] = last
            self._least = least

    def in_order(
        self,
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
    ]:
        """(asked position, row, expected value, propensity) of everybody held, best first."""
        asked, rank = np.nonzero(self._row != _NOBODY)
        cells = asked, rank
        return asked, self._row[cells], self._expected_value[cells], self._propensity[cells]
