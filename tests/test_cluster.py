"""Parts of the customers, without Ray and on it: the bytes of one machine, its errors, and no more.

One Ray of two processors serves the whole module.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from joblib.pool import PicklingPool

from commands import done, refused
from test_indicators import AS_OF, EVERY_KIND, TAXONOMY, crowd, digest
from test_learning import AS_OF as SHOP_AS_OF
from test_learning import SPEC, Shop, declared
from visavis.cli.model import _workers
from visavis.cluster import (
    IndicatorJob,
    compute_indicators,
    connected,
    held_once,
    indicators,
    joblib_backend,
)
from visavis.errors import InputError, SetupError
from visavis.indicators import Indicators, IndicatorSpec, compute, merge_parts
from visavis.learning import learn
from visavis.parts import part_of
from visavis.store import file_digest

SPEC_OF_ALL = IndicatorSpec.from_toml(EVERY_KIND)
VISITS = IndicatorSpec.from_toml(
    '[events]\ncustomer = "who"\ntime = "when"\n[[indicator]]\nkind = "frequency"'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events in two files, one of them with other types, and the taxonomy."""
    folder = tmp_path_factory.mktemp("shared")
    events = crowd(2_000)
    narrow = events.set_column(0, "who", events["who"].cast(pa.int16()))
    pq.write_table(events.slice(0, 1200), folder / "a.parquet")
    pq.write_table(narrow.slice(1200), folder / "b.parquet")
    pq.write_table(TAXONOMY, folder / "taxonomy.parquet")
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return [folder / "a.parquet", folder / "b.parquet"]


@pytest.fixture(scope="module")
def whole(folder: Path, files: list[Path]) -> Indicators:
    return compute(files, SPEC_OF_ALL, AS_OF, taxonomy=folder / "taxonomy.parquet")


def job_of(files: list[Path], folder: Path, part_count: int) -> IndicatorJob:
    taxonomy = folder / "taxonomy.parquet"
    return IndicatorJob(tuple(files), SPEC_OF_ALL, AS_OF, taxonomy, part_count)


def assert_same(result: Indicators, expected: Indicators) -> None:
    assert digest(result) == digest(expected)
    assert result.to_table().equals(expected.to_table(), check_metadata=True)


# ---- parts, without Ray ------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(range(-20, 80), pa.int16()),
        pa.array([f"{number:03}" for number in range(40)] + ["", "é", "﹏", "😀", "a b\n"][1:]),
        pa.array(["north", "south"] * 5).dictionary_encode(),
    ],
)
def test_a_customer_is_in_the_part_that_its_id_says(ids: pa.Array) -> None:
    events = pa.table({"who": ids, "when": pa.array([AS_OF] * len(ids))})
    everybody = sorted(set(map(str, ids.to_pylist())), key=str.encode)
    for index in range(5):
        part = compute(events, VISITS, AS_OF, part=(index, 5), threads=1)
        assert part.customer_ids.to_pylist() == [i for i in everybody if part_of(i, 5) == index]


def test_the_hash_of_an_id_stays_what_it_is() -> None:
    # Results on disk are cut by it: another hash would find nobody where they are.
    # `echo -n c1 | sha256sum` begins with d0f631ca1ddba8db.
    assert part_of("c1", 2**64) == 0xD0F631CA1DDBA8DB
    assert [part_of(name, 1000) for name in ("c1", "42", "é", "")] == [755, 637, 51, 652]


@pytest.mark.parametrize("part_count", [1, 3, 7])
def test_parts_put_together_are_the_whole(
    part_count: int, folder: Path, files: list[Path], whole: Indicators
) -> None:
    job = job_of(files, folder, part_count)
    heads, matrices = zip(*(job.run(index) for index in range(part_count)), strict=True)
    assert_same(job.gather(heads, matrices), whole)
    assert sum(len(head.customer_ids) for head in heads) == len(whole.customer_ids)


def test_ids_are_sorted_by_bytes_and_matrices_drawn_one_by_one() -> None:
    drawn: list[int] = []

    def matrices() -> Iterator[Any]:
        for number, count in enumerate((2, 0, 1)):
            drawn.append(number)
            yield np.full((count, 2), number, np.float32)

    ids = [pa.array(["﹏", "a"]), pa.array([], pa.string()), pa.array(["😀"])]
    merged, matrix = merge_parts(ids, matrices(), 2)
    assert merged.to_pylist() == ["a", "﹏", "😀"]
    assert matrix.tolist() == [[0.0, 0.0], [0.0, 0.0], [2.0, 2.0]]
    with pytest.raises(InputError, match="hold none that is kept"):
        merge_parts([pa.array([], pa.string())], iter([np.empty((0, 2), np.float32)]), 2)


