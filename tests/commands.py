"""The command line called inside the process, and small input files for every command."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyarrow as pa
import pyarrow.csv as csv

from visavis import cli

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

NOTICE = "drawn by lot, no [red]real[/nope] customers"

AS_OF = "2026-01-31"


class Done(NamedTuple):
    """What a command answered."""

    status: int
    output: str
    errors: str

    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.output)


def call(*arguments: object, env: Mapping[str, str] | None = None, encoding: str = "utf-8") -> Done:
    """Run one command; an error that visavis did not foresee is raised, unless `env` says no."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    surroundings = {"VISAVIS_TRACEBACK": "1", "COLUMNS": "100", **(env or {})}
    status = 0
    with (
        mock.patch.object(sys, "argv", ["visavis", *map(str, arguments)]),
        mock.patch.dict(os.environ, surroundings),
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
    ):
        try:
            cli.main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    return Done(status, *texts)


def done(*arguments: object) -> Done:
    """Run one command that must succeed."""
    answered = call(*arguments)
    assert answered.status == 0, answered.errors + answered.output
    return answered


def refused(*arguments: object, status: int = 2) -> str:
    """The one line in which a command is refused, the same as text and as JSON."""
    as_text = call(*arguments)
    assert (as_text.status, as_text.output) == (status, ""), as_text
    told = [line for line in as_text.errors.splitlines() if not line.endswith(" …")]
    assert len(told) == 1, as_text.errors
    as_json = call(*arguments, "--json")
    assert (as_json.status, as_json.errors) == (status, "")
    message = as_json.json()["message"]
    assert told[0] == f"visavis: {message}"
    return str(message)


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


def write_inputs(folder: Path) -> Path:
    """Input files for every command; returns the folder."""
    events = pa.table(
        {
            "who": ["ann", "ann", "bob", "cid"],
            "day": pa.array(["2026-01-01", "2026-01-20", "2026-01-10", "2026-01-25"]),
            "paid": [3.5, 4.0, 10.0, 1.25],
        }
    )
    csv.write_csv(events, folder / "events.csv")
    (folder / "spec.toml").write_text(SPEC)
    (folder / "attributes.csv").write_text(
        "customer_id,age,consent_email\ncid,17,true\nann,40,TRUE\nbob,31,\n"
    )
    (folder / "types.toml").write_text('age = "int64"\n')
    (folder / "facts.csv").write_text("customer_id,product,kind,date\nann,tea,bought,2026-01-20\n")
    term = {"kind": "bought", "feature": "ever", "weight": 1.0}
    rows = [
        capability("tea-mail", "tea", history_weights=[term]),
        capability("tea-counter", "tea", channel="counter", cost=1.0),
        capability("wine-mail", "wine", rule="age >= 18"),
    ]
    (folder / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "policy.toml").write_text(POLICY)
    return folder


def write_base(folder: Path) -> list[object]:
    """Indicators and base from the input files; returns the options that questions share."""
    done(
        "indicators", "--events", folder / "events.csv", "--spec", folder / "spec.toml",
        "--as-of", AS_OF, "--notice", NOTICE, "--out", folder / "indicators.parquet",
    )  # fmt: skip
    done(
        "load", "--profiles", folder / "indicators.parquet", "--attributes",
        folder / "attributes.csv", "--types", folder / "types.toml", "--facts",
        folder / "facts.csv", "--out", folder / "base",
    )  # fmt: skip
    return options(folder)


def options(folder: Path, **others: Path) -> list[object]:
    """``--base … --catalog … --policy …`` of a folder, some of them replaced."""
    given = {
        "base": folder / "base",
        "catalog": folder / "catalog.jsonl",
        "policy": folder / "policy.toml",
        **others,
    }
    return [part for name, path in given.items() for part in (f"--{name}", path)]
