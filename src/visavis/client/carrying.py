"""Plans → methods, of either client: the same arguments, one docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["dressed"]


def dressed(method: Callable[..., Any], plan: Callable[..., Any], returns: str) -> None:
    """Give a method the name, the arguments and the words of its plan.

    Parameters
    ----------
    method, plan : callable
    returns : str
        What `Plan` and `Stream` are to callers: ``{}`` stands for the type of the result.
    """
    asked = inspect.signature(plan)
    first, *rest = asked.parameters.values()
    # ``Plan[results.Recorded]`` → ``results.Recorded``
    result = str(asked.return_annotation).partition("[")[2].removesuffix("]")
    method.__name__ = plan.__name__
    method.__qualname__ = plan.__qualname__
    method.__doc__ = plan.__doc__
    method.__signature__ = asked.replace(  # type: ignore[attr-defined]
        parameters=[first.replace(name="self", annotation=inspect.Parameter.empty), *rest],
        return_annotation=returns.format(result),
    )
