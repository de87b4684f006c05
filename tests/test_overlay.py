"""An overlay: applied to a base it gives the base that the merged tables would have made."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.base import Base
from visavis.errors import CorruptionError, InputError, SchemaError
from visavis.journal import Journal, Overlay
from worlds import AS_OF, ATTRIBUTE_TYPES, FACT_TYPES, NAMES, UNKNOWN, World, ago, worlds

Group = dict[str, Any]

_dates = st.sampled_from([ago(0), ago(7), ago(40), date(1, 1, 1)])
_facts = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from(NAMES),
        "about": st.sampled_from([("tea", None), ("milk", None), (None, "a"), (None, "é")]),
        "kind": st.sampled_from(["bought", "refused", "contacted", "excluded"]),
        "date": _dates,
        "count": st.integers(1, 1000),
    }
)
_values: dict[str, st.SearchStrategy[Any]] = {
    "age": st.integers(-(2**31), 2**31 - 1),
    "country": st.text(max_size=3).filter(lambda text: text.isprintable()),
    "member": st.booleans(),
    "born": _dates,
    "score": st.floats(allow_nan=False, allow_infinity=False),
    "consent_email": st.booleans(),
}


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """What one append is given; every part may be missing."""
    facts = [
        {**fact, "product": fact["about"][0], "capability_id": fact["about"][1]}
        for fact in draw(st.lists(_facts, max_size=6))
    ]
    names = sorted(draw(st.sets(st.sampled_from(sorted(_values)), max_size=3)))
    ids = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4)) if names else []
    return {
        "facts": [{name: fact[name] for name in FACT_TYPES} for fact in facts],
        "attributes": {
            customer_id: {name: draw(st.none() | _values[name]) for name in names}
            for customer_id in ids
        },
        "objections": draw(st.lists(st.sampled_from(NAMES), max_size=2)),
    }


def appended(journal: Journal, group: Group) -> None:
    rows = [{"customer_id": name, **row} for name, row in group["attributes"].items()]
    types = (
        [(name, ATTRIBUTE_TYPES[name]) for name in rows[0] if name != "customer_id"] if rows else []
    )
    schema = pa.schema([("customer_id", pa.string()), *types])
    journal.append(
        facts=pa.Table.from_pylist(group["facts"], pa.schema(list(FACT_TYPES.items()))),
        attributes=pa.Table.from_pylist(rows, schema) if rows else None,
        objections=group["objections"],
    )


def merged(world: World, said: list[Group], forgotten: list[str]) -> Base:
    """What `Base.from_tables` makes of the world's tables and of everything that was said."""
    known = set(world.customer_ids)
    attributes = {name: dict(row) for name, row in world.attributes.items()}
    facts = list(world.facts)
    for group in said:
        facts += [fact for fact in group["facts"] if fact["customer_id"] in known]
        for name, row in group["attributes"].items():
            if name in known:
                attributes.setdefault(name, dict(UNKNOWN)).update(row)
        for name in group["objections"]:
            if name in known:
                attributes.setdefault(name, dict(UNKNOWN))["objected"] = True
    for name in forgotten:
        facts = [
            fact
            for fact in facts
            if fact["customer_id"] != name or any(fact is held for held in world.facts)
        ]
        if name in known:
            attributes[name] = {**world.attributes.get(name, UNKNOWN), "objected": True}
    return replace(world, attributes=attributes, facts=tuple(facts)).base


def assert_same_base(actual: Base, expected: Base) -> None:
    assert actual.attributes.schema == expected.attributes.schema
    assert actual.attributes.equals(expected.attributes)
    assert actual.facts.schema == expected.facts.schema
    assert actual.facts.to_pylist() == expected.facts.to_pylist()
    assert actual.digest == expected.digest
    np.testing.assert_array_equal(actual.fact_bounds, expected.fact_bounds)


@settings(max_examples=60)
@given(worlds(), st.lists(groups(), max_size=4), st.lists(st.sampled_from(NAMES), max_size=2))
def test_the_overlay_applied_is_the_base_of_the_merged_tables(
    world: World, said: list[Group], forgotten: list[str]
) -> None:
    with TemporaryDirectory() as folder, Journal.open(f"{folder}/journal", create=True) as journal:
        for group in said:
            appended(journal, group)
        for name in forgotten:
            journal.forget(name)
        overlay = journal.overlay()
    before = world.base.digest
    made = overlay.apply(world.base)
    assert_same_base(made, merged(world, said, forgotten))
    assert made.indicators is world.base.indicators
    assert Base.digest.func(world.base) == before, "the base itself stays as it is"
    back = Overlay.from_bytes(overlay.to_bytes())
    sent = pickle.loads(pickle.dumps(overlay))  # noqa: S301 (its own)
    assert back.to_bytes() == overlay.to_bytes() == sent.to_bytes()
    assert back.digest() == overlay.digest()
    assert_same_base(back.apply(world.base), made)
    by_part = world.base
    for part in overlay.split(4):
        by_part = part.apply(by_part)
    assert_same_base(by_part, made)


