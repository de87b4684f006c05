"""Serving from shards is serving, to the byte and at the same name, whoever dies meanwhile.

The owners are of this process, and the clock is the test's: see `crews`. On Ray: test_sharded_ray.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateways
from crews import Call, Pretended
from gateways import COUNT, IDS, Code
from test_gateway import check_parity
from test_overlay import Group, appended, groups
from test_serving import drawn_context, recorded
from visavis.catalog import Catalog
from visavis.errors import (
    CorruptionError,
    InputError,
    LimitError,
    NotFoundError,
    SchemaError,
    StorageError,
    UnreachableError,
)
from visavis.gateway.errors import fault_of
from visavis.journal import Journal
from visavis.policy import Exclusions, Policy
from visavis.serving import Context, Overrides, Profiles, Serving, ShardedServing
from visavis.serving.asking import LOSSES_MAX, PATIENCE_S
from visavis.serving.crew import GONE_S, LINGER_S, PING_S, SILENT_S
from visavis.serving.owner import Missed, Owner, Question, Source, Told, Want, owners_of, shards_of
from visavis.serving.tail import Delta, Tail
from visavis.serving.waiting import within
from worlds import NAMES, World, worlds

EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "30"))


@pytest.fixture(scope="module", autouse=True)
def _nobody_tends() -> Iterator[None]:
    """The test says when owners are looked after, so that every run is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardedServing, "_tend", lambda _: None)
        yield


def crew_of(serving: ShardedServing) -> Any:
    return serving._crew


def tended(serving: ShardedServing, times: int = 5) -> None:
    """Whoever is lost is replaced and has loaded what is served."""
    transport = crew_of(serving).transport
    for _ in range(times):
        transport.time += PING_S
        serving.tend()


def all_well(serving: ShardedServing) -> bool:
    """Whether every owner has loaded what is served."""
    key = serving.state.name._replace(journal_offset=0)
    return all(key in seat.loaded and not seat.is_lost for seat in crew_of(serving).seats)


def assert_same(found: Any, meant: Any) -> None:
    """Two answers, in everything but who computed them."""
    assert found.name == meant.name
    for name in ("capability_index", "propensity", "expected_value"):
        assert getattr(found, name).tobytes() == getattr(meant, name).tobytes()
    if found.reasons is not None:
        assert found.to_table()["reasons"].equals(meant.to_table()["reasons"])
    assert list(found.customer_ids) == list(meant.customer_ids)
    assert found.opportunity_count.tolist() == meant.opportunity_count.tolist()
    assert found.control.tolist() == meant.control.tolist()
    assert found.attributes == meant.attributes
    assert {at: str(each) for at, each in found.errors.items()} == {
        at: str(each) for at, each in meant.errors.items()
    }


