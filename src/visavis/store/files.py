"""Single files and folders: digests, atomic files, create-only folders.

A folder is written beside its final place and renamed into it when everything in it is on disk, so
that a reader sees the whole or nothing. A path that is not there is wrong input; whatever else the
system refuses is a `StorageError` that names the path and the reason.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from visavis.errors import CorruptionError, InputError, StorageError

__all__ = [
    "check_readable",
    "check_writable",
    "file_digest",
    "json_bytes",
    "new_file",
    "new_folder",
    "parsed_json",
    "read_bytes",
    "read_json",
    "read_parquet",
    "reading",
    "remove",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_parquet",
]

_CHUNK_BYTES = 1 << 20

#: Why a folder cannot be renamed to where another folder or a file stands.
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@contextmanager
def _named(path: Path, done: str) -> Iterator[None]:
    """Turn what the system refuses into an error that says what was to be `done` to `path`."""
    try:
        yield
    except OSError as error:
        reason = f"cannot be {done}: {error.strerror or error}"
        raise StorageError(reason, path=path) from error


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with _named(path, "read"), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def reading(path: Path, *, field: str = "path") -> Iterator[None]:
    """Turn what goes wrong when `path` is read in the block into errors that name it.

    Raises
    ------
    InputError
        If there is no such file, a folder in its place, or what it holds is not what it should be;
        of `field`.
    StorageError
        If the system refuses to read it.
    """
    with _named(path, "read"):
        # Arrow would take a folder for a data set of many files.
        if path.is_dir():
            raise InputError(f"{path} is a folder", field=field)
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path} does not exist", field=field) from None
        except (OSError, pa.ArrowException) as error:
            # What Arrow finds wrong inside a file comes without a number of the system.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(f"{path} cannot be read: {error}", field=field) from error


def read_bytes(path: Path, *, field: str = "path") -> bytes:
    """Read a whole file; errors as of `reading`."""
    with reading(path, field=field):
        return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptionError
        If it is no JSON.
    """
    return parsed_json(read_bytes(path), path)


def parsed_json(content: bytes, named: object) -> Any:
    """JSON as Python; CorruptionError, naming what it is, if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{named} is damaged: {error}") from None


def read_parquet(path: Path, *, field: str = "path") -> pa.Table:
    """Read one Parquet file, whose folders' names add no columns; errors as of `reading`."""
    with reading(path, field=field), pq.ParquetFile(path) as source:
        return source.read()


def check_readable(path: Path, *, field: str = "path") -> None:
    """Say before long work that there is no such file; errors as of `reading`."""
    with reading(path, field=field), path.open("rb"):
        pass


def check_writable(path: Path, *, field: str = "path") -> None:
    """Say before long work, rather than behind it, that no file could be written at `path`.

    Raises
    ------
    InputError
        If a folder stands there; of `field`.
    StorageError
        If its folder is none, or may not be written.
    """
    with _named(path, "written"):
        if path.is_dir():
            raise InputError(f"{path} is a folder", field=field)
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write in {folder}")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content stands at `path` when the block ends, or never, and on disk."""
    with _named(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes files private; results are for everybody whom the folder lets in.
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with new_file(path) as stream:
        stream.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write `json_bytes` with `write_bytes`."""
    write_bytes(path, json_bytes(content))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, its pages with checksums, as `write_bytes` writes."""
    with new_file(path) as stream:
        pq.write_table(table, stream, write_page_checksum=True)


def write_csv(path: Path, table: pa.Table) -> None:
    """Write a table as CSV with a header, text in quotes, as `write_bytes` writes."""
    with new_file(path) as stream:
        csv.write_csv(table, stream)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with _named(path, "removed"):
        path.unlink(missing_ok=True)


def json_bytes(content: Any) -> bytes:
    """Canonical JSON: sorted keys, two spaces, UTF-8, no NaN, one newline at the end."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, put in place as a whole when the block ends without an error.

    Parameters
    ----------
    path : Path
        Where the folder is to stand.
    replace : bool
        Replace what stands there; otherwise its existence is an error.

    Raises
    ------
    InputError
        If `path` exists and may not be replaced.
    StorageError
        If it, or a file in it, cannot be written.
    """
    with _named(path, "written"):
        _refuse_existing(path, replace)
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            staging.chmod(0o755)
            yield staging
            for written in staging.rglob("*"):
                if written.is_dir():
                    _sync_folder(written)
                else:
                    _sync_file(written)
            _sync_folder(staging)
            _put_in_place(staging, path, replace)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _sync_folder(path.parent)


def _put_in_place(staging: Path, path: Path, replace: bool) -> None:
    while True:
        # rename() refuses what is not empty: of two writers, one wins and one hears of it.
        try:
            staging.rename(path)
        except OSError as error:
            _refuse_existing(path, replace)
            if not replace or error.errno not in _IN_THE_WAY:
                raise
            _remove_whole(path)
        else:
            return


def _remove_whole(path: Path) -> None:
    """Take `path` away in one step: removed where it stands, its reader would see half of it."""
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside,
        # Another writer that replaces it as well may have been first.
        contextlib.suppress(FileNotFoundError),
    ):
        path.rename(Path(aside) / path.name)


def _refuse_existing(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise InputError(f"{path} exists already; results are never overwritten", field="path")


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
