"""Ratios of time on a log axis, with bands that others report drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from visavis.report.charts.axes import Layout, Scale, fitted, frame, line, mark, text
from visavis.report.markup import Markup, element
from visavis.report.numbers import Interval
from visavis.report.numbers import ratio as said_ratio

__all__ = ["Band", "speed"]


class Band(NamedTuple):
    """A range that somebody reports.

    Attributes
    ----------
    low, high : float
    label, short_label : str
        For wide and for narrow screens.
    is_faint : bool
        Whether it is another way to count the same.
    """

    low: float
    high: float
    label: str
    short_label: str
    is_faint: bool


def speed(
    chart_id: str,
    rows: Sequence[tuple[str, Interval]],
    bands: Sequence[Band],
    layout: Layout,
    *,
    title: str,
    description: str,
) -> Markup:
    """Draw one mark per ratio, and the bands behind all of them.

    Parameters
    ----------
    chart_id : str
    rows : sequence of (label, Interval)
        What was timed, and how often the match fits into it.
    bands : sequence of Band
        Their labels stand above the rows, one line each.
    layout : Layout
    title, description : str
    """
    wide = layout.name == "wide"
    label_width, row_height = (250.0, 46.0) if wide else (4.0, 54.0)
    lowest = min([1.0, *(least for _, each in rows for least in each if least is not None)])
    highest = max([1_000.0, *(each.value for _, each in rows), *(each.high for each in bands)])
    low = 10.0 ** math.floor(math.log10(max(lowest, 1e-4)))
    high = 10.0 ** math.ceil(math.log10(highest))
    top = 24.0 * len(bands) + 14
    bottom = top + row_height * len(rows)
    across = Scale(low, high, label_width, layout.width - (24.0 if wide else 18.0), is_log=True)
    pattern = f"{chart_id}-{layout.name}-hatch"
    parts = [_hatch(pattern)]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = across(10.0**power)
        parts.append(line(x, top, x, bottom, "zero" if power == 0 else "grid"))
        parts.append(text(x, bottom + 19, f"{10.0**power:,g}×", "tick", "middle"))
    for place, band in enumerate(bands):
        said = band.label if wide else band.short_label
        parts += _band(band, said, across, 24.0 * place + 14, bottom, pattern)
    for place, (label, each) in enumerate(rows):
        edge = top + row_height * place
        middle = edge + (row_height / 2 if wide else 37.0)
        if place:
            parts.append(line(0, edge, layout.width, edge, "hair"))
        room = label_width - 14 if wide else layout.width
        parts.append(text(0, middle + 5 if wide else edge + 18, fitted(label, room), "label halo"))
        parts += _ratio(each, across, middle)
    return frame(
        f"{chart_id}-{layout.name}",
        layout,
        bottom + 30,
        *parts,
        title=title,
        description=description,
    )


def _hatch(pattern: str) -> Markup:
    return element(
        "defs",
        element(
            "pattern",
            element("rect", width=7, height=7, class_="hatch-ground"),
            line(0, 0, 0, 7, "hatch-line"),
            id=pattern,
            width=7,
            height=7,
            patternUnits="userSpaceOnUse",
            patternTransform="rotate(45)",
        ),
    )


def _band(
    band: Band, said: str, across: Scale, label_y: float, bottom: float, pattern: str
) -> list[Markup]:
    left, right = across(band.low), across(band.high)
    return [
        element(
            "rect",
            x=left,
            y=label_y + 4,
            width=right - left,
            height=bottom - label_y - 4,
            class_="band faint" if band.is_faint else "band",
            # An attribute loses against the style sheet, so the faint band keeps its own fill.
            fill=f"url(#{pattern})",
        ),
        text(right, label_y, said, "band-ink", "end"),
    ]


def _ratio(held: Interval, across: Scale, y: float) -> list[Markup]:
    parts = []
    if held.low is not None and held.high is not None:
        low, high = across(held.low), across(held.high)
        parts.append(line(low, y, high, y, "whisker one"))
    x, one = across(held.value), across(1.0)
    stem = element(
        "rect", x=min(x, one), y=y - 3.5, width=abs(x - one), height=7, class_="stem one"
    )
    parts.insert(0, stem)
    near_end = x > across.end - 90
    ends = [across(end) for end in held if end is not None]
    parts.append(mark(x, y, True))
    parts.append(
        text(
            min(ends) - 13 if near_end else max(ends) + 13,
            y + 5,
            said_ratio(held.value),
            "said halo",
            "end" if near_end else "start",
        )
    )
    return parts
