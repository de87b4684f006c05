"""Two estimates per row, joined: one-to-one and its best campaign, setting after setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from visavis.report.charts.axes import HALF, Scale, fitted, frame, line, mark, text, ticks
from visavis.report.markup import Markup, element

__all__ = ["PairRow", "pairs"]


class PairRow(NamedTuple):
    """One row.

    Attributes
    ----------
    label : str
    own, other : float
        What one-to-one and its best campaign captured.
    other_name : str
        Which campaign it is.
    """

    label: str
    own: float
    other: float
    other_name: str


def pairs(
    chart_id: str,
    rows: Sequence[PairRow],
    *,
    title: str,
    description: str,
    panel: str,
    say: Callable[[float], str],
    say_tick: Callable[[float], str],
) -> Markup:
    """Draw a disc and a ring per row with the distance between them."""
    left, top, row_height = 168.0, 34.0, 25.0
    marks = ticks(0.0, max(max(row.own, row.other) for row in rows), 3)
    across = Scale(0.0, marks[-1], left, HALF.width - 110)
    bottom = top + row_height * len(rows)
    parts = [text(0, 14, panel, "panel")]
    for value in marks:
        x = across(value)
        parts.append(line(x, top, x, bottom, "grid"))
        parts.append(text(x, bottom + 18, say_tick(value), "tick", "middle"))
    for place, row in enumerate(rows):
        y = top + row_height * (place + 0.5)
        begin, end = sorted((across(row.own), across(row.other)))
        kind = "one" if row.own >= row.other else "campaign"
        parts += [
            text(0, y + 4.5, fitted(row.label, left - 8, 13), "label"),
            element("rect", x=begin, y=y - 3, width=end - begin, height=6, class_=f"stem {kind}"),
            mark(across(row.other), y, False, 4.5),
            mark(across(row.own), y, True, 5),
            text(HALF.width - 54, y + 4.5, say(row.own), "said", "end"),
            text(
                HALF.width,
                y + 4.5,
                fitted(f"{row.other_name} {say(row.other)}", 52, 12.5),
                "tick",
                "end",
            ),
        ]
    return frame(chart_id, HALF, bottom + 30, *parts, title=title, description=description)