class Fates:
    """What becomes of calls: drawn, and never worse than one owner at a time."""

    def __init__(self, seed: int, journal: Journal) -> None:
        self.draw = random.Random(seed)
        self.journal = journal
        self.serving: ShardedServing | None = None
        self.said: list[Group] = []
        self.stalled: int | None = None
        self.died: Call | None = None
        #: What has cost one request an owner may not cost it the other.
        self.is_spared = False

    @property
    def is_quiet(self) -> bool:
        """Whether whoever died last is back, and nobody stalls."""
        if self.is_spared or self.stalled is not None or self.serving is None:
            return False
        if not all_well(self.serving):
            return False
        if self.died is None:
            return True
        now = crew_of(self.serving).transport.generations[self.died.index]
        return now > self.died.generation

    def __call__(self, call: Call) -> str:
        if self.serving is None or call.method != "answer":
            return "answer"
        if self.said and self.draw.random() < 0.3:
            # Somebody else records between two shards of one request, and owners hear of it.
            appended(self.journal, self.said.pop())
            crew_of(self.serving).transport.time += PING_S
            self.serving.tend()
        if call.index == self.stalled:
            return "stall"
        if self.draw.random() < 0.4 and self.is_quiet:
            fate = self.draw.choice(["die", "die after", "stall"])
            self.is_spared = True
            if fate == "stall":
                self.stalled = call.index
            else:
                self.died = call
            return fate
        return "answer"


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    world=worlds(),
    steps=st.lists(
        st.one_of(
            groups(),
            st.sampled_from(["match", "match", "publish", "back", "tend", "kill", "forget"]),
        ),
        max_size=10,
    ),
    between=st.lists(groups(), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    parts=st.sampled_from([1, 4]),
    owners=st.sampled_from([2, 3, 5]),
)
def test_whatever_happens_an_answer_is_that_of_one_process_at_its_name(
    world: World,
    steps: list[Group | str],
    between: list[Group],
    seed: int,
    parts: int,
    owners: int,
) -> None:
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        journal = stack.enter_context(Journal.open(folder / "journal", create=True))
        other = stack.enter_context(Journal.open(folder / "journal"))
        stored = world.base.write(folder / "base", parts=parts)
        given = stored, world.catalog, world.policy
        options = {"journal": journal, "as_of": world.as_of}
        plain = stack.enter_context(Serving.open(*given, **options, threads=1))
        fates = Fates(seed, other)
        transport = Pretended(owners, fates)
        sharded = stack.enter_context(ShardedServing.across(transport, *given, **options))
        tended(sharded)
        fates.serving, fates.said = sharded, between

        def check() -> None:
            context, _ = drawn_context(world, rng) if rng.random() < 0.5 else (None, None)
            asked = [*rng.permutation(world.customers).tolist(), "nobody", world.customers[0]]
            found = sharded.match(asked, context, reasons=2, wording=True)
            plain.refresh()
            while plain.name.journal_offset != found.name.journal_offset:
                # Recorded by others while the question was under way: then it is older.
                assert found.name.journal_offset < plain.name.journal_offset
                fates.is_spared = False
                found = sharded.match(asked, context, reasons=2, wording=True)
                plain.refresh()
            assert_same(found, plain.match(asked, context, reasons=2, wording=True))

        dearer = [{**row, "bias": row["bias"] + 0.5} for row in world.capabilities]
        for number, step in enumerate(steps):
            fates.is_spared = False
            if isinstance(step, dict):
                recorded(sharded, step, str(number))
                assert sharded.name.journal_offset == journal.offset
            elif step in ("publish", "back"):
                chosen = Catalog.from_rows(dearer) if step == "publish" else world.catalog
                names = [each.publish(catalog=chosen)[2:4] for each in (plain, sharded)]
                assert names[0] == names[1]
            elif step == "tend":
                if fates.stalled is not None:
                    transport.kill(fates.stalled)
                    fates.stalled = None
                tended(sharded)
            elif step == "kill" and fates.is_quiet:
                index = int(rng.integers(owners))
                fates.died = Call(index, transport.generations[index], "")
                fates.is_spared = True
                transport.kill(index)
            elif step == "forget":
                sharded.forget(str(rng.choice(NAMES)))
            check()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    world=worlds(),
    said=st.lists(groups(), max_size=2),
    seed=st.integers(0, 2**32 - 1),
    owners=st.sampled_from([1, 2, 3]),
)
def test_audiences_explanations_and_profiles_are_those_of_one_process(
    world: World, said: list[Group], seed: int, owners: int
) -> None:
    rng = np.random.default_rng(seed)
    draft = {**world.capabilities[int(rng.integers(len(world.capabilities)))]}
    draft["id"] = str(rng.choice(["", "m", "zz"])) + "draft"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        journal = stack.enter_context(Journal.open(folder / "journal", create=True))
        given = world.base.write(folder / "base", parts=4), world.catalog, world.policy
        options = {"journal": journal, "as_of": world.as_of}
        plain = stack.enter_context(Serving.open(*given, **options, threads=1))
        transport = Pretended(owners)
        sharded = stack.enter_context(ShardedServing.across(transport, *given, **options))
        for number, group in enumerate(said):
            recorded(sharded, group, str(number))
        plain.refresh()
        for asked in [*(each["id"] for each in world.offers[:3]), draft]:
            for k in (1, 99):
                found = sharded.find_audience(asked, k=k, reach=True, reasons=2)
                meant = plain.find_audience(asked, k=k, reach=True, reasons=2)
                assert [each.tolist() for each in found.reasons or ()] == [
                    each.tolist() for each in meant.reasons or ()
                ]
                assert found.name == meant.name
                assert found.customer_ids == meant.customer_ids
                for name in ("propensity", "expected_value", "control"):
                    assert getattr(found, name).tolist() == getattr(meant, name).tolist()
                assert (found.possible_count, found.reach) == (meant.possible_count, meant.reach)
        context, _ = drawn_context(world, rng)
        for customer_id in world.customers:
            asked = customer_id, world.offers[0]["id"], context
            assert sharded.explain(*asked) == plain.explain(*asked)
        profiles = Profiles(
            indicators=world.base.indicators,
            attributes=world.base.attributes,
            facts=world.base.facts,
            customer_ids=world.customers,
        )
        assert_same(
            sharded.match_profiles(profiles, context, reasons=2),
            plain.match_profiles(profiles, context, reasons=2),
        )
        # Attributes that say nothing of objections: the owners of the ids know.
        silent = replace(profiles, attributes=None)
        assert_same(sharded.match_profiles(silent), plain.match_profiles(silent))
        alone = replace(
            silent,
            indicators=world.base.indicators[:1],
            facts=None,
            customer_ids=world.base.customer_ids.to_pylist()[:1],
        )
        assert_same(sharded.match_profiles(alone), plain.match_profiles(alone))
        name = world.offers[0]["id"]
        assert sharded.explain_profile(alone, name) == plain.explain_profile(alone, name)
        count = len(world.customers)
        overrides = Overrides(
            indicator_names=world.indicator_names[:1],
            values=rng.normal(size=(count, 1)).astype(np.float32),
            is_given=rng.random((count, 1)) < 0.5,
            attributes=pa.table({"age": pa.array([None, 40] * count, pa.int32())[:count]}),
        )
        assert_same(
            sharded.match(world.customers, context, reasons=1, overrides=overrides),
            plain.match(world.customers, context, reasons=1, overrides=overrides),
        )


