"""Messages → results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, date
from typing import Any, Final

import pyarrow as pa

from visavis.client import results
from visavis.client.errors import ServerError, error_of_frame, reason_name
from visavis.client.requests import Capability, HistoryTerm
from visavis.domain import CUSTOMER_ID, FactKind, Link
from visavis.v1 import (
    capability_pb2,
    catalog_service_pb2,
    job_service_pb2,
    match_service_pb2,
    opportunity_pb2,
    profile_pb2,
    version_pb2,
)

__all__ = [
    "audience_page",
    "batch",
    "capability",
    "customer_matches",
    "explanation",
    "frame",
    "job",
    "serving_info",
    "table_of",
    "version",
]

_IDS: Final = (CUSTOMER_ID, "capability_id")


def version(given: version_pb2.ServingVersion) -> results.Version:
    """What an answer was computed from."""
    return results.Version(
        base_version=given.base_version,
        base_digest=given.base_digest,
        catalog_digest=given.catalog_digest,
        policy_digest=given.policy_digest,
        journal_offset=given.journal_offset,
        as_of=_day(given.as_of),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ServerError(f"the answer has no day where one must be: {text!r:.80}") from None


def customer_matches(given: match_service_pb2.MatchCustomerResponse) -> results.CustomerMatches:
    """The opportunities of one customer."""
    return results.CustomerMatches(
        version=version(given.version),
        customer_id=given.customer_id,
        opportunities=tuple(_opportunity(each) for each in given.opportunities),
    )


def _opportunity(given: opportunity_pb2.Opportunity) -> results.Opportunity:
    return results.Opportunity(
        opportunity_id=given.opportunity_id,
        capability_id=given.capability_id,
        product=given.product,
        variant=given.variant,
        message=given.message_text,
        channel=given.channel,
        family=given.family,
        rank=given.rank,
        propensity=given.propensity,
        expected_value=given.expected_value,
        reasons=_reasons(given.reasons),
        is_control=given.is_control,
    )


def _reasons(given: Iterable[opportunity_pb2.Reason]) -> tuple[results.Reason, ...]:
    return tuple(results.Reason(each.indicator, each.contribution) for each in given)


def table_of(content: bytes) -> pa.Table:
    """One Arrow IPC stream, its dictionaries undone: the columns of a full-base result.

    Raises
    ------
    ServerError
        If it is none.
    """
    try:
        with pa.ipc.open_stream(content) as reader:
            table = reader.read_all()
        # Positions outside a dictionary would be read from wherever they point to.
        table.validate(full=True)
        for name in _IDS:
            at = table.column_names.index(name)
            plain = table.column(at).cast(pa.string())
            table = table.set_column(at, pa.field(name, pa.string(), nullable=False), plain)
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = f"the answer is no Arrow stream of opportunities: {type(error).__name__}"
        raise ServerError(reason) from None
    return table


def batch(given: match_service_pb2.MatchCustomersResponse) -> results.Batch:
    """The opportunities of many customers, answered as Arrow."""
    return results.Batch(
        version=version(given.version),
        customer_count=given.customer_count,
        table=table_of(given.arrow),
        row_errors=tuple(
            results.RowError(
                row=each.row_index,
                reason=reason_name(each.reason),
                field=each.field or None,
                message=each.message,
            )
            for each in given.row_errors
        ),
    )


def frame(index: int, given: match_service_pb2.StreamMatchesResponse) -> results.Frame:
    """The answer to one batch of a stream."""
    if given.WhichOneof("outcome") == "error":
        return results.Frame(index, None, error_of_frame(given.error))
    return results.Frame(index, batch(given.match), None)


def explanation(given: match_service_pb2.ExplainResponse) -> results.Explanation:
    """Why, or why not."""
    return results.Explanation(
        version=version(given.version),
        customer_id=given.customer_id,
        capability_id=given.capability_id,
        linear_predictor=_maybe(given, "linear_predictor"),
        bias=given.bias,
        contributions=tuple(
            results.Contribution(
                each.name, _maybe(each, "value"), _maybe(each, "weight"), each.contribution
            )
            for each in given.contributions
        ),
        history_contributions=tuple(
            results.HistoryContribution(each.term, each.contribution)
            for each in given.history_contributions
        ),
        propensity=_maybe(given, "propensity"),
        expected_value=_maybe(given, "expected_value"),
        gates=tuple(
            results.Gate(
                _word(match_service_pb2.Obstacle, each.obstacle, "OBSTACLE_"),
                each.is_open,
                each.detail,
                each.remedy or None,
            )
            for each in given.gates
        ),
        rank=_maybe(given, "rank"),
        obstacle=_word(match_service_pb2.Obstacle, given.obstacle, "OBSTACLE_"),
        verdict=given.verdict,
        better_capability_ids=tuple(given.better_capability_ids),
        remedies=tuple(given.remedies),
    )


def _maybe(given: Any, field: str) -> Any:
    return getattr(given, field) if given.HasField(field) else None


def _word(kinds: Any, number: int, prefix: str) -> str:
    """The name of an enum's value without its prefix; of one that is not known, its number."""
    if number not in kinds.values():
        return str(number)
    word: str = kinds.Name(number).removeprefix(prefix)
    return word


