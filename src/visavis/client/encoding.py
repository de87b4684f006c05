"""Arguments → messages. What can be said of a value here is said here, as an `InputError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Final

from visavis.client.requests import (
    AttributeValue,
    Capability,
    Fact,
    Names,
    Profile,
    RequestContext,
    Selection,
    Source,
)
from visavis.domain import FactKind, Link, parse_date
from visavis.errors import InputError
from visavis.v1 import (
    capability_pb2,
    catalog_service_pb2,
    context_pb2,
    profile_pb2,
)

__all__ = [
    "attribute_value",
    "capability_message",
    "checked_count",
    "checked_text",
    "context_message",
    "day_text",
    "fact_message",
    "filter_message",
    "kind_number",
    "names_of",
    "profile_message",
    "source_message",
]

_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1

_LIMITS: Final = ("k", "product_limit", "channel_limit", "family_limit")
_KINDS_OF_NAMES: Final = ("capability_ids", "products", "channels", "families")


def checked_text(given: object, field: str) -> str:
    """A text that a message can hold.

    Raises
    ------
    InputError
    """
    if not isinstance(given, str):
        raise InputError(f"must be a text, got {type(given).__name__}", field=field)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InputError("must be Unicode without lone surrogates", field=field) from None
    return given


def checked_count(given: object, field: str) -> int:
    """An integer that a message can hold, of whatever kind."""
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise InputError(f"must be an integer, got {type(given).__name__}", field=field)
    number = int(given)
    if not -_INT32_MAX <= number <= _INT32_MAX:
        raise InputError(f"must be an integer of 32 bits, got {number}", field=field)
    return int(number)


def _number(given: object, field: str) -> float:
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"must be a number, got {type(given).__name__}", field=field) from None


def _numbers(given: Mapping[str, float], field: str) -> dict[str, float]:
    return {
        checked_text(name, field): _number(value, f"{field}.{name}")
        for name, value in given.items()
    }


def names_of(given: Any, field: str) -> list[str]:
    """Some names; one text alone is refused, for it would be taken letter by letter."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        reason = f"must be several names, got one {type(given).__name__}"
        raise InputError(reason, field=field)
    return [checked_text(each, field) for each in given]


def day_text(given: date | str | None, field: str) -> str:
    """A day in ISO form; empty where there is none."""
    return "" if given is None else parse_date(given, field=field).isoformat()


def kind_number(given: FactKind | str, field: str) -> Any:
    """The contract's number of a kind of fact."""
    try:
        return profile_pb2.FactKind.Value(f"FACT_KIND_{FactKind(given).name}")
    except ValueError:
        known = ", ".join(FactKind)
        raise InputError(f"must be one of {known}, got {given!r:.80}", field=field) from None


def attribute_value(given: Any, field: str) -> profile_pb2.AttributeValue:
    """One value of an attribute, in the type that it has."""
    held = given
    if not isinstance(given, bool | int | float | str | date) and hasattr(given, "item"):
        held = given.item()  # of numpy
    if isinstance(held, bool):
        return profile_pb2.AttributeValue(bool_value=held)
    if isinstance(held, int):
        if not -_INT64_MAX - 1 <= held <= _INT64_MAX:
            raise InputError("must be an integer of 64 bits", field=field)
        return profile_pb2.AttributeValue(int64_value=held)
    if isinstance(held, float):
        return profile_pb2.AttributeValue(double_value=held)
    if isinstance(held, str):
        return profile_pb2.AttributeValue(string_value=checked_text(held, field))
    if isinstance(held, date) and not isinstance(held, datetime):
        return profile_pb2.AttributeValue(date_value=held.isoformat())
    if held is None:
        return profile_pb2.AttributeValue()
    reason = f"must be a bool, integer, float, text, date or None, got {type(held).__name__}"
    raise InputError(reason, field=field)


def _attributes(
    given: Mapping[str, AttributeValue], field: str
) -> dict[str, profile_pb2.AttributeValue]:
    return {
        checked_text(name, field): attribute_value(value, f"{field}.{name}")
        for name, value in given.items()
    }


