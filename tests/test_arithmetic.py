"""The arithmetic that indicators and history features share: its values, edges and order."""

from __future__ import annotations

import math

import mpmath
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from visavis.arithmetic import LN2, decay, log, sum_by


def test_ln2_is_the_nearest_float() -> None:
    assert float(mpmath.log(2)) == LN2


def test_decay_halves_with_every_half_life() -> None:
    age = np.array([0.0, 30.0, 60.0, 300.0, 36_500.0])
    weights = decay(age, 30.0)
    assert weights[0] == 1.0
    np.testing.assert_allclose(weights, 2.0 ** (-age / 30.0), rtol=1e-13)
    assert decay(age, math.inf).tolist() == [1.0] * 5
    # On the way to 0 nothing is warned of, and an age of 0 stays 1.
    assert decay(age, 5e-324).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert decay(np.zeros(0), 30.0).shape == (0,)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1e16, 1.0, -1e16, 0.1, 3e-9]))),
    st.integers(4, 6),
)
def test_sums_add_one_row_after_the_other(rows: list[tuple[int, float]], cell_count: int) -> None:
    expected = [0.0] * cell_count
    for cell, addend in rows:
        expected[cell] += addend
    cell = np.array([row[0] for row in rows], dtype=np.int64)
    sums = sum_by(cell, np.array([row[1] for row in rows], dtype=np.float64), cell_count)
    assert sums.dtype == np.float64
    assert sums.tolist() == expected


def test_no_cell_has_no_sum() -> None:
    none = sum_by(np.zeros(0, dtype=np.int64), np.zeros(0), 0)
    assert (none.shape, none.dtype) == ((0,), np.float64)


@given(st.floats(1e-300, 1e300))
def test_log_is_the_natural_logarithm(v: float) -> None:
    (found,) = log(np.array([v])).tolist()
    # Below 1 the reciprocal is rounded first, which weighs where the logarithm is near 0.
    assert abs(found - mpmath.log(v)) <= 4e-16 * max(1.0, abs(found))
    assert log(np.array([1.0])).tolist() == [0.0]
