"""`Version`: base, catalog and policy at one day, with everything that a request would wait for.

What it costs per customer, beside `Customers`: 8 bytes for every 64 combinations of rule and
channel, two marks of one byte, and 8 bytes for each pair with a history. Long histories may be more
than the rest together (300 pairs of each of 1 M customers are 2.4 GB), and computing them for one
customer takes about a millisecond. So they are kept, part after part, until a budget is used up;
customers of later parts have theirs computed from their facts by each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.catalog import Catalog
from visavis.catalog.wording import placeholders
from visavis.eligibility import with_spare
from visavis.engine import Engine
from visavis.engine.matches import reason_order
from visavis.errors import InputError
from visavis.kernel import Eligibility, History, Single
from visavis.kernel.request import history_of
from visavis.policy import Policy
from visavis.serving.customers import Customers, Part

__all__ = ["HISTORY_BYTES", "ServingVersion", "Version"]

#: Adjustments kept in memory: those of 1 M customers with 100 pairs each.
HISTORY_BYTES: Final = 2**30 - 2**28

_ENTRY_BYTES: Final = 8

#: Customers all over the base who are matched once to know what the best pairs of the others will
#: reach. The kernel learns from the last 192 rows that it has had.
_TEACHERS: Final = 240

Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class ServingVersion(NamedTuple):
    """What an answer was made from: the same six give the same bytes.

    Attributes
    ----------
    base_version : int
    base_digest, catalog_digest, policy_digest : str
        sha256 in hex.
    journal_offset : int
        Entries of the journal up to it are taken into account.
    as_of : date
    """

    base_version: int
    base_digest: str
    catalog_digest: str
    policy_digest: str
    journal_offset: int
    as_of: date


@dataclass(frozen=True, eq=False)
class Version:
    """Base, catalog and policy at one day, as if no journal existed.

    Attributes
    ----------
    customers : Customers
    engine : Engine
        Of no customers: catalog and policy, compiled and packed.
    catalog_digest, policy_digest : str
    eligible : Eligibility
        Of all rows, with room for one plane more.
    is_out : ndarray of shape (n,), bool
        Who objected or is excluded: no score may exist.
    control : ndarray of shape (n,), bool
    history : History
        Of the rows below `history_rows`.
    history_rows : int
    """

    customers: Customers
    engine: Engine
    catalog_digest: str
    policy_digest: str
    eligible: Eligibility
    is_out: Bools
    control: Bools
    history: History
    history_rows: int
    #: What `visavis.serving.audience` computes on first use.
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def make(
        cls,
        customers: Customers,
        catalog: Catalog,
        policy: Policy,
        *,
        as_of: date | str | None,
        threads: int | None,
        variant: str | None,
        history_bytes: int = HISTORY_BYTES,
        is_part: bool = False,
    ) -> Version:
        """Compute what every request needs.

        Parameters
        ----------
        customers : Customers
        catalog : Catalog
        policy : Policy
        as_of, threads, variant, history_bytes
            As of `Serving.open`.
        is_part : bool
            There are more customers in other places, of whom some may be excluded.

        Raises
        ------
        InputError
            If base, catalog, policy and day do not fit together.
        """
        stored = customers.stored
        engine = Engine(
            stored.head,
            catalog,
            policy,
            as_of=as_of,
            threads=threads,
            variant=variant,
            is_part=True,
        )
        if not is_part:
            for error in map(customers.unknown, policy.exclusions.customers):
                if error is not None:
                    raise InputError(str(error), field="policy.exclusions.customers")
        engine.prepare()
        digests = catalog.digest(), policy.digest()
        return cls._of(customers, engine, digests, history_bytes)

    def beside(self, customers: Customers, *, history_bytes: int = HISTORY_BYTES) -> Version:
        """The same for other customers of the base: what is compiled and packed is shared."""
        digests = self.catalog_digest, self.policy_digest
        return self._of(customers, self.engine, digests, history_bytes)

    @classmethod
    def _of(
        cls, customers: Customers, engine: Engine, digests: tuple[str, str], history_bytes: int
    ) -> Version:
        budget = _Budget(history_bytes)

        def made(part: Part) -> _PartPlanes:
            return _PartPlanes.of(engine.beside(part.whole()), budget)

        with ThreadPoolExecutor(engine.threads) as pool:
            parts = list(pool.map(made, customers.parts))
        plane_index = parts[0].eligible.plane_index
        for each in parts:
            # Which planes there are depends on catalog, policy and day alone.
            assert np.array_equal(each.eligible.plane_index, plane_index)  # noqa: S101
        planes = np.concatenate([each.eligible.planes for each in parts])
        kept = next((i for i, each in enumerate(parts) if each.history is None), len(parts))
        version = cls(
            customers,
            engine,
            *digests,
            with_spare(Eligibility(planes, plane_index)),
            _marks([each.is_out for each in parts]),
            _marks([each.control for each in parts]),
            _joined([each.history for each in parts[:kept] if each.history is not None]),
            int(customers.starts[kept]),
        )
        # Now, so that no request waits for it.
        _ = version.single
        return version

    @cached_property
    def single(self) -> Single:
        """What matches one customer who is asked for without a context."""
        return Single(
            self.engine.panel,
            k=self.policy.k,
            plane_index=self.eligible.plane_index,
            plane_words=self.eligible.planes.shape[1],
            limits=self.policy.limits,
            ev_min=self.policy.ev_min,
            guess=self.guess,
            variant=self.engine.variant,
            by_name=self.reason_order,
            against=self.engine.mean_weights,
        )

    @cached_property
    def guess(self) -> float:
        """What some customers teach the kernel of all others: see `kernel.match`."""
        count = self.customers.count
        rows = np.arange(_TEACHERS) * count // _TEACHERS if count else np.zeros(0, np.int64)
        rows = rows[~self.is_out[rows]]
        kept = self.history_rows == count and len(self.history.adjustment)
        result = kernel.match(
            self.customers.indicators(rows),
            self.engine.panel,
            k=self.policy.k,
            eligible=Eligibility(self.eligible.planes[rows], self.eligible.plane_index),
            history=history_of(self.history, rows) if kept else None,
            limits=self.policy.limits,
            ev_min=None,
            variant=self.engine.variant,
        )
        return result.guess

    @property
    def catalog(self) -> Catalog:
        """What is served."""
        return self.engine.catalog

    @property
    def policy(self) -> Policy:
        """What people allow."""
        return self.engine.policy

    @property
    def as_of(self) -> date:
        """The day."""
        return self.engine.as_of

    @property
    def indicator_names(self) -> tuple[str, ...]:
        """In the order of the base."""
        return self.engine.base.indicator_names

    @cached_property
    def capability_index(self) -> dict[str, int]:
        """The index of each capability, by id."""
        return {name: index for index, name in enumerate(self.catalog.ids)}

    @cached_property
    def indicator_index(self) -> dict[str, int]:
        """The column of each indicator, by name."""
        return {name: index for index, name in enumerate(self.indicator_names)}

    @cached_property
    def placeholders(self) -> dict[int, frozenset[str]]:
        """The attributes that messages need, by capability; those that need none are left out."""
        needed = {index: placeholders(each) for index, each in enumerate(self.catalog.messages)}
        return {index: names for index, names in needed.items() if names}

    @cached_property
    def reason_order(self) -> Int64:
        """See `visavis.engine.matches.reason_order`."""
        return reason_order(self.indicator_names)

    def named(self, journal_offset: int) -> ServingVersion:
        """The name of this version at an offset of the journal."""
        stored = self.customers.stored
        return ServingVersion(
            stored.version,
            stored.digest,
            self.catalog_digest,
            self.policy_digest,
            journal_offset,
            self.as_of,
        )


def _marks(parts: Sequence[Bools]) -> Bools:
    """Marks of all rows; where nobody is, one mark for the row −1 to stand at."""
    marks = np.concatenate(parts)
    return marks if len(marks) else np.zeros(1, dtype=np.bool_)


class _Budget:
    """Bytes that may still be used, by several threads."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = Lock()

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self._left < 0

    def spend(self, amount: int) -> bool:
        """Take an amount; False if there was not as much."""
        with self._lock:
            self._left -= amount
            return self._left >= 0


class _PartPlanes(NamedTuple):
    eligible: Eligibility
    is_out: Bools
    control: Bools
    history: History | None

    @classmethod
    def of(cls, engine: Engine, budget: _Budget) -> _PartPlanes:
        is_out = np.ones(engine.base.customer_count, dtype=np.bool_)
        is_out[engine.customer_index] = False
        history = None if budget.is_spent else engine.history
        if history is not None and not budget.spend(_ENTRY_BYTES * len(history.adjustment)):
            history = None
        return cls(engine.eligibility, is_out, engine.control, history)


def _joined(histories: Sequence[History]) -> History:
    sizes = [np.diff(each.indptr) for each in histories]
    counts = np.concatenate([np.zeros(1, np.int64), *sizes])
    return History(
        np.cumsum(counts).astype(np.int64),
        np.concatenate([np.zeros(0, np.int32), *(each.capability_index for each in histories)]),
        np.concatenate([np.zeros(0, np.float32), *(each.adjustment for each in histories)]),
    )
