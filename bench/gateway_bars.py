"""The bars of the gateway beside what was seen, and the picture of latency against load."""

from __future__ import annotations

import importlib.util
import operator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from gateway_servers import Load

OUT = Path("build/bench")

Relation = Literal["≤", "≥"]

_HOLDS: Final = {"≤": operator.le, "≥": operator.ge}


class Bar(NamedTuple):
    """A figure that is asked for.

    Attributes
    ----------
    what : str
    relation : str
        How what was seen must stand to the numbers: ≤ or ≥.
    must, aim : float or None
    unit : str
    """

    what: str
    relation: Relation
    must: float | None
    aim: float | None = None
    unit: str = ""

    def row(self, seen: float | str) -> str:
        """A row of the table: a number is judged, a text says why there is none."""
        asked = [
            "" if number is None else f"{self.relation} {number:,g}{self.unit}"
            for number in (self.must, self.aim)
        ]
        if isinstance(seen, str):
            return f"| {self.what} | {' | '.join(asked)} | {seen} | not measured |"
        found = f"{seen:,.4g}" if abs(seen) < 1_000 else f"{seen:,.0f}"
        return f"| {self.what} | {' | '.join(asked)} | {found}{self.unit} | {self.verdict(seen)} |"

    def verdict(self, seen: float) -> str:
        """How it stands."""
        holds = _HOLDS[self.relation]
        if self.aim is not None and holds(seen, self.aim):
            return "aim met"
        if self.must is None:
            return "aim missed"
        if not holds(seen, self.must):
            return "missed"
        return "met" if self.aim is None else "met, aim missed"


HEAD = "| what | must | aim | seen | |\n|---|---:|---:|---:|---|"

PROCESSOR = Bar("server CPU per MatchCustomer beyond an echo", "≤", 200, 100, " µs")
MEDIAN = Bar("p50 at half capacity", "≤", 2, 1, " ms")
TAIL = Bar("p99 at half capacity", "≤", 10, 5, " ms")
ANSWERED = Bar("share of calls that are OK at half capacity", "≥", 1.0)
BATCH = Bar("batches of 1,000: customers/s", "≥", 100_000)
BESIDE_KERNEL = Bar("batches of 1,000: share of the kernel alone", "≥", None, 0.5)
RESULTS = Bar("ReadResults", "≥", 0.5, 0.8, " GB/s")
ONE_GOODPUT = Bar("unary at 1.3 × capacity: goodput / capacity", "≥", 0.8)
ONE_MEMORY = Bar("unary at 1.3 × capacity: memory, most / before", "≤", 1.1)
NEIGHBOUR = Bar("beside milvus-lite: customers/s, times", "≥", 50, 100)


def overload_bars(size: int, times: float, *, heeds: bool) -> tuple[Bar, Bar, Bar]:
    """Goodput, latency and memory of batches beyond what the server can do.

    Parameters
    ----------
    size : int
        Customers of a batch.
    times : float
        Its capacity.
    heeds : bool
        Whether callers hold back when they are refused.
    """
    callers = "held back as by visavis.Client" if heeds else "callers heed nothing"
    name = f"batches of {size:,} at {times:g} × capacity, {callers}"
    return (
        Bar(f"{name}: goodput / peak", "≥", 0.9),
        Bar(f"{name}: p99 of accepted / p99 at 0.8 ×", "≤", 3.0),
        Bar(f"{name}: memory, most / before", "≤", 1.1),
    )


def draw(loads: list[Load], capacity: float, title: str) -> str:
    """p50, p99 and goodput against the offered load; where it was drawn, or why not."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture: matplotlib is not installed"
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    offered = [load.plan.rate for load in loads]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, layout="constrained", height_ratios=[3, 2]
    )
    for percentile, colour in (("50", "#1b6ca8"), ("99", "#c8553d")):
        latency = [load.latency_ms.get(percentile, float("nan")) for load in loads]
        above.plot(offered, latency, marker="o", color=colour, label=f"p{percentile}")
    above.set_yscale("log")
    above.yaxis.set_major_formatter("{x:g}")
    above.set_ylabel("ms from the intended time to OK")
    below.plot(offered, [load.goodput for load in loads], marker="o", color="#3a7d44")
    below.plot(offered, offered, color="#999999", linestyle=":", label="all that is offered")
    below.set_ylim(0, 1.15 * max(load.goodput for load in loads))
    below.set_ylabel("OK answers a second")
    below.set_xlabel("MatchCustomer calls a second, offered")
    for panel in (above, below):
        panel.axvline(capacity, color="#999999", linestyle="--", label="capacity, closed-loop")
        panel.grid(visible=True, color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / "gateway-load.png", dpi=110)
    plt.close(figure)
    return f"drawn: {OUT / 'gateway-load.png'}"
