"""The typed face of the compiled core: arrays in, arrays out, every argument checked.

::

    weights, bias, value, cost, link ── pack() ──► Panel ┐
    indicators ────────────────────────────────────────► match()    ──► MatchResult
    eligible, history, limits, ev_min ─────────────────► audience() ──► AudienceResult
                                                         scores()   ──► ScoresResult
    Candidates, from a screen elsewhere ───────────────► verify()   ──► MatchResult, certain or not
    chosen pairs ──────────────────────────────────────► largest_terms() ──► Terms: their reasons

    calls.py       the calls
    single.py      one customer at a time, the rest bound once
    terms.py       the largest terms of pairs: reasons
    elementary.py  exp and log1p of the law over arrays
    screen.py      the catalog once more, quantised for screening
    types.py       what goes in and what comes out
    request.py     what a call is asked, through the doors and for some rows only
    arguments.py   the doors of single arguments
    variant.py     which compiled form runs

What a score is, to the bit, is said in docs/score.md. A call runs on one thread and releases the
GIL: callers spread blocks of rows over threads. No result depends on the variant, on the block or
on how the rows are spread.
"""

from typing import Final

from visavis.kernel.calls import (
    DENSE_PAIRS_MAX,
    audience,
    checked,
    match,
    pack,
    scores,
    verify,
)
from visavis.kernel.elementary import exp, log1p
from visavis.kernel.request import RESULT_CELLS_MAX, Request
from visavis.kernel.single import NO_HISTORY, Single, SingleMatch
from visavis.kernel.terms import largest_terms
from visavis.kernel.types import (
    AudienceResult,
    Candidates,
    Eligibility,
    History,
    Limits,
    MatchResult,
    Panel,
    ScoresResult,
    Terms,
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
    "NO_HISTORY",
    "RESULT_CELLS_MAX",
    "AudienceResult",
    "Candidates",
    "Eligibility",
    "History",
    "Limits",
    "MatchResult",
    "Panel",
    "Request",
    "ScoresResult",
    "Single",
    "SingleMatch",
    "Terms",
    "Variant",
    "audience",
    "built_variants",
    "checked",
    "choose_variant",
    "exp",
    "largest_terms",
    "log1p",
    "match",
    "pack",
    "processor_features",
    "scores",
    "variants",
    "verify",
]
