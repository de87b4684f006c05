"""The kernel's doors: every argument checked, wrong ones refused by field and row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.domain import Link
from visavis.errors import InputError, SchemaError
from visavis.kernel.types import Int32

__all__ = [
    "any_array",
    "as_array",
    "as_count",
    "as_guess",
    "as_not_negative",
    "as_number",
    "as_parts",
    "as_positive",
    "as_vector",
    "group_codes",
    "link_codes",
    "refuse_where",
    "require",
]


def require(given: object, kinds: type | tuple[type, ...], field: str, wanted: str) -> None:
    """Refuse other types by name: annotations bind nobody at run time."""
    if not isinstance(given, kinds):
        raise SchemaError(f"must be {wanted}, got {type(given).__name__}", field=field)


def as_parts(given: object, field: str, names: str) -> tuple[Any, ...]:
    """Accept a tuple with as many parts as there are names."""
    if not isinstance(given, tuple) or len(given) != len(names.split()):
        raise SchemaError(f"must be ({names}), got {type(given).__name__}", field=field)
    return given


def any_array(values: npt.ArrayLike, field: str) -> npt.NDArray[Any]:
    """Make an array of `values`; ragged lists and foreign objects are refused by name."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"is no array: {error}", field=field) from error


def as_array(values: npt.ArrayLike, dtype: Any, field: str, *, ndim: int) -> npt.NDArray[Any]:
    """As a contiguous array of `dtype`: converted within its kind, wider numbers rounded."""
    array = any_array(values, field)
    if array.ndim != ndim:
        raise SchemaError(f"must have {ndim} dimension(s), got {array.ndim}", field=field)
    if array.dtype != dtype:
        wanted = np.dtype(dtype)
        same_family = np.can_cast(array.dtype, wanted, casting="same_kind")
        number = array.dtype.kind in "biuf"
        fits = same_family or _is_small_integer(array, wanted) or not array.size
        if not (number and fits):
            raise SchemaError(f"must be {wanted}, got {array.dtype}", field=field)
        with np.errstate(all="ignore"):  # what overflows to inf is refused by name further on
            converted = array.astype(wanted)
        if wanted.kind in "iu" and not np.array_equal(converted, array):
            raise InputError(f"does not fit {wanted}", field=field)
        array = converted
    return np.ascontiguousarray(array)


def _is_small_integer(array: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    return array.dtype.kind in "iu" and wanted.kind in "iuf"


def as_vector(values: npt.ArrayLike, dtype: Any, field: str, size: int) -> npt.NDArray[Any]:
    """As `as_array`, of one dimension and `size` entries."""
    array = as_array(values, dtype, field, ndim=1)
    if len(array) != size:
        raise SchemaError(f"must have {size} entries, got {len(array)}", field=field)
    return array


def refuse_where(
    wrong: npt.NDArray[np.bool_], field: str, reason: str, array: npt.NDArray[Any]
) -> None:
    """Refuse the first cell that is wrong, by row and value."""
    if wrong.any():
        cell = tuple(int(i) for i in np.argwhere(wrong)[0])
        column = f" in column {cell[1]}" if len(cell) > 1 else ""
        raise InputError(f"{reason}, got {array[cell]}{column}", field=field, row=cell[0])


def link_codes(link: Any, count: int) -> npt.NDArray[np.uint8]:
    """Codes of `Link`, from one name for all or one per capability."""
    codes = {known.label: int(known) for known in Link}
    require(link, (Sequence, np.ndarray), "link", "a name or a list of names")
    one_for_all = isinstance(link, str) or getattr(link, "ndim", 1) == 0
    names = [link] * count if one_for_all else list(link)
    if len(names) != count:
        raise SchemaError(f"must have {count} entries, got {len(names)}", field="link")
    for row, name in enumerate(names):
        if not isinstance(name, str) or name not in codes:
            raise InputError(
                f"must be one of {', '.join(codes)}, got {name!r}", field="link", row=row
            )
    return np.array([codes[name] for name in names], dtype=np.uint8)


def group_codes(codes: npt.ArrayLike | None, field: str, count: int) -> Int32:
    """Dense codes from 0, so that the kernel counts groups in plain arrays."""
    if codes is None:
        return np.arange(count, dtype=np.int32)
    given = as_vector(codes, np.int32, field, count)
    return np.unique(given, return_inverse=True)[1].astype(np.int32)


def as_positive(value: int, field: str) -> int:
    """An integer in [1, 2^31)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise SchemaError(f"must be an integer, got {value!r}", field=field)
    if not 1 <= value < 2**31:
        raise InputError(f"must lie in [1, 2^31), got {value}", field=field)
    return int(value)


def as_not_negative(value: int, field: str) -> int:
    """An integer in [0, 2^31)."""
    return 0 if type(value) is int and value == 0 else as_positive(value, field)


def as_count(value: int, field: str) -> int:
    """An integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise SchemaError(f"must be an integer, got {value!r}", field=field)
    if value < 0:
        raise InputError(f"must be at least 0, got {value}", field=field)
    return int(value)


def as_guess(value: object) -> float:
    """A float64, NaN for none."""
    if isinstance(value, float):
        return value
    raise SchemaError(f"must be a number, got {value!r}", field="guess")


def as_number(value: object, field: str) -> float:
    """A float64 that is not NaN; infinities pass."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise SchemaError(f"must be a number, got {value!r}", field=field)
    try:
        number = float(value)
    except OverflowError:
        raise InputError("does not fit float64", field=field) from None
    if math.isnan(number):
        raise InputError("must not be NaN", field=field)
    return number
