"""Segments of customers by k-means on their indicators, and what the average member is worth."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.engine import Engine
from visavis.engine.blocks import check_count
from visavis.evaluate.scored import Float64, Int64, PairScores

__all__ = ["SEGMENT_COUNT", "segment_ranking", "segments_of"]

#: As many as a marketing team writes speeches for.
SEGMENT_COUNT: Final = 8

#: k-means starts so many times; the tightest clustering counts.
STARTS: Final = 5

#: Customers that k-means learns from; larger bases are drawn from by `seed`.
FITTED_MAX: Final = 20_000

#: Standard scores are cut here: one customer with a thousand visits is no segment.
STANDARD_MAX: Final = 3.0

#: The quartiles of a normal distribution lie so many standard deviations apart.
_QUARTILE_DISTANCE: Final = 1.349

_ROWS_AT_ONCE: Final = 1 << 14


def segments_of(engine: Engine, *, count: int = SEGMENT_COUNT, seed: int = 0) -> Int64:
    """The segment of each customer who may be matched.

    Indicators are standardised by median and quartiles (where the quartiles meet, by the standard
    deviation; constants are left out) and cut at ±3. k-means runs on one thread: the order in
    which threads meet would decide its last bits. Its numbers may still differ between processors,
    which is why only this arm promises the same contacts on the same machine alone.

    Parameters
    ----------
    engine : Engine
    count : int
        Segments, at most as many as there are distinct customers.
    seed : int

    Returns
    -------
    ndarray of shape (n,), int64
        By position in ``engine.customer_index``.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    check_count(count, "segment_count", 1)
    rows = engine.customer_index
    fitted = rows
    if len(rows) > FITTED_MAX:
        drawn = np.random.default_rng(seed).choice(len(rows), FITTED_MAX, replace=False)
        fitted = rows[np.sort(drawn)]
    center, scale = _standards(engine.base.indicators[fitted])
    known = _standardised(engine.base.indicators[fitted], center, scale)
    count = min(count, len(np.unique(known, axis=0)))
    if count < 2:
        return np.zeros(len(rows), dtype=np.int64)
    with threadpool_limits(limits=1):
        model = KMeans(n_clusters=count, n_init=STARTS, random_state=seed).fit(known)
        codes = [
            model.predict(
                _standardised(
                    engine.base.indicators[rows[begin : begin + _ROWS_AT_ONCE]], center, scale
                )
            )
            for begin in range(0, len(rows), _ROWS_AT_ONCE)
        ]
    return np.concatenate(codes).astype(np.int64)


def segment_ranking(scored: PairScores, codes: Int64) -> Int64:
    """Each segment's capabilities, by mean score over the members who may get them.

    Parameters
    ----------
    scored : PairScores
    codes : ndarray of shape (n,), int64
        The segment of each customer.

    Returns
    -------
    ndarray of shape (segments, m), int64
        Mean descending, then capability index; what no member may get stands last.
    """
    count, m = int(codes.max()) + 1, scored.capability_count
    sums, sizes = np.zeros(count * m), np.zeros(count * m)
    for begin, scores in scored.row_blocks():
        cells = codes[begin : begin + len(scores), None] * m + np.arange(m)
        may_meet = scores > -np.inf
        # One sum after the other, in order of the customers: a parallel sum would not repeat.
        sums += np.bincount(cells[may_meet], weights=scores[may_meet], minlength=count * m)
        sizes += np.bincount(cells[may_meet], minlength=count * m)
    mean = np.full(count * m, -np.inf)
    np.divide(sums, sizes, out=mean, where=sizes > 0)
    return np.argsort(-mean.reshape(count, m), axis=1, kind="stable")


def _standards(x: npt.NDArray[np.float32]) -> tuple[Float64, Float64]:
    """By column: the median, and what counts as one standard deviation; infinite for constants."""
    center, scale = np.empty(x.shape[1]), np.empty(x.shape[1])
    for d in range(x.shape[1]):
        column = x[:, d].astype(np.float64)
        low, center[d], high = np.quantile(column, [0.25, 0.5, 0.75])
        scale[d] = (high - low) / _QUARTILE_DISTANCE or column.std() or np.inf
    return center, scale


def _standardised(x: npt.NDArray[np.float32], center: Float64, scale: Float64) -> Float64:
    return np.clip((x.astype(np.float64) - center) / scale, -STANDARD_MAX, STANDARD_MAX)
