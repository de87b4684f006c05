"""Places: a folder, or a prefix of an object store, in which whole files appear and never change.

::

    place = open_place("base")              a folder
    place = open_place("s3://bucket/base")  an object store (extra: objects)
    place.create("v0001/part-00000.arrow", content)   → True, or False: it stands there already
    place.fetch("v0001/part-00000.arrow", sha256)     → a buffer, mapped, its digest checked

A file of a folder is written without a name (``O_TMPFILE``), synchronised, and linked to its name:
a name leads to the whole content or does not exist, of two writers one wins, and a killed writer
leaves nothing. Where a file system has no unnamed files, a hidden one is used; what a killed writer
leaves of those `remove_leftovers` finds by the lock that nobody holds any more.

Object stores are in `visavis.store.buckets`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from visavis.errors import CorruptionError, StorageError
from visavis.store import faults

__all__ = ["Folder", "Place", "UnnamedFile", "bytes_digest", "named_path", "unnamed_file"]

#: Why a folder's file system has no unnamed files.
_NO_UNNAMED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)

#: Hidden files of writers end so.
_STAGED: Final = ".staged"

_T = TypeVar("_T")


def bytes_digest(content: Any) -> str:
    """The sha256 of bytes or a buffer, in hex."""
    return hashlib.sha256(content).hexdigest()


class Place(ABC):
    """Whole files under names, relative and with slashes."""

    @abstractmethod
    def __str__(self) -> str:
        """The path or URL, for people."""

    @abstractmethod
    def at(self, name: str) -> Place:
        """The place below this one."""

    @abstractmethod
    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """Write a file, durably and as a whole; False if one stands there already.

        Raises
        ------
        StorageError
            If it cannot be written.
        """

    @abstractmethod
    def replace(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file in the place of whatever stands there, durably and as a whole."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The whole content of a small file; None if there is none.

        Raises
        ------
        StorageError
            If it cannot be read.
        """

    @abstractmethod
    def names(self, under: str = "") -> list[str]:
        """The names of all files under a name that ends a folder (``v0001``), sorted."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files, those that are there, in the order given, durably when it returns."""

    @abstractmethod
    def _load(self, name: str, digest: str) -> pa.Buffer:
        """The content of a file of that digest, mapped where it can be.

        Raises
        ------
        FileNotFoundError
            If there is none.
        CorruptionError
            If its digest is another.
        """

    def fetch(self, name: str, digest: str) -> pa.Buffer:
        """The content of a file, its digest checked.

        Raises
        ------
        CorruptionError
            If it is not there, or its sha256 is another.
        StorageError
            If it cannot be read.
        """
        try:
            with named_path(f"{self}/{name}", "read"), faults.operation():
                return self._load(name, digest)
        except FileNotFoundError:
            raise CorruptionError(f"{self}/{name} is missing") from None

    def _check(self, name: str, content: bytes | pa.Buffer, digest: str) -> None:
        if bytes_digest(content) != digest:
            raise CorruptionError(f"{self}/{name} does not fit its digest")

    def drop_cached(self, digest: str) -> None:  # noqa: B027  (only buckets keep any)
        """Remove what this machine keeps of a file that is gone."""

    def remove_leftovers(self) -> None:  # noqa: B027  (only folders have any)
        """Remove what killed writers left."""

    def remove_folder(self, name: str) -> None:  # noqa: B027  (only folders have any)
        """Remove a folder in which nothing is left; what is not empty stays."""


