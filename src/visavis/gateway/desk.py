"""`Desk`: where services bring their work: threads, deadlines, readiness, one answer to errors.

Work of the kernel and of the disk runs in threads, so that the event loop goes on reading. Three
queues, so that what is slow stands in nobody's way: matches, audiences and explanations, and what
changes something (records are serialised by the journal anyway).
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import grpc

from visavis.gateway.audit import Audit
from visavis.gateway.entrance import CALLER
from visavis.gateway.errors import RETRY_S, Fault, RefusedError, abort, fault_of
from visavis.serving import Serving

__all__ = ["DEADLINE_S", "Desk", "Queue", "remaining_s"]

#: Where a client sets no deadline.
DEADLINE_S: Final = 10.0

Queue = Literal["match", "audience", "change"]

T = TypeVar("T")


class Desk:
    """Runs the work of calls.

    Parameters
    ----------
    threads : int
        That match.
    audit : Audit
    deadline_s : float
    """

    def __init__(self, threads: int, audit: Audit, deadline_s: float = DEADLINE_S) -> None:
        self.deadline_s = deadline_s
        self.audit = audit
        self._serving: Serving | None = None
        self._is_draining = False
        sizes: dict[Queue, int] = {"match": threads, "audience": 2, "change": 2}
        self._pools = {
            name: ThreadPoolExecutor(size, thread_name_prefix=f"visavis-{name}")
            for name, size in sizes.items()
        }

    @property
    def serving(self) -> Serving:
        """What answers.

        Raises
        ------
        RefusedError
            If it is not loaded yet.
        """
        if self._serving is None:
            raise _unavailable("NOT_READY", "no version is loaded yet")
        return self._serving

    def open(self, serving: Serving) -> None:
        """Answer from now on."""
        self._serving = serving

    def drain(self) -> None:
        """Begin nothing new from now on."""
        self._is_draining = True

    def close(self) -> None:
        """Wait for the threads."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    async def run(
        self, work: Callable[[], T], *, remaining_s: float | None, queue: Queue = "match"
    ) -> T:
        """Do some work in a thread; what is late or given up before it begins is not begun.

        Raises
        ------
        RefusedError
            If nothing is served, the server is about to stop, or the deadline passed.
        """
        _ = self.serving
        # Looked at here alone: what was let in is answered.
        if self._is_draining:
            raise _unavailable("DRAINING", "the server is about to stop")
        left = self.deadline_s if remaining_s is None else remaining_s
        ends = time.monotonic() + left
        late = RefusedError(
            grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED", "the deadline has passed"
        )

        def begun() -> T:
            if time.monotonic() >= ends:
                raise late
            return work()

        loop = asyncio.get_running_loop()
        # Who calls is known to the thread as well.
        inside = contextvars.copy_context()
        future = loop.run_in_executor(self._pools[queue], inside.run, begun)
        try:
            done, _ = await asyncio.wait({future}, timeout=max(left, 0.0))
            if not done:
                raise late
            return future.result()
        finally:
            # Of a call that was cancelled, too: what has not begun leaves the queue.
            future.cancel()

    async def answer(
        self,
        call: Any,
        work: Callable[[], T],
        *,
        queue: Queue = "match",
        paths: Mapping[str, str] | None = None,
        missing: tuple[str, str] = ("customer", ""),
        audited: Mapping[str, object] | None = None,
        method: str = "",
    ) -> T:
        """Answer a unary call, or end it with what went wrong.

        Parameters
        ----------
        call : grpc.aio.ServicerContext
        work : callable
        queue : Queue
        paths, missing
            As of `fault_of`.
        audited : mapping, optional
            What the audit log says beside the outcome; None: nothing is written.
        method : str
            What the audit log calls it.
        """
        code = "OK"
        try:
            return await self.run(work, remaining_s=remaining_s(call), queue=queue)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            fault = fault_of(error, paths=paths, missing=missing)
            code = fault.code.name
            self.log(fault, error)
            await abort(call, fault)
        finally:
            if audited is not None:
                self.audit.write(method, CALLER.get(), code, **audited)

    def log(self, fault: Fault, error: BaseException) -> None:
        """Say where a fault of the server comes from; never what was in the request."""
        if not fault.is_ours:
            return
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        self.audit.write("fault", type(error).__name__, fault.code.name, where=where)


def remaining_s(call: Any) -> float | None:
    """What is left of the client's deadline; None where there is none."""
    left = call.time_remaining()
    return None if left is None or left > 1e8 else float(left)


def _unavailable(reason: str, message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_s=RETRY_S)
