"""Catalogs in files and rows: Parquet, CSV, JSON lines and TOML to and from one Arrow table.

Only shapes and types of cells are checked here, cell by cell, with the row named; what the values
may be is the door's business (``columns``), for every format alike. Parquet is read as it
is, without a step through Python objects.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from numbers import Real
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from visavis.catalog.door import check_names, refuse_column
from visavis.catalog.schema import (
    CATALOG_SCHEMA,
    DATE_COLUMNS,
    HISTORY_FIELDS,
    NUMBER_DEFAULTS,
    TEXT_COLUMNS,
    capability_subject,
    did_you_mean,
)
from visavis.domain import parse_date
from visavis.errors import InputError, SchemaError
from visavis.store import reading, write_bytes

__all__ = ["read_table", "table_of_rows", "write_table"]

Cells: TypeAlias = Sequence[object]

#: Rows of one Parquet row group or one batch of text: bounds what is held as Python objects.
_BATCH_ROWS: Final = 2**15

#: The table array of a TOML catalog: ``[[capability]]``.
_TOML_KEY: Final = "capability"


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """Read a catalog file; the suffix tells the format.

    Raises
    ------
    InputError
        If there is no such file, or it is not what its suffix says.
    StorageError
        If the system refuses to read it.
    """
    file = _path(path)
    readers = {
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".toml": _read_toml,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"must end in {', '.join(readers)}, got {file.name!r}", field="path")
    with reading(file):
        try:
            return reader(file)
        except UnicodeError as error:
            raise InputError(f"{file} cannot be read: {error}", field="path") from error


def _path(given: object) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"must be a path, got {_got(given)}", field="path")
    return Path(given)


def write_table(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a checked catalog as Parquet, CSV or JSON lines; the suffix tells which.

    The file appears whole or not at all.

    Raises
    ------
    InputError
        If the suffix tells no format.
    StorageError
        If the file cannot be written.
    """
    file = _path(path)
    writers = {".parquet": _parquet_bytes, ".csv": _csv_bytes, ".jsonl": _jsonl_bytes}
    writer = writers.get(file.suffix.lower())
    if writer is None:
        raise InputError(f"must end in {', '.join(writers)}, got {file.name!r}", field="path")
    write_bytes(file, writer(table))


