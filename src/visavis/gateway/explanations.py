"""`Explanation` of the engine → ExplainResponse."""

from __future__ import annotations

from typing import Final

from visavis.domain import Obstacle
from visavis.engine import Explanation
from visavis.gateway.answers import version_of
from visavis.serving import ServingVersion
from visavis.v1 import match_service_pb2 as v1

__all__ = ["explanation_of"]

#: The contract's number of each obstacle; an opportunity has none.
_OBSTACLES: Final[dict[Obstacle | None, v1.Obstacle]] = {
    each: v1.Obstacle.Value(f"OBSTACLE_{each.name}") for each in Obstacle
}
_OBSTACLES[None] = v1.OBSTACLE_NONE


def explanation_of(name: ServingVersion, found: Explanation) -> v1.ExplainResponse:
    """An explanation, as the contract has it."""
    response = v1.ExplainResponse(
        version=version_of(name),
        customer_id=found.customer_id,
        capability_id=found.capability_id,
        linear_predictor=found.linear_predictor,
        bias=found.bias,
        propensity=found.propensity,
        expected_value=found.expected_value,
        rank=found.rank,
        obstacle=_OBSTACLES[found.obstacle],
        verdict=found.verdict,
        better_capability_ids=found.better_capability_ids,
        remedies=found.remedies,
    )
    for term in found.contributions:
        response.contributions.add(
            name=term.name, value=term.value, weight=term.weight, contribution=term.contribution
        )
    for label, contribution in found.history_terms:
        response.history_contributions.add(term=label, contribution=contribution)
    for gate in found.gates:
        response.gates.add(
            obstacle=_OBSTACLES[gate.name],
            is_open=gate.is_open,
            detail=gate.detail,
            remedy=gate.remedy or "",
        )
    return response
