"""Erasure from bases, journals and results: not a byte is left, and nobody brings anybody back."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import drivers
from commands import call, done
from drivers import CATALOG, FORGOTTEN, POLICY, Drivers, operations
from visavis.base import Base, StoredBase
from visavis.base.stored import versions_at
from visavis.erasure import forget_in_base, forget_in_result
from visavis.errors import CorruptionError, InputError
from visavis.journal import Journal, compact
from visavis.parts import part_of
from visavis.rescore import Result, job, rescore
from visavis.store import Folder, open_place

TOMBSTONE = hashlib.sha256(FORGOTTEN.encode()).hexdigest()


def holding(folder: Path, text: str = FORGOTTEN) -> list[str]:
    """Every file, of whatever name, that holds the bytes of a text, backwards or forwards."""
    wanted = text.encode()
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (wanted in path.read_bytes() or wanted in os.fsencode(path.name))
    ]


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def without(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["customer_id"], FORGOTTEN)).combine_chunks()


def facts_of(base: Base, customer_id: str) -> list[dict[str, Any]]:
    rows = base.facts_of(base.index_of(customer_id)).drop_columns(["customer_index"])
    return rows.to_pylist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a base, a result of each with reasons, and a job that was broken off."""
    folder = tmp_path_factory.mktemp("whole")
    drivers.write_world(folder)
    drivers.rescore(str(folder), str(folder / "first"))
    drivers.load_again(str(folder))
    drivers.rescore(str(folder), str(folder / "second"))
    drivers.rescore(str(folder), str(folder / "broken"))
    (folder / "broken" / "manifest.json").unlink()
    assert Result.open(folder / "first").lookup(FORGOTTEN).num_rows
    return folder


RESULTS = ("first", "second", "broken")


@pytest.fixture
def world(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "world"))


def check_erased(world: Path, whole: Path) -> None:
    """The customer is gone, and everything else is as it was."""
    assert holding(world) == ["journal"], "of which nobody spoke"
    for version in (1, 2):
        before, after = (StoredBase.open(each / "base", version=version) for each in (whole, world))
        after.verify()
        assert after.manifest.forgotten == (TOMBSTONE,)
        assert after.customer_count == before.customer_count - 1
        old, new = before.read(), after.read()
        rest = [each for each in old.customer_ids.to_pylist() if each != FORGOTTEN]
        assert new.customer_ids.to_pylist() == rest
        rows = [old.index_of(each) for each in rest]
        assert np.array_equal(old.indicators[rows], new.indicators)
        assert old.attributes.take(rows).equals(new.attributes)
        assert all(facts_of(old, each) == facts_of(new, each) for each in rest)
        # What does not hold the customer is not rewritten.
        index = part_of(FORGOTTEN, 4)
        for number, (one, other) in enumerate(
            zip(before.manifest.parts, after.manifest.parts, strict=True)
        ):
            assert (one == other) == (number != index)
    for name in ("first", "second"):
        before_result, result = Result.open(whole / name), Result.open(world / name)
        result.verify()
        assert result.read().equals(without(before_result.read()))
        assert result.plan == before_result.plan
        assert result.manifest.forgotten_count == 1
        assert result.customer_count == before_result.customer_count - 1
        assert result.lookup(FORGOTTEN).num_rows == 0
    assert files(world / "broken") == {}, "it begins anew"
    assert len(files(world)) == len(files(whole)) - len(files(whole / "broken"))


def test_no_file_holds_a_byte_of_who_was_forgotten(world: Path, whole: Path) -> None:
    held = holding(world)
    assert sum(name.startswith("base/") for name in held) == 2
    assert sum(name.startswith("base/") for name in holding(world, f"the city of {FORGOTTEN}")) == 2
    # Of results dictionaries are compressed: what they hold is read, not seen.
    counts = drivers.forget(str(world), *(str(world / each) for each in RESULTS))
    wanted = Result.open(whole / "first").lookup(FORGOTTEN).num_rows
    assert counts == {
        "base": 2,
        str(world / "first"): wanted,
        str(world / "second"): wanted,
        str(world / "broken"): 4,
    }
    check_erased(world, whole)
    for name in RESULTS[:2]:
        for table in Result.open(world / name).parts():
            column = table["customer_id"]
            assert pa.types.is_dictionary(column.type)
            for chunk in column.chunks:
                assert FORGOTTEN not in chunk.dictionary.to_pylist()