def audience_page(given: match_service_pb2.FindAudienceResponse) -> results.AudiencePage:
    """Some members of an audience."""
    return results.AudiencePage(
        version=version(given.version),
        members=tuple(
            results.AudienceMember(
                customer_id=each.customer_id,
                propensity=each.propensity,
                expected_value=each.expected_value,
                reasons=_reasons(each.reasons),
                is_control=each.is_control,
            )
            for each in given.members
        ),
        eligible_count=given.eligible_count,
        reach_count=_maybe(given, "reach_count"),
    )


def capability(given: capability_pb2.Capability) -> Capability:
    """A capability, as a draft takes it."""
    link = Link[_word(capability_pb2.Link, given.link or 1, "LINK_")]
    return Capability(
        capability_id=given.capability_id,
        name=given.name,
        product=given.product,
        variant=given.variant,
        message=given.message,
        channel=given.channel,
        family=given.family,
        weights=dict(given.weights),
        bias=given.bias,
        history_terms=tuple(
            HistoryTerm(
                kind=FactKind(_word(profile_pb2.FactKind, each.kind, "FACT_KIND_").lower()),
                feature=each.feature,
                weight=each.weight,
                half_life_days=_maybe(each, "half_life_days"),
                scale=_maybe(each, "scale"),
            )
            for each in given.history_terms
        ),
        value=_maybe(given, "value"),
        cost=given.cost,
        link=link.label,
        rule=given.rule,
        valid_from=_day(given.valid_from) if given.valid_from else None,
        valid_to=_day(given.valid_to) if given.valid_to else None,
    )


def serving_info(given: catalog_service_pb2.GetServingInfoResponse) -> results.ServingInfo:
    """What is served."""
    limits = given.limits
    return results.ServingInfo(
        version=version(given.version),
        release=given.release,
        score_contract_version=given.score_contract_version,
        kernel_variant=given.kernel_variant,
        customer_count=given.customer_count,
        capability_count=given.capability_count,
        indicator_names=tuple(given.indicator_names),
        attributes={
            each.name: _word(
                catalog_service_pb2.AttributeType, each.type, "ATTRIBUTE_TYPE_"
            ).lower()
            for each in given.attributes
        },
        policy=_policy(given.policy),
        limits=results.ServedLimits(
            **{each.name: getattr(limits, each.name) for each in fields(results.ServedLimits)}
        ),
        notice=given.notice or None,
        has_journal=given.has_journal,
        has_jobs=given.has_jobs,
    )


def _policy(given: catalog_service_pb2.ServingPolicy) -> results.ServedPolicy:
    left_out = given.exclusions
    return results.ServedPolicy(
        k=given.k,
        ev_min=_maybe(given, "ev_min"),
        product_limit=_maybe(given, "product_limit"),
        channel_limit=_maybe(given, "channel_limit"),
        family_limit=_maybe(given, "family_limit"),
        cool_down_days=dict(given.cool_down_days),
        channels_without_consent=tuple(given.channels_without_consent),
        excluded_capability_ids=tuple(left_out.capability_ids),
        excluded_products=tuple(left_out.products),
        excluded_channels=tuple(left_out.channels),
        excluded_families=tuple(left_out.families),
        control_share=given.control_share,
    )


def job(given: job_service_pb2.Job) -> results.Job:
    """A job."""
    return results.Job(
        job_id=given.job_id,
        state=_state(given.state),
        version=version(given.version),
        create_time=given.create_time.ToDatetime(UTC),
        start_time=given.start_time.ToDatetime(UTC) if given.HasField("start_time") else None,
        end_time=given.end_time.ToDatetime(UTC) if given.HasField("end_time") else None,
        part_count=given.part_count,
        done_part_count=given.done_part_count,
        customer_count=given.customer_count,
        opportunity_count=given.opportunity_count,
        result_digest=given.result_digest or None,
        reason_count=_maybe(given, "reason_count"),
        error=(
            results.JobError(reason_name(given.error.reason), given.error.message)
            if given.HasField("error")
            else None
        ),
    )


def _state(number: int) -> results.JobState:
    word = _word(job_service_pb2.JobState, number, "JOB_STATE_").lower()
    try:
        return results.JobState(word)
    except ValueError:
        raise ServerError(f"the job is in no state that is known here: {word}") from None
