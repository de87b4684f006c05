"""What the same work takes: the campaign loop in numpy and pandas, the batched product, the match.

The work is every customer against every capability, with eligibility, history, limits and k. What
the forms share (history, bit planes, the packed panel) is prepared beforehand and charged to none.
The campaign loops and the batched product use float32 products and numpy's own exp, as a script
would; only the match is exact. On few customers the loops, and pandas most, are bound by what each
call costs and not by the arithmetic: a ratio holds for the size that it was measured at.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from visavis.campaign import run_campaigns
from visavis.domain import Link
from visavis.engine import Engine
from visavis.engine.blocks import check_count, history_of
from visavis.errors import InputError
from visavis.evaluate.arms import CAMPAIGN_SHARE
from visavis.evaluate.scored import Bools, Float64, Group, Int64, PairScores, walk

__all__ = ["FORMS", "compare_times"]

NUMPY_LOOP: Final = "campaigns_numpy"
PANDAS_LOOP: Final = "campaigns_pandas"
BATCHED: Final = "batched_blas"
MATCH: Final = "match"

#: In the order in which each round runs them.
FORMS: Final = (NUMPY_LOOP, PANDAS_LOOP, BATCHED, MATCH)

#: Rows of one batched product, as in the match; its result stays below so many cells, 32 MiB.
_BLOCK_ROWS: Final = 4_096
_BLOCK_CELLS: Final = 1 << 23


def compare_times(
    engine: Engine,
    *,
    rounds: int = 5,
    share: float = CAMPAIGN_SHARE,
    campaigns_max: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time the forms by turns, so that a busy moment of the machine strikes all of them.

    Parameters
    ----------
    engine : Engine
    rounds : int
        Each round runs every form once; one more round before them is not counted.
    share : float
        Each campaign goes to this share of the customers.
    campaigns_max : int, optional
        The pandas loop runs only so many campaigns, spread evenly over the catalog, and its time is
        scaled up to all, which the note says; default: all.
    progress : callable, optional
        Called with (runs done, runs in all).

    Returns
    -------
    dict
        ``rounds``; ``pairs`` (customers × capabilities); ``seconds`` (median by form);
        ``ratio_to_match`` (by form: ``value``, the median of the ratios of each round, and
        ``low`` and ``high``, their quartiles); ``extrapolated`` (forms, and from how many
        campaigns); ``skipped`` (forms, and why); ``note``.
    """
    check_count(rounds, "rounds", 1)
    m = engine.catalog.capability_count
    ran = m if campaigns_max is None else min(m, check_count(campaigns_max, "campaigns_max", 1))
    work = _Work.of(engine, share)
    scale = m / ran
    sample = np.unique(np.linspace(0, m - 1, ran).astype(np.int64))
    forms: dict[str, Callable[[], float]] = {
        NUMPY_LOOP: lambda: run_campaigns(engine, share=share).seconds,
        PANDAS_LOOP: lambda: _timed(lambda: _pandas_loop(work, sample)) * scale,
        BATCHED: lambda: _timed(lambda: _batched(work)),
        MATCH: lambda: _timed(engine.match),
    }
    skipped = {}
    if importlib.util.find_spec("pandas") is None:
        skipped[PANDAS_LOOP] = "pandas is not installed"
        del forms[PANDAS_LOOP]
    spent: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(rounds + 1):
        for place, (name, run) in enumerate(forms.items()):
            spent[name].append(run())
            if progress is not None:
                progress(turn * len(forms) + place + 1, (rounds + 1) * len(forms))
    return _figures(engine, spent, skipped, ran)


