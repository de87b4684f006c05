"""What is refused before anything is asked or changed, and what a journal makes of a version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from visavis.base import StoredBase
from visavis.base.door import incoming_attributes
from visavis.catalog import Catalog
from visavis.domain import CUSTOMER_ID, THREADS_MAX
from visavis.engine.blocks import check_count, check_kinds
from visavis.errors import InputError, LimitError, SchemaError
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving.touched import State
from visavis.serving.version import Version

__all__ = [
    "CUSTOMERS_MAX",
    "Expected",
    "caught_up",
    "check_attributes",
    "check_expected",
    "check_ids",
    "check_reaches",
    "check_reasons",
    "chosen_beside",
    "misfits",
    "processors",
    "refuse_misfits",
    "state_of",
]

#: Customers of one request: an answer of ten opportunities each is then 20 MB.
CUSTOMERS_MAX: Final = 100_000


class Expected(NamedTuple):
    """The digests of what somebody means to publish; None = whatever it is."""

    base: str | None = None
    catalog: str | None = None
    policy: str | None = None


def processors(threads: int | None) -> int:
    """How many threads load."""
    if threads is not None:
        check_count(threads, "threads", 1)
    return len(os.sched_getaffinity(0)) if threads is None else min(threads, THREADS_MAX)


def chosen_beside(
    old: Version,
    base: StoredBase | None,
    catalog: Catalog | None,
    policy: Policy | None,
    as_of: date | str | None,
    expected: Expected,
) -> tuple[StoredBase, Catalog, Policy, date | str]:
    """What a version is made of that stands beside an old one, if it is what is expected.

    Raises
    ------
    InputError
        If a digest differs.
    """
    stored = old.customers.stored if base is None else base
    catalog = old.catalog if catalog is None else catalog
    policy = old.policy if policy is None else policy
    check_expected(stored, catalog, policy, expected)
    return stored, catalog, policy, max(old.as_of, stored.as_of) if as_of is None else as_of


def check_expected(base: StoredBase, catalog: Catalog, policy: Policy, expected: Expected) -> None:
    """Refuse what is not what the caller means.

    Raises
    ------
    InputError
    """
    check_kinds(base=(base, StoredBase), catalog=(catalog, Catalog), policy=(policy, Policy))
    for name, digest in expected._asdict().items():
        if digest is None:
            continue
        found = {"base": lambda: base.digest, "catalog": catalog.digest, "policy": policy.digest}
        if (held := found[name]()) != digest:
            reason = f"has the digest {held}, not {digest!r:.80}"
            raise InputError(reason, field=f"expected.{name}")


def check_ids(customer_ids: Sequence[str]) -> None:
    """Refuse what is no list of ids, or too long.

    Raises
    ------
    InputError
    """
    if isinstance(customer_ids, (str, bytes)) or not isinstance(customer_ids, Sequence):
        raise SchemaError("must be a list of ids", field="customer_ids")
    if len(customer_ids) > CUSTOMERS_MAX:
        reason = f"must be at most {CUSTOMERS_MAX} at a time, got {len(customer_ids)}"
        raise LimitError(reason, field="customer_ids")


def check_reasons(reasons: int | None) -> None:
    """Refuse what is no number of reasons.

    Raises
    ------
    InputError
    """
    if reasons is not None:
        check_count(reasons, "reasons", 0)


def state_of(
    version: Version, journal: Journal | None, objecting: frozenset[bytes] | None = None
) -> State:
    """A version with everything that the journal says beyond its base.

    Who objected up to there is read from the journal, unless it is known.
    """
    offset = version.customers.stored.manifest.journal_offset
    if journal is None:
        return State.first(version, offset)
    check_reaches(journal, offset)
    if objecting is None:
        objecting = journal.objecting(through=offset)
    since = journal.since(offset, forgotten=True)
    state = State.first(version, offset, objecting)
    return state.advanced(since.entries, since.through, since.forgotten)


def check_reaches(journal: Journal, offset: int) -> None:
    """Refuse a journal that ends before what the base knows of it.

    Raises
    ------
    InputError
    """
    if journal.offset < offset:
        reason = f"ends at offset {journal.offset}, the base holds what came up to {offset}"
        raise InputError(reason, field="journal")


def caught_up(state: State, journal: Journal) -> State:
    """A state with what was recorded since."""
    if journal.offset == state.offset:
        return state
    since = journal.since(state.offset)
    return state.advanced(since.entries, since.through, since.forgotten)


def check_attributes(version: Version, attributes: pa.Table) -> None:
    """Refuse attributes of which the base knows nothing, whoever they are about.

    Raises
    ------
    InputError
    """
    schema = version.engine.base.attributes.schema
    checked = incoming_attributes(attributes)
    for name in checked.column_names:
        if name == CUSTOMER_ID:
            continue
        if name not in schema.names:
            raise SchemaError("the base has no such attribute", field=f"attributes.{name}")
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if checked[name].type != kind:
            reason = f"must be {kind} as in the base, got {checked[name].type}"
            raise SchemaError(reason, field=f"attributes.{name}")


def refuse_misfits(ahead: State, now: State) -> None:
    """Refuse what makes somebody an error who is none now.

    Raises
    ------
    InputError
    """
    is_same = ahead.version.customers is now.version.customers
    for part, known in enumerate(ahead.touched):
        if is_same and known is now.touched[part]:
            continue
        for row, each in known.items():
            fault = each.fault
            if fault is not None and not _is_misfit(now, ahead, row):
                raise fault


def _is_misfit(now: State, ahead: State, row: int) -> bool:
    try:
        there = now.version.customers.row(ahead.version.customers.id_bytes(row).decode())
    except LookupError:
        return False
    known = now.touched_in(np.array([there]))
    return bool(known) and known[0].error is not None


def misfits(state: State) -> dict[str, InputError]:
    """Whose entries in the journal do not fit the base, by id, and why."""
    customers = state.version.customers
    return {
        customers.id_bytes(row).decode(): fault
        for known in state.touched
        for row, each in known.items()
        if (fault := each.fault) is not None
    }
