"""structlog, set up once per command: to standard error, as lines for people or as JSON."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

import structlog

from visavis.errors import InputError

__all__ = ["log", "set_up_logs"]

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

log: Final = structlog.stdlib.get_logger("visavis")


def set_up_logs(*, as_json: bool) -> None:
    """Configure structlog for this process.

    Parameters
    ----------
    as_json : bool
        Each line is JSON; ``VISAVIS_LOG=json`` asks for the same.

    Raises
    ------
    InputError
        If ``VISAVIS_LOG_LEVEL`` is no level.
    """
    level = os.environ.get("VISAVIS_LOG_LEVEL", "warning").lower()
    if level not in LEVELS:
        raise InputError(f"must be one of {', '.join(LEVELS)}", field="VISAVIS_LOG_LEVEL")
    last: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if as_json or os.environ.get("VISAVIS_LOG") == "json":
        last = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # Looked up at each line: progress bars put a stream of their own in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