# ---- one small world ---------------------------------------------------------------------


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[gateways.World]:
    with gateways.World(tmp_path) as world:
        yield world


@pytest.fixture(name="spread")
def spread_over(world: gateways.World) -> Iterator[Callable[..., ShardedServing]]:
    with ExitStack() as stack:

        def opened(transport: Pretended, **changed: Any) -> ShardedServing:
            given = {"base": world.stored, "catalog": world.catalog, "policy": world.policy}
            serving = ShardedServing.across(
                transport, **{**given, **changed}, journal=world.journal
            )
            tended(serving)
            return stack.enter_context(serving)

        yield opened


def test_each_shard_has_two_owners_and_each_owner_what_it_owns() -> None:
    assert (owners_of(0, 1), shards_of(0, 1)) == ((0,), (0,))
    for count in (2, 3, 7):
        for shard in range(count):
            assert len(set(owners_of(shard, count))) == 2
            assert all(shard in shards_of(owner, count) for owner in owners_of(shard, count))
        assert sum(len(shards_of(owner, count)) for owner in range(count)) == 2 * count


def test_an_owner_holds_its_parts_alone(world: gateways.World) -> None:
    held = []
    for index in range(4):
        owner = Owner(index, 4)
        key = owned(owner, world)
        found = owner._states(Want(key, 0, None))
        assert isinstance(found, tuple)
        sizes = {shard: state.version.customers.count for shard, state in found[1].items()}
        assert tuple(sizes) == shards_of(index, 4)
        assert sum(sizes.values()) < COUNT
        first, second = found[1].values()
        assert first.version.engine is second.version.engine
        held.append(sizes)
    assert sum(sum(sizes.values()) for sizes in held) == 2 * COUNT


def owned(owner: Owner, world: gateways.World) -> Any:
    with world.serving() as plain:
        name = plain.name
    key = name._replace(journal_offset=0)
    source = Source(world.stored, world.catalog, world.policy, name.as_of)
    assert owner.load(key, source, None) == 0
    return key


