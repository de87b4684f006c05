"""The typed face of the compiled core: arrays in, arrays out, every argument checked.

::

    weights, bias, value, cost, link ── pack() ──► Panel ┐
    indicators ────────────────────────────────────────► match()    ──► MatchResult
    eligible, history, limits, ev_min ─────────────────► audience() ──► AudienceResult
                                                         scores()   ──► ScoresResult

    calls.py       the calls
    screen.py      the catalog once more, quantised for screening
    types.py       what goes in and what comes out
    arguments.py   the doors
    variant.py     which compiled form runs

What a score is, to the bit, is said in docs/score.md. A call runs on one thread and releases the
GIL: callers spread blocks of rows over threads. No result depends on the variant, on the block or
on how the rows are spread.
"""

from typing import Final

from visavis.kernel.calls import (
    DENSE_PAIRS_MAX,
    RESULT_CELLS_MAX,
    audience,
    exp,
    log1p,
    match,
    pack,
    scores,
)
from visavis.kernel.types import (
    AudienceResult,
    Eligibility,
    History,
    Limits,
    MatchResult,
    Panel,
    ScoresResult,
)
from visavis.kernel.variant import (
    Variant,
    built_variants,
    choose_variant,
    processor_features,
    variants,
)

#: The version of docs/score.md that this core computes; results name it.
CONTRACT_VERSION: Final = 1

__all__ = [
    "CONTRACT_VERSION",
    "DENSE_PAIRS_MAX",
    "RESULT_CELLS_MAX",
    "AudienceResult",
    "Eligibility",
    "History",
    "Limits",
    "MatchResult",
    "Panel",
    "ScoresResult",
    "Variant",
    "audience",
    "built_variants",
    "choose_variant",
    "exp",
    "log1p",
    "match",
    "pack",
    "processor_features",
    "scores",
    "variants",
]
