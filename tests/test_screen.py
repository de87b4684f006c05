"""The screen, attacked: whatever the numbers, a screened variant answers as the exhaustive one.

The definition is the portable variant, itself compared with the oracle in test_kernel.py. Here lie
the worlds in which a bound that is a little too small, a threshold a little too high or a rounding
in the wrong direction would lose an opportunity.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assertions import assert_same_audience, assert_same_match
from visavis import kernel
from visavis.kernel.screen import BLOCK_CAPABILITIES, build_screen

SCREENED: Final = [
    name
    for name, variant in kernel.built_variants().items()
    if variant.lacks is None and variant.is_screened
]

#: `make test-long` asks for more.
EXAMPLES: Final = int(os.environ.get("VISAVIS_EXAMPLES", "150"))

Rng = np.random.Generator
Matrix = np.ndarray[Any, np.dtype[np.float32]]


def gaussian(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return rng.standard_normal(shape).astype(np.float32)


def heavy_tailed(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return (rng.standard_cauchy(shape) * np.exp(rng.normal(0, 4, shape[1]))).astype(np.float32)


def one_huge(rng: Rng, shape: tuple[int, int]) -> Matrix:
    x = gaussian(rng, shape)
    x[:, rng.integers(shape[1])] *= np.float32(1e6)
    return x


def few_values(rng: Rng, shape: tuple[int, int]) -> Matrix:
    """Many pairs tie, and the lower index must win."""
    return rng.choice([-1.0, 0.0, 0.5, 1.0], size=shape).astype(np.float32)


def all_equal(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return np.full(shape, rng.normal(), dtype=np.float32)


def alternating(rng: Rng, shape: tuple[int, int]) -> Matrix:
    """Sums that cancel: what is left is far smaller than what was added."""
    signs = np.where(np.arange(shape[1]) % 2, 1.0, -1.0)
    return (signs * (1.0 + 1e-6 * rng.standard_normal(shape))).astype(np.float32)


def denormal(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return (rng.standard_normal(shape) * 1e-41).astype(np.float32)


def enormous(rng: Rng, shape: tuple[int, int]) -> Matrix:
    """Norms beyond float32, though every number is finite."""
    return (rng.uniform(-1, 1, shape) * 3e38).astype(np.float32)


def saturating(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return (rng.standard_normal(shape) * 30).astype(np.float32)


def sparse(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return np.where(rng.random(shape) < 0.05, rng.standard_normal(shape), 0.0).astype(np.float32)


def unscaled(rng: Rng, shape: tuple[int, int]) -> Matrix:
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-18, 18, shape[1])).astype(np.float32)


NUMBERS: Final[list[Callable[[Rng, tuple[int, int]], Matrix]]] = [
    gaussian,
    heavy_tailed,
    one_huge,
    few_values,
    all_equal,
    alternating,
    denormal,
    enormous,
    saturating,
    sparse,
    unscaled,
]

BIASES: Final = (
    lambda rng, m: rng.normal(-2, 1, m),
    lambda _, m: np.zeros(m),
    lambda rng, m: rng.normal(0, 1e4, m),
    lambda rng, m: rng.uniform(-3e38, 3e38, m),
)
VALUES: Final = (
    lambda _, m: np.full(m, 10.0),
    lambda rng, m: rng.lognormal(1, 2, m),
    lambda rng, m: rng.choice([0.0, -0.0, 1.0, 1e-300, 2.0**100], m),
    lambda rng, m: rng.choice([0.0, -0.0], m),
)
COSTS: Final = (
    lambda _, m: np.full(m, 0.1),
    lambda _, m: np.zeros(m),
    lambda rng, m: rng.normal(0, 1, m),
    lambda rng, m: rng.choice([-(2.0**100), 0.0, -0.0, 1e-310, 2.0**100], m),
)


def group_of(rng: Rng, m: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return rng.integers(0, max(1, m // int(rng.integers(1, 20))), m).astype(np.int32)


def eligibility_of(rng: Rng, n: int, m: int) -> kernel.Eligibility | np.ndarray | None:
    """None, a dense matrix, or planes: few of many capabilities, or many of few."""
    form = rng.integers(4)
    if form == 0:
        return None
    if form == 1:
        return rng.random((n, m)) < rng.random()
    count = int(rng.integers(1, 3)) if form == 2 else int(rng.integers(1, 200))
    planes = rng.integers(0, 2**63, (n, -(-count // 64)), dtype=np.uint64)
    if rng.random() < 0.3:
        planes &= rng.integers(0, 2**63, planes.shape, dtype=np.uint64)
    return kernel.Eligibility(planes, rng.integers(-1, count, m).astype(np.int32))


def history_of(rng: Rng, n: int, m: int) -> kernel.History | None:
    if rng.random() < 0.4:
        return None
    present = rng.random((n, m)) < rng.choice([0.0, 0.02, 0.5, 1.0])
    size = rng.choice([0.1, 5.0, 1e30, 1e-41])
    h = (rng.normal(0, 1, int(present.sum())) * size).astype(np.float32)
    h[rng.random(len(h)) < 0.1] = -np.inf
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    return kernel.History(indptr, np.nonzero(present)[1].astype(np.int32), h)


def limits_of(rng: Rng) -> kernel.Limits:
    return kernel.Limits(*(int(rng.integers(1, 4)) if rng.random() < 0.4 else None for _ in "pcf"))


def one_of(rng: Rng, makers: Any) -> Any:
    return makers[rng.integers(len(makers))]


def world(seed: int) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Arguments of `pack`, its hints, and arguments of `match`, for one draw."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 80)), int(rng.choice([1, 7, 63, 64, 65, 130, 400]))
    d = int(rng.choice([1, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 128, 200]))
    x, w = one_of(rng, NUMBERS)(rng, (n, d)), one_of(rng, NUMBERS)(rng, (m, d))
    links = np.array(["logistic", "count", "identity"])
    link = (
        str(one_of(rng, links))
        if rng.random() < 0.5
        else [str(each) for each in rng.choice(links, m)]
    )
    prices = {
        "value": one_of(rng, VALUES)(rng, m),
        "cost": one_of(rng, COSTS)(rng, m),
        "link": link,
        **{name: group_of(rng, m) for name in ("product", "channel", "family")},
    }
    eligible = eligibility_of(rng, n, m)
    hints: dict[str, Any] = {}
    if rng.random() < 0.5:
        hints["indicator_scale"] = np.abs(x).max(axis=0)
    if isinstance(eligible, kernel.Eligibility) and rng.random() < 0.7:
        hints["plane_index"] = eligible.plane_index
    asked = {
        "k": int(rng.choice([1, 2, 5, 10, 40, 500])),
        "eligible": eligible,
        "history": history_of(rng, n, m),
        "limits": limits_of(rng),
        "ev_min": one_of(rng, [None, 0.0, 1.0, -5.0, float("inf"), 1e-310]),
        "block": (int(rng.integers(0, 40)), 0),
    }
    pair = (w, one_of(rng, BIASES)(rng, m).astype(np.float32), prices)
    return (x, *pair), hints, asked


#: None, too low, about right, too high, beyond all: nothing depends on it.
GUESSES = [float("nan"), -float("inf"), -1e300, 0.0, 0.1, 0.3, 1.0, 10.0, 1e300, float("inf")]


def matched_alike(
    rows: Matrix, panel: kernel.Panel, *, variant: str, **asked: Any
) -> kernel.MatchResult:
    """What a variant finds, which is what the portable one finds."""
    found = kernel.match(rows, panel, variant=variant, **asked)
    assert_same_match(found, kernel.match(rows, panel, variant="portable", **asked))
    return found


@pytest.mark.parametrize("variant", SCREENED)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_opportunity_is_lost(variant: str, seed: int) -> None:
    (x, w, b, prices), hints, asked = world(seed)
    with np.errstate(all="ignore"):
        wanted = kernel.match(x, kernel.pack(w, b, **prices), variant="portable", **asked)
        panel = kernel.pack(w, b, **prices, **hints)
        guess = one_of(np.random.default_rng(seed), GUESSES)
        found = kernel.match(x, panel, variant=variant, guess=guess, **asked)
    assert_same_match(found, wanted)
    for stats in (found.stats, wanted.stats):
        told = stats["skipped_by_rule"] + stats["skipped_by_bound"] + stats["screened"]
        assert told == len(x) * len(w)
    assert found.stats["skipped_by_rule"] == wanted.stats["skipped_by_rule"]


@pytest.mark.parametrize("variant", SCREENED)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_customer_of_an_audience_is_lost(variant: str, seed: int) -> None:
    (x, w, b, prices), hints, asked = world(seed)
    rng = np.random.default_rng(seed)
    m = len(w)
    x = np.tile(x, (int(rng.integers(1, 8)), 1))  # more rows, and ties between them
    count = int(rng.choice([1, min(5, m), m]))
    given = {
        "capability_index": np.sort(rng.choice(m, count, replace=False)),
        "k": min(int(rng.choice([1, 3, 30, 1_000])), len(x)),
        "eligible": eligibility_of(rng, len(x), m),
        "history": history_of(rng, len(x), m),
        "ev_min": asked["ev_min"] if rng.random() < 0.7 else rng.normal(0, 2, count),
        "block": asked["block"],
    }
    if isinstance(given["eligible"], kernel.Eligibility) and rng.random() < 0.7:
        hints = {**hints, "plane_index": given["eligible"].plane_index}
    with np.errstate(all="ignore"):
        wanted = kernel.audience(x, kernel.pack(w, b, **prices), variant="portable", **given)
        found = kernel.audience(x, kernel.pack(w, b, **prices, **hints), variant=variant, **given)
    assert_same_audience(found, wanted)
    for stats in (found.stats, wanted.stats):
        told = stats["skipped_by_rule"] + stats["skipped_by_bound"] + stats["screened"]
        assert told == len(x) * count
    assert found.stats["skipped_by_rule"] == wanted.stats["skipped_by_rule"]


@pytest.mark.parametrize("variant", SCREENED)
def test_few_pairs_of_an_audience_are_verified(variant: str) -> None:
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (8_192, 64)), gaussian(rng, (100, 64)) / np.float32(8)
    value = rng.lognormal(0, 1, 100)
    panel = kernel.pack(w, rng.normal(-2, 1, 100), value=value, cost=value / 9, link="logistic")
    given = {"capability_index": np.arange(100), "k": 10, "ev_min": None, "variant": variant}
    found = kernel.audience(x, panel, **given)
    assert found.stats["verified"] < 0.03 * found.stats["screened"]
    # Who knows what to reach has even fewer to look at.
    again = kernel.audience(x, panel, **{**given, "ev_min": found.expected_value[:, -1]})
    assert again.stats["verified"] < 0.5 * found.stats["verified"]
    assert_same_audience(again, found)


@pytest.mark.parametrize("variant", SCREENED)
def test_rows_that_limits_leave_short_are_screened_again(variant: str) -> None:
    """Scoring their whole catalog instead would let a few closed groups cost more than all else."""
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (64, 64)), gaussian(rng, (40, 64)) / np.float32(8)
    # A hundred variants of each product, much alike: one product fills the first list.
    w = np.repeat(w, 100, axis=0) + gaussian(rng, (4_000, 64)) / np.float32(40)
    product = np.repeat(np.arange(40), 100)
    prices = {"value": np.ones(4_000), "cost": np.zeros(4_000), "link": "logistic"}
    entries = np.sort(rng.choice(4_000, 30, replace=False)).astype(np.int32)
    history = kernel.History(
        np.arange(65) * 30, np.tile(entries, 64), rng.normal(0, 1, 64 * 30).astype(np.float32)
    )
    panel = kernel.pack(w, np.zeros(4_000), product=product, **prices)
    given = {"k": 12, "limits": kernel.Limits(product=1), "history": history}
    found = matched_alike(x, panel, variant=variant, **given)
    assert found.stats["rescreens"] >= 64
    assert found.stats["verified"] < 0.5 * 64 * 4_000


@pytest.mark.parametrize("variant", SCREENED)
def test_few_pairs_are_verified(variant: str) -> None:
    """Else all of the above would be proven of a screen that lets everything pass."""
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (64, 128)), gaussian(rng, (4_096, 128)) / np.float32(11)
    panel = kernel.pack(
        w, np.zeros(len(w)), value=np.ones(len(w)), cost=np.zeros(len(w)), link="count"
    )
    stats = kernel.match(x, panel, k=10, variant=variant).stats
    assert stats["screened"] == 64 * 4_096
    assert stats["verified"] < 0.08 * stats["screened"]


@pytest.mark.parametrize("variant", SCREENED)
@pytest.mark.parametrize("values", [np.ones, lambda count: np.arange(count) % 7 + 1.0])
def test_what_was_learned_of_others_serves_rows_like_them(variant: str, values: Any) -> None:
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (256, 128)), gaussian(rng, (4_096, 128)) / np.float32(11)
    bias = np.full(len(w), -2.0, dtype=np.float32)
    panel = kernel.pack(w, bias, value=values(len(w)), cost=np.zeros(len(w)), link="logistic")
    guess = kernel.match(x, panel, k=10, variant=variant).guess
    rows = gaussian(rng, (40, 128))
    blind = matched_alike(rows, panel, k=10, variant=variant)
    found = matched_alike(rows, panel, k=10, variant=variant, guess=guess)
    # Were it no good, most rows would be screened, and their candidates scored, twice.
    assert found.stats["verified"] < 1.1 * blind.stats["verified"]
    # Few rows teach nothing, and what is not known is not told.
    assert np.isnan(kernel.match(rows[:3], panel, k=10, variant=variant).guess)
    assert np.isnan(kernel.match(rows, panel, k=10, variant="portable").guess)


@pytest.mark.parametrize("variant", SCREENED)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_predictor_near_the_end_of_float32(variant: str, sign: float) -> None:
    """A threshold there, rounded to the nearest float32, lay above the pair that had set it."""
    rows = np.array([[sign * 3.4028235e38]], dtype=np.float32)
    prices = {"value": np.ones(1), "cost": np.zeros(1), "link": "identity"}
    for w in np.random.default_rng(0).uniform(0.03, 0.99, 64):
        panel = kernel.pack(np.array([[w]], np.float32), np.array([1.5578967]), **prices)
        matched_alike(rows, panel, k=1, ev_min=None, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
@pytest.mark.parametrize("ev_min", [None, -1.0, 0.0, 1.0])
def test_a_value_of_minus_zero_is_zero(variant: str, link: str, ev_min: float | None) -> None:
    """A threshold is divided by the value: the sign of its zero must not turn all into nothing."""
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (3, 5)), gaussian(rng, (6, 5))
    for value in (np.full(6, -0.0), np.array([-0.0, 0.0, 0.0, -0.0, -0.0, 1.0])):
        for cost in (-0.0, 0.5, -2.0):
            panel = kernel.pack(w, np.zeros(6), value=value, cost=np.full(6, cost), link=link)
            asked = {"k": 6, "ev_min": ev_min}
            matched_alike(x, panel, **asked, variant=variant)


def plain(count: int, link: str = "identity") -> dict[str, Any]:
    return {"value": np.ones(count), "cost": np.zeros(count), "link": link}


@pytest.mark.parametrize("variant", SCREENED)
def test_a_bound_that_is_not_a_number_excludes_nothing(variant: str) -> None:
    """A world that hypothesis found: the law's functions do not pass NaN on."""
    (x, w, b, prices), hints, asked = world(107229)
    # Whoever changes how worlds are drawn has to look for such a one again.
    assert (x.shape, w.shape, x[41, 0]) == ((59, 200), (130, 200), np.float32(2.2622539e38))
    with np.errstate(all="ignore"):
        panel = kernel.pack(w, b, **prices, **hints)
        matched_alike(x, panel, variant=variant, **asked)


