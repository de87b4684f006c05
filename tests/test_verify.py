"""`kernel.verify`: a walk over candidates, and whether it is certain, against all there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from assertions import assert_same_match
from test_screen import world
from visavis import kernel
from visavis.errors import InputError, SchemaError

RUNNABLE = [name for name, each in kernel.built_variants().items() if each.lacks is None]


def candidates_of(rows: Sequence[Sequence[int]], beyond: Sequence[float]) -> kernel.Candidates:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    index = np.concatenate([*rows, []]).astype(np.int32)
    return kernel.Candidates(indptr, index, np.array(beyond, dtype=np.float64))


def values_of(x: Any, panel: kernel.Panel, asked: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Expected values of all pairs; −inf where a pair is not eligible."""
    history, eligible = asked["history"], asked["eligible"]
    ev = kernel.scores(x, panel, history=history, variant="portable").expected_value
    ev = np.where(np.isnan(ev), -np.inf, ev)
    if isinstance(eligible, kernel.Eligibility):
        plane = np.maximum(eligible.plane_index, 0)
        bits = eligible.planes[:, plane // 64] >> (plane % 64).astype(np.uint64) & np.uint64(1)
        eligible = (bits != 0) | (eligible.plane_index < 0)
    return ev if eligible is None else np.where(eligible, ev, -np.inf)


def screened(
    values: np.ndarray[Any, Any], share: float, rng: np.random.Generator
) -> kernel.Candidates:
    """What a right screen could leave: the largest values and some others, by chance too many."""
    rows, beyond = [], []
    for row in values:
        order = np.argsort(-row, kind="stable")
        count = int(rng.integers(0, int(share * len(row)) + 1))
        # Whatever ties with the first one left out is below nothing that could be promised.
        least = row[order[count]] if count < len(row) else -np.inf
        kept = row > least
        above = [row[kept].min()] if kept.any() else [np.inf]
        promised = least if least == -np.inf else np.nextafter(least, np.inf)
        beyond.append(float(rng.choice([promised, min(above[0], np.inf)])))
        rows.append(np.flatnonzero(kept | (rng.random(len(row)) < 0.1)))
    return candidates_of(rows, beyond)


@pytest.mark.parametrize("variant", RUNNABLE)
@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.05, 0.5, 1.0]))
def test_every_row_is_the_beginning_of_its_match_and_a_certain_one_all_of_it(
    variant: str, seed: int, share: float
) -> None:
    (x, w, b, prices), _, asked = world(seed)
    del asked["block"]
    panel = kernel.pack(w, b, **prices)
    wanted = kernel.match(x, panel, variant="portable", **asked)
    candidates = screened(values_of(x, panel, asked), share, np.random.default_rng(seed))
    found, certain = kernel.verify(x, panel, candidates, variant=variant, **asked)
    count = found.opportunity_count
    assert (count <= wanted.opportunity_count).all()
    assert (count[certain] == wanted.opportunity_count[certain]).all()
    told = np.arange(asked["k"]) < count[:, None]
    for name, nothing in (("capability_index", -1), ("expected_value", 0), ("propensity", 0)):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        assert mine[told].tobytes() == theirs[told].tobytes(), name
        assert (mine[~told] == nothing).all(), name
    stats = found.stats
    assert stats["skipped_by_rule"] + stats["screened"] == len(candidates.capability_index)
    assert stats["verified"] == stats["screened"]


@pytest.mark.parametrize("variant", RUNNABLE)
@settings(max_examples=60)
@given(problem=strategies.match_problems() | strategies.crowded_problems())
def test_all_capabilities_as_candidates_are_the_match(
    variant: str, problem: strategies.Problem
) -> None:
    n, m = problem.shape
    panel, asked = problem.pack(), problem.request()
    everything = candidates_of([range(m)] * n, [-np.inf] * n)
    found, certain = kernel.verify(problem.indicators, panel, everything, variant=variant, **asked)
    assert certain.all()
    wanted = kernel.match(problem.indicators, panel, variant="portable", **asked)
    assert_same_match(found, wanted)


def plain(values: Sequence[float], **groups: Any) -> tuple[Any, kernel.Panel]:
    """One customer, for whom the values are what capabilities are worth."""
    count = len(values)
    panel = kernel.pack(
        np.zeros((count, 1)), values, value=np.ones(count), cost=np.zeros(count), link="identity",
        **groups,
    )  # fmt: skip
    return np.zeros((1, 1), np.float32), panel


@pytest.mark.parametrize(
    ("rows", "beyond", "k", "ev_min", "taken", "is_certain"),
    [
        # Values 5, 4, 3, 2: what is not known lies below `beyond`.
        ([0, 1], 3.5, 2, 0.0, [0, 1], True),
        ([0, 1], 4.0, 2, 0.0, [0, 1], True),  # reached, and the others lie strictly below
        ([0, 1], 4.5, 2, 0.0, [0], False),  # capability 1 could stand behind another one
        ([0, 1], 3.5, 3, 0.0, [0, 1], False),
        ([0, 1], 3.5, 3, 3.5, [0, 1], True),  # the others do not reach the minimum either
        ([0, 1], -np.inf, 3, None, [0, 1], True),
        ([0, 1, 2], np.inf, 1, 0.0, [], False),
        ([], np.inf, 1, np.inf, [], True),
        ([], 0.0, 1, 0.0, [], True),
        ([], 0.5, 1, 0.0, [], False),
    ],
)
def test_what_is_certain(
    rows: list[int], beyond: float, k: int, ev_min: float | None, taken: list[int], is_certain: bool
) -> None:
    x, panel = plain([5.0, 4.0, 3.0, 2.0])
    given_ = candidates_of([rows], [beyond])
    found, certain = kernel.verify(x, panel, given_, k=k, ev_min=ev_min)
    assert found.capability_index[0, : found.opportunity_count[0]].tolist() == taken
    assert certain.tolist() == [is_certain]


