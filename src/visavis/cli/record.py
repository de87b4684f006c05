"""``record``: what happened since the base was built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visavis.cli.options import AsJson, named
from visavis.cli.output import print_json, print_pairs
from visavis.domain import CUSTOMER_ID
from visavis.errors import InputError, SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["record"]

JournalToWrite = Annotated[
    Path, typer.Option("--journal", help="The journal: one file, see docs/journal.md.")
]


def record(
    journal: JournalToWrite,
    facts: Annotated[
        Path | None, typer.Option(help="What happened, Parquet or CSV: see visavis.base.")
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(help="customer_id and the attributes that change; empty = now unknown."),
    ] = None,
    types: Annotated[
        Path | None, typer.Option(help="TOML for attributes in CSV, as for `visavis load`.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base that they are for: attributes must be among its own."),
    ] = None,
    objection: Annotated[
        list[str] | None,
        typer.Option(help="The id of a customer who objected: final. May be given many times."),
    ] = None,
    objections: Annotated[
        Path | None, typer.Option(help="Text file of such ids, one a line.")
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", help="Sent again with the same content, it changes nothing."),
    ] = None,
    create: Annotated[
        bool,
        typer.Option("--create", help="Make the journal if there is none: a misspelt one is not."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Record facts, attributes and objections: all of them durably, or none."""
    from visavis.cli.tables import read_attributes, read_facts
    from visavis.journal import Journal

    if types is not None and attributes is None:
        raise InputError("types are those of --attributes, which is not given", field="--types")
    if facts is attributes is objections is None and not objection:
        reason = "give --facts, --attributes, --objection or --objections"
        raise InputError(f"{reason}: there is nothing to record", field="--journal")
    names = ("facts", "attributes", "types", "request_id")
    options = {name: f"--{name.replace('_', '-')}" for name in names}
    options["objections"] = "--objection" if objections is None else "--objections"
    with named(**options, path="--journal"):
        happened = None if facts is None else read_facts(facts)
        known = None if attributes is None else read_attributes(attributes, types)
        ids = [*_ids_of(objections), *(objection or ())]
        if base is not None and known is not None:
            _check_known(known, base)
        _check_there(journal, create)
        with Journal.open(journal, create=create) as opened:
            done = opened.append(
                facts=happened, attributes=known, objections=ids, request_id=request_id
            )
    summary = {
        "journal": str(journal),
        "first_offset": done.first_offset,
        "last_offset": done.last_offset,
        "entry_count": done.last_offset - done.first_offset + 1,
        "dropped_count": done.dropped_count,
        "repeated": done.repeated,
    }
    if as_json:
        print_json(summary)
    else:
        print_pairs(summary)


def _check_known(table: pa.Table, base: str) -> None:
    """Refuse attributes that the base lacks or types otherwise: no match could be made of them."""
    from visavis.base import StoredBase
    from visavis.base.door import incoming_attributes
    from visavis.catalog.schema import did_you_mean

    with named(path="--base"):
        attributes = StoredBase.open(base).manifest.attributes
    for each in incoming_attributes(table).schema:
        wanted = attributes.get(each.name)
        if each.name == CUSTOMER_ID or wanted == str(each.type):
            continue
        if wanted is None:
            raise SchemaError(
                f"is no attribute of {base}{did_you_mean(each.name, list(attributes))}",
                field=f"attributes.{each.name}",
            )
        reason = f"must be {wanted}, as in {base}, got {each.type}"
        raise SchemaError(reason, field=f"attributes.{each.name}")


def _check_there(journal: Path, create: bool) -> None:
    if not create and not journal.exists():
        raise InputError(f"{journal} does not exist: --create makes one", field="--journal")


def _ids_of(path: Path | None) -> list[str]:
    """The lines of a text file, without empty ones."""
    from visavis.store import read_bytes

    if path is None:
        return []
    try:
        lines = read_bytes(path, field="objections").decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}", field="objections") from None
    return [line for line in (each.removesuffix("\r") for each in lines) if line]
