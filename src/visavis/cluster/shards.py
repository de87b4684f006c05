"""Parts of a full-base job on Ray: actors that pull part ids, as a pool for visavis.schedule.

::

    run_parts ◄──► RayPool ──┬─► _Seats "gpu" ──► actors, one GPU each
                             └─► _Seats "cpu" ──► actors, `threads` processors each
                                                    │
                      part ids in, receipts out     └── ShardWorker.run ──► files, from the worker

A seat is an actor that was asked for. It is placed when a node has room for it, which may be in
the middle of a job; who sits there says its name once it has found that it is of the driver's
version; and it is lost when its process, its node or the way to it is. What is lost is placed
again. A worker that is refused keeps its seat, or Ray would put the next one in the same place.

Through Ray's object store goes the task, once. Files go from and to storage that every node sees.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from visavis import __version__
from visavis.cluster.connect import (
    check_same_version,
    connected,
    errors_of_ray,
    held_once,
    import_ray,
)
from visavis.errors import InputError, SetupError, VisavisError
from visavis.kernel import CONTRACT_VERSION
from visavis.schedule import Ended, PartReceipt, PartTask, Running, Worker

__all__ = ["RayPool", "ShardWorker"]

#: How often to look for room for more workers; a look is one call to the head.
LOOK_S: Final = 1.0

#: So many workers in a row may die before they are ready, beyond one for every seat.
FAILED_STARTS: Final = 3


class ShardWorker:
    """Computes parts in a process of its own; knows no Ray.

    Parameters
    ----------
    task_factory : callable
        Gives the task, and may open what all parts need; called after the versions are compared,
        because what another version has pickled may not be understood.
    version : str
        Of visavis on the driver.
    contract : int
        Of the score, on the driver.
    label : str
        The beginning of this worker's name.

    Raises
    ------
    SetupError
        If this is another version of visavis or of the score contract than the driver's.
    """

    def __init__(
        self,
        task_factory: Callable[[], PartTask],
        *,
        version: str,
        contract: int,
        label: str = "cpu",
    ) -> None:
        #: Where to find it, for people: label, machine and process.
        self.name = f"{label}@{socket.gethostname()}:{os.getpid()}"
        check_same_version(version, contract)
        self._task = task_factory()
        # Whoever lacks what all parts need (a device, say) is refused here, and spoils no part.
        getattr(self._task, "prepare", lambda: None)()

    def run(self, part_index: int) -> PartReceipt | VisavisError:
        """Compute a part. Errors of ours are returned: Ray would wrap what is raised."""
        try:
            return self._task(part_index)._replace(worker=self.name)
        except VisavisError as error:
            return error


class _Shard:
    """A `ShardWorker` where Ray put it; that it was refused is an answer and not a death."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._worker: ShardWorker | None = None
        self._answer: str | VisavisError
        try:
            self._worker = ShardWorker(*given, **named)
        except VisavisError as error:
            self._answer = error
        else:
            self._answer = self._worker.name

    def ready(self) -> str | VisavisError:
        return self._answer

    def run(self, part_index: int) -> PartReceipt | VisavisError:
        assert self._worker is not None, "a refused worker is given no part"  # noqa: S101
        return self._worker.run(part_index)


