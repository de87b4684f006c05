"""What kinds of indicators are made of: exact integers in, columns out, one registry.

A kind receives `CustomerDays`, the exact integers of a block of customers, and its own validated
`Parameters`; it returns one or more `Column`, NaN where the indicator is undefined. `kind` puts it
into `KINDS`; `evaluate` calls it.

What makes the bits repeatable: every input is an integer; e^x and log1p are those of the kernel;
every float64 sum is a `sum_by`, which adds one row after another, over rows sorted by customer,
day and value. So a column's value for one customer is the result of one fixed sequence
of roundings over that customer's own rows, whoever else is in the block.

Words: a *visit* is a day with at least one event. *Age* is whole days from a day to as_of. *Spend*
is net of negative amounts (returns); what was *bought* leaves them out, so that shares lie in
[0, 1] and no denominator cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from visavis.arithmetic import decay, sum_by
from visavis.kernel import log1p

__all__ = [
    "AGE_BITS",
    "KINDS",
    "Column",
    "CustomerDays",
    "Float64",
    "HalfLife",
    "Int64",
    "Kind",
    "Level",
    "Parameters",
    "Undefined",
    "ValueDays",
    "evaluate",
    "fade",
    "kind",
    "ratio",
    "read_labels",
]

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

#: More than every age: years 1 to 9999 are 3.65 M days. Packs (customer, gap) into one int64.
AGE_BITS: Final = 22


@dataclass(frozen=True, slots=True)
class Level:
    """A taxonomy column, or a column of the events themselves, whose values indicators name.

    Attributes
    ----------
    name : str
        The column.
    in_taxonomy : bool
        Whether the taxonomy table has it; else the events do.
    values : tuple of str
        Every value that the taxonomy lists (those of excluded rows left out), sorted; empty for a
        column of the events, whose values are the customers' and nobody's to list.
    codes : mapping of str to int
        Value to code. Codes ascend with the value, so the order of a customer's own values does
        not depend on the values of others.
    """

    name: str
    in_taxonomy: bool
    values: tuple[str, ...]
    codes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ValueDays:
    """Which value of a level each customer bought on which day; sorted by (customer, day, code).

    Attributes
    ----------
    level : Level
    customer, age, code, bought : ndarray of shape (n_rows,), int64
        Row of the customer in the block; days to as_of; code in the level; sum of the positive
        amounts, in minor units.
    """

    level: Level
    customer: Int64
    age: Int64
    code: Int64
    bought: Int64


@dataclass(frozen=True, slots=True)
class CustomerDays:
    """The visits of a block of customers as exact integers; sorted by (customer, day).

    Attributes
    ----------
    customer_count : int
        Customers 0 to customer_count − 1, each with at least one row.
    minor_units : int
        Minor units in one unit of the amount (100 cents).
    customer, age : ndarray of shape (n_rows,), int64
        Row of the customer in the block; days to as_of, at least 0.
    spend, bought : ndarray of shape (n_rows,), int64
        Sum of all amounts and of the positive ones, in minor units; 0 if no amount is read.
    line_count, basket_count : ndarray of shape (n_rows,), int64
        Events and distinct baskets of the day; baskets are 0 if none are read.
    levels : mapping of str to ValueDays
    """

    customer_count: int
    minor_units: int
    customer: Int64
    age: Int64
    spend: Int64
    bought: Int64
    line_count: Int64
    basket_count: Int64
    levels: Mapping[str, ValueDays]

    def total(self, weights: Float64) -> Float64:
        """Sum `weights` of shape (n_rows,) per customer, in the order of the rows."""
        return sum_by(self.customer, weights, self.customer_count)

    def last_age(self) -> Int64:
        """Days since each customer's last visit, of shape (customer_count,)."""
        after = np.searchsorted(self.customer, np.arange(self.customer_count), side="right")
        return self.age[after - 1]


class Column(NamedTuple):
    """One indicator of a block: how it reads and its values, NaN where undefined."""

    name: str
    unit: str
    formula: str
    values: Float64


