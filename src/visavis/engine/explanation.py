"""Why one customer has, or has not, one opportunity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import kernel
from visavis.domain import HISTORY, Obstacle
from visavis.eligibility import Gate, without
from visavis.history import adjustments, term_contributions
from visavis.kernel import Eligibility, History

if TYPE_CHECKING:
    from visavis.engine.engine import Engine

__all__ = ["Contribution", "Explanation", "Request", "explain_pair"]


#: How many gates are looked at before those of a request.
_ASKED_BEHIND: Final = 2


class Request(NamedTuple):
    """What whoever asks about a pair adds to it, and knows already.

    Attributes
    ----------
    gates : sequence of Gate
        What the request itself says of the capability.
    closed : ndarray of shape (m,), bool, or None
        Capabilities that it leaves out.
    eligible : Eligibility or None
        Of the one customer, without what is closed; None: it has to be computed.
    history : History or None
        Of the one customer; None: it has to be computed.
    """

    gates: Sequence[Gate] = ()
    closed: npt.NDArray[np.bool_] | None = None
    eligible: Eligibility | None = None
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Contribution:
    """One term of the linear predictor.

    Attributes
    ----------
    name : str
        An indicator's name, or ``history`` for the customer's own history with the capability.
    value : float or None
        The indicator's value; None for the history.
    weight : float or None
        The capability's weight; None for the history.
    contribution : float
        Its term in z.
    """

    name: str
    value: float | None
    weight: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one customer has, or has not, one opportunity.

    Attributes
    ----------
    customer_id, capability_id : str
    as_of : date
    linear_predictor : float or None
        z = bias + every contribution, in the order of docs/score.md; None where no score exists:
        after an objection, or a fact that excludes.
    bias : float
    contributions : tuple of Contribution
        Descending, then by name; terms of zero are left out.
    history_terms : tuple of (str, float)
        What the history's contribution is made of, before its rounding to float32.
    propensity, expected_value : float or None
        None where no score exists.
    gates : tuple of Gate
        Every gate's outcome, closed ones included.
    rank : int or None
        Its place among the customer's opportunities; None if it is none.
    obstacle : Obstacle or None
        The first thing that stood in the way; None if it is an opportunity.
    verdict : str
        The same in words.
    better_capability_ids : tuple of str
        Those that filled the policy's k, or the limit, best first; none otherwise.
    remedies : tuple of str
        What would change it.
    """

    customer_id: str
    capability_id: str
    as_of: date
    linear_predictor: float | None
    bias: float
    contributions: tuple[Contribution, ...]
    history_terms: tuple[tuple[str, float], ...]
    propensity: float | None
    expected_value: float | None
    gates: tuple[Gate, ...]
    rank: int | None
    obstacle: Obstacle | None
    verdict: str
    better_capability_ids: tuple[str, ...]
    remedies: tuple[str, ...]


def explain_pair(
    engine: Engine, customer_id: str, capability_id: str, request: Request
) -> Explanation:
    """Explain one pair; see `Engine.explain`."""
    i, j = engine.base.index_of(customer_id), engine.catalog.index_of(capability_id)
    facts = engine.base.facts_of(i)
    own_facts = facts.set_column(0, "customer_index", pa.array(np.zeros(len(facts), np.int64)))
    attributes = engine.base.attributes.slice(i, 1)
    gates = engine.gates.outcomes(j, attributes, own_facts, engine.as_of, customer_id)
    # In the order in which gates are looked at: behind objection and exclusion.
    gates[_ASKED_BEHIND:_ASKED_BEHIND] = request.gates
    if not gates[0].is_open:
        return _unscored(engine, customer_id, capability_id, gates)
    row = engine.base.indicators[i : i + 1]
    history = request.history
    if history is None:
        history = adjustments(own_facts, engine.catalog, engine.as_of, customer_count=1)
    h = _adjustment(history, j)
    numbers = _scores(engine, row, j, h)
    z = float(numbers.linear_predictor[0, 0])
    if np.isnan(z):
        remedy = "the fact that excludes it falling away"
        said = "a fact excludes this customer from it"
        gates.append(Gate(Obstacle.HISTORY, False, said, remedy))
        return _unscored(engine, customer_id, capability_id, gates)
    ev = float(numbers.expected_value[0, 0])
    verdict = _verdict_of_gates(engine, ev, gates)
    if verdict is None:
        eligible = request.eligible
        if eligible is None:
            eligible = engine.gates.planes(attributes, own_facts, engine.as_of)
        chosen = kernel.match(
            row,
            engine.panel,
            k=engine.policy.k,
            eligible=eligible if request.closed is None else without(eligible, request.closed),
            history=history,
            limits=engine.policy.limits,
            ev_min=engine.policy.ev_min,
            variant=engine.variant,
        )
        verdict = _verdict(engine, j, ev, chosen)
    return Explanation(
        customer_id=customer_id,
        capability_id=capability_id,
        as_of=engine.as_of,
        linear_predictor=z,
        bias=float(engine.catalog.bias[j]),
        contributions=_contributions(engine, i, j, h),
        history_terms=tuple(term_contributions(own_facts, engine.catalog, j, engine.as_of)),
        propensity=float(numbers.propensity[0, 0]),
        expected_value=ev,
        gates=tuple(gates),
        rank=verdict.rank,
        obstacle=verdict.obstacle,
        verdict=verdict.text,
        better_capability_ids=verdict.better,
        remedies=verdict.remedies,
    )


