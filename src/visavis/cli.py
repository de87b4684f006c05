"""The command line: ``visavis demo · indicators · load · match · audience · explain · doctor``.

Results go to standard output, as text or with ``--json`` as one JSON document; progress and errors
go to standard error. Exit status: 0 done, 1 nothing of ours, 2 wrong input, 3 wrong surroundings.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from visavis import __version__, kernel
from visavis.errors import InputError, SetupError, VisavisError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Match every customer against every capability: exact, rule-aware, explained.",
)

EXIT_INPUT: Final = 2
EXIT_SETUP: Final = 3


T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="UTC date, inclusive; default: the base's.")
]
Threads = Annotated[int | None, typer.Option(help="Default: all processors of this process.")]
VariantName = Annotated[
    str | None, typer.Option("--variant", help="Force a kernel variant; never falls back.")
]
BaseFolder = Annotated[Path, typer.Option("--base", help="A folder that `visavis load` made.")]
CatalogFile = Annotated[Path, typer.Option("--catalog", help=".parquet, .csv, .jsonl or .toml")]
PolicyFile = Annotated[Path, typer.Option("--policy", help="A TOML file.")]


def main() -> None:
    """Run the command line; errors of visavis become one line and an exit status."""
    as_json = "--json" in sys.argv
    try:
        app()
    except VisavisError as error:
        _fail(error, EXIT_SETUP if isinstance(error, SetupError) else EXIT_INPUT, as_json)


def _fail(error: VisavisError, status: int, as_json: bool) -> NoReturn:
    if as_json:
        named = {
            name: getattr(error, name)
            for name in ("field", "row", "subject")
            if getattr(error, name, None) is not None
        }
        print(json.dumps({"error": type(error).__name__, "message": str(error), **named}))
    else:
        print(f"visavis: {error}", file=sys.stderr)
    sys.exit(status)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo-output"),
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Match one real data set end to end, timed against the campaign loop."""
    from visavis import demo as demonstration

    with _stages(quiet=as_json) as stage:
        done = demonstration.run(out, threads=threads, variant=variant, stage=stage)
    if as_json:
        _print_json(done.summary)
        return
    from visavis.showing import show_demo

    show_demo(done, Console())


