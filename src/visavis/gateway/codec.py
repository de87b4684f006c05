"""Opportunities ⇄ `OpportunityColumns`: little-endian columns, ids and names in dictionaries.

Pure: bytes depend on nothing but what is given. A row of the columns is an opportunity, customers
in the order of the request, best first (proto/visavis/v1/opportunity.proto).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis import kernel
from visavis.errors import SchemaError
from visavis.v1.opportunity_pb2 import OpportunityColumns

__all__ = ["Opportunities", "decoded", "encoded", "encoded_rows", "numbers"]

Ints: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

INT32: Final[np.dtype[np.int32]] = np.dtype("<i4")
FLOAT64: Final[np.dtype[np.float64]] = np.dtype("<f8")
BYTE: Final[np.dtype[np.uint8]] = np.dtype("u1")

Number = TypeVar("Number", bound=np.generic)


class Opportunities(NamedTuple):
    """The opportunities of some customers, as columns.

    Attributes
    ----------
    opportunity_count : ndarray of shape (n_customers,), int32
    is_control : ndarray of shape (n_customers,), bool
    capability_ids : pyarrow.StringArray
        A dictionary.
    capability_index : ndarray of shape (n,), int32
        Positions in it, of each opportunity.
    propensity, expected_value : ndarray of shape (n,), float64
    reasons : pyarrow.ListArray of n lists of struct<indicator, contribution>, or None
        None if no reasons were asked for.
    """

    opportunity_count: Ints
    is_control: Bools
    capability_ids: pa.StringArray
    capability_index: Ints
    propensity: Floats
    expected_value: Floats
    reasons: pa.ListArray | None

    @property
    def customer_index(self) -> npt.NDArray[np.int64]:
        """The position of each opportunity's customer in the request, (n,)."""
        return np.repeat(np.arange(len(self.opportunity_count)), self.opportunity_count)

    @property
    def rank(self) -> Ints:
        """The rank of each opportunity, (n,): 1 is the best."""
        count = self.opportunity_count.astype(np.int64)
        starts = np.cumsum(count) - count
        return (np.arange(count.sum()) - np.repeat(starts, count) + 1).astype(np.int32)


def encoded(
    result: kernel.MatchResult,
    *,
    capability_ids: pa.StringArray,
    is_control: Bools,
    reasons: pa.ListArray | None = None,
) -> OpportunityColumns:
    """Opportunities as the contract's columns.

    Parameters
    ----------
    result : kernel.MatchResult
        Of n customers, in the order of the request; those who could not be matched have none.
    capability_ids : pyarrow.StringArray of length m
        Of the catalog, ascending.
    is_control : ndarray of shape (n,), bool
    reasons : pyarrow.ListArray of struct<indicator, contribution>, optional
        One list per opportunity, in their order.
    """
    places = np.arange(result.capability_index.shape[1])
    held = places < result.opportunity_count[:, None]
    return encoded_rows(
        result.opportunity_count,
        result.capability_index[held],
        result.propensity[held],
        result.expected_value[held],
        capability_ids=capability_ids.to_pylist(),
        is_control=is_control,
        reasons=reasons,
    )


def encoded_rows(
    opportunity_count: Ints,
    index: Ints,
    propensity: Floats,
    expected_value: Floats,
    *,
    capability_ids: Sequence[str],
    is_control: Bools,
    reasons: pa.ListArray | None = None,
) -> OpportunityColumns:
    """Opportunities that stand one after the other, n in all, as the contract's columns.

    Parameters
    ----------
    opportunity_count : ndarray of shape (customers,), int32
    index : ndarray of shape (n,), int32
        Positions in `capability_ids`.
    propensity, expected_value : ndarray of shape (n,), float64
    capability_ids : sequence of str
    is_control, reasons
        As in `encoded`.
    """
    occurs = np.zeros(len(capability_ids), dtype=np.bool_)
    occurs[index] = True
    held = np.flatnonzero(occurs)
    code = np.empty(len(capability_ids), dtype=INT32)
    code[held] = np.arange(len(held))
    columns = OpportunityColumns(
        opportunity_count=_bytes(opportunity_count, INT32),
        is_control=_bytes(is_control, BYTE),
        capability_ids=map(capability_ids.__getitem__, held.tolist()),
        capability_index=_bytes(code[index], INT32),
        propensity=_bytes(propensity, FLOAT64),
        expected_value=_bytes(expected_value, FLOAT64),
    )
    if reasons is not None:
        _add_reasons(columns, reasons)
    return columns


