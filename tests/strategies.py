"""Hypothesis strategies: whole problems for the kernel, built so that hard cases happen often.

Hypothesis draws the shapes and the styles, which shrink well; the cells come from a numpy
generator with a drawn seed, because drawing a thousand cells one by one costs more than scoring
them. Cells that must collide (ties, closed groups) come from few values, on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from visavis import kernel

LINKS = ("logistic", "count", "identity")
COLUMN_COUNTS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33)
FLOAT32_MAX = float(np.finfo(np.float32).max)
MAGNITUDE_MAX = 2.0**100

VALUES = (0.0, -0.0, 5e-324, 1e-310, 0.1, 1.0, 1.0, 2.5, 40.0, 1e20, MAGNITUDE_MAX)
COSTS = (0.0, 0.0, -0.0, 5e-324, 0.1, 0.5, 1.0, -0.1, -1.0, 1e20, MAGNITUDE_MAX, -MAGNITUDE_MAX)
ADJUSTMENTS = (-np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.1, 50.0, -50.0, 1e-45, FLOAT32_MAX)
NUMBER_STYLES = (
    "normal",
    "integers",
    "saturating",
    "signed zeros",
    "denormal",
    "magnitudes",
    "huge",
)

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything one call of `kernel.match` and one of `reference.match` need."""

    indicators: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    link: list[str]
    product: np.ndarray | None = None
    channel: np.ndarray | None = None
    family: np.ndarray | None = None
    k: int = 3
    eligible: np.ndarray | kernel.Eligibility | None = None
    history: kernel.History | None = None
    limits: kernel.Limits | None = None
    ev_min: float | None = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indicators), len(self.weights)

    @property
    def prices(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("value", "cost", "link")}

    @property
    def groups(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("product", "channel", "family")}

    def request(self, *names: str) -> dict[str, Any]:
        """The named arguments of the call; by default all that `match` takes."""
        names = names or ("k", "eligible", "history", "limits", "ev_min")
        return {name: getattr(self, name) for name in names}

    def pack(self) -> kernel.Panel:
        return kernel.pack(self.weights, self.bias, **self.prices, **self.groups)

    def rows(self, begin: int, end: int) -> Problem:
        """The same problem for some customers; the history keeps all its entries."""
        eligible, history = self.eligible, self.history
        if isinstance(eligible, kernel.Eligibility):
            eligible = eligible._replace(planes=eligible.planes[begin:end])
        elif eligible is not None:
            eligible = eligible[begin:end]
        if history is not None:
            history = history._replace(indptr=history.indptr[begin : end + 1])
        indicators = self.indicators[begin:end]
        return replace(self, indicators=indicators, eligible=eligible, history=history)


def numbers(rng: np.random.Generator, style: str, shape: tuple[int, ...]) -> np.ndarray:
    """Finite float32 cells of one style."""
    if style == "normal":
        cells = rng.normal(size=shape)
    elif style == "integers":
        cells = rng.integers(-2, 3, size=shape)
    elif style == "saturating":
        cells = rng.integers(-1, 2, size=shape) * 300.0
    elif style == "signed zeros":
        cells = rng.choice([0.0, -0.0, 1.0], size=shape)
    elif style == "denormal":
        cells = rng.integers(-1000, 1001, size=shape) * 2.0**-149
    elif style == "magnitudes":
        cells = rng.choice([-1.0, 1.0], size=shape) * 10.0 ** rng.uniform(-45, 38, size=shape)
    else:
        cells = rng.choice([-FLOAT32_MAX, FLOAT32_MAX, 1e38, 3e-39], size=shape)
    return np.asarray(cells).astype(np.float32)


def history_of(rng: np.random.Generator, shape: tuple[int, int], density: float) -> kernel.History:
    """Random adjustments; some entries may lie before the first row, as in a slice of a CSR."""
    present = rng.random(shape) < density
    unused = int(rng.integers(0, 3))
    indptr = unused + np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    entries = np.concatenate([np.zeros(unused, dtype=np.int64), np.nonzero(present)[1]])
    adjustment = rng.choice(ADJUSTMENTS, size=len(entries))
    return kernel.History(
        indptr.astype(np.int64), entries.astype(np.int32), adjustment.astype(np.float32)
    )


