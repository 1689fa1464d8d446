"""`streamproc check CONFIG`: validate, explain, and where asked to, try it."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from streamproc.analytics.inspect import PartitionSummary, inspect_logs
from streamproc.app.costing import Traffic, WindowCost, window_costs
from streamproc.app.outside import kafka_options
from streamproc.app.reading import root_of
from streamproc.app.storing import probe_store
from streamproc.cli.console import DONE, FAILED, err, out, print_json, table
from streamproc.config import describe, format_duration
from streamproc.config import load as load_settings
from streamproc.connectors.kafka_check import ConnectionReport, check_connection

RESTARTS_SHOWN = 10
"""Partitions whose restart takes longest."""


def check(
    config: Annotated[Path, typer.Argument(help="The TOML file.")],
    connect: Annotated[
        bool, typer.Option("--connect", help="Try the broker and the output root.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="What windows and quantiles cost here: some seconds."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Validate a configuration and explain what it means; list every fault at once.

    Example: `streamproc check streamproc.toml --connect`
    """
    settings = load_settings(config, os.environ)
    options = kafka_options(settings)
    described = describe(settings)
    report = asyncio.run(check_connection(options)) if connect else None
    store = probe_store(settings) if connect else None
    windows = settings.definition.windows
    costs = tuple(window_costs(windows, Traffic())) if measure else ()
    root = root_of(settings, connect=connect)
    logs = () if root is None else inspect_logs(root)
    if as_json:
        print_json(
            {
                "configuration": described,
                "connection": report,
                "store": store,
                "costs": [asdict(cost) for cost in costs],
                "restart": [_restart(log) for log in logs],
            }
        )
    else:
        _show(described)
        if costs:
            _show_costs(costs)
        if logs:
            _show_restart(logs)
        if report is not None:
            _show_connection(report)
            out.print(f"{settings.output.root}: {store}", markup=False)
    return FAILED if report is not None and report.faults else DONE


def _show(described: object) -> None:
    from rich.pretty import Pretty  # noqa: PLC0415  (slow to import, only needed here)

    out.print(Pretty(described, expand_all=True))
    out.print("[green]the configuration is sound[/]")


def _show_costs(costs: Sequence[WindowCost]) -> None:
    columns = ["windows", "quantiles", "ns a reading", "bytes a series"]
    rows = [
        [
            ", ".join(cost.windows),
            "with" if cost.quantiles else "without",
            round(cost.ns_per_reading),
            cost.bytes_per_series,
        ]
        for cost in costs
    ]
    traffic = Traffic()
    every = format_duration(traffic.interval_us)
    title = f"Folding, measured: {traffic.series:,} series, a reading every {every}"
    out.print(table(title, columns, rows))


def _restart(log: PartitionSummary) -> dict[str, object]:
    """Return what a start would read of one partition, and how long that takes, about."""
    return {
        "source": f"{log.topic}/{log.partition}",
        "snapshot_bytes": 0 if log.snapshot is None else log.snapshot.size,
        "refold_readings": log.refold_readings,
        "seconds": log.restore_seconds,
    }


def _show_restart(logs: Sequence[PartitionSummary]) -> None:
    found = sorted(map(_restart, logs), key=lambda one: -float(str(one["seconds"])))
    rows = [
        [*list(one.values())[:-1], f"{one['seconds']:.1f}"]
        for one in found[:RESTARTS_SHOWN]
    ]
    total = sum(log.restore_seconds for log in logs)
    title = f"A start here: about {total:.1f} s for {len(logs)} partitions"
    columns = ["source", "snapshot B", "readings to fold again", "s"]
    out.print(table(title, columns, rows))


def _show_connection(report: ConnectionReport) -> None:
    rows = [
        [t.name, t.partitions, t.replicas, t.timestamp_type, "; ".join(t.advice)]
        for t in report.topics
    ]
    columns = ["topic", "partitions", "replicas", "timestamps", "advice"]
    out.print(table("Topics", columns, rows))
    for fault in report.faults:
        err.print(fault, style="red", markup=False)