def _adjustment(history: History, j: int) -> float:
    """Of the first customer and one capability; 0 where absent."""
    own = slice(history.indptr[0], history.indptr[1])
    held = history.adjustment[own][history.capability_index[own] == j]
    return float(held[0]) if len(held) else 0.0


def _scores(engine: Engine, row: npt.NDArray[np.float32], j: int, h: float) -> kernel.ScoresResult:
    """The numbers of one pair: of the whole catalog they would take as long as a match."""
    entry = np.array([0, 1], np.int64), np.zeros(1, np.int32), np.array([h], np.float32)
    alone = engine.panel_of(np.array([j]))
    return kernel.scores(row, alone, history=History(*entry), variant=engine.variant)


def _unscored(
    engine: Engine, customer_id: str, capability_id: str, gates: Sequence[Gate]
) -> Explanation:
    """An explanation where no score may exist: after an objection, or a fact that excludes."""
    verdict = _closed_verdict([gate for gate in gates if not gate.is_open])
    return Explanation(
        customer_id=customer_id,
        capability_id=capability_id,
        as_of=engine.as_of,
        linear_predictor=None,
        bias=float(engine.catalog.bias[engine.catalog.index_of(capability_id)]),
        contributions=(),
        history_terms=(),
        propensity=None,
        expected_value=None,
        gates=tuple(gates),
        rank=None,
        obstacle=verdict.obstacle,
        verdict=verdict.text,
        better_capability_ids=(),
        remedies=verdict.remedies,
    )


def _contributions(engine: Engine, i: int, j: int, h: float) -> tuple[Contribution, ...]:
    x, w = engine.base.indicators[i], engine.weights[j]
    terms = [
        Contribution(name, float(x[d]), float(w[d]), float(x[d]) * float(w[d]))
        for d, name in enumerate(engine.base.indicator_names)
    ]
    terms.append(Contribution(HISTORY, None, None, h))
    held = [term for term in terms if term.contribution != 0.0]
    return tuple(sorted(held, key=lambda term: (-term.contribution, term.name.encode())))


class _Verdict(NamedTuple):
    """What stood in the way, and what would change it."""

    rank: int | None
    obstacle: Obstacle | None
    text: str
    remedies: tuple[str, ...] = ()
    better: tuple[str, ...] = ()


def _verdict_of_gates(engine: Engine, ev: float, gates: Sequence[Gate]) -> _Verdict | None:
    """What does not depend on other capabilities; None if none of it stands in the way."""
    closed = [gate for gate in gates if not gate.is_open]
    if closed:
        return _closed_verdict(closed)
    ev_min = engine.policy.ev_min
    if ev_min is not None and ev < ev_min:
        text = f"expected value {ev:.4f} is below the minimum {ev_min:g}"
        remedy = f"an expected value of at least {ev_min:g}"
        return _Verdict(None, Obstacle.EV_MIN, text, (remedy,))
    return None


def _verdict(engine: Engine, j: int, ev: float, chosen: kernel.MatchResult) -> _Verdict:
    """What the walk over all eligible capabilities says."""
    count = int(chosen.opportunity_count[0])
    taken = list(
        zip(
            chosen.expected_value[0, :count].tolist(),
            chosen.capability_index[0, :count].tolist(),
            strict=True,
        )
    )
    for position, (_, c) in enumerate(taken):
        if c == j:
            return _Verdict(position + 1, None, f"opportunity {position + 1} of {count}")
    ahead = [c for other, c in taken if (-other, c) < (-ev, j)]
    k = engine.policy.k
    if len(ahead) == k:
        wanted = f"an expected value above {taken[-1][0]:.4f} (it is {ev:.4f})"
        return _Verdict(
            None,
            Obstacle.K,
            f"{k} better opportunities fill the policy's k = {k}",
            (wanted, f"a k above {k}"),
            tuple(engine.catalog.ids[c] for c in ahead),
        )
    return _limit_verdict(engine, j, ahead)


def _closed_verdict(closed: Sequence[Gate]) -> _Verdict:
    remedies = tuple(gate.remedy for gate in closed if gate.remedy is not None)
    return _Verdict(None, closed[0].name, f"not eligible: {closed[0].detail}", remedies)


def _limit_verdict(engine: Engine, j: int, ahead: Sequence[int]) -> _Verdict:
    """Eligible, worth it and not beyond k: then those taken before it had filled a group."""
    catalog, policy = engine.catalog, engine.policy
    for group, obstacle, limit, names in (
        ("product", Obstacle.PRODUCT_LIMIT, policy.product_limit, catalog.products),
        ("channel", Obstacle.CHANNEL_LIMIT, policy.channel_limit, catalog.channels),
        ("family", Obstacle.FAMILY_LIMIT, policy.family_limit, catalog.families),
    ):
        holders = tuple(catalog.ids[c] for c in ahead if names[c] == names[j])
        if limit is not None and len(holders) >= limit:
            return _Verdict(
                None,
                obstacle,
                f"the limit of {limit} per {group} is used up by {', '.join(holders)}",
                (
                    f"a limit per {group} above {limit}",
                    f"an expected value above that of one of them, of {group} {names[j]!r}",
                ),
                holders,
            )
    raise AssertionError("an eligible pair that was not taken has a limit in its way")
