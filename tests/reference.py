"""The oracle: docs/score.md transcribed into plain numpy float64, slow and easy to check.

It knows nothing of visavis. Every function follows the page line by line, in the page's names:
elementary operations on whole arrays, each rounded once, no `np.dot`, `np.sum`, `np.exp` or
`np.log1p`, whose order of operations is numpy's business. `match` and `audience` score every pair,
sort them all and walk: there is no K′ here, for the greedy walk is the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

INVERSE_LN2 = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
EXP_LEAST = -708.0
LOG1P_TINY = 2.0**-54
TRUNC26_MASK = np.uint64(0xFFFFFFFFF8000000)

#: 1/13!, 1/12!, … 1/2!
E = [
    float.fromhex(text)
    for text in (
        "0x1.6124613a86d09p-33",
        "0x1.1eed8eff8d898p-29",
        "0x1.ae64567f544e4p-26",
        "0x1.27e4fb7789f5cp-22",
        "0x1.71de3a556c734p-19",
        "0x1.a01a01a01a01ap-16",
        "0x1.a01a01a01a01ap-13",
        "0x1.6c16c16c16c17p-10",
        "0x1.1111111111111p-7",
        "0x1.5555555555555p-5",
        "0x1.5555555555555p-3",
        "0x1.0000000000000p-1",
    )
]

#: 1/35, 1/33, … 1/3
A = [
    float.fromhex(text)
    for text in (
        "0x1.d41d41d41d41dp-6",
        "0x1.f07c1f07c1f08p-6",
        "0x1.0842108421084p-5",
        "0x1.1a7b9611a7b96p-5",
        "0x1.2f684bda12f68p-5",
        "0x1.47ae147ae147bp-5",
        "0x1.642c8590b2164p-5",
        "0x1.8618618618618p-5",
        "0x1.af286bca1af28p-5",
        "0x1.e1e1e1e1e1e1ep-5",
        "0x1.1111111111111p-4",
        "0x1.3b13b13b13b14p-4",
        "0x1.745d1745d1746p-4",
        "0x1.c71c71c71c71cp-4",
        "0x1.2492492492492p-3",
        "0x1.999999999999ap-3",
        "0x1.5555555555555p-2",
    )
]


class Scores(NamedTuple):
    """§2 and §4 of every pair, shape (n, m); NaN where h = −∞, for no score exists there."""

    linear_predictor: np.ndarray
    expected_value: np.ndarray
    propensity: np.ndarray


class Match(NamedTuple):
    """§6: (n, k) arrays filled with (−1, 0.0, 0.0) from `opportunity_count` on."""

    capability_index: np.ndarray
    expected_value: np.ndarray
    propensity: np.ndarray
    opportunity_count: np.ndarray


class Audience(NamedTuple):
    """§7: (n_asked, min(k, n)) arrays filled with (−1, 0.0, 0.0) from `customer_count` on."""

    customer_index: np.ndarray
    expected_value: np.ndarray
    propensity: np.ndarray
    customer_count: np.ndarray


def trunc26(v):
    return (v.view(np.uint64) & TRUNC26_MASK).view(np.float64)


def horner(coefficients, v):
    p = np.full_like(v, coefficients[0])
    for coefficient in coefficients[1:]:
        p = p * v + coefficient
    return p


def exp(y):
    """§3, y ≤ 0."""
    y = np.asarray(y, dtype=np.float64)
    inside = y >= EXP_LEAST
    y = np.where(inside, y, 0.0)
    k = np.rint(y * INVERSE_LN2)
    high = y - k * LN2_HIGH
    low = k * LN2_LOW
    r = high - low
    c = (high - r) - low
    P = horner(E, r)
    m = 1.0 + (r + (c + (r * r) * P))
    return np.where(inside, np.ldexp(m, k.astype(np.int32)), 0.0)


def _log1p_to_one(a):
    """§3, 0 ≤ a ≤ 1."""
    t = 2.0 + a
    t_rest = a - (t - 2.0)
    s = a / t
    s1 = trunc26(s)
    s2 = s - s1
    t1 = trunc26(t)
    t2 = t - t1
    e = ((((a - s1 * t1) - s1 * t2) - s2 * t1) - s2 * t2) - s * t_rest
    s_rest = e / t
    z = s * s
    P = horner(A, z)
    result = 2.0 * s + (2.0 * s_rest + (2.0 * s) * (z * P))
    return np.where(a < LOG1P_TINY, a, result)


def log1p(x):
    """§3, x ≥ 0."""
    x = np.asarray(x, dtype=np.float64)
    small = x <= 1.0
    u = 1.0 + np.where(small, 1.0, x)
    k = (u.view(np.uint64) >> np.uint64(52)).astype(np.int32) - 1023
    m = np.ldexp(u, -k)
    exponent = k.astype(np.float64)
    beyond = exponent * LN2_HIGH + (_log1p_to_one(m - 1.0) + exponent * LN2_LOW)
    return np.where(small, _log1p_to_one(np.where(small, x, 0.0)), beyond)


def dot(indicators, weights):
    """§2: eight partial sums of every pair, shape (n, m)."""
    x = np.asarray(indicators, dtype=np.float32).astype(np.float64)
    w = np.asarray(weights, dtype=np.float32).astype(np.float64)
    columns = x.shape[1]
    s = [np.zeros((len(x), len(w))) for _ in range(8)]
    for d in range(-(-columns // 8) * 8):
        x_d = x[:, d] if d < columns else np.zeros(len(x))
        w_d = w[:, d] if d < columns else np.zeros(len(w))
        s[d % 8] = s[d % 8] + x_d[:, None] * w_d[None, :]
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))


def history_matrix(history, rows, capabilities):
    """The CSR adjustments as a dense float64 matrix; 0 where absent."""
    h = np.zeros((rows, capabilities))
    if history is not None:
        indptr, capability_index, adjustment = history
        for i in range(rows):
            for entry in range(int(indptr[i]), int(indptr[i + 1])):
                h[i, capability_index[entry]] = np.float64(np.float32(adjustment[entry]))
    return h


def eligible_matrix(eligible, rows, capabilities):
    """Whoever may meet, as a dense boolean matrix; `eligible` as in `match`."""
    if eligible is None:
        return np.ones((rows, capabilities), dtype=bool)
    if not isinstance(eligible, tuple):
        return np.asarray(eligible, dtype=bool)
    planes, plane_index = eligible
    dense = np.ones((rows, capabilities), dtype=bool)
    for i in range(rows):
        for j in range(capabilities):
            plane = int(plane_index[j])
            if plane >= 0:
                dense[i, j] = (int(planes[i, plane // 64]) >> (plane % 64)) & 1
    return dense


def scores(indicators, weights, bias, *, value, cost, link, history=None):
    """§2 to §4 of every pair.

    Parameters
    ----------
    indicators : ndarray of shape (n, D), float32
    weights : ndarray of shape (m, D), float32
    bias : ndarray of shape (m,), float32
    value, cost : ndarray of shape (m,), float64
    link : str or sequence of m str
    history : (indptr, capability_index, adjustment), optional

    Returns
    -------
    Scores
    """
    m = len(weights)
    links = np.array([link] * m if isinstance(link, str) else list(link))[None, :]
    b = np.asarray(bias, dtype=np.float32).astype(np.float64)[None, :]
    value = np.asarray(value, dtype=np.float64)[None, :]
    cost = np.asarray(cost, dtype=np.float64)[None, :]
    h = history_matrix(history, len(indicators), m)
    exists = h != -np.inf
    z = (dot(indicators, weights) + b) + np.where(exists, h, 0.0)
    a = exp(-np.abs(z))
    sigma = np.where(z >= 0.0, 1.0 / (1.0 + a), a / (1.0 + a))
    identity = links == "identity"
    g = np.where(links == "count", np.where(z > 0.0, z, 0.0) + log1p(a), sigma)
    g = np.where(identity, z, g)
    product = g * value
    ev = product - cost
    ev = np.where(ev == 0.0, 0.0, ev)
    propensity = np.where(identity, z, sigma)
    return Scores(*(np.where(exists, array, np.nan) for array in (z, ev, propensity)))


def _walk(order, k, limits, groups):
    """§6: the capabilities taken, in the order of the walk."""
    taken = []
    counts = [{} for _ in groups]
    for j in order:
        if len(taken) == k:
            break
        keys = [group[j] for group in groups]
        closed = (
            limit is not None and count.get(key, 0) >= limit
            for limit, count, key in zip(limits, counts, keys, strict=True)
        )
        if not any(closed):
            taken.append(j)
            for count, key in zip(counts, keys, strict=True):
                count[key] = count.get(key, 0) + 1
    return taken


def _candidates(table, eligible, ev_min):
    """Pairs that may be taken: eligible, with a score, and worth at least `ev_min`."""
    least = -np.inf if ev_min is None else ev_min
    return eligible & ~np.isnan(table.expected_value) & (table.expected_value >= least)


def _ordered(ev, candidates):
    """§5: positions of the candidates, ev descending, then index ascending."""
    return sorted((int(j) for j in np.flatnonzero(candidates)), key=lambda j: (-ev[j], j))


def match(
    indicators,
    weights,
    bias,
    *,
    value,
    cost,
    link: str | Sequence[str],
    k: int,
    product=None,
    channel=None,
    family=None,
    eligible=None,
    history=None,
    limits=None,
    ev_min: float | None = 0.0,
):
    """§6 over all pairs.

    Parameters
    ----------
    indicators, weights, bias, value, cost, link, history
        As in `scores`.
    k : int
    product, channel, family : ndarray of shape (m,), optional
        Groups that limits count by; default: each capability is a group of its own.
    eligible : ndarray of shape (n, m), bool, or (planes, plane_index), optional
    limits : (product, channel, family), each int or None, optional
    ev_min : float or None

    Returns
    -------
    Match
    """
    n, m = len(indicators), len(weights)
    table = scores(indicators, weights, bias, value=value, cost=cost, link=link, history=history)
    candidates = _candidates(table, eligible_matrix(eligible, n, m), ev_min)
    groups = [
        list(range(m)) if codes is None else [int(code) for code in codes]
        for codes in (product, channel, family)
    ]
    result = Match(
        np.full((n, k), -1, dtype=np.int32),
        np.zeros((n, k)),
        np.zeros((n, k)),
        np.zeros(n, dtype=np.int32),
    )
    for i in range(n):
        order = _ordered(table.expected_value[i], candidates[i])
        taken = _walk(order, k, limits or (None, None, None), groups)
        count = len(taken)
        result.capability_index[i, :count] = taken
        result.expected_value[i, :count] = table.expected_value[i, taken]
        result.propensity[i, :count] = table.propensity[i, taken]
        result.opportunity_count[i] = count
    return result


def audience(
    indicators,
    weights,
    bias,
    *,
    value,
    cost,
    link: str | Sequence[str],
    k: int,
    capability_index,
    eligible=None,
    history=None,
    ev_min: float | None = 0.0,
):
    """§7 for each asked capability; arguments as in `match`.

    Returns
    -------
    Audience
    """
    n, m = len(indicators), len(weights)
    table = scores(indicators, weights, bias, value=value, cost=cost, link=link, history=history)
    candidates = _candidates(table, eligible_matrix(eligible, n, m), ev_min)
    shape = (len(capability_index), min(k, max(n, 1)))
    result = Audience(
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(len(capability_index), dtype=np.int64),
    )
    for position, j in enumerate(capability_index):
        best = _ordered(table.expected_value[:, j], candidates[:, j])[:k]
        count = len(best)
        result.customer_index[position, :count] = best
        result.expected_value[position, :count] = table.expected_value[best, j]
        result.propensity[position, :count] = table.propensity[best, j]
        result.customer_count[position] = count
    return result


class Terms(NamedTuple):
    """§12 in CSR form: the terms of each pair, from `offsets[pair]` to `offsets[pair + 1]`."""

    offsets: np.ndarray
    name_index: np.ndarray
    contribution: np.ndarray


def largest_terms(
    indicators,
    weights,
    customer_index,
    capability_index,
    *,
    by_name,
    count: int,
    history=None,
    against=None,
):
    """§12 for chosen pairs: the columns in order of name, then a stable sort by contribution.

    Returns
    -------
    Terms
    """
    h = history_matrix(history, len(indicators), len(weights))
    x, w = indicators[customer_index].astype(np.float64), weights[capability_index]
    products = np.empty((len(x), len(by_name)))
    np.multiply(x, w if against is None else w - against, out=products[:, :-1])
    products[:, -1] = h[customer_index, capability_index]
    ordered = products[:, by_name]
    best = np.argsort(-ordered, axis=1, kind="stable")[:, :count]
    contribution = np.take_along_axis(ordered, best, axis=1)
    positive = contribution > 0.0
    offsets = np.concatenate([[0], np.cumsum(positive.sum(axis=1))]).astype(np.int64)
    return Terms(offsets, np.asarray(by_name)[best][positive], contribution[positive])
