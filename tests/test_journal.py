"""The journal: numbered without gaps, answered once, refused as a base refuses, shared by many."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from visavis.errors import InputError, LimitError, ReusedError, SchemaError, StorageError
from visavis.journal import Appended, Counts, Journal, connection, incoming


def facts(*rows: tuple[Any, ...]) -> pa.Table:
    """Facts of (customer, product, count), bought on one day."""
    ids, products, counts = zip(*rows, strict=True)
    return pa.table(
        {
            "customer_id": pa.array(ids, pa.string()),
            "product": pa.array(products, pa.string()),
            "kind": ["bought"] * len(rows),
            "date": [date(2026, 1, 31)] * len(rows),
            "count": pa.array(counts, pa.int64()),
        }
    )


def names_in(folder: Path) -> list[str]:
    """What stands in a folder."""
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path):
    with Journal.open(path, create=True) as made:
        yield made


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.offset == 0
    assert journal.overlay().is_empty
    assert journal.verify() == Counts(0, 0, 0, 0, 0, 0)
    assert journal.forgotten == frozenset()


def test_entries_are_numbered_in_the_order_of_facts_attributes_objections(journal: Journal) -> None:
    known = pa.table({"customer_id": ["b"], "age": [40]})
    first = journal.append(facts=facts(("a", "tea", 1)), attributes=known, objections=["c"])
    assert first == Appended(1, 3, repeated=False, dropped_count=0)
    second = journal.append(facts=facts(("a", "milk", 2), ("a", "tea", 3)))
    assert second == Appended(4, 5, repeated=False, dropped_count=0)
    assert journal.offset == 5
    assert journal.verify() == Counts(3, 1, 1, 0, 0, 0)


def test_an_overlay_holds_what_lies_behind_after_and_up_to_through(journal: Journal) -> None:
    for product in ("a", "b", "c", "d"):
        journal.append(facts=facts(("ann", product, 1)))

    def products(**bounds: Any) -> list[str]:
        return journal.overlay(**bounds).facts["product"].to_pylist()

    assert products() == ["a", "b", "c", "d"]
    assert products(after=1) == ["b", "c", "d"]
    assert products(through=2) == ["a", "b"]
    assert products(after=1, through=3) == ["b", "c"]
    assert products(after=4) == products(after=2, through=2) == []
    assert (journal.overlay(after=1, through=3).after, journal.overlay().through) == (1, 4)


@pytest.mark.parametrize("bounds", [{"after": -1}, {"after": 2}, {"through": 2}, {"after": True}])
def test_what_the_journal_does_not_reach_is_refused(journal: Journal, bounds: Any) -> None:
    journal.append(objections=["a"])
    (name,) = bounds
    with pytest.raises(InputError) as refused:
        journal.overlay(**bounds)
    assert refused.value.field == name
    with pytest.raises(InputError, match="after: must be at most through"):
        journal.overlay(after=1, through=0)


def test_counts_of_one_day_add_up_and_the_last_value_of_an_attribute_holds(
    journal: Journal,
) -> None:
    journal.append(facts=facts(("b", "tea", 1), ("b", "tea", 2), ("a", "tea", 5)))
    journal.append(facts=facts(("b", "tea", 4)))
    journal.append(
        attributes=pa.table({"customer_id": ["a", "b"], "age": [1, 2], "x": [0.5, -0.0]})
    )
    journal.append(attributes=pa.table({"customer_id": ["b"], "age": pa.array([None], pa.int64())}))
    journal.append(objections=["z", "c", "z"])
    overlay = journal.overlay()
    day = date(2026, 1, 31)
    assert [tuple(row.values()) for row in overlay.facts.to_pylist()] == [
        ("a", "tea", None, "bought", day, 5),
        ("b", "tea", None, "bought", day, 7),
    ]
    assert [tuple(row.values()) for row in overlay.attributes.to_pylist()] == [
        ("a", "age", "int64", "1", 5),
        ("a", "x", "double", "0.5", 5),
        ("b", "age", "int64", "null", 7),
        ("b", "x", "double", "-0.0", 6),
    ]
    assert overlay.objections.to_pylist() == ["c", "z"]


def test_it_is_the_same_when_opened_again(path: Path, journal: Journal) -> None:
    journal.append(facts=facts(("é", "thé", 1)), objections=["𝄞"])
    digest, overlay = journal.digest(), journal.overlay().digest()
    journal.close()
    assert names_in(path.parent) == ["journal"], "a closed journal is one file"
    with Journal.open(path) as again:
        assert (again.digest(), again.overlay().digest(), again.offset) == (digest, overlay, 2)
        assert again.digest(through=1) != digest == again.digest(0, 2)


def test_every_commit_is_synchronised_and_what_is_deleted_is_overwritten(journal: Journal) -> None:
    assert journal._connection is not None
    for name, value in (("synchronous", 2), ("secure_delete", 1), ("journal_mode", "wal")):
        assert journal._connection.execute(f"PRAGMA {name}").fetchone() == (value,)


# Requests.


def test_a_repeated_request_is_answered_alike_and_appends_nothing(journal: Journal) -> None:
    once = journal.append(facts=facts(("a", "tea", 1), ("b", "tea", 1)), request_id="r1")
    journal.append(objections=["c"])
    again = journal.append(facts=facts(("a", "tea", 1), ("b", "tea", 1)), request_id="r1")
    assert again == Appended(1, 2, repeated=True, dropped_count=0)
    assert (once.repeated, once.last_offset, journal.offset) == (False, 2, 3)
    assert journal.verify().requests == 1
    with pytest.raises(InputError, match="request_id: was used before, for something else"):
        journal.append(facts=facts(("a", "tea", 2)), request_id="r1")
    assert journal.offset == 3


def test_an_empty_group_takes_no_offset(journal: Journal) -> None:
    journal.append(objections=["a"])
    nothing = Appended(2, 1, repeated=False, dropped_count=0)
    assert journal.append() == nothing
    assert journal.append(facts=facts(("a", "t", 1)).slice(1), request_id="r") == nothing
    assert journal.append(request_id="r").repeated


def test_a_request_id_is_kept_as_its_digest_alone(path: Path, journal: Journal) -> None:
    journal.append(objections=["a"], request_id="a very telling request id")
    journal.close()
    assert b"telling" not in path.read_bytes()


# Refusals.

WRONG: dict[str, tuple[dict[str, Any], str, int | None]] = {
    "kind": (
        {"facts": facts(("a", "t", 1)).set_column(2, "kind", [["eaten"]])}, "facts.kind", 0,
    ),
    "count": ({"facts": facts(("a", "t", 1), ("a", "t", 2**31))}, "facts.count", 1),
    "id": ({"facts": facts(("a", "t", 1), (None, "t", 1))}, "facts.customer_id", 1),
    "subject": ({"facts": facts(("a", None, 1))}, "facts.product", 0),
    "column": (
        {"facts": facts(("a", "t", 1)).append_column("day", [[1]])}, "facts.day", None,
    ),
    "table": ({"facts": [1]}, "facts", None),
    "nan": (
        {"attributes": pa.table({"customer_id": ["a", "b"], "x": [0.5, float("nan")]})},
        "attributes.x", 1,
    ),
    "type": (
        {"attributes": pa.table({"customer_id": ["a"], "x": [[1]]})}, "attributes.x", None,
    ),
    "as_of": (
        {"attributes": pa.table({"customer_id": ["a"], "as_of": [1]})}, "attributes.as_of", None,
    ),
    "twice": (
        {"attributes": pa.table({"customer_id": ["a", "a"], "x": [1, 2]})},
        "attributes.customer_id", 1,
    ),
    "no attribute": ({"attributes": pa.table({"customer_id": ["a"]})}, "attributes", None),
    "objected": (
        {"attributes": pa.table({"customer_id": ["a"], "objected": [True]})},
        "attributes.objected", None,
    ),
    "one text": ({"objections": "ann"}, "objections", None),
    "no text": ({"objections": ["a", 7]}, "objections", 1),
    "empty": ({"objections": [""]}, "objections", 0),
    "no UTF-8": ({"objections": ["\ud800"]}, "objections", 0),
    "request": ({"objections": ["a"], "request_id": 7}, "request_id", None),
    "empty request": ({"objections": ["a"], "request_id": ""}, "request_id", None),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_group_is_refused_by_field_and_row_and_nothing_of_it_stays(
    journal: Journal, name: str
) -> None:
    given, field, row = WRONG[name]
    right = {"facts": facts(("a", "tea", 1)), "objections": ["b"]}
    with pytest.raises(InputError) as refused:
        journal.append(**{**right, **given})
    assert (refused.value.field, refused.value.row) == (field, row)
    assert journal.offset == 0
    assert journal.overlay().is_empty


def test_bounds_keep_a_group_and_an_entry_small(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "GROUP_ENTRIES_MAX", 3)
    monkeypatch.setattr(incoming, "ENTRY_BYTES_MAX", 60)
    assert journal.append(facts=facts(("a", "t", 1), ("b", "t", 1)), objections=["c"])
    with pytest.raises(LimitError, match="objections: a group holds at most 3 entries, got 4"):
        journal.append(objections=list("abcd"))
    with pytest.raises(LimitError, match="facts, row 1: an entry holds at most 60 bytes"):
        journal.append(facts=facts(("a", "t", 1), ("a", "t" * 60, 1)))
    assert journal.offset == 3


def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("create table t (x)")
    database.close()
    for name, content in (
        ("empty", b""),
        ("text", b"customer_id,age\n" * 99),
        ("zero", bytes(999)),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("empty", "text", "zero", "other.db"):
        before = (tmp_path / name).read_bytes()
        for create in (False, True):
            with pytest.raises(InputError, match=f"path: {tmp_path / name} is no journal"):
                Journal.open(tmp_path / name, create=create)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(InputError, match="is a folder"):
        Journal.open(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Journal.open(tmp_path / "none")
    with pytest.raises(StorageError, match="text/journal cannot be read or written"):
        Journal.open(tmp_path / "text" / "journal", create=True)


def test_a_journal_of_another_format_is_refused(path: Path, journal: Journal) -> None:
    journal.close()
    database = sqlite3.connect(path)
    database.execute("pragma user_version = 2")
    database.close()
    with pytest.raises(InputError, match="is no journal of format 1"):
        Journal.open(path)


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(InputError, match="has been closed"):
        journal.append(objections=["a"])
    with pytest.raises(InputError, match="has been closed"):
        _ = journal.offset


# Company.


def test_threads_share_one_journal(journal: Journal) -> None:
    answers: list[tuple[Appended, bool]] = []

    def work(thread: int) -> None:
        for group in range(10):
            rows = [(f"{thread}", f"{group}", 1)] * 3
            done = journal.append(facts=facts(*rows))
            own = journal.overlay(after=done.first_offset - 1, through=done.last_offset)
            answers.append((done, own.facts.to_pylist()[0]["customer_id"] == f"{thread}"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.first_offset for each, _ in answers) == list(range(1, 121, 3))
    assert all(is_own for _, is_own in answers), "a group is never parted"
    assert journal.overlay().facts["count"].to_pylist() == [3] * 40


def test_a_child_does_not_use_the_journal_of_its_parent(journal: Journal) -> None:
    journal.append(objections=["a"])
    journal._process += 1  # what a fork changes, without one
    with pytest.raises(InputError, match="was opened by another process"):
        journal.append(objections=["b"])
    journal._process -= 1
    assert journal.offset == 1


APPENDER = """
import sys
from visavis.journal import Journal
with Journal.open(sys.argv[1], create=True) as journal:
    for group in range(20):
        done = journal.append(objections=[f"{sys.argv[2]}-{group}-{row}" for row in range(3)])
        assert done.last_offset == done.first_offset + 2
