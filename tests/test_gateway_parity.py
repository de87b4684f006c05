"""Whatever a gateway serves, however it is asked: the batch at the same version, byte for byte."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import gateways
import worlds
from gateways import AS_OF, INDICATORS, Client, served
from parity import Expected, check_every_way
from test_overlay import Group, groups
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.journal import Journal
from visavis.policy import Exclusions, Policy
from visavis.serving import Serving
from visavis.v1 import profile_pb2, profile_service_pb2

#: Worlds behind a gateway; `make test-long` asks for more.
EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "80")) // 8

COUNT = 150

KINDS = {
    name: getattr(profile_pb2, f"FACT_KIND_{name.upper()}")
    for name in ("contacted", "bought", "refused", "excluded")
}
VALUE_FIELDS = {
    bool: "bool_value",
    int: "int64_value",
    float: "double_value",
    str: "string_value",
    date: "date_value",
}


class Placed(gateways.World):
    """Any base, catalog, policy and day, behind a gateway."""

    def __init__(
        self, folder: Path, base: Base, catalog: Catalog, policy: Policy, as_of: date
    ) -> None:
        self.folder = folder
        self.base = base
        self.stored = base.write(folder / "base", parts=4)
        self.catalog = catalog
        self.policy = policy
        self.as_of = as_of
        self.journal = Journal.open(folder / "journal", create=True)

    def serving(self) -> Serving:
        return Serving.open(
            self.stored,
            self.catalog,
            self.policy,
            journal=self.journal,
            as_of=self.as_of,
            threads=2,
        )

    def expected(self) -> Expected:
        """The batch, after everything that was recorded."""
        base = self.journal.overlay().apply(self.base)
        return Expected(base, self.catalog, self.policy, as_of=self.as_of)


def record_request(request_id: str, group: Group) -> Any:
    """What a group says, as RecordFacts takes it."""
    request = profile_service_pb2.RecordFactsRequest(request_id=request_id)
    for row in group["facts"]:
        about = {name: row[name] for name in ("product", "capability_id") if row[name] is not None}
        request.facts.add(customer_id=row["customer_id"]).fact.CopyFrom(
            profile_pb2.Fact(
                kind=KINDS[row["kind"]], date=row["date"].isoformat(), count=row["count"], **about
            )
        )
    for customer_id, row in group["attributes"].items():
        held = request.attributes.add(customer_id=customer_id)
        for name, value in row.items():
            cell = held.attributes[name]
            if value is not None:
                text = value.isoformat() if isinstance(value, date) else value
                setattr(cell, VALUE_FIELDS[type(value)], text)
    request.objecting_customer_ids.extend(group["objections"])
    return request


def a_company() -> tuple[Base, Catalog, Policy]:
    """Customers enough, so that every gate and limit decides about many of them."""
    rng = np.random.default_rng(11)
    ids = [f"{number:03d}-é" for number in range(COUNT)]
    catalog = gateways.a_catalog()
    names = [*(f"k{number:02d}" for number in range(12)), "retired"]
    indicators = {
        name: pa.array(rng.integers(-4, 5, COUNT).astype(np.float32) / 2) for name in INDICATORS
    }
    attributes = {
        "age": pa.array([None if n % 17 == 0 else int(rng.integers(10, 80)) for n in range(COUNT)]),
        "first_name": pa.array([None if n % 5 == 0 else f"N{n}" for n in range(COUNT)]),
        "consent_mail": pa.array([None if n % 9 == 0 else n % 7 != 0 for n in range(COUNT)]),
        "consent_shop": pa.array([n % 11 != 0 for n in range(COUNT)]),
        "objected": pa.array([n % 13 == 0 for n in range(COUNT)]),
    }
    rows = [
        {
            "customer_id": str(rng.choice(ids)),
            "product": None,
            "capability_id": None,
            "kind": str(rng.choice(["bought", "bought", "refused", "contacted", "excluded"])),
            "date": AS_OF - timedelta(days=int(rng.integers(-2, 60))),
            "count": int(rng.integers(1, 5)),
        }
        for _ in range(4 * COUNT)
    ]
    for row in rows:
        if rng.random() < 0.5:
            row["product"] = str(rng.choice(["tea", "wine", "bread", "oil", "coal"]))
        else:
            row["capability_id"] = str(rng.choice(names))
    base = Base.from_tables(
        pa.table({"customer_id": pa.array(ids), **indicators}),
        attributes=pa.table({"customer_id": pa.array(ids), **attributes}),
        facts=pa.Table.from_pylist(rows, pa.schema(list(worlds.FACT_TYPES.items()))),
        as_of=AS_OF,
    )
    policy = Policy(
        k=4,
        ev_min=0.1,
        product_limit=2,
        channel_limit=2,
        family_limit=3,
        cool_down_days={"mail": 10, "shop": 3},
        exclusions=Exclusions(customers=(ids[3],), capabilities=("k05",)),
        control_share=0.3,
    )
    return base, catalog, policy


def test_every_customer_of_a_company_is_answered_as_by_the_batch(tmp_path: Path) -> None:
    base, catalog, policy = a_company()
    ids = base.customer_ids.to_pylist()
    before, facts, attributes = [], [], {}
    for number, customer_id in enumerate(ids[::3]):
        fact = {"capability_id": None, "date": AS_OF, "count": 1 + number % 3}
        kind = ("bought", "contacted", "refused", "excluded")[number % 4]
        facts.append({"customer_id": customer_id, "product": "oil", "kind": kind, **fact})
        attributes[customer_id] = {"age": 10 + number, "consent_mail": number % 2 == 0}

    async def scene(client: Client) -> None:
        before.append(world.expected())
        name = await check_every_way(client, ids, before[0])
        assert name.journal_offset == 0
        said = {"facts": facts, "attributes": attributes, "objections": ids[1:20:6]}
        await client.profile.RecordFacts(record_request("one", said))
        gone = profile_service_pb2.ForgetCustomerRequest(customer_id=ids[40])
        await client.profile.ForgetCustomer(gone)
        after = world.expected()
        assert after.rows != before[0].rows
        name = await check_every_way(client, ids, after)
        assert name.journal_offset == world.journal.offset

    with Placed(tmp_path, base, catalog, policy, AS_OF) as world:
        served(world, scene)
    rows = before[0].rows
    # Gates and limits left some of them less than others.
    assert {len(rows.get(each, ())) for each in ids} >= {0, 2, 3}
    assert {row["control"] for each in rows.values() for row in each} == {False, True}


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    world=worlds.worlds(),
    said=st.lists(groups(), max_size=3),
    forgotten=st.lists(st.sampled_from(worlds.NAMES), max_size=1),
)
def test_any_world_is_answered_as_by_the_batch_between_what_is_recorded(
    world: worlds.World, said: list[Group], forgotten: list[str]
) -> None:
    async def scene(client: Client) -> None:
        await check_every_way(client, world.customers, placed.expected())
        for number, group in enumerate(said):
            request = record_request(str(number), group)
            if any((request.facts, request.attributes, request.objecting_customer_ids)):
                await client.profile.RecordFacts(request)
                name = await check_every_way(client, world.customers, placed.expected())
                assert name.journal_offset == placed.journal.offset
        for customer_id in forgotten:
            gone = profile_service_pb2.ForgetCustomerRequest(customer_id=customer_id)
            await client.profile.ForgetCustomer(gone)
            await check_every_way(client, world.customers, placed.expected())

    with (
        TemporaryDirectory() as folder,
        Placed(Path(folder), world.base, world.catalog, world.policy, world.as_of) as placed,
    ):
        served(placed, scene)
