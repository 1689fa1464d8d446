"""`streamproc compact` and `streamproc retain`: few sorted files, and old dates deleted."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from streamproc.app.keeping import Chosen, jobs_of, last_ended
from streamproc.app.keeping import compact as compact_job
from streamproc.app.keeping import retain as retain_job
from streamproc.app.reading import open_root
from streamproc.app.storing import OpenStore, open_store, open_store_at
from streamproc.cli.console import DONE, FAILED, err, out, print_json, progress, table
from streamproc.config import is_bucket
from streamproc.config import load as load_settings
from streamproc.config.units import parse_duration
from streamproc.connectors.clock import SystemClock
from streamproc.runtime.compactor import DATASETS, Outcome

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Output = Annotated[
    str | None, typer.Option(help="Another root than [output] root says.")
]


def compact(
    where: Annotated[
        list[str],
        typer.Argument(help="TOML files, or what their `[output] root` names."),
    ],
    output: Output = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help=f"Only this: {', '.join(DATASETS)}.")
    ] = None,
    city: Annotated[list[str] | None, typer.Option(help="Only this town.")] = None,
    day: Annotated[
        list[str] | None, typer.Option("--date", help="Only this local date.")
    ] = None,
    closed_after: Annotated[
        str | None,
        typer.Option(help="Age of a date; [compaction] closed_after otherwise, or 2d."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Rewrite closed dates as few files, sorted by device, property and time.

    Rows stay the same, bit for bit; what a killed run left half done is finished first.
    Example: `streamproc compact towns.toml`
    """
    chosen = Chosen(dataset, city, _dates(day))
    age_us = None if closed_after is None else _age(closed_after)
    outcomes: list[Outcome] = []
    clock = SystemClock()
    for path in where:
        store, job, configured_us = _opened(path, output, clock)
        used_us = configured_us if age_us is None else age_us
        with closing(store):
            store.self_test()
            last = last_ended(clock.wall_us(), used_us)
            for name in jobs_of(store) if job is None else [job]:
                outcomes += _told(compact_job(store, name, last, chosen))
    return _show("Compacted", outcomes, as_json=as_json)


def retain(
    config: Annotated[
        Path, typer.Argument(help="The TOML file; `[retain]` says what.")
    ],
    output: Output = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Delete whole dates that are older than `[retain]` says, each by a logged record.

    Example: `streamproc retain towns.toml --dry-run`
    """
    overrides: dict[str, Any] = {} if output is None else {"output.root": output}
    settings = load_settings(config, os.environ, overrides)
    if not any(settings.retain.of(dataset) for dataset in DATASETS):
        err.print("[retain] names no dataset: every date is kept", markup=False)
        return DONE
    open_root(settings.output.root, config)
    clock = SystemClock()
    with closing(open_store(settings, clock)) as store:
        store.self_test()
        outcomes = _told(retain_job(store, settings, clock.wall_us(), dry=dry_run))
    return _show("Deleted", outcomes, as_json=as_json)


def _opened(
    path: str, output: str | None, clock: SystemClock
) -> tuple[OpenStore, str | None, int]:
    """Return the store, the job (None for all there are) and how old a date must be, µs."""
    if is_bucket(path) or Path(path).is_dir():
        open_root(path)
        return open_store_at(path, clock), None, parse_duration("2d")
    overrides: dict[str, Any] = {} if output is None else {"output.root": output}
    settings = load_settings(Path(path), os.environ, overrides)
    open_root(settings.output.root, Path(path))
    store = open_store(settings, clock)
    return store, settings.job.name, settings.compaction.closed_after_us


def _told(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return all outcomes, showing how many there are; what failed is told at once."""
    found = []
    with progress("folders", None) as bar:
        for outcome in outcomes:
            found.append(outcome)
            bar.to(len(found))
            if outcome.fault:
                told = f"{outcome.unit.folder}: {outcome.fault}"
                err.print(told, style="red", markup=False)
    return found


def _show(title: str, outcomes: list[Outcome], *, as_json: bool) -> int:
    if as_json:
        print_json([{"folder": o.unit.folder, **_plain(o)} for o in outcomes])
    else:
        rows = [
            [
                o.unit.folder,
                o.what,
                o.files,
                o.rows,
                o.size_bytes,
                o.files_after,
                o.bytes_after,
                o.waiting,
            ]
            for o in outcomes
        ]
        columns = ["folder", "what", "files", "rows", "bytes", "files after"]
        columns += ["bytes after", "waiting"]
        out.print(table(title, columns, rows))
        counts = Counter(o.what for o in outcomes)
        words = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        out.print(f"{len(outcomes)} folders: {words or 'nothing to do'}")
    return FAILED if any(o.what == "failed" for o in outcomes) else DONE


def _plain(outcome: Outcome) -> dict[str, Any]:
    names = ("what", "files", "rows", "size_bytes", "files_after", "bytes_after",
             "waiting", "fault")  # fmt: skip
    return {name: getattr(outcome, name) for name in names}


def _dates(texts: list[str] | None) -> list[date] | None:
    try:
        return None if texts is None else [date.fromisoformat(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--date") from error


def _age(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--closed-after") from error
