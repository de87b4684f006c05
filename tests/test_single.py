"""`kernel.Single`: one customer is matched as among others, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from assertions import assert_same_array
from visavis import kernel
from visavis.errors import InputError, SchemaError


def planes_of(problem: strategies.Problem) -> kernel.Eligibility:
    """Who may meet what, as planes: one for each capability, where it was given pair by pair."""
    (n, m), eligible = problem.shape, problem.eligible
    if isinstance(eligible, kernel.Eligibility):
        return eligible
    if eligible is None:
        return kernel.Eligibility(np.zeros((n, 0), np.uint64), np.full(m, -1, np.int32))
    bits = np.zeros((n, -(-m // 64) * 64), dtype=np.uint8)
    bits[:, :m] = eligible
    planes = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    return kernel.Eligibility(planes, np.arange(m, dtype=np.int32))


def single(problem: strategies.Problem, variant: str | None = None, **more: Any) -> kernel.Single:
    columns, eligible = problem.indicators.shape[1], planes_of(problem)
    return kernel.Single(
        problem.pack(),
        **{
            **problem.request("k", "limits", "ev_min"),
            "plane_index": eligible.plane_index,
            "plane_words": eligible.planes.shape[1],
            "variant": variant,
            "by_name": range(columns, -1, -1),
            "against": problem.weights.astype(np.float64).mean(axis=0),
            **more,
        },
    )


@pytest.mark.parametrize("variant", [name for name, runs in kernel.variants().items() if runs])
@settings(max_examples=80, deadline=None)
@given(
    problem=strategies.match_problems(),
    reasons=st.sampled_from([None, 0, 2, 1_000]),
    distinctive=st.booleans(),
)
def test_one_is_matched_as_among_others(
    variant: str, problem: strategies.Problem, reasons: int | None, distinctive: bool
) -> None:
    panel, columns = problem.pack(), problem.indicators.shape[1]
    wanted = kernel.match(problem.indicators, panel, variant=variant, **problem.request())
    alone, planes = single(problem, variant), planes_of(problem).planes
    for row, count in enumerate(wanted.opportunity_count.tolist()):
        history = kernel.NO_HISTORY
        if problem.history is not None:
            own = slice(*problem.history.indptr[row : row + 2])
            history = problem.history.capability_index[own], problem.history.adjustment[own]
        x = problem.indicators[row]
        found = alone.match(x, planes[row], history, reasons=reasons, distinctive=distinctive)
        for name in ("capability_index", "expected_value", "propensity"):
            assert_same_array(getattr(found, name), getattr(wanted, name)[row, :count], name)
        assert sum(found.stats[name] for name in PAIRS) == len(problem.weights)
        if reasons is None:
            assert found.terms is None
            continue
        terms = kernel.largest_terms(
            problem.indicators,
            panel,
            np.full(count, row),
            found.capability_index,
            by_name=range(columns, -1, -1),
            count=reasons,
            history=problem.history,
            against=problem.weights.astype(np.float64).mean(axis=0) if distinctive else None,
        )
        assert found.terms is not None
        for name in kernel.Terms._fields:
            assert_same_array(getattr(found.terms, name), getattr(terms, name), name)


PAIRS = ("skipped_by_rule", "skipped_by_bound", "screened")


@pytest.fixture(name="problem")
def a_problem() -> strategies.Problem:
    """Of three customers, four capabilities and two indicators."""
    rng = np.random.default_rng(4)
    return strategies.Problem(
        indicators=rng.normal(size=(3, 2)).astype(np.float32),
        weights=rng.normal(size=(4, 2)).astype(np.float32),
        bias=np.zeros(4, np.float32),
        value=np.ones(4),
        cost=np.zeros(4),
        link=["identity"] * 4,
        eligible=rng.random((3, 4)) < 0.5,
        ev_min=None,
    )


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"k": 0}, "k"),
        ({"plane_index": np.full(4, 64, np.int32)}, "eligible.plane_index"),
        ({"plane_index": np.zeros(3, np.int32)}, "plane_index"),
        ({"plane_words": -1}, "plane_words"),
        ({"ev_min": np.nan}, "ev_min"),
        ({"limits": kernel.Limits(product=0)}, "limits.product"),
        ({"by_name": [0, 1]}, "by_name"),
        ({"against": [0.0]}, "against"),
        ({"variant": "fastest"}, "variant"),
    ],
)
def test_what_lasts_goes_through_the_doors(
    problem: strategies.Problem, wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises((InputError, SchemaError)) as caught:
        single(problem, **wrong)
    assert caught.value.field == field


def test_what_lasts_is_a_copy(problem: strategies.Problem) -> None:
    index = planes_of(problem).plane_index.copy()
    alone, planes = single(problem, plane_index=index), planes_of(problem).planes
    before = alone.match(problem.indicators[0], planes[0])
    index[:] = 1_000_000
    after = alone.match(problem.indicators[0], planes[0])
    assert_same_array(after.capability_index, before.capability_index)


@pytest.mark.parametrize(
    ("history", "field"),
    [
        (([0, 4], [1.0, 1.0]), "history.capability_index"),
        (([2, 1], [1.0, 1.0]), "history.capability_index"),
        (([1], [np.nan]), "history.adjustment"),
    ],
)
def test_a_history_that_is_none_is_refused(
    problem: strategies.Problem, history: tuple[list[int], list[float]], field: str
) -> None:
    entries = np.array(history[0], np.int32), np.array(history[1], np.float32)
    with pytest.raises(InputError) as caught:
        single(problem).match(problem.indicators[0], planes_of(problem).planes[0], entries)
    assert caught.value.field == field


def test_indicators_that_are_none_are_refused(problem: strategies.Problem) -> None:
    x = np.array([0.0, np.inf], np.float32)
    with pytest.raises(InputError) as caught:
        single(problem).match(x, planes_of(problem).planes[0])
    assert caught.value.field == "indicators"


@pytest.mark.parametrize(
    "wrong",
    [
        {"indicators": np.zeros(3, np.float32)},
        {"indicators": np.zeros(2)},
        {"indicators": np.zeros((1, 2), np.float32)},
        {"planes": np.zeros(2, np.uint64)},
        {"history": (np.zeros(2, np.int32), np.zeros(1, np.float32))},
    ],
)
def test_arrays_of_another_kind_are_refused(
    problem: strategies.Problem, wrong: dict[str, Any]
) -> None:
    given_ = {"indicators": problem.indicators[0], "planes": planes_of(problem).planes[0]}
    with pytest.raises(ValueError, match=r"."):
        single(problem).match(**{**given_, **wrong})
