"""CatalogService: what is served, and the change to something else."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

import visavis
from visavis.catalog import Catalog
from visavis.domain import Link
from visavis.errors import SchemaError
from visavis.gateway import limits
from visavis.gateway.answers import version_of
from visavis.gateway.audiences import version_changed
from visavis.gateway.context import selection_of
from visavis.gateway.desk import Desk
from visavis.gateway.naming import is_of, page_of, page_token
from visavis.gateway.publishing import Publishing
from visavis.kernel import CONTRACT_VERSION
from visavis.policy import Policy
from visavis.serving import Context
from visavis.serving.context import Terms
from visavis.v1 import capability_pb2, context_pb2, profile_pb2
from visavis.v1 import catalog_service_pb2 as v1
from visavis.v1.catalog_service_pb2_grpc import CatalogServiceServicer

__all__ = ["CatalogService"]

_LINKS: Final = {
    Link.LOGISTIC: capability_pb2.LINK_LOGISTIC,
    Link.COUNT: capability_pb2.LINK_COUNT,
    Link.IDENTITY: capability_pb2.LINK_IDENTITY,
}

#: What a page of capabilities may weigh; one more of them fits beside it.
_PAGE_BYTES: Final = 2 * 2**20

_FILTER: Final = {
    f"context.only.{kind}": f"capability_filter.{field}.names"
    for kind, field in (
        ("capabilities", "capability_ids"),
        ("products", "products"),
        ("channels", "channels"),
        ("families", "families"),
    )
}


class CatalogService(CatalogServiceServicer):
    """Tells what the desk serves, and changes it.

    Parameters
    ----------
    desk : Desk
    publishing : Publishing
    has_journal, has_jobs : bool
    """

    def __init__(
        self, desk: Desk, publishing: Publishing, *, has_journal: bool, has_jobs: bool
    ) -> None:
        self._desk = desk
        self._publishing = publishing
        self._has_journal = has_journal
        self._has_jobs = has_jobs

    async def GetServingInfo(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """See the contract."""
        return await self._desk.answer(context, self._about)

    async def ListCapabilities(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._desk.answer(context, partial(self._list, request), paths=_FILTER)

    async def PublishVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See the contract."""
        return await self._desk.answer(
            context,
            lambda: self._publishing.publish(self._desk.serving, request),
            queue="change",
            audited={"request_id": request.request_id[:128], "dry": request.validate_only},
            method="CatalogService/PublishVersion",
        )

    def _about(self) -> v1.GetServingInfoResponse:
        serving = self._desk.serving
        name, version = serving.name, serving.version
        base = version.engine.base
        return v1.GetServingInfoResponse(
            version=version_of(name),
            release=visavis.__version__,
            score_contract_version=CONTRACT_VERSION,
            kernel_variant=version.engine.variant,
            customer_count=version.customers.stored.customer_count,
            capability_count=version.catalog.capability_count,
            indicator_names=version.indicator_names,
            attributes=[
                v1.AttributeColumnType(name=each.name, type=_type_of(each.type))
                for each in base.attributes.schema
            ],
            policy=_policy_of(version.policy),
            limits=self._limits(),
            notice=base.notice or "",
            has_journal=self._has_journal,
            has_jobs=self._has_jobs,
        )

    def _limits(self) -> v1.ServingLimits:
        return v1.ServingLimits(
            message_bytes_max=limits.MESSAGE_BYTES_MAX,
            metadata_bytes_max=limits.METADATA_BYTES_MAX,
            customer_count_max=limits.CUSTOMERS_MAX,
            entry_count_max=limits.ENTRIES_MAX,
            reason_count_max=limits.REASONS_MAX,
            audience_count_max=limits.AUDIENCE_MAX,
            page_size_max=limits.PAGE_MAX,
            open_frame_count_max=limits.OPEN_FRAMES_MAX,
            default_deadline_s=self._desk.deadline_s,
        )

    def _list(self, request: v1.ListCapabilitiesRequest) -> v1.ListCapabilitiesResponse:
        serving = self._desk.serving
        name, version = serving.name, serving.version
        if request.view not in capability_pb2.CapabilityView.values():
            raise SchemaError(f"must be a view, got {request.view}", field="view")
        size, key = limits.page_size(request.page_size), _key(request)
        listing = version.catalog_digest.encode()
        page = page_of(request.page_token, key)
        if page is not None and not is_of(page, listing):
            raise version_changed()
        closed = Terms.of(version, Context(only=selection_of(request.capability_filter))).closed
        count = version.catalog.capability_count
        shown = np.arange(count) if closed is None else np.flatnonzero(~closed)
        start = 0 if page is None else page.start
        response = v1.ListCapabilitiesResponse(version=version_of(name))
        is_full = request.view == capability_pb2.CAPABILITY_VIEW_FULL
        held = 0
        for place, j in enumerate(shown[start : start + size].tolist(), start=start):
            each = _capability(version.catalog, j, is_full=is_full)
            held += each.ByteSize()
            if held > _PAGE_BYTES and response.capabilities:
                response.next_page_token = page_token(place, listing, key)
                return response
            response.capabilities.append(each)
        if start + size < len(shown):
            response.next_page_token = page_token(start + size, listing, key)
        limits.check_size(response.ByteSize(), "view")
        return response


