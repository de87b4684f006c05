"""docs/score.md held against mpmath, and the kernel held against the oracle, bit for bit."""

import ctypes
import mmap
import platform
from contextlib import contextmanager
from fractions import Fraction
from math import factorial

import mpmath
import numpy as np
import pytest

import reference
from assertions import (
    assert_same_array,
    assert_same_audience,
    assert_same_match,
    assert_same_scores,
)
from visavis import kernel
from visavis.errors import InputError

TINY = 2.0**-54
DENORMAL = 5e-324
FLOAT64_MAX = float(np.finfo(np.float64).max)

EXP_EDGES = -np.concatenate(
    [
        [0.0, -0.0, DENORMAL, 1e-310, TINY, 2.0**-53, 1e-9, np.log(2) / 2, np.log(2), 1.0],
        [37.0, np.nextafter(708.0, 0), 708.0, np.nextafter(708.0, 709), 745.0, 1e300, np.inf],
    ]
)
LOG1P_EDGES = np.concatenate(
    [
        [0.0, -0.0, DENORMAL, 1e-310, TINY, np.nextafter(TINY, 0), np.nextafter(TINY, 1)],
        [2.0**-53, 2.0**-27, 2.0**-26, 0.5, np.nextafter(1.0, 0), 1.0],
    ]
)
LOG1P_BEYOND = np.concatenate(
    [
        [np.nextafter(1.0, 2), 2.0, np.nextafter(3.0, 0), 3.0, 7.0, 1e9],
        [2.0**53 - 1, 2.0**53, 2.0**60, 1e300, FLOAT64_MAX],
    ]
)


def ulps(computed, arguments, function):
    """Error of each computed number in units of the last place of the exact result."""
    worst = 0.0
    with mpmath.workprec(200):
        for value, argument in zip(computed.tolist(), arguments.tolist(), strict=True):
            exact = function(mpmath.mpf(argument))
            place = np.spacing(np.abs(np.float64(float(exact))))
            worst = max(worst, float(abs(mpmath.mpf(value) - exact) / mpmath.mpf(float(place))))
    return worst


def spread(rng, low, high, count):
    """Magnitudes evenly spread over the exponents from `low` to `high`."""
    return 10.0 ** rng.uniform(low, high, size=count)


def test_coefficients_are_the_nearest_float64_to_their_fractions():
    assert [float(Fraction(1, factorial(i))) for i in range(13, 1, -1)] == reference.E
    assert [float(Fraction(1, i)) for i in range(35, 1, -2)] == reference.A


@pytest.mark.parametrize("low", [-1, -10, -708])
def test_exp_is_within_one_ulp_of_the_exact_value(low):
    y = np.random.default_rng(1).uniform(low, 0, size=2000)
    assert ulps(kernel.exp(y), y, mpmath.exp) <= 1.0


def test_exp_is_within_one_ulp_at_every_magnitude():
    y = -spread(np.random.default_rng(2), -30, np.log10(708), 2000)
    assert ulps(kernel.exp(y), y, mpmath.exp) <= 1.0


def test_exp_is_within_one_ulp_where_the_reduction_changes_its_multiple():
    multiple = np.arange(0, 1021)
    middle = -(multiple + 0.5) * np.log(2)
    y = np.concatenate([middle, np.nextafter(middle, 0), np.nextafter(middle, -800)])
    assert ulps(kernel.exp(y), y, mpmath.exp) <= 1.0


def test_exp_of_zero_is_one_and_below_the_boundary_zero():
    assert_same_array(kernel.exp([0.0, -0.0, -DENORMAL]), np.ones(3))
    below = np.array([np.nextafter(-708.0, -np.inf), -709.0, -1e300, -np.inf])
    assert_same_array(kernel.exp(below), np.zeros(4))
    assert kernel.exp(-708.0) > 0.0


def test_log1p_is_within_one_ulp_up_to_one():
    x = np.random.default_rng(3).uniform(0, 1, size=4000)
    assert ulps(kernel.log1p(x), x, mpmath.log1p) <= 1.0


def test_log1p_is_within_one_ulp_at_every_magnitude_and_edge():
    x = np.concatenate([spread(np.random.default_rng(4), -307, 0, 3000), LOG1P_EDGES])
    assert ulps(kernel.log1p(x), x, mpmath.log1p) <= 1.0


