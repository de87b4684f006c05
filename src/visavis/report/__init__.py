"""The report of a run: one self-contained page for people, the same numbers for machines.

::

    Engine + Matches ─► stories.py     three customers, and why not their next best ┐
                     ─► divergence.py  whose best differ most from the popular      ├─► plain
                     ─► reached.py     what reaches nobody, and why                 │   mappings
    Policy ──────────► asked.py        the policy in words                          ┘      │
    run.json, evaluation, calibration, timing ─────────────────────────────► ReportContent │ ◄┘
                                                                                  │
         masthead · captured · contacts · quality · customers · provenance ◄──────┘
                 │ sections of parts.py, charts/ and markup.py
                 ▼
             page.py ─► write.py ─► report.html, report.json

Nothing here is fitted, matched or sampled: a section shows what it is given, and says so where it
is given nothing. Every name from outside is escaped; the page loads nothing and runs nothing.
"""

from visavis.report.asked import policy_in_words
from visavis.report.content import LIMITATIONS, ReportContent
from visavis.report.divergence import divergent_customers
from visavis.report.reached import coverage
from visavis.report.stories import customer_stories
from visavis.report.write import write_report

__all__ = [
    "LIMITATIONS",
    "ReportContent",
    "coverage",
    "customer_stories",
    "divergent_customers",
    "policy_in_words",
    "write_report",
]
