"""What the kernel's face refuses, and how: an error of ours that names the field and the row."""

import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from assertions import assert_same_match
from test_kernel import problem_of, solve
from visavis import _kernel, kernel
from visavis.errors import InputError, LimitError, SchemaError, VariantError, VisavisError

N, M, D = 3, 4, 5
BEYOND = 2.0**100 * (1 + 2.0**-52)
NOT_FINITE = [np.nan, np.inf, -np.inf]


def pack_arguments():
    problem = problem_of(n=N, m=M, columns=D)
    return {"weights": problem.weights, "bias": problem.bias, **problem.prices, **problem.groups}


def match_arguments():
    problem = problem_of(n=N, m=M, columns=D)
    arguments = {"indicators": problem.indicators, "panel": problem.pack(), **problem.request()}
    return arguments | {"variant": None, "block": (0, 0)}


def audience_arguments():
    arguments = match_arguments() | {"capability_index": [0, 2]}
    del arguments["limits"]
    return arguments


def with_cell(array, cell, value):
    changed = np.array(array)
    changed[cell] = value
    return changed


def refusal(call: Callable[..., Any], arguments: dict[str, Any], **replaced: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call(**(arguments | replaced))
    error = caught.value
    assert error.field is not None
    assert error.field in str(error)
    if error.row is not None:
        assert f"row {error.row}" in str(error)
    return error


# pack


@pytest.mark.parametrize("wrong", NOT_FINITE)
@pytest.mark.parametrize(("field", "cell"), [("weights", (2, 3)), ("bias", 2)])
def test_weights_and_bias_must_be_finite(field, cell, wrong):
    given_ = pack_arguments()
    error = refusal(kernel.pack, given_, **{field: with_cell(given_[field], cell, wrong)})
    assert (error.field, error.row) == (field, 2)


@pytest.mark.parametrize("field", ["weights", "bias"])
def test_float64_that_overflows_float32_is_refused_not_stored_as_infinity(field):
    given_ = pack_arguments()
    wide = given_[field].astype(np.float64)
    error = refusal(kernel.pack, given_, **{field: with_cell(wide, -1, 1e39)})
    assert (error.field, error.row) == (field, M - 1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("value", wrong) for wrong in [-5e-324, -1.0, BEYOND, *NOT_FINITE]]
    + [("cost", wrong) for wrong in [BEYOND, -BEYOND, *NOT_FINITE]],
)
def test_value_and_cost_must_lie_within_their_bounds(field, wrong):
    given_ = pack_arguments()
    error = refusal(kernel.pack, given_, **{field: with_cell(given_[field], 1, wrong)})
    assert (error.field, error.row) == (field, 1)


def test_value_and_cost_may_lie_exactly_on_their_bounds():
    bounds = {"value": [0, -0.0, 2.0**100, 5e-324], "cost": [2.0**100, -(2.0**100), 0, -0.0]}
    assert kernel.pack(**(pack_arguments() | bounds)).capability_count == M


@pytest.mark.parametrize("field", ["bias", "value", "cost", "product", "channel", "family", "link"])
@pytest.mark.parametrize("size", [0, M - 1, M + 1])
def test_every_column_of_a_panel_has_one_entry_per_capability(field, size):
    column = ["count"] * size if field == "link" else np.zeros(size, dtype=np.int32)
    error = refusal(kernel.pack, pack_arguments(), **{field: column})
    assert isinstance(error, SchemaError)
    assert error.field == field


@pytest.mark.parametrize("field", ["weights", "bias", "value", "cost", "product"])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 1, 1)),
        np.float32(0),
        np.array(["0"] * M),
        np.zeros(M, dtype=complex),
        np.zeros(M, dtype="M8[s]"),
        np.zeros(M, dtype=object),
        [[0.0], [0.0, 1.0]],
        None,
    ],
    ids=["3-d", "scalar", "text", "complex", "date", "object", "ragged", "none"],
)
def test_shapes_and_types_that_are_no_numbers_are_refused(field, wrong):
    if field == "product" and wrong is None:
        return
    error = refusal(kernel.pack, pack_arguments(), **{field: wrong})
    assert isinstance(error, SchemaError)
    assert error.field == field


