"""The parts of a job over workers that come, stall, die and go: each part ends exactly once.

::

    parts ──► waiting ──► an idle worker asks ──► in flight ──► receipt   ──► receipts
                 ▲                                    │
                 │                                    ├──► the worker died: back, at most twice
                 ├────────────────────────────────────┤        three dead workers ──► poison
                 └──── a file could not be read: ◄────┘
                       back, later, elsewhere              wrong or damaged input ──► failed

A part is computed by a `PartTask`: the same part gives the same bytes, and what it publishes is
create-only. So running a part twice is harmless, and whatever happens to workers, the job ends with
the same bytes. Workers pull: who is idle gets the next part, so that fast and slow ones share a job
at their own pace. When nothing is left to hand out, what has been in flight longest goes once more
to an idle worker; the first receipt counts, and a second must agree with it.

This module knows no files and no transport. A `Pool` says who is there, starts a part on a worker
and says what has ended; `ThreadPool` is the one of this process, `visavis.cluster` has Ray's. ::

    terms.py      what comes and goes: receipts, workers, pools, patience, events, outcomes
    run.py        run_parts: who gets which part, and what an end means
    threads.py    the pool of this process
"""

from visavis.schedule.run import run_parts
from visavis.schedule.terms import (
    Counts,
    Ended,
    Event,
    Outcome,
    PartReceipt,
    PartTask,
    Patience,
    Pool,
    Running,
    Worker,
)
from visavis.schedule.threads import ThreadPool

__all__ = [
    "Counts",
    "Ended",
    "Event",
    "Outcome",
    "PartReceipt",
    "PartTask",
    "Patience",
    "Pool",
    "Running",
    "ThreadPool",
    "Worker",
    "run_parts",
]
