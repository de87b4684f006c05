"""Coverage-guided fuzzing of `kernel.match`, `audience` and `largest_terms`: `make fuzz`.

Bytes become arguments, sensible or not. Arguments that are refused must be refused with an error of
visavis; all others must be answered by every screened variant as by the portable one, and reasons
as numpy picks them. The compiled core reports its edges (trace_pc.c), and runs under
AddressSanitizer and UBSan.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import atheris
import atheris.core_with_libfuzzer
import numpy as np

from visavis import kernel
from visavis.errors import VisavisError

TRACE_PC = Path(__file__).parents[2] / "build/asan/trace_pc.so"
COUNTERS = 1 << 16

#: Numbers at which floats change their ways.
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 2.0**100,
     -(2.0**-100), 1e-30, 1e30, 37.0, -708.5, np.inf, -np.inf, np.nan]
)  # fmt: skip
SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 129, 200)
SCREENED = [
    name
    for name, variant in kernel.built_variants().items()
    if variant.lacks is None and variant.is_screened
]


def count_edges() -> None:
    """Hand the core's counters to libFuzzer."""
    traced = ctypes.CDLL(str(TRACE_PC))
    counters = ctypes.addressof((ctypes.c_uint8 * COUNTERS).in_dll(traced, "visavis_counters"))
    places = (ctypes.c_size_t * (2 * COUNTERS)).in_dll(traced, "visavis_places")
    places[::2] = range(1, COUNTERS + 1)
    fuzzer = ctypes.CDLL(atheris.core_with_libfuzzer.__file__)
    pointers = (ctypes.c_void_p, ctypes.c_void_p)
    for register, begin, size in (
        (fuzzer.__sanitizer_cov_8bit_counters_init, counters, COUNTERS),
        (fuzzer.__sanitizer_cov_pcs_init, ctypes.addressof(places), ctypes.sizeof(places)),
    ):
        register.argtypes = pointers
        register(begin, begin + size)


