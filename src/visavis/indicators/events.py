"""Events as exact integers per customer, day and value, block by block.

::

    events ──► view `source` ──► table `customers`: sorted by id, with their count of events
                     │                 │
    taxonomy ──► tables `taxonomy`, `level_<i>`: values as codes
                     │                 │
                     └──► table `events`, sorted by customer ──► CustomerDays of a block

DuckDB does this in a database file of its own, under the memory limit, spilling beside it. It
returns integers only (DESIGN §3, *Own data*): its float sums differ from run to run. Amounts
become integer minor units row by row, before any sum; a bad cell is refused, never skipped.
"""

# ruff: noqa: S608
# (SQL is put together from constants, indices and `quoted` names; values are bound or variables)

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from visavis.errors import InputError, LimitError
from visavis.indicators.blocks import integers, no_days, read_days
from visavis.indicators.days import CustomerDays, Int64, Level, Parameters
from visavis.indicators.levels import LevelTables
from visavis.indicators.parts import Part, part_sql
from visavis.indicators.sources import (
    MINOR_MAX,
    Relation,
    Source,
    amount_sql,
    day_sql,
    first_line,
    id_sql,
    minor_sql,
    open_sources,
    refuse_first,
)
from visavis.indicators.spec import EventColumns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["MEMORY_LIMIT", "EventLedger", "Resources", "open_ledger"]

#: Events per block. 10 M events of 100 k customers into 128 indicators (bench/indicators.toml) on
#: two cores, seconds of all blocks and peak of anonymous memory meanwhile: 0.125 M 11.1 s, 274 MB;
#: 0.25 M 10.2 s, 304 MB; 0.5 M 10.4 s, 353 MB; 1 M 11.0 s, 466 MB; 4 M 13.3 s, 1020 MB.
BLOCK_EVENTS: Final = 500_000

#: What DuckDB may hold while blocks are read, if its limit is not lower. Events are read once and
#: would only fill the cache: 30 M of them took 40 s and 285 MB with 64 MB here, 38 s and 353 MB
#: with 128 MB, 38 s and 486 MB with 256 MB, 34 s and 535 MB with all of 500 MB.
BLOCK_MEMORY_BYTES: Final = 128 << 20

#: What DuckDB may hold while it sorts, beyond which it spills. 100 M events took 123 s at 500 MB
#: and 116 s at 1 GB, 10 M events 21.5 s and 20.4 s.
MEMORY_LIMIT: Final = "500MB"

_UNITS: Final = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class Resources:
    """What DuckDB may use: memory (``"500MB"``), threads (None = all), a folder to spill into."""

    memory_limit: str = MEMORY_LIMIT
    threads: int | None = None
    temp_directory: Path | None = None


