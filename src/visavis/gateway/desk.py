"""`Desk`: where services bring their work: lines, deadlines, readiness, one answer to errors.

Work of the kernel and of the disk runs in threads, so that the event loop goes on reading; but for
single customers whose answer takes less than handing them over (`Joiner`). Five lines, so that what
is slow stands in nobody's way: single customers, batches of them, audiences and explanations, what
changes something (records are serialised by the journal anyway), and what is asked about jobs. When
there is too much to do, batches are shed before single customers who wait in their line.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import grpc

from visavis.gateway.admission import Line, expire, late, overloaded
from visavis.gateway.audit import Audit
from visavis.gateway.entrance import CALLER
from visavis.gateway.errors import RETRY_S, Fault, RefusedError, abort, fault_of
from visavis.gateway.joining import AtOnce, Joiner
from visavis.gateway.metrics import Meters
from visavis.serving import Serving
from visavis.serving.waiting import within

__all__ = ["DEADLINE_S", "Desk", "Queue", "remaining_s"]

#: Where a client sets no deadline.
DEADLINE_S: Final = 10.0

Queue = Literal["match", "batch", "audience", "change", "job"]

#: How long may be waited for a thread: while more comes in than is worked off, and in a burst.
_WAITS_S: Final[dict[Queue, tuple[float, float]]] = {
    "match": (0.005, 1.0),
    "batch": (0.02, 1.0),
    "audience": (1.0, 5.0),
    "change": (0.25, 5.0),
    "job": (1.0, 5.0),
}

#: By how much threads of what takes long stand back for the event loop, which has to read, answer
#: and refuse all others meanwhile, and for single customers. Jobs stand back for them, at 19.
_NICE: Final[dict[Queue, int]] = {"batch": 10, "audience": 10}

T = TypeVar("T")


class Desk:
    """Runs the work of calls.

    Parameters
    ----------
    threads : int
        That match.
    audit : Audit
    deadline_s : float
    meters : Meters, optional
    """

    def __init__(
        self,
        threads: int,
        audit: Audit,
        deadline_s: float = DEADLINE_S,
        meters: Meters | None = None,
    ) -> None:
        self.deadline_s = deadline_s
        self.audit = audit
        self.meters = Meters() if meters is None else meters
        self._serving: Serving | None = None
        self._is_draining = False
        slots: dict[Queue, int] = {
            "match": threads,
            "batch": threads,
            "audience": 2,
            "change": 2,
            "job": 4,
        }
        self._lines = {
            name: Line(
                name,
                count,
                target_s=_WAITS_S[name][0],
                burst_s=_WAITS_S[name][1],
                # While batches are refused by the hundred, the event loop is late.
                at_door=count if name == "batch" else 0,
                nice=_NICE.get(name, 0),
            )
            for name, count in slots.items()
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

    @property
    def is_open(self) -> bool:
        """Whether something is served."""
        return self._serving is not None

    def open(self, serving: Serving) -> None:
        """Answer from now on."""
        self._serving = serving

    def drain(self) -> None:
        """Begin nothing new from now on."""
        self._is_draining = True

    def close(self) -> None:
        """Wait for the threads."""
        for line in self._lines.values():
            line.close()

    def crowding(self, queue: Queue) -> float | None:
        """How long a call that has not been read yet would wait, where that is too long.

        Parameters
        ----------
        queue : Queue

        Returns
        -------
        float or None
            Seconds; None: let it come in. What is not ready says so itself, better than this.
        """
        if not self.is_open or self._is_draining:
            return None
        behind_s = self._behind_singles_s(queue)
        return self._lines[queue].excess_s() if behind_s is None else behind_s

    def _behind_singles_s(self, queue: Queue) -> float | None:
        """How long single customers stand whom a call makes way for; None where it need not.

        One customer is somebody waiting; a batch can come again.
        """
        singles = self._lines["match"]
        is_behind = queue == "batch" and singles.is_standing
        return singles.expected_wait_s() if is_behind else None

    def joiner(
        self,
        together: Callable[[Any, Sequence[Any]], Sequence[Any]],
        amount: Callable[[], int],
        at_once: AtOnce,
    ) -> Joiner[Any]:
        """What puts single customers together: see `Joiner`."""
        return Joiner(self._lines["match"], together, amount, self.meters, at_once)

    async def run(
        self,
        work: Callable[[], T],
        *,
        remaining_s: float | None,
        queue: Queue = "match",
        customer_count: int = 0,
        amount: int = 0,
    ) -> T:
        """Do some work in a thread; what is late or given up before it begins is not begun.

        Parameters
        ----------
        work : callable
        remaining_s : float or None
            Until the client's deadline; None where it has none.
        queue : Queue
        customer_count : int
            How many it matches, for the metrics.
        amount : int
            Its size, beside other work of the same line.

        Raises
        ------
        RefusedError
            If nothing is served, the server is about to stop or has too much to do, or the
            deadline passed.
        """
        self._check_open()
        if (behind_s := self._behind_singles_s(queue)) is not None:
            raise overloaded(behind_s)
        ends = time.monotonic() + (self.deadline_s if remaining_s is None else remaining_s)
        loop = asyncio.get_running_loop()
        piece = _Piece(work, amount, ends, loop.create_future())
        self._lines[queue].offer(piece)
        timer = loop.call_at(ends, expire, piece.answer)
        try:
            found: T = await piece.answer
        finally:
            timer.cancel()
            if piece.waited_s is not None:
                self.meters.begun(queue, piece.waited_s, customer_count)
        return found

    async def answer(
        self,
        call: Any,
        work: Callable[[], T],
        *,
        queue: Queue = "match",
        customer_count: int = 0,
        amount: int = 0,
        paths: Mapping[str, str] | None = None,
        missing: tuple[str, str] = ("customer", ""),
        audited: Mapping[str, object] | None = None,
        method: str = "",
    ) -> T:
        """Answer a unary call, or end it with what went wrong.

        Parameters
        ----------
        call : grpc.aio.ServicerContext
        work, queue, customer_count, amount
            As of `run`.
        paths, missing
            As of `fault_of`.
        audited : mapping, optional
            What the audit log says beside the outcome; None: nothing is written.
        method : str
            What the audit log calls it.
        """
        code = "OK"
        try:
            return await self.run(
                work,
                remaining_s=remaining_s(call),
                queue=queue,
                customer_count=customer_count,
                amount=amount,
            )
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            fault = self.fault(error, queue, paths, missing)
            code = fault.code.name
            await abort(call, fault)
        finally:
            if audited is not None:
                self.audit.write(method, CALLER.get(), code, **audited)

    async def answer_joined(
        self,
        call: Any,
        joiner: Joiner[Any],
        key: Hashable,
        item: Any,
        *,
        paths: Mapping[str, str],
        missing: tuple[str, str],
    ) -> Any:
        """Answer a unary call together with others of its key."""
        try:
            self._check_open()
            left = remaining_s(call)
            ends = time.monotonic() + (self.deadline_s if left is None else left)
            return await joiner.ask(key, item, ends)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await abort(call, self.fault(error, "match", paths, missing))

    def fault(
        self,
        error: Exception,
        queue: Queue = "match",
        paths: Mapping[str, str] | None = None,
        missing: tuple[str, str] = ("customer", ""),
    ) -> Fault:
        """What an error means to the client; ours are logged, what is shed is counted."""
        fault = fault_of(error, paths=paths, missing=missing)
        if fault.reason in ("OVERLOADED", "DEADLINE_PASSED"):
            self.meters.shed(queue, fault.reason.lower())
        self.log(fault, error)
        return fault

    def log(self, fault: Fault, error: BaseException) -> None:
        """Say where a fault of the server comes from; never what was in the request."""
        if not fault.is_ours:
            return
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        self.audit.write("fault", type(error).__name__, fault.code.name, where=where)

    def _check_open(self) -> None:
        _ = self.serving
        # Looked at here alone: what was let in is answered.
        if self._is_draining:
            raise _unavailable("DRAINING", "the server is about to stop")


class _Piece:
    """The work of one call; see `admission.Task`."""

    def __init__(
        self, work: Callable[[], Any], amount: int, ends: float, answer: asyncio.Future[Any]
    ) -> None:
        # Who calls is known to the thread as well.
        self._work = contextvars.copy_context().run, work
        self.amount = amount
        self.ends = ends
        self.answer = answer
        self.offered_at = 0.0
        self.waited_s: float | None = None

    def begin(self, waited_s: float) -> Callable[[], Any] | None:  # noqa: ARG002 (see `_done`)
        """Nothing, where nobody waits for it any more."""
        if self.answer.done():
            return None
        if time.monotonic() >= self.ends:
            expire(self.answer)
            return None
        return self._done

    def _done(self) -> Any:
        """The work, in the thread that does it: it may have been handed over some time ago."""
        now = time.monotonic()
        if self.answer.done() or now >= self.ends:
            raise late()
        self.waited_s = now - self.offered_at
        run, work = self._work
        return within(self.ends, lambda: run(work))()

    def end(self, result: Any, error: BaseException | None) -> None:
        """Tell the call."""
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)


def remaining_s(call: Any) -> float | None:
    """What is left of the client's deadline; None where there is none."""
    left = call.time_remaining()
    return None if left is None or left > 1e8 else float(left)


def _unavailable(reason: str, message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_s=RETRY_S)
