"""Indicators: what is known about each customer, from that customer's own events alone.

::

    spec (TOML) ─┐
    events ──────┼─ events.py ──► exact integers ──── kinds.py ──► Indicators
    taxonomy ────┘  (DuckDB, sorted)  of a block  (fixed order)  float32 matrix

`compute` goes through the customers in blocks, so its memory depends on the block and on the
result, not on the number of events. ``profile(i)`` is a function of i's own events, the spec, the
taxonomy and as_of: no kind sees another customer, no list is taken from the events.

A visit is a day (UTC) with at least one event. Events on as_of count, later ones do not; all are
checked. A row whose key the taxonomy lacks counts for visits and spend and has no value at any of
its levels. A customer without any event left is not in the result.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis.domain import (
    AS_OF_METADATA,
    CUSTOMER_ID,
    INDICATOR_METADATA,
    day_number,
    parse_date,
)
from visavis.errors import InputError, LimitError, SchemaError
from visavis.indicators.days import CustomerDays, evaluate
from visavis.indicators.events import MEMORY_LIMIT, EventLedger, Resources, open_ledger
from visavis.indicators.parts import check_part
from visavis.indicators.sources import Relation
from visavis.indicators.spec import IndicatorSpec
from visavis.store import write_bytes

__all__ = ["IndicatorDefinition", "Indicators", "compute", "find_definition"]

#: Most indicators of one spec: a float32 row of 64 KiB.
INDICATOR_MAX: Final = 16_384

#: Cells (customers × indicators) of a block, where customers have few events. 10 M events of 500 k
#: customers into 128 indicators on two cores, all blocks and peak of anonymous memory: 1 M 13.2 s,
#: 484 MB; 2 M 12.4 s, 536 MB; 4 M 15.1 s, 625 MB; 16 M 19.9 s, 1123 MB (the matrix has 256 MB).
BLOCK_CELLS: Final = 2_000_000

#: Smaller magnitudes become 0: a caller may have switched on flush-to-zero, which must not show.
_FLOAT32_TINY: Final = float(np.finfo(np.float32).tiny)

_SPEC_DIGEST: Final = b"visavis.spec_digest"


@dataclass(frozen=True, slots=True)
class IndicatorDefinition:
    """What one column of the matrix means.

    Attributes
    ----------
    name : str
        Stable and readable: ``spend_h30d``, ``share_visits_h90d:department=GROCERY``.
    kind, unit, formula : str
    lineage : tuple of str
        The columns that decide it: ``events.<column>``, ``taxonomy.<column>``.
    undefined : float
        The value written where it is undefined.
    """

    name: str
    kind: str
    unit: str
    formula: str
    lineage: tuple[str, ...]
    undefined: float


@dataclass(frozen=True, slots=True, eq=False)
class Indicators:
    """One row per customer, one column per indicator.

    Attributes
    ----------
    customer_ids : pyarrow.StringArray of shape (n_customers,)
        Sorted by their UTF-8 bytes, without duplicates.
    matrix : ndarray of shape (n_customers, n_indicators), float32, C-contiguous
        Finite; in the units of the definitions.
    definitions : tuple of IndicatorDefinition
    as_of : datetime.date
    spec_digest : str
    """

    customer_ids: pa.StringArray
    matrix: npt.NDArray[np.float32]
    definitions: tuple[IndicatorDefinition, ...]
    as_of: date
    spec_digest: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return tuple(definition.name for definition in self.definitions)

    def to_table(self) -> pa.Table:
        """Return customer_id and a float32 column per indicator; meanings as metadata."""
        fields = [pa.field(CUSTOMER_ID, pa.string(), nullable=False)]
        for definition in self.definitions:
            meaning = {INDICATOR_METADATA: json.dumps(asdict(definition), ensure_ascii=False)}
            fields.append(pa.field(definition.name, pa.float32(), nullable=False, metadata=meaning))
        metadata = {AS_OF_METADATA: self.as_of.isoformat(), _SPEC_DIGEST: self.spec_digest}
        columns = [pa.array(np.ascontiguousarray(column)) for column in self.matrix.T]
        return pa.Table.from_arrays(
            [self.customer_ids, *columns], schema=pa.schema(fields, metadata=metadata)
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Indicators:
        """Read what `to_table` made.

        Raises
        ------
        SchemaError
            If a column or its meaning is missing, or has another type.
        InputError
            If ids are not sorted without duplicates, or a value is null or not finite.
        """
        metadata = table.schema.metadata or {}
        for key in (AS_OF_METADATA, _SPEC_DIGEST):
            if key not in metadata:
                raise SchemaError("no such metadata", field=key.decode())
        if table.column_names[:1] != [CUSTOMER_ID] or table.schema.types[0] != pa.string():
            raise SchemaError("must be the first column, of strings", field=CUSTOMER_ID)
        ids = pa.concat_arrays([pa.array([], pa.string()), *table.column(0).chunks])
        if ids.null_count or (not pc.all(pc.less(ids[:-1], ids[1:])).as_py() and len(ids) > 1):
            raise InputError("must ascend without nulls or duplicates", field=CUSTOMER_ID)
        matrix = np.empty((table.num_rows, table.num_columns - 1), dtype=np.float32)
        definitions = []
        for position, column in enumerate(table.schema):
            if position:
                definitions.append(_read_definition(column))
                matrix[:, position - 1] = _finite(table.column(position), column.name)
        as_of = parse_date(metadata[AS_OF_METADATA].decode(), field="as_of")
        return cls(ids, matrix, tuple(definitions), as_of, metadata[_SPEC_DIGEST].decode())

    def write(self, path: str | Path) -> None:
        """Write `to_table` as Parquet, whole or not at all."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_table(), sink)
        write_bytes(Path(path), sink.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> Indicators:
        """Read what `write` wrote; errors as of `from_table`."""
        try:
            # `read_table` would take a folder named a=b for a column.
            with pq.ParquetFile(path) as file:
                table = file.read()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", field="indicators") from error
        return cls.from_table(table)


def compute(
    events: Relation,
    spec: IndicatorSpec,
    as_of: date | str,
    *,
    taxonomy: Relation | None = None,
    memory_limit: str = MEMORY_LIMIT,
    threads: int | None = None,
    temp_directory: Path | None = None,
    block_customers: int | None = None,
    part: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Indicators:
    """Compute the indicators of every customer with an event on or before as_of.

    The result does not depend on the order of files or rows, on resources or on blocks.

    Parameters
    ----------
    events : pyarrow.Table, path, or sequence of paths (.parquet, .pq, .csv, .csv.gz)
    spec : IndicatorSpec
    as_of : datetime.date or ISO text
        Inclusive; ages are whole days up to it.
    taxonomy : pyarrow.Table or path, required if the spec has ``[taxonomy]``
    memory_limit : str
        Of DuckDB, which spills beyond it. The process takes about 0.1 GB more, the matrix its
        size; neither depends on the number of events.
    threads : int, optional
        Of DuckDB; default: all.
    temp_directory : pathlib.Path, optional
        Where to spill (about the size of the events as Parquet); default: the system's.
    block_customers : int, optional
        Most customers worked on at once; default: by the number of indicators.
    part : (index, count), optional
        Only the customers of this part (`part_of` says which); their rows are those of the whole.
        All events are read, but only the part's are sorted and kept. A part may be empty.
    progress : callable, optional
        Called with (customers done, customers in all) after each block.

    Returns
    -------
    Indicators

    Raises
    ------
    SchemaError
        If a column that the spec names is missing or of a wrong type, or two indicators have one
        name.
    InputError
        If a cell is null, not finite or out of range; it names column, row and file. Of a part,
        cells of other parts are not looked at, but an error is that of the whole.
    LimitError
        If there are too many indicators, or the memory limit does not suffice.
    """
    day = day_number(parse_date(as_of, field="as_of"))
    if block_customers is not None and block_customers < 1:
        raise InputError(f"must be at least 1, got {block_customers}", field="block_customers")
    own = None if part is None else check_part(part)
    key = spec.taxonomy.key if spec.taxonomy else None
    resources = Resources(memory_limit, threads, temp_directory)
    with open_ledger(spec.events, key, spec.indicators, resources, own) as ledger:
        ledger.describe(events, taxonomy)
        definitions = _define(spec, ledger)
        customer_ids = ledger.ingest(day)
        matrix = np.empty((len(customer_ids), len(definitions)), dtype=np.float32)
        block = block_customers or max(1, BLOCK_CELLS // len(definitions))
        for start, stop in ledger.blocks(block):
            _fill(matrix[start:stop], spec, ledger.days(start, stop))
            if progress is not None:
                progress(stop, len(customer_ids))
    return Indicators(
        customer_ids, matrix, definitions, parse_date(as_of, field="as_of"), spec.digest()
    )


def _define(spec: IndicatorSpec, ledger: EventLedger) -> tuple[IndicatorDefinition, ...]:
    """Make the definitions before any event is read, from the days of nobody."""
    nobody = ledger.no_days()
    definitions = []
    for i, parameters in enumerate(spec.indicators):
        lineage = ledger.lineage(parameters)
        try:
            columns = evaluate(parameters, nobody)
        except InputError as error:
            field = f"indicator[{i}].{error.field}"
            raise InputError(error.reason, field=field) from error
        definitions += [
            IndicatorDefinition(
                name=column.name,
                kind=parameters.kind,
                unit=column.unit,
                formula=column.formula,
                lineage=lineage,
                undefined=parameters.undefined,
            )
            for column in columns
        ]
    name, count = Counter(definition.name for definition in definitions).most_common(1)[0]
    if count > 1:
        raise SchemaError(f"{count} indicators are named {name!r}", field="indicator")
    if len(definitions) > INDICATOR_MAX:
        reason = f"{len(definitions)} indicators, at most {INDICATOR_MAX} are allowed"
        raise LimitError(reason, field="indicator")
    return tuple(definitions)


def _fill(rows: npt.NDArray[np.float32], spec: IndicatorSpec, days: CustomerDays) -> None:
    """Compute one block into its rows of the matrix."""
    position = 0
    for parameters in spec.indicators:
        for column in evaluate(parameters, days):
            values = column.values
            rows[:, position] = np.where(np.abs(values) < _FLOAT32_TINY, 0.0, values)
            position += 1


def find_definition(column: pa.Field) -> IndicatorDefinition | None:
    """Return what a column of `Indicators.to_table` means; None for a column from elsewhere."""
    return _read_definition(column) if INDICATOR_METADATA in (column.metadata or {}) else None


def _read_definition(column: pa.Field) -> IndicatorDefinition:
    try:
        meaning = json.loads((column.metadata or {})[INDICATOR_METADATA])
        meaning["lineage"] = tuple(meaning["lineage"])
        definition = IndicatorDefinition(**meaning)
    except (KeyError, TypeError, ValueError) as error:
        raise SchemaError("has no definition in its metadata", field=column.name) from error
    if definition.name != column.name or column.type != pa.float32():
        raise SchemaError("must be float32 and named as it is defined", field=column.name)
    return definition


def _finite(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float32]:
    values = column.to_numpy()
    wrong = ~np.isfinite(values)
    if column.null_count or wrong.any():
        raise InputError("must be finite", field=name, row=int(np.argmax(wrong)))
    return np.asarray(values, dtype=np.float32)
