"""``demo`` and ``doctor``: what a stranger runs first on a machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from visavis import __version__
from visavis.cli.options import AsJson, Threads, VariantName, named
from visavis.cli.output import print_json, print_pairs, stages
from visavis.errors import SetupError
from visavis.terminal import new_console

if TYPE_CHECKING:
    from visavis import kernel

__all__ = ["demo", "doctor"]

_PACKAGES: Final = ("numpy", "pyarrow", "duckdb", "sqlglot", "pydantic", "ray", "grpcio")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo-output"),
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Match one real data set end to end, timed against the campaign loop."""
    from visavis import demo as demonstration

    options = {name: f"--{name}" for name in ("out", "threads", "variant")}
    with stages(quiet=as_json) as stage, named(**options):
        done = demonstration.run(out, threads=threads, variant=variant, stage=stage)
    if as_json:
        print_json(done.summary)
        return
    from visavis.showing import show_demo

    show_demo(done, new_console())


def doctor(as_json: AsJson = False) -> None:
    """What is installed, which kernel variants this processor runs, and whether they are right."""
    from visavis import kernel
    from visavis.selfcheck import check_variants

    with stages(quiet=True) as stage, stage("Self-check"):
        checked = check_variants()
    summary = {
        "visavis": __version__,
        "kernel_contract": kernel.CONTRACT_VERSION,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "processor_features": kernel.processor_features(),
        "variants": {name: _said_of(each) for name, each in kernel.built_variants().items()},
        "chosen_variant": kernel.choose_variant(),
        "self_check": {
            name: "as known" if same else "OTHER BITS" for name, same in checked.items()
        },
        "packages": {name: _version_or_none(name) for name in _PACKAGES},
    }
    if as_json:
        print_json(summary)
    else:
        print_pairs(summary)
    if not all(checked.values()):
        # Raised, it would be a second JSON document on standard output.
        error = SetupError("a kernel variant computes other bits than docs/score.md says")
        print(f"visavis: {error}", file=sys.stderr)
        raise typer.Exit(3)


def _said_of(variant: kernel.Variant) -> str:
    if variant.lacks is not None:
        return f"lacks {variant.lacks}"
    return "screens, then verifies" if variant.is_screened else "verifies every pair"


def _version_or_none(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
