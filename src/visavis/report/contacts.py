"""Where contacts go: what they capture as they add up, and how they spread over customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.arms import Arm, arms_by_policy, with_k
from visavis.report.captured import arm_named
from visavis.report.charts import HALF, Series, histogram, lines
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import ABSENT, amount, count, decimal, number, percent
from visavis.report.parts import Column, Section, figure, lead, missing, note, numbers_behind, table

__all__ = ["cumulative", "distribution"]

Json = Mapping[str, Any]

#: More bars than this are put together.
_BARS_MAX: Final = 30

#: The axis of contacts ends where so many of the customers are told.
_AXIS_SHARE: Final = 0.98

#: Rows of the table behind a curve.
_CURVE_ROWS: Final = 10

_NO_CURVES: Final = "No cumulative curves were measured in this run."
_NO_SPREAD: Final = "How contacts spread over customers was not measured in this run."

_YIELDS: Final = {"hits": "hits, cumulative", "spend": "spend captured, cumulative"}


def cumulative(content: ReportContent) -> Section:
    """The section on cumulative value against contacts."""
    title = "What contacts capture as they add up"
    groups = [
        (policy, drawn)
        for policy, arms in _first_groups(content)
        if (drawn := [arm for arm in arms if _points(arm, "hits")])
    ]
    # A single curve says nothing; where all are single, they are shown all the same.
    compared = [group for group in groups if len(group[1]) > 1] or groups
    figures = [
        _curve_group(policy, arms, f"curve-{place}")
        for place, (policy, arms) in enumerate(compared)
    ]
    if not figures:
        return Section("cumulative", title, missing(_NO_CURVES))
    said = lead(
        "A steep beginning means that the first contacts count most. Where contacts are scarce, "
        "compare the left of the picture."
    )
    return Section("cumulative", title, fragment(said, figures))


def distribution(content: ReportContent) -> Section:
    """The section on contacts per customer."""
    title = "Who gets the contacts"
    groups = [
        (policy, drawn)
        for policy, arms in _first_groups(content)
        if (drawn := [arm for arm in arms if _histogram(arm)])
    ]
    if not groups:
        return Section("distribution", title, missing(_NO_SPREAD))
    body: list[Child] = [
        lead(
            "The same number of contacts can be spread evenly or piled up on a few. The Gini "
            "coefficient is 0 when everybody gets as many, and near 1 when few get all."
        ),
        note("Both axes are the same for all pictures under one contact policy."),
    ]
    for place, (policy, arms) in enumerate(groups):
        body.append(element("h3", "Contact policy: ", name(policy)))
        body.append(_histograms(policy, arms, f"spread-{place}"))
    return Section("distribution", title, fragment(body))


def _first_groups(content: ReportContent) -> list[tuple[str, list[Arm]]]:
    """The headline's arms by contact policy, the policy with its number."""
    if not content.evaluations:
        return []
    headline = content.evaluations[0]
    return [(with_k(headline, policy), arms) for policy, arms in arms_by_policy(headline)]


def _points(arm: Arm, measure: str) -> list[tuple[float, float]]:
    held = []
    for each in arm.content.get("curve") or ():
        x, y = number(each.get("contacts")), number(each.get(measure))
        if x is not None and y is not None:
            held.append((x, y))
    return sorted(held)