def read_labels(given: object) -> tuple[str, ...]:
    """Validate a list of distinct values; integers become text, as columns do.

    Raises
    ------
    ValueError
        As pydantic's validators must.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ValueError("must be a list of at least one value")
    if any(isinstance(label, bool) or not isinstance(label, str | int) for label in given):
        raise ValueError("must hold texts or integers")
    labels = tuple(str(label) for label in given)
    if len(set(labels)) != len(labels):
        raise ValueError("must not repeat a value")
    return labels


#: Days in which a weight halves: a quarter of an hour to a century.
HalfLife = Annotated[float, Field(strict=True, ge=0.01, le=36_525, allow_inf_nan=False)]
#: What is written where an indicator is undefined; fits float32.
Undefined = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e30, le=1e30)]


class Parameters(BaseModel):
    """What every kind takes; a kind with more parameters derives its own class.

    Attributes
    ----------
    kind : str
    undefined : float
        The value written where the indicator is undefined, after `transform`.
    transform : {"log1p"}, optional
        Write sign(x)·log(1 + |x|) in place of x: tames heavy tails.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    undefined: Undefined = 0.0
    transform: Literal["log1p"] | None = None

    def reads(self) -> frozenset[str]:
        """Name the parts of an event that are read beside customer and time: amount, basket."""
        return frozenset()

    def level_read(self) -> str | None:
        """Name the level that is read, if any."""
        return None

    def labels_read(self) -> tuple[str, ...]:
        """List the values of the level that are named one by one."""
        return ()


_P = TypeVar("_P", bound=Parameters)


@dataclass(frozen=True, slots=True)
class Kind:
    """A registered kind: the class of its parameters and its function."""

    parameters: type[Parameters]
    columns: Callable[[CustomerDays, Any], list[Column]]


#: Every kind by the name that specs use.
KINDS: Final[dict[str, Kind]] = {}


def kind(
    name: str, parameters: type[_P]
) -> Callable[
    [Callable[[CustomerDays, _P], list[Column]]], Callable[[CustomerDays, _P], list[Column]]
]:
    """Register the decorated function as the kind `name`.

    The function must work on zero customers too: that is how definitions are made.
    """

    def register(
        columns: Callable[[CustomerDays, _P], list[Column]],
    ) -> Callable[[CustomerDays, _P], list[Column]]:
        if name in KINDS:
            raise ValueError(f"kind {name!r} is registered twice")
        KINDS[name] = Kind(parameters, columns)
        return columns

    return register


def evaluate(parameters: Parameters, days: CustomerDays) -> list[Column]:
    """Compute the columns of one indicator of the spec: its kind, then transform and undefined."""
    columns = KINDS[parameters.kind].columns(days, parameters)
    if parameters.transform == "log1p":
        columns = [_log1p(column) for column in columns]
    return [
        column._replace(
            values=np.where(np.isnan(column.values), parameters.undefined, column.values)
        )
        for column in columns
    ]


def fade(age: Int64, half_life_days: float) -> Float64:
    """2^(−age/half-life) as float64, of the shape of `age`; `age` in days, at least 0.

    Computed once per whole age up to the largest: ages are few, rows are many.
    """
    if age.size == 0:
        return np.zeros(age.shape)
    return decay(np.arange(int(age.max()) + 1, dtype=np.float64), half_life_days)[age]


def ratio(numerator: Float64, denominator: Float64) -> Float64:
    """Divide; NaN where the denominator is not positive."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _log1p(column: Column) -> Column:
    known = np.where(np.isnan(column.values), 0.0, column.values)
    logarithm = log1p(np.abs(known))
    signed = np.where(known < 0, -logarithm, logarithm)
    return Column(
        f"log1p_{column.name}",
        f"log(1 + {column.unit})",
        f"sign(x)·log(1 + |x|) of x = {column.formula}",
        np.where(np.isnan(column.values), np.nan, signed),
    )
