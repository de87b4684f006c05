"""The screen on torch tensors, on torch's processor device: the bytes of `kernel.match`.

Nothing here needs a GPU. What only one has, its matrix unit, is imitated where its sums differ from
a processor's: cut off at each step, flushed, in another order.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from assertions import assert_same_match
from test_screen import EXAMPLES, NUMBERS, gaussian, world
from visavis import gpu, kernel
from visavis.errors import ExtraError, InputError, SchemaError, SetupError
from visavis.gpu import bounds
from visavis.gpu import device as devices
from visavis.gpu import screen as screens
from visavis.gpu.bounds import Worth, rounding_of_sums
from visavis.gpu.device import Device
from worlds import World, worlds

RUNNABLE = [name for name, each in kernel.built_variants().items() if each.lacks is None]


def matched_alike(
    rows: Any, panel: kernel.Panel, *, variant: str | None = None, **asked: Any
) -> kernel.MatchResult:
    """What the device's screen leads to, which is what the portable variant finds."""
    found = gpu.match(rows, panel, device="cpu", variant=variant, **asked)
    wanted = kernel.match(rows, panel, variant="portable", **asked)
    assert_same_match(found, wanted)
    stats = found.stats
    told = stats["skipped_by_rule"] + stats["skipped_by_bound"] + stats["screened"]
    assert told == len(rows) * panel.capability_count
    assert stats["skipped_by_rule"] == wanted.stats["skipped_by_rule"]
    return found


# the same bytes


@pytest.mark.parametrize("variant", ["portable", None])
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_opportunity_is_lost(variant: str | None, seed: int) -> None:
    (x, w, b, prices), hints, asked = world(seed)
    del asked["block"]
    matched_alike(x, kernel.pack(w, b, **prices, **hints), variant=variant, **asked)


@settings(max_examples=EXAMPLES)
@given(problem=strategies.match_problems() | strategies.crowded_problems())
def test_ties_slices_and_closed_groups(problem: strategies.Problem) -> None:
    matched_alike(problem.indicators, problem.pack(), **problem.request())


@pytest.mark.parametrize("variant", RUNNABLE)
def test_every_variant_verifies_alike(variant: str) -> None:
    for seed in range(10):
        (x, w, b, prices), hints, asked = world(seed)
        del asked["block"]
        matched_alike(x, kernel.pack(w, b, **prices, **hints), variant=variant, **asked)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 100_000, 1_000_000]))
def test_nothing_depends_on_blocks_or_on_what_rows_may_leave(seed: int, size: int) -> None:
    (x, w, b, prices), hints, asked = world(seed)
    del asked["block"]
    panel = kernel.pack(w, b, **prices, **hints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "HOST_BLOCK_BYTES", size)
        # Nearly all rows then have more candidates than they may.
        patch.setattr(screens, "CANDIDATES_MAX", 0)
        patch.setattr(screens, "SPARE", 0)
        matched_alike(x, panel, **asked)


def test_thresholds_among_denormals() -> None:
    rng = np.random.default_rng(0)
    prices = {"value": np.ones(500), "cost": np.zeros(500), "link": "identity"}
    panel = kernel.pack(gaussian(rng, (500, 8)), np.zeros(500), **prices)
    for size in (1.0, 1e-20, 1e-36, 3e-45, 1e-44, 1e-41):
        matched_alike(gaussian(rng, (50, 8)) * np.float32(size), panel, k=30, ev_min=None)


@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
def test_expected_values_that_differ_by_a_rounding(link: str) -> None:
    """Values are the inverse of the law's gains: who is best is decided by its last bit."""
    rng = np.random.default_rng(0)
    b = rng.uniform(0.5, 30.0, 2_000).astype(np.float32)
    one = {"value": np.ones(2_000), "cost": np.zeros(2_000), "link": link}
    x, w = np.zeros((1, 3), np.float32), np.zeros((2_000, 3), np.float32)
    gains = kernel.scores(x, kernel.pack(w, b, **one)).expected_value[0]
    panel = kernel.pack(w, b, **(one | {"value": 1.0 / gains}))
    for k in (1, 10, 300):
        matched_alike(x, panel, k=k)