def test_a_part_without_events_left_is_empty_and_all_of_them_an_error(files: list[Path]) -> None:
    early = IndicatorJob(tuple(files), VISITS, AS_OF - timedelta(days=10_000), None, 2)
    answers = [early.run(index) for index in range(2)]
    assert [len(head.customer_ids) for head, _ in answers] == [0, 0]
    with pytest.raises(InputError, match="hold none that is kept"):
        early.gather(*zip(*answers, strict=True))


def spoiled(events: pa.Table, column: str, cells: dict[int, object]) -> pa.Table:
    values = events[column].to_pylist()
    for row, value in cells.items():
        values[row] = value
    place = events.column_names.index(column)
    return events.set_column(place, column, pa.array(values, events[column].type))


def test_a_bad_cell_is_found_by_its_part_alone_and_named_as_on_one_machine(
    tmp_path: Path, folder: Path
) -> None:
    events = crowd(2_000)
    # Amounts are looked at after times, and row 1500 comes before row 1900.
    bad = spoiled(events, "paid", {1500: math.nan, 1900: math.inf})
    pq.write_table(events, tmp_path / "a.parquet")
    pq.write_table(bad, tmp_path / "b.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(InputError) as expected:
        compute(files, SPEC_OF_ALL, AS_OF, taxonomy=folder / "taxonomy.parquet")
    assert expected.value.row == 1500
    found = {}
    for index in range(5):
        try:
            job_of(files, folder, 5).run(index)
        except InputError as error:
            found[index] = str(error)
    owners = {part_of(str(events["who"][row]), 5) for row in (1500, 1900)}
    assert found == dict.fromkeys(owners, str(expected.value))


def test_of_several_kinds_of_bad_cells_the_same_is_named_by_every_part(tmp_path: Path) -> None:
    events = pa.table({"who": ["a", None, "b", "c"], "when": ["2020-01-01", "2020-01-01", "", "x"]})
    for index in range(3):
        with pytest.raises(InputError, match=r"^who, row 1, events table: must not be null"):
            compute(events, VISITS, AS_OF, part=(index, 3))


@pytest.mark.parametrize("part", [(-1, 3), (3, 3), (0, 0)])
def test_a_part_that_cannot_be_is_refused(part: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"^part: must be \(index, count\)"):
        compute(crowd(10), SPEC_OF_ALL, AS_OF, taxonomy=TAXONOMY, part=part)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"partitions": 0}, "^partitions: must be at least 1"),
        ({"threads": 0}, "^threads: must be at least 1"),
        ({"address": "ray://head:10001"}, "^address: must be the head's host:port"),
        ({"address": "head"}, "^address: must be 'local', 'auto' or host:port, got 'head'"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_starts(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        compute_indicators("events.parquet", VISITS, AS_OF, **options)


def test_a_head_that_is_not_there_is_said_to_be_so_at_once() -> None:
    for address in ("127.0.0.1:1", "127.0.0.1:99999"):
        with pytest.raises(SetupError, match=f"^Ray at '{address}' cannot be reached: "):
            compute_indicators("events.parquet", VISITS, AS_OF, address=address)


def test_another_version_or_another_taxonomy_is_refused(folder: Path, files: list[Path]) -> None:
    old = IndicatorJob(tuple(files), VISITS, AS_OF, None, 1, version="0.0.1")
    with pytest.raises(SetupError, match=r"on a worker, 0\.0\.1 on the driver"):
        old.run(0)
    job = job_of(files, folder, 2)
    heads = [job.run(index)[0] for index in range(2)]
    heads[1] = heads[1]._replace(definitions=heads[1].definitions[::-1])
    with pytest.raises(InputError, match=r"^taxonomy: changed while it was read"):
        job.gather(heads, [])


# ---- on Ray ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    # Workers import this module's helpers by name.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init("local", num_cpus=2, object_store_memory=100_000_000, **options)
        yield ray
        ray.shutdown()


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_ray_gives_the_bytes_of_one_machine(
    ray: Any, partitions: int, folder: Path, files: list[Path], whole: Indicators
) -> None:
    done: list[tuple[int, int]] = []
    result = compute_indicators(
        files,
        SPEC_OF_ALL,
        AS_OF,
        taxonomy=folder / "taxonomy.parquet",
        partitions=partitions,
        progress=lambda *counts: done.append(counts),
    )
    assert_same(result, whole)
    assert done == [(number + 1, partitions) for number in range(partitions)]


def test_paths_are_taken_from_here_and_partitions_from_the_cluster(
    ray: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files[0].parent)
    done: list[tuple[int, int]] = []
    relative = [path.name for path in files]
    result = compute_indicators(
        relative, VISITS, AS_OF, progress=lambda *counts: done.append(counts)
    )
    assert_same(result, compute(files, VISITS, AS_OF))
    assert done[-1] == (2, 2)
    with pytest.raises(InputError, match=r"^events: must be files that workers can open"):
        compute_indicators(TAXONOMY, VISITS, AS_OF)


def test_an_error_on_a_worker_is_that_of_one_machine(
    ray: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    path = tmp_path / "bad.parquet"
    pq.write_table(spoiled(crowd(500), "paid", {77: math.nan, 400: None}), path)
    spec = IndicatorSpec.from_toml(
        '[events]\ncustomer = "who"\ntime = "when"\namount = "paid"\n[[indicator]]\nkind = "spend"'
    )
    with pytest.raises(InputError) as alone:
        compute(path, spec, AS_OF)
    with pytest.raises(InputError) as spread:
        compute_indicators(path, spec, AS_OF, partitions=4, temp_directory=spilled)
    assert type(spread.value) is InputError
    assert vars(spread.value) == vars(alone.value)
    assert (spread.value.field, spread.value.row) == ("paid", 77)
    assert str(spread.value) == str(alone.value)
    assert not list(spilled.iterdir())
    assert "Unhandled error" not in capfd.readouterr().err


def mortal(job: IndicatorJob, grave: Path, lives: int) -> Callable[[int], Any]:
    """`job.run`, but the worker of part 1 is killed so many times."""

    def run(index: int) -> Any:
        deaths = len(list(grave.iterdir()))
        if index == 1 and deaths < lives:
            (grave / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job.run(index)

    return run


def test_a_killed_worker_changes_nothing(
    ray: Any, tmp_path: Path, folder: Path, files: list[Path], whole: Indicators
) -> None:
    job = job_of(files, folder, 3)
    heads, matrices = indicators._spread(mortal(job, tmp_path, 2), 3, 1, None)
    assert_same(job.gather(heads, matrices), whole)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_worker_that_always_dies_is_an_error(
    ray: Any, tmp_path: Path, folder: Path, files: list[Path]
) -> None:
    with pytest.raises(SetupError, match=r"^Ray: .*died"):
        indicators._spread(mortal(job_of(files, folder, 2), tmp_path, 99), 2, 1, None)
    assert len(list(tmp_path.iterdir())) == indicators.RETRIES + 1


def test_a_mistake_of_ours_is_not_called_ray(ray: Any) -> None:
    def run(index: int) -> Any:
        return 1 // index

    with pytest.raises(ZeroDivisionError):
        indicators._spread(run, 1, 1, None)


def test_learning_through_joblib_gives_the_same_bits(ray: Any) -> None:
    shop = Shop()
    given = (shop.windows(), shop.base(SHOP_AS_OF), declared(), SPEC)
    alone = learn(*given, threads=1)
    bases = PicklingPool.__bases__
    with joblib_backend() as processors:
        assert processors == 2
        work = joblib.Parallel(n_jobs=2, prefer="threads", return_as="generator")
        assert os.getpid() not in set(work(joblib.delayed(os.getpid)() for _ in range(4)))
        spread = learn(*given, threads=processors, hold=held_once)
    assert PicklingPool.__bases__ == bases
    assert spread.catalog.digest() == alone.catalog.digest()
    assert spread.provenance == alone.provenance


def test_the_command_line_spreads_indicators_over_ray(
    ray: Any, tmp_path: Path, folder: Path, files: list[Path]
) -> None:
    (tmp_path / "spec.toml").write_text(EVERY_KIND)
    given = [
        *(part for path in files for part in ("--events", path)),
        "--taxonomy", folder / "taxonomy.parquet", "--spec", tmp_path / "spec.toml",
        "--as-of", AS_OF,
    ]  # fmt: skip
    done("indicators", *given, "--out", tmp_path / "alone.parquet")
    spread = ["--ray", "local", "--partitions", 3]
    done("indicators", *given, "--out", tmp_path / "spread.parquet", *spread)
    assert file_digest(tmp_path / "spread.parquet") == file_digest(tmp_path / "alone.parquet")


def test_partitions_without_ray_are_refused(tmp_path: Path) -> None:
    given = ["--events", "e.csv", "--spec", "s.toml", "--as-of", AS_OF, "--out", "i.parquet"]
    said = refused("indicators", *given, "--partitions", 2)
    assert said.startswith("--partitions: is for --ray")


def test_the_command_line_fits_blocks_on_rays_workers(ray: Any) -> None:
    with _workers("local", 1) as (processors, hold):
        assert (processors, hold) == (2, held_once)
        work = joblib.Parallel(n_jobs=2)
        assert os.getpid() not in set(work(joblib.delayed(os.getpid)() for _ in range(4)))
    with _workers(None, 1) as unspread:
        assert unspread == (1, None)


def test_a_connection_that_was_there_stays(ray: Any) -> None:
    with connected("somewhere:1") as processors:
        assert processors == 2
    assert ray.is_initialized()
