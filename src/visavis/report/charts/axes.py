"""Scales, ticks, text that fits, and the frame of a chart."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from visavis.report.markup import Child, Markup, element, fragment

__all__ = [
    "HALF",
    "NARROW",
    "WIDE",
    "Layout",
    "Scale",
    "fitted",
    "frame",
    "line",
    "mark",
    "on_every_screen",
    "spread",
    "text",
    "text_width",
    "ticks",
    "wrapped",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """For which screen a chart is drawn.

    Attributes
    ----------
    name : str
        Also the class under which the style sheet shows or hides it.
    width : int
        In the chart's own pixels; text of 13 to 15 pixels must stay readable when it is scaled.
    """

    name: str
    width: int


#: The whole column, on screens from 760 pixels and on paper.
WIDE: Final = Layout("wide", 960)
#: A phone of 360 pixels shows it at nine tenths.
NARROW: Final = Layout("narrow", 360)
#: Half the column, or a whole phone: drawn once.
HALF: Final = Layout("half", 420)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels.

    Attributes
    ----------
    low, high : float
        The domain; both > 0 where `is_log`.
    begin, end : float
        The pixels of its ends.
    is_log : bool
    """

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside the domain stay at its ends."""
        inside = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`, steps of 1, 2 or 5."""
    span = high - low if high > low else abs(high) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1.0, 2.0, 5.0) if m * power >= 0.999 * rough), 10.0 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Multiples of the step, not sums of it: 0.1 + 0.2 would be written as a longer number.
    return [round(step * place, 12) for place in range(first, max(last, first + 1) + 1)]


def frame(
    chart_id: str,
    layout: Layout,
    height: float,
    *children: Child,
    title: str,
    description: str,
) -> Markup:
    """An SVG with its title and its description.

    Parameters
    ----------
    chart_id : str
        Unique on the page; ids of the same chart in another layout must differ.
    layout : Layout
    height : float
    *children
    title, description : str
        What a screen reader says in place of the picture.
    """
    return element(
        "svg",
        element("title", title, id=f"{chart_id}-title"),
        element("desc", description, id=f"{chart_id}-desc"),
        *children,
        class_=f"chart {layout.name}",
        viewBox=f"0 0 {layout.width} {height:.0f}",
        role="img",
        aria_labelledby=f"{chart_id}-title {chart_id}-desc",
    )


def on_every_screen(draw: Callable[[Layout], Markup]) -> Markup:
    """The same chart for wide and narrow screens."""
    return fragment(draw(WIDE), draw(NARROW))


def text(
    x: float,
    y: float,
    content: Child,
    class_: str = "",
    anchor: Literal["start", "middle", "end"] = "start",
) -> Markup:
    """One line of text."""
    return element(
        "text",
        content,
        x=x,
        y=y,
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def mark(x: float, y: float, is_one: bool, size: float = 5.5) -> Markup:
    """A filled disc for what is one-to-one, a ring for a campaign."""
    kind = "one" if is_one else "campaign"
    return element("circle", cx=x, cy=y, r=size, class_=f"mark {kind}")


def fitted(content: str, width: float, size: float = 14.0) -> str:
    """`content`, cut with an ellipsis where it is wider than `width` pixels."""
    if text_width(content, size) <= width:
        return content
    kept = content
    while kept and text_width(kept + "…", size) > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrapped(content: str, width: float, size: float = 14.0, count: int = 2) -> list[str]:
    """`content` in at most `count` lines of `width` pixels, the last one cut where it must be."""
    # A number and its per cent sign stay together.
    lines, words = [""], content.replace(" %", "\u202f%").split(" ")
    for position, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= width:
            lines[-1] = longer
        elif len(lines) == count:
            return [*lines[:-1], fitted(" ".join([lines[-1], *words[position:]]), width, size)]
        else:
            lines += [word] if lines[-1] else []
            lines[-1] = word
    return [fitted(each, width, size) for each in lines]


def text_width(content: str, size: float) -> float:
    """A guess, on the safe side, at the width of sans-serif text: no font is at hand here."""
    return size * sum(map(_character_width, content))


def _character_width(character: str) -> float:
    if character in " .,:;'|!iljtfI()[]/-":
        return 0.36
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.72 if character.isupper() or character in "mwMW%@" else 0.58


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to those wanted as a gap between neighbours allows, in the same order.

    Parameters
    ----------
    wanted : sequence of float, in any order
    gap : float
    low, high : float
        All places stay between them where there is room.
    """
    order = sorted(range(len(wanted)), key=lambda position: (wanted[position], position))
    placed = [0.0] * len(wanted)
    floor = low
    for position in order:
        placed[position] = max(wanted[position], floor)
        floor = placed[position] + gap
    ceiling = high
    for position in reversed(order):
        placed[position] = min(placed[position], ceiling)
        ceiling = placed[position] - gap
    return placed
