"""The methods that match: one customer, many, streams; why; and audiences. See `plans`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from visavis.client import decoding, results
from visavis.client.columns import Overrides, Profiles
from visavis.client.congestion import in_turn
from visavis.client.encoding import (
    capability_message,
    checked_count,
    checked_text,
    context_message,
    names_of,
    profile_message,
)
from visavis.client.errors import GatewayError, RequestError
from visavis.client.frames import OPEN_FRAMES, Window
from visavis.client.pieces import Asked, cut_size, in_pieces
from visavis.client.requests import Capability, Profile, RequestContext
from visavis.client.rpcs import (
    EXPLAIN,
    FIND_AUDIENCE,
    MATCH_CUSTOMER,
    MATCH_CUSTOMERS,
    STREAM_MATCHES,
)
from visavis.client.state import State, known_info
from visavis.client.steps import Budget, Call, Emit, Open, Plan, Read, Stream
from visavis.errors import InputError
from visavis.v1 import match_service_pb2 as v1
from visavis.v1 import opportunity_pb2

__all__ = ["Customers", "explain", "find_audience", "match", "match_many", "stream"]

#: Ids of the served base, or a table of profiles (customer_id, indicators, attributes).
Customers: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray | pa.Table

#: How long a frame may take to be answered: longer than a server gives it by itself, so that what
#: is late is told as the error of its frame and does not end the stream.
_FRAME_S = 30.0

#: What a piece may weigh beside what its own check counts.
_SLACK = 1024


def match(
    state: State,  # noqa: ARG001 (every plan has one)
    customer_id: str | None = None,
    *,
    profile: Profile | None = None,
    context: RequestContext | None = None,
    reasons: int | None = None,
    distinctive: bool = False,
    timeout_s: float | None = None,
) -> Plan[results.CustomerMatches]:
    """The opportunities of one customer; who objected has none.

    Parameters
    ----------
    customer_id : str, optional
        Of the served base.
    profile : Profile, optional
        In its place, for somebody the base need not know.
    context : RequestContext, optional
        What holds at this moment.
    reasons : int, optional
        At most so many per opportunity; None: 3.
    distinctive : bool
        Reasons by what they say beyond what they say for the mean capability.
    timeout_s : float, optional

    Returns
    -------
    CustomerMatches

    Raises
    ------
    GatewayError
        UnknownIdError: there is no such customer.
    """
    request = v1.MatchCustomerRequest(
        context=context_message(context),
        reason_count=_maybe_count(reasons, "reason_count"),
        distinctive_reasons=distinctive,
    )
    _set_customer(request, customer_id, profile)
    answer = yield Call(MATCH_CUSTOMER, request, Budget(timeout_s))
    return decoding.customer_matches(answer)


def _set_customer(request: Any, customer_id: str | None, profile: Profile | None) -> None:
    if (customer_id is None) == (profile is None):
        raise InputError("give an id or a profile", field="customer_id")
    if profile is not None:
        request.profile.CopyFrom(profile_message(profile))
    else:
        request.customer_id = checked_text(customer_id, "customer_id")


def _maybe_count(given: int | None, field: str) -> int | None:
    return None if given is None else checked_count(given, field)


def explain(
    state: State,  # noqa: ARG001
    customer_id: str | None = None,
    capability_id: str = "",
    *,
    profile: Profile | None = None,
    context: RequestContext | None = None,
    timeout_s: float | None = None,
) -> Plan[results.Explanation]:
    """Why a customer has, or has not, an opportunity; the server's audit log says who asked.

    Parameters
    ----------
    customer_id : str, optional
    capability_id : str
    profile : Profile, optional
        In place of the id.
    context : RequestContext, optional
    timeout_s : float, optional

    Raises
    ------
    GatewayError
        UnknownIdError: there is no such customer, or no such capability: see `resource`.
    """
    request = v1.ExplainRequest(
        capability_id=checked_text(capability_id, "capability_id"),
        context=context_message(context),
    )
    _set_customer(request, customer_id, profile)
    answer = yield Call(EXPLAIN, request, Budget(timeout_s))
    return decoding.explanation(answer)


def find_audience(
    state: State,  # noqa: ARG001
    capability: str | Capability,
    count: int,
    *,
    context: RequestContext | None = None,
    reasons: int = 0,
    with_reach: bool = False,
    page_size: int = 0,
    timeout_s: float | None = None,
) -> Stream[results.AudiencePage]:
    """The best customers of a capability, or of one that somebody thinks of, page by page.

    Parameters
    ----------
    capability : str or Capability
        The id of one that the catalog holds, or a draft.
    count : int
        Customers, over all pages.
    context : RequestContext, optional
        as_of, available_channels, exclusions and ev_min alone.
    reasons : int
        At most so many per member.
    with_reach : bool
        Count also how many customers would get it among their opportunities; it costs a match of
        the full base.
    page_size : int
        At most so many on a page; 0: the server's choice.
    timeout_s : float, optional
        For each page.

    Raises
    ------
    GatewayError
        VersionChangedError: another version is served than that of the pages before: begin again.
    """
    request = v1.FindAudienceRequest(
        context=context_message(context),
        audience_count=checked_count(count, "audience_count"),
        page_size=checked_count(page_size, "page_size"),
        reason_count=checked_count(reasons, "reason_count") or None,
        include_reach=with_reach,
    )
    if isinstance(capability, Capability):
        request.draft.CopyFrom(capability_message(capability))
    else:
        request.capability_id = checked_text(capability, "capability_id")
    while True:
        call = Call(FIND_AUDIENCE, request, Budget(timeout_s))
        answer = yield from in_turn(call, is_first=not request.page_token)
        yield Emit(decoding.audience_page(answer))
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def match_many(
    state: State,
    customers: Customers,
    *,
    facts: pa.Table | None = None,
    overrides: pa.Table | None = None,
    context: RequestContext | None = None,
    reasons: int = 0,
    distinctive: bool = False,
    timeout_s: float | None = None,
) -> Plan[results.Batch]:
    """The opportunities of many customers as one table, all from one version.

    What is larger than the server takes is sent in pieces, one after the other. If they come from
    several versions (a fact was recorded meanwhile), those that are behind are asked again; after
    a few rounds VersionChangedError says that the server changes faster: use `stream`.

    Parameters
    ----------
    customers : sequence of str, pyarrow.Array or pyarrow.Table
        Ids, or profiles: customer_id, every indicator of the served base, and attributes.
    facts : pyarrow.Table, optional
        Of the profiles: customer_id, product, capability_id, kind, date, and at will count.
    overrides : pyarrow.Table, optional
        Beside ids, one row each: indicators and attributes that are otherwise; null: as known.
    context : RequestContext, optional
        What holds at this moment, for all of them.
    reasons : int
        At most so many per opportunity; 0: no such column.
    distinctive : bool
    timeout_s : float, optional
        For all pieces together.

    Returns
    -------
    Batch
        Its `table` equals the full-base result of the same version, row for row; customers who
        could not be matched are in its `row_errors`.

    Raises
    ------
    InputError
        If a table does not fit the served base; nothing was sent.
    GatewayError
    """
    budget = Budget(timeout_s)
    info = yield from known_info(state, budget)
    template = _template(context, reasons, distinctive)
    for is_last in (False, True):
        try:
            asked = _asked(template, customers, facts, overrides, info)
            k = info.policy.k if context is None or context.k is None else context.k
            size = cut_size(info, max(k, 1), reasons, asked.customer_ids)
            bytes_max = info.limits.message_bytes_max - _SLACK
            return (yield from in_pieces(MATCH_CUSTOMERS, asked, size, bytes_max, budget))
        except (InputError, RequestError) as error:
            # The schema may have changed since the server was asked for it.
            if is_last or not _concerns_schema(error, customers, overrides):
                raise
            before = info.indicator_names, info.attributes
            info = yield from known_info(state, budget, is_fresh=True)
            if before == (info.indicator_names, info.attributes):
                raise
    raise AssertionError("the second time returns or raises")


def _concerns_schema(error: Exception, customers: Customers, overrides: Any) -> bool:
    if not isinstance(customers, pa.Table) and overrides is None:
        return False
    return not isinstance(error, GatewayError) or error.reason == "INVALID_SCHEMA"


def _template(
    context: RequestContext | None, reasons: int, distinctive: bool
) -> v1.MatchCustomersRequest:
    return v1.MatchCustomersRequest(
        context=context_message(context),
        encoding=opportunity_pb2.ENCODING_ARROW,
        reason_count=checked_count(reasons, "reason_count") or None,
        distinctive_reasons=distinctive,
    )


def _asked(
    template: v1.MatchCustomersRequest,
    customers: Customers,
    facts: pa.Table | None,
    overrides: pa.Table | None,
    info: results.ServingInfo,
) -> Asked:
    """What is asked of a batch, to be cut anywhere."""
    if isinstance(customers, pa.Table):
        if overrides is not None:
            raise InputError("overrides stand beside ids, not profiles", field="overrides")
        profiles = Profiles.of(customers, facts, info)

        def of_profiles(start: int, end: int) -> v1.MatchCustomersRequest:
            request = v1.MatchCustomersRequest(profiles=profiles.message(start, end))
            request.MergeFrom(template)
            return request

        return Asked(profiles.customer_ids, of_profiles)
    if facts is not None:
        raise InputError("facts stand beside profiles, not ids", field="facts")
    ids = _ids(customers)
    held = None if overrides is None else Overrides.of(overrides, info, len(ids))

    def of_ids(start: int, end: int) -> v1.MatchCustomersRequest:
        named = v1.CustomerIds(customer_ids=ids[start:end])
        request = v1.MatchCustomersRequest(ids=named)
        if held is not None:
            request.overrides.CopyFrom(held.message(start, end))
        request.MergeFrom(template)
        return request

    return Asked(ids, of_ids)


def _ids(customers: Any) -> list[str]:
    if isinstance(customers, pa.Array | pa.ChunkedArray):
        customers = customers.to_pylist()
    return names_of(customers, "customers")


def stream(
    state: State,
    batches: Iterable[Customers] | AsyncIterable[Customers],
    *,
    context: RequestContext | None = None,
    reasons: int = 0,
    distinctive: bool = False,
    open_frames: int = OPEN_FRAMES,
    timeout_s: float | None = None,
) -> Stream[results.Frame]:
    """Match batch after batch over one call; the answers come in the order in which they end.

    Batches are taken from `batches` one by one, in a thread of gRPC's or a task, and never more
    than `open_frames` ahead of what you have iterated over. Each is answered from one version, and
    two may be from two. What is wrong with a batch is the `error` of its frame; what is wrong with
    the call ends it, and batches that were not answered may be sent again.

    Parameters
    ----------
    batches : iterable of customers
        As of `match_many`, none of them larger than the server takes; of `AsyncClient`, an
        asynchronous iterable too.
    context, reasons, distinctive
        As of `match_many`, for all of them.
    open_frames : int
    timeout_s : float, optional
        How long one frame may take to be answered; None: 30.

    Raises
    ------
    GatewayError
    InputError
        Where a batch is none; behind the answers to those before it.
    """
    info = yield from known_info(state, Budget(timeout_s))
    template = _template(context, reasons, distinctive)

    def request(batch: Customers) -> v1.MatchCustomersRequest:
        asked = _asked(template, batch, None, None, info)
        return asked.request(0, len(asked.customer_ids))  # type: ignore[no-any-return]

    window = Window(batches, request, open_frames)
    patience_s = _FRAME_S if timeout_s is None else timeout_s
    yield Open(STREAM_MATCHES, window)
    try:
        while True:
            answer = yield Read(patience_s, lambda: window.is_due(patience_s))
            if answer is None:
                break
            yield Emit(window.taken(answer))
            window.room.release()
    finally:
        window.close()
    window.check_answered()