@contextmanager
def open_ledger(
    columns: EventColumns,
    taxonomy_key: str | None,
    parameters: Sequence[Parameters],
    resources: Resources,
    part: Part | None = None,
) -> Iterator[EventLedger]:
    """Yield an `EventLedger` in a temporary database, which is removed at the end.

    With a `part`, the ledger holds the customers of that part only.

    Raises
    ------
    InputError
        If `resources` are not what DuckDB takes; in the body, if the events cannot be read.
    LimitError
        In the body, if the memory limit is too small for the work even with spilling.
    """
    # Imported late: `import visavis` stays light.
    import duckdb

    if resources.threads is not None and resources.threads < 1:
        raise InputError(f"must be at least 1, got {resources.threads}", field="threads")
    if resources.temp_directory is not None and not resources.temp_directory.is_dir():
        reason = f"no such folder: {resources.temp_directory}"
        raise InputError(reason, field="temp_directory")
    with tempfile.TemporaryDirectory(prefix="visavis-", dir=resources.temp_directory) as folder:
        settings: dict[str, Any] = {
            "memory_limit": resources.memory_limit,
            "temp_directory": folder,
            "preserve_insertion_order": False,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if resources.threads is not None:
            settings["threads"] = resources.threads
        try:
            connection = duckdb.connect(str(Path(folder, "events.duckdb")), config=settings)
        except duckdb.Error as error:
            raise InputError(first_line(error), field="memory_limit") from error
        try:
            # Text without an offset means UTC, wherever this runs.
            connection.execute("SET TimeZone = 'UTC'")
            ledger = EventLedger(connection, columns, taxonomy_key, parameters, part)
            yield ledger
        except duckdb.OutOfMemoryException as error:
            reason = f"{resources.memory_limit} does not suffice: {first_line(error)}"
            raise LimitError(reason, field="memory_limit") from error
        except duckdb.Error as error:
            raise InputError(
                f"cannot be read: {first_line(error)}",
                field="events",
                subject=ledger.file_named_in(str(error)),
            ) from error
        finally:
            connection.close()


class EventLedger:
    """The events of all customers on one DuckDB connection; made by `open_ledger`.

    Call `describe`, then `ingest`, then `days` for any range of customers.

    Attributes
    ----------
    levels : dict of str to Level
        The levels that the indicators read, sorted by name, after `describe`; the codes of
        columns of the events after `ingest`.
    event_count : ndarray of shape (n_customers,), int64
        Events kept per customer, after `ingest`.
    """

    levels: dict[str, Level]
    event_count: Int64

    def __init__(
        self,
        connection: DuckDBPyConnection,
        columns: EventColumns,
        taxonomy_key: str | None,
        parameters: Sequence[Parameters],
        part: Part | None = None,
    ) -> None:
        read = frozenset[str]().union(*(each.reads() for each in parameters))
        self._connection = connection
        self._columns = columns
        self._key = taxonomy_key
        self._tables = LevelTables(connection, parameters, columns.exclude)
        self._part = part
        self._reads_amount = "amount" in read or columns.amount_min_exclusive is not None
        self._reads_basket = "basket" in read
        self._sources: list[Source] = []
        self.levels = {}

    def describe(self, events: Relation, taxonomy: Relation | None) -> None:
        """Check the columns of `events`, read `taxonomy` whole, and resolve the levels.

        Raises
        ------
        SchemaError
            If a column is missing or of a type that cannot mean what the spec says.
        InputError
            If a file cannot be opened, or if a key of the taxonomy is null or not unique.
        """
        if taxonomy is None and self._key is not None:
            raise InputError("the spec has a [taxonomy], but no table was given", field="taxonomy")
        if taxonomy is not None and self._key is None:
            raise InputError("a table was given, but the spec has no [taxonomy]", field="taxonomy")
        self._sources = open_sources(self._connection, events, "events")
        if taxonomy is not None and self._key is not None:
            sources = open_sources(self._connection, taxonomy, "taxonomy")
            self._tables.read_taxonomy(sources, self._key, self._sources)
        self.levels = self._tables.resolve(self._sources)

    def ingest(self, as_of_day: int) -> pa.StringArray:
        """Read all events once to check and count them, once more to sort them by customer.

        Parameters
        ----------
        as_of_day : int
            Days from 1970-01-01; events of later days are checked, then ignored.

        Returns
        -------
        pyarrow.StringArray of shape (n_customers,)
            Ids of the customers with at least one event kept, sorted by their UTF-8 bytes; of a
            part, perhaps none.

        Raises
        ------
        InputError
            If a cell is null, not finite or out of range (column, row, file). Of a part, if such
            a cell is in a row of its customers, and then the first of all rows is named: whichever
            part finds one, the error is that of the whole. If no event of any customer is left.
        """
        self._as_of_day = as_of_day
        checked = self._create_source()
        self._count_customers(checked)
        self.levels = self._tables.read_event_levels(self.levels)
        # Sorted, so that a block is read without passing over the others.
        codes = "".join(f", code_{i}" for i in range(len(self.levels)))
        joins = "".join(
            f" LEFT JOIN level_{i} ON source.value_{i} = level_{i}.value"
            for i in self._tables.of_events()
        )
        self._run(
            f"CREATE TABLE events AS SELECT customer_index, day, minor, basket{codes}"
            f" FROM {self._joined()} JOIN customers USING (customer){joins}"
            f" WHERE {self._kept()} ORDER BY customer_index"
        )
        ids = self._connection.sql("SELECT customer_id FROM customers ORDER BY customer_index")
        counts = self._run("SELECT event_count FROM customers ORDER BY customer_index")
        self.event_count = integers(counts)["event_count"]
        self._bound_cache()
        column = ids.to_arrow_table()["customer_id"].cast(pa.string())
        return pa.concat_arrays([pa.array([], pa.string()), *column.chunks])

    def blocks(self, block_customers: int) -> Iterator[tuple[int, int]]:
        """Cut the customers into ranges [start, stop) of bounded customers and events."""
        end = np.cumsum(self.event_count)
        start = 0
        while start < len(end):
            before = int(end[start - 1]) if start else 0
            fits = int(np.searchsorted(end, before + BLOCK_EVENTS, side="right"))
            stop = max(start + 1, min(fits, start + block_customers))
            yield start, stop
            start = stop

    def days(self, start: int, stop: int) -> CustomerDays:
        """Return the exact integers of customers [start, stop)."""
        return read_days(
            self._connection,
            (start, stop),
            as_of_day=self._as_of_day,
            minor_units=self._columns.minor_units,
            levels=self.levels,
        )

    def no_days(self) -> CustomerDays:
        """Return the days of no customer: what definitions are made from."""
        return no_days(self._columns.minor_units, self.levels)

    def lineage(self, parameters: Parameters) -> tuple[str, ...]:
        """Name the columns that decide an indicator: ``events.<column>``, ``taxonomy.<column>``."""
        columns = self._columns
        names = [f"events.{columns.customer}", f"events.{columns.time}"]
        if "amount" in parameters.reads() or columns.amount_min_exclusive is not None:
            names.append(f"events.{columns.amount}")
        if "basket" in parameters.reads():
            names.append(f"events.{columns.basket}")
        level = parameters.level_read()
        for column in (*columns.exclude, *([] if level is None else [level])):
            if self._tables.in_taxonomy(column):
                names += [f"events.{self._key}", f"taxonomy.{self._key}", f"taxonomy.{column}"]
            else:
                names.append(f"events.{column}")
        return tuple(dict.fromkeys(names))

    def file_named_in(self, message: str) -> str | None:
        """Find which file an error of DuckDB is about."""
        paths = [str(path) for source in self._sources for path in source.paths]
        named = [path for path in paths if path in message]
        return f"file {max(named, key=len)}" if named else None

    def _run(self, sql: str, parameters: list[Any] | None = None) -> DuckDBPyConnection:
        return self._connection.execute(sql, parameters)

    def _bound_cache(self) -> None:
        """Let go of what sorting needed: blocks are read once, and what stays only takes room."""
        number, unit = self._run("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
        if float(number) * _UNITS[unit] > BLOCK_MEMORY_BYTES:
            self._run(f"SET memory_limit = '{BLOCK_MEMORY_BYTES} bytes'")

    def _create_source(self) -> dict[str, dict[str, str]]:
        """Make the view `source`; return, by checked column, its SQL by `Source.variable`."""
        columns = self._columns
        selects = []
        checked: dict[str, dict[str, str]] = {}
        self._run("SET VARIABLE amount_min = ?", [columns.amount_min_exclusive])
        for source in self._sources:
            cells = {
                "customer": id_sql(columns.customer, self._sources),
                "day": day_sql(columns.time, source),
                "minor": "CAST(0 AS BIGINT)",
                "basket": "CAST(NULL AS BIGINT)",
                "key": "CAST(NULL AS BIGINT)",
                "kept": self._tables.unlisted_sql(in_taxonomy=False),
            }
            if self._reads_amount and columns.amount is not None:
                cells["minor"] = minor_sql(columns.amount, source, columns.minor_units)
                if columns.amount_min_exclusive is not None:
                    amount = amount_sql(columns.amount, source)
                    cells["kept"] += f" AND {amount} > getvariable('amount_min')"
            if self._reads_basket and columns.basket is not None:
                cells["basket"] = id_sql(columns.basket, self._sources)
            if self._key is not None:
                cells["key"] = id_sql(
                    self._key, self._sources, [self._tables.taxonomy_types[self._key]]
                )
            cells |= self._tables.value_sql()
            listed = ", ".join(f"{sql} AS {name}" for name, sql in cells.items())
            selects.append(f"SELECT {listed} FROM {source.relation()}")
            for name, sql in cells.items():
                checked.setdefault(name, {})[source.variable] = sql
        self._run(f"CREATE TEMP VIEW source AS {' UNION ALL '.join(selects)}")
        return checked

    def _joined(self) -> str:
        return "source" if self._key is None else "source LEFT JOIN taxonomy USING (key)"

    def _kept(self) -> str:
        """Return SQL of the events that count; a key that the taxonomy lacks leaves a row in."""
        kept = f"source.kept AND day <= {self._as_of_day}"
        return kept if self._key is None else f"{kept} AND coalesce(taxonomy.kept, true)"

    def _count_customers(self, checked: Mapping[str, Mapping[str, str]]) -> None:
        """Make `customers`: customer, customer_id, customer_index, event_count."""
        columns = self._columns
        checks = [
            ("customer", columns.customer, "must not be empty"),
            ("day", columns.time, "must be a date or time in the years 1 to 9999"),
            ("minor", columns.amount, f"must be finite, at most {MINOR_MAX} minor units"),
            ("basket", columns.basket if self._reads_basket else None, "must not be empty"),
        ]
        own = "" if self._part is None else self._own_customers(self._part)
        lacking = self._count_lacking(own)
        if own and any(lacking[name] for name, column, _ in checks if column is not None):
            lacking = self._count_lacking("")
        for name, column, must in checks:
            if column is not None and lacking[name]:
                refuse_first(self._connection, self._sources, column, checked[name], must)
        self._run(
            "CREATE TABLE customers AS SELECT customer, CAST(customer AS VARCHAR) AS customer_id,"
            " CAST(row_number() OVER (ORDER BY CAST(customer AS VARCHAR)) - 1 AS INTEGER)"
            " AS customer_index, event_count FROM counted WHERE event_count > 0"
        )
        if self._part is None and not self._run("SELECT 1 FROM customers LIMIT 1").fetchall():
            raise InputError("hold none that is kept on or before as_of", field="events")

    def _own_customers(self, part: Part) -> str:
        """Make `own`, the customers of `part` and the null; return SQL that keeps their rows."""
        # A table in between: DuckDB would move the hash below DISTINCT, where it is taken of each
        # row (4.5 s against 0.6 s for 10 M events of 100 k customers).
        self._run("CREATE TABLE everybody AS SELECT DISTINCT customer FROM source")
        self._run(
            "CREATE TABLE own AS SELECT customer FROM everybody"
            f" WHERE customer IS NULL OR {part_sql('customer', part)}"
        )
        self._run("DROP TABLE everybody")
        return " SEMI JOIN own ON source.customer IS NOT DISTINCT FROM own.customer"

    def _count_lacking(self, own: str) -> dict[str, int]:
        """Make `counted`, by customer; return in how many rows each cell is bad."""
        self._run(
            "CREATE OR REPLACE TABLE counted AS SELECT source.customer, count(*) AS rows,"
            " count(day) AS day, count(minor) AS minor, count(basket) AS basket,"
            f" count(*) FILTER (WHERE {self._kept()}) AS event_count"
            f" FROM {self._joined()}{own} GROUP BY source.customer"
        )
        lacking = self._run(
            "SELECT sum(rows) FILTER (WHERE customer IS NULL) AS customer, sum(rows - day) AS day,"
            " sum(rows - minor) AS minor, sum(rows - basket) AS basket FROM counted"
        )
        names = [column[0] for column in lacking.description]
        return {
            name: int(count or 0) for name, count in zip(names, lacking.fetchall()[0], strict=True)
        }
