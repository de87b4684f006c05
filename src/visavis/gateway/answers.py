"""`Answer`, `Explained` and `Audience` of the serving core → messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import pyarrow as pa

from visavis.domain import HISTORY
from visavis.engine import Explanation
from visavis.engine.matches import reason_lists
from visavis.gateway.codec import encoded_rows
from visavis.gateway.errors import fault_of, row_error
from visavis.gateway.naming import opportunity_id
from visavis.gateway.wording import filled_in, has_placeholder
from visavis.serving import Answer, ServingVersion
from visavis.v1 import match_service_pb2 as match_v1
from visavis.v1 import opportunity_pb2 as v1
from visavis.v1 import version_pb2

__all__ = ["batch_of", "explanation_of", "needs_attributes", "opportunities_of", "version_of"]

#: The gates of the engine as the contract's obstacles.
_OBSTACLES: Final = {
    "objection": match_v1.OBSTACLE_OBJECTION,
    "exclusion": match_v1.OBSTACLE_EXCLUSION,
    "validity": match_v1.OBSTACLE_VALIDITY,
    "consent": match_v1.OBSTACLE_CONSENT,
    "cool-down": match_v1.OBSTACLE_COOL_DOWN,
    "rule": match_v1.OBSTACLE_RULE,
    "history": match_v1.OBSTACLE_HISTORY,
    "context": match_v1.OBSTACLE_CONTEXT,
}

#: What fills up, by what the engine's verdict calls it.
_LIMITS: Final = {
    "product": match_v1.OBSTACLE_PRODUCT_LIMIT,
    "channel": match_v1.OBSTACLE_CHANNEL_LIMIT,
    "family": match_v1.OBSTACLE_FAMILY_LIMIT,
}


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


def needs_attributes(answer: Answer) -> bool:
    """Whether a message of an opportunity has placeholders."""
    messages = answer.version.catalog.messages
    return any(has_placeholder(messages[j]) for j in answer.capability_index.tolist())


def opportunities_of(answer: Answer, attributes: Mapping[str, object]) -> list[v1.Opportunity]:
    """The opportunities of the one customer of an answer, in words.

    Parameters
    ----------
    answer : Answer
    attributes : mapping
        Of the customer, for the placeholders.
    """
    catalog = answer.version.catalog
    reasons = _reasons(answer)
    customer_id, is_control = answer.customer_ids[0], bool(answer.control[0])
    found = []
    for place, j in enumerate(answer.capability_index.tolist()):
        found.append(
            v1.Opportunity(
                opportunity_id=opportunity_id(customer_id, catalog.ids[j]),
                capability_id=catalog.ids[j],
                product=catalog.products[j],
                variant=catalog.variants[j],
                message_text=filled_in(catalog.messages[j], attributes),
                channel=catalog.channels[j],
                family=catalog.families[j],
                rank=place + 1,
                propensity=float(answer.propensity[place]),
                expected_value=float(answer.expected_value[place]),
                reasons=reasons[place] if reasons else (),
                is_control=is_control,
            )
        )
    return found


def _reasons(answer: Answer) -> list[list[v1.Reason]]:
    """Of each opportunity; nothing where none were asked for. Without Arrow: there are few."""
    said = answer.reasons
    if said is None:
        return []
    names = (*answer.version.indicator_names, HISTORY)
    told = [
        v1.Reason(indicator=names[column], contribution=contribution)
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
            capability_ids=_plain(answer.version.catalog.column("id")),
            is_control=answer.control,
            reasons=None if reasons is None else reason_lists(reasons, names),
        )
    )
    return response


def _plain(ids: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


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


def explanation_of(name: ServingVersion, found: Explanation) -> match_v1.ExplainResponse:
    """An explanation, as the contract has it."""
    response = match_v1.ExplainResponse(
        version=version_of(name),
        customer_id=found.customer_id,
        capability_id=found.capability_id,
        linear_predictor=found.linear_predictor,
        bias=found.bias,
        propensity=found.propensity,
        expected_value=found.expected_value,
        rank=found.rank,
        obstacle=_obstacle(found),
        verdict=found.verdict,
        remedies=found.remedies,
    )
    for term in found.contributions:
        response.contributions.add(
            name=term.name, value=term.value, weight=term.weight, contribution=term.contribution
        )
    for label, contribution in found.history_terms:
        response.history_contributions.add(term=label, contribution=contribution)
    for gate in found.gates:
        response.gates.add(
            obstacle=_OBSTACLES[gate.name],
            is_open=gate.is_open,
            detail=gate.detail,
            remedy=gate.remedy or "",
        )
    return response


def _obstacle(found: Explanation) -> match_v1.Obstacle:
    closed = [gate for gate in found.gates if not gate.is_open]
    if closed:
        return _OBSTACLES[closed[0].name]
    if found.rank is not None:
        return match_v1.OBSTACLE_NONE
    if found.verdict.startswith("expected value "):
        return match_v1.OBSTACLE_EV_MIN
    for group, obstacle in _LIMITS.items():
        if f" per {group} is used up by " in found.verdict:
            return obstacle
    return match_v1.OBSTACLE_K
