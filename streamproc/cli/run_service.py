"""`streamproc run CONFIG`: the service."""

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from streamproc.app.service import open_service
from streamproc.app.watching import Watching
from streamproc.cli.console import Bar, err, progress
from streamproc.cli.summary import Shown, show_summary
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.runtime.collector import set_for_streaming
from streamproc.runtime.observer import Totals
from streamproc.runtime.signals import stop_on_signals


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
    as_json: Annotated[
        bool, typer.Option("--json", help="Summary for machines.")
    ] = False,
) -> int:
    """Consume until stopped; SIGTERM drains, a second one abandons (and loses nothing).

    Example: `streamproc run streamproc.toml --until-end --close`
    """
    if close and not until_end:
        msg = "needs --until-end"
        raise typer.BadParameter(msg, param_hint="--close")
    settings = load_settings(config, os.environ)
    set_for_streaming()
    totals, seconds = asyncio.run(
        _run(
            settings,
            until_end=until_end,
            close=close,
            accept_recreated=frozenset(accept_recreated or ()),
        )
    )
    show_summary(totals, seconds, as_json=as_json)
    return 0


async def _run(
    settings: Settings,
    *,
    until_end: bool,
    close: bool,
    accept_recreated: frozenset[str],
) -> tuple[Totals, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    totals = Totals()
    # The bar comes first, so that log lines are printed above it.
    shown = progress("records", None) if until_end else nullcontext(Bar(None, 0))
    with shown as bar:
        async with (
            Watching(settings) as watching,
            open_service(
                settings,
                until_end=until_end,
                close=close,
                accept_recreated=accept_recreated,
                observers=(totals, watching.observer, Shown(bar)),
            ) as service,
        ):
            watching.watch(service)
            with stop_on_signals(service.stop):
                await service.run()
            if service.stopping:
                err.print("stopped: what was held is committed")
    return totals, loop.time() - began
