"""visavis: every customer, face to face with everything you can offer.

::

    events ─► indicators ─► Base ┐
    capabilities ─────► Catalog ├─► match ─► Matches ─► to_table()
    limits ───────────► Policy  ┘

>>> import visavis
>>> base = visavis.Base.read("base")                     # doctest: +SKIP
>>> catalog = visavis.Catalog.read("catalog.parquet")    # doctest: +SKIP
>>> policy = visavis.Policy(k=5, product_limit=1)
>>> matches = visavis.match(base, catalog, policy)       # doctest: +SKIP
>>> matches.to_table()                                   # doctest: +SKIP

Names are loaded when they are first used, so that ``import visavis`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis import errors, kernel
    from visavis.base import Base, StoredBase
    from visavis.catalog import Catalog
    from visavis.client import AsyncClient, Client
    from visavis.engine import Engine, Explanation, Matches, audience, explain, match
    from visavis.journal import Journal
    from visavis.policy import Exclusions, Policy
    from visavis.rescore import Result, rescore

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Base",
    "Catalog",
    "Client",
    "Engine",
    "Exclusions",
    "Explanation",
    "Journal",
    "Matches",
    "Policy",
    "Result",
    "StoredBase",
    "__version__",
    "audience",
    "errors",
    "explain",
    "kernel",
    "match",
    "rescore",
]

_HOME = {
    "AsyncClient": "visavis.client",
    "Base": "visavis.base",
    "Catalog": "visavis.catalog",
    "Client": "visavis.client",
    "Engine": "visavis.engine",
    "Exclusions": "visavis.policy",
    "Explanation": "visavis.engine",
    "Journal": "visavis.journal",
    "Matches": "visavis.engine",
    "Policy": "visavis.policy",
    "Result": "visavis.rescore",
    "StoredBase": "visavis.base",
    "audience": "visavis.engine",
    "explain": "visavis.engine",
    "match": "visavis.engine",
    "rescore": "visavis.rescore",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in ("errors", "kernel"):
        value = import_module(f"visavis.{name}")
    else:
        raise AttributeError(f"module 'visavis' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
