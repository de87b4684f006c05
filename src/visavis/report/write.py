"""The report as two files beside each other."""

from __future__ import annotations

from pathlib import Path

from visavis.report.content import ReportContent
from visavis.report.page import render
from visavis.store import write_bytes, write_json

__all__ = ["write_report"]


def write_report(folder: Path, content: ReportContent) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json``; equal content gives equal bytes.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    content : ReportContent

    Returns
    -------
    tuple of Path
        The page, and the numbers.

    Raises
    ------
    InputError
        Naming the place of a value that JSON cannot hold.
    """
    held = content.canonical()
    page, numbers = folder / "report.html", folder / "report.json"
    write_json(numbers, held.to_json())
    write_bytes(page, render(held).encode())
    return page, numbers
