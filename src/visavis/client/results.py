"""What a gateway answers, as types: frozen, with days as dates and absent values as None.

What each field means is said, once, in ``proto/visavis/v1``; names are the contract's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

import pyarrow as pa

from visavis.client.errors import GatewayError
from visavis.client.requests import Capability

__all__ = [
    "AudienceMember",
    "AudiencePage",
    "Batch",
    "CapabilityPage",
    "Contribution",
    "CreatedJob",
    "CustomerMatches",
    "Explanation",
    "Forgotten",
    "Frame",
    "Gate",
    "HistoryContribution",
    "Job",
    "JobError",
    "JobState",
    "Opportunity",
    "Published",
    "Reason",
    "Recorded",
    "ResultFrame",
    "RowError",
    "ServedLimits",
    "ServedPolicy",
    "ServingInfo",
    "Version",
]


@dataclass(frozen=True, slots=True)
class Version:
    """What an answer was computed from: equal requests of equal versions have equal answers."""

    base_version: int
    base_digest: str
    catalog_digest: str
    policy_digest: str
    journal_offset: int
    as_of: date


@dataclass(frozen=True, slots=True)
class Reason:
    """What speaks for an opportunity: an indicator, or ``history``, and its term in z."""

    indicator: str
    contribution: float


@dataclass(frozen=True, slots=True)
class Opportunity:
    """One capability that survived for one customer.

    `opportunity_id` is for `record_facts`; it is made of the customer's id, so treat it as
    personal. Who `is_control` must not be contacted.
    """

    opportunity_id: str
    capability_id: str
    product: str
    variant: str
    message: str
    channel: str
    family: str
    rank: int
    propensity: float
    expected_value: float
    reasons: tuple[Reason, ...]
    is_control: bool


@dataclass(frozen=True, slots=True)
class CustomerMatches:
    """The opportunities of one customer, best first; possibly none."""

    version: Version
    customer_id: str
    opportunities: tuple[Opportunity, ...]


@dataclass(frozen=True, slots=True)
class RowError:
    """What is wrong with one customer of a batch; `reason` is the name of an ErrorReason."""

    row: int
    reason: str
    field: str | None
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The opportunities of many customers, all from one version.

    Attributes
    ----------
    version : Version
    customer_count : int
        As many as were asked for, those with an error among them.
    table : pyarrow.Table
        One row per opportunity, customers in the order of the request, best first, with the columns
        of a full-base result: customer_id, rank, capability_id, propensity, expected_value,
        control, and reasons if any were asked for.
    row_errors : tuple of RowError
        Customers who could not be matched, ascending by row.
    """

    version: Version
    customer_count: int
    table: pa.Table
    row_errors: tuple[RowError, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The answer to one batch of a stream: either `batch` or `error`.

    `index` is the batch's place among those that were given, from 0.
    """

    index: int
    batch: Batch | None
    error: GatewayError | None

    def result(self) -> Batch:
        """The batch.

        Raises
        ------
        GatewayError
            If there is none.
        """
        if self.error is not None:
            raise self.error
        assert self.batch is not None  # noqa: S101 (one of them is there)
        return self.batch


@dataclass(frozen=True, slots=True)
class Contribution:
    """One term of z; value and weight are None for the history."""

    name: str
    value: float | None
    weight: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class HistoryContribution:
    """One part of the history's contribution."""

    term: str
    contribution: float


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate between a customer and a capability; `obstacle` is a name such as ``CONSENT``."""

    obstacle: str
    is_open: bool
    detail: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a customer has, or has not, an opportunity; without a score where none exists."""

    version: Version
    customer_id: str
    capability_id: str
    linear_predictor: float | None
    bias: float
    contributions: tuple[Contribution, ...]
    history_contributions: tuple[HistoryContribution, ...]
    propensity: float | None
    expected_value: float | None
    gates: tuple[Gate, ...]
    rank: int | None
    obstacle: str
    verdict: str
    better_capability_ids: tuple[str, ...]
    remedies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AudienceMember:
    """One customer of an audience."""

    customer_id: str
    propensity: float
    expected_value: float
    reasons: tuple[Reason, ...]
    is_control: bool


@dataclass(frozen=True, slots=True)
class AudiencePage:
    """Some members of an audience, best first; `reach_count` on the first page, if asked for."""

    version: Version
    members: tuple[AudienceMember, ...]
    eligible_count: int
    reach_count: int | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a record; `request_id` is what to repeat it with."""

    request_id: str
    version: Version
    first_offset: int
    last_offset: int
    is_repeated: bool
    dropped_count: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A customer was erased from the journal."""

    version: Version
    emptied_count: int


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """The served policy; None: no minimum, no limit."""

    k: int
    ev_min: float | None
    product_limit: int | None
    channel_limit: int | None
    family_limit: int | None
    cool_down_days: Mapping[str, int]
    channels_without_consent: tuple[str, ...]
    excluded_capability_ids: tuple[str, ...]
    excluded_products: tuple[str, ...]
    excluded_channels: tuple[str, ...]
    excluded_families: tuple[str, ...]
    control_share: float


@dataclass(frozen=True, slots=True)
class ServedLimits:
    """What a server refuses beyond, of one request."""

    message_bytes_max: int
    metadata_bytes_max: int
    customer_count_max: int
    entry_count_max: int
    reason_count_max: int
    audience_count_max: int
    page_size_max: int
    open_frame_count_max: int
    default_deadline_s: float


@dataclass(frozen=True, slots=True)
class ServingInfo:
    """What is served: versions, schema, policy and limits.

    `attributes` has types by name: ``bool``, ``int64``, ``double``, ``string`` or ``date``.
    `notice`, if there is one, must stand wherever results are shown.
    """

    version: Version
    release: str
    score_contract_version: int
    kernel_variant: str
    customer_count: int
    capability_count: int
    indicator_names: tuple[str, ...]
    attributes: Mapping[str, str]
    policy: ServedPolicy
    limits: ServedLimits
    notice: str | None
    has_journal: bool
    has_jobs: bool


@dataclass(frozen=True, slots=True)
class CapabilityPage:
    """Some capabilities of the served catalog, ascending by id."""

    version: Version
    capabilities: tuple[Capability, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """What is served now (or would be), and what was before."""

    request_id: str
    version: Version
    replaced_version: Version
    is_repeated: bool


class JobState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether it stays as it is."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed; `reason` is the name of an ErrorReason."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """Rescoring the full base, once; times are UTC."""

    job_id: str
    state: JobState
    version: Version
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    part_count: int
    done_part_count: int
    customer_count: int
    opportunity_count: int
    result_digest: str | None
    reason_count: int | None
    error: JobError | None


@dataclass(frozen=True, slots=True)
class CreatedJob:
    """A job, and whether it was there before; `request_id` is what to repeat it with."""

    request_id: str
    job: Job
    is_repeated: bool


@dataclass(frozen=True, slots=True, eq=False)
class ResultFrame:
    """Some rows of a job's result, their digest verified.

    Attributes
    ----------
    version : Version
    part_index : int
    table : pyarrow.Table
        As of `Batch`.
    is_part_end : bool
        The part ends here, and the digest over all its rows fitted.
    resume_token : str
        Goes on behind this frame, in another process too.
    """

    version: Version
    part_index: int
    table: pa.Table
    is_part_end: bool
    resume_token: str
