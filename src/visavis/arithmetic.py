"""The fixed-order arithmetic that indicators and history features share.

What reaches a result must have the same bits on every machine and in every run: e^x and log1p are
the kernel's, because libm and numpy differ between processors, and a float sum adds one row after
another, because a parallel one differs from run to run.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.kernel import exp, log1p

__all__ = ["LN2", "decay", "log", "sum_by"]

Float64 = npt.NDArray[np.float64]

#: The float64 nearest to log 2, written out: no libm is asked for it.
LN2: Final = float.fromhex("0x1.62e42fefa39efp-1")


def decay(age_days: Float64, half_life_days: float) -> Float64:
    """``2^(−age/half_life)``, computed as ``exp((−ln 2 · age) / half_life)``.

    Parameters
    ----------
    age_days : ndarray, float64
        Ages ≥ 0 in days.
    half_life_days : float
        > 0; infinity stands for no decay.

    Returns
    -------
    ndarray, float64
        In [0, 1]; exactly 1 at age 0 and for an infinite half-life.
    """
    # A tiny half-life may overflow to −inf on the way, whose exponential is the right 0.
    with np.errstate(over="ignore"):
        exponent = (-LN2 * age_days) / half_life_days
    return exp(exponent)


def sum_by(cell: npt.NDArray[np.integer], addends: Float64, cell_count: int) -> Float64:
    """Sum the addends of each cell, strictly one row after the other.

    Parameters
    ----------
    cell : ndarray of shape (n_rows,), integers
        From 0 to ``cell_count − 1``.
    addends : ndarray of shape (n_rows,)
    cell_count : int

    Returns
    -------
    ndarray of shape (cell_count,), float64
        0 where a cell has no row.
    """
    sums = np.bincount(cell, weights=addends, minlength=cell_count)
    return sums.astype(np.float64, copy=False)


def log(v: Float64) -> Float64:
    """The natural logarithm of positive numbers, from the kernel's log1p."""
    above = v >= 1.0
    larger = log1p(np.where(above, v - 1.0, 0.0))
    smaller = log1p(np.where(above, 0.0, 1.0 / np.where(above, 1.0, v) - 1.0))
    return np.where(above, larger, -smaller)