@pytest.mark.parametrize("shape", [(0, D), (M, 0), (0, 0)])
def test_an_empty_panel_is_refused(shape):
    assert refusal(kernel.pack, pack_arguments(), weights=np.zeros(shape)).field == "weights"


@pytest.mark.parametrize("codes", [[0.0, 1.0, 2.0, 3.0], [0, 1, 2, 2**31], [-(2**31) - 1, 0, 0, 0]])
def test_group_codes_must_be_int32(codes):
    assert refusal(kernel.pack, pack_arguments(), channel=codes).field == "channel"


def test_an_unknown_link_is_named_with_its_row():
    error = refusal(kernel.pack, pack_arguments(), link=["count", "probit", "count", "count"])
    assert (error.field, error.row) == ("link", 1)
    assert "logistic" in str(error)
    assert refusal(kernel.pack, pack_arguments(), link="Logistic").field == "link"


def test_links_may_be_an_array_of_names():
    links = np.array(["count", "identity", "logistic", "count"])
    assert kernel.pack(**(pack_arguments() | {"link": links})).capability_count == M


# match, audience and scores


@pytest.mark.parametrize("wrong", NOT_FINITE)
@pytest.mark.parametrize("cell", [(0, 0), (1, 4), (2, 2)])
def test_indicators_must_be_finite(cell, wrong):
    indicators = with_cell(match_arguments()["indicators"], cell, wrong)
    calls = [(kernel.match, match_arguments()), (kernel.audience, audience_arguments())]
    calls.append((kernel.scores, {"panel": match_arguments()["panel"]}))
    for call, given_ in calls:
        error = refusal(call, given_, indicators=indicators)
        assert (error.field, error.row) == ("indicators", cell[0])
        assert f"column {cell[1]}" in str(error)


def test_indicators_that_overflow_float32_are_refused():
    indicators = with_cell(np.zeros((N, D)), (1, 1), -1e39)
    error = refusal(kernel.match, match_arguments(), indicators=indicators)
    assert (error.field, error.row) == ("indicators", 1)


@pytest.mark.parametrize("shape", [(N, D - 1), (N, D + 1), (N, 0), (D,), (N, D, 1)])
def test_indicators_must_have_the_panels_columns(shape):
    error = refusal(kernel.match, match_arguments(), indicators=np.zeros(shape, np.float32))
    assert isinstance(error, SchemaError)
    assert error.field == "indicators"


@pytest.mark.parametrize("k", [0, -1, 2**31, 2**70, True, 1.0, np.float64(2), None, "3"])
def test_k_must_be_a_positive_integer(k):
    assert refusal(kernel.match, match_arguments(), k=k).field == "k"
    assert refusal(kernel.audience, audience_arguments(), k=k).field == "k"


def test_k_may_be_a_numpy_integer():
    result = kernel.match(**(match_arguments() | {"k": np.int16(2)}))
    assert result.capability_index.shape == (N, 2)


def test_a_result_larger_than_its_bound_is_refused_before_memory_is_taken():
    error = refusal(kernel.match, match_arguments(), k=2**31 - 1)
    assert isinstance(error, LimitError)
    assert error.field == "k"


def test_scores_beyond_their_bound_are_refused_before_memory_is_taken():
    weights = np.ones((2**13, 1), dtype=np.float32)
    zeros = np.zeros(2**13)
    panel = kernel.pack(weights, zeros, value=zeros, cost=zeros, link="count")
    error = refusal(kernel.scores, {"panel": panel}, indicators=np.ones((2**13 + 1, 1)))
    assert isinstance(error, LimitError)
    assert "8192 rows" in str(error)