def planes_of(rng: np.random.Generator, shape: tuple[int, int], count: int) -> kernel.Eligibility:
    """Random bit planes in as many words as `count` needs, and a plane or −1 per capability."""
    n, m = shape
    planes = rng.integers(0, 2**64, size=(n, -(-count // 64)), dtype=np.uint64)
    return kernel.Eligibility(planes, rng.integers(-1, count, size=m).astype(np.int32))


@st.composite
def eligibilities(draw, shape: tuple[int, int]):
    style = draw(st.sampled_from(["none", "dense", "planes", "planes", "nobody"]))
    rng = np.random.default_rng(draw(seeds))
    if style == "none":
        return None
    if style == "nobody":
        return np.zeros(shape, dtype=bool)
    if style == "dense":
        return rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 0.95]))
    return planes_of(rng, shape, draw(st.sampled_from([1, 3, 64, 65, 130])))


@st.composite
def groups_of(draw, size: int):
    """Codes of any sign, few of them, so that groups fill up; or none."""
    count = draw(st.sampled_from([0, 1, 2, 3, 7]))
    if not count:
        return None
    codes = np.array([-(2**31), -5, 0, 1, 7, 1000, 2**31 - 1], dtype=np.int32)[:count]
    return np.random.default_rng(draw(seeds)).choice(codes, size=size)


limits = st.none() | st.builds(
    kernel.Limits, *[st.none() | st.integers(1, 3) for _ in kernel.Limits._fields]
)


@st.composite
def least_values(draw, problem: Problem):
    """Thresholds that matter: none, 0, ±inf, far away, and exactly at or beside one pair's ev."""
    style = draw(st.sampled_from(["none", "none", "zero", "constant", "pair", "pair"]))
    if style == "none":
        return None
    if style == "zero":
        return 0.0
    n, m = problem.shape
    if style == "constant" or n == 0:
        return draw(st.sampled_from([-0.0, -1.5, 5e-324, 0.3, 1e300, np.inf, -np.inf]))
    i, j = draw(st.integers(0, n - 1)), draw(st.integers(0, m - 1))
    ev = reference.scores(
        problem.indicators[i : i + 1],
        problem.weights[j : j + 1],
        problem.bias[j : j + 1],
        value=problem.value[j : j + 1],
        cost=problem.cost[j : j + 1],
        link=problem.link[j : j + 1],
    ).expected_value[0, 0]
    return float(draw(st.sampled_from([ev, np.nextafter(ev, np.inf), np.nextafter(ev, -np.inf)])))


@st.composite
def match_problems(draw, customers_max: int = 6, capabilities_max: int = 40):
    """Ragged, tied, extreme: any problem that the face must accept."""
    n = draw(st.integers(0, customers_max))
    m = draw(st.integers(1, capabilities_max))
    columns = draw(st.sampled_from(COLUMN_COUNTS))
    # Equal capabilities under different indices: their ev tie to the last bit.
    distinct = min(m, draw(st.sampled_from([1, 2, 5, m])))
    styles = [draw(st.sampled_from(NUMBER_STYLES)) for _ in range(3)]
    links = draw(st.sampled_from([*[(link,) for link in LINKS], LINKS]))
    values = draw(st.sampled_from([(1.0,), (0.0, 1.0), (2.5, 40.0), VALUES]))
    costs = draw(st.sampled_from([(0.0,), (0.1, 0.5), (-1.0, 1.0), COSTS]))
    rng = np.random.default_rng(draw(seeds))
    kind = rng.integers(0, distinct, size=m)
    problem = Problem(
        indicators=numbers(rng, styles[0], (n, columns)),
        weights=numbers(rng, styles[1], (distinct, columns))[kind],
        bias=numbers(rng, styles[2], (distinct,))[kind],
        value=rng.choice(values, size=distinct)[kind],
        cost=rng.choice(costs, size=distinct)[kind],
        link=[str(link) for link in rng.choice(links, size=distinct)[kind]],
        product=draw(groups_of(m)),
        channel=draw(groups_of(m)),
        family=draw(groups_of(m)),
        k=draw(st.integers(1, m + 5)),
        eligible=draw(eligibilities((n, m))),
        limits=draw(limits),
    )
    density = draw(st.sampled_from([None, 0.1, 0.5, 1.0]))
    if density is not None:
        problem = replace(problem, history=history_of(rng, (n, m), density))
    return replace(problem, ev_min=draw(least_values(problem)))


