"""Scores of all pairs that may meet, by rows or by columns, in bounded memory.

What an arm of the comparison may contact is decided here and nowhere else, so that all arms obey
the same rules: eligibility, h = −∞, the policy's minimum and its limits per product, channel and
family. Only the number of contacts per customer is the arm's own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.domain import Link
from visavis.engine import Engine
from visavis.engine.blocks import history_of, over_blocks
from visavis.engine.matches import joined
from visavis.errors import InputError

__all__ = ["By", "Group", "PairScores", "best_first", "walk"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

#: What ranks. ``propensity`` counts every value as 1 and every cost as 0.
By: TypeAlias = Literal["expected_value", "propensity"]

#: Scores computed at a time: 2^22 pairs are 96 MiB in the three numbers of `kernel.scores`.
CELLS_AT_ONCE: Final = 1 << 22

#: Up to so many pairs the scores are kept, 128 MiB: each arm reads them, some several times, and
#: on the demo's 3.4 M pairs computing them (1.0 s on one thread) costs more than all arms together.
CELLS_KEPT: Final = 1 << 24


class Group(NamedTuple):
    """One limit of the policy: at most `limit` contacts per customer and label.

    Attributes
    ----------
    limit : int
    codes : ndarray of shape (m,), int64
        The label of each capability.
    """

    limit: int
    codes: Int64


class _Piece(NamedTuple):
    """Some capabilities, ready for `kernel.scores`; `money` where `by` does not rank by money."""

    panel: kernel.Panel
    money: kernel.Panel | None
    history: kernel.History
    plane_index: npt.NDArray[np.int32]


class PairScores:
    """The scores of an engine's pairs; −inf where a pair may not meet.

    Customers are counted by *position* in `customer_index`, so that those who objected do not
    exist here. As positions ascend with customer ids, ties by position are ties by id.

    Parameters
    ----------
    engine : Engine
    by : {"expected_value", "propensity"}
        What ranks. By propensity every value counts as 1 and every cost as 0 (link ``count``: the
        expected count, which ranks as its propensity does). What may be contacted does not change:
        the policy's minimum stays one of expected value.
    cells_at_once, cells_kept : int
        Bounds of memory; no result depends on them.
    """

    def __init__(
        self,
        engine: Engine,
        by: By = "expected_value",
        *,
        cells_at_once: int = CELLS_AT_ONCE,
        cells_kept: int = CELLS_KEPT,
    ) -> None:
        if by not in get_args(By):
            raise InputError(f"must be one of {', '.join(get_args(By))}, got {by!r}", field="by")
        self.engine = engine
        self.by = by
        self.customer_index = engine.customer_index
        self.customer_count = len(self.customer_index)
        self.capability_count = engine.catalog.capability_count
        self._cells_at_once = cells_at_once
        self._is_kept = self.customer_count * self.capability_count <= cells_kept
        ev_min = engine.policy.ev_min
        self._least = -np.inf if ev_min is None else ev_min

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The limits that the policy sets, other than k."""
        catalog, policy = self.engine.catalog, self.engine.policy
        return tuple(
            Group(limit, codes.astype(np.int64))
            for limit, codes in (
                (policy.product_limit, catalog.codes("product")[0]),
                (policy.channel_limit, catalog.codes("channel")[0]),
                (policy.family_limit, catalog.codes("family")[0]),
            )
            if limit is not None
        )

    def prepare(self) -> None:
        """Compute now what is kept, so that no arm is charged for it."""
        if self._is_kept:
            self._kept  # noqa: B018 (reading the property is what computes it)

    def row_blocks(self) -> Iterator[tuple[int, Float64]]:
        """All scores, block after block of customers: (first position, scores of shape (r, m)).

        The cut into blocks depends on the problem's size alone, so that a sum over them has the
        same bits however the scores are come by.
        """
        size = max(1, CELLS_AT_ONCE // self.capability_count)
        for begin in range(0, self.customer_count, size):
            end = min(begin + size, self.customer_count)
            yield begin, self.rows(np.arange(begin, end))

    def rows(self, positions: Int64) -> Float64:
        """The scores of some customers with every capability, shape (len(positions), m)."""
        if self._is_kept:
            return self._kept[positions]
        return self._compute(self._all, positions)

    def columns(self, units: Sequence[Int64]) -> Iterator[tuple[Int64, Float64]]:
        """The scores of all customers with the capabilities of each unit, unit after unit.

        Parameters
        ----------
        units : sequence of ndarray of int64
            Ascending capability indices; no capability stands in two units.

        Yields
        ------
        unit : ndarray of shape (c,), int64
        scores : ndarray of shape (n, c), float64
        """
        if self._is_kept:
            for unit in units:
                yield unit, self._kept[:, unit]
            return
        width = max(1, self._cells_at_once // max(1, self.customer_count))
        begin = 0
        while begin < len(units):
            end, taken = begin + 1, len(units[begin])
            while end < len(units) and taken + len(units[end]) <= width:
                taken += len(units[end])
                end += 1
            asked = np.sort(np.concatenate(units[begin:end]))
            scores = self._of_all_customers(self._piece(asked))
            for unit in units[begin:end]:
                yield unit, scores[:, np.searchsorted(asked, unit)]
            begin = end

    def match(self, positions: Int64, k: int) -> kernel.MatchResult:
        """The greedy walk of some customers under the policy's limits, at most k each."""
        width = max(k, self.capability_count) if self._needs_mask else k
        size = max(1, self._cells_at_once // width)
        blocks = [positions[begin : begin + size] for begin in range(0, len(positions), size)]
        found = [self._match_block(block, k) for block in blocks or [positions]]
        return joined([result for results in found for result in results])

    @property
    def _needs_mask(self) -> bool:
        """Whether the minimum is one that the ranked panel cannot judge."""
        return self.by == "propensity" and self._least > -np.inf

    def _match_block(self, positions: Int64, k: int) -> list[kernel.MatchResult]:
        engine, needs_mask = self.engine, self._needs_mask
        planes, plane_index = engine.eligibility

        def work(block: Int64) -> kernel.MatchResult:
            rows = self.customer_index[block]
            return kernel.match(
                engine.base.indicators[rows],
                self._all.panel,
                k=k,
                eligible=self.rows(block) > -np.inf
                if needs_mask
                else kernel.Eligibility(planes[rows], plane_index),
                history=history_of(engine.history, rows),
                limits=engine.policy.limits,
                ev_min=None if self.by == "propensity" else engine.policy.ev_min,
                variant=engine.variant,
            )

        return [result for _, result in over_blocks(positions, engine.threads, work, None)]

    @cached_property
    def _kept(self) -> Float64:
        kept = np.empty((self.customer_count, self.capability_count))
        size = max(1, self._cells_at_once // self.capability_count)
        for begin in range(0, self.customer_count, size):
            positions = np.arange(begin, min(begin + size, self.customer_count))
            for block, scores in over_blocks(
                positions, self.engine.threads, lambda rows: self._compute(self._all, rows), None
            ):
                kept[block] = scores
        return kept

    def _of_all_customers(self, piece: _Piece) -> Float64:
        positions = np.arange(self.customer_count)
        blocks = over_blocks(
            positions, self.engine.threads, lambda rows: self._compute(piece, rows), None
        )
        return np.concatenate([scores for _, scores in blocks])

    def _compute(self, piece: _Piece, positions: Int64) -> Float64:
        engine, rows = self.engine, self.customer_index[positions]
        x, history = engine.base.indicators[rows], history_of(piece.history, rows)
        scores = kernel.scores(x, piece.panel, history=history, variant=engine.variant)
        score = scores.expected_value
        money = score
        if piece.money is not None:
            numbers = kernel.scores(x, piece.money, history=history, variant=engine.variant)
            money = numbers.expected_value
        planes = engine.eligibility.planes[rows]
        index = np.maximum(piece.plane_index, 0)
        bits = planes[:, index // 64] >> (index % 64).astype(np.uint64)
        may_meet = (bits & np.uint64(1)).astype(np.bool_) | (piece.plane_index < 0)
        # A comparison with NaN, where no score exists, is false.
        return np.where(may_meet & (money >= self._least), score, -np.inf)

    @cached_property
    def _all(self) -> _Piece:
        everything = np.arange(self.capability_count)
        planes = self.engine.eligibility.plane_index
        panel = (
            self.engine.panel if self.by == "expected_value" else self._pack(everything, self.by)
        )
        money = self.engine.panel if self._needs_mask else None
        return _Piece(panel, money, self.engine.history, planes)

    def _piece(self, capability_index: Int64) -> _Piece:
        money = self._pack(capability_index, "expected_value") if self._needs_mask else None
        return _Piece(
            self._pack(capability_index, self.by),
            money,
            self._history_of_columns(capability_index),
            self.engine.eligibility.plane_index[capability_index],
        )

    def _pack(self, capability_index: Int64, by: By) -> kernel.Panel:
        catalog, chosen = self.engine.catalog, capability_index
        by_value = by == "expected_value"
        return kernel.pack(
            self.engine.weights[chosen],
            catalog.bias[chosen],
            value=catalog.value[chosen] if by_value else np.ones(len(chosen)),
            cost=catalog.cost[chosen] if by_value else np.zeros(len(chosen)),
            link=[Link(code).label for code in catalog.link[chosen]],
            product=catalog.codes("product")[0][chosen],
            channel=catalog.codes("channel")[0][chosen],
            family=catalog.codes("family")[0][chosen],
        )

    @cached_property
    def _entries_by_capability(self) -> tuple[Int64, Int64, Int64]:
        """(first entry of each capability, entries in that order, the customer row of each)."""
        history = self.engine.history
        rows = np.repeat(np.arange(len(history.indptr) - 1), np.diff(history.indptr))
        order = np.argsort(history.capability_index, kind="stable")
        counts = np.bincount(history.capability_index, minlength=self.capability_count)
        return np.concatenate([[0], np.cumsum(counts)]), order, rows[order]

    def _history_of_columns(self, capability_index: Int64) -> kernel.History:
        """The adjustments of some capabilities, ascending, counted from 0."""
        first, entries, rows = self._entries_by_capability
        begin, end = first[capability_index], first[capability_index + 1]
        sizes = end - begin
        starts = np.repeat(begin - np.cumsum(sizes) + sizes, sizes)
        held = np.arange(int(sizes.sum())) + starts
        local = np.repeat(np.arange(len(capability_index)), sizes)
        order = np.lexsort((local, rows[held]))
        held, local = held[order], local[order]
        counts = np.bincount(rows[held], minlength=self.engine.base.customer_count)
        return kernel.History(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            local.astype(np.int32),
            self.engine.history.adjustment[entries[held]],
        )


def best_first(score: Float64, size: int, *ties: npt.NDArray[np.integer]) -> Int64:
    """The places of the `size` largest scores, in total order.

    Parameters
    ----------
    score : ndarray of shape (c,), float64
        Places of −inf are never among them.
    size : int
    *ties : ndarray of shape (c,), int
        What decides between equal scores, ascending, the weightiest first; default: the place.

    Returns
    -------
    ndarray of shape (min(size, finite scores),), int64
    """
    held = np.flatnonzero(score > -np.inf)
    if len(held) > size:
        if size == 0:
            return held[:0]
        # Cheap first: only what ties with the last one taken needs the order among equals.
        last = np.partition(score[held], len(held) - size)[len(held) - size]
        held = held[score[held] >= last]
    keys = ties or (np.arange(len(score)),)
    order = np.lexsort((*(key[held] for key in reversed(keys)), -score[held]))
    return np.asarray(held[order[:size]])


def walk(
    order: Int64,
    is_open: Bools,
    groups: Sequence[Group],
    room: npt.NDArray[np.integer] | None,
    used: Sequence[npt.NDArray[np.uint16]] | None = None,
) -> Bools:
    """The greedy walk of several customers at once, each along its own order.

    Parameters
    ----------
    order : ndarray of shape (r, c) or (c,), int64
        The capability, an index into each group's codes, that stands at each place.
    is_open : ndarray of shape (r, c), bool
        Whether the customer may have what stands there.
    groups : sequence of Group
    room : ndarray of shape (r,), int, optional
        How many contacts each customer may still get; None = any number.
    used : sequence of ndarray of shape (r, labels), uint16, optional
        By group, the contacts that each customer has already; default: none.

    Returns
    -------
    ndarray of shape (r, c), bool
        What is taken.
    """
    count, places = is_open.shape
    steps = np.broadcast_to(order, is_open.shape)
    taken = np.zeros(is_open.shape, dtype=np.bool_)
    left = np.full(count, places, dtype=np.int64) if room is None else room.astype(np.int64)
    counts = (
        [np.zeros((count, int(group.codes.max()) + 1), dtype=np.uint16) for group in groups]
        if used is None
        else [each.copy() for each in used]
    )
    everyone = np.arange(count)
    for place in range(places):
        free = is_open[:, place] & (left > 0)
        labels = [group.codes[steps[:, place]] for group in groups]
        for group, label, held in zip(groups, labels, counts, strict=True):
            free &= held[everyone, label] < group.limit
        taken[:, place] = free
        left -= free
        for label, held in zip(labels, counts, strict=True):
            held[everyone, label] += free
        if not (left > 0).any():
            break
    return taken