def test_more_ranks_than_capabilities() -> None:
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (5, 4)), gaussian(rng, (7, 4))
    panel = kernel.pack(w, np.zeros(7), value=np.ones(7), cost=np.zeros(7), link="count")
    for limits in (None, kernel.Limits(product=1)):
        found = matched_alike(x, panel, k=1_000, ev_min=None, limits=limits)
        assert (found.opportunity_count == 7).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_caller_s_lower_precision_stays_its_own(dtype: Any) -> None:
    """Within autocast every product would be rounded to 16 bits, and the first be lost."""
    rng = np.random.default_rng(0)
    # bf16 numbers: without errors of their own, margins are those of float32 sums.
    x = rng.choice([1.0, 1.5], (20, 64)).astype(np.float32)
    w = rng.choice([1.0, 1.0078125], (3_000, 64)).astype(np.float32)
    panel = panel_of(w)
    screen = gpu.GpuScreen(panel, device="cpu")
    wanted = kernel.match(x, panel, k=3)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
        assert_same_match(screen.match(x, k=3), wanted)
        assert_same_match(gpu.match(x, panel, k=3, device="cpu"), wanted)
    torch.set_float32_matmul_precision("medium")
    try:
        assert_same_match(screen.match(x, k=3), wanted)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_customers() -> None:
    panel = kernel.pack(np.ones((2, 3)), [0, 0], value=[1, 1], cost=[0, 0], link="count")
    assert gpu.match(np.zeros((0, 3)), panel, k=4, device="cpu").capability_index.shape == (0, 4)


def test_planes_without_words_and_read_only_arrays() -> None:
    x, planes = np.ones((3, 2), np.float32), np.zeros((3, 0), np.uint64)
    x.flags.writeable = False
    panel = kernel.pack(
        np.ones((4, 2)), np.zeros(4), value=np.ones(4), cost=np.zeros(4), link="count"
    )
    eligible = kernel.Eligibility(planes, np.full(4, -1, np.int32))
    matched_alike(x, panel, k=2, eligible=eligible)


@settings(max_examples=20)
@given(world=worlds())
def test_an_engine_with_a_device_answers_as_one_without(world: World) -> None:
    wanted = world.engine(threads=1).match()
    found = world.engine(threads=2, device="cpu").match()
    assert_same_match(found.result, wanted.result)
    assert found.digest() == wanted.digest()


# the device does the work


def ordinary(link: str, shape: tuple[int, int, int] = (64, 2_000, 64)) -> tuple[Any, kernel.Panel]:
    rng = np.random.default_rng(0)
    n, m, d = shape
    x, w = gaussian(rng, (n, d)), gaussian(rng, (m, d)) / np.float32(d**0.5)
    prices = {"value": rng.lognormal(0, 1, m), "cost": np.full(m, 0.01), "link": link}
    return x, kernel.pack(w, rng.normal(-2, 1, m), **prices, family=rng.integers(0, 30, m))


@pytest.mark.parametrize("link", ["logistic", "count", "identity"])
def test_the_device_closes_ordinary_rows_and_few_pairs_are_verified(link: str) -> None:
    """Else all of the above would be proven of a screen that hands everything on."""
    x, panel = ordinary(link)
    found = matched_alike(x, panel, k=10)
    assert found.stats["rescreens"] == 0
    assert found.stats["verified"] < 20 * len(x)
    assert min(found.nanoseconds["screen"], found.nanoseconds["verify"]) > 0
    limited = matched_alike(x, panel, k=10, limits=kernel.Limits(family=2))
    assert limited.stats["rescreens"] <= 0.1 * len(x)