def context_message(given: RequestContext | None) -> context_pb2.RequestContext | None:
    """What holds now; None, for which servers have everything ready, where nothing is said."""
    if given is None:
        return None
    message = context_pb2.RequestContext(
        as_of=day_text(given.as_of, "context.as_of"),
        indicator_overrides=_numbers(given.indicator_overrides, "context.indicator_overrides"),
        attribute_overrides=_attributes(given.attribute_overrides, "context.attribute_overrides"),
    )
    if given.available_channels is not None:
        # Absent and empty are not the same: the message must be there.
        message.available_channels.SetInParent()
        names = names_of(given.available_channels, "context.available_channels.names")
        message.available_channels.names.extend(names)
    if _named(given.capability_filter):
        admitted = filter_message(given.capability_filter, "context.capability_filter")
        message.capability_filter.CopyFrom(admitted)
    for kind, left_out in _named(given.exclusions):
        names = names_of(left_out, f"context.exclusions.{kind}")
        getattr(message.exclusions, kind).extend(names)
    limits = message.policy_overrides
    for name in _LIMITS:
        wanted = getattr(given, name)
        if wanted is not None:
            setattr(limits, name, checked_count(wanted, f"context.policy_overrides.{name}"))
    if given.ev_min is not None:
        limits.ev_min = _number(given.ev_min, "context.policy_overrides.ev_min")
    return message


def filter_message(given: Selection, field: str) -> context_pb2.CapabilityFilter:
    """Which capabilities come into question; a set that is None is absent, an empty one is not."""
    return context_pb2.CapabilityFilter(
        **{
            kind: context_pb2.NameSet(names=names_of(names, f"{field}.{kind}.names"))
            for kind, names in _named(given)
        }
    )


def _named(given: Selection) -> list[tuple[str, Names]]:
    return [
        (kind, getattr(given, kind)) for kind in _KINDS_OF_NAMES if getattr(given, kind) is not None
    ]


def fact_message(given: Fact, field: str) -> profile_pb2.Fact:
    """One fact; that it is about one thing is checked here, for a message would keep the last."""
    if (given.product is None) == (given.capability_id is None):
        raise InputError("must be about a product or a capability", field=field)
    fact = profile_pb2.Fact(
        kind=kind_number(given.kind, f"{field}.kind"),
        date=day_text(given.date, f"{field}.date"),
    )
    if given.product is not None:
        fact.product = checked_text(given.product, f"{field}.product")
    if given.capability_id is not None:
        fact.capability_id = checked_text(given.capability_id, f"{field}.capability_id")
    if given.count is not None:
        fact.count = checked_count(given.count, f"{field}.count")
    return fact


def profile_message(given: Profile) -> profile_pb2.Profile:
    """The profile of one customer."""
    return profile_pb2.Profile(
        customer_id=checked_text(given.customer_id, "profile.customer_id"),
        indicators=_numbers(given.indicators, "profile.indicators"),
        attributes=_attributes(given.attributes, "profile.attributes"),
        facts=[fact_message(each, f"profile.facts[{row}]") for row, each in enumerate(given.facts)],
    )


def capability_message(given: Capability) -> capability_pb2.Capability:
    """A draft."""
    try:
        link = Link[given.link.upper()]
    except (KeyError, AttributeError):
        known = ", ".join(each.label for each in Link)
        raise InputError(f"must be one of {known}", field="draft.link") from None
    texts = ("capability_id", "name", "product", "variant", "message", "channel", "family", "rule")
    said: dict[str, Any] = {
        name: checked_text(getattr(given, name), f"draft.{name}") for name in texts
    }
    message = capability_pb2.Capability(
        **said,
        weights=_numbers(given.weights, "draft.weights"),
        bias=_number(given.bias, "draft.bias"),
        cost=_number(given.cost, "draft.cost"),
        link=capability_pb2.Link.Value(f"LINK_{link.name}"),
        valid_from=day_text(given.valid_from, "draft.valid_from"),
        valid_to=day_text(given.valid_to, "draft.valid_to"),
        value=None if given.value is None else _number(given.value, "draft.value"),
    )
    for place, term in enumerate(given.history_terms):
        field = f"draft.history_terms[{place}]"
        message.history_terms.add(
            kind=kind_number(term.kind, f"{field}.kind"),
            feature=checked_text(term.feature, f"{field}.feature"),
            weight=_number(term.weight, f"{field}.weight"),
            half_life_days=_maybe(term.half_life_days, f"{field}.half_life_days"),
            scale=_maybe(term.scale, f"{field}.scale"),
        )
    return message


def _maybe(given: float | None, field: str) -> float | None:
    return None if given is None else _number(given, field)


def source_message(
    given: Source | str | None, field: str
) -> catalog_service_pb2.PublishedSource | None:
    """Where something lies; None: the served one stays."""
    if given is None:
        return None
    source = Source.of(given)
    return catalog_service_pb2.PublishedSource(
        location=checked_text(source.location, f"{field}.location"),
        digest=checked_text(source.digest, f"{field}.digest"),
    )
