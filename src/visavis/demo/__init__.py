"""The demo: one real data set all the way through, timed against the campaign loop.

::

    receipts + product tree ─► indicators ┐
    receipts ─► facts ────────────────────┼─► Base ┐
    demographics ─► attributes ───────────┘        │
    receipts ─► declared capabilities ─► learning ─┼─► match ─► opportunities.parquet, run.json
    policy.toml ─────────────────────► Policy ─────┘─► the same as campaigns, timed

    dataset.py    receipts, facts, outcomes, attributes; what is simulated, and how
    declared.py   capabilities with declared weights, rules and seasons
    held_out.py   what was captured in the window after the cut
    quality.py    do the learned propensities hold there?
    comparison.py all arms, sensitivity, calibration, times
    run.py        the steps, timed, and run.json
"""

from visavis.demo.dataset import AS_OF, INPUTS, NOTICE, locate_dataset
from visavis.demo.run import DemoRun, Stage, run

__all__ = ["AS_OF", "INPUTS", "NOTICE", "DemoRun", "Stage", "locate_dataset", "run"]