@app.command()
def indicators(
    events: Annotated[list[Path], typer.Option(help="Parquet or CSV; may be given many times.")],
    spec: Annotated[Path, typer.Option(help="TOML: which columns mean what, which indicators.")],
    as_of: Annotated[str, typer.Option("--as-of", help="UTC date, inclusive.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    taxonomy: Annotated[
        Path | None, typer.Option(help="Parquet or CSV, joined by its key.")
    ] = None,
    memory_limit: Annotated[
        str, typer.Option(help="What DuckDB may hold before it spills.")
    ] = "1GB",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Turn events into indicators, each customer's from that customer's own events alone."""
    from visavis.indicators import IndicatorSpec, compute

    with _stages(quiet=as_json) as stage, stage("Indicators") as tick:
        result = compute(
            events,
            IndicatorSpec.read(spec),
            as_of,
            taxonomy=taxonomy,
            memory_limit=memory_limit,
            threads=threads,
            progress=tick,
        )
        result.write(out)
    summary = {
        "out": str(out),
        "customer_count": len(result.customer_ids),
        "indicator_count": len(result.names),
        "as_of": result.as_of.isoformat(),
        "spec_digest": result.spec_digest,
        "indicators": [asdict(definition) for definition in result.definitions],
    }
    if as_json:
        _print_json(summary)
        return
    table = Table("indicator", "unit", "formula", "where undefined")
    for definition in result.definitions:
        table.add_row(
            definition.name, definition.unit, definition.formula, f"{definition.undefined:g}"
        )
    console = Console()
    console.print(table)
    console.print(
        f"{summary['customer_count']:,} customers × {summary['indicator_count']} indicators "
        f"as of {summary['as_of']} → {out}"
    )


@app.command()
def load(
    profiles: Annotated[Path, typer.Option(help="Indicators: customer_id and numbers.")],
    as_of: Annotated[str, typer.Option("--as-of", help="UTC date up to which the tables know.")],
    out: Annotated[Path, typer.Option(help="Folder to make; never overwritten.")],
    attributes: Annotated[Path | None, typer.Option(help="customer_id and typed columns.")] = None,
    facts: Annotated[Path | None, typer.Option(help="What happened: see visavis.base.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a base from tables (Parquet or CSV)."""
    from visavis.base import Base

    with _stages(quiet=as_json) as stage, stage("Base"):
        base = Base.from_tables(
            _read_table(profiles, "profiles"),
            as_of=as_of,
            attributes=None if attributes is None else _read_table(attributes, "attributes"),
            facts=None if facts is None else _read_table(facts, "facts"),
        )
        base.write(out)
    summary = {
        "out": str(out),
        "customer_count": base.customer_count,
        "indicator_count": len(base.indicator_names),
        "fact_count": len(base.facts),
        "attributes": {field.name: str(field.type) for field in base.attributes.schema},
        "as_of": base.as_of.isoformat(),
        "digest": base.digest,
    }
    if as_json:
        _print_json(summary)
    else:
        _print_pairs(summary)


@app.command()
def match(
    base: BaseFolder,
    catalog: CatalogFile,
    policy: PolicyFile,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    as_of: AsOf = None,
    reasons: Annotated[int, typer.Option(help="At most so many reasons each.")] = 3,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Match every customer against every capability."""
    import pyarrow.parquet as pq

    with _stages(quiet=as_json) as stage:
        with stage("Base, catalog and policy"):
            engine = _engine(base, catalog, policy, as_of, threads, variant)
        with stage("Match") as tick:
            matches = engine.match(progress=tick)
        with stage("Reasons"):
            pq.write_table(matches.to_table(reasons=reasons), out, write_page_checksum=True)
    summary = {
        "out": str(out),
        "customer_count": engine.base.customer_count,
        "matched_customer_count": len(matches.customer_index),
        "capability_count": engine.catalog.capability_count,
        "opportunity_count": matches.opportunity_count,
        "as_of": engine.as_of.isoformat(),
        "variant": matches.variant,
        "threads": engine.threads,
        "stats": matches.stats,
        "digest": matches.digest(),
    }
    if as_json:
        _print_json(summary)
    else:
        _print_pairs(summary)


@app.command()
def audience(
    base: BaseFolder,
    catalog: CatalogFile,
    policy: PolicyFile,
    capability: Annotated[list[str], typer.Option(help="An id; may be given many times.")],
    k: Annotated[int, typer.Option(help="At most so many customers each.")] = 10,
    as_of: AsOf = None,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """The reverse: one capability and the customers whom it fits best."""
    engine = _engine(base, catalog, policy, as_of, threads, variant)
    found = engine.audience(capability, k=k)
    if as_json:
        _print_json(found.to_pylist())
        return
    table = Table(*found.column_names)
    for row in found.to_pylist():
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


@app.command()
def explain(
    base: BaseFolder,
    catalog: CatalogFile,
    policy: PolicyFile,
    customer: Annotated[str, typer.Option(help="The customer's id.")],
    capability: Annotated[str, typer.Option(help="The capability's id.")],
    as_of: AsOf = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Why one customer has, or has not, one opportunity."""
    engine = _engine(base, catalog, policy, as_of, 1, variant)
    explanation = engine.explain(customer, capability)
    if as_json:
        _print_json(asdict(explanation))
        return
    from visavis.showing import show_explanation

    show_explanation(engine, explanation, Console())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, which kernel variants this processor runs, and whether they are right."""
    from visavis.selfcheck import check_variants

    packages = ("numpy", "pyarrow", "duckdb", "sqlglot", "pydantic", "ray", "grpcio")
    checked = check_variants()
    summary = {
        "visavis": __version__,
        "kernel_contract": kernel.CONTRACT_VERSION,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "variants": kernel.variants(),
        "chosen_variant": kernel.choose_variant(),
        "self_check": {
            name: "same bits" if same else "OTHER BITS" for name, same in checked.items()
        },
        "packages": {name: _version_or_none(name) for name in packages},
    }
    if as_json:
        _print_json(summary)
    else:
        _print_pairs(summary)
    if not all(checked.values()):
        raise SetupError("a kernel variant computes other bits than docs/score.md says")


def _engine(
    base: Path,
    catalog: Path,
    policy: Path,
    as_of: str | None,
    threads: int | None,
    variant: str | None,
) -> Any:
    from visavis.base import Base
    from visavis.catalog import Catalog
    from visavis.engine import Engine
    from visavis.policy import Policy

    return Engine(
        Base.read(base),
        Catalog.read(catalog),
        Policy.read(policy),
        as_of=as_of,
        threads=threads,
        variant=variant,
    )


def _read_table(path: Path, field: str) -> Any:
    """A Parquet or CSV file; ids of a CSV file are text whatever they look like."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    from visavis.domain import CUSTOMER_ID

    try:
        if path.suffix == ".csv":
            texts = (CUSTOMER_ID, "product", "capability_id", "kind")
            types = {name: pa.string() for name in texts}
            convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
            return csv.read_csv(path, convert_options=convert)
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}", field=field) from None


@contextmanager
def _stages(*, quiet: bool) -> Iterator[Callable[[str], Any]]:
    """Progress bars on standard error; with `quiet`, or without a terminal, a line per stage."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )

    @contextmanager
    def stage(name: str) -> Iterator[Callable[[int, int], None]]:
        task = progress.add_task(name, total=None)
        if progress.disable and not quiet:
            console.print(f"{name} …")
        yield lambda done, total: progress.update(task, completed=done, total=total)
        total = progress.tasks[task].total or 1
        progress.update(task, completed=total, total=total)

    with progress:
        yield stage


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _print_pairs(summary: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in summary.items():
        shown = (
            ", ".join(f"{key} {_cell(held)}" for key, held in value.items())
            if isinstance(value, dict)
            else _cell(value)
        )
        table.add_row(name.replace("_", " "), shown)
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _version_or_none(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
