"""Why a customer has, or has not, an opportunity, online: from what is ready for matches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from visavis.base import Base
from visavis.domain import Obstacle
from visavis.eligibility import Gate
from visavis.engine import Explanation, Request
from visavis.errors import InputError
from visavis.serving.context import Context, Selection, Terms
from visavis.serving.matching import Block, block_of
from visavis.serving.profiles import Profiles, checked_profiles, profile_block
from visavis.serving.touched import State, with_attributes
from visavis.serving.version import ServingVersion, Version

__all__ = ["Explained", "explain", "explain_profile"]

_WORDS: Final = {
    "capabilities": "capability",
    "products": "product",
    "families": "family",
    "channels": "channel",
}


class Explained(NamedTuple):
    """An explanation, and what it was made from."""

    name: ServingVersion
    explanation: Explanation


def explain(
    state: State, customer_id: str, capability_id: str, context: Context | None
) -> Explained:
    """See `Serving.explain`."""
    version = state.version
    terms = state.plain if context is None else Terms.of(version, context)
    rows = np.array([version.customers.row(customer_id)])
    for known in state.touched_in(rows).values():
        if (fault := known.fault) is not None:
            raise fault
    base = with_attributes(state.profiles(rows)[0], terms.attributes)
    _, block, _ = block_of(state, rows, terms)
    return _explained(state, base, block, terms, context, customer_id, capability_id)


def explain_profile(
    state: State, profiles: Profiles, capability_id: str, context: Context | None
) -> Explained:
    """See `Serving.explain_profile`."""
    terms = state.plain if context is None else Terms.of(state.version, context)
    base = checked_profiles(state, profiles, rows_max=1).base
    if base.customer_count != 1 or profiles.customer_ids is None:
        raise InputError("must be one profile with an id", field="profiles")
    (customer_id,) = profiles.customer_ids
    base = replace(base, customer_ids=pa.array([customer_id], pa.string()))
    base = with_attributes(base, terms.attributes)
    _, block, _ = profile_block(state, profiles, terms, 1)
    return _explained(state, base, block, terms, context, customer_id, capability_id)


def _explained(
    state: State,
    base: Base,
    block: Block,
    terms: Terms,
    context: Context | None,
    customer_id: str,
    capability_id: str,
) -> Explained:
    """Of a base of one customer, and the block that a match of the customer takes."""
    version = state.version
    j = version.catalog.index_of(capability_id)
    if len(terms.columns):
        x = base.indicators.copy()
        x[:, terms.columns] = terms.values
        base = replace(base, indicators=x)
    engine = version.engine.beside(base, as_of=terms.as_of, policy=terms.policy(version.policy))
    request = Request(() if context is None else list(_gates(version, context, j)), terms.closed)
    if len(block.indicators):
        # What is closed is closed in the block already. Who may not be matched has none.
        request = request._replace(closed=None, eligible=block.eligible, history=block.history)
    explanation = engine.explain(customer_id, capability_id, request=request)
    return Explained(state.name_on(terms.as_of), explanation)


def _gates(version: Version, context: Context, j: int) -> Iterator[Gate]:
    """What a context says of a capability, in the order in which it is looked at."""
    catalog = version.catalog
    names = {
        "capabilities": catalog.ids[j],
        "products": catalog.products[j],
        "families": catalog.families[j],
        "channels": catalog.channels[j],
    }
    if _is_given(context.without):
        named = _first(context.without, names, is_in=True)
        said = f"the request excludes {named}"
        remedy = f"a request that does not exclude {named}"
        yield _gate(Obstacle.EXCLUSION, named, "the request does not exclude it", said, remedy)
    if _is_given(context.only):
        named = _first(context.only, names, is_in=False)
        said = f"the request's filter does not admit {named}"
        remedy = f"a filter that admits {named}"
        yield _gate(Obstacle.FILTER, named, "the request's filter admits it", said, remedy)
    if context.available_channels is not None:
        channel = names["channels"]
        is_shut = channel not in set(context.available_channels)
        said = f"{channel} is not available now, says the request"
        detail, remedy = f"{channel} is available now", f"{channel} being available"
        shut = channel if is_shut else None
        yield _gate(Obstacle.AVAILABILITY, shut, detail, said, remedy)


def _is_given(selection: Selection) -> bool:
    return any(each is not None for each in selection)


def _first(selection: Selection, names: dict[str, str], *, is_in: bool) -> str | None:
    """What the selection says of something of these names first; None if nothing."""
    for kind, listed in selection._asdict().items():
        chosen: Sequence[str] | None = listed
        if chosen is not None and (names[kind] in set(chosen)) is is_in:
            return f"{_WORDS[kind]} {names[kind]!r}"
    return None


def _gate(obstacle: Obstacle, named: str | None, detail: str, said: str, remedy: str) -> Gate:
    if named is None:
        return Gate(obstacle, True, detail)
    return Gate(obstacle, False, said, remedy)
