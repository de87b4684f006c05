"""What was asked, what it ran with, what it cannot say, and the notice about its data."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from visavis.report.captured import ranked_by
from visavis.report.charts import Layout, bar_list, on_every_screen
from visavis.report.content import LIMITATIONS, ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import count, number, seconds
from visavis.report.parts import Column, Section, figure, missing, numbers_behind, table

__all__ = ["asked", "day", "limits", "notice", "ran"]

Json = Mapping[str, Any]

_NO_RUN: Final = "No record of the run was given: neither versions nor digests nor the command."
_NO_NOTICE: Final = "No notice was given about the data behind this report."


def asked(content: ReportContent) -> Section:
    """The section on what was asked."""
    run, setting = content.run or {}, _setting(content)
    weighed = run.get("matched_customer_count", run.get("customer_count"))
    customers = setting.get("customer_count") if weighed is None else weighed
    capabilities = run.get("capability_count", setting.get("capability_count"))
    facts: list[tuple[str, Child]] = []
    if as_of := run.get("as_of", setting.get("as_of")):
        facts.append(("As of", [day(as_of), ". Nothing later was known to any score."]))
    if customers is not None and capabilities is not None:
        pairs = run.get("pair_count", _product(customers, capabilities))
        facts.append(
            (
                "Weighed",
                [
                    f"{count(customers)} customers × {count(capabilities)} capabilities",
                    f" = {count(pairs)} pairs, every one of them.",
                ],
            )
        )
    if run.get("indicator_count") is not None:
        facts.append(
            (
                "From",
                [
                    f"{count(run['indicator_count'])} indicators and ",
                    f"{count(run.get('fact_count'))} facts, each customer's own.",
                ],
            )
        )
    facts += _comparison_asked(content, setting)
    if content.policy:
        facts.append(("Under the policy", element("ul", map(_listed, content.policy))))
    body = element("dl", map(_term, facts), class_="asked") if facts else missing(_NO_RUN)
    return Section("asked", "What was asked", body)


def _comparison_asked(content: ReportContent, setting: Json) -> list[tuple[str, Child]]:
    if not setting:
        return []
    each, budget = setting.get("contacts_per_customer"), setting.get("budget")
    compared = [
        f"{count(each)} contacts per customer" if each is not None else "",
        f"{count(budget)} contacts in all" if budget is not None else "",
        ranked_by(content.evaluations[0]),
    ]
    counts = (setting.get("customer_count"), setting.get("capability_count"))
    said = "; ".join(filter(None, compared)) + "."
    if None not in counts:
        said += f" Over {count(counts[0])} customers × {count(counts[1])} capabilities."
    facts: list[tuple[str, Child]] = [("Compared", said)]
    if (window := setting.get("window_days")) is not None:
        facts.append(("Looked up", f"Purchases in the {count(window)} days after, held out."))
    return facts


def _setting(content: ReportContent) -> Json:
    held = content.evaluations[0].get("setting") if content.evaluations else None
    return held or {}


def _product(customers: object, capabilities: object) -> float | None:
    n, m = number(customers), number(capabilities)
    return None if n is None or m is None else n * m


def _term(held: tuple[str, Child]) -> Markup:
    return element("div", element("dt", held[0]), element("dd", held[1]))


def _listed(said: Child) -> Markup:
    return element("li", said)


def day(value: object) -> Markup:
    """A date, such as 19 October 2017, that machines can read too."""
    try:
        held = date.fromisoformat(str(value))
    except ValueError:
        return fragment(str(value))
    return element("time", f"{held.day} {_MONTHS[held.month - 1]} {held.year}", datetime=str(held))


#: Not strftime, which follows the locale of the process.
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def ran(content: ReportContent) -> Section:
    """The section on how to get the same again."""
    title = "How to get the same again"
    run = content.run
    if not run:
        return Section("run", title, missing(_NO_RUN))
    command = run.get("command")
    with_what = [
        f"kernel variant {run['variant']}" if run.get("variant") else "",
        f"{count(run['threads'])} threads" if run.get("threads") else "",
        f"written {run['written_at']}" if run.get("written_at") else "",
    ]
    return Section(
        "run",
        title,
        fragment(
            element("pre", element("code", command), tabindex=0) if command else None,
            element("p", "; ".join(filter(None, with_what)) + ".") if any(with_what) else None,
            _stages(run),
            element("h3", "Digests") if run.get("digests") else None,
            _named("What went in and came out", "of", "sha256", run.get("digests")),
            element("h3", "Versions") if run.get("versions") else None,
            _named("What ran", "of", "version", run.get("versions")),
            numbers_behind(
                _named("Input files", "file", "sha256", run.get("inputs")),
                _named("Files written", "file", "sha256", run.get("files")),
                _counts(run.get("stats")),
                summary="Digests of every file, and the kernel's counts",
            )
            if run.get("inputs") or run.get("files") or run.get("stats")
            else None,
        ),
    )


def _stages(run: Json) -> Markup | None:
    held = {
        str(stage).replace("_", " "): spent
        for stage, each in (run.get("seconds") or {}).items()
        if (spent := number(each)) is not None
    }
    if not held:
        return None
    rows = [(stage, spent, seconds(spent)) for stage, spent in held.items()]
    rows.sort(key=lambda row: -row[1])

    def draw(layout: Layout) -> Markup:
        return bar_list(
            "stages",
            rows,
            layout,
            title="Seconds by stage of the run",
            description="; ".join(f"{stage}: {said}" for stage, _, said in rows),
            strong=next((place for place, row in enumerate(rows) if row[0] == "match"), None),
        )

    total = seconds(sum(held.values()))
    columns = [Column("stage", False), Column("time")]
    return fragment(
        element("h3", "Time by stage"),
        figure(on_every_screen(draw), f"Together {total}. Filled dark: the match itself."),
        numbers_behind(table("Time by stage", columns, [[stage, said] for stage, _, said in rows])),
    )


def _named(caption: str, key_title: str, value_title: str, held: Json | None) -> Markup | None:
    if not held:
        return None
    rows = [[name(key), element("code", str(value))] for key, value in held.items()]
    columns = [Column(key_title, False), Column(value_title, False)]
    return table(caption, columns, rows, "digests")


def _counts(stats: Json | None) -> Markup | None:
    if not stats:
        return None
    rows = [[str(key).replace("_", " "), count(value)] for key, value in stats.items()]
    return table("What the kernel counted", [Column("count of", False), Column("pairs")], rows)


def limits(content: ReportContent) -> Section:
    """The section on what these figures cannot say."""
    said = [*LIMITATIONS, *content.limitations]
    return Section("limits", "What this cannot say", element("ul", map(_listed, said)))


def notice(content: ReportContent) -> Section:
    """The notice about the data, in full."""
    said = content.notice
    body = element("p", said, class_="notice") if said else missing(_NO_NOTICE)
    return Section("notice", "About the data", body)
