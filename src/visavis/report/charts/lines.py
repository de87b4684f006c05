"""Cumulative curves with their names at the ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from visavis.report.charts.axes import Layout, Scale, fitted, frame, line, mark, spread, text, ticks
from visavis.report.markup import Markup, element

__all__ = ["Series", "lines"]

#: One thick line for one-to-one; campaigns are told apart by their dashes.
_DASHES: Final = ("7 4", "2 4", "12 4 2 4", "1 3 5 3", "16 5")

#: More points than this cannot be seen in 420 pixels.
_POINTS_MAX: Final = 160


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes
    ----------
    name : str
    is_one : bool
    points : sequence of (float, float)
        Ascending in x.
    """

    name: str
    is_one: bool
    points: Sequence[tuple[float, float]]


def lines(
    chart_id: str,
    series: Sequence[Series],
    layout: Layout,
    *,
    title: str,
    description: str,
    y_title: str,
    x_title: str,
    say: Callable[[float], str],
) -> Markup:
    """Draw curves that begin at 0, in one pair of axes."""
    height, left, right, top, bottom = 300.0, 58.0, 60.0, 34.0, 250.0
    y_marks = ticks(0.0, max((y for each in series for _, y in each.points), default=1.0), 4)
    # The axis ends where the curves end; a round number beyond would leave a gap before the names.
    furthest = max((x for each in series for x, _ in each.points), default=1.0) or 1.0
    x_marks = [value for value in ticks(0.0, furthest, 4) if value <= furthest]
    across = Scale(0.0, furthest, left, layout.width - right)
    up = Scale(0.0, y_marks[-1], bottom, top)
    parts = [text(0, 14, y_title, "panel"), text(across.end, height - 8, x_title, "tick", "end")]
    for value in y_marks:
        y = up(value)
        parts.append(line(left, y, across.end, y, "grid" if value else "axis"))
        parts.append(text(left - 8, y + 4.5, say(value), "tick", "end"))
    parts += [text(across(x), bottom + 19, say(x), "tick", "middle") for x in x_marks]
    ends = [up(each.points[-1][1]) if each.points else bottom for each in series]
    places = spread(ends, 16.0, top + 4, bottom - 2)
    # What matters most is drawn last, above the rest.
    for position in sorted(range(len(series)), key=lambda place: series[place].is_one):
        each = series[position]
        if each.points:
            parts += _curve(each, position, across, up, places[position])
    return frame(chart_id, layout, height, *parts, title=title, description=description)


def _curve(series: Series, position: int, across: Scale, up: Scale, name_y: float) -> list[Markup]:
    step = max(1, -(-len(series.points) // _POINTS_MAX))
    kept = [*series.points[:-1:step], series.points[-1]]
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in kept)
    end_x, end_y = across(kept[-1][0]), up(kept[-1][1])
    kind = "one" if series.is_one else "campaign"
    return [
        element(
            "polyline",
            points=path,
            class_=f"curve {kind}",
            stroke_dasharray=None if series.is_one else _DASHES[position % len(_DASHES)],
        ),
        mark(end_x, end_y, series.is_one, 4.5),
        line(end_x + 6, end_y, across.end + 9, name_y, "lead"),
        text(across.end + 12, name_y + 4.5, fitted(series.name, 47), f"name {kind}-ink"),
    ]
