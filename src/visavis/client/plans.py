"""What each method means: arguments → messages → results, for both clients.

Each function is a plan (`visavis.client.steps`), and a method of `Client` and of `AsyncClient`
under the same name, with the same arguments but for `state`. Those of matches are in
`visavis.client.matches`, those of jobs in `visavis.client.jobs`.

Arguments that return everywhere: `timeout_s`, how long the method may take, with all that is
repeated (of an iterator: each page or message); None: as the client was made. `request_id`, by
which the server knows a repeated change; None: a new UUID, kept when the client itself repeats.
"""

from __future__ import annotations

from uuid import uuid4

from visavis.client import decoding, results
from visavis.client.congestion import in_turn
from visavis.client.encoding import (
    checked_count,
    checked_text,
    filter_message,
    source_message,
)
from visavis.client.recording import Attributes, Rows, record_request
from visavis.client.requests import Names, Selection, Source
from visavis.client.rpcs import (
    FORGET_CUSTOMER,
    GET_SERVING_INFO,
    LIST_CAPABILITIES,
    PUBLISH_VERSION,
    RECORD_FACTS,
)
from visavis.client.state import State
from visavis.client.steps import Budget, Call, Emit, Plan, Stream
from visavis.v1 import capability_pb2, catalog_service_pb2, profile_service_pb2

__all__ = [
    "forget",
    "list_capabilities",
    "new_request_id",
    "publish",
    "record_facts",
    "serving_info",
]


def new_request_id(given: str | None) -> str:
    """The id of a change: the caller's, or a new one."""
    return str(uuid4()) if given is None else checked_text(given, "request_id")


def record_facts(
    state: State,  # noqa: ARG001 (every plan has one)
    facts: Rows | None = None,
    *,
    outcomes: Rows | None = None,
    attributes: Attributes | None = None,
    objections: Names = (),
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Plan[results.Recorded]:
    """Take in what happened: all of it is on disk when this returns, or nothing is.

    Parameters
    ----------
    facts : pyarrow.Table or iterable of mapping, optional
        customer_id, kind, date, product or capability_id, and at will count.
    outcomes : pyarrow.Table or iterable of mapping, optional
        What became of opportunities: opportunity_id, kind, date, and at will count.
    attributes : pyarrow.Table or mapping of str to mapping, optional
        A table with customer_id and the attributes that change, or
        ``{customer_id: {name: value}}``; None: now unknown. Those not named stay.
    objections : names
        Ids of customers who objected to all contact, which nothing takes back.
    request_id : str, optional
        The same id with the same content records nothing a second time.
    timeout_s : float, optional

    Raises
    ------
    InputError
        If a row lacks something; nothing was sent.
    GatewayError
        RequestError with the field at fault; StateError: the server runs without a journal;
        UnavailableError or DeadlineError: it may have been recorded, repeat it by its id.
    """
    named = new_request_id(request_id)
    request = record_request(named, facts, outcomes, attributes, objections)
    answer = yield Call(RECORD_FACTS, request, Budget(timeout_s))
    return results.Recorded(
        request_id=named,
        version=decoding.version(answer.version),
        first_offset=answer.first_offset,
        last_offset=answer.last_offset,
        is_repeated=answer.is_repeated,
        dropped_count=answer.dropped_count,
    )


def forget(
    state: State,  # noqa: ARG001
    customer_id: str,
    *,
    timeout_s: float | None = None,
) -> Plan[results.Forgotten]:
    """Erase what the journal holds of a customer; what stays counts as an objection.

    Repeating it changes nothing; an id that nobody knows is no error.

    Raises
    ------
    GatewayError
        StateError: the server runs without a journal.
    """
    named = checked_text(customer_id, "customer_id")
    request = profile_service_pb2.ForgetCustomerRequest(customer_id=named)
    answer = yield Call(FORGET_CUSTOMER, request, Budget(timeout_s))
    return results.Forgotten(decoding.version(answer.version), answer.emptied_count)


def serving_info(state: State, *, timeout_s: float | None = None) -> Plan[results.ServingInfo]:
    """What is served now: versions, schema, policy and limits.

    Raises
    ------
    GatewayError
    """
    request = catalog_service_pb2.GetServingInfoRequest()
    answer = yield Call(GET_SERVING_INFO, request, Budget(timeout_s))
    state.info = decoding.serving_info(answer)
    return state.info


def list_capabilities(
    state: State,  # noqa: ARG001
    *,
    capability_filter: Selection | None = None,
    is_full: bool = False,
    page_size: int = 0,
    timeout_s: float | None = None,
) -> Stream[results.CapabilityPage]:
    """The capabilities of the served catalog, ascending by id, page by page.

    Parameters
    ----------
    capability_filter : Selection, optional
        Which; None: all.
    is_full : bool
        With weights, bias and history terms.
    page_size : int
        At most so many on a page; 0: the server's choice.
    timeout_s : float, optional
        For each page.

    Raises
    ------
    GatewayError
        VersionChangedError: another catalog is served than that of the pages before: begin again.
    """
    view = capability_pb2.CAPABILITY_VIEW_FULL if is_full else capability_pb2.CAPABILITY_VIEW_BASIC
    request = catalog_service_pb2.ListCapabilitiesRequest(
        view=view, page_size=checked_count(page_size, "page_size")
    )
    if capability_filter is not None:
        admitted = filter_message(capability_filter, "capability_filter")
        request.capability_filter.CopyFrom(admitted)
    while True:
        call = Call(LIST_CAPABILITIES, request, Budget(timeout_s))
        answer = yield from in_turn(call, is_first=not request.page_token)
        yield Emit(
            results.CapabilityPage(
                decoding.version(answer.version),
                tuple(decoding.capability(each) for each in answer.capabilities),
            )
        )
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def publish(
    state: State,
    *,
    base: Source | str | None = None,
    base_version: int = 0,
    catalog: Source | str | None = None,
    policy: Source | str | None = None,
    request_id: str | None = None,
    validate_only: bool = False,
    timeout_s: float | None = None,
) -> Plan[results.Published]:
    """Change what is served: load and verify beside it, then swap, with no failed request.

    Parameters
    ----------
    base, catalog, policy : Source or str, optional
        Where it lies, below a root of the server, and the digest that it must have, if any; None:
        the served one stays.
    base_version : int
        0: the newest at its location.
    request_id : str, optional
    validate_only : bool
        Load and verify only.
    timeout_s : float, optional
        Loading a base takes its time: give more than usual.

    Raises
    ------
    GatewayError
        StateError or DamageError: nothing has changed.
    """
    named = new_request_id(request_id)
    request = catalog_service_pb2.PublishVersionRequest(
        request_id=named,
        base=source_message(base, "base"),
        base_version=checked_count(base_version, "base_version"),
        catalog=source_message(catalog, "catalog"),
        policy=source_message(policy, "policy"),
        validate_only=validate_only,
    )
    answer = yield Call(PUBLISH_VERSION, request, Budget(timeout_s))
    # Schema and policy may be others now.
    state.info = None
    return results.Published(
        request_id=named,
        version=decoding.version(answer.version),
        replaced_version=decoding.version(answer.replaced_version),
        is_repeated=answer.is_repeated,
    )
