"""Reasons in plain words, for people who never see a coefficient.

A reason is a name and a number; what the name means stands with the indicator it belongs to
(`IndicatorDefinition`), and what happened between customer and product stands in the facts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

import numpy as np

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.domain import HISTORY, FactKind
from visavis.errors import NotFoundError
from visavis.indicators import IndicatorDefinition, find_definition

__all__ = ["reason_in_words"]


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


def _plain(definition: IndicatorDefinition, value: float) -> str:
    shown = f"{value:.0f}" if np.isclose(value, round(value)) else f"{value:.2f}"
    return f"{definition.name.replace('_', ' ')}: {shown} {definition.unit}".rstrip()


_SENTENCES: Final[dict[str, Callable[[IndicatorDefinition, float], str]]] = {
    "recency": _recency,
    "cadence": _cadence,
    "share": _share,
}
