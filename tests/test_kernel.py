"""The kernel has the oracle's bits, on every variant, however the work is cut."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings

import reference
import strategies
from assertions import assert_same_audience, assert_same_match, assert_same_scores
from strategies import Problem
from visavis import kernel

SUPPORTED = [name for name, runs in kernel.variants().items() if runs]


def solve(problem, **options):
    return kernel.match(problem.indicators, problem.pack(), **problem.request(), **options)


def expected_match(problem):
    return reference.match(
        problem.indicators,
        problem.weights,
        problem.bias,
        **problem.prices,
        **problem.groups,
        **problem.request(),
    )


def check_match(problem, **options):
    """Every supported variant has the oracle's bits; returns the last variant's result."""
    expected = expected_match(problem)
    for variant in SUPPORTED:
        result = solve(problem, variant=variant, **options)
        assert_same_match(result, expected)
        check_pair_counts(result.stats, problem)
    return result


def check_pair_counts(stats, problem):
    n, m = problem.shape
    counts = [stats.get(name, 0) for name in ("skipped_by_rule", "skipped_by_bound", "screened")]
    assert min(counts) >= 0
    assert sum(counts) == n * m


def problem_of(n=5, m=20, columns=9, seed=0, **replaced):
    rng = np.random.default_rng(seed)
    problem = Problem(
        indicators=rng.normal(size=(n, columns)).astype(np.float32),
        weights=rng.normal(size=(m, columns)).astype(np.float32),
        bias=rng.normal(size=m).astype(np.float32),
        value=rng.uniform(0, 10, size=m),
        cost=rng.uniform(0, 1, size=m),
        link=[strategies.LINKS[j % 3] for j in range(m)],
    )
    return replace(problem, **replaced)


def one_column(z, **replaced):
    """One customer whose linear predictors are exactly the float32 numbers `z`."""
    m = len(z)
    fields = {
        "indicators": np.ones((1, 1), dtype=np.float32),
        "weights": np.array(z, dtype=np.float32)[:, None],
        "bias": np.zeros(m, dtype=np.float32),
        "value": np.ones(m),
        "cost": np.zeros(m),
        "link": ["identity"] * m,
        "k": m,
        "ev_min": None,
    }
    return Problem(**(fields | replaced))


def dense_history(adjustment):
    """A CSR history with an entry for every pair of the matrix `adjustment`."""
    n, m = np.shape(adjustment)
    return kernel.History(
        np.arange(0, n * m + 1, m, dtype=np.int64),
        np.tile(np.arange(m, dtype=np.int32), n),
        np.asarray(adjustment, dtype=np.float32).reshape(-1),
    )


def concatenated(results):
    return SimpleNamespace(
        **{
            field: np.concatenate([getattr(result, field) for result in results])
            for field in reference.Match._fields
        }
    )


# Any problem.


@settings(max_examples=500)
@given(strategies.match_problems(), strategies.blocks)
def test_match_has_the_oracles_bits(problem, block):
    check_match(problem, block=block)


@settings(max_examples=200)
@given(strategies.crowded_problems(), strategies.blocks)
def test_match_has_the_oracles_bits_when_limits_close_the_best_groups(problem, block):
    check_match(problem, block=block)


@settings(max_examples=200)
@given(strategies.audience_requests(), strategies.blocks)
def test_audience_has_the_oracles_bits(request_, block):
    problem, asked = request_
    names = ("k", "eligible", "history", "ev_min")
    expected = reference.audience(
        problem.indicators,
        problem.weights,
        problem.bias,
        **problem.prices,
        **problem.request(*names),
        capability_index=asked,
    )
    for variant in SUPPORTED:
        result = kernel.audience(
            problem.indicators,
            problem.pack(),
            **problem.request(*names),
            capability_index=asked,
            variant=variant,
            block=block,
        )
        assert_same_audience(result, expected)


@settings(max_examples=200)
@given(strategies.match_problems(), strategies.blocks)
def test_scores_have_the_oracles_bits(problem, block):
    arrays = (problem.weights, problem.bias)
    expected = reference.scores(
        problem.indicators, *arrays, **problem.prices, history=problem.history
    )
    for variant in SUPPORTED:
        result = kernel.scores(
            problem.indicators,
            problem.pack(),
            history=problem.history,
            variant=variant,
            block=block,
        )
        assert_same_scores(result, expected)


# Named cases.


@pytest.mark.parametrize("columns", [*strategies.COLUMN_COUNTS, 63, 64, 65, 128])
def test_ragged_columns(columns):
    check_match(problem_of(columns=columns))


@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 31, 32, 33, 127, 129])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_ragged_customers_and_capabilities(n, m):
    check_match(problem_of(n=n, m=m, k=4))


def test_no_customers():
    result = check_match(problem_of(n=0, k=4))
    assert result.capability_index.shape == (0, 4)


@pytest.mark.parametrize("m", [1, 5, 40])
def test_k_beyond_the_number_of_capabilities_fills_the_rest(m):
    result = check_match(problem_of(m=m, k=m + 3, ev_min=None))
    assert (result.opportunity_count == m).all()
    assert (result.capability_index[:, m:] == -1).all()
    assert not result.expected_value[:, m:].view(np.uint64).any()
    assert not result.propensity[:, m:].view(np.uint64).any()


@pytest.mark.parametrize(
    "closed",
    [
        {"eligible": np.zeros((5, 20), dtype=bool)},
        {"eligible": kernel.Eligibility(np.zeros((5, 2), np.uint64), np.full(20, 70, np.int32))},
        {"history": dense_history(np.full((5, 20), -np.inf))},
        {"ev_min": np.inf},
        {"ev_min": 1e300},
    ],
    ids=["dense", "planes", "history", "infinite ev_min", "large ev_min"],
)
def test_nobody_eligible_gives_only_fill(closed):
    result = check_match(problem_of(**closed))
    assert not result.opportunity_count.any()


def test_equal_expected_values_are_ordered_by_index():
    result = check_match(one_column([1, 2, 1, 2, 1, 2], k=5))
    assert result.capability_index[0].tolist() == [1, 3, 5, 0, 2]


@pytest.mark.parametrize("link", ["logistic", "count"])
def test_saturated_propensities_tie_and_the_lower_index_wins(link):
    z = np.arange(40, 140, dtype=np.float32)
    if link == "count":
        z = -z - 700
    result = check_match(one_column(z, link=[link] * 100, k=7))
    assert result.capability_index[0].tolist() == list(range(7))
    assert len(set(result.expected_value[0].tolist())) == 1


def test_the_cut_at_k_falls_inside_a_tie_longer_than_the_kept_list():
    result = check_match(one_column(np.zeros(300), k=5))
    assert result.capability_index[0].tolist() == [0, 1, 2, 3, 4]


def test_negative_zeros_in_every_argument():
    zero = np.float32(-0.0)
    problem = one_column([zero] * 4, indicators=np.full((1, 1), zero), bias=np.full(4, zero))
    for value, cost in [(-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0), (1.0, -0.0)]:
        priced = replace(problem, value=np.full(4, value), cost=np.full(4, cost), ev_min=-0.0)
        result = check_match(priced)
        assert not result.expected_value.view(np.uint64).any()
        assert result.opportunity_count[0] == 4


@pytest.mark.parametrize("style", strategies.NUMBER_STYLES)
@pytest.mark.parametrize("value", [5e-324, 1e-310, 1.0, 2.0**100])
def test_extreme_magnitudes(style, value):
    rng = np.random.default_rng(3)
    problem = problem_of(
        indicators=strategies.numbers(rng, style, (5, 9)),
        weights=strategies.numbers(rng, style, (20, 9)),
        bias=strategies.numbers(rng, style, (20,)),
        value=np.full(20, value),
        cost=rng.choice([0.0, 5e-324, -(2.0**100), 2.0**100], size=20),
        ev_min=None,
        k=20,
    )
    result = check_match(problem)
    assert (result.opportunity_count == 20).all()


def test_a_negative_cost_makes_a_worthless_capability_worth_taking():
    problem = one_column([-1, 1, 2], value=np.zeros(3), cost=np.array([-3.0, 0.5, -1.0]))
    result = check_match(replace(problem, ev_min=0.0))
    assert result.capability_index[0].tolist() == [0, 2, -1]
    assert result.expected_value[0].tolist() == [3.0, 1.0, 0.0]


@pytest.mark.parametrize("link", strategies.LINKS)
def test_value_zero_leaves_the_cost_alone(link):
    result = check_match(problem_of(value=np.zeros(20), link=[link] * 20, ev_min=None, k=20))
    assert (np.diff(result.expected_value) <= 0).all()


def test_minus_infinite_history_excludes_the_best_pair_only():
    history = dense_history([[0.0, -np.inf, 0.0]])
    result = check_match(one_column([1, 9, 2], history=history))
    assert result.capability_index[0].tolist() == [2, 0, -1]


def test_history_moves_a_pair_by_its_adjustment():
    result = check_match(one_column([1, 2, 3], history=dense_history([[5.0, 0.0, -5.0]])))
    assert result.expected_value[0].tolist() == [6.0, 2.0, -2.0]


def test_history_of_rows_without_entries():
    history = kernel.History(
        np.array([0, 0, 2, 2, 3, 3]), np.int32([0, 19, 7]), np.float32([5, -np.inf, -5])
    )
    check_match(problem_of(history=history))


@pytest.mark.parametrize("step", [-np.inf, 0.0, np.inf])
def test_ev_min_admits_a_pair_exactly_at_it(step):
    least = float(np.nextafter(2.0, step)) if step else 2.0
    result = check_match(one_column([1, 2, 3], ev_min=least))
    assert result.opportunity_count[0] == (1 if least > 2.0 else 2)


def test_ev_min_none_admits_any_loss():
    assert check_match(problem_of(cost=np.full(20, 1e30), ev_min=None)).opportunity_count.all()
    assert not check_match(problem_of(cost=np.full(20, 1e30))).opportunity_count.any()


# Limits.


def test_a_limit_skips_what_would_break_it():
    product = np.array([7, 7, 7, -2, -2], dtype=np.int32)
    problem = one_column([5, 4, 3, 2, 1], product=product)
    limited = check_match(replace(problem, limits=kernel.Limits(product=1)))
    assert limited.capability_index[0].tolist() == [0, 3, -1, -1, -1]
    unlimited = check_match(problem)
    assert unlimited.capability_index[0].tolist() == [0, 1, 2, 3, 4]


def test_a_skipped_capability_uses_up_no_other_limit():
    problem = one_column(
        [5, 4, 3],
        product=np.array([0, 0, 1], dtype=np.int32),
        channel=np.array([0, 1, 1], dtype=np.int32),
        limits=kernel.Limits(product=1, channel=1),
    )
    assert check_match(problem).capability_index[0].tolist() == [0, 2, -1]


def test_without_codes_each_capability_is_a_group_of_its_own():
    limits = kernel.Limits(product=1, channel=1, family=1)
    assert check_match(one_column([1, 2, 3], limits=limits)).opportunity_count[0] == 3


def crossing_problem(seed):
    """400 capabilities; the first products hold the best pairs, far more than K′ of them."""
    rng = np.random.default_rng(seed)
    m = 400
    product = rng.integers(0, 8, size=m).astype(np.int32)
    return problem_of(
        n=8,
        m=m,
        seed=seed,
        bias=(-20.0 * product).astype(np.float32),
        value=np.ones(m),
        cost=np.zeros(m),
        link=["identity"] * m,
        product=product,
        channel=rng.integers(0, 3, size=m).astype(np.int32),
        family=rng.integers(0, 5, size=m).astype(np.int32),
        k=6,
        ev_min=None,
        limits=kernel.Limits(product=1, channel=3, family=2),
    )


@pytest.mark.parametrize("seed", range(6))
def test_three_crossing_limits_need_several_screens(seed):
    result = check_match(crossing_problem(seed))
    assert result.stats["rescreens"] > 0


@pytest.mark.parametrize("seed", range(6))
def test_each_screen_looks_at_open_groups_only(seed):
    # Then the first pair of every list can be taken, and k − 1 more screens always suffice.
    problem = crossing_problem(seed)
    result = check_match(replace(problem, limits=kernel.Limits(product=1)))
    assert 0 < result.stats["rescreens"] <= len(problem.indicators) * (problem.k - 1)


def second_screen(**replaced):
    """Product 0 fills the whole first list, so that capabilities 100 to 102 come by a second."""
    product = np.repeat(np.array([0, 1], dtype=np.int32), [100, 3])
    z = np.repeat(np.array([9.0, 4.0, 5.0, 3.0]), [100, 1, 1, 1])
    limits = kernel.Limits(product=3)
    result = check_match(one_column(z, product=product, limits=limits, **{"k": 6} | replaced))
    assert result.stats["rescreens"] == 1
    return result.capability_index[0].tolist()


def test_a_later_screen_finds_what_the_first_list_left_out():
    assert second_screen() == [0, 1, 2, 101, 100, 102]


def test_a_later_screen_observes_ev_min():
    assert second_screen(ev_min=4.0) == [0, 1, 2, 101, 100, -1]


def test_a_later_screen_observes_eligibility():
    eligible = np.arange(103)[None, :] != 101
    assert second_screen(eligible=eligible) == [0, 1, 2, 100, 102, -1]


def test_a_later_screen_observes_history():
    adjustment = np.zeros((1, 103))
    adjustment[0, [100, 101, 102]] = [-np.inf, -5.0, 1.0]
    assert second_screen(history=dense_history(adjustment)) == [0, 1, 2, 102, 101, -1]


def test_without_limits_no_customer_is_screened_twice():
    assert check_match(replace(crossing_problem(0), limits=None)).stats["rescreens"] == 0


def test_a_tie_that_spans_two_screens_is_walked_once():
    product = np.repeat(np.arange(4, dtype=np.int32), 50)
    problem = one_column(np.zeros(200), product=product, k=4, limits=kernel.Limits(product=1))
    result = check_match(problem)
    assert result.capability_index[0].tolist() == [0, 50, 100, 150]
    assert result.stats["rescreens"] > 0


def test_limits_that_leave_fewer_than_k_end_the_search():
    problem = one_column(
        np.zeros(200),
        product=np.zeros(200, dtype=np.int32),
        k=4,
        limits=kernel.Limits(product=2),
    )
    assert check_match(problem).opportunity_count[0] == 2


def test_names_of_groups_do_not_matter():
    problem = crossing_problem(1)
    codes = np.array([2**31 - 1, -(2**31), 5, -1, 0, 99, 3, 1000], dtype=np.int32)
    renamed = replace(problem, product=codes[problem.product])
    assert_same_match(solve(renamed), solve(problem))


# Eligibility.


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_planes_in_several_words_equal_the_same_pairs_given_densely(count):
    problem = problem_of(n=7, m=50, k=9)
    planes = strategies.planes_of(np.random.default_rng(count), (7, 50), count)
    dense = reference.eligible_matrix(planes, 7, 50)
    by_planes = check_match(replace(problem, eligible=planes))
    assert_same_match(check_match(replace(problem, eligible=dense)), by_planes)


def test_plane_minus_one_is_for_everybody():
    nobody = kernel.Eligibility(np.zeros((1, 1), np.uint64), np.int32([0, -1, 63]))
    assert check_match(one_column([3, 2, 1], eligible=nobody)).capability_index[0, 0] == 1


def test_planes_without_words_serve_only_plane_minus_one():
    everybody = kernel.Eligibility(np.empty((1, 0), np.uint64), np.int32([-1, -1]))
    assert check_match(one_column([2, 1], eligible=everybody)).opportunity_count[0] == 2


# However the work is cut.


def cut_problem(n=60):
    problem = replace(crossing_problem(5), indicators=problem_of(n=n, seed=6).indicators)
    rng = np.random.default_rng(7)
    return replace(
        problem,
        eligible=strategies.planes_of(rng, problem.shape, 130),
        history=strategies.history_of(rng, problem.shape, 0.1),
    )


@pytest.mark.parametrize("variant", SUPPORTED)
@pytest.mark.parametrize(
    "block", [(1, 1), (1, 0), (0, 1), (7, 13), (8, 64), (60, 400), (2**31 - 1, 2**31 - 1)]
)
def test_block_sizes_change_no_bit(block, variant):
    problem = cut_problem()
    whole = solve(problem, variant=variant)
    assert_same_match(solve(problem, variant=variant, block=block), whole)
    assert whole.stats["rescreens"] > 0


@pytest.mark.parametrize("size", [1, 7, 59])
def test_rows_in_chunks_equal_the_whole(size):
    problem = cut_problem()
    chunks = [solve(problem.rows(begin, begin + size)) for begin in range(0, 60, size)]
    assert_same_match(concatenated(chunks), solve(problem))


def test_threads_change_no_bit():
    problem = cut_problem(n=400)
    panel = problem.pack()

    def solve_rows(begin):
        rows = problem.rows(begin, begin + 10)
        return kernel.match(rows.indicators, panel, **rows.request())

    with ThreadPoolExecutor(8) as pool:
        chunks = list(pool.map(solve_rows, range(0, 400, 10)))
    assert_same_match(concatenated(chunks), solve(problem))


def test_the_order_of_customers_only_permutes_the_rows():
    problem = replace(cut_problem(), history=None, eligible=None)
    order = np.random.default_rng(8).permutation(60)
    permuted = solve(replace(problem, indicators=problem.indicators[order]))
    whole = solve(problem)
    rows = {field: getattr(whole, field)[order] for field in reference.Match._fields}
    assert_same_match(permuted, SimpleNamespace(**rows))


def test_layout_and_type_of_the_same_numbers_change_no_bit():
    problem = cut_problem()
    expected = solve(problem)
    for indicators in (
        np.asfortranarray(problem.indicators),
        np.repeat(problem.indicators, 2, axis=1)[:, ::2],
        problem.indicators.astype(np.float64),
        problem.indicators.astype(">f4"),
        problem.indicators.tolist(),
    ):
        assert_same_match(solve(replace(problem, indicators=indicators)), expected)


def test_inputs_may_be_read_only_and_are_left_alone():
    problem = cut_problem()
    arrays = [problem.indicators, problem.weights, problem.bias, problem.value, problem.cost]
    arrays += [problem.product, problem.channel, problem.family, *problem.eligible]
    arrays += list(problem.history)
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    solve(problem)
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)


def test_a_panel_keeps_what_was_packed():
    problem = problem_of()
    expected = solve(problem)
    panel = problem.pack()
    for array in (problem.weights, problem.bias, problem.value, problem.cost):
        array[:] = np.nan
    assert_same_match(kernel.match(problem.indicators, panel, **problem.request()), expected)


# Variants.


@pytest.mark.parametrize("variant", kernel.variants())
def test_each_variant_of_this_build_has_the_oracles_bits(variant):
    if variant not in SUPPORTED:
        pytest.skip(f"this processor cannot run variant {variant!r}")
    assert kernel.choose_variant(variant) == variant
    for seed in range(3):
        problem = crossing_problem(seed)
        assert_same_match(solve(problem, variant=variant), expected_match(problem))


def test_every_build_has_the_portable_variant_and_runs_it():
    assert kernel.variants()["portable"] is True


# Accounts.


def test_a_rule_skips_exactly_the_ineligible_pairs():
    eligible = np.random.default_rng(9).random((5, 20)) < 0.4
    result = check_match(problem_of(eligible=eligible))
    assert result.stats["skipped_by_rule"] == (~eligible).sum()


def test_every_screen_verifies_what_it_returns():
    result = check_match(cut_problem())
    assert result.stats["verified"] >= result.opportunity_count.sum()
