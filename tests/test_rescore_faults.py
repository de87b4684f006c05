"""Jobs killed before and after everything they do to a file: the same bytes, and nothing else."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import drivers
from disks import tiny_disk
from drivers import Drivers, operations
from visavis.base import StoredBase
from visavis.base.stored import MANIFEST as VERSION_MANIFEST
from visavis.base.stored import version_folder, versions_at
from visavis.errors import InputError, StorageError
from visavis.rescore import Result, ResultManifest, job
from visavis.rescore import part as parts_of_results
from visavis.rescore.plan import PLAN
from visavis.rescore.results import MANIFEST
from visavis.schedule import run_parts
from visavis.store import Folder, faults

__all__ = ["tiny_disk"]

pytestmark = pytest.mark.faults

#: Kills at random; `make test-long` asks for more.
KILLS = int(os.environ.get("VISAVIS_KILLS", "200"))

READS = 10_000

#: What a reader hears while a job is not done.
NOT_THERE = r"holds no result|is not finished"


@pytest.fixture(scope="module")
def crew() -> Iterator[Drivers]:
    with Drivers() as started:
        yield started


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    drivers.write_world(folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_parts", partial(run_parts, patience=drivers.QUICK))


def files(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, bytes]]:
    """The files of a job that nothing disturbed, without and with the journal."""
    found = {}
    for journal in (False, True):
        out = tmp_path_factory.mktemp("whole")
        drivers.rescore(str(world), str(out), journal=journal).result.verify()
        found[journal] = files(out)
        assert len(found[journal]) == 3 + 4, "plan, manifest, marks and four parts"
    assert found[False].keys() != found[True].keys()
    return found


def check(out: Path, wanted: dict[str, bytes]) -> None:
    """Either the whole result is there, or no reader takes anything for one."""
    if not (out / MANIFEST).exists():
        with pytest.raises(InputError, match=NOT_THERE):
            Result.open(out)
        return
    Result.open(out).verify()
    held = files(out)
    assert {name: held[name] for name in wanted} == wanted


def resumed(world: Path, out: Path, wanted: dict[str, bytes], *, journal: bool = False) -> None:
    drivers.rescore(str(world), str(out), journal=journal).result.verify()
    assert files(out) == wanted


#: With the journal the job does the same, and one thing more: it looks what was planned.
EVERYWHERE = [
    ("kill-before", False),
    ("kill-after", False),
    ("ENOSPC", False),
    ("EIO", False),
    ("short", False),
    ("kill-before", True),
]


@pytest.mark.parametrize(("what", "journal"), EVERYWHERE)
def test_a_fault_at_any_operation_leaves_the_same_result_to_go_on_to(
    crew: Drivers,
    world: Path,
    whole: dict[bool, dict[str, bytes]],
    tmp_path: Path,
    what: str,
    journal: bool,
) -> None:
    count = operations(drivers.rescore, str(world), str(tmp_path / "count"), journal=journal)
    assert count > 40
    ends = set()

    def start(number: int) -> int:
        out = tmp_path / f"{number}"
        return crew.start("rescore", world, out, fault=f"{what}:{number}", journal=journal)

    for number, status in crew.in_turn(count, start):
        out = tmp_path / f"{number}"
        ends.add(status)
        check(out, whole[journal])
        if status == 0:
            assert files(out) == whole[journal], f"{what}:{number}"
        resumed(world, out, whole[journal], journal=journal)
    # A part whose file was refused is tried again: only elsewhere does an error end the job.
    expected = {"k": {-signal.SIGKILL}, "E": {0, drivers.REFUSED}, "s": {0}}
    assert ends == expected[what[0]]


class Reader(threading.Thread):
    """Opens whatever result stands at a place, all the time."""

    def __init__(self, out: Path, wanted: dict[str, bytes]) -> None:
        super().__init__()
        self.out, self.wanted = out, wanted
        self.reads = self.found = 0
        self.error: BaseException | None = None
        self.is_over = False

    def run(self) -> None:
        try:
            while not self.is_over:
                self._read(self.out)
                self.reads += 1
        except BaseException as error:
            self.error = error

    def _read(self, out: Path) -> None:
        try:
            result = Result.open(out)
        except InputError as error:
            if re.search(NOT_THERE, str(error)) is None:
                raise
            return
        assert result.manifest.to_bytes() == self.wanted[MANIFEST]
        result.verify()
        self.found += 1


def test_kills_at_random_moments_show_no_reader_anything_but_the_whole(
    crew: Drivers, world: Path, whole: dict[bool, dict[str, bytes]], tmp_path: Path
) -> None:
    draw = random.Random(3)
    began = time.perf_counter()
    assert crew.run("rescore", world, tmp_path / "timed", threads=2) == 0
    usual_s = time.perf_counter() - began
    kills = 0
    reader = Reader(tmp_path / "none", whole[False])
    reader.start()
    try:
        while kills < KILLS:
            out = reader.out = tmp_path / f"{kills}"
            # Several in a row: each goes on where the one before it was killed.
            for _ in range(draw.randint(1, 4)):
                if draw.random() < 0.5:
                    number = draw.randint(1, 50)
                    fault = f"{draw.choice(['kill-before', 'kill-after'])}:{number}"
                    status = crew.run("rescore", world, out, fault=fault, threads=2)
                else:
                    child = crew.start("rescore", world, out, threads=2)
                    time.sleep(draw.uniform(0.0, usual_s))
                    os.kill(child, signal.SIGKILL)
                    status = crew.wait(child)
                assert status in (0, -signal.SIGKILL)
                kills += status != 0
                check(out, whole[False])
            resumed(world, out, whole[False])
        # The rest of its reads fall on jobs that are being done, too.
        while reader.reads < READS and reader.error is None:
            out = reader.out = tmp_path / f"more-{reader.reads}"
            resumed(world, out, whole[False])
    finally:
        reader.is_over = True
        reader.join()
    if reader.error is not None:
        raise reader.error
    assert reader.found > 20, "it has seen results, too"


def test_two_drivers_of_one_job_end_with_the_same_files(
    crew: Drivers, world: Path, whole: dict[bool, dict[str, bytes]], tmp_path: Path
) -> None:
    draw = random.Random(5)
    both = 0
    for number in range(20):
        out = tmp_path / f"{number}"
        killed = draw.choice([(), (0,), (1,), (0, 1)])
        pids = []
        for driver in range(2):
            fault = f"kill-before:{draw.randint(2, 55)}" if driver in killed else None
            pids.append(crew.start("rescore", world, out, fault=fault, threads=2))
        ends = [crew.wait(pid) for pid in pids]
        assert set(ends) <= {0, -signal.SIGKILL}
        check(out, whole[False])
        if 0 in ends:
            Result.open(out).verify()
        if ends == [0, 0]:
            both += 1
            assert files(out) == whole[False]
        resumed(world, out, whole[False])
    assert both > 2


def test_a_driver_with_another_parquet_is_harmless(
    world: Path,
    whole: dict[bool, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose manifest was first is the result; the other's parts go, and their digests agree."""
    write = pq.write_table
    out = tmp_path / "out"

    def otherwise(*given: Any, **options: Any) -> None:
        write(*given, **{**options, "compression": "snappy"})

    with monkeypatch.context() as patch:
        patch.setattr(parts_of_results.pq, "write_table", otherwise)
        drivers.rescore(str(world), str(tmp_path / "other"))
        other = files(tmp_path / "other")
    assert Result.open(tmp_path / "other").manifest.digest == digest_in(whole[False])
    names = sorted(name for name in other if name.startswith("parts/"))
    assert not set(names) & set(whole[False])
    # Half of the parts are the other's when this one goes on: they are taken as they are.
    (out / "parts").mkdir(parents=True)
    for name in (PLAN, *names[:2]):
        (out / name).write_bytes(other[name])
    report = drivers.rescore(str(world), str(out))
    assert report.computed_count == 2
    assert set(names[:2]) < {each.file for each in report.result.manifest.parts}
    assert report.result.manifest.digest == digest_in(whole[False])
    # The other driver writes on after this one has published, and is killed.
    held = files(out)
    (out / names[3]).write_bytes(other[names[3]])
    (out / f"capabilities.{'0' * 64}.arrow").write_bytes(b"of another Arrow")
    (out / "letter.txt").write_text("dear")
    drivers.rescore(str(world), str(out)).result.verify()
    assert files(out) == {**held, "letter.txt": b"dear"}, "what no job has written is left alone"


