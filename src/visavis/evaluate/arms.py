"""The arms: who is contacted with what, under two contact policies, on the same scores.

Every arm draws from the same pairs (`PairScores`: eligibility, minimum, exclusions) and keeps the
policy's limits per product, channel and family. Arms differ in how they spend the *budget* of
k · customers contacts, k per customer on average, and in whether a customer may get more than k.

====== ==================================================================== ====================
arm    rule                                                                 contacts per customer
====== ==================================================================== ====================
A0     the most popular capabilities to everyone who may get them           at most k
A1     campaigns in order of popularity, each to its best 20 %              any number
A2     the same, each to its best 20 % among those who have room            at most k
A2w    the same in waves: fixed lists of 20 %, whoever is full drops out    at most k
A3     equal slots for every product, each to its best customers            any number
A4     the same, in order of popularity, each to its best who have room     at most k
S      segments: the best capabilities of the average member                at most k
B      every customer's own best (the match)                                at most k
G      the best pairs of all                                                any number
G_cap  the best pairs of all under a cap per customer                       at most the cap
====== ==================================================================== ====================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.evaluate.scored import Float64, Group, Int64, PairScores, best_first, walk
from visavis.evaluate.segments import segment_ranking, segments_of

__all__ = [
    "CAMPAIGN_SHARE",
    "Contacts",
    "campaigns",
    "campaigns_in_waves",
    "equal_slots",
    "global_best",
    "one_to_one",
    "same_for_all",
    "segments",
]

#: The share of customers that a campaign goes to.
CAMPAIGN_SHARE: Final = 0.2


@dataclass(frozen=True, eq=False)
class Contacts:
    """What an arm would send, in total order: score descending, then customer, then capability.

    Attributes
    ----------
    customer_index : ndarray of shape (c,), int64
        Rows of the base.
    capability_index : ndarray of shape (c,), int32
    score : ndarray of shape (c,), float64
        What ranked: expected value, or what `PairScores` says of propensity.
    """

    customer_index: Int64
    capability_index: npt.NDArray[np.int32]
    score: Float64

    def __len__(self) -> int:
        return len(self.customer_index)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Contacts on their way: customers as positions."""

    position: Int64
    capability: Int64
    score: Float64

    def best(self, size: int) -> _Pairs:
        chosen = best_first(self.score, size, self.position, self.capability)
        return _Pairs(self.position[chosen], self.capability[chosen], self.score[chosen])

    def sent(self, scored: PairScores) -> Contacts:
        ordered = self.best(len(self.score))
        return Contacts(
            scored.customer_index[ordered.position],
            ordered.capability.astype(np.int32),
            ordered.score,
        )


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        np.concatenate([part.position for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.capability for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.score for part in parts] or [np.empty(0)]),
    )


class _Room:
    """What has been sent so far, and so what each customer may still get.

    Kept as lists of rows: counts per customer and product would be an array of N × M.
    """

    def __init__(self, scored: PairScores, cap: int | None) -> None:
        self.cap = cap
        self.parts: list[_Pairs] = []
        self._count = scored.customer_count
        self._total = np.zeros(self._count, dtype=np.int64)
        self._groups = scored.groups
        self._sent: dict[int, list[Int64]] = {}
        self._labels: list[dict[int, list[Int64]]] = [{} for _ in self._groups]

    @property
    def is_full(self) -> bool:
        return self.cap is not None and bool((self._total >= self.cap).all())

    def left(self) -> Int64 | None:
        return None if self.cap is None else self.cap - self._total

    def is_free(self, j: int) -> npt.NDArray[np.bool_]:
        """Who may still get capability `j`, as far as limits and earlier contacts go."""
        free = np.ones(self._count, dtype=np.bool_)
        for rows in self._sent.get(j, []):
            free[rows] = False
        if self.cap is not None:
            free &= self._total < self.cap
        for place, group in enumerate(self._groups):
            free &= self._used(place, int(group.codes[j])) < group.limit
        return free

    def used(self, unit: Int64) -> list[npt.NDArray[np.uint16]]:
        """By group, what each customer has of the labels of `unit`, ascending."""
        return [
            np.stack([self._used(place, int(c)) for c in np.unique(group.codes[unit])], axis=1)
            for place, group in enumerate(self._groups)
        ]

    def _used(self, place: int, label: int) -> npt.NDArray[np.uint16]:
        rows = self._labels[place].get(label)
        if rows is None:
            return np.zeros(self._count, dtype=np.uint16)
        return np.bincount(np.concatenate(rows), minlength=self._count).astype(np.uint16)

    def give(self, pairs: _Pairs) -> int:
        self.parts.append(pairs)
        self._total += np.bincount(pairs.position, minlength=self._count)
        for j in np.unique(pairs.capability).tolist():
            rows = pairs.position[pairs.capability == j]
            self._sent.setdefault(j, []).append(rows)
            for group, labels in zip(self._groups, self._labels, strict=True):
                labels.setdefault(int(group.codes[j]), []).append(rows)
        return len(pairs.position)


