"""Rules: SQL conditions over attributes, compiled once and evaluated with three-valued logic.

::

    text ── cut ──> lexemes ── sqlglot ──> nodes ── replay ──> typed tree ── evaluate ──> bool (n,)
             │ known words, names of            │ listed classes only,
             │ attributes, literals,            │ in the order and grouping
             │ operators                        │ that the lexemes spell
    └────── text.py ────┘└───────────── syntax.py ────────────┘└───────── tree.py ─────────┘

No text ever reaches an interpreter: sqlglot decides the structure, seeing placeholders for names
and literals, and whatever it answers is checked against the text again.

Language
--------
``= <> != < <= > >=``, ``and or not``, ``in (…)``, ``between … and …``, ``is [not] null``,
``is [not] true``, ``is [not] false``, ``+ - * /``, parentheses; numbers, ``'text'``, ``true``,
``false``, ``null``, ``DATE '2026-01-31'``; attributes, bare or in double quotes, spelled exactly;
``as_of``, the date of the match; ``year(d)``, ``month(d)``, ``day(d)`` and ``days_between(a, b)``,
the days from `a` to `b`: negative where `b` is earlier. Keywords and functions ignore case.

What a comparison, ``in``, ``between`` or ``is`` reads must be an operand or stand in parentheses:
``a < b < c`` and ``a = b is null``, which databases read differently, are errors. A text holds at
most 4096 characters and nests at most 32 levels deep.

Values
------
- A null is unknown, and so are NaN and a date outside the years 1 to 9999. Unknown spreads by SQL's
  three-valued logic; a rule that ends unknown does not hold.
- Integers compare exactly. An integer that meets a fraction does so in float64, and arithmetic,
  ``/`` included, is in float64; where a result is not finite (division by zero, overflow) it is
  unknown. A float32 attribute is read as the float64 of the same value.
- Strings compare by their UTF-8 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.domain import parse_date
from visavis.errors import InputError, SchemaError
from visavis.rules.syntax import read_terms
from visavis.rules.text import AS_OF
from visavis.rules.tree import Kind, Term, canonical, evaluate, kind_of

__all__ = ["AS_OF", "Outcome", "Rule", "check_attribute_schema", "compile_rule"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one top-level term of a rule says about one customer.

    Parameters
    ----------
    text : str
        The term, as the rule spells it.
    holds : bool or None
        Whether the term holds; None where that is unknown.
    values : mapping
        What the term read, by the name of the attribute, as the rule sees it: None for a null, a
        NaN, or a date outside the calendar. ``as_of`` is among them where the term reads it.
    """

    text: str
    holds: bool | None
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule: made by :func:`compile_rule`, immutable, hashable, picklable.

    Parameters
    ----------
    text : str
        The rule as it was written.
    columns : frozenset of str
        The attributes that the rule reads.
    reads_as_of : bool
        Whether the outcome also depends on the date of the match.
    """

    text: str
    columns: frozenset[str]
    reads_as_of: bool
    _terms: tuple[Term, ...] = field(repr=False)
    _kinds: tuple[tuple[str, Kind], ...] = field(repr=False)

    def evaluate(self, attributes: pa.Table | pa.RecordBatch, as_of: date) -> npt.NDArray[np.bool_]:
        """Say for whom the rule holds; unknown does not.

        Parameters
        ----------
        attributes : pyarrow.Table or pyarrow.RecordBatch of n rows
            Holds :attr:`columns`, of the kinds that the rule was compiled for: an int32 may have
            become an int64 since, not a string.
        as_of : datetime.date
            The date of the match.

        Returns
        -------
        ndarray of bool, shape (n,)

        Raises
        ------
        SchemaError
            If an attribute is missing, is there twice or has another kind of type.
        InputError
            If `as_of` is no date.
        """
        outcome = pc.fill_null(self.evaluate_three_valued(attributes, as_of), False)
        holds: npt.NDArray[np.bool_] = outcome.to_numpy(zero_copy_only=False)
        return holds

    def evaluate_three_valued(
        self, attributes: pa.Table | pa.RecordBatch, as_of: date
    ) -> pa.BooleanArray:
        """As :meth:`evaluate`, with null where the outcome is unknown.

        Returns
        -------
        pyarrow.BooleanArray of n
        """
        columns, today = self._read(attributes, as_of)
        outcome = reduce(
            pc.and_kleene, (evaluate(term.node, columns, today) for term in self._terms)
        )
        if isinstance(outcome, pa.Scalar):
            return pa.repeat(outcome, attributes.num_rows)
        return outcome

    def outcomes(self, attributes: pa.Table | pa.RecordBatch, as_of: date) -> list[Outcome]:
        """Say what each top-level term says about one customer.

        Parameters
        ----------
        attributes : pyarrow.Table or pyarrow.RecordBatch of 1 row
        as_of : datetime.date

        Returns
        -------
        list of Outcome
            In the order of the rule, which holds exactly where each of them holds.

        Raises
        ------
        SchemaError, InputError
            As :meth:`evaluate`, and if there is not exactly one row.
        """
        if attributes.num_rows != 1:
            raise InputError(f"must hold one row, got {attributes.num_rows}", field="attributes")
        columns, today = self._read(attributes, as_of)
        outcomes = []
        for term in self._terms:
            outcome = evaluate(term.node, columns, today)
            holds = outcome if isinstance(outcome, pa.Scalar) else outcome[0]
            read = {name: _plain(columns[name][0]) for name in term.columns}
            if term.reads_as_of:
                read[AS_OF] = today.as_py()
            outcomes.append(Outcome(term.text, holds.as_py(), read))
        return outcomes

    def _read(
        self, attributes: pa.Table | pa.RecordBatch, as_of: date
    ) -> tuple[dict[str, pa.Array], pa.Scalar]:
        schema = attributes.schema
        columns = {}
        for name, kind in self._kinds:
            index = schema.get_field_index(name)
            if index < 0:
                wrong = "is there twice" if name in schema.names else "is missing"
                raise SchemaError(f"{wrong}, and the rule {self.text!r} reads it", field=name)
            column = attributes.column(index)
            if kind_of(column.type) is not kind:
                raise SchemaError(
                    f"has type {column.type}, and the rule {self.text!r} reads {kind.value}",
                    field=name,
                )
            columns[name] = canonical(column, kind)
        return columns, pa.scalar(parse_date(as_of, field=AS_OF), pa.date32())


def compile_rule(text: str, schema: pa.Schema, *, capability: str | None = None) -> Rule:
    """Parse and type-check the text of a rule.

    Parameters
    ----------
    text : str
        The rule; the docstring of this module gives the language.
    schema : pyarrow.Schema
        The attributes and their types.
    capability : str, optional
        The capability that carries the rule, named in errors.

    Returns
    -------
    Rule

    Raises
    ------
    RuleError
        Whatever is wrong with the text: with the 0-based position and the attribute, where there
        is one.
    """
    terms, kinds = read_terms(text, schema, capability)
    return Rule(
        text=text,
        columns=frozenset(kinds),
        reads_as_of=any(term.reads_as_of for term in terms),
        _terms=terms,
        _kinds=tuple(sorted(kinds.items())),
    )


def check_attribute_schema(schema: pa.Schema) -> None:
    """Refuse attributes that no rule could read.

    Parameters
    ----------
    schema : pyarrow.Schema

    Raises
    ------
    SchemaError
        For the first attribute whose type is none of bool, int, uint, float32, float64, string,
        large_string, dictionary of strings and date32, whose name comes twice, or which is called
        ``as_of``.
    """
    seen = set()
    for attribute in schema:
        if attribute.name == AS_OF:
            raise SchemaError("is the date of the match in rules: rename it", field=AS_OF)
        if attribute.name in seen:
            raise SchemaError("is there twice", field=attribute.name)
        seen.add(attribute.name)
        if kind_of(attribute.type) is None:
            raise SchemaError(
                f"has type {attribute.type}; rules read bool, integers, float32, float64, string "
                "and date32",
                field=attribute.name,
            )


def _plain(scalar: pa.Scalar) -> Any:
    value = scalar.as_py()
    return int(value) if isinstance(value, Decimal) else value
