"""What happened before: from facts and history weights to the adjustment h of each pair.

::

    facts ──▶ by level and kind ──▶ fact days ──▶ bases ─┐ (once per customer and subject)
    catalog ──▶ products → capabilities, terms ──────────┴▶ h = Σ weight · feature, per capability

The *level* of a fact is its subject: one that names a capability is about that capability alone
(whatever product it names beside it); one that names only a product is about every capability of
that product. A fact about a subject that the catalog does not hold is ignored: it may be retired.
A fact later than as_of is ignored, one of that very day counts.

The adjustment of a (customer, capability) pair is

- −inf, if there is an ``excluded`` fact about it: the pair is ineligible;
- otherwise h = Σ over the capability's history terms, in their order and from 0.0, of
  ``weight · feature``, where the feature looks at the facts of the term's kind (formulas in
  ``visavis.features``). Products and sums are float64, each rounded; the sum is rounded once to
  float32. A result that is not finite is refused.

The CSR holds exactly the pairs whose adjustment is not 0. It is a pure function of the facts as a
set, the catalog and as_of: no clock, no order of rows, and sums in one fixed order with our own exp
and log1p, so that the bits are the same on every processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visavis.catalog import Catalog, HistoryTerm, HistoryTerms
from visavis.catalog.schema import KINDS, csr_rows
from visavis.domain import FactKind
from visavis.errors import InputError
from visavis.features import FEATURES, Feature, Floats
from visavis.history.facts import Level, Stream, fact_rows, fact_streams, group_starts
from visavis.kernel import History

__all__ = ["LastContacts", "adjustments", "last_contact_days", "term_contributions"]

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

#: Pairs worked on at a time. Over 1.1 M facts × 2,820 capabilities (1 M pairs): 2^16 took 0.63 s,
#: 2^18 0.33 s, 2^22 0.45 s and sixteen times the memory.
_BLOCK_PAIRS: Final = 2**18

_EXCLUDED: Final = KINDS.index(FactKind.EXCLUDED)
_CONTACTED: Final = KINDS.index(FactKind.CONTACTED)


class LastContacts(NamedTuple):
    """The last contact of each customer on each channel, sorted by customer, then channel.

    Attributes
    ----------
    customer_index : ndarray of shape (pairs,), int64
    channel_code : ndarray of shape (pairs,), int32
        Codes of ``catalog.codes("channel")``.
    age_days : ndarray of shape (pairs,), int64
        Days from the contact to as_of, ≥ 0.
    """

    customer_index: Ints
    channel_code: NDArray[np.int32]
    age_days: Ints


def adjustments(facts: pa.Table, catalog: Catalog, as_of: date, *, customer_count: int) -> History:
    """Return the history adjustment of every pair that has one.

    Parameters
    ----------
    facts : pyarrow.Table
        ``customer_index`` (integer), ``product`` and ``capability_id`` (text, at least one per
        row), ``kind`` (text), ``date`` (date32), ``count`` (integer, 1 … 2^31 − 1). Several rows
        of one customer, subject, kind and date are one day; their counts add up.
    catalog : Catalog
    as_of : date
        Facts up to and including this day count; ages are counted from it.
    customer_count : int
        Customers of the base; ``customer_index`` lies below it.

    Returns
    -------
    kernel.History
        CSR of shape (customer_count, catalog.capability_count), float32.

    Raises
    ------
    SchemaError
        A column is missing or of a wrong type.
    InputError
        A fact breaks the contract (field and row named), or an adjustment is not finite in
        float32 (customer and capability named).
    """
    rows = fact_rows(facts, catalog, as_of, customer_count)
    plan = _plan(catalog)
    streams = fact_streams(rows, plan.concerned())
    counts = np.zeros(customer_count, dtype=np.int64)
    parts: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
    for first, last in _customer_blocks(plan, streams, customer_count):
        block = _join(plan, {key: stream.cut(first, last) for key, stream in streams.items()})
        adjustment = _rounded(_total(plan, block), block, first, catalog)
        kept = np.flatnonzero(adjustment)
        counts[first:last] = np.bincount(block.customer[kept], minlength=last - first)
        parts.append((block.capability[kept].astype(np.int32), adjustment[kept]))
    return History(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        capability_index=np.concatenate([np.zeros(0, np.int32), *(part[0] for part in parts)]),
        adjustment=np.concatenate([np.zeros(0, np.float32), *(part[1] for part in parts)]),
    )


def term_contributions(
    facts: pa.Table, catalog: Catalog, capability_index: int, as_of: date
) -> list[tuple[str, float]]:
    """Break one customer's adjustment for one capability into its terms.

    Parameters
    ----------
    facts : pyarrow.Table
        The facts of one customer, as for `adjustments`; ``customer_index`` is not looked at.

    Returns
    -------
    list of (label, contribution)
        One per history term, in their order: ``("bought days, half-life 60 d", 1.25)``. Added up
        from 0.0 in this order they are the adjustment before its rounding to float32. An excluded
        pair has the one entry ``("excluded", -inf)``.
    """
    alone = catalog.take([capability_index])
    position = facts.schema.get_field_index("customer_index")
    if position >= 0:
        zeros = pa.array(np.zeros(facts.num_rows, dtype=np.int64))
        facts = facts.set_column(position, "customer_index", zeros)
    plan = _plan(alone)
    streams = fact_streams(fact_rows(facts, alone, as_of, 1), plan.concerned())
    block = _join(plan, streams)
    if block.excluded.any():
        return [(str(FactKind.EXCLUDED), -np.inf)]
    # The customer has one pair with this capability, or none where no fact concerns it.
    amounts = [float(amount[0]) for amount in _contributions(plan, block) if len(amount)]
    labels = [_label(term) for term in alone.history_weights[0]]
    return list(zip(labels, amounts or [0.0] * len(labels), strict=True))


def last_contact_days(
    facts: pa.Table, catalog: Catalog, as_of: date, *, customer_count: int
) -> LastContacts:
    """Return how long ago each customer was last contacted on each channel.

    A contact whose channel cannot be told (it names a product only, or a capability that the
    catalog no longer holds) counts for **every** channel: a cool-down is a promise of restraint,
    and the doubt goes to the customer.

    Parameters
    ----------
    facts, catalog, as_of, customer_count
        As for `adjustments`.

    Returns
    -------
    LastContacts
        Only customers with a contact up to and including as_of.
    """
    rows = fact_rows(facts, catalog, as_of, customer_count)
    codes, labels = catalog.codes("channel")
    contacted = rows.kind == _CONTACTED
    is_told = contacted & (rows.level == Level.CAPABILITY) & (rows.subject >= 0)
    told, untold = np.flatnonzero(is_told), np.flatnonzero(contacted & ~is_told)
    row = np.concatenate([told, np.repeat(untold, len(labels))])
    every = np.arange(len(labels), dtype=np.int32)
    channel = np.concatenate([codes[rows.subject[told]], np.tile(every, len(untold))])
    customer, age_days = rows.customer[row], rows.age_days[row]
    order = np.lexsort((age_days, channel, customer))
    customer, channel, age_days = customer[order], channel[order], age_days[order]
    latest = group_starts(customer, channel)
    return LastContacts(customer[latest], channel[latest], age_days[latest])


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a catalog says about history, in the form that the join reads.

    Attributes
    ----------
    capability_count : int
    terms : HistoryTerms
        The terms of all capabilities.
    fan_out : dict
        By (level, kind code): the CSR (indptr, capability) from a subject to the capabilities that
        a fact of that kind concerns, ascending. Kinds that no capability weighs are left out.
    signatures : list of (kind code, Feature, half-life)
        The distinct ones among the history terms: a base is computed once for each.
    signature : ndarray of shape (terms,), int64
        Which signature each history term has.
    """

    capability_count: int
    terms: HistoryTerms
    fan_out: dict[tuple[Level, int], tuple[Ints, Ints]]
    signatures: list[tuple[int, Feature, float]]
    signature: Ints

    def concerned(self) -> dict[tuple[Level, int], Bools]:
        """Tell which subjects have any capability that a fact concerns."""
        return {key: np.diff(indptr) > 0 for key, (indptr, _) in self.fan_out.items()}


