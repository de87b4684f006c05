"""Damage, kills and full disks: what was acknowledged is there, or an error says that it is not."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from disks import tiny_disk
from visavis.errors import CorruptionError, StorageError, VisavisError
from visavis.journal import Appended, Journal
from visavis.journal.connection import make_file

__all__ = ["tiny_disk"]

pytestmark = pytest.mark.faults

KILLS = 32


def visits(first: int, count: int, size: int = 1) -> pa.Table:
    """Facts that say which they are: of the n-th entry of a journal that holds no others."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "customer_id": [f"c{number % 7}" for number in numbers],
            "product": [f"{number:07}" * size for number in numbers],
            "kind": ["bought"] * count,
            "date": [date(2026, 1, 1)] * count,
        }
    )


def numbers_in(journal: Journal) -> list[int]:
    """Which of `visits` a journal holds."""
    return sorted(int(product[:7]) for product in journal.overlay().facts["product"].to_pylist())


FIRST = visits(1, 9)


# Every byte.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small closed journal with something of everything."""
    path = tmp_path_factory.mktemp("small") / "journal"
    make_file(path, page_bytes=512)
    with Journal.open(path) as journal:
        journal.append(facts=FIRST, request_id="first")
        known = pa.table({"customer_id": ["c0", "c1"], "age": pa.array([1, None]), "x": ["é", "y"]})
        journal.append(attributes=known, objections=["c2"], request_id="second")
        assert journal.forget("c3") == 1
        journal.append(facts=visits(20, 3, size=30))
        journal.keep_answer("third", bytes(32), b"answer")
        journal.keep_answer("fourth", bytes(32), b"another")
    assert [each.name for each in path.parent.iterdir()] == ["journal"]
    return path


def everything(path: Path) -> tuple[Any, ...]:
    with Journal.open(path) as journal:
        # Sent again, a request must be known again.
        again = journal.append(facts=FIRST, request_id="first")
        kept = journal.answer("third", bytes(32))
        return journal.digest(), journal.forgotten, journal.offset, kept, again


def outcomes(
    small: Path, folder: Path, contents: Iterator[tuple[str, bytes]]
) -> dict[str, list[str]]:
    """What becomes of damaged copies: refused, by which error, or read as if they were whole."""
    expected = everything(small)
    assert expected[-1] == Appended(1, 9, repeated=True, dropped_count=0)
    found: dict[str, list[str]] = {}
    for name, content in contents:
        copy = folder / "copy"
        for left in folder.iterdir():
            left.unlink()
        copy.write_bytes(content)
        outcome = "harmless"
        try:
            read, said = everything(copy), str(copy)
        except VisavisError as error:
            read, said, outcome = expected, str(error), type(error).__name__
        assert read == expected, f"{name}: damage went unseen"
        assert str(copy) in said, f"{name}: {said}"
        found.setdefault(outcome, []).append(name)
    return found


@pytest.mark.parametrize("what", ["all bits of", "one bit of"])
def test_every_flipped_byte_is_found_or_harmless(small: Path, tmp_path: Path, what: str) -> None:
    whole = small.read_bytes()

    def flipped() -> Iterator[tuple[str, bytes]]:
        for place in range(len(whole)):
            flip = 0xFF if what == "all bits of" else 1 << place % 8
            changed = bytes([whole[place] ^ flip])
            yield f"byte {place}", whole[:place] + changed + whole[place + 1 :]

    found = outcomes(small, tmp_path, flipped())
    assert sum(map(len, found.values())) == len(whole)
    # Of what holds anything nothing is harmless: only what no reader uses.
    assert len(found["CorruptionError"]) > 1_000
    harmless = [int(name.removeprefix("byte ")) for name in found["harmless"]]
    used = [place for place in harmless if place >= 100 and whole[place]]
    assert len(used) < 48, used