def digest_in(written: dict[str, bytes]) -> str:
    return ResultManifest.parse(written[MANIFEST], MANIFEST).digest


def test_both_finish_at_once_and_neither_removes_what_the_other_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: another driver publishes between this one's parts and its manifest."""
    out, write = tmp_path / "out", pq.write_table

    def otherwise(*given: Any, **options: Any) -> None:
        write(*given, **{**options, "compression": "snappy"})

    finish = job.Job._finish

    def late(self: job.Job, entries: Any) -> Result:
        monkeypatch.setattr(job.Job, "_finish", finish)
        with monkeypatch.context() as patch:
            patch.setattr(parts_of_results.pq, "write_table", otherwise)
            patch.setattr(job.Job, "published", lambda _: {})
            drivers.rescore(str(world), str(out))
        return finish(self, entries)

    monkeypatch.setattr(job.Job, "_finish", late)
    report = drivers.rescore(str(world), str(out))
    report.result.verify()
    held = {each.file for each in report.result.manifest.parts}
    assert {name for name in files(out) if name.startswith("parts/")} == held


def test_a_full_disk_is_told_and_what_was_done_is_kept(
    world: Path, whole: dict[bool, dict[str, bytes]], tiny_disk: Path
) -> None:
    out, ballast = tiny_disk / "out", tiny_disk / "ballast"
    kept = set()
    for room_kib in (0, 4, 12, 20, 28):
        shutil.rmtree(out, ignore_errors=True)
        ballast.unlink(missing_ok=True)
        room = shutil.disk_usage(tiny_disk).free
        ballast.write_bytes(bytes(room - room_kib * 1024))
        with pytest.raises((StorageError, job.SetupError), match="No space left on device"):
            drivers.rescore(str(world), str(out))
        kept.add(len(list(out.glob("parts/*"))))
        ballast.unlink()
        resumed(world, out, whole[False])
    assert len(kept) > 2, "it was full at different moments"


