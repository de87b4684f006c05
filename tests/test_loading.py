"""Loading: streams become the base that whole tables would, with memory for a part at a time."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import AS_OF as DAY
from commands import NOTICE, done, refused, write_base, write_inputs
from visavis.base import Base, StoredBase, TableStream, load, loading
from visavis.base.stored import versions_at
from visavis.domain import AS_OF_METADATA, INDICATOR_METADATA
from visavis.errors import InputError, SchemaError, StorageError, VisavisError
from visavis.parts import part_of
from visavis.store import bytes_digest, faults, open_place
from visavis.store import places as places_module
from worlds import AS_OF, World, worlds


def stream(table: pa.Table, rows: int = 3) -> TableStream:
    """A table in batches of some rows, as a reader would hand them over."""
    starts = range(0, table.num_rows, rows)
    return TableStream(
        table.schema, table.num_rows, lambda: (table.slice(at, rows) for at in starts)
    )


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def small_spills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written as they come, and slices are few enough that parts share them."""
    monkeypatch.setattr(loading, "_WAITING_BYTES_MAX", 1)
    monkeypatch.setattr(loading, "_SLICE_COUNT_MAX", 4)


@settings(max_examples=40)
@given(
    world=worlds(),
    parts=st.sampled_from([None, 1, 2, 8, 32]),
    rows=st.sampled_from([1, 2, 3, 100]),
    waiting=st.sampled_from([1, 300, 2**26]),
    slices=st.sampled_from([1, 4, 2**12]),
    row_count_max=st.sampled_from([1, 10**6]),
    threads=st.sampled_from([1, 3]),
    layout=st.sampled_from(["plain", "dictionary", "large", "view"]),
)
def test_a_load_is_the_base_of_the_same_tables(
    world: World,
    parts: int | None,
    rows: int,
    waiting: int,
    slices: int,
    row_count_max: int,
    threads: int,
    layout: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def read(table: pa.Table) -> TableStream:
        found = stream(laid_out(table, layout), rows)
        return TableStream(found.schema, max(row_count_max, table.num_rows), found.batches)

    path = tmp_path_factory.mktemp("bases") / "base"
    patched = mock.patch.multiple(loading, _WAITING_BYTES_MAX=waiting, _SLICE_COUNT_MAX=slices)
    with patched:
        stored = load(
            path,
            read(world.indicator_table()),
            as_of=world.base.as_of,
            attributes=read(world.attribute_table()),
            facts=read(world.fact_table()),
            parts=parts,
            threads=threads,
        )
    found = stored.read()
    assert found.digest == world.base.digest
    assert found.indicator_schema.equals(world.base.indicator_schema, check_metadata=True)
    assert found.attributes.equals(world.base.attributes)
    assert found.facts.equals(world.base.facts)
    assert stored.part_count == (parts or 1)
    stored.verify()
    files = [path.name for path in (path / "v0001").iterdir()]
    assert len(files) == stored.part_count + 1


def laid_out(table: pa.Table, layout: str) -> pa.Table:
    """Texts in another layout of Arrow."""
    kinds = {"large": pa.large_string(), "view": pa.string_view()}
    for place, each in enumerate(table.schema):
        if pa.types.is_string(each.type) and layout != "plain":
            column = table.column(place)
            other = column.cast(kinds[layout]) if layout in kinds else column.dictionary_encode()
            table = table.set_column(place, each.name, other)
    return table


def test_what_is_written_is_the_same_whoever_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    table = pa.table({"customer_id": [f"c{n}" for n in range(300)], "x": rng.lognormal(size=300)})
    digests = {
        load(tmp_path / str(n), stream(table, 7), as_of=AS_OF, parts=16, threads=n).digest
        for n in (1, 2, 5)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("columns", [{"age": pa.int64()}, {}])
def test_a_table_without_rows_still_has_its_columns(
    tmp_path: Path, columns: dict[str, pa.DataType]
) -> None:
    profiles = pa.table({"customer_id": ["a", "b"], "x": [1.0, 2.0]})
    attributes = pa.schema({"customer_id": pa.string(), **columns}).empty_table()
    facts = pa.schema(
        {
            "customer_id": pa.string(),
            "product": pa.string(),
            "kind": pa.string(),
            "date": pa.date32(),
        }
    ).empty_table()
    wanted = Base.from_tables(profiles, as_of=AS_OF, attributes=attributes, facts=facts)
    stored = load(
        tmp_path / "base",
        stream(profiles),
        as_of=AS_OF,
        attributes=stream(attributes),
        facts=stream(facts),
    )
    assert stored.read().digest == wanted.digest
    assert set(stored.manifest.attributes) == {"objected", *columns}
    with pytest.raises(SchemaError, match="is missing") as caught:
        load(
            tmp_path / "other",
            stream(profiles),
            as_of=AS_OF,
            facts=stream(facts.drop_columns("kind")),
        )
    assert caught.value.field == "facts.kind"


# What is wrong is said with its place in the input.


ROWS = 40
IDS = [f"c{number}" for number in range(ROWS)]
PROFILES = pa.table({"customer_id": IDS, "x": np.arange(ROWS, dtype=np.float64)})
ATTRIBUTES = pa.table({"customer_id": IDS, "age": [1.5] * ROWS, "objected": [False] * ROWS})
FACTS = pa.table(
    {
        "customer_id": IDS,
        "product": ["tea"] * ROWS,
        "kind": ["bought"] * ROWS,
        "date": [AS_OF] * ROWS,
        "count": [1] * ROWS,
    }
)


def changed(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    cells = table[column].to_pylist()
    cells[row] = value
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.array(cells, table.schema.field(column).type))


@pytest.mark.parametrize("row", [0, 13, 39])
@pytest.mark.parametrize(
    ("name", "column", "value", "reason"),
    [
        ("profiles", "x", np.nan, "must be finite"),
        ("profiles", "x", 1e300, "must be finite"),
        ("profiles", "x", None, "must be finite"),
        ("profiles", "customer_id", None, "must not be null or empty"),
        ("profiles", "customer_id", "", "must not be null or empty"),
        ("attributes", "customer_id", "nobody", "customer 'nobody' has no indicators"),
        ("attributes", "age", np.inf, "must be finite or null"),
        ("attributes", "objected", None, "must not be null"),
        ("facts", "customer_id", "nobody", "customer 'nobody' has no indicators"),
        ("facts", "customer_id", None, "must not be null or empty"),
        ("facts", "kind", "eaten", "must be one of"),
        ("facts", "kind", None, "must not be null"),
        ("facts", "product", "", "must not be empty"),
        ("facts", "product", None, "either product or capability_id"),
        ("facts", "count", 0, "must lie in 1"),
        ("facts", "date", None, "must not be null"),
    ],
)
@pytest.mark.usefixtures("small_spills")
def test_a_wrong_cell_is_named_by_column_and_row(
    tmp_path: Path, name: str, column: str, value: Any, reason: str, row: int
) -> None:
    tables = {"profiles": PROFILES, "attributes": ATTRIBUTES, "facts": FACTS}
    tables[name] = changed(tables[name], column, row, value)
    if name == "profiles" and column == "customer_id":
        # Who lost their profile must not be what is found first.
        tables = {"profiles": tables["profiles"], "attributes": ATTRIBUTES.slice(0, 0)}
    streams = {key: stream(table, 7) for key, table in tables.items()}
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path / "base", streams.pop("profiles"), as_of=AS_OF, parts=8, **streams)  # type: ignore[arg-type]
    field = "indicators" if name == "profiles" else name
    assert caught.value.field == f"{field}.{column}"
    assert caught.value.row == row
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 39), (13, 26), (38, 39)])
@pytest.mark.parametrize("name", ["profiles", "attributes"])
@pytest.mark.usefixtures("small_spills")
def test_a_customer_that_stands_twice_is_named_by_the_second_row(
    tmp_path: Path, name: str, first: int, second: int
) -> None:
    tables = {"profiles": PROFILES, "attributes": ATTRIBUTES}
    tables[name] = changed(tables[name], "customer_id", second, f"c{first}")
    if name == "profiles":
        tables["attributes"] = ATTRIBUTES.slice(0, 0)
    with pytest.raises(InputError, match=f"'c{first}' stands in row {first} already") as caught:
        load(
            tmp_path / "base",
            stream(tables["profiles"], 7),
            as_of=AS_OF,
            attributes=stream(tables["attributes"], 7),
            parts=8,
        )
    assert caught.value.row == second


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"profiles": pa.table({"customer_id": ["a"], "x": ["1"]})}, "indicators.x"),
        ({"profiles": pa.table({"customer_id": ["a"]})}, "indicators"),
        ({"profiles": pa.table({"x": [1]})}, "indicators.customer_id"),
        ({"profiles": pa.table({"customer_id": [1], "x": [1]})}, "indicators.customer_id"),
        ({"profiles": PROFILES.slice(0, 0)}, "indicators"),
        ({"attributes": pa.table({"age": [1]})}, "attributes.customer_id"),
        ({"attributes": pa.table({"customer_id": ["c1"], "as_of": [1]})}, "attributes.as_of"),
        ({"attributes": pa.table({"customer_id": ["c1"], "x": [[1]]})}, "attributes.x"),
        ({"attributes": pa.table({"customer_id": ["c1"], "": [1]})}, "attributes"),
        ({"facts": FACTS.drop_columns("date")}, "facts.date"),
        ({"facts": FACTS.append_column("more", FACTS["count"])}, "facts.more"),
        ({"facts": changed(FACTS, "count", 3, 2**31)}, "facts.count"),
        ({"as_of": "soon"}, "as_of"),
        ({"parts": 3}, "parts"),
        ({"parts": 2.0}, "parts"),
        ({"threads": 0}, "threads"),
        ({"threads": -1}, "threads"),
        ({"threads": True}, "threads"),
        ({"threads": 2**20}, "threads"),
        ({"journal_offset": -1}, "journal_offset"),
        ({"forgotten": ["c1"]}, "forgotten"),
    ],
)
def test_what_no_base_can_be_made_of_is_refused(
    tmp_path: Path, given: dict[str, Any], field: str
) -> None:
    tables = {key: stream(each) for key, each in given.items() if isinstance(each, pa.Table)}
    profiles = tables.pop("profiles", stream(PROFILES))
    other = {key: each for key, each in given.items() if not isinstance(each, pa.Table)}
    with pytest.raises(InputError) as caught:
        load(tmp_path / "base", profiles, **{"as_of": AS_OF, **other, **tables})
    assert caught.value.field == field
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_text_that_is_malformed_is_named_by_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"tea"] * 20 + [b"\xff"] + [b"tea"] * 19, pa.binary())
    malformed = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    facts = FACTS.set_column(1, "product", malformed)
    with pytest.raises(InputError, match="is malformed") as caught:
        load(tmp_path / "base", stream(PROFILES), as_of=AS_OF, facts=stream(facts, 7))
    assert (caught.value.field, caught.value.row) == ("facts.product", 20)


