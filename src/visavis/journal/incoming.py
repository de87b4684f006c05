"""Tables at the door of the journal: checked as those of a base are, and turned into entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from visavis.base.door import incoming_attributes, incoming_facts
from visavis.domain import CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, LimitError, SchemaError
from visavis.journal.entries import Content, Kind, encoded

__all__ = ["ENTRY_BYTES_MAX", "GROUP_ENTRIES_MAX", "contents_of", "id_bytes", "tables_of"]

#: One transaction, held in memory on its way: 2^20 facts are some 300 MB.
GROUP_ENTRIES_MAX: Final = 2**20

#: An id and what is said of it: far above what anybody needs, far below what SQLite can hold.
ENTRY_BYTES_MAX: Final = 2**20


def contents_of(
    facts: pa.Table | None,
    attributes: pa.Table | Sequence[pa.Table] | None,
    objections: Sequence[str],
) -> list[Content]:
    """Everything that a group says, in order: facts, attributes, objections.

    Raises
    ------
    InputError
        Naming the column and the row: all of the group is right, or none of it is taken.
    """
    if isinstance(objections, str | bytes):
        raise SchemaError("must be a list of ids, got one text", field="objections")
    objections = list(objections)
    tables = tables_of(attributes)
    sizes = {
        "facts": _row_count(facts),
        "attributes": sum(_row_count(table) for table in tables),
        "objections": len(objections),
    }
    if sum(sizes.values()) > GROUP_ENTRIES_MAX:
        raise LimitError(
            f"a group holds at most {GROUP_ENTRIES_MAX} entries, got {sum(sizes.values())}",
            field=max(sizes, key=lambda name: sizes[name]),
        )
    contents: list[Content] = []
    for field, entries in (
        ("facts", _facts(facts)),
        *(("attributes", _attributes(table)) for table in tables),
        ("objections", _objections(objections)),
    ):
        for row, content in enumerate(entries):
            if len(content.customer_id) + len(content.payload) > ENTRY_BYTES_MAX:
                reason = f"an entry holds at most {ENTRY_BYTES_MAX} bytes"
                raise LimitError(reason, field=field, row=row)
            contents.append(content)
    return contents


def _row_count(table: pa.Table | None) -> int:
    # What is no table is refused by its own door.
    return table.num_rows if isinstance(table, pa.Table) else 0


def _facts(table: pa.Table | None) -> Iterator[Content]:
    if table is None:
        return
    checked = incoming_facts(table)
    columns = {name: checked[name].to_pylist() for name in checked.column_names if name != "date"}
    days = checked["date"].cast(pa.int32()).to_pylist()
    for customer_id, *said in zip(
        columns[CUSTOMER_ID],
        columns["product"],
        columns["capability_id"],
        columns["kind"],
        days,
        columns["count"],
        strict=True,
    ):
        yield Content(Kind.FACT, customer_id.encode(), encoded(said))


def tables_of(attributes: pa.Table | Sequence[pa.Table] | None) -> list[pa.Table]:
    """The tables of attributes, one after the other."""
    if attributes is None:
        return []
    return list(attributes) if isinstance(attributes, list | tuple) else [attributes]


def _attributes(table: pa.Table) -> Iterator[Content]:
    if isinstance(table, pa.Table) and OBJECTED in table.column_names:
        reason = "is no attribute here: give the ids as objections, which are final"
        raise SchemaError(reason, field=f"attributes.{OBJECTED}")
    checked = incoming_attributes(table)
    names = sorted(name for name in checked.column_names if name != CUSTOMER_ID)
    if not names:
        raise SchemaError("must hold at least one attribute", field="attributes")
    types = [str(checked[name].type) for name in names]
    columns = [_plain_cells(checked[name]) for name in names]
    for customer_id, *cells in zip(checked[CUSTOMER_ID].to_pylist(), *columns, strict=True):
        said = {name: [kind, cell] for name, kind, cell in zip(names, types, cells, strict=True)}
        yield Content(Kind.ATTRIBUTES, customer_id.encode(), encoded(said))


def _plain_cells(column: pa.ChunkedArray) -> list[Any]:
    """Cells as JSON has them, dates as day numbers: Arrow knows days that Python does not."""
    is_date = pa.types.is_date32(column.type)
    cells: list[Any] = (column.cast(pa.int32()) if is_date else column).to_pylist()
    return cells


def _objections(objections: list[str]) -> Iterator[Content]:
    for row, customer_id in enumerate(objections):
        yield Content(Kind.OBJECTION, id_bytes(customer_id, field="objections", row=row), b"")


def id_bytes(customer_id: object, *, field: str, row: int | None = None) -> bytes:
    """An id that is given by itself, as UTF-8.

    Raises
    ------
    InputError
        If it is no text, empty, or holds what UTF-8 cannot.
    """
    if not isinstance(customer_id, str):
        raise SchemaError(f"must be text, got {customer_id!r:.60}", field=field, row=row)
    if not customer_id:
        raise InputError("must not be empty", field=field, row=row)
    try:
        return customer_id.encode()
    except UnicodeEncodeError:
        reason = "must be text that UTF-8 can hold"
        raise InputError(reason, field=field, row=row) from None
