"""CreateRescoreJob → what a job computes from: what is served now, made to last."""

from __future__ import annotations

import hashlib
from pathlib import Path

from visavis.base import StoredBase
from visavis.domain import parse_date, utc_now
from visavis.errors import InputError
from visavis.gateway.job_files import JobRecord, keep_inputs, place_text
from visavis.gateway.limits import REASONS_MAX, bounded
from visavis.journal import Journal, Overlay
from visavis.rescore import Plan
from visavis.serving import Serving, ServingVersion
from visavis.serving.version import Version
from visavis.store import Place
from visavis.v1 import job_service_pb2 as v1

__all__ = ["content_of", "record_of"]


def content_of(request: v1.CreateRescoreJobRequest) -> str:
    """The digest of what a request says beside its id, in hex."""
    plain = v1.CreateRescoreJobRequest()
    plain.CopyFrom(request)
    plain.ClearField("request_id")
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def record_of(
    request: v1.CreateRescoreJobRequest, serving: Serving, journal: Path | None, place: Place
) -> JobRecord:
    """The job that a request asks for; what it needs of what is served lies at the place then.

    Raises
    ------
    InputError
        Naming the field.
    CorruptionError, StorageError
    """
    name, version = _served(serving)
    stored = version.customers.stored
    day = parse_date(request.as_of, field="as_of") if request.as_of else version.as_of
    if day < stored.as_of:
        # As the batch has it: the indicators know the days up to the base's.
        raise InputError(f"{day} lies before the base's as_of, {stored.as_of}", field="as_of")
    reasons = None
    if request.HasField("reason_count"):
        reasons = bounded(request.reason_count, 0, REASONS_MAX, "reason_count")
    plan = Plan.of(
        stored,
        _overlay(journal, stored, name.journal_offset),
        capability_count=version.catalog.capability_count,
        catalog_digest=version.catalog_digest,
        policy_digest=version.policy_digest,
        as_of=day,
        reasons=reasons,
        # Of what is not there, nothing is distinctive: it is the same job.
        distinctive=request.distinctive_reasons and reasons is not None,
    )
    keep_inputs(place, version.catalog, version.policy, plan)
    return JobRecord(plan=plan, base=place_text(stored.place), created_at=utc_now())


def _served(serving: Serving) -> tuple[ServingVersion, Version]:
    """What is served, and its name, of one moment: somebody may publish in between."""
    while True:
        version, name = serving.version, serving.name
        if version.named(name.journal_offset) == name:
            return name, version


def _overlay(journal: Path | None, stored: StoredBase, through: int) -> Overlay | None:
    if journal is None:
        return None
    # A connection of its own: who records must not wait until all is read.
    with Journal.open(journal) as opened:
        return opened.overlay(after=stored.manifest.journal_offset, through=through)
