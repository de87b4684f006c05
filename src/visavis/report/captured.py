"""What each arm captured, with intervals, one contact policy at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.arms import Arm, arms_by_policy, best_pair, difference, verdict_of, with_k
from visavis.report.charts import DotPanel, DotRow, Layout, dots, on_every_screen
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import (
    ABSENT,
    Interval,
    amount,
    bounds,
    count,
    decimal,
    interval,
    number,
    percent,
    points,
)
from visavis.report.parts import Column, Section, figure, lead, missing, note, numbers_behind, table

__all__ = ["MEASURES", "arm_named", "captured", "ranked_by", "share_said"]

Json = Mapping[str, Any]

#: What is compared, and how it is called.
MEASURES: Final = {
    "hit_rate": "contacts that met a purchase",
    "spend_share": "share of all spend captured",
}

_NO_EVALUATION: Final = (
    "This run was not compared with campaigns on held-out data, so nothing is said here about what "
    "was captured."
)


def captured(content: ReportContent) -> Section:
    """The section on what each arm captured."""
    held = [each for each in content.evaluations if each.get("arms")]
    body = [_evaluation(each, place, len(held)) for place, each in enumerate(held)]
    return Section("captured", "What each arm captured", fragment(body or missing(_NO_EVALUATION)))


def share_said(held: Interval | None) -> str:
    """``47.7 % (46.9–48.5)``."""
    if held is None:
        return ABSENT
    inside = bounds(held, 100)
    return percent(held.value) + (f" ({inside})" if inside else "")


def ranked_by(evaluation: Json) -> str:
    """How the arms rank, in words."""
    setting = evaluation.get("setting") or {}
    by = str(setting.get("by") or "")
    rules = str(setting.get("rules") or "")
    known = {
        "propensity": "ranked by propensity, the chance of a purchase",
        "expected_value": "ranked by expected value, what a purchase brings less the contact",
        "value": "ranked by expected value, what a purchase brings less the contact",
    }
    said = known.get(by, f"ranked by {by}" if by else "the ranking is not named")
    return f"{said}; {rules}" if rules else said


def _evaluation(evaluation: Json, place: int, total: int) -> Markup:
    confidence = number((evaluation.get("setting") or {}).get("confidence"))
    bars = "Bootstrap" if confidence is None else f"{percent(confidence, 0)} bootstrap"
    said = ranked_by(evaluation)
    parts: list[Child] = []
    if total > 1:
        parts.append(element("h3", said[0].upper() + said[1:], class_="ranking"))
    parts += [lead(_finding(evaluation))]
    parts.append(
        note(
            f"Arms are {said}. " if total == 1 else None,
            f"{bars} intervals over customers. Only arms under one contact policy are compared: "
            "without a cap, a campaign may send one customer dozens of contacts.",
        )
    )
    for number_, (policy, arms) in enumerate(arms_by_policy(evaluation)):
        parts.append(_policy_group(evaluation, policy, arms, f"captured-{place}-{number_}"))
    return element("div", parts, class_="evaluation")


def _finding(evaluation: Json) -> Markup:
    """What the first comparison says, whichever way it went, in the measure that it ranks for."""
    by = (evaluation.get("setting") or {}).get("by")
    measure = "spend_share" if by in ("expected_value", "value") else "hit_rate"
    of = "of all spend in the window" if measure == "spend_share" else "of contacts met a purchase"
    pair = best_pair(evaluation, measure)
    if pair is None:
        return fragment("No campaign was measured under the contact policy of a one-to-one arm.")
    own, campaign = pair
    rates = [share_said(arm.estimate(measure)) for arm in pair]
    held = difference(evaluation, own, campaign, measure)
    verdict = verdict_of(held)
    if held is None or verdict is None:
        return fragment(
            f"{own.name}: {rates[0]} {of}; {campaign.name}, the best campaign under the same "
            f"contact policy: {rates[1]}."
        )
    told = f"{rates[0]} {of} against {rates[1]}, {points(held.value)} points ({bounds(held, 100)})."
    if not verdict.is_known:
        return fragment(
            f"{own.name} and {campaign.name}, its best campaign with as many contacts, cannot be "
            f"told apart on these data: {told}"
        )
    return fragment(
        f"With as many contacts under the same rules, {own.name} captured ",
        element("strong", verdict.word),
        f" than {campaign.name}, its best campaign: {told}",
    )


def _policy_group(evaluation: Json, policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    said = with_k(evaluation, policy)
    rows = [arm.row(*map(arm.estimate, MEASURES)) for arm in arms]
    panels = [
        DotPanel(
            title,
            percent,
            lambda held: bounds(held, 100),
            lambda tick: percent(tick, 0),
        )
        for title in MEASURES.values()
    ]
    description = "; ".join(
        f"{arm.name}: {share_said(arm.estimate('hit_rate'))} of contacts, "
        f"{share_said(arm.estimate('spend_share'))} of spend"
        for arm in arms
    )

    def draw(layout: Layout) -> Markup:
        return dots(
            chart_id,
            rows,
            panels,
            layout,
            title=f"Captured by each arm, {said}",
            description=description,
        )

    caption = (
        "Filled disc: one-to-one. Rings: campaigns. Whiskers: the interval. "
        "A contact meets a purchase when its customer buys that product in the window."
    )
    return fragment(
        element("h3", "Contact policy: ", name(said)),
        note("Only one arm has this contact policy: shown, not compared.")
        if len(arms) == 1
        else None,
        figure(on_every_screen(draw), caption),
        _first_purchases(said, arms, chart_id),
        _differences(evaluation, policy, arms, chart_id),
        numbers_behind(_arm_table(said, arms), _contact_table(said, arms)),
    )


def _first_purchases(policy: str, arms: Sequence[Arm], chart_id: str) -> Markup | None:
    """Habits are easy to capture; what a customer had never bought says more."""
    rows = [
        arm.row(held) for arm in arms if (held := arm.estimate("never_bought_hit_rate")) is not None
    ]
    if not rows:
        return None
    if not any(end for row in rows for held in row.estimates if held for end in held):
        return note("No contact of these arms met a purchase that its customer had never made.")
    panel = DotPanel(
        "contacts that met a first purchase",
        lambda value: percent(value, 2),
        lambda held: bounds(held, 100, 2),
        lambda tick: percent(tick, 1).replace(".0", ""),
    )

    def draw(layout: Layout) -> Markup:
        return dots(
            f"{chart_id}-first",
            rows,
            [panel],
            layout,
            title=f"Contacts that met a purchase never made before, {policy}",
            description="; ".join(
                f"{row.name}: {share_said(row.estimates[0])} of contacts" for row in rows
            ),
        )

    caption = (
        "Of all contacts, those whose customer had never bought the product before and bought it "
        "in the window: what habit alone does not explain."
    )
    return fragment(figure(on_every_screen(draw), caption), _first_purchase_finding(arms))


def _first_purchase_finding(arms: Sequence[Arm]) -> Markup | None:
    """Where a campaign meets more first purchases, the report says so unasked."""
    measured = [(held, arm) for arm in arms if (held := arm.estimate("never_bought_hit_rate"))]
    own = next(((held, arm) for held, arm in measured if arm.is_one), None)
    campaigns = [(held, arm) for held, arm in measured if not arm.is_one]
    if own is None or not campaigns:
        return None
    best, campaign = max(campaigns, key=lambda each: each[0].value)
    if best.value <= own[0].value:
        return None
    return note(
        element("b", f"On first purchases {campaign.name} captured more: "),
        f"{percent(best.value, 2)} of its contacts against {percent(own[0].value, 2)} of "
        f"{own[1].name}'s. Ranked like this, one-to-one follows habit.",
    )


def _differences(evaluation: Json, policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    by_name = {arm.name: arm for arm in arms}
    rows = []
    for each in evaluation.get("differences") or ():
        arm, against = by_name.get(each.get("arm")), by_name.get(each.get("against"))
        if arm and against and each.get("contact_policy", policy) == policy:
            held = tuple(interval(each.get(measure)) for measure in MEASURES)
            label = f"{arm.name} less {against.name}"
            rows.append(DotRow("", label, arm.is_one, held))
    if not rows:
        return fragment()
    panels = [
        DotPanel(
            title,
            points,
            lambda held: bounds(held, 100),
            lambda tick: points(tick).removesuffix(".0"),
        )
        for title in ("contacts that met, points", "share of spend, points")
    ]
    description = "; ".join(
        f"{row.label}: "
        + ", ".join(points(held.value) if held else ABSENT for held in row.estimates)
        for row in rows
    )

    def draw(layout: Layout) -> Markup:
        return dots(
            f"{chart_id}-differences",
            rows,
            panels,
            layout,
            title=f"Paired differences in points, {with_k(evaluation, policy)}",
            description=description,
        )

    caption = (
        "Paired differences in percentage points: both arms on the same customers in every "
        "resample. An interval that leaves out 0 is a difference that these data can tell."
    )
    return figure(on_every_screen(draw), caption, "quiet")


def _arm_table(policy: str, arms: Sequence[Arm]) -> Markup:
    columns = [
        Column("arm", False),
        *map(Column, ("contacts", "hits", "contacts that met", "spend", "share of spend")),
        *map(Column, ("never bought before: hits", "never bought before: rate")),
    ]
    return table(
        f"Captured, {policy}",
        columns,
        [
            [
                arm_named(arm),
                count(arm.content.get("contact_count")),
                count(arm.content.get("hit_count")),
                share_said(arm.estimate("hit_rate")),
                amount(_alone(arm.estimate("spend"))),
                share_said(arm.estimate("spend_share")),
                count(arm.content.get("never_bought_hit_count")),
                share_said(arm.estimate("never_bought_hit_rate")),
            ]
            for arm in arms
        ],
    )


def _contact_table(policy: str, arms: Sequence[Arm]) -> Markup:
    columns = [
        Column("arm", False),
        *map(
            Column, ("contacts per customer, mean", "most", "Gini", "products reached", "overlap")
        ),
    ]
    rows = []
    for arm in arms:
        spread = arm.content.get("contacts_per_customer") or {}
        rows.append(
            [
                arm_named(arm),
                decimal(spread.get("mean")),
                count(spread.get("max")),
                decimal(spread.get("gini")),
                _share_or_count(arm.content.get("coverage")),
                _share_or_count(arm.content.get("redundancy")),
            ]
        )
    return table(f"How contacts spread, {policy}", columns, rows)


def arm_named(arm: Arm) -> Markup:
    """Its letter and what it does."""
    return fragment(element("b", name(arm.name)), " ", name(arm.label))


def _share_or_count(value: object) -> str:
    """Coverage may be told as a share of the catalog or as a number of capabilities."""
    held = number(value)
    if held is None:
        return ABSENT
    return percent(held) if isinstance(value, float) and 0 <= held <= 1 else decimal(held, 0)


def _alone(held: Interval | None) -> float | None:
    return None if held is None else held.value
