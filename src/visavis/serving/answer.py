"""`Answer`: what a match is answered with, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.engine import OPPORTUNITY_SCHEMA
from visavis.engine.matches import reason_lists
from visavis.errors import VisavisError
from visavis.kernel import Terms as ReasonTerms
from visavis.serving.version import ServingVersion, Version

__all__ = ["Answer"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The opportunities of the customers who were asked for, in the order of the request.

    Attributes
    ----------
    name : ServingVersion
        What it was made from.
    version : Version
        The same, to look ids and texts up in.
    customer_ids : sequence of n str
    errors : mapping of int to VisavisError
        By place among the customers: whom the base does not hold, or whose entries in the journal
        do not fit it. The others are answered.
    opportunity_count : ndarray of shape (n,), int32
    control : ndarray of shape (n,), bool
        Who must not be contacted.
    capability_index : ndarray of shape (total,), int32
        Customer after customer, best first.
    propensity, expected_value : ndarray of shape (total,), float64
    reasons : Terms or None
        Of each opportunity, in CSR form.
    attributes : mapping of int to mapping
        By place among the customers: what the messages of their opportunities need to know, where
        that was asked for.
    stats : mapping of str to int
        The kernel's counts, for metrics.
    """

    name: ServingVersion
    version: Version
    customer_ids: Sequence[str]
    errors: Mapping[int, VisavisError]
    opportunity_count: npt.NDArray[np.int32]
    control: npt.NDArray[np.bool_]
    capability_index: npt.NDArray[np.int32]
    propensity: npt.NDArray[np.float64]
    expected_value: npt.NDArray[np.float64]
    reasons: ReasonTerms | None
    stats: Mapping[str, int]
    attributes: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def to_table(self) -> pa.Table:
        """One row per opportunity, of `OPPORTUNITY_SCHEMA`; reasons only if they were asked for."""
        counts = self.opportunity_count
        owner = np.repeat(np.arange(len(counts)), counts)
        ends = np.cumsum(counts)
        rank = np.arange(len(owner)) - np.repeat(ends - counts, counts) + 1
        columns = [
            pa.array(self.customer_ids, pa.string()).take(pa.array(owner)),
            pa.array(rank.astype(np.int32)),
            self.version.catalog.column("id").take(pa.array(self.capability_index)),
            pa.array(self.propensity),
            pa.array(self.expected_value),
            pa.array(self.control[owner]),
        ]
        if self.reasons is not None:
            columns.append(reason_lists(self.reasons, self.version.indicator_names))
        return pa.Table.from_arrays(
            columns, schema=pa.schema(list(OPPORTUNITY_SCHEMA)[: len(columns)])
        )
