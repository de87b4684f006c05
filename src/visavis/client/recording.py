"""What happened, as rows of Python or tables → RecordFactsRequest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import pyarrow as pa

from visavis.client.encoding import (
    attribute_value,
    checked_count,
    checked_text,
    day_text,
    fact_message,
    kind_number,
    names_of,
)
from visavis.client.requests import AttributeValue, Fact, Names
from visavis.domain import CUSTOMER_ID
from visavis.errors import InputError, SchemaError
from visavis.v1 import profile_service_pb2 as v1

__all__ = ["Attributes", "Rows", "record_request"]

#: A table, or mappings by the names of its columns.
Rows: TypeAlias = pa.Table | Iterable[Mapping[str, Any]]

#: A table with customer_id, or by customer and name.
Attributes: TypeAlias = pa.Table | Mapping[str, Mapping[str, AttributeValue]]

_FACT: Final = frozenset({CUSTOMER_ID, "product", "capability_id", "kind", "date", "count"})
_OUTCOME: Final = frozenset({"opportunity_id", "kind", "date", "count"})


def record_request(
    request_id: str,
    facts: Rows | None,
    outcomes: Rows | None,
    attributes: Attributes | None,
    objections: Names,
) -> v1.RecordFactsRequest:
    """What is to be recorded.

    Raises
    ------
    InputError
        If a row lacks something, or holds what no message can.
    """
    return v1.RecordFactsRequest(
        request_id=checked_text(request_id, "request_id"),
        facts=[_fact(row, place) for place, row in enumerate(_rows(facts, _FACT, "facts"))],
        outcomes=[
            _outcome(row, place) for place, row in enumerate(_rows(outcomes, _OUTCOME, "outcomes"))
        ],
        attributes=_attributes(attributes),
        objecting_customer_ids=names_of(objections, "objections"),
    )


def _rows(given: Rows | None, known: frozenset[str], field: str) -> list[Mapping[str, Any]]:
    if given is None:
        return []
    rows = given.to_pylist() if isinstance(given, pa.Table) else list(given)
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            reason = f"must be a mapping by column, got {type(row).__name__}"
            raise InputError(reason, field=field, row=place)
        for name in row:
            if name not in known:
                raise SchemaError("is no column", field=f"{field}.{name}", row=place)
    return rows


def _fact(row: Mapping[str, Any], place: int) -> v1.CustomerFact:
    fact = Fact(
        kind=_held(row, "kind", "facts", place),
        date=_held(row, "date", "facts", place),
        product=row.get("product"),
        capability_id=row.get("capability_id"),
        count=row.get("count"),
    )
    customer_id = checked_text(
        _held(row, CUSTOMER_ID, "facts", place), f"facts[{place}].customer_id"
    )
    return v1.CustomerFact(customer_id=customer_id, fact=fact_message(fact, f"facts[{place}]"))


def _outcome(row: Mapping[str, Any], place: int) -> v1.OpportunityOutcome:
    field = f"outcomes[{place}]"
    count = row.get("count")
    return v1.OpportunityOutcome(
        opportunity_id=checked_text(
            _held(row, "opportunity_id", "outcomes", place), f"{field}.opportunity_id"
        ),
        kind=kind_number(_held(row, "kind", "outcomes", place), f"{field}.kind"),
        date=day_text(_held(row, "date", "outcomes", place), f"{field}.date"),
        count=None if count is None else checked_count(count, f"{field}.count"),
    )


def _held(row: Mapping[str, Any], name: str, field: str, place: int) -> Any:
    value = row.get(name)
    if value is None:
        raise InputError("must be given", field=f"{field}.{name}", row=place)
    return value


def _attributes(given: Attributes | None) -> list[v1.CustomerAttributes]:
    if given is None:
        return []
    if isinstance(given, pa.Table):
        if CUSTOMER_ID not in given.column_names:
            raise SchemaError("must be there", field=f"attributes.{CUSTOMER_ID}")
        rows = given.to_pylist()
        named = [(row.pop(CUSTOMER_ID), row) for row in rows]
    else:
        named = list(given.items())
    return [
        v1.CustomerAttributes(
            customer_id=checked_text(customer_id, f"attributes[{place}].customer_id"),
            attributes={
                name: attribute_value(value, f"attributes[{place}].attributes.{name}")
                for name, value in said.items()
            },
        )
        for place, (customer_id, said) in enumerate(named)
    ]
