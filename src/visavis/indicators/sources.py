"""Tables given as Arrow or as files: what they hold, and SQL that reads them strictly.

A `Source` is what one FROM clause reads: an Arrow table, or all files of one format and schema.
The SQL made here turns a column into its one checked form, NULL where a cell cannot mean what it
should; `refuse_first` then finds the row of the first such cell.

CSV is read as text and parsed here, never sniffed: a sniffed type would depend on the other rows
(an id ``007`` keeps its zeros), and a sniffer may skip lines without a word.
"""

# ruff: noqa: S608
# (SQL is put together from constants and `quoted` names; values are bound or variables)

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import pyarrow as pa

from visavis.errors import InputError, SchemaError
from visavis.store import reading

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "MINOR_MAX",
    "Relation",
    "Source",
    "amount_sql",
    "day_sql",
    "first_line",
    "id_sql",
    "minor_sql",
    "open_sources",
    "quoted",
    "read_text_table",
    "refuse_first",
    "text_batches",
    "text_columns",
]

#: What callers may give: one table, or paths of Parquet and CSV files.
Relation: TypeAlias = "pa.Table | str | Path | Sequence[str | Path]"

#: Days from 1970-01-01 to 0001-01-01 and to 9999-12-31.
DAY_MIN: Final = -719_162
DAY_MAX: Final = 2_932_896

#: Largest magnitude of one amount in minor units: sums of 8 M such rows still fit an int64.
MINOR_MAX: Final = 2**40

_DAY_US: Final = 86_400_000_000
_INTEGERS: Final = frozenset(
    sign + size
    for sign in ("", "U")
    for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)
_CSV_SUFFIXES: Final = (".csv", ".csv.gz")
_PARQUET_SUFFIXES: Final = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Source:
    """An Arrow table, or all files of one format and schema.

    Attributes
    ----------
    name : str
        What it was given as: ``events`` or ``taxonomy``.
    sql : str
        A FROM clause; ``{files}`` in it stands for the variable that holds the paths.
    variable : str
        The DuckDB variable that holds all its paths.
    types : mapping of str to str
        DuckDB type by column.
    paths : list of pathlib.Path
        Its files, in the order given; empty for a table.
    """

    name: str
    sql: str
    variable: str
    types: Mapping[str, str]
    paths: list[Path] = field(default_factory=list)

    def relation(self) -> str:
        """Return the FROM clause over all files."""
        return self.sql.replace("{files}", self.variable)

    def parts(self, connection: DuckDBPyConnection) -> Iterator[tuple[str, str]]:
        """Yield (subject of an error, FROM clause) file by file; each is valid until the next."""
        for path in self.paths:
            connection.execute("SET VARIABLE one_file = ?", [[_literal(path)]])
            yield f"file {path}", self.sql.replace("{files}", "one_file")
        if not self.paths:
            yield f"{self.name} table", self.sql

    def type_of(self, column: str) -> str:
        """Return the DuckDB type of `column`; SchemaError if there is none."""
        if column not in self.types:
            raise SchemaError(
                f"no such column; there are {', '.join(sorted(self.types))}",
                field=column,
                subject=f"file {self.paths[0]}" if self.paths else f"{self.name} table",
            )
        return self.types[column]


def open_sources(connection: DuckDBPyConnection, relation: Relation, name: str) -> list[Source]:
    """Describe a relation without reading it, files of one format and schema together.

    Raises
    ------
    InputError
        If a path is no file, has another ending than .parquet, .pq, .csv, .csv.gz, or cannot be
        opened as what its ending says.
    """
    import duckdb

    if isinstance(relation, pa.Table):
        connection.register(f"{name}_table", relation)
        types = _types(connection, f"{name}_table")
        return [Source(name, f"{name}_table", "", types)]
    given = [relation] if isinstance(relation, str | Path) else list(relation)
    if not given:
        raise InputError("no file was given", field=name)
    groups: dict[tuple[bool, tuple[tuple[str, str], ...]], Source] = {}
    for path in map(Path, given):
        variable = f"{name}_{len(groups)}"
        try:
            described = _describe(connection, path, name, variable)
        except (duckdb.Error, OSError, UnicodeError, csv.Error) as error:
            raise InputError(first_line(error), field=name, subject=f"file {path}") from error
        key = (_is_csv(path), tuple(described.types.items()))
        groups.setdefault(key, described).paths.append(path)
    for source in groups.values():
        paths = [_literal(path) for path in source.paths]
        connection.execute(f"SET VARIABLE {source.variable} = ?", [paths])
    return list(groups.values())


