"""The match on one machine: base × catalog × policy → opportunities with their reasons.

::

    Gates.planes ─► Eligibility ┐
    adjustments  ─► History     ├─► blocks of rows over threads ─► kernel.match ─► Matches
    catalog      ─► Panel       ┘                                                    │
                                                              reasons ─► to_table() ◄┘

`Engine` holds what one (base, catalog, policy, as_of) needs and answers match, audience, explain
and scores from it. No result depends on threads, blocks or the kernel's variant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.domain import CUSTOMER_ID, HISTORY, OBJECTED, Link, parse_date
from visavis.eligibility import Gate, Gates
from visavis.errors import InputError, LimitError
from visavis.history import adjustments, term_contributions
from visavis.policy import Policy, control_marks

__all__ = [
    "OPPORTUNITY_SCHEMA",
    "Contribution",
    "Engine",
    "Explanation",
    "Matches",
    "audience",
    "explain",
    "match",
]

#: Rows per task: small enough that two threads end together, large enough that Python is not felt.
BLOCK_ROWS: Final = 4_096

#: Reasons listed with an opportunity unless the caller asks for another number.
REASON_COUNT: Final = 3

#: Cells of the contribution matrix built at a time while reasons are picked: 32 MiB of float64.
_REASON_CELLS: Final = 1 << 22

_REASON: Final = pa.struct([("indicator", pa.string()), ("contribution", pa.float64())])

#: One row per opportunity, customers in order of their ids, best first.
OPPORTUNITY_SCHEMA: Final = pa.schema(
    [
        pa.field(CUSTOMER_ID, pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("capability_id", pa.string(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),
        pa.field("expected_value", pa.float64(), nullable=False),
        pa.field("control", pa.bool_(), nullable=False),
        pa.field("reasons", pa.list_(_REASON), nullable=False),
    ]
)

#: Called with (customers done, customers in all).
Progress = Callable[[int, int], None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contribution:
    """One term of the linear predictor.

    Attributes
    ----------
    name : str
        An indicator's name, or ``history`` for the customer's own history with the capability.
    value : float or None
        The indicator's value; None for the history.
    weight : float or None
        The capability's weight; None for the history.
    contribution : float
        Its term in z.
    """

    name: str
    value: float | None
    weight: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one customer has, or has not, one opportunity.

    Attributes
    ----------
    customer_id, capability_id : str
    as_of : date
    linear_predictor : float or None
        z = bias + every contribution, in the order of docs/score.md; None if history excludes it.
    bias : float
    contributions : tuple of Contribution
        Descending, then by name; terms of zero are left out.
    history_terms : tuple of (str, float)
        What the history's contribution is made of, before its rounding to float32.
    propensity, expected_value : float or None
    gates : tuple of Gate
        Every gate's outcome, closed ones included.
    rank : int or None
        Its place among the customer's opportunities; None if it is none.
    verdict : str
        The first thing that stood in the way, or that nothing did.
    remedies : tuple of str
        What would change it.
    """

    customer_id: str
    capability_id: str
    as_of: date
    linear_predictor: float | None
    bias: float
    contributions: tuple[Contribution, ...]
    history_terms: tuple[tuple[str, float], ...]
    propensity: float | None
    expected_value: float | None
    gates: tuple[Gate, ...]
    rank: int | None
    verdict: str
    remedies: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Matches:
    """The opportunities of a base.

    Attributes
    ----------
    engine : Engine
        What they were found with.
    result : kernel.MatchResult
        For the rows of `customer_index`.
    customer_index : ndarray of shape (n,), int64
        The rows of the base that were matched: those that did not object and are not excluded.
    variant : str
        The kernel variant that ran.
    """

    engine: Engine
    result: kernel.MatchResult
    customer_index: npt.NDArray[np.int64]
    variant: str

    @property
    def opportunity_count(self) -> int:
        """How many opportunities there are in all."""
        return int(self.result.opportunity_count.sum())

    @property
    def stats(self) -> dict[str, int]:
        """The kernel's counts, summed over blocks."""
        return dict(self.result.stats)

    def to_table(self, *, reasons: int = REASON_COUNT) -> pa.Table:
        """One row per opportunity, of `OPPORTUNITY_SCHEMA`.

        Parameters
        ----------
        reasons : int
            At most so many reasons per opportunity: indicators (or ``history``) with a positive
            contribution, contribution descending, then name.

        Returns
        -------
        pyarrow.Table
            Customers in order of their ids, opportunities best first. Rows marked ``control``
            belong to customers who must not be contacted.
        """
        if reasons < 0:
            raise InputError(f"must not be negative, got {reasons}", field="reasons")
        engine = self.engine
        held = (
            np.arange(self.result.capability_index.shape[1])
            < (self.result.opportunity_count[:, None])
        )
        rows, positions = np.nonzero(held)
        customer_index = self.customer_index[rows]
        capability_index = self.result.capability_index[rows, positions]
        columns = [
            engine.base.customer_ids.take(pa.array(customer_index)),
            pa.array((positions + 1).astype(np.int32)),
            pa.array(engine.catalog.ids, pa.string()).take(pa.array(capability_index)),
            pa.array(self.result.propensity[rows, positions]),
            pa.array(self.result.expected_value[rows, positions]),
            pa.array(control_marks(engine.base.customer_ids, engine.policy)[customer_index]),
            engine.reasons(customer_index, capability_index, count=reasons),
        ]
        return pa.Table.from_arrays(columns, schema=OPPORTUNITY_SCHEMA)

    def digest(self) -> str:
        """The sha256 of the canonical column buffers of `to_table`, in hex."""
        return canonical_digest(self.to_table())


