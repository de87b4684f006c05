"""What several shards answer, put together: the bytes of one that holds everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis.catalog.schema import csr_rows
from visavis.errors import VisavisError
from visavis.kernel import Terms as ReasonTerms
from visavis.serving.answer import Answer
from visavis.serving.audience import Audience

__all__ = ["Rows", "answer_of", "audience_of", "rows_of"]

Int64 = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """An `Answer` without what whoever asked knows already; attributes as there."""

    errors: Mapping[int, VisavisError]
    opportunity_count: npt.NDArray[np.int32]
    control: npt.NDArray[np.bool_]
    capability_index: npt.NDArray[np.int32]
    propensity: npt.NDArray[np.float64]
    expected_value: npt.NDArray[np.float64]
    reasons: ReasonTerms | None
    stats: Mapping[str, int]
    attributes: Mapping[int, Mapping[str, Any]]


def rows_of(answer: Answer) -> Rows:
    """What of an answer travels."""
    return Rows(*(getattr(answer, name) for name in Rows._fields))


def answer_of(
    nobody: Answer, customer_ids: Sequence[str], found: Sequence[tuple[Int64, Rows]]
) -> Answer:
    """The answer about some customers.

    Parameters
    ----------
    nobody : Answer
        From the same state, about no customer.
    customer_ids : sequence of n str
    found : sequence of (ndarray of int64, Rows)
        The places of some of them, and what was found; each place once.
    """
    if not found:
        return replace(nobody, customer_ids=customer_ids)
    rows = [each for _, each in found]
    # Customer after customer as they came; then in the order of the request.
    places = np.concatenate([each for each, _ in found])
    came = np.empty(len(places), dtype=np.int64)
    came[places] = np.arange(len(places))
    sizes = np.concatenate([each.opportunity_count for each in rows])
    starts = np.cumsum(sizes) - sizes
    order = csr_rows(starts[came], sizes[came].astype(np.int64))
    stats: Counter[str] = Counter()
    for each in rows:
        stats.update(each.stats)
    return replace(
        nobody,
        customer_ids=customer_ids,
        errors=_placed([(at, each.errors) for at, each in found]),
        opportunity_count=sizes[came],
        control=np.concatenate([each.control for each in rows])[came],
        capability_index=np.concatenate([each.capability_index for each in rows])[order],
        propensity=np.concatenate([each.propensity for each in rows])[order],
        expected_value=np.concatenate([each.expected_value for each in rows])[order],
        reasons=_reasons([each.reasons for each in rows], order),
        stats=dict(stats),
        attributes=_placed([(at, each.attributes) for at, each in found]),
    )


def _placed(found: Sequence[tuple[Int64, Mapping[int, Any]]]) -> dict[int, Any]:
    placed: dict[int, Any] = {}
    for at, said in found:
        placed |= {int(at[place]): value for place, value in said.items()}
    return dict(sorted(placed.items()))


def _reasons(found: Sequence[ReasonTerms | None], order: Int64) -> ReasonTerms | None:
    """The reasons of opportunities that came one shard after the other, in another order."""
    given = [each for each in found if each is not None]
    if not given:
        return None
    sizes = np.concatenate([np.diff(each.offsets) for each in given])
    starts = np.cumsum(sizes) - sizes
    cells = csr_rows(starts[order], sizes[order])
    return ReasonTerms(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[order])]),
        np.concatenate([each.name_index for each in given])[cells],
        np.concatenate([each.contribution for each in given])[cells],
    )


def audience_of(found: Sequence[Audience], k: int) -> Audience:
    """The best k customers of the audiences of all shards.

    Parameters
    ----------
    found : sequence of Audience
        One of each shard, of at least k customers where there are as many; from one state.
    k : int
    """
    ids = [each for audience in found for each in audience.customer_ids]
    expected_value = np.concatenate([each.expected_value for each in found])
    # By expected value descending, then by id: texts of Python are in the order of code points,
    # which is that of their bytes in UTF-8.
    best = sorted(range(len(ids)), key=lambda place: (-expected_value[place], ids[place]))[:k]
    chosen = np.array(best, dtype=np.int64)
    reasons = [each.reasons for each in found]
    reaches = [each.reach for each in found if each.reach is not None]
    return replace(
        found[0],
        customer_ids=[ids[place] for place in best],
        propensity=np.concatenate([each.propensity for each in found])[chosen],
        expected_value=expected_value[chosen],
        control=np.concatenate([each.control for each in found])[chosen],
        possible_count=sum(each.possible_count for each in found),
        reach=sum(reaches) if reaches else None,
        reasons=_reasons(reasons, chosen),
    )
