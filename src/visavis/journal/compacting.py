"""Compaction: what a journal says becomes part of the next version of a base."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from visavis.base import Base, StoredBase, VersionWriter
from visavis.base.writing import rows_of_base
from visavis.journal.entries import id_digest
from visavis.journal.overlay import Overlay

__all__ = ["compact", "without_forgotten"]


def compact(
    base: StoredBase, overlay: Overlay, *, progress: Callable[[int, int], None] | None = None
) -> StoredBase:
    """Make the next version of a base, with what a journal's entries say, part by part.

    Parameters
    ----------
    base : StoredBase
    overlay : Overlay
        Of the entries after the base's offset.
    progress : callable, optional
        Called with (parts done, parts in all).

    Returns
    -------
    StoredBase
        Without the customers that the journal has forgotten. Indicators stay as they are: they are
        computed of events, at the next load.

    Raises
    ------
    InputError
        If an entry does not fit the base, naming attribute and offset.
    """
    forgotten = {*base.manifest.forgotten, *overlay.forgotten}
    writer = VersionWriter(
        base.place, base.part_count, journal_offset=overlay.through, forgotten=forgotten
    )
    for index, part in enumerate(base.parts()):
        writer.add(index, without_forgotten(overlay.apply(part), forgotten))
        if progress is not None:
            progress(index + 1, base.part_count)
    return writer.publish()


def without_forgotten(base: Base, forgotten: set[str]) -> Base:
    """The base of the customers whose ids are not among the tombstones, sha256 in hex."""
    if not forgotten:
        return base
    ids = base.customer_ids.to_pylist()
    kept = np.array([id_digest(each).hex() not in forgotten for each in ids], dtype=np.bool_)
    return base if kept.all() else rows_of_base(base, np.flatnonzero(kept))
