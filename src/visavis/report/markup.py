"""HTML and SVG as nested calls: whatever is not markup already is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

__all__ = ["Child", "Markup", "element", "fragment", "name"]


class Markup(str):
    """Text that is HTML already; only this module makes it from text."""

    __slots__ = ()


#: What may stand inside an element; None stands for nothing.
Child: TypeAlias = str | int | float | Iterable["Child"] | None

#: Elements that have no end.
_VOID: Final = frozenset({"br", "col", "hr", "link", "meta"})

#: Elements whose end deserves a new line, so that two reports can be compared line by line.
_BLOCKS: Final = frozenset(
    {"article", "details", "dl", "figure", "h1", "h2", "h3", "li", "p", "section", "svg", "tr"}
)

#: What no HTML text may hold: control characters, half surrogates, noncharacters.
_FORBIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def element(tag: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One element.

    Parameters
    ----------
    tag : str
    *children
        Markup as it is, everything else escaped.
    **attributes
        ``class_`` is ``class``, ``aria_label`` is ``aria-label``; None leaves an attribute out,
        True writes its name alone.
    """
    said = "".join(
        f" {key}" if value is True else f' {key}="{_attribute(value)}"'
        for key, value in ((_attribute_name(key), value) for key, value in attributes.items())
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{said}>")
    end = "\n" if tag in _BLOCKS else ""
    return Markup(f"<{tag}{said}>{fragment(*children)}</{tag}>{end}")


def fragment(*children: Child) -> Markup:
    """Children one after the other, without an element around them."""
    return Markup("".join(_flat(children)))


def name(text: object) -> Markup:
    """A name from outside, kept from turning the direction of the text around it."""
    return element("bdi", str(text))


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, (str, int, float)):
            yield _escaped(str(child))
        else:
            yield from _flat(child)


def _escaped(text: str) -> str:
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return value if isinstance(value, Markup) else _escaped(value)
    # Two decimals of a pixel are more than a screen shows; −0 is 0.
    return f"{value + 0.0:.2f}".rstrip("0").rstrip(".").replace("-0", "0", value == 0)
