"""The naive baseline against itself in plain Python, and against the rules that bind it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from visavis.campaign import CampaignRun, run_campaigns
from visavis.errors import InputError, SchemaError
from visavis.policy import Policy
from worlds import AS_OF, World, worlds

#: Two ways to compute exp differ by less; values closer than this would be a draw.
TIE = 1e-9

GROUPS = ("product", "channel", "family")


def plain_ev(world: World) -> np.ndarray:
    """Expected values by Python's own functions; NaN where history excludes the pair."""
    ev = np.full(world.allowed.shape, np.nan)
    for i, x in enumerate(world.x.tolist()):
        for j, offer in enumerate(world.offers):
            h = world.h(i, j)
            if h == -math.inf:
                continue
            z = math.fsum(a * b for a, b in zip(x, world.w[j].tolist(), strict=True))
            z += offer["bias"] + h
            if offer["link"] == "logistic":
                g = 1 / (1 + math.exp(-z))
            else:
                g = z if offer["link"] == "identity" else math.log1p(math.exp(z))
            ev[i, j] = g * offer["value"] - offer["cost"]
    return ev


def is_drawn(world: World, ev: np.ndarray, least: float) -> bool:
    """Whether some campaign has to choose between equals, or between a value and its minimum."""
    inside = np.array([not world.is_out(i) for i in range(len(ev))])
    for column, allowed in zip(ev.T, world.allowed.T, strict=True):
        values = np.sort(np.append(column[inside & allowed & ~np.isnan(column)], least))
        if (np.diff(values[np.isfinite(values)]) < TIE).any():
            return True
    return False


def by_hand(world: World, ev: np.ndarray, share: float, order: list[int]) -> list[tuple[int, int]]:
    """Campaign after campaign, contact after contact."""
    policy = world.policy
    least = -math.inf if policy.ev_min is None else policy.ev_min
    inside = [i for i in range(len(world.customers)) if not world.is_out(i)]
    size = max(1, int(share * len(inside)))
    given: list[tuple[int, int]] = []
    for j in order:
        fits = [i for i in inside if world.allowed[i, j] and not np.isnan(ev[i, j])]
        for i in sorted(fits, key=lambda i: -ev[i, j])[:size]:
            if ev[i, j] >= least and not breaks(world, given, i, j):
                given.append((i, j))
    return given


def breaks(world: World, given: list[tuple[int, int]], i: int, j: int) -> bool:
    own = [c for customer, c in given if customer == i]
    if len(own) >= world.policy.k:
        return True
    for group in GROUPS:
        limit = getattr(world.policy, f"{group}_limit")
        same = [c for c in own if world.offers[c][group] == world.offers[j][group]]
        if limit is not None and len(same) >= limit:
            return True
    return False


def pairs(run: CampaignRun) -> list[tuple[int, int]]:
    return [*zip(run.customer_index.tolist(), run.capability_index.tolist(), strict=True)]


@settings(max_examples=100)
@given(
    worlds(style="exact", customers_max=10),
    st.sampled_from([0.01, 0.2, 0.34, 0.5, 0.9, 1.0]),
    st.randoms(use_true_random=False),
)
def test_campaigns_send_what_they_send_by_hand(world: World, share: float, random: Any) -> None:
    # A value of 0 makes equals of all customers.
    capabilities = tuple({**row, "value": row["value"] or 2.0} for row in world.capabilities)
    world = replace(world, capabilities=capabilities)
    ev = plain_ev(world)
    least = -math.inf if world.policy.ev_min is None else world.policy.ev_min
    assume(not is_drawn(world, ev, least))
    order = random.sample(range(len(world.offers)), random.randint(0, len(world.offers)))
    run = run_campaigns(world.engine(threads=1), share=share, order=np.array(order, np.int64))
    wanted = by_hand(world, ev, share, order)
    assert pairs(run) == wanted
    np.testing.assert_allclose(run.expected_value, [ev[pair] for pair in wanted], atol=1e-12)
    assert run.campaign_count == len(order)
    inside = sum(not world.is_out(i) for i in range(len(world.customers)))
    assert run.pair_count == len(order) * inside
    assert run.seconds >= 0


@settings(max_examples=60)
@given(worlds(customers_max=12), st.sampled_from([0.2, 1.0]))
def test_campaigns_stay_within_rules_and_limits_whatever_ties(world: World, share: float) -> None:
    run = run_campaigns(world.engine(threads=1), share=share)
    given = pairs(run)
    assert len(set(given)) == len(given)
    least = -math.inf if world.policy.ev_min is None else world.policy.ev_min
    for (i, j), ev in zip(given, run.expected_value.tolist(), strict=True):
        assert world.allowed[i, j]
        assert not world.is_out(i)
        assert world.h(i, j) > -math.inf
        assert ev >= least
        assert ev == pytest.approx(world.scores.expected_value[i, j], rel=1e-5, abs=1e-5)
    assert max(Counter(i for i, _ in given).values(), default=0) <= world.policy.k
    for group in GROUPS:
        used = Counter((i, world.offers[j][group]) for i, j in given)
        limit = getattr(world.policy, f"{group}_limit")
        assert max(used.values(), default=0) <= (math.inf if limit is None else limit)


