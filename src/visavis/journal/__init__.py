"""The journal: what happened since the base was built, durable before the answer.

::

    facts, attributes, objections ──► Journal.append() ──► one group: on disk, with its offsets
                                          │
                   entries after … through ▼
                                      Overlay ── apply(base) ──► a Base of the same customers

An *entry* is one fact, the attributes of one customer at one moment, or one objection. Entries are
numbered from 1 without gaps: their *offset*. A *group* is what one `append` takes: all of it is
there, or nothing. What the entries say is consulted before the base by applying their overlay to
it; indicators stay as the base knows them until the next load.

An objection is final: the journal cannot take it back. Erasure (`Journal.forget`) empties the
entries of one customer and keeps the sha256 of the id, the *tombstone*: it counts as an objection.

::

    journal.py      Journal: append, read, verify, forget
    incoming.py     tables → entries, through the doors of the base
    entries.py      an entry's bytes and its checksum; the head that counts them
    answers.py      what requests were answered with that append nothing
    rows.py         the rows inside one transaction, every one checked
    connection.py   the SQLite file: made, opened, its errors told as ours
    overlay.py      Overlay: what the entries say, summed up
    applying.py     an overlay onto a base
    compacting.py   an overlay into the next version of a base

The form of the file, and what it promises: docs/journal.md.
"""

from visavis.journal.compacting import compact
from visavis.journal.journal import Appended, Counts, Journal, Since
from visavis.journal.overlay import Overlay

__all__ = ["Appended", "Counts", "Journal", "Overlay", "Since", "compact"]