#: Plans by catalog, for as long as the catalog lives; a plan must not refer to its catalog.
_plans: Final[WeakKeyDictionary[Catalog, _Plan]] = WeakKeyDictionary()


def _plan(catalog: Catalog) -> _Plan:
    """Return the plan of a catalog; made once, since online calls bring few facts each."""
    if catalog not in _plans:
        _plans[catalog] = _made_plan(catalog)
    return _plans[catalog]


def _made_plan(catalog: Catalog) -> _Plan:
    capability_count = catalog.capability_count
    terms = catalog.history_terms
    owner = np.repeat(np.arange(capability_count), np.diff(terms.indptr))
    products, labels = catalog.codes("product")
    fan_out = {}
    for kind in range(len(KINDS)):
        weighed = np.unique(owner[terms.kind == kind])
        concerned = np.arange(capability_count) if kind == _EXCLUDED else weighed
        if len(concerned):
            by_product = concerned[np.argsort(products[concerned], kind="stable")]
            of_product = _indptr(products[concerned], len(labels))
            fan_out[Level.PRODUCT, kind] = (of_product, by_product)
            of_itself = _indptr(concerned, capability_count)
            fan_out[Level.CAPABILITY, kind] = (of_itself, concerned)
    columns = (terms.kind, terms.feature, terms.half_life_days)
    order = np.lexsort(columns[::-1])
    starts = group_starts(*(column[order] for column in columns))
    signature = np.zeros(len(order), dtype=np.int64)
    signature[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    signatures = [
        (int(kind), FEATURES[terms.feature_names[feature]], float(half_life))
        for kind, feature, half_life in zip(
            *(column[order[starts]] for column in columns), strict=True
        )
    ]
    return _Plan(capability_count, terms, fan_out, signatures, signature)


def _indptr(codes: NDArray[Any], code_count: int) -> Ints:
    counts = np.bincount(codes, minlength=code_count)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _customer_blocks(
    plan: _Plan, streams: Mapping[tuple[Level, int], Stream], customer_count: int
) -> Iterator[tuple[int, int]]:
    """Yield ranges of customers with about `_BLOCK_PAIRS` pairs, or one customer if it has more."""
    pair_count = np.zeros(customer_count)
    for key, stream in streams.items():
        fan_out = np.diff(plan.fan_out[key][0])[stream.subject]
        pair_count += np.bincount(stream.customer, weights=fan_out, minlength=customer_count)
    starts = group_starts(np.cumsum(pair_count) // _BLOCK_PAIRS)
    yield from pairwise([*starts.tolist(), customer_count] if len(starts) else [])


@dataclass(frozen=True, slots=True)
class _Block:
    """Some customers' facts joined with the capabilities that they concern.

    Attributes
    ----------
    streams : dict
        The facts by (level, kind code).
    customer, capability : ndarray of shape (e,), int64
        The pairs that any fact concerns, ascending; customers count from the block's first.
    source : dict
        By (level, kind code), ndarray of shape (e,), int64: which pair of that stream holds the
        facts of each pair here, −1 if none does.
    """

    streams: Mapping[tuple[Level, int], Stream]
    customer: Ints
    capability: Ints
    source: dict[tuple[Level, int], Ints]

    @property
    def excluded(self) -> Bools:
        """Which pairs an ``excluded`` fact makes ineligible."""
        held = np.zeros(len(self.capability), dtype=np.bool_)
        for (_, kind), source in self.source.items():
            if kind == _EXCLUDED:
                held |= source >= 0
        return held


def _join(plan: _Plan, streams: Mapping[tuple[Level, int], Stream]) -> _Block:
    capability_count = plan.capability_count
    cells: dict[tuple[Level, int], Ints] = {}
    owners: dict[tuple[Level, int], Ints] = {}
    for key, stream in streams.items():
        indptr, capabilities = plan.fan_out[key]
        fan_out = np.diff(indptr)[stream.subject]
        capability = capabilities[csr_rows(indptr[stream.subject], fan_out)]
        cells[key] = np.repeat(stream.customer * capability_count, fan_out) + capability
        owners[key] = np.repeat(np.arange(len(fan_out)), fan_out)
    # Not np.unique: it hashes before it sorts, which took 5 times as long here.
    pairs = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *cells.values()]))
    pairs = pairs[group_starts(pairs)]
    source = {}
    for key, cell in cells.items():
        source[key] = np.full(len(pairs), -1, dtype=np.int64)
        source[key][np.searchsorted(pairs, cell)] = owners[key]
    return _Block(streams, pairs // capability_count, pairs % capability_count, source)


def _contributions(plan: _Plan, block: _Block) -> Iterator[Floats]:
    """Yield ``weight · feature`` of every pair's first history term, then its second, and so on."""
    terms = plan.terms
    first_term = terms.indptr[block.capability]
    term_count = terms.indptr[block.capability + 1] - first_term
    bases: dict[tuple[Level, int, Any, float], Floats] = {}
    for position in range(int(term_count.max(initial=0))):
        contribution = np.zeros(len(block.capability))
        holders = np.flatnonzero(term_count > position)
        term = first_term[holders] + position
        signature = plan.signature[term]
        for chosen in np.flatnonzero(np.bincount(signature)):
            mask = signature == chosen
            base, present = _base(block, holders[mask], plan.signatures[chosen], bases)
            of_term = term[mask][present]
            feature = plan.signatures[chosen][1].shape(base[present], terms.scale[of_term])
            # An overflow becomes infinite here and is refused with the sum.
            with np.errstate(over="ignore", invalid="ignore"):
                contribution[holders[mask][present]] = terms.weight[of_term] * feature
        yield contribution


def _base(
    block: _Block,
    pairs: Ints,
    signature: tuple[int, Feature, float],
    bases: dict[tuple[Level, int, Any, float], Floats],
) -> tuple[Floats, Bools]:
    """Return the base of a signature for `pairs`, and which of them have any fact of its kind."""
    kind, feature, half_life = signature
    base = np.zeros(len(pairs))
    present = np.zeros(len(pairs), dtype=np.bool_)
    for level in Level:
        if (level, kind) not in block.streams:
            continue
        key = (level, kind, feature.base, half_life)
        if key not in bases:
            bases[key] = feature.base(block.streams[level, kind].days(), half_life)
        source = block.source[level, kind][pairs]
        held = source >= 0
        base[held] = feature.combine(base[held], bases[key][source[held]])
        present |= held
    return base, present


def _total(plan: _Plan, block: _Block) -> Floats:
    """Return h in float64, −inf for excluded pairs."""
    total = np.zeros(len(block.capability))
    # Infinities of both signs make NaN, which is refused like either.
    with np.errstate(over="ignore", invalid="ignore"):
        for contribution in _contributions(plan, block):
            total += contribution
    total[block.excluded] = -np.inf
    return total


def _rounded(
    total: Floats, block: _Block, first_customer: int, catalog: Catalog
) -> NDArray[np.float32]:
    """Round to float32; refuse what is not finite though nothing excluded it."""
    with np.errstate(over="ignore"):
        adjustment = total.astype(np.float32)
    wrong = ~np.isfinite(adjustment) & ~block.excluded
    if wrong.any():
        pair = int(np.argmax(wrong))
        capability_id = catalog.column("id")[int(block.capability[pair])].as_py()
        raise InputError(
            f"the history adjustment must fit float32, got {float(total[pair])!r}",
            field="history_weights",
            subject=(
                f"customer index {first_customer + int(block.customer[pair])}, "
                f"capability {capability_id!r}"
            ),
        )
    return adjustment


def _label(term: HistoryTerm) -> str:
    fading = "" if term.half_life_days is None else f", half-life {term.half_life_days:g} d"
    return f"{term.kind} {term.feature}{fading}"
