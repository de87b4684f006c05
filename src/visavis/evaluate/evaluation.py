"""The comparison: every arm on the same scores, rules and budget, measured on what was bought."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from visavis.domain import parse_date
from visavis.engine import Engine
from visavis.engine.blocks import check_count
from visavis.errors import InputError, SchemaError
from visavis.evaluate import arms as arm
from visavis.evaluate.arms import CAMPAIGN_SHARE, Contacts
from visavis.evaluate.figures import ArmFigures, Difference, Evaluation
from visavis.evaluate.metrics import COLUMNS, CONFIDENCE, Resampled, Tally, rate, tally
from visavis.evaluate.outcomes import Outcomes, bought_pairs, check_popularity, popularity_from
from visavis.evaluate.scored import By, Float64, Int64, PairScores
from visavis.evaluate.segments import SEGMENT_COUNT
from visavis.policy import K_MAX

__all__ = ["ARMS", "evaluate", "sensitivity"]

#: Called with (arms done, arms in all).
Progress: TypeAlias = Callable[[int, int], None]

CAPPED: Final = "at most k per customer"
UNCAPPED: Final = "no cap"

#: Name, label, contact policy; in the order in which they are reported.
_ARMS: Final = {
    "A0": ("the same k to everyone", CAPPED),
    "A1": ("campaigns, each to its best {share}", UNCAPPED),
    "A2": ("campaigns, each to its best {share} who have room", CAPPED),
    "A2w": ("campaigns in waves, each to fixed lists of {share}", CAPPED),
    "A3": ("equal slots per product", UNCAPPED),
    "A4": ("equal slots per product, to those who have room", CAPPED),
    "S": ("segments: the best k of the average member", CAPPED),
    "B": ("every customer's own k", CAPPED),
    "G": ("the best of all pairs", UNCAPPED),
    "G_cap": ("the best of all pairs under a cap", CAPPED),
}

#: The names of all arms.
ARMS: Final = tuple(_ARMS)

#: Who is compared with whom: always within one contact policy.
_AGAINST: Final = {
    "B": ("A0", "A2", "A2w", "A4", "S", "G_cap"),
    "G": ("A1", "A3"),
}


@dataclass(frozen=True, eq=False)
class _Setting:
    """What all arms share."""

    scored: PairScores
    popularity: Float64
    bought: tuple[Int64, Int64]
    k: int
    cap: int
    share: float
    seed: int

    @property
    def budget(self) -> int:
        return self.k * self.scored.customer_count

    def contacts_of(self, name: str) -> Contacts:
        scored, popularity, k, share = self.scored, self.popularity, self.k, self.share
        made: dict[str, Callable[[], Contacts]] = {
            "A0": lambda: arm.same_for_all(scored, popularity, k=k),
            "A1": lambda: arm.campaigns(scored, popularity, k=k, cap=None, share=share),
            "A2": lambda: arm.campaigns(scored, popularity, k=k, cap=k, share=share),
            "A2w": lambda: arm.campaigns_in_waves(scored, popularity, k=k, cap=k, share=share),
            "A3": lambda: arm.equal_slots(scored, popularity, k=k, cap=None),
            "A4": lambda: arm.equal_slots(scored, popularity, k=k, cap=k),
            "S": lambda: arm.segments(scored, k=k, segment_count=SEGMENT_COUNT, seed=self.seed),
            "B": lambda: arm.one_to_one(scored, k=k),
            "G": lambda: arm.global_best(scored, k=k),
            "G_cap": lambda: arm.global_best(scored, k=k, cap=self.cap),
        }
        return made[name]()

    def label(self, name: str) -> str:
        return _ARMS[name][0].format(share=f"{100 * self.share:g} %")

    def contact_policy(self, name: str) -> str:
        if name == "G_cap" and self.cap != self.k:
            return f"at most {self.cap} per customer"
        return _ARMS[name][1]


def evaluate(
    engine: Engine,
    outcomes: Outcomes,
    *,
    popularity: npt.ArrayLike | None = None,
    by: By = "expected_value",
    arms: Sequence[str] = ARMS,
    cap: int | None = None,
    share: float = CAMPAIGN_SHARE,
    bootstrap: int = 1_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """What every arm would have captured of what customers bought in the window.

    The customers are those who may be matched: nobody who objected is contacted by any arm, and
    what they bought counts nowhere. Customers of the control group take part, as nothing is sent.

    Parameters
    ----------
    engine : Engine
        Scores, eligibility and limits; the policy's k is the number of contacts per customer.
    outcomes : Outcomes
        Of the engine's base, catalog and as_of; see `outcomes_of`.
    popularity : array_like of shape (m,), optional
        What campaigns are ordered by, descending, then capability id; default: `popularity_of`.
    by : {"expected_value", "propensity"}
        What ranks, in all arms; see `PairScores`.
    arms : sequence of str
        Some of `ARMS`.
    cap : int, optional
        The cap of arm G_cap, at least k; default: 2 k. With k, G_cap is B.
    share : float
        Campaigns go to their best so many of all customers, in (0, 1].
    bootstrap : int
        Draws of customers for the intervals; 0 = no intervals.
    seed : int
        Of the draws and of k-means.
    progress : callable, optional
        Called with (arms done, arms in all).

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Naming the argument, and the row.
    """
    check_count(bootstrap, "bootstrap", 0)
    check_count(seed, "seed", 0)
    outcomes.check_fits(engine)
    started = time.perf_counter()
    setting = _setting(engine, popularity, by, engine.policy.k, cap, share, seed)
    setting.scored.prepare()
    seconds = {"scores": time.perf_counter() - started}
    return _evaluate(setting, outcomes, _check_arms(arms), bootstrap, seconds, progress)


def sensitivity(
    make_world: Callable[[date, int], tuple[Engine, Outcomes]],
    cuts: Sequence[date | str],
    windows: Sequence[int],
    contacts: Sequence[int],
    *,
    by: By = "expected_value",
    arms: Sequence[str] = ARMS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The same comparison at other cut dates, windows and contacts per customer.

    Parameters
    ----------
    make_world : callable
        (as_of, window_days) → (Engine, Outcomes), made from what is known up to as_of.
    cuts : sequence of date or str
    windows : sequence of int
        Days.
    contacts : sequence of int
        Contacts per customer; they take the place of the policy's k.
    by, arms, seed
        As in `evaluate`.
    progress : callable, optional
        Called with (settings done, settings in all).

    Returns
    -------
    list of dict
        as_of, window_days, contacts_per_customer, arm, hit_rate, spend_share: a row per setting and
        arm, without intervals.
    """
    names = _check_arms(arms)
    days = [parse_date(cut, field="cuts") for cut in cuts]
    for window in windows:
        check_count(window, "windows", 1)
    for k in contacts:
        _check_k(k)
    rows, done_count = [], 0
    for day in days:
        for window in windows:
            engine, outcomes = make_world(day, window)
            outcomes.check_fits(engine)
            shared = _setting(engine, None, by, contacts[0], None, CAMPAIGN_SHARE, seed)
            for k in contacts:
                setting = replace(shared, k=k, cap=2 * k)
                found = _evaluate(setting, outcomes, names, 0, {}, None)
                rows += [
                    {
                        "as_of": day.isoformat(),
                        "window_days": window,
                        "contacts_per_customer": k,
                        "arm": figures.name,
                        "hit_rate": figures.hit_rate.value,
                        "spend_share": figures.spend_share.value,
                    }
                    for figures in found.arms
                ]
                done_count += 1
                if progress is not None:
                    progress(done_count, len(days) * len(windows) * len(contacts))
    return rows