class Engine:
    """Base, catalog and policy at one date, ready to answer.

    Parameters
    ----------
    base : Base
    catalog : Catalog
    policy : Policy
    as_of : date or str, optional
        The day that validity, cool-downs, date rules and decay refer to; default: the base's.
    threads : int, optional
        Default: the processors that this process may use.
    variant : str, optional
        See `kernel.choose_variant`.

    Raises
    ------
    InputError
        If the three do not fit together, naming the capability and the column.
    """

    def __init__(
        self,
        base: Base,
        catalog: Catalog,
        policy: Policy,
        *,
        as_of: date | str | None = None,
        threads: int | None = None,
        variant: str | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"must be at least 1, got {threads}", field="threads")
        self.base = base
        self.catalog = catalog
        self.policy = policy
        self.as_of = base.as_of if as_of is None else parse_date(as_of, field="as_of")
        self.threads = threads or len(os.sched_getaffinity(0))
        self.variant = kernel.choose_variant(variant)
        self.gates = Gates.compile(catalog, policy, base.attributes.schema)

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """The catalog's weights in the order of the base's indicators, (m, d) float32."""
        return self.catalog.aligned_weights(self.base.indicator_names)

    @cached_property
    def panel(self) -> kernel.Panel:
        """The catalog, packed for the kernel."""
        catalog = self.catalog
        return kernel.pack(
            self.weights,
            catalog.bias,
            value=catalog.value,
            cost=catalog.cost,
            link=[Link(code).label for code in catalog.link],
            product=catalog.codes("product")[0],
            channel=catalog.codes("channel")[0],
            family=catalog.codes("family")[0],
        )

    @cached_property
    def eligibility(self) -> kernel.Eligibility:
        """Every gate but the objection, for all rows of the base."""
        return self.gates.planes(self.base.attributes, self.base.facts, self.as_of)

    @cached_property
    def history(self) -> kernel.History:
        """The adjustments of all rows of the base."""
        return adjustments(
            self.base.facts, self.catalog, self.as_of, customer_count=self.base.customer_count
        )

    @cached_property
    def customer_index(self) -> npt.NDArray[np.int64]:
        """Rows of the base that may be matched at all, ascending: no objection, no exclusion."""
        out = self.base.attributes[OBJECTED].to_numpy().astype(np.bool_)
        for customer_id in self.policy.exclusions.customers:
            out[self.base.index_of(customer_id)] = True
        return np.flatnonzero(~out)

    def match(self, *, progress: Progress | None = None) -> Matches:
        """The best opportunities of every customer, exactly.

        Parameters
        ----------
        progress : callable, optional
            Called with (customers done, customers in all).
        """
        panel, ev_min, policy = self.panel, self.policy.ev_min, self.policy
        blocks = self._over_blocks(
            lambda rows, eligible, history: kernel.match(
                self.base.indicators[rows],
                panel,
                k=policy.k,
                eligible=eligible,
                history=history,
                limits=policy.limits,
                ev_min=ev_min,
                variant=self.variant,
            ),
            progress,
        )
        results = [result for _, result in blocks]
        return Matches(self, _joined(results, policy.k), self.customer_index, self.variant)

    def audience(
        self,
        capability_ids: Sequence[str],
        *,
        k: int,
        progress: Progress | None = None,
    ) -> pa.Table:
        """The best customers of each capability: who fits best, whatever else they could get.

        Parameters
        ----------
        capability_ids : sequence of str
        k : int
            At most so many customers per capability.
        progress : callable, optional

        Returns
        -------
        pyarrow.Table
            capability_id, rank, customer_id, propensity, expected_value, control; capabilities in
            order of their ids, customers by expected value descending, then id.
        """
        asked = np.unique([self.catalog.index_of(name) for name in capability_ids])
        if not len(asked):
            raise InputError("must name at least one capability", field="capability_ids")
        panel, ev_min = self.panel, self.policy.ev_min
        blocks = self._over_blocks(
            lambda rows, eligible, history: kernel.audience(
                self.base.indicators[rows],
                panel,
                capability_index=asked.astype(np.int32),
                k=k,
                eligible=eligible,
                history=history,
                ev_min=ev_min,
                variant=self.variant,
            ),
            progress,
        )
        return self._audience_table(asked, list(blocks), k)

    def scores(self, customer_index: npt.ArrayLike) -> kernel.ScoresResult:
        """Every number of some customers, dense, for baselines; eligibility is not looked at.

        Parameters
        ----------
        customer_index : array_like of int64
            Rows of the base.

        Raises
        ------
        LimitError
            If rows × capabilities exceed 2^26.
        """
        rows = np.asarray(customer_index, dtype=np.int64)
        if rows.ndim != 1:
            raise InputError("must have one dimension", field="customer_index")
        outside = (rows < 0) | (rows >= self.base.customer_count)
        if outside.any():
            row = int(np.argmax(outside))
            raise InputError("is no row of the base", field="customer_index", row=row)
        # Asked before the copies below are made, which would be as large.
        if len(rows) * self.catalog.capability_count > kernel.DENSE_PAIRS_MAX:
            raise LimitError(
                f"{len(rows)} rows × {self.catalog.capability_count} capabilities exceed 2^26",
                field="customer_index",
            )
        return kernel.scores(
            self.base.indicators[rows],
            self.panel,
            history=_history_of(self.history, rows),
            variant=self.variant,
        )

    def explain(self, customer_id: str, capability_id: str) -> Explanation:
        """Why a customer has, or has not, an opportunity.

        Raises
        ------
        NotFoundError
            If the base or the catalog does not hold the id.
        """
        i, j = self.base.index_of(customer_id), self.catalog.index_of(capability_id)
        facts = self.base.facts_of(i)
        own_facts = facts.set_column(0, "customer_index", pa.array(np.zeros(len(facts), np.int64)))
        attributes = self.base.attributes.slice(i, 1)
        gates = self.gates.outcomes(j, attributes, own_facts, self.as_of, customer_id)
        if not gates[0].is_open:
            return self._unscored(customer_id, capability_id, gates)
        row = self.base.indicators[i : i + 1]
        history = adjustments(own_facts, self.catalog, self.as_of, customer_count=1)
        numbers = kernel.scores(row, self.panel, history=history, variant=self.variant)
        z = float(numbers.linear_predictor[0, j])
        if np.isnan(z):
            gates.append(Gate("history", False, "a fact excludes this customer from it"))
            return self._unscored(customer_id, capability_id, gates)
        chosen = kernel.match(
            row,
            self.panel,
            k=self.policy.k,
            eligible=self.gates.planes(attributes, own_facts, self.as_of),
            history=history,
            limits=self.policy.limits,
            ev_min=self.policy.ev_min,
            variant=self.variant,
        )
        ev = float(numbers.expected_value[0, j])
        verdict = _Verdict(self, j, ev, gates, chosen)
        return Explanation(
            customer_id=customer_id,
            capability_id=capability_id,
            as_of=self.as_of,
            linear_predictor=z,
            bias=float(self.catalog.bias[j]),
            contributions=self._contributions(i, j, _adjustment(history, j)),
            history_terms=tuple(term_contributions(own_facts, self.catalog, j, self.as_of)),
            propensity=float(numbers.propensity[0, j]),
            expected_value=ev,
            gates=tuple(gates),
            rank=verdict.rank,
            verdict=verdict.text,
            remedies=verdict.remedies,
        )

    def _unscored(self, customer_id: str, capability_id: str, gates: Sequence[Gate]) -> Explanation:
        """An explanation where no score may exist: after an objection, or a fact that excludes."""
        closed = [gate for gate in gates if not gate.is_open]
        return Explanation(
            customer_id=customer_id,
            capability_id=capability_id,
            as_of=self.as_of,
            linear_predictor=None,
            bias=float(self.catalog.bias[self.catalog.index_of(capability_id)]),
            contributions=(),
            history_terms=(),
            propensity=None,
            expected_value=None,
            gates=tuple(gates),
            rank=None,
            verdict=f"not eligible: {closed[0].detail}",
            remedies=tuple(f"{gate.name}: {gate.detail}" for gate in closed),
        )

    def reasons(
        self,
        customer_index: npt.NDArray[np.int64],
        capability_index: npt.NDArray[np.int32],
        *,
        count: int,
    ) -> pa.ListArray:
        """The largest positive contributions of some pairs.

        Parameters
        ----------
        customer_index : ndarray of shape (n_pairs,), int64
        capability_index : ndarray of shape (n_pairs,), int32
        count : int
            At most so many per pair.

        Returns
        -------
        pyarrow.ListArray of n_pairs lists of struct<indicator, contribution>
            Contribution descending, then name.
        """
        names = [*self.base.indicator_names, HISTORY]
        # In order of name, a stable sort by contribution leaves ties in order of name.
        by_name = np.array(sorted(range(len(names)), key=lambda column: names[column].encode()))
        h = _adjustments_of(self.history, customer_index, capability_index)
        chunk = max(1, _REASON_CELLS // len(names))
        picked, sizes, terms = [], [], []
        for begin in range(0, len(customer_index), chunk):
            cut = slice(begin, begin + chunk)
            x = self.base.indicators[customer_index[cut]].astype(np.float64)
            products = np.empty((len(x), len(names)))
            np.multiply(x, self.weights[capability_index[cut]], out=products[:, :-1])
            products[:, -1] = h[cut]
            ordered = products[:, by_name]
            best = np.argsort(-ordered, axis=1, kind="stable")[:, :count]
            contribution = np.take_along_axis(ordered, best, axis=1)
            positive = contribution > 0.0
            sizes.append(positive.sum(axis=1))
            picked.append(by_name[best][positive])
            terms.append(contribution[positive])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes or [np.empty(0, int)]))])
        flat = np.concatenate(picked or [np.empty(0, np.int64)])
        struct = pa.StructArray.from_arrays(
            [
                pa.array(names).take(pa.array(flat, pa.int64())),
                pa.array(np.concatenate(terms or [np.empty(0)])),
            ],
            fields=list(_REASON),
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)

    def _contributions(self, i: int, j: int, h: float) -> tuple[Contribution, ...]:
        x, w = self.base.indicators[i], self.weights[j]
        terms = [
            Contribution(name, float(x[d]), float(w[d]), float(x[d]) * float(w[d]))
            for d, name in enumerate(self.base.indicator_names)
        ]
        terms.append(Contribution(HISTORY, None, None, h))
        held = [term for term in terms if term.contribution != 0.0]
        return tuple(sorted(held, key=lambda term: (-term.contribution, term.name.encode())))

    def _over_blocks(
        self,
        work: Callable[[npt.NDArray[np.int64], kernel.Eligibility, kernel.History], T],
        progress: Progress | None,
    ) -> Iterator[tuple[npt.NDArray[np.int64], T]]:
        """Run `work` over blocks of rows on threads; (rows, answer) in the order of the rows."""
        rows = self.customer_index
        planes, plane_index = self.eligibility
        history = self.history
        blocks = [rows[begin : begin + BLOCK_ROWS] for begin in range(0, len(rows), BLOCK_ROWS)]
        if len(blocks) < self.threads:
            blocks = [block for block in np.array_split(rows, self.threads) if len(block)]

        def run(block: npt.NDArray[np.int64]) -> T:
            eligible = kernel.Eligibility(planes[block], plane_index)
            return work(block, eligible, _history_of(history, block))

        if progress is not None:
            progress(0, len(rows))
        with ThreadPoolExecutor(self.threads) as pool:
            futures = {pool.submit(run, block): len(block) for block in blocks}
            _wait(futures, len(rows), progress)
            answers = list(futures)
        yield from ((block, done.result()) for block, done in zip(blocks, answers, strict=True))

    def _audience_table(
        self,
        asked: npt.NDArray[np.int64],
        blocks: list[tuple[npt.NDArray[np.int64], kernel.AudienceResult]],
        k: int,
    ) -> pa.Table:
        """Merge the blocks' lists: each holds its own best, so the best of all are among them."""
        control = control_marks(self.base.customer_ids, self.policy)
        parts = []
        for position, j in enumerate(asked):
            found = [
                (rows[a.customer_index[position, : a.customer_count[position]]], a, position)
                for rows, a in blocks
            ]
            index = np.concatenate([rows for rows, _, _ in found] or [np.empty(0, np.int64)])
            ev = np.concatenate(
                [a.expected_value[p, : len(rows)] for rows, a, p in found] or [np.empty(0)]
            )
            propensity = np.concatenate(
                [a.propensity[p, : len(rows)] for rows, a, p in found] or [np.empty(0)]
            )
            best = np.lexsort((index, -ev))[:k]
            chosen = index[best]
            parts.append(
                pa.table(
                    {
                        "capability_id": pa.array([self.catalog.ids[j]] * len(best), pa.string()),
                        "rank": pa.array(np.arange(1, len(best) + 1, dtype=np.int32)),
                        CUSTOMER_ID: self.base.customer_ids.take(pa.array(chosen)),
                        "propensity": propensity[best],
                        "expected_value": ev[best],
                        "control": control[chosen],
                    }
                )
            )
        return pa.concat_tables(parts).combine_chunks()


