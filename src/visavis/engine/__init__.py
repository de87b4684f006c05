"""The match on one machine: base × catalog × policy → opportunities with their reasons.

::

    Gates.planes ─► Eligibility ┐
    adjustments  ─► History     ├─► blocks of rows over threads ─► kernel.match ─► Matches
    catalog      ─► Panel       ┘                                                    │
                                                              reasons ─► to_table() ◄┘

    engine.py        Engine: what one (base, catalog, policy, as_of) needs, and its questions
    blocks.py        blocks of customers over threads
    audiences.py     the best customers of each capability, gathered from blocks
    matches.py       opportunities as a table, each with its reasons
    explanation.py   why one customer has, or has not, one opportunity

No result depends on threads, blocks or the kernel's variant.
"""

from visavis.engine.engine import Engine, audience, explain, match
from visavis.engine.explanation import Contribution, Explanation, Request
from visavis.engine.matches import OPPORTUNITY_SCHEMA, Matches

__all__ = [
    "OPPORTUNITY_SCHEMA",
    "Contribution",
    "Engine",
    "Explanation",
    "Matches",
    "Request",
    "audience",
    "explain",
    "match",
]
