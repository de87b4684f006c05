"""Points at which tests let an operation fail or the process die; without a plan they cost a test.

Every operation of `visavis.store.places` on a file or an object runs inside `operation`. A plan,
given to `install` or as ``VISAVIS_FAULT`` to a child process, picks one of them by its number:

====================  ==========================================================================
``kill-before:17``    the process is killed (SIGKILL) before its 17th operation
``kill-after:17``     the same, when the operation is done
``ENOSPC:17``         the 17th operation fails with that error of the system, likewise ``EIO``
``short:17``          the 17th operation, if it writes, writes only half of what it is given at
                      first, as the system may
====================  ==========================================================================

Operations are counted from 1 over the whole process.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

__all__ = ["Plan", "install", "operation", "write_size"]

_VARIABLE: Final = "VISAVIS_FAULT"


@dataclass(slots=True)
class Plan:
    """What happens at which operation.

    Attributes
    ----------
    what : str
        ``kill-before``, ``kill-after``, ``short``, or the name of an error of the system.
    number : int
        Of the operation, from 1; 0 never comes.
    count : int
        Operations begun so far.
    """

    what: str
    number: int
    count: int = 0
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read ``what:number``."""
        what, _, number = text.partition(":")
        if what not in ("kill-before", "kill-after", "short") and not hasattr(errno, what):
            raise ValueError(f"{_VARIABLE}: no such fault: {text!r}")
        return cls(what, int(number))

    def begin(self) -> bool:
        """Count one more operation; tell whether it is the one."""
        with self._lock:
            self.count += 1
            return self.count == self.number


_plan: Plan | None = Plan.parse(os.environ[_VARIABLE]) if _VARIABLE in os.environ else None


def install(plan: Plan | None) -> None:
    """Let `plan` happen from now on; None ends it."""
    global _plan
    _plan = plan


@contextmanager
def operation() -> Iterator[None]:
    """One operation on a file or an object."""
    plan = _plan
    if plan is None or not plan.begin():
        yield
        return
    if plan.what == "kill-before":
        os.kill(os.getpid(), signal.SIGKILL)
    if hasattr(errno, plan.what):
        number = getattr(errno, plan.what)
        raise OSError(number, os.strerror(number))
    yield
    if plan.what == "kill-after":
        os.kill(os.getpid(), signal.SIGKILL)


def write_size(size: int) -> int:
    """How much of `size` bytes one write takes."""
    plan = _plan
    if plan is None or plan.what != "short" or plan.count != plan.number:
        return size
    return max(1, size // 2)
