"""The assertion helper must fail on every kind of difference, or the other tests prove nothing."""

import numpy as np
import pytest

from assertions import (
    assert_same_array,
    assert_same_audience,
    assert_same_match,
    assert_same_scores,
)
from reference import Audience, Match, Scores

NAN_BITS = 0x7FF8000000000000


def matches(**replaced):
    fields = {
        "capability_index": np.array([[3, 1, -1], [2, 0, 4]], dtype=np.int32),
        "expected_value": np.array([[2.0, 0.0, 0.0], [7.0, np.nan, 5.0]]),
        "propensity": np.array([[0.5, 0.25, 0.0], [0.75, 0.5, 0.125]]),
        "opportunity_count": np.array([2, 3], dtype=np.int32),
    }
    return Match(**(fields | replaced))


def changed(field, cell, value):
    array = getattr(matches(), field).copy()
    array[cell] = value
    return {field: array}


def test_equal_matches_pass():
    assert_same_match(matches(), matches())


def test_empty_matches_pass():
    empty = Match(
        np.empty((0, 3), np.int32), np.empty((0, 3)), np.empty((0, 3)), np.empty(0, np.int32)
    )
    assert_same_match(empty, empty)


def test_strided_arrays_are_compared_by_their_cells():
    wide = np.repeat(matches().expected_value, 2, axis=1)
    assert_same_match(matches(expected_value=wide[:, ::2]), matches())


@pytest.mark.parametrize(
    ("field", "cell", "value", "where"),
    [
        ("capability_index", (1, 2), 5, "capability_index differs first at row 1, rank 2: "),
        ("expected_value", (1, 0), np.nextafter(7.0, 8), "expected_value differs first at row 1"),
        ("expected_value", (0, 1), -0.0, "expected_value differs first at row 0, rank 1: "),
        ("expected_value", (1, 1), 0.0, "row 1, rank 1"),
        ("expected_value", (0, 0), np.nan, "row 0, rank 0"),
        ("propensity", (0, 2), -0.0, "propensity differs first at row 0, rank 2: "),
        ("propensity", (0, 0), 5e-324, "propensity differs first at row 0, rank 0: "),
        ("opportunity_count", 1, 2, "opportunity_count differs first at row 1: "),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_any_changed_cell_fails_and_is_named(field, cell, value, where, swapped):
    pair = (matches(**changed(field, cell, value)), matches())
    with pytest.raises(AssertionError) as failure:
        assert_same_match(*(reversed(pair) if swapped else pair))
    assert where in str(failure.value)


def test_nans_with_other_bits_fail():
    other = np.array([NAN_BITS + 1], dtype=np.uint64).view(np.float64)[0]
    with pytest.raises(AssertionError, match=r"row 1, rank 1.*0x7ff8000000000001"):
        assert_same_match(matches(**changed("expected_value", (1, 1), other)), matches())


def test_the_earliest_row_is_named_whatever_the_field():
    late = changed("capability_index", (1, 0), 9)
    early = changed("propensity", (0, 1), 9.0)
    with pytest.raises(AssertionError, match=r"^propensity differs first at row 0, rank 1"):
        assert_same_match(matches(**late, **early), matches())


def test_the_message_shows_bits_count_and_both_rows():
    with pytest.raises(AssertionError) as failure:
        assert_same_match(matches(**changed("expected_value", (0, 1), -0.0)), matches())
    message = str(failure.value)
    assert "0x8000000000000000" in message
    assert "1 of 6 cells differ" in message
    assert "actual expected_value[0] =" in message
    assert "expected capability_index[0] =" in message


@pytest.mark.parametrize("field", Match._fields)
def test_another_dtype_fails(field):
    wrong = getattr(matches(), field)
    wrong = wrong.astype(np.float32 if wrong.dtype.kind == "f" else np.int64)
    with pytest.raises(AssertionError, match=f"{field}: dtype"):
        assert_same_match(matches(**{field: wrong}), matches())


@pytest.mark.parametrize("field", Match._fields)
def test_another_shape_fails(field):
    with pytest.raises(AssertionError, match=f"{field}: shape"):
        assert_same_match(matches(**{field: getattr(matches(), field)[:1]}), matches())


@pytest.mark.parametrize("field", Match._fields)
def test_a_list_is_no_array(field):
    with pytest.raises(AssertionError, match=f"actual {field} is no array"):
        assert_same_match(matches(**{field: [0]}), matches())


@pytest.mark.parametrize("field", Audience._fields)
def test_audiences_are_compared_in_every_field(field):
    base = Audience(
        np.zeros((1, 2), np.int64), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1, np.int64)
    )
    assert_same_audience(base, base)
    with pytest.raises(AssertionError, match=f"{field} differs first at row 0"):
        assert_same_audience(base._replace(**{field: getattr(base, field) + 1}), base)


@pytest.mark.parametrize("field", Scores._fields)
def test_scores_are_compared_in_every_field(field):
    base = Scores(*(np.zeros((2, 2)) for _ in Scores._fields))
    assert_same_scores(base, base)
    with pytest.raises(AssertionError, match=f"{field} differs first at row 0, column 0"):
        assert_same_scores(base._replace(**{field: -getattr(base, field)}), base)


def test_arrays_are_compared_by_their_bits():
    assert_same_array(np.array([np.nan, -0.0]), np.array([np.nan, -0.0]))
    with pytest.raises(AssertionError, match=r"exp differs first at row 1.*1 of 2"):
        assert_same_array(np.array([1.0, -0.0]), np.array([1.0, 0.0]), "exp")