def test_an_owner_says_what_it_lacks(world: gateways.World) -> None:
    owner = Owner(0, 2)
    key = owned(owner, world)
    asked = [Question(0, "match", (IDS[:3],))]
    tail = Tail(world.journal)
    for number in range(3):
        world.journal.append(objections=[IDS[number]])
    assert owner.answer(Want(key._replace(base_version=9), 0, None), asked) == Missed("unloaded", 0)
    assert owner.answer(Want(key, 2, None), asked) == Missed("behind", 0)
    assert owner.answer(Want(key, 3, tail.delta(2, 3)), asked) == Missed("behind", 0)
    told = owner.answer(Want(key, 2, tail.delta(0, 2)), asked)
    assert isinstance(told, Told)
    assert told.offset == 2
    # Both states are there, and none in between.
    assert isinstance(owner.answer(Want(key, 0, None), asked), Told)
    assert owner.answer(Want(key, 1, None), asked) == Missed("gone", 2)
    # What is known already is passed over.
    assert isinstance(owner.answer(Want(key, 3, tail.delta(0, 3)), asked), Told)
    assert owner.hear([]) == {key: 3}
    owner.keep(set())
    assert owner.answer(Want(key, 3, None), asked) == Missed("unloaded", 0)


def test_an_owner_refuses_what_is_not_what_was_meant(world: gateways.World) -> None:
    with world.serving() as plain:
        key = plain.name._replace(journal_offset=0)
    source = Source(world.stored, gateways.a_catalog(1.0), world.policy, key.as_of)
    with pytest.raises(Exception, match="not ServingVersion"):
        Owner(0, 2).load(key, source, None)


