"""What another process and its children hold and spend."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import psutil

SAMPLE_S = 0.05


def memory_of(pid: int) -> dict[str, float]:
    """Anonymous and shared memory together, and mapped files, in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    if "RssAnon" not in fields:
        return {}
    mb = {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in fields if name[:3] == "Rss"}
    return {"RssAnon": mb["RssAnon"] + mb["RssShmem"], "RssFile": mb["RssFile"]}


def family(pid: int) -> list[psutil.Process]:
    """A process and what it started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def processor_s(pid: int) -> float:
    """User and system time of a process and what it started, all threads."""
    times = [each.cpu_times() for each in family(pid)]
    return sum(each.user + each.system for each in times)


def held_mb(pids: list[int]) -> float:
    """Anonymous and shared memory of some processes, without mapped files."""
    return sum(memory_of(pid).get("RssAnon", 0.0) for pid in pids)


class Watch:
    """The most that a process and its children of now hold, looked at again and again.

    Parameters
    ----------
    pid : int
    """

    def __init__(self, pid: int) -> None:
        # Looking for children reads every process of the machine.
        self._pids = [each.pid for each in family(pid)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.begin_mb = self.most_mb = held_mb(self._pids)

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.most_mb = max(self.most_mb, held_mb(self._pids))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
