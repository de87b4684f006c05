"""Every file operation of visavis, in one place: digests, atomic files, create-only folders.

A folder is written beside its final place and renamed into it when everything in it is on disk, so
that a reader sees the whole or nothing.
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
from typing import Any

from visavis.errors import CorruptionError, InputError

__all__ = ["file_digest", "json_bytes", "new_folder", "read_json", "write_bytes", "write_json"]

_CHUNK_BYTES = 1 << 20

#: Why a folder cannot be renamed to where another folder or a file stands.
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; results are for everybody whom the folder lets in.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write `json_bytes` with `write_bytes`."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Canonical JSON: sorted keys, two spaces, UTF-8, no NaN, one newline at the end."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        If there is no such file.
    CorruptionError
        If it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist", field="path") from None
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{path} is damaged: {error}") from None


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
    """
    _refuse_existing(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    staging.chmod(0o755)
    try:
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
