"""The message of a capability with its placeholders filled in from a customer's attributes.

``{name}`` stands for an attribute, ``{{`` and ``}}`` for braces. Nothing else of a format string is
understood: a template is data of the catalog, and must reach nothing but attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["filled_in", "placeholders"]

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def placeholders(template: str) -> frozenset[str]:
    """The attributes that a message needs."""
    return frozenset(part[1] for part in _PART.finditer(template) if part[1] is not None)


def filled_in(template: str, attributes: Mapping[str, object]) -> str:
    """The text; empty where something it needs is unknown."""
    is_known = True

    def said(part: re.Match[str]) -> str:
        nonlocal is_known
        if part[1] is None:
            return part[0][0]
        value = attributes.get(part[1])
        is_known = is_known and value is not None
        return _text(value)

    text = _PART.sub(said, template)
    return text if is_known else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
