"""`streamproc accept-gap CONFIG`: give up offsets that are gone, by name and with a reason."""

import asyncio
import getpass
import os
import socket
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streamproc.app.gap import write_gap
from streamproc.cli.console import out, print_json
from streamproc.config import load as load_settings
from streamproc.core.totals import gap_of
from streamproc.core.values import TopicPartition
from streamproc.runtime.gap import GapOrder

TEXT_MAX = 500


def accept_gap(
    config: Annotated[Path, typer.Argument(help="The TOML file.")],
    topic: Annotated[str, typer.Option(help="The topic.")],
    partition: Annotated[int, typer.Option(min=0, help="Its partition.")],
    start: Annotated[
        int, typer.Option("--from", min=0, help="First offset that is given up.")
    ],
    end: Annotated[
        int, typer.Option("--to", min=1, help="First offset that is read again.")
    ],
    reason: Annotated[str, typer.Option(help="Why; kept in the log for ever.")],
    by: Annotated[
        str | None, typer.Option(help="Who accepts it; user@host otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Write a `gap` record for offsets that retention has removed before they were read.

    The bounds must be exactly the ones the stopped service names: whoever types them has seen
    what is lost. A running owner of the partition is fenced and goes on behind the gap.

    Example: `streamproc accept-gap streamproc.toml --topic telemetry.razlog --partition 0
    --from 1200 --to 1500 --reason "broker disk lost, ticket 481"`
    """
    order = GapOrder(
        TopicPartition(topic, partition),
        start,
        end,
        _text(reason, "--reason"),
        _text(by or f"{getpass.getuser()}@{socket.gethostname()}", "--by"),
    )
    record = asyncio.run(
        write_gap(load_settings(config, os.environ), order, os.environ)
    )
    gap = gap_of(record)
    if as_json:
        print_json(msgspec.to_builtins(gap))
    else:
        out.print(
            f"{topic} partition {partition}: record {gap.n} gives up offsets {gap.start} "
            f"to {gap.next - 1} ({gap.next - gap.start}), accepted by {gap.by}",
            markup=False,
        )
    return 0


def _text(given: str, option: str) -> str:
    text = given.strip()
    if not text or len(text) > TEXT_MAX or not text.isprintable():
        msg = f"one printable line of 1 to {TEXT_MAX} characters"
        raise typer.BadParameter(msg, param_hint=option)
    return text
