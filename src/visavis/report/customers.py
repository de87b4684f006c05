"""Customers one by one, those who differ most, and what reaches nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.charts import HALF, Layout, bar_list, histogram, on_every_screen
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import ABSENT, amount, count, decimal, number, percent
from visavis.report.parts import Column, Section, figure, lead, missing, note, numbers_behind, table

__all__ = ["covered", "divergent", "told"]

Json = Mapping[str, Any]

_NO_STORIES: Final = "No customer has an opportunity in this run."
_NO_DIVERGENCE: Final = "How far customers differ from what is popular was not measured here."
_NO_COVERAGE: Final = "Which capabilities reach nobody was not examined in this run."

_DATE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})")

#: How a capability that was not chosen is introduced.
_NOT_CHOSEN: Final = {
    "next_best": "Next best, not chosen",
    "next_product": "Next best of another product",
    "closed": "Would rank among them, but is closed",
}


def told(content: ReportContent) -> Section:
    """The section on three customers."""
    stories = [each for each in content.stories if each.get("opportunities")]
    title = {1: "One customer, face to face", 2: "Two customers, face to face"}.get(
        len(stories), "Three customers, face to face" if len(stories) == 3 else "Face to face"
    )
    if not stories:
        return Section("customers", title, missing(_NO_STORIES))
    return Section(
        "customers",
        title,
        fragment(
            lead(
                "Evenly spread over the base, not picked by hand. Each opportunity says why it is "
                "there, and what came close says why it is not."
            ),
            note(
                "Chance: propensity. Worth: expected value after the cost of the contact, in the "
                "unit of the catalog."
            ),
            element("div", map(_story, stories), class_="stories"),
        ),
    )


def _story(story: Json) -> Markup:
    customer = story.get("customer_id", ABSENT)
    control = element("span", "control group: not to be contacted", class_="tag")
    return element(
        "article",
        element("h3", "Customer ", name(customer), control if story.get("is_control") else None),
        element("ol", map(_opportunity, story["opportunities"]), class_="opportunities"),
        [_not_chosen(each) for each in story.get("not_chosen") or ()],
        class_="story",
    )


def _opportunity(held: Json) -> Markup:
    reasons = list(held.get("reasons") or ()) or ["popular with everybody"]
    chance = number(held.get("propensity"))
    share = min(1.0, max(0.0, chance)) if chance is not None else 0.0
    return element(
        "li",
        element("p", _offered(held), class_="offer"),
        element(
            "p",
            element(
                "span", class_="meter", style=f"--share:{100 * share:.1f}%", aria_hidden="true"
            ),
            element("span", element("b", percent(chance, 0)), " chance"),
            element("span", "worth ", element("b", amount(held.get("expected_value")))),
            class_="odds",
        ),
        element("p", "Because ", [_clause(each, place) for place, each in enumerate(reasons)], "."),
    )


def _clause(reason: object, place: int) -> Markup:
    return fragment("; " if place else None, _unbroken(reason))


def _unbroken(said: object) -> Markup:
    """A clause in which no line ends within a date."""
    pieces = _DATE.split(str(said))
    return element(
        "bdi",
        [
            element("span", piece, class_="whole") if place % 2 else piece
            for place, piece in enumerate(pieces)
        ],
    )


def _offered(held: Json) -> Markup:
    return fragment(
        element("b", name(held.get("product", ABSENT))),
        " ",
        element("span", "by ", name(held.get("channel", ABSENT)), class_="by"),
    )


def _not_chosen(held: Json) -> Markup:
    value = held.get("expected_value")
    remedies = [name(each) for each in held.get("remedies") or ()]
    change = [fragment(" or " if place else None, each) for place, each in enumerate(remedies)]
    return element(
        "div",
        element("p", _NOT_CHOSEN.get(str(held.get("kind")), "Not chosen"), class_="why-not"),
        element("p", _offered(held), f", worth {amount(value)}" if value is not None else None),
        element("p", "Why not? ", _unbroken(held.get("verdict", ABSENT)), "."),
        element("p", "What would change it: ", change, ".", class_="remedy") if change else None,
        class_="not-chosen",
    )


def divergent(content: ReportContent) -> Section:
    """The section on customers whose best differ most from the popular."""
    title = "Least like everybody else"
    held = content.divergence or {}
    customers = held.get("customers") or ()
    if not customers:
        return Section("divergent", title, missing(_NO_DIVERGENCE))
    return Section(
        "divergent",
        title,
        fragment(
            lead(_divergence_said(held)),
            _bits_figure(held),
            _divergent_table(held),
            numbers_behind(_popular_table(held), summary="What is popular"),
        ),
    )


def _divergence_said(held: Json) -> Markup:
    first = held["customers"][0]
    middle = number(held.get("median_bits"))
    parts: list[Child] = []
    if middle is not None:
        parts.append(
            f"What a typical customer is offered, one customer in {_one_in(middle)} is offered. "
        )
    parts += ["What customer ", name(first.get("customer_id", ABSENT)), " is offered, only one in "]
    parts.append(f"{_one_in(first.get('bits'))} is; no full list is further from the crowd.")
    return fragment(parts)


def _one_in(bits: object) -> str:
    held = number(bits)
    if held is None:
        return ABSENT
    # Beyond what float64 can hold, the number of digits is all that could be read anyway.
    return decimal(2.0 ** min(held, 1_000.0), 0 if held > 3 else 1)


def _bits_figure(held: Json) -> Markup | None:
    bars: Sequence[Json] = held.get("distribution") or []
    counts = [number(each.get("customer_count")) or 0.0 for each in bars]
    total = sum(counts)
    if not total:
        return None
    shares = [
        (number(each.get("low")) or 0.0, amount_ / total)
        for each, amount_ in zip(bars, counts, strict=True)
    ]
    width = (number(bars[0].get("high")) or 0.5) - (number(bars[0].get("low")) or 0.0)
    return figure(
        histogram(
            "divergence",
            shares,
            x_high=shares[-1][0] + width,
            y_high=max(share for _, share in shares),
            is_one=True,
            title="Customers by how far their opportunities are from what is popular",
            description="; ".join(
                f"{decimal(begin, 1)} bits: {percent(share)} of customers"
                for begin, share in shares
                if share
            ),
            x_title="bits",
            say_x=lambda value: decimal(value, 0),
            say_y=lambda value: percent(value, 0),
            width=width,
            layout=HALF,
        ),
        [
            "Customers by divergence. A product that one customer in 2",
            element("sup", "b"),
            " is offered counts b bits: ",
            name(held.get("measure", "")),
            ".",
        ],
    )


def _divergent_table(held: Json) -> Markup:
    rows = [
        [
            name(each.get("customer_id", ABSENT)),
            decimal(each.get("bits"), 1),
            _one_in(each.get("bits")),
            [
                fragment(
                    ", " if place else None,
                    name(one.get("product", ABSENT)),
                    " ",
                    element("small", count(one.get("customer_count"))),
                )
                for place, one in enumerate(each.get("opportunities") or ())
            ],
        ]
        for each in held["customers"]
    ]
    columns = [
        Column("customer", False),
        Column("bits"),
        Column("one in"),
        Column("offered, and how many customers are", False),
    ]
    return table("The customers furthest from what is popular", columns, rows, "prose-last")


def _popular_table(held: Json) -> Markup:
    columns = [Column("product", False), Column("customers"), Column("share")]
    rows = [
        [
            name(each.get("product", ABSENT)),
            count(each.get("customer_count")),
            percent(each.get("share")),
        ]
        for each in held.get("popular") or ()
    ]
    return table("Products offered to most customers", columns, rows)


def covered(content: ReportContent) -> Section:
    """The section on capabilities: what reaches nobody, and why."""
    title = "What reaches nobody, and why"
    held = content.coverage or {}
    total, given = number(held.get("capability_count")), number(held.get("given_count"))
    if not total or given is None:
        return Section("coverage", title, missing(_NO_COVERAGE))
    reasons = held.get("reasons") or ()
    rows = [
        ("somebody gets it", given, _of_all(given, total)),
        *(
            (str(each.get("label", each.get("reason"))), amount_, _of_all(amount_, total))
            for each in reasons
            if (amount_ := number(each.get("count")))
        ),
    ]

    def draw(layout: Layout) -> Markup:
        return bar_list(
            "coverage",
            [(_SHORT.get(label, label), value, said) for label, value, said in rows],
            layout,
            title="Capabilities by what becomes of them",
            description="; ".join(f"{label}: {said}" for label, _, said in rows),
            strong=0,
        )

    half = number(held.get("half_count"))
    return Section(
        "coverage",
        title,
        fragment(
            lead(
                f"{count(given)} of {count(total)} capabilities are somebody's opportunity",
                f"; {count(half)} of them make up half of all opportunities" if half else None,
                ".",
            ),
            figure(on_every_screen(draw), "Capabilities, each counted once."),
            _reason_table(reasons) if reasons else None,
            numbers_behind(_channel_table(held), _given_table(held)),
        ),
    )


#: What fits beside a bar; the table below it has the whole sentence.
_SHORT: Final = {
    "nobody for whom its rule holds may be contacted through its channel": (
        "no consent where the rule holds"
    ),
    "a fact excludes it for everybody to whom it is open": "excluded by facts",
    "worth less than the policy's minimum for everybody to whom it is open": (
        "worth too little for everybody"
    ),
    "open and worth it for somebody, but better ones or a limit come before it": (
        "worth it, but always outranked"
    ),
    "open to somebody; not examined further, to bound the time of this report": "not examined",
    "every customer objected or is excluded": "every customer objected",
}


def _of_all(value: float, total: float) -> str:
    return f"{count(value)} ({percent(value / total)})"


def _reason_table(reasons: Any) -> Markup:
    rows = [
        [
            str(each.get("label", each.get("reason"))),
            count(each.get("count")),
            [
                fragment(
                    ", " if place else None,
                    name(one.get("product", ABSENT)),
                    " by ",
                    name(one.get("channel", ABSENT)),
                )
                for place, one in enumerate(each.get("examples") or ())
            ],
        ]
        for each in reasons
    ]
    columns = [
        Column("why nobody gets it", False),
        Column("capabilities"),
        Column("such as", False),
    ]
    return table("Why capabilities reach nobody", columns, rows, "prose-last")


def _channel_table(held: Json) -> Markup | None:
    rows = [
        [
            name(each.get("channel", ABSENT)),
            count(each.get("capability_count")),
            count(each.get("given_count")),
            count(each.get("opportunity_count")),
        ]
        for each in held.get("by_channel") or ()
    ]
    columns = [
        Column("channel", False),
        *map(Column, ("capabilities", "that somebody gets", "opportunities")),
    ]
    return table("Capabilities by channel", columns, rows) if rows else None


def _given_table(held: Json) -> Markup | None:
    rows = [
        [
            fragment(name(each.get("product", ABSENT)), " by ", name(each.get("channel", ABSENT))),
            count(each.get("customer_count")),
            percent(each.get("share")),
        ]
        for each in held.get("most_given") or ()
    ]
    columns = [Column("capability", False), Column("customers"), Column("share of customers")]
    return table("Capabilities that most customers get", columns, rows) if rows else None
