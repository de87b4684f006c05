"""What a match costs against N, M, D, k and eligibility: a table each, and one picture of all.

The picture is drawn to build/bench/kernel-costs.png when matplotlib is installed::

    make bench BENCH_ARGS='-k costs -s'
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from kernel_worlds import ROWS, THREADS, VARIANT, match_all, say, timed, world
from visavis import kernel

OUT = Path("build/bench")
ROUNDS = 5
PLAIN = {"n": 16_384, "m": 10_240, "d": 128, "rate": 0.5, "k": 10}
AXES = {
    "n": ("customers", [1, 16, 256, 4_096, 16_384, 65_536]),
    "m": ("capabilities", [100, 1_000, 10_240, 102_400]),
    "d": ("indicators", [8, 32, 128, 512, 2_048]),
    "k": ("k", [1, 10, 100, 1_000]),
    "rate": ("share of pairs eligible", [0.01, 0.1, 0.5, 1.0]),
}


def test_costs(benchmark, capsys):
    tables = {axis: [measured(axis, value) for value in AXES[axis][1]] for axis in AXES}
    variant = kernel.choose_variant(VARIANT)
    for axis, (name, values) in AXES.items():
        rows = [
            f"| {value:,} | {cost.microseconds:,.2f} | {cost.rate:.2f} | {cost.verified:,.0f} |"
            for value, cost in zip(values, tables[axis], strict=True)
        ]
        head = f"| {name} | µs a customer, one thread | G pairs/s, all | verified a customer |"
        say(
            capsys,
            "\n".join(
                [f"{variant}, where not varied {PLAIN}:", head, "|---:|---:|---:|---:|", *rows]
            ),
        )
    if importlib.util.find_spec("matplotlib") is None:
        say(capsys, "no picture: matplotlib is not installed")
    else:
        say(capsys, f"drawn: {draw(tables, variant)}")
    given = world(**PLAIN)
    benchmark.pedantic(match_all, (given, given.pack()), rounds=1)


class Cost:
    """The median of some rounds."""

    def __init__(self, given, seconds, verified):
        threads = min(THREADS, -(-len(given.x) // ROWS))
        self.microseconds = seconds * threads / len(given.x) * 1e6
        self.rate = given.pairs / seconds / 1e9
        self.verified = verified / len(given.x)


def measured(axis, value):
    """One point: what differs from PLAIN is `axis`."""
    asked = {**PLAIN, axis: value}
    # Large catalogs and long rows with fewer customers: a point takes about a second.
    scale = asked["m"] * asked["d"] / (PLAIN["m"] * PLAIN["d"])
    if axis != "n" and scale > 1.0:
        asked["n"] = max(2 * ROWS, int(PLAIN["n"] / scale))
    given = world(**asked)
    panel = given.pack()
    results = match_all(given, panel)
    seconds = np.median([timed(match_all, given, panel) for _ in range(ROUNDS)])
    return Cost(given, seconds, sum(result.stats["verified"] for result in results))


def draw(tables, variant):
    """Five panels: microseconds a customer against each axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(tables), figsize=(16, 3.6), sharey=True, layout="constrained"
    )
    for panel, (axis, costs) in zip(axes, tables.items(), strict=True):
        name, values = AXES[axis]
        panel.loglog(values, [cost.microseconds for cost in costs], marker="o", color="#1b6ca8")
        panel.set_xlabel(name)
        panel.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
        panel.minorticks_off()
        panel.grid(visible=True, color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("µs a customer, one thread")
    ticks = [1, 3, 10, 30, 100, 300]
    axes[0].set_yticks(ticks, [str(tick) for tick in ticks])
    plain = ", ".join(f"{AXES[axis][0]} {value:,}" for axis, value in PLAIN.items())
    figure.suptitle(f"Cost of a match, variant {variant}; where not varied: {plain}", fontsize=10)
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / "kernel-costs.png", dpi=110)
    plt.close(figure)
    return OUT / "kernel-costs.png"
