"""How firmly the comparison stands: other dates, other windows, other numbers of contacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.arms import ONE_TO_ONE, arms_by_policy
from visavis.report.captured import MEASURES
from visavis.report.charts import PairRow, pairs
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import ABSENT, Interval, bounds, count, decimal, interval, percent
from visavis.report.parts import Column, Section, figure, lead, missing, numbers_behind, table

__all__ = ["sensitivity"]

Json = Mapping[str, Any]

#: (as of, window in days, contacts per customer), as they are written.
_Setting = tuple[str, str, str]

_MISSING: Final = "The comparison was not repeated over other dates, windows or contacts."

_UNNAMED: Final = "contact policy not named"


def sensitivity(content: ReportContent) -> Section:
    """The section on how the comparison moves with date, window and contacts."""
    title = "How firmly it stands"
    if not content.sensitivity:
        return Section("sensitivity", title, missing(_MISSING))
    groups = _arms_of_policies(content)
    pictures = [
        _pictures(content.sensitivity, policy, arms, f"sensitivity-{place}")
        for place, (policy, arms) in enumerate(groups.items())
    ]
    tables = [
        _table(content.sensitivity, measure, said, policy, arms)
        for policy, arms in groups.items()
        for measure, said in MEASURES.items()
    ]
    return Section(
        "sensitivity",
        title,
        fragment(lead(_said(content.sensitivity, groups)), pictures, numbers_behind(*tables)),
    )


def _arms_of_policies(content: ReportContent) -> dict[str, list[str]]:
    """The arms that were repeated, by the contact policy that the evaluation names for them."""
    policy_of = {
        arm.name: policy
        for evaluation in content.evaluations
        for policy, arms in arms_by_policy(evaluation)
        for arm in arms
    }
    known = list(policy_of)
    names = list(dict.fromkeys(str(each.get("arm", "?")) for each in content.sensitivity))
    names.sort(key=lambda each: known.index(each) if each in policy_of else len(known))
    groups: dict[str, list[str]] = {}
    for each in names:
        groups.setdefault(policy_of.get(each, _UNNAMED), []).append(each)
    return groups


def _estimates(
    rows: Sequence[Json], measure: str, arms: Sequence[str]
) -> dict[_Setting, dict[str, Interval]]:
    """By setting and arm, in the order given."""
    held: dict[_Setting, dict[str, Interval]] = {}
    for each in rows:
        arm, estimate = str(each.get("arm", "?")), interval(each.get(measure))
        if arm in arms and estimate is not None:
            setting = (
                str(each.get("as_of", ABSENT)),
                count(each.get("window_days")),
                count(each.get("contacts_per_customer")),
            )
            held.setdefault(setting, {})[arm] = estimate
    return held


def _pair_rows(
    rows: Sequence[Json], measure: str, policy: str, arms: Sequence[str]
) -> list[PairRow]:
    """One-to-one and its best campaign in each setting; none where no policy is named."""
    own = next((arm for arm in arms if arm in ONE_TO_ONE), None)
    if own is None or policy == _UNNAMED:
        return []
    told = []
    for (as_of, window, each), held in _estimates(rows, measure, arms).items():
        campaigns = [(held[arm].value, arm) for arm in held if arm not in ONE_TO_ONE]
        if own in held and campaigns:
            value, arm = max(campaigns, key=lambda campaign: campaign[0])
            label = f"{as_of}, {window} d, {each}"
            told.append(PairRow(label, held[own].value, value, arm))
    return told


def _said(rows: Sequence[Json], groups: Mapping[str, Sequence[str]]) -> str:
    parts = ["The same comparison with other cut dates, windows and numbers of contacts."]
    for policy, arms in groups.items():
        told = _pair_rows(rows, "hit_rate", policy, arms)
        if told:
            more = sum(row.own > row.other for row in told)
            own = next(arm for arm in arms if arm in ONE_TO_ONE)
            of = f"{more} of {len(told)} settings"
            parts.append(f"{own} met more purchases than the best of the campaigns varied in {of}.")
    return " ".join(parts)


def _pictures(
    rows: Sequence[Json], policy: str, arms: Sequence[str], chart_id: str
) -> Markup | None:
    drawn = []
    for measure, said in MEASURES.items():
        told = _pair_rows(rows, measure, policy, arms)
        if told:
            drawn.append(
                pairs(
                    f"{chart_id}-{measure.replace('_', '-')}",
                    told,
                    title=f"{said}, setting by setting, {policy}",
                    description="; ".join(
                        f"{row.label}: {percent(row.own)}, {row.other_name} {percent(row.other)}"
                        for row in told
                    ),
                    panel=f"{said}, %",
                    say=lambda value: decimal(100 * value, 1),
                    say_tick=lambda value: percent(value, 0),
                )
            )
    if not drawn:
        return None
    return fragment(
        element("h3", "Contact policy: ", name(policy)),
        figure(
            element("div", drawn, class_="pair"),
            "Disc: one-to-one. Ring: the best of the campaigns varied in the same setting, named "
            "beside its figure. Rows: cut date, days looked up, contacts per customer.",
        ),
    )


def _table(
    rows: Sequence[Json], measure: str, said: str, policy: str, arms: Sequence[str]
) -> Markup:
    columns = [
        Column("as of", False),
        Column("window, days"),
        Column("contacts each"),
        *map(Column, arms),
    ]
    return table(
        f"{said[0].upper()}{said[1:]}, {policy}",
        columns,
        [
            [*setting, *(_cell(held.get(arm)) for arm in arms)]
            for setting, held in _estimates(rows, measure, arms).items()
        ],
    )


def _cell(held: Interval | None) -> Child:
    if held is None:
        return ABSENT
    inside = bounds(held, 100)
    return [percent(held.value), element("small", inside) if inside else None]
