"""Gates against an oracle that asks pair by pair, and every edge of them by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

import reference
from visavis import kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.eligibility import Gate, Gates, with_spare, without
from visavis.errors import InputError, RuleError, SchemaError
from visavis.policy import Exclusions, Policy
from worlds import AS_OF, GATES, RULES, World, ago, worlds


def gates_of(world: World) -> Gates:
    return Gates.compile(world.catalog, world.policy, world.base.attributes.schema)


def dense(eligible: kernel.Eligibility) -> np.ndarray:
    planes, plane_index = eligible
    assert (planes.dtype, plane_index.dtype) == (np.uint64, np.int32)
    return reference.eligible_matrix((planes, plane_index), len(planes), len(plane_index))


def planes_of(world: World) -> np.ndarray:
    base = world.base
    return dense(gates_of(world).planes(base.attributes, base.facts, world.as_of))


def oracle(world: World) -> np.ndarray:
    """What planes hold: everything but what leaves a customer out as a whole."""
    policy = world.policy
    nobody_out = policy.exclusions.model_copy(update={"customers": ()})
    inside = replace(world, policy=policy.model_copy(update={"exclusions": nobody_out}))
    return np.array(
        [
            [set(inside.closed_gates(i, j)) <= {"objection"} for j in range(len(inside.offers))]
            for i in range(len(inside.customers))
        ]
    )


def outcomes(world: World, i: int, j: int) -> list[Gate]:
    facts = world.base.facts_of(i)
    own = facts.set_column(0, "customer_index", pa.array([0] * len(facts), pa.int64()))
    attributes = world.base.attributes.slice(i, 1)
    return gates_of(world).outcomes(j, attributes, own, world.as_of, world.customers[i])


@settings(max_examples=120)
@given(worlds())
def test_planes_are_what_the_oracle_says_of_every_pair(world: World) -> None:
    np.testing.assert_array_equal(planes_of(world), oracle(world))


@settings(max_examples=60)
@given(worlds())
def test_who_is_open_to_one_capability_is_what_its_plane_says(world: World) -> None:
    base, gates = world.base, gates_of(world)
    planes = planes_of(world)
    for j in range(len(world.offers)):
        found = gates.open_to(j, base.attributes, base.facts, world.as_of)
        np.testing.assert_array_equal(found, planes[:, j])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128])
def test_what_is_closed_to_all_is_closed_and_nothing_else_changes(count: int) -> None:
    rng = np.random.default_rng(count)
    planes = rng.integers(0, 2**63, (5, -(-count // 64))).astype(np.uint64)
    last = np.uint64(2 ** (count - 64 * (planes.shape[1] - 1)) - 1)
    planes[:, -1] &= last
    plane_index = np.arange(-1, count, dtype=np.int32)
    eligible = kernel.Eligibility(planes, plane_index)
    closed = rng.random(count + 1) < 0.5
    expected = dense(eligible) & ~closed
    for given_planes in (eligible, with_spare(eligible)):
        np.testing.assert_array_equal(dense(without(given_planes, closed)), expected)
    np.testing.assert_array_equal(dense(with_spare(eligible)), dense(eligible))


def test_a_day_that_is_asked_for_again_and_again_keeps_its_planes() -> None:
    base = Base.from_tables(pa.table({"customer_id": ["a"], "x": [1.0]}), as_of=AS_OF)
    rows = [
        {"id": f"c{day}", "product": "tea", "channel": "post", "weights": {}, "valid_to": ago(-day)}
        for day in range(12)
    ]
    policy = Policy(consent_not_needed=("post",))
    gates = Gates.compile(Catalog.from_rows(rows), policy, base.attributes.schema)
    for _ in range(2):
        for day in range(12):
            found = dense(gates.planes(base.attributes, base.facts, ago(-day)))
            ids = gates.catalog.ids
            assert found[0].tolist() == [int(each[1:]) >= day for each in ids]


@settings(max_examples=40)
@given(worlds(customers_max=6, capabilities_max=8))
def test_outcomes_tell_every_closed_gate_of_every_pair(world: World) -> None:
    for i in range(len(world.customers)):
        for j in range(len(world.offers)):
            found = outcomes(world, i, j)
            names = [gate.name for gate in found]
            assert sorted(names, key=GATES.index) == names
            assert set(names) == set(GATES)
            closed = dict.fromkeys(gate.name for gate in found if not gate.is_open)
            assert list(closed) == world.closed_gates(i, j)
            assert all(gate.detail for gate in found)
            assert all((gate.remedy is None) == gate.is_open for gate in found)


def small(
    *capabilities: dict[str, Any],
    attributes: dict[str, Any] | None = None,
    facts: tuple[dict[str, Any], ...] = (),
    as_of: date = AS_OF,
    **policy: Any,
) -> World:
    """One customer, who agreed to everything, and capabilities of channel email."""
    plain = {"product": "tea", "channel": "email", "weights": {}, "bias": 0.0, "value": 1.0}
    consents = {f"consent_{channel}": True for channel in ("email", "phone", "letter")}
    unknown = dict.fromkeys(("age", "country", "member", "born", "score"))
    customer = {**unknown, **consents, "objected": False, **(attributes or {})}
    return World(
        indicators=np.ones((1, 1), np.float32),
        indicator_names=("x",),
        customer_ids=("c",),
        attributes={"c": customer},
        facts=tuple({"customer_id": "c", "count": 1, **fact} for fact in facts),
        capabilities=tuple(
            {"id": f"t{number}", **plain, **row} for number, row in enumerate(capabilities or [{}])
        ),
        policy=Policy(**policy),
        as_of=as_of,
    )


def contact(age: int, **about: str) -> dict[str, Any]:
    return {"kind": "contacted", "date": ago(age), **about}


@settings(max_examples=40)
@given(worlds())
def test_capabilities_of_one_group_share_a_plane(world: World) -> None:
    gates, base = gates_of(world), world.base
    planes = gates.planes(base.attributes, base.facts, world.as_of).plane_index
    groups = gates.groups(world.as_of)
    assert len(groups) == len(planes)
    for group in set(groups.tolist()):
        assert len(set(planes[groups == group].tolist())) == 1


def test_without_any_gate_there_is_no_plane() -> None:
    world = small({}, {}, consent_not_needed=("email",))
    gates = gates_of(world)
    planes, plane_index = gates.planes(world.base.attributes, world.base.facts, AS_OF)
    assert plane_index.tolist() == [-1, -1]
    assert not planes.any()


def test_capabilities_of_one_rule_and_channel_share_a_plane() -> None:
    world = small(
        {"rule": "age >= 18"},
        {"rule": "age >= 18", "product": "milk"},
        {"rule": "age >= 18", "channel": "phone"},
        {"valid_to": ago(1)},
        {"valid_from": ago(-1), "rule": "true"},
    )
    plane_index = gates_of(world).planes(world.base.attributes, world.base.facts, AS_OF)[1]
    same, also, other_channel, closed, also_closed = plane_index.tolist()
    assert same == also != other_channel
    assert closed == also_closed
    assert sorted({same, other_channel, closed}) == [0, 1, 2]


@pytest.mark.parametrize("count", [63, 64, 65, 130])
def test_more_than_a_word_of_planes(count: int) -> None:
    customers = 20
    rules = [f"age = {number} or age is null" for number in range(count)]
    catalog = Catalog.from_rows(
        {"id": f"{number:03}", "product": "p", "channel": "c", "weights": {}, "rule": rule}
        for number, rule in enumerate(rules)
    )
    ages = [None, *np.random.default_rng(0).integers(0, count, customers - 1).tolist()]
    attributes = pa.table({"age": pa.array(ages, pa.int64()), "objected": [False] * customers})
    gates = Gates.compile(catalog, Policy(consent_not_needed=("c",)), attributes.schema)
    facts = Base.from_tables(pa.table({"customer_id": ["a"], "x": [1]}), as_of=AS_OF).facts
    found = gates.planes(attributes, facts, AS_OF)
    assert found.planes.shape == (customers, -(-count // 64))
    assert dense(found).tolist() == [
        [age is None or age == number for number in range(count)] for age in ages
    ]


@pytest.mark.parametrize("rule", RULES)
def test_unknown_is_not_eligible(rule: str) -> None:
    world = small({"rule": rule})
    holds_for_the_unknown = {
        "member is not true",
        "born is null or days_between(born, as_of) > 30",
        "year(as_of) = 2020",
        "true",
    }
    assert planes_of(world).item() == (rule in holds_for_the_unknown)


@pytest.mark.parametrize(("consent", "is_open"), [(True, True), (False, False), (None, False)])
def test_consent_must_be_given_for_the_channel(consent: bool | None, is_open: bool) -> None:
    world = small({}, {"channel": "phone"}, attributes={"consent_email": consent})
    assert planes_of(world).tolist() == [[is_open, True]]
    waived = small({}, attributes={"consent_email": consent}, consent_not_needed=("email",))
    assert planes_of(waived).item()


def test_a_customer_of_whom_nothing_is_known_gave_no_consent() -> None:
    world = small({}, {"channel": "shop"}, consent_not_needed=("shop",))
    world = replace(world, attributes={})
    assert planes_of(world).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("age", "is_open"), [(0, False), (1, False), (6, False), (7, True), (8, True), (-1, True)]
)
def test_a_cool_down_ends_on_its_last_day(age: int, is_open: bool) -> None:
    world = small(
        {},
        {"channel": "phone"},
        facts=(contact(age, capability_id="t0"),),
        cool_down_days={"email": 7, "phone": 1},
    )
    assert planes_of(world).tolist() == [[is_open, True]]
    (gate,) = (gate for gate in outcomes(world, 0, 0) if gate.name == "cool-down")
    assert gate.is_open == is_open
    if not is_open:
        assert gate.remedy == f"waiting {7 - age} more days"


@pytest.mark.parametrize("about", [{"product": "tea"}, {"capability_id": "retired"}])
def test_a_contact_of_unknown_channel_counts_for_every_channel(about: dict[str, str]) -> None:
    world = small(
        {},
        {"channel": "phone"},
        {"channel": "letter"},
        facts=(contact(3, **about),),
        cool_down_days={"email": 7, "phone": 3, "letter": 4},
    )
    assert planes_of(world).tolist() == [[False, True, False]]


def test_only_contacts_cool_down_and_the_last_one_counts() -> None:
    bought = {"kind": "bought", "date": ago(1), "product": "tea"}
    days = {"email": 7}
    assert planes_of(small({}, facts=(bought,), cool_down_days=days)).item()
    contacts = (contact(20, capability_id="t0"), contact(2, capability_id="t0"))
    assert not planes_of(small({}, facts=contacts, cool_down_days=days)).item()
    assert planes_of(small({}, facts=contacts)).item(), "without a cool-down, none"


def test_a_cool_down_is_counted_to_the_day_of_the_match() -> None:
    late = ago(-4)
    world = small(
        {}, facts=(contact(3, capability_id="t0"),), cool_down_days={"email": 7}, as_of=late
    )
    assert planes_of(world).item()
    assert not planes_of(replace(world, as_of=late - timedelta(days=1))).item()


@pytest.mark.parametrize(
    ("first", "last", "is_open"),
    [
        (None, None, True),
        (AS_OF, AS_OF, True),
        (ago(1), None, True),
        (ago(-1), None, False),
        (None, ago(-1), True),
        (None, ago(1), False),
        (ago(9), ago(1), False),
    ],
)
def test_validity_is_inclusive(first: date | None, last: date | None, is_open: bool) -> None:
    world = small({"valid_from": first, "valid_to": last})
    assert planes_of(world).item() == is_open


@pytest.mark.parametrize(
    ("excluded", "open_ones"),
    [
        ({"capabilities": ["t0"]}, [False, True, True]),
        ({"products": ["tea"]}, [False, False, True]),
        ({"channels": ["phone"]}, [True, False, True]),
        ({"families": ["drinks"]}, [False, True, False]),
        ({"customers": ["c"]}, [True, True, True]),
    ],
)
def test_exclusions_close_what_they_name(excluded: Any, open_ones: list[bool]) -> None:
    world = small(
        {"family": "drinks"},
        {"channel": "phone", "family": "other"},
        {"product": "milk", "family": "drinks"},
        exclusions=Exclusions(**excluded),
    )
    assert planes_of(world).tolist() == [open_ones]
    said = [
        {gate.name: gate for gate in outcomes(world, 0, j)}["exclusion"].is_open for j in range(3)
    ]
    assert said == ([False] * 3 if "customers" in excluded else open_ones)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"cool_down_days": {"emial": 7}}, "cool_down_days"),
        ({"consent_not_needed": ("Email",)}, "consent_not_needed"),
        ({"exclusions": {"channels": ["phone"]}}, "exclusions.channels"),
        ({"exclusions": {"products": ["Tea"]}}, "exclusions.products"),
        ({"exclusions": {"families": [""]}}, "exclusions.families"),
        ({"exclusions": {"capabilities": ["t0", "t1"]}}, "exclusions.capabilities"),
    ],
)
def test_a_name_that_the_catalog_lacks_is_refused(policy: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match="not in the catalog") as caught:
        gates_of(small({}, **policy))
    assert caught.value.field == f"policy.{field}"


def test_a_channel_whose_consent_no_attribute_knows_is_refused() -> None:
    world = small({"channel": "fax"})
    with pytest.raises(SchemaError, match="consent_not_needed") as caught:
        gates_of(world)
    assert caught.value.field == "attributes.consent_fax"
    gates_of(small({"channel": "fax"}, consent_not_needed=("fax",)))


def test_a_consent_that_is_no_boolean_is_refused() -> None:
    schema = pa.schema([("consent_email", pa.string()), ("objected", pa.bool_())])
    with pytest.raises(SchemaError, match="must be bool, got string") as caught:
        Gates.compile(small({}).catalog, Policy(), schema)
    assert caught.value.field == "attributes.consent_email"


def test_a_wrong_rule_names_its_capability() -> None:
    with pytest.raises(RuleError, match="agee") as caught:
        gates_of(small({"rule": "age > 3"}, {"rule": "agee > 3"}, {"rule": "agee > 3"}))
    assert caught.value.capability == "t1"
    assert caught.value.column == "agee"
    assert caught.value.position == 0


def test_an_attribute_that_no_rule_could_read_is_refused() -> None:
    schema = pa.schema([("tags", pa.list_(pa.string())), ("consent_email", pa.bool_())])
    with pytest.raises(SchemaError, match="tags"):
        Gates.compile(small({}).catalog, Policy(), schema)


def test_a_closed_gate_says_what_was_read() -> None:
    world = small(
        {"rule": "age >= 18 and country = 'FR'", "valid_to": ago(1)},
        attributes={"age": 17, "consent_email": None, "objected": True},
        exclusions=Exclusions(customers=("c",)),
    )
    said = [(gate.name, gate.is_open, gate.detail) for gate in outcomes(world, 0, 0)]
    assert said == [
        ("objection", False, "the customer objected to all contact"),
        ("exclusion", False, "the policy excludes customer 'c'"),
        ("validity", False, "valid from ever to 2020-02-28, asked as of 2020-02-29"),
        ("consent", False, "consent_email is unknown, which counts as refused"),
        ("cool-down", True, "email has none"),
        ("rule", False, "age >= 18: does not hold (age = 17)"),
        ("rule", False, "country = 'FR': is unknown, which does not hold (country = unknown)"),
    ]
