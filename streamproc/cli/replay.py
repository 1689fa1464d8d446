"""`streamproc replay CONFIG FILES…`: backfill from files, as often as you like."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from streamproc.app.replay import replay_files
from streamproc.cli.console import progress
from streamproc.cli.summary import Shown, show_summary
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.runtime.observer import Totals


def replay(
    config: Annotated[Path, typer.Argument(help="The TOML file.")],
    files: Annotated[
        list[Path], typer.Argument(help="Envelopes, NDJSON, CSV or Parquet.")
    ],
    stream: Annotated[
        str | None, typer.Option(help="Name of the stream; [files] stream otherwise.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Root to write to; [output] root otherwise.")
    ] = None,
    keep_open: Annotated[
        bool, typer.Option("--keep-open", help="Leave windows open at the end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Summary for machines.")
    ] = False,
) -> int:
    """Write files into the same layout; what was read before is skipped.

    Example: `streamproc replay koeln.toml load_2013-03.csv.gz --output data`
    """
    overrides: dict[str, Any] = {}
    if stream is not None:
        overrides["files.stream"] = stream
    if output is not None:
        overrides["output.root"] = output
    settings = load_settings(config, os.environ, overrides)
    totals, seconds = asyncio.run(_replay(settings, files, close=not keep_open))
    show_summary(totals, seconds, as_json=as_json)
    return 0


async def _replay(
    settings: Settings, files: list[Path], *, close: bool
) -> tuple[Totals, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    totals = Totals()
    with progress("records", None) as bar:
        observers = (totals, Shown(bar))
        await replay_files(settings, files, close=close, observers=observers)
    return totals, loop.time() - began
