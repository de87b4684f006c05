"""A base on disk: the same again, in parts and versions; no changed byte passes for what it was."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_base import ATTRIBUTES, FACTS, FIELD, INDICATORS
from visavis.base import FACT_SCHEMA, Base, StoredBase, VersionWriter
from visavis.base import stored as stored_module
from visavis.base.layout import part_bytes, part_from
from visavis.base.manifest import Manifest, part_file
from visavis.base.stored import versions_at
from visavis.base.writing import remove_version
from visavis.errors import (
    CorruptionError,
    InputError,
    NotFoundError,
    StorageError,
    VisavisError,
)
from visavis.parts import part_of
from visavis.store import bytes_digest, json_bytes, open_place, parsed_json
from visavis.store.places import Folder
from worlds import AS_OF, NAMES, World, worlds


@pytest.fixture
def base() -> Base:
    return Base.from_tables(INDICATORS, as_of=AS_OF, attributes=ATTRIBUTES, facts=FACTS)


def many(count: int, **columns: Any) -> Base:
    """A base of some customers, each with a number of its own."""
    ids = [f"c{number}" for number in range(count)]
    table = pa.table({"customer_id": ids, "x": np.arange(count, dtype=np.float32), **columns})
    facts = pa.table(
        {
            "customer_id": ids,
            "product": [f"p{number % 3}" for number in range(count)],
            "kind": ["bought"] * count,
            "date": pa.array([AS_OF] * count),
        }
    )
    return Base.from_tables(table, as_of=AS_OF, facts=facts)


def files(path: Path) -> dict[str, bytes]:
    found = (each for each in path.rglob("*") if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in found}


def assert_same(found: Base, wanted: Base) -> None:
    assert found.digest == wanted.digest
    assert found.customer_ids.equals(wanted.customer_ids)
    assert found.indicators.tobytes() == wanted.indicators.tobytes()
    assert found.indicator_schema.equals(wanted.indicator_schema, check_metadata=True)
    assert found.attributes.equals(wanted.attributes)
    assert found.facts.equals(wanted.facts)
    assert found.as_of == wanted.as_of


# The same again.


@settings(max_examples=25)
@given(world=worlds(), parts=st.sampled_from([1, 2, 4, 16, 64]))
def test_a_base_reads_back_as_it_was_written(
    world: World, parts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bases") / "base"
    stored = world.base.write(path, parts=parts)
    assert_same(Base.read(path), world.base)
    assert stored.part_count == parts == len(list(stored.parts()))
    assert stored.customer_count == world.base.customer_count
    assert stored.fact_count == len(world.base.facts)
    stored.verify()
    for index, part in enumerate(stored.parts()):
        ids = part.customer_ids.to_pylist()
        wanted = [name for name in world.customers if part_of(name, parts) == index]
        assert ids == wanted
        for row, name in enumerate(ids):
            of_all = world.base.index_of(name)
            assert part.indicators[row].tobytes() == world.base.indicators[of_all].tobytes()
            held = part.facts_of(row).drop_columns("customer_index").to_pylist()
            assert held == world.base.facts_of(of_all).drop_columns("customer_index").to_pylist()
            assert part.attributes.slice(row, 1).equals(world.base.attributes.slice(of_all, 1))


def test_the_meaning_of_an_indicator_stays_with_it(base: Base, tmp_path: Path) -> None:
    base.write(tmp_path / "base", parts=4)
    for each in (base, Base.read(tmp_path / "base"), StoredBase.open(tmp_path / "base").head):
        assert each.indicator_schema.types == [pa.float32()] * 2
        assert each.indicator_schema.field("spend").metadata == FIELD.metadata
        assert each.indicator_schema.metadata[b"visavis.as_of"] == b"2020-02-29"


def test_a_folder_named_like_a_partition_adds_no_column(base: Base, tmp_path: Path) -> None:
    base.write(tmp_path / "age=7" / "day=2020-01-01")
    assert Base.read(tmp_path / "age=7" / "day=2020-01-01").digest == base.digest


@pytest.mark.parametrize("width", [1, 2, 3, 15, 16, 17, 128])
@pytest.mark.parametrize("name_size", [1, 40])
def test_indicators_are_mapped_where_a_vector_begins(
    tmp_path: Path, width: int, name_size: int
) -> None:
    columns = {f"{'n' * name_size}{i}": np.arange(7, dtype=np.float32) for i in range(width)}
    table = pa.table({"customer_id": [f"c{i}" for i in range(7)], **columns})
    stored = Base.from_tables(table, as_of=AS_OF).write(tmp_path / "base", parts=2)
    for index in range(2):
        name = f"v0001/{stored.manifest.parts[index].file}"
        content = stored.place.fetch(name, stored.manifest.parts[index].sha256)
        part = part_from(content, as_of=AS_OF, scale=None, named="x")
        assert part.indicators.ctypes.data % 64 == 0
        assert np.shares_memory(part.indicators, np.frombuffer(content, dtype=np.uint8))
        assert not part.indicators.flags.writeable
        assert part.indicators.flags.c_contiguous


def test_equal_profiles_have_equal_bytes_whatever_their_layout(base: Base) -> None:
    other = Base(
        base.customer_ids,
        np.asfortranarray(base.indicators),
        base.indicator_schema,
        pa.concat_tables([base.attributes.slice(0, 1), base.attributes.slice(1)]),
        base.facts.set_column(1, "product", base.facts["product"].dictionary_encode()),
        base.as_of,
    )
    assert part_bytes(other).equals(part_bytes(base))


def test_a_part_without_customers_is_a_part(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "base", parts=64)
    sizes = [part.customer_count for part in stored.parts()]
    assert sizes.count(0) >= 61
    empty = stored.part(sizes.index(0))
    assert empty.indicators.shape == (0, 2)
    assert empty.attributes.schema == base.attributes.schema
    assert empty.facts.cast(FACT_SCHEMA).num_rows == 0
    assert stored.head.customer_count == 0
    assert stored.head.attributes.schema == base.attributes.schema


def fresh(stored: StoredBase, index: int) -> Base:
    """A part without the scale of the whole, as a load puts it together."""
    part = stored.part(index)
    return Base(
        part.customer_ids,
        part.indicators,
        part.indicator_schema,
        part.attributes,
        part.facts,
        part.as_of,
    )


def test_the_manifest_is_the_same_in_whatever_order_parts_are_added(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    stored = many(500, y=rng.lognormal(sigma=4, size=500)).write(tmp_path / "one", parts=32)
    digests = set()
    for seed in range(8):
        writer = VersionWriter(open_place(tmp_path / f"base {seed}"), 32)
        for index in np.random.default_rng(seed).permutation(32).tolist():
            writer.add(index, fresh(stored, index))
        digests.add(writer.publish().digest)
    assert len(digests) == 1


# Lookups.


def test_every_customer_is_found_and_no_other(tmp_path: Path, monkeypatch: Any) -> None:
    base = Base.from_tables(pa.table({"customer_id": NAMES, "x": range(len(NAMES))}), as_of=AS_OF)
    stored = base.write(tmp_path / "base", parts=8)
    for open_parts in (1, 4_096):
        monkeypatch.setattr(stored_module, "_OPEN_PARTS", open_parts)
        for row, name in enumerate(NAMES):
            found = stored.profile(name)
            assert found.part_index == part_of(name, 8)
            assert found.base.customer_ids[found.customer_index].as_py() == name
            assert found.base.indicators[found.customer_index].tolist() == [row]
            assert len(stored._open) <= open_parts
    for unknown in ("", "aaa", "\U0010ffff", "\ud800", "é "):
        with pytest.raises(NotFoundError, match="not in the base"):
            stored.profile(unknown)
    for wrong in (None, 3, b"a"):
        with pytest.raises(InputError) as caught:
            stored.profile(wrong)  # type: ignore[arg-type]
        assert caught.value.field == "customer_id"


def test_parts_that_are_asked_for_again_stay_open(tmp_path: Path, monkeypatch: Any) -> None:
    stored = many(50).write(tmp_path / "base", parts=4)
    monkeypatch.setattr(stored_module, "_OPEN_PARTS", 2)
    name = {part_of(f"c{number}", 4): f"c{number}" for number in range(50)}
    kept = stored.profile(name[0]).base
    for other in (1, 0, 2, 0, 3, 0):
        found = stored.profile(name[other]).base
        assert other or found is kept
    assert sorted(stored._open) == [0, 3]


def test_many_may_look_up_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    stored = many(200).write(tmp_path / "base", parts=16)
    monkeypatch.setattr(stored_module, "_OPEN_PARTS", 3)
    wrong: list[object] = []

    def look(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(200, size=100).tolist():
            found = stored.profile(f"c{number}")
            if found.base.indicators[found.customer_index].tolist() != [number]:
                wrong.append(number)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_other_part_is_there(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "base", parts=2)
    for index in (-1, 2, 10**9):
        with pytest.raises(InputError, match="must lie in") as caught:
            stored.part(index)
        assert caught.value.field == "part"


def test_a_worker_opens_what_it_was_sent(base: Base, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    stored = base.write(Path("base"), parts=2)
    sent = pickle.dumps(stored)
    monkeypatch.chdir("/")
    arrived = pickle.loads(sent)  # noqa: S301
    assert arrived.digest == stored.digest
    assert_same(arrived.read(), base)


# Versions.


def test_writing_again_makes_a_version_and_readers_of_the_last_never_notice(
    base: Base, tmp_path: Path
) -> None:
    path = tmp_path / "base"
    first = base.write(path, parts=2)
    opened = first.part(1)
    before = files(path)
    other = Base.from_tables(INDICATORS, as_of=AS_OF)
    second = other.write(path)
    assert (first.version, second.version, second.part_count) == (1, 2, 2)
    assert {name: content for name, content in files(path).items() if name in before} == before
    assert_same(first.read(), base)
    assert opened.indicators.tolist() == first.part(1).indicators.tolist()
    assert_same(Base.read(path), other)
    assert_same(Base.read(path, version=1), base)
    assert versions_at(open_place(path)) == [1, 2]
    for version in (0, -1, 3, 10**9):
        with pytest.raises(InputError, match=f"no version {version}") as caught:
            Base.read(path, version=version)
        assert caught.value.field == "version"


def test_a_version_that_is_dropped_leaves_the_others(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "base"
    for _ in range(3):
        base.write(path, parts=2)
    assert remove_version(open_place(path), 2) == 3
    assert versions_at(open_place(path)) == [1, 3]
    assert not (path / "v0002").exists()
    assert_same(Base.read(path, version=1), base)
    assert base.write(path).version == 4, "a number that later versions have passed is not used"
    with pytest.raises(InputError, match="has no version 2") as caught:
        remove_version(open_place(path), 2)
    assert caught.value.field == "version"


def test_a_version_is_gone_from_the_first_thing_that_is_removed(
    base: Base, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "base"
    base.write(path, parts=4)
    removed: list[str] = []
    whole = Folder.remove

    def remove(place: Folder, *names: str) -> None:
        for name in names:
            whole(place, name)
            removed.append(name)
            assert versions_at(place) == []

    monkeypatch.setattr(Folder, "remove", remove)
    remove_version(open_place(path), 1)
    assert removed[0] == "v0001/manifest.json"
    assert len(removed) == 5


def test_what_is_not_spelled_as_a_version_is_none(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "base"
    base.write(path)
    for name in ("v1", "v00001", "v0000", "V0002", "v0003.old", "x/v0004", "v0005/v0006"):
        (path / name).mkdir(parents=True)
        (path / name / "manifest.json").write_bytes((path / "v0001/manifest.json").read_bytes())
    (path / "v0007").mkdir()
    (path / "v0008").write_text("")
    assert versions_at(open_place(path)) == [1]
    assert base.write(path).version == 2


def test_a_base_grows_by_splitting_its_parts_and_never_shrinks(tmp_path: Path) -> None:
    base = many(300)
    path = tmp_path / "base"
    coarse = base.write(path, parts=4)
    fine = base.write(path, parts=16)
    for index, part in enumerate(coarse.parts()):
        split = [fine.part(each).customer_ids.to_pylist() for each in range(index, 16, 4)]
        assert part.customer_ids.to_pylist() == sorted(chain(*split))
    assert base.write(path).part_count == 16
    with pytest.raises(InputError, match="at least 16") as caught:
        base.write(path, parts=8)
    assert caught.value.field == "parts"
    for parts in (0, 3, -4, 2**21, True, 2.0, "4"):
        with pytest.raises(InputError, match="power of two") as caught:
            base.write(path, parts=parts)  # type: ignore[arg-type]
        assert caught.value.field == "parts"
    assert versions_at(open_place(path)) == [1, 2, 3]


def test_who_is_forgotten_does_not_come_back(tmp_path: Path) -> None:
    place = open_place(tmp_path / "base")
    base = many(9)
    tombstones = [bytes_digest(f"c{number}".encode()) for number in (3, 7)]
    writer = VersionWriter(place, 1, forgotten=tombstones)
    writer.add(0, base)
    writer.publish()
    stored = base.write(tmp_path / "base")
    assert stored.manifest.forgotten == tuple(sorted(tombstones))
    assert set(Base.read(tmp_path / "base").customer_ids.to_pylist()) == {
        f"c{number}" for number in range(9) if number not in (3, 7)
    }


# Writers that meet, and writers that fail.


def added(path: Path, base: Base, parts: int) -> VersionWriter:
    writer = VersionWriter(open_place(path), parts)
    whole = base.write(path.with_name(f"{base.customer_count} {parts}"), parts=parts)
    for index in range(parts):
        writer.add(index, whole.part(index))
    return writer


def test_of_two_writers_one_publishes_and_one_hears_of_it(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "base"
    slow = added(path, many(20), 2)
    fast = added(path, base, 2)
    stored = fast.publish()
    late = added(path, many(30), 2)
    assert (slow.version, fast.version, late.version) == (1, 1, 2)
    # The winner took the loser's parts for what a killed writer had left.
    with pytest.raises(StorageError, match="was removed before it was published"):
        slow.publish()
    slow.abandon()
    stored.verify()
    assert_same(stored.read(), base)
    assert set(files(path / "v0001")) == {
        "manifest.json",
        *(part.file for part in stored.manifest.parts),
    }


def test_who_comes_second_with_the_manifest_takes_nothing_with_them(
    base: Base, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "base"
    slow, fast = added(path, many(20), 2), added(path, base, 2)
    # Between the last look at the parts and the manifest.
    whole = Folder.names

    def names(place: Folder, under: str = "") -> list[str]:
        found = whole(place, under)
        monkeypatch.setattr(Folder, "names", whole)
        fast.publish()
        return found

    monkeypatch.setattr(Folder, "names", names)
    with pytest.raises(InputError, match="by another writer now") as caught:
        slow.publish()
    assert caught.value.field == "path"
    slow.abandon()
    assert_same(Base.read(path), base)
    assert len(files(path)) == 3


def test_a_repeated_request_that_was_fulfilled_is_no_other_writer(
    base: Base, tmp_path: Path, monkeypatch: Any
) -> None:
    whole = Folder.create

    def twice(place: Folder, name: str, content: Any) -> bool:
        whole(place, name, content)
        return whole(place, name, content)

    monkeypatch.setattr(Folder, "create", twice)
    assert base.write(tmp_path / "base").version == 1
    assert_same(Base.read(tmp_path / "base"), base)


def test_what_an_earlier_attempt_left_goes_when_the_version_is_published(
    base: Base, tmp_path: Path
) -> None:
    path = tmp_path / "base"
    added(path, many(20), 4)
    (path / "v0001" / ".0123.staged").write_text("half")
    assert len(files(path)) == 5
    stored = base.write(path, parts=2)
    assert stored.version == 1
    assert set(files(path)) == {
        "v0001/manifest.json",
        *(f"v0001/{part.file}" for part in stored.manifest.parts),
    }


def test_parts_that_somebody_removed_are_not_published(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "base"
    writer = added(path, base, 2)
    gone = sorted((path / "v0001").iterdir())[0]
    gone.unlink()
    with pytest.raises(StorageError, match="was removed before it was published") as caught:
        writer.publish()
    assert caught.value.path == f"v0001/{gone.name}"
    assert versions_at(open_place(path)) == []


def test_a_writer_that_fails_leaves_nothing(base: Base, tmp_path: Path, monkeypatch: Any) -> None:
    base.write(tmp_path / "base")
    before = files(tmp_path)
    whole = Folder.create

    def fail(place: Folder, name: str, content: Any) -> bool:
        if name.endswith("manifest.json"):
            raise StorageError("cannot be written: no", path=name)
        return whole(place, name, content)

    monkeypatch.setattr(Folder, "create", fail)
    with pytest.raises(StorageError, match="cannot be written: no"):
        many(40).write(tmp_path / "base", parts=8)
    assert files(tmp_path) == before
    assert not (tmp_path / "base" / "v0002").exists()


def test_what_fails_behind_the_manifest_does_not_unpublish_it(
    base: Base, tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("cannot be removed: no", path="x")

    monkeypatch.setattr(Folder, "remove", fail)
    assert base.write(tmp_path / "base").version == 1
    assert_same(Base.read(tmp_path / "base"), base)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda place, _: VersionWriter(place, 3), "parts"),
        (lambda place, _: VersionWriter(place, 1, journal_offset=-1), "journal_offset"),
        (lambda place, _: VersionWriter(place, 1, forgotten=["cid"]), "forgotten"),
        (lambda place, base: VersionWriter(place, 2).add(2, base), "part"),
        (lambda place, base: VersionWriter(place, 2).add(-1, base), "part"),
        (lambda place, _: VersionWriter(place, 1).publish(), "part"),
    ],
)
def test_what_no_version_can_be_is_refused(
    base: Base, tmp_path: Path, wrong: Callable[[Any, Base], object], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        wrong(open_place(tmp_path / "base"), base)
    assert caught.value.field == field
    assert not (tmp_path / "base").exists()


def test_parts_with_other_columns_or_without_customers_are_refused(
    base: Base, tmp_path: Path
) -> None:
    writer = VersionWriter(open_place(tmp_path / "base"), 2)
    writer.add(0, base)
    with pytest.raises(InputError, match="part 1 has other columns"):
        writer.add(1, many(3))
    nobody = VersionWriter(open_place(tmp_path / "nobody"), 1)
    stored = base.write(tmp_path / "other")
    nobody.add(0, stored.head)
    with pytest.raises(InputError, match="at least one customer"):
        nobody.publish()


# Damage.


@pytest.mark.parametrize("path", ["none", "file", "file/none", "folder"])
def test_where_there_is_no_base_reading_says_so(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="holds no base") as caught:
        Base.read(tmp_path / path)
    assert caught.value.field == "path"
    with pytest.raises(InputError, match="has no version 1") as caught:
        Base.read(tmp_path / path, version=1)
    assert caught.value.field == "version"


def damaged(path: Path, stored: StoredBase) -> Iterator[tuple[Path, bytes, Callable[[], Any]]]:
    """Each file of a version, what it holds, and how to read it."""
    names = ("manifest.json", stored.manifest.parts[0].file)
    manifest, part = (path / "v0001" / name for name in names)
    yield manifest, manifest.read_bytes(), lambda: StoredBase.open(path)
    yield part, part.read_bytes(), lambda: stored.part(0)


def test_every_flip_of_a_byte_is_detected(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "base")
    rng = np.random.default_rng(5)
    count = 0
    for file, whole, read in damaged(tmp_path / "base", stored):
        for place in range(len(whole)):
            flip = 1 << int(rng.integers(8)) if place % 2 else int(rng.integers(1, 256))
            with file.open("r+b", buffering=0) as stream:
                os.pwrite(stream.fileno(), bytes([whole[place] ^ flip]), place)
                with pytest.raises((CorruptionError, InputError)):
                    read()
                os.pwrite(stream.fileno(), whole[place : place + 1], place)
            count += 1
    assert count > 3_000
    assert Base.read(tmp_path / "base").digest == base.digest


def test_every_truncation_is_detected(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "base")
    for file, whole, read in damaged(tmp_path / "base", stored):
        for size in reversed(range(len(whole))):
            os.truncate(file, size)
            with pytest.raises(CorruptionError, match=file.name):
                read()
        file.write_bytes(whole + b"\0")
        with pytest.raises(CorruptionError, match=file.name):
            read()
        file.write_bytes(whole)
    assert Base.read(tmp_path / "base").digest == base.digest


def test_white_space_in_the_manifest_is_detected_too(base: Base, tmp_path: Path) -> None:
    base.write(tmp_path / "base")
    manifest = tmp_path / "base" / "v0001" / "manifest.json"
    text = manifest.read_bytes()
    for changed in (text + b"\n", text.replace(b"\n", b"\r", 1), text.replace(b"  ", b" \t", 1)):
        manifest.write_bytes(changed)
        with pytest.raises(CorruptionError, match=r"manifest\.json"):
            Base.read(tmp_path / "base")


def test_a_part_that_is_lost_is_named(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "base", parts=2)
    name = stored.manifest.parts[1].file
    (tmp_path / "base" / "v0001" / name).unlink()
    for read in (stored.read, stored.verify, lambda: stored.part(1)):
        with pytest.raises(CorruptionError, match=f"{name} is missing"):
            read()
    assert stored.part(0).customer_count == stored.manifest.parts[0].customer_count


def test_a_part_of_another_base_does_not_fit(base: Base, tmp_path: Path) -> None:
    stored = base.write(tmp_path / "one")
    other = Base.from_tables(INDICATORS, as_of=AS_OF).write(tmp_path / "other")
    wrong = tmp_path / "other" / "v0001" / other.manifest.parts[0].file
    right = tmp_path / "one" / "v0001" / stored.manifest.parts[0].file
    right.write_bytes(wrong.read_bytes())
    with pytest.raises(CorruptionError, match="does not fit its digest"):
        Base.read(tmp_path / "one")


# A hand that fits the digests to what it changed.


def sealed(content: dict[str, Any]) -> bytes:
    said = {key: each for key, each in content.items() if key != "digest"}
    return json_bytes({**said, "digest": bytes_digest(json_bytes(said))})


def entry(index: int = 0, sha256: str = "0" * 64, **more: Any) -> dict[str, Any]:
    plain = {"file": part_file(index, sha256), "sha256": sha256}
    return {**plain, "customer_count": 1, "fact_count": 0, **more}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"format": 1}, InputError),
        ({"format": 3}, InputError),
        ({"format": None}, CorruptionError),
        ({"format": True}, VisavisError),
        ({"parts": None}, CorruptionError),
        ({"parts": []}, CorruptionError),
        ({"parts": {}}, CorruptionError),
        ({"parts": [entry(0), entry(1), entry(2)]}, CorruptionError),
        ({"parts": [entry(1), entry(0)]}, CorruptionError),
        ({"parts": [entry(0), entry(0)]}, CorruptionError),
        ({"parts": [entry(0, file="../../../etc/passwd")]}, CorruptionError),
        ({"parts": [entry(0, file="../v0002/" + part_file(0, "0" * 64))]}, CorruptionError),
        ({"parts": [entry(0, file="/etc/passwd")]}, CorruptionError),
        ({"parts": [entry(0, file=part_file(0, "1" * 64))]}, CorruptionError),
        ({"parts": [entry(0, file=part_file(0, "0" * 64) + "\n")]}, CorruptionError),
        ({"parts": [entry(0, sha256="0" * 63)]}, CorruptionError),
        ({"parts": [entry(0, sha256="../x")]}, CorruptionError),
        ({"parts": [entry(0, customer_count=-1)]}, CorruptionError),
        ({"parts": [entry(0, customer_count=10**30)]}, CorruptionError),
        ({"parts": [entry(0, customer_count="1")]}, CorruptionError),
        ({"parts": [entry(0, more=1)]}, CorruptionError),
        ({"as_of": None}, CorruptionError),
        ({"as_of": "2020-02-30"}, CorruptionError),
        ({"as_of": 1}, CorruptionError),
        ({"indicators": ["spend"]}, CorruptionError),
        ({"indicators": ["visits", "spend"]}, CorruptionError),
        ({"indicators": ["spend", "spend"]}, CorruptionError),
        ({"indicator_scale": [1.0]}, CorruptionError),
        ({"indicator_scale": [1.0, 1e300]}, CorruptionError),
        ({"indicator_scale": [1.0, -1.0]}, CorruptionError),
        ({"attributes": {"age": "uint8"}}, CorruptionError),
        ({"attributes": []}, CorruptionError),
        ({"journal_offset": -1}, CorruptionError),
        ({"forgotten": ["é"]}, CorruptionError),
        ({"more": 1}, CorruptionError),
        ({"self": 1}, CorruptionError),
    ],
)
def test_a_forged_manifest_is_refused(
    base: Base, tmp_path: Path, change: dict[str, Any], kind: type[Exception]
) -> None:
    base.write(tmp_path / "base")
    path = tmp_path / "base" / "v0001" / "manifest.json"
    path.write_bytes(sealed({**parsed_json(path.read_bytes(), path), **change}))
    with pytest.raises(kind, match=r"manifest|does not hold what"):
        Base.read(tmp_path / "base")


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"3", b'"x"', b"{}", b"[" * 100_000, b'{"format": 2}', b"\xff", b"NaN"],
)
def test_what_is_no_manifest_is_refused(base: Base, tmp_path: Path, content: bytes) -> None:
    base.write(tmp_path / "base")
    (tmp_path / "base" / "v0001" / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"manifest\.json"):
        Base.read(tmp_path / "base")


def test_a_manifest_says_what_it_was_made_with() -> None:
    parts = (entry(0),)
    given = {"as_of": date(2020, 1, 1), "indicators": ("x",), "attributes": {"objected": "bool"}}
    manifest = Manifest.model_validate({**given, "indicator_scale": (0.5,), "parts": parts})
    assert Manifest.parse(manifest.to_bytes(), "x") == manifest


def forged_parts(base: Base) -> Iterator[tuple[str, Any]]:
    """Files that are whole but no part of a base, or not of this one, with their names."""
    content = part_bytes(base)
    with pa.ipc.open_file(content) as reader:
        batch, metadata = reader.get_batch(0), reader.schema.metadata

    def file(batches: list[pa.RecordBatch], metadata: Any = metadata) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        schema = batches[0].schema.with_metadata(metadata)
        with pa.ipc.new_file(sink, schema) as writer:
            for each in batches:
                writer.write_batch(each.replace_schema_metadata(metadata))
        return sink.getvalue()

    def with_column(name: str, column: Any) -> pa.Buffer:
        return file([batch.set_column(batch.schema.get_field_index(name), name, column)])

    ids = batch.column("customer_id")
    values = batch.column("indicators").flatten().to_numpy().copy()
    attributes, facts = batch.column("attributes"), batch.column("facts")
    struct = facts.flatten()
    yield "two batches", file([batch, batch])
    yield "no metadata", file([batch], {})
    yield "odd metadata", file([batch], {b"visavis.indicators": b"odd"})
    yield "columns in another order", file([batch.select([1, 0, 2, 3])])
    yield "a column too few", file([batch.select([0, 1, 2])])
    yield "a column of another type", with_column("indicators", ids)
    yield (
        "indicators as float64",
        with_column("indicators", batch.column("indicators").cast(pa.list_(pa.float64(), 2))),
    )
    yield (
        "another number of indicators",
        with_column("indicators", pa.FixedSizeListArray.from_arrays(pa.array(values[:3]), 1)),
    )
    for name, number in (("nan", np.nan), ("inf", np.inf)):
        wrong = values.copy()
        wrong[-1] = number
        yield name, with_column("indicators", pa.FixedSizeListArray.from_arrays(pa.array(wrong), 2))
    yield (
        "a null indicator",
        with_column(
            "indicators", pa.FixedSizeListArray.from_arrays(pa.array([1.0] * 5 + [None], "f4"), 2)
        ),
    )
    yield "ids in no order", with_column("customer_id", pa.array(["b", "a", "é"]))
    yield "an id twice", with_column("customer_id", pa.array(["a", "a", "é"]))
    yield "a null id", with_column("customer_id", pa.array(["a", "b", None]))
    yield "an empty id", with_column("customer_id", pa.array(["", "b", "é"]))
    yield "ids as bytes", with_column("customer_id", ids.cast(pa.binary()))
    yield "attributes of others", with_column("attributes", pa.array([{"objected": True}] * 3))
    yield "no objection", with_column("attributes", pa.array([{"age": 1}] * 3))
    fields = [attributes.field(each.name) for each in attributes.type]
    names = [each.name for each in attributes.type]
    unsaid = [
        pa.array([None] * 3, pa.bool_()) if n == "objected" else f
        for n, f in zip(names, fields, strict=True)
    ]
    yield "objection unknown", with_column("attributes", pa.StructArray.from_arrays(unsaid, names))
    yield "no attributes", with_column("attributes", ids)
    yield "facts as text", with_column("facts", ids)
    plain = pa.StructArray.from_arrays(
        [each.cast(each.type.value_type) if pa.types.is_dictionary(each.type) else each
         for each in struct.flatten()],
        [each.name for each in struct.type],
    )  # fmt: skip
    yield (
        "facts in plain text",
        with_column("facts", pa.LargeListArray.from_arrays(facts.offsets, plain)),
    )
    yield (
        "facts of nobody",
        with_column(
            "facts", pa.LargeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.int64()), struct)
        ),
    )
    yield (
        "a null list of facts",
        with_column(
            "facts",
            pa.LargeListArray.from_arrays(
                facts.offsets, struct, mask=pa.array([True, False, False])
            ),
        ),
    )
    for name, column in {
        "kind": pa.array(["eaten"] * 4).dictionary_encode(),
        "count": pa.array([0, 1, 1, 1]),
        "date": pa.array([10**9] * 4, pa.int32()).cast(pa.date32()),
        "product": pa.array([None] * 4, pa.string()).dictionary_encode(),
    }.items():
        columns = [
            column.cast(each.type) if each.name == name and name != "kind"
            else pa.DictionaryArray.from_arrays(column.indices.cast("int8"), column.dictionary)
            if each.name == name
            else struct.field(each.name)
            for each in struct.type
        ]  # fmt: skip
        wrong_facts = pa.StructArray.from_arrays(columns, [each.name for each in struct.type])
        yield (
            f"a wrong {name}",
            with_column("facts", pa.LargeListArray.from_arrays(facts.offsets, wrong_facts)),
        )
    yield "customers too few", part_bytes(Base.from_tables(INDICATORS.slice(1), as_of=AS_OF))
    yield "no Arrow", pa.py_buffer(b"ARROW1" * 99)
    yield "nothing", pa.py_buffer(b"")


def test_a_forged_part_is_refused(base: Base, tmp_path: Path) -> None:
    base.write(tmp_path / "base")
    folder = tmp_path / "base" / "v0001"
    manifest = parsed_json((folder / "manifest.json").read_bytes(), "")
    names = []
    for name, content in forged_parts(base):
        digest = bytes_digest(content)
        file = part_file(0, digest)
        (folder / file).write_bytes(content)
        changed = {**manifest["parts"][0], "file": file, "sha256": digest}
        (folder / "manifest.json").write_bytes(sealed({**manifest, "parts": [changed]}))
        with pytest.raises(CorruptionError, match=f"{file} (is no part|does not hold)"):
            pytest.fail(f"{name}: {Base.read(tmp_path / 'base')}")
        names.append(name)
    assert len(set(names)) >= 28


def test_customers_in_a_part_of_others_are_found_by_verify(tmp_path: Path) -> None:
    base = many(40)
    writer = VersionWriter(open_place(tmp_path / "base"), 2)
    whole = base.write(tmp_path / "whole", parts=2)
    writer.add(0, whole.part(1))
    writer.add(1, whole.part(0))
    stored = writer.publish()
    with pytest.raises(CorruptionError, match="part 0 holds customers of another"):
        stored.verify()
    whole.verify()


def test_verify_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    many(40).write(tmp_path / "base", parts=4).verify(progress=lambda *said: told.append(said))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
