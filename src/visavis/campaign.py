"""The naive baseline: campaigns, one capability after the other, as a marketer's script runs them.

For each capability in turn: score all customers with numpy, apply the rule, take the best share by
argpartition, and resolve conflicts in the order of the campaigns under the same caps. It works on
the same model, rules and limits as the match, so that the two can be timed side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.domain import Link
from visavis.engine import Engine
from visavis.errors import InputError, SchemaError
from visavis.kernel import History

__all__ = ["CampaignRun", "run_campaigns"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CampaignRun:
    """What the campaigns sent, and how long they took.

    Attributes
    ----------
    customer_index : ndarray of shape (n_contacts,), int64
        Rows of the base, in the order in which the contacts were given.
    capability_index : ndarray of shape (n_contacts,), int32
    expected_value : ndarray of shape (n_contacts,), float64
    campaign_count : int
        Capabilities that were run.
    pair_count : int
        Customers × capabilities that were scored.
    seconds : float
        Wall time of the loop, conflicts included, preparation left out.
    """

    customer_index: npt.NDArray[np.int64]
    capability_index: npt.NDArray[np.int32]
    expected_value: Float64
    campaign_count: int
    pair_count: int
    seconds: float


class _Contacts:
    """Who has been contacted how often, per product, channel and family."""

    def __init__(self, engine: Engine) -> None:
        policy, catalog = engine.policy, engine.catalog
        n = engine.base.customer_count
        self._k = policy.k
        self._total = np.zeros(n, dtype=np.int32)
        self._groups = []
        for limit, (codes, labels) in (
            (policy.product_limit, catalog.codes("product")),
            (policy.channel_limit, catalog.codes("channel")),
            (policy.family_limit, catalog.codes("family")),
        ):
            if limit is not None:
                self._groups.append((limit, codes, np.zeros((len(labels), n), dtype=np.uint16)))

    def give(self, j: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows among `rows` that campaign `j` may still contact; they are counted."""
        free = self._total[rows] < self._k
        for limit, codes, counts in self._groups:
            free &= counts[codes[j], rows] < limit
        given = rows[free]
        self._total[given] += 1
        for _, codes, counts in self._groups:
            counts[codes[j], given] += 1
        return given


def run_campaigns(
    engine: Engine,
    *,
    share: float = 0.2,
    order: npt.NDArray[np.int64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CampaignRun:
    """Run every capability as a campaign of its own.

    Parameters
    ----------
    engine : Engine
        Gives scores, eligibility, limits.
    share : float
        Each campaign goes to this share of the customers, the best ones for it, in (0, 1].
    order : ndarray of shape (n_campaigns,), int64, optional
        Capabilities in the order in which they are run; default: as the catalog has them.
    progress : callable, optional
        Called with (campaigns done, campaigns in all).

    Returns
    -------
    CampaignRun

    Raises
    ------
    InputError
        If `share` lies outside (0, 1], or `order` repeats a capability or names none.
    """
    if not 0.0 < share <= 1.0:
        raise InputError(f"must lie in (0, 1], got {share}", field="share")
    catalog, rows = engine.catalog, engine.customer_index
    campaigns = _campaigns(order, catalog.capability_count)
    x = np.ascontiguousarray(engine.base.indicators[rows])
    planes = engine.eligibility
    history = _by_capability(engine.history, catalog.capability_count)
    row_of = np.full(engine.base.customer_count, -1, dtype=np.int64)
    row_of[rows] = np.arange(len(rows))
    size = max(1, int(share * len(rows)))
    least = -np.inf if engine.policy.ev_min is None else engine.policy.ev_min
    contacts, given, capability, values = _Contacts(engine), [], [], []

    started = time.perf_counter()
    for done, j in enumerate(campaigns):
        ev = _expected_value(engine, x, int(j), history, row_of)
        plane = int(planes.plane_index[j])
        if plane >= 0:
            word = planes.planes[rows, plane // 64]
            ev[(word >> np.uint64(plane % 64)) & np.uint64(1) == 0] = -np.inf
        best = np.argpartition(-ev, size - 1)[:size] if size < len(ev) else np.arange(len(ev))
        best = best[(ev[best] >= least) & (ev[best] > -np.inf)]
        best = best[np.argsort(-ev[best], kind="stable")]
        sent = contacts.give(int(j), rows[best])
        given.append(sent)
        capability.append(np.full(len(sent), j, dtype=np.int32))
        values.append(ev[row_of[sent]])
        if progress is not None:
            progress(done + 1, len(campaigns))
    seconds = time.perf_counter() - started

    return CampaignRun(
        customer_index=np.concatenate(given or [np.empty(0, np.int64)]),
        capability_index=np.concatenate(capability or [np.empty(0, np.int32)]),
        expected_value=np.concatenate(values or [np.empty(0)]),
        campaign_count=len(campaigns),
        pair_count=len(campaigns) * len(rows),
        seconds=seconds,
    )


def _campaigns(order: npt.NDArray[np.int64] | None, capability_count: int) -> npt.NDArray[np.int64]:
    if order is None:
        return np.arange(capability_count)
    campaigns = np.asarray(order)
    if campaigns.ndim != 1 or (campaigns.size and not np.issubdtype(campaigns.dtype, np.integer)):
        raise SchemaError("must be a list of capability indices", field="order")
    wrong = (campaigns < 0) | (campaigns >= capability_count)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"must lie in [0, {capability_count}), got {campaigns[row]}", field="order", row=row
        )
    if len(np.unique(campaigns)) < len(campaigns):
        raise InputError("must not repeat a capability", field="order")
    return campaigns.astype(np.int64)


def _expected_value(
    engine: Engine,
    x: npt.NDArray[np.float32],
    j: int,
    history: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]],
    row_of: npt.NDArray[np.int64],
) -> Float64:
    """One campaign's scores as a script computes them: a float32 product, numpy's own exp."""
    catalog = engine.catalog
    # What float32 cannot hold is the script's loss: it never contacts a customer it cannot score.
    with np.errstate(over="ignore", invalid="ignore"):
        z = (x @ engine.weights[j] + catalog.bias[j]).astype(np.float64)
    indptr, customers, adjustment = history
    own = slice(indptr[j], indptr[j + 1])
    touched = row_of[customers[own]]
    inside = touched >= 0
    touched, h = touched[inside], adjustment[own][inside]
    excluded = touched[np.isneginf(h)]
    z[touched] += np.where(np.isneginf(h), 0.0, h)
    g = z
    if catalog.link[j] == Link.COUNT:
        g = np.logaddexp(0.0, z)
    elif catalog.link[j] == Link.LOGISTIC:
        g = 1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0)))
    with np.errstate(invalid="ignore"):
        ev = np.asarray(g * catalog.value[j] - catalog.cost[j])
    ev[excluded] = -np.inf
    return ev


def _by_capability(
    history: History, capabilities: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The adjustments, column by column: (indptr, customer_index, adjustment)."""
    rows = np.repeat(np.arange(len(history.indptr) - 1), np.diff(history.indptr))
    order = np.argsort(history.capability_index, kind="stable")
    counts = np.bincount(history.capability_index, minlength=capabilities)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return indptr, rows[order], history.adjustment[order]
