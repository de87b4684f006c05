"""The command line: each command on small files, its JSON, its record, what it shows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import visavis
from commands import AS_OF, NOTICE, call, capability, done, options, write_base, write_inputs
from visavis import Base, Catalog, Policy, cli, kernel
from visavis.cli import ask
from visavis.digest import canonical_digest
from visavis.domain import NOTICE_METADATA
from visavis.store import file_digest

HEX = re.compile(r"\b[0-9a-f]{64}\b")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files, and a base made from them; nobody writes into it."""
    folder = write_inputs(tmp_path_factory.mktemp("world"))
    write_base(folder)
    return folder


@pytest.fixture
def asked(world: Path) -> list[object]:
    return options(world)


def test_events_become_opportunities(asked: list[object], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "opportunities.parquet"
    summary = done("match", *asked, "--out", out, "--json").json()
    table = pq.read_table(out)
    assert summary["opportunity_count"] == len(table) == 4
    chosen = {(row["customer_id"], row["rank"]): row["capability_id"] for row in table.to_pylist()}
    assert chosen == {
        ("ann", 1): "tea-mail",
        ("ann", 2): "wine-mail",
        ("bob", 1): "tea-counter",
        ("cid", 1): "tea-mail",
    }
    assert summary["stats"]["skipped_by_rule"] == 3


@pytest.mark.parametrize("reasons", [0, 1, 3])
def test_the_digest_is_that_of_the_file(asked: list[object], tmp_path: Path, reasons: int) -> None:
    out = tmp_path / "opportunities.parquet"
    summary = done("match", *asked, "--out", out, "--reasons", reasons, "--json").json()
    table = pq.read_table(out)
    assert summary["digests"]["opportunities"] == canonical_digest(table)
    assert max(map(len, table["reasons"].to_pylist())) == min(reasons, 2)


def test_a_record_stands_beside_the_result(
    world: Path, asked: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "opportunities.parquet"
    summary = done("match", *asked, "--out", out, "--threads", 1, "--json").json()
    record = json.loads((tmp_path / "opportunities.run.json").read_text(encoding="utf-8"))
    assert summary == {
        "out": str(out),
        "record": str(tmp_path / "opportunities.run.json"),
        **record,
    }
    assert record["files"] == {"opportunities.parquet": file_digest(out)}
    assert record["digests"] == {
        "base": Base.read(world / "base").digest,
        "catalog": Catalog.read(world / "catalog.jsonl").digest(),
        "policy": Policy.read(world / "policy.toml").digest(),
        "opportunities": canonical_digest(pq.read_table(out)),
    }
    assert (record["variant"], record["threads"]) == (kernel.choose_variant(), 1)
    assert record["command"].startswith("visavis match --base ")
    assert record["versions"]["visavis"] == visavis.__version__
    assert set(record["seconds"]) == {"reading", "preparation", "match", "reasons"}
    assert (
        record["pair_count"]
        == 9
        == sum(
            record["stats"][name] for name in ("skipped_by_rule", "skipped_by_bound", "screened")
        )
    )


def test_csv_holds_the_same_with_reasons_as_json(asked: list[object], tmp_path: Path) -> None:
    first = done("match", *asked, "--out", tmp_path / "o.parquet", "--json").json()
    second = done("match", *asked, "--out", tmp_path / "o.CSV", "--json").json()
    assert first["digests"] == second["digests"], "the values, whatever the file"
    with (tmp_path / "o.CSV").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    wanted = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert len(rows) == len(wanted)
    for row, other in zip(rows, wanted, strict=True):
        assert json.loads(row["reasons"]) == other["reasons"]
        assert float(row["expected_value"]) == other["expected_value"]
        assert (row["customer_id"], row["control"]) == (other["customer_id"], "false")


def test_match_prints_its_numbers_for_people_and_digests_in_full(
    asked: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "m.parquet"
    answered = call("match", *asked, "--out", out, env={"COLUMNS": "40"})
    assert answered.status == 0
    assert "opportunity count" in answered.output
    assert "Match" in answered.errors
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert sorted(HEX.findall(answered.output)) == sorted(record["digests"].values())


def test_a_policy_is_optional(world: Path, tmp_path: Path) -> None:
    (tmp_path / "catalog.jsonl").write_text(json.dumps(capability("tea-mail", "tea")))
    given = ["--base", world / "base", "--catalog", tmp_path / "catalog.jsonl"]
    summary = done("match", *given, "--out", tmp_path / "m.parquet", "--json").json()
    assert summary["digests"]["policy"] == Policy().digest()
    assert done("explain", *given, "--customer", "ann", "--json").json()["opportunities"]


def test_audience_ranks_customers(asked: list[object]) -> None:
    answered = done("audience", *asked, "--capability", "tea-mail", "--k", 5, "--json").json()
    assert [row["customer_id"] for row in answered["audience"]] == ["ann", "cid"]
    shown = done("audience", *asked, "--capability", "tea-mail")
    assert "ann" in shown.output
    assert "Audience" in shown.errors


def test_audiences_of_every_capability(asked: list[object]) -> None:
    answered = done("audience", *asked, "--every", "--k", 5, "--json").json()["audience"]
    ids = sorted({row["capability_id"] for row in answered})
    assert ids == ["tea-counter", "tea-mail", "wine-mail"]
    named = [part for name in ids for part in ("--capability", name)]
    assert answered == done("audience", *asked, *named, "--k", 5, "--json").json()["audience"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_audience_is_written_with_its_record(
    asked: list[object], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"audience.{suffix}"
    given = ["--capability", "tea-mail", "--capability", "wine-mail", "--out", out]
    summary = done("audience", *asked, *given, "--json").json()
    record = json.loads((tmp_path / "audience.run.json").read_text())
    assert summary["row_count"] == record["row_count"] == 3
    assert record["asked_capability_ids"] == ["tea-mail", "wine-mail"]
    assert record["files"] == {out.name: file_digest(out)}
    if suffix == "parquet":
        assert record["digests"]["audience"] == canonical_digest(pq.read_table(out))
    assert "row count" in done("audience", *asked, *given).output


def test_explain_says_what_stood_in_the_way(asked: list[object]) -> None:
    given = ["--customer", "cid", "--capability", "wine-mail"]
    explanation = done("explain", *asked, *given, "--json").json()
    assert explanation["rank"] is None
    assert "age >= 18" in explanation["verdict"]
    shown = done("explain", *asked, *given).output
    assert "would change it" in shown
    assert "age = 17" in shown


def test_explain_without_a_capability_lists_what_the_match_gives(
    world: Path, asked: list[object], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    left_out = '[exclusions]\ncustomers = ["bob"]\nproducts = ["wine"]\n'
    policy.write_text((world / "policy.toml").read_text() + f"control_share = 0.5\n{left_out}")
    for given in (asked, options(world, policy=policy)):
        done("match", *given, "--out", tmp_path / "m.parquet")
        rows = pq.read_table(tmp_path / "m.parquet").to_pylist()
        for customer in ("ann", "bob", "cid"):
            answered = done("explain", *given, "--customer", customer, "--json").json()
            wanted = [row for row in rows if row["customer_id"] == customer]
            assert answered["opportunities"] == wanted
            shown = done("explain", *given, "--customer", customer).output
            assert customer in shown
            assert ("no opportunity" in shown) == (not wanted)
    assert "bought on 2026-01-20" in done("explain", *asked, "--customer", "ann").output


def test_reasons_are_those_of_the_day_that_was_asked(asked: list[object]) -> None:
    given = [*asked, "--customer", "ann", "--as-of", "2026-02-15"]
    for more in ([], ["--capability", "tea-mail"]):
        assert "bought on 2026-01-20" in done("explain", *given, *more).output


def test_one_customers_engine_refuses_who_is_not_there(world: Path) -> None:
    answered = call("explain", *options(world), "--customer", "eve", "--json")
    assert answered.status == cli.EXIT_INPUT
    assert answered.json()["error"] == "NotFoundError"


def test_indicators_prints_definitions_and_carries_the_notice(world: Path, tmp_path: Path) -> None:
    given = [
        "--events", world / "events.csv", "--spec", world / "spec.toml", "--as-of", AS_OF,
        "--out", tmp_path / "i.parquet", "--notice", NOTICE,
    ]  # fmt: skip
    summary = done("indicators", *given, "--json").json()
    names = [definition["name"] for definition in summary["indicators"]]
    assert names == ["recency", "frequency_h30d", "spend_h30d"]
    assert summary["notice"] == NOTICE
    assert pq.read_schema(tmp_path / "i.parquet").metadata[NOTICE_METADATA] == NOTICE.encode()
    shown = done("indicators", *given).output
    assert "frequency_h30d" in shown
    assert NOTICE in shown


@pytest.mark.parametrize(
    "question",
    [
        ["match", "--out", "{out}"],
        ["audience", "--capability", "tea-mail"],
        ["audience", "--capability", "tea-mail", "--out", "{out}"],
        ["explain", "--customer", "ann"],
        ["explain", "--customer", "ann", "--capability", "tea-mail"],
    ],
    ids=" ".join,
)
def test_a_notice_stands_wherever_results_do(
    asked: list[object], tmp_path: Path, question: list[str]
) -> None:
    out = tmp_path / "out.parquet"
    command, *more = (part.format(out=out) for part in question)
    assert done(command, *asked, *more).output.count(NOTICE) == 1
    assert done(command, *asked, *more, "--json").json()["notice"] == NOTICE
    if out.exists():
        assert pq.read_schema(out).metadata[NOTICE_METADATA] == NOTICE.encode()


def test_doctor_checks_every_variant() -> None:
    report = done("doctor", "--json").json()
    assert set(report["self_check"]) == {name for name, ok in kernel.variants().items() if ok}
    assert set(report["self_check"].values()) == {"as known"}
    assert set(report["variants"]) == set(kernel.variants())
    for name, runs in kernel.variants().items():
        assert report["variants"][name].startswith("lacks ") != runs
    assert "as known" in done("doctor").output


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_doctor_fails_when_a_variant_computes_other_bits(
    more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visavis.selfcheck.check_variants", lambda: {"portable": False})
    answered = call("doctor", *more)
    assert answered.status == cli.EXIT_SETUP
    assert "OTHER BITS" in answered.output
    assert "other bits" in answered.errors
    if more:
        assert answered.json()["self_check"] == {"portable": "OTHER BITS"}


def test_the_demo_is_run_and_its_record_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: Path, *, stage: Any, **_: object) -> SimpleNamespace:
        with stage("Receipts") as tick:
            tick(1, 2)
        return SimpleNamespace(summary={"out": str(out)})

    monkeypatch.setattr("visavis.demo.run", run)
    answered = done("demo", "--out", tmp_path / "demo", "--json")
    assert answered.json() == {"out": str(tmp_path / "demo")}


def test_the_version_is_told() -> None:
    assert done("--version").output == f"visavis {visavis.__version__}\n"


@pytest.fixture
def stage_lines(asked: list[object], tmp_path: Path) -> Iterator[Any]:
    def lines(*more: object, **env: str) -> list[str]:
        given = ["match", *asked, "--out", tmp_path / "m.parquet", *more]
        return call(*given, env=env).errors.splitlines()

    return lines


def test_stages_are_logged_with_their_seconds(stage_lines: Any) -> None:
    names = ["Reading", "Preparation", "Match", "Reasons", "Writing"]
    assert stage_lines("--json") == [], "nothing below a warning unless asked for"
    logged = [json.loads(line) for line in stage_lines("--json", VISAVIS_LOG_LEVEL="info")]
    assert [(line["event"], line["name"]) for line in logged] == [("stage", name) for name in names]
    assert all(line["seconds"] >= 0 and line["level"] == "info" for line in logged)
    plain = stage_lines(VISAVIS_LOG_LEVEL="info")
    assert sum("stage" in line and "seconds" in line for line in plain) == len(names)
    as_json = stage_lines(VISAVIS_LOG_LEVEL="INFO", VISAVIS_LOG="json")
    assert sum(line.startswith("{") for line in as_json) == len(names)
    refused = stage_lines("--json", VISAVIS_LOG_LEVEL="loud")
    assert refused == []


def test_an_explanation_does_not_depend_on_the_engine_of_one(world: Path) -> None:
    engine = visavis.Engine(
        Base.read(world / "base"),
        Catalog.read(world / "catalog.jsonl"),
        Policy.read(world / "policy.toml"),
    )
    whole = engine.match().to_table()
    parts = [
        ask._engine_of_one(engine, customer).match().to_table()
        for customer in engine.base.customer_ids.to_pylist()
    ]
    assert canonical_digest(pa.concat_tables(parts)) == canonical_digest(whole)
