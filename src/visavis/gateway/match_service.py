"""MatchService: the opportunities of customers, why, and the best customers of a capability."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import grpc

from visavis.errors import SchemaError
from visavis.gateway.answers import Cards, batch_of, customers_of, framed
from visavis.gateway.arrow import row_count_of
from visavis.gateway.arrow_profiles import arrow_profiles_of
from visavis.gateway.audiences import Audiences
from visavis.gateway.context import context_of
from visavis.gateway.customers import known_attributes, one_profile, overrides_of, profiles_of
from visavis.gateway.desk import Desk, remaining_s
from visavis.gateway.entrance import MALFORMED, Malformed
from visavis.gateway.errors import Fault, RefusedError, abort, frame_error
from visavis.gateway.explanations import explanation_of
from visavis.gateway.limits import (
    CUSTOMERS_MAX,
    OPEN_FRAMES_MAX,
    REASONS_MAX,
    bounded,
    check_size,
    size_fault,
)
from visavis.gateway.unread import Unread
from visavis.serving import Answer, Context
from visavis.serving.version import Version
from visavis.v1 import match_service_pb2 as v1
from visavis.v1 import opportunity_pb2
from visavis.v1.context_pb2 import RequestContext
from visavis.v1.match_service_pb2_grpc import MatchServiceServicer

__all__ = ["MatchService"]

#: Reasons of one customer's opportunities, where the request does not say.
_REASONS: Final = 3

_ONE: Final = {"profiles": "profile", "customer_ids": "customer_id"}
_MANY: Final = {"customer_ids": "ids.customer_ids"}


class MatchService(MatchServiceServicer):
    """Answers from what the desk serves.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._audiences = Audiences()
        self._cards: Cards | None = None
        self._unread = Unread()
        self._joiner = desk.joiner(self._match_together, self._row_amount, self._match_at_once)

    async def MatchCustomer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        missing = ("customer", request.customer_id)
        if request.WhichOneof("customer") == "customer_id":
            return await self._desk.answer_joined(
                context,
                self._joiner,
                _key_of(request),
                request.customer_id,
                paths=_ONE,
                missing=missing,
            )
        work = partial(self._match_profile, request)
        return await self._desk.answer(
            context, work, customer_count=1, amount=self._row_amount(), paths=_ONE, missing=missing
        )

    async def MatchCustomers(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        count = _customer_count(request)
        return await self._desk.answer(
            context,
            partial(self._match_customers, request),
            queue="batch",
            customer_count=count,
            amount=count * self._row_amount(),
            paths=_MANY,
        )

    async def StreamMatches(self, frames: AsyncIterator[Any], context: Any) -> None:  # noqa: N802
        """See the contract."""
        stream = _Stream(self._desk, self._match_customers, self._row_amount, context, self._unread)
        await stream.run(frames)

    async def Explain(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._desk.answer(
            context,
            partial(self._explain, request),
            queue="audience",
            paths=_ONE,
            missing=("customer", request.customer_id),
            audited={"capability_id": request.capability_id[:128]},
            method="MatchService/Explain",
        )

    async def FindAudience(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._desk.answer(
            context,
            lambda: self._audiences.found(self._desk.serving, request),
            queue="audience",
            paths={"k": "audience_count", "capability": "draft", "id": "draft.capability_id"},
            missing=("capability", request.capability_id),
        )

    def _row_amount(self) -> int:
        """The pairs of one customer."""
        return self._desk.serving.version.catalog.capability_count if self._desk.is_open else 0

    def _match_at_once(self, key: _Key, customer_id: str) -> bytes | None:
        """The answer to a single customer, without a thread; None where something is unusual."""
        if key.context is not None:
            return None
        began = time.perf_counter()
        answer = self._desk.serving.match_at_once(customer_id, wording=True, **_reasons(key))
        return None if answer is None else self._written_one(answer, began, answer.attributes)

    def _match_together(self, key: _Key, customer_ids: Sequence[str]) -> list[bytes | Exception]:
        """The answers to some single customers who are asked for in the same way."""
        serving = self._desk.serving
        now = None
        if key.context is not None:
            now = context_of(RequestContext.FromString(key.context), serving.version)
        began = time.perf_counter()
        answer = serving.match(list(customer_ids), now, wording=True, **_reasons(key))
        return self._written(answer, began, answer.attributes)

    def _match_profile(self, request: v1.MatchCustomerRequest) -> bytes:
        serving = self._desk.serving
        if request.WhichOneof("customer") is None:
            raise SchemaError("customer_id or profile must be given", field="customer_id")
        now = _context(request, serving.version)
        profile = one_profile(request.profile, serving.version)
        began = time.perf_counter()
        answer = serving.match_profiles(profile, now, **_reasons(_key_of(request)))
        attributes = known_attributes(profile, now.attributes if now else {})
        return self._written_one(answer, began, {0: attributes})

    def _written_one(
        self, answer: Answer, began: float, attributes: Mapping[int, Mapping[str, object]]
    ) -> bytes:
        """The answer to the only customer; what is wrong with the customer is raised."""
        (written,) = self._written(answer, began, attributes)
        if isinstance(written, Exception):
            raise written
        return written

    def _written(
        self, answer: Answer, began: float, attributes: Mapping[int, Mapping[str, object]]
    ) -> list[bytes | Exception]:
        """An answer to each customer, as bytes; or what is wrong with the customer."""
        matched = time.perf_counter()
        self._desk.meters.matched(answer.stats, matched - began)
        cards = self._cards_of(answer)
        written: list[bytes | Exception] = []
        for place, content in enumerate(customers_of(answer, cards, attributes)):
            error = answer.errors.get(place) or size_fault(len(content), "reason_count")
            written.append(content if error is None else error)
        self._desk.meters.encoded(time.perf_counter() - matched)
        return written

    def _cards_of(self, answer: Answer) -> Cards:
        """What was written before of the version that an answer is of."""
        cards = self._cards
        if cards is None or cards.version is not answer.version:
            cards = self._cards = Cards(answer.version)
        return cards

    def _match_customers(self, request: v1.MatchCustomersRequest) -> bytes:
        serving = self._desk.serving
        asked = request.WhichOneof("customers")
        if asked is None:
            raise SchemaError("ids, profiles or arrow_profiles must be given", field="ids")
        if request.HasField("overrides") and asked != "ids":
            raise SchemaError("can be given beside ids alone", field="overrides")
        if request.encoding not in opportunity_pb2.Encoding.values():
            raise SchemaError(f"must be an encoding, got {request.encoding}", field="encoding")
        now = _context(request, serving.version)
        options: dict[str, Any] = {
            "reasons": bounded(request.reason_count, 0, REASONS_MAX, "reason_count") or None,
            "distinctive": request.distinctive_reasons,
        }
        began = time.perf_counter()
        if asked == "ids":
            ids, field = request.ids.customer_ids, "ids.customer_ids"
            bounded(len(ids), 0, CUSTOMERS_MAX, field)
            if request.HasField("overrides"):
                options["overrides"] = overrides_of(request.overrides, serving.version, len(ids))
            answer = serving.match(list(ids), now, **options)
        elif asked == "arrow_profiles":
            field = "arrow_profiles.profiles"
            profiles = arrow_profiles_of(request.arrow_profiles, serving.version)
            answer = serving.match_profiles(profiles, now, **options)
        else:
            field = "profiles.customer_ids"
            bounded(len(request.profiles.customer_ids), 0, CUSTOMERS_MAX, field)
            profiles = profiles_of(request.profiles, serving.version)
            answer = serving.match_profiles(profiles, now, **options)
        matched = time.perf_counter()
        self._desk.meters.matched(answer.stats, matched - began)
        content = batch_of(answer, self._cards_of(answer), request.encoding, field)
        check_size(len(content), field)
        self._desk.meters.encoded(time.perf_counter() - matched)
        return content

    def _explain(self, request: v1.ExplainRequest) -> v1.ExplainResponse:
        serving = self._desk.serving
        asked = request.WhichOneof("customer")
        if asked is None:
            raise SchemaError("customer_id or profile must be given", field="customer_id")
        if request.capability_id not in serving.version.capability_index:
            raise RefusedError(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_CAPABILITY",
                f"capability {request.capability_id!r:.80} is not in the catalog",
                resource=("capability", request.capability_id),
            )
        now = _context(request, serving.version)
        if asked == "profile":
            profile = one_profile(request.profile, serving.version)
            found = serving.explain_profile(profile, request.capability_id, now)
        else:
            found = serving.explain(request.customer_id, request.capability_id, now)
        response = explanation_of(found.name, found.explanation)
        check_size(response.ByteSize(), "capability_id")
        return response


class _Stream:
    """One StreamMatches: so many frames open at a time, answered in the order in which they end."""

    def __init__(
        self,
        desk: Desk,
        match: Any,
        row_amount: Callable[[], int],
        call: Any,
        unread: Unread,
    ) -> None:
        self._desk = desk
        self._unread = unread
        self._match = match
        self._row_amount = row_amount
        self._call = call
        self._room = asyncio.Semaphore(OPEN_FRAMES_MAX)
        self._writing = asyncio.Lock()
        self._open: set[int] = set()

    async def run(self, frames: AsyncIterator[Any]) -> None:
        """Answer frames until the client sends no more."""
        fault: Fault | None = None
        try:
            async with asyncio.TaskGroup() as group:
                # Room is found before a frame is read: what is not read, the client feels.
                await self._room.acquire()
                async for frame in frames:
                    if frame is MALFORMED:
                        # Its id is not known, so that nothing can be answered in its place.
                        fault = Malformed.fault
                        break
                    group.create_task(self._answer(frame))
                    await self._room.acquire()
        except* RefusedError as stalled:
            # The other frames are given up with the one that nobody reads.
            fault = _first(stalled).fault
        if fault is not None:
            await abort(self._call, fault)

    async def _answer(self, frame: v1.StreamMatchesRequest) -> None:
        is_new = frame.frame_id not in self._open
        count = _customer_count(frame.match)
        try:
            if not is_new:
                raise SchemaError("is open already", field="frame_id")
            self._open.add(frame.frame_id)
            self._unread.check()
            work = partial(self._match, frame.match)
            answer = await self._desk.run(
                work,
                remaining_s=remaining_s(self._call),
                queue="batch",
                customer_count=count,
                amount=count * self._row_amount(),
            )
            content = framed(frame.frame_id, answer)
        except Exception as error:
            refused = frame_error(self._desk.fault(error, "batch", _MANY))
            response = v1.StreamMatchesResponse(frame_id=frame.frame_id, error=refused)
            content = response.SerializeToString()
        finally:
            if is_new:
                self._open.discard(frame.frame_id)
        with self._unread.held(len(content)):
            async with self._writing:
                await self._unread.write(self._call, content)
        self._room.release()


def _first(group: BaseExceptionGroup[RefusedError]) -> RefusedError:
    """One of what a group holds."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


class _Key(NamedTuple):
    """What single customers have in common who are matched together."""

    context: bytes | None
    reason_count: int
    is_distinctive: bool


def _key_of(request: v1.MatchCustomerRequest) -> _Key:
    # Equal contexts may be written in different bytes; then they are matched apart, no more.
    context = request.context.SerializeToString() if request.HasField("context") else None
    wanted = request.reason_count if request.HasField("reason_count") else _REASONS
    return _Key(context, wanted, request.distinctive_reasons)


def _reasons(key: _Key) -> dict[str, Any]:
    return {
        "reasons": bounded(key.reason_count, 0, REASONS_MAX, "reason_count") or None,
        "distinctive": key.is_distinctive,
    }


def _customer_count(request: v1.MatchCustomersRequest) -> int:
    """How many customers a request names, without looking at them."""
    asked = request.WhichOneof("customers")
    if asked == "ids":
        return len(request.ids.customer_ids)
    if asked == "arrow_profiles":
        return row_count_of(request.arrow_profiles.profiles, CUSTOMERS_MAX)
    return len(request.profiles.customer_ids) if asked == "profiles" else 0


def _context(request: Any, version: Version) -> Context | None:
    """What holds now; None, for which everything is ready, where the request says nothing."""
    return context_of(request.context, version) if request.HasField("context") else None
