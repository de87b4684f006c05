"""`Jobs`: which jobs there are, in what state, durable before anybody is told.

A registry over files that are created once (visavis.gateway.job_files). Several processes may use
one place: what others wrote is seen at the next `refresh`, and of two who want to write the same
event one wins and the other looks again. A record that is damaged makes one job unreadable, by
name, and leaves the others alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeVar

from visavis.domain import utc_now
from visavis.errors import CorruptionError, InputError, ReusedError
from visavis.gateway.job_files import (
    JOBS,
    EventKind,
    JobEvent,
    JobRecord,
    RequestRecord,
    event_name,
    named_event,
    request_name,
    result_at,
)
from visavis.rescore.part import named_part
from visavis.store import Place

__all__ = ["Created", "JobState", "JobStatus", "Jobs"]

JobState = Literal["pending", "running", "succeeded", "failed", "cancelled"]

_STATES: Final[dict[EventKind, JobState]] = {
    "resumed": "pending",
    "started": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}

_Document = TypeVar("_Document", JobRecord, JobEvent, RequestRecord)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job, and what happened to it.

    Attributes
    ----------
    job_id : str
    record : JobRecord
    events : tuple of JobEvent
        In the order of their numbers.
    """

    job_id: str
    record: JobRecord
    events: tuple[JobEvent, ...] = ()

    @property
    def state(self) -> JobState:
        """Where it is."""
        return _STATES[self.events[-1].kind] if self.events else "pending"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state not in ("pending", "running")

    @property
    def end(self) -> JobEvent | None:
        """How it ended; None where it has not."""
        return self.events[-1] if self.has_ended else None

    @property
    def queued_at(self) -> datetime:
        """Since when it is to be computed."""
        resumed = [each.at for each in self.events if each.kind == "resumed"]
        return resumed[-1] if resumed else self.record.created_at

    @property
    def started_at(self) -> datetime | None:
        """When its first part was begun."""
        return next((each.at for each in self.events if each.kind == "started"), None)


@dataclass(frozen=True, slots=True)
class Created:
    """What CreateRescoreJob is answered with."""

    status: JobStatus
    is_repeated: bool


