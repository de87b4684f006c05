"""`Answer` of the serving core → messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pyarrow as pa

from visavis.catalog.wording import filled_in
from visavis.domain import HISTORY
from visavis.engine.matches import reason_lists
from visavis.gateway.codec import encoded_rows
from visavis.gateway.errors import fault_of, row_error
from visavis.gateway.naming import opportunity_namer
from visavis.serving import Answer, ServingVersion
from visavis.serving.version import Version
from visavis.v1 import match_service_pb2 as match_v1
from visavis.v1 import opportunity_pb2 as v1
from visavis.v1 import version_pb2

__all__ = ["Cards", "batch_of", "customers_of", "version_of"]


def version_of(name: ServingVersion) -> version_pb2.ServingVersion:
    """What an answer was computed from."""
    return version_pb2.ServingVersion(
        base_version=name.base_version,
        base_digest=name.base_digest,
        catalog_digest=name.catalog_digest,
        policy_digest=name.policy_digest,
        journal_offset=name.journal_offset,
        as_of=name.as_of.isoformat(),
    )


class Cards:
    """What an opportunity says of its capability, whoever it is for: written once, then copied.

    Parameters
    ----------
    version : Version
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self._made: dict[int, v1.Opportunity] = {}

    def of(self, capability_index: int) -> v1.Opportunity:
        """An opportunity with everything but its customer, and a text that needs nobody."""
        card = self._made.get(capability_index)
        if card is None:
            catalog, j = self.version.catalog, capability_index
            is_plain = j not in self.version.placeholders
            card = v1.Opportunity(
                capability_id=catalog.ids[j],
                product=catalog.products[j],
                variant=catalog.variants[j],
                message_text=filled_in(catalog.messages[j], {}) if is_plain else "",
                channel=catalog.channels[j],
                family=catalog.families[j],
            )
            self._made[j] = card
        return card


def customers_of(
    answer: Answer, cards: Cards, attributes: Mapping[int, Mapping[str, object]]
) -> list[match_v1.MatchCustomerResponse]:
    """An answer about some customers as an answer to each, in words.

    Parameters
    ----------
    answer : Answer
    cards : Cards
        Of its version.
    attributes : mapping
        By place among the customers, for the placeholders.
    """
    version, told = version_of(answer.name), _reasons(answer)
    needed_by, messages = cards.version.placeholders, cards.version.catalog.messages
    columns, control = answer.capability_index.tolist(), answer.control.tolist()
    propensity, expected_value = answer.propensity.tolist(), answer.expected_value.tolist()
    responses, start = [], 0
    for place, count in enumerate(answer.opportunity_count.tolist()):
        customer_id, is_control = answer.customer_ids[place], control[place]
        response = match_v1.MatchCustomerResponse(version=version, customer_id=customer_id)
        name = opportunity_namer(customer_id)
        for at in range(start, start + count):
            j = columns[at]
            said = response.opportunities.add()
            said.CopyFrom(cards.of(j))
            said.opportunity_id = name(said.capability_id)
            if j in needed_by:
                said.message_text = filled_in(messages[j], attributes.get(place, {}))
            said.rank = at - start + 1
            said.propensity = propensity[at]
            said.expected_value = expected_value[at]
            said.is_control = is_control
            if told is not None:
                add = said.reasons.add
                for indicator, contribution in told[at]:
                    add(indicator=indicator, contribution=contribution)
        start += count
        responses.append(response)
    return responses


def _reasons(answer: Answer) -> list[list[tuple[str, float]]] | None:
    """Of each opportunity; None where none were asked for. Without Arrow: there are few."""
    said = answer.reasons
    if said is None:
        return None
    names = (*answer.version.indicator_names, HISTORY)
    told = [
        (names[column], contribution)
        for column, contribution in zip(
            said.name_index.tolist(), said.contribution.tolist(), strict=True
        )
    ]
    return [told[start:end] for start, end in pairwise(said.offsets.tolist())]


def batch_of(answer: Answer, encoding: int, field: str) -> match_v1.MatchCustomersResponse:
    """The opportunities of many customers, as columns or as Arrow.

    Parameters
    ----------
    answer : Answer
    encoding : Encoding
    field : str
        Where the customers stand in the request.
    """
    response = match_v1.MatchCustomersResponse(
        version=version_of(answer.name), customer_count=len(answer.customer_ids)
    )
    for row in sorted(answer.errors):
        fault = fault_of(answer.errors[row], missing=("customer", ""))
        response.row_errors.append(row_error(row, fault._replace(field=fault.field or field)))
    if encoding == v1.ENCODING_ARROW:
        response.arrow = _arrow(answer.to_table())
        return response
    names, reasons = answer.version.indicator_names, answer.reasons
    response.columns.CopyFrom(
        encoded_rows(
            answer.opportunity_count,
            answer.capability_index,
            answer.propensity,
            answer.expected_value,
            capability_ids=answer.version.catalog.ids,
            is_control=answer.control,
            reasons=None if reasons is None else reason_lists(reasons, names),
        )
    )
    return response


def _arrow(table: pa.Table) -> bytes:
    for name in ("customer_id", "capability_id"):
        at = table.column_names.index(name)
        coded = table.column(at).combine_chunks().dictionary_encode()
        table = table.set_column(at, pa.field(name, coded.type, nullable=False), coded)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
