"""Online and batch are equal at one base, catalog, policy, day and journal offset, to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_overlay import Group, appended, groups
from visavis.base import Base, StoredBase
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.errors import InputError, LimitError, NotFoundError, SchemaError
from visavis.journal import Journal
from visavis.policy import Exclusions, Policy
from visavis.serving import Context, Expected, Profiles, Selection, Serving, matching
from visavis.serving import serving as serving_module
from worlds import AS_OF, ATTRIBUTE_TYPES, FACT_TYPES, NAMES, World, worlds

#: Worlds of each property; `make test-long` asks for more.
EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "80"))

TABLES = st.sampled_from([None, 0, 3])


@pytest.fixture(autouse=True, scope="module")
def few_rows() -> Iterator[None]:
    """Worlds are small: two rows are enough for two threads."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matching, "_ROWS_OF_A_THREAD", 1)
        yield


def batch(world: World, base: Base | None = None, **options: Any) -> pa.Table:
    base = world.base if base is None else base
    engine = Engine(base, world.catalog, world.policy, as_of=world.as_of)
    return engine.match().to_table(**options)


def recorded(serving: Serving, group: Group, request_id: str) -> None:
    """The group, through the door of the serving."""
    rows = [{"customer_id": name, **row} for name, row in group["attributes"].items()]
    names = [name for name in rows[0] if name != "customer_id"] if rows else []
    schema = pa.schema([("customer_id", pa.string()), *((n, ATTRIBUTE_TYPES[n]) for n in names)])
    serving.record(
        request_id,
        facts=pa.Table.from_pylist(group["facts"], pa.schema(list(FACT_TYPES.items()))),
        attributes=pa.Table.from_pylist(rows, schema) if rows else None,
        objections=group["objections"],
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    world=worlds(),
    said=st.lists(st.tuples(groups(), st.sampled_from(["here", "elsewhere"])), max_size=4),
    forgotten=st.lists(st.sampled_from(NAMES), max_size=1),
    parts=st.sampled_from([1, 4]),
    history_bytes=st.sampled_from([0, 40, 2**30]),
    reasons=TABLES,
    distinctive=st.booleans(),
)
def test_online_is_the_batch_at_the_same_offset(
    world: World,
    said: list[tuple[Group, str]],
    forgotten: list[str],
    parts: int,
    history_bytes: int,
    reasons: int | None,
    distinctive: bool,
) -> None:
    options = {"reasons": reasons, "distinctive": distinctive}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        journal = stack.enter_context(Journal.open(folder / "journal", create=True))
        other = stack.enter_context(Journal.open(folder / "journal"))
        served = stack.enter_context(
            Serving.open(
                world.base.write(folder / "base", parts=parts),
                world.catalog,
                world.policy,
                journal=journal,
                as_of=world.as_of,
                threads=2,
                history_bytes=history_bytes,
            )
        )

        def check(serving: Serving) -> None:
            serving.refresh()
            answer = serving.match(world.customers, **options)
            overlay = journal.overlay()
            assert answer.name.journal_offset == overlay.through
            table = batch(world, overlay.apply(world.base), **options)
            assert answer.to_table().equals(table)
            assert not answer.errors
            for customer_id in world.customers:
                alone = serving.match([customer_id], **options).to_table()
                of_customer = pa.compute.equal(table["customer_id"], customer_id)
                assert alone.equals(table.filter(of_customer).combine_chunks())

        check(served)
        for number, (group, where) in enumerate(said):
            if where == "here":
                recorded(served, group, str(number))
            else:
                appended(other, group)
            check(served)
        for customer_id in forgotten:
            served.forget(customer_id)
            check(served)
        # Whoever comes later reads the same from the journal.
        with Serving.open(
            StoredBase.open(folder / "base"),
            world.catalog,
            world.policy,
            journal=other,
            as_of=world.as_of,
            history_bytes=history_bytes,
        ) as again:
            check(again)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    world=worlds(),
    said=st.lists(groups(), max_size=2),
    seed=st.integers(0, 2**32 - 1),
    parts=st.sampled_from([1, 4]),
)
def test_a_context_is_the_batch_of_what_it_says(
    world: World, said: list[Group], seed: int, parts: int
) -> None:
    rng = np.random.default_rng(seed)
    context, policy = drawn_context(world, rng)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        journal = stack.enter_context(Journal.open(f"{folder}/journal", create=True))
        for group in said:
            appended(journal, group)
        now = journal.overlay().apply(world.base)
        stored = world.base.write(f"{folder}/base", parts=parts)
        with Serving.open(
            stored,
            world.catalog,
            world.policy,
            journal=journal,
            as_of=world.as_of,
            threads=1,
            history_bytes=int(rng.choice([0, 2**30])),
        ) as serving:
            answer = serving.match(world.customers, context, reasons=2)
            day = world.as_of if context.as_of is None else context.as_of
            assert answer.name == serving.name._replace(as_of=day)
            engine = Engine(said_of_all(now, context), world.catalog, policy, as_of=day)
            assert answer.to_table().equals(engine.match().to_table(reasons=2))
            profiles = Profiles(
                indicators=now.indicators,
                attributes=now.attributes,
                facts=now.facts,
                customer_ids=world.customers,
            )
            inline = serving.match_profiles(profiles, context, reasons=2)
            assert inline.to_table().equals(answer.to_table())
            for customer_id in world.customers[:2]:
                for offer in world.offers[:3]:
                    told = serving.explain(customer_id, offer["id"], context)
                    assert told.name == answer.name
                    meant = engine.explain(customer_id, offer["id"])
                    for name in ("rank", "expected_value", "contributions", "history_terms"):
                        assert getattr(told.explanation, name) == getattr(meant, name)


