"""Blocks of customers over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from visavis.errors import InputError, SchemaError
from visavis.kernel.request import history_of, rows_of

__all__ = [
    "Progress",
    "check_count",
    "check_kinds",
    "history_of",
    "over_blocks",
    "rows_of",
]

#: Rows per task: small enough that two threads end together, large enough that Python is not felt.
BLOCK_ROWS: Final = 4_096

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
