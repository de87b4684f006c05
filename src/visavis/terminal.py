"""Text for terminals: whatever comes from outside is shown as it is, and nothing of it obeyed.

Ids and names may hold what a terminal or rich takes for an order: markup, emoji codes, escape
sequences, marks that turn the direction of writing. They are printed as text, and what has no
visible form by its escape, so that no id can pass for another. JSON output is exact.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["add_row", "new_console", "new_table", "plain", "shown"]


def shown(text: object) -> str:
    r"""The text on one line, what cannot be printed as its escape: ``\n``, ``\x1b``, ``\u202e``."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def plain(text: object, style: str = "") -> Text:
    """The text as `shown`, for rich: neither markup nor emoji codes nor highlighting."""
    return Text(shown(text), style=style)


def new_console(*, stderr: bool = False) -> Console:
    """A console that takes every string as it is."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def new_table(*headers: str, title: object = None, **options: Any) -> Table:
    """A table whose cells fold where they are too long, and are never cut."""
    table = Table(title=None if title is None else plain(title), **options)
    for header in headers:
        table.add_column(plain(header), overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row of cells from anywhere, each as `plain`; a `Text` keeps its style."""
    table.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in cells))
