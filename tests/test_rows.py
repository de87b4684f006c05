"""Rows gathered by the compiled core are those that numpy finds, and nothing beyond is read."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from visavis._rows import Rows, entries_of, heads_of


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


def head_of(name: bytes) -> int:
    return int.from_bytes(hashlib.sha256(name).digest()[:8])


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 3_000])
@pytest.mark.parametrize("bits", [64, 40, 3])
def test_ids_are_found_however_other_heads_are_spread(count: int, bits: int) -> None:
    rng = np.random.default_rng(bits + count)
    ids, heads, order = spread(count, rng)
    names = [each for part in ids for each in part]
    # Half of them have the heads that they should have; those of the others crowd together.
    heads = np.array([head_of(each) for each in names], np.uint64)
    is_foreign = rng.random(count) < 0.5
    heads[is_foreign] = rng.integers(0, 2**bits, is_foreign.sum(), dtype=np.uint64)
    order = np.argsort(heads, kind="stable")
    rows, _ = rows_of(ids, heads[order], order)
    expected = np.where(is_foreign, -1, np.arange(count)).tolist()
    texts = [each.decode() for each in names]
    assert rows.find(texts).tolist() == expected
    assert [rows.find_one(each) for each in texts] == expected
    assert rows.find(texts[::-1]).tolist() == expected[::-1]


def test_of_equal_heads_the_first_is_looked_at_alone() -> None:
    head = head_of(b"a")
    rows, _ = rows_of([[b"b", b"a"]], [head, head], [1, 0])
    assert rows.find(["a"]).tolist() == [1]
    rows, _ = rows_of([[b"b", b"a"]], [head, head], [0, 1])
    assert rows.find(["a"]).tolist() == [-1]
    assert rows.find_one("a") == -1


def test_ids_of_every_length_and_of_any_bytes() -> None:
    # Digests are of blocks of 64 bytes, and the last nine may need one more.
    names = [b"x" * size for size in range(200)] + ["ä€😀\0".encode()]
    ends = memoryview(np.cumsum([0, *map(len, names)]).astype(np.int32))
    heads = heads_of(ends, memoryview(b"".join(names)))
    assert heads.tolist() == [head_of(each) for each in names]
    order = np.argsort(heads)
    rows, _ = rows_of([names], heads[order], order)
    texts = [each.decode() for each in names]
    assert rows.find(texts).tolist() == list(range(len(names)))


def test_what_nobody_has_or_no_text_is_nobody() -> None:
    names = [b"a", b"bb", b""]
    heads = np.array([head_of(each) for each in names], np.uint64)
    order = np.argsort(heads)
    rows, _ = rows_of([[b"a"], [], [b"bb", b""]], heads[order], order)
    asked: list[Any] = ["bb", "b", "bbb", "a", "", "\ud800", 7, b"a", None]
    assert rows.find(asked).tolist() == [1, -1, -1, 0, 2, -1, -1, -1, -1]
    assert rows.find([]).tolist() == []
    assert [rows.find_one(each) for each in asked] == [1, -1, -1, 0, 2, -1, -1, -1, -1]


def test_ids_outside_their_text_are_refused() -> None:
    text = memoryview(b"abc")
    for ends in ([], [0, 4], [-1, 2], [0, 2, 1, 3]):
        with pytest.raises(ValueError, match="id"):
            heads_of(memoryview(np.array(ends, np.int32)), text)
    assert heads_of(memoryview(np.array([1, 2], np.int32)), text).tolist() == [head_of(b"b")]


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