def test_rows_that_limits_leave_short_are_screened_again() -> None:
    """The list of K′ lies in one family, and says nothing about the others."""
    rng = np.random.default_rng(0)
    x = gaussian(rng, (20, 8))
    bias = np.repeat([5.0, 0.0], 200)
    panel = kernel.pack(
        gaussian(rng, (400, 8)) / np.float32(100), bias, value=np.ones(400), cost=np.zeros(400),
        link="logistic", family=np.repeat([0, 1], 200),
    )  # fmt: skip
    found = matched_alike(x, panel, k=2, limits=kernel.Limits(family=1))
    assert found.stats["rescreens"] == len(x)


def test_numbers_beyond_float32_spoil_their_own_row_or_capability_only() -> None:
    x, panel = ordinary("identity", (30, 300, 16))
    weights, bias, value, cost, _ = map(np.asarray, panel.packed.arrays)
    x, weights = x.copy(), weights[:, :16].copy()
    x[3] = 3e38
    x[4] *= np.float32(1e-41)
    weights[7] = 3e38
    weights[8] *= np.float32(1e-41)
    hostile = kernel.pack(weights, bias, value=value, cost=cost, link="identity")
    found = matched_alike(x, hostile, k=5)
    assert found.stats["rescreens"] == 0
    assert found.stats["verified"] < 0.2 * 30 * 300


def test_more_columns_than_a_float32_sum_has_a_bound_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounding_of_sums(2**20)[0] < 1.0
    monkeypatch.setattr(bounds, "COLUMNS_MAX", 15)
    x, panel = ordinary("identity", (3, 50, 16))
    assert matched_alike(x, panel, k=2).stats["verified"] == 3 * 50


# the bound


def exact(x: Any, panel: kernel.Panel) -> np.ndarray[Any, Any]:
    return kernel.scores(x, panel, variant="portable").linear_predictor


def shares_of_margin(x: Any, panel: kernel.Panel, product: Any = None) -> np.ndarray[Any, Any]:
    """How much of its margin the device's z of each pair uses up."""
    screen = screens.ScreenOnDevice(Device("cpu"), panel)
    if product is not None:
        screen.device.product = product  # type: ignore[method-assign]
    near = screen.predictors(kernel.checked(x, panel, k=1, ev_min=None))
    margin = near.margin.numpy()
    assert (margin > 0.0).all()
    assert np.isfinite(margin).all()
    shares: np.ndarray[Any, Any] = np.abs(near.z.numpy() - exact(x, panel)) / margin
    return shares


def panel_of(w: Any, b: Any = None, **hints: Any) -> kernel.Panel:
    m = len(w)
    bias = np.zeros(m) if b is None else b
    return kernel.pack(w, bias, value=np.ones(m), cost=np.zeros(m), link="identity", **hints)


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32 - 1), hinted=st.booleans())
def test_z_lies_within_its_margin_whatever_the_numbers(seed: int, hinted: bool) -> None:
    rng = np.random.default_rng(seed)
    d = int(rng.choice([1, 3, 8, 17, 64, 200, 1_000]))
    x, w = (NUMBERS[rng.integers(len(NUMBERS))](rng, (n, d)) for n in (9, 30))
    hints = {"indicator_scale": np.abs(x).max(axis=0)} if hinted else {}
    with np.errstate(all="ignore"):
        shares = shares_of_margin(x, panel_of(w, rng.normal(0, 10, 30), **hints))
    assert (shares <= 1.0).all()


@pytest.mark.parametrize("d", [1, 8, 128, 2_000])
def test_errors_that_all_point_one_way_nearly_fill_the_margin(d: int) -> None:
    """So a margin that were a tenth smaller would be wrong."""
    worst = np.float32(1.0 + 2.0**-8 - 2.0**-20)  # just below the middle of two bf16 numbers
    x = np.full((1, d), worst)
    shares = shares_of_margin(x, panel_of(x), product=None)
    assert 0.9 < shares[0, 0] <= 1.0
    signs = np.where(np.arange(d) % 2, np.float32(1.0), np.float32(-1.0))
    # The signs cancel in x and w alike, what was rounded off does not.
    assert 0.9 < shares_of_margin(x * signs, panel_of(x * signs))[0, 0] <= 1.0


