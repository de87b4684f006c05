"""``visavis results show | lookup | export | verify``: what a job has published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visavis.cli.options import AsJson, named
from visavis.cli.output import cell, print_json, print_pairs, stages
from visavis.terminal import add_row, new_console, new_table

if TYPE_CHECKING:
    from visavis.rescore import Result

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="What a job has published.")

ResultPlace = Annotated[str, typer.Argument(help="What `visavis rescore` made: folder or URL.")]


@app.command()
def show(result: ResultPlace, as_json: AsJson = False) -> None:
    """Say what a result holds, and what it was made of."""
    from visavis.showing import show_notice

    found = _open(result)
    plan = found.plan.model_dump(mode="json", exclude={"format", "notice"})
    summary = {
        "out": str(found.place),
        "job_id": found.plan.job_id,
        "customers_matched": found.customer_count,
        "opportunity_count": found.opportunity_count,
        "digest": found.manifest.digest,
        "forgotten_count": found.manifest.forgotten_count,
        **plan,
    }
    if as_json:
        print_json({**summary, "notice": found.plan.notice})
        return
    print_pairs(summary)
    show_notice(found.plan.notice, new_console())


@app.command()
def lookup(
    result: ResultPlace,
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    as_json: AsJson = False,
) -> None:
    """Show one customer's opportunities, best first."""
    from visavis.showing import show_notice

    found = _open(result)
    rows: list[dict[str, Any]] = found.lookup(customer).to_pylist()
    if as_json:
        print_json({"customer_id": customer, "opportunities": rows, "notice": found.plan.notice})
        return
    console = new_console()
    if not rows:
        print(f"{cell(customer)} has no opportunity in this result")
        return
    names = [name for name in rows[0] if name not in ("customer_id", "reasons")]
    with_reasons = "reasons" in rows[0]
    table = new_table(*(name.replace("_", " ") for name in names), *(["reasons"] * with_reasons))
    for row in rows:
        why = [
            f"{each['indicator']} {each['contribution']:+.3f}" for each in row.get("reasons") or []
        ]
        add_row(table, *(cell(row[name]) for name in names), *([", ".join(why)] * with_reasons))
    console.print(table)
    show_notice(found.plan.notice, console)


@app.command()
def export(
    result: ResultPlace,
    out: Annotated[Path, typer.Option(help="Parquet, or CSV with the reasons as JSON.")],
    as_json: AsJson = False,
) -> None:
    """Write all opportunities into one file, customers in order of their ids."""
    from visavis.cli.records import check_out, flat, with_notice
    from visavis.digest import canonical_digest
    from visavis.store import write_csv, write_parquet

    check_out(out, (".parquet", ".csv"), {"RESULT": result}, with_record=False)
    with stages(quiet=as_json) as stage:
        with stage("Reading"):
            found = _open(result)
            table = found.read()
        with stage("Writing"):
            if out.suffix.lower() == ".csv":
                write_csv(out, flat(table))
            else:
                write_parquet(out, with_notice(table, found.plan.notice))
    summary = {
        "out": str(out),
        "opportunity_count": table.num_rows,
        "digest": canonical_digest(table),
    }
    if as_json:
        print_json({**summary, "notice": found.plan.notice})
        return
    print_pairs(summary)


@app.command()
def verify(result: ResultPlace, as_json: AsJson = False) -> None:
    """Read every byte of a result and compare it with its digests."""
    with stages(quiet=as_json) as stage:
        found = _open(result)
        with stage("Parts") as tick:
            found.verify(progress=tick)
    if as_json:
        print_json({"job_id": found.plan.job_id, "digest": found.manifest.digest})
        return
    print(f"{found.plan.part_count:,} parts are as they were written")


def _open(result: str) -> Result:
    from visavis.rescore import Result

    with named(path="RESULT"):
        return Result.open(result)