# Customers without events.


def defined(table: pa.Table, **undefined: object) -> pa.Table:
    """Say of indicators what they are where they are undefined."""
    fields = [
        each.with_metadata({INDICATOR_METADATA: json.dumps({"undefined": undefined[each.name]})})
        if each.name in undefined
        else each
        for each in table.schema
    ]
    return table.cast(pa.schema(fields))


@pytest.mark.usefixtures("small_spills")
def test_customers_without_events_are_what_each_indicator_says(tmp_path: Path) -> None:
    profiles = defined(
        pa.table({"customer_id": ["b", "d"], "x": [1.0, 2.0], "y": [3.0, 4.0]}), x=-1, y=0.5
    )
    attributes = pa.table({"customer_id": ["d", "e", "a"], "age": [1, 2, 3]})
    facts = FACTS.slice(0, 3).set_column(0, "customer_id", pa.array(["c", "a", "c"]))
    for number, parts in enumerate((1, 2, 16)):
        stored = load(
            tmp_path / str(number),
            stream(profiles, 1),
            as_of=AS_OF,
            attributes=stream(attributes, 2),
            facts=stream(facts, 1),
            parts=parts,
            forgotten=[bytes_digest(b"e")],
        )
        found = stored.read()
        assert found.customer_ids.to_pylist() == ["a", "b", "c", "d"]
        assert found.indicators.tolist() == [[-1, 0.5], [1, 3], [-1, 0.5], [2, 4]]
        assert found.attributes["age"].to_pylist() == [3, None, None, 1]
        assert found.facts["customer_index"].to_pylist() == [0, 2]
        assert found.facts["count"].to_pylist() == [1, 2]
        assert found.indicator_schema.field("x").metadata == profiles.schema.field("x").metadata
        stored.verify()


