"""What is asked, as types: a context, a profile, a capability that somebody thinks of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

from visavis.domain import FactKind

__all__ = [
    "AttributeValue",
    "Capability",
    "Day",
    "Fact",
    "HistoryTerm",
    "Names",
    "Profile",
    "RequestContext",
    "Selection",
    "Source",
]

#: None: unknown. The type must be exactly the one that the base declares: 3 is no float.
AttributeValue: TypeAlias = bool | int | float | str | date | None

Names: TypeAlias = Iterable[str]

#: A UTC day, or its ISO form: 2017-10-20.
Day: TypeAlias = date | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Capabilities by what they are.

    As a filter, what passes every set that is given; None asks for no restriction, and an empty one
    admits nothing. As exclusions, what is in any of them.
    """

    capability_ids: Names | None = None
    products: Names | None = None
    channels: Names | None = None
    families: Names | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What holds at the moment of a request, for every customer in it.

    Attributes
    ----------
    as_of : date or str, optional
        From which validity, cool-downs, history and date rules are reckoned; default: the served
        version's. Indicators stay as of the base.
    available_channels : names, optional
        Through which customers can be reached now; None: every channel, empty: none.
    capability_filter, exclusions : Selection
        Which capabilities come into question, and which do not.
    indicator_overrides : mapping of str to float
        What the session shows, sooner than the next load.
    attribute_overrides : mapping of str to AttributeValue
        None makes an attribute unknown.
    k, ev_min, product_limit, channel_limit, family_limit : optional
        Tighter than the served policy's; None: as the policy has it.
    """

    as_of: Day | None = None
    available_channels: Names | None = None
    capability_filter: Selection = field(default_factory=Selection)
    exclusions: Selection = field(default_factory=Selection)
    indicator_overrides: Mapping[str, float] = field(default_factory=dict)
    attribute_overrides: Mapping[str, AttributeValue] = field(default_factory=dict)
    k: int | None = None
    ev_min: float | None = None
    product_limit: int | None = None
    channel_limit: int | None = None
    family_limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that happened between a customer and a product or a capability, on one day."""

    kind: FactKind | str
    date: Day
    product: str | None = None
    capability_id: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile given with the request instead of looked up, for somebody the base need not know.

    Attributes
    ----------
    customer_id : str
        Names the customer in answers.
    indicators : mapping of str to float
        Every indicator of the served base.
    attributes : mapping of str to AttributeValue
        Those that are missing are unknown.
    facts : sequence of Fact
        What happened so far.
    """

    customer_id: str
    indicators: Mapping[str, float]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    facts: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTerm:
    """One term of what a customer's own history adds to z."""

    kind: FactKind | str
    feature: str
    weight: float
    half_life_days: float | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that the company can do for a customer; the columns of a catalog.

    In answers, `weights`, `bias` and `history_terms` are empty unless everything was asked for.
    """

    capability_id: str
    name: str = ""
    product: str = ""
    variant: str = ""
    message: str = ""
    channel: str = ""
    family: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    bias: float = 0.0
    history_terms: Sequence[HistoryTerm] = ()
    value: float | None = None
    cost: float = 0.0
    link: str = "logistic"
    rule: str = ""
    valid_from: Day | None = None
    valid_to: Day | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where something to be published lies, and the digest that it must have, if any."""

    location: str
    digest: str = ""

    @classmethod
    def of(cls, given: Any) -> Source:
        """A location alone, or a source."""
        return given if isinstance(given, cls) else cls(str(given))
