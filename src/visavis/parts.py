"""Parts: fixed slices of the customers by a hash of their id.

A customer belongs to part ``first eight bytes (big-endian) of sha256(customer id) mod count``: the
same on every machine, in every version and whatever the type of the column, because the id is its
text in UTF-8. A base splits its customers so, and so do indicators that are spread over machines.

With counts that are powers of two, part i of n is made of the parts i, i + n, i + 2n … of a finer
split: a base grows by splitting its parts.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "PART_COUNT_MAX",
    "PART_CUSTOMERS",
    "part_count_for",
    "part_of",
    "parts_of",
    "sorted_by_part",
]

#: Customers that a part holds about. A part of 128 indicators is then 8 MiB: large enough that a
#: file costs nothing, small enough that two workers end together and a retry loses little.
PART_CUSTOMERS: Final = 2**14

PART_COUNT_MAX: Final = 2**20


def part_of(customer_id: str, part_count: int) -> int:
    """The index of the part that a customer belongs to."""
    return int.from_bytes(hashlib.sha256(customer_id.encode()).digest()[:8]) % part_count


def parts_of(customer_ids: pa.StringArray, part_count: int) -> npt.NDArray[np.int64]:
    """The part of each id, (n,); null counts as empty text. Equal ids are hashed once."""
    encoded = pc.fill_null(customer_ids, "").dictionary_encode()
    ids = encoded.dictionary.to_pylist()
    heads = b"".join([hashlib.sha256(each.encode()).digest()[:8] for each in ids])
    of_id = (np.frombuffer(heads, dtype=">u8") % np.uint64(part_count)).astype(np.int64)
    indices: npt.NDArray[np.int32] = encoded.indices.to_numpy()
    return of_id[indices]


def sorted_by_part(
    customer_ids: pa.StringArray, part_count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How to bring the rows of each part together.

    Returns
    -------
    order : ndarray of shape (n,), int64
        The rows by part, those of a part in their order.
    bounds : ndarray of shape (part_count + 1,), int64
        Those of part i are ``order[bounds[i]:bounds[i + 1]]``.
    """
    part = parts_of(customer_ids, part_count)
    order = np.argsort(part, kind="stable")
    return order, np.searchsorted(part[order], np.arange(part_count + 1))


def part_count_for(customer_count: int) -> int:
    """The smallest power of two that leaves a part about `PART_CUSTOMERS`."""
    wanted = max(1, -(-customer_count // PART_CUSTOMERS))
    return min(PART_COUNT_MAX, 1 << (wanted - 1).bit_length())