class _Verdict:
    """What stood in the way of capability `j` for one customer, and what would change it."""

    def __init__(
        self,
        engine: Engine,
        j: int,
        ev: float,
        gates: Sequence[Gate],
        chosen: kernel.MatchResult,
    ) -> None:
        self._engine = engine
        self._j = j
        count = int(chosen.opportunity_count[0])
        self._chosen = [
            (float(chosen.expected_value[0, position]), int(chosen.capability_index[0, position]))
            for position in range(count)
        ]
        policy = engine.policy
        closed = [gate for gate in gates if not gate.is_open]
        places = [position for position, (_, c) in enumerate(self._chosen) if c == j]
        self.rank: int | None = places[0] + 1 if places else None
        self.text = f"opportunity {self.rank} of {count}"
        self.remedies: tuple[str, ...] = ()
        if closed:
            self.rank = None
            self.text = f"not eligible: {closed[0].detail}"
            self.remedies = tuple(f"{gate.name}: {gate.detail}" for gate in closed)
        elif policy.ev_min is not None and ev < policy.ev_min:
            self.text = f"expected value {ev:.4f} is below the minimum {policy.ev_min:g}"
            self.remedies = (f"an expected value of at least {policy.ev_min:g}",)
        elif not places:
            self._left_over(ev)

    def _left_over(self, ev: float) -> None:
        """Eligible and worth it, yet not taken: out of room, or skipped because of a limit."""
        k = self._engine.policy.k
        ahead = [c for other, c in self._chosen if (-other, c) < (-ev, self._j)]
        if len(ahead) == k:
            self.text = f"{k} better opportunities fill the policy's k = {k}"
            least = self._chosen[-1][0]
            self.remedies = (
                f"an expected value above {least:.4f} (it is {ev:.4f})",
                f"a k above {k}",
            )
            return
        group, label, limit, holders = self._full_group(ahead)
        self.text = f"the limit of {limit} per {group} is used up by {', '.join(holders)}"
        self.remedies = (
            f"a higher limit per {group}",
            f"an expected value above that of one of {group} {label!r} that was taken",
        )

    def _full_group(self, ahead: Sequence[int]) -> tuple[str, str, int, list[str]]:
        """The group that those taken before `j` had filled."""
        catalog, policy = self._engine.catalog, self._engine.policy
        for group, limit, names in (
            ("product", policy.product_limit, catalog.products),
            ("channel", policy.channel_limit, catalog.channels),
            ("family", policy.family_limit, catalog.families),
        ):
            holders = [catalog.ids[c] for c in ahead if names[c] == names[self._j]]
            if limit is not None and len(holders) >= limit:
                return group, names[self._j], limit, holders
        raise AssertionError("an eligible pair that was not taken has a limit in its way")


