"""``visavis base show | verify | compact | forget | drop-version``: what stands in a base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visavis.cli.build import show_base
from visavis.cli.options import AsJson, BaseFolder, named, read_overlay
from visavis.cli.output import cell, print_json, stages
from visavis.errors import InputError
from visavis.terminal import add_row, new_console, new_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="What stands in a base.")

JournalToRead = Annotated[Path, typer.Option("--journal", help="What `visavis record` wrote.")]
Version = Annotated[int | None, typer.Option("--version", help="Default: the newest.")]


@app.command()
def show(base: BaseFolder, version: Version = None, as_json: AsJson = False) -> None:
    """Say what a version holds, and which versions there are."""
    from visavis.base.stored import StoredBase, versions_at

    with named(path="--base", version="--version"):
        stored = StoredBase.open(base, version=version)
        show_base(stored, as_json)
        if as_json:
            return
        table = new_table("version", "as of", "customers", "facts", "parts", "journal")
        for each in versions_at(stored.place):
            other = StoredBase.open(stored.place, version=each)
            counts = (other.customer_count, other.fact_count, other.part_count)
            offset = other.manifest.journal_offset
            add_row(table, str(each), str(other.as_of), *(f"{n:,}" for n in counts), str(offset))
        new_console().print(table)


@app.command()
def verify(base: BaseFolder, version: Version = None, as_json: AsJson = False) -> None:
    """Read every byte of a version and compare it with its digests."""
    from visavis.base.stored import StoredBase

    with named(path="--base", version="--version"), stages(quiet=as_json) as stage:
        stored = StoredBase.open(base, version=version)
        with stage("Parts") as tick:
            stored.verify(progress=tick)
    said = {"version": stored.version, "part_count": stored.part_count, "digest": stored.digest}
    if as_json:
        print_json(said)
        return
    print(f"version {stored.version}: {stored.part_count:,} parts are as they were written")


@app.command(name="drop-version")
def drop_version(
    base: BaseFolder,
    version: Annotated[int, typer.Argument(help="Which one.")],
    as_json: AsJson = False,
) -> None:
    """Remove a version, but not the last that there is."""
    from visavis.base.stored import versions_at
    from visavis.base.writing import remove_version
    from visavis.store import open_place

    with named(path="--base"):
        place = open_place(base)
        known = versions_at(place)
        if not known:
            raise InputError(f"{place} holds no base", field="path")
        if known == [version]:
            raise InputError(f"{version} is the only version", field="version")
        count = remove_version(place, version)
    if as_json:
        print_json({"version": version, "removed": count})
        return
    print(f"version {version}: {count:,} files removed")


@app.command()
def compact(base: BaseFolder, journal: JournalToRead, as_json: AsJson = False) -> None:
    """Make the next version of a base: the newest, and what a journal says beyond it."""
    from visavis.base import StoredBase
    from visavis.journal import compact as compacted

    with named(path="--base", version="--version"), stages(quiet=as_json) as stage:
        stored = StoredBase.open(base)
        with named("--journal", path="--journal"):
            overlay = read_overlay(journal, after=stored.manifest.journal_offset)
        with stage("Parts") as tick:
            made = compacted(stored, overlay, progress=tick)
    show_base(made, as_json)


@app.command()
def forget(
    customer: Annotated[str, typer.Argument(help="The id of the customer to forget.")],
    base: Annotated[list[str] | None, typer.Option(help="A base, all versions of it.")] = None,
    journal: Annotated[list[Path] | None, typer.Option(help="A journal.")] = None,
    results: Annotated[list[str] | None, typer.Option(help="A result of a job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Erase a customer; a digest of the id stays, so that nobody brings the customer back.

    Each option may be given many times. Nobody may load or rescore into these places meanwhile.
    """
    from visavis.erasure import forget_in_base, forget_in_result
    from visavis.journal import Journal
    from visavis.store import open_place

    if not (base or journal or results):
        raise InputError("name a --base, a --journal or --results", field="--base")
    counts: dict[str, int] = {}

    def tell(where: str, count: int) -> None:
        counts[where] = count
        if not as_json:
            print(f"{cell(where)}: {count:,} removed", flush=True)

    # The journal first: from then on the customer counts as one who objected.
    for file in journal or []:
        with named(path="--journal", customer_id="CUSTOMER"), Journal.open(file) as opened:
            tell(str(file), opened.forget(customer))
    for options, forgotten_in, name in (
        (base, forget_in_base, "--base"),
        (results, forget_in_result, "--results"),
    ):
        for where in options or []:
            with named(path=name, customer_id="CUSTOMER"):
                tell(where, forgotten_in(open_place(where), customer))
    if as_json:
        print_json({"removed": counts})
