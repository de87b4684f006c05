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

Objects are put create-only. Fetched ones are kept in a cache under their digest, so that workers
map them as they would a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from visavis.errors import CorruptionError, ExtraError, InputError, StorageError
from visavis.store import faults
from visavis.store.files import new_file

__all__ = ["Bucket", "Folder", "Place", "bytes_digest", "local_file", "open_place"]

#: Why a folder's file system has no unnamed files.
_NO_UNNAMED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)

#: Hidden files of writers end so.
_STAGED: Final = ".staged"

_CACHE_VARIABLE: Final = "VISAVIS_CACHE"


def bytes_digest(content: Any) -> str:
    """The sha256 of bytes or a buffer, in hex."""
    return hashlib.sha256(content).hexdigest()


def open_place(where: str | Path) -> Place:
    """The place that a path or a URL names; it need not exist yet.

    Parameters
    ----------
    where : str or Path
        A folder, or a URL such as ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

    Raises
    ------
    ExtraError
        If it is a URL and obstore is not installed.
    InputError
        If it is a URL that no object store knows.
    """
    if isinstance(where, str) and "://" in where:
        return Bucket.open(where)
    return Folder(Path(where))


def local_file(where: str | Path, *, field: str = "path") -> Path:
    """A file that can be opened by its path: an object is fetched into the cache first.

    Raises
    ------
    InputError
        If it is a URL of nothing.
    StorageError
        If it cannot be fetched.
    """
    if not (isinstance(where, str) and "://" in where):
        return Path(where)
    url, _, name = where.rpartition("/")
    found = Bucket.open(url)._download(name)
    if found is None:
        raise InputError(f"{where} does not exist", field=field)
    return found


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
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def _load(self, name: str, digest: str) -> pa.Buffer:
        """The content of a file, mapped where it can be; FileNotFoundError if there is none."""

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
            with _named(f"{self}/{name}", "read"), faults.operation():
                content = self._load(name, digest)
        except FileNotFoundError:
            raise CorruptionError(f"{self}/{name} is missing") from None
        if bytes_digest(content) != digest:
            raise CorruptionError(f"{self}/{name} does not fit its digest")
        return content

    def drop_cached(self, digest: str) -> None:  # noqa: B027  (only buckets keep any)
        """Remove what this machine keeps of a file that is gone."""

    def remove_leftovers(self) -> None:  # noqa: B027  (only folders have any)
        """Remove what killed writers left."""

    def remove_folder(self, name: str) -> None:  # noqa: B027  (only folders have any)
        """Remove a folder in which nothing is left; what is not empty stays."""


@contextmanager
def _named(path: str, done: str) -> Iterator[None]:
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
        path = self.path / name
        try:
            return self._create(path, content)
        except FileNotFoundError:
            # Its folder was removed while it was written to.
            pass
        try:
            return self._create(path, content)
        except FileNotFoundError as error:
            raise StorageError(f"cannot be written: {error.strerror}", path=path) from error

    def _create(self, path: Path, content: bytes | pa.Buffer) -> bool:
        with _named(str(path), "written"):
            _make_folder(path.parent)
            is_new = not os.path.lexists(path) and _link_new(path, content)
            # Of another writer's file too: it may not have come so far yet.
            _sync_folder(path.parent)
            return is_new

    def replace(self, name: str, content: bytes | pa.Buffer) -> None:
        """See `Place`."""
        path = self.path / name
        # One name for all writers: what a killed one left is taken away by the next.
        aside = path.with_name(f".{path.name}{_STAGED}")
        with _named(str(path), "written"):
            _make_folder(path.parent)
            with _unnamed(path.parent) as staged:
                staged.write(content)
                while True:
                    try:
                        staged.link(aside)
                        break
                    except FileExistsError:
                        aside.unlink(missing_ok=True)
            with faults.operation():
                aside.replace(path)
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        path = self.path / name
        with _named(str(path), "read"), faults.operation():
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def names(self, under: str = "") -> list[str]:
        """See `Place`."""
        root = self.path / under
        found = []
        with _named(str(root), "read"), faults.operation():
            for folder, _, files in os.walk(root):
                found += [(Path(folder) / name).relative_to(self.path).as_posix() for name in files]
        return sorted(name for name in found if not name.endswith(_STAGED))

    def remove(self, name: str) -> None:
        """See `Place`."""
        path = self.path / name
        with _named(str(path), "removed"), faults.operation():
            path.unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """See `Place`."""
        with contextlib.suppress(OSError):
            (self.path / name).rmdir()

    def remove_leftovers(self) -> None:
        """See `Place`."""
        for path in self.path.rglob(f".*{_STAGED}"):
            with contextlib.suppress(OSError), path.open("rb") as stream:
                # A writer holds it as long as it lives.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def _load(self, name: str, digest: str) -> pa.Buffer:  # noqa: ARG002
        with pa.memory_map(str(self.path / name)) as source:
            return source.read_buffer()


