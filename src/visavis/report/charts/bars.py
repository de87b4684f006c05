"""Histograms and lists of bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from visavis.report.charts.axes import Layout, Scale, fitted, frame, line, text, ticks
from visavis.report.markup import Markup, element

__all__ = ["SMALL", "bar_list", "histogram"]

#: One of several side by side.
SMALL: Final = Layout("small", 300)


def histogram(
    chart_id: str,
    shares: Sequence[tuple[float, float]],
    *,
    x_high: float,
    y_high: float,
    is_one: bool,
    title: str,
    description: str,
    x_title: str,
    say_x: Callable[[float], str],
    say_y: Callable[[float], str],
    width: float = 1.0,
    layout: Layout = SMALL,
) -> Markup:
    """Draw a small histogram; several of one `x_high` and `y_high` can be compared.

    Parameters
    ----------
    chart_id : str
    shares : sequence of (float, float)
        Where each bar begins, and its height.
    x_high, y_high : float
        The ends of the axes.
    is_one : bool
    title, description, x_title : str
    say_x, say_y : callable
        Ticks in words.
    width : float
        Of a bar, in the unit of x.
    layout : Layout
    """
    height, left, right, top, bottom = 186.0, 44.0, 10.0, 12.0, 138.0
    y_marks = ticks(0.0, y_high, 3)
    across = Scale(0.0, x_high, left, layout.width - right)
    up = Scale(0.0, y_marks[-1], bottom, top)
    parts = [text(across.end, height - 10, x_title, "tick", "end")]
    for value in y_marks:
        y = up(value)
        parts.append(line(left, y, across.end, y, "grid" if value else "axis"))
        parts.append(text(left - 7, y + 4, say_y(value), "tick", "end"))
    for begin, share in shares:
        if share <= 0:
            continue
        x, end = across(begin), across(begin + width)
        inner = max(1.0, 0.84 * (end - x))
        # A bar that is there must be seen, however low it is.
        y = min(up(share), bottom - 1.2)
        parts.append(
            element(
                "rect",
                x=x + (end - x - inner) / 2,
                y=y,
                width=inner,
                height=bottom - y,
                class_="bar one" if is_one else "bar campaign",
            )
        )
    # Few bars are named one by one.
    for value in ticks(0.0, x_high, int(x_high) if width == 1.0 and x_high <= 9 else 5):
        if value < x_high:
            x = (across(value) + across(value + width)) / 2 if width == 1.0 else across(value)
            parts.append(text(x, bottom + 18, say_x(value), "tick", "middle"))
    return frame(chart_id, layout, height, *parts, title=title, description=description)


def bar_list(
    chart_id: str,
    rows: Sequence[tuple[str, float, str]],
    layout: Layout,
    *,
    title: str,
    description: str,
    strong: int | None = None,
) -> Markup:
    """Draw labelled bars of one length scale that begins at 0.

    Parameters
    ----------
    chart_id : str
    rows : sequence of (label, value, value in words)
    layout : Layout
    title, description : str
    strong : int, optional
        The row that is drawn as what is one-to-one.
    """
    wide = layout.name == "wide"
    label_width = 290.0 if wide else 0.0
    row_height = 34.0 if wide else 48.0
    said_width = 150.0 if wide else 96.0
    highest = max((value for _, value, _ in rows), default=1.0) or 1.0
    across = Scale(0.0, highest, label_width, layout.width - said_width)
    parts = []
    for place, (label, value, said) in enumerate(rows):
        top = row_height * place
        middle = top + (17.0 if wide else 32.0)
        room = label_width - 16 if wide else layout.width
        label_y = middle + 5 if wide else top + 16
        parts.append(text(0, label_y, fitted(label, room), "label"))
        end = max(across(value), across.begin + (1.5 if value > 0 else 0.0))
        kind = "one" if place == strong else "campaign"
        parts.append(
            element(
                "rect",
                x=across.begin,
                y=middle - 7,
                width=end - across.begin,
                height=14,
                class_=f"bar {kind}",
            )
        )
        parts.append(text(end + 9, middle + 5, said, "said"))
    return frame(
        f"{chart_id}-{layout.name}",
        layout,
        row_height * len(rows) + 4,
        line(across.begin, 0, across.begin, row_height * len(rows) + 4, "axis") if wide else None,
        *parts,
        title=title,
        description=description,
    )
