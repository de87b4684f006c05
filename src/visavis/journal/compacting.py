"""Compaction: what a journal says becomes part of the next version of a base."""

from __future__ import annotations

from collections.abc import Callable

from visavis.base import StoredBase, VersionWriter
from visavis.base.writing import without_forgotten
from visavis.journal.overlay import Overlay

__all__ = ["compact"]


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
    # Each part looks through its own entries, not through all.
    overlays = overlay.split(base.part_count)
    with VersionWriter(
        base.place, base.part_count, journal_offset=overlay.through, forgotten=forgotten
    ) as writer:
        for index, part in enumerate(base.parts()):
            writer.add(index, without_forgotten(overlays[index].apply(part), forgotten))
            if progress is not None:
                progress(index + 1, base.part_count)
        return writer.publish()
