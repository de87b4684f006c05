"""``visavis learn`` on small files: catalog, provenance and card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from visavis import cli
from visavis.catalog import Catalog

SPEC = """
[events]
customer = "who"
time = "day"

[[indicator]]
kind = "recency"

[[indicator]]
kind = "frequency"
half_lives_days = [30]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    days = [f"2026-01-{day:02}" for day in range(1, 29)]
    names = [f"c{number}" for number in range(8)]
    rows = [(name, day) for at, name in enumerate(names) for day in days[at % 3 :: 2 + at % 3]]
    who, day = [row[0] for row in rows], [row[1] for row in rows]
    product = [("tea", "wine")[int(row[1][-1]) % 2] for row in rows]
    pa.csv.write_csv(pa.table({"who": who, "day": day}), tmp_path / "events.csv")
    facts = {"customer_id": who, "product": product, "kind": ["bought"] * len(rows), "date": day}
    pa.csv.write_csv(pa.table(facts), tmp_path / "facts.csv")
    offers = [
        {"id": "t", "product": "tea", "channel": "email", "weights": {"frequency_h30d": 0.5}},
        {"id": "w", "product": "wine", "channel": "email", "weights": {}, "rule": "age >= 18"},
    ]
    (tmp_path / "catalog.jsonl").write_text("\n".join(map(json.dumps, offers)))
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "how.toml").write_text("window_days = 7")
    return tmp_path


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, str, str]:
    options = {
        "--events": folder / "events.csv",
        "--spec": folder / "spec.toml",
        "--facts": folder / "facts.csv",
        "--catalog": folder / "catalog.jsonl",
        "--how": folder / "how.toml",
        "--out": folder / "learned.parquet",
        "--card": folder / "card.md",
        "--windows": 2,
    }
    arguments = [str(part) for option in options.items() for part in option]
    monkeypatch.setattr(sys, "argv", ["visavis", "learn", *arguments, *more])
    status = 0
    try:
        cli.main()
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_learn_writes_catalog_provenance_and_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, errors = run(folder, monkeypatch, capsys, "--as-of", "2026-01-27", "--json")
    assert status == 0, errors
    summary = json.loads(output)
    learned, declared = (
        Catalog.read(folder / name) for name in ("learned.parquet", "catalog.jsonl")
    )
    assert learned.digest() == summary["digest"]
    assert learned.rules == declared.rules
    cuts = [window["as_of"] for window in summary["provenance"]["windows"]]
    assert cuts == ["2026-01-13", "2026-01-20"]
    assert json.loads((folder / "learned.json").read_text()) == summary["provenance"]
    assert "# Model card: 2 capabilities" in (folder / "card.md").read_text(encoding="utf-8")
    status, output, _ = run(folder, monkeypatch, capsys, "--as-of", "2026-01-27")
    assert status == 0
    assert "learned.parquet" in output


def test_what_learn_cannot_use_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "how.toml").write_text("window_dayz = 7")
    status, _, errors = run(folder, monkeypatch, capsys, "--as-of", "2026-01-27")
    assert status == cli.EXIT_INPUT
    assert "window_dayz" in errors


def test_what_happened_after_as_of_teaches_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--as-of", "2026-01-27", "--json")
    status, output, errors = run(folder, monkeypatch, capsys, *given)
    assert status == 0, errors
    before = json.loads(output)
    for name, line in (
        ("events.csv", '"c{}","2026-02-{:02}"'),
        ("facts.csv", '"c{}","wine","bought","2026-02-{:02}"'),
    ):
        with (folder / name).open("a") as file:
            file.writelines(line.format(n % 8, n) + "\n" for n in range(1, 20))
    status, output, errors = run(folder, monkeypatch, capsys, *given)
    assert status == 0, errors
    assert json.loads(output)["digest"] == before["digest"]


def test_a_window_that_the_facts_do_not_cover_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, errors = run(folder, monkeypatch, capsys, "--as-of", "2026-01-30")
    assert status == cli.EXIT_INPUT
    assert "end on 2026-01-27, the window needs them up to 2026-01-30" in errors
    more = ("--as-of", "2026-01-30", "--complete-to", "2026-01-30")
    status, _, errors = run(folder, monkeypatch, capsys, *more)
    assert status == 0, errors
