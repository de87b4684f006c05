"""What was bought: up to as_of, from the base's facts, and in the window after it, from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.catalog.door import is_text
from visavis.catalog.schema import KINDS
from visavis.domain import CUSTOMER_ID, FactKind, day_number, parse_date
from visavis.engine import Engine
from visavis.engine.blocks import check_count
from visavis.errors import InputError, LimitError, SchemaError
from visavis.evaluate.scored import Float64, Int64
from visavis.history.facts import Level, fact_rows

__all__ = [
    "Outcomes",
    "bought_pairs",
    "check_popularity",
    "outcomes_of",
    "popularity_from",
    "popularity_of",
]

#: Largest sum of all cents: sums of resampled customers then stay exact in float64.
CENTS_MAX: Final = 2**46

_COLUMNS: Final = (CUSTOMER_ID, "product", "date", "cents")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What customers of a base bought in the window after as_of.

    Attributes
    ----------
    as_of : date
        The window begins on the day after.
    window_days : int
    customer_index : ndarray of shape (p,), int64
        Rows of the base.
    product_code : ndarray of shape (p,), int64
        Codes of ``catalog.codes("product")``. (customer, product) ascends, without duplicates.
    cents : ndarray of shape (p,), int64
        What was spent on the pair in the window.
    products : tuple of str
        The labels of the codes.
    customer_count : int
        Customers of the base.
    left_out : dict of str to int
        Rows of the table that are no outcome, by reason: ``outside the window``, ``unknown
        customer``, ``product not in the catalog``.
    """

    as_of: date
    window_days: int
    customer_index: Int64
    product_code: Int64
    cents: Int64
    products: tuple[str, ...]
    customer_count: int
    left_out: dict[str, int]

    def check_fits(self, engine: Engine) -> None:
        """Refuse outcomes of another day, base or catalog than the engine's."""
        if self.as_of != engine.as_of:
            raise InputError(
                f"is {self.as_of}, the engine's {engine.as_of}", field="outcomes.as_of"
            )
        if self.customer_count != engine.base.customer_count:
            raise InputError("are those of another base", field="outcomes.customer_index")
        if self.products != engine.catalog.codes("product")[1]:
            raise InputError("are those of another catalog", field="outcomes.products")


def outcomes_of(
    purchases: pa.Table,
    base: Base,
    catalog: Catalog,
    *,
    window_days: int,
    as_of: date | str | None = None,
) -> Outcomes:
    """Check purchases and sum those of the window by customer and product.

    Parameters
    ----------
    purchases : pyarrow.Table
        ``customer_id`` (string), ``product`` (string), ``date`` (date32), ``cents`` (integer, not
        negative: what was paid, in the currency's hundredth, so that sums are exact). Rows in any
        order; several rows of one customer, product and day add up.
    base : Base
    catalog : Catalog
    window_days : int
        The window is as_of < date ≤ as_of + window_days.
    as_of : date or str, optional
        Default: the base's.

    Returns
    -------
    Outcomes
        Rows outside the window, and of customers and products that are not known, are counted in
        ``left_out``: no arm could have captured them.

    Raises
    ------
    InputError
        Naming the column and the row.
    """
    check_count(window_days, "window_days", 1)
    day = base.as_of if as_of is None else parse_date(as_of, field="as_of")
    columns = _checked_columns(purchases)
    dates = columns["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    first, last = day_number(day), day_number(day + timedelta(days=window_days))
    inside = (dates > first) & (dates <= last)
    labels = catalog.codes("product")[1]
    customer = _index(columns[CUSTOMER_ID], base.customer_ids)
    product = _index(columns["product"], pa.array(labels, pa.string()))
    known = inside & (customer >= 0)
    held = known & (product >= 0)
    cents = columns["cents"][held]
    key = customer[held] * len(labels) + product[held]
    pairs, place = np.unique(key, return_inverse=True)
    sums = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(sums, place, cents)
    return Outcomes(
        as_of=day,
        window_days=window_days,
        customer_index=pairs // len(labels),
        product_code=pairs % len(labels),
        cents=sums,
        products=labels,
        customer_count=base.customer_count,
        left_out={
            "outside the window": int((~inside).sum()),
            "unknown customer": int((inside & (customer < 0)).sum()),
            "product not in the catalog": int((known & (product < 0)).sum()),
        },
    )


def _checked_columns(purchases: pa.Table) -> dict[str, Any]:
    """By name: texts and dates as they came, cents as int64."""
    if not isinstance(purchases, pa.Table):
        raise SchemaError(
            f"must be a pyarrow.Table, got {type(purchases).__name__}", field="outcomes"
        )
    for name in purchases.column_names:
        if name not in _COLUMNS or purchases.column_names.count(name) > 1:
            reason = f"must hold each of {', '.join(_COLUMNS)} once and nothing else"
            raise SchemaError(reason, field=f"outcomes.{name}")
    columns = {}
    for name in _COLUMNS:
        field = f"outcomes.{name}"
        if name not in purchases.column_names:
            raise SchemaError("is missing", field=field)
        column = purchases[name]
        if name == "date":
            fits, wanted = pa.types.is_date32(column.type), "a date"
        elif name == "cents":
            fits, wanted = pa.types.is_integer(column.type), "an integer"
        else:
            fits, wanted = is_text(column.type), "string"
        if not fits:
            raise SchemaError(f"must be {wanted}, got {column.type}", field=field)
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise InputError("must not be null", field=field, row=row)
        columns[name] = column
    columns["cents"] = _checked_cents(columns["cents"])
    return columns


def _checked_cents(column: pa.ChunkedArray) -> Int64:
    # safe=False wraps an unsigned value beyond int64 to a negative one, which is refused.
    cents: Int64 = column.cast(pa.int64(), safe=False).to_numpy()
    wrong = (cents < 0) | (cents > CENTS_MAX)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"must lie in 0 … 2^46, got {column[row].as_py()}", field="outcomes.cents", row=row
        )
    if cents.astype(np.float64).sum() > CENTS_MAX:
        raise LimitError("add up to more than 2^46", field="outcomes.cents")
    return cents