def test_log1p_beyond_one_is_within_two_ulp():
    rng = np.random.default_rng(5)
    x = np.concatenate([spread(rng, 0, 308, 2000), rng.uniform(1, 100, 2000), LOG1P_BEYOND])
    assert ulps(kernel.log1p(x), x, mpmath.log1p) <= 2.0


def test_log1p_returns_what_is_below_its_boundary_unchanged():
    x = np.array([0.0, -0.0, DENORMAL, 1e-310, np.nextafter(TINY, 0)])
    assert_same_array(kernel.log1p(x), x)


def test_exp_has_the_oracles_bits_on_a_million_points():
    rng = np.random.default_rng(6)
    y = -np.concatenate([rng.uniform(0, 710, 500_000), spread(rng, -320, 3, 500_000), -EXP_EDGES])
    assert_same_array(kernel.exp(y), reference.exp(y), "exp")


def test_log1p_has_the_oracles_bits_on_a_million_points():
    rng = np.random.default_rng(7)
    x = np.concatenate(
        [
            rng.uniform(0, 1, 400_000),
            spread(rng, -320, 0, 400_000),
            spread(rng, 0, 308, 200_000),
            LOG1P_EDGES,
            LOG1P_BEYOND,
        ]
    )
    assert_same_array(kernel.log1p(x), reference.log1p(x), "log1p")


def test_elementary_functions_keep_the_shape_and_take_strides():
    y = -np.arange(24.0).reshape(2, 3, 4)
    assert_same_array(kernel.exp(y)[:, ::2], kernel.exp(y[:, ::2]))
    assert kernel.log1p(0.5).shape == ()
    assert kernel.exp(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("function", "field", "wrong"),
    [
        (kernel.exp, "y", DENORMAL),
        (kernel.exp, "y", np.nan),
        (kernel.exp, "y", np.inf),
        (kernel.log1p, "x", -DENORMAL),
        (kernel.log1p, "x", np.nan),
        (kernel.log1p, "x", np.inf),
    ],
)
def test_elementary_functions_refuse_what_lies_outside(function, field, wrong):
    with pytest.raises(InputError) as refusal:
        function([0.0, wrong])
    assert (refusal.value.field, refusal.value.row) == (field, 1)


def linear_predictors():
    """Two columns that add up to a wide range of z, saturated on both sides."""
    rng = np.random.default_rng(8)
    coarse = np.concatenate(
        [rng.uniform(-40, 40, 1500), rng.uniform(-800, 800, 400), [0.0, -0.0, 708, -708, 709, -709]]
    )
    fine = rng.normal(scale=1e-6, size=len(coarse))
    fine[-6:] = 0.0
    return np.stack([coarse, fine], axis=1).astype(np.float32)


def scores_of(indicators, link, value=1.0, cost=0.0):
    weights = np.ones((1, indicators.shape[1]), dtype=np.float32)
    prices = {"value": [value], "cost": [cost], "link": link}
    actual = kernel.scores(indicators, kernel.pack(weights, np.float32([0]), **prices))
    assert_same_scores(actual, reference.scores(indicators, weights, np.float32([0]), **prices))
    return actual


@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
@pytest.mark.parametrize(
    ("value", "cost"),
    [(1.0, 0.0), (3.7, 0.1), (2.0**100, -(2.0**100)), (DENORMAL, 0.0), (1e-310, DENORMAL)],
)
def test_scores_have_the_oracles_bits(link, value, cost):
    scores_of(linear_predictors(), link, value, cost)


def test_sigma_agrees_with_mpmath():
    actual = scores_of(linear_predictors(), "logistic")
    inside = np.abs(actual.linear_predictor[:, 0]) < 708
    z, sigma = actual.linear_predictor[inside, 0], actual.propensity[inside, 0]
    assert ulps(sigma, z, lambda z: 1 / (1 + mpmath.exp(-z))) <= 3.0
    assert_same_array(actual.expected_value, actual.propensity)