@pytest.mark.parametrize("limit", [0, -1, 2**31, True, 1.5, "1"])
@pytest.mark.parametrize("field", kernel.Limits._fields)
def test_limits_must_be_positive_integers(field, limit):
    limits = kernel.Limits(**{field: limit})
    assert refusal(kernel.match, match_arguments(), limits=limits).field == f"limits.{field}"


@pytest.mark.parametrize("ev_min", [np.nan, np.float32(np.nan), "0", True, 1j, [0.0], 10**400])
def test_ev_min_must_be_a_number(ev_min):
    assert refusal(kernel.match, match_arguments(), ev_min=ev_min).field == "ev_min"


@pytest.mark.parametrize("ev_min", [np.nan, "0", 1j, [0.0, np.nan], [0.0] * 9, [["0"]], [None, 0]])
def test_ev_min_of_an_audience_is_one_or_one_each(ev_min):
    assert refusal(kernel.audience, audience_arguments(), ev_min=ev_min).field == "ev_min"


@pytest.mark.parametrize(
    "block", [(-1, 0), (0, 2**31), (0,), (1, 2, 3), 5, None, (0.5, 1), (True, 1)]
)
def test_block_must_be_two_sizes(block):
    assert refusal(kernel.match, match_arguments(), block=block).field == "block"


def test_a_panel_must_come_from_pack():
    assert refusal(kernel.match, match_arguments(), panel=np.zeros((M, D))).field == "panel"


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((N, M), dtype=np.uint8),
        np.ones((N, M - 1), dtype=bool),
        np.ones((M, N), dtype=bool),
        np.ones(M, dtype=bool),
        [[True], [True, False]],
    ],
    ids=["uint8", "columns", "transposed", "1-d", "ragged"],
)
def test_dense_eligibility_must_be_bool_of_the_pairs_shape(wrong):
    error = refusal(kernel.match, match_arguments(), eligible=wrong)
    assert isinstance(error, SchemaError)
    assert error.field == "eligible"


@pytest.mark.parametrize(
    ("planes", "plane_index", "field"),
    [
        (np.zeros((N + 1, 1), np.uint64), [0] * M, "planes"),
        (np.zeros((N - 1, 1), np.uint64), [0] * M, "planes"),
        (np.zeros(N, np.uint64), [0] * M, "planes"),
        (np.zeros((N, 1)), [0] * M, "planes"),
        (np.full((N, 1), -1, np.int64), [0] * M, "planes"),
        (np.zeros((N, 1), np.uint64), [0] * (M - 1), "plane_index"),
        (np.zeros((N, 1), np.uint64), [0] * (M + 1), "plane_index"),
        (np.zeros((N, 1), np.uint64), [0.0] * M, "plane_index"),
        (np.zeros((N, 1), np.uint64), [2**40] * M, "plane_index"),
    ],
)
def test_planes_must_fit_the_rows_and_the_panel(planes, plane_index, field):
    eligible = kernel.Eligibility(planes, plane_index)
    assert refusal(kernel.match, match_arguments(), eligible=eligible).field == f"eligible.{field}"


@pytest.mark.parametrize(("words", "plane"), [(1, 64), (2, 128), (1, -2), (0, 0), (1, 2**31 - 1)])
def test_a_plane_index_outside_the_planes_is_named_with_its_row(words, plane):
    eligible = kernel.Eligibility(np.zeros((N, words), np.uint64), [-1, -1, plane, -1])
    error = refusal(kernel.match, match_arguments(), eligible=eligible)
    assert (error.field, error.row) == ("eligible.plane_index", 2)


