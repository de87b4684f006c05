"""``indicators`` and ``load``: from events and tables to a base."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from visavis.cli.options import AsJson, Insecure, JournalFile, Threads, named, read_overlay
from visavis.cli.output import print_json, print_pairs, stages
from visavis.errors import InputError
from visavis.terminal import add_row, new_console, new_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from visavis.base import StoredBase, TableStream
    from visavis.indicators import Indicators

__all__ = ["indicators", "load", "show_base"]

#: Events of fewer bytes become profiles at once.
_SLICED_BYTES: Final = 2**26

#: Of more events a slice of the customers is computed at a time, of about so many cells (64 MB);
#: one in so many customers tells first how many there are.
_SLICE_CELLS: Final = 2**24
_PROBED: Final = 64

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
    insecure: Insecure = False,
    notice: Notice = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Turn events into indicators, each customer's from that customer's own events alone."""
    from visavis.cli.records import check_out, with_notice
    from visavis.indicators import MEMORY_LIMIT, IndicatorSpec
    from visavis.store import write_parquet

    for option, given in (("--partitions", partitions is not None), ("--insecure", insecure)):
        if given and ray is None:
            raise InputError("is for --ray, which is not given", field=option)
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
            compute = _compute_with(ray, partitions, threads, insecure)
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
    ray: str | None, partitions: int | None, threads: int | None, insecure: bool
) -> Callable[..., Indicators]:
    """How to compute: in this process, or spread over Ray with the same bytes."""
    if ray is None:
        from visavis.indicators import compute

        return partial(compute, threads=threads)
    from visavis.cluster import compute_indicators

    return partial(
        compute_indicators,
        address=ray,
        partitions=partitions,
        threads=threads or 1,
        insecure=insecure,
    )


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
    out: Annotated[
        str,
        typer.Option(
            help="Folder, or URL of an object store's prefix; a base there gets a new version."
        ),
    ],
    profiles: Annotated[
        str | None, typer.Option(help="Indicators: customer_id and numbers.")
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(help="Instead of --profiles: events to make them of; may be given often."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="With --events: TOML, which columns mean what.")
    ] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="With --events: joined by its key.")] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            help="UTC date up to which the tables know; default: what `visavis indicators` wrote.",
        ),
    ] = None,
    attributes: Annotated[str | None, typer.Option(help="customer_id and typed columns.")] = None,
    types: Annotated[
        Path | None,
        typer.Option(
            help="TOML for attributes in CSV: column = 'bool', 'int64', 'float64', 'string' or "
            "'date'. Without it they are text, which age >= 18 refuses; consent_… and objected "
            "are bool."
        ),
    ] = None,
    facts: Annotated[str | None, typer.Option(help="What happened: see visavis.base.")] = None,
    journal: JournalFile = None,
    parts: Annotated[
        int | None, typer.Option(help="A power of two; default: one per 16,384 customers.")
    ] = None,
    notice: Notice = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Build a base from tables: Parquet, Arrow, or CSV of which every cell is checked."""
    from visavis import base as bases
    from visavis.cli.records import with_notice
    from visavis.cli.tables import open_attributes, open_facts, open_profiles
    from visavis.store import local_file

    if types is not None and attributes is None:
        raise InputError("types are those of --attributes, which is not given", field="--types")
    _check_sources(profiles, events, spec, taxonomy)
    _check_place(out)
    if journal is None:
        _refuse_to_lose(out)
    names = (
        *("profiles", "attributes", "facts", "types", "as_of"),
        *("parts", "events", "taxonomy", "threads"),
    )
    options = {name: f"--{name.replace('_', '-')}" for name in names}
    with (
        stages(quiet=as_json) as stage,
        named(**{**options, "indicators": "--profiles", "path": "--out", "spec": "--spec"}),
    ):
        with stage("Tables") as tick:
            files: list[Path] = []
            if profiles is not None:
                indicators = open_profiles(profiles)
            else:
                files += [local_file(each, field="events") for each in events or []]
                indicators = _from_events(files, spec, taxonomy, as_of, threads, tick)
            known = None if attributes is None else open_attributes(attributes, types)
            happened = None if facts is None else open_facts(facts)
        overlay = None if journal is None else read_overlay(journal)
        held = [each.schema for each in (indicators, known, happened) if each is not None]
        metadata = [each.metadata for each in held]
        said = _notices(notice, *metadata, *(_metadata_of(path) for path in files))
        with stage("Base") as tick:
            stored = bases.load(
                out,
                replace(indicators, schema=with_notice(held[0].empty_table(), said).schema),
                as_of=_as_of(as_of, indicators.schema, profiles),
                attributes=known,
                facts=happened,
                parts=parts,
                amend=None if overlay is None else overlay.apply,
                journal_offset=0 if overlay is None else overlay.through,
                forgotten=() if overlay is None else overlay.forgotten,
                threads=len(os.sched_getaffinity(0)) if threads is None else threads,
                progress=tick,
            )
    show_base(stored, as_json)


def _check_sources(
    profiles: str | None, events: list[str] | None, spec: Path | None, taxonomy: Path | None
) -> None:
    if (profiles is None) == (not events):
        raise InputError("give either --profiles or --events", field="--profiles")
    for option, given in (("--spec", spec), ("--taxonomy", taxonomy)):
        if profiles is not None and given is not None:
            raise InputError("is for --events, which are not given", field=option)
    if events and spec is None:
        raise InputError("must be given with --events", field="--spec")


def _from_events(
    events: list[Path],
    spec: Path | None,
    taxonomy: Path | None,
    as_of: str | None,
    threads: int | None,
    tick: Callable[[int, int], None],
) -> TableStream:
    """Profiles from events, some slices of the customers after the other.

    Every slice reads all events once more, about 0.1 µs each: time is what bounded memory costs.
    """
    from visavis.base import TableStream
    from visavis.indicators import IndicatorSpec, compute
    from visavis.store import check_readable

    if as_of is None:
        raise InputError("must be given with --events", field="--as-of")
    assert spec is not None  # noqa: S101  (_check_sources has seen to it)
    read = IndicatorSpec.read(spec)
    for path in events:
        check_readable(path, field="events")
    relation = _relation(events)

    def made(index: int, count: int) -> pa.Table:
        part = (index, count)
        found = compute(relation, read, as_of, taxonomy=taxonomy, threads=threads, part=part)
        return found.to_table()

    if sum(path.stat().st_size for path in events) < _SLICED_BYTES:
        return TableStream.of(made(0, 1))
    some = made(0, _PROBED)
    row_count = _PROBED * max(1, some.num_rows)
    slice_count = 1 + row_count * some.num_columns // _SLICE_CELLS

    def slices() -> Iterator[pa.Table]:
        for index in range(slice_count):
            yield made(index, slice_count)
            tick(index + 1, slice_count)

    # Twice as many customers as were to be expected are a bound that no hash of theirs exceeds.
    return TableStream(some.schema, 2 * row_count + 1_000_000, slices)


def _relation(events: list[Path]) -> list[Path] | pa.Table:
    """Parquet and CSV by their paths; Arrow files as one table, mapped."""
    import pyarrow as pa

    from visavis.cli.tables import is_arrow
    from visavis.store import reading

    if not any(map(is_arrow, events)):
        return events
    tables = []
    for path in events:
        if not is_arrow(path):
            raise InputError(f"{path} is no Arrow file, and another one is", field="events")
        with reading(path, field="events"), pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(f"have different columns: {error}", field="events") from None


def show_base(stored: StoredBase, as_json: bool) -> None:
    """Print what a version of a base holds."""
    from visavis.showing import show_notice

    manifest = stored.manifest
    summary = {
        "out": str(stored.place),
        "version": stored.version,
        "notice": stored.head.notice,
        "customer_count": stored.customer_count,
        "indicator_count": len(manifest.indicators),
        "fact_count": stored.fact_count,
        "part_count": stored.part_count,
        "attributes": manifest.attributes,
        "as_of": stored.as_of.isoformat(),
        "journal_offset": manifest.journal_offset,
        "digest": stored.digest,
    }
    if as_json:
        print_json(summary)
        return
    print_pairs({name: said for name, said in summary.items() if name != "notice"})
    show_notice(stored.head.notice, new_console())


def _as_of(given: str | None, schema: pa.Schema, named: str | None) -> str:
    """The day asked for, or that of the indicators; that both agree is checked by the base."""
    from visavis.domain import AS_OF_METADATA

    held = (schema.metadata or {}).get(AS_OF_METADATA)
    if given is None and held is None:
        raise InputError(f"must be given: {named} does not say as of when it is", field="--as-of")
    return given or str((held or b"").decode(errors="replace"))


def _refuse_to_lose(out: str) -> None:
    """A version without the journal that the last one knows would bring objectors back."""
    from visavis.base import StoredBase
    from visavis.base.stored import versions_at
    from visavis.store import open_place

    with named(path="--out"):
        place = open_place(out)
        known = versions_at(place)
        offset = StoredBase.open(place).manifest.journal_offset if known else 0
    if offset:
        raise InputError(
            f"the last version of {out} knows a journal up to offset {offset}: give it, or those"
            " who objected in it would come back",
            field="--journal",
        )


def _check_place(out: str) -> None:
    """Refuse before any work a place that cannot be written, or holds something else."""
    from visavis.base.stored import VERSION_FOLDER, versions_at
    from visavis.store import check_writable, open_place

    with named(path="--out"):
        place = open_place(out)
        if "://" not in out:
            path = Path(out)
            if not os.path.lexists(path):
                check_writable(path)
                return
            if not path.is_dir():
                raise InputError(f"{path} is no folder", field="--out")
        foreign = [name for name in place.names() if not VERSION_FOLDER.match(name)]
        if foreign and not versions_at(place):
            raise InputError(f"{out} holds what is no base's: {foreign[0]}", field="--out")


def _metadata_of(path: Path | None) -> dict[bytes, bytes]:
    """What the schema of a Parquet or Arrow file carries; of other files nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from visavis.cli.tables import is_arrow, is_csv
    from visavis.store import reading

    if path is None or is_csv(path):
        return {}
    with reading(path, field="events"):
        if not is_arrow(path):
            return pq.read_schema(path).metadata or {}
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).schema.metadata or {}


def _notices(given: str | None, *metadata: dict[bytes, bytes] | None) -> str | None:
    """Every distinct notice, in the order of its sources; None if there is none."""
    from visavis.domain import NOTICE_METADATA

    held: list[Any] = [(each or {}).get(NOTICE_METADATA) for each in metadata]
    texts = [given, *(None if text is None else text.decode(errors="replace") for text in held)]
    return " ".join(dict.fromkeys(text for text in texts if text)) or None
