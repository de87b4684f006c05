"""Whether the propensities hold, and what the match costs in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from visavis.report.charts import Band, Layout, bin_ratios, on_every_screen, reliability, speed
from visavis.report.charts.reliability import BAND, Bin
from visavis.report.content import ReportContent
from visavis.report.markup import Child, Markup, element, fragment, name
from visavis.report.numbers import (
    ABSENT,
    Interval,
    bounds,
    count,
    decimal,
    interval,
    number,
    percent,
    ratio,
    seconds,
)
from visavis.report.parts import Column, Section, figure, lead, missing, note, numbers_behind, table

__all__ = ["BAND_8_HOURS", "BAND_24_HOURS", "calibration", "timing", "timing_rows"]

Json = Mapping[str, Any]

#: Ten minutes for what took data scientists three to four days, as practitioners report it of an
#: in-house tool that builds customer indicators; in days of 24 and of 8 hours.
BAND_24_HOURS: Final = (432.0, 576.0)
BAND_8_HOURS: Final = (144.0, 192.0)

_NO_CALIBRATION: Final = (
    "The propensities of this run were not checked on held-out data: take them as an order, not as "
    "chances."
)
_NO_TIMING: Final = "The match was not timed beside a campaign loop in this run."

_FORMS: Final = {
    "match": "the match",
    "campaigns_numpy": "campaign loop in numpy",
    "campaigns_pandas": "campaign loop in pandas",
    "batched_blas": "batched matrix product (BLAS)",
}


def calibration(content: ReportContent) -> Section:
    """The section on expected against observed purchases."""
    title = "Do the propensities mean what they say"
    held = content.calibration or {}
    bins = [_bin(each) for each in held.get("bins") or ()]
    if not bins:
        return Section("calibration", title, missing(_NO_CALIBRATION))
    known = [each.ratio for each in bins if each.ratio is not None]
    inside = sum(BAND[0] <= each <= BAND[1] for each in known)
    said = (
        f"In {inside} of {len(known)} bins, observed purchases lie within {BAND[0]:g} to "
        f"{BAND[1]:g} times the expected ones, on data after the cut."
    )
    description = "; ".join(
        f"{each.label}: expected {percent(each.expected, 2)}, observed {percent(each.observed, 2)}"
        for each in bins
    )
    pictures = element(
        "div",
        reliability(
            "reliability",
            bins,
            title="Observed against expected share of purchases",
            description=description,
        ),
        bin_ratios(
            "reliability-ratios",
            bins,
            title="Observed ÷ expected purchases by bin, with the number of pairs",
            description="; ".join(f"{each.label}: {_plain_ratio(each.ratio)}" for each in bins),
            say_count=_short_count,
        ),
        class_="pair",
    )
    caption = (
        f"Dashed: perfectly calibrated. Shaded: {BAND[0]:g} to {BAND[1]:g}. Each disc is a bin of "
        "customer × capability pairs with similar propensity; both axes on the left are "
        "logarithmic."
    )
    return Section(
        "calibration",
        title,
        fragment(
            lead(said),
            _losses(held),
            figure(pictures, caption),
            numbers_behind(_bin_table(held), _outlier_table(held)),
        ),
    )


def _bin(held: Json) -> Bin:
    pairs = number(held.get("pair_count")) or 0.0
    expected, observed = (number(held.get(key)) or 0.0 for key in ("expected", "observed"))
    told = number(held.get("ratio"))
    known = told if told is not None else observed / expected if expected else None
    low, high = (_bound(held.get(key)) for key in ("low", "high"))
    divisor = pairs or 1.0
    return Bin(f"{low}–{high}", pairs, expected / divisor, observed / divisor, known)


def _bound(value: object) -> str:
    held = number(value)
    if held is None:
        return ABSENT
    digits = 0 if held in (0.0, 1.0) else 2 if held >= 0.1 else 3 if held >= 0.001 else 5
    return f"{held:.{digits}f}"


def _short_count(value: float) -> str:
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= power:
            unit = min(power, 1e3) if letter == "k" else power
            return f"{decimal(value / unit, 1)} {letter}"
    return count(value)


def _plain_ratio(value: float | None) -> str:
    return decimal(value, 3)


def _losses(held: Json) -> Markup:
    figures: list[tuple[str, str, str]] = [
        (
            "Brier score",
            decimal(held.get("brier"), 5),
            "mean squared error per pair; less is better",
        )
    ]
    loss, untuned = number(held.get("log_loss")), number(held.get("untuned_log_loss"))
    against = ""
    if loss is not None and untuned:
        against = (
            f"the untuned score, recalibrated the same way: {decimal(untuned, 5)} "
            f"({percent(loss / untuned - 1)})"
        )
    figures.append(("log-loss", decimal(loss, 5), against or "per pair; less is better"))
    return element(
        "dl",
        [
            element("div", element("dt", term), element("dd", said), element("dd", why))
            for term, said, why in figures
            if said != ABSENT
        ],
        class_="figures",
    )


def _bin_table(held: Json) -> Markup:
    columns = [
        Column("propensity", False),
        *map(Column, ("pairs", "expected purchases", "observed", "observed ÷ expected")),
    ]
    rows = [
        [
            _bin(each).label,
            count(each.get("pair_count")),
            decimal(each.get("expected"), 1),
            decimal(each.get("observed"), 0),
            _plain_ratio(_bin(each).ratio),
        ]
        for each in held["bins"]
    ]
    return table("Expected and observed purchases by bin", columns, rows)


def _outlier_table(held: Json) -> Markup | None:
    outliers = held.get("outliers") or ()
    if not outliers:
        return None
    columns = [
        Column("capability", False),
        *map(Column, ("observed", "expected", "observed ÷ expected")),
    ]
    rows = [
        [
            name(each.get("capability_id", ABSENT)),
            decimal(each.get("observed"), 0),
            decimal(each.get("expected"), 1),
            decimal(each.get("ratio"), 2),
        ]
        for each in outliers
    ]
    return table("Capabilities whose purchases stray furthest from the expected", columns, rows)


def timing_rows(held: Json) -> list[tuple[str, str, Interval]]:
    """(form, in words, how often the match fits into it), slowest form first."""
    ratios = held.get("ratio_to_match") or {}
    known = [(str(form), interval(each)) for form, each in ratios.items() if form != "match"]
    rows = [
        (form, _FORMS.get(form, form.replace("_", " ")), each)
        for form, each in known
        if each is not None and each.value > 0
    ]
    return sorted(rows, key=lambda row: (-row[2].value, row[0]))


def timing(content: ReportContent) -> Section:
    """The section on time, with the practitioners' band drawn in."""
    title = "What it costs in time"
    held = content.timing or {}
    rows = timing_rows(held)
    if not rows:
        return Section("time", title, missing(_NO_TIMING))
    bands = [
        Band(
            *BAND_24_HOURS,
            "practitioners report, for building indicators: 432–576× in 24-hour days",
            "reported, for indicators: 432–576×",
            False,
        ),
        Band(
            *BAND_8_HOURS,
            "the same counted in 8-hour days: 144–192×",
            "in 8-hour days: 144–192×",
            True,
        ),
    ]
    description = "; ".join(f"{said}: {ratio(each.value)}" for _, said, each in rows)

    def draw(layout: Layout) -> Markup:
        return speed(
            "speed",
            [(said, each) for _, said, each in rows],
            bands,
            layout,
            title="Time of each form ÷ time of the match, log axis",
            description=f"{description}. Practitioners report 432 to 576 for another task.",
        )

    return Section(
        "time",
        title,
        fragment(
            lead(_time_said(held, rows)),
            figure(
                on_every_screen(draw),
                "Discs: measured here, on the same customers, capabilities, scores and rules. "
                "Hatched: what others report, for another task. Log axis.",
            ),
            note(
                element("b", "Where the band comes from. "),
                "Practitioners report that an in-house tool built customer indicators in ten "
                "minutes where data scientists took three to four days: 432–576 times in 24-hour "
                "days, 144–192 times in 8-hour days. That is people and tool on another task; it "
                "is drawn for scale. ",
                _place_said(rows),
            ),
            note(str(held["note"])) if held.get("note") else None,
            numbers_behind(_time_table(held, rows)),
        ),
    )


