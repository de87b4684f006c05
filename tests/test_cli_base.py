"""`visavis base show | verify | drop-version`, on folders and by URL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands import AS_OF, NOTICE, call, done, refused, write_base, write_inputs
from visavis import Base, cli
from visavis.base import StoredBase


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Input files, and a base of two versions."""
    folder = write_inputs(tmp_path)
    write_base(folder)
    done(
        "load", "--profiles", folder / "indicators.parquet", "--out", folder / "base",
        "--parts", 4, "--threads", 2,
    )  # fmt: skip
    return folder


def test_show_says_what_a_version_holds(world: Path) -> None:
    newest = done("base", "show", "--base", world / "base", "--json").json()
    assert newest == {
        "out": str(world / "base"),
        "version": 2,
        "notice": NOTICE,
        "customer_count": 3,
        "indicator_count": 3,
        "fact_count": 0,
        "part_count": 4,
        "attributes": {"objected": "bool"},
        "as_of": AS_OF,
        "journal_offset": 0,
        "digest": StoredBase.open(world / "base").digest,
    }
    first = done("base", "show", "--base", world / "base", "--version", 1, "--json").json()
    assert (first["version"], first["part_count"], first["fact_count"]) == (1, 1, 1)
    assert first["attributes"] == {"age": "int64", "consent_email": "bool", "objected": "bool"}
    shown = done("base", "show", "--base", world / "base").output
    assert newest["digest"] in shown
    assert NOTICE in shown
    rows = [re.findall(r"[\w-]+", line) for line in shown.splitlines()]
    assert ["1", AS_OF, "3", "1", "1", "0"] in rows
    assert ["2", AS_OF, "3", "0", "4", "0"] in rows


def test_verify_reads_every_byte(world: Path) -> None:
    assert (
        "version 2: 4 parts are as they were written"
        in done("base", "verify", "--base", world / "base").output
    )
    said = done("base", "verify", "--base", world / "base", "--version", 1, "--json").json()
    assert said == {
        "version": 1,
        "part_count": 1,
        "digest": StoredBase.open(world / "base", version=1).digest,
    }
    stored = StoredBase.open(world / "base")
    part = world / "base" / "v0002" / stored.manifest.parts[2].file
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    message = refused("base", "verify", "--base", world / "base", status=cli.EXIT_SETUP)
    assert message == f"{part} does not fit its digest"
    assert call("base", "verify", "--base", world / "base", "--version", 1).status == 0


def test_a_version_is_dropped_but_not_the_last(world: Path) -> None:
    base = ["--base", world / "base"]
    before = Base.read(world / "base", version=1).digest
    assert done("base", "drop-version", 2, *base, "--json").json() == {"version": 2, "removed": 5}
    assert Base.read(world / "base").digest == before
    assert refused("base", "drop-version", 2, *base) == f"version: {world}/base has no version 2"
    assert refused("base", "drop-version", 1, *base) == "version: 1 is the only version"
    assert Base.read(world / "base").digest == before
    done("load", "--profiles", world / "indicators.parquet", "--out", world / "base")
    assert done("base", "drop-version", 1, *base).output == "version 1: 2 files removed\n"
    assert StoredBase.open(world / "base").version == 2


@pytest.mark.parametrize("command", [["show"], ["verify"], ["drop-version", 1]])
def test_where_there_is_no_base_all_say_so(world: Path, command: list[object]) -> None:
    for path in ("none", "catalog.jsonl"):
        message = refused("base", *command, "--base", world / path)
        assert message == f"--base: {world}/{path} holds no base"
    assert not (world / "none").exists()
    if command != ["drop-version", 1]:
        given = ["--base", world / "base", "--version", 7]
        assert refused("base", *command, *given) == f"--version: {world}/base has no version 7"


def test_without_a_command_there_is_help() -> None:
    answered = call("base")
    assert "drop-version" in answered.output + answered.errors


def test_the_same_by_url(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_CACHE", str(world / "cache"))
    url = f"file://{world}/far/base"
    tables = [
        part
        for name, file in {
            "profiles": "indicators.parquet",
            "attributes": "attributes.csv",
            "facts": "facts.csv",
        }.items()
        for part in (f"--{name}", f"file://{world}/{file}")
    ]
    given = [*tables, "--types", world / "types.toml", "--out", url]
    assert done("load", *given, "--json").json()["version"] == 1
    assert Base.read(url).digest == Base.read(world / "base", version=1).digest
    assert StoredBase.open(url).digest == StoredBase.open(world / "base", version=1).digest
    assert done("load", *given, "--json").json()["version"] == 2
    done("base", "verify", "--base", url)
    assert done("base", "show", "--base", url, "--json").json()["out"] == url
    options = ["--catalog", world / "catalog.jsonl", "--policy", world / "policy.toml"]
    there = done("match", "--base", url, *options, "--out", world / "a.parquet", "--json").json()
    done("base", "drop-version", 2, "--base", world / "base")
    here = done(
        "match", "--base", world / "base", *options, "--out", world / "b.parquet", "--json"
    ).json()
    assert there["digests"] == here["digests"]
    assert done("base", "drop-version", 1, "--base", url, "--json").json()["removed"] == 2
    missing = refused("base", "verify", "--base", url, "--version", 1)
    assert missing == f"--version: {url} has no version 1"
    typo = refused("load", "--profiles", f"file://{world}/none.csv", "--out", url)
    assert typo == f"--profiles: file://{world}/none.csv does not exist"
