"""Tables for a base: Parquet and Arrow as they are, CSV as text, parsed cell by cell as declared.

Each is read batch by batch, from a file or, through a copy, from an object store.

A CSV file is never sniffed: a guessed type depends on the other rows, turns the country ``NA`` into
nothing and the postcode ``01000`` into a number. Profiles are numbers, facts have fixed types, and
attributes are text unless a file of types says otherwise. A cell that is not of its type is an
error that names column and row (0-based, without the header).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis.base.loading import BATCH_ROWS, TableStream
from visavis.catalog.schema import did_you_mean
from visavis.domain import CONSENT_PREFIX, CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, SchemaError
from visavis.indicators.sources import text_batches, text_columns
from visavis.store import local_file, read_bytes, reading

__all__ = [
    "COLUMN_TYPES",
    "is_arrow",
    "is_csv",
    "open_attributes",
    "open_facts",
    "open_profiles",
    "read_attributes",
    "read_facts",
    "read_profiles",
]

_PARQUET: Final = (".parquet", ".pq")
_ARROW: Final = (".arrow", ".feather")
_CSV: Final = (".csv", ".csv.gz")

#: CSV of numbers and ids packs to a third or a fifth; a bound, not a guess, for what is planned.
_PACKED_RATIO: Final = 50


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


def is_arrow(path: Path) -> bool:
    """Whether a path is named as Arrow's own files are."""
    return path.name.lower().endswith(_ARROW)


def open_profiles(path: Path | str) -> TableStream:
    """Ids and numbers: every column of a CSV file but the id is float64.

    Raises
    ------
    InputError
        Naming the file, or the column and the row; of a row, when its batch is read.
    """
    return _open(path, "profiles", _profile_types)


def open_attributes(path: Path | str, types_file: Path | None) -> TableStream:
    """Ids and attributes; of a CSV file text, consent and objection bool, others as declared.

    Parameters
    ----------
    path : Path or str
    types_file : Path, optional
        TOML: ``column = "bool"``, or ``int64``, ``float64``, ``string``, ``date``.

    Raises
    ------
    InputError
        Naming the file, or the column and the row; of a row, when its batch is read.
    """
    if types_file is not None and not is_csv(Path(path)):
        raise InputError(f"{path} has types of its own; only CSV needs them", field="types")

    def types_of(names: list[str]) -> dict[str, str]:
        fixed = {
            name: "bool" for name in names if name == OBJECTED or name.startswith(CONSENT_PREFIX)
        }
        return {**fixed, **({} if types_file is None else _read_types(types_file, names))}

    return _open(path, "attributes", types_of)


def open_facts(path: Path | str) -> TableStream:
    """What happened: ``date`` is a date, ``count`` a whole number, the rest is text.

    Raises
    ------
    InputError
        Naming the file, or the column and the row; of a row, when its batch is read.
    """
    return _open(path, "facts", lambda _: dict(_FACT_TYPES))


def read_profiles(path: Path | str) -> pa.Table:
    """The whole of `open_profiles`."""
    return open_profiles(path).read()


def read_attributes(path: Path | str, types_file: Path | None) -> pa.Table:
    """The whole of `open_attributes`."""
    return open_attributes(path, types_file).read()


def read_facts(path: Path | str) -> pa.Table:
    """The whole of `open_facts`."""
    return open_facts(path).read()


def _profile_types(names: list[str]) -> dict[str, str]:
    return {name: "float64" for name in names if name != CUSTOMER_ID}


def _open(
    path: Path | str, field: str, types_of: Callable[[list[str]], dict[str, str]]
) -> TableStream:
    name = Path(path).name.lower()
    if not name.endswith(_PARQUET + _ARROW + _CSV):
        known = ", ".join(_PARQUET + _ARROW + _CSV)
        raise InputError(f"must end in one of {known}, got {Path(path).name!r}", field=field)
    file = local_file(path, field=field)
    if name.endswith(_CSV):
        return _open_csv(file, field, types_of)
    return (_open_parquet if name.endswith(_PARQUET) else _open_arrow)(file, field)


def _open_csv(
    path: Path, field: str, types_of: Callable[[list[str]], dict[str, str]]
) -> TableStream:
    names = text_columns(path, field=field)
    types = types_of(names)
    schema = pa.schema([(name, COLUMN_TYPES[types.get(name, "string")].arrow) for name in names])

    def batches() -> Iterator[pa.Table]:
        start = 0
        for batch in text_batches(path, field=field, batch_rows=BATCH_ROWS):
            yield _parsed(batch, types, field, start)
            start += batch.num_rows

    # A row has at least a separator for each column; what is packed has been seen to shrink so far.
    packed = _PACKED_RATIO if path.name.lower().endswith(".gz") else 1
    return TableStream(schema, packed * path.stat().st_size // max(1, len(names)), batches)


def _open_parquet(path: Path, field: str) -> TableStream:
    with reading(path, field=field), pq.ParquetFile(path) as source:
        schema, row_count = source.schema_arrow, source.metadata.num_rows

    def batches() -> Iterator[pa.Table]:
        # Arrow would read ahead through the whole file: of 4 M rows × 128 that was 2 GB.
        with reading(path, field=field), pq.ParquetFile(path, pre_buffer=False) as source:
            for batch in source.iter_batches(BATCH_ROWS):
                yield pa.Table.from_batches([batch])

    return TableStream(schema, row_count, batches)


def _open_arrow(path: Path, field: str) -> TableStream:
    with reading(path, field=field), pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        schema = reader.schema
        counts = [reader.get_batch(at).num_rows for at in range(reader.num_record_batches)]

    def batches() -> Iterator[pa.Table]:
        with reading(path, field=field), pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            for at in range(reader.num_record_batches):
                whole = pa.Table.from_batches([reader.get_batch(at)])
                for begin in range(0, whole.num_rows, BATCH_ROWS):
                    yield whole.slice(begin, BATCH_ROWS)

    return TableStream(schema, sum(counts), batches)


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


def _parsed(table: pa.Table, types: Mapping[str, str], field: str, start: int) -> pa.Table:
    """The cells of a batch of which the first row is `start` of its file."""
    try:
        columns = [
            _cells(table[name], COLUMN_TYPES[types.get(name, "string")], f"{field}.{name}")
            for name in table.column_names
        ]
    except InputError as error:
        row = None if error.row is None else start + error.row
        raise InputError(error.reason, field=error.field, row=row) from None
    return pa.Table.from_arrays(columns, names=table.column_names)


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
