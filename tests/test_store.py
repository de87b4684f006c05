"""A reader sees the whole or nothing, and whoever fails leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visavis import store
from visavis.errors import CorruptionError, InputError, StorageError
from visavis.store import (
    check_writable,
    file_digest,
    json_bytes,
    new_folder,
    read_bytes,
    read_json,
    read_parquet,
    remove,
    write_bytes,
    write_csv,
    write_json,
    write_parquet,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_file_digest_is_the_sha256_of_the_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_write_bytes_makes_the_folders_and_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "file"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o644
    assert names(path.parent) == ["file"]


def test_write_bytes_replaces_the_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"a long old content")
    with path.open("rb") as reader:
        write_bytes(path, b"new")
        assert reader.read() == b"a long old content", "who has it open reads on in the old one"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "fdopen"])
def test_a_write_that_fails_keeps_the_old_content_and_no_leftovers(
    tmp_path: Path, step: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    failing = mock.patch.object(store.files.os, step, side_effect=OSError("no space"))
    with failing, pytest.raises(StorageError, match="file cannot be written: no space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_over_a_folder_fails_without_leftovers(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder cannot be written: Is a directory"):
        write_bytes(tmp_path / "folder", b"new")
    assert names(tmp_path) == ["folder"]


def test_readers_never_see_a_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 100_000 for letter in b"ab"]
    write_bytes(path, contents[0])
    seen = []

    def read() -> None:
        seen.extend(path.read_bytes() for _ in range(200))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(30):
        write_bytes(path, contents[turn % 2])
    reader.join()
    assert set(seen) <= set(contents)


def test_a_table_is_written_whole_with_checksums_and_comes_back(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2]}).replace_schema_metadata({"visavis.notice": "drawn"})
    path = tmp_path / "x=1" / "table.parquet"
    write_parquet(path, table)
    assert names(path.parent) == ["table.parquet"]
    assert mode(path) == 0o644
    back = read_parquet(path)
    assert back.equals(table, check_metadata=True), "its folder's name adds no column"
    assert pq.read_table(path, page_checksum_verification=True, partitioning=None).equals(table)


def test_a_table_that_fails_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(path, pa.table({"x": [1]}))

    def fail(_: pa.Table, stream: Any, **__: object) -> None:
        stream.write(b"PAR1")
        raise OSError(28, "No space left on device")

    failing = mock.patch.object(pq, "write_table", fail)
    with failing, pytest.raises(StorageError, match="No space left on device") as caught:
        write_parquet(path, pa.table({"x": [2]}))
    assert caught.value.path == str(path)
    assert read_parquet(path).to_pydict() == {"x": [1]}
    assert names(tmp_path) == ["table.parquet"]


def test_csv_is_written_whole_and_text_in_quotes(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", pa.table({"x": ['a"b', ""], "y": [0.1, 1e-300]}))
    assert (tmp_path / "x.csv").read_bytes() == b'"x","y"\n"a""b",0.1\n"",1e-300\n'
    assert names(tmp_path) == ["x.csv"]


def test_what_is_removed_is_gone_and_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"x")
    for _ in range(2):
        remove(tmp_path / "file")
        assert names(tmp_path) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder cannot be removed: "):
        remove(tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(99) + b"PAR1", b"a,b\n1,2\n"])
def test_what_is_no_parquet_is_wrong_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_parquet(path, field="facts")
    assert caught.value.field == "facts"


@pytest.mark.parametrize("read", [read_bytes, read_parquet])
def test_what_is_not_there_is_wrong_input_not_a_fault(tmp_path: Path, read: Any) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file" / "none"):
        with pytest.raises(InputError, match="none does not exist") as caught:
            read(path, field="--facts")
        assert caught.value.field == "--facts"
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(StorageError, match="cannot be read: File name too long"):
        read(tmp_path / ("x" * 300))


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none cannot be read: No such file") as caught:
        file_digest(tmp_path / "none")
    assert isinstance(caught.value.__cause__, OSError)


def test_what_could_not_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "file")
    check_writable(tmp_path / "file")
    assert names(tmp_path) == [], "asking leaves no trace"
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "file")
    with pytest.raises(InputError, match="is a folder") as caught:
        check_writable(tmp_path, field="--out")
    assert caught.value.field == "--out"
    with pytest.raises(StorageError, match="file is no folder"):
        check_writable(tmp_path / "file" / "none" / "x")
    with pytest.raises(StorageError, match="too long"):
        check_writable(tmp_path / ("x" * 300))
    refused = mock.patch.object(store.files.os, "access", return_value=False)
    with refused, pytest.raises(StorageError, match="no permission to write in"):
        check_writable(tmp_path / "new")


@pytest.mark.parametrize("path", ["file/out", "file/deep/out", "x" * 300])
def test_what_the_system_refuses_names_path_and_reason(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"{path} cannot be written: "):
        write_bytes(tmp_path / path, b"new")
    with (
        pytest.raises(StorageError, match=f"{path} cannot be written: "),
        new_folder(tmp_path / path),
    ):
        pytest.fail("the block must not run")


def test_a_file_that_fails_inside_a_folder_leaves_no_folder(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "none" / "file").write_text("")

    with pytest.raises(StorageError, match="out cannot be written: No such file"):
        fill()
    assert names(tmp_path) == []


def test_json_is_canonical_and_comes_back(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"é𝄞": "ü"}}
    write_json(tmp_path / "file.json", content)
    raw = (tmp_path / "file.json").read_bytes()
    assert raw == json_bytes(dict(reversed(content.items())))
    assert raw.endswith(b"}\n")
    assert "é𝄞".encode() in raw
    assert raw.index(b'"a"') < raw.index(b'"b"')
    assert read_json(tmp_path / "file.json") == content


def test_json_that_no_standard_knows_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"ev": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": \xff}', b"[" * 100_000, b"{} {}"])
def test_json_that_is_damaged_is_a_corruption(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"file\.json is damaged"):
        read_json(tmp_path / "file.json")


@pytest.mark.parametrize("path", ["none.json", "folder/none.json", "file/none.json"])
def test_json_that_is_not_there_is_an_error_of_the_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist") as caught:
        read_json(tmp_path / path)
    assert caught.value.field == "path"


def test_a_folder_appears_as_a_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "out"
    with new_folder(path) as folder:
        (folder / "file").write_text("1")
        (folder / "inner" / "deep").mkdir(parents=True)
        (folder / "inner" / "deep" / "file").write_text("2")
        assert not path.exists()
        assert folder.parent == path.parent, "beside its place: a rename does not copy"
    assert (path / "file").read_text() == "1"
    assert (path / "inner" / "deep" / "file").read_text() == "2"
    assert mode(path) == 0o755
    assert names(path.parent) == ["out"]


def test_every_file_and_folder_is_on_disk_before_the_folder_appears(tmp_path: Path) -> None:
    path = tmp_path / "out"
    synced: list[str] = []

    def fsync(handle: int) -> None:
        assert not path.exists() or synced[-1] != "out"
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    with mock.patch.object(store.files.os, "fsync", fsync), new_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("1")
        staging = folder.name
    assert sorted(synced[:-1]) == sorted(["inner", "file", staging])
    assert synced[-1] == tmp_path.name, "the rename itself comes last"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_the_block_leaves_nothing_behind(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("1")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_an_error_inside_the_block_keeps_what_was_to_be_replaced(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(ValueError, match="oh"), new_folder(tmp_path / "out", replace=True):
        raise ValueError("oh")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link to nowhere"])
def test_what_stands_there_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "out", kind)
    with pytest.raises(InputError, match="never overwritten") as caught, new_folder(path):
        pytest.fail("the block must not run")
    assert caught.value.field == "path"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link to nowhere", "nothing"])
def test_what_stands_there_is_replaced_when_asked(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "out", kind)
    with new_folder(path, replace=True) as folder:
        (folder / "new").write_text("new")
    assert names(path) == ["new"]
    assert names(tmp_path) == ["out"]


def make(path: Path, kind: str) -> Path:
    if "folder" in kind:
        path.mkdir()
    if kind == "folder":
        (path / "old").write_text("old")
    if kind == "file":
        path.write_text("old")
    if kind.startswith("link"):
        path.symlink_to(path.parent / "nowhere")
    return path


@pytest.mark.parametrize("replace", [False, True])
def test_a_rename_that_fails_otherwise_says_why(tmp_path: Path, replace: bool) -> None:
    refused = mock.patch.object(
        store.files.Path, "rename", side_effect=PermissionError("read-only")
    )
    with (
        pytest.raises(StorageError, match="out cannot be written: read-only"),
        refused,
        new_folder(tmp_path / "out", replace=replace),
    ):
        pass
    assert names(tmp_path) == []


def test_of_two_writers_one_wins_and_one_hears_of_it(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def race() -> None:
        with new_folder(path) as slow:
            (slow / "file").write_text("slow")
            with new_folder(path) as fast:
                (fast / "file").write_text("fast")

    with pytest.raises(InputError, match="exists already"):
        race()
    assert (path / "file").read_text() == "fast"
    assert names(tmp_path) == ["out"]


def test_many_writers_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    path, lost = tmp_path / "out", []

    def write(number: int, replace: bool) -> None:
        try:
            with new_folder(path, replace=replace) as folder:
                for part in range(5):
                    (folder / f"{part}.json").write_text(json.dumps(number))
        except InputError:
            lost.append(number)

    for replace in (False, True):
        lost.clear()
        writers = [threading.Thread(target=write, args=(number, replace)) for number in range(12)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert names(tmp_path) == ["out"]
        assert names(path) == [f"{part}.json" for part in range(5)]
        assert len({file.read_text() for file in path.iterdir()}) == 1
        assert len(lost) == (0 if replace else 11)


def test_a_reader_never_sees_half_of_a_folder_that_is_replaced(tmp_path: Path) -> None:
    path, seen = tmp_path / "out", []
    remove = os.unlink

    def unlink(*names_of_file: Any, **options: Any) -> None:
        remove(*names_of_file, **options)
        seen.append(names(path) if path.exists() else [])

    with new_folder(path) as folder:
        for part in range(9):
            (folder / f"old {part}").write_text("old")
    with mock.patch("os.unlink", unlink), new_folder(path, replace=True) as folder:
        (folder / "new").write_text("new")
    assert len(seen) >= 9, "this did not watch the old files go"
    assert all(each in ([], ["new"]) for each in seen)
    assert names(path) == ["new"]
