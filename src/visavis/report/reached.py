"""Which capabilities reach somebody, and why the others reach nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from visavis.engine import Engine, Matches

__all__ = ["REASONS", "coverage", "open_capabilities"]

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

#: Why nobody gets a capability, in the order in which it is asked.
REASONS: Final[Mapping[str, str]] = {
    "objection": "every customer objected or is excluded",
    "exclusion": "excluded by the policy",
    "validity": "not valid on the day asked",
    "rule": "its rule holds for nobody",
    "consent": "nobody for whom its rule holds may be contacted through its channel",
    "fact": "a fact excludes it for everybody to whom it is open",
    "worth": "worth less than the policy's minimum for everybody to whom it is open",
    "outranked": "open and worth it for somebody, but better ones or a limit come before it",
    "not_examined": "open to somebody; not examined further, to bound the time of this report",
}

#: Customers × capabilities looked at to tell what is outranked from what is not worth it: about
#: ten seconds of the portable kernel on two cores, at 10 M pairs/s in the demo's data.
PAIRS_MAX: Final = 1 << 27


def open_capabilities(engine: Engine, i: int) -> Bools:
    """Which capabilities every gate but the objection opens to row `i`; shape (m,), bool."""
    planes, plane_index = engine.eligibility
    word, bit = np.divmod(np.maximum(plane_index, 0), 64)
    held = (planes[i, word] >> bit.astype(np.uint64)) & np.uint64(1)
    return np.asarray((plane_index < 0) | (held == 1))


def coverage(
    engine: Engine, matches: Matches, *, pairs_max: int = PAIRS_MAX, example_count: int = 4
) -> dict[str, Any]:
    """Count whom each capability reaches, and find out why some reach nobody.

    Parameters
    ----------
    engine : Engine
    matches : Matches
        Of that engine.
    pairs_max : int
        Capabilities that reach nobody although they are open to somebody are examined, evenly
        spread over the catalog, as long as customers × capabilities stay within this.
    example_count : int
        At most so many examples per reason, evenly spread.

    Returns
    -------
    dict
        ``capability_count``, ``given_count`` (capabilities that somebody gets),
        ``half_count`` (the fewest capabilities that make up half of all opportunities);
        ``reasons`` (reason, label, count, examples) in the order of `REASONS`, those with a count
        only; ``most_given`` (the capability, customer_count, share); ``by_channel`` (channel,
        capability_count, given_count, opportunity_count).
    """
    result, catalog = matches.result, engine.catalog
    held = np.arange(result.capability_index.shape[1]) < result.opportunity_count[:, None]
    given = np.bincount(result.capability_index[held], minlength=catalog.capability_count)
    never = np.flatnonzero(given == 0)
    reason_of = _reasons(engine, matches.customer_index, never, pairs_max)
    total = int((result.opportunity_count > 0).sum())
    descending = np.sort(given)[::-1]
    half = int(np.searchsorted(np.cumsum(descending), given.sum() / 2)) + 1 if total else 0
    return {
        "capability_count": catalog.capability_count,
        "given_count": int((given > 0).sum()),
        "half_count": half,
        "reasons": _summed(engine, reason_of, example_count),
        "most_given": [
            {
                **_named(engine, int(j)),
                "customer_count": int(given[j]),
                "share": float(given[j] / total),
            }
            for j in np.argsort(-given, kind="stable")[:5]
            if given[j]
        ],
        "by_channel": _by_channel(engine, given),
    }


def _by_channel(engine: Engine, given: Int64) -> list[dict[str, Any]]:
    codes, channels = engine.catalog.codes("channel")
    counts = np.bincount(codes, minlength=len(channels))
    reached = np.bincount(codes[given > 0], minlength=len(channels))
    opportunities = np.zeros(len(channels), dtype=np.int64)
    np.add.at(opportunities, codes, given)
    return [
        {
            "channel": channel,
            "capability_count": int(counts[code]),
            "given_count": int(reached[code]),
            "opportunity_count": int(opportunities[code]),
        }
        for code, channel in enumerate(channels)
    ]


def _reasons(engine: Engine, rows: Int64, never: Int64, pairs_max: int) -> dict[int, str]:
    """Why each capability in `never` reaches none of the matched `rows`."""
    if not len(rows):
        return dict.fromkeys(never.tolist(), "objection")
    planes, plane_index = engine.eligibility
    held_in: dict[int, Int64] = {}
    held_by_any: dict[str, bool] = {}
    excluded = _excluded_rows(engine, rows, never)
    reason_of: dict[int, str] = {}
    undecided = []
    for j in never.tolist():
        q = int(plane_index[j])
        if q >= 0 and q not in held_in:
            word = planes[rows, q // 64] >> np.uint64(q % 64)
            held_in[q] = rows[(word & np.uint64(1)) == 1]
        may = rows if q < 0 else held_in[q]
        if not len(may):
            reason_of[j] = _closed_reason(engine, rows, j, held_by_any)
        elif j in excluded and len(np.intersect1d(may, excluded[j])) == len(may):
            reason_of[j] = "fact"
        else:
            undecided.append(j)
    return reason_of | _outranked(engine, len(rows), undecided, pairs_max)


def _excluded_rows(engine: Engine, rows: Int64, never: Int64) -> dict[int, Int64]:
    """The matched rows for which a fact excludes a capability of `never`."""
    indptr, capability, adjustment = engine.history
    entries = np.flatnonzero(np.isneginf(adjustment))
    entries = entries[np.isin(capability[entries], never)]
    owners = np.searchsorted(indptr, entries, side="right") - 1
    inside = np.isin(owners, rows)
    owners, capability = owners[inside], capability[entries][inside]
    order = np.argsort(capability, kind="stable")
    names, begins = np.unique(capability[order], return_index=True)
    parts = np.split(owners[order], begins[1:])
    return dict(zip(names.tolist(), parts, strict=True)) if len(names) else {}


def _closed_reason(engine: Engine, rows: Int64, j: int, held_by_any: dict[str, bool]) -> str:
    """`held_by_any` remembers, by text, whether a rule holds for any of the rows."""
    catalog, out = engine.catalog, engine.policy.exclusions
    if (
        catalog.ids[j] in out.capabilities
        or catalog.products[j] in out.products
        or catalog.channels[j] in out.channels
        or catalog.families[j] in out.families
    ):
        return "exclusion"
    valid_from, valid_to = catalog.valid_from[j], catalog.valid_to[j]
    if (valid_from and engine.as_of < valid_from) or (valid_to and valid_to < engine.as_of):
        return "validity"
    text = catalog.rules[j]
    if text is None:
        return "consent"
    if text not in held_by_any:
        holds = engine.gates.rules[text].evaluate(engine.base.attributes, engine.as_of)
        held_by_any[text] = bool(holds[rows].any())
    return "consent" if held_by_any[text] else "rule"


def _outranked(
    engine: Engine, row_count: int, undecided: Sequence[int], pairs_max: int
) -> dict[int, str]:
    """Ask for each capability's best customer: there is none where nobody is worth it."""
    budget = pairs_max // row_count
    examined = _spread(undecided, budget)
    if not examined:
        return dict.fromkeys(undecided, "not_examined")
    ids = [engine.catalog.ids[j] for j in examined]
    wanted = set(engine.audience(ids, k=1)["capability_id"].to_pylist())
    found = {
        j: "outranked" if name in wanted else "worth" for j, name in zip(examined, ids, strict=True)
    }
    return {j: found.get(j, "not_examined") for j in undecided}


def _summed(
    engine: Engine, reason_of: Mapping[int, str], example_count: int
) -> list[dict[str, Any]]:
    counts = Counter(reason_of.values())
    return [
        {
            "reason": reason,
            "label": label,
            "count": counts[reason],
            "examples": [
                _named(engine, j)
                for j in _spread(
                    [j for j in sorted(reason_of) if reason_of[j] == reason], example_count
                )
            ],
        }
        for reason, label in REASONS.items()
        if counts[reason]
    ]


def _spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, evenly spread, ends included."""
    if len(values) <= count or count < 1:
        return list(values) if count > 0 else []
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, count)]


def _named(engine: Engine, j: int) -> dict[str, Any]:
    catalog = engine.catalog
    return {
        "capability_id": catalog.ids[j],
        "product": catalog.products[j],
        "channel": catalog.channels[j],
        "rule": catalog.rules[j],
        "value": float(catalog.value[j]),
        "cost": float(catalog.cost[j]),
    }