def cut_off(numbers: Any, largest: Any) -> Any:
    """Numbers without what lies below 2^-23 of the largest power of two."""
    unit = np.exp2(np.floor(np.log2(np.maximum(largest, 1e-300))) - 23)
    return np.trunc(numbers / unit) * unit


def as_a_matrix_unit(together: int) -> Callable[[Any, Any], Any]:
    """Products added a few at a time, each and the sum cut off, as GPUs are known to do it."""

    def product(left: Any, right: Any) -> Any:
        x, w = left.double().numpy(), right.double().numpy()
        sums = np.zeros((len(x), len(w)))
        for begin in range(0, x.shape[1], together):
            terms = x[:, None, begin : begin + together] * w[None, :, begin : begin + together]
            largest = np.maximum(np.abs(terms).max(axis=2), np.abs(sums))
            sums = cut_off(sums, largest) + cut_off(terms, largest[..., None]).sum(axis=2)
            sums = cut_off(sums, np.abs(sums))
        return torch.from_numpy(sums.astype(np.float32))

    return product


def flushing(left: Any, right: Any) -> Any:
    """Products and sums in float32, whatever is denormal flushed, one after the other."""
    x, w = left.float().numpy(), right.float().numpy()
    tiny = np.finfo(np.float32).tiny
    sums = np.zeros((len(x), len(w)), np.float32)
    for d in range(x.shape[1]):
        term = x[:, None, d] * w[None, :, d]
        sums = sums + np.where(np.abs(term) < tiny, np.float32(0), term)
        sums = np.where(np.abs(sums) < tiny, np.float32(0), sums)
    return torch.from_numpy(sums)


@pytest.mark.parametrize("together", [4, 8, 16])
def test_sums_that_a_matrix_unit_cuts_off_stay_within_the_margin(together: int) -> None:
    d = 513
    # bf16 numbers, so that sums alone err. One product is 1, of all others 0.98 · 2^-23 is cut off.
    x, w = (np.full((1, d), np.float32(1.40625 * size)) for size in (2.0**-11, 2.0**-12))
    x[:, 0] = w[:, 0] = 1.0
    panel = panel_of(w, indicator_scale=x[0])
    shares = shares_of_margin(x, panel, as_a_matrix_unit(together))
    assert 0.4 < shares[0, 0] <= 1.0
    rng = np.random.default_rng(0)
    x, w = gaussian(rng, (8, d)), gaussian(rng, (20, d))
    assert (shares_of_margin(x, panel_of(w), as_a_matrix_unit(together)) <= 1.0).all()


@pytest.mark.parametrize("size", [1e-18, 1e-19, 1e-20, 1e-30, 1e-41])
def test_flushed_products_stay_within_the_margin(size: float) -> None:
    rng = np.random.default_rng(0)
    x, w = (gaussian(rng, (20, 64)) * np.float32(size) for _ in range(2))
    hints = {"indicator_scale": np.full(64, size, np.float32)}
    for panel in (panel_of(w), panel_of(w, **hints)):
        assert (shares_of_margin(x, panel, flushing) <= 1.0).all()


def test_a_screen_whose_margin_were_too_small_would_lose_opportunities() -> None:
    """That the worlds above can find a wrong bound at all."""
    rng = np.random.default_rng(0)
    worst = np.float32(1.0 + 2.0**-8 - 2.0**-20)
    x = np.full((1, 64), worst)
    w = np.where(rng.random((200, 64)) < 0.5, worst, np.float32(1.0))
    w[:, 0] += np.arange(200, dtype=np.float32)[::-1] * np.float32(2e-3)
    panel = panel_of(w)
    wanted = kernel.match(x, panel, k=3)
    assert_same_match(gpu.match(x, panel, k=3, device="cpu"), wanted)
    predictors = screens.ScreenOnDevice.predictors

    def optimistic(self: Any, request: kernel.Request) -> Any:
        near = predictors(self, request)
        return near._replace(margin=near.margin * 0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screens.ScreenOnDevice, "predictors", optimistic)
        found = gpu.match(x, panel, k=3, device="cpu")
    assert found.capability_index.tolist() != wanted.capability_index.tolist()


