"""Blocks of customers over threads, and the adjustments of some pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.errors import InputError, SchemaError
from visavis.kernel.request import history_of, rows_of

__all__ = [
    "Progress",
    "adjustments_of",
    "check_count",
    "check_kinds",
    "history_of",
    "over_blocks",
    "rows_of",
]

#: Rows per task: small enough that two threads end together, large enough that Python is not felt.
BLOCK_ROWS: Final = 4_096

#: Up to so many entries of history for each pair that is looked for, they are all looked at.
_ENTRIES_OF_A_PAIR: Final = 64

#: Called with (customers done, customers in all).
Progress = Callable[[int, int], None]

T = TypeVar("T")


def over_blocks(
    rows: npt.NDArray[np.int64],
    threads: int,
    work: Callable[[npt.NDArray[np.int64]], T],
    progress: Progress | None,
) -> Iterator[tuple[npt.NDArray[np.int64], T]]:
    """Run `work` over blocks of rows on threads; (rows, answer) in the order of the rows.

    The first failure, an interrupt included, stops the blocks that have not begun and is raised as
    it is. No rows are one empty block, so that there is always an answer.
    """
    blocks = [rows[begin : begin + BLOCK_ROWS] for begin in range(0, len(rows), BLOCK_ROWS)]
    if len(blocks) < threads:
        blocks = [block for block in np.array_split(rows, threads) if len(block)] or [rows]
    if progress is not None:
        progress(0, len(rows))
    done_count = 0
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(work, block): len(block) for block in blocks}
        try:
            for future in as_completed(futures):
                future.result()
                done_count += futures[future]
                if progress is not None:
                    progress(done_count, len(rows))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    yield from ((block, done.result()) for block, done in zip(blocks, futures, strict=True))


def check_kinds(**given: tuple[object, type]) -> None:
    """Refuse what is not of the kind that stands beside it, by its name."""
    for name, (value, wanted) in given.items():
        if not isinstance(value, wanted):
            reason = f"must be a {wanted.__name__}, got {type(value).__name__}"
            raise SchemaError(reason, field=name)


def check_count(value: object, field: str, least: int) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"must be an integer, at least {least}, got {value!r}", field=field)
    return int(value)


def adjustments_of(
    history: kernel.History,
    customer_index: npt.NDArray[np.int64],
    capability_index: npt.NDArray[np.int32],
) -> npt.NDArray[np.float64]:
    """The adjustments of some pairs, 0 where absent: a binary search in all rows at once."""
    begin, finish = int(history.indptr[0]), int(history.indptr[-1])
    if len(history.indptr) == 2 or finish - begin <= _ENTRIES_OF_A_PAIR * len(customer_index):
        # Of few entries numpy's own search is enough: 15 µs, where going on takes 100.
        return _adjustments_of_few(history, customer_index, capability_index)
    low = history.indptr[customer_index].copy()
    end = history.indptr[customer_index + 1]
    high = end.copy()
    entries = history.capability_index
    while (open_rows := low < high).any():
        middle = (low + high) // 2
        smaller = np.zeros(len(low), dtype=np.bool_)
        smaller[open_rows] = entries[middle[open_rows]] < capability_index[open_rows]
        low = np.where(open_rows & smaller, middle + 1, low)
        high = np.where(open_rows & ~smaller, middle, high)
    found = np.zeros(len(low), dtype=np.bool_)
    inside = low < end
    found[inside] = entries[low[inside]] == capability_index[inside]
    h = np.zeros(len(low), dtype=np.float64)
    h[found] = history.adjustment[low[found]]
    return h


def _adjustments_of_few(
    history: kernel.History,
    customer_index: npt.NDArray[np.int64],
    capability_index: npt.NDArray[np.int32],
) -> npt.NDArray[np.float64]:
    """The same by one search in the entries of all rows: row and capability make one key."""
    h = np.zeros(len(customer_index), dtype=np.float64)
    begin, finish = int(history.indptr[0]), int(history.indptr[-1])
    if begin == finish:
        return h
    keys = history.capability_index[begin:finish].astype(np.int64)
    sizes = np.diff(history.indptr)
    if len(sizes) > 1:
        keys += np.repeat(np.arange(len(sizes), dtype=np.int64) << 32, sizes)
    wanted = (customer_index << 32) + capability_index
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[at] == wanted
    h[found] = history.adjustment[begin:finish][at[found]]
    return h