@pytest.mark.parametrize(
    ("indptr", "capabilities", "adjustment", "field", "row"),
    [
        ([0, 2, 2, 2], [1, 0], [0, 0], "capability_index", 0),
        ([0, 0, 2, 2], [1, 1], [0, 0], "capability_index", 1),
        ([0, 0, 0, 1], [M], [0], "capability_index", 2),
        ([0, 0, 0, 1], [-1], [0], "capability_index", 2),
        ([0, 1, 1, 2], [0, 0], [0, np.nan], "adjustment", 2),
        ([0, 1, 1, 2], [0, 0], [0, np.inf], "adjustment", 2),
        ([0, 1, 1, 2], [0, 0], [0, 1e39], "adjustment", 2),
        ([0, 2, 1, 2], [0, 1], [0, 0], "indptr", 1),
        ([0, 9, 9, 2], [0, 1], [0, 0], "indptr", 0),
        ([0, -1, 1, 2], [0, 1], [0, 0], "indptr", 0),
        ([0, 5, 5, 0], [], [], "indptr", 0),
        ([-1, 0, 1, 2], [0, 1], [0, 0], "indptr", None),
        ([0, 1, 1, 3], [0, 1], [0, 0], "indptr", None),
        ([0, 1, 2], [0, 1], [0, 0], "indptr", None),
        ([0.0, 1, 1, 2], [0, 1], [0, 0], "indptr", None),
        ([0, 1, 1, 2], [0, 1], [0], "adjustment", None),
        ([0, 1, 1, 2], [0.5, 1], [0, 0], "capability_index", None),
        ([0, 1, 1, 2], [0, 2**32], [0, 0], "capability_index", None),
    ],
)
def test_a_bad_history_is_refused_naming_its_array_and_row(
    indptr, capabilities, adjustment, field, row
):
    history = kernel.History(np.array(indptr), np.array(capabilities), np.array(adjustment))
    for call, given_ in [
        (kernel.match, match_arguments()),
        (kernel.audience, audience_arguments()),
    ]:
        error = refusal(call, given_, history=history)
        assert (error.field, error.row) == (f"history.{field}", row)


def test_a_plain_tuple_is_a_history():
    history = (np.array([0, 1, 1, 1]), np.int32([0]), np.float32([-np.inf]))
    named = kernel.match(**(match_arguments() | {"history": kernel.History(*history)}))
    assert_same_match(kernel.match(**(match_arguments() | {"history": history})), named)


@pytest.mark.parametrize("history", [(1, 2), [0, 1, 2], "csr", np.zeros(3)])
def test_a_history_of_another_form_is_refused(history):
    assert refusal(kernel.match, match_arguments(), history=history).field == "history"


@pytest.mark.parametrize(
    ("asked", "row"),
    [([], None), ([0, M], 1), ([-1, 0], 0), ([1, 0], 1), ([2, 2], 1), ([0.0], None), ([[0]], None)],
)
def test_an_audience_is_asked_for_known_capabilities_in_order(asked, row):
    error = refusal(kernel.audience, audience_arguments(), capability_index=asked)
    assert (error.field, error.row) == ("capability_index", row)


def test_a_caller_who_raises_on_float_errors_gets_ours_or_none():
    given_ = match_arguments()
    with np.errstate(all="raise"):
        kernel.match(**(given_ | {"indicators": np.full((N, D), 1e-320)}))
        refusal(kernel.match, given_, indicators=np.full((N, D), 1e300))
        refusal(kernel.match, given_, indicators=np.full((N, D), np.nan))
        refusal(kernel.pack, pack_arguments(), value=[np.nan] * M)


# Variants


@pytest.mark.parametrize("name", ["avx1024", "", "PORTABLE", 7, ["portable"]])
def test_an_unknown_variant_is_refused_naming_those_of_this_build(name):
    error = refusal(kernel.match, match_arguments(), variant=name)
    assert error.field == "variant"
    assert "portable" in str(error)


def test_the_environment_chooses_the_variant(monkeypatch):
    monkeypatch.setattr(
        _kernel, "variants", lambda: [("portable", None, False), ("better", None, True)]
    )
    monkeypatch.delenv("VISAVIS_VARIANT", raising=False)
    assert kernel.choose_variant() == "better"
    monkeypatch.setenv("VISAVIS_VARIANT", "portable")
    assert kernel.choose_variant() == "portable"
    assert kernel.choose_variant("better") == "better"


def test_an_unknown_variant_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("VISAVIS_VARIANT", "avx1024")
    assert refusal(kernel.match, match_arguments()).field == "VISAVIS_VARIANT"