def small(weights: list[float], customers: int = 4, **changed: Any) -> World:
    """Customer number i is worth i times the weight of each capability."""
    policy = {"consent_not_needed": ("email",), "k": 9, **changed.pop("policy", {})}
    return World(
        indicators=np.arange(1, customers + 1, dtype=np.float32)[:, None],
        indicator_names=("x",),
        customer_ids=tuple("abcdefgh"[:customers]),
        attributes={},
        facts=changed.pop("facts", ()),
        capabilities=tuple(
            {
                "id": f"t{number}",
                "product": "p",
                "channel": "email",
                "weights": {"x": weight},
                "bias": 0.0,
                "value": 1.0,
                "cost": 0.0,
                "link": "identity",
                **changed,
            }
            for number, weight in enumerate(weights)
        ),
        policy=Policy(**policy),
    )


@pytest.mark.parametrize(
    ("share", "sent"),
    [(1e-9, [3]), (0.25, [3]), (0.74, [3, 2]), (0.75, [3, 2, 1]), (1, [3, 2, 1, 0])],
)
def test_the_share_is_of_all_customers_and_at_least_one(share: float, sent: list[int]) -> None:
    run = run_campaigns(small([1.0]).engine(), share=share)
    assert run.customer_index.tolist() == sent
    assert run.customer_index.dtype == np.int64
    assert run.capability_index.dtype == np.int32


def test_the_order_of_the_campaigns_decides_who_comes_first() -> None:
    world = small([1.0, 2.0], policy={"k": 1})
    first = run_campaigns(world.engine(), share=1.0)
    assert set(first.capability_index.tolist()) == {0}
    other = run_campaigns(world.engine(), share=1.0, order=np.array([1, 0]))
    assert set(other.capability_index.tolist()) == {1}
    only = run_campaigns(world.engine(), share=0.5, order=np.array([1]))
    assert (pairs(only), only.campaign_count) == ([(3, 1), (2, 1)], 1)
    none = run_campaigns(world.engine(), order=np.array([], np.int64))
    assert (pairs(none), none.campaign_count, none.pair_count) == ([], 0, 0)


@pytest.mark.parametrize(
    ("order", "kind", "row"),
    [
        ([0, 2], InputError, 1),
        ([-1], InputError, 0),
        ([0, 1, 0], InputError, None),
        ([0.0], SchemaError, None),
        ([[0]], SchemaError, None),
        (["t0"], SchemaError, None),
    ],
)
def test_an_order_that_names_no_capability_is_refused(
    order: Any, kind: type[InputError], row: int | None
) -> None:
    with pytest.raises(InputError) as caught:
        run_campaigns(small([1.0, 2.0]).engine(), order=np.array(order))
    assert (caught.value.field, caught.value.row) == ("order", row)
    assert type(caught.value) is kind


def test_a_value_of_just_the_minimum_is_worth_a_contact() -> None:
    run = run_campaigns(small([1.0], policy={"ev_min": 3.0}).engine(), share=1.0)
    assert run.expected_value.tolist() == [4.0, 3.0]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0000001, float("nan"), float("inf")])
def test_a_share_outside_its_bounds_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"\(0, 1\]") as caught:
        run_campaigns(small([1.0]).engine(), share=share)
    assert caught.value.field == "share"


def test_where_nobody_may_be_contacted_nothing_is_sent() -> None:
    world = small([1.0, 2.0])
    consents = {f"consent_{channel}": True for channel in ("email", "phone", "letter")}
    unknown = dict.fromkeys(("age", "country", "member", "born", "score"))
    row = {**unknown, **consents, "objected": True}
    nobody = replace(world, attributes=dict.fromkeys(world.customer_ids, row))
    for each in (nobody, small([1.0, 2.0], rule="null"), small([1.0, 2.0], valid_to=AS_OF.min)):
        run = run_campaigns(each.engine(), share=1.0)
        assert pairs(run) == []
        assert run.expected_value.dtype == np.float64
        assert run.campaign_count == 2


@pytest.mark.parametrize("link", ["identity", "logistic", "count"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_fact_that_excludes_is_never_contacted_even_without_a_minimum(
    link: str, value: float
) -> None:
    fact = {"customer_id": "d", "product": "p", "kind": "excluded", "date": AS_OF, "count": 1}
    world = small([1.0], facts=(fact,), link=link, value=value, policy={"ev_min": None})
    run = run_campaigns(world.engine(), share=1.0)
    assert sorted(run.customer_index.tolist()) == [0, 1, 2]
    assert np.isfinite(run.expected_value).all()


def test_what_float32_cannot_hold_is_no_error() -> None:
    world = replace(
        small([1.0], policy={"ev_min": None}),
        indicators=np.array([[3e38], [-3e38], [1], [2]], np.float32),
    )
    world = replace(world, capabilities=({**world.capabilities[0], "weights": {"x": 3.0}},))
    for link in ("identity", "logistic", "count"):
        each = replace(world, capabilities=({**world.capabilities[0], "link": link},))
        run = run_campaigns(each.engine(), share=1.0)
        assert {2, 3} <= set(run.customer_index.tolist())


def test_progress_tells_every_campaign() -> None:
    seen: list[tuple[int, int]] = []
    run_campaigns(small([1.0, 2.0, 3.0]).engine(), progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
