"""The command line's root: the commands, and one place where errors become exit codes."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Final, ParamSpec

import typer

from streamproc import __version__
from streamproc.cli.console import DONE, FAILED, FAULT, USAGE, err, out
from streamproc.errors import (
    ConfigError,
    InputError,
    StreamprocError,
    VerificationFailed,
)

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": ("demo", "demo"),
    "run": ("run_service", "run"),
    "check": ("check", "check"),
    "simulate": ("simulate", "simulate"),
    "replay": ("replay", "replay"),
    "inspect": ("inspect", "inspect"),
    "compact": ("compact", "compact"),
    "retain": ("compact", "retain"),
    "accept-gap": ("accept_gap", "accept_gap"),
    "dead-letters": ("dead_letters", "app"),
    "schema": ("schema", "app"),
    "warmup": ("warmup", "warmup"),
}
"""Command to its module below `streamproc.cli` and what is called there."""

P = ParamSpec("P")


def exiting(command: Callable[P, int | None]) -> Callable[P, None]:
    """Let a command say its exit code by returning it."""

    @functools.wraps(command)
    def run_and_exit(*args: P.args, **kwargs: P.kwargs) -> None:
        code = command(*args, **kwargs)
        if code:
            raise typer.Exit(code)

    return run_and_exit


def make_app(commands: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """Return the command line with these commands; only their modules are imported."""
    app = typer.Typer(
        name="streamproc",
        help="Telemetry stream processor for small towns: Kafka to Parquet per city, exactly once.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(root)
    for name in commands:
        module, called = COMMANDS[name]
        command = getattr(import_module(f"streamproc.cli.{module}"), called)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(exiting(command))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"streamproc {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Telemetry stream processor for small towns: Kafka to Parquet per city, exactly once."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; no traceback for a fault of the world."""
    wanted = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    try:
        make_app(wanted)(args=list(arguments), prog_name="streamproc")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else DONE
    except KeyboardInterrupt:
        err.print("aborted")
        return FAILED
    except StreamprocError as error:
        err.print(_told(error), style="red", markup=False)
        return exit_code(error)
    return DONE


def exit_code(error: StreamprocError) -> int:
    """Return what the process exits with for this error."""
    if isinstance(error, (ConfigError, InputError)):
        return USAGE
    return FAULT if isinstance(error, VerificationFailed) else FAILED


def _told(error: StreamprocError) -> str:
    plain = (ConfigError, InputError, VerificationFailed)
    return (
        str(error) if isinstance(error, plain) else f"{type(error).__name__}: {error}"
    )