def test_an_empty_environment_variable_leaves_the_choice_open(monkeypatch):
    chosen = kernel.choose_variant()
    monkeypatch.setenv("VISAVIS_VARIANT", "")
    monkeypatch.setattr(_kernel, "variants", lambda: [(chosen, None, False)])
    assert kernel.choose_variant() == chosen


def test_a_variant_that_this_processor_cannot_run_is_never_replaced(monkeypatch):
    monkeypatch.setattr(
        _kernel, "variants", lambda: [("portable", None, False), ("amx", "amx-int8", True)]
    )
    assert kernel.choose_variant() == "portable"
    with pytest.raises(VariantError, match="'amx'"):
        kernel.match(**(match_arguments() | {"variant": "amx"}))
    monkeypatch.setenv("VISAVIS_VARIANT", "amx")
    with pytest.raises(VariantError, match="'amx'"):
        kernel.match(**match_arguments())


# Garbage


def accepts_or_refuses(call, arguments):
    with suppress(VisavisError):
        call(**arguments)


@settings(max_examples=300)
@given(st.sampled_from(sorted(match_arguments())), strategies.garbage)
def test_garbage_given_to_match_is_refused_by_name_or_harmless(name, garbage):
    accepts_or_refuses(kernel.match, match_arguments() | {name: garbage})


@settings(max_examples=200)
@given(st.sampled_from(sorted(audience_arguments())), strategies.garbage)
def test_garbage_given_to_audience_is_refused_by_name_or_harmless(name, garbage):
    accepts_or_refuses(kernel.audience, audience_arguments() | {name: garbage})


@settings(max_examples=300)
@given(st.sampled_from(sorted(pack_arguments())), strategies.garbage)
def test_garbage_given_to_pack_is_refused_by_name_or_harmless(name, garbage):
    accepts_or_refuses(kernel.pack, pack_arguments() | {name: garbage})


@settings(max_examples=200)
@given(st.sampled_from(["exp", "log1p"]), strategies.garbage)
def test_garbage_given_to_an_elementary_function_is_refused_by_name_or_harmless(name, garbage):
    accepts_or_refuses(lambda given_: getattr(kernel, name)(given_), {"given_": garbage})


@settings(max_examples=200)
@given(strategies.match_problems(), strategies.seeds)
def test_histories_of_random_integers_never_crash(problem, seed):
    n, m = problem.shape
    rng = np.random.default_rng(seed)
    size = int(rng.integers(0, 6))
    indptr = rng.integers(-2, size + 3, size=n + 1)
    history = kernel.History(
        np.sort(indptr) if rng.random() < 0.5 else indptr,
        rng.integers(-1, m + 1, size=size).astype(np.int32),
        rng.choice(strategies.ADJUSTMENTS, size=size).astype(np.float32),
    )
    accepts_or_refuses(
        kernel.match,
        {"indicators": problem.indicators, "panel": problem.pack(), **problem.request()}
        | {"history": history},
    )


def test_a_refused_call_leaves_the_next_one_unharmed():
    expected = solve(problem_of())
    with pytest.raises(InputError):
        solve(problem_of(indicators=np.full((5, 9), np.nan, dtype=np.float32)))
    assert_same_match(solve(problem_of()), expected)


def test_the_variants_that_this_processor_can_run_are_there() -> None:
    """Read from the operating system's own list, not by the code that is judged."""
    flags: set[str] = set()
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = set(next(line for line in lines if line.startswith("flags")).split(":")[1].split())
    avx2 = {"avx2", "fma", "bmi2"}
    avx512 = avx2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"}
    asked = {
        "portable": set(),
        "avx2": avx2,
        "avx512": avx512,
        "amx_emulated": avx512,
        "amx": avx512 | {"amx_tile", "amx_int8"},
    }
    expected = {name for name, needed in asked.items() if needed <= flags}
    assert {name for name, runs in kernel.variants().items() if runs} == expected
