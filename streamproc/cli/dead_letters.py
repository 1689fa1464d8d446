"""`streamproc dead-letters`: what was refused, why, and back again after the fix."""

import asyncio
import os
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from streamproc.analytics.dead_letters import (
    Filter,
    list_dead_letters,
    show_dead_letters,
)
from streamproc.app.dead_letters import PutBack, replay_dead_letters
from streamproc.app.reading import open_root
from streamproc.cli.console import DONE, out, print_json, progress, table
from streamproc.cli.summary import Shown
from streamproc.config import load as load_settings

app = typer.Typer(
    help="Look at records that were refused, and put them back.", no_args_is_help=True
)

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


@app.command("replay")
def replay(
    config: Annotated[Path, typer.Argument(help="The TOML file, after the fix.")],
    city: Cities = None,
    reason: Reasons = None,
    day: Dates = None,
    since: Annotated[
        str | None, typer.Option(help="Only local dates from this one on.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only <topic>/<partition>.")
    ] = None,
    offset: Annotated[int | None, typer.Option(help="Only this offset.")] = None,
    output: Annotated[
        str | None, typer.Option(help="Another root than [output] root says.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be put back.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put refused records back that are accepted now, once; the others stay where they are.

    Example: `streamproc dead-letters replay towns.toml --reason unknown_property`
    """
    overrides = {} if output is None else {"output.root": output}
    settings = load_settings(config, os.environ, overrides)
    open_root(settings.output.root, config)
    chosen = _filter(city, reason, day, source, offset, since)
    asked = {"city": city, "reason": reason, "date": day, "since": since,
             "source": source, "offset": offset}  # fmt: skip
    note = " ".join(f"{k}={v}" for k, v in asked.items() if v is not None) or "all"
    with progress("records", None) as bar:
        done = asyncio.run(
            replay_dead_letters(
                settings, chosen, note, dry=dry_run, observers=[Shown(bar)]
            )
        )
    _show_put_back(done, as_json=as_json, dry=dry_run)
    raise typer.Exit(DONE)


def _show_put_back(done: PutBack, *, as_json: bool, dry: bool) -> None:
    if as_json:
        print_json(done)
        return
    if done.kept:
        rows = [[k.source, k.offset, k.reason, k.detail] for k in done.kept]
        columns = ["source", "offset", "reason", "detail"]
        out.print(table("Stay in quarantine", columns, rows))
    if done.finished:
        out.print(f"finished a replay that was interrupted: {done.finished} records")
    verb = "would be put back" if dry else "put back"
    out.print(
        f"{done.chosen} records chosen, {done.taken} {verb}, {len(done.kept)} stay"
    )


def _filter(
    city: list[str] | None,
    reason: list[str] | None,
    day: list[str] | None,
    source: str | None = None,
    offset: int | None = None,
    since: str | None = None,
) -> Filter:
    dates = None if day is None else [_date(text, "--date") for text in day]
    return Filter(
        cities=city,
        reasons=reason,
        dates=dates,
        source=source,
        offset=offset,
        since=None if since is None else _date(since, "--since"),
    )


def _date(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
