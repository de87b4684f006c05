"""How many calls of a method a client has open at a time, once the server has shed some.

A refused call costs a server about what an empty answer costs it: callers who ask four times as
much as it can do keep it busy refusing. So who asks holds back, as TCP's senders do (congestion
avoidance by additive increase and multiplicative decrease: RFC 5681, section 3.1; the factor of
decrease is CUBIC's: RFC 9438, section 4.6). What is beyond is refused here, at once, and never
sent.

What counts is that the server says so (OVERLOADED): a deadline that passes says as much of the
caller as of the server.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from visavis.client.errors import GatewayError, OverloadedError
from visavis.client.steps import Call, Plan, Sleep

__all__ = ["Congestion", "in_turn", "is_held_back"]

_SHED: Final = "OVERLOADED"
_DECREASE: Final = 0.7
#: Seconds without a refusal, beyond those that are waited for one, after which earlier ones are
#: forgotten: longer than a round of any load that was measured (0.3 s), so that none is forgotten
#: beneath it; and who sends in bursts now and then is not held to what the last one met.
_BELIEVED_S: Final = 5.0
#: How many times the server's `retry_s` a client waits at most that was shed again and again. Of
#: 200 that ask twenty times too much (in simulated time, by the tests) all are answered; with a
#: bound of 20, some never.
_LONGER_MAX: Final = 5.0
#: Between two looks whether a later piece may be sent; nothing is asked of the server for it.
_PAUSE_S: Final = 0.05


class Congestion:
    """The open calls of one method, from any number of threads or tasks.

    There is no limit until the server sheds the first call; then it is 0.7 times what was open. A
    round in which one is shed makes it 0.7 times as large, one that is answered larger by one.
    Below one, a call at a time is sent, after `retry_s` of the server, and longer from time to time
    that it is shed.

    Parameters
    ----------
    method : str
        Its name, for messages.

    Attributes
    ----------
    limit : float
        How many may be open; infinite until something was shed, and when that was long ago.
    """

    def __init__(self, method: str) -> None:
        self.limit = math.inf
        self._method = method
        # Of the same thread twice: what is collected within it may be a call that was given up.
        self._lock = threading.RLock()
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
            If as many are open as may be (`is_held_back`): with the server's last `retry_s`, or
            what is left of a wait.
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
            self._increase(decreases)
        finally:
            with self._lock:
                self._open -= 1

    def _begin(self) -> int:
        with self._lock:
            if self.limit < math.inf:
                since_s = time.monotonic() - self._shed_at
                if since_s >= self._wait_s() + _BELIEVED_S:
                    self.limit = math.inf
                else:
                    self._check(since_s)
            self._open += 1
            return self._decreases

    def _wait_s(self) -> float:
        """After the server's last refusal: as it said, and longer for who was shed alone again."""
        return self._retry_s * min(_DECREASE / min(self.limit, _DECREASE), _LONGER_MAX)

    def _check(self, since_s: float) -> None:
        """Refuse one more, so long after the server's last refusal."""
        left_s = self._wait_s() - since_s if self.limit < 1 else 0.0
        if left_s > 0:
            raise self._held_back(f"sends no {self._method} for {left_s:.2f} s", left_s)
        if self._open + 1 > max(1.0, self.limit):
            most = max(1, math.floor(self.limit))
            reason = f"opens no more than {most} of {self._method} at a time"
            raise self._held_back(reason, self._retry_s)

    def _held_back(self, reason: str, retry_s: float) -> OverloadedError:
        return OverloadedError(
            f"the server sheds load: this client {reason}",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason=_SHED,
            metadata={"refused_by": "client"},
            retry_s=retry_s or None,
        )

    def _decrease(self, decreases: int, retry_s: float | None) -> None:
        with self._lock:
            self._shed_at, self._retry_s = time.monotonic(), retry_s or 0.0
            # What was sent before the last decrease says nothing of what it did.
            if decreases == self._decreases:
                self.limit = _DECREASE * min(self.limit, self._open)
                self._decreases += 1

    def _increase(self, decreases: int) -> None:
        with self._lock:
            # One more for each round of answers; unless hardly any of them is used.
            if decreases == self._decreases and self._open > self.limit / 2:
                self.limit += 1 / max(1.0, self.limit)


def is_held_back(error: GatewayError) -> bool:
    """Whether a call was refused by the client itself, and not sent."""
    return error.metadata.get("refused_by") == "client"


def in_turn(call: Call, *, is_first: bool) -> Plan[Any]:
    """Ask for a piece or a page: where this client holds back a later one, it tries again.

    What has been answered of the same thing would be lost for nothing otherwise. One that the
    server sheds is the caller's to ask again, as every other call.

    Raises
    ------
    OverloadedError
        If the server sheds it, or this client holds back the first, or there is no time left.
    """
    while True:
        try:
            return (yield call)
        except OverloadedError as error:
            # Enough of it is left for an answer, or it would end as late instead.
            is_late = call.budget.left_s(0.0) <= 2 * _PAUSE_S
            if is_first or is_late or not is_held_back(error):
                raise
        yield Sleep(_PAUSE_S)
