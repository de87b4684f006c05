"""The words of visavis as types: links, kinds of facts, reserved names and the bounds of values.

Nothing here computes. Every other module may import this one; it imports none but ``errors``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final

from visavis.errors import InputError

__all__ = [
    "AS_OF_METADATA",
    "CONSENT_PREFIX",
    "CUSTOMER_ID",
    "EPOCH",
    "HISTORY",
    "INDICATOR_METADATA",
    "MAGNITUDE_MAX",
    "NOTICE_METADATA",
    "OBJECTED",
    "THREADS_MAX",
    "FactKind",
    "Link",
    "Obstacle",
    "day_number",
    "parse_date",
    "utc_now",
]

#: Largest allowed value and largest allowed magnitude of a cost: ``g·value − cost`` stays finite.
MAGNITUDE_MAX: Final = 2.0**100

#: More threads than any machine has processors are a mistake.
THREADS_MAX: Final = 1_024

#: The id column of every table about customers.
CUSTOMER_ID: Final = "customer_id"

#: The name under which a customer's own history with a capability appears among the reasons.
HISTORY: Final = "history"

#: Consent for channel ``email`` is the boolean attribute ``consent_email``.
CONSENT_PREFIX: Final = "consent_"

#: The boolean attribute that removes a customer before any score is computed.
OBJECTED: Final = "objected"

#: Schema metadata of tables: the day up to which they know, and what must be said of them.
AS_OF_METADATA: Final = b"visavis.as_of"
NOTICE_METADATA: Final = b"visavis.notice"

#: Metadata of an indicator's field: JSON that says what it means, and what it is where undefined.
INDICATOR_METADATA: Final = b"visavis.indicator"

#: Day 0 of every day number.
EPOCH: Final = date(1970, 1, 1)


class Link(IntEnum):
    """How a linear predictor z becomes an expectation g (docs/score.md); codes as in the kernel."""

    LOGISTIC = 0
    COUNT = 1
    IDENTITY = 2

    @property
    def label(self) -> str:
        """The name used in catalogs: ``logistic``, ``count`` or ``identity``."""
        return self.name.lower()


class FactKind(StrEnum):
    """What happened between one customer and one product or capability."""

    BOUGHT = "bought"
    REFUSED = "refused"
    CONTACTED = "contacted"
    EXCLUDED = "excluded"


class Obstacle(StrEnum):
    """What can stand between a customer and a capability, in the order in which it is looked at."""

    OBJECTION = "objection"
    EXCLUSION = "exclusion"
    FILTER = "filter"
    AVAILABILITY = "availability"
    VALIDITY = "validity"
    CONSENT = "consent"
    COOL_DOWN = "cool-down"
    RULE = "rule"
    HISTORY = "history"
    EV_MIN = "minimum"
    K = "k"
    PRODUCT_LIMIT = "product limit"
    CHANNEL_LIMIT = "channel limit"
    FAMILY_LIMIT = "family limit"


def day_number(day: date) -> int:
    """Days from 1970-01-01 to `day`."""
    return (day - EPOCH) // timedelta(days=1)


def parse_date(text: str | date, *, field: str) -> date:
    """Read an ISO date (``2017-10-20``); a date passes through.

    Raises
    ------
    InputError
        If `text` is no ISO date, or is a datetime (a time of day has no meaning for as_of).
    """
    if isinstance(text, datetime):
        raise InputError(f"must be a date without a time of day, got {text!r}", field=field)
    if isinstance(text, date):
        return text
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise InputError(
            f"must be an ISO date such as 2017-10-20, got {text!r}", field=field
        ) from None


def utc_now() -> datetime:
    """The clock, for stamps in reports only: no result ever depends on it."""
    return datetime.now(tz=UTC)
