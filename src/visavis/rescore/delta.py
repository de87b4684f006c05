"""What a changed catalog changes: the full result, with the kernel's work for what moved.

Base, day, policy and journal offset are those of an earlier result; some capabilities are new,
gone or different (C). All customers are matched with C alone, which is little. Let L be what the
earlier result holds of a customer, in the order of expected value, then id, and *last* its last.

- Whatever was eligible, is not in L and did not change ranks after *last* if L is full (k rows); if
  L is not full, and no limit can bind, there is nothing of that kind.
- If nothing of L changed and nothing of C ranks before *last* (L full), or nothing of C may be
  offered at all (L not full), the walk takes the same steps: L stays.
- Where no limit can bind, what is left of L and what of C ranks before *last* are certainly the
  next best: if they are k, or L was not full, the best k of them are the list.
- Every other customer is matched in full.

A list under limits is never merged: what a changed capability made room for may be anything.
(Merging there was wrong in 107 of 20,000 random cases.)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis import kernel
from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine, Matches
from visavis.engine.blocks import history_of
from visavis.engine.matches import joined
from visavis.policy import Policy
from visavis.rescore.marks import marks_of
from visavis.rescore.part import MatchPart, PartMatch, summed
from visavis.rescore.plan import Plan
from visavis.rescore.results import Result, plain

__all__ = ["DeltaPart", "delta_of"]

#: What an earlier plan may differ in.
_MAY_DIFFER: Final = {"catalog_digest", "capability_count", "reasons", "distinctive", "notice"}

#: Customers matched together; a part has some of these groups.
_GROUP_ROWS: Final = 2**11

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def delta_of(match: MatchPart, plan: Plan, since: Result) -> DeltaPart | str:
    """How to match only what changed since an earlier result, or why that cannot be done."""
    for name in Plan.model_fields:
        if name not in _MAY_DIFFER and getattr(plan, name) != getattr(since.plan, name):
            theirs, ours = getattr(since.plan, name), getattr(plan, name)
            return f"its {name} is {theirs}, not {ours}"
    if since.manifest.forgotten_count:
        return "customers were taken out of it since"
    old = since.marks()
    now = marks_of(match.catalog, match.base.manifest.indicators)
    if match.policy.cool_down_days and not now.same_channels(old):
        return "capabilities came, went or changed their channel, and contacts cool channels down"
    changed, gone = now.changed_since(old)
    return DeltaPart(match, since, changed, frozenset(gone))


@dataclass(frozen=True)
class DeltaPart:
    """Matches one part by what changed since an earlier result: the bytes of `MatchPart`.

    Attributes
    ----------
    full : MatchPart
    since : Result
    changed : ndarray of int64
        Ascending indices of the capabilities that are new or have changed.
    gone : frozenset of str
        Ids of those that the earlier result may name and that are gone or have changed.
    """

    full: MatchPart
    since: Result
    changed: Int64
    gone: frozenset[str]
    _shared: list[kernel.Panel] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is packed stays at home."""
        return DeltaPart, (self.full, self.since, self.changed, self.gone)

    def prepare(self) -> None:
        """Open and pack what all parts share."""
        self.full.prepare()

    def replaced(self, **changes: Any) -> DeltaPart:
        """The same, matched in another way."""
        return DeltaPart(self.full.replaced(**changes), self.since, self.changed, self.gone)

    def __call__(self, part_index: int) -> PartMatch:
        """The opportunities of a part."""
        engine = self.full.engine(self.full.profiles(part_index))
        old = _Lists.of(self.since.part(part_index), engine, self.gone)
        new = self._match_changed(engine, old)
        lists, is_open = self._settled(old, new, engine.policy)
        counts = [new.stats] if new is not None else []
        times = [new.nanoseconds] if new is not None else []
        rows = engine.customer_index[is_open]
        if len(rows):
            again = engine.match_rows(rows)
            lists.put(is_open, again)
            counts.append(again.stats)
            times.append(again.nanoseconds)
        result = lists.result(summed(counts), summed(times))
        found = Matches(engine, result, engine.customer_index, engine.variant)
        table = found.to_table(
            reasons=self.full.reasons, distinctive=self.full.distinctive, coded=True
        )
        stats = {**result.stats, "matched_in_full": len(rows)}
        return PartMatch(table, len(engine.customer_index), stats, result.nanoseconds)

    def _match_changed(self, engine: Engine, old: _Lists) -> kernel.MatchResult | None:
        """Every customer against the changed capabilities alone, as if there were no limits.

        Of a customer whose list is full only what ranks before its last matters. Customers with
        nearly the same last expected value are matched together, above the least of them: of 1 M
        customers × 102 of 10,240 capabilities the kernel took a quarter of the time for it.
        """
        if not len(self.changed):
            return None
        policy, rows = engine.policy, engine.customer_index
        n, k = len(rows), min(policy.k, len(self.changed))
        least = np.full(n, -np.inf if policy.ev_min is None else policy.ev_min)
        is_full = old.count == policy.k
        least[is_full] = np.maximum(least, old.expected_value[:, -1])[is_full]
        order = np.argsort(least, kind="stable")
        found = [
            self._match_some(engine, rows[some], k, float(least[some[0]]))
            for some in (order[at : at + _GROUP_ROWS] for at in range(0, n, _GROUP_ROWS))
        ] or [self._match_some(engine, rows, k, np.inf)]
        together = joined(found)
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        return replace(
            together,
            capability_index=together.capability_index[place],
            expected_value=together.expected_value[place],
            propensity=together.propensity[place],
            opportunity_count=together.opportunity_count[place],
        )

    def _match_some(self, engine: Engine, rows: Int64, k: int, ev_min: float) -> kernel.MatchResult:
        planes, plane_index = engine.eligibility
        return kernel.match(
            engine.base.indicators[rows],
            self._panel(engine),
            k=k,
            eligible=kernel.Eligibility(planes[rows], plane_index[self.changed]),
            history=_history_of(engine.history, rows, self.changed),
            ev_min=ev_min,
            variant=engine.variant,
        )

    def _panel(self, engine: Engine) -> kernel.Panel:
        if not self._shared:
            self._shared.append(engine.panel_of(self.changed))
        return self._shared[0]

    def _settled(
        self, old: _Lists, new: kernel.MatchResult | None, policy: Policy
    ) -> tuple[_Lists, Bools]:
        """The lists of customers that are settled, and who is not."""
        lost = old.is_gone.any(axis=1)
        is_full = old.count == policy.k
        if new is None:
            candidates = _Lists.empty(len(old.count), 1)
        else:
            candidates = _Lists.made(new, self.changed)
        before = candidates.ranks_before_last_of(old)
        enters = np.where(is_full, before.any(axis=1), candidates.count > 0)
        if _can_bind(policy):
            return old.copy(), lost | enters
        merged = old.merged(candidates, before | ~is_full[:, None] & candidates.held, policy.k)
        return merged, is_full & (merged.count < policy.k)


