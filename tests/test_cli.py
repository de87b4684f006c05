"""The command line: each command on small files, its JSON, its errors and exit statuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from visavis import _kernel, cli, kernel

SPEC = """
[events]
customer = "who"
time = "day"
amount = "paid"

[[indicator]]
kind = "recency"

[[indicator]]
kind = "frequency"
half_lives_days = [30]

[[indicator]]
kind = "spend"
half_lives_days = [30]
"""

POLICY = """
k = 2
ev_min = "none"
product_limit = 1
consent_not_needed = ["counter"]
"""


def capability(name: str, product: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "product": product,
        "channel": "email",
        "family": "drinks",
        "weights": {"frequency_h30d": 0.5},
        "value": 10.0,
        **more,
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files for every command."""
    folder = tmp_path_factory.mktemp("world")
    events = pa.table(
        {
            "who": ["ann", "ann", "bob", "cid"],
            "day": pa.array(["2026-01-01", "2026-01-20", "2026-01-10", "2026-01-25"]),
            "paid": [3.5, 4.0, 10.0, 1.25],
        }
    )
    csv.write_csv(events, folder / "events.csv")
    (folder / "spec.toml").write_text(SPEC)
    attributes = pa.table(
        {
            "customer_id": ["cid", "ann", "bob"],
            "age": [17, 40, 31],
            "consent_email": [True, True, None],
        }
    )
    csv.write_csv(attributes, folder / "attributes.csv")
    facts = pa.table(
        {"customer_id": ["ann"], "product": ["tea"], "kind": ["bought"], "date": ["2026-01-20"]}
    )
    csv.write_csv(facts, folder / "facts.csv")
    term = {"kind": "bought", "feature": "ever", "weight": 1.0}
    rows = [
        capability("tea-mail", "tea", history_weights=[term]),
        capability("tea-counter", "tea", channel="counter", cost=1.0),
        capability("wine-mail", "wine", rule="age >= 18"),
    ]
    (folder / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "policy.toml").write_text(POLICY)
    return folder


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["visavis", *map(str, arguments)])
    status = 0
    try:
        cli.main()
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def visavis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


@pytest.fixture
def matchable(world: Path, tmp_path: Path, visavis: Any) -> list[object]:
    """The options that match, audience and explain share, after indicators and load."""
    status, _, errors = visavis(
        "indicators", "--events", world / "events.csv", "--spec", world / "spec.toml",
        "--as-of", "2026-01-31", "--out", tmp_path / "indicators.parquet",
    )  # fmt: skip
    assert status == 0, errors
    status, _, errors = visavis(
        "load", "--profiles", tmp_path / "indicators.parquet", "--attributes",
        world / "attributes.csv", "--facts", world / "facts.csv", "--as-of", "2026-01-31",
        "--out", tmp_path / "base",
    )  # fmt: skip
    assert status == 0, errors
    return [
        "--base", tmp_path / "base", "--catalog", world / "catalog.jsonl",
        "--policy", world / "policy.toml",
    ]  # fmt: skip


def test_events_become_opportunities(matchable: list[object], tmp_path: Path, visavis: Any) -> None:
    out = tmp_path / "opportunities.parquet"
    status, output, _ = visavis("match", *matchable, "--out", out, "--json")
    assert status == 0
    summary = json.loads(output)
    assert summary["opportunity_count"] == len(pq.read_table(out)) == 4
    chosen = {
        (row["customer_id"], row["rank"]): row["capability_id"]
        for row in pq.read_table(out).to_pylist()
    }
    assert chosen == {
        ("ann", 1): "tea-mail",
        ("ann", 2): "wine-mail",
        ("bob", 1): "tea-counter",
        ("cid", 1): "tea-mail",
    }
    assert summary["stats"]["skipped_by_rule"] == 3


def test_match_prints_its_numbers_for_people(
    matchable: list[object], tmp_path: Path, visavis: Any
) -> None:
    status, output, errors = visavis("match", *matchable, "--out", tmp_path / "m.parquet")
    assert status == 0
    assert "opportunity count" in output
    assert "Match" in errors


def test_audience_ranks_customers(matchable: list[object], visavis: Any) -> None:
    status, output, _ = visavis(
        "audience", *matchable, "--capability", "tea-mail", "--k", 5, "--json"
    )
    assert status == 0
    rows = json.loads(output)
    assert [row["customer_id"] for row in rows] == ["ann", "cid"]
    assert visavis("audience", *matchable, "--capability", "tea-mail")[0] == 0