def _setting(
    engine: Engine,
    popularity: npt.ArrayLike | None,
    by: By,
    k: int,
    cap: int | None,
    share: float,
    seed: int,
) -> _Setting:
    if not 0.0 < share <= 1.0:
        raise InputError(f"must lie in (0, 1], got {share}", field="share")
    scored = PairScores(engine, by)
    if not scored.customer_count:
        raise InputError("leaves nobody who may be contacted", field="engine")
    bought = bought_pairs(engine)
    order = (
        popularity_from(bought, engine.catalog)
        if popularity is None
        else check_popularity(popularity, scored.capability_count)
    )
    cap = 2 * k if cap is None else check_count(cap, "cap", k)
    return _Setting(scored, order, bought[:2], k, cap, share, seed)


def _evaluate(
    setting: _Setting,
    outcomes: Outcomes,
    names: Sequence[str],
    bootstrap: int,
    seconds: dict[str, float],
    progress: Progress | None,
) -> Evaluation:
    scored = setting.scored
    engine = scored.engine
    contacts, tallies = {}, {}
    for done, name in enumerate(names):
        started = time.perf_counter()
        contacts[name] = setting.contacts_of(name)
        tallies[name] = tally(
            contacts[name], outcomes, engine.catalog, scored.customer_index, setting.bought
        )
        seconds[name] = time.perf_counter() - started
        if progress is not None:
            progress(done + 1, len(names))
    spent = _spent_per_customer(outcomes, scored)
    columns = [spent[:, None], *(tallies[name].per_customer for name in names)]
    sums = Resampled.of(np.concatenate(columns, axis=1), bootstrap, setting.seed)
    figures = _Figures(sums, {name: place for place, name in enumerate(names)})
    return Evaluation(
        setting={
            "as_of": engine.as_of.isoformat(),
            "window_days": outcomes.window_days,
            "contacts_per_customer": setting.k,
            "customer_count": scored.customer_count,
            "capability_count": scored.capability_count,
            "budget": setting.budget,
            "by": scored.by,
            "cap": setting.cap,
            "campaign_share": setting.share,
            "confidence": CONFIDENCE,
            "bootstrap": bootstrap,
            "seed": setting.seed,
        },
        arms=tuple(figures.of_arm(setting, name, contacts[name], tallies[name]) for name in names),
        differences=tuple(
            figures.difference(name, against, setting.contact_policy(against))
            for name, others in _AGAINST.items()
            for against in others
            if name in names
            and against in names
            and setting.contact_policy(name) == setting.contact_policy(against)
        ),
        seconds=seconds,
    )


