"""Explanations online are those of the batch, of customers of the base and of profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_overlay import Group, appended, groups
from test_serving import EXAMPLES, drawn_context, said_of_all
from visavis.base import Base
from visavis.domain import Obstacle
from visavis.engine import Engine, Explanation
from visavis.errors import InputError, NotFoundError
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Context, Profiles, Selection, Serving
from worlds import World, worlds

#: What a request closes is an exclusion to a policy that says the same.
ASKED = (Obstacle.EXCLUSION, Obstacle.FILTER, Obstacle.AVAILABILITY)


@contextmanager
def served(
    world: World, said: list[Group], *, history_bytes: int
) -> Iterator[tuple[Serving, Base]]:
    """The world behind a journal, and the base that both make."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        journal = stack.enter_context(Journal.open(f"{folder}/journal", create=True))
        for group in said:
            appended(journal, group)
        serving = stack.enter_context(
            Serving.open(
                world.base.write(f"{folder}/base", parts=2),
                world.catalog,
                world.policy,
                journal=journal,
                as_of=world.as_of,
                threads=1,
                history_bytes=history_bytes,
            )
        )
        yield serving, journal.overlay().apply(world.base)


def profile_of(base: Base, i: int) -> Profiles:
    """What the base knows of its row `i`, as a request would bring it."""
    facts = base.facts_of(i)
    return Profiles(
        indicators=base.indicators[i : i + 1],
        attributes=base.attributes.slice(i, 1),
        facts=facts.set_column(0, "customer_index", pa.array(np.zeros(len(facts), np.int64))),
        customer_ids=[base.customer_ids[i].as_py()],
    )


def assert_told(told: Explanation, meant: Explanation) -> None:
    """The batch's explanation, but for how it is said that the request closes something."""
    is_closed, *others = (
        any(not gate.is_open for gate in found.gates if gate.name in ASKED)
        for found in (told, meant)
    )
    assert others == [is_closed]
    kept = [gate for gate in told.gates if gate.name not in ASKED]
    assert kept == [gate for gate in meant.gates if gate.name is not Obstacle.EXCLUSION]
    if meant.obstacle is Obstacle.EXCLUSION:
        assert told.obstacle in ASKED
        told, meant = (replace(each, obstacle=None, verdict="") for each in (told, meant))
    if is_closed:
        told, meant = (replace(each, remedies=()) for each in (told, meant))
    assert replace(told, gates=()) == replace(meant, gates=())


@settings(max_examples=EXAMPLES // 8, deadline=None)
@given(
    world=worlds(customers_max=3, capabilities_max=7),
    said=st.lists(groups(), max_size=2),
    seed=st.integers(0, 2**32 - 1),
    history_bytes=st.sampled_from([0, 2**30]),
)
def test_an_explanation_is_that_of_the_batch(
    world: World, said: list[Group], seed: int, history_bytes: int
) -> None:
    context, policy = drawn_context(world, np.random.default_rng(seed))
    with served(world, said, history_bytes=history_bytes) as (serving, now):
        plain = Engine(now, world.catalog, world.policy, as_of=world.as_of)
        day = world.as_of if context.as_of is None else context.as_of
        engine = Engine(said_of_all(now, context), world.catalog, policy, as_of=day)
        for i, customer_id in enumerate(world.customers):
            profile = profile_of(now, i)
            for offer in world.offers[:4]:
                pair = customer_id, offer["id"]
                found = serving.explain(*pair)
                assert found.name == serving.name
                assert found.explanation == plain.explain(*pair)
                assert serving.explain_profile(profile, offer["id"]) == found
                found = serving.explain(*pair, context)
                assert found.name == serving.name._replace(as_of=day)
                assert_told(found.explanation, engine.explain(*pair))
                assert serving.explain_profile(profile, offer["id"], context) == found


@pytest.mark.parametrize(
    ("context", "obstacle", "said"),
    [
        (
            Context(without=Selection(products=["tea"])),
            Obstacle.EXCLUSION,
            "the request excludes product 'tea'",
        ),
        (
            Context(only=Selection(products=["tea"], capabilities=["b"])),
            Obstacle.FILTER,
            "the request's filter does not admit capability 'a'",
        ),
        (
            Context(available_channels=["phone"]),
            Obstacle.AVAILABILITY,
            "email is not available now, says the request",
        ),
    ],
)
def test_what_a_request_closes_is_told_apart(
    context: Context, obstacle: Obstacle, said: str
) -> None:
    world = World(
        indicators=np.ones((1, 1), np.float32),
        indicator_names=("x",),
        customer_ids=("c",),
        attributes={},
        facts=(),
        capabilities=tuple(
            {"id": name, "product": "tea", "channel": channel, "weights": {"x": 1.0}, "bias": 0.0}
            for name, channel in (("a", "email"), ("b", "phone"))
        ),
        policy=Policy(consent_not_needed=("email", "phone")),
    )
    with served(world, [], history_bytes=0) as (serving, _):
        found = serving.explain("c", "a", context).explanation
        assert (found.obstacle, found.verdict) == (obstacle, f"not eligible: {said}")
        assert found.expected_value is not None
        assert len(found.remedies) == 1
        opened = serving.explain("c", "a", Context(available_channels=["email"])).explanation
        assert opened.obstacle is None
        assert [gate.name for gate in opened.gates][:3] == [
            Obstacle.OBJECTION,
            Obstacle.EXCLUSION,
            Obstacle.AVAILABILITY,
        ]


def test_a_profile_to_be_explained_is_one_with_an_id(world: World) -> None:
    with served(world, [], history_bytes=0) as (serving, now):
        offer = world.offers[0]["id"]
        one = profile_of(now, 0)
        for wrong in (
            replace(one, customer_ids=None),
            Profiles(indicators=one.indicators[:0], customer_ids=[]),
        ):
            with pytest.raises(InputError) as caught:
                serving.explain_profile(wrong, offer)
            assert caught.value.field == "profiles"
        with pytest.raises(NotFoundError):
            serving.explain_profile(one, "nothing")


@pytest.fixture(name="world", scope="module")
def some_world() -> World:
    from test_serving import richest

    return richest()
