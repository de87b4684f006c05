"""Charts as inline SVG: drawn here, coloured by the page's style sheet, read out by their text.

::

    axes.py         scales, ticks, text that fits, the frame of a chart
    dots.py         estimates with intervals, row by row
    lines.py        cumulative curves
    pairs.py        two estimates per row, joined
    bars.py         histograms and lists of bars
    reliability.py  expected against observed
    speed.py        ratios on a log axis, with bands

Every chart has a title and a description. Nothing is said by colour alone: what is one-to-one has
a filled disc and a thick line, campaigns have rings and dashes, and all carry names.
A chart with long labels is drawn twice, for wide and for narrow screens; the style sheet shows one.
"""

from visavis.report.charts.axes import HALF, NARROW, WIDE, Layout, on_every_screen
from visavis.report.charts.bars import bar_list, histogram
from visavis.report.charts.dots import DotPanel, DotRow, dots
from visavis.report.charts.lines import Series, lines
from visavis.report.charts.pairs import PairRow, pairs
from visavis.report.charts.reliability import bin_ratios, reliability
from visavis.report.charts.speed import Band, speed

__all__ = [
    "HALF",
    "NARROW",
    "WIDE",
    "Band",
    "DotPanel",
    "DotRow",
    "Layout",
    "PairRow",
    "Series",
    "bar_list",
    "bin_ratios",
    "dots",
    "histogram",
    "lines",
    "on_every_screen",
    "pairs",
    "reliability",
    "speed",
]