def _curve_group(policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    pictures = []
    for measure, y_title in _YIELDS.items():
        series = [Series(arm.name, arm.is_one, _points(arm, measure)) for arm in arms]
        if any(each.points for each in series):
            ends = [
                f"{each.name} ends at {amount(each.points[-1][1])} "
                f"after {count(each.points[-1][0])} contacts"
                for each in series
                if each.points
            ]
            pictures.append(
                lines(
                    f"{chart_id}-{measure}",
                    series,
                    HALF,
                    title=f"{y_title}, against contacts, {policy}",
                    description="; ".join(ends),
                    y_title=y_title,
                    x_title="contacts",
                    say=_short,
                )
            )
    key = [
        element("li", element("b", name(arm.name)), " ", name(arm.label), class_=_kind(arm))
        for arm in arms
    ]
    return fragment(
        element("h3", "Contact policy: ", name(policy)),
        figure(
            element("div", pictures, class_="pair"),
            ["Thick line: one-to-one. Dashed lines: campaigns.", element("ul", key, class_="key")],
        ),
        numbers_behind(_curve_table(policy, arms)),
    )


def _kind(arm: Arm) -> str:
    return "one-key" if arm.is_one else "campaign-key"


def _short(value: float) -> str:
    return f"{decimal(value / 1_000, 1).removesuffix('.0')} k" if value >= 10_000 else count(value)


def _curve_table(policy: str, arms: Sequence[Arm]) -> Markup:
    rows: list[list[Child]] = []
    for arm in arms:
        hits, spend = _points(arm, "hits"), dict(_points(arm, "spend"))
        step = max(1, -(-len(hits) // _CURVE_ROWS))
        kept = [*hits[step - 1 : -1 : step], hits[-1]]
        rows += [[arm_named(arm), count(x), count(y), amount(spend.get(x))] for x, y in kept]
    columns = [Column("arm", False), *map(Column, ("contacts", "hits", "spend"))]
    return table(f"Cumulative hits and spend, {policy}", columns, rows)


def _histogram(arm: Arm) -> list[float]:
    """Customers by number of contacts, 0 first."""
    held = (arm.content.get("contacts_per_customer") or {}).get("histogram") or ()
    counts = [number(each) or 0.0 for each in held] if isinstance(held, Sequence) else []
    return counts if sum(counts) > 0 else []


def _histograms(policy: str, arms: Sequence[Arm], chart_id: str) -> Markup:
    limit = _limit([_histogram(arm) for arm in arms])
    width = max(1, -(-limit // _BARS_MAX))
    x_high = float(-(-limit // width) * width)
    shares = {arm.name: _bars(_histogram(arm), width, int(x_high)) for arm in arms}
    is_folded = any(len(_histogram(arm)) > x_high for arm in arms)
    y_high = max(share for bars in shares.values() for _, share in bars)
    pictures = [
        element(
            "div",
            element("p", arm_named(arm), class_=f"small-title {_kind(arm)}"),
            histogram(
                f"{chart_id}-{place}",
                shares[arm.name],
                x_high=x_high,
                y_high=y_high,
                is_one=arm.is_one,
                title=f"Customers by number of contacts, {arm.name}",
                description=_spread_said(arm),
                x_title="contacts per customer",
                say_x=lambda value: decimal(value, 0),
                say_y=lambda value: percent(value, 0),
                width=float(width),
            ),
            element("p", _spread_said(arm), class_="small-note"),
        )
        for place, arm in enumerate(arms)
    ]
    rows = [
        [arm_named(arm), count(contacts), count(customers)]
        for arm in arms
        for contacts, customers in enumerate(_histogram(arm))
        if customers
    ]
    columns = [Column("arm", False), Column("contacts"), Column("customers")]
    return fragment(
        figure(
            element("div", pictures, class_="multiples"),
            "Share of customers by the number of contacts that they get."
            + (f" The last bar: {count(x_high - width)} or more." if is_folded else ""),
        ),
        numbers_behind(table(f"Customers by number of contacts, {policy}", columns, rows)),
    )


def _limit(histograms: Sequence[Sequence[float]]) -> int:
    """Where the axis ends: a long thin tail is put into the last bar, else it hides the rest."""
    longest = max(map(len, histograms))
    reach = 0
    for counts in histograms:
        running, total = 0.0, sum(counts)
        for contacts, customers in enumerate(counts):
            running += customers
            if running >= _AXIS_SHARE * total:
                reach = max(reach, contacts + 1)
                break
    return longest if longest <= 1.5 * reach else reach


def _bars(counts: Sequence[float], width: int, end: int) -> list[tuple[float, float]]:
    """Where each bar begins and its share of all customers; the last one holds what is beyond."""
    total = sum(counts)
    begins = range(0, end, width)
    return [
        (float(begin), sum(counts[begin : begin + width if begin + width < end else None]) / total)
        for begin in begins
    ]


def _spread_said(arm: Arm) -> str:
    held = arm.content.get("contacts_per_customer") or {}
    parts = [
        f"{word} {said}"
        for word, said in (
            ("Gini", decimal(held.get("gini"))),
            ("mean", decimal(held.get("mean"), 1)),
            ("most", count(held.get("max"))),
        )
        if said != ABSENT
    ]
    return ", ".join(parts)
