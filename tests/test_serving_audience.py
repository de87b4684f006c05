"""Audiences on another day, of drafts in the place of what is served, and with their reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_overlay import Group, groups
from test_serving import EXAMPLES, drawn_context, recorded, richest
from test_serving_explain import served
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.engine.matches import reason_lists, reasons_of
from visavis.errors import InputError
from visavis.policy import Policy
from visavis.serving import Audience, Context, Selection
from worlds import Row, World, worlds

KINDS = {
    "capabilities": "id",
    "products": "product",
    "families": "family",
    "channels": "channel",
}


def leaves_out(context: Context, offer: Row) -> bool:
    """Whether the context leaves a capability out that the catalog holds."""
    channels = context.available_channels
    shut = channels is not None and offer["channel"] not in channels
    family = {"family": offer["product"], **offer}
    only, without = context.only._asdict(), context.without._asdict()
    return shut or any(
        (only[kind] is not None and family[column] not in only[kind])
        or (without[kind] is not None and family[column] in without[kind])
        for kind, column in KINDS.items()
    )


def with_closed(policy: Policy, closed: set[str]) -> Policy:
    excluded = policy.exclusions
    names = tuple(sorted({*excluded.capabilities, *closed}))
    return policy.model_copy(
        update={"exclusions": excluded.model_copy(update={"capabilities": names})}
    )


def assert_is(found: Audience, engine: Engine, name: str, *, k: int, reasons: int) -> None:
    """The audience of the batch, with the reasons of a match."""
    meant = engine.audience([name], k=k)
    assert found.customer_ids == meant["customer_id"].to_pylist()
    assert found.expected_value.tolist() == meant["expected_value"].to_pylist()
    assert found.propensity.tolist() == meant["propensity"].to_pylist()
    assert found.control.tolist() == meant["control"].to_pylist()
    assert found.possible_count == engine.audience([name], k=99).num_rows
    matched = engine.match().to_table()["capability_id"].to_pylist()
    assert found.reach == matched.count(name)
    rows = np.array([engine.base.index_of(each) for each in found.customer_ids], dtype=np.int64)
    j = np.full(len(rows), engine.catalog.index_of(name), dtype=np.int32)
    assert found.reasons is not None
    told = reason_lists(found.reasons, found.indicator_names).to_pylist()
    assert told == reasons_of(engine, rows, j, count=reasons).to_pylist()


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(
    world=worlds(),
    said=st.lists(groups(), max_size=2),
    seed=st.integers(0, 2**32 - 1),
    history_bytes=st.sampled_from([0, 2**30]),
)
def test_an_audience_on_any_day_and_of_any_draft_is_that_of_the_batch(
    world: World, said: list[Group], seed: int, history_bytes: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn, _ = drawn_context(world, rng)
    context = replace(drawn, indicators={}, attributes={})
    limits = ("k", "ev_min", "product_limit", "channel_limit", "family_limit")
    tighter = {name: getattr(context, name) for name in limits}
    policy = world.policy.model_copy(
        update={name: limit for name, limit in tighter.items() if limit is not None}
    )
    day = world.as_of if context.as_of is None else context.as_of
    one, other = (world.offers[int(rng.integers(len(world.offers)))] for _ in range(2))
    capabilities = {each["id"]: each for each in world.capabilities}
    draft = {**capabilities[other["id"]], "id": one["id"]}
    new = {**capabilities[other["id"]], "id": str(rng.choice(["", "m", "zz"])) + "draft"}
    with served(world, [], history_bytes=history_bytes) as (serving, _):
        # Asked before as well, so that what is kept from then must still be right.
        serving.find_audience(one["id"], Context(as_of=day), k=2, reach=True)
        for number, group in enumerate(said):
            recorded(serving, group, str(number))
        journal = serving._journal
        assert journal is not None
        now = journal.overlay().apply(world.base)
        asked: Any
        for asked in (one["id"], draft, new):
            offers = dict(capabilities)
            name = asked
            if isinstance(asked, dict):
                name = asked["id"]
                offers[name] = asked
            closed = {each["id"] for each in offers.values() if leaves_out(context, each)}
            if asked is new:
                closed.discard(name)
                channels = context.available_channels
                if channels is not None and new["channel"] not in channels:
                    closed.add(name)
            try:
                catalog = Catalog.from_rows(list(offers.values()))
                Engine(now, catalog, world.policy, as_of=day)
            except InputError:
                # The policy speaks of what the draft has taken the place of.
                with pytest.raises(InputError):
                    serving.find_audience(asked, context, k=3, reach=True)
                continue
            engine = Engine(now, catalog, with_closed(policy, closed), as_of=day)
            found = serving.find_audience(asked, context, k=3, reach=True, reasons=2)
            assert found.name == serving.name._replace(as_of=day)
            assert_is(found, engine, name, k=3, reasons=2)


@pytest.fixture(name="world", scope="module")
def a_world() -> World:
    return richest()


def test_a_draft_is_left_out_in_the_place_of_another_and_not_beside_it(world: World) -> None:
    channels = tuple(sorted({each["channel"] for each in world.capabilities}))
    policy = Policy(k=3, ev_min=None, consent_not_needed=channels)
    offers = [{**each, "rule": None} for each in world.capabilities]
    offers = [{**each, "valid_from": None, "valid_to": None} for each in offers]
    open_world = replace(world, policy=policy, capabilities=tuple(offers), facts=())
    draft = offers[0]
    context = Context(without=Selection(products=[draft["product"]]))
    with served(open_world, [], history_bytes=0) as (serving, _):
        assert serving.find_audience(draft, context, k=1).possible_count == 0
        beside = {**draft, "id": "new"}
        assert serving.find_audience(beside, context, k=1).possible_count > 0
        assert serving.find_audience(draft, k=1).possible_count > 0


def test_what_is_wrong_with_an_audience_is_refused_by_its_field(world: World) -> None:
    with served(world, [], history_bytes=0) as (serving, _):
        name = world.offers[0]["id"]
        for context, field in (
            (Context(as_of="2019-01-01"), "context.as_of"),
            (Context(as_of="soon"), "context.as_of"),
            (Context(indicators={world.indicator_names[0]: 1.0}), "context.indicators"),
        ):
            with pytest.raises(InputError) as caught:
                serving.find_audience(name, context, k=1)
            assert caught.value.field == field
        with pytest.raises(InputError) as caught:
            serving.find_audience(name, k=1, reasons=-1)
        assert caught.value.field == "reasons"
        nobody = serving.find_audience(name, Context(available_channels=["fax"]), k=1, reasons=3)
        assert nobody.reasons is not None
        assert nobody.reasons.offsets.tolist() == [0]
