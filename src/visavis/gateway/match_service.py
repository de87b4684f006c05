"""MatchService: the opportunities of customers, why, and the best customers of a capability."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import grpc

from visavis.errors import SchemaError
from visavis.gateway.answers import (
    batch_of,
    explanation_of,
    needs_attributes,
    opportunities_of,
    version_of,
)
from visavis.gateway.audiences import Audiences
from visavis.gateway.context import context_of
from visavis.gateway.customers import known_attributes, one_profile, profiles_of
from visavis.gateway.desk import Desk
from visavis.gateway.entrance import Malformed
from visavis.gateway.errors import Fault, RefusedError, abort, fault_of, frame_error
from visavis.gateway.limits import (
    CUSTOMERS_MAX,
    OPEN_FRAMES_MAX,
    REASONS_MAX,
    bounded,
    check_size,
)
from visavis.serving import Context
from visavis.serving.version import Version
from visavis.v1 import match_service_pb2 as v1
from visavis.v1 import opportunity_pb2
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

    async def MatchCustomer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        missing = ("customer", request.customer_id)
        work = partial(self._match_customer, request)
        return await self._desk.answer(context, work, paths=_ONE, missing=missing)

    async def MatchCustomers(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        work = partial(self._match_customers, request)
        return await self._desk.answer(context, work, paths=_MANY)

    async def StreamMatches(self, frames: AsyncIterator[Any], context: Any) -> None:  # noqa: N802
        """See the contract."""
        await _Stream(self._desk, self._match_customers, context).run(frames)

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

    def _match_customer(self, request: v1.MatchCustomerRequest) -> v1.MatchCustomerResponse:
        serving = self._desk.serving
        asked = request.WhichOneof("customer")
        if asked is None:
            raise SchemaError("customer_id or profile must be given", field="customer_id")
        now = _context(request, serving.version)
        wanted = request.reason_count if request.HasField("reason_count") else _REASONS
        options: dict[str, Any] = {
            "reasons": bounded(wanted, 0, REASONS_MAX, "reason_count") or None,
            "distinctive": request.distinctive_reasons,
        }
        if asked == "profile":
            profile = one_profile(request.profile, serving.version)
            answer = serving.match_profiles(profile, now, **options)
            attributes = known_attributes(profile, now.attributes if now else {})
        else:
            answer = serving.match([request.customer_id], now, **options)
            for error in answer.errors.values():
                raise error
            needed = needs_attributes(answer)
            attributes = serving.attributes(request.customer_id, now) if needed else {}
        response = v1.MatchCustomerResponse(
            version=version_of(answer.name),
            customer_id=answer.customer_ids[0],
            opportunities=opportunities_of(answer, attributes),
        )
        check_size(response, "reason_count")
        return response

    def _match_customers(self, request: v1.MatchCustomersRequest) -> v1.MatchCustomersResponse:
        serving = self._desk.serving
        asked = request.WhichOneof("customers")
        if asked is None:
            raise SchemaError("ids, profiles or arrow_profiles must be given", field="ids")
        if asked == "arrow_profiles":
            raise _not_yet("profiles as Arrow are not taken yet: send columns", "arrow_profiles")
        if request.HasField("overrides"):
            raise _not_yet("overrides by row are not taken yet: send profiles", "overrides")
        if request.encoding not in opportunity_pb2.Encoding.values():
            raise SchemaError(f"must be an encoding, got {request.encoding}", field="encoding")
        now = _context(request, serving.version)
        options: dict[str, Any] = {
            "reasons": bounded(request.reason_count, 0, REASONS_MAX, "reason_count") or None,
            "distinctive": request.distinctive_reasons,
        }
        if asked == "ids":
            ids, field = request.ids.customer_ids, "ids.customer_ids"
            bounded(len(ids), 0, CUSTOMERS_MAX, field)
            answer = serving.match(list(ids), now, **options)
        else:
            field = "profiles.customer_ids"
            bounded(len(request.profiles.customer_ids), 0, CUSTOMERS_MAX, field)
            profiles = profiles_of(request.profiles, serving.version)
            answer = serving.match_profiles(profiles, now, **options)
        response = batch_of(answer, request.encoding, field)
        check_size(response, field)
        return response

    def _explain(self, request: v1.ExplainRequest) -> v1.ExplainResponse:
        serving = self._desk.serving
        asked = request.WhichOneof("customer")
        if asked is None:
            raise SchemaError("customer_id must be given", field="customer_id")
        if asked == "profile":
            raise _not_yet("profiles are not explained yet", "profile")
        if request.capability_id not in serving.version.capability_index:
            raise RefusedError(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_CAPABILITY",
                f"capability {request.capability_id!r:.80} is not in the catalog",
                resource=("capability", request.capability_id),
            )
        now = _context(request, serving.version)
        found = serving.explain(request.customer_id, request.capability_id, now)
        response = explanation_of(found.name, found.explanation)
        check_size(response, "capability_id")
        return response


class _Stream:
    """One StreamMatches: so many frames open at a time, answered in the order in which they end."""

    def __init__(self, desk: Desk, match: Any, call: Any) -> None:
        self._desk = desk
        self._match = match
        self._call = call
        self._room = asyncio.Semaphore(OPEN_FRAMES_MAX)
        self._writing = asyncio.Lock()
        self._open: set[int] = set()

    async def run(self, frames: AsyncIterator[Any]) -> None:
        """Answer frames until the client sends no more."""
        fault: Fault | None = None
        async with asyncio.TaskGroup() as group:
            # Room is found before a frame is read: what is not read, the client feels.
            await self._room.acquire()
            async for frame in frames:
                if isinstance(frame, Malformed):
                    # Its id is not known, so that nothing can be answered in its place.
                    fault = Malformed.fault
                    break
                group.create_task(self._answer(frame))
                await self._room.acquire()
        if fault is not None:
            await abort(self._call, fault)

    async def _answer(self, frame: v1.StreamMatchesRequest) -> None:
        response = v1.StreamMatchesResponse(frame_id=frame.frame_id)
        is_new = frame.frame_id not in self._open
        try:
            if not is_new:
                raise SchemaError("is open already", field="frame_id")
            self._open.add(frame.frame_id)
            work = partial(self._match, frame.match)
            response.match.CopyFrom(await self._desk.run(work, remaining_s=None))
        except Exception as error:
            fault = fault_of(error, paths=_MANY)
            self._desk.log(fault, error)
            response.error.CopyFrom(frame_error(fault))
        finally:
            if is_new:
                self._open.discard(frame.frame_id)
        async with self._writing:
            await self._call.write(response)
        self._room.release()


def _context(request: Any, version: Version) -> Context | None:
    """What holds now; None, for which everything is ready, where the request says nothing."""
    return context_of(request.context, version) if request.HasField("context") else None


def _not_yet(reason: str, field: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNIMPLEMENTED, "UNSPECIFIED", reason, field=field)