LINK_CODES = {"logistic": 0, "count": 1, "identity": 2}


@pytest.mark.parametrize("link", LINK_CODES)
@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-300, 0.1, 1.0, 2.0**100])
@pytest.mark.parametrize("cost", [0.0, 0.3, -0.3, 5e-324, 2.0**100])
def test_ends_of_expected_values_enclose_the_law(link: str, value: float, cost: float) -> None:
    edges = [0.0, 1e-45, 1e-30, 1e-8, 36.0, 37.0, 707.9, 708.0, 708.1, 745.0, 1e4, 3e38]
    rng = np.random.default_rng(0)
    b = np.concatenate([edges, np.negative(edges), rng.normal(0, 20, 500), rng.normal(0, 0.1, 500)])
    b = b.astype(np.float32)
    m = len(b)
    panel = kernel.pack(
        np.zeros((m, 1)), b, value=np.full(m, value), cost=np.full(m, cost), link=link
    )
    ev = kernel.scores(np.zeros((1, 1)), panel).expected_value[0]
    z = torch.from_numpy(b.astype(np.float64))
    of = [torch.full((m,), number, dtype=torch.float64) for number in (value, cost)]
    for code in (torch.full((m,), LINK_CODES[link], dtype=torch.uint8), kernel_link(link)):
        worth = Worth(code, *of)
        low = worth.end(torch, z, upward=False).numpy()
        high = worth.end(torch, z, upward=True).numpy()
        assert (low <= ev).all()
        assert (ev <= high).all()
        assert (high - low <= 1e-12 * (np.abs(ev) + abs(cost)) + 1e-200).all()
        # Also wherever z lies on the other side of what is given.
        order = np.argsort(b, kind="stable")
        assert (np.maximum.accumulate(ev[order]) <= high[order]).all()
        assert (np.minimum.accumulate(ev[order][::-1])[::-1] >= low[order]).all()


def kernel_link(name: str) -> Any:
    from visavis.domain import Link

    return Link[name.upper()]


# memory


@contextmanager
def memory_for(rows: int, error: Callable[[], RuntimeError]) -> Iterator[list[int]]:
    """A device that fails where it is given more rows at once; what it was given."""
    asked: list[int] = []
    screen = screens.ScreenOnDevice.screen

    def limited(self: Any, request: kernel.Request, rank: int) -> Any:
        asked.append(request.customer_count)
        if request.customer_count > rows:
            raise error()
        return screen(self, request, rank)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screens.ScreenOnDevice, "screen", limited)
        yield asked


NO_MEMORY = [
    lambda: torch.OutOfMemoryError("CUDA out of memory."),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_block_for_which_there_is_no_memory_is_halved(error: Any) -> None:
    x, panel = ordinary("count", (100, 300, 8))
    with memory_for(30, error) as asked:
        found = gpu.match(x, panel, k=3, device="cpu")
    assert_same_match(found, kernel.match(x, panel, k=3))
    assert asked == [100, 50, 25, 25, 25, 25]
    assert found.stats["screened"] == 100 * 300


def test_a_screen_remembers_what_the_device_did_not_hold() -> None:
    x, panel = ordinary("count", (10, 50, 8))
    screen = gpu.GpuScreen(panel, device="cpu")
    with memory_for(4, NO_MEMORY[0]) as asked:
        screen.match(x, k=3)
        screen.match(x, k=3)
    assert asked == [10, 5, 2, 2, 2, 2, 2] + [2] * 5


@pytest.mark.parametrize("error", NO_MEMORY)
def test_no_memory_for_a_single_row_is_an_error(error: Any) -> None:
    x, panel = ordinary("count", (3, 50, 8))
    with memory_for(0, error), pytest.raises(SetupError, match="one customer × 50 capabilities"):
        gpu.match(x, panel, k=3, device="cpu")


def test_no_memory_for_the_panel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    _, panel = ordinary("count", (3, 50, 8))
    monkeypatch.setattr(Device, "tensor", fails)
    with pytest.raises(SetupError, match="50 capabilities"):
        gpu.GpuScreen(panel, device="cpu")


def test_other_failures_of_torch_are_not_taken_for_a_lack_of_memory() -> None:
    x, panel = ordinary("count", (3, 50, 8))
    illegal = "illegal memory access"
    with memory_for(0, lambda: RuntimeError(illegal)), pytest.raises(RuntimeError) as caught:
        gpu.match(x, panel, k=3, device="cpu")
    assert illegal in str(caught.value)
    assert not isinstance(caught.value, SetupError)


# devices


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "meta", "cpu:0", "CUDA"])
def test_devices_of_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="device"):
        gpu.check_device(name)


