"""Windows: what was known up to a cut, and what was bought in the days after it.

::

    Base as of the cut ─► history, by product ┐
                                              ├─► WindowIndex ─► sampled pairs (pairs.py)
    purchases after the cut ─► positives ─────┘

Features come from the base, which ends at the cut; labels from purchases after it. Nothing else of
the future enters, and a test shuffles it to prove that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base import Base
from visavis.domain import CUSTOMER_ID, FactKind, day_number
from visavis.errors import InputError, SchemaError
from visavis.features import FactDays

__all__ = ["Window", "WindowIndex", "index_window", "window_of"]

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Window:
    """One cut in time.

    Attributes
    ----------
    base : Base
        What was known up to the cut, ``base.as_of``, inclusive.
    outcomes : pyarrow.Table
        customer_id, product: who bought what in the window after the cut. Customers that the base
        does not hold are left out: at the cut nobody knew them.
    """

    base: Base
    outcomes: pa.Table


@dataclass(frozen=True, eq=False)
class WindowIndex:
    """A window by product: history pairs with their days, and positives.

    A *pair* is one (product, customer) with at least one purchase up to the cut; pairs are sorted
    by product, then customer.

    Attributes
    ----------
    base : Base
    pair_customer : ndarray of shape (pairs,), int32
    pair_bounds : ndarray of shape (products + 1,), int64
        The pairs of product p are ``pair_bounds[p]:pair_bounds[p + 1]``.
    day_age, day_count : ndarray of shape (days,), int32
        Sorted by pair, oldest first.
    day_bounds : ndarray of shape (pairs + 1,), int64
    positive_customer : ndarray of shape (positives,), int64
        Customers who bought in the window, ascending within a product.
    positive_bounds : ndarray of shape (products + 1,), int64
    """

    base: Base
    pair_customer: Int32
    pair_bounds: Int64
    day_age: Int32
    day_count: Int32
    day_bounds: Int64
    positive_customer: Int64
    positive_bounds: Int64

    def days(self, product: int) -> FactDays:
        """The purchase-days of one product, pair by pair."""
        first, last = self.pair_bounds[product], self.pair_bounds[product + 1]
        bounds = self.day_bounds[first : last + 1]
        cut = slice(bounds[0], bounds[-1])
        pair = np.repeat(np.arange(last - first), np.diff(bounds))
        age, count = self.day_age[cut].astype(np.float64), self.day_count[cut].astype(np.float64)
        return FactDays(pair, age, count, int(last - first))

    def customers(self, product: int) -> Int64:
        """The customers of the history pairs of one product, ascending."""
        cut = slice(self.pair_bounds[product], self.pair_bounds[product + 1])
        return self.pair_customer[cut].astype(np.int64)

    def positives(self, product: int) -> Int64:
        """The customers who bought one product in the window, ascending."""
        bounds = self.positive_bounds
        return self.positive_customer[bounds[product] : bounds[product + 1]]


def window_of(
    base: Base, facts: pa.Table, window_days: int, *, known_to: date | None = None
) -> Window:
    """The window after a base's as_of, from a table of facts that reaches beyond it.

    Parameters
    ----------
    base : Base
    facts : pyarrow.Table
        customer_id, product, kind, date, as `Base.from_tables` takes them.
    window_days : int
    known_to : date, optional
        The day up to which the facts are complete; default: that of the last one.

    Raises
    ------
    SchemaError
        If a column is missing.
    InputError
        If the facts end before the window does: a window that is cut short teaches too little.
    """
    for name in (CUSTOMER_ID, "product", "kind", "date"):
        if name not in facts.column_names:
            raise SchemaError("is missing", field=f"facts.{name}")
    last = base.as_of + timedelta(days=window_days)
    dates = facts["date"].cast(pa.date32())
    newest = pc.max(dates).as_py() if known_to is None else known_to
    if newest is None or newest < last:
        raise InputError(f"end on {newest}, the window needs them up to {last}", field="facts.date")
    inside = pc.and_(
        pc.and_(pc.greater(dates, base.as_of), pc.less_equal(dates, last)),
        pc.equal(facts["kind"], FactKind.BOUGHT.value),
    )
    return Window(base, facts.filter(inside).select([CUSTOMER_ID, "product"]))


def index_window(window: Window, products: tuple[str, ...]) -> WindowIndex:
    """Sort a window by product.

    Parameters
    ----------
    window : Window
    products : tuple of str
        Ascending; facts about other products are left out.
    """
    base, labels = window.base, pa.array(products)
    code, customer, age, count = _purchase_days(base, labels)
    order = np.lexsort((-age, customer, code))
    code, customer = code[order], customer[order]
    new_pair = np.append(True, (code[1:] != code[:-1]) | (customer[1:] != customer[:-1]))
    starts = np.flatnonzero(new_pair[: len(code)])
    pair_code = code[starts]

    rows = pc.index_in(window.outcomes[CUSTOMER_ID].combine_chunks(), base.customer_ids)
    bought = pc.index_in(window.outcomes["product"].combine_chunks(), labels)
    known = pc.and_(rows.is_valid(), bought.is_valid()).to_numpy(zero_copy_only=False)
    positive = np.unique(
        bought.fill_null(0).to_numpy()[known].astype(np.int64) * base.customer_count
        + rows.fill_null(0).to_numpy()[known]
    )
    bounds = np.arange(len(products) + 1)
    return WindowIndex(
        base=base,
        pair_customer=customer[starts],
        pair_bounds=np.searchsorted(pair_code, bounds),
        day_age=age[order],
        day_count=count[order],
        day_bounds=np.append(starts, len(code)),
        positive_customer=positive % base.customer_count,
        positive_bounds=np.searchsorted(positive // base.customer_count, bounds),
    )


def _purchase_days(base: Base, labels: pa.StringArray) -> tuple[Int32, Int32, Int32, Int32]:
    """Product code, customer, age and count of each purchase up to the cut, column by column.

    Codes of 32 bits and no copy of the whole table: at ten million facts this is where the memory
    of learning would peak.
    """
    facts = base.facts
    code = pc.fill_null(pc.index_in(facts["product"], labels), -1).to_numpy()
    age = day_number(base.as_of) - facts["date"].cast(pa.int32()).to_numpy()
    bought = pc.equal(facts["kind"], FactKind.BOUGHT.value).to_numpy()
    held = (code >= 0) & (age >= 0) & bought
    columns = (code, facts["customer_index"].to_numpy(), age, facts["count"].to_numpy())
    code, customer, age, count = (column[held].astype(np.int32) for column in columns)
    return code, customer, age, count