def _can_bind(policy: Policy) -> bool:
    return any(limit is not None and limit < policy.k for limit in policy.limits)


@dataclass(frozen=True)
class _Lists:
    """Opportunities of the customers of a part, best first.

    Attributes
    ----------
    order : ndarray of shape (n, width), float64
        The index of the capability in the new catalog; between two indices where an id is gone.
    expected_value, propensity : ndarray of shape (n, width), float64
    held : ndarray of shape (n, width), bool
    is_gone : ndarray of shape (n, width), bool
        What the old result says of it no longer holds.
    """

    order: Float64
    expected_value: Float64
    propensity: Float64
    held: Bools
    is_gone: Bools

    @property
    def count(self) -> Int64:
        """How many each customer has."""
        return np.asarray(self.held.sum(axis=1))

    @classmethod
    def empty(cls, n: int, width: int) -> _Lists:
        """Nobody has any."""
        shape = n, width
        held, is_gone = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape), held, is_gone)

    @classmethod
    def of(cls, table: pa.Table, engine: Engine, gone: frozenset[str]) -> _Lists:
        """The lists of an earlier result's part, for the customers that are matched now."""
        rows = plain(table)
        ids = engine.base.customer_ids.take(pa.array(engine.customer_index))
        owner = pc.index_in(rows[CUSTOMER_ID], ids).to_numpy()
        rank = rows["rank"].to_numpy() - 1
        lists = cls.empty(len(ids), engine.policy.k)
        names = rows["capability_id"].combine_chunks().dictionary_encode()
        known = pa.array(engine.catalog.ids, pa.string())
        place = pc.index_in(names.dictionary, known)
        missing = pc.is_null(place).to_numpy(zero_copy_only=False)
        # Of an id that is gone, between the two that it would stand between.
        between = np.searchsorted(
            np.array([each.encode() for each in engine.catalog.ids], dtype=object),
            np.array([each.encode() for each in names.dictionary.to_pylist()], dtype=object),
        )
        order = np.where(missing, between - 0.5, pc.fill_null(place, 0).to_numpy())
        code = names.indices.to_numpy()
        cells = owner, rank
        lists.order[cells] = order[code]
        lists.expected_value[cells] = rows["expected_value"].to_numpy()
        lists.propensity[cells] = rows["propensity"].to_numpy()
        lists.held[cells] = True
        is_gone = np.array([each in gone for each in names.dictionary.to_pylist()], dtype=np.bool_)
        lists.is_gone[cells] = is_gone[code]
        return lists

    @classmethod
    def made(cls, found: kernel.MatchResult, indices: Int64) -> _Lists:
        """The lists of a match with some capabilities of the catalog."""
        width = found.capability_index.shape[1]
        held = np.arange(width) < found.opportunity_count[:, None]
        order = indices[np.where(held, found.capability_index, 0)].astype(np.float64)
        return cls(order, found.expected_value, found.propensity, held, np.zeros_like(held))

    def copy(self) -> _Lists:
        """One that may be written to."""
        return _Lists(
            self.order.copy(),
            self.expected_value.copy(),
            self.propensity.copy(),
            self.held.copy(),
            self.is_gone.copy(),
        )

    def ranks_before_last_of(self, other: _Lists) -> Bools:
        """Which of these rank before, or are, the last that a customer has there."""
        rows = np.arange(len(self.held))
        last = np.maximum(other.count - 1, 0)
        ev = other.expected_value[rows, last][:, None]
        place = other.order[rows, last][:, None]
        better = (self.expected_value > ev) | ((self.expected_value == ev) & (self.order <= place))
        return np.asarray(self.held & better)

    def merged(self, other: _Lists, taken: Bools, k: int) -> _Lists:
        """The best k of what is left here and what is taken from there."""
        held = np.hstack([self.held & ~self.is_gone, taken])
        ev = np.hstack([self.expected_value, other.expected_value])
        place = np.hstack([self.order, other.order])
        propensity = np.hstack([self.propensity, other.propensity])
        by_rank = np.lexsort((place, -np.where(held, ev, -np.inf), ~held), axis=1)[:, :k]
        is_held = np.take_along_axis(held, by_rank, axis=1)
        return _Lists(
            np.take_along_axis(place, by_rank, axis=1),
            np.take_along_axis(ev, by_rank, axis=1),
            np.take_along_axis(propensity, by_rank, axis=1),
            is_held,
            np.zeros_like(is_held),
        )

    def put(self, rows: Bools, found: kernel.MatchResult) -> None:
        """Put the lists of a full match in the place of some customers'."""
        width = found.capability_index.shape[1]
        self.held[rows] = np.arange(width) < found.opportunity_count[:, None]
        self.order[rows] = found.capability_index
        self.expected_value[rows] = found.expected_value
        self.propensity[rows] = found.propensity

    def result(self, stats: dict[str, int], nanoseconds: dict[str, int]) -> kernel.MatchResult:
        """In the kernel's form."""
        return kernel.MatchResult(
            np.where(self.held, self.order, -1).astype(np.int32),
            np.where(self.held, self.expected_value, 0.0),
            np.where(self.held, self.propensity, 0.0),
            self.count.astype(np.int32),
            stats,
            nanoseconds,
        )


def _history_of(history: kernel.History, rows: Int64, chosen: Int64) -> kernel.History:
    """The adjustments of some rows with some capabilities, which are numbered anew."""
    indptr, capability_index, adjustment = history_of(history, rows)
    inside = slice(int(indptr[0]), int(indptr[-1]))
    entries = capability_index[inside]
    place = np.minimum(np.searchsorted(chosen, entries), len(chosen) - 1)
    kept = chosen[place] == entries
    before = np.concatenate([[0], np.cumsum(kept)])
    return kernel.History(
        before[indptr - indptr[0]].astype(np.int64),
        place[kept].astype(np.int32),
        adjustment[inside][kept],
    )
