"""`streamproc dead-letters`: what was refused, and why."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from streamproc.analytics.dead_letters import (
    Filter,
    list_dead_letters,
    show_dead_letters,
)
from streamproc.app.reading import open_root
from streamproc.cli.console import out, print_json, table

app = typer.Typer(help="Look at records that were refused.", no_args_is_help=True)

Root = Annotated[str, typer.Argument(help="What `[output] root` names.")]
Config = Annotated[
    Path | None, typer.Option(help="Its [s3] says how a bucket is reached.")
]
Cities = Annotated[list[str] | None, typer.Option("--city", help="Only this town.")]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only this reason.")
]
Dates = Annotated[
    list[str] | None, typer.Option("--date", help="Only this local date.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command("list")
def list_groups(
    root: Root,
    city: Cities = None,
    reason: Reasons = None,
    day: Dates = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Count refused records by city, reason and day.

    Example: `streamproc dead-letters list data --city razlog`
    """
    groups = list_dead_letters(open_root(root, config), _filter(city, reason, day))
    if as_json:
        print_json(groups)
        return
    rows = [
        [g.city, g.date, g.reason, g.records, g.payload_bytes, g.detail] for g in groups
    ]
    columns = ["city", "date", "reason", "records", "bytes", "for example"]
    out.print(table("Quarantine", columns, rows))


@app.command("show")
def show_records(
    root: Root,
    city: Cities = None,
    reason: Reasons = None,
    day: Dates = None,
    source: Annotated[
        str | None, typer.Option(help="Only <topic>/<partition>.")
    ] = None,
    offset: Annotated[int | None, typer.Option(help="Only this offset.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records at most.")] = 20,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show refused records with the beginning of their payload.

    Example: `streamproc dead-letters show data --reason malformed --limit 5`
    """
    chosen = _filter(city, reason, day, source, offset)
    letters = show_dead_letters(open_root(root, config), chosen, limit)
    if as_json:
        print_json(letters)
        return
    rows = [
        [x.city, x.source, x.offset, x.broker_time, x.reason, x.detail, x.preview]
        for x in letters
    ]
    columns = ["city", "source", "offset", "broker time", "reason", "detail", "payload"]
    out.print(table("Refused records", columns, rows))


def _filter(
    city: list[str] | None,
    reason: list[str] | None,
    day: list[str] | None,
    source: str | None = None,
    offset: int | None = None,
) -> Filter:
    try:
        dates = None if day is None else [date.fromisoformat(text) for text in day]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--date") from error
    return Filter(
        cities=city, reasons=reason, dates=dates, source=source, offset=offset
    )
