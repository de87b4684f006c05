"""Logistic regression with a ridge toward a starting point, by Newton's method.

Minimises  Σ (log(1 + e^z) − y·z) + ½·Σ ridge_c·δ_c²  with  z = offset + X·δ.  The offset carries
the pooled model, so that a strong ridge leaves it as it is and a weak one lets a product speak.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["fit_deviation", "log_loss"]

Float64 = npt.NDArray[np.float64]

NEWTON_STEPS_MAX: Final = 25
#: Newton stops when no coefficient, in standard deviations of its column, moves by more.
STEP_SMALL: Final = 1e-6


def log_loss(z: Float64, y: Float64, weight: Float64 | float = 1.0) -> float:
    """Σ w·(log(1 + e^z) − y·z): the weighted negative log-likelihood."""
    return float(np.sum(weight * (np.logaddexp(0.0, z) - y * z)))


def fit_deviation(x: Float64, y: Float64, offset: Float64, ridge: Float64) -> Float64:
    """The deviation from the pooled model that the rows ask for.

    Parameters
    ----------
    x : ndarray of shape (rows, columns), float64
        Standardised, with a column of ones where an intercept may deviate.
    y, offset : ndarray of shape (rows,), float64
    ridge : ndarray of shape (columns,), float64
        > 0, finite, by column.

    Returns
    -------
    ndarray of shape (columns,), float64
    """
    deviation = np.zeros(x.shape[1])
    if not len(x):
        return deviation
    loss = _penalised(x, y, offset, ridge, deviation)
    for _ in range(NEWTON_STEPS_MAX):
        z = offset + x @ deviation
        p = 0.5 * (1.0 + np.tanh(0.5 * z))
        gradient = x.T @ (p - y) + ridge * deviation
        curvature = (x * (p * (1.0 - p))[:, None]).T @ x
        curvature[np.diag_indices_from(curvature)] += ridge
        step = np.linalg.solve(curvature, gradient)
        # The penalised loss is strictly convex: halving always finds a descent.
        length = 1.0
        while length > 1e-4:
            trial = deviation - length * step
            trial_loss = _penalised(x, y, offset, ridge, trial)
            if trial_loss <= loss:
                break
            length /= 2.0
        else:
            break
        deviation, loss = trial, trial_loss
        if np.max(np.abs(length * step)) < STEP_SMALL:
            break
    return deviation


def _penalised(
    x: Float64, y: Float64, offset: Float64, ridge: Float64, deviation: Float64
) -> float:
    z = offset + x @ deviation
    return log_loss(z, y) + 0.5 * float(ridge @ deviation**2)