def _index(column: pa.ChunkedArray, known: pa.Array) -> Int64:
    text = column.cast(pa.string())
    found = pc.fill_null(pc.index_in(text, value_set=known), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)


def bought_pairs(engine: Engine) -> tuple[Int64, Int64, Int64]:
    """What customers are known to have bought up to as_of.

    Returns
    -------
    customer_index, product_code, day_count : ndarray of shape (p,), int64
        One row per customer and product with a fact ``bought`` about the product or about one of
        its capabilities, and on how many days; ascending by customer, then product.
    """
    catalog = engine.catalog
    rows = fact_rows(engine.base.facts, catalog, engine.as_of, engine.base.customer_count)
    held = (rows.kind == KINDS.index(FactKind.BOUGHT)) & (rows.subject >= 0)
    subject, is_capability = rows.subject[held], rows.level[held] == Level.CAPABILITY
    codes, labels = catalog.codes("product")
    product = subject.copy()
    product[is_capability] = codes[subject[is_capability]]
    age = rows.age_days[held]
    span = int(age.max(initial=0)) + 1
    # A day counts once, whichever facts speak of it.
    days = np.unique((rows.customer[held] * len(labels) + product) * span + age)
    pairs, counts = np.unique(days // span, return_counts=True)
    return pairs // len(labels), pairs % len(labels), counts.astype(np.int64)


def popularity_of(engine: Engine) -> Float64:
    """How popular each capability is: the days on which customers bought its product.

    Returns
    -------
    ndarray of shape (m,), float64
        Counts of (customer, day) up to as_of.
    """
    return popularity_from(bought_pairs(engine), engine.catalog)


def popularity_from(bought: tuple[Int64, Int64, Int64], catalog: Catalog) -> Float64:
    """`popularity_of` from what `bought_pairs` found."""
    _, product, days = bought
    codes, labels = catalog.codes("product")
    counts = np.bincount(product, weights=days, minlength=len(labels))
    return np.asarray(counts[codes], dtype=np.float64)


def check_popularity(popularity: npt.ArrayLike, capability_count: int) -> Float64:
    """One finite number per capability."""
    given = np.asarray(popularity)
    if given.shape != (capability_count,) or given.dtype.kind not in "iuf":
        raise SchemaError(
            f"must be {capability_count} numbers, got {given.dtype} of shape {given.shape}",
            field="popularity",
        )
    wrong = ~np.isfinite(given)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"must be finite, got {given[row]}", field="popularity", row=row)
    return given.astype(np.float64)