def match(
    base: Base,
    catalog: Catalog,
    policy: Policy,
    *,
    as_of: date | str | None = None,
    threads: int | None = None,
    variant: str | None = None,
    progress: Progress | None = None,
) -> Matches:
    """Match every customer against every capability; see `Engine`."""
    engine = Engine(base, catalog, policy, as_of=as_of, threads=threads, variant=variant)
    return engine.match(progress=progress)


def audience(
    base: Base,
    catalog: Catalog,
    policy: Policy,
    capability_ids: Sequence[str],
    *,
    k: int,
    **options: Any,
) -> pa.Table:
    """The best customers of each capability; see `Engine.audience`."""
    return Engine(base, catalog, policy, **options).audience(capability_ids, k=k)


def explain(
    base: Base,
    catalog: Catalog,
    policy: Policy,
    customer_id: str,
    capability_id: str,
    **options: Any,
) -> Explanation:
    """Why a customer has, or has not, an opportunity; see `Engine.explain`."""
    return Engine(base, catalog, policy, **options).explain(customer_id, capability_id)


def _wait(futures: dict[Future[T], int], total: int, progress: Progress | None) -> None:
    """Report blocks as they end; the first failure stops those that have not begun."""
    pending, done_count = set(futures), 0
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            if future.exception() is not None:
                for other in pending:
                    other.cancel()
                future.result()
            done_count += futures[future]
        if progress is not None:
            progress(done_count, total)


