"""How many calls of a method a client has open at a time, once the server has refused some.

A refused call costs a server about what an empty answer costs it: callers who ask four times as
much as it can do keep it busy refusing. So who asks holds back, as TCP's senders do (congestion
avoidance by additive increase and multiplicative decrease: RFC 5681, section 3.1; the factor of
decrease is CUBIC's: RFC 9438, section 4.6). What is beyond is refused here, at once, and never
sent.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from visavis.client.errors import OverloadedError

__all__ = ["Congestion"]

_SHED: Final = "OVERLOADED"
_DECREASE: Final = 0.7
#: Seconds without a refusal after which what earlier ones said is not believed any more.
_BELIEVED_S: Final = 5.0


class Congestion:
    """The open calls of one method, from any number of threads or tasks.

    There is no limit until the server sheds the first one. Below one, a call is let through when
    the server's `retry_s` is over.

    Attributes
    ----------
    limit : float
        How many may be open; infinite until something was shed, and when that was long ago.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self._lock = threading.Lock()
        self._open = 0
        self._decreases = 0
        self._shed_at = -math.inf
        self._retry_s = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """What is done within is a call; how it ends says how many there may be.

        Raises
        ------
        OverloadedError
            If as many are open as may be: with the server's last `retry_s`, and metadata that says
            that this client refused, and at how many.
        """
        decreases = self._begin()
        try:
            yield
        except OverloadedError as error:
            # gRPC refuses in this way what is too large: that says nothing of the server's load.
            if error.reason == _SHED:
                self._decrease(decreases, error.retry_s)
            raise
        else:
            self._increase()
        finally:
            with self._lock:
                self._open -= 1

    def _begin(self) -> int:
        with self._lock:
            if self.limit < math.inf:
                self._check(time.monotonic() - self._shed_at)
            self._open += 1
            return self._decreases

    def _check(self, since_s: float) -> None:
        """Refuse one more, so long after the last that the server refused."""
        if since_s >= _BELIEVED_S:
            self.limit = math.inf
        elif self._open + 1 > max(1.0, self.limit) or (self.limit < 1 and since_s < self._retry_s):
            raise self._refusal()

    def _refusal(self) -> OverloadedError:
        most = math.floor(self.limit)
        return OverloadedError(
            f"the server sheds load: this client opens {most} calls of the method at a time now",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason=_SHED,
            metadata={"refused_by": "client", "open_calls_max": str(most)},
            retry_s=self._retry_s or None,
        )

    def _decrease(self, decreases: int, retry_s: float | None) -> None:
        with self._lock:
            self._shed_at, self._retry_s = time.monotonic(), retry_s or 0.0
            # What was sent before the last decrease says nothing of what it did.
            if decreases == self._decreases:
                self.limit = _DECREASE * min(self.limit, self._open)
                self._decreases += 1

    def _increase(self) -> None:
        with self._lock:
            # One more for each round of answers; unless hardly any of them is used.
            if self._open > self.limit / 2:
                self.limit += 1 / max(1.0, self.limit)
