"""The schedule: who gets which part, and what an end means."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from visavis.errors import CorruptionError, InputError, SetupError, StorageError, VisavisError
from visavis.schedule.terms import (
    Counts,
    Ended,
    Event,
    EventKind,
    Outcome,
    PartReceipt,
    Patience,
    Pool,
    Running,
    Worker,
)

__all__ = ["run_parts"]

#: How long to wait for anything before workers are looked at again.
TICK_S: Final = 1.0


def run_parts(
    parts: Sequence[int],
    pool: Pool,
    *,
    patience: Patience = Patience(),  # noqa: B008 (immutable)
    on_event: Callable[[Event], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run all parts on the workers of a pool.

    Parameters
    ----------
    parts : sequence of int
        Handed out in this order.
    pool : Pool
        Stays open, for more parts, unless an error is raised.
    patience : Patience
    on_event : callable
        Told of everything that happens, in this thread.
    clock : callable
        Seconds that only grow. What is computed does not depend on it.

    Returns
    -------
    Outcome
        Of every part. That some failed is not an error: the others are done and published.

    Raises
    ------
    InputError
        If a part is named twice.
    SetupError
        If no worker is left, or none can be had, and none joins in time.
    """
    if len(set(parts)) != len(parts):
        raise InputError("must not name a part twice", field="parts")
    job = _Job(parts, pool, patience, on_event, clock)
    try:
        return job.finish()
    except BaseException:
        # An interrupt too: nothing more is handed out, and what runs is not waited for in vain.
        pool.close()
        raise


