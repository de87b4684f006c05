"""`kernel.largest_terms`: the reasons of pairs, to the bit, and what it refuses."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import strategies
from assertions import assert_same_array
from visavis import kernel
from visavis.errors import InputError, SchemaError, VisavisError
from visavis.kernel.request import history_of

#: What may be taken from weights: any float64, also one that leaves a denormal or overflows.
AGAINST = (0.0, -0.0, 1.0, 0.1, 5e-324, -1e-310, 3.4028235e38, 1e300, -sys.float_info.max)


def assert_same_terms(found: kernel.Terms, wanted: reference.Terms) -> None:
    for name in kernel.Terms._fields:
        assert_same_array(getattr(found, name), getattr(wanted, name), name)


def asked(
    seed: int, problem: strategies.Problem, pairs: int, count: int, against: str
) -> dict[str, Any]:
    """Pairs of a problem, some of them again and again, and an order of names."""
    (n, m), columns = problem.shape, problem.indicators.shape[1]
    rng = np.random.default_rng(seed)
    customers = rng.integers(0, max(n, 1), size=pairs if n else 0)
    subtracted = {"none": None, "mean": problem.weights.astype(np.float64).mean(axis=0)}
    subtracted["edges"] = rng.choice(AGAINST, size=columns)
    return {
        "customer_index": np.sort(customers) if rng.random() < 0.5 else customers,
        "capability_index": rng.integers(0, m, size=len(customers)).astype(np.int32),
        "by_name": rng.permutation(columns + 1),
        "count": count,
        "history": problem.history,
        "against": subtracted[against],
    }


@settings(max_examples=400)
@given(
    problem=strategies.match_problems(),
    seed=strategies.seeds,
    pairs=st.sampled_from([0, 1, 2, 9, 40]),
    count=st.integers(0, 5) | st.sampled_from([17, 33, 34, 35, 2**70]),
    against=st.sampled_from(["none", "none", "mean", "edges"]),
)
def test_the_terms_of_pairs_are_those_of_the_law(
    problem: strategies.Problem, seed: int, pairs: int, count: int, against: str
) -> None:
    given_ = asked(seed, problem, pairs, count, against)
    with np.errstate(over="ignore"):
        wanted = reference.largest_terms(problem.indicators, problem.weights, **given_)
    assert_same_terms(kernel.largest_terms(problem.indicators, problem.pack(), **given_), wanted)


def plain(
    row: list[float], *, history: kernel.History | None = None, **others: Any
) -> list[list[tuple[int, float]]]:
    """The terms of one customer and one capability that weighs everything 1."""
    x = np.array([row], dtype=np.float32)
    panel = kernel.pack(np.ones(x.shape), [0.0], value=[1.0], cost=[0.0], link="identity")
    others = {"by_name": range(len(row) + 1), "count": 9} | others
    found = kernel.largest_terms(x, panel, [0], [0], history=history, **others)
    terms = list(zip(found.name_index.tolist(), found.contribution.tolist(), strict=True))
    return [terms[begin:end] for begin, end in zip(found.offsets, found.offsets[1:], strict=False)]


def one_adjustment(h: float) -> kernel.History:
    return kernel.History(np.array([0, 1]), np.array([0], np.int32), np.array([h], np.float32))


def test_ties_stand_in_order_of_name_wherever_the_columns_are() -> None:
    row = [2.0, 1.0, 2.0, 3.0, 2.0]
    order = [4, 5, 2, 1, 3, 0]
    expected = [(3, 3.0), (4, 2.0), (5, 2.0), (2, 2.0), (0, 2.0), (1, 1.0)]
    for count in range(8):
        assert plain(row, history=one_adjustment(2.0), by_name=order, count=count) == [
            expected[:count]
        ]


@pytest.mark.parametrize("nothing", [0.0, -0.0, -1.0, -1e-45])
def test_only_what_is_above_zero_is_a_reason(nothing: float) -> None:
    assert plain([nothing, 1e-45], history=one_adjustment(nothing)) == [[(1, 2.0**-149)]]
    assert plain([nothing]) == [[]]


def test_an_adjustment_is_a_term_where_there_is_one() -> None:
    assert plain([1.0], history=one_adjustment(0.5)) == [[(0, 1.0), (1, 0.5)]]
    assert plain([1.0], history=one_adjustment(-np.inf)) == [[(0, 1.0)]]
    assert plain([1.0]) == [[(0, 1.0)]]


def test_adjustments_are_found_wherever_they_stand() -> None:
    rng = np.random.default_rng(3)
    present = rng.random((9, 7)) < 0.4
    present[[0, 4]] = False
    present[5] = True
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    values = np.abs(rng.normal(size=present.sum())).astype(np.float32)
    history = kernel.History(indptr, np.nonzero(present)[1].astype(np.int32), values)
    h = np.zeros(present.shape)
    h[present] = values
    panel = kernel.pack(np.zeros((7, 1)), np.zeros(7), value=[1] * 7, cost=[0] * 7, link="count")
    i, j = (index.ravel() for index in np.indices(present.shape))

    def found(rows: Any, part: kernel.History, i: Any, j: Any) -> Any:
        x = np.zeros((len(rows), 1), np.float32)
        return kernel.largest_terms(x, panel, i, j, history=part, by_name=[1, 0], count=1)

    terms = found(range(9), history, i, j)
    np.testing.assert_array_equal(np.diff(terms.offsets), present.ravel())
    np.testing.assert_array_equal(terms.contribution, values)
    # A view whose first entry is not the first of the arrays.
    rows = np.array([3, 4, 5, 6])
    i, j = (index.ravel() for index in np.indices((4, 7)))
    terms = found(rows, history_of(history, rows), i, j)
    np.testing.assert_array_equal(terms.contribution, h[rows][h[rows] > 0])


def test_no_pairs_have_no_terms() -> None:
    panel = kernel.pack(np.zeros((2, 3)), [0, 0], value=[1, 1], cost=[0, 0], link="count")
    x = np.zeros((0, 3), np.float32)
    found = kernel.largest_terms(x, panel, [], [], by_name=range(4), count=3)
    assert_same_terms(found, reference.Terms(np.zeros(1, np.int64), np.zeros(0, int), np.zeros(0)))


# Doors


def arguments() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 5), (4, 5)))
    panel = kernel.pack(w, np.zeros(4), value=np.ones(4), cost=np.zeros(4), link="logistic")
    history = kernel.History(
        np.array([0, 2, 2, 3]), np.array([1, 3, 0], np.int32), np.ones(3, np.float32)
    )
    return {
        "indicators": x,
        "panel": panel,
        "customer_index": [0, 0, 2, 1],
        "capability_index": [3, 1, 0, 2],
        "history": history,
        "by_name": [5, 3, 1, 0, 2, 4],
        "count": 3,
        "against": np.zeros(5),
    }


def with_cell(array: Any, cell: Any, value: float) -> Any:
    changed = np.array(array)
    changed[cell] = value
    return changed


def wrong_history(indptr: list[int], entries: list[int], h: list[float]) -> dict[str, Any]:
    given_ = np.array(indptr), np.array(entries, np.int32), np.array(h, np.float32)
    return {"history": kernel.History(*given_)}


@pytest.mark.parametrize(
    ("replaced", "field", "row"),
    [
        ({"customer_index": [-1, 0, 2, 1]}, "customer_index", 0),
        ({"customer_index": [0, 0, 3, 1]}, "customer_index", 2),
        ({"customer_index": [0, 0, 2, -(2**63)]}, "customer_index", 3),
        ({"capability_index": [-1, 1, 0, 2]}, "capability_index", 0),
        ({"capability_index": [3, 4, 0, 2]}, "capability_index", 1),
        ({"by_name": [5, 3, 1, 0, 2, 6]}, "by_name", 5),
        ({"by_name": [5, 3, 1, -1, 2, 4]}, "by_name", 3),
        ({"by_name": [5, 3, 1, 0, 2, 3]}, "by_name", 5),
        ({"against": with_cell(np.zeros(5), 2, np.nan)}, "against", 2),
        ({"against": with_cell(np.zeros(5), 4, -np.inf)}, "against", 4),
        (wrong_history([0, 2, 1, 1], [1, 3, 0], [1, 1, 1]), "history.indptr", 1),
        (wrong_history([0, 9, 2, 3], [1, 3, 0], [1, 1, 1]), "history.indptr", 0),
        (wrong_history([0, 2, 2, 4], [1, 3, 0], [1, 1, 1]), "history.indptr", None),
        (wrong_history([-1, 2, 2, 3], [1, 3, 0], [1, 1, 1]), "history.indptr", None),
        (wrong_history([0, 2, 2, 3], [1, 4, 0], [1, 1, 1]), "history.capability_index", 0),
        (wrong_history([0, 2, 2, 3], [1, 1, 0], [1, 1, 1]), "history.capability_index", 0),
        (wrong_history([0, 2, 2, 3], [1, 3, 0], [1, 1, np.nan]), "history.adjustment", 2),
        (wrong_history([0, 2, 2, 3], [1, 3, 0], [np.inf, 1, 1]), "history.adjustment", 0),
    ],
)
def test_what_is_wrong_is_refused_by_field_and_row(
    replaced: dict[str, Any], field: str, row: int | None
) -> None:
    with pytest.raises(InputError) as caught:
        kernel.largest_terms(**(arguments() | replaced))
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_indicators_of_the_rows_that_are_asked_must_be_finite(wrong: float) -> None:
    given_ = arguments()
    given_["indicators"] = with_cell(given_["indicators"], (2, 4), wrong)
    with pytest.raises(InputError) as caught:
        kernel.largest_terms(**given_)
    assert (caught.value.field, caught.value.row) == ("indicators", 2)
    assert "in column 4" in str(caught.value)
    kernel.largest_terms(**(given_ | {"customer_index": [0, 0, 1, 1]}))


@pytest.mark.parametrize(
    ("replaced", "field"),
    [
        ({"panel": None}, "panel"),
        ({"indicators": np.zeros((3, 4))}, "indicators"),
        ({"indicators": np.zeros(5)}, "indicators"),
        ({"customer_index": [0, 0, 2]}, "capability_index"),
        ({"customer_index": [0.0, 0.0, 2.0, 1.0]}, "customer_index"),
        ({"capability_index": [[3, 1, 0, 2]]}, "capability_index"),
        ({"by_name": range(5)}, "by_name"),
        ({"by_name": range(7)}, "by_name"),
        ({"against": np.zeros(6)}, "against"),
        ({"history": (1, 2)}, "history"),
        (wrong_history([0, 2, 3], [1, 3, 0], [1, 1, 1]), "history.indptr"),
        (wrong_history([0, 2, 2, 3], [1, 3, 0], [1, 1]), "history.adjustment"),
        ({"count": 1.0}, "count"),
        ({"count": True}, "count"),
        ({"count": None}, "count"),
    ],
)
def test_shapes_and_types_are_refused_by_name(replaced: dict[str, Any], field: str) -> None:
    with pytest.raises(SchemaError) as caught:
        kernel.largest_terms(**(arguments() | replaced))
    assert caught.value.field == field


def test_a_count_is_not_negative() -> None:
    with pytest.raises(InputError) as caught:
        kernel.largest_terms(**(arguments() | {"count": -1}))
    assert caught.value.field == "count"
    assert not len(kernel.largest_terms(**(arguments() | {"count": np.int64(0)})).contribution)


@settings(max_examples=300)
@given(st.sampled_from(sorted(arguments())), strategies.garbage)
def test_garbage_is_refused_by_name_or_harmless(name: str, garbage: Any) -> None:
    with suppress(VisavisError):
        kernel.largest_terms(**(arguments() | {name: garbage}))


@settings(max_examples=300)
@given(strategies.seeds)
def test_random_integers_never_crash(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, pairs = (int(each) for each in rng.integers(0, 6, size=2))
    indptr = rng.integers(-2, size + 3, size=4)
    history = kernel.History(
        np.sort(indptr) if rng.random() < 0.5 else indptr,
        rng.integers(-1, 5, size=size).astype(np.int32),
        rng.choice(strategies.ADJUSTMENTS, size=size).astype(np.float32),
    )
    replaced = {
        "customer_index": rng.integers(-1, 4, size=pairs),
        "capability_index": rng.integers(-1, 5, size=pairs),
        "history": history,
        "by_name": rng.permutation(6) if rng.random() < 0.7 else rng.integers(-1, 7, size=6),
    }
    with suppress(VisavisError):
        kernel.largest_terms(**(arguments() | replaced))