@st.composite
def crowded_problems(draw):
    """More good pairs in closed groups than K′ holds: limits force round after round.

    Each product is worth clearly less than the one before it, and has about as many capabilities
    as K′ or more, so that the best K′ pairs of a customer lie in one or two products.
    """
    n = draw(st.integers(1, 3))
    m = draw(st.integers(60, 300))
    product_count = draw(st.integers(2, 6))
    step = draw(st.sampled_from([0.0, 1.0, 10.0]))
    noise = draw(st.sampled_from(["normal", "integers", "signed zeros"]))
    rng = np.random.default_rng(draw(seeds))
    product = rng.integers(0, product_count, size=m).astype(np.int32)
    columns = draw(st.sampled_from([1, 7, 8, 9]))
    problem = Problem(
        indicators=numbers(rng, noise, (n, columns)),
        weights=numbers(rng, noise, (m, columns)),
        bias=(-step * product).astype(np.float32),
        value=np.ones(m),
        cost=np.zeros(m),
        link=[draw(st.sampled_from(LINKS))] * m,
        product=product,
        channel=rng.integers(0, draw(st.integers(1, 3)), size=m).astype(np.int32),
        family=rng.integers(0, draw(st.integers(1, 9)), size=m).astype(np.int32),
        k=draw(st.integers(1, 12)),
        limits=kernel.Limits(
            product=draw(st.integers(1, 2)),
            channel=draw(st.none() | st.integers(1, 6)),
            family=draw(st.none() | st.integers(1, 3)),
        ),
    )
    problem = replace(problem, ev_min=draw(least_values(problem)))
    if draw(st.booleans()):
        problem = replace(problem, eligible=draw(eligibilities((n, m))))
    if draw(st.booleans()):
        problem = replace(problem, history=history_of(rng, (n, m), 0.2))
    return problem


@st.composite
def audience_requests(draw):
    """A problem with more customers than capabilities, and the capabilities that are asked."""
    problem = draw(match_problems(customers_max=40, capabilities_max=12))
    n, m = problem.shape
    asked = draw(st.sets(st.integers(0, m - 1), min_size=1))
    problem = replace(problem, k=draw(st.integers(1, n + 3)))
    return problem, np.array(sorted(asked), dtype=np.int32)


#: Sizes of blocks, 0 = the variant's choice; some larger than any problem here.
blocks = st.tuples(*[st.sampled_from([0, 1, 2, 3, 5, 8, 17, 64, 1000])] * 2)

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 3),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.sampled_from([Fraction(1, 3), object(), len, np.float32(1.5), np.int8(-1), np.bool_(True)]),
    st.dates(),
)
_arrays = hnp.arrays(
    dtype=hnp.scalar_dtypes() | st.sampled_from([np.dtype("O"), np.dtype([("a", "f4")])]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=None,
)

#: Anything that a caller might hand over by mistake, ragged lists and foreign dtypes included.
garbage = st.recursive(
    _scalars | _arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.tuples(inner, inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.builds(kernel.Eligibility, inner, inner),
        st.builds(kernel.History, inner, inner, inner),
        st.builds(kernel.Limits, inner, inner, inner),
    ),
    max_leaves=6,
)
