"""What each arm captured, with intervals, one contact policy at a time; and how firmly it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.arms import Arm, arms_by_policy, best_pair, difference, verdict_of
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

__all__ = ["captured", "ranked_by", "sensitivity", "share_said"]

Json = Mapping[str, Any]

_MEASURES: Final = {
    "hit_rate": "contacts that met a purchase",
    "spend_share": "share of all spend captured",
}

_NO_EVALUATION: Final = (
    "This run was not compared with campaigns on held-out data, so nothing is said here about what "
    "was captured."
)

_NO_SENSITIVITY: Final = "The comparison was not repeated over other dates, windows or contacts."


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
    by = str((evaluation.get("setting") or {}).get("by") or "")
    known = {
        "propensity": "ranked by propensity, the chance of a purchase",
        "expected_value": "ranked by expected value, what a purchase brings less the contact",
        "value": "ranked by expected value, what a purchase brings less the contact",
    }
    return known.get(by, f"ranked by {by}" if by else "the ranking is not named")


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
    """What the first comparison says, whichever way it went."""
    pair = best_pair(evaluation)
    if pair is None:
        return fragment("No campaign was measured under the contact policy of a one-to-one arm.")
    own, campaign = pair
    rates = [share_said(arm.estimate("hit_rate")) for arm in pair]
    held = difference(evaluation, own, campaign, "hit_rate")
    verdict = verdict_of(held)
    if held is None or verdict is None:
        return fragment(
            f"{own.name} met a purchase in {rates[0]} of its contacts; {campaign.name}, the best "
            f"campaign under the same contact policy, in {rates[1]}."
        )
    return fragment(
        f"With as many contacts under the same rules, {own.name} captured ",
        element("strong", verdict.word),
        " as" if not verdict.is_known else " than",
        f" {campaign.name}, its best campaign: a difference of {points(held.value)} points "
        f"({bounds(held, 100)}) in contacts that met a purchase.",
    )


def _policy_group(evaluation: Json, policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    rows = [arm.row(*map(arm.estimate, _MEASURES)) for arm in arms]
    panels = [
        DotPanel(
            title,
            percent,
            lambda held: bounds(held, 100),
            lambda tick: percent(tick, 0),
        )
        for title in _MEASURES.values()
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
            title=f"Captured by each arm, {policy}",
            description=description,
        )

    caption = (
        "Filled disc: one-to-one. Hollow square: campaign. Whiskers: the interval. "
        "A contact meets a purchase when its customer buys that product in the window."
    )
    return fragment(
        element("h3", "Contact policy: ", name(policy)),
        figure(on_every_screen(draw), caption),
        _differences(evaluation, policy, arms, chart_id),
        numbers_behind(_arm_table(policy, arms), _contact_table(policy, arms)),
    )


def _differences(evaluation: Json, policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    by_name = {arm.name: arm for arm in arms}
    rows = []
    for each in evaluation.get("differences") or ():
        arm, against = by_name.get(each.get("arm")), by_name.get(each.get("against"))
        if arm and against and each.get("contact_policy", policy) == policy:
            held = tuple(interval(each.get(measure)) for measure in _MEASURES)
            label = f"{arm.name} less {against.name}"
            rows.append(DotRow("", label, arm.is_one, held))
    if not rows:
        return fragment()
    panels = [
        DotPanel(
            title,
            lambda value: f"{points(value)} pt",
            lambda held: bounds(held, 100),
            lambda tick: points(tick).removesuffix(".0"),
        )
        for title in ("difference in contacts that met", "difference in share of spend")
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
            title=f"Paired differences in percentage points, {policy}",
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
        *map(Column, ("contacts per customer, mean", "most", "Gini", "coverage", "redundancy")),
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


def sensitivity(content: ReportContent) -> Section:
    """The section on how the comparison moves with date, window and contacts."""
    title = "How firmly it stands"
    if not content.sensitivity:
        return Section("sensitivity", title, missing(_NO_SENSITIVITY))
    policy_of = {
        arm.name: policy
        for evaluation in content.evaluations
        for policy, arms in arms_by_policy(evaluation)
        for arm in arms
    }
    # Arms in the order of the evaluation, so that those of one policy stand together.
    known = list(policy_of)
    names = list(dict.fromkeys(str(each.get("arm", "?")) for each in content.sensitivity))
    names.sort(key=lambda each: known.index(each) if each in known else len(known))
    groups: dict[str, list[str]] = {}
    for each in names:
        groups.setdefault(policy_of.get(each, "contact policy not named"), []).append(each)
    tables = [
        _sensitivity_table(content.sensitivity, measure, title_, policy, arms)
        for policy, arms in groups.items()
        for measure, title_ in _MEASURES.items()
    ]
    return Section(
        "sensitivity",
        title,
        fragment(
            lead(
                "The same comparison with other cut dates, other windows and other numbers of "
                "contacts. Read across a row; the highest of a row is in bold."
            ),
            tables,
        ),
    )


def _sensitivity_table(
    rows: Sequence[Json], measure: str, title: str, policy: str, arms: Sequence[str]
) -> Markup:
    settings: dict[tuple[str, str, str], dict[str, Interval | None]] = {}
    for each in rows:
        key = (
            str(each.get("as_of", ABSENT)),
            count(each.get("window_days")),
            count(each.get("contacts_per_customer")),
        )
        arm = str(each.get("arm", "?"))
        if arm in arms:
            settings.setdefault(key, {})[arm] = interval(each.get(measure))
    columns = [
        Column("as of", False),
        Column("window, days"),
        Column("contacts each"),
        *map(Column, arms),
    ]
    return table(
        f"{title[0].upper()}{title[1:]}, {policy}",
        columns,
        [[*key, *_cells(held, arms)] for key, held in settings.items()],
    )


def _cells(held: Mapping[str, Interval | None], arms: Sequence[str]) -> list[Child]:
    known = [each.value for arm in arms if (each := held.get(arm)) is not None]
    cells: list[Child] = []
    for arm in arms:
        each = held.get(arm)
        if each is None:
            cells.append(ABSENT)
            continue
        inside = bounds(each, 100)
        said = element("b", percent(each.value)) if each.value == max(known) else percent(each.value)
        cells.append([said, element("small", inside) if inside else None])
    return cells
