"""The nested columns of a catalog at the door: weights (maps) and history terms (lists of structs).

Both are read through their Arrow offsets: the entries of all rows are one flat array, checked and
scattered at once. A refusal names the entry, the row and the capability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visavis.catalog.door import (
    Bools,
    Door,
    Floats,
    Ints,
    floats,
    is_number,
    is_text,
    narrowed,
    nulls,
    one_array,
)
from visavis.catalog.schema import HISTORY_FIELDS, KINDS, HistoryTerms, did_you_mean
from visavis.domain import HISTORY, FactKind
from visavis.errors import InputError, LimitError, SchemaError
from visavis.features import FEATURES

__all__ = ["check_history_terms", "check_weights"]

Weights: TypeAlias = NDArray[np.float32]

#: Most cells of the dense weight matrix (8 GiB): it would otherwise grow with the product of
#: capabilities and *distinct* indicators, which a file of misspelt names can make anything.
WEIGHT_CELLS_MAX: Final = 2**31

#: Cells scattered at a time while weights are checked for repeated indicators (16 MiB of flags).
_BLOCK_CELLS: Final = 2**24


def check_history_terms(door: Door) -> HistoryTerms:
    """Return the terms of all capabilities in the order of the input."""
    field = "history_weights"
    names = tuple(FEATURES)
    column = door.column(field)
    if column is None:
        column = pa.chunked_array([pa.nulls(door.row_count, pa.list_(HISTORY_FIELDS))])
    dtype = column.type
    if not ((pa.types.is_list(dtype) or pa.types.is_large_list(dtype)) and _fits_terms(dtype)):
        raise SchemaError(
            f"must be a list of struct<kind, feature, half_life_days, scale, weight>, got {dtype}",
            field=field,
        )
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    entries = one_array(pc.list_flatten(column))
    terms = _Terms(door, np.repeat(np.arange(door.row_count), lengths), indptr, entries)
    terms.refuse(nulls(entries), "", lambda _: "must be a struct, got null")
    kind = terms.code("kind", tuple(KINDS))
    terms.refuse(
        kind == KINDS.index(FactKind.EXCLUDED),
        ".kind",
        lambda _: "excluded facts make the pair ineligible; no weight applies to them",
    )
    feature = terms.code("feature", names)
    half_life = terms.positive("half_life_days", np.inf)
    scale = terms.positive("scale", 1.0)
    weight = terms.number("weight", None)
    return HistoryTerms(
        indptr, kind.astype(np.int8), feature.astype(np.int32), half_life, scale, weight, names
    )


def _fits_terms(dtype: pa.DataType) -> bool:
    """Tell whether the elements are structs; name a field that is unknown, missing or mistyped."""
    if not pa.types.is_struct(dtype.value_type):
        return False
    fields = {child.name: child.type for child in dtype.value_type.fields}
    for name, child in fields.items():
        field = f"history_weights.{name}"
        if name not in HISTORY_FIELDS.names:
            hint = did_you_mean(name, HISTORY_FIELDS.names)
            raise SchemaError(f"is no field of a history term{hint}", field=field)
        expects_text = name in ("kind", "feature")
        fits = is_text(child) if expects_text else is_number(child)
        if not (fits or pa.types.is_null(child)):
            expected = "text" if expects_text else "a number"
            raise SchemaError(f"must be {expected}, got {child}", field=field)
    for name in ("kind", "feature", "weight"):
        if name not in fields:
            raise SchemaError("is required in every history term", field=f"history_weights.{name}")
    return True


@dataclass(frozen=True, slots=True)
class _Terms:
    """All history terms of the input, flattened, and how a refusal names one."""

    door: Door
    row: Ints
    indptr: Ints
    entries: pa.Array

    def refuse(self, wrong: Bools, child: str, reason: Callable[[int], str]) -> None:
        if wrong.any():
            index = int(np.argmax(wrong))
            row = int(self.row[index])
            raise InputError(
                reason(index),
                field=f"history_weights[{index - int(self.indptr[row])}]{child}",
                row=row,
                subject=self.door.subject(row),
            )

    def code(self, child: str, known: tuple[str, ...]) -> Ints:
        texts = self.entries.field(child).cast(pa.string())
        codes: Ints = pc.fill_null(pc.index_in(texts, pa.array(known)), -1).to_numpy()

        def reason(index: int) -> str:
            text = texts[index].as_py()
            hint = did_you_mean(text or "", known)
            return f"must be one of {', '.join(known)}, got {text!r}{hint}"

        self.refuse(codes < 0, f".{child}", reason)
        return codes

    def number(self, child: str, default: float | None) -> Floats:
        """Return finite values; nulls become `default`, or are refused if it is None."""
        if self.entries.type.get_field_index(child) < 0:
            return np.full(len(self.entries), default, dtype=np.float64)
        column = self.entries.field(child).cast(pa.float64(), safe=False)
        absent = nulls(column)
        if default is None:
            self.refuse(absent, f".{child}", lambda _: "is required, got null")
        values = floats(column, 0.0)
        self.refuse(
            ~np.isfinite(values), f".{child}", lambda i: f"must be finite, got {float(values[i])!r}"
        )
        return np.where(absent, default, values) if default is not None else values

    def positive(self, child: str, default: float) -> Floats:
        values = self.number(child, default)
        self.refuse(
            values <= 0, f".{child}", lambda i: f"must be positive, got {float(values[i])!r}"
        )
        return values


@dataclass(frozen=True, slots=True)
class _WeightEntries:
    """The weights of one chunk of rows, entry by entry, and how a refusal names one."""

    door: Door
    first_row: int
    lengths: Ints
    names: tuple[str, ...]
    name_code: Ints
    values: Weights

    def row(self, index: int) -> int:
        """Return the input row of an entry."""
        return self.first_row + int(np.searchsorted(np.cumsum(self.lengths), index, side="right"))

    def refuse(self, wrong: Bools, reason: Callable[[int], str]) -> None:
        """Raise for the first entry that is `wrong` (shape (entries,)), if any is."""
        if wrong.any():
            index = int(np.argmax(wrong))
            row = self.row(index)
            raise InputError(
                reason(index),
                field=f"weights[{self.names[self.name_code[index]]!r}]",
                row=row,
                subject=self.door.subject(row),
            )


def check_weights(door: Door, order: Ints) -> tuple[Weights, tuple[str, ...]]:
    """Scatter the maps into a dense matrix.

    Parameters
    ----------
    door : Door
    order : ndarray of shape (m,), int64
        The input rows in the order of ids.

    Returns
    -------
    weights : ndarray of shape (m, d), float32, C-contiguous
        Rows in the order of ids.
    indicator_names : tuple of d str, ascending
        Those that at least one capability weighs other than 0: a weight of 0 says nothing.
    """
    column = door.column("weights")
    if column is None or not _is_weight_map(column.type):
        got = "nulls" if column is None else f"a column of {column.type}"
        raise SchemaError(f"must be a map of indicator name to number, got {got}", field="weights")
    parts: list[_WeightEntries] = []
    first_row = 0
    for chunk in column.chunks:
        if len(chunk):
            parts.append(_weight_entries(door, chunk, first_row))
        first_row += len(chunk)
    names = sorted({name for entries in parts for name in entries.names})
    if door.row_count * len(names) > WEIGHT_CELLS_MAX:
        raise LimitError(
            f"{door.row_count} capabilities × {len(names)} indicators exceed "
            f"{WEIGHT_CELLS_MAX} weights",
            field="weights",
        )
    dense: Weights = np.zeros((door.row_count, len(names)), dtype=np.float32)
    sorted_row = np.empty(door.row_count, dtype=np.int64)
    sorted_row[order] = np.arange(door.row_count)
    rank = {name: index for index, name in enumerate(names)}
    for entries in parts:
        rank_of_code = np.array([rank[name] for name in entries.names], dtype=np.int64)
        _scatter(entries, rank_of_code, sorted_row, dense)
    weighed = np.flatnonzero(dense.any(axis=0))
    if len(weighed) < len(names):
        dense = np.ascontiguousarray(dense[:, weighed])
        names = [names[column_index] for column_index in weighed]
    return dense, tuple(names)


def _is_weight_map(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_map(dtype) and is_text(dtype.key_type) and is_number(dtype.item_type))


def _weight_entries(door: Door, chunk: Any, first_row: int) -> _WeightEntries:
    """Check one chunk (a MapArray without nulls) entry by entry."""
    offsets = chunk.offsets.to_numpy()
    start, stop = int(offsets[0]), int(offsets[-1])
    names, name_code = _name_codes(chunk.keys.slice(start, stop - start))
    items = chunk.items.slice(start, stop - start).cast(pa.float64(), safe=False)
    values = floats(items, 0.0)
    narrow = narrowed(values)
    entries = _WeightEntries(
        door, first_row, np.diff(offsets).astype(np.int64), names, name_code, narrow
    )

    def must(what: str) -> Callable[[int], str]:
        return lambda index: f"must {what}, got {float(values[index])!r}"

    nameless, reserved = (
        np.array([name == wrong for name in names], dtype=np.bool_)[name_code]
        for wrong in ("", HISTORY)
    )
    entries.refuse(nameless, lambda _: "an indicator needs a name")
    entries.refuse(reserved, lambda _: f"{HISTORY!r} is reserved; use history_weights")
    entries.refuse(nulls(items), lambda _: "must be a number, got null")
    entries.refuse(~np.isfinite(values), must("be finite"))
    entries.refuse(~np.isfinite(narrow), must("fit float32"))
    return entries


def _name_codes(keys: pa.Array) -> tuple[tuple[str, ...], Ints]:
    """Return the distinct keys and the code of each key."""
    encoded = keys if pa.types.is_dictionary(keys.type) else keys.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    # A dictionary from a file may repeat a name, or hold names that no row uses.
    used = np.flatnonzero(np.bincount(codes, minlength=len(encoded.dictionary)))
    compact = encoded.dictionary.take(pa.array(used)).cast(pa.string()).dictionary_encode()
    code_of_used = np.zeros(len(encoded.dictionary), dtype=np.int64)
    code_of_used[used] = compact.indices.to_numpy()
    return tuple(compact.dictionary.to_pylist()), code_of_used[codes]


def _scatter(entries: _WeightEntries, rank_of_code: Ints, sorted_row: Ints, dense: Weights) -> None:
    """Write one chunk's weights into `dense`; refuse an indicator that a row names twice."""
    bounds = np.concatenate([[0], np.cumsum(entries.lengths)])
    width = dense.shape[1]
    block_rows = max(1, _BLOCK_CELLS // max(1, width))
    for low in range(0, len(entries.lengths), block_rows):
        high = min(low + block_rows, len(entries.lengths))
        first, last = int(bounds[low]), int(bounds[high])
        local_row = np.repeat(np.arange(high - low), entries.lengths[low:high])
        columns = rank_of_code[entries.name_code[first:last]]
        seen = np.zeros((high - low, width), dtype=np.bool_)
        seen[local_row, columns] = True
        if np.count_nonzero(seen) != len(columns):
            repeated = np.zeros(len(entries.values), dtype=np.bool_)
            _, firsts = np.unique(local_row * width + columns, return_index=True)
            repeated[first:last] = True
            repeated[first + firsts] = False
            entries.refuse(repeated, lambda _: "appears more than once")
        home = sorted_row[entries.first_row + low : entries.first_row + high]
        dense[home[local_row], columns] = entries.values[first:last]