class _Staged:
    """A file without a name, or with a hidden one, until it is linked to its own."""

    def __init__(self, handle: int, hidden: Path | None) -> None:
        self._handle = handle
        self._hidden = hidden

    def write(self, content: bytes | pa.Buffer) -> None:
        """Write all of it, and see it on disk."""
        left = memoryview(content)
        while len(left):
            with faults.operation():
                left = left[os.write(self._handle, left[: faults.write_size(len(left))]) :]
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
def _unnamed(folder: Path) -> Iterator[_Staged]:
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
        if hidden is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield _Staged(handle, hidden)
    finally:
        if hidden is not None:
            hidden.unlink(missing_ok=True)
        os.close(handle)


def _link_new(path: Path, content: bytes | pa.Buffer) -> bool:
    """Write a file that appears as a whole; False if another one has its name."""
    with _unnamed(path.parent) as staged:
        staged.write(content)
        try:
            staged.link(path)
        except FileExistsError:
            return False
    return True


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, so that they are still there after a power cut."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    with faults.operation():
        path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    with faults.operation():
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Bucket(Place):
    """A prefix of an object store, through obstore.

    Parameters
    ----------
    store : obstore.store.ObjectStore
    url : str
        What it is called, for people.
    """

    def __init__(self, store: Any, url: str, prefix: str = "") -> None:
        self._store = store
        self._url = url.rstrip("/")
        self._prefix = prefix

    @classmethod
    def open(cls, url: str) -> Bucket:
        """The place that a URL names; see `open_place`."""
        obstore = _obstore()
        try:
            options = {"mkdir": True} if url.startswith("file://") else {}
            return cls(obstore.store.from_url(url, **options), url)
        except (obstore.exceptions.BaseError, ValueError) as error:
            reason = f"no object store at {url!r}: {_first_line(error)}"
            raise InputError(reason, field="path") from error

    def __str__(self) -> str:
        """Its URL."""
        return "/".join(part for part in (self._url, self._prefix) if part)

    def at(self, name: str) -> Bucket:
        """See `Place`."""
        return Bucket(self._store, self._url, self._key(name))

    def create(self, name: str, content: bytes | pa.Buffer) -> bool:
        """See `Place`."""
        exists = _obstore().exceptions.AlreadyExistsError
        try:
            self._put(name, content, "create")
        except exists:
            return False
        return True

    def replace(self, name: str, content: bytes | pa.Buffer) -> None:
        """See `Place`."""
        self._put(name, content, "overwrite")

    def _put(self, name: str, content: bytes | pa.Buffer, mode: str) -> None:
        obstore = _obstore()
        with self._named(name, "written"), faults.operation():
            obstore.put(self._store, self._key(name), memoryview(content).cast("B"), mode=mode)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        with self._named(name, "read"), faults.operation():
            try:
                return bytes(_obstore().get(self._store, self._key(name)).bytes())
            except FileNotFoundError:
                return None

    def names(self, under: str = "") -> list[str]:
        """See `Place`."""
        root = self._key(under).rstrip("/")
        skipped = len(self._prefix) + 1 if self._prefix else 0
        with self._named(under, "read"), faults.operation():
            listed = _obstore().list(self._store, root or None)
            return sorted(each["path"][skipped:] for chunk in listed for each in chunk)

    def remove(self, name: str) -> None:
        """See `Place`."""
        with (
            contextlib.suppress(FileNotFoundError),
            self._named(name, "removed"),
            faults.operation(),
        ):
            _obstore().delete(self._store, self._key(name))

    def drop_cached(self, digest: str) -> None:
        """See `Place`."""
        Folder(_cache_folder()).remove(digest)

    def _load(self, name: str, digest: str) -> pa.Buffer:
        cache = Folder(_cache_folder())
        with contextlib.suppress(FileNotFoundError):
            cached = cache._load(digest, digest)
            if bytes_digest(cached) == digest:
                return cached
            cache.remove(digest)
        with self._named(name, "read"):
            content = bytes(_obstore().get(self._store, self._key(name)).bytes())
        if bytes_digest(content) != digest:
            raise CorruptionError(f"{self}/{name} does not fit its digest")
        cache.create(digest, content)
        return cache._load(digest, digest)

    def _download(self, name: str) -> Path | None:
        """Stream an object to a file of the cache, named by its version; None if there is none."""
        obstore = _obstore()
        folder = _cache_folder()
        with self._named(name, "read"), faults.operation():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                answer = obstore.get(self._store, self._key(name))
            except FileNotFoundError:
                return None
            meta = answer.meta
            version = f"{self}/{name} {meta['e_tag']} {meta['size']} {meta['last_modified']}"
            path = folder / f"{bytes_digest(version.encode())}-{Path(name).name}"
            if not path.is_file():
                with new_file(path) as stream:
                    for chunk in answer.stream():
                        stream.write(chunk)
            return path

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    @contextmanager
    def _named(self, name: str, done: str) -> Iterator[None]:
        """Turn what the store refuses into an error that names the object."""
        exceptions = _obstore().exceptions
        try:
            with _named(f"{self}/{name}", done):
                yield
        except exceptions.AlreadyExistsError:
            raise
        except exceptions.BaseError as error:
            reason = f"cannot be {done}: {_first_line(error)}"
            raise StorageError(reason, path=f"{self}/{name}") from error


def _cache_folder() -> Path:
    """Where fetched objects are kept: ``VISAVIS_CACHE``, or the user's cache."""
    given = os.environ.get(_CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visavis"


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise ExtraError("obstore", "objects") from None
    return obstore


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