def _key(request: v1.ListCapabilitiesRequest) -> bytes:
    plain = v1.ListCapabilitiesRequest()
    plain.CopyFrom(request)
    plain.ClearField("page_token")
    plain.ClearField("page_size")
    content: bytes = plain.SerializeToString(deterministic=True)
    return content


def _type_of(kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return v1.ATTRIBUTE_TYPE_BOOL
    if pa.types.is_integer(kind):
        return v1.ATTRIBUTE_TYPE_INT64
    if pa.types.is_floating(kind):
        return v1.ATTRIBUTE_TYPE_DOUBLE
    return v1.ATTRIBUTE_TYPE_DATE if pa.types.is_date(kind) else v1.ATTRIBUTE_TYPE_STRING


def _policy_of(policy: Policy) -> v1.ServingPolicy:
    left_out = policy.exclusions
    return v1.ServingPolicy(
        k=policy.k,
        ev_min=policy.ev_min,
        product_limit=policy.product_limit,
        channel_limit=policy.channel_limit,
        family_limit=policy.family_limit,
        cool_down_days=policy.cool_down_days,
        channels_without_consent=sorted(policy.consent_not_needed),
        exclusions=context_pb2.Exclusions(
            capability_ids=left_out.capabilities,
            products=left_out.products,
            channels=left_out.channels,
            families=left_out.families,
        ),
        control_share=policy.control_share,
    )


def _capability(catalog: Catalog, j: int, *, is_full: bool) -> capability_pb2.Capability:
    first, last = catalog.valid_from[j], catalog.valid_to[j]
    found = capability_pb2.Capability(
        capability_id=catalog.ids[j],
        name=catalog.names[j],
        product=catalog.products[j],
        variant=catalog.variants[j],
        message=catalog.messages[j],
        channel=catalog.channels[j],
        family=catalog.families[j],
        value=float(catalog.value[j]),
        cost=float(catalog.cost[j]),
        link=_LINKS[Link(int(catalog.link[j]))],
        rule=catalog.rules[j] or "",
        valid_from="" if first is None else first.isoformat(),
        valid_to="" if last is None else last.isoformat(),
    )
    if not is_full:
        return found
    found.bias = float(catalog.bias[j])
    for d in np.flatnonzero(catalog.weights[j]).tolist():
        found.weights[catalog.indicator_names[d]] = float(catalog.weights[j, d])
    for term in catalog.history_weights[j]:
        found.history_terms.add(
            kind=profile_pb2.FactKind.Value(f"FACT_KIND_{term.kind.name}"),
            feature=term.feature,
            half_life_days=term.half_life_days,
            scale=term.scale,
            weight=term.weight,
        )
    return found
