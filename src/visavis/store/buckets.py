"""Object stores: a prefix of one is a `Place`, and what is fetched is kept in a cache.

Objects are put create-only. Fetched ones are kept in a folder (``VISAVIS_CACHE``, default: the
user's cache) under their digest, so that workers map them as they would a file. It holds
``VISAVIS_CACHE_BYTES`` (default: 20 GB): what was used longest ago goes first.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from visavis.errors import CorruptionError, ExtraError, InputError, StorageError
from visavis.store import faults
from visavis.store.places import Folder, Place, bytes_digest, named_path, unnamed_file

__all__ = ["Bucket", "local_file", "open_place"]

_CACHE_VARIABLE: Final = "VISAVIS_CACHE"

#: What the files of a cache are called: a digest, of a download with the name behind it.
_CACHED: Final = re.compile(r"[0-9a-f]{64}(-.*)?", re.DOTALL)
_CACHE_BYTES_VARIABLE: Final = "VISAVIS_CACHE_BYTES"

#: Of the cache: a base of 40 M customers and 128 indicators, as far as one machine's disk goes.
_CACHE_BYTES: Final = 20 * 10**9

_FILE_SCHEME: Final = "file://"


def open_place(where: str | Path | Place) -> Place:
    """The place that a path or a URL names; it need not exist yet.

    Parameters
    ----------
    where : str, Path or Place
        A folder, or a URL such as ``s3://bucket/prefix``, ``gs://…``, ``az://…``; a place stays.

    Raises
    ------
    ExtraError
        If it is a URL and obstore is not installed.
    InputError
        If it is a URL that no object store knows.
    """
    if isinstance(where, Place):
        return where
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
    found = Bucket.open(url, field=field)._download(unquote(name) if _is_of_files(where) else name)
    if found is None:
        raise InputError(f"{where} does not exist", field=field)
    return found


class Bucket(Place):
    """A prefix of an object store, through obstore.

    Parameters
    ----------
    store : obstore.store.ObjectStore
    url : str
        What it is called, for people.
    prefix : str
        Of every name, without a slash at its end.
    """

    def __init__(self, store: Any, url: str, prefix: str = "") -> None:
        self._store = store
        self._url = url if url.endswith("://") else url.rstrip("/")
        self._prefix = prefix
        #: What `open` was given; None for a store that somebody else opened.
        self._opened: str | None = None

    @classmethod
    def open(cls, url: str, below: str = "", *, field: str = "path") -> Bucket:
        """The place that a URL names, or one below it; see `open_place`."""
        obstore = _obstore()
        root, prefix = _parted(url)
        try:
            place = cls(obstore.store.from_url(root), root, _joined(prefix, below))
        except (obstore.exceptions.BaseError, ValueError) as error:
            reason = f"no object store at {url!r}: {_first_line(error)}"
            raise InputError(reason, field=field) from error
        place._opened = root
        return place

    def __str__(self) -> str:
        """Its URL."""
        return f"{self._url}/{self._prefix}".rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open the same URL, with the credentials that they find."""
        if self._opened is None:
            return Bucket, (self._store, self._url, self._prefix)
        return _open_again, (self._opened, self._prefix)

    def at(self, name: str) -> Bucket:
        """See `Place`."""
        place = Bucket(self._store, self._url, self._key(name))
        place._opened = self._opened
        return place

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
            # Of bytes: those of an Arrow buffer are signed, which obstore takes for numbers.
            plain = memoryview(content).cast("B")
            obstore.put(self._store, self._key(name), plain, mode=mode)

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

    def remove(self, *names: str) -> None:
        """See `Place`."""
        for name in names:
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
        try:
            cached = cache._load(digest, digest)
        except FileNotFoundError:
            pass
        except CorruptionError:
            cache.remove(digest)
        else:
            _touch(cache.path / digest)
            return cached
        with self._named(name, "read"):
            content = bytes(_obstore().get(self._store, self._key(name)).bytes())
        self._check(name, content, digest)
        cache.create(digest, content)
        _make_room(cache.path, kept=cache.path / digest)
        try:
            return cache._load(digest, digest)
        except FileNotFoundError:
            # Another process made room for its own.
            return pa.py_buffer(content)

    def _download(self, name: str) -> Path | None:
        """Stream an object to a file of the cache, named by its version; None if there is none."""
        obstore = _obstore()
        folder = _cache_folder()
        with self._named(name, "read"), faults.operation():
            try:
                answer = obstore.get(self._store, self._key(name))
            except FileNotFoundError:
                return None
            meta = answer.meta
            version = f"{self}/{name} {meta['e_tag']} {meta['size']} {meta['last_modified']}"
            path = folder / f"{bytes_digest(version.encode())}-{Path(name).name}"
            if path.is_file():
                _touch(path)
                return path
            folder.mkdir(parents=True, exist_ok=True)
            with unnamed_file(folder) as staged:
                for chunk in answer.stream():
                    staged.write(chunk)
                staged.sync()
                # Another process may have been faster.
                with contextlib.suppress(FileExistsError):
                    staged.link(path)
        _make_room(folder, kept=path)
        return path

    def _key(self, name: str) -> str:
        return _joined(self._prefix, name)

    @contextmanager
    def _named(self, name: str, done: str) -> Iterator[None]:
        """Turn what the store refuses into an error that names the object."""
        exceptions = _obstore().exceptions
        named = f"{self}/{name}".rstrip("/")
        try:
            with named_path(named, done):
                yield
        except exceptions.AlreadyExistsError:
            raise
        except exceptions.BaseError as error:
            reason = f"cannot be {done}: {_first_line(error)}"
            raise StorageError(reason, path=named) from error


def _open_again(url: str, prefix: str) -> Bucket:
    return Bucket.open(url, prefix)


def _parted(url: str) -> tuple[str, str]:
    """A URL as that of a store and a prefix in it.

    A store of files needs a folder that is there, and to ask for one must not make it.
    """
    if not _is_of_files(url):
        return url, ""
    parted = urlsplit(url)
    return f"{_FILE_SCHEME}{parted.netloc}", unquote(parted.path).strip("/")


def _is_of_files(url: str) -> bool:
    return url.lower().startswith(_FILE_SCHEME)


def _joined(prefix: str, name: str) -> str:
    return "/".join(part for part in (prefix, name) if part)


def _cache_folder() -> Path:
    """Where fetched objects are kept."""
    given = os.environ.get(_CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visavis"


def _cache_bytes() -> int:
    """How much they may take."""
    given = os.environ.get(_CACHE_BYTES_VARIABLE)
    if not given:
        return _CACHE_BYTES
    try:
        return int(given)
    except ValueError:
        reason = f"must be a number of bytes, got {given!r:.60}"
        raise InputError(reason, field=_CACHE_BYTES_VARIABLE) from None


def _touch(path: Path) -> None:
    """Say that a file of the cache was used now."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _make_room(folder: Path, *, kept: Path) -> None:
    """Remove what was used longest ago from the cache, but for `kept`, until it is small enough.

    Whoever has a removed file mapped keeps it; files that are being written have no name yet.
    """
    Folder(folder).remove_leftovers()
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            stat = path.stat()
            # Whatever else lies in a folder that was named as the cache is somebody's own.
            if _CACHED.fullmatch(path.name) and path.is_file():
                found.append((path != kept, -stat.st_mtime_ns, stat.st_size, path))
    limit, size = _cache_bytes(), 0
    for is_other, _, bytes_of, path in sorted(found):
        size += bytes_of
        if is_other and size > limit:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


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
