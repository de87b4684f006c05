"""Rows gathered by the compiled core are those that numpy finds, and nothing beyond is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visavis._rows import Rows, entries_of


def rows_of(ids: list[list[bytes]], heads: Any, row_of: Any, width: int = 5) -> tuple[Rows, Any]:
    """Parts with these ids, and all their indicators."""
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((len(part), width), dtype=np.float32) for part in ids]
    ends = [memoryview(np.cumsum([0, *map(len, part)]).astype(np.int32)) for part in ids]
    texts = [memoryview(b"".join(part)) for part in ids]
    starts = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    rows = Rows(
        matrices, ends, texts, starts, np.asarray(heads, np.uint64), np.asarray(row_of, np.int64)
    )
    return rows, np.concatenate(matrices)


def spread(count: int, rng: Any) -> tuple[list[list[bytes]], Any, Any]:
    """Ids over parts, of which some are empty, and heads as digests have them."""
    names = [b"c%d" % number for number in range(count)]
    cuts = np.sort(rng.integers(0, count + 1, 6))
    ids = [names[a:b] for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    heads = rng.integers(0, 2**64, count, dtype=np.uint64)
    order = np.argsort(heads, kind="stable")
    return ids, heads[order], order


@pytest.mark.parametrize("count", [1, 2, 37, 5_000])
def test_indicators_of_rows_in_any_order(count: int) -> None:
    rng = np.random.default_rng(count)
    rows, whole = rows_of(*spread(count, rng))
    for size in (0, 1, 3, 8, 9, 100):
        wanted = rng.integers(0, count, size)
        np.testing.assert_array_equal(rows.indicators(wanted), whole[wanted])


@pytest.mark.parametrize("outside", [-1, 37, 2**62, -(2**63)])
def test_a_row_that_nobody_has_is_refused(outside: int) -> None:
    rows, _ = rows_of(*spread(37, np.random.default_rng(0)))
    with pytest.raises(IndexError):
        rows.indicators(np.array([0, outside]))


@pytest.mark.parametrize("bits", [64, 40, 8])
def test_ids_are_found_however_heads_are_spread(bits: int) -> None:
    rng = np.random.default_rng(bits)
    ids, heads, order = spread(3_000, rng)
    names = [each for part in ids for each in part]
    # With fewer bits heads crowd together, and many are equal.
    heads = np.sort(heads >> np.uint64(64 - bits))
    rows, _ = rows_of(ids, heads, order)
    head_of = np.empty(len(names), np.uint64)
    head_of[order] = heads
    first = np.searchsorted(heads, head_of)
    expected = np.where(order[first] == np.arange(len(names)), np.arange(len(names)), -1)
    np.testing.assert_array_equal(rows.find(names, head_of), expected)
    alone = [rows.find_one(*each) for each in zip(names, head_of.tolist(), strict=True)]
    assert alone == expected.tolist()


def test_ids_that_nobody_has() -> None:
    rows, _ = rows_of([[b"a"], [], [b"bb", b""]], [5, 2**63, 2**64 - 1], [1, 0, 2])
    heads = np.array([5, 5, 5, 2**63, 2**64 - 1, 0, 6, 2**64 - 2], np.uint64)
    ids = [b"bb", b"b", b"bbb", b"a", b"", b"bb", b"bb", b""]
    assert rows.find(ids, heads).tolist() == [1, -1, -1, 0, 2, -1, -1, -1]
    assert rows.find([], heads[:0]).tolist() == []
    assert [rows.find_one(*each) for each in zip(ids, heads.tolist(), strict=True)][4:6] == [2, -1]
    with pytest.raises(ValueError, match="as many heads"):
        rows.find([b"a"], heads)


def test_parts_that_do_not_fit_their_starts_are_refused() -> None:
    part = np.zeros((2, 3), np.float32)
    ends, text = memoryview(np.zeros(3, np.int32)), memoryview(b"")
    none = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="for each row"):
        Rows([part], [ends], [text], np.array([0, 2]), *none)
    three = np.zeros(3, np.uint64), np.arange(3)
    with pytest.raises(ValueError, match="other rows"):
        Rows([part], [ends], [text], np.array([0, 3]), *three)
    with pytest.raises(ValueError, match="nobody has"):
        Rows([part], [ends], [text], np.array([0, 2]), three[0][:2], np.array([0, 2]))
    with pytest.raises(ValueError, match="from 0 on"):
        Rows([part], [ends], [text], np.array([1, 3]), *three)


def test_entries_of_rows_in_any_order() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 40, 200) * (rng.random(200) < 0.7)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    index = rng.integers(0, 1_000, indptr[-1]).astype(np.int32)
    amount = rng.standard_normal(indptr[-1], dtype=np.float32)
    for wanted in (rng.integers(0, 200, 90), np.zeros(0, np.int64), np.flatnonzero(sizes == 0)):
        starts, columns, amounts = entries_of(indptr, index, amount, wanted)
        cuts = [slice(indptr[row], indptr[row + 1]) for row in wanted]
        assert starts.tolist() == [0, *np.cumsum(sizes[wanted]).tolist()]
        assert columns.tolist() == [each for cut in cuts for each in index[cut].tolist()]
        assert amounts.tolist() == [each for cut in cuts for each in amount[cut].tolist()]


@pytest.mark.parametrize(
    ("indptr", "row"),
    [([0, 2, 3], 2), ([0, 2, 3], -1), ([0, 4, 3], 0), ([0, 2, 1], 1), ([-1, 2], 0)],
)
def test_entries_that_are_not_there_are_refused(indptr: list[int], row: int) -> None:
    index, amount = np.zeros(3, np.int32), np.zeros(3, np.float32)
    with pytest.raises(IndexError):
        entries_of(np.array(indptr), index, amount, np.array([row]))
    with pytest.raises(ValueError, match="as many amounts"):
        entries_of(np.array([0, 2]), index, amount[:2], np.array([0]))
