"""Do propensities mean what they say: expected against observed, bin by bin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from visavis.report.charts.axes import HALF, Scale, fitted, frame, line, mark, text, ticks
from visavis.report.markup import Markup, element

__all__ = ["BAND", "Bin", "bin_ratios", "reliability"]

#: Observed ÷ expected that counts as calibrated.
BAND: Final = (0.9, 1.1)


class Bin(NamedTuple):
    """One bin of propensities.

    Attributes
    ----------
    label : str
        Its bounds in words.
    pair_count : float
    expected, observed : float
        Share of its pairs, in [0, 1].
    ratio : float or None
        Observed ÷ expected.
    """

    label: str
    pair_count: float
    expected: float
    observed: float
    ratio: float | None


def reliability(chart_id: str, bins: Sequence[Bin], *, title: str, description: str) -> Markup:
    """Draw the observed share against the expected one, both on a log axis."""
    height, left, top, bottom = 400.0, 62.0, 34.0, 346.0
    held = [each for each in bins if each.expected > 0 and each.observed > 0]
    least = min((min(each.expected, each.observed) for each in held), default=0.01)
    low = 10.0 ** math.floor(math.log10(min(max(least, 1e-6), 0.1)))
    across = Scale(low, 1.0, left, HALF.width - 14, is_log=True)
    up = Scale(low, 1.0, bottom, top, is_log=True)
    parts = [
        text(0, 14, "observed share of pairs bought", "panel"),
        text(across.end, height - 8, "expected share (propensity)", "tick", "end"),
    ]
    decades = range(round(math.log10(low)), 1)
    for value in (10.0**power for power in decades):
        said = _share(value)
        parts.append(line(left, up(value), across.end, up(value), "grid"))
        parts.append(line(across(value), top, across(value), bottom, "grid"))
        parts.append(text(left - 8, up(value) + 4.5, said, "tick", "end"))
        parts.append(text(across(value), bottom + 19, said, "tick", "middle"))
    corners = [
        *((low, low * factor) for factor in BAND),
        *((1.0, 1.0 * factor) for factor in reversed(BAND)),
    ]
    outline = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in corners)
    parts.append(element("polygon", points=outline, class_="tolerance"))
    parts.append(line(across(low), up(low), across(1.0), up(1.0), "ideal"))
    parts += [mark(across(each.expected), up(each.observed), True, 5.5) for each in held]
    return frame(chart_id, HALF, height, *parts, title=title, description=description)


def bin_ratios(
    chart_id: str,
    bins: Sequence[Bin],
    *,
    title: str,
    description: str,
    say_count: Callable[[float], str],
) -> Markup:
    """Draw observed ÷ expected of each bin beside its number of pairs, the good band shaded."""
    held = [each.ratio for each in bins if each.ratio is not None]
    marks = ticks(min([0.8, *held]), max([1.2, *held]), 4)
    left, top, row_height = 118.0, 34.0, min(34.0, max(20.0, 300.0 / max(1, len(bins))))
    bottom = top + row_height * len(bins)
    across = Scale(marks[0], marks[-1], left, HALF.width - 92)
    parts = [
        text(0, 14, "propensity", "panel"),
        text(left, 14, "observed ÷ expected", "panel"),
        text(HALF.width, 14, "pairs", "panel", "end"),
        element(
            "rect",
            x=across(BAND[0]),
            y=top,
            width=across(BAND[1]) - across(BAND[0]),
            height=bottom - top,
            class_="tolerance",
        ),
    ]
    for value in marks:
        x = across(value)
        parts.append(line(x, top, x, bottom, "zero" if value == 1.0 else "grid"))
        parts.append(text(x, bottom + 18, f"{value:g}", "tick", "middle"))
    for place, each in enumerate(bins):
        middle = top + row_height * (place + 0.5)
        parts.append(text(0, middle + 4.5, fitted(each.label, left - 10, 13), "label"))
        parts.append(text(HALF.width, middle + 4.5, say_count(each.pair_count), "label", "end"))
        if each.ratio is not None:
            parts.append(mark(across(each.ratio), middle, True, 5))
    return frame(chart_id, HALF, bottom + 30, *parts, title=title, description=description)


def _share(value: float) -> str:
    return f"{100 * value:.10f}".rstrip("0").rstrip(".") + "\u202f%"
