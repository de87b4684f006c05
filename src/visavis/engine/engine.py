"""`Engine`: what one (base, catalog, policy, as_of) needs, computed once, and its questions."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from datetime import date
from functools import cached_property, partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import gpu, kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.domain import CUSTOMER_ID, OBJECTED, THREADS_MAX, Link, parse_date
from visavis.eligibility import Gates
from visavis.engine.audiences import Audiences
from visavis.engine.blocks import (
    Progress,
    check_count,
    check_kinds,
    history_of,
    over_blocks,
    rows_of,
)
from visavis.engine.explanation import Explanation, Request, explain_pair
from visavis.engine.matches import Matches, joined
from visavis.errors import InputError, LimitError, NotFoundError, SchemaError
from visavis.history import adjustments
from visavis.policy import Policy, control_marks

__all__ = ["Engine", "audience", "explain", "match"]

#: What an engine computes once and an engine beside it computes anew.
_OF_THE_BASE: Final = ("eligibility", "history", "customer_index", "control")

T = TypeVar("T")


class Engine:
    """Base, catalog and policy at one date, ready to answer.

    Parameters
    ----------
    base : Base
    catalog : Catalog
    policy : Policy
    as_of : date or str, optional
        The day that validity, cool-downs, date rules and decay refer to, not before the base's,
        which is the default.
    threads : int, optional
        Default: the processors that this process may use.
    variant : str, optional
        See `kernel.choose_variant`.
    device : str, optional
        Where `match` screens, by `visavis.gpu`: ``cuda``, ``cuda:N`` or, for tests, ``cpu``.
        Default: in the kernel. No result depends on it.
    is_part : bool
        The base holds some customers of a larger one, so that excluded customers may be elsewhere.

    Raises
    ------
    InputError
        If the three do not fit together, naming the capability and the column.
    SetupError
        If torch, which a device needs, is not installed or does not find it.
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
        device: str | None = None,
        is_part: bool = False,
    ) -> None:
        check_kinds(base=(base, Base), catalog=(catalog, Catalog), policy=(policy, Policy))
        self.base = base
        self.catalog = catalog
        self.policy = policy
        self.as_of = base.as_of if as_of is None else parse_date(as_of, field="as_of")
        if self.as_of < base.as_of:
            # The indicators know the days up to the base's: an earlier match would see the future.
            raise InputError(
                f"{self.as_of} lies before the base's as_of, {base.as_of}", field="as_of"
            )
        self.threads = (
            len(os.sched_getaffinity(0)) if threads is None else check_count(threads, "threads", 1)
        )
        if self.threads > THREADS_MAX:
            raise LimitError(f"must be at most {THREADS_MAX}, got {threads}", field="threads")
        self.variant = kernel.choose_variant(variant)
        self.device = None if device is None else gpu.check_device(device)
        self.gates = Gates.compile(catalog, policy, base.attributes.schema)
        #: The catalog's weights in the order of the base's indicators, (m, d) float32.
        self.weights = catalog.aligned_weights(base.indicator_names)
        self._is_part = is_part
        self._excluded_rows = _rows_of(base, policy.exclusions.customers, is_part)

    def beside(
        self, base: Base, *, as_of: date | None = None, policy: Policy | None = None
    ) -> Engine:
        """An engine for other customers: catalog and everything packed are shared.

        Parameters
        ----------
        base : Base
            Another part of the larger base that this engine's is a part of: of the same columns.
        as_of : date, optional
            Another day, not before the base's.
        policy : Policy, optional
            One that differs in k, in its minimum or in its limits alone: gates stay as they are.
        """
        assert self._is_part, "parts of a base belong to engines of parts"  # noqa: S101
        other = copy.copy(self)
        for name in _OF_THE_BASE:
            other.__dict__.pop(name, None)
        other.base = base
        other.as_of = self.as_of if as_of is None else as_of
        other.policy = self.policy if policy is None else policy
        other._excluded_rows = _rows_of(base, self.policy.exclusions.customers, is_part=True)
        return other

    @cached_property
    def panel(self) -> kernel.Panel:
        """The catalog, packed for the kernel."""
        return self.panel_of(np.arange(self.catalog.capability_count))

    def panel_of(self, capability_index: npt.NDArray[np.int64]) -> kernel.Panel:
        """Some capabilities, ascending, packed for the kernel and numbered anew."""
        chosen, catalog = capability_index, self.catalog
        return kernel.pack(
            self.weights[chosen],
            catalog.bias[chosen],
            value=catalog.value[chosen],
            cost=catalog.cost[chosen],
            link=[Link(code).label for code in catalog.link[chosen]],
            product=catalog.codes("product")[0][chosen],
            channel=catalog.codes("channel")[0][chosen],
            family=catalog.codes("family")[0][chosen],
            indicator_scale=self.base.indicator_scale,
            plane_index=self.gates.groups(self.as_of)[chosen],
        )

    @cached_property
    def screen(self) -> gpu.GpuScreen | None:
        """The panel on the device that screens; None where the kernel does."""
        return None if self.device is None else gpu.GpuScreen(self.panel, device=self.device)

    def prepare(self) -> None:
        """Compute what matches share; a match would, but one that is timed should not."""
        if kernel.built_variants()[self.variant].is_screened and self.screen is None:
            self.panel.prepare()
        for prepared in (self.panel, self.eligibility, self.history):
            assert prepared is not None  # noqa: S101 (reading the property is what computes it)

    @cached_property
    def mean_weights(self) -> npt.NDArray[np.float64]:
        """What the capabilities weigh on average, (d,): summed one after the other."""
        total = np.zeros(self.weights.shape[1])
        for row in self.weights:
            total += row
        return total / len(self.weights)

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
        out[self._excluded_rows] = True
        return np.flatnonzero(~out)

    @cached_property
    def control(self) -> npt.NDArray[np.bool_]:
        """Who is in the control group, for all rows of the base."""
        return control_marks(self.base.customer_ids, self.policy)

    def match(self, *, progress: Progress | None = None) -> Matches:
        """The best opportunities of every customer, exactly.

        Parameters
        ----------
        progress : callable, optional
            Called with (customers done, customers in all).
        """
        result = self.match_rows(self.customer_index, progress=progress)
        return Matches(self, result, self.customer_index, self.variant)

    def match_rows(
        self, customer_index: npt.NDArray[np.int64], *, progress: Progress | None = None
    ) -> kernel.MatchResult:
        """The best opportunities of some customers, as arrays.

        Parameters
        ----------
        customer_index : ndarray of shape (n,), int64
            Ascending rows, of `self.customer_index`.
        progress : callable, optional
        """
        ev_min, policy = self.policy.ev_min, self.policy
        # Read before threads begin: each would make its own.
        matching: Callable[..., kernel.MatchResult] = partial(kernel.match, panel=self.panel)
        if self.screen is not None:
            matching = self.screen.match
        blocks = self._over_blocks(
            lambda rows, eligible, history: matching(
                rows_of(self.base.indicators, rows),
                k=policy.k,
                eligible=eligible,
                history=history,
                limits=policy.limits,
                ev_min=ev_min,
                variant=self.variant,
            ),
            progress,
            customer_index,
        )
        return joined([result for _, result in blocks])

    def audience(
        self,
        capability_ids: Sequence[str] | None = None,
        *,
        k: int,
        progress: Progress | None = None,
    ) -> pa.Table:
        """The best customers of each capability: who fits best, whatever else they could get.

        Parameters
        ----------
        capability_ids : sequence of str, optional
            Default: every capability of the catalog, in one pass.
        k : int
            At most so many customers per capability.
        progress : callable, optional

        Returns
        -------
        pyarrow.Table
            capability_id, rank, customer_id, propensity, expected_value, control; capabilities in
            order of their ids, customers by expected value descending, then id.

        Raises
        ------
        LimitError
            If capabilities × k exceed 2^28.
        """
        if isinstance(capability_ids, str):
            raise SchemaError("must be a list of ids, got one text", field="capability_ids")
        check_count(k, "k", 1)
        if capability_ids is None:
            asked = np.arange(self.catalog.capability_count)
        else:
            asked = np.unique([self.catalog.index_of(name) for name in capability_ids])
        if not len(asked):
            raise InputError("must name at least one capability", field="capability_ids")
        k = min(k, max(1, len(self.customer_index)))
        if len(asked) * k > kernel.RESULT_CELLS_MAX:
            raise LimitError(
                f"{len(asked)} capabilities × {k} ranks exceed 2^28: ask for less", field="k"
            )
        panel, index = self.panel, asked.astype(np.int32)
        best = Audiences(len(asked), k, self.policy.ev_min)

        def add(
            rows: npt.NDArray[np.int64], eligible: kernel.Eligibility, history: kernel.History
        ) -> None:
            found = kernel.audience(
                rows_of(self.base.indicators, rows),
                panel,
                capability_index=index,
                k=k,
                eligible=eligible,
                history=history,
                ev_min=best.least,
                variant=self.variant,
            )
            best.add(rows, found)

        self._over_blocks(add, progress)
        return self._audience_table(asked, best)

    def scores(self, customer_index: npt.ArrayLike) -> kernel.ScoresResult:
        """Every number of some customers, dense, for baselines; eligibility is not looked at.

        Parameters
        ----------
        customer_index : array_like of int64
            Rows of the base.

        Raises
        ------
        InputError
            If one is no row of the base, or belongs to a customer who objected.
        LimitError
            If rows × capabilities exceed 2^26.
        """
        given = np.asarray(customer_index)
        # A mask or fractions would pass for other rows than those that were meant.
        if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
            raise SchemaError("must be a list of integers", field="customer_index")
        rows = given.astype(np.int64)
        outside = (rows < 0) | (rows >= self.base.customer_count)
        if outside.any():
            row = int(np.argmax(outside))
            raise InputError("is no row of the base", field="customer_index", row=row)
        objected = self.base.attributes[OBJECTED].to_numpy()[rows].astype(np.bool_)
        if objected.any():
            row = int(np.argmax(objected))
            reason = "the customer objected: no score may exist"
            raise InputError(reason, field="customer_index", row=row)
        # Asked before the copies below are made, which would be as large.
        if len(rows) * self.catalog.capability_count > kernel.DENSE_PAIRS_MAX:
            raise LimitError(
                f"{len(rows)} rows × {self.catalog.capability_count} capabilities exceed 2^26",
                field="customer_index",
            )
        return kernel.scores(
            rows_of(self.base.indicators, rows),
            self.panel,
            history=history_of(self.history, rows),
            variant=self.variant,
        )

    def explain(
        self,
        customer_id: str,
        capability_id: str,
        *,
        request: Request = Request(),  # noqa: B008 (immutable)
    ) -> Explanation:
        """Why a customer has, or has not, an opportunity.

        Parameters
        ----------
        customer_id, capability_id : str
        request : Request
            What whoever asks adds to the question.

        Raises
        ------
        NotFoundError
            If the base or the catalog does not hold the id.
        """
        return explain_pair(self, customer_id, capability_id, request)

    def _over_blocks(
        self,
        work: Callable[[npt.NDArray[np.int64], kernel.Eligibility, kernel.History], T],
        progress: Progress | None,
        customer_index: npt.NDArray[np.int64] | None = None,
    ) -> list[tuple[npt.NDArray[np.int64], T]]:
        asked = self.customer_index if customer_index is None else customer_index
        planes, plane_index = self.eligibility
        history = self.history

        def run(rows: npt.NDArray[np.int64]) -> T:
            eligible = kernel.Eligibility(rows_of(planes, rows), plane_index)
            return work(rows, eligible, history_of(history, rows))

        return list(over_blocks(asked, self.threads, run, progress))

    def _audience_table(self, asked: npt.NDArray[np.int64], best: Audiences) -> pa.Table:
        position, chosen, ev, propensity = best.in_order()
        # Of each position the entries stand together: a rank is the distance from the first.
        rank = np.arange(len(position)) - np.searchsorted(position, position)
        return pa.table(
            {
                "capability_id": pa.array(self.catalog.ids, pa.string()).take(
                    pa.array(asked[position])
                ),
                "rank": pa.array((rank + 1).astype(np.int32)),
                CUSTOMER_ID: self.base.customer_ids.take(pa.array(chosen)),
                "propensity": propensity,
                "expected_value": ev,
                "control": self.control[chosen],
            }
        )


def _rows_of(base: Base, customer_ids: Sequence[str], is_part: bool) -> npt.NDArray[np.int64]:
    """The rows of excluded customers: a misspelt id would leave in whom it means to leave out."""
    rows = []
    for customer_id in customer_ids:
        try:
            rows.append(base.index_of(customer_id))
        except NotFoundError as error:
            if not is_part:
                raise InputError(str(error), field="policy.exclusions.customers") from None
    return np.array(rows, np.int64)


def match(
    base: Base,
    catalog: Catalog,
    policy: Policy,
    *,
    as_of: date | str | None = None,
    threads: int | None = None,
    variant: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Matches:
    """Match every customer against every capability; see `Engine`."""
    engine = Engine(
        base, catalog, policy, as_of=as_of, threads=threads, variant=variant, device=device
    )
    return engine.match(progress=progress)


def audience(
    base: Base,
    catalog: Catalog,
    policy: Policy,
    capability_ids: Sequence[str] | None = None,
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
