"""The most that a server answers, and loads beyond that."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from gateway_load import Plan
from gateway_servers import Generator, Load, Server

CONCURRENCY_MAX = int(os.environ.get("BENCH_CONCURRENCY", "128"))
#: A capacity is found once a doubling of callers brings less than this.
GAIN = 1.02
#: Where no call ends in a look that short, it is made longer, up to this.
SEARCH_MAX_S = 60.0


def search(load: Generator, server: Server, plan: Plan, tell: Callable[[str], None]) -> Load:
    """A closed-loop load of as many callers as bring most: they are doubled while it helps."""
    best: Load | None = None
    concurrency, short = 1, replace(plan, seconds=plan.seconds / 2, settle_s=plan.settle_s / 2)
    while concurrency <= CONCURRENCY_MAX:
        found = look(load, server, replace(short, concurrency=concurrency))
        tell(f"{concurrency} callers of {plan.batch:,} customers: {found.text()}")
        short = found.plan
        if best is None or found.goodput > GAIN * best.goodput:
            best = found
        elif concurrency >= 8 * best.plan.concurrency:
            # Three levels without gain: one may be noise.
            break
        concurrency *= 2
    assert best is not None
    # The best of some looks is a lucky one: what counts is seen anew, and for longer.
    return look(load, server, replace(plan, concurrency=best.plan.concurrency))


def look(load: Generator, server: Server, plan: Plan) -> Load:
    """A closed-loop load for as long as it takes to see a call answered."""
    while True:
        found = load.drive(server, plan)
        assert set(found.codes) <= {"OK", "RESOURCE_EXHAUSTED"}, found.codes
        if found.goodput:
            return found
        plan = replace(plan, seconds=2 * plan.seconds)
        assert plan.seconds < SEARCH_MAX_S, "no call is answered"


class Beyond(NamedTuple):
    """A load, and the peak before and after it.

    Attributes
    ----------
    load : Load
    peak : float
        OK answers a second.
    """

    load: Load
    peak: float

    @property
    def goodput_share(self) -> float:
        """What was answered, as a share of the peak."""
        return self.load.goodput / self.peak


def beyond_peaks(
    offer: Callable[..., Load],
    peak: Callable[[], Load],
    plan: Plan,
    loads: list[tuple[float, bool]],
) -> list[Beyond]:
    """Loads of so many times the peak that was seen before each; it is seen after each, too.

    A shared machine may be half as fast a minute later: what is compared must be seen together.

    Parameters
    ----------
    offer : callable
        Puts an open-loop plan on the server, at a rate.
    peak : callable
        Looks at it anew.
    plan : Plan
    loads : list of (float, bool)
        How many times the peak, and whether callers hold back.
    """
    before, found = peak().goodput, []
    for over, heeds in loads:
        load = offer(replace(plan, heeds=heeds), before * over, times=2)
        after = peak().goodput
        found.append(Beyond(load, (before + after) / 2))
        before = after
    return found