def same_for_all(scored: PairScores, popularity: Float64, *, k: int) -> Contacts:
    """Arm A0: everyone gets the k most popular capabilities that he may get.

    Where nothing stands in the way, these are the same k for all. Where a rule, a consent or a
    limit does, the next popular one takes the place, so that the arm loses no contacts to rules.
    """
    units = _single(_popular_first(popularity))
    return _campaigns(scored, units, _always(scored.customer_count), k, k)


def campaigns(
    scored: PairScores,
    popularity: Float64,
    *,
    k: int,
    cap: int | None,
    share: float = CAMPAIGN_SHARE,
) -> Contacts:
    """Arms A1 (no cap) and A2 (`cap`): campaigns in order of popularity, until the budget is spent.

    A campaign is one capability. It goes to its best ``share`` of all customers: in total order,
    those who may get it, whose limits are not used up and, under a cap, who have fewer than `cap`
    contacts; whoever is full is replaced by the next best. So each campaign sends what it planned,
    the first k / share campaigns use up the budget of k · customers, and the last is cut to fit.
    Without a cap they all find the same heavy buyers. If the campaigns come to their end before the
    budget does, they are run again, each to those it has not reached.
    """
    units = _single(_popular_first(popularity))
    size = max(1, round(share * scored.customer_count))
    return _campaigns(scored, units, _always(size), k, cap)


