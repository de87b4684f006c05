"""An Arrow table of capabilities ⇄ checked, compact columns in the order of ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visavis.catalog.door import (
    Door,
    Floats,
    check_dates,
    check_link,
    check_magnitudes,
    check_names,
    check_number,
    check_text,
    check_texts,
    equals,
    narrowed,
    order_of_ids,
)
from visavis.catalog.nested import check_history_terms, check_weights
from visavis.catalog.schema import (
    CATALOG_SCHEMA,
    HISTORY_FIELDS,
    KINDS,
    NUMBER_DEFAULTS,
    HistoryTerms,
)
from visavis.domain import Link
from visavis.errors import InputError

__all__ = ["CatalogColumns", "check_table", "table_of_columns"]

Weights: TypeAlias = NDArray[np.float32]

#: Weights of one chunk of a table: keeps the names of one chunk far below Arrow's 2^31 bytes.
_CHUNK_WEIGHTS: Final = 2**22


@dataclass(frozen=True, slots=True)
class CatalogColumns:
    """The columns of a catalog, sorted by id in UTF-8 byte order; every array is read-only.

    Attributes
    ----------
    text : mapping of str to pyarrow.StringArray of length m
        ``id``, ``name``, ``product``, ``variant``, ``message``, ``channel``, ``family`` without
        nulls, and ``rule``, null where there is none.
    dates : mapping of str to pyarrow.Date32Array of length m
        ``valid_from`` and ``valid_to``, null where unbounded.
    weights : ndarray of shape (m, d), float32, C-contiguous
    indicator_names : tuple of d str, ascending
    bias : ndarray of shape (m,), float32
    value, cost : ndarray of shape (m,), float64
    link : ndarray of shape (m,), uint8
    terms : HistoryTerms
    """

    text: Mapping[str, pa.Array]
    dates: Mapping[str, pa.Array]
    weights: Weights
    indicator_names: tuple[str, ...]
    bias: Weights
    value: Floats
    cost: Floats
    link: NDArray[np.uint8]
    terms: HistoryTerms


def check_table(table: pa.Table) -> CatalogColumns:
    """Check a table of capabilities and bring it into the order of ids.

    Parameters
    ----------
    table : pyarrow.Table
        Columns as ``visavis.catalog`` documents them, rows in any order.

    Raises
    ------
    SchemaError
        A column is unknown, missing or of a wrong type.
    InputError
        A value breaks the contract; field, row and capability are named.
    LimitError
        The texts of a column or the weight matrix are larger than the stated bounds.
    """
    check_names(table)
    if table.num_rows == 0:
        raise InputError("a catalog needs at least one capability, got none", field="id")
    door = Door(table)
    door.ids = check_text(door, "id")
    door.refuse(equals(door.ids, ""), "id", "must not be empty")
    order = order_of_ids(door)
    text = check_texts(door)
    dates = check_dates(door)
    numbers = {name: check_number(door, name) for name in NUMBER_DEFAULTS}
    check_magnitudes(numbers, door.refuse)
    link = check_link(door)
    terms = check_history_terms(door).take(order)
    weights, indicator_names = check_weights(door, order)
    rows = pa.array(order)
    return CatalogColumns(
        text={name: column.take(rows) for name, column in text.items()},
        dates={name: column.take(rows) for name, column in dates.items()},
        weights=weights,
        indicator_names=indicator_names,
        bias=narrowed(numbers["bias"])[order],
        value=numbers["value"][order],
        cost=numbers["cost"][order],
        link=link[order],
        terms=terms,
    )


def table_of_columns(columns: CatalogColumns) -> pa.Table:
    """Return the columns as a table in the documented types; `check_table` undoes it."""
    maps = pa.chunked_array(_weight_maps(columns), CATALOG_SCHEMA.field("weights").type)
    arrays = {
        **columns.text,
        **columns.dates,
        "weights": maps,
        "history_weights": _history_lists(columns.terms),
        "bias": pa.array(columns.bias),
        "value": pa.array(columns.value),
        "cost": pa.array(columns.cost),
        "link": pa.array([link.label for link in Link]).take(pa.array(columns.link)),
    }
    return pa.table({name: arrays[name] for name in CATALOG_SCHEMA.names}, CATALOG_SCHEMA)


def _weight_maps(columns: CatalogColumns) -> Iterator[pa.Array]:
    """Yield the non-zero weights as map<string, float>, chunk by chunk."""
    names = pa.array(columns.indicator_names, pa.string())
    step = max(1, _CHUNK_WEIGHTS // max(1, len(names)))
    for first in range(0, len(columns.bias), step):
        block = columns.weights[first : first + step]
        rows, column_index = np.nonzero(block)
        counts = np.bincount(rows, minlength=len(block))
        yield pa.MapArray.from_arrays(
            pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)),
            names.take(pa.array(column_index)),
            pa.array(block[rows, column_index]),
        )


def _history_lists(terms: HistoryTerms) -> pa.Array:
    """Return the terms as list<struct>, no decay being a null half-life."""
    faded = pa.array(terms.half_life_days, mask=np.isinf(terms.half_life_days))
    children = [
        pa.array([str(kind) for kind in KINDS]).take(pa.array(terms.kind)),
        pa.array(terms.feature_names, pa.string()).take(pa.array(terms.feature)),
        faded,
        pa.array(terms.scale),
        pa.array(terms.weight),
    ]
    structs = pa.StructArray.from_arrays(children, fields=list(HISTORY_FIELDS.fields))
    return pa.ListArray.from_arrays(pa.array(terms.indptr.astype(np.int32)), structs)
