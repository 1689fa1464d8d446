"""The command line's root: the commands, and one place where errors become exit codes."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, ParamSpec

import typer

from streamproc import __version__
from streamproc.cli import (
    check,
    dead_letters,
    demo,
    inspect,
    replay,
    run_service,
    schema,
    simulate,
    warmup,
)
from streamproc.cli.console import DONE, FAILED, FAULT, USAGE, err, out
from streamproc.errors import (
    ConfigError,
    InputError,
    StreamprocError,
    VerificationFailed,
)

app = typer.Typer(
    name="streamproc",
    help="Telemetry stream processor for small towns: Kafka to Parquet per city, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
P = ParamSpec("P")


def exiting(command: Callable[P, int | None]) -> Callable[P, None]:
    """Let a command say its exit code by returning it."""

    @functools.wraps(command)
    def run_and_exit(*args: P.args, **kwargs: P.kwargs) -> None:
        code = command(*args, **kwargs)
        if code:
            raise typer.Exit(code)

    return run_and_exit


app.command("demo")(exiting(demo.demo))
app.command("run")(exiting(run_service.run))
app.command("check")(exiting(check.check))
app.command("simulate")(exiting(simulate.simulate))
app.command("replay")(exiting(replay.replay))
app.command("inspect")(exiting(inspect.inspect))
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(schema.app, name="schema")
app.command("warmup")(exiting(warmup.warmup))


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"streamproc {__version__}")
        raise typer.Exit


@app.callback()
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
    try:
        app(args=list(arguments), prog_name="streamproc")
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