def test_forgetting_again_changes_nothing(world: Path) -> None:
    results = [str(world / each) for each in RESULTS]
    drivers.forget(str(world), *results)
    before = files(world)
    assert set(drivers.forget(str(world), *results).values()) == {0}
    assert files(world) == before


@pytest.fixture(scope="module")
def crew() -> Iterator[Drivers]:
    with Drivers() as started:
        yield started


@pytest.mark.faults
@pytest.mark.parametrize("what", ["kill-before", "EIO"])
def test_broken_off_at_any_operation_it_is_finished_by_doing_it_again(
    crew: Drivers, whole: Path, tmp_path: Path, what: str
) -> None:
    counted = Path(shutil.copytree(whole, tmp_path / "counted"))
    count = operations(drivers.forget, str(counted), *(str(counted / each) for each in RESULTS))
    assert count > 60

    def start(number: int) -> int:
        world = shutil.copytree(whole, tmp_path / f"{number}")
        results = [world / each for each in RESULTS]
        return crew.start("forget", world, *results, fault=f"{what}:{number}")

    for number, status in crew.in_turn(count, start):
        world = tmp_path / f"{number}"
        results = [str(world / each) for each in RESULTS]
        assert status == (drivers.REFUSED if what == "EIO" else -signal.SIGKILL)
        # Readers find all of it or none of it, wherever it stopped.
        for version in (1, 2):
            StoredBase.open(world / "base", version=version).verify()
        for name in RESULTS[:2]:
            Result.open(world / name).verify()
        drivers.forget(str(world), *results)
        check_erased(world, whole)
        shutil.rmtree(world)


def test_who_was_forgotten_does_not_come_back(world: Path) -> None:
    """Not by a load of the old tables, nor by compaction, nor by writing what is in memory."""
    held = StoredBase.open(world / "base").read()
    forget_in_base(Folder(world / "base"), FORGOTTEN)
    for again in (
        lambda: drivers.load_again(str(world)),
        lambda: drivers.compact_again(str(world)),
        lambda: held.write(world / "base"),
    ):
        made = again()
        assert made.manifest.forgotten == (TOMBSTONE,)
        assert made.customer_count == drivers.CUSTOMERS - 1
        assert FORGOTTEN not in made.read().customer_ids.to_pylist()
    assert holding(world / "base") == []


def test_a_journal_that_has_forgotten_keeps_the_customer_out(world: Path, tmp_path: Path) -> None:
    with Journal.open(world / "journal") as journal:
        assert journal.forget(FORGOTTEN) == 1
        overlay = journal.overlay()
    base = StoredBase.open(world / "base")
    report = rescore(base, CATALOG, POLICY, tmp_path / "out", overlay=overlay)
    assert FORGOTTEN not in report.result.read()["customer_id"].to_pylist()
    assert report.result.customer_count == drivers.CUSTOMERS - 2, "and one who objected"
    for made in (compact(base, overlay), drivers.load_again(str(world), journal=True)):
        assert TOMBSTONE in made.manifest.forgotten
        assert FORGOTTEN not in made.read().customer_ids.to_pylist()
    assert holding(tmp_path / "out") == []


def test_the_forgotten_and_objectors_leave_every_result_made_from_then_on(
    world: Path, tmp_path: Path
) -> None:
    with Journal.open(world / "journal") as journal:
        journal.append(objections=[FORGOTTEN])
    out = str(tmp_path / "out")
    result = drivers.rescore(str(world), out, journal=True).result
    assert result.lookup(FORGOTTEN).num_rows == result.lookup("customer-005").num_rows == 0
    assert result.lookup("customer-006").num_rows
    assert result.plan.journal_offset == 5


def test_what_is_not_ours_is_left_alone(world: Path) -> None:
    letters = [
        world / each / "letter.txt" for each in ("base", "first", "first/parts", "broken/parts")
    ]
    for letter in letters:
        letter.write_text("dear")
    (world / "base" / "v0009").mkdir()
    left = world / "base" / "v0009" / "part-00000.0123456789abcdef.arrow"
    left.write_text(f"a killed load of {FORGOTTEN}")
    drivers.forget(str(world), *(str(world / each) for each in RESULTS))
    assert all(letter.read_text() == "dear" for letter in letters)
    assert not left.exists()


