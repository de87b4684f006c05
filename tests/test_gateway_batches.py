"""MatchCustomers of rows that differ: overrides by row, and profiles as Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateways import IDS, Client, Code, World, batch_request, refused_as, rows_of, served, table_of
from visavis.v1 import context_pb2, match_service_pb2, profile_pb2


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
