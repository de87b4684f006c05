"""Each arm against itself in plain Python, contact after contact, on small random worlds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reference
from visavis.evaluate import PairScores, arms
from visavis.evaluate.arms import Contacts
from visavis.evaluate.scored import Group, best_first, walk
from visavis.evaluate.segments import segments_of
from visavis.policy import Exclusions, Policy
from worlds import World, worlds

GROUPS = ("product", "channel", "family")
Pair = tuple[float, int, int]
Ledger = list[Pair]


class Oracle:
    """Every pair that may meet, and what a customer may still get, by looking at all of them."""

    def __init__(self, world: World, by: str = "expected_value") -> None:
        self.world = world
        policy = world.policy
        least = -math.inf if policy.ev_min is None else policy.ev_min
        money = world.scores.expected_value
        numbers = dict(world.numbers)
        if by == "propensity":
            numbers |= {"value": np.ones(len(world.w)), "cost": np.zeros(len(world.w))}
        ranked = reference.scores(world.x, **numbers, history=world.history).expected_value
        self.customers = [i for i in range(len(world.customers)) if not world.is_out(i)]
        self.score = {
            (i, j): float(ranked[i, j])
            for i in self.customers
            for j in range(len(world.w))
            if world.allowed[i, j] and money[i, j] >= least
        }
        self.limits = [
            (limit, [offer[name] for offer in world.offers])
            for name, limit in zip(GROUPS, policy.limits, strict=True)
            if limit is not None
        ]

    def pairs(self, j: int | None = None) -> list[Pair]:
        """In total order: best first, then customer, then capability."""
        found = [(s, i, c) for (i, c), s in self.score.items() if j is None or c == j]
        return sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))

    def fits(self, sent: Ledger, pair: Pair, cap: float) -> bool:
        own = [c for _, i, c in sent if i == pair[1]]
        within = all(
            sum(labels[c] == labels[pair[2]] for c in own) < limit for limit, labels in self.limits
        )
        return within and len(own) < cap and pair[2] not in own

    def take(self, sent: Ledger, pairs: list[Pair], count: float, cap: float) -> int:
        """Send the first `count` of the pairs that fit."""
        taken = 0
        for pair in pairs:
            if taken < count and self.fits(sent, pair, cap):
                sent.append(pair)
                taken += 1
        return taken

    def walk_in_turn(self, ranking: list[int], customer: int, k: int) -> Ledger:
        own: Ledger = []
        for j in ranking:
            if (customer, j) in self.score:
                self.take(own, [(self.score[customer, j], customer, j)], 1, k)
        return own

    def same_for_all(self, order: list[int], k: int) -> Ledger:
        return [pair for i in self.customers for pair in self.walk_in_turn(order, i, k)]

    def campaigns(self, order: list[int], k: int, cap: float, share: float) -> Ledger:
        size = max(1, round(share * len(self.customers)))
        return self.in_turn([[j] for j in order], lambda *_: size, k, cap)

    def equal_slots(self, popularity: np.ndarray, k: int, cap: float) -> Ledger:
        offers = self.world.offers
        products = sorted({offer["product"] for offer in offers}, key=str.encode)
        members = [[j for j, o in enumerate(offers) if o["product"] == p] for p in products]
        units = sorted(members, key=lambda unit: -max(popularity[j] for j in unit))

        def slots(place: int, left: int, count: int) -> int:
            return left // count + (place < left % count)

        return self.in_turn(units, slots, k, cap)

    def in_turn(
        self, units: list[list[int]], size: Callable[[int, int, int], int], k: int, cap: float
    ) -> Ledger:
        """Rounds, until all is spent or nobody can send any more."""
        sent: Ledger = []
        budget = k * len(self.customers)
        while len(sent) < budget and units:
            left, short = budget - len(sent), []
            for place, unit in enumerate(units):
                planned = size(place, left, len(units))
                pairs = [pair for pair in self.pairs() if pair[2] in unit]
                if self.take(sent, pairs, min(planned, budget - len(sent)), cap) < planned:
                    short.append(unit)
            units = [unit for unit in units if unit not in short]
        return sent

    def waves(self, order: list[int], k: int, cap: int, share: float) -> Ledger:
        sent: Ledger = []
        size = max(1, round(share * len(self.customers)))
        for wave in range(len(self.customers)):
            for j in order:
                listed = self.pairs(j)[wave * size : (wave + 1) * size]
                self.take(sent, listed, k * len(self.customers) - len(sent), cap)
        return sent

    def segments(self, codes: list[int], k: int) -> Ledger:
        sent = []
        for segment in set(codes):
            members = [i for i, code in zip(self.customers, codes, strict=True) if code == segment]
            means = {}
            for j in range(len(self.world.w)):
                held = [self.score[i, j] for i in members if (i, j) in self.score]
                total = 0.0
                for score in held:
                    total += score
                means[j] = total / len(held) if held else -math.inf
            ranking = sorted(means, key=lambda j: (-means[j], j))
            sent += [pair for i in members for pair in self.walk_in_turn(ranking, i, k)]
        return sent

    def global_best(self, k: int, cap: float) -> Ledger:
        sent: Ledger = []
        self.take(sent, self.pairs(), k * len(self.customers), cap)
        return sent


def in_order(sent: Ledger) -> Ledger:
    return sorted(sent, key=lambda pair: (-pair[0], pair[1], pair[2]))


def rows_of(contacts: Contacts) -> Ledger:
    assert contacts.customer_index.dtype == np.int64
    assert contacts.capability_index.dtype == np.int32
    assert contacts.score.dtype == np.float64
    columns = (contacts.score, contacts.customer_index, contacts.capability_index)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def scored_variants(world: World, by: Any = "expected_value") -> Iterator[PairScores]:
    """With all scores kept, and with as few at a time as can be."""
    engine = world.engine(threads=1)
    yield PairScores(engine, by)
    yield PairScores(engine, by, cells_kept=0, cells_at_once=1)
    yield PairScores(engine, by, cells_kept=0, cells_at_once=7)


BY = st.sampled_from(["expected_value", "expected_value", "propensity"])
SHARES = st.sampled_from([0.2, 0.2, 0.5, 1.0])
MANY = settings(max_examples=40, deadline=None)


def opened(world: World) -> World:
    """The same world with hardly a gate closed, so that caps, limits and budgets bind."""
    channels = {offer["channel"] for offer in world.offers}
    kept = ("rule", "valid_from", "valid_to")
    rows = tuple({**row, **dict.fromkeys(kept)} for row in world.capabilities)
    policy = world.policy.model_copy(
        update={
            "k": min(3, world.policy.k),
            "consent_not_needed": tuple(channels),
            "cool_down_days": {},
            "exclusions": Exclusions(),
        }
    )
    return replace(world, capabilities=rows, policy=policy)


@st.composite
def some_worlds(draw: st.DrawFn, **bounds: Any) -> World:
    world = draw(worlds(**bounds))
    return opened(world) if draw(st.booleans()) else world


@st.composite
def settings_of_arms(draw: st.DrawFn) -> tuple[World, np.ndarray, list[int], Any]:
    world = draw(some_worlds(customers_max=7, capabilities_max=9))
    count = len(world.offers)
    popularity = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), float)
    order = sorted(range(count), key=lambda j: (-popularity[j], j))
    return world, popularity, order, draw(BY)


@MANY
@given(settings_of_arms(), SHARES)
def test_campaigns_send_to_their_best_in_order_of_popularity(drawn, share):
    world, popularity, order, by = drawn
    k, oracle = world.policy.k, Oracle(world, by)
    for scored in scored_variants(world, by):
        if not oracle.customers:
            assert scored.customer_count == 0
            continue
        made = arms.same_for_all(scored, popularity, k=k)
        assert rows_of(made) == in_order(oracle.same_for_all(order, k))
        for cap in (None, k):
            made = arms.campaigns(scored, popularity, k=k, cap=cap, share=share)
            assert rows_of(made) == in_order(oracle.campaigns(order, k, cap or math.inf, share))
        made = arms.campaigns_in_waves(scored, popularity, k=k, cap=k, share=share)
        assert rows_of(made) == in_order(oracle.waves(order, k, k, share))


@MANY
@given(settings_of_arms())
def test_products_share_the_budget_equally(drawn):
    world, popularity, _, by = drawn
    k, oracle = world.policy.k, Oracle(world, by)
    assume(oracle.customers)
    for scored in scored_variants(world, by):
        for cap in (None, k):
            made = arms.equal_slots(scored, popularity, k=k, cap=cap)
            assert rows_of(made) == in_order(oracle.equal_slots(popularity, k, cap or math.inf))


@MANY
@given(some_worlds(customers_max=8, capabilities_max=12), BY, st.integers(0, 4))
def test_the_global_best_is_the_walk_over_all_pairs(world, by, more):
    k, oracle = world.policy.k, Oracle(world, by)
    assume(oracle.customers)
    for scored in scored_variants(world, by):
        made = arms.global_best(scored, k=k)
        assert rows_of(made) == in_order(oracle.global_best(k, math.inf))
        made = arms.global_best(scored, k=k, cap=k + more)
        assert rows_of(made) == in_order(oracle.global_best(k, k + more))


@MANY
@given(some_worlds(customers_max=8, capabilities_max=12), BY)
def test_one_to_one_is_the_match_and_the_global_best_under_the_same_cap(world, by):
    k, oracle = world.policy.k, Oracle(world, by)
    assume(oracle.customers)
    for scored in scored_variants(world, by):
        made = rows_of(arms.one_to_one(scored, k=k))
        own = {i: [pair for pair in oracle.pairs() if pair[1] == i] for i in oracle.customers}
        expected: Ledger = []
        for pairs in own.values():
            oracle.take(expected, pairs, k, k)
        assert made == in_order(expected)
        assert made == rows_of(arms.global_best(scored, k=k, cap=k))
    if by == "expected_value":
        table = world.engine(threads=1).match().to_table(reasons=0)
        assert Counter(table["customer_id"].to_pylist()) == Counter(
            world.customers[i] for _, i, _ in made
        )
        assert sorted(table["expected_value"].to_pylist()) == sorted(score for score, _, _ in made)


@settings(max_examples=25, deadline=None)
@given(some_worlds(customers_max=8, capabilities_max=9, style="normal"), BY, st.integers(1, 3))
def test_segments_get_what_is_best_for_the_average_member(world, by, count):
    k, oracle = world.policy.k, Oracle(world, by)
    assume(oracle.customers)
    codes = segments_of(world.engine(), count=count, seed=3)
    assert len(codes) == len(oracle.customers)
    assert set(codes) <= set(range(count))
    for scored in scored_variants(world, by):
        made = arms.segments(scored, k=k, segment_count=count, seed=3)
        assert rows_of(made) == in_order(oracle.segments(codes.tolist(), k))


@MANY
@given(settings_of_arms())
def test_no_arm_breaks_a_limit_a_cap_or_the_budget(drawn):
    world, popularity, _, by = drawn
    k, oracle = world.policy.k, Oracle(world, by)
    assume(oracle.customers)
    scored = PairScores(world.engine(), by)
    made = {
        "A0": arms.same_for_all(scored, popularity, k=k),
        "A1": arms.campaigns(scored, popularity, k=k, cap=None),
        "A2": arms.campaigns(scored, popularity, k=k, cap=k),
        "A2w": arms.campaigns_in_waves(scored, popularity, k=k, cap=k),
        "A3": arms.equal_slots(scored, popularity, k=k),
        "A4": arms.equal_slots(scored, popularity, k=k, cap=k),
        "S": arms.segments(scored, k=k, segment_count=2, seed=0),
        "G": arms.global_best(scored, k=k),
    }
    # Where limits do not cross, whoever may get more than his k gets k, in every capped arm.
    counts = {name: len(contacts) for name, contacts in made.items()}
    if not oracle.limits:
        assert counts["A0"] == counts["A2"] == counts["A2w"] == counts["A4"] == counts["S"]
        assert counts["A1"] == counts["A3"] == counts["G"]
    for name, contacts in made.items():
        pairs = rows_of(contacts)
        assert pairs == in_order(pairs)
        assert len({pair[1:] for pair in pairs}) == len(pairs) <= k * len(oracle.customers)
        assert {pair[1:] for pair in pairs} <= set(oracle.score)
        if name not in ("A1", "A3", "G"):
            assert max(Counter(pair[1] for pair in pairs).values(), default=0) <= k
        for limit, labels in oracle.limits:
            held = Counter((pair[1], labels[pair[2]]) for pair in pairs)
            assert max(held.values(), default=0) <= limit


def test_the_global_best_follows_a_customer_as_far_as_it_matters():
    # One customer outbids all others: his list has to be followed to its end, past every doubling.
    rng = np.random.default_rng(0)
    names = [f"c{i:03}" for i in range(30)]
    world = World(
        indicators=np.concatenate([[[9.0]], rng.uniform(0, 1, (29, 1))]).astype(np.float32),
        indicator_names=("i",),
        customer_ids=tuple(names),
        attributes={},
        facts=(),
        capabilities=tuple(
            {
                "id": f"p{j:03}",
                "product": f"p{j:03}",
                "channel": "email",
                "weights": {"i": 1.0 + (j % 5)},
                "bias": 0.0,
                "value": 1.0,
                "cost": 0.0,
                "link": "identity",
            }
            for j in range(40)
        ),
        policy=Policy(k=2, ev_min=None, consent_not_needed=("email",)),
    )
    for scored in scored_variants(world):
        made = rows_of(arms.global_best(scored, k=2))
        assert made == in_order(Oracle(world).global_best(2, math.inf))
        assert Counter(pair[1] for pair in made)[0] == 40
        assert len(made) == 60


@pytest.mark.parametrize("size", [0, 1, 3, 4, 9])
def test_best_first_breaks_ties_by_what_it_is_given(size):
    score = np.array([1.0, 2.0, -np.inf, 2.0, 1.0, 2.0])
    tie = np.array([0, 5, 1, 4, 3, 3])
    assert best_first(score, size).tolist() == [1, 3, 5, 0, 4][:size]
    assert best_first(score, size, tie).tolist() == [5, 3, 1, 0, 4][:size]


def test_walk_skips_what_is_closed_or_full():
    groups = (Group(1, np.array([0, 0, 1, 1])), Group(2, np.array([0, 0, 0, 1])))
    is_open = np.array([[True, True, True, True], [False, True, True, True]])
    taken = walk(np.arange(4), is_open, groups, np.array([3, 1]))
    assert taken.tolist() == [[True, False, True, False], [False, True, False, False]]
    backwards = walk(np.array([[3, 2, 1, 0]] * 2), is_open[:, ::-1], groups, None)
    assert backwards.tolist() == [[True, False, True, False], [True, False, True, False]]
    used = [np.array([[1, 0], [0, 0]], np.uint16), np.zeros((2, 2), np.uint16)]
    taken = walk(np.arange(4), is_open, groups, None, used)
    assert taken.tolist() == [[False, False, True, False], [False, True, True, False]]