@pytest.mark.parametrize("undefined", [None, "nan", "inf", 1e300, "much", {}, "missing"])
def test_where_an_indicator_does_not_say_they_are_refused(
    tmp_path: Path, undefined: object
) -> None:
    profiles = pa.table({"customer_id": ["b"], "x": [1.0], "y": [3.0]})
    given = {"x": 0.0} if undefined == "missing" else {"x": 0.0, "y": undefined}
    with pytest.raises(InputError, match="customer 'a' has no indicators") as caught:
        load(
            tmp_path / "base",
            stream(defined(profiles, **given)),
            as_of=AS_OF,
            attributes=stream(pa.table({"customer_id": ["b", "a"], "age": [1, 2]})),
        )
    assert (caught.value.field, caught.value.row) == ("attributes.customer_id", 1)


# Versions.


def test_who_is_forgotten_is_left_out_now_and_later(tmp_path: Path) -> None:
    path = tmp_path / "base"
    tables: dict[str, Any] = {"attributes": stream(ATTRIBUTES), "facts": stream(FACTS)}
    gone = [bytes_digest(name.encode()) for name in ("c3", "c7", "nobody")]
    load(path, stream(PROFILES), as_of=AS_OF, forgotten=gone[:2], parts=4, **tables)
    kept = [name for name in sorted(IDS) if name not in ("c3", "c7")]
    assert Base.read(path).customer_ids.to_pylist() == kept
    assert len(Base.read(path).facts) == len(kept)
    again = load(path, stream(PROFILES), as_of=AS_OF, forgotten=gone[2:], **tables)
    assert Base.read(path).customer_ids.to_pylist() == kept
    assert again.manifest.forgotten == tuple(sorted(gone))
    assert load(path, stream(PROFILES), as_of=AS_OF).manifest.forgotten == tuple(sorted(gone))
    everyone = [bytes_digest(name.encode()) for name in IDS]
    with pytest.raises(InputError, match="at least one customer"):
        load(path, stream(PROFILES), as_of=AS_OF, forgotten=everyone)
    assert versions_at(open_place(path)) == [1, 2, 3]


