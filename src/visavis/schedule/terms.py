"""What a schedule is made of: receipts, workers, pools, patience, events and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from visavis.errors import VisavisError

__all__ = [
    "Counts",
    "Ended",
    "Event",
    "EventKind",
    "Outcome",
    "PartReceipt",
    "PartTask",
    "Patience",
    "Pool",
    "Running",
    "Worker",
]


class PartReceipt(NamedTuple):
    """What comes back of a part that is published: digests and counts, never its rows.

    Attributes
    ----------
    part_index : int
    file : str
        Where the part was published, as the task names it.
    sha256 : str
        Of the file's bytes.
    digest : str
        Of the canonical columns; two runs of a part agree in it.
    customer_count, opportunity_count : int
    stats : dict of str to int
        The accounting of the kernel.
    nanoseconds : dict of str to int
        By stage.
    seconds : float
    worker : str
        Who computed it; filled by the pool.
    """

    part_index: int
    file: str
    sha256: str
    digest: str
    customer_count: int
    opportunity_count: int
    stats: dict[str, int]
    nanoseconds: dict[str, int]
    seconds: float
    worker: str = ""


#: Computes and publishes one part; picklable where workers are other processes.
PartTask = Callable[[int], PartReceipt]


class Worker(Protocol):
    """Who computes parts, one at a time."""

    @property
    def name(self) -> str:
        """Its own in the whole job, also among workers that are gone."""

    @property
    def kind(self) -> str:
        """``cpu`` or ``gpu``."""


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A part in flight; `ticket` is the pool's own."""

    worker: Worker
    part_index: int
    ticket: Any = None


class Ended(NamedTuple):
    """What became of a part in flight: an answer, or None where its worker died."""

    running: Running
    answer: PartReceipt | VisavisError | None


class Pool(Protocol):
    """Workers, and how to reach them."""

    @property
    def independent(self) -> bool:
        """Whether one worker may stall where another does not; else nothing is issued twice."""

    def workers(self) -> Sequence[Worker]:
        """All that live, busy ones and new ones included."""

    def refused(self) -> Sequence[str]:
        """Why workers that came were not taken, since this was asked last."""

    def start(self, worker: Worker, part_index: int) -> Running:
        """Let an idle worker begin; returns at once."""

    def wait(self, running: Sequence[Running], timeout_s: float) -> Sequence[Ended]:
        """Wait until something of `running` ends or somebody joins; say what has ended."""

    def close(self) -> None:
        """Stop what runs, if it can be stopped, and let the workers go."""


class Patience(NamedTuple):
    """How much a job puts up with.

    Attributes
    ----------
    deaths : int
        So many workers killed make a part poison.
    storage_tries : int
        How often a part is tried while files cannot be read or written.
    backoff_s : float
        Before the second try, and double before each that follows.
    elsewhere_s : float
        So much longer a part waits for a worker that has not failed at it in this way.
    copies : int
        Of one part in flight at a time.
    straggler_s : float
        So long a part is in flight before it is issued again, while no part has ended; then the
        median of those that have.
    join_wait_s : float
        How long to wait for a worker where there is none. Machines that are started on demand
        take minutes.
    """

    deaths: int = 3
    storage_tries: int = 4
    backoff_s: float = 0.5
    elsewhere_s: float = 5.0
    copies: int = 2
    straggler_s: float = 10.0
    join_wait_s: float = 300.0


class Counts(NamedTuple):
    """How far a job is: parts by their end, parts in flight and workers now."""

    parts: int
    done: int
    failed: int
    poison: int
    running: int
    workers: int


#: The first six have a part, the others speak of a worker.
EventKind = Literal[
    "started", "reissued", "retried", "done", "failed", "poison", "joined", "lost", "refused"
]


class Event(NamedTuple):
    """Something that happened, for a progress bar or a line of JSON."""

    kind: EventKind
    counts: Counts
    part_index: int | None = None
    worker: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Outcome:
    """How every part ended, each in one of three ways, by index in ascending order.

    Attributes
    ----------
    receipts : dict of int to PartReceipt
    failed : dict of int to VisavisError
        Parts whose input is wrong or damaged, whose files could not be reached, or of which two
        workers gave different bytes.
    poison : dict of int to tuple of str
        Parts that killed their workers, and whom.
    """

    receipts: dict[int, PartReceipt] = field(default_factory=dict)
    failed: dict[int, VisavisError] = field(default_factory=dict)
    poison: dict[int, tuple[str, ...]] = field(default_factory=dict)
