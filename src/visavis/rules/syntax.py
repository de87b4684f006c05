"""From the lexemes of a rule to its typed tree; ``rules`` is the public face.

sqlglot parses the lexemes, seeing placeholders for names and literals, and what it answers is
replayed against them: each node must be of a listed class, hold nothing but the listed arguments,
bind as tightly as its place asks, and spell the next lexemes. One tree per text passes, so that a
node which the parser invents, drops or regroups is an error instead of a different rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Final, NoReturn

import pyarrow as pa
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError
from sqlglot.parser import Parser

from visavis.rules.text import AS_OF, Lexeme, RuleText
from visavis.rules.tree import (
    FUNCTIONS,
    Arithmetic,
    AsOf,
    Attribute,
    In,
    Kind,
    Literal,
    Node,
    Operation,
    Term,
)

__all__ = ["read_terms"]

_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_TOKEN_TYPES: Final = {
    "and": TokenType.AND,
    "between": TokenType.BETWEEN,
    "false": TokenType.FALSE,
    "in": TokenType.IN,
    "is": TokenType.IS,
    "not": TokenType.NOT,
    "null": TokenType.NULL,
    "or": TokenType.OR,
    "true": TokenType.TRUE,
    "(": TokenType.L_PAREN,
    ")": TokenType.R_PAREN,
    ",": TokenType.COMMA,
    "+": TokenType.PLUS,
    "-": TokenType.DASH,
    "*": TokenType.STAR,
    "/": TokenType.SLASH,
    "=": TokenType.EQ,
    "<>": TokenType.NEQ,
    "<": TokenType.LT,
    "<=": TokenType.LTE,
    ">": TokenType.GT,
    ">=": TokenType.GTE,
}
#: What people wrote, as sqlglot gets to see it; a name also bears its index, to be told apart.
_PLACEHOLDERS: Final = {
    "name": (TokenType.VAR, "n"),
    "function": (TokenType.VAR, "f"),
    "number": (TokenType.NUMBER, "1"),
    "string": (TokenType.STRING, ""),
    "date": (TokenType.STRING, ""),
}
_COMPARISONS: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_SUMS: Final[dict[type[exp.Expr], str]] = {exp.Add: "+", exp.Sub: "-"}
_PRODUCTS: Final[dict[type[exp.Expr], str]] = {exp.Mul: "*", exp.Div: "/"}

# How tightly a node binds, loosest first.
_OR, _AND, _NOT, _PREDICATE, _SUM, _PRODUCT, _SIGN, _PRIMARY = range(8)

_TWO: Final = frozenset({"this", "expression"})
_ONE: Final = frozenset({"this"})
#: The allow-list: each class with its binding and the arguments that it may hold.
_LISTED: Final[dict[type[exp.Expr], tuple[int, frozenset[str]]]] = {
    exp.Or: (_OR, _TWO),
    exp.And: (_AND, _TWO),
    exp.Not: (_NOT, _ONE),
    **dict.fromkeys(_COMPARISONS, (_PREDICATE, _TWO)),
    exp.In: (_PREDICATE, frozenset({"this", "expressions"})),
    exp.Between: (_PREDICATE, frozenset({"this", "low", "high"})),
    exp.Is: (_PREDICATE, _TWO),
    **dict.fromkeys(_SUMS, (_SUM, _TWO)),
    **dict.fromkeys(_PRODUCTS, (_PRODUCT, _TWO)),
    exp.Neg: (_SIGN, _ONE),
    exp.Paren: (_PRIMARY, _ONE),
    exp.Anonymous: (_PRIMARY, frozenset({"this", "expressions"})),
    exp.Column: (_PRIMARY, _ONE),
    exp.Literal: (_PRIMARY, frozenset({"this", "is_string"})),
    exp.Boolean: (_PRIMARY, _ONE),
    exp.Null: (_PRIMARY, frozenset()),
}


def read_terms(
    text: str, schema: pa.Schema, capability: str | None
) -> tuple[tuple[Term, ...], dict[str, Kind]]:
    """Read the text of a rule.

    Returns
    -------
    terms : tuple of Term
        The conditions that ``and`` joins at the top; at least one.
    kinds : dict of str to Kind
        The attributes that the rule reads.

    Raises
    ------
    RuleError
        Whatever is wrong with the text.
    """
    source = RuleText(text, schema, capability)
    return _Reader(source).read(), source.kinds


class _Reader:
    """One replay; `cursor` is the lexeme that comes next."""

    def __init__(self, source: RuleText) -> None:
        self.source = source
        self.lexemes = source.lexemes
        self.fail = source.fail
        self.cursor = 0

    def read(self) -> tuple[Term, ...]:
        terms = tuple(self._terms(self._structure(), _OR))
        if self.cursor < len(self.lexemes):
            self._unexpected()
        return terms

    def _unexpected(self) -> NoReturn:
        if self.cursor >= len(self.lexemes):
            self.fail("ends too early", len(self.source.text))
        lexeme = self.lexemes[self.cursor]
        self.fail(f"did not expect {self.source.spelled(lexeme, lexeme)!r}", lexeme.start)

    def _here(self) -> int:
        ended = self.cursor >= len(self.lexemes)
        return len(self.source.text) if ended else self.lexemes[self.cursor].start

    def _structure(self) -> exp.Expr:
        tokens = []
        for index, lexeme in enumerate(self.lexemes):
            if lexeme.kind in _PLACEHOLDERS:
                token_type, text = _PLACEHOLDERS[lexeme.kind]
                text += str(index) if token_type is TokenType.VAR else ""
            else:
                token_type, text = _TOKEN_TYPES[lexeme.kind], lexeme.text
            # A ParseError gives back the column: the index there says which lexeme it means.
            tokens.append(Token(token_type, text, 1, index, lexeme.start, lexeme.end - 1))
        try:
            roots = Parser().parse_into(exp.Condition, tokens, self.source.text)
        except ParseError as error:
            index = int((error.errors or [{}])[0].get("col") or 0)
            lexeme = self.lexemes[min(index, len(self.lexemes) - 1)]
            spelled = self.source.spelled(lexeme, lexeme)
            self.fail(f"does not parse near {spelled!r}", lexeme.start)
        except Exception as error:
            # A fault within the parser is an answer about this text, not the end of a load.
            self.fail(f"does not parse ({type(error).__name__})", None)
        if len(roots) != 1 or roots[0] is None:
            self._unexpected()
        return roots[0]

    # From nodes to the tree, replaying the lexemes

    def _take(self, kind: str) -> Lexeme:
        if not self._ahead(kind):
            self._unexpected()
        self.cursor += 1
        return self.lexemes[self.cursor - 1]

    def _ahead(self, kind: str) -> bool:
        return self.cursor < len(self.lexemes) and self.lexemes[self.cursor].kind == kind

    def _list(self, nodes: Iterable[Any]) -> Iterator[Any]:
        self._take("(")
        for index, node in enumerate(nodes):
            if index:
                self._take(",")
            yield node
        self._take(")")

    def _listed(self, node: Any) -> int:
        """Check one node against the allow-list and give its binding."""
        binding, arguments = _LISTED.get(type(node), (None, _ONE))
        # False, None and [] are how sqlglot writes an option that is not taken.
        if binding is None or any(
            value and name not in arguments for name, value in node.args.items()
        ):
            lexeme = self.lexemes[min(self.cursor, len(self.lexemes) - 1)]
            spelled = self.source.spelled(lexeme, lexeme)
            self.fail(f"rules have nothing like what starts with {spelled!r}", lexeme.start)
        return binding

    def _chain(self, node: Any, classes: Iterable[type[exp.Expr]]) -> tuple[Any, list[Any]]:
        """Walk down a left-leaning chain: ``a or b or c …`` is long, and must not recurse."""
        links = []
        while type(node) in classes:
            self._listed(node)
            links.append(node)
            node = node.this
        return node, links[::-1]

    def _terms(self, node: Any, binding: int) -> Iterator[Term]:
        if type(node) is exp.And:
            first, links = self._chain(node, (exp.And,))
            yield from self._terms(first, _NOT)
            for link in links:
                self._take("and")
                yield from self._terms(link.expression, _NOT)
        elif isinstance(node, exp.Paren) and isinstance(node.unnest(), exp.And):
            self._listed(node)
            self._take("(")
            yield from self._terms(node.this, _OR)
            self._take(")")
        else:
            start = self.cursor
            condition = self._condition(node, binding)
            lexemes = self.lexemes[start : self.cursor]
            names = {lexeme.text for lexeme in lexemes if lexeme.kind == "name"}
            text = self.source.spelled(lexemes[0], lexemes[-1])
            yield Term(text, condition, tuple(sorted(names - {AS_OF})), AS_OF in names)

    def _node(self, node: Any, binding: int) -> Node:
        # sqlglot adds parentheses of its own where a predicate stands inside a predicate.
        if self._listed(node) < binding or (isinstance(node, exp.Paren) and not self._ahead("(")):
            self.fail("a condition used as an operand needs parentheses", self._here())
        match node:
            case exp.Paren():
                self._take("(")
                inner = self._node(node.this, _OR)
                self._take(")")
                return inner
            case exp.And() | exp.Or():
                return self._connective(node)
            case exp.Not():
                return self._not(node)
            case exp.In() | exp.Between() | exp.Is():
                return self._predicate(node, negated=False)
            case exp.Add() | exp.Sub():
                return self._arithmetic(node, _SUMS, _PRODUCT)
            case exp.Mul() | exp.Div():
                return self._arithmetic(node, _PRODUCTS, _SIGN)
            case exp.Neg():
                return self._negative(node)
            case exp.Anonymous():
                return self._call(node)
            case exp.Column() | exp.Literal() | exp.Boolean() | exp.Null():
                return self._primary(node)
        operator = _COMPARISONS[type(node)]
        left = self._operand(node.this)
        self._take(operator)
        right = self._operand(node.expression)
        operands = self._unified([left, right], ordered=operator not in ("=", "<>"))
        return Operation(operator, tuple(operands))

    def _condition(self, node: Any, binding: int) -> Node:
        position = self._here()
        return self._as_condition(self._node(node, binding), position)

    def _as_condition(self, node: Node, position: int) -> Node:
        if node.kind not in (Kind.BOOLEAN, Kind.NULL):
            reason = f"a condition is needed here, not {node.kind.value}"
            self.fail(reason, position, _name_of(node))
        return _as_kind(node, Kind.BOOLEAN)

    def _connective(self, node: Any) -> Node:
        word, binding = ("and", _NOT) if isinstance(node, exp.And) else ("or", _AND)
        first, links = self._chain(node, (type(node),))
        terms = [self._condition(first, binding)]
        for link in links:
            self._take(word)
            terms.append(self._condition(link.expression, binding))
        return Operation(word, tuple(terms))

    def _not(self, node: Any) -> Node:
        if self._ahead("not"):
            self._take("not")
            return Operation("not", (self._condition(node.this, _NOT),))
        if not isinstance(node.this, exp.In | exp.Between | exp.Is):
            self._unexpected()
        self._listed(node.this)
        return Operation("not", (self._predicate(node.this, negated=True),))

    def _predicate(self, node: Any, *, negated: bool) -> Node:
        """Read ``x [not] in``, ``x [not] between`` or ``x is [not]``; the caller adds the not."""
        operand = self._operand(node.this)
        if isinstance(node, exp.Is):
            return self._is(node, *operand, negated=negated)
        if negated:
            self._take("not")
        if isinstance(node, exp.In):
            return self._in(node, operand)
        self._take("between")
        low = self._operand(node.args.get("low"))
        self._take("and")
        high = self._operand(node.args.get("high"))
        return Operation("between", tuple(self._unified([operand, low, high], ordered=True)))

    def _is(self, node: Any, operand: Node, position: int, *, negated: bool) -> Node:
        self._take("is")
        if negated:
            self._take("not")
        expected, at = self._operand(node.expression, _PRIMARY)
        if not isinstance(node.expression, exp.Null | exp.Boolean):
            self.fail("is takes null, true or false", at)
        if expected.kind is Kind.NULL:
            return Operation("is null", (_as_kind(operand, operand.kind),))
        word = "is true" if expected == Literal(True, Kind.BOOLEAN) else "is false"
        return Operation(word, (self._as_condition(operand, position),))

    def _in(self, node: Any, operand: tuple[Node, int]) -> Node:
        opening = self._take("in")
        listed = [self._operand(value) for value in self._list(node.expressions)]
        if not listed:
            self.fail("in needs at least one value", opening.start)
        for value, position in listed:
            if not isinstance(value, Literal):
                self.fail("in takes literals only", position, _name_of(value))
        first, *literals = self._unified([operand, *listed])
        values = [literal.value for literal in literals if isinstance(literal, Literal)]
        known = tuple(value for value in values if value is not None)
        return In(first, known, has_null=len(known) < len(values))

    def _operand(self, node: Any, binding: int = _SUM) -> tuple[Node, int]:
        position = self._here()
        return self._node(node, binding), position

    def _unified(
        self, operands: Sequence[tuple[Node, int]], *, ordered: bool = False
    ) -> list[Node]:
        """Bring operands to the one kind in which they compare."""
        column = next((name for node, _ in operands if (name := _name_of(node))), None)
        kind = Kind.NULL
        for node, position in operands:
            common = _common_kind(kind, node.kind)
            if common is None:
                hint = "; write DATE '2026-01-31'" if Kind.DATE in (kind, node.kind) else ""
                reason = f"cannot compare {kind.value} with {node.kind.value}{hint}"
                self.fail(reason, position, column)
            if ordered and common is Kind.BOOLEAN:
                self.fail("booleans have no order, only = and <>", position, column)
            kind = common
        return [_as_kind(node, kind) for node, _ in operands]

    def _arithmetic(self, node: Any, signs: dict[type[exp.Expr], str], binding: int) -> Node:
        leftmost, links = self._chain(node, signs)
        first = self._number(leftmost, binding)
        rest = []
        for link in links:
            sign = signs[type(link)]
            self._take(sign)
            rest.append((sign, self._number(link.expression, binding)))
        return Arithmetic(first, tuple(rest))

    def _negative(self, node: Any) -> Node:
        self._take("-")
        if isinstance(node.this, exp.Literal) and self._ahead("number"):
            # One literal: the smallest int64 has no positive counterpart to negate.
            self._listed(node.this)
            return self._numeric(-1)
        return Operation("negative", (self._number(node.this, _SIGN),), Kind.FLOAT)

    def _number(self, node: Any, binding: int) -> Node:
        operand, position = self._operand(node, binding)
        if _common_kind(operand.kind, Kind.FLOAT) is None:
            hint = "; write days_between(a, b)" if operand.kind is Kind.DATE else ""
            reason = f"arithmetic needs numbers, not {operand.kind.value}{hint}"
            self.fail(reason, position, _name_of(operand))
        return _as_kind(operand, Kind.FLOAT)

    def _call(self, node: Any) -> Node:
        function = self._take("function")
        dates = []
        for child in self._list(node.expressions):
            argument, position = self._operand(child)
            if argument.kind not in (Kind.DATE, Kind.NULL):
                reason = f"{function.text} takes dates, not {argument.kind.value}"
                self.fail(reason, position, _name_of(argument))
            dates.append(_as_kind(argument, Kind.DATE))
        if len(dates) != FUNCTIONS[function.text]:
            reason = f"{function.text} takes {FUNCTIONS[function.text]} date(s), got {len(dates)}"
            self.fail(reason, function.start)
        return Operation(function.text, tuple(dates), Kind.INTEGER)

    def _primary(self, node: Any) -> Node:
        match node:
            case exp.Null():
                self._take("null")
                return Literal(None, Kind.NULL)
            case exp.Boolean():
                return Literal(self._take(str(node.this).lower()).kind == "true", Kind.BOOLEAN)
            case exp.Column():
                name = self._take("name").text
                return AsOf() if name == AS_OF else Attribute(name, self.source.kinds[name])
        if not node.is_string:
            return self._numeric(1)
        if self._ahead("date"):
            return self._date()
        return Literal(self._take("string").text, Kind.STRING)

    def _date(self) -> Literal:
        lexeme = self._take("date")
        try:
            if not _ISO_DATE.fullmatch(lexeme.text):
                raise ValueError
            return Literal(date.fromisoformat(lexeme.text), Kind.DATE)
        except ValueError:
            self.fail(f"{lexeme.text!r} is no date such as 2026-01-31", lexeme.start)

    def _numeric(self, sign: int) -> Literal:
        lexeme = self._take("number")
        if lexeme.text.isdigit():
            digits = lexeme.text.lstrip("0") or "0"
            # Python refuses long digit strings (at 640 where so configured); no int64 has 20.
            value = sign * int(digits) if len(digits) < 20 else 2**64
            if not -(2**63) <= value < 2**63:
                self.fail("the integer does not fit into 64 bits", lexeme.start)
            return Literal(value, Kind.INTEGER)
        fraction = sign * float(lexeme.text) + 0.0  # −0.0 becomes 0.0
        if not math.isfinite(fraction):
            self.fail("the number does not fit into a float64", lexeme.start)
        return Literal(fraction, Kind.FLOAT)


def _name_of(node: Node) -> str | None:
    return node.name if isinstance(node, Attribute) else None


def _common_kind(left: Kind, right: Kind) -> Kind | None:
    if left is right or right is Kind.NULL:
        return left
    if left is Kind.NULL:
        return right
    return Kind.FLOAT if {left, right} == {Kind.INTEGER, Kind.FLOAT} else None


def _as_kind(node: Node, kind: Kind) -> Node:
    if node.kind is Kind.NULL:
        # Where every operand is null, a null of any kind gives the same unknown.
        return Literal(None, Kind.INTEGER if kind is Kind.NULL else kind)
    if node.kind is kind:
        return node
    if isinstance(node, Literal) and isinstance(node.value, int):
        return Literal(float(node.value), kind)
    return Operation("float", (node,), kind)
