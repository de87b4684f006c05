"""Parts: the same hash everywhere, whatever the layout; a finer split refines a coarser one."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.parts import PART_COUNT_MAX, PART_CUSTOMERS, part_count_for, part_of, parts_of

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
counts = st.integers(0, 20).map(lambda power: 2**power) | st.integers(1, 1_000)


@given(ids, counts)
def test_the_part_is_the_head_of_the_hash(customer_id: str, count: int) -> None:
    head = hashlib.sha256(customer_id.encode("utf-8")).hexdigest()[:16]
    assert part_of(customer_id, count) == int(head, 16) % count


def test_it_is_the_same_in_every_version_and_on_every_machine() -> None:
    wanted = {"": 20, "a": 202, "7": 142, "007": 12, "é": 83, "𝄞": 223, "a" * 1_000: 217}
    found = {name: part_of(name, 256) for name in wanted}
    assert found == wanted


@given(st.lists(ids | st.none(), max_size=20), counts)
def test_many_at_once_are_as_each_alone(names: list[str | None], count: int) -> None:
    found = parts_of(pa.array(names, pa.string()), count)
    assert found.dtype == np.int64
    assert found.tolist() == [part_of(name or "", count) for name in names]
    sliced = parts_of(pa.array(["x", *names, "y"], pa.string())[1:-1], count)
    assert sliced.tolist() == found.tolist()


@given(ids, st.integers(0, 10), st.integers(0, 10))
def test_a_finer_split_only_splits(customer_id: str, coarse: int, more: int) -> None:
    assert part_of(customer_id, 2 ** (coarse + more)) % 2**coarse == part_of(customer_id, 2**coarse)


def test_parts_are_about_equal() -> None:
    found = parts_of(pa.array([str(number) for number in range(64_000)]), 64)
    sizes = np.bincount(found, minlength=64)
    # A binomial of mean 1,000 and deviation 31.4: one in a billion lies six of them away.
    assert 1_000 - 190 < sizes.min() <= sizes.max() < 1_000 + 190


@pytest.mark.parametrize(
    ("customers", "parts"),
    [
        (0, 1), (1, 1), (PART_CUSTOMERS, 1), (PART_CUSTOMERS + 1, 2), (2 * PART_CUSTOMERS, 2),
        (2 * PART_CUSTOMERS + 1, 4), (10**6, 64), (10**8, 8_192), (10**12, PART_COUNT_MAX),
    ],
)  # fmt: skip
def test_a_base_has_as_many_as_its_customers_need(customers: int, parts: int) -> None:
    assert part_count_for(customers) == parts