def test_expected_count_agrees_with_mpmath_and_shares_its_propensity_with_logistic():
    actual = scores_of(linear_predictors(), "count")
    inside = np.abs(actual.linear_predictor[:, 0]) < 708
    z, g = actual.linear_predictor[inside, 0], actual.expected_value[inside, 0]
    assert ulps(g, z, lambda z: mpmath.log1p(mpmath.exp(z))) <= 3.0
    assert_same_array(actual.propensity, scores_of(linear_predictors(), "logistic").propensity)


def test_identity_returns_the_linear_predictor():
    actual = scores_of(linear_predictors(), "identity")
    assert_same_array(actual.propensity, actual.linear_predictor)
    assert_same_array(actual.expected_value, actual.linear_predictor)


def test_saturated_sigma_is_exactly_zero_or_one():
    z = np.array([[-708.5], [-1e30], [40.0], [1e30]], dtype=np.float32)
    assert_same_array(scores_of(z, "logistic").propensity[:, 0], np.array([0.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize("cost", [0.0, -0.0])
@pytest.mark.parametrize("value", [0.0, -0.0])
@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
def test_negative_zero_is_written_as_positive_zero(link, value, cost):
    z = np.array([[-1.0], [-0.0], [0.0], [1.0]], dtype=np.float32)
    assert_same_array(scores_of(z, link, value, cost).expected_value, np.zeros((4, 1)))


def test_a_linear_predictor_is_never_negative_zero():
    zero = np.array([[-0.0]], dtype=np.float32)
    history = kernel.History(np.array([0, 1]), np.int32([0]), np.float32([-0.0]))
    panel = kernel.pack(zero + 1, np.float32([-0.0]), value=[1.0], cost=[0.0], link="identity")
    actual = kernel.scores(zero, panel, history=history)
    assert_same_array(actual.linear_predictor, np.zeros((1, 1)))
    assert_same_array(actual.propensity, np.zeros((1, 1)))


def test_expected_value_is_rounded_twice_never_fused():
    # z · value = 1 + 2^-20 + 2^-40 + 2^-60; one rounding drops 2^-60, a fused one would keep it.
    z = np.array([[1.0 + 2.0**-20]], dtype=np.float32)
    actual = scores_of(z, "identity", 1.0 + 2.0**-40, 1.0)
    assert actual.expected_value[0, 0] == 2.0**-20 + 2.0**-40


# §8: the caller's floating-point control register.

FLUSH_TO_ZERO = 0x8040  # FTZ and DAZ in MXCSR
ROUND_DOWN, ROUND_UP, ROUND_TO_ZERO = 0x2000, 0x4000, 0x6000
STICKY_FLAGS = 0x003F
_STORE_MXCSR = b"\x0f\xae\x1f\xc3"  # stmxcsr [rdi]; ret
_LOAD_MXCSR = b"\x0f\xae\x17\xc3"  # ldmxcsr [rdi]; ret


class ControlRegister:
    """Reads and writes this thread's MXCSR by two instructions in a page of our own."""

    def __init__(self):
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip(f"MXCSR exists on x86-64 only, this is {platform.machine()}")
        try:
            page = mmap.mmap(
                -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
            )
        except OSError as error:
            pytest.skip(f"this system forbids executable pages, MXCSR stays out of reach: {error}")
        page.write(_STORE_MXCSR + _LOAD_MXCSR)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._page = page
        self._store = function(address)
        self._load = function(address + len(_STORE_MXCSR))
        self._word = ctypes.c_uint32()

    def read(self):
        self._store(ctypes.addressof(self._word))
        return self._word.value & ~STICKY_FLAGS

    def write(self, value):
        self._word.value = value
        self._load(ctypes.addressof(self._word))

    @contextmanager
    def holding(self, bits):
        """The block runs with `bits` set; on leaving it they must still be set."""
        before = self.read()
        self.write(before | bits)
        try:
            yield
            after = self.read()
        finally:
            self.write(before)
        assert after == before | bits, f"the call left MXCSR at {after:#x}"


@pytest.fixture(scope="module")
def control_register():
    return ControlRegister()


def denormal_problem():
    """Numbers whose products and results are denormal, so that flushing them shows."""
    rng = np.random.default_rng(9)
    indicators = (rng.integers(-99, 99, size=(4, 9)) * 2.0**-149).astype(np.float32)
    weights = rng.normal(size=(12, 9)).astype(np.float32)
    weights[::2] *= np.float32(1e38)
    bias = (rng.integers(-9, 9, size=12) * 2.0**-149).astype(np.float32)
    value = rng.choice([DENORMAL, 1e-310, 3e-308, 2.0**100], size=12)
    cost = rng.choice([0.0, DENORMAL, -1e-309], size=12)
    links = [str(link) for link in rng.choice(["logistic", "count", "identity"], size=12)]
    return indicators, weights, bias, {"value": value, "cost": cost, "link": links}


def test_the_denormal_problem_notices_flushing(control_register):
    indicators, weights, bias, prices = denormal_problem()
    expected = reference.scores(indicators, weights, bias, **prices)
    with control_register.holding(FLUSH_TO_ZERO):
        flushed = reference.scores(indicators, weights, bias, **prices)
    for field in ("linear_predictor", "expected_value"):
        with pytest.raises(AssertionError):
            assert_same_array(getattr(flushed, field), getattr(expected, field))


@pytest.mark.parametrize("variant", [name for name, runs in kernel.variants().items() if runs])
@pytest.mark.parametrize(
    "bits", [FLUSH_TO_ZERO, ROUND_DOWN, ROUND_UP, ROUND_TO_ZERO, FLUSH_TO_ZERO | ROUND_UP]
)
def test_no_caller_setting_changes_a_bit_and_each_is_restored(control_register, bits, variant):
    indicators, weights, bias, prices = denormal_problem()
    asked = np.array([0, 3, 5], dtype=np.int32)
    expected = (
        reference.scores(indicators, weights, bias, **prices),
        reference.match(indicators, weights, bias, k=5, ev_min=None, **prices),
        reference.audience(
            indicators, weights, bias, k=3, capability_index=asked, ev_min=None, **prices
        ),
    )
    panel = kernel.pack(weights, bias, **prices)
    with control_register.holding(bits):
        table = kernel.scores(indicators, panel, variant=variant)
        matches = kernel.match(indicators, panel, k=5, ev_min=None, variant=variant)
        best = kernel.audience(
            indicators, panel, capability_index=asked, k=3, ev_min=None, variant=variant
        )
    assert_same_scores(table, expected[0])
    assert_same_match(matches, expected[1])
    assert_same_audience(best, expected[2])


@pytest.mark.parametrize("bits", [FLUSH_TO_ZERO, ROUND_DOWN, ROUND_UP, ROUND_TO_ZERO])
def test_elementary_functions_ignore_and_restore_the_callers_setting(control_register, bits):
    y = np.concatenate([EXP_EDGES, np.linspace(-708, 0, 999)])
    x = np.concatenate([LOG1P_EDGES, LOG1P_BEYOND, np.linspace(0, 9, 999)])
    expected = reference.exp(y), reference.log1p(x)
    with control_register.holding(bits):
        actual = kernel.exp(y), kernel.log1p(x)
    assert_same_array(actual[0], expected[0], "exp")
    assert_same_array(actual[1], expected[1], "log1p")


@pytest.mark.parametrize("bits", [FLUSH_TO_ZERO, ROUND_DOWN, ROUND_UP, ROUND_TO_ZERO])
def test_terms_ignore_and_restore_the_callers_setting(control_register, bits):
    indicators, weights, bias, prices = denormal_problem()
    pairs = np.arange(len(indicators)), np.arange(len(indicators), dtype=np.int32)
    asked = {"by_name": np.arange(indicators.shape[1] + 1)[::-1], "count": 20}
    against = np.full(indicators.shape[1], 0.1) * weights[0]
    panel = kernel.pack(weights, bias, **prices)
    for less in (None, against):
        expected = reference.largest_terms(indicators, weights, *pairs, against=less, **asked)
        with control_register.holding(bits):
            actual = kernel.largest_terms(indicators, panel, *pairs, against=less, **asked)
        for name, wanted in expected._asdict().items():
            assert_same_array(getattr(actual, name), wanted, name)


def test_a_refused_call_restores_the_callers_setting_too(control_register):
    _, weights, bias, prices = denormal_problem()
    panel = kernel.pack(weights, bias, **prices)
    wrong = np.full((1, 9), np.nan, dtype=np.float32)
    with control_register.holding(FLUSH_TO_ZERO), pytest.raises(InputError):
        kernel.match(wrong, panel, k=1)
