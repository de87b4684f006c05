"""Places: a name leads to the whole content or to nothing, and what stands is never overwritten."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from obstore.store import MemoryStore

from visavis.errors import CorruptionError, ExtraError, InputError, StorageError
from visavis.store import bytes_digest, faults, local_file, open_place
from visavis.store import places as places_module
from visavis.store.buckets import Bucket
from visavis.store.places import Folder, Place

CONTENT = bytes(range(256)) * 40
DIGEST = bytes_digest(CONTENT)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_plan() -> Iterator[None]:
    yield
    faults.install(None)


@pytest.fixture
def no_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without unnamed files."""
    whole = os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return whole(path, flags, *more, **named)

    monkeypatch.setattr(places_module.os, "open", refuse)


@pytest.fixture(params=["folder", "folder without unnamed files", "memory", "file"])
def place(request: Any, tmp_path: Path) -> Place:
    if request.param == "memory":
        return Bucket(MemoryStore(), "memory://", "some/prefix")
    if request.param == "file":
        return open_place(f"file://{tmp_path}/é%20o/base")
    if request.param != "folder":
        request.getfixturevalue("no_unnamed")
    return open_place(tmp_path / "é o" / "base")


def everything(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("cache"))


# What every place does.


def test_what_is_created_is_there_whole_and_once(place: Place) -> None:
    assert place.names() == []
    assert place.read("a/b") is None
    assert place.create("a/b", CONTENT) is True
    assert place.create("a/b", b"other") is False
    assert place.create("a/b", CONTENT) is False
    assert place.create("a/empty", b"") is True
    assert place.create("top", pa.py_buffer(b"buffer")) is True
    assert place.read("a/b") == CONTENT
    assert place.read("a/empty") == b""
    assert place.read("top") == b"buffer"
    assert place.names() == ["a/b", "a/empty", "top"]


def test_names_are_those_below_a_folder(place: Place) -> None:
    for name in ("v0001/a", "v0001/deep/b", "v00010/c", "v0002/d", "e"):
        place.create(name, b"x")
    assert place.names("v0001") == ["v0001/a", "v0001/deep/b"]
    assert place.names("none") == []
    assert place.at("v0001").names() == ["a", "deep/b"]
    assert place.at("v0001").at("deep").read("b") == b"x"
    assert str(place.at("v0001")) == f"{place}/v0001"


def test_what_is_replaced_is_the_new_whole(place: Place) -> None:
    for content in (b"old", CONTENT, b"", b"new"):
        place.replace("a/b", content)
        assert place.read("a/b") == content
        assert place.names() == ["a/b"]


def test_what_is_removed_is_gone(place: Place) -> None:
    for name in "abc":
        place.create(f"f/{name}", b"x")
    place.remove("f/a", "f/none", "f/c")
    assert place.names() == ["f/b"]
    place.remove("f/a", "none/at/all")
    place.remove_folder("f")
    assert place.names() == ["f/b"]
    place.remove()
    place.remove("f/b")
    place.remove_folder("f")
    place.remove_leftovers()
    assert place.names() == []


def test_what_is_fetched_fits_its_digest(place: Place) -> None:
    place.create("a", CONTENT)
    for _ in range(2):
        assert place.fetch("a", DIGEST).to_pybytes() == CONTENT
    with pytest.raises(CorruptionError, match=f"{place}/b is missing"):
        place.fetch("b", bytes_digest(b"other"))
    with pytest.raises(CorruptionError, match=f"{place}/a does not fit its digest"):
        place.fetch("a", bytes_digest(b"other"))
    place.replace("a", b"")
    with pytest.raises(CorruptionError, match="does not fit"):
        place.fetch("a", bytes_digest(b"another"))


def test_of_many_threads_one_creates(place: Place) -> None:
    won: list[bytes] = []

    def create(number: int) -> None:
        content = bytes([number]) * 50_000
        if place.create("a/b", content):
            won.append(content)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [place.read("a/b")] == won
    assert place.names() == ["a/b"]