# What makes the versions of a base.


def version_files(place: Path) -> None:
    """Every version holds its manifest and what that names, and nothing else is there."""
    named = set()
    for version in versions_at(Folder(place)):
        stored = StoredBase.open(place, version=version)
        stored.verify()
        for name in (VERSION_MANIFEST, *(each.file for each in stored.manifest.parts)):
            named.add(f"{version_folder(version)}/{name}")
    assert set(files(place)) == named


@pytest.mark.parametrize(
    ("scene", "options", "what"),
    [
        (drivers.load_again, {}, "kill-before"),
        (drivers.load_again, {}, "kill-after"),
        (drivers.load_again, {}, "ENOSPC"),
        (drivers.load_again, {"journal": True}, "kill-before"),
        (drivers.compact_again, {}, "kill-before"),
        (drivers.compact_again, {}, "kill-after"),
    ],
)
def test_a_version_is_there_as_a_whole_or_not_at_all(
    crew: Drivers,
    world: Path,
    tmp_path: Path,
    scene: Callable[..., StoredBase],
    options: dict[str, Any],
    what: str,
) -> None:
    first = tmp_path / "0"
    shutil.copytree(world, first)
    count = operations(scene, str(first), **options)
    wanted = StoredBase.open(first / "base")
    assert wanted.version == 2
    before = files(world / "base" / "v0001")

    def start(number: int) -> int:
        folder = tmp_path / f"{number}"
        shutil.copytree(world, folder)
        return crew.start(scene.__name__, folder, fault=f"{what}:{number}", **options)

    for number, status in crew.in_turn(count, start):
        folder = tmp_path / f"{number}"
        known = versions_at(Folder(folder / "base"))
        assert known in ([1], [1, 2])
        # What fails behind the manifest, while others' strays are removed, fails no load.
        is_tidying = what == "ENOSPC" and known == [1, 2]
        assert status in (-signal.SIGKILL, drivers.REFUSED) or (is_tidying and status == 0)
        if known == [1, 2]:
            found = StoredBase.open(folder / "base")
            found.verify()
            assert found.manifest == wanted.manifest
        again = scene(str(folder), **options)
        assert again.version == len(known) + 1
        assert again.manifest.parts == wanted.manifest.parts
        version_files(folder / "base")
        assert files(folder / "base" / "v0001") == before


def test_faults_happen(crew: Drivers, world: Path, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    faults.install(faults.Plan("ENOSPC", 1))
    try:
        with pytest.raises(StorageError, match="No space left on device"):
            drivers.rescore(str(world), str(tmp_path / "out"))
    finally:
        faults.install(None)
    assert crew.run("rescore", world, tmp_path / "out", fault="kill-after:9") == -signal.SIGKILL
    with pytest.raises(ValueError, match="no such fault"):
        faults.Plan.parse("sudden-rain:3")
