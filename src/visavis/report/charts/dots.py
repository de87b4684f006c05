"""Dot and whisker: estimates with their intervals, row by row, in one panel per measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.report.charts.axes import (
    Layout,
    Scale,
    fitted,
    frame,
    line,
    mark,
    text,
    text_width,
    ticks,
    wrapped,
)
from visavis.report.markup import Markup, element
from visavis.report.numbers import Interval

__all__ = ["DotPanel", "DotRow", "dots"]

#: Taller than the marks, so that a short whisker is seen behind one.
_CAP: Final = 8.0
_SAID_WIDTH: Final = 136.0
_TOP: Final = 34.0
_FOOT: Final = 30.0


@dataclass(frozen=True, slots=True)
class DotRow:
    """One row.

    Attributes
    ----------
    name : str
        Short, in bold.
    label : str
    is_one : bool
        Whether it is one-to-one; otherwise a campaign.
    estimates : tuple of (Interval or None)
        One per panel.
    """

    name: str
    label: str
    is_one: bool
    estimates: tuple[Interval | None, ...]


@dataclass(frozen=True, slots=True)
class DotPanel:
    """One measure.

    Attributes
    ----------
    title : str
    say : callable
        The estimate in words.
    say_bounds : callable
        The interval in words.
    say_tick : callable
        A tick of the axis in words.
    """

    title: str
    say: Callable[[float], str]
    say_bounds: Callable[[Interval], str]
    say_tick: Callable[[float], str]


def dots(
    chart_id: str,
    rows: Sequence[DotRow],
    panels: Sequence[DotPanel],
    layout: Layout,
    *,
    title: str,
    description: str,
) -> Markup:
    """Draw rows of estimates; a measure that goes below 0 has its zero line drawn.

    Panels stand side by side on a wide screen, one below the other on a narrow one.
    """
    draw = _beside if layout.name == "wide" else _below
    parts, height = draw(rows, panels, layout)
    return frame(
        f"{chart_id}-{layout.name}", layout, height, *parts, title=title, description=description
    )


def _beside(
    rows: Sequence[DotRow], panels: Sequence[DotPanel], layout: Layout
) -> tuple[list[Markup], float]:
    label_width, gap = 236.0, 30.0
    begin = _name_width(rows)
    labels = [wrapped(row.label, label_width - begin - 2, 13.5, 3) for row in rows]
    row_height = max(44.0, 14.0 + 17.0 * max(map(len, labels)))
    panel_width = (layout.width - label_width - gap * len(panels)) / len(panels)
    bottom = _TOP + row_height * len(rows)
    parts = []
    for place, row in enumerate(rows):
        middle = _TOP + row_height * (place + 0.5)
        if place:
            edge = middle - row_height / 2
            parts.append(line(0, edge, layout.width, edge, "hair"))
        top = middle + 5 - 8.5 * (len(labels[place]) - 1)
        parts.append(text(0, top, fitted(row.name, begin), "name"))
        parts += [text(begin, top + 17 * n, each, "label") for n, each in enumerate(labels[place])]
    for position, panel in enumerate(panels):
        left = label_width + gap + position * (panel_width + gap)
        scale, marks = _scale(rows, position, left, left + panel_width - _SAID_WIDTH)
        parts.append(text(left, 14, panel.title, "panel"))
        parts += _axis(scale, marks, panel, _TOP, bottom)
        for place, row in enumerate(rows):
            middle = _TOP + row_height * (place + 0.5)
            parts += _estimate(scale, row, position, panel, middle)
    return parts, bottom + _FOOT


def _below(
    rows: Sequence[DotRow], panels: Sequence[DotPanel], layout: Layout
) -> tuple[list[Markup], float]:
    begin = _name_width(rows)
    labels = [wrapped(row.label, layout.width - begin - 2, 13.5, 2) for row in rows]
    heights = [17.0 * len(each) + 35.0 for each in labels]
    y = 0.0
    parts: list[Markup] = []
    for position, panel in enumerate(panels):
        top, bottom = y + _TOP, y + _TOP + sum(heights)
        scale, marks = _scale(rows, position, 6.0, layout.width - _SAID_WIDTH)
        parts.append(text(0, y + 15, panel.title, "panel"))
        parts += _axis(scale, marks, panel, top, bottom)
        for place, row in enumerate(rows):
            edge = top + sum(heights[:place])
            if place:
                parts.append(line(0, edge, layout.width, edge, "hair"))
            parts.append(text(0, edge + 19, fitted(row.name, begin), "name halo"))
            parts += [
                text(begin, edge + 19 + 17 * n, each, "label halo")
                for n, each in enumerate(labels[place])
            ]
            parts += _estimate(scale, row, position, panel, edge + heights[place] - 16)
        y = bottom + _FOOT + 16
    return parts, y - 10


def _name_width(rows: Sequence[DotRow]) -> float:
    """Room for the longest name, none where there are no names."""
    widest = max((text_width(row.name, 14.0) for row in rows), default=0.0)
    return min(84.0, widest + 16.0) if widest else 0.0


def _scale(
    rows: Sequence[DotRow], position: int, begin: float, end: float
) -> tuple[Scale, list[float]]:
    held = [each for row in rows if (each := row.estimates[position]) is not None]
    ends = [end for each in held for end in each if end is not None]
    marks = ticks(min([0.0, *ends]), max([0.0, *ends]), 4)
    return Scale(marks[0], marks[-1], begin, end), marks


def _axis(
    scale: Scale, marks: Sequence[float], panel: DotPanel, top: float, bottom: float
) -> list[Markup]:
    parts = []
    for value in marks:
        x = scale(value)
        is_zero = value == 0 and marks[0] < 0
        parts.append(line(x, top, x, bottom, "zero" if is_zero else "grid"))
        parts.append(text(x, bottom + 18, panel.say_tick(value), "tick", "middle"))
    return parts


def _estimate(scale: Scale, row: DotRow, position: int, panel: DotPanel, y: float) -> list[Markup]:
    said_x = scale.end + 16
    held = row.estimates[position]
    if held is None:
        return [text(said_x, y + 5, "not known", "label")]
    kind = "one" if row.is_one else "campaign"
    zero, end = scale(0.0), scale(held.value)
    stem = element(
        "rect",
        x=min(zero, end),
        y=y - 3.5,
        width=abs(end - zero),
        height=7,
        class_=f"stem {kind}",
    )
    parts = [stem]
    if held.low is not None and held.high is not None:
        low, high = scale(held.low), scale(held.high)
        parts.append(line(low, y, high, y, f"whisker {kind}"))
        parts += [line(x, y - _CAP, x, y + _CAP, f"whisker {kind}") for x in (low, high)]
    parts.append(mark(end, y, row.is_one, 4.5))
    parts.append(
        text(
            said_x,
            y + 5,
            [
                element("tspan", panel.say(held.value), class_="said"),
                element("tspan", panel.say_bounds(held), class_="bounds", dx=7),
            ],
        )
    )
    return parts