def test_limits_that_leave_nothing_open_need_to_know_no_more() -> None:
    x, panel = plain([5.0, 4.0, 3.0, 2.0], channel=[0, 0, 1, 1])
    given_ = candidates_of([[0, 2]], [2.5])
    for limit, certain in ((1, True), (2, False)):
        limits = kernel.Limits(channel=limit)
        found, said = kernel.verify(x, panel, given_, k=4, limits=limits)
        assert found.capability_index[0].tolist() == [0, 2, -1, -1]
        assert said.tolist() == [certain]


def test_no_customers_are_an_empty_answer() -> None:
    _, panel = plain([1.0])
    none = candidates_of([], [])
    found, certain = kernel.verify(np.zeros((0, 1), np.float32), panel, none, k=3)
    assert found.capability_index.shape == (0, 3)
    assert certain.shape == (0,)


@pytest.mark.parametrize(
    ("changed", "field", "row"),
    [
        ({"indptr": [0, 1, 3]}, "candidates.indptr", 1),
        ({"indptr": [-1, 1, 2]}, "candidates.indptr", 0),
        ({"indptr": [0, 2, 1]}, "candidates.indptr", 1),
        ({"indptr": [0, 2]}, "candidates.indptr", None),
        ({"capability_index": [0, 2]}, "candidates.capability_index", 1),
        ({"capability_index": [-1, 0]}, "candidates.capability_index", 0),
        ({"indptr": [0, 0, 2], "capability_index": [1, 1]}, "candidates.capability_index", 1),
        ({"indptr": [0, 0, 2], "capability_index": [1, 0]}, "candidates.capability_index", 1),
        ({"capability_index": [[0, 1]]}, "candidates.capability_index", None),
        ({"beyond": [0.0, np.nan]}, "candidates.beyond", 1),
        ({"beyond": [0.0]}, "candidates.beyond", None),
        ({"beyond": ["a", "b"]}, "candidates.beyond", None),
    ],
)
@pytest.mark.parametrize("variant", RUNNABLE)
def test_wrong_candidates_are_refused_by_field_and_row(
    variant: str, changed: dict[str, Any], field: str, row: int | None
) -> None:
    _, panel = plain([1.0, 2.0])
    right = {"indptr": [0, 1, 2], "capability_index": [0, 1], "beyond": [0.0, 0.0]}
    given_ = kernel.Candidates(**(right | changed))
    with pytest.raises(InputError) as caught:
        kernel.verify(np.zeros((2, 1), np.float32), panel, given_, k=1, variant=variant)
    assert (caught.value.field, caught.value.row) == (field, row)


def test_candidates_of_another_kind_are_refused() -> None:
    x, panel = plain([1.0])
    with pytest.raises(SchemaError, match="candidates"):
        kernel.verify(x, panel, None, k=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [kernel.checked, kernel.match])
@pytest.mark.parametrize(
    ("wrong", "field", "row"),
    [
        ({"indicators": [[0.0], [np.nan]]}, "indicators", 1),
        ({"k": 0}, "k", None),
        ({"ev_min": np.nan}, "ev_min", None),
        ({"limits": kernel.Limits(channel=0)}, "limits.channel", None),
        ({"eligible": np.ones((2, 3), bool)}, "eligible", None),
        ({"history": kernel.History([0, 1, 2], [0, 5], [0.0, 0.0])}, "history.capability_index", 1),
        ({"history": kernel.History([0, 1, 2], [0, 1], [0.0, np.inf])}, "history.adjustment", 1),
    ],
)
def test_checked_refuses_what_a_match_refuses(
    call: Any, wrong: dict[str, Any], field: str, row: int | None
) -> None:
    _, panel = plain([1.0, 2.0])
    with pytest.raises(InputError) as caught:
        call(**({"indicators": np.zeros((2, 1)), "panel": panel, "k": 1} | wrong))
    assert (caught.value.field, caught.value.row) == (field, row)


@settings(max_examples=60)
@given(problem=strategies.match_problems(), seed=strategies.seeds)
def test_a_request_of_some_rows_is_the_request_for_them(
    problem: strategies.Problem, seed: int
) -> None:
    panel, rng = problem.pack(), np.random.default_rng(seed)
    request = kernel.checked(problem.indicators, panel, **problem.request())
    wanted = kernel.match(problem.indicators, panel, **problem.request())
    n = problem.shape[0]
    for rows in (np.arange(n // 2, n), np.flatnonzero(rng.random(n) < 0.5), np.arange(n)[::-1]):
        found = kernel.match(panel=panel, **request.of_rows(rows)._asdict())
        assert found.capability_index.tobytes() == wanted.capability_index[rows].tobytes()
        assert found.expected_value.tobytes() == wanted.expected_value[rows].tobytes()
