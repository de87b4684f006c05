"""The catalog: everything the company can do for a customer, checked and in one fixed order.

::

    .parquet ──────────────────────┐
    .csv .jsonl .toml ──▶ rows ──▶ table ──▶ the door ──▶ Catalog: columns sorted by id
    from_rows ─────────────▲        ▲
    from_table ─────────────────────┘

One logical schema for every format. In JSON lines and TOML (``[[capability]]``) a row is an object;
in CSV the cells of ``weights`` and ``history_weights`` are JSON text; in Parquet and Arrow the
types are as given. A column that is not listed is refused.

===================  ==============================  =====================  =======================
column               Arrow type                      where absent           meaning
===================  ==============================  =====================  =======================
``id``               string                          required               unique, not empty
``name``             string                          the id                 what people call it
``product``          string                          required               what is offered
``variant``          string                          ``""``                 which form of it
``message``          string                          ``""``                 template of the text
``channel``          string                          required               how it is offered
``family``           string                          the product            what a family limit
                                                                            counts
``weights``          map<string, float>              required, may be {}    indicator → weight
``bias``             float                           0                      added to the dot
``history_weights``  list<struct<kind, feature,      no terms               terms of the history
                     half_life_days, scale,                                 adjustment
                     weight>>                                               (``visavis.features``)
``value``            double, money, in [0, 2^100]    1                      of one purchase
``cost``             double, money, |c| ≤ 2^100      0                      of one contact
``link``             string                          ``logistic``           or ``count``,
                                                                            ``identity``
``rule``             string                          everybody              boolean expression over
                                                                            attributes
``valid_from``       date32 or ISO text              no bound               first day, inclusive
``valid_to``         date32 or ISO text              no bound               last day, inclusive
===================  ==============================  =====================  =======================

In a history term ``kind``, ``feature`` and ``weight`` are required; without ``half_life_days``
facts do not fade; ``scale`` is 1 where absent. An empty text counts as an absent one. A weight of 0
says nothing: it is not kept, and an indicator that no capability weighs is not among the names.
−0.0 is read as 0.0. Numbers become the types above by one rounding; one that overflows is refused.

The order of rows in a file never matters: capabilities are sorted by the UTF-8 bytes of their ids,
so a *capability index* means the same wherever the same catalog is read.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.catalog.columns import CatalogColumns, check_table, table_of_columns
from visavis.catalog.door import Bools, check_magnitudes, narrowed
from visavis.catalog.files import read_table, table_of_rows, write_table
from visavis.catalog.schema import (
    HistoryTerm,
    HistoryTerms,
    capability_subject,
    did_you_mean,
)
from visavis.digest import canonical_digest
from visavis.domain import Link
from visavis.errors import InputError, NotFoundError, SchemaError

__all__ = ["Catalog", "HistoryTerm", "HistoryTerms"]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Catalog:
    """All capabilities, sorted by the UTF-8 bytes of their ids; immutable.

    Made by `read`, `from_table` or `from_rows`, never by the constructor. In the attributes below m
    is the number of capabilities and d that of weighed indicators. Arrays are read-only.

    Attributes
    ----------
    ids, names, products, variants, messages, channels, families : tuple of m str
    rules : tuple of m (str or None)
    valid_from, valid_to : tuple of m (date or None)
        Inclusive bounds.
    history_weights : tuple of m tuples of HistoryTerm
    weights : ndarray of shape (m, d), float32, C-contiguous
    indicator_names : tuple of d str, ascending
        The columns of `weights`.
    bias : ndarray of shape (m,), float32
    value, cost : ndarray of shape (m,), float64
    link : ndarray of shape (m,), uint8
        Codes of ``domain.Link``.
    history_terms : HistoryTerms
        The same as `history_weights`, as columns.

    Notes
    -----
    The tuples are made on first use and then kept; `column` returns the Arrow array behind one
    without making Python objects, which is the way to read a catalog of a million capabilities.
    """

    columns: CatalogColumns

    def __post_init__(self) -> None:
        columns = self.columns
        held = (columns.weights, columns.bias, columns.value, columns.cost, columns.link)
        for array in (*held, *columns.terms[:-1]):
            array.setflags(write=False)

    def __repr__(self) -> str:
        return (
            f"Catalog({self.capability_count} capabilities, {len(self.indicator_names)} indicators)"
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a ``.parquet``, ``.csv``, ``.jsonl`` or ``.toml`` file.

        Raises
        ------
        SchemaError
            A column is unknown, missing or of a wrong type.
        InputError
            A value breaks the contract, or the file cannot be read. Field, row (0-based, in the
            order of the file) and capability are named.
        """
        return cls.from_table(read_table(path))

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Check a table with the columns of the schema above, rows in any order.

        Raises
        ------
        SchemaError, InputError, LimitError
            As `read`.
        """
        return cls(check_table(table))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object]]) -> Self:
        """Check rows given as mappings of column to cell; None is an absent cell.

        Raises
        ------
        SchemaError, InputError, LimitError
            As `read`.
        """
        return cls.from_table(table_of_rows(rows))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.parquet``, ``.csv`` or ``.jsonl`` file; it reads back with the same digest."""
        write_table(self.to_table(), path)

    def to_table(self) -> pa.Table:
        """Return the catalog in the documented Arrow types, sorted by id."""
        return table_of_columns(self.columns)

    def digest(self) -> str:
        """Return the sha256 of the canonical column buffers: equal for equal catalogs."""
        return canonical_digest(self.to_table())

    @property
    def capability_count(self) -> int:
        """The number of capabilities, m."""
        return len(self.columns.bias)

    def index_of(self, capability_id: str) -> int:
        """Return the index of a capability.

        Raises
        ------
        NotFoundError
            If the catalog does not hold it.
        """
        ids = self.columns.text["id"]
        # Python compares code points, which order as their UTF-8 bytes do.
        index = bisect_left(range(len(ids)), capability_id, key=lambda at: ids[at].as_py())
        if index == len(ids) or ids[index].as_py() != capability_id:
            raise NotFoundError(f"the catalog holds no capability {capability_id!r}")
        return index

    def column(self, name: str) -> pa.Array:
        """Return a text or date column by its singular name (``"id"``, ``"rule"``, ``"valid_to"``).

        Returns
        -------
        pyarrow.StringArray or pyarrow.Date32Array of length m
        """
        columns = {**self.columns.text, **self.columns.dates}
        if name not in columns:
            hint = did_you_mean(name, columns)
            raise SchemaError(f"is no text or date column of a catalog{hint}", field=name)
        return columns[name]

    def codes(
        self, column: Literal["product", "channel", "family"]
    ) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """Return a column as codes into its distinct labels.

        Returns
        -------
        codes : ndarray of shape (m,), int32, read-only
        labels : tuple of str, ascending by UTF-8 bytes
        """
        if column not in self._codes:
            self._codes[column] = _codes(self.column(column))
        return self._codes[column]

    def aligned_weights(self, indicator_names: Sequence[str]) -> Float32:
        """Return the weights in the columns of a base.

        Parameters
        ----------
        indicator_names : sequence of str
            The columns wanted, without repeats; those the catalog does not weigh become 0.

        Returns
        -------
        ndarray of shape (m, len(indicator_names)), float32, C-contiguous

        Raises
        ------
        SchemaError
            If a weight names an indicator that is not among `indicator_names`.
        """
        position = {name: index for index, name in enumerate(indicator_names)}
        if len(position) < len(indicator_names):
            raise SchemaError("must not repeat a name", field="indicator_names")
        for column_index, name in enumerate(self.indicator_names):
            if name not in position:
                row = int(np.argmax(self.weights[:, column_index] != 0))
                raise SchemaError(
                    f"the base has no indicator {name!r}{did_you_mean(name, position)}",
                    field=f"weights[{name!r}]",
                    subject=capability_subject(self.columns.text["id"][row].as_py()),
                )
        aligned = np.zeros((self.capability_count, len(position)), dtype=np.float32)
        aligned[:, [position[name] for name in self.indicator_names]] = self.weights
        return aligned

    def with_columns(
        self,
        *,
        value: npt.ArrayLike | None = None,
        cost: npt.ArrayLike | None = None,
        bias: npt.ArrayLike | None = None,
    ) -> Self:
        """Return the catalog with numeric columns replaced, by a number or one per capability.

        ``with_columns(value=1, cost=0)`` ranks by the expectation alone.

        Raises
        ------
        InputError
            As `read`, rows being capability indices.
        """
        given = {"value": value, "cost": cost, "bias": bias}
        numbers = {
            name: self._spread(name, numbers)
            for name, numbers in given.items()
            if numbers is not None
        }
        check_magnitudes(numbers, self._refuse)
        columns = self.columns
        return type(self)(
            replace(
                columns,
                value=numbers.get("value", columns.value),
                cost=numbers.get("cost", columns.cost),
                bias=narrowed(numbers["bias"]) if "bias" in numbers else columns.bias,
            )
        )

    def with_model(
        self,
        *,
        indicator_names: Sequence[str],
        weights: npt.ArrayLike,
        bias: npt.ArrayLike,
        history_weights: Sequence[Sequence[HistoryTerm]],
        link: Link,
    ) -> Self:
        """Return the catalog with another model behind its capabilities; the rest stays.

        Parameters
        ----------
        indicator_names : sequence of d str
            The columns of `weights`, in any order.
        weights : array_like of shape (m, d), float32
        bias : array_like of shape (m,), float32
        history_weights : sequence of m sequences of HistoryTerm
        link : Link
            One for all.

        Raises
        ------
        SchemaError, InputError
            As `read`, rows being capability indices.
        """
        matrix = np.asarray(weights, dtype=np.float32)
        if matrix.shape != (self.capability_count, len(indicator_names)):
            raise SchemaError(
                f"must be of shape ({self.capability_count}, {len(indicator_names)}), "
                f"got {matrix.shape}",
                field="weights",
            )
        if len(history_weights) != self.capability_count:
            raise SchemaError(
                f"must have {self.capability_count} entries, got {len(history_weights)}",
                field="history_weights",
            )
        by_name = sorted(range(len(indicator_names)), key=lambda column: indicator_names[column])
        columns = replace(
            self.columns,
            weights=np.ascontiguousarray(matrix[:, by_name]),
            indicator_names=tuple(indicator_names[column] for column in by_name),
            bias=self._spread("bias", bias).astype(np.float32),
            terms=HistoryTerms.of(history_weights),
            link=np.full(self.capability_count, int(link), dtype=np.uint8),
        )
        # Through the door once more: what was computed is checked like what was read.
        return type(self).from_table(table_of_columns(columns))

    def take(self, capability_index: npt.ArrayLike) -> Self:
        """Return the catalog of some capabilities; their order stays that of ids.

        Parameters
        ----------
        capability_index : array_like of int
            At least one index, without repeats, in any order.

        Raises
        ------
        InputError
            If it is empty, repeats an index or holds one out of range.
        """
        given = np.asarray(capability_index)
        if given.ndim != 1 or not len(given) or not np.issubdtype(given.dtype, np.integer):
            raise InputError("must be a non-empty list of indices", field="capability_index")
        chosen = np.unique(given).astype(np.int64)
        if len(chosen) < len(given):
            raise InputError("must not repeat an index", field="capability_index")
        if chosen[0] < 0 or chosen[-1] >= self.capability_count:
            raise InputError(
                f"must lie in 0 … {self.capability_count - 1}", field="capability_index"
            )
        rows = pa.array(chosen)
        columns = self.columns
        weights = columns.weights[chosen]
        weighed = np.flatnonzero(weights.any(axis=0))
        return type(self)(
            CatalogColumns(
                text={name: column.take(rows) for name, column in columns.text.items()},
                dates={name: column.take(rows) for name, column in columns.dates.items()},
                weights=np.ascontiguousarray(weights[:, weighed]),
                indicator_names=tuple(columns.indicator_names[index] for index in weighed),
                bias=columns.bias[chosen],
                value=columns.value[chosen],
                cost=columns.cost[chosen],
                link=columns.link[chosen],
                terms=columns.terms.take(chosen),
            )
        )

    @property
    def weights(self) -> Float32:
        """Weights of shape (m, d), float32, C-contiguous."""
        return self.columns.weights

    @property
    def indicator_names(self) -> tuple[str, ...]:
        """The d indicators that some capability weighs, ascending."""
        return self.columns.indicator_names

    @property
    def bias(self) -> Float32:
        """Biases of shape (m,), float32."""
        return self.columns.bias

    @property
    def value(self) -> Float64:
        """Values of shape (m,), float64, in units of money."""
        return self.columns.value

    @property
    def cost(self) -> Float64:
        """Costs of shape (m,), float64, in units of money."""
        return self.columns.cost

    @property
    def link(self) -> npt.NDArray[np.uint8]:
        """Codes of ``domain.Link``, of shape (m,), uint8."""
        return self.columns.link

    @property
    def history_terms(self) -> HistoryTerms:
        """The history terms of all capabilities as columns."""
        return self.columns.terms

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, ascending by their UTF-8 bytes."""
        return tuple(self.column("id").to_pylist())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What people call each capability."""
        return tuple(self.column("name").to_pylist())

    @cached_property
    def products(self) -> tuple[str, ...]:
        """The product of each capability."""
        return tuple(self.column("product").to_pylist())

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """The variant of each capability, or ``""``."""
        return tuple(self.column("variant").to_pylist())

    @cached_property
    def messages(self) -> tuple[str, ...]:
        """The message template of each capability, or ``""``."""
        return tuple(self.column("message").to_pylist())

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The channel of each capability."""
        return tuple(self.column("channel").to_pylist())

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The family of each capability."""
        return tuple(self.column("family").to_pylist())

    @cached_property
    def rules(self) -> tuple[str | None, ...]:
        """The rule of each capability, None where everybody is eligible."""
        return tuple(self.column("rule").to_pylist())

    @cached_property
    def valid_from(self) -> tuple[date | None, ...]:
        """The first day of each capability, inclusive; None where unbounded."""
        return tuple(self.column("valid_from").to_pylist())

    @cached_property
    def valid_to(self) -> tuple[date | None, ...]:
        """The last day of each capability, inclusive; None where unbounded."""
        return tuple(self.column("valid_to").to_pylist())

    @cached_property
    def history_weights(self) -> tuple[tuple[HistoryTerm, ...], ...]:
        """The history terms of each capability, in their order."""
        terms = self.columns.terms
        bounds = terms.indptr.tolist()
        return tuple(
            tuple(terms.term(index) for index in range(first, last))
            for first, last in pairwise(bounds)
        )

    @cached_property
    def _codes(self) -> dict[str, tuple[npt.NDArray[np.int32], tuple[str, ...]]]:
        """What `codes` has returned so far: online calls ask for it again and again."""
        return {}

    def _spread(self, name: str, numbers: npt.ArrayLike) -> Float64:
        try:
            given = np.asarray(numbers, dtype=np.float64)
            spread = np.broadcast_to(given, (self.capability_count,))
        except (TypeError, ValueError, OverflowError):
            raise SchemaError(
                f"must be a number, or {self.capability_count} of them", field=name
            ) from None
        return spread + 0.0

    def _refuse(self, wrong: Bools, field: str, reason: str | Callable[[int], str]) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                reason if isinstance(reason, str) else reason(row),
                field=field,
                row=row,
                subject=capability_subject(self.columns.text["id"][row].as_py()),
            )


def _codes(column: pa.Array) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    encoded = column.dictionary_encode()
    labels = encoded.dictionary.to_pylist()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.empty(len(labels), dtype=np.int32)
    rank[order] = np.arange(len(labels))
    codes = rank[encoded.indices.to_numpy()]
    codes.setflags(write=False)
    return codes, tuple(labels[code] for code in order)
