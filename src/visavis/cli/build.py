"""``indicators`` and ``load``: from events and tables to a base."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from visavis.cli.options import AsJson, Threads, named
from visavis.cli.output import print_json, print_pairs, stages
from visavis.errors import InputError
from visavis.terminal import add_row, new_console, new_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from visavis.base import Base
    from visavis.indicators import Indicators

__all__ = ["indicators", "load"]

#: By which a folder is known as a base, and may be replaced.
_MANIFEST: Final = "base.json"
_BASE_FILES: Final = (_MANIFEST, ".parquet")

Notice = Annotated[
    str | None,
    typer.Option(help="What must stand wherever results are shown; also read from Parquet."),
]


def indicators(
    events: Annotated[list[Path], typer.Option(help="Parquet or CSV; may be given many times.")],
    spec: Annotated[Path, typer.Option(help="TOML: which columns mean what, which indicators.")],
    as_of: Annotated[str, typer.Option("--as-of", help="UTC date, inclusive.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    taxonomy: Annotated[
        Path | None, typer.Option(help="Parquet or CSV, joined by its key.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="What DuckDB may hold before it spills; default: 500MB.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Spread customers over Ray: 'local', 'auto' or the head's host:port. Every "
            "worker must see the files under the same paths.",
        ),
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(help="With --ray: tasks to split into; default: one per processor."),
    ] = None,
    notice: Notice = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Turn events into indicators, each customer's from that customer's own events alone."""
    from visavis.cli.records import check_out, with_notice
    from visavis.indicators import MEMORY_LIMIT, IndicatorSpec
    from visavis.store import write_parquet

    if partitions is not None and ray is None:
        raise InputError("are for --ray, which is not given", field="--partitions")
    read = {f"--events {path}": path for path in events}
    check_out(
        out, (".parquet",), {**read, "--taxonomy": taxonomy, "--spec": spec}, with_record=False
    )
    names = ("as_of", "events", "memory_limit", "partitions", "taxonomy", "threads")
    options = {name: f"--{name.replace('_', '-')}" for name in names}
    with (
        stages(quiet=as_json) as stage,
        named(**{**options, "spec": "--spec", "address": "--ray"}),
    ):
        with stage("Indicators") as tick:
            compute = _compute_with(ray, partitions, threads)
            result = compute(
                events,
                IndicatorSpec.read(spec),
                as_of,
                taxonomy=taxonomy,
                memory_limit=memory_limit or MEMORY_LIMIT,
                progress=tick,
            )
        said = _notices(notice, *(_metadata_of(path) for path in (*events, taxonomy)))
        with stage("Writing"):
            write_parquet(out, with_notice(result.to_table(), said))
    _print_indicators(result, out, said, as_json)


def _compute_with(
    ray: str | None, partitions: int | None, threads: int | None
) -> Callable[..., Indicators]:
    """How to compute: in this process, or spread over Ray with the same bytes."""
    if ray is None:
        from visavis.indicators import compute

        return partial(compute, threads=threads)
    from visavis.cluster import compute_indicators

    return partial(compute_indicators, address=ray, partitions=partitions, threads=threads or 1)


def _print_indicators(result: Indicators, out: Path, notice: str | None, as_json: bool) -> None:
    from visavis.showing import show_notice

    if as_json:
        print_json(
            {
                "out": str(out),
                "notice": notice,
                "customer_count": len(result.customer_ids),
                "indicator_count": len(result.names),
                "as_of": result.as_of.isoformat(),
                "spec_digest": result.spec_digest,
                "indicators": [asdict(definition) for definition in result.definitions],
            }
        )
        return
    table = new_table("indicator", "unit", "formula", "where undefined")
    for each in result.definitions:
        add_row(table, each.name, each.unit, each.formula, f"{each.undefined:g}")
    console = new_console()
    console.print(table)
    console.print(
        f"{len(result.customer_ids):,} customers × {len(result.names)} indicators "
        f"as of {result.as_of} → {out}",
        soft_wrap=True,
    )
    show_notice(notice, console)


