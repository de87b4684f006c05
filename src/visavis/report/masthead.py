"""The first screen: title, the claim with its numbers, the picture that carries it, key figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visavis.report.arms import Arm, arms_by_policy, best_pair, difference, verdict_of, with_k
from visavis.report.charts import NARROW, DotPanel, dots
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import bounds, count, decimal, number, percent, points, ratio, seconds
from visavis.report.parts import figure
from visavis.report.provenance import day
from visavis.report.quality import timing_rows

__all__ = ["masthead"]

Json = Mapping[str, Any]


def masthead(content: ReportContent) -> Markup:
    """The header of the page."""
    run = content.run or {}
    setting = (content.evaluations[0].get("setting") if content.evaluations else None) or {}
    as_of = run.get("as_of", setting.get("as_of"))
    return element(
        "header",
        element(
            "div",
            element(
                "p",
                element("b", "visavis"),
                " report",
                [", as of ", day(as_of)] if as_of else None,
                class_="kicker",
            ),
            element("h1", content.title),
            _claim(content),
            class_="said-first",
        ),
        _picture(content),
        _key_figures(content),
        class_="masthead",
    )


def _claim(content: ReportContent) -> Markup:
    pair = best_pair(content.evaluations[0]) if content.evaluations else None
    if pair is None:
        return _claim_of_work(content.run or {})
    own, campaign = pair
    evaluation = content.evaluations[0]
    held = difference(evaluation, own, campaign, "hit_rate")
    verdict = verdict_of(held)
    said: list[Child] = []
    if held is not None and verdict is not None:
        told = f"{points(held.value)} points ({bounds(held, 100)})"
        said.append(
            f"A difference of {told}. "
            if verdict.is_known
            else f"The two cannot be told apart on these data: {told}. "
        )
    window = (evaluation.get("setting") or {}).get("window_days")
    held_out = f" in the {count(window)} days held out" if window is not None else ""
    said.append(element("em", "Captured, not caused:"))
    said.append(f" nothing was sent; a hit is a purchase made anyway{held_out}.")
    hits, first = (number(own.content.get(f"{kind}hit_count")) for kind in ("", "never_bought_"))
    if hits and first is not None:
        said.append(
            f" {percent(1 - first / hits)} of {own.name}'s hits repeat an earlier purchase."
        )
    return fragment(
        element(
            "p",
            "Of every 100 contacts, ",
            _rate(own, "one-ink"),
            " met a purchase when every customer got their own best; ",
            _rate(campaign, "campaign-ink"),
            " under the best campaign plan with as many contacts and the same rules.",
            class_="claim",
        ),
        element("p", said, class_="claim-note"),
    )


def _rate(arm: Arm, class_: str) -> Markup:
    held = arm.estimate("hit_rate")
    if held is None:
        return fragment()
    inside = bounds(held, 100)
    return fragment(
        element("strong", decimal(100 * held.value, 1), class_=class_),
        element("span", f" ({inside})", class_="inside") if inside else None,
    )


def _claim_of_work(run: Json) -> Markup:
    customers = number(run.get("matched_customer_count", run.get("customer_count")))
    capabilities = number(run.get("capability_count"))
    if customers is None or capabilities is None:
        return element(
            "p", "Every customer, face to face with everything on offer.", class_="claim"
        )
    spent = number((run.get("seconds") or {}).get("match"))
    with_time = f" in {seconds(spent)}" if spent is not None else ""
    return fragment(
        element(
            "p",
            f"Each of {count(customers)} customers was weighed against each of "
            f"{count(capabilities)} capabilities{with_time}.",
            class_="claim",
        ),
        element(
            "p",
            "Nothing was compared on held-out data in this run, so nothing is claimed about what "
            "was captured, and nothing about what was caused.",
            class_="claim-note",
        ),
    )


def _picture(content: ReportContent) -> Markup | None:
    """Own best against every campaign of its contact policy, hits only."""
    pair = best_pair(content.evaluations[0]) if content.evaluations else None
    if pair is None:
        return None
    arms = dict(arms_by_policy(content.evaluations[0]))[pair[0].policy]
    policy = with_k(content.evaluations[0], pair[0].policy)
    panel = DotPanel(
        "of 100 contacts, met a purchase",
        lambda value: decimal(100 * value, 1),
        lambda held: bounds(held, 100),
        lambda tick: decimal(100 * tick, 0),
    )
    rows = [arm.row(arm.estimate("hit_rate")) for arm in arms]
    return figure(
        dots(
            "first",
            rows,
            [panel],
            NARROW,
            title="Contacts that met a purchase, each arm under one contact policy",
            description="; ".join(
                f"{arm.name}, {arm.label}: {percent(held.value)}"
                for arm in arms
                if (held := arm.estimate("hit_rate"))
            ),
        ),
        ["Contact policy: ", name(policy), ". Disc: one-to-one. Rings: campaigns."],
        "first",
    )


def _key_figures(content: ReportContent) -> Markup | None:
    run = content.run or {}
    figures: list[tuple[str, str]] = []
    if (pairs := number(run.get("pair_count"))) is not None:
        figures.append((count(pairs), "pairs weighed: every customer with every capability"))
    # Timed beside the other forms where it was, so that time and ratio belong together.
    spent = number(((content.timing or {}).get("seconds") or {}).get("match"))
    spent = number((run.get("seconds") or {}).get("match")) if spent is None else spent
    if spent is not None:
        figures.append((seconds(spent), "for the whole match, exactly, on this machine"))
    by_form = {form: each for form, _, each in timing_rows(content.timing or {})}
    loop = by_form.get("campaigns_numpy")
    if loop is not None:
        figures.append(
            (ratio(loop.value), "as fast as the campaign loop in numpy, on the same work")
        )
    reached = number(run.get("customers_with_opportunities"))
    if reached is not None:
        of = count(run.get("customer_count"))
        figures.append((count(reached), f"of {of} customers have an opportunity under the policy"))
    if not figures:
        return None
    return element(
        "dl",
        [element("div", element("dt", why), element("dd", said)) for said, why in figures],
        class_="key-figures",
    )
