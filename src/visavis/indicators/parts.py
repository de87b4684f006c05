"""Parts: a fixed slice of the customers by a hash of their id, and putting slices together again.

`visavis.parts` says which part a customer belongs to; `part_sql` says it in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.errors import InputError

__all__ = ["Part", "check_part", "merge_parts", "part_sql"]


@dataclass(frozen=True, slots=True)
class Part:
    """One of `count` slices of the customers."""

    index: int
    count: int


def check_part(part: tuple[int, int]) -> Part:
    """Return `part` as a `Part`.

    Raises
    ------
    InputError
        Unless 0 ≤ index < count.
    """
    index, count = part
    if not 0 <= index < count:
        reason = f"must be (index, count) with 0 <= index < count, got {tuple(part)}"
        raise InputError(reason, field="part")
    return Part(index, count)


def part_sql(customer: str, part: Part) -> str:
    """Return SQL of whether the id `customer`, SQL of an integer or text, belongs to `part`."""
    digest = f"left(sha256(CAST({customer} AS VARCHAR)), 16)"
    return f"CAST('0x' || {digest} AS UBIGINT) % {part.count} = {part.index}"


def merge_parts(
    customer_ids: Sequence[pa.StringArray],
    matrices: Iterable[npt.NDArray[np.float32]],
    indicator_count: int,
) -> tuple[pa.StringArray, npt.NDArray[np.float32]]:
    """Put the rows of all parts into one matrix, sorted by customer id.

    Parameters
    ----------
    customer_ids : sequence of pyarrow.StringArray
        Of each part, without duplicates among all.
    matrices : iterable of ndarray of shape (n_customers_of_part, indicator_count), float32
        Of each part, in the same order; drawn one by one, so that no two need be in memory.
    indicator_count : int

    Returns
    -------
    pyarrow.StringArray of shape (n_customers,)
        Sorted by their UTF-8 bytes.
    ndarray of shape (n_customers, indicator_count), float32

    Raises
    ------
    InputError
        If there is no customer in any part.
    """
    unsorted = pa.concat_arrays(customer_ids)
    if not len(unsorted):
        raise InputError("hold none that is kept on or before as_of", field="events")
    order = pc.sort_indices(unsorted)
    place = np.empty(len(unsorted), dtype=np.int64)
    place[order.to_numpy()] = np.arange(len(unsorted))
    merged = np.empty((len(unsorted), indicator_count), dtype=np.float32)
    start = 0
    for ids, matrix in zip(customer_ids, matrices, strict=True):
        merged[place[start : start + len(ids)]] = matrix
        start += len(ids)
    return unsorted.take(order), merged
