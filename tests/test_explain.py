"""Every pair of whole worlds explained, against a derivation of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import visavis
from visavis.domain import FactKind
from visavis.engine import Engine, Explanation
from visavis.errors import InputError, NotFoundError
from visavis.policy import Exclusions, Policy
from worlds import AS_OF, World, worlds


def category(world: World, i: int, j: int) -> tuple[str, int | None, list[int]]:
    """What stands in the way of a pair, first things first; its rank; what took its place."""
    closed = world.closed_gates(i, j)
    if closed:
        return closed[0], None, []
    if world.h(i, j) == -np.inf:
        return "history", None, []
    ev, policy = world.scores.expected_value[i], world.policy
    least = -np.inf if policy.ev_min is None else policy.ev_min
    if ev[j] < least:
        return "minimum", None, []
    fits = [c for c in range(len(ev)) if world.allowed[i, c] and ev[c] >= least]
    taken: list[int] = []
    for c in sorted(fits, key=lambda c: (-ev[c], c)):
        is_full = len(taken) == policy.k
        if c == j and is_full:
            return "k", None, taken
        group = limit_broken(world, taken, c)
        if c == j and group is not None:
            same = [t for t in taken if world.offers[t][group] == world.offers[c][group]]
            return f"{group} limit", None, same
        if c == j:
            return "opportunity", len(taken) + 1, []
        if not is_full and group is None:
            taken.append(c)
    raise AssertionError("the walk passes every pair that fits")


def limit_broken(world: World, taken: list[int], c: int) -> str | None:
    for group in ("product", "channel", "family"):
        limit = getattr(world.policy, f"{group}_limit")
        same = [t for t in taken if world.offers[t][group] == world.offers[c][group]]
        if limit is not None and len(same) >= limit:
            return group
    return None


def said(found: Explanation) -> str:
    """The category that a verdict speaks of."""
    if found.verdict.startswith("not eligible: "):
        (gate, *_) = (gate for gate in found.gates if not gate.is_open)
        assert found.verdict == f"not eligible: {gate.detail}"
        return gate.name
    for part, name in (
        ("opportunity ", "opportunity"),
        ("is below the minimum", "minimum"),
        ("better opportunities fill", "k"),
        *((f"per {group} is used up", f"{group} limit") for group in GROUPS),
    ):
        if part in found.verdict:
            return name
    raise AssertionError(found.verdict)


GROUPS = ("product", "channel", "family")


def sum_in_order_of_the_law(world: World, found: Explanation, h: float) -> float:
    """docs/score.md §2, from the contributions that were told."""
    told = {term.name: term.contribution for term in found.contributions}
    partial = [0.0] * 8
    for d, name in enumerate(world.indicator_names):
        partial[d % 8] += told.get(name, 0.0)
    pairs = [partial[d] + partial[d + 1] for d in (0, 2, 4, 6)]
    return (((pairs[0] + pairs[1]) + (pairs[2] + pairs[3])) + found.bias) + h


def assert_numbers(world: World, found: Explanation, i: int, j: int) -> None:
    h = world.h(i, j)
    assert found.linear_predictor is not None
    assert found.propensity is not None
    assert found.expected_value is not None
    scores = world.scores
    assert found.linear_predictor.hex() == scores.linear_predictor[i, j].hex()
    assert found.propensity.hex() == scores.propensity[i, j].hex()
    assert found.expected_value.hex() == scores.expected_value[i, j].hex()
    assert sum_in_order_of_the_law(world, found, h) == found.linear_predictor
    plain = found.bias + sum(term.contribution for term in found.contributions)
    assert plain == pytest.approx(found.linear_predictor, abs=1e-12)

    terms = [(term.name, term.contribution) for term in found.contributions]
    assert terms == [(name, amount) for name, amount in world.terms(i, j) if amount]
    for term in found.contributions:
        if term.name == "history":
            assert (term.value, term.weight) == (None, None)
        else:
            d = world.indicator_names.index(term.name)
            assert (term.value, term.weight) == (world.x[i, d], world.w[j, d])
    total = 0.0
    for _, amount in found.history_terms:
        total += amount
    assert np.float32(total) == h
    assert len(found.history_terms) == len(world.catalog.history_weights[j])


@settings(max_examples=60)
@given(worlds(customers_max=5, capabilities_max=7))
def test_every_pair_of_a_world_is_explained(world: World) -> None:
    engine = world.engine(threads=1)
    rank_of = {
        (row["customer_id"], row["capability_id"]): row["rank"]
        for row in engine.match().to_table().to_pylist()
    }
    for i, customer_id in enumerate(world.customers):
        for j, offer in enumerate(world.offers):
            found = engine.explain(customer_id, offer["id"])
            assert (found.customer_id, found.capability_id) == (customer_id, offer["id"])
            assert found.as_of == world.as_of
            assert found.bias == np.float32(offer["bias"])
            wanted, rank, better = category(world, i, j)
            assert said(found) == wanted == (found.obstacle or "opportunity")
            ids = [offer["id"] for offer in world.offers]
            assert found.better_capability_ids == tuple(ids[c] for c in better)
            assert found.rank == rank == rank_of.get((customer_id, offer["id"]))
            assert (found.remedies == ()) == (rank is not None)
            closed = dict.fromkeys(gate.name for gate in found.gates if not gate.is_open)
            assert [name for name in closed if name != "history"] == world.closed_gates(i, j)
            if closed and not found.contributions and found.linear_predictor is None:
                assert "objection" in closed or "history" in closed
                assert (found.propensity, found.expected_value) == (None, None)
                assert found.history_terms == ()
            else:
                assert "objection" not in closed
                assert_numbers(world, found, i, j)


def capability(name: str, weight: float, **columns: Any) -> dict[str, Any]:
    return {
        "id": name,
        "product": name,
        "channel": "email",
        "family": "f",
        "weights": {"x": weight},
        "bias": 0.0,
        "value": 1.0,
        "cost": 0.0,
        "link": "identity",
        **columns,
    }


def world_of(*capabilities: dict[str, Any], facts: Any = (), **policy: Any) -> World:
    return World(
        indicators=np.ones((1, 1), np.float32),
        indicator_names=("x",),
        customer_ids=("c",),
        attributes={},
        facts=tuple({"customer_id": "c", "date": AS_OF, "count": 1, **fact} for fact in facts),
        capabilities=capabilities,
        policy=Policy(**{"consent_not_needed": ("email",), **policy}),
    )


def explain(world: World, capability_id: str) -> Explanation:
    return world.engine().explain("c", capability_id)


def test_an_opportunity_says_its_place() -> None:
    world = world_of(capability("a", 1), capability("b", 2))
    assert explain(world, "a").verdict == "opportunity 2 of 2"
    assert explain(world, "b").verdict == "opportunity 1 of 2"


def test_beyond_k_says_what_it_would_take() -> None:
    found = explain(world_of(capability("a", 1), capability("b", 2), k=1), "a")
    assert found.verdict == "1 better opportunities fill the policy's k = 1"
    assert found.remedies == ("an expected value above 2.0000 (it is 1.0000)", "a k above 1")


def test_a_tie_goes_to_the_first_id_and_the_second_is_beyond() -> None:
    world = world_of(capability("a", 1), capability("b", 1), k=1)
    assert explain(world, "a").rank == 1
    assert explain(world, "b").rank is None


def test_below_the_minimum_says_the_minimum() -> None:
    found = explain(world_of(capability("a", 1), ev_min=2.5), "a")
    assert found.verdict == "expected value 1.0000 is below the minimum 2.5"
    assert found.remedies == ("an expected value of at least 2.5",)


@pytest.mark.parametrize("group", ["product", "channel", "family"])
def test_a_limit_names_who_used_it_up(group: str) -> None:
    same = {"product": "p", "channel": "email", "family": "f"}
    other = {"product": "q", "channel": "phone", "family": "g"}
    world = world_of(
        capability("a", 3, **same),
        capability("b", 2, **{**other, group: same[group]}),
        capability("c", 1, **other),
        consent_not_needed=("email", "phone"),
        **{f"{group}_limit": 1},
    )
    found = explain(world, "b")
    assert found.verdict == f"the limit of 1 per {group} is used up by a"
    assert found.remedies[0] == f"a limit per {group} above 1"
    assert explain(world, "c").rank == 2


def test_history_that_excludes_leaves_no_score() -> None:
    excluded = {"product": "a", "kind": str(FactKind.EXCLUDED)}
    found = explain(world_of(capability("a", 1), facts=(excluded,)), "a")
    assert found.verdict == "not eligible: a fact excludes this customer from it"
    assert found.remedies == ("the fact that excludes it falling away",)
    assert found.linear_predictor is None


def test_an_excluded_customer_is_told_so() -> None:
    world = world_of(capability("a", 1), exclusions=Exclusions(customers=("c",)))
    found = explain(world, "a")
    assert found.verdict == "not eligible: the policy excludes customer 'c'"
    assert found.rank is None
    assert found.expected_value == 1.0


def test_history_terms_say_what_the_history_is_made_of() -> None:
    terms = [
        {"kind": "bought", "feature": "days", "half_life_days": 60.0, "weight": 1.25},
        {"kind": "refused", "feature": "ever", "weight": -3.0},
    ]
    facts = ({"product": "a", "kind": "bought"},)
    found = explain(world_of(capability("a", 1, history_weights=terms), facts=facts), "a")
    assert found.history_terms == (("bought days, half-life 60 d", 1.25), ("refused ever", 0.0))
    assert [(term.name, term.contribution) for term in found.contributions] == [
        ("history", 1.25),
        ("x", 1.0),
    ]


def test_an_id_that_is_not_there_is_not_found() -> None:
    engine = world_of(capability("a", 1)).engine()
    for customer_id, capability_id, named in (("d", "a", "'d'"), ("c", "b", "'b'")):
        with pytest.raises(NotFoundError, match=named):
            engine.explain(customer_id, capability_id)
    with pytest.raises(InputError):
        engine.explain(7, "a")  # type: ignore[arg-type]


def test_the_function_explains_as_the_engine_does() -> None:
    world = world_of(capability("a", 1))
    args, day = (world.base, world.catalog, world.policy), AS_OF + timedelta(days=9)
    found = visavis.explain(*args, "c", "a", as_of=day.isoformat(), threads=1)
    assert found == Engine(*args, as_of=day).explain("c", "a")
    assert found.as_of == day