def _actor_class(claims: dict[str, float]) -> Any:
    """Make a `_Shard` an actor: the one place where a class of ours becomes Ray's."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus"}
    options = {named[resource]: amount for resource, amount in claims.items()}
    # No restarts and no retries of Ray's own: the scheduler counts deaths by part.
    return import_ray().remote(
        max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **options
    )(_Shard)


@dataclass(eq=False, slots=True)
class _Seat:
    """One actor; a Worker of the schedule once it has a name."""

    kind: str
    actor: Any
    ready: Any
    name: str = ""


class _Seats:
    """All actors of one kind.

    Parameters
    ----------
    kind : str
    claims : dict of str to float
        What one of them takes of a node, by Ray's names.
    wanted : int, optional
        Default: as many as the nodes have room for, now and later.
    make : callable
        Asks Ray for one, given its label.
    """

    def __init__(
        self, kind: str, claims: dict[str, float], wanted: int | None, make: Callable[[str], Any]
    ) -> None:
        self.kind, self.claims, self.wanted, self.make = kind, claims, wanted, make
        self.pending: list[_Seat] = []
        self.live: list[_Seat] = []
        self.refused: list[_Seat] = []
        self.made_count = 0
        self.failed_starts = 0
        self.room = 0

    def all(self) -> Iterator[_Seat]:
        yield from self.pending
        yield from self.live
        yield from self.refused

    def fill(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Ask for as many as are wanted and not there."""
        room = sum(self._fitting(node["Resources"]) for node in nodes if node["Alive"])
        if room > self.room:
            self.failed_starts = 0  # somewhere else it may go better
        self.room = room
        wanted = room if self.wanted is None else self.wanted
        while sum(1 for _ in self.all()) < wanted and not self._start_in_vain():
            actor = self.make(f"{self.kind}-{self.made_count}")
            self.pending.append(_Seat(self.kind, actor, actor.ready.remote()))
            self.made_count += 1

    def _start_in_vain(self) -> bool:
        return self.failed_starts >= FAILED_STARTS + self.room

    def spent(self) -> bool:
        """Whether nobody is there and nobody will be, unless nodes join."""
        room = self.room if self.wanted is None else min(self.room, self.wanted)
        gone = not self.pending and self._start_in_vain()
        return not self.live and (gone or len(self.refused) >= room)

    def _fitting(self, resources: dict[str, float]) -> int:
        return int(
            min(resources.get(name, 0) // amount for name, amount in self.claims.items() if amount)
        )

    def take_in(self) -> Iterator[VisavisError]:
        """Move those that have answered to where they belong; say why if it is not to work."""
        ray = import_ray()
        if not self.pending:
            return
        ready = [seat.ready for seat in self.pending]
        answered = set(ray.wait(ready, num_returns=len(ready), timeout=0)[0])
        for seat in [seat for seat in self.pending if seat.ready in answered]:
            self.pending.remove(seat)
            try:
                answer = ray.get(seat.ready)
            except ray.exceptions.RayError as error:
                self.failed_starts += 1
                ray.kill(seat.actor)
                yield SetupError(f"a worker died before it was ready: {_last_line(error)}")
                continue
            if isinstance(answer, VisavisError):
                self.refused.append(seat)
                yield answer
            else:
                seat.name = answer
                self.live.append(seat)
                self.failed_starts = 0


class RayPool:
    """Workers of a Ray cluster, for `visavis.schedule.run_parts`.

    Parameters
    ----------
    task : PartTask
        What workers run; pickled once.
    address : str
        As of `connected`.
    workers : int, optional
        How many on processors; those that find no room wait for it. Default: as many as fit, also
        when nodes join later.
    threads : int
        Processors that one of them claims; the task uses as many.
    gpu : PartTask, optional
        What workers with a GPU run. Their bytes must be the others'. Default: there are none.
    gpu_workers : int, optional
        How many of them; default as of `workers`.
    insecure : bool
        As of `connected`.
    version, contract
        What every worker must be of.

    Raises
    ------
    InputError
        If a count is wrong, or no worker could ever fit this machine alone.
    SetupError
        As `connected`.
    """

    #: Workers stall and die each on its own.
    independent: Final = True

    def __init__(
        self,
        task: PartTask,
        *,
        address: str = "local",
        workers: int | None = None,
        threads: int = 1,
        gpu: PartTask | None = None,
        gpu_workers: int | None = None,
        insecure: bool = False,
        version: str = __version__,
        contract: int = CONTRACT_VERSION,
    ) -> None:
        least = {"workers": (workers, 0 if gpu else 1), "threads": (threads, 1)}
        for name, (value, bound) in (least | {"gpu_workers": (gpu_workers, 0)}).items():
            if value is not None and value < bound:
                raise InputError(f"must be at least {bound}, got {value}", field=name)
        self._refusals: list[VisavisError] = []
        self._told_count = 0
        self._next_look = 0.0
        self._seats: list[_Seats] = []
        with ExitStack() as stack:
            processors = stack.enter_context(connected(address, insecure=insecure))
            stack.callback(self._let_go)
            if address == "local" and threads > processors:
                reason = f"must be at most {processors}, the processors here, got {threads}"
                raise InputError(reason, field="threads")
            same = {"version": version, "contract": contract}
            if gpu is not None:
                # No processor is claimed: it would wait for one that other workers have taken.
                self._add("gpu", {"CPU": 0, "GPU": 1}, gpu_workers, gpu, same)
            self._add("cpu", {"CPU": threads}, workers, task, same)
            self._stack = stack.pop_all()

    def _add(
        self,
        kind: str,
        claims: dict[str, float],
        wanted: int | None,
        task: PartTask,
        same: dict[str, Any],
    ) -> None:
        actor_class, factory = _actor_class(claims), held_once(task)

        def make(label: str) -> Any:
            return actor_class.remote(factory, label=label, **same)

        self._seats.append(_Seats(kind, claims, wanted, make))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def workers(self) -> Sequence[Worker]:
        """Those that are ready and not known to be dead; asks for more where there is room.

        Raises
        ------
        SetupError
            If every worker that came was refused or died before it was ready, and there is room
            for no other: what was said of the last.
        """
        with errors_of_ray():
            if time.monotonic() >= self._next_look:
                nodes = import_ray().nodes()
                for seats in self._seats:
                    seats.fill(nodes)
                self._next_look = time.monotonic() + LOOK_S
            for seats in self._seats:
                self._refusals += seats.take_in()
        if self._refusals and self._spent():
            raise self._refusals[-1]
        return [seat for seats in self._seats for seat in seats.live]

    def _spent(self) -> bool:
        return any(each.room for each in self._seats) and all(each.spent() for each in self._seats)

    def refused(self) -> Sequence[str]:
        """Why workers were refused or died before they were ready, since this was asked last."""
        said = self._refusals[self._told_count :]
        self._told_count = len(self._refusals)
        return [str(each) for each in said]

    def start(self, worker: Worker, part_index: int) -> Running:
        """Send a part id to an actor."""
        seat = self._seat_of(worker)
        return Running(worker, part_index, seat.actor.run.remote(part_index))

    def _seat_of(self, worker: Worker) -> _Seat:
        assert isinstance(worker, _Seat), "a worker of another pool"  # noqa: S101
        return worker

    def wait(self, running: Sequence[Running], timeout_s: float) -> Sequence[Ended]:
        """Wait for a part or for somebody who joins; what a task raises by mistake is raised."""
        ray = import_ray()
        parts = [each.ticket for each in running]
        joining = [seat.ready for seats in self._seats for seat in seats.pending]
        timeout_s = min(timeout_s, LOOK_S)
        if not parts and not joining:
            time.sleep(timeout_s)
            return []
        with errors_of_ray():
            ray.wait(parts + joining, num_returns=1, timeout=timeout_s)
            if not parts:
                return []
            done = set(ray.wait(parts, num_returns=len(parts), timeout=0)[0])
        return [Ended(each, self._answer(each)) for each in running if each.ticket in done]

    def _answer(self, running: Running) -> PartReceipt | VisavisError | None:
        from ray.exceptions import RayError, RayTaskError

        try:
            answer: PartReceipt | VisavisError = import_ray().get(running.ticket)
        except RayTaskError:
            raise
        except RayError:
            # Dead, or out of reach: it may even have published the part, which harms nothing.
            self._lose(self._seat_of(running.worker))
            return None
        return answer

    def _lose(self, seat: _Seat) -> None:
        for seats in self._seats:
            if seat in seats.live:
                seats.live.remove(seat)
                import_ray().kill(seat.actor)
        self._next_look = 0.0

    def close(self) -> None:
        """Kill all workers and leave the cluster, or stop it if it was started here."""
        self._stack.close()

    def _let_go(self) -> None:
        ray = import_ray()
        seats, self._seats = self._seats, []
        for seat in (seat for each in seats for seat in each.all()):
            with suppress(ray.exceptions.RayError):
                ray.kill(seat.actor)


def _last_line(error: Exception) -> str:
    """What a traceback in a message ends with; of other messages, their first line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else lines[0]