def test_what_amends_a_part_sees_each_once(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def amend(part: Base) -> Base:
        seen.append(part.customer_ids.to_pylist())
        return Base(
            part.customer_ids,
            part.indicators + 1,
            part.indicator_schema,
            part.attributes,
            part.facts,
            part.as_of,
        )

    stored = load(
        tmp_path / "base", stream(PROFILES), as_of=AS_OF, parts=8, amend=amend, journal_offset=17
    )
    assert stored.manifest.journal_offset == 17
    assert sorted(sum(seen, [])) == sorted(IDS)  # noqa: RUF017
    wanted = {f"c{number}": number + 1 for number in range(ROWS)}
    found = stored.read()
    ids = found.customer_ids.to_pylist()
    assert dict(zip(ids, found.indicators[:, 0].tolist(), strict=True)) == wanted


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    load(
        tmp_path / "base",
        stream(PROFILES),
        as_of=AS_OF,
        parts=4,
        progress=lambda *said: told.append(said),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# Kills and full disks.


def _load_in_child(path: str, plan: str) -> None:
    places_module._lasting.clear()
    faults.install(faults.Plan.parse(plan))
    load(path, stream(PROFILES, 7), as_of=AS_OF, facts=stream(FACTS, 7), parts=2)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_load_killed_at_any_operation_leaves_the_last_version_and_the_next_is_whole(
    tmp_path: Path, when: str
) -> None:
    context = multiprocessing.get_context("fork")
    wanted = Base.from_tables(PROFILES, as_of=AS_OF, facts=FACTS).digest
    old = load(tmp_path / "old", stream(PROFILES.slice(1), 20), as_of=AS_OF, parts=2)
    for number in range(1, 200):
        path = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", path)
        child = context.Process(target=_load_in_child, args=(str(path), f"kill-{when}:{number}"))
        child.start()
        child.join()
        known = versions_at(open_place(path))
        assert known in ([1], [1, 2])
        assert StoredBase.open(path, version=1).digest == old.digest
        for version in known:
            StoredBase.open(path, version=version).verify()
        if known == [1, 2]:
            assert Base.read(path).digest == wanted
        again = load(path, stream(PROFILES, 20), as_of=AS_OF, facts=stream(FACTS, 20), parts=2)
        assert again.version == len(known) + 1
        assert again.read().digest == wanted
        # A version that was published as its writer died may have strays; the next has none.
        named = {"manifest.json", *(part.file for part in again.manifest.parts)}
        assert set(everything(path / f"v{again.version:04d}")) == named
        assert not list(path.rglob(".*"))
        if child.exitcode == 0:
            assert number > 20
            return
        assert child.exitcode == -signal.SIGKILL
    pytest.fail("operations without end")


def test_an_error_at_any_operation_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    for number in range(1, 200):
        path = tmp_path / str(number)
        plan = faults.Plan.parse(f"ENOSPC:{number}")
        faults.install(plan)
        try:
            load(path, stream(PROFILES, 7), as_of=AS_OF, parts=2)
            failed = None
        except VisavisError as error:
            failed = error
        finally:
            faults.install(None)
        known = versions_at(open_place(path))
        if failed is None:
            assert known == [1]
            Base.read(path)
            if plan.count < number:
                return
            continue
        assert isinstance(failed, StorageError)
        assert str(path) in str(failed) or "v0001" in str(failed)
        if known:
            # The error came behind the manifest's name: it is there, and whole.
            StoredBase.open(path).verify()
        else:
            assert not [each for each in path.rglob("*") if each.is_file()]
    pytest.fail("operations without end")


def test_no_room_for_temporary_files_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "_WAITING_BYTES_MAX", 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        with pytest.raises(StorageError, match="cannot be written: File too large") as caught:
            load(tmp_path / "base", stream(PROFILES, 1), as_of=AS_OF)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.path == tempfile.gettempdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="cannot be written: No space left"):
        load(tmp_path / "base", stream(PROFILES), as_of=AS_OF)
    assert not (tmp_path / "base").exists()


def test_a_reader_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.Table]:
        yield PROFILES.slice(0, 5)
        raise InputError("ends too soon", field="profiles")

    with pytest.raises(InputError, match="ends too soon"):
        load(tmp_path / "base", TableStream(PROFILES.schema, ROWS, batches), as_of=AS_OF)
    assert everything(tmp_path) == []


