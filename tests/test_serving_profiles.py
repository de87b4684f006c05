"""Who objected has no opportunity, whatever a profile says that comes with a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from test_serving import richest
from visavis.base import StoredBase
from visavis.domain import Obstacle
from visavis.erasure import forget_in_base
from visavis.journal import Journal, compact
from visavis.policy import Policy
from visavis.serving import Profiles, Serving
from visavis.store import open_place
from worlds import World


@pytest.fixture(name="world", scope="module")
def a_world() -> World:
    """One in which whoever has not objected has opportunities."""
    world = richest()
    always = {"rule": None, "valid_from": None, "valid_to": None, "history_weights": []}
    offers = tuple({**each, **always} for each in world.capabilities)
    channels = tuple(sorted({each["channel"] for each in offers}))
    policy = Policy(k=3, ev_min=None, consent_not_needed=channels)
    return replace(world, policy=policy, capabilities=offers)


@pytest.fixture(name="stored")
def a_stored_base(world: World, tmp_path: Path) -> StoredBase:
    return world.base.write(tmp_path / "base", parts=4)


@pytest.fixture(name="journal")
def a_journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal", create=True) as made:
        yield made


def served(world: World, stored: StoredBase, journal: Journal | None) -> Serving:
    return Serving.open(stored, world.catalog, world.policy, journal=journal, as_of=world.as_of)


def matched(serving: Serving, world: World, names: list[str]) -> list[bool]:
    """Who of some, given as profiles without an objection, has opportunities."""
    x = np.repeat(world.base.indicators[:1], len(names), axis=0)
    profiles = Profiles(indicators=x, customer_ids=names)
    for name in names:
        alone = replace(profiles, indicators=x[:1], customer_ids=[name])
        offer = serving.version.catalog.ids[0]
        obstacle = serving.explain_profile(alone, offer).explanation.obstacle
        has_any = serving.match_profiles(alone).opportunity_count[0] > 0
        assert (obstacle is Obstacle.OBJECTION) is not has_any
    return [count > 0 for count in serving.match_profiles(profiles).opportunity_count.tolist()]


def test_an_objection_that_the_base_holds(world: World, tmp_path: Path) -> None:
    names = world.customers
    objected = dict.fromkeys(names, False) | {names[0]: True, names[-1]: True}
    table = pa.table({"customer_id": names, "objected": [objected[name] for name in names]})
    attributes = world.base.attributes
    at = attributes.column_names.index("objected")
    base = replace(world.base, attributes=attributes.set_column(at, "objected", table["objected"]))
    with served(world, base.write(tmp_path / "base", parts=4), None) as serving:
        asked = [*names, "stranger"]
        assert matched(serving, world, asked) == [not objected.get(name) for name in asked]


def test_an_objection_older_than_the_base_of_somebody_whom_it_does_not_hold(
    world: World, stored: StoredBase, journal: Journal, tmp_path: Path
) -> None:
    journal.append(objections=["stranger"])
    later = compact(stored, journal.overlay())
    journal.append(objections=["another"])
    asked = ["stranger", "another", "nobody"]
    assert later.manifest.journal_offset == 1
    with served(world, later, journal) as serving:
        assert matched(serving, world, asked) == [False, False, True]
        serving.record("r", objections=["nobody"])
        assert matched(serving, world, asked) == [False, False, False]
    # What is published knows it as well, whichever base it is.
    with served(world, stored, journal) as serving:
        serving.publish(base=later)
        assert matched(serving, world, [*asked, "who"]) == [False, False, False, True]
        serving.publish(base=stored, policy=world.policy.model_copy(update={"k": 1}))
        assert matched(serving, world, [*asked, "who"]) == [False, False, False, True]


def test_whom_the_base_or_the_journal_has_forgotten(
    world: World, stored: StoredBase, journal: Journal, tmp_path: Path
) -> None:
    gone, buried, *_ = world.customers
    assert forget_in_base(open_place(tmp_path / "base"), gone) == 1
    journal.forget(buried)
    with served(world, StoredBase.open(tmp_path / "base"), journal) as serving:
        assert matched(serving, world, [gone, buried, "nobody"]) == [False, False, True]
    with served(world, StoredBase.open(tmp_path / "base"), None) as serving:
        assert matched(serving, world, [gone, "nobody"]) == [False, True]
