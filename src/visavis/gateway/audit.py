"""The audit log: one line of JSON for each call that publishes, explains, forgets or is refused.

It says who called what, when, and how it ended. It holds no id of a customer.
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
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, method: str, caller: str, code: str, **more: object) -> None:
        """Write one line."""
        at = utc_now().isoformat(timespec="milliseconds")
        line = {"event": "audit", "at": at, "method": method, "caller": caller, "code": code}
        with self._lock:
            stream = sys.stderr if self._stream is None else self._stream
            print(json.dumps({**line, **more}, default=str), file=stream, flush=True)
