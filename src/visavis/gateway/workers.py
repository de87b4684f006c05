"""`Supervisor`: several worker processes behind one port, begun again when they die.

::

    visavis serve --workers 4 ─► Supervisor ─┬─► worker 0, leads  ┐
                                  (holds the ├─► worker 1         ├─ one port: SO_REUSEPORT
                                   port)     ├─► worker 2         │  one base: mapped by each
                                             └─► worker 3         ┘  one journal: worker 0 writes

    SIGTERM, SIGINT   every worker drains, then all is over
    SIGHUP            one after the other: another is begun beside it, then it drains

A worker listens only when it can answer, so nobody is sent to one that loads. The supervisor
answers nothing itself and holds nothing of any customer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from visavis.errors import SetupError, StorageError
from visavis.gateway.fellows import Fellows
from visavis.gateway.limits import host_and_port

__all__ = ["Supervisor", "WorkerError", "reserved"]

#: A worker that died is begun again after so long, twice as long each time that it dies soon.
_AGAIN_MIN_S: Final = 0.2
_AGAIN_MAX_S: Final = 10.0
_SOON_S: Final = 30.0

#: What a worker may need to load.
_READY_S: Final = 600.0

#: Beyond the time that it has to drain.
_STOPPED_S: Final = 10.0


class WorkerError(SetupError):
    """A worker ended before it answered; it said why itself.

    Parameters
    ----------
    index, status : int
    """

    def __init__(self, index: int, status: int) -> None:
        super().__init__(f"worker {index} ended with status {status} before it answered")
        self.status = status


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """The address, with a port that is taken for several processes of this user.

    Raises
    ------
    StorageError
        If it cannot be listened at.
    """
    host, port = host_and_port(address, "address")
    bare = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Bound but never listening: connections go to those who listen.
            held.bind((bare, port))
        except OSError as error:
            raise StorageError("cannot be listened at", path=address) from error
        yield f"{host}:{held.getsockname()[1]}"


class _Worker:
    """One process, and whether it answers."""

    def __init__(self, process: asyncio.subprocess.Process, told: asyncio.StreamReader) -> None:
        self.process = process
        self.begun_at = time.monotonic()
        self._told = told

    async def is_ready(self) -> bytes:
        """Wait until it answers; what it says of itself, or nothing if it ended before."""
        return await self._told.readline()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        # The process's own method looks first whether it has ended, and by that takes its status
        # away from who waits for it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


class Supervisor:
    """Begins workers, and sees to it that they are there.

    Parameters
    ----------
    count : int
    command : callable
        The command line of the worker of an index, given the folder that they share and the file
        descriptor that it says on when it is ready.
    grace_s : float
        That a worker has to drain.
    ended : callable
        Told the index and the status of a worker that ended by itself.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int, Path, int], Sequence[str]],
        grace_s: float,
        ended: Callable[[int, int], None],
    ) -> None:
        self._ended = ended
        self._count = count
        self._command = command
        self._grace_s = grace_s
        self._workers: dict[int, _Worker] = {}
        self._folder = Path()
        self._is_stopping = asyncio.Event()
        self._replacing = asyncio.Lock()

    async def run(self, told: Callable[[bytes], None]) -> None:
        """Keep the workers running until a signal says otherwise.

        Parameters
        ----------
        told : callable
            Given what the leader says of itself, once all answer.

        Raises
        ------
        WorkerError
            If a worker cannot begin.
        """
        loop = asyncio.get_running_loop()
        # Whoever began this process may ignore it: then nobody would hear how a worker ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._is_stopping.set)
        renewals: set[asyncio.Task[None]] = set()

        def renew() -> None:
            task = loop.create_task(self._renew())
            renewals.add(task)
            task.add_done_callback(renewals.discard)

        loop.add_signal_handler(signal.SIGHUP, renew)
        with tempfile.TemporaryDirectory(prefix="visavis-workers-") as made:
            self._folder = Path(made)
            Fellows.prepare(self._folder)
            try:
                # The leader first: what it finds wrong is told once, not by all of them.
                said = await self._begin(0)
                await asyncio.gather(*(self._begin(each) for each in range(1, self._count)))
                told(said)
                keepers = [loop.create_task(self._keep(each)) for each in range(self._count)]
                await self._is_stopping.wait()
                for task in (*keepers, *renewals):
                    task.cancel()
                await asyncio.gather(*keepers, *renewals, return_exceptions=True)
            finally:
                await asyncio.gather(*(self._end(each) for each in self._workers.values()))

    async def _begin(self, index: int) -> bytes:
        """Begin a worker, and wait until it answers.

        Raises
        ------
        WorkerError
            If it ends before.
        """
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(index, self._folder, writing),
                pass_fds=(writing,),
                stdin=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(writing)
        told = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(told), os.fdopen(reading, "rb")
        )
        worker = _Worker(process, told)
        self._workers[index] = worker
        stopping = loop.create_task(self._is_stopping.wait())
        ready = loop.create_task(worker.is_ready())
        try:
            await asyncio.wait(
                {ready, stopping}, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if ready.done() and (said := ready.result()):
                return said
            if self._is_stopping.is_set():
                return b""
            await self._end(worker)
            raise WorkerError(index, worker.process.returncode or 0)
        finally:
            for task in (stopping, ready):
                task.cancel()
            transport.close()

    async def _keep(self, index: int) -> None:
        """Begin a worker again whenever it has ended."""
        pause_s = _AGAIN_MIN_S
        while True:
            worker = self._workers[index]
            status = await worker.process.wait()
            if self._workers[index] is not worker:
                continue
            lived_s = time.monotonic() - worker.begun_at
            pause_s = _AGAIN_MIN_S if lived_s > _SOON_S else min(2 * pause_s, _AGAIN_MAX_S)
            self._ended(index, status)
            await asyncio.sleep(pause_s)
            with contextlib.suppress(WorkerError):
                await self._begin(index)

    async def _renew(self) -> None:
        """Put another worker in the place of each, so that some answer at every moment."""
        async with self._replacing:
            for index in range(self._count):
                old = self._workers[index]
                try:
                    await self._begin(index)
                except WorkerError:
                    self._workers[index] = old
                    return
                await self._end(old)

    async def _end(self, worker: _Worker) -> None:
        """Let a worker drain; end it if it does not."""
        if worker.process.returncode is not None:
            return
        worker.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(worker.process.wait(), self._grace_s + _STOPPED_S)
        except TimeoutError:
            worker.send(signal.SIGKILL)
            await worker.process.wait()