def test_threads_that_replace_at_once_leave_one_whole(place: Place) -> None:
    failed: list[BaseException] = []
    contents = [bytes([number]) * 50_000 for number in range(8)]

    def replace(content: bytes) -> None:
        try:
            for _ in range(10):
                place.replace("a/b", content)
                assert place.read("a/b") in contents
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=replace, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert place.read("a/b") in contents
    assert place.names() == ["a/b"]


def test_an_error_of_the_system_names_what_was_done_to_what(place: Place, cache: Path) -> None:
    """Each operation fails in its turn, with each error; then nothing half-done is there."""
    place.create("there", CONTENT)
    for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE", "ENAMETOOLONG"):
        for done, what in (
            (lambda: place.create("a/b", CONTENT), "a/b"),
            (lambda: place.replace("there", CONTENT), "there"),
            (lambda: place.read("there"), "there"),
            (lambda: place.names(), ""),
            (lambda: place.fetch("there", DIGEST), "there"),
            (lambda: place.remove("a/b"), "a/b"),
        ):
            for number in range(1, 99):
                plan = faults.Plan.parse(f"{name}:{number}")
                faults.install(plan)
                try:
                    done()
                except StorageError as error:
                    # What is fetched is kept in the cache, where writing may fail as well.
                    is_cached = str(error).startswith(str(cache)) and what == "there"
                    assert is_cached or str(error).startswith(f"{place}/{what[:1]}".rstrip("/"))  # noqa: PT017
                    assert os.strerror(getattr(errno, name)) in str(error)  # noqa: PT017
                finally:
                    faults.install(None)
                assert place.read("there") == CONTENT
                assert place.read("a/b") in (None, CONTENT)
                assert set(place.names()) <= {"a/b", "there"}
                if plan.count < number:
                    break
            else:
                pytest.fail("operations without end")
            assert plan.count > 0, "every one of these is an operation"


# Folders.


def test_files_of_a_folder_are_as_they_should_be(tmp_path: Path) -> None:
    place = open_place(tmp_path / "base")
    place.create("a/b", b"x")
    place.replace("a/c", b"x")
    for name in ("a/b", "a/c"):
        path = tmp_path / "base" / name
        assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
        assert path.stat().st_nlink == 1
    assert everything(tmp_path) == ["base", "base/a", "base/a/b", "base/a/c"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_every_file_and_folder_is_on_disk_before_create_returns(
    tmp_path: Path, monkeypatch: Any
) -> None:
    synced: list[str] = []
    whole = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        is_there = (tmp_path / "deep" / "base" / "v1" / "file").exists()
        synced.append(f"{path.name.startswith('#') or path.name}:{is_there}")
        whole(handle)

    monkeypatch.setattr(places_module.os, "fsync", fsync)
    open_place(tmp_path / "deep" / "base").create("v1/file", CONTENT)
    assert synced == [
        *(f"{tmp_path.name}:False", "deep:False", "base:False"),
        *("True:False", "v1:True"),
    ]


def test_a_folder_that_a_killed_writer_made_is_synchronised_by_the_next(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "base" / "v1").mkdir(parents=True)
    synced: list[str] = []
    monkeypatch.setattr(
        places_module.os,
        "fsync",
        lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink().name),
    )
    place = open_place(tmp_path / "base")
    place.create("v1/a", b"x")
    assert {tmp_path.name, "base", "v1"} <= set(synced)
    synced.clear()
    place.create("v1/b", b"x")
    assert [name for name in synced if not name.startswith("#")] == ["v1"], "once is enough"
    # A folder of the same number at another path is another one.
    (tmp_path / "base" / "v1").rename(tmp_path / "base" / "v2")
    synced.clear()
    place.create("v2/c", b"x")
    assert {"base", "v2"} <= set(synced)


