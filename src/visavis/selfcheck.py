"""A quick check, on this machine, that every variant of the kernel computes the same bits."""

from __future__ import annotations

import numpy as np

from visavis import kernel

__all__ = ["check_variants"]


def check_variants(seed: int = 0) -> dict[str, bool]:
    """Compare each variant that this processor runs with the portable one.

    Parameters
    ----------
    seed : int
        Of the random problem.

    Returns
    -------
    dict of str to bool
        By variant: whether every byte of a match with history, planes and limits is the same.
    """
    rng = np.random.default_rng(seed)
    customers, capabilities, columns = 257, 391, 61
    indicators = rng.normal(size=(customers, columns)).astype(np.float32)
    panel = kernel.pack(
        rng.normal(size=(capabilities, columns)).astype(np.float32) / 8,
        rng.normal(size=capabilities).astype(np.float32),
        value=rng.choice([0.0, 1.0, 5.0], capabilities),
        cost=rng.choice([-0.5, 0.0, 0.25], capabilities),
        link=rng.choice(["logistic", "count", "identity"], capabilities).tolist(),
        product=rng.integers(0, 60, capabilities),
        channel=rng.integers(0, 3, capabilities),
        family=rng.integers(0, 12, capabilities),
    )
    planes = rng.integers(0, 2**63, size=(customers, 2), dtype=np.uint64)
    eligible = kernel.Eligibility(planes, rng.integers(-1, 127, capabilities).astype(np.int32))
    present = rng.random((customers, capabilities)) < 0.05
    history = kernel.History(
        np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64),
        np.nonzero(present)[1].astype(np.int32),
        rng.choice([-np.inf, -1.0, 2.0], int(present.sum())).astype(np.float32),
    )
    answers = {
        name: kernel.match(
            indicators,
            panel,
            k=7,
            eligible=eligible,
            history=history,
            limits=kernel.Limits(product=1, channel=3, family=2),
            variant=name,
        )
        for name, supported in kernel.variants().items()
        if supported
    }
    expected = answers["portable"]
    return {name: _same_bytes(answer, expected) for name, answer in answers.items()}


def _same_bytes(actual: kernel.MatchResult, expected: kernel.MatchResult) -> bool:
    fields = ("capability_index", "expected_value", "propensity", "opportunity_count")
    return all(
        getattr(actual, field).tobytes() == getattr(expected, field).tobytes() for field in fields
    )
