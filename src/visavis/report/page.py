"""The page: head, notice, first screen, contents, sections."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Final

from visavis.report.captured import captured
from visavis.report.contacts import cumulative, distribution
from visavis.report.content import ReportContent
from visavis.report.customers import covered, divergent, told
from visavis.report.markup import Markup, element, fragment
from visavis.report.masthead import masthead
from visavis.report.parts import Section
from visavis.report.provenance import asked, limits, notice, ran
from visavis.report.quality import calibration, timing
from visavis.report.sensitivity import sensitivity

__all__ = ["render"]

_SECTIONS: Final = (
    *(asked, captured, cumulative, distribution, calibration, timing),
    *(told, divergent, covered, sensitivity, ran, limits, notice),
)

#: The page may load nothing, from nowhere; browsers enforce it.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def render(content: ReportContent) -> str:
    """The whole page as text.

    Parameters
    ----------
    content : ReportContent
        In canonical form.
    """
    sections = [build(content) for build in _SECTIONS]
    return "<!DOCTYPE html>\n" + element(
        "html",
        _head(content),
        element(
            "body",
            element("a", "Skip to the content", href="#content", class_="skip"),
            _notice_bar(content),
            masthead(content),
            _contents(sections),
            element("main", [_section(each) for each in sections], id="content"),
            element("footer", _colophon()),
        ),
        lang="en",
    )


def _head(content: ReportContent) -> Markup:
    style = (resources.files("visavis.report") / "style.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{content.title} · visavis report"),
        # The style sheet is our own file: nothing from outside ever stands in it.
        element("style", Markup(f"\n{style}")),
    )


def _notice_bar(content: ReportContent) -> Markup | None:
    if not content.notice:
        return None
    return element(
        "aside",
        element("p", element("b", "Data "), content.notice),
        element("a", "About the data", href="#notice"),
        class_="notice-bar",
        aria_label="About the data",
    )


def _contents(sections: Sequence[Section]) -> Markup:
    links = [
        element("li", element("a", each.title, href=f"#{each.section_id}")) for each in sections
    ]
    return element("nav", element("ol", links), class_="contents", aria_label="Contents")


def _section(held: Section) -> Markup:
    heading = f"{held.section_id}-title"
    return element(
        "section",
        element("h2", held.title, id=heading),
        held.body,
        id=held.section_id,
        aria_labelledby=heading,
    )


def _colophon() -> Markup:
    return fragment(
        element(
            "p",
            "Written by visavis. One file: it loads nothing and runs nothing. The same numbers "
            "stand in report.json beside it.",
        )
    )
