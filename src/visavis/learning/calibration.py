"""Do the propensities mean what they say? Reliability, Brier score, log-loss, outliers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["outliers", "recalibrated", "reliability"]

Float64 = npt.NDArray[np.float64]

#: Fewer positives than this say too little about a bin.
BIN_POSITIVES_MIN: Final = 500

#: Log-odds are kept within ±36, where float64 still tells a probability from 0 and 1.
_LOG_ODDS_MAX: Final = 36.0


def reliability(
    propensity: Float64, bought: Float64, weight: Float64 | None = None, *, bin_count: int = 20
) -> dict[str, Any]:
    """Compare expected and observed purchases, bin by bin.

    Bins hold about equally many positives, and are merged until each has at least 500.

    Parameters
    ----------
    propensity : ndarray of shape (pairs,), float64
    bought : ndarray of shape (pairs,), 0 or 1
    weight : ndarray of shape (pairs,), float64, optional
        How many pairs each row stands for; default 1.
    bin_count : int
        At most so many bins.

    Returns
    -------
    dict
        ``bins``: list of low, high, pair_count, expected, observed, ratio (observed / expected);
        ``brier`` and ``log_loss`` per pair; ``expected`` and ``observed`` in all.
    """
    w = np.ones(len(propensity)) if weight is None else weight
    positives = bought > 0
    count = max(1, min(bin_count, int((w * bought).sum() // BIN_POSITIVES_MIN)))
    places = np.linspace(0, 1, count + 1)[1:-1]
    inner = np.unique(np.quantile(propensity[positives], places)) if count > 1 else np.empty(0)
    place = np.searchsorted(inner, propensity, side="right")
    bins = []
    for number in range(len(inner) + 1):
        inside = place == number
        expected = float((w * propensity)[inside].sum())
        observed = float((w * bought)[inside].sum())
        bins.append(
            {
                "low": float(inner[number - 1]) if number else 0.0,
                "high": float(inner[number]) if number < len(inner) else 1.0,
                "pair_count": float(w[inside].sum()),
                "expected": expected,
                "observed": observed,
                "ratio": observed / expected if expected else None,
            }
        )
    total = w.sum()
    return {
        "bins": bins,
        "brier": float((w * (propensity - bought) ** 2).sum() / total),
        "log_loss": _log_loss(propensity, bought, w),
        "expected": float((w * propensity).sum()),
        "observed": float((w * bought).sum()),
    }


def recalibrated(score: Float64, bought: Float64, fitted_on: Float64, labels: Float64) -> float:
    """Log-loss per pair of another score after Platt's scaling, for a fair comparison.

    Parameters
    ----------
    score, bought : ndarray of shape (pairs,)
        The score to judge, and what happened.
    fitted_on, labels : ndarray of shape (pairs',)
        The score and labels of an earlier window, on which the scaling is fitted.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(fitted_on[:, None], labels)
    return _log_loss(model.predict_proba(score[:, None])[:, 1], bought, np.ones(len(score)))


def outliers(
    expected: Float64, observed: Float64, capability_ids: tuple[str, ...], *, count: int = 10
) -> list[dict[str, Any]]:
    """Capabilities whose observed purchases stray furthest from the expected ones.

    Ranked by |observed − expected| / √expected, the distance in standard deviations of a Poisson
    count; ties by id.
    """
    distance = np.abs(observed - expected) / np.sqrt(np.maximum(expected, 1.0))
    order = sorted(range(len(distance)), key=lambda j: (-distance[j], capability_ids[j]))
    return [
        {
            "capability_id": capability_ids[j],
            "observed": float(observed[j]),
            "expected": float(expected[j]),
            "ratio": float(observed[j] / expected[j]) if expected[j] else None,
            "standard_deviations": float(distance[j]),
        }
        for j in order[:count]
    ]


def _log_loss(propensity: Float64, bought: Float64, weight: Float64) -> float:
    least = 1.0 / (1.0 + np.exp(_LOG_ODDS_MAX))
    p = np.clip(propensity, least, 1.0 - 2.0**-53)
    each = -(bought * np.log(p) + (1.0 - bought) * np.log1p(-p))
    return float((weight * each).sum() / weight.sum())
