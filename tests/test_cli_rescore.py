"""`visavis rescore`, `results` and `base compact`, end to end, and `match` beside them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from commands import AS_OF, NOTICE, call, capability, done, options, refused, write_inputs
from visavis import __version__, cli
from visavis.base import Base
from visavis.digest import canonical_digest
from visavis.rescore import Result
from visavis.rescore.results import MANIFEST


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files, and a base of four parts made from them; nobody writes into it."""
    folder = write_inputs(tmp_path_factory.mktemp("world"))
    load(folder, 4)
    return folder


def load(folder: Path, parts: int) -> None:
    done(
        "load", "--events", folder / "events.csv", "--spec", folder / "spec.toml",
        "--as-of", AS_OF, "--notice", NOTICE, "--attributes", folder / "attributes.csv",
        "--types", folder / "types.toml", "--facts", folder / "facts.csv",
        "--out", folder / "base", "--parts", parts,
    )  # fmt: skip


@pytest.fixture
def asked(world: Path) -> list[object]:
    return options(world)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal in which ann refused the tea and cid objected."""
    (tmp_path / "facts.csv").write_text(
        f"customer_id,product,kind,date\nann,tea,refused,{AS_OF}\n", encoding="utf-8"
    )
    given = ["--facts", tmp_path / "facts.csv", "--objection", "cid"]
    done("record", "--create", "--journal", tmp_path / "journal", *given)
    return tmp_path / "journal"


def lines(*arguments: object) -> list[dict[str, Any]]:
    """The lines of JSON of a job that must succeed."""
    return [json.loads(line) for line in done(*arguments, "--json").output.splitlines()]


def exported(out: Path, file: Path) -> dict[str, Any]:
    said: dict[str, Any] = done("results", "export", out, "--out", file, "--json").json()
    return said


@pytest.mark.parametrize("with_journal", [False, True])
@pytest.mark.parametrize("reasons", [(), ("--reasons", 2), ("--reasons", 2, "--distinctive")])
def test_a_result_exports_what_match_writes(
    asked: list[object],
    journal: Path,
    tmp_path: Path,
    with_journal: bool,
    reasons: tuple[object, ...],
) -> None:
    given = [*asked, *(["--journal", journal] if with_journal else [])]
    done("rescore", *given, "--out", tmp_path / "out", *reasons)
    for suffix in ("parquet", "csv"):
        said = exported(tmp_path / "out", tmp_path / f"exported.{suffix}")
        done(
            "match", *given, "--out", tmp_path / f"matched.{suffix}", *(reasons or ("--reasons", 0))
        )
        files = [tmp_path / f"{name}.{suffix}" for name in ("exported", "matched")]
        if suffix == "parquet":
            tables = [pq.read_table(file) for file in files]
            if not reasons:
                tables = [
                    each.drop_columns([name for name in each.column_names if name == "reasons"])
                    for each in tables
                ]
            assert tables[0].num_rows == said["opportunity_count"] > 0
            assert canonical_digest(tables[0]) == canonical_digest(tables[1])
            assert tables[0].schema.metadata[b"visavis.notice"] == NOTICE.encode()
            assert ("cid" in tables[0]["customer_id"].to_pylist()) is not with_journal
        elif reasons:
            assert files[0].read_text() == files[1].read_text()
        assert said["notice"] == NOTICE


def test_rescore_says_what_it_did_as_text(asked: list[object], tmp_path: Path) -> None:
    first = done("rescore", *asked, "--out", tmp_path / "out")
    assert "Rescore: 4 parts …" in first.errors
    pairs = dict(line.split("  ", 1) for line in first.output.splitlines() if "  " in line)
    said = {name.strip(): each.strip() for name, each in pairs.items()}
    assert (said["customer count"], said["computed parts"], said["pairs"]) == ("3", "4", "9")
    assert NOTICE in first.output.replace("\n", " ")
    again = done("rescore", *asked, "--out", tmp_path / "out").output
    assert "computed parts     0" in again
    assert said["digest"] in again


def test_rescore_says_everything_that_happens_in_lines_of_json(
    asked: list[object], tmp_path: Path
) -> None:
    *events, finished = lines("rescore", *asked, "--out", tmp_path / "out", "--workers", 2)
    assert {each["event"] for each in events} == {"joined", "started", "done"}
    assert sorted(each["part"] for each in events if each["event"] == "done") == [0, 1, 2, 3]
    assert events[-1]["done"] == events[-1]["parts"] == 4
    assert finished["event"] == "finished"
    result = Result.open(tmp_path / "out")
    assert finished["digest"] == result.manifest.digest
    assert finished["job_id"] == result.plan.job_id
    assert (finished["customer_count"], finished["pairs"], finished["computed_parts"]) == (3, 9, 4)
    (again,) = lines("rescore", *asked, "--out", tmp_path / "out")
    assert (again["event"], again["computed_parts"]) == ("finished", 0)
    assert again["digest"] == finished["digest"]


def test_workers_threads_and_variant_change_no_byte(asked: list[object], tmp_path: Path) -> None:
    digests = set()
    for number, more in enumerate(
        ([], ["--workers", 3], ["--threads", 2], ["--variant", "portable"])
    ):
        said = lines("rescore", *asked, "--out", tmp_path / f"{number}", "--reasons", 3, *more)
        digests.add((said[-1]["digest"], said[-1]["job_id"]))
    assert len(digests) == 1


def test_what_is_wrong_is_named_by_its_option(
    world: Path, asked: list[object], journal: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"]
    nowhere = tmp_path / "nowhere"
    for more, message in (
        (["--insecure"], "--insecure: is for --ray, which is not given"),
        (["--distinctive"], "--distinctive: is about --reasons, which are not given"),
        (["--workers", 0], "--workers: must be at least 1, got 0"),
        (["--as-of", "yesterday"], "--as-of: must be an ISO date"),
        (["--since", nowhere], f"--since: {nowhere} holds no result"),
        (["--journal", nowhere], f"--journal: {nowhere} does not exist"),
    ):
        assert refused("rescore", *asked, *out, *more).startswith(message)
    for option, message in (
        ("base", f"--base: {nowhere} holds no base"),
        ("catalog", f"--catalog: {nowhere}.csv does not exist"),
    ):
        path = Path(message.split()[1]) if option == "catalog" else nowhere
        assert refused("rescore", *options(world, **{option: path}), *out) == message
    message = refused("rescore", *asked, *out, "--variant", "abacus")
    assert message.startswith("--variant")
    wrong = 'consent_not_needed = ["counter"]\n[exclusions]\ncustomers = ["nobody"]\n'
    (tmp_path / "policy.toml").write_text(wrong)
    asked_otherwise = options(world, policy=tmp_path / "policy.toml")
    message = refused("rescore", *asked_otherwise, *out)
    assert message.startswith("--policy exclusions.customers: customer 'nobody' is not in the base")
    done("rescore", *asked, *out)
    message = refused("rescore", *asked, *out, "--reasons", 1)
    assert message.startswith(f"--out: {tmp_path / 'out'} holds another job")
    assert message.endswith("its reasons is None, not 1")
    for command in (["show"], ["verify"], ["lookup", "ann"], ["export", "--out", "x.csv"]):
        message = refused("results", command[0], nowhere, *command[1:])
        assert message == f"RESULT: {nowhere} holds no result"
    message = refused("results", "export", tmp_path / "out", "--out", tmp_path / "x.txt")
    assert message.startswith("--out: must end in .parquet or .csv")
    message = refused("results", "export", tmp_path / "out", "--out", tmp_path / "out" / "x.csv")
    assert message.endswith("would overwrite what RESULT reads")


def test_show_lookup_and_verify(asked: list[object], journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--journal", journal, "--reasons", 2]
    finished = lines("rescore", *asked, "--out", out, *given)[-1]
    shown = done("results", "show", out, "--json").json()
    for name in ("digest", "job_id", "opportunity_count", "part_count"):
        assert shown[name] == finished[name]
    assert (shown["journal_offset"], shown["customers_matched"], shown["reasons"]) == (2, 2, 2)
    assert shown["notice"] == NOTICE
    assert "customers matched  2" in done("results", "show", out).output
    found = done("results", "lookup", out, "ann", "--json").json()
    assert [each["rank"] for each in found["opportunities"]] == [1, 2]
    text = done("results", "lookup", out, "ann").output
    for each in found["opportunities"]:
        assert each["capability_id"] in text
        assert each["reasons"][0]["indicator"] in text
    for name in ("cid", "nobody"):
        assert done("results", "lookup", out, name, "--json").json()["opportunities"] == []
        said = done("results", "lookup", out, name).output
        assert said == f"{name} has no opportunity in this result\n"
    verified = done("results", "verify", out, "--json").json()
    assert verified == {"job_id": finished["job_id"], "digest": finished["digest"]}
    assert done("results", "verify", out).output == "4 parts are as they were written\n"
    victim = out / next(each.file for each in Result.open(out).manifest.parts)
    victim.write_bytes(victim.read_bytes()[:-1])
    assert refused("results", "verify", out, status=cli.EXIT_SETUP).endswith(
        f"{victim.relative_to(out)} does not fit its digest"
    )


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_byte_stops_its_part_by_name_and_the_others_are_done(
    world: Path, asked: list[object], tmp_path: Path, part: int
) -> None:
    base = Path(shutil.copytree(world / "base", tmp_path / "base"))
    (victim,) = base.rglob(f"part-0000{part}.*.arrow")
    content = victim.read_bytes()
    victim.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    given = [*options(world, base=base), "--out", tmp_path / "out"]
    answered = call("rescore", *given, "--json")
    assert answered.status == cli.EXIT_SETUP
    assert f"part {part}" in answered.output
    assert victim.name in answered.output
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 3
    text = call("rescore", *given)
    assert text.status == cli.EXIT_SETUP
    assert "run it again to go on" in text.errors
    assert "not finished" in refused("results", "show", tmp_path / "out")
    victim.write_bytes(content)
    finished = lines("rescore", *given)[-1]
    assert finished["computed_parts"] == 1
    whole = lines("rescore", *asked, "--out", tmp_path / "whole")[-1]
    assert (finished["digest"], finished["job_id"]) == (whole["digest"], whole["job_id"])


def test_since_an_earlier_result_gives_the_files_of_a_full_run(
    world: Path, asked: list[object], tmp_path: Path
) -> None:
    done("rescore", *asked, "--out", tmp_path / "old")
    text = (world / "catalog.jsonl").read_text()
    more = capability("milk-mail", "milk", value=12.0)
    (tmp_path / "catalog.jsonl").write_text(f"{text}\n{json.dumps(more)}")
    changed = options(world, catalog=tmp_path / "catalog.jsonl")
    by_change = ["--out", tmp_path / "new", "--since", tmp_path / "old"]
    finished = lines("rescore", *changed, *by_change)[-1]
    assert "note" not in finished
    done("rescore", *changed, "--out", tmp_path / "full")
    held = {each.name: each.read_bytes() for each in (tmp_path / "new").rglob("*.*")}
    assert held == {each.name: each.read_bytes() for each in (tmp_path / "full").rglob("*.*")}
    (tmp_path / "policy.toml").write_text('k = 1\nconsent_not_needed = ["counter"]\n')
    other = options(world, policy=tmp_path / "policy.toml")
    said = done("rescore", *other, "--out", tmp_path / "other", "--since", tmp_path / "old").output
    assert "ran in full, for the earlier result does not serve: its policy_digest" in said


def test_a_job_goes_on_at_its_own_offset_and_says_what_came_since(
    asked: list[object], journal: Path, tmp_path: Path
) -> None:
    given = [*asked, "--out", tmp_path / "out", "--journal", journal]
    first = lines("rescore", *given)[-1]
    assert "note" not in first
    (tmp_path / "out" / MANIFEST).unlink()
    facts = tmp_path / "more.csv"
    facts.write_text(f"customer_id,product,kind,date\nann,tea,bought,{AS_OF}\n")
    done("record", "--journal", journal, "--facts", facts)
    again = lines("rescore", *given)[-1]
    assert (again["job_id"], again["digest"]) == (first["job_id"], first["digest"])
    assert again["note"].startswith("the journal holds 1 entries since offset 2")
    # An objection counts in every result made from then on: an unfinished job is none yet.
    (tmp_path / "out" / MANIFEST).unlink()
    done("record", "--journal", journal, "--objection", "bob")
    said = refused("rescore", *given)
    assert said.startswith(f"--out: {tmp_path / 'out'} was planned at offset 2")
    assert "1 customers objected since" in said
    assert not (tmp_path / "out" / MANIFEST).exists()
    anew = lines("rescore", *asked, "--out", tmp_path / "anew", "--journal", journal)[-1]
    assert done("results", "show", tmp_path / "anew", "--json").json()["journal_offset"] == 4
    assert anew["customer_count"] == 1, "from then on bob is in no result"
    done("base", "forget", "bob", "--journal", journal)
    assert "holds another job" in refused("rescore", *given)


def test_compaction_makes_the_version_that_the_journal_speaks_of(
    world: Path, journal: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(world / "base", tmp_path / "base"))
    given = options(world, base=base)
    before = lines("rescore", *given, "--out", tmp_path / "before", "--journal", journal)[-1]
    made = done("base", "compact", "--base", base, "--journal", journal, "--json").json()
    assert (made["version"], made["journal_offset"], made["part_count"]) == (2, 2, 4)
    assert made["notice"] == NOTICE
    after = lines("rescore", *given, "--out", tmp_path / "after")[-1]
    assert after["digest"] == before["digest"], "the same profiles, the same opportunities"
    with_journal = lines("rescore", *given, "--out", tmp_path / "both", "--journal", journal)[-1]
    assert with_journal["job_id"] == after["job_id"], "there is nothing beyond the base's offset"
    message = refused("rescore", *given, "--out", tmp_path / "before", "--journal", journal)
    assert "holds another job" in message
    assert "its base_version is 1, not 2" in message
    assert done("base", "verify", "--base", base, "--json").json()["version"] == 2
    assert refused("base", "compact", "--base", base, "--journal", tmp_path / "none").startswith(
        "--journal: "
    )
    # Whom the journal forgets is not in the next version either.
    done("base", "forget", "ann", "--journal", journal)
    again = done("base", "compact", "--base", base, "--journal", journal, "--json").json()
    assert (again["version"], again["customer_count"]) == (3, 2)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", **more}


def test_an_interrupted_job_says_how_to_go_on_and_does(world: Path, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path)
    load(folder, 256)
    given = [*options(folder), "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "visavis.cli", "rescore", *map(str, given)]
    child = subprocess.Popen(
        [*command, "--workers", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # It has to wait for whoever reads of the first parts, however slow that is.
        pipesize=4096,
        # A shell that starts tests in the background lets them ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "done":
            child.send_signal(signal.SIGINT)
            break
    _, told = child.communicate()
    assert child.returncode == cli.EXIT_INTERRUPTED
    assert told == ("visavis: stopped; what is done is kept: run the same command again to go on\n")
    there = len(list((tmp_path / "out" / "parts").iterdir()))
    assert 1 <= there < 256
    assert not (tmp_path / "out" / MANIFEST).exists()
    finished = lines("rescore", *given)[-1]
    assert finished["computed_parts"] == 256 - there
    whole = lines("rescore", *options(folder), "--out", tmp_path / "whole")[-1]
    assert finished["digest"] == whole["digest"]
    done("results", "verify", tmp_path / "out")


def test_a_killed_command_goes_on(asked: list[object], tmp_path: Path) -> None:
    given = [*asked, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "visavis.cli", "rescore", *map(str, given), "--workers", "1"]
    killed = subprocess.run(
        command, env=environment(VISAVIS_FAULT="kill-before:30"), capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / MANIFEST).exists()
    finished = lines("rescore", *given)[-1]
    assert 0 < finished["computed_parts"] < 4
    done("results", "verify", tmp_path / "out")


def test_the_version_says_which_and_help_names_the_commands() -> None:
    assert done("--version").output == f"visavis {__version__}\n"
    for command, names in (
        ("results", ("show", "lookup", "export", "verify")),
        ("base", ("show", "verify", "compact", "forget", "drop-version")),
    ):
        text = call(command, "--help").output
        assert all(name in text for name in names)


def test_a_job_goes_on_with_the_version_that_it_was_planned_with(
    world: Path, asked: list[object], tmp_path: Path
) -> None:
    base = shutil.copytree(world / "base", tmp_path / "base")
    given = [base if each == world / "base" else each for each in asked]
    given += ["--out", tmp_path / "out"]
    first = lines("rescore", *given)[-1]
    (tmp_path / "out" / MANIFEST).unlink()
    Base.read(base).write(base)
    again = lines("rescore", *given)[-1]
    assert (again["job_id"], again["computed_parts"]) == (first["job_id"], 0)
    shown = done("results", "show", tmp_path / "out", "--json").json()
    assert (shown["base_version"], shown["digest"]) == (1, first["digest"])


def test_a_load_without_the_journal_that_is_known_is_refused(
    world: Path, journal: Path, tmp_path: Path
) -> None:
    given = [
        "load", "--events", world / "events.csv", "--spec", world / "spec.toml",
        "--as-of", AS_OF, "--out", tmp_path / "base",
    ]  # fmt: skip
    done(*given, "--journal", journal)
    said = refused(*given)
    assert said.startswith("--journal: the last version of")
    assert "offset 2" in said
    done(*given, "--journal", journal)


def test_no_device_is_said_before_anything_is_written(asked: list[object], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a device")
    answer = call("rescore", *asked, "--out", tmp_path / "out", "--gpu")
    assert answer.status == cli.EXIT_SETUP
    assert "CUDA" in answer.errors
    assert not (tmp_path / "out").exists()
