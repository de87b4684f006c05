"""Names from strangers: shown as they are, never obeyed, whatever the terminal can show."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import AS_OF, call, capability, done, options, write_base, write_inputs

HOSTILE = [
    *("[red]x[/red]", "x[/nope]", "[/]", "x:tea:", "'; rm -rf /", "--help", "\x1b[2Jx", "x\ny"),
    *("\u202ex", "x\x08", "{x}", "%s", "naïve 茶"),
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A base and a catalog all of whose names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    table = pa.table({"customer_id": HOSTILE, "[/x]\x1b": [1.0] * len(HOSTILE)})
    pq.write_table(table, folder / "profiles.parquet")
    done(
        "load", "--profiles", folder / "profiles.parquet", "--as-of", AS_OF, "--out",
        folder / "base", "--notice", "[/nope] \x1b[31m",
    )  # fmt: skip
    rows = [
        capability(name, name, channel="[/b]", weights={"[/x]\x1b": 1.0}, rule="1 = 1 or 1 = 2")
        for name in HOSTILE
    ]
    (folder / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "policy.toml").write_text('consent_not_needed = ["[/b]"]\nk = 3\n')
    return options(folder)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_and_not_obeyed(hostile: list[object], name: str) -> None:
    def told(*arguments: object) -> str:
        text = done(*arguments).output
        assert not {"\x1b", "\x08", "\u202e"} & set(text)
        return text.replace("\n", "")

    visible = name if name.isprintable() else repr(name)[1:-1]
    given = [*hostile, f"--customer={name}", f"--capability={name}"]
    assert visible in told("explain", *given)
    assert done("explain", *given, "--json").json()["customer_id"] == name
    assert visible in told("explain", *hostile, f"--customer={name}")
    assert visible in told("audience", *hostile, f"--capability={name}", "--k", 99)
    missing = [*hostile, f"--customer={name}?"]
    answered = call("explain", *missing)
    assert (answered.status, answered.errors.count("\n")) == (2, 1)
    assert "\x1b" not in answered.errors


def test_a_terminal_that_lacks_a_letter_does_not_end_the_command(hostile: list[object]) -> None:
    given = ["audience", *hostile, "--capability=naïve 茶", "--k", 99]
    answered = call(*given, encoding="ascii")
    assert answered.status == 0
    as_json = call(*given, "--json", encoding="ascii")
    assert as_json.status == 0
    assert {row["customer_id"] for row in as_json.json()["audience"]} == set(HOSTILE)


def test_a_path_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    given = write_base(write_inputs(tmp_path))
    out = tmp_path / os.fsdecode(b"m\xff.parquet")
    done("match", *given, "--out", out)
    record = json.loads((tmp_path / os.fsdecode(b"m\xff.run.json")).read_text())
    assert list(record["files"]) == ["m\\udcff.parquet"]
    answered = call(
        "load", "--profiles", tmp_path / "indicators.parquet", "--out", tmp_path / "b", "--notice",
        os.fsdecode(b"\xff"),
    )  # fmt: skip
    assert answered.errors.endswith("--notice: must be text that UTF-8 can hold\n")