def _time_said(held: Json, rows: Sequence[tuple[str, str, Interval]]) -> Markup:
    spent = held.get("seconds") or {}
    parts: list[Child] = []
    if (own := number(spent.get("match"))) is not None:
        pairs = number(held.get("pairs"))
        over = f" over {count(pairs)} pairs" if pairs else ""
        parts.append(f"The match took {seconds(own)}{over}. ")
    told = [f"as a {said} {ratio(each.value)}" for _, said, each in rows]
    parts.append(f"The same work took, {_listed(told)} as long.")
    return fragment(parts)


def _listed(said: Sequence[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _place_said(rows: Sequence[tuple[str, str, Interval]]) -> str:
    """Where our ratios lie; nothing is claimed that was not measured."""
    values = [each.value for _, _, each in rows]
    low, high = BAND_24_HOURS
    if max(values) < low:
        return "Every ratio measured here lies below that band."
    if min(values) > high:
        return "Every ratio measured here lies above that band, on its own task."
    inside = [said for _, said, each in rows if low <= each.value <= high]
    if inside:
        return f"The ratio to the {inside[0]} lies within its numbers, on its own task."
    return "The ratios measured here lie on both sides of that band, on their own task."


def _time_table(held: Json, rows: Sequence[tuple[str, str, Interval]]) -> Markup:
    spent, pairs = held.get("seconds") or {}, number(held.get("pairs"))
    by_form = {form: each for form, _, each in rows}
    cells = []
    for form in dict.fromkeys(["match", *(str(form) for form in spent), *by_form]):
        took = number(spent.get(form))
        rate = f"{decimal(pairs / took / 1e6, 1)}" if pairs and took else ABSENT
        each = by_form.get(form)
        cells.append(
            [
                _FORMS.get(form, form.replace("_", " ")),
                seconds(took),
                rate,
                ratio(each.value) if each else ABSENT,
                bounds(each, 1, 2) or ABSENT if each else ABSENT,
            ]
        )
    columns = [
        Column("form", False),
        *map(Column, ("time", "M pairs/s", "÷ match", "interval")),
    ]
    rounds = held.get("rounds")
    said = f"Median of {count(rounds)} interleaved rounds" if rounds else "Times"
    return table(f"{said}, the same work in each form", columns, cells)