def test_where_nothing_of_ours_stands_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for place in (Folder(tmp_path), Folder(tmp_path / "elsewhere")):
        with pytest.raises(InputError, match="holds no base"):
            forget_in_base(place, FORGOTTEN)
        with pytest.raises(InputError, match="holds no result"):
            forget_in_result(place, FORGOTTEN)
    for wrong in ("", "\ud800"):
        with pytest.raises(InputError, match="customer_id: must be text"):
            forget_in_base(Folder(tmp_path), wrong)
    assert files(tmp_path) == {"letter.txt": b"dear"}


def test_what_is_damaged_is_told_and_not_taken_for_erased(world: Path) -> None:
    entry = StoredBase.open(world / "base", version=1).manifest.parts[part_of(FORGOTTEN, 4)]
    victim = world / "base" / "v0001" / entry.file
    content = victim.read_bytes()
    victim.write_bytes(content[:-1])
    with pytest.raises(CorruptionError, match=entry.file):
        forget_in_base(Folder(world / "base"), FORGOTTEN)


def test_an_earlier_result_without_the_customer_still_says_what_it_was_made_of(
    world: Path, tmp_path: Path
) -> None:
    """The base's digest is another now: it is another job, and `--since` runs in full."""
    drivers.forget(str(world), str(world / "second"))
    with pytest.raises(InputError, match=r"holds another job.*its base_digest is"):
        drivers.rescore(str(world), str(world / "second"))
    base = StoredBase.open(world / "base")
    made = job.Job.make(base, CATALOG, POLICY, tmp_path / "out", reasons=2)
    report = made.run(since=world / "second")
    assert report.note is not None
    assert "base_digest" in report.note
    assert report.result.read().equals(Result.open(world / "second").read())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_objects_and_what_the_machine_keeps_of_them_go_too(
    world: Path, whole: Path, cache: Path
) -> None:
    pytest.importorskip("obstore", reason="objects need the extra: obstore is not installed")
    base, result, broken = (open_place((world / n).as_uri()) for n in ("base", "first", "broken"))
    for version in (1, 2):
        StoredBase.open(base, version=version).verify()
    Result.open(result).verify()
    assert len(holding(cache)) == 1, "the parts of both versions are the same bytes"
    for erase in range(2):
        found = forget_in_base(base, FORGOTTEN), forget_in_result(result, FORGOTTEN)
        assert found == ((2, 3), (0, 0))[erase]
        assert holding(cache) == []
        assert holding(world / "base") == holding(world / "first") == []
    Result.open(result).verify()
    assert Result.open(result).read().equals(without(Result.open(whole / "first").read()))
    assert forget_in_result(broken, FORGOTTEN) == 4
    assert files(world / "broken") == {}


def test_a_killed_erasure_of_objects_leaves_nothing_in_the_cache_when_it_is_finished(
    world: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="objects need the extra: obstore is not installed")
    place = open_place((world / "base").as_uri())
    StoredBase.open(place, version=1).verify()
    held = holding(cache)
    assert held

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(place), "remove", killed)
        patch.setattr(type(place), "drop_cached", killed)
        with pytest.raises(KeyboardInterrupt):
            forget_in_base(place, FORGOTTEN)
    assert holding(cache) == held
    forget_in_base(place, FORGOTTEN)
    assert holding(cache) == []
    assert holding(world / "base") == []


def test_the_command_says_what_it_removed_where(world: Path) -> None:
    given = ["base", "forget", FORGOTTEN, "--base", world / "base", "--journal", world / "journal"]
    given += [part for name in RESULTS for part in ("--results", world / name)]
    said = done(*given).output.splitlines()
    assert said == [
        f"{world / 'journal'}: 1 removed",
        f"{world / 'base'}: 2 removed",
        f"{world / 'first'}: 3 removed",
        f"{world / 'second'}: 3 removed",
        f"{world / 'broken'}: 4 removed",
    ]
    assert holding(world) == []
    again = done(*given, "--json").json()
    assert set(again["removed"].values()) == {0}
    assert len(versions_at(Folder(world / "base"))) == 2
    refused = call("base", "forget", FORGOTTEN)
    assert refused.status == 2
    assert refused.errors == "visavis: --base: name a --base, a --journal or --results\n"
    refused = call("base", "forget", FORGOTTEN, "--results", world / "nowhere")
    assert refused.errors == f"visavis: --results: {world / 'nowhere'} holds no result\n"