class Jobs:
    """The jobs of a place.

    Any number of threads may ask and write.

    Parameters
    ----------
    place : Place
        It need not exist yet.
    on_damage : callable
        Told once of every record that is not as it was written.
    """

    def __init__(
        self, place: Place, on_damage: Callable[[CorruptionError], None] = lambda _: None
    ) -> None:
        self.place = place
        self._on_damage = on_damage
        #: Held while something is decided and written, and while files are read.
        self._writing = threading.RLock()
        #: Held for what is in memory alone: who only asks waits for no disk.
        self._lock = threading.Lock()
        self._records: dict[str, JobRecord] = {}
        self._events: dict[str, dict[int, JobEvent]] = {}
        self._damaged: dict[str, CorruptionError] = {}
        self._done: dict[str, int] = {}

    def refresh(self) -> None:
        """Read what was written since.

        Raises
        ------
        StorageError
            If the place cannot be read.
        """
        with self._writing:
            found = [named_event(name) for name in self.place.names(JOBS)]
            new = [each for each in found if each is not None and not self._is_known(*each)]
            for job_id, number in new:
                self._take_in(job_id, number)
            for job_id in {each for each, _ in new}:
                self._check_whole(job_id)

    def find(self, job_id: str) -> JobStatus | None:
        """A job as it is known here; None if there is none.

        Raises
        ------
        CorruptionError
            If what is remembered of it is not as it was written.
        """
        with self._lock:
            if job_id in self._damaged:
                raise self._damaged[job_id]
            record = self._records.get(job_id)
            if record is None:
                return None
            events = self._events.get(job_id, {})
            return JobStatus(job_id, record, tuple(events[n] for n in sorted(events)))

    def all(self) -> list[JobStatus]:
        """All jobs that can be read, newest first, then by id."""
        with self._lock:
            ids = sorted(self._records.keys() - self._damaged.keys())
        found = [each for each in map(self.find, ids) if each is not None]
        return sorted(found, key=lambda each: each.record.created_at, reverse=True)

    def next_waiting(self) -> JobStatus | None:
        """The job to be computed now: of those that have not ended, the first that was created."""
        waiting = [each for each in self.all() if not each.has_ended]
        return min(waiting, key=lambda each: (each.queued_at, each.job_id), default=None)

    def answered(self, request_id: str, content: str) -> Created | None:
        """What a request was answered with before; None if it is new.

        Raises
        ------
        ReusedError
            If it had other content.
        CorruptionError, StorageError
        """
        name = request_name(request_id)
        stands = self.place.read(name)
        if stands is None:
            return None
        said = _parsed(RequestRecord, stands, f"{self.place}/{name}")
        if said.content != content:
            raise ReusedError("was used before, for another job", field="request_id")
        return Created(self._finished(said), is_repeated=True)

    def create(self, request_id: str, content: str, record: JobRecord) -> Created:
        """Remember a job and the request that wants it: both are durable when this returns.

        Raises
        ------
        ReusedError
            If the request id was used with other content.
        CorruptionError, StorageError
        """
        with self._writing:
            self.refresh()
            known = self.find(record.job_id)
            number: int | None = 0
            if known is not None:
                # One that stopped is gone on with; a result is not computed again.
                is_stopped = known.state in ("failed", "cancelled")
                number = len(known.events) + 1 if is_stopped else None
                record = known.record
            said = RequestRecord(content=content, record=record, number=number)
            if not self.place.create(request_name(request_id), said.to_bytes()):
                before = self.answered(request_id, content)
                assert before is not None  # noqa: S101 (it stands there)
                return before
            return Created(self._finished(said), is_repeated=known is not None)

    def _finished(self, said: RequestRecord) -> JobStatus:
        """The job of a request, whose effect is there when this returns."""
        job_id = said.record.job_id
        with self._writing:
            if said.number == 0:
                self._write(job_id, 0, said.record)
            self.refresh()
            status = self.find(job_id)
            if status is None:
                raise CorruptionError(f"{self.place}: the record of job {job_id} is missing")
            if said.number is not None and said.number > len(status.events):
                self._write(job_id, said.number, _event(job_id, said.number, "resumed"))
                status = self.find(job_id)
                assert status is not None  # noqa: S101 (it was there)
            return status

    def happened(self, job_id: str, kind: EventKind, **more: object) -> JobStatus:
        """Write an event, unless the job has ended; the job as it is then.

        Parameters
        ----------
        job_id : str
            Of a job that is known here.
        kind : str
        more
            Fields of `JobEvent`.

        Raises
        ------
        CorruptionError, StorageError
        """
        with self._writing:
            while True:
                self.refresh()
                status = self.find(job_id)
                if status is None:
                    raise InputError(f"there is no job {job_id}", field="job_id")
                if status.has_ended or (kind == "started" and status.state == "running"):
                    return status
                number = len(status.events) + 1
                self._write(job_id, number, _event(job_id, number, kind, **more))

    def done_part_count(self, status: JobStatus) -> int:
        """How many parts of a job are there.

        Raises
        ------
        StorageError
        """
        if status.state == "succeeded":
            return status.record.plan.part_count
        with self._lock:
            known = self._done.get(status.job_id)
        return self.count_parts(status.job_id) if known is None else known

    def count_parts(self, job_id: str) -> int:
        """Count the parts of a job that are there, and remember it."""
        found = map(named_part, result_at(self.place, job_id).names("parts"))
        count = len({each[0] for each in found if each is not None})
        self.set_done(job_id, count)
        return count

    def set_done(self, job_id: str, count: int | None) -> None:
        """Remember how many parts are there; None: they are counted when somebody asks."""
        with self._lock:
            if count is None:
                self._done.pop(job_id, None)
            else:
                self._done[job_id] = count

    def _is_known(self, job_id: str, number: int) -> bool:
        with self._lock:
            if job_id in self._damaged:
                return True
            return number in self._events.get(job_id, {}) if number else job_id in self._records

    def _take_in(self, job_id: str, number: int) -> None:
        """Read one file, if it is there."""
        name = event_name(job_id, number)
        content = self.place.read(name)
        if content is None:
            return
        named = f"{self.place}/{name}"
        try:
            if not number:
                record = _parsed(JobRecord, content, named)
                if record.job_id != job_id:
                    raise CorruptionError(f"{named} is of another job")
                with self._lock:
                    self._records[job_id] = record
                return
            event = _parsed(JobEvent, content, named)
            if (event.job_id, event.number) != (job_id, number):
                raise CorruptionError(f"{named} is of another job or place")
            with self._lock:
                self._events.setdefault(job_id, {})[number] = event
        except CorruptionError as error:
            self._set_damaged(job_id, error)

    def _check_whole(self, job_id: str) -> None:
        """Mark a job as damaged that lacks its record, or an event between others."""
        with self._lock:
            numbers = range(1, max(self._events.get(job_id, {}), default=0) + 1)
        for number in (0, *numbers):
            # A listing need not show what was written while it was made.
            if not self._is_known(job_id, number):
                self._take_in(job_id, number)
            if not self._is_known(job_id, number):
                name = event_name(job_id, number)
                self._set_damaged(job_id, CorruptionError(f"{self.place}/{name} is missing"))

    def _set_damaged(self, job_id: str, error: CorruptionError) -> None:
        with self._lock:
            self._damaged[job_id] = error
        self._on_damage(error)

    def _write(self, job_id: str, number: int, content: JobRecord | JobEvent) -> None:
        """Create a file; what stands there already is as good."""
        self.place.create(event_name(job_id, number), content.to_bytes())
        if not self._is_known(job_id, number):
            self._take_in(job_id, number)


def _event(job_id: str, number: int, kind: EventKind, **more: object) -> JobEvent:
    held = {"job_id": job_id, "number": number, "kind": kind, "at": utc_now(), **more}
    return JobEvent.model_validate(held)


def _parsed(kind: type[_Document], content: bytes, named: str) -> _Document:
    try:
        return kind.parse(content, named)
    except InputError as error:
        # Whole, but of another version of visavis.
        raise CorruptionError(f"{named} cannot be read: {error}") from error
