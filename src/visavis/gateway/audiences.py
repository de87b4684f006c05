"""FindAudience: an audience is found once, and given page by page."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import grpc

from visavis.domain import HISTORY
from visavis.errors import InputError, SchemaError
from visavis.gateway.answers import version_of
from visavis.gateway.context import context_of
from visavis.gateway.errors import RefusedError
from visavis.gateway.limits import (
    AUDIENCE_MAX,
    REASONS_MAX,
    bounded,
    check_size,
    page_size,
)
from visavis.gateway.naming import is_of, page_of, page_token
from visavis.serving import Audience, Serving, ServingVersion
from visavis.v1 import capability_pb2, opportunity_pb2, profile_pb2
from visavis.v1 import match_service_pb2 as v1

__all__ = ["Audiences", "version_changed"]

#: Audiences that pages are still taken from, so many at most and so large in all; a hundred reasons
#: of each of 100,000 customers are 160 MB.
_KEPT_MAX: Final = 8
_KEPT_BYTES: Final = 2**28

#: What a customer takes beside the reasons: an id of 16 letters and three numbers.
_MEMBER_BYTES: Final = 96

#: What a page may weigh; one more member fits beside it.
_PAGE_BYTES: Final = 2 * 2**20

#: What an audience has no place for: it names everybody who is worth it.
_LIMITS: Final = ("k", "product_limit", "channel_limit", "family_limit")


class Audiences:
    """Finds audiences, and keeps the last ones for their next pages."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Audience] = OrderedDict()
        self._lock = threading.Lock()

    def found(self, serving: Serving, request: v1.FindAudienceRequest) -> v1.FindAudienceResponse:
        """One page.

        Raises
        ------
        VisavisError
        """
        size = page_size(request.page_size)
        count = bounded(request.audience_count, 1, AUDIENCE_MAX, "audience_count")
        bounded(request.reason_count, 0, REASONS_MAX, "reason_count")
        key = _key(request)
        page = page_of(request.page_token, key)
        audience = self._audience(serving, request, count, None if page is None else key)
        listing = _listing(audience.name)
        if page is not None and not is_of(page, listing):
            raise version_changed()
        start = 0 if page is None else page.start
        with self._lock:
            self._kept[key] = audience
            self._kept.move_to_end(key)
            self._forget_oldest()
        return _page(audience, start, size, key, is_first=page is None)

    def _forget_oldest(self) -> None:
        while len(self._kept) > _KEPT_MAX or (
            len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _KEPT_BYTES
        ):
            self._kept.popitem(last=False)

    def _audience(
        self, serving: Serving, request: v1.FindAudienceRequest, count: int, key: bytes | None
    ) -> Audience:
        with self._lock:
            kept = None if key is None else self._kept.get(key)
        if kept is not None:
            return kept
        subject = request.WhichOneof("subject")
        if subject is None:
            raise SchemaError("capability_id or draft must be given", field="capability_id")
        capability: Any = request.capability_id
        if subject == "draft":
            capability = _draft(request.draft)
        _check_context(request)
        now = context_of(request.context, serving.version)
        return serving.find_audience(
            capability,
            now,
            k=count,
            reach=request.include_reach,
            reasons=request.reason_count or None,
        )


def _check_context(request: v1.FindAudienceRequest) -> None:
    """Refuse what a context says of customers, or of other capabilities."""
    context = request.context
    for name in ("capability_filter", "indicator_overrides", "attribute_overrides"):
        if context.HasField(name) if name == "capability_filter" else getattr(context, name):
            raise _says_nothing(f"context.{name}")
    for name in _LIMITS:
        if context.policy_overrides.HasField(name):
            raise _says_nothing(f"context.policy_overrides.{name}")


def _says_nothing(field: str) -> InputError:
    return InputError("says nothing of an audience: leave it out", field=field)


def _size(audience: Audience) -> int:
    """About how many bytes an audience takes."""
    reasons = audience.reasons
    told = 0 if reasons is None else sum(column.nbytes for column in reasons)
    return told + _MEMBER_BYTES * len(audience.customer_ids)


def version_changed() -> RefusedError:
    """Another version is served than the pages before came from."""
    reason = "another version is served now: begin again"
    return RefusedError(grpc.StatusCode.ABORTED, "VERSION_CHANGED", reason)


def _key(request: v1.FindAudienceRequest) -> bytes:
    plain = v1.FindAudienceRequest()
    plain.CopyFrom(request)
    plain.ClearField("page_token")
    plain.ClearField("page_size")
    content: bytes = plain.SerializeToString(deterministic=True)
    return content


def _listing(name: ServingVersion) -> bytes:
    return repr(name).encode()


def _page(
    audience: Audience, start: int, size: int, key: bytes, *, is_first: bool
) -> v1.FindAudienceResponse:
    response = v1.FindAudienceResponse(
        version=version_of(audience.name),
        eligible_count=audience.possible_count,
        reach_count=audience.reach if is_first else None,
    )
    names = (*audience.indicator_names, HISTORY)
    place, last, weight = start, min(start + size, len(audience.customer_ids)), 0
    while place < last and weight < _PAGE_BYTES:
        member = response.members.add(
            customer_id=audience.customer_ids[place],
            propensity=float(audience.propensity[place]),
            expected_value=float(audience.expected_value[place]),
            reasons=_reasons(audience, place, names),
            is_control=bool(audience.control[place]),
        )
        weight += member.ByteSize()
        place += 1
    if place < len(audience.customer_ids):
        response.next_page_token = page_token(place, _listing(audience.name), key)
    check_size(response.ByteSize(), "page_size")
    return response


def _reasons(
    audience: Audience, place: int, names: tuple[str, ...]
) -> list[opportunity_pb2.Reason]:
    found = audience.reasons
    if found is None:
        return []
    cut = slice(int(found.offsets[place]), int(found.offsets[place + 1]))
    return [
        opportunity_pb2.Reason(indicator=names[column], contribution=contribution)
        for column, contribution in zip(
            found.name_index[cut].tolist(), found.contribution[cut].tolist(), strict=True
        )
    ]


def _draft(given: capability_pb2.Capability) -> dict[str, Any]:
    """A capability as a row of a catalog; what is empty is absent."""
    row: dict[str, Any] = {"id": given.capability_id, "weights": dict(given.weights)}
    for name in (
        *("name", "product", "variant", "message", "channel", "family", "rule"),
        *("valid_from", "valid_to"),
    ):
        if getattr(given, name):
            row[name] = getattr(given, name)
    row["bias"], row["cost"] = given.bias, given.cost
    if given.HasField("value"):
        row["value"] = given.value
    row["link"] = _word(capability_pb2.Link, given.link, "LINK_", "draft.link") or "logistic"
    row["history_weights"] = [_term(term, place) for place, term in enumerate(given.history_terms)]
    return row


def _term(given: capability_pb2.HistoryTerm, place: int) -> dict[str, Any]:
    field = f"draft.history_terms[{place}].kind"
    term = {
        "kind": _word(profile_pb2.FactKind, given.kind, "FACT_KIND_", field),
        "feature": given.feature,
        "weight": given.weight,
    }
    for name in ("half_life_days", "scale"):
        if given.HasField(name):
            term[name] = getattr(given, name)
    return term


def _word(kinds: Any, number: int, prefix: str, field: str) -> str | None:
    """The name of an enum's value in lower case; None of the first."""
    if number not in kinds.values():
        raise SchemaError(f"must be one of the contract's numbers, got {number}", field=field)
    word: str = kinds.Name(number).removeprefix(prefix).lower()
    return word if number else None
