"""The text of a rule, cut into lexemes; ``rules`` is the public face.

Keywords, signs, literals, names of attributes that exist and functions that exist pass; whatever
else a text holds is refused here with its position. So are sizes that would cost too much further
on, and nesting that would exhaust the stack.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

import pyarrow as pa

from visavis.errors import RuleError
from visavis.rules.tree import FUNCTIONS, Kind, kind_of

__all__ = ["AS_OF", "NESTING_MAX", "TEXT_SIZE_MAX", "Lexeme", "RuleText"]

#: The name under which a rule reads the date of the match; no attribute may bear it.
AS_OF: Final = "as_of"

#: Longest text, in characters: bounds the work per rule, whoever wrote it.
TEXT_SIZE_MAX: Final = 4096

#: Deepest nesting of parentheses, ``not`` and minus signs. sqlglot 30.30 spends 20 Python frames on
#: a level of parentheses and 23 on one of a call; 32 levels leave a quarter of the default 1000
#: frames to the caller.
NESTING_MAX: Final = 32

_LEXEME: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<refused>--|/\*|==)
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
    | (?P<malformed>\.?[0-9][\w.]*)
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<word>[^\W\d]\w*)
    | (?P<operator><>|!=|<=|>=|[-+*/<>=(),])""",
    re.VERBOSE,
)
_REFUSED: Final = {
    "--": "comments are no part of rules",
    "/*": "comments are no part of rules",
    "==": "equality is written =",
    "'": "the string has no closing quote",
    '"': "the name has no closing quote",
}
_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_KEYWORDS: Final = frozenset(["and", "between", "false", "in", "is", "not", "null", "or", "true"])
_OPERAND_ENDS: Final = frozenset(["name", "number", "string", "date", "null", "true", "false", ")"])


@dataclass(frozen=True, slots=True)
class Lexeme:
    """One piece of the text.

    Parameters
    ----------
    kind : str
        A keyword or sign itself, or ``name``, ``function``, ``number``, ``string`` or ``date``.
    text : str
        What the piece means: quotes removed, keywords in lower case.
    start, end : int
        Its place in the text; `end` is exclusive.
    """

    kind: str
    text: str
    start: int
    end: int


