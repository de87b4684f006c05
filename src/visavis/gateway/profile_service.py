"""ProfileService: what happens to customers, taken in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc
import pyarrow as pa

from visavis.domain import CUSTOMER_ID
from visavis.errors import InputError, LimitError
from visavis.gateway.answers import version_of
from visavis.gateway.customers import plain
from visavis.gateway.desk import Desk
from visavis.gateway.errors import RefusedError
from visavis.gateway.incoming import attribute_row
from visavis.gateway.incoming_facts import fact_table
from visavis.gateway.limits import ENTRIES_MAX
from visavis.gateway.naming import named_opportunity
from visavis.serving.version import Version
from visavis.v1 import profile_pb2
from visavis.v1 import profile_service_pb2 as v1
from visavis.v1.profile_service_pb2_grpc import ProfileServiceServicer

__all__ = ["REQUEST_ID_MAX", "ProfileService", "check_request_id"]

#: Characters of a request id.
REQUEST_ID_MAX: Final = 128

_PATHS: Final = {"objections": "objecting_customer_ids"}

#: What may become of an opportunity: nobody excludes by answering an offer.
_OUTCOMES: Final = (
    profile_pb2.FACT_KIND_CONTACTED,
    profile_pb2.FACT_KIND_BOUGHT,
    profile_pb2.FACT_KIND_REFUSED,
)


class ProfileService(ProfileServiceServicer):
    """Records through what the desk serves.

    Parameters
    ----------
    desk : Desk
    has_journal : bool
    recorded : callable, optional
        Called when something is in the journal, before it is acknowledged.
    """

    def __init__(
        self, desk: Desk, *, has_journal: bool, recorded: Callable[[], None] | None = None
    ) -> None:
        self._desk = desk
        self._has_journal = has_journal
        self._recorded = recorded or (lambda: None)

    async def RecordFacts(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        work = partial(self._record, request)
        return await self._desk.answer(context, work, queue="change", paths=_PATHS)

    async def ForgetCustomer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._desk.answer(
            context,
            partial(self._forget, request),
            queue="change",
            audited={},
            method="ProfileService/ForgetCustomer",
        )

    def _record(self, request: v1.RecordFactsRequest) -> v1.RecordFactsResponse:
        serving = self._desk.serving
        self._check_journal()
        check_request_id(request.request_id)
        _check_count(request)
        appended = serving.record(
            request.request_id,
            facts=_facts(request),
            attributes=_attributes(request, serving.version),
            objections=list(request.objecting_customer_ids),
        )
        self._recorded()
        return v1.RecordFactsResponse(
            version=version_of(serving.name),
            first_offset=appended.first_offset,
            last_offset=appended.last_offset,
            is_repeated=appended.repeated,
            dropped_count=appended.dropped_count,
        )

    def _forget(self, request: v1.ForgetCustomerRequest) -> v1.ForgetCustomerResponse:
        serving = self._desk.serving
        self._check_journal()
        if not request.customer_id:
            raise InputError("must not be empty", field="customer_id")
        count = serving.forget(request.customer_id)
        self._recorded()
        return v1.ForgetCustomerResponse(version=version_of(serving.name), emptied_count=count)

    def _check_journal(self) -> None:
        if not self._has_journal:
            reason = "the server runs without a journal"
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "JOURNAL_ABSENT", reason)


def check_request_id(given: str) -> None:
    """Refuse an id that is empty or too long.

    Raises
    ------
    InputError
    """
    if not 1 <= len(given) <= REQUEST_ID_MAX:
        reason = f"must have 1 … {REQUEST_ID_MAX} characters, got {len(given)}"
        raise InputError(reason, field="request_id")


def _check_count(request: v1.RecordFactsRequest) -> None:
    count = (
        len(request.facts)
        + len(request.outcomes)
        + len(request.attributes)
        + len(request.objecting_customer_ids)
    )
    if not count:
        raise InputError("must hold at least one entry", field="facts")
    if count > ENTRIES_MAX:
        reason = f"must be at most {ENTRIES_MAX} entries in all, got {count}"
        raise LimitError(reason, field="facts")


def _facts(request: v1.RecordFactsRequest) -> pa.Table | None:
    """Facts and outcomes as one table, facts first."""
    tables = []
    if request.facts:
        ids = [each.customer_id for each in request.facts]
        _check_ids(ids, "facts.customer_id")
        tables.append(fact_table(ids, [each.fact for each in request.facts], field="facts"))
    if request.outcomes:
        named = [
            named_opportunity(each.opportunity_id, field="outcomes.opportunity_id", row=row)
            for row, each in enumerate(request.outcomes)
        ]
        facts = [
            _fact_of(each, capability_id, row)
            for row, (each, (_, capability_id)) in enumerate(
                zip(request.outcomes, named, strict=True)
            )
        ]
        tables.append(fact_table([each for each, _ in named], facts, field="outcomes"))
    return pa.concat_tables(tables) if tables else None


def _fact_of(given: v1.OpportunityOutcome, capability_id: str, row: int) -> profile_pb2.Fact:
    if given.kind not in _OUTCOMES:
        reason = "must be CONTACTED, BOUGHT or REFUSED"
        raise InputError(reason, field="outcomes.kind", row=row)
    fact = profile_pb2.Fact(capability_id=capability_id, kind=given.kind, date=given.date)
    if given.HasField("count"):
        fact.count = given.count
    return fact


def _check_ids(ids: list[str], field: str) -> None:
    if "" in ids:
        raise InputError("must not be empty", field=field, row=ids.index(""))


def _attributes(request: v1.RecordFactsRequest, version: Version) -> list[pa.Table] | None:
    """Attributes as tables, one for each set of names that customers share."""
    if not request.attributes:
        return None
    schema = version.engine.base.attributes.schema
    _check_ids([each.customer_id for each in request.attributes], "attributes.customer_id")
    rows: dict[str, dict[str, pa.Array]] = {}
    for row, each in enumerate(request.attributes):
        if not each.attributes:
            raise InputError("must hold at least one", field="attributes.attributes", row=row)
        said = attribute_row(each.attributes, schema, field=f"attributes[{row}].attributes")
        # Of one customer, the later one counts.
        rows.setdefault(each.customer_id, {}).update(said)
    alike: dict[tuple[str, ...], list[str]] = {}
    for customer_id, said in rows.items():
        alike.setdefault(tuple(sorted(said)), []).append(customer_id)
    return [
        pa.table(
            {
                CUSTOMER_ID: pa.array(ids, pa.string()),
                **{
                    name: pa.concat_arrays([plain(rows[each][name]) for each in ids])
                    for name in names
                },
            }
        )
        for names, ids in alike.items()
    ]