def said_of_all(base: Base, context: Context) -> Base:
    """The base in which what a context says of a customer is so of everybody."""
    x, attributes = base.indicators.copy(), base.attributes
    for name, value in context.indicators.items():
        x[:, base.indicator_names.index(name)] = value
    for name, value in context.attributes.items():
        column = pa.array([value] * base.customer_count, ATTRIBUTE_TYPES[name])
        attributes = attributes.set_column(attributes.column_names.index(name), name, column)
    return replace(base, indicators=x, attributes=attributes)


def drawn_context(world: World, rng: np.random.Generator) -> tuple[Context, Policy]:
    """A context, and the policy that says what it leaves out."""
    offers, policy = world.offers, world.policy
    said: dict[str, Any] = {}
    closed: set[str] = set()

    def names(column: str) -> list[str]:
        known = sorted({offer[column] for offer in offers})
        return [name for name in known if rng.random() < 0.6]

    if rng.random() < 0.5:
        channels = [*names("channel"), "fax"]
        said["available_channels"] = channels
        closed |= {offer["id"] for offer in offers if offer["channel"] not in channels}
    columns = {"capabilities": "id", "products": "product", "families": "family"}
    columns["channels"] = "channel"
    for key in ("only", "without"):
        kinds = [kind for kind in columns if rng.random() < 0.2]
        chosen = {kind: names(columns[kind]) for kind in kinds}
        said[key] = Selection(**chosen)
        for kind, given_names in chosen.items():
            within = {offer["id"] for offer in offers if offer[columns[kind]] in given_names}
            closed |= {offer["id"] for offer in offers} - within if key == "only" else within
    if rng.random() < 0.4:
        said["indicators"] = {str(rng.choice(world.indicator_names)): 1.5}
    if rng.random() < 0.4:
        options = {"age": 40, "country": "été", "member": None, "born": AS_OF, "score": 0.75}
        options |= {"consent_email": False}
        said["attributes"] = {name: options[name] for name in options if rng.random() < 0.4}
    if rng.random() < 0.3:
        said["as_of"] = world.as_of + timedelta(days=int(rng.choice([0, 1, 7])))
    policy, tighter = tightened(policy, rng)
    excluded = policy.exclusions.model_copy(
        update={"capabilities": tuple({*policy.exclusions.capabilities, *closed})}
    )
    policy = policy.model_copy(update={"exclusions": Exclusions(**excluded.model_dump())})
    return Context(**said, **tighter), policy


def tightened(policy: Policy, rng: np.random.Generator) -> tuple[Policy, dict[str, Any]]:
    tighter: dict[str, Any] = {}
    if rng.random() < 0.4:
        tighter["k"] = int(rng.integers(1, policy.k + 1))
    if rng.random() < 0.4:
        tighter["ev_min"] = max(policy.ev_min or 0.0, 0.0) + float(rng.choice([0.0, 0.3]))
    for name in ("product_limit", "channel_limit", "family_limit"):
        if rng.random() < 0.3:
            tighter[name] = int(rng.integers(1, (getattr(policy, name) or 3) + 1))
    return policy.model_copy(update=tighter), tighter