def _describe(connection: DuckDBPyConnection, path: Path, name: str, variable: str) -> Source:
    if not path.is_file():
        raise InputError("no such file", field=name, subject=f"file {path}")
    if path.name.endswith(_PARQUET_SUFFIXES):
        connection.execute("SET VARIABLE one_file = ?", [[_literal(path)]])
        types = _types(connection, "read_parquet(getvariable('one_file'))")
        return Source(name, "read_parquet(getvariable('{files}'))", variable, types)
    if not _is_csv(path):
        known = ", ".join(_PARQUET_SUFFIXES + _CSV_SUFFIXES)
        raise InputError(f"must end in one of {known}", field=name, subject=f"file {path}")
    types = dict.fromkeys(_csv_header(path, name), "VARCHAR")
    connection.execute(f"SET VARIABLE {variable}_types = ?", [types])
    sql = (
        f"read_csv(getvariable('{{files}}'), columns = getvariable('{variable}_types'),"
        " auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"',"
        " strict_mode = true, null_padding = false, ignore_errors = false)"
    )
    return Source(name, sql, variable, types)


def text_columns(path: Path, *, field: str) -> list[str]:
    """The names in the header of a CSV file; errors as of `read_text_table`."""
    with reading(path, field=field), _csv_errors(path, field):
        return _csv_header(path, field)


def read_text_table(path: Path, *, field: str) -> pa.Table:
    """Read a CSV file as it is written: every column text, null only where a cell is not quoted
    and empty.

    Raises
    ------
    InputError
        If it is no file, no UTF-8, or not what RFC 4180 calls CSV with one header; it names the
        line.
    StorageError
        If the system refuses to read it.
    """
    schema = pa.schema([(name, pa.string()) for name in text_columns(path, field=field)])
    return pa.concat_tables([schema.empty_table(), *text_batches(path, field=field)])


def text_batches(path: Path, *, field: str, batch_rows: int = 1_000_000) -> Iterator[pa.Table]:
    """Yield what `read_text_table` reads, in order, as tables of at most `batch_rows` rows."""
    import duckdb

    types = dict.fromkeys(text_columns(path, field=field), "VARCHAR")
    with reading(path, field=field), duckdb.connect() as connection, _csv_errors(path, field):
        connection.execute("SET VARIABLE one_file = ?", [[_literal(path)]])
        connection.execute("SET VARIABLE one_type = ?", [types])
        read = connection.sql(
            "SELECT * FROM read_csv(getvariable('one_file'), columns = getvariable('one_type'),"
            " auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"',"
            " nullstr = '', allow_quoted_nulls = false, strict_mode = true,"
            " null_padding = false, ignore_errors = false)"
        )
        for batch in read.to_arrow_reader(batch_rows):
            yield pa.Table.from_batches([batch])


@contextmanager
def _csv_errors(path: Path, field: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, UnicodeError, csv.Error, OSError, pa.ArrowException) as error:
        # What DuckDB finds later comes through Arrow, without a number of the system.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(_csv_reason(error), field=field, subject=f"file {path}") from error


def _csv_reason(error: Exception) -> str:
    """Return line and cause of what DuckDB says, without the line itself and the advice."""
    said, _, _ = str(error).partition("\nPossible ")
    lines = [line for line in said.splitlines() if line.strip()]
    place, found, line = first_line(error).partition("CSV Error on Line: ")
    return f"line {line}: {lines[-1]}" if found else place


def _types(connection: DuckDBPyConnection, relation: str) -> dict[str, str]:
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in described}


def _is_csv(path: Path) -> bool:
    return path.name.endswith(_CSV_SUFFIXES)


def _csv_header(path: Path, name: str) -> list[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, strict=True), [])
    if not header or "" in header or len({column.lower() for column in header}) < len(header):
        raise SchemaError(
            f"its first line must name every column once, got {header}",
            field=name,
            subject=f"file {path}",
        )
    return header


