"""`streamproc inspect ROOT`: what lies under a root, and whether it holds together."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from streamproc.analytics.files import DateFiles, date_files
from streamproc.analytics.inspect import PartitionSummary, RootSummary
from streamproc.analytics.inspect import inspect as summarise
from streamproc.analytics.verify import Report
from streamproc.analytics.verify import verify as check
from streamproc.app.reading import open_root
from streamproc.cli.console import DONE, FAULT, err, out, print_json, table


def inspect(
    root: Annotated[str, typer.Argument(help="What `[output] root` names.")],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Check chain, hashes, rows and files; exit 3 on a fault."
        ),
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Also show the files of each date.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Its [s3] says how a bucket is reached.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Show commit logs, watermarks, files and sizes; with --verify, prove them.

    Rows and files are those that hold each committed row once, also during a compaction.

    Example: `streamproc inspect data --verify`
    """
    opened = open_root(root, config)
    summary = summarise(opened)
    dates = list(date_files(opened)) if files else None
    report = None
    if verify:
        with err.status("verifying …"):
            report = check(opened)
    if as_json:
        shown = {"summary": summary, "verification": report}
        print_json(shown if dates is None else {**shown, "files": dates})
    else:
        _show(summary)
        if dates is not None:
            _show_dates(dates)
        if report is not None:
            _show_report(report)
    return DONE if report is None or report.ok else FAULT


def _show(summary: RootSummary) -> None:
    rows = [
        [
            f"{p.topic}/{p.partition}",
            p.head,
            p.kind,
            p.next,
            _newest(p),
            p.files,
            p.squashed,
            p.snapshot.size if p.snapshot else None,
            round(p.restore_seconds, 1),
            p.unpublished,
            p.staging_files,
            p.fault or "",
        ]
        for p in summary.partitions
    ]
    columns = ["source", "head", "kind", "next", "watermark", "files", "squashed"]
    columns += ["snapshot B", "restore s", "unpublished", "staging", "fault"]
    out.print(table("Commit logs", columns, rows))
    gaps = [
        [f"{p.topic}/{p.partition}", g.start, g.next, g.next - g.start, g.by, g.reason]
        for p in summary.partitions
        for g in p.gaps
    ]
    if gaps:
        columns = ["source", "from", "to", "offsets", "accepted by", "reason"]
        out.print(table("Gaps", columns, gaps))
    sets = [
        [
            d.dataset,
            d.window,
            d.city,
            d.files,
            d.rows,
            d.file_bytes,
            d.first_date,
            d.last_date,
        ]
        for d in summary.datasets
    ]
    columns = ["dataset", "window", "city", "files", "rows", "bytes", "from", "to"]
    out.print(table("Datasets", columns, sets))
    letters = summary.dead_letters
    if letters is not None and letters.quarantined:
        out.print(
            f"quarantine: {letters.quarantined} records - {letters.replayed} put back "
            f"by {letters.runs} replays = {letters.remaining}"
        )


def _show_dates(dates: list[DateFiles]) -> None:
    rows = [
        [
            d.dataset,
            d.window,
            d.city,
            d.date,
            d.files,
            d.compacted,
            d.staged,
            d.rows,
            d.file_bytes,
        ]
        for d in dates
    ]
    columns = ["dataset", "window", "city", "date", "files", "compacted"]
    columns += ["not yet published", "rows", "bytes"]
    out.print(table("Files by date", columns, rows))


def _newest(partition: PartitionSummary) -> str | None:
    if not partition.watermarks:
        return None
    newest = max(partition.watermarks.values())
    return datetime.fromtimestamp(newest / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _show_report(report: Report) -> None:
    for finding in report.findings:
        err.print(finding, style="red", markup=False)
    verdict = "nothing wrong" if report.ok else f"{len(report.findings)} findings"
    out.print(
        f"verified {report.logs} logs, {report.records} records, {report.files} files, "
        f"{report.offsets} offsets ({report.gap_offsets} given up): {verdict}"
    )
