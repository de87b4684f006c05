"""`Tail`: the last entries of the journal, for owners that are behind."""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from visavis.journal import Journal
from visavis.journal.entries import Entry

__all__ = ["Delta", "Tail"]

#: Entries that are kept: some 30 MB. Whoever is further behind is served from the file.
_KEPT_MAX: Final = 100_000


class Delta(NamedTuple):
    """What brings a state from one offset to another.

    Attributes
    ----------
    after, through : int
    entries : sequence of Entry
        All with ``after < offset ≤ through``, in order.
    forgotten : frozenset of str or None
        All tombstones; None where nobody was forgotten in between.
    """

    after: int
    through: int
    entries: tuple[Entry, ...]
    forgotten: frozenset[str] | None


class Tail:
    """Reads a journal once for everybody who keeps up with it.

    Nothing of who was forgotten stays here: what came before is let go of, and read again from the
    file, where it is empty.

    Parameters
    ----------
    journal : Journal
    kept_max : int
        Entries that are kept.
    """

    def __init__(self, journal: Journal, kept_max: int = _KEPT_MAX) -> None:
        self._journal = journal
        self._kept_max = kept_max
        self._lock = threading.Lock()
        self._start = self._end = journal.offset
        self._entries: list[Entry] = []

    def delta(self, after: int, through: int) -> Delta:
        """What came after an offset, up to `through` or, where that cannot be told apart, further.

        Raises
        ------
        InputError
            If the journal does not reach as far as `after`.
        SetupError
            If it cannot be read.
        """
        with self._lock:
            if self._end < through:
                self._read()
            if self._start <= after and through <= self._end:
                # Entries are numbered without gaps.
                cut = slice(after - self._start, through - self._start)
                return Delta(after, through, tuple(self._entries[cut]), None)
        since = self._journal.since(after, forgotten=True)
        return Delta(after, since.through, tuple(since.entries), since.forgotten)

    def _read(self) -> None:
        since = self._journal.since(self._end)
        if since.forgotten is not None:
            self._entries, self._start = [], since.through
        else:
            self._entries += since.entries
        self._end = since.through
        # In large steps, so that each entry is moved once on the average.
        if len(self._entries) > 2 * self._kept_max:
            self._start += len(self._entries) - self._kept_max
            self._entries = self._entries[-self._kept_max :]
