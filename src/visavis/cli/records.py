"""Results as files: where they may stand, Parquet or CSV, and the record of the run beside them.

``--out x.parquet`` writes ``x.parquet`` and ``x.run.json``: numbers, digests, versions and the
command. The record comes last, and an old one goes first, so that a record never speaks of another
file than the one beside it.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from visavis import __version__, kernel
from visavis.digest import canonical_digest
from visavis.domain import NOTICE_METADATA, utc_now
from visavis.errors import InputError
from visavis.store import check_writable, file_digest, remove, write_csv, write_json, write_parquet

if TYPE_CHECKING:
    from visavis.cli.options import Opened

__all__ = ["check_out", "describe_run", "flat", "record_path", "with_notice", "write_results"]

#: Packages that take part in a match, named with their versions in its record.
_PACKAGES: Final = ("numpy", "pyarrow", "sqlglot", "pydantic")

#: Rows whose nested cells become JSON text at a time.
_BATCH_ROWS: Final = 2**15


def check_out(
    out: Path,
    suffixes: tuple[str, ...],
    inputs: Mapping[str, Path | str | None],
    *,
    with_record: bool = True,
) -> None:
    """Refuse, before any work, a file that could not or must not be written.

    Parameters
    ----------
    out : Path
    suffixes : tuple of str
        What its name may end in.
    inputs : mapping of str to (Path or str or None)
        By option, what the command reads: files and folders.
    with_record : bool
        Whether a record will stand beside it.

    Raises
    ------
    InputError
        If its name ends in something else, or it is, or stands in, one of the inputs.
    StorageError
        If the system would refuse to write it.
    """
    if out.suffix.lower() not in suffixes:
        raise InputError(f"must end in {' or '.join(suffixes)}, got {out.name!r}", field="--out")
    for path in (out, record_path(out)) if with_record else (out,):
        for option, given in inputs.items():
            if given is not None and _stands_in(path, given):
                raise InputError(f"{path} would overwrite what {option} reads", field="--out")
        check_writable(path, field="--out")


def _stands_in(path: Path, given: Path | str) -> bool:
    """Whether `path` is `given`, by whatever name, or lies inside it."""
    real, other = Path(os.path.realpath(path)), Path(os.path.realpath(given))
    # A hard link has another name; what is not there yet is no link.
    with suppress(OSError):
        if path.samefile(given):
            return True
    return real == other or other in real.parents


def record_path(out: Path) -> Path:
    """Where the record of a run stands: ``x.run.json`` for ``x.parquet``."""
    return out.with_suffix(".run.json")


def with_notice(table: pa.Table, notice: str | None) -> pa.Table:
    """The table with a notice in its schema's metadata, other metadata kept."""
    if notice is None:
        return table
    try:
        content = notice.encode()
    except UnicodeEncodeError:
        raise InputError("must be text that UTF-8 can hold", field="--notice") from None
    return table.replace_schema_metadata(
        {**(table.schema.metadata or {}), NOTICE_METADATA: content}
    )


def describe_run(
    opened: Opened, table: pa.Table, seconds: Mapping[str, float], *, called: str
) -> dict[str, Any]:
    """What every record of a match or an audience says.

    Parameters
    ----------
    opened : Opened
    table : pyarrow.Table
        The result, as it is written to Parquet; its digest is that of the values.
    seconds : mapping of str to float
        By stage.
    called : str
        What the result is: the name of its digest.
    """
    engine, overlay = opened.engine, opened.overlay
    return {
        "notice": engine.base.notice,
        "command": _encodable(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "written_at": utc_now().isoformat(timespec="seconds"),
        "as_of": engine.as_of.isoformat(),
        **opened.about(),
        "customer_count": engine.base.customer_count,
        "indicator_count": len(engine.base.indicator_names),
        "capability_count": engine.catalog.capability_count,
        "variant": engine.variant,
        "threads": engine.threads,
        "seconds": {name.lower(): spent for name, spent in seconds.items()},
        "digests": {
            "base": opened.base_digest,
            **({} if overlay is None else {"journal": overlay.digest()}),
            "catalog": engine.catalog.digest(),
            "policy": engine.policy.digest(),
            called: canonical_digest(table),
        },
        "versions": {
            "visavis": __version__,
            "kernel_contract": kernel.CONTRACT_VERSION,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
    }


def write_results(out: Path, table: pa.Table, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write a result and, last, its record; return the record as written.

    Parameters
    ----------
    out : Path
        Ends in ``.parquet`` or ``.csv``; in CSV nested cells are JSON text.
    table : pyarrow.Table
    record : mapping
    """
    remove(record_path(out))
    if out.suffix.lower() == ".csv":
        write_csv(out, flat(table))
    else:
        write_parquet(out, table)
    written = {**record, "files": {_encodable(out.name): file_digest(out)}}
    write_json(record_path(out), written)
    return written


def _encodable(text: str) -> str:
    """A path's text may hold bytes that are no UTF-8, and JSON cannot: those by their escapes."""
    return text.encode(errors="backslashreplace").decode()


def flat(table: pa.Table) -> pa.Table:
    """The table with its nested cells as JSON text, for CSV."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_nested(column.type):
            chunks = pa.table({name: column}).to_batches(max_chunksize=_BATCH_ROWS)
            column = pa.chunked_array(
                [
                    pa.array(
                        [json.dumps(held, ensure_ascii=False) for held in chunk[0].to_pylist()]
                    )
                    for chunk in chunks
                ],
                pa.string(),
            )
        columns[name] = column
    return pa.table(columns)
