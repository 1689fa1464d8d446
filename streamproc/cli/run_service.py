"""`streamproc run CONFIG`: the service."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from streamproc.app.service import open_service
from streamproc.app.watching import Watching
from streamproc.cli.console import Bar, err, progress
from streamproc.cli.summary import Shown, show_summary
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.connectors.clock import SystemClock
from streamproc.runtime.collector import set_for_streaming
from streamproc.runtime.observer import Totals
from streamproc.runtime.signals import stop_on_signals

WORKERS_MAX = 64


def run(
    config: Annotated[Path, typer.Argument(help="The TOML file.")],
    until_end: Annotated[
        bool,
        typer.Option("--until-end", help="Stop at the end offsets seen at the start."),
    ] = False,
    close: Annotated[
        bool,
        typer.Option("--close", help="With --until-end: then close every window."),
    ] = False,
    accept_recreated: Annotated[
        list[str] | None,
        typer.Option(help="A topic that was deleted and created anew on purpose."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=WORKERS_MAX,
            help="Run so many processes, one per core, and restart those that end; "
            "limits of the configuration hold for each. Without it: this process alone.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Summary for machines.")
    ] = False,
    as_worker: Annotated[int | None, typer.Option(hidden=True)] = None,
    socket: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> int:
    """Consume until stopped; SIGTERM drains, a second one abandons (and loses nothing).

    Example: `streamproc run streamproc.toml --workers 4`, `… --until-end --close`
    """
    if close and not until_end:
        msg = "needs --until-end"
        raise typer.BadParameter(msg, param_hint="--close")
    settings = load_settings(config, os.environ)
    if workers is not None:
        options = [
            *(["--until-end"] if until_end else []),
            *(["--close"] if close else []),
            *(f"--accept-recreated={topic}" for topic in accept_recreated or ()),
        ]
        _supervise(settings, config, workers, options, as_json=as_json)
        return 0
    set_for_streaming()
    totals, seconds = asyncio.run(
        _run(
            settings,
            until_end=until_end,
            close=close,
            accept_recreated=frozenset(accept_recreated or ()),
            worker=as_worker,
            socket=socket,
        )
    )
    show_summary(totals, seconds, as_json=as_json)
    return 0


def _supervise(
    settings: Settings,
    config: Path,
    workers: int,
    options: Sequence[str],
    *,
    as_json: bool,
) -> None:
    # Only here: one process alone needs nothing of it.
    from streamproc.app.workers import run_workers  # noqa: PLC0415

    clock = SystemClock()
    began_us = clock.monotonic_us()
    until_end = "--until-end" in options
    totals, stopped = asyncio.run(
        run_workers(settings, config, workers, options, until_end=until_end)
    )
    if stopped:
        err.print("stopped: what was held is committed")
    seconds = (clock.monotonic_us() - began_us) / 1e6
    show_summary(totals, seconds, as_json=as_json)


@contextmanager
def _drained_without(stop: Callable[[], None], *, supervised: bool) -> Iterator[None]:
    """Stop when standard input ends: then the supervisor is gone, and nobody restarts us."""
    if not supervised:
        yield
        return
    loop, broken = asyncio.get_running_loop(), sys.stdin.fileno()

    def alone() -> None:
        loop.remove_reader(broken)
        stop()

    loop.add_reader(broken, alone)
    try:
        yield
    finally:
        loop.remove_reader(broken)


async def _run(
    settings: Settings,
    *,
    until_end: bool,
    close: bool,
    accept_recreated: frozenset[str],
    worker: int | None,
    socket: str | None,
) -> tuple[Totals, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    totals = Totals()
    # The bar comes first, so that log lines are printed above it.
    shown = progress("records", None) if until_end else nullcontext(Bar(None, 0))
    with shown as bar:
        async with (
            Watching(settings, worker, socket) as watching,
            open_service(
                settings,
                until_end=until_end,
                close=close,
                accept_recreated=accept_recreated,
                observers=(totals, watching.observer, Shown(bar)),
            ) as service,
        ):
            watching.watch(service)
            stop = service.stop
            with stop_on_signals(stop), _drained_without(stop, supervised=bool(worker)):
                await service.run()
            if service.stopping:
                err.print("stopped: what was held is committed")
    return totals, loop.time() - began