class Draw:
    """Arrays from a fuzzer's bytes: few bytes decide much."""

    def __init__(self, data: bytes) -> None:
        self.bytes = atheris.FuzzedDataProvider(data)

    def one_of(self, *choices: Any) -> Any:
        return choices[self.bytes.ConsumeIntInRange(0, len(choices) - 1)]

    def size(self) -> int:
        return self.one_of(*SIZES)

    def numbers(self, *shape: int) -> np.ndarray[Any, Any]:
        """Raw patterns, edges, or Gaussian ones, and now and then an edge among these."""
        count = int(np.prod(shape))
        form = self.bytes.ConsumeIntInRange(0, 4)
        rng = np.random.default_rng(self.bytes.ConsumeIntInRange(0, 255))
        if form == 0:
            raw = self.bytes.ConsumeBytes(4 * min(count, 64)) or b"\0"
            raw += b"\0" * (-len(raw) % 4)
            return np.resize(np.frombuffer(raw, np.float32), shape)
        if form == 1:
            finite = EDGES[:-3] if self.bytes.ConsumeBool() else EDGES
            return rng.choice(finite, shape)
        drawn = rng.standard_normal(shape) * 10.0 ** self.bytes.ConsumeIntInRange(-40, 38)
        if form == 2 and count:
            drawn.ravel()[self.bytes.ConsumeIntInRange(0, count - 1)] = self.one_of(*EDGES)
        return rng.standard_normal(shape) if form == 4 else drawn

    def integers(self, low: int, high: int, size: int) -> np.ndarray[Any, Any]:
        rng = np.random.default_rng(self.bytes.ConsumeIntInRange(0, 255))
        values = rng.integers(low, high, size)
        if size and self.bytes.ConsumeProbability() < 0.05:
            values[self.bytes.ConsumeIntInRange(0, size - 1)] = self.bytes.ConsumeInt(4)
        return values

    def history(self, rows: int, capabilities: int) -> kernel.History | None:
        if self.bytes.ConsumeBool():
            return None
        rng = np.random.default_rng(self.bytes.ConsumeIntInRange(0, 255))
        held = rng.random((rows, capabilities)) < self.one_of(0.0, 0.01, 0.3, 1.0)
        index = np.nonzero(held)[1]
        indptr = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        if self.bytes.ConsumeProbability() < 0.05:
            indptr[self.bytes.ConsumeIntInRange(0, rows)] = self.bytes.ConsumeInt(4)
        if len(index) and self.bytes.ConsumeProbability() < 0.05:
            index[self.bytes.ConsumeIntInRange(0, len(index) - 1)] = self.bytes.ConsumeInt(4)
        return kernel.History(indptr, index.astype(np.int32), self.numbers(len(index)))

    def eligibility(self, rows: int, capabilities: int) -> Any:
        form = self.bytes.ConsumeIntInRange(0, 3)
        if form == 0:
            return None
        rng = np.random.default_rng(self.bytes.ConsumeIntInRange(0, 255))
        if form == 1:
            return rng.random((rows, capabilities)) < self.one_of(0.0, 0.1, 0.9, 1.0)
        count = self.one_of(1, 2, 64, 65, 130)
        planes = rng.integers(0, 2**64, (rows, -(-count // 64)), dtype=np.uint64)
        return kernel.Eligibility(planes, self.integers(-1, count, capabilities).astype(np.int32))


def answers(data: bytes) -> None:
    draw = Draw(data)
    rows, capabilities, columns = draw.size(), draw.size(), draw.one_of(*SIZES[:11])
    groups = {
        name: draw.integers(0, draw.one_of(1, 3, 100), capabilities)
        for name in ("product", "channel", "family")
        if draw.bytes.ConsumeBool()
    }
    link = draw.one_of("logistic", "count", "identity", None)
    if link is None:
        names = np.array(["logistic", "count", "identity"])
        link = list(names[draw.integers(0, 3, capabilities) % 3])
    eligible = draw.eligibility(rows, capabilities)
    hints: dict[str, Any] = {}
    if draw.bytes.ConsumeBool():
        hints["indicator_scale"] = draw.numbers(columns)
    if isinstance(eligible, kernel.Eligibility) and draw.bytes.ConsumeBool():
        hints["plane_index"] = eligible.plane_index
    x, w = draw.numbers(rows, columns), draw.numbers(capabilities, columns)
    about = (w, draw.numbers(capabilities))
    value = np.abs(draw.numbers(capabilities))
    if draw.bytes.ConsumeBool():
        value *= -0.0
    prices = {"value": value, "cost": draw.numbers(capabilities), "link": link, **groups}
    asked: dict[str, Any] = {
        "k": draw.one_of(1, 2, 5, 40, 1_000, 0),
        "eligible": eligible,
        "history": draw.history(rows, capabilities),
        "ev_min": draw.one_of(None, 0.0, -0.0, 1.0, -1e300, 1e-310, float("inf"), float("nan")),
        "block": (draw.one_of(0, 1, 3, 32, 50), draw.one_of(0, 1, 17)),
    }
    if draw.bytes.ConsumeBool():
        some = draw.integers(0, capabilities, draw.one_of(1, 5, 64))
        asked["capability_index"] = np.unique(some)
        call, fields = kernel.audience, ("customer_index", "customer_count")
    else:
        limits = (draw.one_of(None, 1, 2, 5, 0) for _ in range(3))
        asked["limits"] = kernel.Limits(*limits)
        call, fields = kernel.match, ("capability_index", "opportunity_count")
    with np.errstate(all="ignore"):
        wanted = answer(call, x, about, prices, hints, asked, "portable")
        for variant in SCREENED:
            found = answer(call, x, about, prices, hints, asked, variant)
            if isinstance(wanted, str) or isinstance(found, str):
                assert found == wanted, (variant, found, wanted)
                continue
            for field in (*fields, "expected_value", "propensity"):
                same = getattr(found, field).tobytes() == getattr(wanted, field).tobytes()
                assert same, (variant, field)
        check_terms(draw, x, about, prices, asked["history"])


def answer(call: Any, x: Any, about: Any, prices: Any, hints: Any, asked: Any, variant: str) -> Any:
    """The result, or what it was refused with."""
    try:
        return call(x, kernel.pack(*about, **prices, **hints), variant=variant, **asked)
    except VisavisError as error:
        return str(error)


def check_terms(draw: Draw, x: Any, about: Any, prices: Any, history: Any) -> None:
    """Reasons of some pairs are refused, or what a stable sort by contribution says."""
    (rows, columns), capabilities = x.shape, len(about[0])
    pairs = draw.one_of(0, 1, 5, 40)
    i, j = draw.integers(0, rows, pairs), draw.integers(0, capabilities, pairs)
    order = np.argsort(draw.numbers(columns + 1), kind="stable")
    if draw.bytes.ConsumeProbability() < 0.05:
        order[draw.bytes.ConsumeIntInRange(0, columns)] = draw.bytes.ConsumeInt(4)
    asked = {"by_name": order, "count": draw.one_of(3, 0, 1, 17, 1_000), "history": history}
    against = draw.numbers(columns).astype(np.float64) if draw.bytes.ConsumeBool() else None
    try:
        panel = kernel.pack(*about, **prices)
        found = kernel.largest_terms(x, panel, i, j, against=against, **asked)
    except VisavisError:
        return
    x, w = x.astype(np.float32).astype(np.float64), about[0].astype(np.float32)
    terms = np.zeros((pairs, columns + 1))
    terms[:, :-1] = x[i] * (w[j] if against is None else w[j] - against)
    for pair in range(pairs if history is not None else 0):
        own = slice(history.indptr[i[pair]], history.indptr[i[pair] + 1])
        h = history.adjustment[own][history.capability_index[own] == j[pair]]
        terms[pair, -1] = h.astype(np.float32).sum(dtype=np.float64)
    best = order[np.argsort(-terms[:, order], axis=1, kind="stable")][:, : asked["count"]]
    largest = np.take_along_axis(terms, best, axis=1)
    wanted = np.cumsum((largest > 0).sum(axis=1)), best[largest > 0], largest[largest > 0]
    for mine, theirs in zip((found.offsets[1:], *found[1:]), wanted, strict=True):
        assert mine.tobytes() == theirs.tobytes(), (mine, theirs)


if __name__ == "__main__":
    count_edges()
    atheris.Setup(sys.argv, answers)
    atheris.Fuzz()