class RuleText:
    """The text of one rule and its lexemes.

    Parameters
    ----------
    text : str
    schema : pyarrow.Schema
        The attributes.
    capability : str or None
        Named in errors.

    Attributes
    ----------
    lexemes : list of Lexeme
        At least one.
    kinds : dict of str to Kind
        The attributes that the rule reads.

    Raises
    ------
    RuleError
        If the text holds what rules do not know, or too much of it.
    """

    def __init__(self, text: str, schema: pa.Schema, capability: str | None) -> None:
        self.text = text
        self.capability = capability
        self.kinds: dict[str, Kind] = {}
        self.lexemes: list[Lexeme] = []
        self._refuse_size()
        self._cut(schema)
        if not self.lexemes:
            self.fail("is empty", 0)
        self._refuse_shape()

    def fail(self, reason: str, position: int | None, column: str | None = None) -> NoReturn:
        """Raise the RuleError that names rule, capability, position and attribute."""
        raise RuleError(
            reason, rule=self.text, position=position, column=column, capability=self.capability
        )

    def spelled(self, first: Lexeme, last: Lexeme) -> str:
        """Give the text from one lexeme to another, as it was written."""
        return self.text[first.start : last.end]

    def _refuse_size(self) -> None:
        if not isinstance(self.text, str):
            raise RuleError("must be text", rule=repr(self.text), capability=self.capability)
        if len(self.text) > TEXT_SIZE_MAX:
            raise RuleError(
                f"has {len(self.text)} characters, more than {TEXT_SIZE_MAX}",
                rule=f"{self.text[:64]}…",
                position=TEXT_SIZE_MAX,
                capability=self.capability,
            )
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            self.fail("half a surrogate pair is no character", error.start)

    def _cut(self, schema: pa.Schema) -> None:
        found = []
        position = 0
        while position < len(self.text):
            match = _LEXEME.match(self.text, position)
            spelled = match[0] if match else self.text[position]
            if match is None or match.lastgroup == "refused":
                self.fail(_REFUSED.get(spelled, f"{spelled!r} is no part of rules"), position)
            if match.lastgroup == "malformed":
                self.fail(f"{spelled!r} is no number such as 18 or 0.5", position)
            if match.lastgroup != "space":
                found.append(match)
            position = match.end()
        index = 0
        while index < len(found):
            following = found[index + 1] if index + 1 < len(found) else None
            self.lexemes.append(self._lexeme(found[index], following, schema))
            index += 2 if self.lexemes[-1].kind == "date" else 1

    def _lexeme(
        self, match: re.Match[str], following: re.Match[str] | None, schema: pa.Schema
    ) -> Lexeme:
        spelled, start, end = match[0], match.start(), match.end()
        lower = spelled.lower()
        called = following is not None and following[0] == "("
        match match.lastgroup:
            case "number":
                return Lexeme("number", spelled, start, end)
            case "string":
                return Lexeme("string", spelled[1:-1].replace("''", "'"), start, end)
            case "operator":
                return Lexeme("<>" if spelled == "!=" else spelled, spelled, start, end)
            case "word" if lower in _KEYWORDS:
                return Lexeme(lower, lower, start, end)
            case "word" if lower == "date" and following and following.lastgroup == "string":
                return Lexeme("date", following[0][1:-1], start, following.end())
            case "word" if called and lower in FUNCTIONS:
                return Lexeme("function", lower, start, end)
        if called:
            near = _closest(lower, FUNCTIONS) or f"rules have {', '.join(FUNCTIONS)}"
            self.fail(f"there is no function {spelled!r}; {near}", start)
        name = spelled[1:-1].replace('""', '"') if match.lastgroup == "quoted" else spelled
        self._resolve(name, start, schema)
        return Lexeme("name", name, start, end)

    def _resolve(self, name: str, position: int, schema: pa.Schema) -> None:
        if name == AS_OF:
            return
        index = schema.get_field_index(name)
        if index < 0:
            if name in schema.names:
                self.fail("the attribute is there twice", position, name)
            near = _closest(name, [*schema.names, AS_OF])
            self.fail("there is no such attribute" + (f"; {near}" if near else ""), position, name)
        arrow_type = schema.field(index).type
        kind = kind_of(arrow_type)
        if kind is None:
            self.fail(f"rules cannot read type {arrow_type}", position, name)
        self.kinds[name] = kind

    def _refuse_shape(self) -> None:
        # Bounds the recursion of sqlglot, and ours, before either starts. An ``and`` ends what a
        # ``not`` governs unless it belongs to a ``between``, where another ``not`` may follow.
        enclosing: list[tuple[int, int, int]] = []
        depth = between_count = 0
        previous = ""
        for lexeme in self.lexemes:
            kind = lexeme.kind
            if kind == "(":
                enclosing.append((depth, between_count, lexeme.start))
                depth, between_count = depth + 1, 0
            elif kind == ")":
                if not enclosing:
                    self.fail("nothing is open that ) could close", lexeme.start)
                depth, between_count, _ = enclosing.pop()
            elif kind == "between":
                between_count += 1
            elif kind == "and" and between_count:
                between_count -= 1
            elif kind in ("and", "or", ","):
                depth = enclosing[-1][0] + 1 if enclosing else 0
            elif (kind == "not" and previous not in _OPERAND_ENDS and previous != "is") or (
                kind == previous == "-"
            ):
                depth += 1
            if depth > NESTING_MAX:
                self.fail(f"is nested deeper than {NESTING_MAX} levels", lexeme.start)
            previous = kind
        if enclosing:
            self.fail("( is never closed", enclosing[-1][2])
        if previous not in _OPERAND_ENDS:
            self.fail("ends too early", len(self.text))


def _closest(name: str, known: Iterable[str]) -> str | None:
    """Say what `name` may have meant; case does not count."""
    spelled = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), list(spelled))
    return f"did you mean {' or '.join(spelled[word] for word in near)}?" if near else None
