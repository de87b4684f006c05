"""The engine online: what one process asks to answer requests, whatever brings them to it.

::

    StoredBase ─► Customers: who is where; facts and attributes stay mapped
    catalog, policy ─► Engine ─► Version: planes and adjustments of all, ready before it serves
    journal ─► entries ─► Touched: of whom something was recorded, computed when it is
                            │
                  State = one Version at one journal offset, never changed, replaced as a whole
                            │
    request + Context ──────┴──► rows of many parts as one block ─► kernel.match ─► Answer

    serving.py     Serving: open, match, explain, find_audience, record, forget, publish
    context.py     Context: what a request may say; Terms: what that means to one version
    customers.py   Customers: where each customer of a base stands
    version.py     Version: base, catalog and policy at one day
    touched.py     State and Touched: what the journal's entries say
    matching.py    a request's rows, as one block for the kernel
    overrides.py   Overrides: what is otherwise for each customer of a request
    profiles.py    Profiles: customers whom no base holds
    answer.py      Answer: columns
    doors.py       what is refused before anything is asked or changed
    explaining.py  why a customer has, or has not, an opportunity
    audience.py    the best customers of one capability: asked.py, which; reach.py, how many get it

With customers elsewhere, all of the above is what each owner does for its shards::

    ShardedServing ─► questions by shard ─► Crew: who owns, who lives ─► Owner: State of its parts
         │                                    │
       journal ─► Tail: entries for who is behind            answers ─► one Answer, of one state

    sharded.py     ShardedServing: the same calls as Serving
    owner.py       Owner: shards that answer at the offset that is asked for
    crew.py        Crew: owners that die and come back
    seat.py        Transport: where owners are; Seat: what is known of one
    asking.py      questions to one owner of each shard, and to the other where that dies
    tail.py        the last entries of the journal
    gathering.py   what shards answer, put together
    waiting.py     until when an answer is waited for

An answer comes from exactly one state and names it (`ServingVersion`). For every customer it is,
byte for byte, what `visavis match` and `visavis rescore` give for the same base, catalog, policy,
day and journal offset.

Rules are never evaluated for a request about stored customers, unless it brings attributes or a day
of its own: a hundred rules over one row take 6 ms, a match of that row takes 0.06.
"""

from visavis.serving.answer import Answer
from visavis.serving.audience import Audience
from visavis.serving.context import Context, Selection
from visavis.serving.overrides import Overrides
from visavis.serving.profiles import Profiles
from visavis.serving.serving import Expected, Serving
from visavis.serving.sharded import ShardedServing
from visavis.serving.version import ServingVersion

__all__ = [
    "Answer",
    "Audience",
    "Context",
    "Expected",
    "Overrides",
    "Profiles",
    "Selection",
    "Serving",
    "ServingVersion",
    "ShardedServing",
]