def test_explain_says_what_stood_in_the_way(matchable: list[object], visavis: Any) -> None:
    asked = ["--customer", "cid", "--capability", "wine-mail"]
    status, output, _ = visavis("explain", *matchable, *asked, "--json")
    assert status == 0
    explanation = json.loads(output)
    assert explanation["rank"] is None
    assert "age >= 18" in explanation["verdict"]
    status, output, _ = visavis("explain", *matchable, *asked)
    assert status == 0
    assert "would change it" in output
    assert "age = 17" in output


def test_indicators_prints_definitions(world: Path, tmp_path: Path, visavis: Any) -> None:
    status, output, _ = visavis(
        "indicators", "--events", world / "events.csv", "--spec", world / "spec.toml",
        "--as-of", "2026-01-31", "--out", tmp_path / "i.parquet", "--json",
    )  # fmt: skip
    assert status == 0
    names = [definition["name"] for definition in json.loads(output)["indicators"]]
    assert names == ["recency", "frequency_h30d", "spend_h30d"]


def test_load_says_what_the_base_knows(tmp_path: Path, visavis: Any) -> None:
    profiles = tmp_path / "profiles.csv"
    profiles.write_text("customer_id,visits\n007,1\n7,2\n")
    arguments = ["--profiles", profiles, "--as-of", "2026-01-31", "--out", tmp_path / "base"]
    status, output, _ = visavis("load", *arguments, "--json")
    assert status == 0
    assert json.loads(output)["customer_count"] == 2, "007 and 7 are two customers"
    status, _, errors = visavis("load", *arguments)
    assert status == cli.EXIT_INPUT
    assert "never overwritten" in errors


def test_wrong_input_is_one_line_and_status_2(
    matchable: list[object], world: Path, tmp_path: Path, visavis: Any
) -> None:
    catalog = tmp_path / "wrong.jsonl"
    catalog.write_text(json.dumps(capability("a", "tea", rule="agee >= 18")))
    arguments = [catalog if given == world / "catalog.jsonl" else given for given in matchable]
    status, output, errors = visavis("match", *arguments, "--out", tmp_path / "m.parquet")
    assert status == cli.EXIT_INPUT
    assert output == ""
    assert errors.count("\n") <= 3
    for named in ("capability 'a'", "agee", "position 0", "age"):
        assert named in errors
    assert not (tmp_path / "m.parquet").exists()


def test_errors_come_as_json_when_json_is_asked(matchable: list[object], visavis: Any) -> None:
    status, output, _ = visavis(
        "explain", *matchable, "--customer", "eve", "--capability", "tea-mail", "--json"
    )
    assert status == cli.EXIT_INPUT
    assert json.loads(output) == {
        "error": "NotFoundError",
        "message": "customer 'eve' is not in the base",
    }


def test_an_unknown_variant_is_refused(
    matchable: list[object], tmp_path: Path, visavis: Any
) -> None:
    status, _, errors = visavis(
        "match", *matchable, "--out", tmp_path / "m.parquet", "--variant", "abacus"
    )
    assert status == cli.EXIT_INPUT
    assert "abacus" in errors


def test_a_variant_that_cannot_run_is_status_3(
    matchable: list[object], tmp_path: Path, visavis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kernel, "variants", lambda: [("portable", True), ("abacus", False)])
    status, _, errors = visavis(
        "match", *matchable, "--out", tmp_path / "m.parquet", "--variant", "abacus"
    )
    assert status == cli.EXIT_SETUP
    assert "cannot run on this processor" in errors


def test_doctor_checks_every_variant(visavis: Any) -> None:
    status, output, _ = visavis("doctor", "--json")
    assert status == 0
    report = json.loads(output)
    assert set(report["self_check"]) == {name for name, ok in kernel.variants().items() if ok}
    assert set(report["self_check"].values()) == {"same bits"}
    assert visavis("doctor")[0] == 0


def test_doctor_fails_when_a_variant_computes_other_bits(
    visavis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visavis.selfcheck.check_variants", lambda: {"portable": False})
    status, _, errors = visavis("doctor")
    assert status == cli.EXIT_SETUP
    assert "other bits" in errors


def test_a_misspelt_option_is_a_usage_error(visavis: Any) -> None:
    status, _, errors = visavis("match", "--bass", "x")
    assert status == 2
    assert "--bass" in errors


@pytest.mark.parametrize("name", ["profiles", "attributes", "facts"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path, visavis: Any) -> None:
    profiles = tmp_path / "profiles.csv"
    profiles.write_text("customer_id,visits\na,1\n")
    given: dict[str, Path] = {"profiles": profiles, name: tmp_path / "nowhere.parquet"}
    options = [part for option, path in given.items() for part in (f"--{option}", path)]
    status, _, errors = visavis("load", *options, "--as-of", "2026-01-31", "--out", tmp_path / "b")
    assert status == cli.EXIT_INPUT
    assert "nowhere.parquet" in errors
