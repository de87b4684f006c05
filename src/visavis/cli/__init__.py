"""The command line: ``visavis demo``, ``indicators``, ``learn``, ``load``, ``match`` and so on.

::

    entry.py     main(): one command, its errors in one line, its exit status
    build.py     indicators, load           ask.py    match, audience, explain
    model.py     learn                      record.py   record, forget
    machine.py   demo, doctor               options.py  what several commands are asked
    serve.py     serve, until told to stop  query.py    match, explain, audience, info of a gateway
    tables.py    CSV and Parquet → typed tables, every cell checked
    records.py   what a result is written as, and the record beside it
    output.py    JSON, lines and stages     logs.py   structlog, set up once

Results go to standard output, as text or with ``--json`` as one JSON document; progress, logs and
errors go to standard error. With ``--json`` an error is the one JSON document, on standard output.

======  ============================================================================================
status  meaning
======  ============================================================================================
0       done
2       wrong input, or a wrong command line
3       wrong surroundings: a file that the system refuses, a variant that does not run, no memory
70      a fault of visavis itself; ``VISAVIS_TRACEBACK=1`` shows where
130     interrupted
======  ============================================================================================

``VISAVIS_LOG_LEVEL`` (default ``warning``) says what is logged; at ``info`` every stage with its
seconds. ``VISAVIS_LOG=json``, or ``--json``, makes each a line of JSON.
"""

from visavis.cli.entry import EXIT_FAULT, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_SETUP, app, main

__all__ = ["EXIT_FAULT", "EXIT_INPUT", "EXIT_INTERRUPTED", "EXIT_SETUP", "app", "main"]