@settings(max_examples=EXAMPLES, deadline=None)
@given(world=worlds(), said=st.lists(groups(), max_size=2), seed=st.integers(0, 2**32 - 1))
def test_an_audience_and_its_reach_are_those_of_the_batch(
    world: World, said: list[Group], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    policy, tighter = tightened(world.policy, rng)
    draft = {**world.capabilities[int(rng.integers(len(world.capabilities)))]}
    draft["id"] = str(rng.choice(["", "m", "zz"])) + "draft"
    draft["channel"] = str(rng.choice([draft["channel"], world.offers[0]["channel"]]))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        journal = stack.enter_context(Journal.open(f"{folder}/journal", create=True))
        stored = world.base.write(f"{folder}/base", parts=2)
        serving = stack.enter_context(
            Serving.open(
                stored,
                world.catalog,
                world.policy,
                journal=journal,
                as_of=world.as_of,
                threads=2,
                history_bytes=int(rng.choice([0, 2**30])),
            )
        )
        served_offers = [each["id"] for each in world.offers[:3]]
        # Asked before as well, so that what is kept from then must still be right.
        serving.find_audience(served_offers[0], Context(**tighter), k=2, reach=True)
        for number, group in enumerate(said):
            recorded(serving, group, str(number))
        base = journal.overlay().apply(world.base)
        for asked in [*served_offers, draft]:
            catalog = world.catalog
            name = asked
            if isinstance(asked, dict):
                name = asked["id"]
                catalog = Catalog.from_rows([*world.capabilities, draft])
            engine = Engine(base, catalog, policy, as_of=world.as_of)
            found = serving.find_audience(asked, Context(**tighter), k=3, reach=True)
            meant = engine.audience([name], k=3)
            assert found.customer_ids == meant["customer_id"].to_pylist()
            assert found.expected_value.tolist() == meant["expected_value"].to_pylist()
            assert found.propensity.tolist() == meant["propensity"].to_pylist()
            assert found.control.tolist() == meant["control"].to_pylist()
            assert found.possible_count == engine.audience([name], k=99).num_rows
            matched = engine.match().to_table()["capability_id"].to_pylist()
            assert found.reach == matched.count(name)


# One world with all that a world can have.


def richest() -> World:
    found: list[World] = []

    @settings(max_examples=60, database=None, derandomize=True)
    @given(worlds())
    def draw(drawn: World) -> None:
        found.append(drawn)

    draw()
    opportunities = [(each, len(each.expected_rows())) for each in found]
    return max(opportunities, key=lambda pair: (pair[1], len(pair[0].offers)))[0]


@pytest.fixture(scope="module")
def world() -> World:
    rich = richest()
    return replace(rich, policy=rich.policy.model_copy(update={"k": 3, "ev_min": None}))


@pytest.fixture
def stored(world: World, tmp_path: Path) -> StoredBase:
    return world.base.write(tmp_path / "base", parts=4)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal", create=True) as made:
        yield made


@pytest.fixture
def serving(world: World, stored: StoredBase, journal: Journal) -> Iterator[Serving]:
    with Serving.open(
        stored, world.catalog, world.policy, journal=journal, as_of=world.as_of, threads=2
    ) as made:
        yield made


def somebody(serving: Serving, world: World) -> str:
    """Whoever has opportunities now."""
    counts = serving.match(world.customers).opportunity_count
    assert counts.any()
    return world.customers[int(np.argmax(counts))]


def bought(customer_id: str, count: int = 1, day: date = AS_OF) -> pa.Table:
    return pa.table(
        {
            "customer_id": [customer_id],
            "product": ["tea"],
            "kind": ["bought"],
            "date": [day],
            "count": [count],
        }
    )


def test_one_is_answered_at_once_or_declined(
    monkeypatch: pytest.MonkeyPatch, serving: Serving, world: World
) -> None:
    monkeypatch.setattr(serving_module, "LOOK_S", 3600.0)
    served = 0
    for customer_id in world.customers:
        found = serving.match_at_once(customer_id, reasons=2, wording=True)
        wanted = serving.match([customer_id], reasons=2, wording=True)
        if found is not None:
            served += 1
            assert found.name == wanted.name
            assert found.to_table().equals(wanted.to_table())
    assert served
    customer_id = somebody(serving, world)
    assert serving.match_at_once(customer_id) is not None
    assert serving.match_at_once("nobody") is None
    with pytest.raises(InputError):
        serving.match_at_once(customer_id, reasons=-1)
    # Somebody else is at the journal, and there may be something new: that is for who may wait.
    pulse = [0]
    serving.follow(lambda: pulse[0])
    assert serving.match_at_once(customer_id) is not None
    with held_by_another(serving._recording):
        pulse[0] = 1
        assert serving.match_at_once(customer_id) is None
    serving.match([customer_id])
    assert serving.match_at_once(customer_id) is not None
    monkeypatch.setattr(serving_module, "LOOK_S", 0.0)
    assert serving.match_at_once(customer_id) is None
    serving.close()
    assert serving.match_at_once(customer_id) is None


@contextmanager
def held_by_another(lock: Any) -> Iterator[None]:
    """Until the end, by another thread."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            over.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_unknown_customer_is_an_error_of_the_row_and_the_others_are_answered(
    serving: Serving, world: World
) -> None:
    known = somebody(serving, world)
    asked = ["nobody", known, "\ud800", "", known]
    answer = serving.match(asked)
    assert sorted(answer.errors) == [0, 2, 3]
    assert all(isinstance(each, NotFoundError) for each in answer.errors.values())
    counts = answer.opportunity_count.tolist()
    assert counts[0] == counts[2] == counts[3] == 0
    assert counts[1] == counts[4] > 0
    half = counts[1]
    assert answer.expected_value[:half].tolist() == answer.expected_value[half:].tolist()
    assert serving.match([]).to_table().num_rows == 0
    for wrong in (7, None, b"a"):
        for ids in ([wrong], ["a", wrong]):
            assert isinstance(serving.match(ids).errors[len(ids) - 1], InputError)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"k": 4}, "k"),
        ({"k": 0}, "k"),
        ({"k": True}, "k"),
        ({"k": 1.0}, "k"),
        ({"ev_min": 0.1}, "ev_min"),
        ({"ev_min": float("nan")}, "ev_min"),
        ({"ev_min": "0"}, "ev_min"),
        ({"ev_min": 10**400}, "ev_min"),
        ({"product_limit": 3}, "product_limit"),
        ({"channel_limit": 3}, "channel_limit"),
        ({"family_limit": 3}, "family_limit"),
        ({"family_limit": "1"}, "family_limit"),
        ({"as_of": "2019-01-01"}, "as_of"),
        ({"as_of": "tomorrow"}, "as_of"),
        ({"available_channels": "email"}, "available_channels"),
        ({"available_channels": [7]}, "available_channels"),
        ({"only": ["tea"]}, "only"),
        ({"only": Selection(products=["coffee"])}, "only.products"),
        ({"only": Selection(products="tea")}, "only.products"),
        ({"without": Selection(capabilities=["nothing"])}, "without.capabilities"),
        ({"without": Selection(channels=[["email"]])}, "without.channels"),
        ({"without": Selection(families=["nothing"])}, "without.families"),
        ({"indicators": {"nothing": 1.0}}, "indicators.nothing"),
        ({"indicators": [1.0]}, "indicators"),
        ({"attributes": {"nothing": 1}}, "attributes.nothing"),
        ({"attributes": {"objected": False}}, "attributes.objected"),
        ({"attributes": {"consent_email": True}}, "attributes.consent_email"),
        ({"attributes": {"age": "17"}}, "attributes.age"),
        ({"attributes": {"age": True}}, "attributes.age"),
        ({"attributes": {"age": 2**31}}, "attributes.age"),
        ({"attributes": {"country": 7}}, "attributes.country"),
        ({"attributes": {"country": "\ud800"}}, "attributes.country"),
        ({"attributes": {"member": 1}}, "attributes.member"),
        ({"attributes": {"score": float("inf")}}, "attributes.score"),
        ({"attributes": {"born": "2020-01-01"}}, "attributes.born"),
    ],
)
def test_a_context_that_is_looser_or_wrong_is_refused_by_its_field(
    world: World, stored: StoredBase, said: dict[str, Any], field: str
) -> None:
    limits = dict.fromkeys(("product_limit", "channel_limit", "family_limit"), 2)
    policy = world.policy.model_copy(update={"k": 3, "ev_min": 0.2, **limits})
    with Serving.open(stored, world.catalog, policy, as_of=world.as_of) as serving:
        with pytest.raises(InputError) as caught:
            serving.match(world.customers, Context(**said))
        assert caught.value.field == f"context.{field}"


@pytest.mark.parametrize("wrong", ["1", True, None, float("nan"), 1e39, 10**400])
def test_an_indicator_that_is_no_finite_float32_is_refused(
    serving: Serving, world: World, wrong: Any
) -> None:
    name = world.indicator_names[0]
    with pytest.raises(InputError) as caught:
        serving.match(world.customers, Context(indicators={name: wrong}))
    assert caught.value.field == f"context.indicators.{name}"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("a", "customer_ids"),
        (7, "customer_ids"),
        (["a"] * 100_001, "customer_ids"),
    ],
)
def test_what_is_no_list_of_ids_is_refused(serving: Serving, given: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        serving.match(given)
    assert caught.value.field == field
    with pytest.raises(SchemaError):
        serving.match(["a"], {"k": 1})  # type: ignore[arg-type]
    for reasons in (-1, 1.0, True):
        with pytest.raises(InputError):
            serving.match(["a"], reasons=reasons)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"indicators": [[1.0]]}, "indicators"),
        ({"indicators": "x"}, "indicators"),
        ({"attributes": pa.table({"age": pa.array([1, 2], pa.int32())})}, "attributes"),
        ({"attributes": pa.table({"age": pa.array([1], pa.int64())})}, "attributes.age"),
        ({"attributes": pa.table({"city": ["x"]})}, "attributes.city"),
        ({"attributes": pa.table({"customer_id": ["x"]})}, "attributes.customer_id"),
        (
            {"attributes": pa.table({"objected": pa.array([None], pa.bool_())})},
            "attributes.objected",
        ),
        ({"attributes": {}}, "attributes"),
        ({"facts": pa.table({"product": ["tea"]})}, "facts.customer_index"),
        ({"facts": {}}, "facts"),
        ({"customer_ids": ["a", "b"]}, "customer_ids"),
        ({"customer_ids": [""]}, "customer_ids"),
        ({"customer_ids": ["\ud800"]}, "customer_ids"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_by_its_field(
    serving: Serving, world: World, change: dict[str, Any], field: str
) -> None:
    given = {"indicators": world.base.indicators[:1], **change}
    with pytest.raises(InputError) as caught:
        serving.match_profiles(Profiles(**given))
    assert caught.value.field == f"profiles.{field}"


def test_cells_of_profiles_are_refused_by_field_and_row(serving: Serving, world: World) -> None:
    x = world.base.indicators[:2].copy()
    x[1, 0] = np.nan
    with pytest.raises(InputError) as caught:
        serving.match_profiles(Profiles(indicators=x))
    assert caught.value.field == f"profiles.indicators.{world.base.indicator_names[0]}"
    assert caught.value.row == 1
    facts = {"product": ["tea"] * 2, "kind": ["bought"] * 2, "date": [AS_OF] * 2}
    for index in ([0, 2], [0, -1], [0, None]):
        table = pa.table({"customer_index": pa.array(index, pa.int64()), **facts})
        profiles = Profiles(indicators=world.base.indicators[:2], facts=table)
        with pytest.raises(InputError) as caught:
            serving.match_profiles(profiles)
        assert (caught.value.field, caught.value.row) == ("profiles.facts.customer_index", 1)
    many = Profiles(indicators=np.zeros((100_001, x.shape[1]), np.float32))
    with pytest.raises(LimitError):
        serving.match_profiles(many)


def test_a_profile_that_objected_has_no_opportunity(serving: Serving, world: World) -> None:
    count = len(world.customers)
    attributes = world.base.attributes
    at = attributes.schema.get_field_index("objected")
    objected = attributes.set_column(at, "objected", pa.array([True] * count))
    profiles = Profiles(indicators=world.base.indicators, attributes=objected)
    answer = serving.match_profiles(profiles)
    assert not answer.opportunity_count.any()
    assert answer.customer_ids == [str(row) for row in range(count)]


# What is recorded.


def test_an_objection_acts_at_once_and_nothing_takes_it_back(
    serving: Serving, world: World
) -> None:
    who = somebody(serving, world)
    appended = serving.record("r1", objections=[who])
    answer = serving.match([who])
    assert answer.name.journal_offset == appended.last_offset == 1
    assert answer.opportunity_count.tolist() == [0]
    assert not answer.errors
    offer = world.offers[0]["id"]
    assert "objected" in serving.explain(who, offer).explanation.verdict
    assert who not in serving.find_audience(offer, k=99).customer_ids


def test_a_request_that_comes_again_is_answered_with_the_same_offsets(
    serving: Serving, world: World, journal: Journal
) -> None:
    who = somebody(serving, world)
    most = bought(who, 2**31 - 1, date(2020, 1, 1))
    first = serving.record("r1", facts=most)
    again = serving.record("r1", facts=most)
    assert (again.first_offset, again.last_offset, again.repeated) == (1, 1, True)
    assert not first.repeated
    with pytest.raises(InputError, match="was used before") as caught:
        serving.record("r1", facts=bought(who))
    assert caught.value.field == "request_id"
    # A batch would fail on it: it is refused, and nothing of it is recorded.
    with pytest.raises(InputError, match="add up") as caught:
        serving.record("r2", facts=most, objections=[who])
    assert caught.value.field == "facts.count"
    assert journal.offset == serving.name.journal_offset == 1
    assert serving.match([who]).opportunity_count[0] > 0


@pytest.mark.parametrize(
    ("table", "field"),
    [
        (pa.table({"customer_id": ["x"], "city": ["y"]}), "attributes.city"),
        (pa.table({"customer_id": ["x"], "age": pa.array([1], pa.int64())}), "attributes.age"),
        (pa.table({"customer_id": ["x"], "objected": [True]}), "attributes.objected"),
    ],
)
def test_attributes_that_the_base_does_not_know_are_not_recorded(
    serving: Serving, journal: Journal, table: pa.Table, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        serving.record("r1", attributes=table)
    assert caught.value.field == field
    assert journal.offset == 0


def test_entries_that_do_not_fit_make_one_customer_an_error_until_they_are_put_right(
    serving: Serving, world: World, journal: Journal
) -> None:
    who = somebody(serving, world)
    others = [each for each in world.customers if each != who]
    before = serving.match(others).to_table()
    ages = pa.table({"customer_id": [who], "age": pa.array([40], pa.int64())})
    journal.append(attributes=ages, facts=bought(others[0]))
    serving.refresh()
    answer = serving.match([who, *others])
    assert list(answer.errors) == [0]
    assert isinstance(answer.errors[0], SchemaError)
    assert before.num_rows
    for _ in range(2):
        with pytest.raises(SchemaError, match="offset 2") as caught:
            serving.explain(who, world.offers[0]["id"])
        assert caught.value is not answer.errors[0]
    assert serving.match([who]).errors[0] is not answer.errors[0]
    # Others go on, and so does what can be said of the customer.
    serving.record("r1", facts=bought(who), objections=[others[-1]])
    right = pa.table({"customer_id": [who], "age": pa.array([40], pa.int32())})
    serving.record("r2", attributes=right)
    answer = serving.match(world.customers, reasons=3)
    assert not answer.errors
    assert answer.to_table().equals(batch(world, journal.overlay().apply(world.base)))


def test_who_is_forgotten_is_known_by_nothing_but_an_objection(
    serving: Serving, world: World
) -> None:
    who = somebody(serving, world)
    serving.record("r1", facts=bought(who))
    assert serving.forget(who) == 1
    assert serving.match([who]).opportunity_count.tolist() == [0]
    assert serving.record("r2", facts=bought(who)).dropped_count == 1
    state = serving._state
    assert all(not each.entries for known in state.touched for each in known.values())
    assert serving.match([who]).opportunity_count.tolist() == [0]


def test_without_a_journal_nothing_can_be_recorded(world: World, stored: StoredBase) -> None:
    with Serving.open(stored, world.catalog, world.policy, as_of=world.as_of) as serving:
        assert serving.name.journal_offset == 0
        for attempt in (lambda: serving.record("r"), lambda: serving.forget("a")):
            with pytest.raises(InputError) as caught:
                attempt()
            assert caught.value.field == "journal"
        assert serving.refresh() == serving.name


def test_a_journal_that_ends_before_the_base_is_refused(
    world: World, stored: StoredBase, journal: Journal, tmp_path: Path
) -> None:
    from visavis.journal import compact

    journal.append(objections=[world.customers[0]])
    later = compact(stored, journal.overlay())
    with Journal.open(tmp_path / "other", create=True) as other:
        with pytest.raises(InputError) as caught:
            Serving.open(later, world.catalog, world.policy, journal=other, as_of=world.as_of)
        assert caught.value.field == "journal"
    journal.append(objections=[world.customers[-1]])
    with Serving.open(
        later, world.catalog, world.policy, journal=journal, as_of=world.as_of
    ) as serving:
        assert serving.name.journal_offset == 2
        found = serving.match(world.customers, reasons=3).to_table()
        assert found.equals(batch(world, journal.overlay().apply(world.base)))


def test_what_is_closed_says_so(world: World, stored: StoredBase, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "other", create=True) as journal:
        serving = Serving.open(
            stored, world.catalog, world.policy, journal=journal, as_of=world.as_of
        )
        serving.close()
        for attempt in (
            lambda: serving.match(world.customers),
            lambda: serving.find_audience(world.offers[0]["id"], k=1),
            lambda: serving.explain(world.customers[0], world.offers[0]["id"]),
        ):
            with pytest.raises(InputError, match="has been closed"):
                attempt()


def test_a_journal_that_cannot_be_read_is_told_and_not_passed_over(
    world: World, stored: StoredBase, tmp_path: Path
) -> None:
    """What it says since may be an objection."""
    journal = Journal.open(tmp_path / "other", create=True)
    with Serving.open(
        stored, world.catalog, world.policy, journal=journal, as_of=world.as_of
    ) as serving:
        assert not serving.match(world.customers).errors
        journal.close()
        serving._looked_at -= 1.0
        for _ in range(2):
            with pytest.raises(InputError, match="has been closed") as caught:
                serving.match(world.customers)
            assert caught.value.field == "journal"


# What is published.


def test_what_is_published_is_served_from_then_on(
    serving: Serving, world: World, stored: StoredBase, journal: Journal, tmp_path: Path
) -> None:
    serving.record("r1", facts=bought(somebody(serving, world)))
    first = serving.name
    policy = world.policy.model_copy(update={"k": 1})
    published = serving.publish(policy=policy, expected=Expected(policy=policy.digest()))
    assert published._replace(policy_digest=first.policy_digest) == first
    assert serving.name == published
    merged = journal.overlay().apply(world.base)
    table = serving.match(world.customers, reasons=3).to_table()
    assert table.equals(batch(replace(world, policy=policy), merged))
    catalog = Catalog.from_rows([{**each, "value": 2.0} for each in world.capabilities])
    base = replace(world.base, indicators=world.base.indicators * np.float32(0.5))
    later = base.write(tmp_path / "base")
    name = serving.publish(base=later, catalog=catalog)
    assert (name.base_version, name.base_digest) == (2, later.digest)
    table = serving.match(world.customers, reasons=3).to_table()
    engine = Engine(journal.overlay().apply(base), catalog, policy, as_of=world.as_of)
    assert table.equals(engine.match().to_table())
    # Rolling back is publishing.
    assert serving.publish(base=stored, catalog=world.catalog, policy=world.policy) == first


def test_what_does_not_fit_is_not_published(
    serving: Serving, world: World, journal: Journal, tmp_path: Path
) -> None:
    ages = pa.table({"customer_id": world.customers[:1], "age": pa.array([40], pa.int32())})
    serving.record("r1", attributes=ages)
    before = serving.name
    table = serving.match(world.customers, reasons=3).to_table()
    rule, weight = (
        Catalog.from_rows([{**world.capabilities[0], **change}, *world.capabilities[1:]])
        for change in ({"rule": "shoe_size > 40"}, {"weights": {"shoe_size": 1.0}})
    )
    left_out = Exclusions(customers=("nobody",))
    excluded = world.policy.model_copy(update={"exclusions": left_out})
    attributes = world.base.attributes.drop_columns(["age"])
    ageless = replace(world.base, attributes=attributes).write(tmp_path / "ageless")
    plain = Catalog.from_rows(
        [{k: v for k, v in each.items() if k != "rule"} for each in world.capabilities]
    )
    zeros = "0" * 64
    for attempt, field in (
        ({"catalog": rule}, "rule"),
        ({"catalog": weight}, "weights['shoe_size']"),
        ({"policy": excluded}, "policy.exclusions.customers"),
        ({"base": ageless, "catalog": plain}, "attributes.age"),
        ({"expected": Expected(base=zeros)}, "expected.base"),
        ({"catalog": world.catalog, "expected": Expected(catalog=zeros)}, "expected.catalog"),
        ({"expected": Expected(policy=zeros)}, "expected.policy"),
        ({"as_of": world.base.as_of - timedelta(days=1)}, "as_of"),
        ({"policy": "policy"}, "policy"),
    ):
        with pytest.raises(InputError) as caught:
            serving.publish(**attempt)  # type: ignore[arg-type]
        assert caught.value.field == field
    assert serving.name == before
    assert serving.match(world.customers, reasons=3).to_table().equals(table)
    assert journal.offset == 1


def test_every_answer_is_of_exactly_one_version_while_others_are_published(
    serving: Serving, world: World
) -> None:
    catalogs = [
        Catalog.from_rows([{**each, "value": value} for each in world.capabilities])
        for value in (1.0, 3.0)
    ]
    meant = {
        each.digest(): Engine(world.base, each, world.policy, as_of=world.as_of).match().to_table()
        for each in catalogs
    }
    serving.publish(catalog=catalogs[0])
    stop, wrong, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            answer = serving.match(world.customers, reasons=3)
            seen.add(answer.name.catalog_digest)
            if not answer.to_table().equals(meant[answer.name.catalog_digest]):
                wrong.append(answer.name)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for number in range(20):
        serving.publish(catalog=catalogs[(number + 1) % 2])
    stop.set()
    for each in threads:
        each.join()
    assert not wrong
    assert seen <= set(meant)


def test_threads_that_record_and_ask_see_what_they_recorded(
    serving: Serving, world: World, journal: Journal
) -> None:
    customers = world.customers
    faults: list[str] = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for turn in range(6):
            who = customers[int(rng.integers(len(customers)))]
            done = serving.record(f"{number}-{turn}", facts=bought(who))
            answer = serving.match([who, *customers])
            if answer.name.journal_offset < done.last_offset:
                faults.append("what was recorded was not seen")
            first = answer.opportunity_count[0]
            at = 1 + customers.index(who)
            ends = np.cumsum(answer.opportunity_count)
            again = answer.expected_value[ends[at] - answer.opportunity_count[at] : ends[at]]
            if answer.expected_value[:first].tolist() != again.tolist():
                faults.append("one answer was made from two states")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not faults
    assert journal.offset == serving.name.journal_offset == 48
    found = serving.match(customers, reasons=3).to_table()
    assert found.equals(batch(world, journal.overlay().apply(world.base)))


OTHER = """
import sys
import pyarrow as pa
from datetime import date
from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Serving

folder, customers = sys.argv[1], sys.argv[2:]
with Journal.open(f"{folder}/journal") as journal, Serving.open(
    StoredBase.open(f"{folder}/base"), Catalog.read(f"{folder}/catalog.parquet"),
    Policy(k=3, consent_not_needed=("email", "phone", "letter")), journal=journal,
) as serving:
    for turn, who in enumerate(customers * 4):
        facts = {"customer_id": [who], "product": ["tea"], "kind": ["bought"]}
        serving.record(f"other {turn}", facts=pa.table({**facts, "date": [date(2020, 2, 29)]}))
    serving.refresh()
    print(serving.name.journal_offset)
"""


def test_two_processes_on_one_journal_come_to_the_same(world: World, tmp_path: Path) -> None:
    rows = [
        {"id": f"{name}{channel}", "product": name, "channel": channel, "weights": {}}
        | {"bias": bias}
        | {"history_weights": [{"kind": "bought", "feature": "days", "weight": weight}]}
        for name, bias, weight in (("tea", -1.0, 1.0), ("milk", 0.5, 0.0), ("thé", 0.25, 0.0))
        for channel in ("email", "phone", "letter")
    ]
    catalog = Catalog.from_rows(rows)
    catalog.write(tmp_path / "catalog.parquet")
    base = replace(world, as_of=AS_OF).base
    stored = base.write(tmp_path / "base", parts=2)
    policy = Policy(k=3, consent_not_needed=("email", "phone", "letter"))
    customers = world.customers[:4]
    with Journal.open(tmp_path / "journal", create=True) as journal, ExitStack() as stack:
        serving = stack.enter_context(Serving.open(stored, catalog, policy, journal=journal))
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path), *customers],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        offsets = []
        for turn in range(16):
            done = serving.record(f"here {turn}", facts=bought(customers[turn % len(customers)]))
            offsets.append(done.last_offset)
            assert serving.match(customers).name.journal_offset >= done.last_offset
        said, complaints = other.communicate(timeout=60)
        assert other.returncode == 0, complaints
        assert offsets == sorted(set(offsets))
        # What the other recorded is noticed by asking, without a refresh.
        for _ in range(1_000):
            name = serving.match(customers).name
            if name.journal_offset == 16 + 4 * len(customers):
                break
            threading.Event().wait(0.01)
        assert name.journal_offset == 16 + 4 * len(customers) >= int(said)
        engine = Engine(journal.overlay().apply(base), catalog, policy)
        found = serving.match(world.customers, reasons=3).to_table()
        assert found.equals(engine.match().to_table())


# Audiences.

DRAFT = {"id": "new", "product": "tea", "channel": "email", "weights": {}}


@pytest.mark.parametrize(
    ("asked", "context", "field"),
    [
        (7, {}, "capability"),
        ({**DRAFT, "price": 1.0}, {}, "price"),
        ({**DRAFT, "rule": "shoe > 1"}, {}, "rule"),
        ({**DRAFT, "weights": {"shoe": 1.0}}, {}, "weights['shoe']"),
        ({**DRAFT, "id": "retired"}, {}, "id"),
        (None, {"attributes": {"age": 7}}, "context.attributes"),
    ],
)
def test_an_audience_that_cannot_be_is_refused_by_its_field(
    world: World, tmp_path: Path, asked: Any, context: dict[str, Any], field: str
) -> None:
    fact = dict.fromkeys(FACT_TYPES) | {
        "customer_id": world.customers[0],
        "capability_id": "retired",
        "kind": "bought",
        "date": AS_OF,
        "count": 1,
    }
    with_fact = replace(world, facts=(*world.facts, fact))
    stored = with_fact.base.write(tmp_path / "base", parts=2)
    with Serving.open(stored, world.catalog, world.policy, as_of=world.as_of) as serving:
        asked = world.offers[0]["id"] if asked is None else asked
        with pytest.raises(InputError) as caught:
            serving.find_audience(asked, Context(**context), k=1)
        assert caught.value.field == field
        with pytest.raises(NotFoundError):
            serving.find_audience("nothing", k=1)
        for k in (0, True, 100_001):
            with pytest.raises(InputError) as caught:
                serving.find_audience(world.offers[0]["id"], k=k)
            assert caught.value.field == "k"


def test_an_audience_through_a_channel_that_is_shut_is_nobody(
    serving: Serving, world: World
) -> None:
    offer = world.offers[0]
    for asked in (offer["id"], {**offer, "id": "draft"}):
        context = Context(available_channels=["fax"])
        found = serving.find_audience(asked, context, k=9, reach=True)
        assert (found.customer_ids, found.possible_count, found.reach) == ([], 0, 0)