class _Job:
    """The state of one `run_parts`."""

    def __init__(
        self,
        parts: Sequence[int],
        pool: Pool,
        patience: Patience,
        on_event: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self.part_count = len(parts)
        self.pool, self.patience, self.on_event, self.clock = pool, patience, on_event, clock
        self.waiting = deque(parts)
        #: Parts without an end, in flight or not.
        self.open = set(parts)
        #: When each flight began.
        self.flights: dict[Running, float] = {}
        #: Kept beside it, for a thousand workers are not counted for every part: who is busy, and
        #: the parts in flight that have no end yet, with their copies.
        self.busy: set[str] = set()
        self.copies: Counter[int] = Counter()
        #: Not before this time is a part tried again.
        self.due: dict[int, float] = {}
        #: The workers for whom files of a part were out of reach, and those whom it killed.
        self.out_of_reach: dict[int, list[str]] = defaultdict(list)
        self.killed: dict[int, list[str]] = defaultdict(list)
        #: How long parts took, sorted.
        self.seconds: list[float] = []
        self.live: dict[str, Worker] = {}
        self.alone_since: float | None = None
        self.last_refusal = ""
        self.outcome = Outcome()

    def finish(self) -> Outcome:
        while self.open:
            self._look_around()
            self._hand_out()
            for ended in self.pool.wait(list(self.flights), self._wait_s()):
                self._end(ended)
        if self.flights:
            # A second copy that has ended by now is still asked whether it agrees.
            for ended in self.pool.wait(list(self.flights), 0.0):
                self._end(ended)
        return Outcome(*(dict(sorted(each.items())) for each in self._ends()))

    def _ends(self) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
        found = self.outcome
        return found.receipts, found.failed, found.poison

    def _tell(
        self,
        kind: EventKind,
        part_index: int | None = None,
        worker: str | None = None,
        reason: object = None,
    ) -> None:
        running = len(self.copies)
        done, failed, poison = map(len, self._ends())
        counts = Counts(self.part_count, done, failed, poison, running, len(self.live))
        said = None if reason is None else str(reason)
        self.on_event(Event(kind, counts, part_index, worker, said))

    # ---- who is there ----------------------------------------------------------------------

    def _look_around(self) -> None:
        """Note who came and who went; raise when nobody is left and nobody comes."""
        before, self.live = self.live, {each.name: each for each in self.pool.workers()}
        for name in self.live.keys() - before.keys():
            self._tell("joined", worker=name)
        for name in before.keys() - self.live.keys():
            self._tell("lost", worker=name)
        for reason in self.pool.refused():
            self.last_refusal = reason
            self._tell("refused", reason=reason)
        if self.live or self.flights:
            self.alone_since = None
            return
        now = self.clock()
        self.alone_since = now if self.alone_since is None else self.alone_since
        if now - self.alone_since >= self.patience.join_wait_s:
            because = f" (the last that came: {self.last_refusal})" if self.last_refusal else ""
            raise SetupError(
                f"{len(self.open)} of {self.part_count} parts are not done: no worker is left"
                f" and none joined within {self.patience.join_wait_s:g} s{because}"
            )

    # ---- handing out -----------------------------------------------------------------------

    def _hand_out(self) -> None:
        now = self.clock()
        late: list[int] | None = None
        for name, worker in self.live.items():
            if name in self.busy:
                continue
            part = self._next_part(name, now)
            kind: EventKind = "started"
            if part is None and self.pool.independent:
                # Looked for once: at the end of a job a thousand workers ask at the same time.
                late = self._stragglers(now) if late is None else late
                part, kind = late.pop() if late else None, "reissued"
            if part is not None:
                self.flights[self.pool.start(worker, part)] = now
                self.busy.add(name)
                self.copies[part] += 1
                self._tell(kind, part, name)

    def _next_part(self, name: str, now: float) -> int | None:
        """Take the first waiting part that is due for this worker."""
        for part in self.waiting:
            if now >= self._due_for(part, name):
                self.waiting.remove(part)
                return part
        return None

    def _due_for(self, part: int, name: str) -> float:
        due = self.due.get(part, 0.0)
        failed = self.out_of_reach.get(part, ())
        others = any(other not in failed for other in self.live)
        return due + self.patience.elsewhere_s if name in failed and others else due

    def _stragglers(self, now: float) -> list[int]:
        """The parts that take longer than others did, the one in flight longest last."""
        usual_s = self._usual_s()
        late = [each for each in self._reissuable() if each[0] + usual_s <= now]
        return [part for _, part in sorted(late, reverse=True)]

    def _usual_s(self) -> float:
        """How long parts take; whatever has been in flight for longer is a straggler."""
        if not self.seconds:
            return self.patience.straggler_s
        return self.seconds[len(self.seconds) // 2]

    def _reissuable(self) -> Iterator[tuple[float, int]]:
        """When the last copy began, of every open part that may have another."""
        copies = defaultdict(list)
        for running, began in self.flights.items():
            if running.part_index in self.open:
                copies[running.part_index].append(began)
        for part, times in copies.items():
            if len(times) < self.patience.copies:
                yield max(times), part

    def _wait_s(self) -> float:
        """Until something can be handed out that could not now, and a tick at most."""
        if self.waiting and self.waiting[0] not in self.due:
            return TICK_S  # there is enough to do: whoever ends gets the next part
        now = self.clock()
        usual_s = self._usual_s()
        times = [began + usual_s for began, _ in self._reissuable()]
        for part in self.waiting:
            if part not in self.due:
                break  # those that are tried again stand in front
            times += [self.due[part], self.due[part] + self.patience.elsewhere_s]
        if self.alone_since is not None:
            times.append(self.alone_since + self.patience.join_wait_s)
        return min([at - now for at in times if at > now], default=TICK_S)

    # ---- ends ------------------------------------------------------------------------------

    def _end(self, ended: Ended) -> None:
        running, answer = ended
        began = self.flights.pop(running)
        part, name = running.part_index, running.worker.name
        self.busy.discard(name)
        if part in self.copies:
            self.copies[part] -= 1
            if not self.copies[part]:
                del self.copies[part]
        if isinstance(answer, PartReceipt):
            insort(self.seconds, self.clock() - began)
            self._receive(part, name, answer)
        elif answer is None:
            self.killed[part].append(name)
            if len(self.killed[part]) >= self.patience.deaths:
                self._poison(part)
            else:
                self._again(part, name, f"{name} died", 0.0)
        elif isinstance(answer, StorageError):
            self.out_of_reach[part].append(name)
            tries = len(self.out_of_reach[part])
            if tries >= self.patience.storage_tries:
                self._fail(part, name, answer)
            else:
                self._again(part, name, answer, self.patience.backoff_s * 2 ** (tries - 1))
        else:
            self._fail(part, name, answer)

    def _receive(self, part: int, name: str, receipt: PartReceipt) -> None:
        first = self.outcome.receipts.get(part)
        if receipt.part_index != part:
            reason = f"part {part}: {name} answered with the receipt of part {receipt.part_index}"
            self._fail(part, name, CorruptionError(reason))
        elif first is not None and first.digest != receipt.digest:
            del self.outcome.receipts[part]
            self.open.add(part)
            reason = f"part {part}: {first.worker} computed {first.digest}, {name} {receipt.digest}"
            self._fail(part, name, CorruptionError(reason))
        elif part in self.open:
            self._close(part)
            self.outcome.receipts[part] = receipt
            self._tell("done", part, name)

    def _fail(self, part: int, name: str, error: VisavisError) -> None:
        if part in self.open:
            self._close(part)
            self.outcome.failed[part] = error
            self._tell("failed", part, name, error)

    def _poison(self, part: int) -> None:
        if part in self.open:
            self._close(part)
            self.outcome.poison[part] = tuple(self.killed[part])
            self._tell("poison", part, reason=f"killed {', '.join(self.killed[part])}")

    def _close(self, part: int) -> None:
        """Note that a part has its end; copies of it that still run are not counted any more."""
        self.open.remove(part)
        self.copies.pop(part, None)

    def _again(self, part: int, name: str, reason: object, delay_s: float) -> None:
        """Put a part back in front, unless it has ended or another copy is still in flight."""
        if part in self.open and part not in self.copies:
            self.due[part] = self.clock() + delay_s
            self.waiting.appendleft(part)
            self._tell("retried", part, name, reason)
