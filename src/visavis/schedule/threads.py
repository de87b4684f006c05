"""The pool of this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Final, NamedTuple, Self

from visavis.errors import InputError, VisavisError
from visavis.schedule.terms import Ended, PartReceipt, PartTask, Running, Worker

__all__ = ["ThreadPool"]


class _Thread(NamedTuple):
    name: str
    kind: str = "cpu"


class ThreadPool:
    """Threads of this process: they share its fate, so none of them dies or stalls alone.

    Parameters
    ----------
    task : PartTask
        Releases the GIL while it computes.
    threads : int
        Parts computed at a time.
    """

    independent: Final = False

    def __init__(self, task: PartTask, threads: int) -> None:
        if threads < 1:
            raise InputError(f"must be at least 1, got {threads}", field="threads")
        self._task = task
        self._workers = [_Thread(f"thread-{number}") for number in range(threads)]
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="visavis-part")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def workers(self) -> Sequence[Worker]:
        """All threads, always."""
        return self._workers

    def refused(self) -> Sequence[str]:
        """None ever."""
        return ()

    def start(self, worker: Worker, part_index: int) -> Running:
        """Compute a part on a thread."""
        return Running(worker, part_index, self._executor.submit(self._task, part_index))

    def wait(self, running: Sequence[Running], timeout_s: float) -> Sequence[Ended]:
        """Wait for parts; what a task raises that is none of our errors is raised here."""
        if not running:
            time.sleep(timeout_s)
            return []
        done, _ = wait_for([each.ticket for each in running], timeout_s, FIRST_COMPLETED)
        return [Ended(each, self._answer(each)) for each in running if each.ticket in done]

    @staticmethod
    def _answer(running: Running) -> PartReceipt | VisavisError:
        try:
            receipt: PartReceipt = running.ticket.result()
        except VisavisError as error:
            return error
        return receipt._replace(worker=running.worker.name)

    def close(self) -> None:
        """Wait for the parts in flight, which cannot be stopped; nothing else is begun."""
        self._executor.shutdown(wait=True, cancel_futures=True)
