"""What a command prints: one JSON document, lines of names and values, stages while it works."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from visavis.cli.logs import log
from visavis.terminal import new_console, shown

__all__ = ["Stages", "Tick", "cell", "print_json", "print_pairs", "stages"]


class Tick:
    """Moves the bar of a stage: called with (done, total)."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` is done."""
        self._progress.update(self._task, completed=done, total=total)


class Stages:
    """Opens stages by name, each timed, logged and, unless quiet, shown.

    Attributes
    ----------
    seconds : dict of str to float
        How long each finished stage took.
    """

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._quiet = quiet

    @contextmanager
    def __call__(self, name: str) -> Iterator[Tick]:
        """Time a block as stage `name`."""
        task = self._progress.add_task(name, total=None)
        if self._progress.disable and not self._quiet:
            self._progress.console.print(f"{name} …")
        started = time.perf_counter()
        yield Tick(self._progress, task)
        self.seconds[name] = round(time.perf_counter() - started, 4)
        log.info("stage", name=name, seconds=self.seconds[name])
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, completed=total, total=total)


@contextmanager
def stages(*, quiet: bool) -> Iterator[Stages]:
    """Progress bars on standard error; without a terminal a line per stage, if quiet nothing."""
    console = new_console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    with progress:
        yield Stages(progress, quiet=quiet)


def print_json(content: object) -> None:
    """Print one JSON document, exact whatever the terminal's encoding lacks."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=_plain)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2, default=_plain)
    print(text)


def _plain(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def print_pairs(summary: Mapping[str, Any]) -> None:
    """Print a line per name and value; a mapping's own lines stand below its name."""
    width = max(len(name) for name in summary)
    for name, value in summary.items():
        label = name.replace("_", " ").ljust(width)
        if not isinstance(value, Mapping):
            print(f"{label}  {cell(value)}")
            continue
        print(label.rstrip())
        inner = max((len(shown(key)) for key in value), default=0)
        for key, held in value.items():
            print(f"  {shown(key).ljust(inner)}  {cell(held)}")


def cell(value: object) -> str:
    """A value as people read it, on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return f"{value:,}" if isinstance(value, int) else shown(value)