def test_who_is_forgotten_is_forgotten_by_the_owners(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    for number in range(4):
        recorded_objection(serving, str(number), IDS[number])
    serving.match(IDS)
    serving.forget(IDS[1])
    tended(serving)
    for owner in transport.owners.values():
        (held,) = owner._held.values()
        assert list(held.states) == [world.journal.offset]
        for state in held.states[world.journal.offset].values():
            assert IDS[1].encode() not in state.objecting
            entries = [
                e for known in state.touched for each in known.values() for e in each.entries
            ]
            assert IDS[1].encode() not in {each.customer_id for each in entries}
    with world.serving() as plain:
        assert_same(serving.match(IDS), plain.match(IDS))


def recorded_objection(serving: Serving, request_id: str, customer_id: str) -> None:
    serving.record(request_id, objections=[customer_id])


def test_the_tail_is_the_journal(world: gateways.World) -> None:
    for number in range(3):
        world.journal.append(objections=[IDS[number]])
    tail = Tail(world.journal, kept_max=2)
    every = world.journal.since(0).entries
    # What came before it is read from the file.
    assert tail.delta(1, 3) == Delta(1, 3, tuple(every[1:]), frozenset())
    for number in range(3, 9):
        world.journal.append(objections=[IDS[number]])
        every = world.journal.since(0).entries
        for after in range(number, number + 2):
            assert tail.delta(after, number + 1).entries == tuple(every[after:])
    assert len(tail._entries) <= 4
    assert tail.delta(5, 8) == Delta(5, 9, tuple(every[5:]), frozenset())
    assert tail.delta(8, 9) == Delta(8, 9, (every[8],), None)
    world.journal.forget(IDS[7])
    delta = tail.delta(7, 10)
    assert (delta.after, delta.through, delta.forgotten) == (7, 10, world.journal.forgotten)
    assert IDS[7].encode() not in {each.customer_id for each in [*delta.entries, *tail._entries]}


# ---- who dies, stalls and comes back -----------------------------------------------------


def dying(times: int, fate: str = "die") -> Callable[[Call], str]:
    """The next so many questions end like this."""
    left = [times]

    def of(call: Call) -> str:
        if call.method != "answer" or not left[0]:
            return "answer"
        left[0] -= 1
        return fate

    return of


@pytest.mark.parametrize("fate", ["die", "die after"])
def test_a_death_costs_no_answer(
    world: gateways.World, spread: Callable[..., ShardedServing], fate: str
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    with world.serving() as plain:
        meant = plain.match(IDS)
        for _ in range(5):
            transport.fate = dying(1, fate)
            assert_same(serving.match(IDS), meant)
            tended(serving)
            assert all_well(serving)
    assert sum(transport.generations.values()) == 2 + 5


def test_what_kills_two_owners_is_not_asked_a_third_time(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(3)
    serving = spread(transport)
    asked: list[Call] = []

    def poison(call: Call) -> str:
        if call.method != "answer":
            return "answer"
        asked.append(call)
        return "die"

    transport.fate = poison
    with pytest.raises(UnreachableError) as caught:
        serving.match(IDS[:1])
    assert len(asked) == LOSSES_MAX
    fault = fault_of(caught.value)
    assert (fault.code, fault.reason, fault.retry_s) == (Code.UNAVAILABLE, "NOT_READY", 1.0)
    transport.fate = lambda _: "answer"
    tended(serving)
    assert serving.match(IDS).opportunity_count.any()


def test_the_only_owner_is_waited_for_a_while(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(1)
    serving = spread(transport)
    meant = serving.match(IDS)
    transport.kill(0)
    # It is back, and has loaded, before half of the time is over.
    assert_same(serving.match(IDS), meant)
    assert transport.generations[0] == 2
    transport.kill(0)
    transport.fate = lambda call: "stall" if call.method == "load" else "answer"
    began = transport.time
    with pytest.raises(UnreachableError, match="no worker now"):
        within(_in(4.0), lambda: serving.match(IDS))()
    assert 1.9 < transport.time - began < 2.2


def _in(seconds: float) -> float:
    import time

    return time.monotonic() + seconds


def test_who_says_nothing_is_not_waited_for_alone(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    meant = serving.match(IDS[:1])
    tended(serving)
    transport.fate = dying(1, "stall")
    began = transport.time
    assert_same(serving.match(IDS[:1]), meant)
    assert PATIENCE_S <= transport.time - began < 2 * PATIENCE_S
    (silent,) = [seat for seat in crew_of(serving).seats if seat.is_silent]
    asked: list[int] = []

    def told(call: Call) -> str:
        asked.extend([call.index] if call.method == "answer" else [])
        return "stall" if call.index == silent.index else "answer"

    transport.fate = told
    for _ in range(3):
        serving.match(IDS[:1])
    assert silent.index not in asked
    # A sign of life, and it is asked again.
    transport.fate = lambda call: (told(call), "answer")[1]
    transport.time += PING_S
    tended(serving)
    assert not silent.is_silent
    # The call that nobody waits for is still open, so the other has less to do.
    assert silent.in_flight == 1
    for _ in range(3):
        serving.match(IDS)
    assert silent.index in asked


def test_who_stays_silent_is_replaced(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    transport.fate = lambda call: "stall" if (call.index, call.generation) == (0, 1) else "answer"
    tended(serving, int(SILENT_S / PING_S) + 3)
    assert crew_of(serving).seats[0].is_silent
    tended(serving, int((GONE_S - SILENT_S) / PING_S) + 3)
    assert transport.generations == {0: 2, 1: 1}
    assert all_well(serving)


def test_a_journal_that_cannot_be_read_for_a_while_keeps_nobody_out(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(3)
    serving = spread(transport)
    crew, meant = crew_of(serving), serving.match(IDS)
    delta_of = crew.delta_of

    def unreadable(*_: Any) -> Delta:
        raise StorageError("cannot be read")

    crew.delta_of = unreadable
    for index in range(3):
        transport.kill(index)
    for _ in range(4):
        transport.time += PING_S
        with suppress(StorageError):
            serving.tend()
    assert not any(seat.loaded for seat in crew.seats)
    crew.delta_of = delta_of
    tended(serving)
    assert all_well(serving)
    assert_same(serving.match(IDS), meant)


def test_the_less_loaded_owner_is_asked_first(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    serving = spread(Pretended(2))
    crew = crew_of(serving)
    key = serving.name._replace(journal_offset=0)
    for busy in (0, 1):
        crew.seats[busy].in_flight, crew.seats[1 - busy].in_flight = 3, 2
        assert {crew.choose(0, key, ()).index for _ in range(4)} == {1 - busy}
    crew.seats[0].in_flight = crew.seats[1].in_flight = 0
    # Neither is the first for ever.
    assert {crew.choose(0, key, ()).index for _ in range(4)} == {0, 1}
    assert crew.choose(0, key, {(0, 1), (1, 1)}) is None


def test_the_shards_of_a_request_go_to_different_owners(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    transport.calls.clear()
    serving.match(IDS)
    assert sorted(each.index for each in transport.calls if each.method == "answer") == [0, 1]
    assert [seat.in_flight for seat in crew_of(serving).seats] == [0, 0]


def test_the_deadline_ends_the_waiting(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    transport.fate = lambda call: "stall" if call.method == "answer" else "answer"
    began = transport.time
    with pytest.raises(UnreachableError, match="in time"):
        within(_in(1.0), lambda: serving.match(IDS))()
    assert 0.9 < transport.time - began < 1.1


# ---- publishing --------------------------------------------------------------------------


def test_publishing_changes_nothing_unless_every_owner_can(
    world: gateways.World,
    spread: Callable[..., ShardedServing],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = Pretended(3)
    serving = spread(transport)
    before, meant = serving.name, serving.match(IDS)
    load = Owner.load

    def broken(self: Owner, *given: Any) -> int:
        if self is transport.owners[2]:
            raise CorruptionError("part 1 is damaged")
        return load(self, *given)

    other = gateways.a_catalog(2.0)
    with monkeypatch.context() as patch:
        patch.setattr(Owner, "load", broken)
        for publish in (serving.publish, serving.check):
            with pytest.raises(CorruptionError, match="part 1"):
                publish(catalog=other)
    assert serving.name == before
    assert_same(serving.match(IDS), meant)
    checked = serving.check(catalog=other)
    assert checked.catalog_digest == other.digest()
    assert serving.name == before
    assert serving.publish(catalog=other) == checked
    with Serving.open(world.stored, other, world.policy, journal=world.journal) as plain:
        assert_same(serving.match(IDS), plain.match(IDS))
    transport.time += LINGER_S
    tended(serving)
    assert all(len(owner._held) == 1 for owner in transport.owners.values())
    # Whoever comes later has what is served now.
    transport.kill(0)
    tended(serving)
    assert all_well(serving)


def test_a_request_under_way_ends_with_the_version_it_began_with(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(2)
    serving = spread(transport)
    meant, left = serving.match(IDS), [1]

    def publishing(call: Call) -> str:
        if call.method == "answer" and left[0]:
            left[0] = 0
            serving.publish(catalog=gateways.a_catalog(2.0))
            tended(serving)
        return "answer"

    transport.fate = publishing
    assert_same(serving.match(IDS), meant)
    assert serving.name.catalog_digest != meant.name.catalog_digest
    # Where nobody has the old one any more, all of the answer is of the new one.
    left[0] = 1

    def lost(call: Call) -> str:
        if call.method == "answer" and left[0]:
            left[0] = 0
            serving.publish(catalog=world.catalog)
            for index in range(2):
                transport.kill(index)
            tended(serving)
        return "answer"

    transport.fate = lost
    assert_same(serving.match(IDS), meant)


def test_what_does_not_fit_is_refused_before_anything_changes(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    serving = spread(Pretended(2))
    unknown = Policy(exclusions=Exclusions(customers=("c03", "c77", "c78")))
    with pytest.raises(InputError, match="'c77' is not in the base") as caught:
        serving.publish(policy=unknown)
    assert caught.value.field == "policy.exclusions.customers"
    transport = Pretended(2)
    with pytest.raises(InputError, match="c77"):
        spread(transport, policy=unknown)
    assert transport.is_closed
    known = Policy(exclusions=Exclusions(customers=("c03",)))
    serving.publish(policy=known)
    with Serving.open(world.stored, world.catalog, known, journal=world.journal) as plain:
        assert_same(serving.match(IDS), plain.match(IDS))


def facts_of(customer_id: str, count: int) -> pa.Table:
    return pa.table(
        {
            "customer_id": [customer_id],
            "product": ["tea"],
            "kind": ["bought"],
            "date": pa.array([gateways.AS_OF]),
            "count": pa.array([count], pa.int64()),
        }
    )


def test_a_record_that_would_spoil_somebody_is_refused_by_the_owner(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    serving = spread(Pretended(2))
    serving.record("a", facts=facts_of("c01", 2**31 - 1))
    with pytest.raises(InputError) as caught, world.serving() as plain:
        plain.record("b", facts=facts_of("c01", 2**31 - 1))
    with pytest.raises(InputError) as again:
        serving.record("b", facts=facts_of("c01", 2**31 - 1))
    assert str(again.value) == str(caught.value)
    assert world.journal.offset == 1
    # Written by others, it makes one customer an error.
    world.journal.append(facts=facts_of("c01", 2**31 - 1))
    with world.serving() as plain:
        serving.refresh()
        assert_same(serving.match(IDS), plain.match(IDS))
        assert list(serving.match(IDS).errors) == [1]
    # Neither a record nor a publish is refused for what is so already.
    serving.record("c", facts=facts_of("c01", 1))
    serving.publish(catalog=gateways.a_catalog(1.0))


def test_nothing_is_written_where_nobody_can_say_whether_it_fits(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    transport = Pretended(1)
    serving = spread(transport)
    transport.fate = lambda call: "stall" if call.method == "answer" else "answer"
    with pytest.raises(UnreachableError):
        serving.record("a", objections=["c01"])
    assert world.journal.offset == 0
    transport.fate = lambda _: "answer"
    assert serving.record("a", objections=["c01"]).last_offset == 1


# ---- what is wrong with a request --------------------------------------------------------


def test_requests_are_refused_as_by_one_process(
    world: gateways.World, spread: Callable[..., ShardedServing]
) -> None:
    serving = spread(Pretended(2))
    wrong: list[tuple[type[Exception], Callable[[Serving], Any]]] = [
        (SchemaError, lambda each: each.match("c01")),
        (LimitError, lambda each: each.match(["c01"] * 100_001)),
        (InputError, lambda each: each.match([], Context(k=99))),
        (InputError, lambda each: each.match(["c01"], Context(indicators={"x": 1.0}))),
        (InputError, lambda each: each.match(["c01"], reasons="3")),
        (SchemaError, lambda each: each.match_profiles("none")),
        (InputError, lambda each: each.match_profiles(Profiles(indicators=[[np.nan, 1, 1]]))),
        (NotFoundError, lambda each: each.explain("c99", "k01")),
        (NotFoundError, lambda each: each.explain("c01", "k99")),
        (NotFoundError, lambda each: each.find_audience("k99", k=1)),
        (LimitError, lambda each: each.find_audience("k01", k=100_001)),
        (InputError, lambda each: each.find_audience("k01", Context(attributes={"age": 3}), k=1)),
        (InputError, lambda each: each.find_audience({"id": "new", "rule": "age >"}, k=1)),
    ]
    with world.serving() as plain:
        for kind, ask in wrong:
            with pytest.raises(kind) as meant:
                ask(plain)
            with pytest.raises(kind) as found:
                ask(serving)
            assert str(found.value) == str(meant.value)
            assert type(found.value) is type(meant.value)
        strange: list[Any] = ["c01", 5, None, "\ud800", "", "c02", "c01"]
        assert_same(serving.match(strange), plain.match(strange))
        assert_same(serving.match(strange * 5), plain.match(strange * 5))
        assert_same(serving.match([]), plain.match([]))


def test_without_a_journal_nothing_can_be_recorded(world: gateways.World) -> None:
    with ShardedServing.across(Pretended(2), world.stored, world.catalog, world.policy) as serving:
        with pytest.raises(InputError, match="is not open"):
            recorded_objection(serving, "a", "c01")
        with Serving.open(world.stored, world.catalog, world.policy) as plain:
            assert_same(serving.match(IDS), plain.match(IDS))


def test_the_gateway_asks_shards_as_it_asks_one_process(world: gateways.World) -> None:
    class Spread(gateways.World):
        def __init__(self) -> None:
            self.__dict__.update(world.__dict__)

        def serving(self) -> Serving:
            return ShardedServing.across(
                Pretended(2), self.stored, self.catalog, self.policy, journal=self.journal
            )

    async def scene() -> None:
        async with gateways.listening(Spread()) as (_, client):
            await check_parity(client, world)

    asyncio.run(scene())