def campaigns_in_waves(
    scored: PairScores,
    popularity: Float64,
    *,
    k: int,
    cap: int,
    share: float = CAMPAIGN_SHARE,
) -> Contacts:
    """Arm A2w: as A2, with lists that are fixed beforehand.

    In the first wave each campaign's list is its best ``share`` of all customers who may get it;
    whoever is full by then drops out and nobody takes his place. In the next wave each list is the
    campaign's next best ``share``, until the budget is spent. Campaigns reach only who is good for
    them, at the price of later waves: on the demo's data this is the better way to run A2.
    """
    units = _single(_popular_first(popularity))
    size = max(1, round(share * scored.customer_count))
    room, left = _Room(scored, cap), k * scored.customer_count
    for wave in range(-(-scored.customer_count // size)):
        if left == 0 or room.is_full:
            break
        for unit, scores in scored.columns(units):
            listed = best_first(scores[:, 0], (wave + 1) * size)[wave * size :]
            rows = listed[room.is_free(int(unit[0]))[listed]][:left]
            left -= room.give(_Pairs(rows, np.repeat(unit, len(rows)), scores[rows, 0]))
            if left == 0 or room.is_full:
                break
    return _joined(room.parts).sent(scored)


def equal_slots(
    scored: PairScores, popularity: Float64, *, k: int, cap: int | None = None
) -> Contacts:
    """Arms A3 (no cap) and A4 (`cap`): every product gets the same number of contacts.

    The budget of k · customers is cut into as many slots as the catalog has products; what does
    not divide goes to the most popular ones, one each. Products take their turn in order of
    popularity, and each takes the best pairs of its capabilities with customers who have room.
    Slots that a product could not fill are shared out again, in the same way, among those that
    filled theirs.
    """
    products = scored.engine.catalog.codes("product")[0]
    by_product = np.argsort(products, kind="stable")
    counts = np.bincount(products)
    members = np.split(by_product, np.cumsum(counts)[:-1])
    most = np.array([popularity[unit].max() for unit in members])
    units = [members[p] for p in _popular_first(most)]

    def slots(left: int, count: int) -> Int64:
        each, rest = divmod(left, count)
        return each + (np.arange(count) < rest).astype(np.int64)

    return _campaigns(scored, units, slots, k, cap)


def segments(scored: PairScores, *, k: int, segment_count: int, seed: int) -> Contacts:
    """Arm S: k-means on the indicators, and the same speech for everyone in a segment.

    A segment's capabilities are ranked by the mean score over those of its members who may get
    them, and each member gets the first k in that ranking that he may get.
    """
    codes = segments_of(scored.engine, count=segment_count, seed=seed)
    ranking = segment_ranking(scored, codes)
    groups, parts = scored.groups, []
    for begin, scores in scored.row_blocks():
        order = ranking[codes[begin : begin + len(scores)]]
        along = np.take_along_axis(scores, order, axis=1)
        taken = walk(order, along > -np.inf, groups, np.full(len(scores), k))
        rows, places = np.nonzero(taken)
        parts.append(_Pairs(rows + begin, order[rows, places], along[rows, places]))
    return _joined(parts).sent(scored)


def one_to_one(scored: PairScores, *, k: int) -> Contacts:
    """Arm B: every customer's own k, which is `Engine.match`."""
    return _walks(scored, np.arange(scored.customer_count), k)[0].sent(scored)


def global_best(scored: PairScores, *, k: int, cap: int | None = None) -> Contacts:
    """Arms G (no cap) and G_cap (`cap`): the first k · customers pairs of the greedy walk over all.

    The walk goes over all pairs of all customers in total order (score, customer, capability),
    skips what would break a limit of its customer, and stops when the budget is spent.

    Exactness. Limits and cap count within one customer, so whether the walk takes a pair depends
    only on that customer's earlier pairs: restricted to one customer, the walk over all *is* that
    customer's own walk, in the order of the match. The walk over all is therefore the merge of the
    customers' own walks, and its first `budget` pairs are the best `budget` of their union. With a
    cap, a customer's own walk ends after `cap` pairs: the answer is the best `budget` among every
    customer's best `cap`. (So with cap = k nothing is left to choose: G_cap is then B.) Without
    one, walks are followed only as far as they can matter. Let the best `budget` of the pairs seen
    so far be kept: a pair that is not kept has `budget` pairs ahead of it already and more pairs
    seen can only add to them. If the last pair of a customer's list is not kept, none of his later
    pairs can be. So only customers whose list was full and whose last pair is kept are asked for
    a list twice as long, until there are none.
    """
    budget, most = k * scored.customer_count, scored.capability_count
    everyone = np.arange(scored.customer_count)
    if cap is not None:
        return _walks(scored, everyone, min(cap, most))[0].best(budget).sent(scored)
    size, asked = min(4 * k, most), everyone
    pairs, is_cut = _walks(scored, everyone, size)
    while True:
        kept = pairs.best(budget)
        held = np.bincount(kept.position, minlength=scored.customer_count)
        # A list whose last pair is kept is kept as a whole.
        asked = asked[is_cut & (held[asked] == size)]
        if not len(asked) or size == most:
            return kept.sent(scored)
        size = min(2 * size, most)
        longer, is_cut = _walks(scored, asked, size)
        others = ~np.isin(kept.position, asked)
        rest = _Pairs(kept.position[others], kept.capability[others], kept.score[others])
        pairs = _joined([rest, longer])


def _walks(scored: PairScores, positions: Int64, size: int) -> tuple[_Pairs, npt.NDArray[np.bool_]]:
    """The walks of some customers, at most `size` pairs each, and which of them were cut there."""
    found = scored.match(positions, size)
    rows, places = np.nonzero(np.arange(size) < found.opportunity_count[:, None])
    pairs = _Pairs(
        positions[rows],
        found.capability_index[rows, places].astype(np.int64),
        found.expected_value[rows, places],
    )
    return pairs, found.opportunity_count == size


def _campaigns(
    scored: PairScores,
    units: Sequence[Int64],
    sizes_of: Callable[[int, int], Int64],
    k: int,
    cap: int | None,
) -> Contacts:
    """Unit after unit takes its best pairs with customers who have room, until all is spent.

    `sizes_of` says from (budget left, units) how many each unit may take in the round to come.
    """
    room, left = _Room(scored, cap), k * scored.customer_count
    while left > 0 and units and not room.is_full:
        sizes, open_units = sizes_of(left, len(units)), []
        for (unit, scores), size in zip(scored.columns(units), sizes.tolist(), strict=False):
            best = _best_of_unit(unit, scores, scored.groups, room).best(min(size, left))
            given = room.give(best)
            left -= given
            if left == 0 or room.is_full:
                break
            # Room only ever shrinks: a unit that fell short has nothing left to send.
            if given == size:
                open_units.append(unit)
        units = open_units
    return _joined(room.parts).sent(scored)


def _best_of_unit(unit: Int64, scores: Float64, groups: Sequence[Group], room: _Room) -> _Pairs:
    """Every pair of a unit that its customers' own walks over it would take."""
    free = np.stack([room.is_free(j) for j in unit.tolist()], axis=1) & (scores > -np.inf)
    if len(unit) == 1:
        rows = np.flatnonzero(free[:, 0])
        return _Pairs(rows, np.repeat(unit, len(rows)), scores[rows, 0])
    # A walk cut short by the unit's size is the beginning of the whole walk.
    own = [
        Group(group.limit, np.unique(group.codes[unit], return_inverse=True)[1]) for group in groups
    ]
    order = np.argsort(-scores, axis=1, kind="stable")
    along = np.take_along_axis(free, order, axis=1)
    taken = walk(order, along, own, room.left(), room.used(unit))
    rows, places = np.nonzero(taken)
    chosen = order[rows, places]
    return _Pairs(rows, unit[chosen], scores[rows, chosen])


def _single(order: Int64) -> list[Int64]:
    return [order[place : place + 1] for place in range(len(order))]


def _always(size: int) -> Callable[[int, int], Int64]:
    return lambda _, count: np.full(count, size, dtype=np.int64)


def _popular_first(popularity: Float64) -> Int64:
    return np.argsort(-popularity, kind="stable")
