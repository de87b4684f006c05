"""A part task that pretends: quick and create-only; it stalls, fails or dies when told."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from visavis.errors import InputError, StorageError
from visavis.schedule import PartReceipt


@dataclass(frozen=True)
class Pretended:
    """Publishes a small file for each part, the same whoever runs it.

    Attributes
    ----------
    folder : Path
        Where parts are published; beside it is noted who began which part.
    seconds : float
    poison, wrong, mistaken : frozenset of int
        Parts that kill their process, that are wrong input, and that meet a mistake of ours.
    stalling, unreadable : frozenset of int
        Parts that stop their process for ever, or find a file out of reach: the first time only.
    held : frozenset of int
        Parts that wait until `release` is called.
    """

    folder: Path
    seconds: float = 0.02
    poison: frozenset[int] = field(default_factory=frozenset)
    wrong: frozenset[int] = field(default_factory=frozenset)
    mistaken: frozenset[int] = field(default_factory=frozenset)
    stalling: frozenset[int] = field(default_factory=frozenset)
    unreadable: frozenset[int] = field(default_factory=frozenset)
    held: frozenset[int] = field(default_factory=frozenset)

    def __call__(self, part: int) -> PartReceipt:
        first = self._note(part)
        if part in self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if part in self.wrong:
            raise InputError("must be right", field="part", row=part)
        if part in self.mistaken:
            raise ZeroDivisionError
        if part in self.stalling and first:
            os.kill(os.getpid(), signal.SIGSTOP)
        if part in self.unreadable and first:
            raise StorageError("cannot be read: Stale file handle", path=self.folder)
        time.sleep(self.seconds)
        while part in self.held and not self._released.exists():
            time.sleep(0.02)
        return self._publish(part)

    @property
    def notes(self) -> Path:
        return self.folder.parent / f"{self.folder.name}-begun"

    def begun(self) -> list[int]:
        """Every part that was begun, as often as it was."""
        return sorted(int(note.name.partition("-")[0]) for note in self.notes.iterdir())

    @property
    def _released(self) -> Path:
        return self.folder.parent / f"{self.folder.name}-released"

    def release(self) -> None:
        """Let the parts go on that are held."""
        self._released.touch()

    def _note(self, part: int) -> bool:
        """Note that a part begins; say whether it is the first time."""
        self.notes.mkdir(parents=True, exist_ok=True)
        first = not list(self.notes.glob(f"{part}-*"))
        (self.notes / f"{part}-{os.getpid()}-{time.monotonic_ns()}").touch()
        return first

    def _publish(self, part: int) -> PartReceipt:
        content = hashlib.sha256(f"part {part}".encode()).digest() * 100
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = self.folder.parent / f".{part}-{os.getpid()}-{time.monotonic_ns()}"
        staged.write_bytes(content)
        # Create-only: whoever comes second finds the same bytes there.
        with contextlib.suppress(FileExistsError):
            os.link(staged, self.folder / str(part))
        staged.unlink()
        digest = hashlib.sha256(content).hexdigest()
        return PartReceipt(part, str(part), digest, digest, part, 2 * part, {}, {}, self.seconds)


def published(folder: Path) -> dict[int, bytes]:
    """All that was published, by part."""
    return {int(path.name): path.read_bytes() for path in folder.iterdir()}
