"""Opportunities as a table, each with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import kernel
from visavis.digest import canonical_digest
from visavis.domain import CUSTOMER_ID, HISTORY
from visavis.engine.blocks import check_count

if TYPE_CHECKING:
    from visavis.engine.engine import Engine

__all__ = [
    "OPPORTUNITY_SCHEMA",
    "Matches",
    "joined",
    "reason_lists",
    "reason_order",
    "reasons_of",
]

#: Reasons listed with an opportunity unless the caller asks for another number.
REASON_COUNT: Final = 3

#: Reasons that one call of the kernel has room for: 64 MiB, also where most pairs have fewer.
_REASON_CELLS: Final = 1 << 22

_REASON: Final = pa.struct([("indicator", pa.string()), ("contribution", pa.float64())])

#: One row per opportunity, customers in order of their ids, best first.
OPPORTUNITY_SCHEMA: Final = pa.schema(
    [
        pa.field(CUSTOMER_ID, pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("capability_id", pa.string(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),
        pa.field("expected_value", pa.float64(), nullable=False),
        pa.field("control", pa.bool_(), nullable=False),
        pa.field("reasons", pa.list_(_REASON), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Matches:
    """The opportunities of a base.

    Attributes
    ----------
    engine : Engine
        What they were found with.
    result : kernel.MatchResult
        For the rows of `customer_index`.
    customer_index : ndarray of shape (n,), int64
        The rows of the base that were matched: those that did not object and are not excluded.
    variant : str
        The kernel variant that ran.
    """

    engine: Engine
    result: kernel.MatchResult
    customer_index: npt.NDArray[np.int64]
    variant: str

    @property
    def opportunity_count(self) -> int:
        """How many opportunities there are in all."""
        return int(self.result.opportunity_count.sum())

    @property
    def stats(self) -> dict[str, int]:
        """The kernel's counts, summed over blocks."""
        return dict(self.result.stats)

    def to_table(
        self, *, reasons: int | None = REASON_COUNT, distinctive: bool = False, coded: bool = False
    ) -> pa.Table:
        """One row per opportunity, of `OPPORTUNITY_SCHEMA`.

        Parameters
        ----------
        reasons : int or None
            At most so many reasons per opportunity: indicators (or ``history``) with a positive
            contribution, contribution descending, then name. None leaves the column out.
        distinctive : bool
            Count only what an indicator says beyond what it says for the mean capability of the
            catalog: x·(w − mean w). Where learned weights let every capability weigh how active a
            customer is, the plain contributions tell why anything, these tell why this.
        coded : bool
            Ids as dictionaries of those that occur: the same values, and less to write.

        Returns
        -------
        pyarrow.Table
            Customers in order of their ids, opportunities best first. Rows marked ``control``
            belong to customers who must not be contacted.
        """
        if reasons is not None:
            check_count(reasons, "reasons", 0)
        engine = self.engine
        held = (
            np.arange(self.result.capability_index.shape[1])
            < (self.result.opportunity_count[:, None])
        )
        rows, positions = np.nonzero(held)
        customer_index = self.customer_index[rows]
        capability_index = self.result.capability_index[rows, positions]
        capability_ids = pa.array(engine.catalog.ids, pa.string())
        columns = [
            _ids(engine.base.customer_ids, customer_index, coded),
            pa.array((positions + 1).astype(np.int32)),
            _ids(capability_ids, capability_index, coded),
            pa.array(self.result.propensity[rows, positions]),
            pa.array(self.result.expected_value[rows, positions]),
            pa.array(engine.control[customer_index]),
        ]
        if reasons is not None:
            columns.append(
                reasons_of(
                    engine, customer_index, capability_index, count=reasons, distinctive=distinctive
                )
            )
        fields = [
            field.with_type(column.type)
            for field, column in zip(OPPORTUNITY_SCHEMA, columns, strict=False)
        ]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def digest(self) -> str:
        """The sha256 of the canonical column buffers of `to_table`, in hex."""
        return canonical_digest(self.to_table())


def _ids(ids: pa.StringArray, index: npt.NDArray[Any], coded: bool) -> pa.Array:
    """The ids at some places; coded, of those that occur, in the order of the ids."""
    if not coded:
        return ids.take(pa.array(index))
    occurs = np.zeros(len(ids), dtype=np.bool_)
    occurs[index] = True
    code = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return pa.DictionaryArray.from_arrays(pa.array(code[index]), ids.filter(pa.array(occurs)))


def reasons_of(
    engine: Engine,
    customer_index: npt.NDArray[np.int64],
    capability_index: npt.NDArray[np.int32],
    *,
    count: int,
    distinctive: bool = False,
) -> pa.ListArray:
    """The largest positive contributions of some pairs.

    Parameters
    ----------
    customer_index : ndarray of shape (n_pairs,), int64
    capability_index : ndarray of shape (n_pairs,), int32
    count : int
        At most so many per pair.
    distinctive : bool
        As of `Matches.to_table`.

    Returns
    -------
    pyarrow.ListArray of n_pairs lists of struct<indicator, contribution>
        Contribution descending, then name.
    """
    names = engine.base.indicator_names
    by_name = reason_order(names)
    step = max(1, _REASON_CELLS // max(1, min(count, len(by_name))))
    lists = [
        reason_lists(
            kernel.largest_terms(
                engine.base.indicators,
                engine.panel,
                customer_index[begin : begin + step],
                capability_index[begin : begin + step],
                history=engine.history,
                by_name=by_name,
                count=count,
                against=engine.mean_weights if distinctive else None,
            ),
            names,
        )
        for begin in range(0, max(1, len(customer_index)), step)
    ]
    return lists[0] if len(lists) == 1 else pa.concat_arrays(lists)


def reason_order(indicator_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The columns of the indicators and, behind them, of the history, in order of their names."""
    names = [*indicator_names, HISTORY]
    return np.array(sorted(range(len(names)), key=lambda column: names[column].encode()))


def reason_lists(terms: kernel.Terms, indicator_names: Sequence[str]) -> pa.ListArray:
    """Terms as Arrow has them."""
    names = pa.array([*indicator_names, HISTORY])
    struct = pa.StructArray.from_arrays(
        [names.take(pa.array(terms.name_index, pa.int64())), pa.array(terms.contribution)],
        fields=list(_REASON),
    )
    return pa.ListArray.from_arrays(pa.array(terms.offsets, pa.int32()), struct)


def joined(results: Sequence[kernel.MatchResult]) -> kernel.MatchResult:
    """One result from those of blocks, at least one, in their order."""
    first = results[0]
    return kernel.MatchResult(
        np.concatenate([result.capability_index for result in results]),
        np.concatenate([result.expected_value for result in results]),
        np.concatenate([result.propensity for result in results]),
        np.concatenate([result.opportunity_count for result in results]),
        {name: sum(result.stats[name] for result in results) for name in first.stats},
        {name: sum(result.nanoseconds[name] for result in results) for name in first.nanoseconds},
    )