def _literal(path: Path) -> str:
    """Return a glob that matches `path` alone: DuckDB has no other way to say a file's name."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def id_sql(column: str, sources: Iterable[Source], others: Iterable[str] = ()) -> str:
    """Return SQL of an id, NULL where empty: an integer if all are (with `others`), else text.

    Raises
    ------
    SchemaError
        If a type is neither integer nor text: 1.0 and 1 would be two customers, or one.
    """
    types = list(chain((source.type_of(column) for source in sources), others))
    for each in types:
        if not (each in _INTEGERS or each in {"VARCHAR", "UUID"} or each.startswith("ENUM(")):
            raise SchemaError(f"must be integers or text, is {each}", field=column)
    if all(each in _INTEGERS for each in types):
        return quoted(column)
    return f"nullif(CAST({quoted(column)} AS VARCHAR), '')"


def day_sql(column: str, source: Source) -> str:
    """Return SQL of the UTC day number of a date, time or text; NULL outside years 1 to 9999."""
    kind, name = source.type_of(column), quoted(column)
    if kind == "VARCHAR":
        # A plain TIMESTAMP would ignore the text's offset.
        kind, name = "TIMESTAMP WITH TIME ZONE", f"TRY_CAST({name} AS TIMESTAMPTZ)"
    if kind == "DATE" or (kind.startswith("TIMESTAMP") and "TZ" not in kind and "ZONE" not in kind):
        day = f"(CAST({name} AS DATE) - DATE '1970-01-01')"
    elif kind.startswith("TIMESTAMP"):
        instant = f"epoch_us(CAST({name} AS TIMESTAMPTZ))"
        # Integer division rounds towards zero; a day before 1970 must round down.
        day = f"(({instant} - ({instant} % {_DAY_US} + {_DAY_US}) % {_DAY_US}) // {_DAY_US})"
    else:
        raise SchemaError(f"must be dates, timestamps or text, is {kind}", field=column)
    return f"CASE WHEN {day} BETWEEN {DAY_MIN} AND {DAY_MAX} THEN CAST({day} AS INTEGER) END"


def amount_sql(column: str, source: Source) -> str:
    """Return SQL of an amount as DOUBLE."""
    kind = source.type_of(column)
    if kind not in _INTEGERS | {"VARCHAR", "FLOAT", "DOUBLE"} and not kind.startswith("DECIMAL"):
        raise SchemaError(f"must be numbers, is {kind}", field=column)
    return f"TRY_CAST({quoted(column)} AS DOUBLE)"


def minor_sql(column: str, source: Source, minor_units: int) -> str:
    """Return SQL of an amount in minor units, half away from zero; NULL if not finite or huge."""
    minor = f"TRY_CAST(round({amount_sql(column, source)} * {minor_units}) AS BIGINT)"
    return f"CASE WHEN {minor} BETWEEN -{MINOR_MAX} AND {MINOR_MAX} THEN {minor} END"


def refuse_first(
    connection: DuckDBPyConnection,
    sources: Iterable[Source],
    column: str,
    checked: Mapping[str, str],
    must: str,
) -> None:
    """Raise the InputError of the first row whose checked form is NULL.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    sources : iterable of Source
    column : str
        The column at fault.
    checked : mapping of str to str
        The SQL of its checked form, by `Source.variable`.
    must : str
        What the value must be, for a value that is not null.
    """
    # Rows are counted in the order of the file, which is kept only if asked for.
    connection.execute("SET preserve_insertion_order = true")
    for source in sources:
        for subject, relation in source.parts(connection):
            found = connection.execute(
                f"SELECT row, value FROM (SELECT row_number() OVER () - 1 AS row,"
                f" CAST({quoted(column)} AS VARCHAR) AS value,"
                f" {checked[source.variable]} IS NULL AS wrong"
                f" FROM {relation}) WHERE wrong ORDER BY row LIMIT 1"
            ).fetchone()
            if found is not None:
                row, value = found
                reason = "must not be null" if value is None else f"{must}, got {value!r}"
                raise InputError(reason, field=column, row=row, subject=subject)
    raise InputError(must, field=column)


def first_line(error: Exception) -> str:
    """Return what went wrong without the advice that DuckDB appends."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