@dataclass(frozen=True, eq=False)
class _Figures:
    """Figures of arms from the sums of their columns; column 0 is what all customers spent."""

    sums: Resampled
    place: dict[str, int]

    def of_arm(
        self, setting: _Setting, name: str, contacts: Contacts, counted: Tally
    ) -> ArmFigures:
        """Everything that is said of one arm."""
        spend = self.sums.interval(lambda sums: self._column(sums, name, "cents") / 100)
        return ArmFigures(
            name=name,
            label=setting.label(name),
            contact_policy=setting.contact_policy(name),
            contacts=contacts,
            tally=counted,
            hit_rate=self.sums.interval(lambda sums: self._per_contact(sums, name, "hits")),
            spend=spend,
            spend_share=self.sums.interval(lambda sums: self._share(sums, name)),
            never_bought_hit_rate=self.sums.interval(
                lambda sums: self._per_contact(sums, name, "new_hits")
            ),
        )

    def difference(self, name: str, against: str, contact_policy: str) -> Difference:
        """One arm minus another."""
        return Difference(
            name,
            against,
            contact_policy,
            self.sums.interval(
                lambda sums: (
                    self._per_contact(sums, name, "hits") - self._per_contact(sums, against, "hits")
                )
            ),
            self.sums.interval(lambda sums: self._share(sums, name) - self._share(sums, against)),
        )

    def _column(self, sums: Float64, name: str, column: str) -> Float64:
        return sums[..., 1 + self.place[name] * len(COLUMNS) + COLUMNS.index(column)]

    def _per_contact(self, sums: Float64, name: str, column: str) -> Float64:
        return rate(self._column(sums, name, column), self._column(sums, name, "contacts"))

    def _share(self, sums: Float64, name: str) -> Float64:
        return rate(self._column(sums, name, "cents"), sums[..., 0])


def _spent_per_customer(outcomes: Outcomes, scored: PairScores) -> Int64:
    spent = np.zeros(outcomes.customer_count, dtype=np.int64)
    np.add.at(spent, outcomes.customer_index, outcomes.cents)
    return spent[scored.customer_index]


def _check_arms(arms: Sequence[str]) -> tuple[str, ...]:
    if isinstance(arms, str) or not arms:
        raise SchemaError(f"must be a list of some of {', '.join(ARMS)}", field="arms")
    for row, name in enumerate(arms):
        if name not in ARMS:
            raise InputError(f"is none of {', '.join(ARMS)}: {name!r}", field="arms", row=row)
    if len(set(arms)) < len(arms):
        raise InputError("must not repeat an arm", field="arms")
    return tuple(arms)


def _check_k(k: int) -> None:
    check_count(k, "contacts", 1)
    if k > K_MAX:
        raise InputError(f"must be at most {K_MAX}, got {k}", field="contacts")