def load(
    profiles: Annotated[Path, typer.Option(help="Indicators: customer_id and numbers.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            help="UTC date up to which the tables know; default: what `visavis indicators` wrote.",
        ),
    ] = None,
    attributes: Annotated[Path | None, typer.Option(help="customer_id and typed columns.")] = None,
    types: Annotated[
        Path | None,
        typer.Option(
            help="TOML for attributes in CSV: column = 'bool', 'int64', 'float64', 'string' or "
            "'date'. Without it they are text, which age >= 18 refuses; consent_… and objected "
            "are bool."
        ),
    ] = None,
    facts: Annotated[Path | None, typer.Option(help="What happened: see visavis.base.")] = None,
    notice: Notice = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a base that stands there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build a base from tables: Parquet, or CSV of which every cell is checked."""
    from visavis.base import Base
    from visavis.cli.records import with_notice
    from visavis.cli.tables import read_attributes, read_facts, read_profiles

    if types is not None and attributes is None:
        raise InputError("types are those of --attributes, which is not given", field="--types")
    inputs = {
        "--profiles": profiles,
        "--attributes": attributes,
        "--facts": facts,
        "--types": types,
    }
    _check_folder(out, replace, inputs)
    names = ("profiles", "attributes", "facts", "types", "as_of", "path")
    options = {name: f"--{name.replace('_', '-')}" for name in names}
    with (
        stages(quiet=as_json) as stage,
        named(**{**options, "indicators": "--profiles", "path": "--out"}),
    ):
        with stage("Tables"):
            indicators = read_profiles(profiles)
            known = None if attributes is None else read_attributes(attributes, types)
            happened = None if facts is None else read_facts(facts)
        held = [None if each is None else _metadata(each) for each in (indicators, known, happened)]
        with stage("Base"):
            base = Base.from_tables(
                with_notice(indicators, _notices(notice, *held)),
                as_of=_as_of(as_of, indicators, profiles),
                attributes=known,
                facts=happened,
            )
        with stage("Writing"):
            base.write(out, replace=replace)
    _print_base(base, out, as_json)


def _print_base(base: Base, out: Path, as_json: bool) -> None:
    from visavis.showing import show_notice

    summary = {
        "out": str(out),
        "notice": base.notice,
        "customer_count": base.customer_count,
        "indicator_count": len(base.indicator_names),
        "fact_count": len(base.facts),
        "attributes": {field.name: str(field.type) for field in base.attributes.schema},
        "as_of": base.as_of.isoformat(),
        "digest": base.digest,
    }
    if as_json:
        print_json(summary)
        return
    print_pairs({name: said for name, said in summary.items() if name != "notice"})
    show_notice(base.notice, new_console())


def _as_of(given: str | None, indicators: pa.Table, path: Path) -> str:
    """The day asked for, or that of the indicators; that both agree is checked by the base."""
    from visavis.domain import AS_OF_METADATA

    held = _metadata(indicators).get(AS_OF_METADATA)
    if given is None and held is None:
        raise InputError(f"must be given: {path} does not say as of when it is", field="--as-of")
    return given or str((held or b"").decode(errors="replace"))


def _check_folder(out: Path, replace: bool, inputs: dict[str, Path | None]) -> None:
    """Refuse before any work what cannot be written, or must not be replaced."""
    from visavis.store import check_writable

    if not os.path.lexists(out):
        check_writable(out)
        return
    if not replace:
        raise InputError(
            f"{out} exists already; results are never overwritten without --replace", field="--out"
        )
    if not (out / _MANIFEST).is_file():
        raise InputError(f"{out} is no base: --replace replaces nothing else", field="--out")
    foreign = [each.name for each in out.iterdir() if not each.name.endswith(_BASE_FILES)]
    if foreign:
        raise InputError(f"{out} holds what is no base's: {min(foreign)}", field="--out")
    real = Path(os.path.realpath(out))
    for option, given in inputs.items():
        if given is not None and real in Path(os.path.realpath(given)).parents:
            raise InputError(f"{option} reads {given}, which lies in it", field="--out")


def _metadata(table: pa.Table) -> dict[bytes, bytes]:
    return table.schema.metadata or {}


def _metadata_of(path: Path | None) -> dict[bytes, bytes]:
    """What the schema of a Parquet file carries; of other files nothing."""
    import pyarrow.parquet as pq

    from visavis.cli.tables import is_csv
    from visavis.store import reading

    if path is None or is_csv(path):
        return {}
    with reading(path, field="events"):
        return pq.read_schema(path).metadata or {}


def _notices(given: str | None, *metadata: dict[bytes, bytes] | None) -> str | None:
    """Every distinct notice, in the order of its sources; None if there is none."""
    from visavis.domain import NOTICE_METADATA

    held: list[Any] = [(each or {}).get(NOTICE_METADATA) for each in metadata]
    texts = [given, *(None if text is None else text.decode(errors="replace") for text in held)]
    return " ".join(dict.fromkeys(text for text in texts if text)) or None
