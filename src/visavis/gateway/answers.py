"""`Answer` of the serving core → messages of the contract.

Those about customers are written by `_wire` and `_columns`: with the generated classes, that was
the largest part of a call beside the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import pyarrow as pa

from visavis.catalog.wording import filled_in
from visavis.domain import HISTORY
from visavis.gateway import _columns, _wire
from visavis.gateway.codec import field_of
from visavis.gateway.errors import fault_of, row_error
from visavis.gateway.naming import CHECK_BEGUN
from visavis.serving import Answer, ServingVersion
from visavis.serving.version import Version
from visavis.v1 import match_service_pb2 as match_v1
from visavis.v1 import opportunity_pb2 as v1
from visavis.v1 import version_pb2

__all__ = ["Cards", "batch_of", "customers_of", "framed", "version_of"]


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

    @cached_property
    def capability_ids(self) -> _columns.Texts:
        """The ids of capabilities, for columns: some milliseconds the first time."""
        field = v1.OpportunityColumns.CAPABILITY_IDS_FIELD_NUMBER
        return _columns.Texts(field, self.version.catalog.ids)

    @cached_property
    def indicator_names(self) -> _columns.Texts:
        """What reasons may name, for columns."""
        field = v1.OpportunityColumns.INDICATOR_NAMES_FIELD_NUMBER
        return _columns.Texts(field, (*self.version.indicator_names, HISTORY))

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


def batch_of(answer: Answer, cards: Cards, encoding: int, field: str) -> bytes:
    """A MatchCustomersResponse, written: the opportunities of many customers.

    Parameters
    ----------
    answer : Answer
    cards : Cards
        Of its version.
    encoding : Encoding
        As columns or as Arrow.
    field : str
        Where the customers stand in the request.
    """
    response = match_v1.MatchCustomersResponse(
        version=version_of(answer.name), customer_count=len(answer.customer_ids)
    )
    behind = match_v1.MatchCustomersResponse()
    for row in sorted(answer.errors):
        fault = fault_of(answer.errors[row], missing=("customer", ""))
        behind.row_errors.append(row_error(row, fault._replace(field=fault.field or field)))
    if encoding == v1.ENCODING_ARROW:
        response.arrow = _arrow(answer.to_table())
        response.MergeFrom(behind)
        content: bytes = response.SerializeToString()
        return content
    return _columns.written(
        response.SerializeToString(),
        behind.SerializeToString(),
        np.ascontiguousarray(answer.opportunity_count),
        np.ascontiguousarray(answer.control),
        np.ascontiguousarray(answer.capability_index),
        np.ascontiguousarray(answer.propensity),
        np.ascontiguousarray(answer.expected_value),
        cards.capability_ids,
        answer.reasons,
        cards.indicator_names,
    )


def framed(frame_id: int, answer: bytes) -> bytes:
    """A StreamMatchesResponse, written: one answer of a stream."""
    begun = match_v1.StreamMatchesResponse(frame_id=frame_id)
    field = field_of(match_v1.StreamMatchesResponse.MATCH_FIELD_NUMBER, answer)
    return b"".join((begun.SerializeToString(), *field))


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
