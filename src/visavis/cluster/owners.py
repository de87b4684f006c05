"""Owners of shards on Ray: long-lived actors, as a transport for visavis.serving.

::

    Crew ◄──► RayOwners ──► place 0 ──► actor: Owner(0, n)   loads from storage that it sees, too
                       └──► place 1 ──► actor: Owner(1, n)   …

Nothing is restarted or sent again by Ray: the crew knows who died, and asks somebody else. Calls
of an actor run in threads of its own, in groups, so that a sign of life does not wait for a version
to load, nor one customer for an audience.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Self

from visavis import __version__
from visavis.cluster.connect import check_same_version, connected, import_ray
from visavis.errors import InputError, VisavisError
from visavis.kernel import CONTRACT_VERSION
from visavis.serving.owner import Owner
from visavis.serving.seat import LostError, Ticket

__all__ = ["RayOwners"]

#: Threads of an actor by what they do, beside those that match.
_GROUPS: Final = {"sign": 2, "load": 1, "audience": 1}

_GROUP_OF: Final = {"hear": "sign", "keep": "sign", "load": "load"}

#: While one question is worked on, others are unpacked and packed.
_BESIDE: Final = 2


class _Actor:
    """An `Owner` where Ray put it; that it was refused is an answer and not a death."""

    def __init__(
        self, index: int, count: int, version: str, contract: int, options: dict[str, Any]
    ) -> None:
        self._owner: Owner | None = None
        self._refusal: VisavisError | None = None
        try:
            check_same_version(version, contract)
            self._owner = Owner(index, count, **options)
        except VisavisError as error:
            self._refusal = error

    def call(self, method: str, *args: Any) -> Any:
        """Errors of ours are returned: Ray would wrap what is raised."""
        if self._owner is None:
            return {} if method == "hear" else self._refusal
        try:
            return getattr(self._owner, method)(*args)
        except VisavisError as error:
            return error.with_traceback(None)


class RayOwners:
    """A transport to actors of a Ray cluster; see `visavis.serving.seat.Transport`.

    Parameters
    ----------
    address : str
        As of `connected`.
    workers : int, optional
        How many owners. Default: as many as there is room for now.
    threads : int
        Processors that one of them claims.
    variant : str, optional
        As of `Serving.open`.
    insecure : bool
        As of `connected`.

    Raises
    ------
    InputError
        If a count is wrong, or no owner could ever fit this machine alone.
    SetupError
        As `connected`.
    """

    def __init__(
        self,
        *,
        address: str = "local",
        workers: int | None = None,
        threads: int = 1,
        variant: str | None = None,
        insecure: bool = False,
    ) -> None:
        for name, value in {"workers": workers, "threads": threads}.items():
            if value is not None and value < 1:
                raise InputError(f"must be at least 1, got {value}", field=name)
        with ExitStack() as stack:
            processors = stack.enter_context(connected(address, insecure=insecure))
            stack.callback(self._let_go)
            if address == "local" and threads * (workers or 1) > processors:
                reason = f"must be at most {processors}, the processors here, in all"
                raise InputError(reason, field="workers" if workers else "threads")
            self._count = max(1, processors // threads) if workers is None else workers
            options = {"threads": threads, "variant": variant}
            self._given = __version__, CONTRACT_VERSION, options
            self._actor_class = import_ray().remote(
                max_restarts=0,
                max_task_retries=0,
                num_cpus=threads,
                max_concurrency=threads + _BESIDE,
                concurrency_groups=_GROUPS,
                scheduling_strategy="SPREAD",
            )(_Actor)
            self._actors: dict[int, Any] = {}
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def count(self) -> int:
        """How many owners there are."""
        return self._count

    def now(self) -> float:
        """Seconds, as `time.monotonic`."""
        return time.monotonic()

    def held(self, value: Any) -> Any:
        """A reference into Ray's object store."""
        return import_ray().put(value)

    def replace(self, index: int) -> None:
        """See `Transport`."""
        ray = import_ray()
        with _lost():
            old = self._actors.pop(index, None)
            if old is not None:
                ray.kill(old)
            self._actors[index] = self._actor_class.remote(index, self._count, *self._given)

    def start(self, index: int, method: str, *args: Any) -> Ticket:
        """See `Transport`."""
        group = _GROUP_OF.get(method)
        if method == "answer" and any(each.method == "find_audience" for each in args[1]):
            group = "audience"
        actor = self._actors.get(index)
        if actor is None:
            raise LostError("nobody is there")
        with _lost():
            call = actor.call if group is None else actor.call.options(concurrency_group=group)
            return call.remote(method, *args)

    def wait(self, tickets: Sequence[Ticket], timeout_s: float) -> Collection[Ticket]:
        """See `Transport`."""
        ray = import_ray()
        if not tickets:
            time.sleep(timeout_s)
            return ()
        waited = list(tickets)
        try:
            ended: list[Ticket] = ray.wait(waited, num_returns=1, timeout=timeout_s)[0]
            if ended and len(waited) > 1:
                ended = ray.wait(waited, num_returns=len(waited), timeout=0)[0]
        except ray.exceptions.RayError:
            # The cluster is out of reach: each call says so when it is asked for its answer.
            return waited
        return ended

    def answer(self, ticket: Ticket) -> Any:
        """See `Transport`."""
        with _lost():
            return import_ray().get(ticket)

    def close(self) -> None:
        """End all owners, and leave the cluster, or stop it if it was started here."""
        self._stack.close()

    def _let_go(self) -> None:
        ray = import_ray()
        actors, self._actors = getattr(self, "_actors", {}), {}
        for actor in actors.values():
            with suppress(ray.exceptions.RayError):
                ray.kill(actor)


@contextmanager
def _lost() -> Iterator[None]:
    """Turn what befalls Ray into a LostError; what an owner raises by mistake stays as it is."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:
        raise
    except RayError as error:
        raise LostError(str(error).partition("\n")[0]) from error