def table_of_rows(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return the table of rows given as mappings of column to cell.

    Parameters
    ----------
    rows : iterable of mapping
        A key that is missing, or None, is an absent cell. ``weights`` is a mapping,
        ``history_weights`` a sequence of mappings, dates are dates or ISO text.

    Raises
    ------
    SchemaError
        A row is no mapping, names an unknown column or holds a cell of a wrong type.
    """
    held: list[Mapping[str, object]] = []
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise SchemaError(f"must be an object of columns, got {_got(row)}", row=index)
        for name in row:
            if name not in CATALOG_SCHEMA.names:
                refuse_column(str(name), row=index, subject=capability_subject(row.get("id")))
        held.append(row)
    present = [name for name in CATALOG_SCHEMA.names if any(name in row for row in held)]
    return _table({name: [row.get(name) for row in held] for name in present}, len(held))


def _got(cell: object) -> str:
    return f"{type(cell).__name__} {cell!r:.60}"


def _table(columns: Mapping[str, Cells], row_count: int) -> pa.Table:
    """Turn columns of cells into Arrow, refusing cells of a wrong type."""
    ids = columns.get("id", [None] * row_count)

    def fail(reason: str, field: str, row: int) -> InputError:
        return SchemaError(reason, field=field, row=row, subject=capability_subject(ids[row]))

    arrays = {}
    for name, cells in columns.items():
        if name in TEXT_COLUMNS:
            arrays[name] = _texts(cells, name, fail)
        elif name in NUMBER_DEFAULTS:
            numbers = [_number(cell, name, row, fail) for row, cell in enumerate(cells)]
            arrays[name] = pa.array(numbers, pa.float64())
        elif name in DATE_COLUMNS:
            days = [_date(cell, name, row, fail) for row, cell in enumerate(cells)]
            arrays[name] = pa.array(days, pa.date32())
        elif name == "weights":
            arrays[name] = _weights(cells, fail)
        else:
            arrays[name] = _history_weights(cells, fail)
    return pa.table(arrays)


Fail: TypeAlias = Callable[[str, str, int], InputError]


def _texts(cells: Cells, field: str, fail: Fail) -> pa.Array:
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if not isinstance(cell, str):
            raise fail(f"must be text, got {_got(cell)}", field, row)
        if not _is_encodable(cell):
            raise fail(f"must be text that UTF-8 can hold, got {cell!a}", field, row)
    return pa.array(cells, pa.string())


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(cell: object, field: str, row: int, fail: Fail) -> float | None:
    if cell is None:
        return None
    # A bool is an int to Python, and never a number to a person.
    if isinstance(cell, bool) or not isinstance(cell, Real):
        raise fail(f"must be a number, got {_got(cell)}", field, row)
    try:
        return float(cell)
    except OverflowError:
        raise fail("must be finite, got a number beyond float64", field, row) from None


def _date(cell: object, field: str, row: int, fail: Fail) -> date | None:
    if cell is None or cell == "":
        return None
    if not isinstance(cell, (str, date)):
        raise fail(f"must be a date, got {_got(cell)}", field, row)
    try:
        return parse_date(cell, field=field)
    except InputError as error:
        raise fail(error.reason, field, row) from None


def _weights(cells: Cells, fail: Fail) -> pa.Array:
    offsets = [0]
    names: list[str] = []
    values: list[float | None] = []
    for row, cell in enumerate(cells):
        if cell is None:
            raise fail("is required, got null", "weights", row)
        if not isinstance(cell, Mapping):
            raise fail(f"must map indicator names to numbers, got {_got(cell)}", "weights", row)
        for name, value in cell.items():
            field = f"weights[{name!r}]"
            if not isinstance(name, str) or not _is_encodable(name):
                raise fail("must be named by text", field, row)
            names.append(name)
            values.append(_number(value, field, row, fail))
        offsets.append(len(names))
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(names, pa.string()), pa.array(values, pa.float64())
    )


def _history_weights(cells: Cells, fail: Fail) -> pa.Array:
    held: list[list[dict[str, Any]]] = []
    for row, cell in enumerate(cells):
        listed = [] if cell is None else cell
        if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
            raise fail(f"must be a list of history terms, got {_got(cell)}", "history_weights", row)
        held.append(
            [
                _term(term, f"history_weights[{index}]", row, fail)
                for index, term in enumerate(listed)
            ]
        )
    return pa.array(held, pa.list_(HISTORY_FIELDS))


def _term(term: object, field: str, row: int, fail: Fail) -> dict[str, Any]:
    if not isinstance(term, Mapping):
        raise fail(f"must be an object, got {_got(term)}", field, row)
    for name in term:
        if name not in HISTORY_FIELDS.names:
            hint = did_you_mean(str(name), HISTORY_FIELDS.names)
            raise fail(f"is no field of a history term{hint}", f"{field}.{name}", row)
    for name in ("kind", "feature", "weight"):
        if term.get(name) is None:
            raise fail("is required in every history term", f"{field}.{name}", row)
    for name in ("kind", "feature"):
        if not isinstance(term[name], str) or not _is_encodable(term[name]):
            raise fail(f"must be text, got {_got(term[name])}", f"{field}.{name}", row)
    numbers = {
        name: _number(term.get(name), f"{field}.{name}", row, fail)
        for name in ("half_life_days", "scale", "weight")
    }
    # str() turns a member of a string enumeration into the text that Arrow accepts.
    return {"kind": str(term["kind"]), "feature": str(term["feature"]), **numbers}


def _read_parquet(file: Path) -> pa.Table:
    with pq.ParquetFile(file) as source:
        held = [source.schema.column(index).path for index in range(len(source.schema))]
        check_names(source.schema_arrow.empty_table())
    # Names of indicators repeat in every row: kept as codes they cost four bytes a weight. Arrow
    # knows no such path where weights are no map, which the door refuses by name.
    codes = [path for path in held if path == "weights.key_value.key"]
    with pq.ParquetFile(file, read_dictionary=codes) as source:
        groups = [source.read_row_group(index) for index in range(source.num_row_groups)]
        return pa.concat_tables(groups) if groups else source.schema_arrow.empty_table()


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=_BATCH_ROWS, compression="zstd")
    return bytes(sink.getvalue())


def _read_csv(file: Path) -> pa.Table:
    content = file.read_bytes()
    source = pa_csv.read_csv(
        pa.BufferReader(content),
        # One block, so that no row, however many weights it names, straddles two.
        read_options=pa_csv.ReadOptions(block_size=max(len(content), 1), use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in CATALOG_SCHEMA.names}
        ),
    )
    check_names(source)
    parsers: dict[str, Callable[[str], object]] = {
        **dict.fromkeys(NUMBER_DEFAULTS, _parse_number),
        **dict.fromkeys(("weights", "history_weights"), _parse_json),
    }
    columns: dict[str, Cells] = {}
    ids = source["id"].to_pylist()
    for name in source.column_names:
        # An empty cell is an absent one: CSV cannot tell them apart.
        texts = [text or None for text in source[name].to_pylist()]
        parse = parsers.get(name)
        columns[name] = texts
        if parse is not None:
            columns[name] = [_parsed(parse, text, name, row, ids) for row, text in enumerate(texts)]
    return _table(columns, source.num_rows)


def _parsed(
    parse: Callable[[str], object], text: str | None, field: str, row: int, ids: Sequence[str]
) -> object:
    try:
        return None if text is None else parse(text)
    except (ValueError, RecursionError) as error:
        subject = capability_subject(ids[row])
        raise SchemaError(str(error), field=field, row=row, subject=subject) from None


def _parse_number(text: str) -> float:
    try:
        # Python would read 1_000, which no other reader of the file does.
        return float(text.replace("_", "?"))
    except ValueError:
        raise ValueError(f"must be a number, got {text!r:.60}") from None


def _csv_bytes(table: pa.Table) -> bytes:
    cells = {name: table[name] for name in table.column_names}
    for name in ("weights", "history_weights"):
        texts = [_dumps(row[name]) for row in _rows(table.select([name]))]
        cells[name] = pa.array(texts, pa.string())
    # As float32 the bias would be written with too few digits to pass through float64 exactly.
    cells["bias"] = cells["bias"].cast(pa.float64())
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(pa.table(cells), sink)
    return bytes(sink.getvalue())


def _read_jsonl(file: Path) -> pa.Table:
    return table_of_rows(_jsonl_rows(file))


def _jsonl_rows(file: Path) -> Iterator[Mapping[str, object]]:
    row = 0
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield _parse_json(line)
                except (ValueError, RecursionError) as error:
                    raise SchemaError(str(error), field="path", row=row) from None
                row += 1


def _jsonl_bytes(table: pa.Table) -> bytes:
    present = (
        {name: cell for name, cell in row.items() if cell is not None} for row in _rows(table)
    )
    return "".join(f"{_dumps(row)}\n" for row in present).encode()


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist(maps_as_pydicts="strict")


def _dumps(cell: object) -> str:
    return json.dumps(cell, ensure_ascii=False, allow_nan=False, default=date.isoformat)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    held = dict(pairs)
    if len(held) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {repeated!r} appears more than once")
    return held


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


def _read_toml(file: Path) -> pa.Table:
    text = file.read_bytes().decode()
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}", field="path") from None
    for name in document:
        if name != _TOML_KEY:
            raise SchemaError(f"a catalog holds [[{_TOML_KEY}]] only, got {name!r}", field="path")
    rows = document.get(_TOML_KEY, [])
    if not isinstance(rows, list):
        raise SchemaError(f"{_TOML_KEY} must be an array of tables: [[{_TOML_KEY}]]", field="path")
    return table_of_rows(rows)
