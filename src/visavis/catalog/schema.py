"""The logical schema of a catalog: its columns, their Arrow types and defaults, its history terms.

The table of meanings is in ``visavis.catalog``; this module holds it as code, for the modules that
read, check and write it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visavis.domain import FactKind

__all__ = [
    "CATALOG_SCHEMA",
    "DATE_COLUMNS",
    "HISTORY_FIELDS",
    "KINDS",
    "NUMBER_DEFAULTS",
    "REQUIRED",
    "TEXT_COLUMNS",
    "HistoryTerm",
    "HistoryTerms",
    "capability_subject",
    "csr_rows",
    "did_you_mean",
]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

#: The fields of one element of ``history_weights``, with their Arrow types.
HISTORY_FIELDS: Final = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("feature", pa.string()),
        pa.field("half_life_days", pa.float64()),
        pa.field("scale", pa.float64()),
        pa.field("weight", pa.float64()),
    ]
)

#: The columns of a catalog in their order, in the types that ``Catalog.to_table`` returns.
CATALOG_SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("product", pa.string()),
        pa.field("variant", pa.string()),
        pa.field("message", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("family", pa.string()),
        pa.field("weights", pa.map_(pa.string(), pa.float32())),
        pa.field("bias", pa.float32()),
        pa.field("history_weights", pa.list_(HISTORY_FIELDS)),
        pa.field("value", pa.float64()),
        pa.field("cost", pa.float64()),
        pa.field("link", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("valid_from", pa.date32()),
        pa.field("valid_to", pa.date32()),
    ]
)

#: Columns that every file must have, without nulls.
REQUIRED: Final = ("id", "product", "channel", "weights")

TEXT_COLUMNS: Final = (
    "id", "name", "product", "variant", "message", "channel", "family", "link", "rule",
)  # fmt: skip

#: What an absent number stands for.
NUMBER_DEFAULTS: Final = {"bias": 0.0, "value": 1.0, "cost": 0.0}

DATE_COLUMNS: Final = ("valid_from", "valid_to")

#: The kinds of facts by their code in ``HistoryTerms.kind``.
KINDS: Final = tuple(FactKind)


@dataclass(frozen=True, slots=True)
class HistoryTerm:
    """One term of a capability's history adjustment: ``weight · feature(facts of one kind)``.

    Attributes
    ----------
    kind : FactKind
        The facts it looks at; not ``excluded``, which admits no weight.
    feature : str
        A name from ``visavis.features.FEATURES``.
    half_life_days : float or None
        Days after which a fact counts half, > 0; None: facts do not fade.
    scale : float
        > 0, in the unit of the feature; used only where the feature's formula says so.
    weight : float
        Finite.
    """

    kind: FactKind
    feature: str
    half_life_days: float | None
    scale: float
    weight: float


class HistoryTerms(NamedTuple):
    """The history terms of all capabilities as columns: a CSR by capability, terms in their order.

    Attributes
    ----------
    indptr : ndarray of shape (m + 1,), int64
        The terms of capability j are ``indptr[j]:indptr[j + 1]``.
    kind : ndarray of shape (terms,), int8
        Codes of `KINDS`.
    feature : ndarray of shape (terms,), int32
        Codes of `feature_names`.
    half_life_days : ndarray of shape (terms,), float64
        > 0; infinity where facts do not fade.
    scale, weight : ndarray of shape (terms,), float64
    feature_names : tuple of str
    """

    indptr: Ints
    kind: NDArray[np.int8]
    feature: NDArray[np.int32]
    half_life_days: Floats
    scale: Floats
    weight: Floats
    feature_names: tuple[str, ...]

    @classmethod
    def of(cls, terms_by_capability: Sequence[Sequence[HistoryTerm]]) -> Self:
        """Return the terms of capabilities, given one after the other, as columns."""
        terms = [term for terms in terms_by_capability for term in terms]
        names = tuple(sorted({term.feature for term in terms}))
        code = {name: index for index, name in enumerate(names)}
        sizes = [len(terms) for terms in terms_by_capability]
        half_lives = [
            np.inf if term.half_life_days is None else term.half_life_days for term in terms
        ]
        return cls(
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.array([KINDS.index(term.kind) for term in terms], dtype=np.int8),
            np.array([code[term.feature] for term in terms], dtype=np.int32),
            np.array(half_lives, dtype=np.float64),
            np.array([term.scale for term in terms], dtype=np.float64),
            np.array([term.weight for term in terms], dtype=np.float64),
            names,
        )

    def term(self, index: int) -> HistoryTerm:
        """Return term `index` (a position in the columns, not in a capability's list)."""
        half_life = float(self.half_life_days[index])
        return HistoryTerm(
            kind=KINDS[self.kind[index]],
            feature=self.feature_names[self.feature[index]],
            half_life_days=None if half_life == np.inf else half_life,
            scale=float(self.scale[index]),
            weight=float(self.weight[index]),
        )

    def take(self, capabilities: Ints) -> Self:
        """Return the terms of `capabilities` (shape (c,), int64), in that order."""
        lengths = np.diff(self.indptr)[capabilities]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        chosen = csr_rows(self.indptr[:-1][capabilities], lengths)
        return type(self)(
            indptr,
            self.kind[chosen],
            self.feature[chosen],
            self.half_life_days[chosen],
            self.scale[chosen],
            self.weight[chosen],
            self.feature_names,
        )


def csr_rows(starts: Ints, lengths: Ints) -> Ints:
    """Return the concatenation of the ranges ``starts[i] … starts[i] + lengths[i] − 1``."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    rows: Ints = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)
    return rows


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `known`, or ``""``."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def capability_subject(capability_id: object) -> str | None:
    """Return how an error names the capability, or None where it has no usable id."""
    if isinstance(capability_id, str) and capability_id:
        return f"capability {capability_id!r}"
    return None
