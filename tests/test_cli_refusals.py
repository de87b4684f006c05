"""Nothing that is given to the command line ends in a traceback, and every refusal names what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import (
    AS_OF,
    call,
    capability,
    done,
    options,
    refused,
    write_base,
    write_inputs,
)
from visavis import _kernel, cli
from visavis.errors import SetupError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files, and a base made from them; nobody writes into it."""
    folder = write_inputs(tmp_path_factory.mktemp("world"))
    write_base(folder)
    return folder


@pytest.fixture
def asked(world: Path) -> list[object]:
    return options(world)


# Wrong input.


def test_a_wrong_rule_is_named(world: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "wrong.jsonl"
    catalog.write_text(json.dumps(capability("a", "tea", rule="agee >= 18")))
    out = tmp_path / "m.parquet"
    message = refused("match", *options(world, catalog=catalog), "--out", out)
    for named in ("capability 'a'", "agee", "position 0", "age"):
        assert named in message
    assert not out.exists()


def test_an_attribute_without_a_type_is_text_and_a_rule_says_so(
    world: Path, tmp_path: Path
) -> None:
    done(
        "load", "--profiles", world / "indicators.parquet", "--attributes",
        world / "attributes.csv", "--out", tmp_path / "base",
    )  # fmt: skip
    given = options(world, base=tmp_path / "base")
    message = refused("match", *given, "--out", tmp_path / "m.parquet")
    assert "wine-mail" in message
    assert "age" in message
    assert "string" in message or "text" in message


def test_an_id_that_is_not_there(asked: list[object]) -> None:
    given = ["explain", *asked, "--customer", "eve", "--capability", "tea-mail", "--json"]
    answered = call(*given)
    assert answered.status == cli.EXIT_INPUT
    assert answered.json() == {
        "error": "NotFoundError",
        "message": "customer 'eve' is not in the base",
    }
    assert "no-tea" in refused("audience", *asked, "--capability", "no-tea")
    assert "--every" in refused("audience", *asked)
    assert "--every" in refused("audience", *asked, "--capability", "tea-mail", "--every")


def test_variants_that_are_unknown_or_do_not_run(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["match", *asked, "--out", tmp_path / "m.parquet", "--variant", "abacus"]
    assert "abacus" in refused(*given)
    monkeypatch.setattr(
        _kernel, "variants", lambda: [("portable", None, False), ("abacus", "beads", True)]
    )
    assert "cannot run on this machine: it lacks beads" in refused(*given, status=cli.EXIT_SETUP)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"base": "none"}, "--base: {folder}/none holds no base"),
        ({"base": "catalog.jsonl"}, "--base: {folder}/catalog.jsonl holds no base"),
        ({"catalog": "none.jsonl"}, "--catalog: {folder}/none.jsonl does not exist"),
        ({"catalog": "spec.toml"}, "--catalog: a catalog holds [[capability]] only, got 'events'"),
        ({"catalog": "base"}, "--catalog: must end in .parquet, .csv, .jsonl, .toml, got 'base'"),
        ({"catalog": "indicators.parquet"}, "--catalog customer_id: is no column of a catalog"),
        ({"policy": "none.toml"}, "--policy: {folder}/none.toml does not exist"),
        ({"policy": "base"}, "--policy: {folder}/base is a folder"),
        ({"policy": "spec.toml"}, "--policy events: is not a key of a policy"),
        ({"policy": "facts.csv"}, "--policy: {folder}/facts.csv is no TOML"),
    ],
)
def test_the_option_at_fault_is_named(
    world: Path, tmp_path: Path, others: dict[str, str], message: str
) -> None:
    given = options(world, **{name: world / path for name, path in others.items()})
    for question in (["match", "--out", tmp_path / "m.parquet"], ["explain", "--customer", "ann"]):
        command, *more = question
        assert refused(command, *given, *more).startswith(message.format(folder=world))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--as-of", "soon"], "--as-of: must be an ISO date"),
        (["--as-of", "2020-01-01"], "--as-of: 2020-01-01 lies before the base's as_of"),
        (["--threads", "0"], "--threads: must be an integer, at least 1, got 0"),
        (["--threads", "99999"], "--threads: must be at most"),
    ],
)
def test_an_option_with_a_wrong_value_is_named(
    asked: list[object], tmp_path: Path, more: list[str], message: str
) -> None:
    given = ["match", *asked, "--out", tmp_path / "m.parquet", *more]
    assert refused(*given).startswith(message)