def test_every_truncation_is_found(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    lengths = range(len(whole))
    found = outcomes(small, tmp_path, ((f"{size} bytes", whole[:size]) for size in lengths))
    assert "harmless" not in found
    assert sum(map(len, found.values())) == len(whole)


def test_pages_of_zeros_and_swapped_pages_are_found(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    pages = [whole[place : place + 512] for place in range(0, len(whole), 512)]

    def changed() -> Iterator[tuple[str, bytes]]:
        for n in range(len(pages)):
            yield f"page {n}", b"".join([*pages[:n], bytes(512), *pages[n + 1 :]])
            if n:
                other = [*pages[: n - 1], pages[n], pages[n - 1], *pages[n + 1 :]]
                yield f"pages {n - 1} and {n}", b"".join(other)

    assert "harmless" not in outcomes(small, tmp_path, changed())


def test_damage_in_the_write_ahead_log_never_shows_other_entries(tmp_path: Path) -> None:
    """There it reads as the end of the log (docs/journal.md): a whole beginning, or an error."""
    path, copy = tmp_path / "journal", tmp_path / "copy"
    make_file(path, page_bytes=512)
    with Journal.open(path) as journal:
        for group in range(4):
            journal.append(facts=visits(1 + 2 * group, 2))
        beginnings = {offset: journal.digest(through=offset) for offset in (0, 2, 4, 6, 8)}
        whole = Path(f"{path}-wal").read_bytes()
        lengths = set()
        for place in range(0, len(whole), 29):
            Path(shutil.copy(path, copy))
            Path(f"{copy}-shm").unlink(missing_ok=True)
            changed = bytes([whole[place] ^ 0xFF])
            Path(f"{copy}-wal").write_bytes(whole[:place] + changed + whole[place + 1 :])
            with contextlib.suppress(CorruptionError), Journal.open(copy) as read:
                assert read.digest() == beginnings[read.offset]
                assert read.verify().facts == read.offset
                lengths.add(read.offset)
    assert lengths >= {0, 2, 4, 6}


# Rows that SQLite finds in order, changed by somebody who knows SQL and not us.

COLUMNS = "kind, customer_id, payload, checksum FROM entries WHERE"
CHANGES = {
    "a changed count": (
        "UPDATE entries SET payload = replace(CAST(payload AS TEXT), ',1]', ',2]') WHERE offset=4",
        "entry 4 is damaged",
    ),
    "a changed customer": ("UPDATE entries SET customer_id = x'61' WHERE offset = 2", "entry 2 is"),
    "an entry of another type": ("UPDATE entries SET kind = 'x' WHERE offset = 1", "entry 1 is"),
    "an entry gone": ("DELETE FROM entries WHERE offset = 3", "entry 3 is not where"),
    "the last entry gone": ("DELETE FROM entries WHERE offset = 16", "entry 16 is missing"),
    "all entries gone": ("DELETE FROM entries", "entry 1 is missing"),
    "an entry too many": (
        "INSERT INTO entries SELECT 17, " + COLUMNS + " offset = 1",
        "entry 17 is not where",
    ),
    "an entry before the first": (
        "INSERT INTO entries SELECT -3, " + COLUMNS + " offset = 1",
        "entry -3 is not where",
    ),
    "swapped entries": (
        "REPLACE INTO entries SELECT 3 - offset, " + COLUMNS + " offset < 3",
        "entry 1 is damaged",
    ),
    "a request gone": ("DELETE FROM requests", "requests are not those"),
    "a changed request": ("UPDATE requests SET last = last + 1", "a request is damaged"),
    "a request of text": ("UPDATE requests SET first = 'x'", "a request is damaged"),
    "a tombstone gone": ("DELETE FROM tombstones", "tombstones are not those"),
    "a changed tombstone": ("UPDATE tombstones SET id = x'00'", "a tombstone is damaged"),
    "an answer gone": ("DELETE FROM answers WHERE length(answer) = 7", "answers are not those"),
    "all answers gone": ("DELETE FROM answers", "count of the answers is damaged"),
    "all but the count gone": ("DELETE FROM answers WHERE id <> x''", "answers are not those"),
    "a changed answer": ("UPDATE answers SET answer = x'00'", "an answer is damaged"),
    "an answer of text": ("UPDATE answers SET answer = 'x'", "an answer is damaged"),
    "a changed count of answers": (
        "UPDATE answers SET content = x'00' WHERE id = x''",
        "an answer is damaged",
    ),
    "no head": ("DELETE FROM head", "head of the journal is damaged"),
    "two heads": ("INSERT INTO head SELECT 2, state FROM head", "head of the journal is damaged"),
    "a head of text": ("UPDATE head SET state = 'x'", "head of the journal is damaged"),
    "another table": ("CREATE TABLE t (x)", "tables are not those"),
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "tables are not those",
    ),
    "no write-ahead log": ("PRAGMA journal_mode = DELETE", "settings are not those"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_sql_can_change_is_found(small: Path, tmp_path: Path, name: str) -> None:
    change, said = CHANGES[name]
    copy = shutil.copy(small, tmp_path / "copy")
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute(change)
    with pytest.raises(CorruptionError, match=said) as found, Journal.open(copy) as journal:
        journal.verify()
    assert str(copy) in str(found.value)


def test_an_old_entry_put_back_is_found(small: Path, tmp_path: Path) -> None:
    """Right by its own checksum, and yet not what the head counted."""
    before = tmp_path / "before"
    with Journal.open(before, create=True) as journal:
        journal.append(facts=visits(1, 3))
    after = Path(shutil.copy(before, tmp_path / "after"))
    with Journal.open(after) as journal:
        assert journal.forget("c2") == 1
    with closing(sqlite3.connect(after)) as database, database:
        database.execute("ATTACH ? AS old", (str(before),))
        database.execute("REPLACE INTO entries SELECT * FROM old.entries WHERE offset = 2")
    with Journal.open(after) as journal, pytest.raises(CorruptionError, match="do not add up"):
        journal.overlay()


def test_damage_elsewhere_does_not_hide_what_is_whole(small: Path, tmp_path: Path) -> None:
    copy = shutil.copy(small, tmp_path / "copy")
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE entries SET payload = x'00' WHERE offset = 4")
    with Journal.open(copy) as journal:
        assert journal.overlay(after=4).facts.num_rows == 8
        with pytest.raises(CorruptionError, match="entry 4 is damaged"):
            journal.overlay(after=3)


# Kills.


def _appending(path: Path, seed: int, acknowledged: Connection) -> None:
    draw = random.Random(seed)
    with Journal.open(path, create=True) as journal:
        while True:
            count = draw.choice([1, 2, 30])
            done = journal.append(facts=visits(journal.offset + 1, count), request_id=f"{seed}")
            seed += 1_000_000
            acknowledged.send(done.last_offset)


def _forgetting(path: Path, seed: int, acknowledged: Connection) -> None:
    with Journal.open(path) as journal:
        acknowledged.send(seed)
        journal.forget(f"c{seed % 7}")
        signal.pause()


def killed(work: Callable[..., None], path: Path, seed: int, wait_s: float) -> list[int]:
    """Start a child, kill it some time after its first word; return all that it said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["visavis.journal", "pytest", "numpy", "pyarrow.compute"])
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(path, seed, sending))
    child.start()
    sending.close()
    said = [receiving.recv()]
    time.sleep(wait_s)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    # The end, or the middle of a message.
    with contextlib.suppress(EOFError, OSError):
        while True:
            said.append(receiving.recv())
    child.join()
    child.close()
    receiving.close()
    return said


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    path, draw = tmp_path / "journal", random.Random(7)
    acknowledged = 0
    for seed in range(KILLS):
        said = killed(_appending, path, seed, draw.uniform(0.0, 0.03))
        with Journal.open(path) as journal:
            assert journal.offset >= said[-1] > acknowledged
            assert numbers_in(journal) == list(range(1, journal.offset + 1)), f"kill {seed}"
            # What nobody heard of is there as a whole or not at all, and the request knows which.
            acknowledged = journal.offset
    with Journal.open(path) as journal:
        assert journal.verify().facts == acknowledged


def test_a_killed_erasure_is_finished_by_the_next(tmp_path: Path) -> None:
    whole, draw = tmp_path / "whole", random.Random(11)
    with Journal.open(whole, create=True) as journal:
        journal.append(facts=visits(1, 3_000))
    for seed in range(10):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        path = Path(shutil.copy(whole, folder / "journal"))
        assert killed(_forgetting, path, seed, draw.uniform(0.0, 0.04)) == [seed]
        with Journal.open(path) as journal:
            held = {f"c{number % 7}" for number in numbers_in(journal)}
            assert held >= {f"c{n}" for n in range(7)} - {f"c{seed % 7}"}
            journal.forget(f"c{seed % 7}")
            counts = journal.verify()
        gone = sum(number % 7 == seed % 7 for number in range(1, 3_001))
        assert (counts.facts, counts.forgotten) == (3_000 - gone, gone + 1)
        assert [each.name for each in folder.iterdir()] == ["journal"]
        # Erased ids are two letters; their products are not, and no page may keep one.
        lost = next(number for number in range(1, 3_001) if number % 7 == seed % 7)
        assert f"{lost:07}".encode() not in path.read_bytes()


# A disk without room.


def append_for_ever(journal: Journal) -> None:
    while True:
        journal.append(facts=visits(journal.offset + 1, 10, size=20))


def test_a_full_disk_is_told_and_loses_nothing(tiny_disk: Path) -> None:
    path = tiny_disk / "journal"
    with Journal.open(path, create=True) as journal:
        journal.append(facts=visits(1, 10))
        ballast = tiny_disk / "ballast"
        room = shutil.disk_usage(tiny_disk).free
        ballast.write_bytes(bytes(max(0, room - 40 * 1024)))
        with pytest.raises(StorageError, match="disk is full") as refused:
            append_for_ever(journal)
        assert refused.value.path == str(path)
        acknowledged = journal.offset
        assert numbers_in(journal) == list(range(1, acknowledged + 1))
        ballast.unlink()
        done = journal.append(facts=visits(acknowledged + 1, 10, size=20))
        assert done.first_offset == acknowledged + 1
    with Journal.open(path) as journal:
        assert journal.verify().facts == acknowledged + 10


def _limited(path: Path, size: int, told: Connection) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with Journal.open(path) as journal:
        try:
            append_for_ever(journal)
        except StorageError as error:
            told.send((journal.offset, str(error)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told.send(journal.append(facts=visits(journal.offset + 1, 10)).last_offset)


def test_a_write_that_the_system_refuses_is_told_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.open(path, create=True) as journal:
        journal.append(facts=visits(1, 10))
    context = multiprocessing.get_context("forkserver")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_limited, args=(path, 100_000, sending))
    child.start()
    acknowledged, message = receiving.recv()
    assert str(path) in message
    assert receiving.recv() == acknowledged + 10
    child.join()
    with Journal.open(path) as journal:
        assert numbers_in(journal) == list(range(1, acknowledged + 11))
