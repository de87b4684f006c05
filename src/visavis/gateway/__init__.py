"""The gateway: opportunities over gRPC.

::

    a call ─► entrance: token, scope, bytes ─► a service ─► desk: threads, deadline ─► Serving
                                                              │
                 Status with details ◄── errors ◄─────────────┴─► answers ─► messages

    server.py            Gateway: services on one port, guarded, drained
    entrance.py          who calls, with what scope          tokens.py       digests of tokens
    desk.py              threads, deadlines, readiness       audit.py        the audit log
    admission.py         lines, and what they shed           patience.py     how long may be waited
    shedding.py          what is shed before it is read      joining.py      singles together
    metrics.py           what is counted                     tracing.py      spans
    fellows.py           other processes of one port         workers.py      their supervisor
    match_service.py     matches, streams, explanations      audiences.py    audiences by page
    profile_service.py   facts, objections, forgetting
    catalog_service.py   what is served, and its change      publishing.py   sources, swaps
    job_service.py       jobs over the full base, results    results.py      frames of results
    jobs.py              which jobs there are, durably       job_files.py    the files they are
    job_runner.py        one at a time, each in its own      job_process.py  … process
    job_creation.py      what is served, made to last        job_messages.py jobs → messages
    job_streams.py       seats, and frames made ahead        unread.py       what nobody reads
    context.py           RequestContext → Context            customers.py    profiles → Profiles
    answers.py           Answer → messages                   explanations.py the same of why
    _wire                answers to single customers, as bytes
    _columns             answers to batches, as bytes
    naming.py            ids of opportunities, page tokens   errors.py       errors → Status
    limits.py            what is refused beyond
    codec.py             columns of numbers → arrays, fields of messages
    arrow.py             Arrow of strangers → tables         arrow_profiles.py … → Profiles
    incoming.py          profiles, overrides of the contract → arrays
    incoming_facts.py    facts of the contract → tables
"""