@pytest.mark.parametrize("where", [".", "", "/"])
def test_a_folder_may_be_that_of_the_process_or_the_root(
    tmp_path: Path, where: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    place = open_place(Path(where))
    name = f"{tmp_path}/x".lstrip("/") if where == "/" else "x"
    assert place.create(name, b"x")
    assert (tmp_path / "x").read_bytes() == b"x"


def test_what_a_writer_still_holds_is_no_leftover(tmp_path: Path, no_unnamed: None) -> None:
    place = Folder(tmp_path)
    with places_module.unnamed_file(tmp_path) as staged:
        staged.write(b"half")
        Folder(tmp_path).remove_leftovers()
        assert len(everything(tmp_path)) == 1
        assert place.names() == []
        staged.write(b" whole")
        staged.link(tmp_path / "file")
    (tmp_path / ".0123.staged").write_text("left")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".file.0123.staged").write_text("left")
    (tmp_path / ".mine").write_text("somebody's")
    place.remove_leftovers()
    assert everything(tmp_path) == [".mine", "deep", "file"]
    assert place.read("file") == b"half whole"


def test_replacing_takes_away_what_a_killed_one_left_of_the_same_name(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    for name in (".a.0123.staged", ".[a].0123.staged", ".ab.0123.staged"):
        (tmp_path / name).write_text("left")
    place.replace("a", b"new")
    assert everything(tmp_path) == [".[a].0123.staged", ".ab.0123.staged", "a"]
    place.replace("[a]", b"new")
    assert everything(tmp_path) == [".ab.0123.staged", "[a]", "a"]


def test_a_folder_that_vanishes_while_it_is_written_to_is_made_again(
    tmp_path: Path, monkeypatch: Any
) -> None:
    place = Folder(tmp_path / "base")
    for write in (place.create, place.replace):
        whole, calls = places_module.unnamed_file, []

        def vanish(folder: Path) -> Any:
            calls.append(folder)  # noqa: B023
            if len(calls) == 1:  # noqa: B023
                folder.rmdir()
            return whole(folder)  # noqa: B023

        monkeypatch.setattr(places_module, "unnamed_file", vanish)
        write(f"v{len(place.names())}/file", CONTENT)
        monkeypatch.setattr(places_module, "unnamed_file", whole)
    assert place.names() == ["v0/file", "v1/file"]


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    place = Folder(tmp_path)
    for write in (place.create, place.replace):
        with pytest.raises(StorageError, match="file/below cannot be written: "):
            write("file/below", b"x")
        with pytest.raises(StorageError, match="x cannot be written: File name too long"):
            write("x" * 300, b"x")
    assert place.create("folder", b"x") is False
    assert place.create("link", b"x") is False, "a link to nowhere is something, too"
    with pytest.raises(StorageError, match="folder cannot be written: Is a directory"):
        place.replace("folder", b"x")
    for read in (place.read, lambda name: place.fetch(name, DIGEST)):
        with pytest.raises(StorageError, match="folder cannot be read: "):
            read("folder")
    with pytest.raises(StorageError, match="folder cannot be removed: "):
        place.remove("folder")
    assert everything(tmp_path) == ["file", "folder", "link"]


def test_a_listing_that_fails_is_no_empty_one(tmp_path: Path, monkeypatch: Any) -> None:
    place = Folder(tmp_path)
    place.create("a/b", b"x")
    whole = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("a"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match="cannot be read: Input/output error"):
        place.names()


def test_a_write_that_takes_half_at_a_time_is_gone_on_with(tmp_path: Path) -> None:
    for number in range(1, 12):
        place = Folder(tmp_path / str(number))
        faults.install(faults.Plan.parse(f"short:{number}"))
        place.create("a", CONTENT)
        place.replace("b", CONTENT)
        faults.install(None)
        assert place.read("a") == place.read("b") == CONTENT


def test_a_place_goes_to_a_worker(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for where in (Path("base"), f"file://{tmp_path}/other"):
        place = open_place(where).at("deep")
        place.create("a", CONTENT)
        sent = pickle.dumps(place)
        monkeypatch.chdir("/")
        assert pickle.loads(sent).read("a") == CONTENT  # noqa: S301
        monkeypatch.chdir(tmp_path)


# Processes, and processes that are killed.


def _create_in_child(folder: str, number: int, gate: Any, answers: Any) -> None:
    gate.wait()
    content = bytes([number]) * 200_000
    answers.put((number, open_place(folder).create("v/part", content)))


def test_of_many_processes_one_creates(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    folder = str(tmp_path / "base")
    children = [
        context.Process(target=_create_in_child, args=(folder, number, gate, answers))
        for number in range(4)
    ]
    for child in children:
        child.start()
    found = dict(answers.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    winners = [number for number, is_new in found.items() if is_new]
    assert len(winners) == 1
    assert open_place(folder).read("v/part") == bytes(winners) * 200_000
    assert open_place(folder).names() == ["v/part"]


_SCRIPT = """
import errno, os, sys
from visavis.store import open_place, places
if sys.argv[2] == "hidden":
    whole = os.open
    def refuse(path, flags, *more, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "")
        return whole(path, flags, *more, **named)
    places.os.open = refuse
content = bytes(range(256)) * 40
place = open_place(sys.argv[1])
place.create("v/a", content)
place.replace("v/b", content)
place.remove("v/c")
print("done")
"""


@pytest.mark.parametrize("kind", ["unnamed", "hidden"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_any_operation_leaves_nothing_half_written(
    tmp_path: Path, when: str, kind: str
) -> None:
    for number in range(1, 60):
        folder = tmp_path / str(number)
        place = open_place(folder)
        place.create("v/b", b"old")
        place.create("v/c", b"old")
        status = _killed_child(folder, kind, f"kill-{when}:{number}")
        for name, allowed in (
            ("v/a", (None, CONTENT)),
            ("v/b", (b"old", CONTENT)),
            ("v/c", (b"old", None)),
        ):
            assert place.read(name) in allowed
        assert set(place.names()) <= {"v/a", "v/b", "v/c"}
        # The next writer is not held up, and what is left is taken away.
        place.create("v/a", CONTENT)
        place.replace("v/b", CONTENT)
        place.remove_leftovers()
        assert set(everything(folder)) <= {"v", "v/a", "v/b", "v/c"}
        if status == 0:
            assert number > 10
            return
        assert status == -signal.SIGKILL
    pytest.fail("operations without end")


def _killed_child(folder: Path, kind: str, plan: str) -> int:
    """The status of a child that runs `_SCRIPT` under a plan: forked, as Python starts slowly."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_run_script, args=(str(folder), kind, plan))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _run_script(folder: str, kind: str, plan: str) -> None:
    sys.argv = ["x", folder, kind]
    places_module._lasting.clear()
    faults.install(faults.Plan.parse(plan))
    exec(_SCRIPT, {})  # noqa: S102


def test_the_plan_of_a_child_stands_in_its_environment(tmp_path: Path) -> None:
    def run(plan: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(tmp_path / "base"), "unnamed"],
            env={**os.environ, "VISAVIS_FAULT": plan},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert run("kill-before:1").returncode == -signal.SIGKILL
    assert everything(tmp_path) == []
    refused = run("ENOSPC:1")
    assert refused.returncode == 1
    assert "StorageError" in refused.stderr
    assert "No space left on device" in refused.stderr
    assert "no such fault" in run("EODD:1").stderr
    assert run("EIO:0").stdout == "done\n"


# A disk that is full.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where one may be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    given = (b"none", str(path).encode(), b"tmpfs", 0, b"size=256k")
    if libc.mount(*given) != 0:
        pytest.skip(f"nothing can be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield path
    finally:
        assert libc.umount2(str(path).encode(), 2) == 0


def _fill(place: Place, write: Callable[[str, bytes], object]) -> None:
    before = place.names()
    for number in range(99):
        try:
            write(f"v/{number}", bytes(30_000))
        except StorageError as error:
            found = error
            break
    assert str(found) == f"{place}/v/{number} cannot be written: No space left on device"
    assert len(place.names()) - len(before) == number > 2


def test_a_full_disk_leaves_whole_files_and_room_to_go_on(small_disk: Path) -> None:
    place = open_place(small_disk / "base")
    for write in (place.create, place.replace):
        _fill(place, write)
        assert all(place.read(name) == bytes(30_000) for name in place.names())
        assert not [path for path in small_disk.rglob("*") if path.name.startswith(".")]
        place.remove(*place.names())
        assert place.create("w", bytes(100_000))
        place.remove("w")


def test_a_limit_on_the_size_of_files_is_an_error_like_others(tmp_path: Path) -> None:
    place = open_place(tmp_path / "base")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        for write in (place.create, place.replace):
            with pytest.raises(StorageError, match="v/a cannot be written: File too large"):
                write("v/a", CONTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert everything(tmp_path) == ["base", "base/v"]


# Object stores and what is kept of them.


@pytest.mark.parametrize("url", ["foo://bar", "s3://", "file://host/x", "://", "é://x"])
def test_what_no_object_store_knows_is_wrong_input(url: str) -> None:
    with pytest.raises(InputError, match="no object store at") as caught:
        open_place(url)
    assert caught.value.field == "path"


def test_without_obstore_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ExtraError, match=r"visavis\[objects\]"):
        open_place("s3://bucket/prefix")


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/none/base")
    assert place.names() == []
    assert place.read("a") is None
    with pytest.raises(CorruptionError, match="is missing"):
        place.fetch("a", DIGEST)
    assert everything(tmp_path) == []
    with pytest.raises(InputError, match="does not exist"):
        local_file(f"file://{tmp_path}/typo/x.csv")
    assert everything(tmp_path) == []


def test_what_a_store_refuses_names_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Bucket(MemoryStore(), "s3://bucket", "base")

    def refuse(*_: object, **__: object) -> None:
        raise obstore.exceptions.PermissionDeniedError("denied\n\nDebug source: secrets")

    for name in ("put", "get", "list", "delete"):
        monkeypatch.setattr(obstore, name, refuse)
    for done, what in (
        (lambda: place.create("a", b"x"), "s3://bucket/base/a cannot be written: denied"),
        (lambda: place.replace("a", b"x"), "s3://bucket/base/a cannot be written: denied"),
        (lambda: place.read("a"), "s3://bucket/base/a cannot be read: denied"),
        (lambda: place.fetch("a", DIGEST), "s3://bucket/base/a cannot be read: denied"),
        (lambda: place.names(), "s3://bucket/base cannot be read: denied"),
        (lambda: place.remove("a"), "s3://bucket/base/a cannot be removed: denied"),
    ):
        with pytest.raises(StorageError) as caught:
            done()
        assert str(caught.value) == what


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    whole = obstore.get

    def get(store: Any, path: str) -> Any:
        asked.append(path)
        return whole(store, path)

    monkeypatch.setattr(obstore, "get", get)
    return asked


def test_what_was_fetched_is_kept_and_mapped(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    place = Bucket(MemoryStore(), "memory://")
    place.create("a", CONTENT)
    place.create("b", CONTENT)
    for name in "aab":
        assert place.fetch(name, DIGEST).to_pybytes() == CONTENT
    assert asked == ["a"]
    assert everything(cache) == [DIGEST]


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT + b"x", bytes(len(CONTENT))])
def test_a_cached_object_that_is_damaged_is_fetched_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    asked = counted(monkeypatch)
    place = Bucket(MemoryStore(), "memory://")
    place.create("a", CONTENT)
    place.fetch("a", DIGEST)
    (cache / DIGEST).write_bytes(damage)
    assert place.fetch("a", DIGEST).to_pybytes() == CONTENT
    assert place.fetch("a", DIGEST).to_pybytes() == CONTENT
    assert asked == ["a", "a"]
    assert everything(cache) == [DIGEST]


def test_the_cache_holds_what_it_may_and_forgets_what_was_used_longest_ago(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_CACHE_BYTES", "3500")
    place = Bucket(MemoryStore(), "memory://")
    contents = [bytes([number]) * 1_000 for number in range(6)]
    digests = [bytes_digest(content) for content in contents]
    for number, content in enumerate(contents):
        place.create(str(number), content)

    def fetch(number: int) -> pa.Buffer:
        found = place.fetch(str(number), digests[number])
        assert found.to_pybytes() == contents[number]
        for age, other in enumerate(ages := [n for n in used if n != number] + [number]):
            if (cache / digests[other]).exists():
                os.utime(cache / digests[other], (age, age))
        used[:] = ages
        return found

    used: list[int] = []
    mapped = [fetch(number) for number in (0, 1, 2, 0, 3)]
    held = {number for number, digest in enumerate(digests) if (cache / digest).exists()}
    assert held == {0, 2, 3}
    assert mapped[1].to_pybytes() == contents[1], "whoever has it mapped keeps it"
    fetch(4)
    fetch(5)
    held = {number for number, digest in enumerate(digests) if (cache / digest).exists()}
    assert held == {3, 4, 5}
    monkeypatch.setenv("VISAVIS_CACHE_BYTES", "10")
    place.create("large", CONTENT)
    assert place.fetch("large", DIGEST).to_pybytes() == CONTENT
    assert everything(cache) == [DIGEST], "what was just asked for stays, however large"
    (cache / "thesis.doc").write_bytes(bytes(5_000))
    assert place.fetch("0", digests[0]).to_pybytes() == contents[0]
    assert everything(cache) == sorted([digests[0], "thesis.doc"]), "what is somebody's own stays"


def test_a_cache_that_another_process_empties_takes_nothing_away(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(MemoryStore(), "memory://")
    place.create("a", CONTENT)
    whole = Folder.create

    def create(folder: Folder, name: str, content: Any) -> bool:
        is_new = whole(folder, name, content)
        (folder.path / name).unlink()
        return is_new

    monkeypatch.setattr(Folder, "create", create)
    assert place.fetch("a", DIGEST).to_pybytes() == CONTENT


@pytest.mark.parametrize("given", ["much", "1e9", "-"])
def test_a_bound_that_is_no_number_is_refused(monkeypatch: Any, given: str) -> None:
    monkeypatch.setenv("VISAVIS_CACHE_BYTES", given)
    place = Bucket(MemoryStore(), "memory://")
    place.create("a", CONTENT)
    with pytest.raises(InputError) as caught:
        place.fetch("a", DIGEST)
    assert caught.value.field == "VISAVIS_CACHE_BYTES"


def test_the_cache_stands_where_the_user_says(tmp_path: Path, monkeypatch: Any) -> None:
    place = Bucket(MemoryStore(), "memory://")
    place.create("a", CONTENT)
    monkeypatch.delenv("VISAVIS_CACHE")
    for variable, folder in (("HOME", "home/.cache/visavis"), ("XDG_CACHE_HOME", "xdg/visavis")):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(variable, str(tmp_path / folder.split("/")[0]))
        place.fetch("a", DIGEST)
        assert (tmp_path / folder / DIGEST).read_bytes() == CONTENT


# Files that are read by URL.


def test_a_file_by_url_is_fetched_once_and_again_when_it_changed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "é o"
    folder.mkdir()
    (folder / "a 1.csv").write_bytes(b"one")
    url = f"file://{tmp_path}/é%20o/a%201.csv"
    found = local_file(url)
    assert found.read_bytes() == b"one"
    assert found.name.endswith("-a 1.csv")
    assert found.parent == cache
    assert local_file(url) == found
    (folder / "a 1.csv").write_bytes(b"three")
    again = local_file(url)
    assert (found.read_bytes(), again.read_bytes()) == (b"one", b"three")
    assert len(everything(cache)) == 2
    monkeypatch.setenv("VISAVIS_CACHE_BYTES", "1")
    (folder / "a 1.csv").write_bytes(b"fours")
    assert local_file(url).read_bytes() == b"fours"
    assert len(everything(cache)) == 1
    with pytest.raises(InputError, match="none does not exist") as caught:
        local_file(f"file://{tmp_path}/none", field="facts")
    assert caught.value.field == "facts"
    assert local_file(folder / "a 1.csv") == folder / "a 1.csv"
    assert local_file("é o/a.csv") == Path("é o/a.csv")
