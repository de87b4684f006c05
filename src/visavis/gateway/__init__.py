"""The gateway: opportunities over gRPC.

::

    a call ─► entrance: token, scope, bytes ─► a service ─► desk: threads, deadline ─► Serving
                                                              │
                 Status with details ◄── errors ◄─────────────┴─► answers ─► messages

    server.py            Gateway: services on one port, guarded, drained
    entrance.py          who calls, with what scope          tokens.py   digests of tokens
    desk.py              threads, deadlines, readiness       audit.py    the audit log
    match_service.py     matches, streams, explanations      audiences.py   audiences by page
    profile_service.py   facts, objections, forgetting
    catalog_service.py   what is served, and its change      publishing.py  sources, swaps
    job_service.py       jobs over the full base, results    results.py      frames of results
    jobs.py              which jobs there are, durably       job_files.py    the files they are
    job_runner.py        one at a time, each in its own      job_process.py  … process
    job_creation.py      what is served, made to last        job_messages.py jobs → messages
    job_streams.py       seats, and frames made ahead
    context.py           RequestContext → Context            customers.py   profiles → Profiles
    answers.py           Answer and the others → messages    errors.py      errors → Status
    naming.py            ids of opportunities, page tokens   wording.py     texts of messages
    limits.py            what is refused beyond              _wire       answers to one, as bytes
    codec.py             opportunities ⇄ the columns of the contract
    incoming.py          profiles, overrides and facts of the contract → arrays and tables
"""
