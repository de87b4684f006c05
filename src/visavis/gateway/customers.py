"""Whom a request is about: profiles of the contract → `Profiles` of the serving core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from visavis.base import FACT_SCHEMA
from visavis.domain import CUSTOMER_ID
from visavis.errors import InputError, SchemaError
from visavis.gateway.incoming import (
    attribute_column,
    attribute_row,
    indicator_cells,
    indicator_matrix,
    indicator_row,
)
from visavis.gateway.incoming_facts import fact_columns, fact_table
from visavis.serving import Overrides, Profiles
from visavis.serving.version import Version
from visavis.v1 import profile_pb2 as v1

__all__ = ["known_attributes", "one_profile", "overrides_of", "plain", "profiles_of"]


def one_profile(given: v1.Profile, version: Version) -> Profiles:
    """The profile of one customer."""
    if not given.customer_id:
        raise InputError("must not be empty", field="profile.customer_id")
    schema = version.engine.base.attributes.schema
    row = attribute_row(given.attributes, schema, field="profile.attributes")
    facts = fact_table(["0"] * len(given.facts), given.facts, field="profile.facts")
    return Profiles(
        indicators=indicator_row(
            given.indicators, version.indicator_names, field="profile.indicators"
        ),
        attributes=pa.table({name: plain(array) for name, array in row.items()}) if row else None,
        facts=_numbered(facts),
        customer_ids=[given.customer_id],
    )


def profiles_of(given: v1.ProfileColumns, version: Version) -> Profiles:
    """The profiles of many customers."""
    count = len(given.customer_ids)
    ids = list(given.customer_ids)
    _check_ids(ids)
    schema = version.engine.base.attributes.schema
    indicators = indicator_matrix(
        given.indicators, version.indicator_names, count, field="profiles.indicators"
    )
    numbers = pa.array([str(row) for row in range(count)], pa.string())
    return Profiles(
        indicators=indicators,
        attributes=_attributes(given.attributes, schema, count, "profiles.attributes"),
        facts=_numbered(fact_columns(given.facts, numbers, field="profiles.facts")),
        customer_ids=ids,
    )


def overrides_of(given: v1.OverrideColumns, version: Version, count: int) -> Overrides:
    """What is otherwise for each of `count` customers."""
    field = "overrides.indicators"
    names, values, is_given = indicator_cells(
        given.indicators, version.indicator_names, count, field=field
    )
    schema = version.engine.base.attributes.schema
    return Overrides(
        indicator_names=names,
        values=values,
        is_given=is_given,
        attributes=_attributes(given.attributes, schema, count, "overrides.attributes"),
    )


def _attributes(
    given: Iterable[v1.AttributeColumn], schema: pa.Schema, count: int, field: str
) -> pa.Table | None:
    columns: dict[str, pa.Array] = {}
    for place, column in enumerate(given):
        where = f"{field}[{place}]"
        array = attribute_column(column, schema, count, field=where)
        if column.name in columns:
            raise SchemaError(f"{column.name!r} stands twice", field=f"{where}.name")
        columns[column.name] = plain(array)
    return pa.table(columns) if columns else None


def _check_ids(ids: list[str]) -> None:
    seen: set[str] = set()
    for row, each in enumerate(ids):
        if not each:
            raise InputError("must not be empty", field="profiles.customer_ids", row=row)
        if each in seen:
            reason = "names a customer a second time"
            raise InputError(reason, field="profiles.customer_ids", row=row)
        seen.add(each)


def _numbered(facts: pa.Table) -> pa.Table:
    """Facts by the row of the profile rather than by id."""
    at = facts.column_names.index(CUSTOMER_ID)
    index = facts.column(at).cast(pa.int64())
    return facts.set_column(at, FACT_SCHEMA.names[0], index)


def plain(array: pa.Array) -> pa.Array:
    """Texts as texts, where the base holds them as a dictionary."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def known_attributes(given: Profiles, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the one profile that there is, for the text of a message."""
    table = given.attributes
    held = {} if table is None else {name: table[name][0].as_py() for name in table.column_names}
    return {**held, **overrides}
