"""Rescoring the full base: every customer of every part, to a result that is all there or not.

::

    plan.json ──► parts, in any order, on any worker ──► manifest.json
    (what the      part-00007.<sha256>.parquet            (published last: readers trust
     bytes depend   created once, named by its digest)     nothing else)
     on)

    plan.py      the plan, whose digest is the job's id, and the result's manifest
    part.py      one part: mapped, matched, published
    delta.py     the same bytes with less work, where only the catalog changed
    marks.py     what tells later which capabilities changed
    job.py       the job: what is missing is computed, then the manifest is published
    results.py   what was published, read through the manifest

A part's bytes depend on nothing but the plan, and nothing is ever overwritten: so a second driver
of the same job is harmless, and what was killed goes on where it stopped.
"""

from visavis.rescore.job import Job, Report, is_unfinished, planned, rescore
from visavis.rescore.plan import Plan, ResultManifest
from visavis.rescore.results import Result

__all__ = [
    "Job",
    "Plan",
    "Report",
    "Result",
    "ResultManifest",
    "is_unfinished",
    "planned",
    "rescore",
]