def _figures(
    engine: Engine, spent: dict[str, list[float]], skipped: dict[str, str], ran: int
) -> dict[str, Any]:
    measured = {name: np.array(each[1:]) for name, each in spent.items()}
    ratios = {name: each / measured[MATCH] for name, each in measured.items()}
    quartiles = {name: np.quantile(each, [0.25, 0.5, 0.75]) for name, each in ratios.items()}
    n, m = len(engine.customer_index), engine.catalog.capability_count
    extrapolated = {PANDAS_LOOP: ran} if ran < m and PANDAS_LOOP in measured else {}
    rounds = len(measured[MATCH])
    note = (
        f"{n:,} customers × {m:,} capabilities, medians of {rounds} rounds by turns, ratios with "
        f"their quartiles; the match on {engine.threads} threads, the others as numpy and pandas "
        "thread by themselves; preparation is charged to none."
    )
    if extrapolated:
        note += f" The pandas loop ran {ran:,} of {m:,} campaigns and is scaled up to all."
    for name, reason in skipped.items():
        note += f" {name} was skipped: {reason}."
    return {
        "rounds": rounds,
        "pairs": n * m,
        "seconds": {name: float(np.median(each)) for name, each in measured.items()},
        "ratio_to_match": {
            name: {"value": float(middle), "low": float(low), "high": float(high)}
            for name, (low, middle, high) in quartiles.items()
        },
        "extrapolated": extrapolated,
        "skipped": skipped,
        "note": note,
    }


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class _Work:
    """What a script finds prepared: its inputs as plain arrays, customers by position."""

    engine: Engine
    groups: tuple[Group, ...]
    x: npt.NDArray[np.float32]
    planes: npt.NDArray[np.uint64]
    #: Adjustments by customer, and the same by capability: bounds, the other index, adjustment.
    by_customer: tuple[Int64, Int64, Float64]
    by_capability: tuple[Int64, Int64, Float64]
    size: int

    @classmethod
    def of(cls, engine: Engine, share: float) -> _Work:
        """Prepare everything, the match's own part included."""
        if not 0.0 < share <= 1.0:
            raise InputError(f"must lie in (0, 1], got {share}", field="share")
        rows, m = engine.customer_index, engine.catalog.capability_count
        if not len(rows):
            raise InputError("leaves nobody who may be contacted", field="engine")
        engine.prepare()
        own = history_of(engine.history, rows)
        held = slice(own.indptr[0], own.indptr[-1])
        position = np.repeat(np.arange(len(rows)), np.diff(own.indptr))
        capability = own.capability_index[held].astype(np.int64)
        adjustment = own.adjustment[held].astype(np.float64)
        order = np.argsort(capability, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(capability, minlength=m))])
        return cls(
            engine=engine,
            groups=PairScores(engine).groups,
            x=np.ascontiguousarray(engine.base.indicators[rows]),
            planes=engine.eligibility.planes[rows],
            by_customer=(own.indptr - own.indptr[0], capability, adjustment),
            by_capability=(first, position[order], adjustment[order]),
            size=max(1, int(share * len(rows))),
        )

    @property
    def least(self) -> float:
        ev_min = self.engine.policy.ev_min
        return -np.inf if ev_min is None else ev_min

    def may_meet(self, rows: slice, capabilities: npt.NDArray[np.integer]) -> Bools:
        """Who is eligible for what, shape (rows, capabilities)."""
        index = self.engine.eligibility.plane_index[capabilities]
        place = np.maximum(index, 0)
        bits = self.planes[rows][:, place // 64] >> (place % 64).astype(np.uint64)
        return np.asarray((bits & np.uint64(1)).astype(np.bool_) | (index < 0))

    def worth(self, z: Float64, capabilities: slice) -> Float64:
        """Expected values by numpy's own functions; z of shape (rows, capabilities), −inf stays."""
        catalog = self.engine.catalog
        links = catalog.link[capabilities]
        g = z
        if (links == Link.COUNT).all():
            g = np.logaddexp(0.0, z)
        elif (links == Link.LOGISTIC).all():
            g = 1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0)))
        elif not (links == Link.IDENTITY).all():
            g = np.where(links == Link.COUNT, np.logaddexp(0.0, z), z)
            sigma = 1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0)))
            g = np.where(links == Link.LOGISTIC, sigma, g)
        with np.errstate(invalid="ignore"):
            ev = g * catalog.value[capabilities] - catalog.cost[capabilities]
        ev[np.isneginf(z)] = -np.inf
        return np.asarray(ev)


def _pandas_loop(work: _Work, campaigns: Int64) -> int:
    """Campaign after campaign as a script in pandas: score, filter, sort, send; contacts sent."""
    import pandas as pd  # type: ignore[import-untyped]  # optional, and its stubs with it

    engine = work.engine
    catalog, everyone = engine.catalog, slice(None)
    first, positions, adjustments = work.by_capability
    total = pd.Series(0, index=np.arange(len(work.x)))
    sent_by_label: list[dict[int, pd.Series]] = [{} for _ in work.groups]
    for j in campaigns.tolist():
        z = (work.x @ engine.weights[j] + catalog.bias[j]).astype(np.float64)
        own = slice(first[j], first[j + 1])
        z[positions[own]] += adjustments[own]
        frame = pd.DataFrame(
            {
                "ev": work.worth(z[:, None], slice(j, j + 1))[:, 0],
                "may_meet": work.may_meet(everyone, np.array([j]))[:, 0],
                "room": total < engine.policy.k,
            }
        )
        held = frame[frame["may_meet"] & (frame["ev"] >= work.least) & (frame["ev"] > -np.inf)]
        best = held.sort_values("ev", ascending=False).head(work.size)
        sent = best.index[best["room"]]
        counts = []
        for group, labels in zip(work.groups, sent_by_label, strict=True):
            count = labels.setdefault(int(group.codes[j]), pd.Series(0, index=total.index))
            sent = sent[count.loc[sent] < group.limit]
            counts.append(count)
        for count in (total, *counts):
            count.loc[sent] += 1
    return int(total.sum())


def _batched(work: _Work) -> int:
    """Blocks of customers by one matrix product each, then the best of each row; contacts."""
    engine, policy = work.engine, work.engine.policy
    m = engine.catalog.capability_count
    indptr, capabilities, adjustments = work.by_customer
    everything, all_of_them = np.arange(m), slice(None)
    wanted = min(m, max(4 * policy.k, 32) if work.groups else policy.k)
    size = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // m))
    contact_count = 0
    for begin in range(0, len(work.x), size):
        rows = slice(begin, min(begin + size, len(work.x)))
        count = rows.stop - begin
        z = (work.x[rows] @ engine.weights.T + engine.catalog.bias).astype(np.float64)
        own = slice(indptr[begin], indptr[rows.stop])
        local = np.repeat(np.arange(count), np.diff(indptr[begin : rows.stop + 1]))
        z[local, capabilities[own]] += adjustments[own]
        ev = work.worth(z, all_of_them)
        ev[~(work.may_meet(rows, everything) & (ev >= work.least))] = -np.inf
        best = np.argpartition(-ev, wanted - 1, axis=1)[:, :wanted]
        scores = np.take_along_axis(ev, best, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        along = np.take_along_axis(scores, order, axis=1) > -np.inf
        best = np.take_along_axis(best, order, axis=1)
        taken = walk(best, along, work.groups, np.full(count, policy.k))
        contact_count += int(taken.sum())
    return contact_count
