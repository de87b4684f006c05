"""`Answer` of the serving core → messages of the contract.

Those to single customers are written by `_wire`: with the generated classes, that was the largest
part of a call.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from visavis.catalog.wording import filled_in
from visavis.domain import HISTORY
from visavis.engine.matches import reason_lists
from visavis.gateway import _wire
from visavis.gateway.codec import encoded_rows
from visavis.gateway.errors import fault_of, row_error
from visavis.gateway.naming import CHECK_BEGUN
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
    """What answers of a version say whoever they are for: written once, then copied.

    Parameters
    ----------
    version : Version

    Attributes
    ----------
    made : list of m (Card or None)
        Of each capability, once it was needed.
    names : list of d + 1 bytes
        Each indicator's, and the history's, as a `Reason` begins.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self.made: list[_wire.Card | None] = [None] * version.catalog.capability_count
        self.names = [
            v1.Reason(indicator=name).SerializeToString()
            for name in (*version.indicator_names, HISTORY)
        ]
        self._named: tuple[ServingVersion | None, bytes] = None, b""

    def make(self, capability_index: int) -> _wire.Card:
        """What an opportunity says of its capability, but for a text that is not for everybody."""
        catalog, j = self.version.catalog, capability_index
        needs_message = j in self.version.placeholders
        before = v1.Opportunity(
            capability_id=catalog.ids[j],
            product=catalog.products[j],
            variant=catalog.variants[j],
            message_text="" if needs_message else filled_in(catalog.messages[j], {}),
        )
        behind = v1.Opportunity(channel=catalog.channels[j], family=catalog.families[j])
        content = before.SerializeToString(), behind.SerializeToString()
        card = self.made[j] = _wire.Card(catalog.ids[j].encode(), *content, needs_message)
        return card

    def begun(self, name: ServingVersion) -> bytes:
        """How an answer begins: with what it was computed from."""
        # One state answers from one object until something is recorded.
        known, content = self._named
        if known is not name:
            begun = match_v1.MatchCustomerResponse(version=version_of(name))
            content = begun.SerializeToString()
            self._named = name, content
        return content


def customers_of(
    answer: Answer, cards: Cards, attributes: Mapping[int, Mapping[str, object]]
) -> list[bytes]:
    """An answer about some customers as an answer to each: a MatchCustomerResponse, written.

    Parameters
    ----------
    answer : Answer
    cards : Cards
        Of its version.
    attributes : mapping
        By place among the customers, for the placeholders.
    """
    messages = cards.version.catalog.messages

    def message(place: int, capability_index: int) -> bytes:
        return filled_in(messages[capability_index], attributes.get(place, {})).encode()

    return _wire.written(
        cards.begun(answer.name),
        CHECK_BEGUN,
        answer.customer_ids,
        answer.opportunity_count,
        answer.control,
        answer.capability_index,
        answer.propensity,
        answer.expected_value,
        answer.reasons,
        cards.names,
        cards.made,
        cards.make,
        message,
    )


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
