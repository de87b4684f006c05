"""What `visavis doctor` compares with is what the oracle answers, and one wrong bit is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import reference
from visavis import kernel, selfcheck
from visavis.selfcheck import FIELDS, KNOWN_DIGESTS, answer_digest, check_problem, check_variants

SUPPORTED = {name for name, runs in kernel.variants().items() if runs}


def test_the_known_answers_are_those_of_the_oracle() -> None:
    problem = check_problem()
    scored = (problem.indicators, problem.weights, problem.bias)
    pairs: dict[str, Any] = {**problem.prices, "history": problem.history}
    gates: dict[str, Any] = {**pairs, "k": 12, "eligible": problem.eligible}
    answers = {
        "match": reference.match(*scored, **gates, **problem.groups, limits=problem.limits),
        "audience": reference.audience(*scored, **gates, capability_index=problem.asked),
        "scores": reference.scores(*scored, **pairs),
    }
    assert {call: answer_digest(call, answer) for call, answer in answers.items()} == dict(
        KNOWN_DIGESTS
    )


def test_the_problem_goes_through_every_gate() -> None:
    problem = check_problem()
    panel = kernel.pack(problem.weights, problem.bias, **problem.prices, **problem.groups)
    stats = kernel.match(
        problem.indicators,
        panel,
        k=12,
        eligible=problem.eligible,
        history=problem.history,
        limits=problem.limits,
        variant="portable",
    ).stats
    assert stats["skipped_by_rule"] > 0
    assert stats["rescreens"] > 0
    assert np.isneginf(problem.history.adjustment).any()
    assert set(problem.prices["link"]) == {"logistic", "count", "identity"}


def test_every_variant_that_runs_here_answers_as_known() -> None:
    assert check_variants() == dict.fromkeys(SUPPORTED, True)


@pytest.mark.parametrize("call", sorted(FIELDS))
def test_one_wrong_bit_is_seen(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(selfcheck.kernel, call)

    def wrong(*arguments: Any, **options: Any) -> Any:
        answer = right(*arguments, **options)
        bits = answer.propensity.copy()
        bits.view(np.uint8).reshape(-1)[8] ^= 1
        return replace(answer, propensity=bits)

    monkeypatch.setattr(selfcheck.kernel, call, wrong)
    assert check_variants() == dict.fromkeys(SUPPORTED, False)
