"""Captured value at equal contacts: one-to-one beside campaigns, on what was bought afterwards.

::

    Engine ──► PairScores ──► arms: A0 A1 A2 A2w A3 A4 S B G G_cap ──► Contacts ┐
                                                                                ├─► Evaluation
    purchases after as_of ──► outcomes_of() ──► Outcomes ───────────────────────┘

    scored.py       scores of pairs that may meet, by rows or columns, in bounded memory
    arms.py         who is contacted with what, under two contact policies
    segments.py     k-means, and what the average member is worth
    outcomes.py     what was bought, before as_of and in the window after it
    metrics.py      hits, captured spend, coverage, redundancy; bootstrap over customers
    figures.py      what a comparison says, and how JSON holds it
    evaluation.py   evaluate() and sensitivity()
    timing.py       campaign loop, batched product and match on the same work

All arms share scores, eligibility, limits and budget, and are compared within one contact policy:
an uncapped campaign piles its contacts on heavy buyers and captures more per contact than any arm
that treats everyone alike. Nothing was sent. A figure says what was *captured*, never what was
caused: that takes a control group.
"""

from visavis.evaluate.arms import Contacts
from visavis.evaluate.evaluation import ARMS, evaluate, sensitivity
from visavis.evaluate.figures import ArmFigures, Difference, Evaluation
from visavis.evaluate.metrics import Interval, Tally
from visavis.evaluate.outcomes import Outcomes, outcomes_of, popularity_of
from visavis.evaluate.scored import By, PairScores
from visavis.evaluate.timing import MATCH, NUMPY_LOOP, compare_times

__all__ = [
    "ARMS",
    "MATCH",
    "NUMPY_LOOP",
    "ArmFigures",
    "By",
    "Contacts",
    "Difference",
    "Evaluation",
    "Interval",
    "Outcomes",
    "PairScores",
    "Tally",
    "compare_times",
    "evaluate",
    "outcomes_of",
    "popularity_of",
    "sensitivity",
]
