"""Tables for a base: Parquet as it is, CSV as text that is parsed cell by cell as declared.

A CSV file is never sniffed: a guessed type depends on the other rows, turns the country ``NA`` into
nothing and the postcode ``01000`` into a number. Profiles are numbers, facts have fixed types, and
attributes are text unless a file of types says otherwise. A cell that is not of its type is an
error that names column and row (0-based, without the header).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from visavis.catalog.schema import did_you_mean
from visavis.domain import CONSENT_PREFIX, CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, SchemaError
from visavis.indicators.sources import read_text_table
from visavis.store import read_bytes, read_parquet

__all__ = ["COLUMN_TYPES", "is_csv", "read_attributes", "read_facts", "read_profiles"]

_PARQUET: Final = (".parquet", ".pq")
_CSV: Final = (".csv", ".csv.gz")


@dataclass(frozen=True, slots=True)
class _ColumnType:
    """How the cells of a CSV column are read.

    Attributes
    ----------
    arrow : pyarrow.DataType
    spelled : str
        A regular expression of what may stand in a cell; "" for text, which may be anything.
    must : str
        What a cell must be, for an error.
    """

    arrow: pa.DataType
    spelled: str
    must: str


_YEAR: Final = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_FRACTION: Final = r"([0-9]+\.?[0-9]*|\.[0-9]+)"

#: The types that a file of types may name.
COLUMN_TYPES: Final[Mapping[str, _ColumnType]] = {
    "bool": _ColumnType(pa.bool_(), "(?i)^(true|false|1|0)$", "must be true or false"),
    "int64": _ColumnType(pa.int64(), "^[+-]?[0-9]+$", "must be a whole number of 64 bits"),
    "float64": _ColumnType(
        pa.float64(), f"^[+-]?{_FRACTION}([eE][+-]?[0-9]+)?$", "must be a number"
    ),
    "string": _ColumnType(pa.string(), "", "must be text"),
    "date": _ColumnType(
        pa.date32(), f"^{_YEAR}-[0-9]{{2}}-[0-9]{{2}}$", "must be a date such as 2026-01-31"
    ),
}

_FACT_TYPES: Final = {"date": "date", "count": "int64"}


def is_csv(path: Path) -> bool:
    """Whether a path is named as CSV is."""
    return path.name.lower().endswith(_CSV)


def read_profiles(path: Path) -> pa.Table:
    """Ids and numbers: every column of a CSV file but the id is float64.

    Raises
    ------
    InputError
        Naming the file, or the column and the row.
    """
    table, from_csv = _read(path, "profiles")
    if not from_csv:
        return table
    types = {name: "float64" for name in table.column_names if name != CUSTOMER_ID}
    return _parsed(table, types, "profiles")


def read_attributes(path: Path, types_file: Path | None) -> pa.Table:
    """Ids and attributes; of a CSV file text, consent and objection bool, others as declared.

    Parameters
    ----------
    path : Path
    types_file : Path, optional
        TOML: ``column = "bool"``, or ``int64``, ``float64``, ``string``, ``date``.

    Raises
    ------
    InputError
        Naming the file, or the column and the row.
    """
    table, from_csv = _read(path, "attributes")
    if not from_csv:
        if types_file is not None:
            raise InputError(f"{path} has types of its own; only CSV needs them", field="types")
        return table
    fixed = {
        name: "bool"
        for name in table.column_names
        if name == OBJECTED or name.startswith(CONSENT_PREFIX)
    }
    declared = {} if types_file is None else _read_types(types_file, table.column_names)
    return _parsed(table, {**fixed, **declared}, "attributes")


def read_facts(path: Path) -> pa.Table:
    """What happened: ``date`` is a date, ``count`` a whole number, the rest is text.

    Raises
    ------
    InputError
        Naming the file, or the column and the row.
    """
    table, from_csv = _read(path, "facts")
    return _parsed(table, _FACT_TYPES, "facts") if from_csv else table


def _read(path: Path, field: str) -> tuple[pa.Table, bool]:
    if is_csv(path):
        return read_text_table(path, field=field), True
    if not path.name.lower().endswith(_PARQUET):
        known = ", ".join(_PARQUET + _CSV)
        raise InputError(f"must end in one of {known}, got {path.name!r}", field=field)
    return read_parquet(path, field=field), False


def _read_types(path: Path, columns: list[str]) -> dict[str, str]:
    content = read_bytes(path, field="types")
    try:
        declared = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML: {error}", field="types") from None
    for name, kind in declared.items():
        if name not in columns or name == CUSTOMER_ID:
            known = [column for column in columns if column != CUSTOMER_ID]
            hint = did_you_mean(name, known)
            raise SchemaError(f"is no attribute of the table{hint}", field=f"types.{name}")
        if not isinstance(kind, str) or kind not in COLUMN_TYPES:
            known = list(COLUMN_TYPES)
            raise SchemaError(
                f"must be one of {', '.join(known)}, got {kind!r:.60}", field=f"types.{name}"
            )
    return declared


def _parsed(table: pa.Table, types: Mapping[str, str], field: str) -> pa.Table:
    columns = {
        name: _cells(table[name], COLUMN_TYPES[types.get(name, "string")], f"{field}.{name}")
        for name in table.column_names
    }
    return pa.table(columns)


def _cells(texts: pa.ChunkedArray, kind: _ColumnType, field: str) -> pa.ChunkedArray:
    """Texts as values of a type; what is not spelled as it must be is refused by its row."""
    if not kind.spelled:
        return texts
    # Arrow would also read 0x1F as an integer, and 1_0 or nan need words of ours.
    spelled = pc.fill_null(pc.match_substring_regex(texts, kind.spelled), True)
    row = pc.index(spelled, False).as_py()
    unsigned = pc.replace_substring_regex(texts if row < 0 else texts[:row], r"^\+", "")
    try:
        values = unsigned.cast(kind.arrow)
    except pa.ArrowInvalid:
        row = _first_refused(unsigned, kind.arrow)
    if row < 0:
        return values
    raise InputError(f"{kind.must}, got {texts[row].as_py()!r:.60}", field=field, row=row)


def _first_refused(texts: pa.ChunkedArray, arrow: pa.DataType) -> int:
    """The first row that Arrow cannot cast, of texts of which there is one: 2026-02-30, 2^63."""

    def is_refused(begin: int, end: int) -> bool:
        try:
            texts.slice(begin, end - begin).cast(arrow)
        except pa.ArrowInvalid:
            return True
        return False

    begin, end = 0, len(texts)
    while end - begin > 1:
        middle = (begin + end) // 2
        begin, end = (begin, middle) if is_refused(begin, middle) else (middle, end)
    return begin
