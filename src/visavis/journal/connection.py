"""The SQLite file under a journal: made as a whole, opened with care, its errors told as ours.

What is durable is SQLite's business (a write-ahead log, synchronised at every commit); what is
*right* is ours: the checksums of `entries`, checked by whoever reads.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from visavis.errors import CorruptionError, InputError, StorageError
from visavis.journal.answers import TABLE as ANSWERS_TABLE
from visavis.journal.entries import Head

__all__ = ["BUSY_S", "FORMAT", "connect", "failures", "make_file", "transaction"]

#: "visj": what `file` and we know a journal by.
_APPLICATION_ID: Final = 0x7669736A
FORMAT: Final = 1

#: SQLite's default; pages of 512 bytes to 16 KiB took groups of 1,000 facts equally fast, within
#: what two runs differ by (docs/journal.md).
_PAGE_BYTES: Final = 4_096

#: How long one process waits for another's group, or for an erasure, before it gives up.
BUSY_S: Final = 30.0

_ENTRIES: Final = (
    "CREATE TABLE entries (offset INTEGER PRIMARY KEY, kind INTEGER NOT NULL,"
    " customer_id BLOB NOT NULL, payload BLOB NOT NULL, checksum BLOB NOT NULL)"
)
_HEAD: Final = "CREATE TABLE head (one INTEGER PRIMARY KEY, state BLOB NOT NULL)"
_REQUESTS: Final = (
    "CREATE TABLE requests (id BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " dropped INTEGER NOT NULL, content BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"
)
_TOMBSTONES: Final = (
    "CREATE TABLE tombstones (id BLOB PRIMARY KEY, checksum BLOB NOT NULL) WITHOUT ROWID"
)
_TABLES: Final = (_ENTRIES, _HEAD, _REQUESTS, _TOMBSTONES)

#: In order of their names, as SQLite lists them; answers are there once something was answered.
_KNOWN_TABLES: Final = (_TABLES, (ANSWERS_TABLE, *_TABLES))

_OTHER_TABLES: Final = "its tables are not those of a journal"

#: SQLite's codes for bytes that are not as it wrote them, and for rows that cannot be.
_DAMAGE: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_INTERNAL,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_EMPTY,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_IOERR_SHORT_READ,
)


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn what SQLite or the system refuses in the block into errors that name `path`.

    Raises
    ------
    CorruptionError
        If the file is damaged.
    InputError
        If it is no SQLite file at all.
    StorageError
        If it cannot be read or written, or others hold it for too long.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF == sqlite3.SQLITE_NOTADB:
            raise _no_journal(path) from error
        if code in _DAMAGE or code & 0xFF in _DAMAGE:
            raise CorruptionError(f"{path} is damaged: {error}") from error
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageError(f"is held by others for {BUSY_S:g} s", path=path) from error
        raise StorageError(f"cannot be read or written: {error}", path=path) from error
    except UnicodeDecodeError as error:
        # What SQLite says of damaged names quotes them.
        raise CorruptionError(f"{path} is damaged: {_OTHER_TABLES}") from error
    except OSError as error:
        reason = f"cannot be read or written: {error.strerror or error}"
        raise StorageError(reason, path=path) from error


def _no_journal(path: Path) -> InputError:
    return InputError(f"{path} is no journal, or has lost its beginning", field="path")


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Everything in the block, or nothing: what it writes is on disk when it ends."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk makes SQLite roll back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def make_file(path: Path, *, page_bytes: int = _PAGE_BYTES) -> None:
    """Make an empty journal at `path`, unless something stands there by now.

    It is made beside and linked into place: nobody ever opens half a journal, and of two who make
    one at the same time both get the same.
    """
    with failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            with closing(sqlite3.connect(name, isolation_level=None)) as connection:
                _fill(connection, page_bytes)
            # mkstemp makes files private; a journal is for everybody whom the folder lets in.
            Path(name).chmod(0o644)
            _sync(Path(name))
            try:
                os.link(name, path)
            except FileExistsError:
                return
        finally:
            Path(name).unlink(missing_ok=True)
        _sync(path.parent)


def _fill(connection: sqlite3.Connection, page_bytes: int) -> None:
    connection.execute(f"PRAGMA page_size = {page_bytes:d}")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    with transaction(connection, "BEGIN IMMEDIATE"):
        for table in _TABLES:
            connection.execute(table)
        connection.execute("INSERT INTO head VALUES (1, ?)", (Head().packed(),))
    connection.execute("PRAGMA journal_mode = WAL")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file of a journal that is there.

    Raises
    ------
    InputError
        If it is not there, or no journal of this format.
    CorruptionError
        If what surely stands in every journal does not stand in this one.
    """
    with failures(path):
        if path.is_dir():
            raise InputError(f"{path} is a folder", field="path")
        if not path.exists():
            raise InputError(f"{path} does not exist", field="path")
        # rw: SQLite must not make a file that has just been removed.
        name = f"file:{quote(os.fsencode(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(
            name, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _set_up(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    # Damage may turn bytes into text: then they must not look like bytes, nor be no UTF-8.
    connection.text_factory = lambda text: text.decode(errors="replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")

    def said(name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    if said("application_id") != _APPLICATION_ID:
        raise _no_journal(path)
    if said("user_version") != FORMAT:
        raise InputError(f"{path} is no journal of format {FORMAT}", field="path")
    fixed = {"journal_mode": "wal", "auto_vacuum": 0, "encoding": "UTF-8"}
    if any(said(name) != value for name, value in fixed.items()):
        raise CorruptionError(f"{path} is damaged: its settings are not those of a journal")
    tables = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    if tuple(table for (table,) in tables) not in _KNOWN_TABLES:
        raise CorruptionError(f"{path} is damaged: {_OTHER_TABLES}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
