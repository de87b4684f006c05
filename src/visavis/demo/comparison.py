"""One-to-one beside campaigns on the demo's hold-out: arms, sensitivity, calibration, times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.demo.dataset import WINDOW_DAYS, Purchases
from visavis.demo.declared import declare_catalog
from visavis.demo.held_out import plain_engine
from visavis.demo.quality import calibration_figures
from visavis.engine import Engine
from visavis.evaluate import Outcomes, compare_times, evaluate, outcomes_of, sensitivity

__all__ = ["Comparison", "compare"]

#: What the sensitivity table varies: the cut, days after it, contacts per customer. Two cuts of the
#: four known, for each setting scores every pair again.
SENSITIVITY_CUTS: Final = 2
SENSITIVITY_WINDOWS: Final = (14, 28)
SENSITIVITY_CONTACTS: Final = (3, 5, 10)
SENSITIVITY_ARMS: Final = ("A2", "A2w", "B", "A1", "G")

#: Rounds of the timing beside each other.
TIMED_ROUNDS: Final = 3

#: The pandas loop, the slowest by far, is timed on so many campaigns, spread evenly, and scaled up
#: to all, which the note says.
TIMED_CAMPAIGNS: Final = 300

#: What is said of the two settings of the comparison.
_POLICY_RULES: Final = "under the policy: rules, consent, costs, limits, cool-downs"
_PLAIN_RULES: Final = "plain: no rule, no consent, no cost, so that only the ranking is compared"

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Comparison:
    """What the report shows of the comparison.

    Attributes
    ----------
    under_policy : dict
        All arms under the demo's policy, ranked by expected value.
    by_propensity, by_value : dict
        All arms without rules, consent and costs, ranked by propensity (every product worth the
        same) and by expected value.
    sensitivity : list of dict
        The declared, untuned score at other cuts, windows and numbers of contacts.
    calibration : dict
    timing : dict
    """

    under_policy: dict[str, Any]
    by_propensity: dict[str, Any]
    by_value: dict[str, Any]
    sensitivity: list[dict[str, Any]]
    calibration: dict[str, Any]
    timing: dict[str, Any]


def compare(
    purchases: Purchases,
    engine: Engine,
    bases: Mapping[date, Base],
    *,
    rounds: int = TIMED_ROUNDS,
    tick: Tick = lambda *_: None,
) -> Comparison:
    """Compare one-to-one with campaigns on what was bought after the cut.

    Parameters
    ----------
    purchases : Purchases
    engine : Engine
        With the learned catalog, under the demo's policy.
    bases : mapping of date to Base
        As of the cut and of those before it.
    rounds : int
        Of the timing.
    tick : callable
        Called with (steps done, steps in all).
    """
    steps = 6
    learned = plain_engine(engine, engine.catalog)
    worth = plain_engine(engine, engine.catalog, by="expected_value")
    outcomes = _outcomes(purchases, engine.base, learned.catalog, WINDOW_DAYS)
    tick(0, steps)
    offered = _outcomes(purchases, engine.base, engine.catalog, WINDOW_DAYS)
    under_policy = _ruled(evaluate(engine, offered).to_dict(), _POLICY_RULES)
    tick(1, steps)
    by_propensity = _ruled(evaluate(learned, outcomes, by="propensity").to_dict(), _PLAIN_RULES)
    tick(2, steps)
    by_value = _ruled(evaluate(worth, outcomes).to_dict(), _PLAIN_RULES)
    tick(3, steps)
    last = max(cut for cut in bases if cut < engine.as_of)
    calibration = calibration_figures(
        purchases,
        learned,
        _declared(purchases, engine, bases[engine.as_of]),
        _declared(purchases, engine, bases[last]),
    )
    tick(4, steps)

    def make_world(cut: date, window_days: int) -> tuple[Engine, Outcomes]:
        world = _declared(purchases, engine, bases[cut])
        return world, _outcomes(purchases, world.base, world.catalog, window_days)

    varied = sensitivity(
        make_world,
        sorted(bases)[-SENSITIVITY_CUTS:],
        SENSITIVITY_WINDOWS,
        SENSITIVITY_CONTACTS,
        by="propensity",
        arms=SENSITIVITY_ARMS,
    )
    tick(5, steps)
    timing = compare_times(engine, rounds=rounds, campaigns_max=TIMED_CAMPAIGNS)
    tick(steps, steps)
    return Comparison(under_policy, by_propensity, by_value, varied, calibration, timing)


def _ruled(evaluation: dict[str, Any], rules: str) -> dict[str, Any]:
    """Say under which rules an evaluation compares."""
    return {**evaluation, "setting": {**evaluation["setting"], "rules": rules}}


def _declared(purchases: Purchases, engine: Engine, base: Base) -> Engine:
    """The plain setting with declared weights, as of a base's day."""
    catalog = declare_catalog(purchases.products(base.as_of), base.indicator_names)
    return plain_engine(engine, catalog, base=base)


def _outcomes(purchases: Purchases, base: Base, catalog: Catalog, window_days: int) -> Outcomes:
    table = purchases.table.select(["customer_id", "product", "date", "cents"])
    return outcomes_of(table, base, catalog, window_days=window_days)