def _joined(results: Sequence[kernel.MatchResult], k: int) -> kernel.MatchResult:
    stats: dict[str, int] = {}
    for result in results:
        for name, amount in result.stats.items():
            stats[name] = stats.get(name, 0) + amount
    if not results:
        return kernel.MatchResult(
            np.empty((0, k), np.int32),
            np.empty((0, k)),
            np.empty((0, k)),
            np.empty(0, np.int32),
            {},
        )
    return kernel.MatchResult(
        np.concatenate([result.capability_index for result in results]),
        np.concatenate([result.expected_value for result in results]),
        np.concatenate([result.propensity for result in results]),
        np.concatenate([result.opportunity_count for result in results]),
        stats,
    )


def _history_of(history: kernel.History, rows: npt.NDArray[np.int64]) -> kernel.History:
    """The adjustments of some rows, in their order."""
    begin, end = history.indptr[rows], history.indptr[rows + 1]
    if len(rows) and np.array_equal(begin[1:], end[:-1]):
        # Neighbouring rows need no copy of the entries.
        return kernel.History(np.append(begin, end[-1]), *history[1:])
    sizes = end - begin
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    entries = np.arange(indptr[-1]) + np.repeat(begin - indptr[:-1], sizes)
    return kernel.History(indptr, history.capability_index[entries], history.adjustment[entries])


def _adjustment(history: kernel.History, j: int) -> float:
    """The adjustment of capability `j` in a history of one customer."""
    return float(_adjustments_of(history, np.zeros(1, np.int64), np.array([j], dtype=np.int32))[0])


def _adjustments_of(
    history: kernel.History,
    customer_index: npt.NDArray[np.int64],
    capability_index: npt.NDArray[np.int32],
) -> npt.NDArray[np.float64]:
    """The adjustments of some pairs, 0 where absent: a binary search in all rows at once."""
    low = history.indptr[customer_index].copy()
    end = history.indptr[customer_index + 1]
    high = end.copy()
    entries = history.capability_index
    while (open_rows := low < high).any():
        middle = (low + high) // 2
        smaller = np.zeros(len(low), dtype=np.bool_)
        smaller[open_rows] = entries[middle[open_rows]] < capability_index[open_rows]
        low = np.where(open_rows & smaller, middle + 1, low)
        high = np.where(open_rows & ~smaller, middle, high)
    found = np.zeros(len(low), dtype=np.bool_)
    inside = low < end
    found[inside] = entries[low[inside]] == capability_index[inside]
    h = np.zeros(len(low), dtype=np.float64)
    h[found] = history.adjustment[low[found]]
    return h
