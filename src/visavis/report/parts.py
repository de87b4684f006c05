"""The parts that sections are made of: figures, tables behind them, leads, sections themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from visavis.report.markup import Child, Markup, element

__all__ = ["Column", "Section", "figure", "lead", "missing", "note", "numbers_behind", "table"]


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page.

    Attributes
    ----------
    section_id : str
        Its anchor.
    title : str
    body : Markup
    """

    section_id: str
    title: str
    body: Markup


class Column(NamedTuple):
    """A column's heading, and whether it holds numbers."""

    title: str
    is_number: bool = True


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Child]], class_: str = ""
) -> Markup:
    """A table whose first column names its rows; it scrolls sideways where it must."""
    head = [
        element("th", column.title, scope="col", class_="n" if column.is_number else None)
        for column in columns
    ]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            [
                element("td", cell, class_="n" if column.is_number else None)
                for cell, column in zip(row[1:], columns[1:], strict=True)
            ],
        )
        for row in rows
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", head)),
            element("tbody", body),
            class_=class_ or None,
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def numbers_behind(*tables: Child, summary: str = "The numbers behind this") -> Markup:
    """What a chart shows, as tables that open on request and are printed."""
    return element("details", element("summary", summary), *tables)


def figure(picture: Child, caption: Child, class_: str = "") -> Markup:
    """A picture with the sentence that says how to read it."""
    return element("figure", picture, element("figcaption", caption), class_=class_ or None)


def lead(*children: Child) -> Markup:
    """The sentence that a section is for."""
    return element("p", *children, class_="lead")


def note(*children: Child) -> Markup:
    """How something is to be understood."""
    return element("p", *children, class_="note")


def missing(what: str) -> Markup:
    """One sentence in place of a section's content."""
    return element("p", what, class_="missing")
