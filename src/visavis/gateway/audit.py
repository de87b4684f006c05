"""Logs of calls, a line of JSON each: who called what, when, how it ended.

The audit log has those that publish, explain, forget or are refused, the access log has all. No
line holds the id of a customer.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import TextIO

from visavis.domain import utc_now

__all__ = ["Audit"]


class Audit:
    """Writes lines, whole ones, from any thread.

    Parameters
    ----------
    stream : TextIO, optional
        Default: standard error, as it is when a line is written.
    event : str
        What the lines are called.
    """

    def __init__(self, stream: TextIO | None = None, *, event: str = "audit") -> None:
        self._stream = stream
        self._event = event
        self._lock = threading.Lock()

    def write(self, method: str, caller: str, code: str, **more: object) -> None:
        """Write one line."""
        at = utc_now().isoformat(timespec="milliseconds")
        line = {"event": self._event, "at": at, "method": method, "caller": caller, "code": code}
        with self._lock:
            stream = sys.stderr if self._stream is None else self._stream
            print(json.dumps({**line, **more}, default=str), file=stream, flush=True)