# From the command line.


def test_events_loaded_at_once_are_indicators_loaded_later(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    write_base(folder)
    common = ["--attributes", folder / "attributes.csv", "--types", folder / "types.toml"]
    common += ["--facts", folder / "facts.csv", "--notice", NOTICE]
    done(
        "load", "--events", folder / "events.csv", "--spec", folder / "spec.toml",
        "--as-of", DAY, *common, "--out", folder / "other",
    )  # fmt: skip
    assert StoredBase.open(folder / "other").digest == StoredBase.open(folder / "base").digest
    with mock.patch.multiple("visavis.cli.build", _SLICED_BYTES=0, _SLICE_CELLS=20):
        done(
            "load", "--events", folder / "events.csv", "--spec", folder / "spec.toml",
            "--as-of", DAY, *common, "--out", folder / "sliced",
        )  # fmt: skip
    assert StoredBase.open(folder / "sliced").digest == StoredBase.open(folder / "base").digest


def test_a_customer_without_events_is_loaded_with_the_rest(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    write_base(folder)
    (folder / "attributes.csv").write_text("customer_id,age\nann,40\neve,30\n")
    done(
        "load", "--profiles", folder / "indicators.parquet", "--attributes",
        folder / "attributes.csv", "--out", folder / "base",
    )  # fmt: skip
    found = Base.read(folder / "base")
    assert found.customer_ids.to_pylist() == ["ann", "bob", "cid", "eve"]
    schema = pq.read_schema(folder / "indicators.parquet")
    said = [
        json.loads(schema.field(name).metadata[INDICATOR_METADATA]) for name in schema.names[1:]
    ]
    assert found.indicators[3].tolist() == [np.float32(each["undefined"]) for each in said]
    (folder / "plain.csv").write_text("customer_id,visits\nann,1\n")
    message = refused(
        "load", "--profiles", folder / "plain.csv", "--as-of", DAY, "--attributes",
        folder / "attributes.csv", "--out", folder / "other",
    )  # fmt: skip
    assert message == "--attributes customer_id, row 1: customer 'eve' has no indicators"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".arrow"])
