"""The arms of an evaluation: which may be compared, and what the comparison says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from visavis.report.charts import DotRow
from visavis.report.numbers import Interval, count, interval, number

__all__ = [
    "ONE_TO_ONE",
    "Arm",
    "Verdict",
    "arms_by_policy",
    "best_pair",
    "difference",
    "verdict_of",
    "with_k",
]

Json = Mapping[str, Any]

#: The arms in which every customer gets their own best; all others are campaigns.
ONE_TO_ONE: Final = ("B", "G", "G_cap")

#: The k of "at most k per customer", but not that of k-means.
_K: Final = re.compile(r"(?<![\w-])k(?![\w-])")


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm.

    Attributes
    ----------
    name, label, policy : str
        Its letter, what it does, its contact policy.
    content : mapping
        As `ReportContent` describes it.
    """

    name: str
    label: str
    policy: str
    content: Json

    @property
    def is_one(self) -> bool:
        """Whether it is one-to-one."""
        return self.name in ONE_TO_ONE

    def estimate(self, measure: str) -> Interval | None:
        """One of its measures."""
        return interval(self.content.get(measure))

    def row(self, *estimates: Interval | None) -> DotRow:
        """Its row in a chart."""
        return DotRow(self.name, self.label, self.is_one, estimates)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a difference and its interval allow to say.

    Attributes
    ----------
    is_known : bool
        Whether the interval leaves out 0.
    word : str
        ``more`` or ``less``; empty where it is not known which.
    """

    is_known: bool
    word: str


def with_k(evaluation: Json, text: str) -> str:
    """`text` with the number that its k stands for: ``at most 5 per customer``."""
    each = number((evaluation.get("setting") or {}).get("contacts_per_customer"))
    return text if each is None else _K.sub(count(each), text)


def arms_by_policy(evaluation: Json) -> list[tuple[str, list[Arm]]]:
    """The arms under each contact policy, one-to-one first, in the order given otherwise."""
    groups: dict[str, list[Arm]] = {}
    for each in evaluation.get("arms") or ():
        name = str(each.get("name", "?"))
        policy = str(each.get("contact_policy") or "contact policy not named")
        label = with_k(evaluation, str(each.get("label", "")))
        groups.setdefault(policy, []).append(Arm(name, label, policy, each))
    return [
        (policy, sorted(arms, key=lambda arm: not arm.is_one)) for policy, arms in groups.items()
    ]


def best_pair(evaluation: Json, measure: str = "hit_rate") -> tuple[Arm, Arm] | None:
    """The first one-to-one arm and the campaign that captured most under the same policy."""
    for _, arms in arms_by_policy(evaluation):
        own = [arm for arm in arms if arm.is_one and arm.estimate(measure)]
        campaigns = [
            (held.value, arm)
            for arm in arms
            if not arm.is_one and (held := arm.estimate(measure)) is not None
        ]
        if own and campaigns:
            # The first of equals, not the last: max keeps it.
            return own[0], max(campaigns, key=lambda each: each[0])[1]
    return None


def difference(evaluation: Json, arm: Arm, against: Arm, measure: str) -> Interval | None:
    """The paired difference of two arms, if it was measured."""
    found: Sequence[Json] = [
        each
        for each in evaluation.get("differences") or ()
        if each.get("arm") == arm.name
        and each.get("against") == against.name
        and each.get("contact_policy", arm.policy) == arm.policy
    ]
    return interval(found[0].get(measure)) if found else None


def verdict_of(held: Interval | None) -> Verdict | None:
    """What may be said of a difference; None without an interval."""
    if held is None or held.low is None or held.high is None:
        return None
    if held.low > 0:
        return Verdict(True, "more")
    if held.high < 0:
        return Verdict(True, "less")
    return Verdict(False, "")