"""


def test_processes_make_and_share_one_journal(path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), str(child)])
        for child in range(3)
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert names_in(path.parent) == ["journal"]
    with Journal.open(path) as journal:
        assert journal.verify().objections == journal.offset == 180
        expected = {f"{c}-{g}-{r}" for c in range(3) for g in range(20) for r in range(3)}
        assert set(journal.overlay().objections.to_pylist()) == expected


def test_who_waits_too_long_is_told_and_the_reader_sees_what_was_there(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(objections=["a"])
    monkeypatch.setattr(connection, "BUSY_S", 0.05)
    with Journal.open(path) as other, journal._transaction("BEGIN IMMEDIATE"):
        assert other.offset == 1
        with pytest.raises(StorageError, match="is held by others"):
            other.append(objections=["b"])
    assert journal.offset == 1


def test_errors_name_what_was_given(journal: Journal) -> None:
    for wrong in (7, None, b"a"):
        with pytest.raises(SchemaError, match="customer_id: must be text"):
            journal.forget(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="customer_id: must not be empty"):
        journal.is_forgotten("")


def test_what_came_since_is_told_entry_by_entry_and_who_was_forgotten_when_somebody_was(
    journal: Journal,
) -> None:
    journal.append(facts=facts(("a", "tea", 1)), objections=["b"], request_id="r")
    since = journal.since(0)
    assert [entry.offset for entry in since.entries] == [1, 2]
    assert [entry.customer_id for entry in since.entries] == [b"a", b"b"]
    assert (since.through, since.forgotten) == (2, None)
    assert journal.since(2).entries == []
    assert journal.since(2, forgotten=True).forgotten == frozenset()
    journal.forget("a")
    after = journal.since(2)
    assert (after.through, len(after.entries)) == (3, 1)
    assert after.forgotten == journal.forgotten
    assert len(journal.forgotten) == 1
    assert {entry.customer_id for entry in journal.since(0).entries} == {b"", b"b"}
    assert journal.since(3).forgotten is None
    with pytest.raises(InputError, match="after"):
        journal.since(4)


def test_a_journal_knows_which_requests_it_has_answered(journal: Journal) -> None:
    assert not journal.knows("r")
    journal.append(objections=["a"], request_id="r")
    assert journal.knows("r")
    assert not journal.knows("s")
    with pytest.raises(SchemaError):
        journal.knows(7)  # type: ignore[arg-type]


def test_who_objected_is_known_from_the_first_entry_on(journal: Journal) -> None:
    journal.append(objections=["a", "b"])
    journal.append(objections=["é"], facts=facts(("c", "tea", 1)))
    assert journal.objecting(through=2) == {b"a", b"b"}
    assert journal.objecting() == {b"a", b"b", "é".encode()}
    journal.forget("a")
    assert journal.objecting(through=1) == frozenset()
    assert journal.objecting() == {b"b", "é".encode()}
    with pytest.raises(InputError):
        journal.objecting(through=99)


def test_what_requests_were_answered_with_is_kept(path: Path, journal: Journal) -> None:
    one, other = bytes(32), b"1" * 32
    assert journal.answer("r", one) is None
    journal.append(objections=["a"], request_id="r")
    assert journal.answer("r", one) is None  # of another kind
    journal.keep_answer("r", one, b"answer")
    journal.keep_answer("s", other, b"")
    journal.keep_answer("r", one, b"too late")
    with Journal.open(path) as again:
        assert again.answer("r", one) == b"answer"
        assert again.answer("s", other) == b""
        assert again.answer("t", one) is None
        for attempt in (
            lambda: again.answer("r", other),
            lambda: again.keep_answer("s", one, b"x"),
        ):
            with pytest.raises(ReusedError) as caught:
                attempt()
            assert caught.value.field == "request_id"
        assert again.verify().objections == 1
        assert again.offset == 1
    with pytest.raises(SchemaError):
        journal.answer(7, one)  # type: ignore[arg-type]
    journal.forget("a")
    assert journal.answer("r", one) == b"answer"
