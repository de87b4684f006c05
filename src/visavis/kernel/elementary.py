"""exp and log1p of docs/score.md over arrays: the same bits on every processor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis import _kernel
from visavis.errors import InputError
from visavis.kernel.arguments import any_array, as_array
from visavis.kernel.types import Float64

__all__ = ["exp", "log1p"]


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
    values = any_array(argument, name)
    flat = as_array(values.reshape(-1), np.float64, name, ndim=1)
    wrong = ~((flat >= low) & (flat <= high))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"must lie in [{low}, {high}], got {flat[row]}", field=name, row=row)
    result = np.empty_like(flat)
    function(flat, result)
    return result.reshape(values.shape)
