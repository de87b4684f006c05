"""What several commands are asked, and errors that name the option rather than an argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from visavis.errors import InputError, LimitError, ReusedError, SchemaError

if TYPE_CHECKING:
    from visavis.engine import Engine
    from visavis.journal import Overlay

__all__ = [
    "AsJson",
    "AsOf",
    "BaseFolder",
    "CatalogFile",
    "Insecure",
    "JournalFile",
    "Opened",
    "PolicyFile",
    "Threads",
    "VariantName",
    "named",
    "open_engine",
    "read_overlay",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="UTC date, inclusive; default: the base's.")
]
Threads = Annotated[int | None, typer.Option(help="Default: all processors of this process.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Join a cluster of other machines without a token.")
]
VariantName = Annotated[
    str | None, typer.Option("--variant", help="Force a kernel variant; never falls back.")
]
BaseFolder = Annotated[
    str,
    typer.Option("--base", help="What `visavis load` made: folder or URL, newest version."),
]
CatalogFile = Annotated[Path, typer.Option("--catalog", help=".parquet, .csv, .jsonl or .toml")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="A TOML file; default: the defaults of a policy.")
]
JournalFile = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        help="What `visavis record` wrote: consulted before the base. Facts count from their day "
        "on: give --as-of where they are younger than the base.",
    ),
]

#: Errors that can be raised again with another field: a rule's names its own.
_RENAMED: Final = (InputError, SchemaError, LimitError, ReusedError)


@contextmanager
def named(within: str | None = None, **options: str) -> Iterator[None]:
    """Name the option at fault: ``named(path="--base")`` turns field ``path`` into ``--base``.

    What stands behind a dot stays: ``facts.kind`` becomes ``--facts kind``.

    Parameters
    ----------
    within : str, optional
        The option of every other field: ``value`` becomes ``--catalog value``.
    options : str
        By field.
    """
    try:
        yield
    except InputError as error:
        head, _, rest = (error.field or "").partition(".")
        if type(error) not in _RENAMED or (head not in options and within is None):
            raise
        field = f"{options[head]} {rest}" if head in options else f"{within} {error.field or ''}"
        renamed = type(error)(
            error.reason, field=field.rstrip(), row=error.row, subject=error.subject
        )
        raise renamed from error


class Opened(NamedTuple):
    """An engine, and what its base was made of.

    Attributes
    ----------
    engine : Engine
    base_digest : str
        Of the base as it lies on disk, without the journal.
    overlay : Overlay or None
        What the journal says; None without one.
    """

    engine: Engine
    base_digest: str
    overlay: Overlay | None

    def about(self) -> dict[str, object]:
        """What an answer says of the journal, if one was consulted."""
        return {} if self.overlay is None else {"journal_offset": self.overlay.through}


def open_engine(
    base: str,
    catalog: Path,
    policy: Path | None,
    journal: Path | None,
    *,
    as_of: str | None,
    threads: int | None,
    variant: str | None,
) -> Opened:
    """Read base, journal, catalog and policy, and make them ready to answer."""
    from visavis.base import StoredBase
    from visavis.catalog import Catalog
    from visavis.engine import Engine
    from visavis.policy import Policy

    with named(path="--base"):
        stored = StoredBase.open(base)
        profiles = stored.read()
    digest, overlay = profiles.digest, None
    if journal is not None:
        with named("--journal", path="--journal"):
            overlay = read_overlay(journal, after=stored.manifest.journal_offset)
            profiles = overlay.apply(profiles)
    with named("--catalog", path="--catalog"):
        capabilities = Catalog.read(catalog)
    with named(policy="--policy", as_of="--as-of", threads="--threads", variant="--variant"):
        limits = Policy() if policy is None else Policy.read(policy)
        engine = Engine(
            profiles, capabilities, limits, as_of=as_of, threads=threads, variant=variant
        )
    return Opened(engine, digest, overlay)


def read_overlay(path: Path, *, after: int = 0, through: int | None = None) -> Overlay:
    """What a journal says beyond a base that has its entries up to `after`."""
    from visavis.journal import Journal

    with Journal.open(path) as journal:
        return journal.overlay(after=after, through=through)
