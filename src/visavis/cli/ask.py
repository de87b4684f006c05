"""``match``, ``audience`` and ``explain``: the questions to base, catalog and policy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visavis.cli.options import (
    AsJson,
    AsOf,
    BaseFolder,
    CatalogFile,
    JournalFile,
    Opened,
    PolicyFile,
    Threads,
    VariantName,
    named,
    open_engine,
)
from visavis.cli.output import cell, print_json, print_pairs, stages
from visavis.errors import InputError
from visavis.terminal import add_row, new_console, new_table

if TYPE_CHECKING:
    import pyarrow as pa

    from visavis.engine import Engine

__all__ = ["audience", "explain", "match"]

_RESULT_SUFFIXES = (".parquet", ".csv")


def match(
    base: BaseFolder,
    catalog: CatalogFile,
    out: Annotated[
        Path,
        typer.Option(help="Parquet, or CSV with the reasons as JSON; FILE.run.json beside it."),
    ],
    policy: PolicyFile = None,
    journal: JournalFile = None,
    as_of: AsOf = None,
    reasons: Annotated[int, typer.Option(min=0, help="At most so many reasons each.")] = 3,
    distinctive: Annotated[
        bool,
        typer.Option(
            "--distinctive",
            help="Reasons by what they say beyond what they say for the mean capability: why "
            "this, rather than why anything.",
        ),
    ] = False,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Match every customer against every capability."""
    from visavis.cli.records import check_out, describe_run, with_notice, write_results

    inputs: dict[str, Path | str | None] = {
        "--base": base,
        "--catalog": catalog,
        "--policy": policy,
        "--journal": journal,
    }
    check_out(out, _RESULT_SUFFIXES, inputs)
    with stages(quiet=as_json) as stage, named(reasons="--reasons"):
        with stage("Reading"):
            opened = open_engine(
                base, catalog, policy, journal, as_of=as_of, threads=threads, variant=variant
            )
            engine = opened.engine
        with stage("Preparation"):
            engine.prepare()
        with stage("Match") as tick:
            matches = engine.match(progress=tick)
        with stage("Reasons"):
            found = matches.to_table(reasons=reasons, distinctive=distinctive)
            table = with_notice(found, engine.base.notice)
        with stage("Writing"):
            record = {
                **describe_run(opened, table, stage.seconds, called="opportunities"),
                "matched_customer_count": len(matches.customer_index),
                "pair_count": len(matches.customer_index) * engine.catalog.capability_count,
                "opportunity_count": matches.opportunity_count,
                "stats": matches.stats,
            }
            record = write_results(out, table, record)
    _print_record(out, record, as_json)


def _print_record(out: Path, record: dict[str, Any], as_json: bool) -> None:
    from visavis.cli.records import record_path
    from visavis.showing import show_notice

    where = {"out": str(out), "record": str(record_path(out))}
    if as_json:
        print_json({**where, **record})
        return
    left_to_the_record = ("notice", "command", "written_at", "versions", "files")
    said = {name: value for name, value in record.items() if name not in left_to_the_record}
    print_pairs({**where, **said})
    show_notice(record["notice"], new_console())


