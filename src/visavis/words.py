"""Reasons in plain words, for people who never see a coefficient.

A reason is a name and a number; what the name means stands with the indicator it belongs to
(`IndicatorDefinition`), and what happened between customer and product stands in the facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Final

import numpy as np

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.domain import HISTORY, FactKind
from visavis.errors import NotFoundError
from visavis.indicators import IndicatorDefinition, find_definition

__all__ = ["reason_in_words"]

#: Begins the name of an indicator that is transformed (`Parameters.transform`).
_LOGARITHM: Final = "log1p_"


def reason_in_words(
    base: Base, catalog: Catalog, i: int, j: int, name: str, *, as_of: date | None = None
) -> str:
    """Say why indicator `name` speaks for capability `j` and customer `i`.

    Parameters
    ----------
    base : Base
    catalog : Catalog
    i, j : int
        Rows of base and catalog.
    name : str
        An indicator of the base, or ``history``.
    as_of : date, optional
        Later facts are left out, as they are from the score; default: the base's.

    Returns
    -------
    str
        A clause such as ``"bought on 9 days, last on 2017-10-15"``.

    Raises
    ------
    NotFoundError
        If the base has no such indicator.
    """
    if name == HISTORY:
        return _history(base, catalog, i, j, base.as_of if as_of is None else as_of)
    if name not in base.indicator_names:
        raise NotFoundError(f"the base has no indicator {name!r}")
    column = base.indicator_names.index(name)
    value = float(base.indicators[i, column])
    definition = find_definition(base.indicator_schema.field(column))
    if definition is None:
        return f"{name} is {value:.4g}"
    say = _SENTENCES.get(definition.kind, _plain)
    if definition.name.startswith(_LOGARITHM):
        # People are told the number itself: its logarithm is the model's business.
        untransformed = replace(definition, name=definition.name.removeprefix(_LOGARITHM))
        return say(untransformed, float(np.expm1(value)))
    return say(definition, value)


def _history(base: Base, catalog: Catalog, i: int, j: int, as_of: date) -> str:
    about = [
        (fact["kind"], fact["date"])
        for fact in base.facts_of(i).to_pylist()
        if fact["date"] <= as_of
        and (fact["product"] == catalog.products[j] or fact["capability_id"] == catalog.ids[j])
    ]
    said = []
    for kind in FactKind:
        days = sorted({day for fact_kind, day in about if fact_kind == kind})
        if days:
            last = days[-1].isoformat()
            times = f"on {last}" if len(days) == 1 else f"on {len(days)} days, last on {last}"
            said.append(f"{kind.value} {times}")
    return "; ".join(said) or "nothing known"


def _recency(_: IndicatorDefinition, value: float) -> str:
    return f"last visit {_days(value)} ago"


def _cadence(_: IndicatorDefinition, value: float) -> str:
    return f"usually {_days(value)} between visits"


def _days(value: float) -> str:
    return "1 day" if f"{value:.0f}" == "1" else f"{value:.0f} days"


def _share(definition: IndicatorDefinition, value: float) -> str:
    measure, _, label = definition.name.partition(":")
    of = "spend" if "spend" in measure else "visits"
    return f"{label.partition('=')[2] or label} is part of {100 * value:.0f} % of recent {of}"


def _frequency(definition: IndicatorDefinition, value: float) -> str:
    return f"{value:.1f} visits{_faded(definition)}"


def _spend(definition: IndicatorDefinition, value: float) -> str:
    return f"{value:.2f} spent{_faded(definition)}"


def _faded(definition: IndicatorDefinition) -> str:
    """How far back a fading sum reaches: ``frequency_h60d`` counts a visit of 60 days ago half."""
    _, _, half_life = definition.name.partition("_h")
    return f", half-life {half_life.rstrip('d')} days" if half_life else ""


def _overdue(_: IndicatorDefinition, value: float) -> str:
    return f"last visit {value:.1f} times the usual gap ago"


def _trend(definition: IndicatorDefinition, value: float) -> str:
    what = "spend" if "spend" in definition.name else "visits"
    return f"{what} lately at {value:.2f} times the usual pace"


def _diversity(definition: IndicatorDefinition, value: float) -> str:
    measure, _, level = definition.name.partition(":")
    what = "spend" if "spend" in measure else "visits"
    # The exponential of an entropy is how many values, alike, would be as diverse.
    return f"{what} as diverse as over {np.exp(value):.0f} {level.replace('_', ' ')} values alike"


def _basket_size(definition: IndicatorDefinition, value: float) -> str:
    if "lines" in definition.name:
        return f"{value:.1f} lines per basket"
    return f"{value:.2f} spent per basket"


def _plain(definition: IndicatorDefinition, value: float) -> str:
    shown = f"{value:.0f}" if np.isclose(value, round(value)) else f"{value:.2f}"
    return f"{definition.name.replace('_', ' ')}: {shown} {definition.unit}".rstrip()


_SENTENCES: Final[dict[str, Callable[[IndicatorDefinition, float], str]]] = {
    "basket_size": _basket_size,
    "cadence": _cadence,
    "diversity": _diversity,
    "frequency": _frequency,
    "overdue": _overdue,
    "recency": _recency,
    "share": _share,
    "spend": _spend,
    "trend": _trend,
}
