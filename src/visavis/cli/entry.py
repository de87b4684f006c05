"""`main`: one command run, its errors told in one line, its exit status."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Final, cast

import typer

from visavis import __version__
from visavis.cli import ask, base, build, machine, model, query, record, results
from visavis.cli.logs import set_up_logs
from visavis.cli.rescore import rescore
from visavis.cli.serve import serve
from visavis.errors import SetupError, VisavisError
from visavis.terminal import shown

__all__ = ["EXIT_FAULT", "EXIT_INPUT", "EXIT_INTERRUPTED", "EXIT_SETUP", "app", "main"]

EXIT_INPUT: Final = 2
EXIT_SETUP: Final = 3
#: EX_SOFTWARE of sysexits.h.
EXIT_FAULT: Final = 70
#: 128 and the number of SIGINT, as shells have it.
EXIT_INTERRUPTED: Final = 130

#: What typer raises for a wrong command line: its home is no public name, and has moved.
_UsageError: Final = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Match every customer against every capability: exact, rule-aware, explained.",
)
for command in (
    *(machine.demo, build.indicators, model.learn, build.load),
    *(ask.match, ask.audience, ask.explain),
    *(record.record, rescore, serve),
    machine.doctor,
):
    app.command()(command)
app.add_typer(base.app, name="base")
app.add_typer(results.app, name="results")
app.add_typer(query.app, name="query")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"visavis {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it, exit."),
    ] = False,
) -> None:
    """Match every customer against every capability: exact, rule-aware, explained."""


@cache
def _command() -> Callable[..., int | None]:
    # What typer makes of the signatures costs some 20 ms, and a process may call main() often.
    return cast("Callable[..., int | None]", typer.main.get_command(app))


def main() -> None:
    """Run the command line; whatever goes wrong becomes one line and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An id that the terminal's encoding lacks must not end the command.
            stream.reconfigure(errors="backslashreplace")
    status = _run(as_json="--json" in sys.argv[1:])
    try:
        # What is still to be written fails here, where it can be told, and not at exit.
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"visavis: standard output: {error.strerror}", file=sys.stderr)
        status = status or EXIT_SETUP
    if status:
        sys.exit(status)


def _run(*, as_json: bool) -> int:
    """Run the command that was asked for; return its exit status."""
    try:
        set_up_logs(as_json=as_json)
        # With --json typer must not print its own box of a wrong command line.
        status = _command()(standalone_mode=not as_json)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 0
    except KeyboardInterrupt:
        # Inside a command typer makes it the same status.
        return EXIT_INTERRUPTED
    except VisavisError as error:
        named = ("field", "row", "subject", "path")
        held = {name: getattr(error, name, None) for name in named}
        _tell(error, str(error), as_json, held)
        return EXIT_SETUP if isinstance(error, SetupError) else EXIT_INPUT
    except Exception as error:
        return _unforeseen(error, as_json)
    return int(status or 0)


def _unforeseen(error: Exception, as_json: bool) -> int:
    """What no command foresaw: of the command line, of the machine, or a fault of ours."""
    if isinstance(error, _UsageError):
        _tell("UsageError", cast(typer.BadParameter, error).format_message(), as_json)
        return EXIT_INPUT
    if os.environ.get("VISAVIS_TRACEBACK") == "1":
        raise error
    if isinstance(error, MemoryError):
        _tell(error, "not enough memory", as_json)
        return EXIT_SETUP
    if isinstance(error, OSError) and not _output_flows():
        return EXIT_SETUP  # `main` tells it, once
    if isinstance(error, (OSError, ImportError)):
        _tell(error, str(error), as_json)
        return EXIT_SETUP
    said = f"internal error: {type(error).__name__}: {error}"
    _tell("InternalError", f"{said} (a fault of visavis: VISAVIS_TRACEBACK=1 shows where)", as_json)
    return EXIT_FAULT


def _output_flows() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _tell(
    error: Exception | str, message: str, as_json: bool, named: Mapping[str, object] | None = None
) -> None:
    if not as_json:
        print(f"visavis: {shown(message)}", file=sys.stderr)
        return
    name = error if isinstance(error, str) else type(error).__name__
    held = {key: value for key, value in (named or {}).items() if value is not None}
    # On one line: a command may have printed a line for each thing that happened before.
    print(json.dumps({"error": name, "message": message, **held}, default=str))