def test_a_device_that_is_no_name_is_refused() -> None:
    _, panel = ordinary("count", (3, 50, 8))
    with pytest.raises(SchemaError, match="device"):
        gpu.GpuScreen(panel, device=torch.device("cpu"))  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="panel"):
        gpu.GpuScreen(np.zeros(3), device="cpu")  # type: ignore[arg-type]


def test_a_device_that_torch_does_not_find_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SetupError, match="finds 0 CUDA devices, but 'cuda' was asked for"):
        gpu.check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu.check_device("cuda:1") == "cuda:1"
    with pytest.raises(SetupError, match="finds 2 CUDA devices"):
        gpu.check_device("cuda:2")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExtraError, match=r"pip install 'visavis\[gpu\]'"):
        gpu.check_device("cpu")


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import visavis.gpu, visavis.engine, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A GPU that is not there: what torch would be asked of it is what counts."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    return Device("cuda:0")


@pytest.mark.parametrize("before", [True, False, (False, False), (True, True)])
def test_a_gpu_adds_up_in_float32_and_its_settings_stay(
    monkeypatch: pytest.MonkeyPatch, cuda: Device, before: Any
) -> None:
    settings_of = torch.backends.cuda.matmul
    name = "allow_bf16_reduced_precision_reduction"

    def current() -> tuple[bool, bool]:
        return getattr(settings_of, name), getattr(settings_of, f"{name}_split_k")

    seen: dict[str, Any] = {}

    def mm(left: Any, right: Any, *, out_dtype: Any) -> Any:
        seen.update(dtypes=(left.dtype, right.dtype, out_dtype), reduced=getattr(settings_of, name))
        return torch.matmul(left.to(out_dtype), right.to(out_dtype))

    usual = current()
    try:
        setattr(settings_of, name, before)
        set_to = current()
        monkeypatch.setattr(torch, "mm", mm)
        one = torch.ones((2, 8), dtype=torch.bfloat16)
        assert (cuda.product(one, one) == 8.0).all()
        assert seen["dtypes"] == (torch.bfloat16, torch.bfloat16, torch.float32)
        assert seen["reduced"] is False
        assert current() == set_to
    finally:
        setattr(settings_of, name, usual)


def test_a_block_takes_its_share_of_what_a_gpu_has_free(
    monkeypatch: pytest.MonkeyPatch, cuda: Device
) -> None:
    gib = 2**30
    freed: list[str] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * gib, 80 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 6 * gib)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2 * gib)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("all"))
    assert cuda.block_bytes() == 3 * gib
    cuda.let_go()
    assert freed == ["all"]


def test_what_a_match_refuses_is_refused_before_the_device_is_asked() -> None:
    x, panel = ordinary("count", (3, 50, 8))
    screen = gpu.GpuScreen(panel, device="cpu")
    history = kernel.History(np.array([0, 0, 1, 1]), np.array([50]), np.array([0.0]))
    wrong = x.copy()
    wrong[2, 1] = np.nan
    with memory_for(0, NO_MEMORY[0]) as asked:
        with pytest.raises(InputError, match=r"history\.capability_index, row 1"):
            screen.match(x, k=1, history=history)
        with pytest.raises(InputError, match="indicators, row 2"):
            screen.match(wrong, k=1)
        with pytest.raises(InputError, match="variant"):
            screen.match(x, k=1, variant="none such")
    assert not asked
