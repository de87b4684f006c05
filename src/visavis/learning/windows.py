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
from datetime import timedelta

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
Float64 = npt.NDArray[np.float64]


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
    pair_customer : ndarray of shape (pairs,), int64
    pair_bounds : ndarray of shape (products + 1,), int64
        The pairs of product p are ``pair_bounds[p]:pair_bounds[p + 1]``.
    day_age, day_count : ndarray of shape (days,), float64
        Sorted by pair, oldest first.
    day_bounds : ndarray of shape (pairs + 1,), int64
    positive_customer : ndarray of shape (positives,), int64
        Customers who bought in the window, ascending within a product.
    positive_bounds : ndarray of shape (products + 1,), int64
    """

    base: Base
    pair_customer: Int64
    pair_bounds: Int64
    day_age: Float64
    day_count: Float64
    day_bounds: Int64
    positive_customer: Int64
    positive_bounds: Int64

    def days(self, product: int) -> FactDays:
        """The purchase-days of one product, pair by pair."""
        first, last = self.pair_bounds[product], self.pair_bounds[product + 1]
        bounds = self.day_bounds[first : last + 1]
        cut = slice(bounds[0], bounds[-1])
        pair = np.repeat(np.arange(last - first), np.diff(bounds))
        return FactDays(pair, self.day_age[cut], self.day_count[cut], int(last - first))

    def customers(self, product: int) -> Int64:
        """The customers of the history pairs of one product, ascending."""
        return self.pair_customer[self.pair_bounds[product] : self.pair_bounds[product + 1]]

    def positives(self, product: int) -> Int64:
        """The customers who bought one product in the window, ascending."""
        bounds = self.positive_bounds
        return self.positive_customer[bounds[product] : bounds[product + 1]]


def window_of(base: Base, facts: pa.Table, window_days: int) -> Window:
    """The window after a base's as_of, from a table of facts that reaches beyond it.

    Parameters
    ----------
    base : Base
    facts : pyarrow.Table
        customer_id, product, kind, date, as `Base.from_tables` takes them.
    window_days : int

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
    newest = pc.max(dates).as_py()
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
    facts = base.facts.filter(pc.equal(base.facts["kind"], FactKind.BOUGHT.value))
    product = pc.index_in(facts["product"].combine_chunks(), labels)
    held = product.is_valid().to_numpy(zero_copy_only=False)
    code = product.drop_null().to_numpy().astype(np.int64)
    customer = facts["customer_index"].to_numpy()[held]
    age = day_number(base.as_of) - facts["date"].cast(pa.int32()).to_numpy()[held]
    past = age >= 0
    order = np.lexsort((-age[past], customer[past], code[past]))
    code, customer = code[past][order], customer[past][order]
    key = code * base.customer_count + customer
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    pair_code = code[starts]
    count = facts["count"].to_numpy()[held][past][order]

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
        day_age=age[past][order].astype(np.float64),
        day_count=count.astype(np.float64),
        day_bounds=np.append(starts, len(key)),
        positive_customer=positive % base.customer_count,
        positive_bounds=np.searchsorted(positive // base.customer_count, bounds),
    )
