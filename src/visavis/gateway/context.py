"""`RequestContext` → `serving.Context`: absent and empty stay apart, looser limits are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
import pyarrow as pa

from visavis.domain import parse_date
from visavis.errors import InputError
from visavis.gateway.errors import RefusedError
from visavis.gateway.incoming import attribute_row
from visavis.policy import Policy
from visavis.serving import Context, Selection
from visavis.serving.version import Version
from visavis.v1 import context_pb2 as v1

__all__ = ["context_of", "selection_of"]

_LIMITS: Final = ("k", "product_limit", "channel_limit", "family_limit")


def context_of(given: v1.RequestContext, version: Version) -> Context:
    """What a request says about now.

    Raises
    ------
    InputError
        Naming the field by its path.
    RefusedError
        If a limit is looser than the served policy's.
    """
    names = given.available_channels.names
    left_out = given.exclusions
    return Context(
        as_of=parse_date(given.as_of, field="context.as_of") if given.as_of else None,
        available_channels=list(names) if given.HasField("available_channels") else None,
        only=selection_of(given.capability_filter),
        without=Selection(
            _listed(left_out.capability_ids),
            _listed(left_out.products),
            _listed(left_out.families),
            _listed(left_out.channels),
        ),
        indicators=dict(given.indicator_overrides),
        attributes=_attributes(given, version),
        **_limits(given.policy_overrides, version.policy),
    )


def selection_of(given: v1.CapabilityFilter) -> Selection:
    """Which capabilities come into question; a set that is not there restricts nothing."""

    def named(field: str) -> list[str] | None:
        return list(getattr(given, field).names) if given.HasField(field) else None

    return Selection(
        named("capability_ids"), named("products"), named("families"), named("channels")
    )


def _listed(names: Iterable[str]) -> list[str] | None:
    return list(names) or None


def _attributes(given: v1.RequestContext, version: Version) -> dict[str, Any]:
    if not given.attribute_overrides:
        return {}
    schema = version.engine.base.attributes.schema
    field = "context.attribute_overrides"
    row = attribute_row(given.attribute_overrides, schema, field=field)
    return {name: _cell(array, f"{field}.{name}") for name, array in row.items()}


def _cell(array: pa.Array, field: str) -> Any:
    try:
        return array[0].as_py()
    except (ValueError, OverflowError):
        # Arrow knows days that Python does not.
        raise InputError("lies beyond the years 1 … 9999", field=field) from None


def _limits(given: v1.PolicyOverrides, policy: Policy) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for name in _LIMITS:
        if given.HasField(name):
            most = getattr(policy, name)
            wanted = getattr(given, name)
            if most is not None and wanted > most:
                raise _looser(name, f"must be at most {most}, the served policy's, got {wanted}")
            limits[name] = wanted
    if given.HasField("ev_min"):
        wanted, least = given.ev_min, policy.ev_min
        if least is not None and wanted < least:
            reason = f"must be at least {least:g}, the served policy's, got {wanted:g}"
            raise _looser("ev_min", reason)
        limits["ev_min"] = wanted
    return limits


def _looser(name: str, reason: str) -> RefusedError:
    code, field = grpc.StatusCode.INVALID_ARGUMENT, f"context.policy_overrides.{name}"
    return RefusedError(code, "LOOSER_POLICY", reason, field=field)
