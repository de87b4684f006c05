"""MatchCustomers of rows that differ: overrides by row, and profiles as Arrow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gateways import (
    IDS,
    INDICATORS,
    Client,
    Code,
    World,
    batch_request,
    refused_as,
    rows_of,
    served,
    table_of,
)
from visavis.errors import InputError
from visavis.gateway.arrow_profiles import arrow_profiles_of
from visavis.v1 import context_pb2, match_service_pb2, profile_pb2

#: Damaged requests; `make test-long` asks for more.
EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "80"))


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def little(values: Any, kind: str) -> bytes:
    return np.asarray(values, dtype=kind).tobytes()


# Overrides by row.

ASKED = ["c01", "c02", "nobody", "c02", "c13", "c04"]

SPEND, VISITS = [3.0, -1.0, 0.5, 2.0, 1.0, np.nan], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
IS_GIVEN = [(1, 1), (1, 0), (1, 1), (0, 1), (1, 1), (1, 0)]
AGES, AGE_IS_GIVEN = [12, 40, 40, 17, 40, 0], [1, 1, 1, 1, 1, 0]
NO_MAIL = [1, 0, 0, 1, 0, 0]
INFINITE = little([1.0] * 5 + [np.inf], "<f4")


def overrides() -> profile_pb2.OverrideColumns:
    return profile_pb2.OverrideColumns(
        indicators=profile_pb2.IndicatorColumns(
            indicator_names=["visits", "spend"],
            values=little(list(zip(VISITS, SPEND, strict=True)), "<f4"),
            is_given=little(IS_GIVEN, "u1"),
        ),
        attributes=[
            profile_pb2.AttributeColumn(
                name="age", int64_values=little(AGES, "<i8"), is_given=bytes(AGE_IS_GIVEN)
            ),
            profile_pb2.AttributeColumn(
                name="consent_mail", bool_values=bytes(6), is_given=bytes(NO_MAIL)
            ),
        ],
    )


def of_row(row: int) -> context_pb2.RequestContext:
    """The context that says of one customer what the row says, and of all that they are 99."""
    context = context_pb2.RequestContext()
    context.indicator_overrides["days"] = 0.25
    context.attribute_overrides["age"].int64_value = 99
    for name, values, place in (("visits", VISITS, 0), ("spend", SPEND, 1)):
        if IS_GIVEN[row][place]:
            context.indicator_overrides[name] = values[row]
    if AGE_IS_GIVEN[row]:
        context.attribute_overrides["age"].int64_value = AGES[row]
    if NO_MAIL[row]:
        context.attribute_overrides["consent_mail"].bool_value = False
    return context


def test_a_row_with_overrides_is_the_customer_alone_with_them_in_the_context(world: World) -> None:
    everybody = context_pb2.RequestContext(
        indicator_overrides={"days": 0.25, "visits": 9.0},
        attribute_overrides={"age": profile_pb2.AttributeValue(int64_value=99)},
    )

    async def scene(client: Client) -> None:
        many = await client.many(ASKED, context=everybody, overrides=overrides(), reason_count=3)
        found = table_of(many, ASKED, with_reasons=True).to_pylist()
        meant = []
        for row, name in enumerate(ASKED):
            if name != "nobody":
                alone = of_row(row)
                if "visits" not in alone.indicator_overrides:
                    alone.indicator_overrides["visits"] = 9.0
                meant += rows_of(await client.one(name, context=alone))
        assert found == meant
        assert len({row["expected_value"] for row in found if row["customer_id"] == "c02"}) > 3
        assert [each.row_index for each in many.row_errors] == [2]
        plain = await client.many(IDS, overrides=profile_pb2.OverrideColumns())
        assert plain == await client.many(IDS)

    served(world, scene)


def test_overrides_that_do_not_fit_are_refused_by_their_path(world: World) -> None:
    def changed(**columns: Any) -> profile_pb2.OverrideColumns:
        made = overrides()
        for name, value in columns.items():
            if name == "attribute":
                del made.attributes[:]
                made.attributes.append(profile_pb2.AttributeColumn(**value))
            else:
                made.indicators.CopyFrom(profile_pb2.IndicatorColumns(**value))
        return made

    wrong: list[tuple[profile_pb2.OverrideColumns, str, str]] = [
        (
            changed(indicator={"indicator_names": ["dayz"], "values": bytes(24)}),
            "INVALID_SCHEMA",
            "overrides.indicators.indicator_names",
        ),
        (
            changed(indicator={"indicator_names": ["days"], "values": bytes(20)}),
            "INVALID_SCHEMA",
            "overrides.indicators.values",
        ),
        (
            changed(indicator={"indicator_names": ["days"], "values": INFINITE}),
            "INVALID_VALUE",
            "overrides.indicators.days[5]",
        ),
        (
            changed(attribute={"name": "age", "bool_values": bytes(6)}),
            "INVALID_SCHEMA",
            "overrides.attributes[0].bool_values",
        ),
        (
            changed(attribute={"name": "objected", "bool_values": bytes(6)}),
            "INVALID_VALUE",
            "overrides.attributes.objected",
        ),
        (
            changed(attribute={"name": "consent_mail", "bool_values": b"\0\0\0\0\1\0"}),
            "INVALID_VALUE",
            "overrides.attributes.consent_mail[4]",
        ),
    ]

    async def scene(client: Client) -> None:
        bad = Code.INVALID_ARGUMENT
        for given, reason, field in wrong:
            await refused_as(client.many(ASKED, overrides=given), bad, reason, field)
        beside = match_service_pb2.MatchCustomersRequest(
            profiles=profile_pb2.ProfileColumns(), overrides=overrides()
        )
        call = client.match.MatchCustomers(beside)
        await refused_as(call, bad, "INVALID_SCHEMA", "overrides")
        request = batch_request(["c01"] * 10_000, overrides=profile_pb2.OverrideColumns())
        assert (await client.match.MatchCustomers(request)).customer_count == 10_000

    served(world, scene)


# Profiles as Arrow.


def streamed(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def profile_table(world: World) -> pa.Table:
    """Everybody of the base, in another order, columns too."""
    base = world.base
    columns = {"age": base.attributes["age"]}
    for column, name in enumerate(INDICATORS):
        columns[name] = pa.array(base.indicators[:, column])
    columns["customer_id"] = base.customer_ids
    for name in ("consent_shop", "consent_mail", "objected", "first_name"):
        columns[name] = base.attributes[name]
    return pa.table(columns).take(pa.array(np.arange(len(IDS))[::-1]))


def fact_rows(world: World) -> pa.Table:
    facts = world.base.facts
    ids = world.base.customer_ids.take(facts["customer_index"].combine_chunks())
    return facts.set_column(0, "customer_id", ids)


def arrow_request(profiles: bytes, facts: bytes = b"", **more: Any) -> Any:
    given = profile_pb2.ArrowProfiles(profiles=profiles, facts=facts)
    return match_service_pb2.MatchCustomersRequest(arrow_profiles=given, **more)


def test_profiles_as_arrow_are_answered_as_the_customers_are(world: World) -> None:
    profiles, facts = profile_table(world), fact_rows(world)
    ids = profiles["customer_id"].to_pylist()
    coded = profiles.set_column(
        profiles.column_names.index("first_name"),
        "first_name",
        profiles["first_name"].combine_chunks().dictionary_encode(),
    )
    doubled = facts.set_column(
        facts.column_names.index("count"), "count", pa.array([1] * facts.num_rows, pa.int8())
    )

    async def scene(client: Client) -> None:
        meant = await client.many(ids, reason_count=3)
        for table in (profiles, coded):
            for said in (facts, facts.take(pa.array(range(facts.num_rows)[::-1])), doubled):
                request = arrow_request(streamed(table), streamed(said), reason_count=3)
                assert await client.match.MatchCustomers(request) == meant
        context = {"attribute_overrides": {"age": profile_pb2.AttributeValue(int64_value=12)}}
        request = arrow_request(streamed(profiles), streamed(facts), context=context)
        found = await client.match.MatchCustomers(request)
        assert found == await client.many(ids, context=context)
        # Without facts, and with what no base declares left out: unknown.
        few = profiles.select(["customer_id", *INDICATORS])
        alone = await client.match.MatchCustomers(arrow_request(streamed(few)))
        assert alone.customer_count == len(ids)
        assert not table_of(alone, ids, with_reasons=False).num_rows

    served(world, scene)


def replaced(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def test_profiles_as_arrow_that_do_not_fit_are_refused_by_their_column(world: World) -> None:
    good, facts = profile_table(world), fact_rows(world)
    n, m = good.num_rows, facts.num_rows
    twice = pa.table([good["age"], good["age"]], names=["age", "age"])
    schema, value, limit = "INVALID_SCHEMA", "INVALID_VALUE", "LIMIT_EXCEEDED"
    wrong: list[tuple[bytes, str, str]] = [
        (b"", schema, ""),
        (b"\xff" * 64, schema, ""),
        (streamed(good, compression="zstd"), schema, ""),
        (streamed(twice), schema, ".age"),
        (streamed(good.drop_columns(["customer_id"])), schema, ".customer_id"),
        (streamed(replaced(good, "customer_id", pa.array(["x"] * n))), value, ".customer_id[1]"),
        (streamed(replaced(good, "customer_id", pa.array([""] * n))), value, ".customer_id[0]"),
        (streamed(good.drop_columns(["days"])), schema, ""),
        (streamed(good.rename_columns({"age": "aeg"})), schema, ""),
        (streamed(replaced(good, "days", pa.array([None] * n, pa.float32()))), value, ".days[0]"),
        (streamed(replaced(good, "days", pa.array(["1"] * n))), schema, ".days"),
        (streamed(replaced(good, "age", pa.array(["1"] * n))), schema, ".age"),
        (streamed(replaced(good, "age", pa.array([2**63] * n, pa.uint64()))), value, ".age"),
        (streamed(replaced(good, "objected", pa.nulls(n))), value, ".objected[0]"),
        (streamed(replaced(good, "age", pa.array([[1]] * n))), schema, ".age"),
        (streamed(pa.concat_tables([good] * 251)), limit, ""),
    ]
    wrong_facts: list[tuple[bytes, str, str]] = [
        (b"\0" * 64, schema, ""),
        (streamed(facts.drop_columns(["customer_id"])), schema, ".customer_id"),
        (streamed(replaced(facts, "customer_id", pa.array(["x"] * m))), value, ".customer_id[0]"),
        (streamed(replaced(facts, "kind", pa.array(["sold"] * m))), value, ".kind[0]"),
        (streamed(replaced(facts, "count", pa.array([0] * m))), value, ".count[0]"),
        (streamed(facts.append_column("price", pa.array([1] * m))), limit, ""),
        (streamed(facts.drop_columns(["date"])), schema, ".date"),
    ]

    async def scene(client: Client) -> None:
        bad, call = Code.INVALID_ARGUMENT, client.match.MatchCustomers
        for content, reason, field in wrong:
            path = f"arrow_profiles.profiles{field}"
            await refused_as(call(arrow_request(content)), bad, reason, path)
        for content, reason, field in wrong_facts:
            path = f"arrow_profiles.facts{field}"
            await refused_as(call(arrow_request(streamed(good), content)), bad, reason, path)

    served(world, scene)


def test_facts_that_share_a_long_name_are_refused_and_not_written_out(world: World) -> None:
    count = 1_000
    facts = profile_pb2.FactColumns(
        row_index=bytes(4 * count),
        products=["x" * 2**20],
        product_index=bytes(4 * count),
        capability_index=little([-1] * count, "<i4"),
        kind=b"\1" * count,
        day=bytes(4 * count),
    )
    indicators = profile_pb2.IndicatorColumns(indicator_names=INDICATORS, values=bytes(12))
    profiles = profile_pb2.ProfileColumns(customer_ids=["new"], indicators=indicators, facts=facts)

    async def scene(client: Client) -> None:
        request = match_service_pb2.MatchCustomersRequest(profiles=profiles)
        call = client.match.MatchCustomers(request)
        field = "profiles.facts.product_index"
        await refused_as(call, Code.INVALID_ARGUMENT, "LIMIT_EXCEEDED", field)

    served(world, scene)


def test_damaged_streams_of_profiles_are_answered_or_refused(world: World) -> None:
    rng = np.random.default_rng(3)
    profiles, facts = profile_table(world).slice(0, 6), fact_rows(world)
    own = pc.is_in(facts["customer_id"], profiles["customer_id"].combine_chunks())
    whole = streamed(profiles), streamed(facts.filter(own).drop_columns(["capability_id"]))
    outcomes = set()
    with world.serving() as serving:
        for _ in range(EXAMPLES * 5):
            damaged = [bytearray(each) for each in whole]
            for content in damaged:
                for place in rng.integers(0, len(content), int(rng.integers(0, 3))).tolist():
                    content[place] = int(rng.choice([0, 1, 2, 127, 255]))
            given = profile_pb2.ArrowProfiles(profiles=bytes(damaged[0]), facts=bytes(damaged[1]))
            try:
                found = serving.match_profiles(arrow_profiles_of(given, serving.version))
            except InputError as error:
                outcomes.add(type(error).__name__)
            else:
                outcomes.add(len(found.customer_ids) == 6)
    assert outcomes >= {True, "SchemaError", "InputError"}