def audience(
    base: BaseFolder,
    catalog: CatalogFile,
    capability: Annotated[
        list[str] | None, typer.Option(help="An id; may be given many times.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Ask for all capabilities of the catalog.")
    ] = False,
    policy: PolicyFile = None,
    journal: JournalFile = None,
    k: Annotated[int, typer.Option(min=1, help="At most so many customers each.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(help="Parquet or CSV file to write, FILE.run.json beside it."),
    ] = None,
    as_of: AsOf = None,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """The reverse: a capability and the customers whom it fits best."""
    from visavis.cli.records import check_out, describe_run, with_notice, write_results

    if bool(capability) == every:
        raise InputError("give one or more of it, or --every", field="--capability")
    if out is not None:
        inputs: dict[str, Path | str | None] = {
            "--base": base,
            "--catalog": catalog,
            "--policy": policy,
            "--journal": journal,
        }
        check_out(out, _RESULT_SUFFIXES, inputs)
    with stages(quiet=as_json) as stage, named(k="--k", capability_ids="--capability"):
        with stage("Reading"):
            opened = open_engine(
                base, catalog, policy, journal, as_of=as_of, threads=threads, variant=variant
            )
            engine = opened.engine
        with stage("Audience") as tick:
            found = engine.audience(capability, k=k, progress=tick)
        table = with_notice(found, engine.base.notice)
        if out is not None:
            record = {
                **describe_run(opened, table, stage.seconds, called="audience"),
                "asked_capability_ids": sorted(set(capability or engine.catalog.ids)),
                "k": k,
                "row_count": table.num_rows,
            }
            record = write_results(out, table, record)
    if out is not None:
        _print_record(out, record, as_json)
    else:
        _print_audience(opened, table, as_json)


def _print_audience(opened: Opened, table: pa.Table, as_json: bool) -> None:
    from visavis.showing import show_notice

    engine = opened.engine
    rows = table.to_pylist()
    if as_json:
        as_of = engine.as_of.isoformat()
        about = {"notice": engine.base.notice, "as_of": as_of, **opened.about()}
        print_json({**about, "audience": rows})
        return
    shown = new_table(*table.column_names)
    for row in rows:
        add_row(shown, *(cell(value) for value in row.values()))
    console = new_console()
    console.print(shown)
    show_notice(engine.base.notice, console)


def explain(
    base: BaseFolder,
    catalog: CatalogFile,
    customer: Annotated[str, typer.Option(help="The customer's id.")],
    policy: PolicyFile = None,
    journal: JournalFile = None,
    capability: Annotated[
        str | None,
        typer.Option(help="The capability's id; without it, all opportunities of the customer."),
    ] = None,
    as_of: AsOf = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Why one customer has, or has not, one opportunity; or all that the customer has."""
    from visavis.showing import show_explanation, show_notice, show_opportunities

    console = new_console()
    with stages(quiet=True) as stage:
        with stage("Reading"):
            opened = open_engine(
                base, catalog, policy, journal, as_of=as_of, threads=1, variant=variant
            )
        engine = opened.engine
        about = {"notice": engine.base.notice, **opened.about()}
        with stage("Explanation"):
            if capability is None:
                rows = _engine_of_one(engine, customer).match().to_table().to_pylist()
            else:
                explanation = engine.explain(customer, capability)
    if capability is None:
        if as_json:
            asked = {"customer_id": customer, "as_of": engine.as_of.isoformat()}
            print_json({**about, **asked, "opportunities": rows})
            return
        show_opportunities(engine, customer, rows, console)
    else:
        if as_json:
            print_json({**about, **asdict(explanation)})
            return
        show_explanation(engine, explanation, console)
    show_notice(engine.base.notice, console)


def _engine_of_one(engine: Engine, customer_id: str) -> Engine:
    """The same engine over one customer: what it matches is the customer's part of the whole."""
    import numpy as np
    import pyarrow as pa

    from visavis.engine import Engine
    from visavis.policy import Exclusions, Policy

    base, policy = engine.base, engine.policy
    i = base.index_of(customer_id)
    facts = base.facts_of(i)
    row = pa.array(np.zeros(len(facts), dtype=np.int64))
    own = replace(
        base,
        customer_ids=base.customer_ids.slice(i, 1),
        indicators=base.indicators[i : i + 1],
        attributes=base.attributes.slice(i, 1),
        facts=facts.set_column(0, facts.schema.field(0), row),
    )
    # Whom else a policy excludes, a base of one does not know.
    customers = tuple(each for each in policy.exclusions.customers if each == customer_id)
    exclusions = Exclusions(**{**dict(policy.exclusions), "customers": customers})
    limits = Policy(**{**dict(policy), "exclusions": exclusions})
    return Engine(
        own, engine.catalog, limits, as_of=engine.as_of, threads=1, variant=engine.variant
    )