@settings(max_examples=20)
@given(st.lists(groups(), min_size=1, max_size=5), st.integers(0, 99))
def test_how_entries_were_grouped_changes_no_byte(said: list[Group], seed: int) -> None:
    """Facts add up in any order; what is not about order is the same overlay."""
    facts = [fact for group in said for fact in group["facts"]]
    shuffled = [facts[i] for i in np.random.default_rng(seed).permutation(len(facts))]
    found = []
    with TemporaryDirectory() as folder:
        for name, order in (("one", facts), ("two", shuffled)):
            with Journal.open(Path(folder) / name, create=True) as journal:
                step = len(order) or 1 if name == "one" else 2
                for begin in range(0, len(order), step):
                    part = {
                        "facts": order[begin : begin + step],
                        "attributes": {},
                        "objections": [],
                    }
                    appended(journal, part)
                found.append(journal.overlay())
    assert found[0].to_bytes() == found[1].to_bytes()


# A small base.


@pytest.fixture
def base() -> Base:
    return Base.from_tables(
        pa.table({"customer_id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]}),
        as_of=AS_OF,
        attributes=pa.table({"customer_id": ["a"], "age": pa.array([7], pa.uint8())}),
        facts=pa.table(
            {
                "customer_id": ["b", "c"],
                "product": ["tea", "tea"],
                "kind": ["bought"] * 2,
                "date": [AS_OF] * 2,
                "count": [2**31 - 1, 1],
            }
        ),
    )


@pytest.fixture
def journal(tmp_path: Path):
    with Journal.open(tmp_path / "journal", create=True) as made:
        yield made


def bought(*ids: str) -> pa.Table:
    count = len(ids)
    return pa.table(
        {
            "customer_id": list(ids),
            "product": ["tea"] * count,
            "kind": ["bought"] * count,
            "date": [AS_OF] * count,
        }
    )


def ages(dtype: pa.DataType, **said: Any) -> pa.Table:
    return pa.table({"customer_id": list(said), "age": pa.array(said.values(), dtype)})


def test_what_concerns_nobody_in_the_base_gives_the_base_itself(
    base: Base, journal: Journal
) -> None:
    assert journal.overlay().apply(base) is base
    journal.append(facts=bought("z"), attributes=ages(pa.string(), y="x"), objections=["zz"])
    journal.forget("nobody")
    overlay = journal.overlay()
    assert not overlay.is_empty
    assert overlay.apply(base) is base


def test_a_part_of_the_customers_takes_what_concerns_it(base: Base, journal: Journal) -> None:
    journal.append(facts=bought("a", "c"), attributes=ages(pa.uint8(), a=9, c=8), objections=["b"])
    rows = Base.from_tables(
        pa.table({"customer_id": ["c"], "x": [3.0]}),
        as_of=AS_OF,
        attributes=ages(pa.uint8(), c=None),
    )
    made = journal.overlay().apply(rows)
    assert made.attributes.to_pylist() == [{"age": 8, "objected": False}]
    assert [row["count"] for row in made.facts.to_pylist()] == [1]


def test_who_objected_or_was_forgotten_has_objected(base: Base, journal: Journal) -> None:
    journal.append(objections=["c"])
    journal.append(facts=bought("a"))
    journal.forget("a")
    overlay = journal.overlay()
    assert overlay.forgotten == {hashlib.sha256(b"a").hexdigest()}
    assert overlay.apply(base).attributes["objected"].to_pylist() == [True, False, True]
    assert overlay.apply(base).facts is base.facts


def test_columns_by_dictionary_are_read_as_plain_text(base: Base, journal: Journal) -> None:
    journal.append(facts=bought("c"), objections=["a"])
    index = base.facts.schema.get_field_index("product")
    coded = base.facts.set_column(index, "product", base.facts["product"].dictionary_encode())
    overlay = journal.overlay()
    made = overlay.apply(replace(base, facts=coded))
    assert_same_base(made, overlay.apply(base))
    assert made.facts["count"].to_pylist() == [2**31 - 1, 2]


def test_counts_beyond_the_bound_name_the_customer(base: Base, journal: Journal) -> None:
    journal.append(facts=bought("b"))
    with pytest.raises(InputError, match=f"customer 'b': with the journal .* {2**31}") as refused:
        journal.overlay().apply(base)
    assert refused.value.field == "facts.count"


def test_an_attribute_that_the_base_lacks_names_itself_and_the_offset(
    base: Base, journal: Journal
) -> None:
    journal.append(objections=["b"])
    journal.append(attributes=pa.table({"customer_id": ["z", "a"], "city": ["x", "y"]}))
    with pytest.raises(SchemaError, match=r"attributes.city: the base has no .* at offset 3"):
        journal.overlay().apply(base)


def test_an_attribute_of_another_type_is_refused_until_the_right_one_is_recorded(
    base: Base, journal: Journal
) -> None:
    journal.append(attributes=ages(pa.int64(), a=3, b=4))
    said = "attributes.age: is uint8 in the base, but the journal sets int64 at offset 1"
    with pytest.raises(SchemaError, match=said):
        journal.overlay().apply(base)
    journal.append(attributes=ages(pa.uint8(), a=3, b=None))
    assert journal.overlay().apply(base).attributes["age"].to_pylist() == [3, None, None]


def test_damaged_bytes_of_an_overlay_are_found(journal: Journal) -> None:
    journal.append(facts=bought("a"), attributes=ages(pa.uint8(), a=1), objections=["b"])
    content = journal.overlay().to_bytes()
    for place in range(0, len(content), 7):
        changed = bytes([content[place] ^ 1])
        with pytest.raises(CorruptionError, match="do not fit their digest"):
            Overlay.from_bytes(content[:place] + changed + content[place + 1 :])
    for size in range(0, len(content), 97):
        with pytest.raises(CorruptionError, match="do not fit their digest"):
            Overlay.from_bytes(content[:size])