@pytest.mark.parametrize("variant", SCREENED)
def test_thresholds_among_denormals(variant: str) -> None:
    """There the nearest float32 may lie above a threshold by more than any relative margin."""
    rng = np.random.default_rng(0)
    one = kernel.pack(np.array([[1.2e-22]], np.float32), np.zeros(1), **plain(1))
    many = kernel.pack(gaussian(rng, (2_000, 8)), np.zeros(2_000), **plain(2_000))
    for rows, panel, asked in (
        (np.array([[1e-23]], np.float32), one, {"k": 1, "ev_min": 1e-45}),
        *((gaussian(rng, (200, 8)) * np.float32(s), many, {"k": 100, "ev_min": None})
          for s in (3e-45, 1e-44, 1e-43, 1e-41)),
    ):  # fmt: skip
        matched_alike(rows, panel, **asked, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
@pytest.mark.parametrize("bias", [1e30, 3e11, -1e30])
def test_sums_beyond_float32_whose_predictors_are_not(variant: str, link: str, bias: float) -> None:
    """Told enormous indicators, a screen stores enormous steps of weights."""
    rows = np.array([[1e-27]], np.float32)
    for sign in (-1.0, 1.0):
        w = np.array([[sign * 1e38], [0.0], [0.0]], np.float32)
        b = np.array([bias, 1e6 if bias == 3e11 else 0.0, 0.0])
        panel = kernel.pack(w, b, **plain(3, link), indicator_scale=np.array([1e38]))
        for k in (1, 2):
            matched_alike(rows, panel, k=k, ev_min=None, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
def test_an_adjustment_that_brings_back_what_float32_cannot_hold(variant: str) -> None:
    x = np.array([[127 * 2.0**57]], np.float32)
    w = np.array([[-3.4025e38 / float(x[0, 0])]], np.float32)
    panel = kernel.pack(w, np.array([-1e35]), **plain(1))
    history = kernel.History(np.array([0, 1]), np.zeros(1, np.int32), np.array([3.4e38]))
    asked = {"k": 1, "ev_min": -9e36, "history": history}
    found = kernel.audience(x, panel, capability_index=[0], **asked, variant=variant)
    wanted = kernel.audience(x, panel, capability_index=[0], **asked, variant="portable")
    assert wanted.customer_count[0] == 1
    assert_same_audience(found, wanted)
    matched_alike(x, panel, **asked, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
def test_more_columns_than_32_bits_can_add_up(variant: str) -> None:
    rng = np.random.default_rng(0)
    # All of one sign and of full size: the sums of bytes would be as large as they can be.
    x, w = (np.abs(all_equal(rng, (2, 140_000))) for _ in range(2))
    panel = kernel.pack(w, np.zeros(2), value=np.ones(2), cost=np.zeros(2), link="identity")
    matched_alike(x, panel, k=2, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
@pytest.mark.parametrize("link", ["logistic", "identity"])
def test_a_block_that_is_out_of_reach_is_skipped(variant: str, link: str) -> None:
    """At most its value under a logistic link, nothing at all where the value is 0."""
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (10, 8)), gaussian(rng, (128, 8))
    value = np.repeat([10.0, 0.01 if link == "logistic" else 0.0], 64)
    panel = kernel.pack(w, np.zeros(128), value=value, cost=np.zeros(128), link=link)
    found = kernel.match(x, panel, k=64, ev_min=0.5, variant=variant)
    assert found.stats["skipped_by_bound"] == 10 * 64
    assert_same_match(found, kernel.match(x, panel, k=64, ev_min=0.5, variant="portable"))


@pytest.mark.parametrize("variant", SCREENED)
def test_indicators_of_no_size_beside_enormous_weights(variant: str) -> None:
    """Told the wrong sizes, a screen has denormal norms, whose float32 lie far apart."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        x = (rng.standard_normal((4, 3)) * 1e-43).astype(np.float32)
        w = (rng.uniform(-3, 3, (70, 3)) * 1e38).astype(np.float32)
        prices = {"value": np.ones(70), "cost": np.zeros(70), "link": "identity"}
        panel = kernel.pack(w, np.zeros(70), **prices, indicator_scale=np.full(3, 3e38))
        matched_alike(x, panel, k=2, ev_min=None, variant=variant)


@pytest.mark.parametrize("variant", SCREENED)
def test_a_plane_spares_the_rows_it_excludes(variant: str) -> None:
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (50, 16)), gaussian(rng, (512, 16))
    index = np.repeat(np.arange(2, dtype=np.int32), 256)
    eligible = kernel.Eligibility(rng.integers(0, 4, (50, 1)).astype(np.uint64), index)
    prices = {"value": np.ones(512), "cost": np.zeros(512), "link": "logistic"}
    panel = kernel.pack(w, np.zeros(512), **prices, plane_index=index)
    matched_alike(x, panel, k=3, eligible=eligible, variant=variant)
    screen = build_screen(
        w,
        np.zeros(512, np.float32),
        np.ones(512),
        np.zeros(512),
        np.zeros(512, np.uint8),
        plane_index=index,
    )
    for members in screen.capability:
        assert len(set(index[members[members >= 0]])) == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_screen_holds_every_capability_once_and_its_norms_are_bounds(seed: int) -> None:
    (_x, w, b, prices), hints, _ = world(seed)
    m, d = w.shape
    codes = np.random.default_rng(seed).integers(0, 3, m).astype(np.uint8)
    with np.errstate(all="ignore"):
        screen = build_screen(w, b, prices["value"], prices["cost"], codes, **hints)
    held = screen.capability >= 0
    assert sorted(screen.capability[held]) == list(range(m))
    assert (screen.capability.ravel()[screen.position] == np.arange(m)).all()
    assert np.log2(screen.column_scale).tolist() == np.rint(np.log2(screen.column_scale)).tolist()
    bits = np.unpackbits(screen.valid.astype("<u8").view(np.uint8), bitorder="little")
    assert (bits.reshape(-1, BLOCK_CAPABILITIES).astype(bool) == held).all()
    whole = screen.weights.transpose(0, 2, 1, 3).reshape(len(held), BLOCK_CAPABILITIES, -1)
    assert (whole[:, :, d:] == 128).all()
    assert (whole[~held] == 128).all()
    for block, members in enumerate(screen.capability):
        of = members[members >= 0]
        true = w[of].astype(np.float64) / screen.column_scale
        stored = whole[block, : len(of), :d].astype(np.float64) - 128.0
        steps = screen.weight_scale[block, : len(of), None].astype(np.float64)
        error = np.sqrt(((true - stored * steps) ** 2).sum(axis=1))
        norm = np.sqrt((true**2).sum(axis=1))
        assert (error <= screen.weight_error[block]).all()
        assert (norm + error <= screen.weight_norm[block] * (1 + 1e-12)).all()
        assert (norm <= screen.norm[of] * (1 + 1e-12)).all()
        assert screen.bias_size[block] == np.abs(b[of]).max()
        assert screen.value_max[block] == prices["value"][of].max()
        assert screen.cost_min[block] == prices["cost"][of].min()
        assert len(set(codes[of])) == 1
