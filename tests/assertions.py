"""Comparison of results to the last bit: −0.0 is not +0.0 here, and a NaN equals its own bits."""

from __future__ import annotations

import numpy as np

_MATCH_FIELDS = ("capability_index", "expected_value", "propensity", "opportunity_count")
_AUDIENCE_FIELDS = ("customer_index", "expected_value", "propensity", "customer_count")
_SCORES_FIELDS = ("linear_predictor", "expected_value", "propensity")


def assert_same_match(actual, expected):
    """Every field of two match results has the same dtype, shape and bits."""
    _assert_same_fields(actual, expected, _MATCH_FIELDS, "rank")


def assert_same_audience(actual, expected):
    """Every field of two audience results has the same dtype, shape and bits."""
    _assert_same_fields(actual, expected, _AUDIENCE_FIELDS, "rank")


def assert_same_scores(actual, expected):
    """Every field of two dense scores has the same dtype, shape and bits."""
    _assert_same_fields(actual, expected, _SCORES_FIELDS, "column")


def assert_same_array(actual, expected, name="array"):
    """Two arrays have the same dtype, shape and bits."""
    _assert_same_kind(actual, expected, name)
    cells = _differing_cells(actual, expected)
    if len(cells):
        raise AssertionError(_describe(name, actual, expected, cells, "column"))


def _assert_same_fields(actual, expected, fields, second_axis):
    for field in fields:
        _assert_same_kind(getattr(actual, field), getattr(expected, field), field)
    # The first row that differs explains most; a wrong pair is often a wrong value elsewhere too.
    first = None
    for field in fields:
        cells = _differing_cells(getattr(actual, field), getattr(expected, field))
        if len(cells) and (first is None or tuple(cells[0]) < tuple(first[1][0])):
            first = (field, cells)
    if first is None:
        return
    field, cells = first
    message = _describe(field, getattr(actual, field), getattr(expected, field), cells, second_axis)
    row = cells[0][0]
    lines = [message]
    for label, result in (("actual", actual), ("expected", expected)):
        lines += [f"  {label} {name}[{row}] = {getattr(result, name)[row]}" for name in fields]
    raise AssertionError("\n".join(lines))


def _assert_same_kind(actual, expected, name):
    for label, array in (("actual", actual), ("expected", expected)):
        assert isinstance(array, np.ndarray), f"{label} {name} is no array: {type(array).__name__}"
    assert actual.dtype == expected.dtype, (
        f"{name}: dtype {actual.dtype}, expected {expected.dtype}"
    )
    assert actual.shape == expected.shape, (
        f"{name}: shape {actual.shape}, expected {expected.shape}"
    )


def _bits(array):
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _differing_cells(actual, expected):
    return np.argwhere(_bits(actual) != _bits(expected))


def _describe(name, actual, expected, cells, second_axis):
    cell = tuple(int(i) for i in cells[0])
    where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", second_axis), cell, strict=False))
    return (
        f"{name} differs first at {where}: {_exactly(actual[cell])}, "
        f"expected {_exactly(expected[cell])}; {len(cells)} of {actual.size} cells differ"
    )


def _exactly(number):
    if isinstance(number, np.floating):
        return f"{number!r} (bits {int(_bits(np.array([number]))[0]):#x})"
    return repr(number)
