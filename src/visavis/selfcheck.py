"""A quick check, on this machine, that every variant of the kernel computes the bits it must.

One small problem with history, planes, limits and all links is drawn by integer arithmetic, so that
it is the same everywhere: numpy's own generators may change with its version. The digests of its
answers are known; the tests derive them from the oracle of docs/score.md, not from a kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import kernel

__all__ = [
    "FIELDS",
    "KNOWN_DIGESTS",
    "CheckProblem",
    "answer_digest",
    "check_problem",
    "check_variants",
]

#: The arrays of each answer, in the order in which they enter its digest.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "match": ("capability_index", "expected_value", "propensity", "opportunity_count"),
    "audience": ("customer_index", "expected_value", "propensity", "customer_count"),
    "scores": ("linear_predictor", "expected_value", "propensity"),
}

#: What every variant must answer; they change when docs/score.md or the problem does, then only.
KNOWN_DIGESTS: Final[Mapping[str, str]] = {
    "match": "9024ea8c0b82ba805d1b04c52d9ae1f11c36dcf1078325bf461d44a895ef1c6e",
    "audience": "cf0eafefe6b2acaa36cd642171e771a2f4359284ab54f7dfd41be0e7455c2a00",
    "scores": "2b7a41c4a01832ff129a24d244d657ad8de78402a3f52ea8a37e49d87f3f1e28",
}

#: Odd, so that every kind of block and vector has a ragged tail.
_CUSTOMERS: Final = 257
_CAPABILITIES: Final = 391
_COLUMNS: Final = 61


class CheckProblem(NamedTuple):
    """The arguments of the three calls.

    Attributes
    ----------
    indicators : ndarray of shape (n, d), float32
    weights : ndarray of shape (m, d), float32
    bias : ndarray of shape (m,), float32
    prices, groups : dict
        Keywords of `kernel.pack`.
    eligible : kernel.Eligibility
    history : kernel.History
    limits : kernel.Limits
    asked : ndarray of shape (n_asked,), int32
        The capabilities whose audiences are asked.
    """

    indicators: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    prices: dict[str, Any]
    groups: dict[str, Any]
    eligible: kernel.Eligibility
    history: kernel.History
    limits: kernel.Limits
    asked: npt.NDArray[np.int32]


def check_problem() -> CheckProblem:
    """The problem whose answers are known: the same bits on every machine."""
    n, m = _CUSTOMERS, _CAPABILITIES
    present = _drawn("present", n * m).reshape(n, m) % 20 == 0
    entries = int(present.sum())
    steps = np.array([-np.inf, -1.0, 2.0], dtype=np.float32)
    return CheckProblem(
        indicators=_fractions("indicators", n * _COLUMNS).reshape(n, _COLUMNS),
        weights=_fractions("weights", m * _COLUMNS).reshape(m, _COLUMNS),
        bias=_fractions("bias", m),
        prices={
            "value": np.array([0.0, 1.0, 5.0])[_codes("value", m, 3)],
            "cost": np.array([-0.5, 0.0, 0.25])[_codes("cost", m, 3)],
            "link": [("logistic", "count", "identity")[code] for code in _codes("link", m, 3)],
        },
        groups={
            "product": _codes("product", m, 60),
            "channel": _codes("channel", m, 3),
            "family": _codes("family", m, 12),
        },
        eligible=kernel.Eligibility(
            _drawn("planes", n * 2).reshape(n, 2) | _drawn("more", n * 2).reshape(n, 2),
            _codes("plane", m, 129) - np.int32(1),
        ),
        history=kernel.History(
            np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64),
            np.nonzero(present)[1].astype(np.int32),
            steps[_codes("history", entries, 3)],
        ),
        # Twelve families, one opportunity each: the first list rarely has them all, and the walk
        # goes on beyond it.
        limits=kernel.Limits(product=1, channel=6, family=1),
        asked=np.arange(0, m, 17, dtype=np.int32),
    )


def check_variants() -> dict[str, bool]:
    """Compare each variant that this processor runs with the answers that are known.

    Returns
    -------
    dict of str to bool
        By variant: whether every byte of a match, of audiences and of scores is as known.
    """
    return {
        name: _digests(name) == dict(KNOWN_DIGESTS)
        for name, supported in kernel.variants().items()
        if supported
    }


def answer_digest(call: str, answer: object) -> str:
    """The sha256 of an answer's arrays, little-endian, row after row, in hex.

    Parameters
    ----------
    call : str
        ``match``, ``audience`` or ``scores``.
    answer : object
        Whatever has the arrays of `FIELDS` as attributes: of the kernel, or of the oracle.
    """
    digest = hashlib.sha256()
    for field in FIELDS[call]:
        array = getattr(answer, field)
        digest.update(f"{field} {array.dtype.name} {array.shape}\n".encode())
        # A NaN says that no score exists; which of the NaNs it is, nobody promises.
        plain = np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array
        digest.update(np.ascontiguousarray(plain, plain.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _digests(variant: str) -> dict[str, str]:
    problem = check_problem()
    panel = kernel.pack(problem.weights, problem.bias, **problem.prices, **problem.groups)
    shared: dict[str, Any] = {"history": problem.history, "variant": variant}
    gates: dict[str, Any] = {"k": 12, "eligible": problem.eligible, **shared}
    answers = {
        "match": kernel.match(problem.indicators, panel, limits=problem.limits, **gates),
        "audience": kernel.audience(
            problem.indicators, panel, capability_index=problem.asked, **gates
        ),
        "scores": kernel.scores(problem.indicators, panel, **shared),
    }
    return {call: answer_digest(call, answer) for call, answer in answers.items()}


def _drawn(label: str, count: int) -> npt.NDArray[np.uint64]:
    """So many integers of 64 bits, from shake_256 of the label."""
    stream = hashlib.shake_256(label.encode()).digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def _fractions(label: str, count: int) -> npt.NDArray[np.float32]:
    """Numbers in [−1, 1) of 24 bits each: exact in float32, whatever divides them."""
    signed = (_drawn(label, count) >> np.uint64(40)).astype(np.int64) - 2**23
    return (signed / 2.0**23).astype(np.float32)


def _codes(label: str, count: int, size: int) -> npt.NDArray[np.int32]:
    return (_drawn(label, count) % np.uint64(size)).astype(np.int32)