def _add_reasons(columns: OpportunityColumns, reasons: pa.ListArray) -> None:
    said = reasons.flatten()
    names = said.field("indicator").dictionary_encode()
    order = pc.sort_indices(names.dictionary).to_numpy()
    place = np.empty(len(order), dtype=INT32)
    place[order] = np.arange(len(order))
    columns.reason_count = _bytes(reasons.value_lengths().to_numpy(), INT32)
    columns.indicator_names.extend(names.dictionary.take(pa.array(order)).to_pylist())
    columns.indicator_index = _bytes(place[names.indices.to_numpy()], INT32)
    columns.contribution = _bytes(said.field("contribution").to_numpy(), FLOAT64)


def _bytes(values: npt.NDArray[Any], kind: np.dtype[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=kind).tobytes()


def decoded(columns: OpportunityColumns, customer_count: int) -> Opportunities:
    """What the columns say; arrays are views of their bytes, read-only.

    Parameters
    ----------
    columns : OpportunityColumns
    customer_count : int
        Of the answer.

    Raises
    ------
    SchemaError
        Naming the column: if lengths do not fit one another, or positions lie outside their
        dictionaries.
    """
    count = numbers(columns.opportunity_count, INT32, customer_count, "opportunity_count")
    n = _sum(count, "opportunity_count")
    capability_ids = pa.array(columns.capability_ids, pa.string())
    index = numbers(columns.capability_index, INT32, n, "capability_index")
    _check_places(index, len(capability_ids), "capability_index")
    control = numbers(columns.is_control, BYTE, customer_count, "is_control")
    return Opportunities(
        count,
        control.astype(np.bool_),
        capability_ids,
        index,
        numbers(columns.propensity, FLOAT64, n, "propensity"),
        numbers(columns.expected_value, FLOAT64, n, "expected_value"),
        _reasons(columns, n),
    )


def _reasons(columns: OpportunityColumns, n: int) -> pa.ListArray | None:
    if not columns.reason_count and n:
        return None
    count = numbers(columns.reason_count, INT32, n, "reason_count")
    total = _sum(count, "reason_count")
    names = pa.array(columns.indicator_names, pa.string())
    index = numbers(columns.indicator_index, INT32, total, "indicator_index")
    _check_places(index, len(names), "indicator_index")
    contribution = numbers(columns.contribution, FLOAT64, total, "contribution")
    said = pa.StructArray.from_arrays(
        [names.take(pa.array(index)), pa.array(contribution)], names=["indicator", "contribution"]
    )
    offsets = np.concatenate([[0], np.cumsum(count)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), said)


def numbers(content: bytes, kind: np.dtype[Number], count: int, field: str) -> npt.NDArray[Number]:
    """The `count` little-endian numbers of a column, a read-only view of its bytes.

    Raises
    ------
    SchemaError
        If there are not so many.
    """
    if len(content) != count * kind.itemsize:
        reason = f"must be {count} × {kind.itemsize} bytes, got {len(content)}"
        raise SchemaError(reason, field=field)
    return np.frombuffer(content, dtype=kind)


def _sum(count: Ints, field: str) -> int:
    if (count < 0).any():
        raise SchemaError("must not be negative", field=field, row=int(np.argmax(count < 0)))
    return int(count.sum(dtype=np.int64))


def _check_places(index: Ints, size: int, field: str) -> None:
    outside = (index < 0) | (index >= size)
    if outside.any():
        row = int(np.argmax(outside))
        raise SchemaError(f"must lie in 0 … {size - 1}, got {index[row]}", field=field, row=row)
