"""Levels: the taxonomy and the columns by which events are divided, their values as codes.

::

    taxonomy ──► table `taxonomy`: key, whether its rows are kept, a code per level
                 tables `level_<i>`: the values of level i and their codes

A level is a column of the taxonomy or, where the taxonomy lacks it, of the events themselves.
"""

# ruff: noqa: S608
# (SQL is put together from constants, indices and `quoted` names; values are bound or variables)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from visavis.errors import InputError, SchemaError
from visavis.indicators.days import Level, Parameters
from visavis.indicators.sources import Source, id_sql, quoted, refuse_first

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["LevelTables"]


class LevelTables:
    """The tables of levels on one DuckDB connection.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    parameters : sequence of Parameters
        The indicators, which say what levels are read.
    exclude : mapping of str to tuple of str
        Rows whose column has a listed value are left out.

    Attributes
    ----------
    taxonomy_types : mapping of str to str
        DuckDB type by column of the taxonomy; empty without one.
    """

    taxonomy_types: Mapping[str, str]

    def __init__(
        self,
        connection: DuckDBPyConnection,
        parameters: Sequence[Parameters],
        exclude: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._connection = connection
        self._parameters = parameters
        self._exclude = exclude
        self._names = sorted({name for each in parameters if (name := each.level_read())})
        self.taxonomy_types = {}
        for i, listed in enumerate(exclude.values()):
            connection.execute(f"SET VARIABLE exclude_{i} = ?", [list(listed)])

    def in_taxonomy(self, column: str) -> bool:
        """Whether the taxonomy has `column`; else the events must."""
        return column in self.taxonomy_types

    def of_events(self) -> list[int]:
        """Return the positions of the levels that are columns of the events."""
        return [i for i, name in enumerate(self._names) if not self.in_taxonomy(name)]

    def value_sql(self) -> dict[str, str]:
        """Return SQL of the value of each level that is a column of the events."""
        return {
            f"value_{i}": f"CAST({quoted(self._names[i])} AS VARCHAR)" for i in self.of_events()
        }

    def unlisted_sql(self, *, in_taxonomy: bool) -> str:
        """Return SQL that is true unless a column to exclude by has a listed value."""
        tests = [
            f"NOT coalesce(list_contains(getvariable('exclude_{i}'),"
            f" CAST({quoted(name)} AS VARCHAR)), false)"
            for i, name in enumerate(self._exclude)
            if self.in_taxonomy(name) is in_taxonomy
        ]
        return " AND ".join(["true", *tests])

    def read_taxonomy(self, sources: list[Source], key: str, events: Sequence[Source]) -> None:
        """Make `taxonomy` (key, kept, a code per level) and its `level_<i>` (value, code).

        Raises
        ------
        SchemaError
            If its files differ in columns, or a key is neither integer nor text.
        InputError
            If a key is null or not unique.
        """
        if len(sources) > 1:
            raise SchemaError("its files must have the same columns", field="taxonomy")
        (source,) = sources
        self.taxonomy_types = source.types
        levels = [i for i, name in enumerate(self._names) if name in source.types]
        key_sql = id_sql(key, [*sources, *events])
        values = "".join(
            f", CAST({quoted(self._names[i])} AS VARCHAR) AS value_{i}" for i in levels
        )
        run = self._connection.execute
        run(
            f"CREATE TABLE taxonomy_rows AS SELECT {key_sql} AS key,"
            f" {self.unlisted_sql(in_taxonomy=True)} AS kept{values} FROM {source.relation()}"
        )
        null_count = run("SELECT count(*) - count(key) FROM taxonomy_rows").fetchall()[0][0]
        if null_count:
            checked = {source.variable: key_sql}
            refuse_first(self._connection, sources, key, checked, "must not be empty")
        repeated = run(
            "SELECT key FROM taxonomy_rows GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1"
        ).fetchone()
        if repeated is not None:
            reason = f"must be unique, but {repeated[0]!r} is repeated"
            raise InputError(reason, field=key, subject="taxonomy")
        for i in levels:
            # Values of excluded rows alone cannot occur, so they are no values of the level.
            self._create_level(i, "taxonomy_rows WHERE kept")
        joins = "".join(f" LEFT JOIN level_{i} ON value_{i} = level_{i}.value" for i in levels)
        codes = "".join(f", code_{i}" for i in levels)
        run(f"CREATE TABLE taxonomy AS SELECT key, kept{codes} FROM taxonomy_rows{joins}")

    def resolve(self, events: Sequence[Source]) -> dict[str, Level]:
        """Return the levels that the indicators read, sorted by name.

        Raises
        ------
        SchemaError
            If neither the taxonomy nor the events have a column that is named.
        """
        for name in (*self._names, *self._exclude):
            if not self.in_taxonomy(name):
                for source in events:
                    source.type_of(name)
        levels = {}
        for i, name in enumerate(self._names):
            values = tuple(self._codes(i)) if self.in_taxonomy(name) else ()
            codes = {value: code for code, value in enumerate(values)}
            levels[name] = Level(name, self.in_taxonomy(name), values, codes)
        return levels

    def read_event_levels(self, levels: Mapping[str, Level]) -> dict[str, Level]:
        """Make `level_<i>` for columns of the view `source`; give listed values their codes."""
        filled = dict(levels)
        for i in self.of_events():
            name = self._names[i]
            self._create_level(i, "source")
            listed = {
                label
                for each in self._parameters
                if each.level_read() == name
                for label in each.labels_read()
            }
            filled[name] = replace(filled[name], codes=self._codes(i, sorted(listed)))
        return filled

    def _create_level(self, index: int, rows: str) -> None:
        """Give each distinct value of a level its rank, by UTF-8 bytes, as its code."""
        self._connection.execute(
            f"CREATE TABLE level_{index} AS SELECT value,"
            f" CAST(row_number() OVER (ORDER BY value) - 1 AS INTEGER) AS code_{index}"
            f" FROM (SELECT DISTINCT value_{index} AS value FROM {rows})"
            " WHERE value IS NOT NULL"
        )

    def _codes(self, index: int, values: Sequence[str] | None = None) -> dict[str, int]:
        """Return the codes of `values` (default: of all), ascending."""
        where = "" if values is None else " WHERE list_contains(?, value)"
        rows = self._connection.execute(
            f"SELECT value, code_{index} FROM level_{index}{where} ORDER BY code_{index}",
            None if values is None else [list(values)],
        )
        return dict(rows.fetchall())