@pytest.mark.parametrize("text", ["self = 1", "[exclusions]\nself = ['a']"])
def test_a_policy_with_a_word_of_python_is_refused(world: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    given = options(world, policy=tmp_path / "policy.toml")
    message = refused("explain", *given, "--customer", "ann")
    assert "self: is not a key of" in message


@pytest.mark.parametrize("text", ["a = " + "1" * 5_000, "a = " + "[" * 50_000, "indicator = 1"])
def test_a_wrong_spec_is_refused(world: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.toml").write_text(text)
    refused(
        "indicators", "--events", world / "events.csv", "--spec", tmp_path / "spec.toml",
        "--as-of", AS_OF, "--out", tmp_path / "i.parquet",
    )  # fmt: skip


# Where results go.


@pytest.mark.parametrize(
    ("command", "out", "status", "reason"),
    [
        ("match", "m.xlsx", 2, "--out: must end in .parquet or .csv, got 'm.xlsx'"),
        ("match", ".", 2, "--out: must end in .parquet or .csv"),
        ("match", "folder.parquet", 2, "--out: {folder}/folder.parquet is a folder"),
        ("match", "file/m.parquet", 3, "{folder}/file/m.parquet cannot be written: "),
        ("match", "x" * 300 + ".parquet", 3, "File name too long"),
        ("match", "recorded.parquet", 2, "--out: {folder}/recorded.run.json is a folder"),
        ("audience", "a.json", 2, "--out: must end in .parquet or .csv, got 'a.json'"),
        ("audience", "file/a.csv", 3, "{folder}/file/a.csv cannot be written: "),
        ("indicators", "i.csv", 2, "--out: must end in .parquet, got 'i.csv'"),
        ("indicators", ".", 2, "--out: must end in .parquet"),
        ("indicators", "folder.parquet", 2, "--out: {folder}/folder.parquet is a folder"),
        ("indicators", "file/i.parquet", 3, "{folder}/file/i.parquet cannot be written: "),
        ("load", "file", 2, "--out: {folder}/file is no folder"),
        ("load", ".", 2, "--out: {folder} holds what is no base's: file"),
        ("load", "file/base", 3, "{folder}/file/base cannot be written: "),
        ("load", "x" * 300, 3, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    world: Path, tmp_path: Path, command: str, out: str, status: int, reason: str
) -> None:
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "recorded.run.json").mkdir()
    (tmp_path / "file").write_text("")
    events = ["--events", world / "events.csv", "--spec", world / "spec.toml", "--as-of", AS_OF]
    given: dict[str, list[object]] = {
        "match": options(world),
        "audience": [*options(world), "--capability", "tea-mail"],
        "indicators": events,
        "load": ["--profiles", world / "indicators.parquet"],
    }
    message = refused(command, *given[command], "--out", tmp_path / out, status=status)
    assert reason.format(folder=tmp_path) in message
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("file", "folder.parquet", "recorded.run.json")
    ]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses")
def test_a_file_system_that_refuses_is_named(world: Path, asked: list[object]) -> None:
    given = ["load", "--profiles", world / "indicators.parquet", "--out", "/proc/base"]
    assert "cannot be written: " in refused(*given, status=3)
    assert refused(*given, status=3).startswith("/proc/base/v0001/part-00000.")
    message = refused("match", *asked, "--out", "/proc/m.parquet", status=3)
    assert message.startswith("/proc/m.")
    assert "cannot be written: " in message


def test_an_object_store_that_nobody_knows_is_named(world: Path, asked: list[object]) -> None:
    given = ["load", "--profiles", world / "indicators.parquet", "--out", "foo://bar"]
    assert refused(*given).startswith("--out: no object store at 'foo://bar': ")
    given = ["load", "--profiles", "foo://bar/x.csv", "--out", world / "other"]
    assert refused(*given).startswith("--profiles: no object store at 'foo://bar': ")
    given = ["audience", *options(world)[2:], "--base", "foo://bar", "--capability", "tea-mail"]
    assert refused(*given).startswith("--base: no object store at 'foo://bar': ")


def test_no_result_stands_where_an_input_does(world: Path, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    given = write_base(folder)
    catalog = folder / "catalog.csv"
    catalog.write_text("id,product,channel,weights\na,tea,counter,{}\n")
    (folder / "link.csv").symlink_to(catalog)
    (folder / "m.run.json").write_text("consent_not_needed = ['counter']")
    own = options(folder, catalog=catalog, policy=folder / "m.run.json")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for out, option in (
        (catalog, "--catalog"),
        (folder / "base" / ".." / "catalog.csv", "--catalog"),
        (folder / "link.csv", "--catalog"),
        (folder / "m.parquet", "--policy"),
        (folder / "base" / "v0001" / "m.parquet", "--base"),
        (folder / "base" / "new.csv", "--base"),
    ):
        message = refused("match", *own, "--out", out)
        assert message.startswith("--out: ")
        assert message.endswith(f"would overwrite what {option} reads")
    table = pq.read_table(folder / "indicators.parquet").select(["customer_id"])
    pq.write_table(table, folder / "events.parquet")
    before[folder / "events.parquet"] = (folder / "events.parquet").read_bytes()
    events = folder / "events.parquet"
    refused(
        "indicators", "--events", events, "--spec", folder / "spec.toml", "--as-of", AS_OF,
        "--out", events,
    )  # fmt: skip
    profiles = ["--profiles", folder / "indicators.parquet", "--as-of", AS_OF]
    assert "holds what is no base's" in refused("load", *profiles, "--out", folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert done("match", *given, "--out", folder / "fine.parquet").status == 0
    assert world != folder


def test_an_old_record_never_stands_beside_a_result_it_is_not_of(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["match", *asked, "--out", tmp_path / "m.parquet"]
    done(*given)

    def fail(*_: object) -> None:
        raise SetupError("the disk is full")

    monkeypatch.setattr("visavis.cli.records.write_json", fail)
    refused(*given, status=3)
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


# The command line itself.


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["match", "--bass", "x"], "--bass"),
        (["match"], "--base"),
        (["mach"], "mach"),
        (["match", "--threads", "many"], "--threads"),
        (["match", "--reasons", "-1"], "--reasons"),
        (["audience", "--k", "0"], "--k"),
        (["match", "--out"], "--out"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], named: str) -> None:
    as_text = call(*arguments)
    assert as_text.status == cli.EXIT_INPUT
    assert named in as_text.errors
    as_json = call(arguments[0], "--json", *arguments[1:])
    assert as_json.status == cli.EXIT_INPUT
    answer = as_json.json()
    assert answer["error"] == "UsageError"
    assert set(answer) == {"error", "message"}
    assert named in answer["message"]


def test_without_a_command_there_is_help() -> None:
    answered = call()
    assert "explain" in answered.output + answered.errors


def test_a_wrong_level_of_logs_is_refused() -> None:
    answered = call("doctor", env={"VISAVIS_LOG_LEVEL": "loud"})
    assert answered.status == cli.EXIT_INPUT
    assert answered.errors.startswith("visavis: VISAVIS_LOG_LEVEL: must be one of debug, info")


# What nobody foresaw.


@pytest.mark.parametrize(
    ("error", "status", "name", "said"),
    [
        (ZeroDivisionError("by zero"), 70, "InternalError", "ZeroDivisionError: by zero"),
        (KeyError("[/red]\n"), 70, "InternalError", "VISAVIS_TRACEBACK=1"),
        (RecursionError(), 70, "InternalError", "internal error: RecursionError"),
        (OSError(28, "No space left on device", "/out"), 3, "OSError", "No space left on device"),
        (ImportError("libvisavis.so: no such file"), 3, "ImportError", "libvisavis.so"),
        (MemoryError(), 3, "MemoryError", "not enough memory"),
        (pa.ArrowMemoryError("malloc"), 3, "ArrowMemoryError", "not enough memory"),
    ],
)
def test_no_traceback_reaches_people_unless_they_ask(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, name: str, said: str
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr("visavis.selfcheck.check_variants", fail)
    as_text = call("doctor", env={"VISAVIS_TRACEBACK": ""})
    assert (as_text.status, as_text.output) == (status, "")
    assert as_text.errors.startswith("visavis: ")
    assert as_text.errors.count("\n") == 1
    assert said in as_text.errors
    as_json = call("doctor", "--json", env={"VISAVIS_TRACEBACK": ""})
    assert (as_json.status, as_json.errors, as_json.json()["error"]) == (status, "", name)
    with pytest.raises(type(error)):
        call("doctor")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_interrupt_has_its_own_status(monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    def interrupt() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("visavis.selfcheck.check_variants", interrupt)
    answered = call("doctor", *more)
    assert answered.status == cli.EXIT_INTERRUPTED
    assert "Traceback" not in answered.errors


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_and_a_disk_that_is_full_leave_no_traceback(
    unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "visavis.cli", "--version"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        gone = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (gone.returncode != 0, gone.stderr) == (True, b"")
    full = Path("/dev/full")
    if full.exists():
        with full.open("wb") as stream:
            done_so = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, check=False)
        assert done_so.returncode == cli.EXIT_SETUP
        assert done_so.stderr.startswith(b"visavis: ")
        assert done_so.stderr.count(b"\n") == 1
