"""Erasure: no byte of a forgotten customer is left in any file, and the opt-out is."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from visavis.errors import StorageError
from visavis.journal import Appended, Counts, Journal, connection

LONG = "customer-with-a-long-and-distinctive-id-8f1c2d"
OTHER = "another-one-who-stays-77aa"


def visit(*ids: str) -> pa.Table:
    return pa.table(
        {
            "customer_id": list(ids),
            "product": [f"product-of-{customer_id[::-1]}" for customer_id in ids],
            "kind": ["bought"] * len(ids),
            "date": [date(2026, 1, 1)] * len(ids),
        }
    )


def files_with(folder: Path, text: str) -> list[str]:
    """Every file, of whatever name, that holds the bytes of a text."""
    return [path.name for path in folder.rglob("*") if text.encode() in path.read_bytes()]


@pytest.fixture
def journal(tmp_path: Path):
    """Many groups, so that the customer's bytes lie in inner pages and in those that were split."""
    with Journal.open(tmp_path / "journal", create=True) as journal:
        for group in range(60):
            ids = [LONG, *(f"{OTHER}-{group}-{row}" for row in range(9)), LONG]
            journal.append(facts=visit(*ids), request_id=f"{LONG}-{group}")
        known = pa.table({"customer_id": [LONG, OTHER], "city": [f"the city of {LONG}", "Lyon"]})
        journal.append(attributes=known, objections=[LONG, OTHER])
        yield journal


def test_no_file_holds_a_byte_of_who_was_forgotten(tmp_path: Path, journal: Journal) -> None:
    assert files_with(tmp_path, LONG), "it is there before"
    before = journal.offset
    assert journal.forget(LONG) == 122
    for told in (LONG, LONG[::-1]):
        assert files_with(tmp_path, told) == [], "not even while the journal is open"
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
    assert files_with(tmp_path, LONG) == []
    assert files_with(tmp_path, OTHER) == ["journal"]
    with Journal.open(tmp_path / "journal") as again:
        assert again.offset == before + 1, "who watches the offset hears of it"
        assert again.verify() == Counts(
            facts=540, attributes=1, objections=1, forgotten=123, tombstones=1, requests=60
        )
        assert again.overlay().objections.to_pylist() == [OTHER]


def test_forgetting_again_changes_nothing(journal: Journal) -> None:
    journal.forget(LONG)
    digest, offset = journal.digest(), journal.offset
    assert journal.forget(LONG) == 0
    assert (journal.digest(), journal.offset) == (digest, offset)


def test_who_is_not_in_the_journal_can_be_forgotten_all_the_same(journal: Journal) -> None:
    assert not journal.is_forgotten("nobody")
    assert journal.forget("nobody") == 0
    assert journal.is_forgotten("nobody")
    assert journal.forgotten == {hashlib.sha256(b"nobody").hexdigest()}


def test_what_comes_later_about_the_forgotten_is_dropped(tmp_path: Path, journal: Journal) -> None:
    journal.forget(LONG)
    first = journal.offset + 1
    done = journal.append(facts=visit(LONG, OTHER), objections=[LONG], request_id="later")
    assert done == Appended(first, first, repeated=False, dropped_count=2)
    again = journal.append(facts=visit(LONG, OTHER), objections=[LONG], request_id="later")
    assert again == Appended(first, first, repeated=True, dropped_count=2)
    alone = journal.append(facts=visit(LONG))
    assert alone == Appended(first + 1, first, repeated=False, dropped_count=1)
    assert files_with(tmp_path, LONG) == []


def test_a_request_that_held_the_forgotten_is_still_known(journal: Journal) -> None:
    journal.forget(LONG)
    for content in (visit(LONG), visit(OTHER)):
        again = journal.append(facts=content, request_id=f"{LONG}-0")
        assert again == Appended(1, 11, repeated=True, dropped_count=0)


def test_a_digest_of_a_group_goes_with_the_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.open(path, create=True) as journal:
        journal.append(objections=["a"], request_id="1")
        journal.append(objections=["b"], request_id="2")
        journal.forget("a")
        with journal._transaction("BEGIN") as rows:
            kept = [
                bool(rows.request(hashlib.sha256(name).digest()).content) for name in (b"1", b"2")
            ]
    assert kept == [False, True]


def test_an_erasure_that_a_reader_holds_up_is_told_and_finished_later(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.close()
    monkeypatch.setattr(connection, "BUSY_S", 0.05)
    with Journal.open(tmp_path / "journal") as writer, Journal.open(tmp_path / "journal") as reader:
        with reader._transaction("BEGIN") as rows:
            next(rows.entries(0, rows.head.last_offset))
            with pytest.raises(StorageError, match="forget the customer again"):
                writer.forget(LONG)
            assert writer.overlay().objections.to_pylist() == [OTHER], "nobody reads them any more"
            assert files_with(tmp_path, LONG), "but the bytes are still there"
        assert writer.forget(LONG) == 0
        assert files_with(tmp_path, LONG) == []