def test_tables_by_url_are_those_of_the_files(
    tmp_path: Path, suffix: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    from visavis.cli.tables import open_attributes, open_facts, open_profiles

    written: dict[str, Callable[[pa.Table, Path], object]] = {
        ".csv": lambda table, path: pa.csv.write_csv(table, path),
        ".csv.gz": lambda table, path: pa.csv.write_csv(
            table, pa.CompressedOutputStream(str(path), "gzip")
        ),
        ".parquet": lambda table, path: pq.write_table(table, path, row_group_size=7),
        ".arrow": lambda table, path: pa.feather.write_feather(table, path, chunksize=7),
    }
    folder = tmp_path / "é o"
    folder.mkdir()
    for name, table in {"p": PROFILES, "a": ATTRIBUTES, "f": FACTS}.items():
        written[suffix](table, folder / f"{name}{suffix}")
    url = f"file://{tmp_path}/é%20o"
    for opened in (open_profiles, lambda path: open_attributes(path, None), open_facts):
        name = {open_profiles: "p", open_facts: "f"}.get(opened, "a")
        far, near = opened(f"{url}/{name}{suffix}"), opened(folder / f"{name}{suffix}")
        assert far.schema == near.schema
        assert far.read().equals(near.read())
        assert far.row_count_max == near.row_count_max >= ROWS
        with pytest.raises(InputError, match=r"none.* does not exist"):
            opened(f"{url}/none{suffix}")


# Memory.


_MEASURED = """
import sys, threading, time
from pathlib import Path
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
pa.set_memory_pool(pa.system_memory_pool())
from visavis.base import Base, load
from visavis.base.stored import StoredBase
from visavis.cli.tables import open_profiles

most = 0
def watch():
    global most
    while True:
        status = Path("/proc/self/status").read_text()
        most = max(most, int(status.split("RssAnon:")[1].split()[0]))
        time.sleep(0.005)

kind, profiles, out = sys.argv[1:]
threading.Thread(target=watch, daemon=True).start()
time.sleep(0.1)
before = most
if kind == "streams":
    load(out, open_profiles(profiles), as_of="2026-01-31")
else:
    whole = pa.ipc.open_file(pa.memory_map(profiles)).read_all()
    Base.from_tables(whole, as_of="2026-01-31").write(out)
time.sleep(0.05)
print(most - before)
"""


def test_a_load_takes_memory_for_what_waits_and_a_part_not_for_the_table(tmp_path: Path) -> None:
    """400,000 customers × 64 indicators are 98 MiB as float32.

    Measured: 87 … 103 MiB by streams, 246 … 290 MiB by whole tables. The file is mapped: what Arrow
    keeps when it decodes Parquet (258 MiB of this table, whoever reads it) is not what is measured.
    """
    rng = np.random.default_rng(1)
    columns = {f"x{number}": rng.random(50_000, np.float32) for number in range(64)}
    ids = [[f"customer-{part}-{number}" for number in range(50_000)] for part in range(8)]
    tables = [pa.table({"customer_id": each, **columns}) for each in ids]
    with pa.ipc.new_file(str(tmp_path / "p.arrow"), tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    bound = 160 << 10
    found = {
        kind: int(
            subprocess.run(
                [sys.executable, "-c", _MEASURED, kind,
                 tmp_path / "p.arrow", tmp_path / kind],
                capture_output=True, text=True, check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).stdout
        )
        for kind in ("streams", "tables")
    }  # fmt: skip
    assert found["streams"] < bound < found["tables"], found
    streams, tables = (StoredBase.open(tmp_path / kind) for kind in found)
    assert [part.sha256 for part in streams.manifest.parts] == [
        part.sha256 for part in tables.manifest.parts
    ]
    assert streams.part_count == 32


def test_a_slice_is_part_of_the_split(tmp_path: Path) -> None:
    """Every customer is written to the part that its id says, whatever the slices are."""
    with mock.patch.multiple(loading, _WAITING_BYTES_MAX=1, _SLICE_COUNT_MAX=2):
        stored = load(tmp_path / "base", stream(PROFILES), as_of=AS_OF, parts=16)
    for index, part in enumerate(stored.parts()):
        assert part.customer_ids.to_pylist() == sorted(n for n in IDS if part_of(n, 16) == index)


def test_the_day_is_that_of_the_indicators(tmp_path: Path) -> None:
    dated = PROFILES.replace_schema_metadata({AS_OF_METADATA: b"2020-02-29"})
    assert load(tmp_path / "base", stream(dated), as_of=AS_OF).as_of == date(2020, 2, 29)
    with pytest.raises(InputError, match="computed as of 2020-02-29") as caught:
        load(tmp_path / "base", stream(dated), as_of="2020-02-28")
    assert caught.value.field == "as_of"
