"""`visavis load`: which day, which types, what it adds to, and how it names a wrong cell."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from commands import AS_OF, NOTICE, done, refused, write_base, write_inputs
from visavis import Base
from visavis.base import StoredBase
from visavis.cli import build
from visavis.domain import AS_OF_METADATA, NOTICE_METADATA


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files, and a base made from them; nobody writes into it."""
    folder = write_inputs(tmp_path_factory.mktemp("world"))
    write_base(folder)
    return folder


def test_load_says_what_the_base_knows(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles.csv"
    profiles.write_text("customer_id,visits\n007,1\n7,2\n")
    given = ["--profiles", profiles, "--as-of", AS_OF, "--out", tmp_path / "base"]
    summary = done("load", *given, "--json").json()
    assert summary["customer_count"] == 2, "007 and 7 are two customers"
    assert summary["notice"] is None
    assert Base.read(tmp_path / "base").customer_ids.to_pylist() == ["007", "7"]


def test_loading_again_makes_the_next_version_and_leaves_the_last(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles.csv"
    given = ["--profiles", profiles, "--as-of", AS_OF, "--out", tmp_path / "base", "--json"]
    profiles.write_text("customer_id,visits\na,1\n")
    first = done("load", *given).json()
    profiles.write_text("customer_id,visits\na,2\n")
    before = {path: path.read_bytes() for path in (tmp_path / "base").rglob("*.*")}
    second = done("load", *given).json()
    assert (first["version"], second["version"]) == (1, 2)
    assert StoredBase.open(tmp_path / "base").digest == second["digest"] != first["digest"]
    assert StoredBase.open(tmp_path / "base", version=1).digest == first["digest"]
    assert Base.read(tmp_path / "base").indicators.tolist() == [[2]]
    assert Base.read(tmp_path / "base", version=1).indicators.tolist() == [[1]]
    assert before == {path: path.read_bytes() for path in before}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "profiles.csv"]


def test_events_may_lie_in_an_object_store(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    given = ["--spec", world / "spec.toml", "--as-of", AS_OF, "--out"]
    here = ["load", "--events", world / "events.csv", *given, tmp_path / "here"]
    there = ["load", "--events", (world / "events.csv").as_uri(), *given, tmp_path / "there"]
    assert done(*there, "--json").json()["digest"] == done(*here, "--json").json()["digest"]
    there[2] = (world / "none.csv").as_uri()
    assert refused(*there).startswith("--events: file://")


@pytest.mark.parametrize("cells", [1, 4, 1_000])
def test_events_are_sliced_by_customers_and_give_the_same_base(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    given = ["load", "--events", world / "events.csv", "--spec", world / "spec.toml"]
    given += ["--as-of", AS_OF, "--out"]
    whole = done(*given, tmp_path / "whole", "--json").json()
    for name, value in {"_SLICED_BYTES": 0, "_SLICE_CELLS": cells, "_PROBED": 2}.items():
        monkeypatch.setattr(build, name, value)
    sliced = done(*given, tmp_path / "sliced", "--json").json()
    assert sliced["digest"] == whole["digest"]


def test_events_may_be_arrow_files(world: Path, tmp_path: Path) -> None:
    events = csv.read_csv(world / "events.csv")
    half = events.num_rows // 2
    files = []
    for number, part in enumerate((events[:half], events[half:])):
        files.append(tmp_path / f"{number}.arrow")
        with pa.ipc.new_file(files[-1], events.schema) as writer:
            writer.write_table(part)
    given = ["--spec", world / "spec.toml", "--as-of", AS_OF, "--out"]
    named = [each for file in files for each in ("--events", file)]
    arrow = done("load", *named, *given, tmp_path / "arrow", "--json").json()
    text = ["--events", world / "events.csv"]
    assert (
        arrow["digest"] == done("load", *text, *given, tmp_path / "text", "--json").json()["digest"]
    )
    message = refused("load", *named, *text, *given, tmp_path / "both")
    assert message == f"--events: {world / 'events.csv'} is no Arrow file, and another one is"
    (tmp_path / "broken.arrow").write_bytes(b"ARROW1 but no more")
    message = refused("load", "--events", tmp_path / "broken.arrow", *given, tmp_path / "none")
    assert message.startswith(f"--events: {tmp_path / 'broken.arrow'} cannot be read: ")


def test_what_holds_something_else_becomes_no_base(tmp_path: Path) -> None:
    (tmp_path / "profiles.csv").write_text("customer_id,visits\na,1\n")
    profiles = ["--profiles", tmp_path / "profiles.csv", "--as-of", AS_OF]
    for letter in ("letter.txt", "v0letter.txt", "v01/letter.txt"):
        path = tmp_path / letter.replace("/", "-") / letter
        path.parent.mkdir(parents=True)
        path.write_text("dear")
        message = refused("load", *profiles, "--out", tmp_path / letter.replace("/", "-"))
        assert message.endswith(f"holds what is no base's: {letter}")
        assert path.read_text() == "dear"
    message = refused("load", *profiles, "--out", tmp_path)
    assert "holds what is no base's" in message
    (tmp_path / "empty").mkdir()
    assert done("load", *profiles, "--out", tmp_path / "empty", "--json").json()["version"] == 1


def test_what_lies_beside_the_versions_of_a_base_stays(tmp_path: Path) -> None:
    (tmp_path / "profiles.csv").write_text("customer_id,visits\na,1\n")
    given = ["load", "--profiles", tmp_path / "profiles.csv", "--as-of", AS_OF]
    done(*given, "--out", tmp_path / "base")
    (tmp_path / "base" / "letter.txt").write_text("dear")
    assert done(*given, "--out", tmp_path / "base", "--json").json()["version"] == 2
    assert (tmp_path / "base" / "letter.txt").read_text() == "dear"


def test_every_notice_of_the_tables_goes_with_the_base(world: Path, tmp_path: Path) -> None:
    table = pa.table({"customer_id": ["ann"], "age": [40]})
    said = table.replace_schema_metadata({NOTICE_METADATA: b"Ages are guessed."})
    pq.write_table(said, tmp_path / "attributes.parquet")
    given = ["--attributes", tmp_path / "attributes.parquet", "--out", tmp_path / "base"]
    summary = done("load", "--profiles", world / "indicators.parquet", *given, "--json").json()
    assert summary["notice"] == f"{NOTICE} Ages are guessed."
    assert Base.read(tmp_path / "base").notice == summary["notice"]
    assert (
        NOTICE
        in done(
            "load", "--profiles", world / "indicators.parquet", "--out", tmp_path / "other"
        ).output
    )


@pytest.mark.parametrize("name", ["profiles", "attributes", "facts", "types"])
def test_a_table_that_is_not_there_is_named(world: Path, tmp_path: Path, name: str) -> None:
    given = {"profiles": "indicators.parquet", "attributes": "attributes.csv", name: "none.csv"}
    parts = [part for option, file in given.items() for part in (f"--{option}", world / file)]
    message = refused("load", *parts, "--out", tmp_path / "b")
    assert message == f"--{name}: {world}/none.csv does not exist"


def test_the_day_is_that_of_the_indicators_and_no_other(world: Path, tmp_path: Path) -> None:
    given = ["load", "--profiles", world / "indicators.parquet", "--out", tmp_path / "base"]
    message = refused(*given, "--as-of", "2026-02-01")
    assert message.startswith("--as-of: is 2026-02-01, but")
    assert AS_OF in message
    assert done(*given, "--as-of", AS_OF, "--json").json()["as_of"] == AS_OF
    again = ["load", "--profiles", world / "indicators.parquet", "--out", tmp_path / "again"]
    assert done(*again, "--json").json()["as_of"] == AS_OF


def test_the_day_must_be_given_where_no_table_says_it(tmp_path: Path) -> None:
    (tmp_path / "profiles.csv").write_text("customer_id,visits\na,1\n")
    pq.write_table(pa.table({"customer_id": ["a"], "x": [1.0]}), tmp_path / "p.parquet")
    for name in ("profiles.csv", "p.parquet"):
        message = refused("load", "--profiles", tmp_path / name, "--out", tmp_path / "base")
        assert message.startswith("--as-of: must be given")
    odd = pa.table({"customer_id": ["a"], "x": [1.0]}).replace_schema_metadata(
        {AS_OF_METADATA: b"\xff", NOTICE_METADATA: b"\xfe said"}
    )
    pq.write_table(odd, tmp_path / "p.parquet")
    message = refused("load", "--profiles", tmp_path / "p.parquet", "--out", tmp_path / "base")
    assert message.startswith("--as-of: must be an ISO date")


def test_a_wrong_cell_is_named_by_option_column_and_row(world: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "base"]
    profiles = tmp_path / "profiles.csv"
    for text, message in (
        ("customer_id,visits\na,1\nb,many\n", "--profiles visits, row 1: must be a number"),
        ("customer_id,visits\na,1\nb,\n", "--profiles visits, row 1: must be finite"),
        ("customer_id,visits\na,1\na,2\n", "--profiles customer_id, row 1: customer 'a'"),
        ("visits\n1\n", "--profiles customer_id: is missing"),
    ):
        profiles.write_text(text)
        given = ["--profiles", profiles, "--as-of", AS_OF]
        assert refused("load", *given, *out).startswith(message)
    known = ["--profiles", world / "indicators.parquet"]
    facts = tmp_path / "facts.csv"
    facts.write_text("customer_id,product,kind,date\nann,tea,eaten,2026-01-20\n")
    assert refused("load", *known, "--facts", facts, *out).startswith("--facts kind, row 0: ")
    given = ["--attributes", world / "attributes.csv", "--types", tmp_path / "types.toml"]
    (tmp_path / "types.toml").write_text('agee = "int64"')
    assert refused("load", *known, *given, *out).startswith("--types agee: is no attribute")
    message = refused("load", *known, "--types", tmp_path / "types.toml", *out)
    assert message == "--types: types are those of --attributes, which is not given"
