"""One process at a time: a lock on a folder that ends with whoever holds it."""

from __future__ import annotations

import fcntl
import os

from visavis.store.places import Folder, Place, named_path

__all__ = ["FolderLock"]


class FolderLock:
    """Held by one process at a time, until it lets go or dies.

    Parameters
    ----------
    place : Place
        Of an object store, which has no locks, every process holds its own.
    name : str
        Of a file that is made, and stays.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._path = place.path / name if isinstance(place, Folder) else None
        self._handle: int | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes can be told from this one."""
        return self._path is not None

    def take(self) -> bool:
        """Whether it is held now; does not wait.

        Raises
        ------
        StorageError
            If the file cannot be made.
        """
        if self._path is None or self._handle is not None:
            return True
        with named_path(self._path, "locked"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Children are started without it: it ends with this process alone.
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return False
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Let go."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