@contextmanager
def named_path(path: object, done: str) -> Iterator[None]:
    """Turn what the system refuses, a missing file apart, into an error that names `path`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"cannot be {done}: {error.strerror or error}"
        raise StorageError(reason, path=path) from error


class Folder(Place):
    """A folder of a file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        """Its path."""
        return str(self.path)

    def __eq__(self, other: object) -> bool:
        """The same path."""
        return isinstance(other, Folder) and self.path.absolute() == other.path.absolute()

    def __hash__(self) -> int:
        """Of the path."""
        return hash(self.path.absolute())

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open the same path."""
        return Folder, (self.path.absolute(),)

    def at(self, name: str) -> Folder:
        """See `Place`."""
        return Folder(self.path / name)

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """See `Place`."""
        return self._again(self._create, self.path / name, content)

    def replace(self, name: str, content: bytes | pa.Buffer) -> None:
        """See `Place`."""
        self._again(self._replace, self.path / name, content)

    def _again(
        self, write: Callable[[Path, bytes | pa.Buffer], _T], path: Path, content: bytes | pa.Buffer
    ) -> _T:
        with contextlib.suppress(FileNotFoundError):
            return write(path, content)
        # Its folder was removed while it was written to.
        try:
            return write(path, content)
        except FileNotFoundError as error:
            raise StorageError(f"cannot be written: {error.strerror}", path=path) from error

    def _create(self, path: Path, content: bytes | pa.Buffer) -> bool:
        with named_path(path, "written"):
            _make_folder(path.parent.absolute(), self.path.absolute())
            is_new = not os.path.lexists(path) and _link_new(path, content)
            # Of another writer's file too: it may not have come so far yet.
            _sync_folder(path.parent)
            return is_new

    def _replace(self, path: Path, content: bytes | pa.Buffer) -> None:
        with named_path(path, "written"):
            _make_folder(path.parent.absolute(), self.path.absolute())
            _remove_unheld(path.parent.glob(f".{escape(path.name)}.*{_STAGED}"))
            # A name of its own: writers at the same time must not take each other's away.
            aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_STAGED}")
            with unnamed_file(path.parent) as staged:
                staged.write(content)
                staged.sync()
                try:
                    staged.link(aside)
                    with faults.operation():
                        aside.replace(path)
                finally:
                    aside.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        path = self.path / name
        with named_path(path, "read"), faults.operation():
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def names(self, under: str = "") -> list[str]:
        """See `Place`."""
        root = self.path / under
        found = []
        with named_path(root, "read"), faults.operation():
            for folder, _, files in os.walk(root, onerror=_unless_gone):
                found += [(Path(folder) / name).relative_to(self.path).as_posix() for name in files]
        return sorted(name for name in found if not name.endswith(_STAGED))

    def remove(self, *names: str) -> None:
        """See `Place`."""
        paths = [self.path / name for name in names]
        for path in paths:
            with named_path(path, "removed"), faults.operation():
                path.unlink(missing_ok=True)
        for folder in sorted({path.parent for path in paths}):
            with contextlib.suppress(FileNotFoundError), named_path(folder, "written"):
                _sync_folder(folder)

    def remove_folder(self, name: str) -> None:
        """See `Place`."""
        with contextlib.suppress(OSError):
            (self.path / name).rmdir()

    def remove_leftovers(self) -> None:
        """See `Place`."""
        # Where folders come and go meanwhile, what is left is left to the next.
        with contextlib.suppress(OSError):
            _remove_unheld(self.path.rglob(f".*{_STAGED}"))

    def _load(self, name: str, digest: str) -> pa.Buffer:
        with pa.memory_map(str(self.path / name)) as source:
            content = source.read_buffer()
        self._check(name, content, digest)
        return content


def _unless_gone(error: OSError) -> None:
    """Let a listing pass over what was removed meanwhile, and over nothing else."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _remove_unheld(paths: Iterable[Path]) -> None:
    """Remove hidden files that no writer holds: one holds its own as long as it lives."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


class UnnamedFile:
    """A file without a name, or with a hidden one, until it is linked to its own."""

    def __init__(self, handle: int, hidden: Path | None) -> None:
        self._handle = handle
        self._hidden = hidden

    def write(self, content: bytes | pa.Buffer) -> None:
        """Write all of it behind what is written already."""
        left = memoryview(content).cast("B")
        while len(left):
            with faults.operation():
                left = left[os.write(self._handle, left[: faults.write_size(len(left))]) :]

    def sync(self) -> None:
        """See it on disk."""
        with faults.operation():
            os.fsync(self._handle)

    def link(self, path: Path) -> None:
        """Give it its name; FileExistsError if something has it."""
        with faults.operation():
            if self._hidden is not None:
                os.link(self._hidden, path)
                return
            handles = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.link(str(self._handle), path, src_dir_fd=handles, follow_symlinks=True)
            finally:
                os.close(handles)


@contextmanager
def unnamed_file(folder: Path) -> Iterator[UnnamedFile]:
    """A file in `folder` that nobody sees, gone at the end of the block unless it was linked."""
    hidden = None
    with faults.operation():
        try:
            handle = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o644)
        except OSError as error:
            if error.errno not in _NO_UNNAMED or not folder.is_dir():
                raise
            hidden = folder / f".{secrets.token_hex(8)}{_STAGED}"
            handle = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        # Where nothing can be locked, nobody takes it for a leftover either.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield UnnamedFile(handle, hidden)
    finally:
        if hidden is not None:
            hidden.unlink(missing_ok=True)
        os.close(handle)


def _link_new(path: Path, content: bytes | pa.Buffer) -> bool:
    """Write a file that appears as a whole; False if another one has its name."""
    with unnamed_file(path.parent) as staged:
        staged.write(content)
        staged.sync()
        try:
            staged.link(path)
        except FileExistsError:
            return False
    return True


#: Folders that this process has seen synchronised. By path too: the system gives the number of
#: one that was removed to the next, and one that was renamed has another name to lose.
_lasting: Final[set[tuple[Path, int, int]]] = set()


def _make_folder(path: Path, root: Path) -> None:
    """Make a folder and those above it, so that they are still there after a power cut.

    Another writer may have made one that stands already, and been killed before it was
    synchronised: from `root` on downwards that is made up for, once.
    """
    is_new = not path.is_dir()
    if not is_new and (not path.is_relative_to(root) or path == path.parent):
        return
    if not is_new and _identity(path) in _lasting:
        return
    _make_folder(path.parent, root)
    if is_new:
        with faults.operation():
            path.mkdir(exist_ok=True)
        _sync_folder(path.parent)
    else:
        # A folder above a base need not be readable for us.
        with contextlib.suppress(PermissionError):
            _sync_folder(path.parent)
    _lasting.add(_identity(path))


def _identity(path: Path) -> tuple[Path, int, int]:
    found = path.stat()
    return path, found.st_dev, found.st_ino


def _sync_folder(path: Path) -> None:
    with faults.operation():
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
