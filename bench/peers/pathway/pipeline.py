"""What both jobs on Pathway share: the windows, and how they end.

Without a temporal behaviour: Pathway has one time for a whole table, the greatest seen, so
its cutoff drops readings of every partition that is read a little later than another. So
late readings are counted like others, and the suite says so.
"""

import os
from collections.abc import Callable
from typing import Any

import pathway as pw

from bench.peers.contract import WINDOW_MS
from bench.peers.totals import Totals

MINIBATCH_MS = 10_000
"""How often a reader's records become results; seldom, as windows are revised each time."""


def settings(servers: str) -> dict[str, str]:
    """Return librdkafka's settings."""
    return {
        "bootstrap.servers": servers,
        "group.id": f"peers-{os.getpid()}",
        "auto.offset.reset": "earliest",
        "session.timeout.ms": "6000",
    }


def run(readings: Any, measures: Callable[[dict[str, Any]], tuple[float, ...]]) -> None:
    """Fold a table of `series`, `time` and `value`, read to its end, and tell the totals."""
    windows = readings.windowby(
        pw.this.time,
        window=pw.temporal.tumbling(duration=WINDOW_MS),
        instance=pw.this.series,
    ).reduce(
        start=pw.this._pw_window_start,  # noqa: SLF001  (its documented name)
        count=pw.reducers.count(),
        total=pw.reducers.sum(pw.this.value),
        squares=pw.reducers.sum(pw.this.value * pw.this.value),
        low=pw.reducers.min(pw.this.value),
        high=pw.reducers.max(pw.this.value),
    )
    last: dict[Any, dict[str, Any]] = {}

    def changed(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:  # noqa: ARG001, FBT001  (called so)
        # A window is told anew after every minibatch that changed it; the last word counts.
        if is_addition:
            last[key] = row
        elif last.get(key) == row:
            del last[key]

    pw.io.subscribe(windows, changed)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    totals = Totals()
    for row in last.values():
        totals.add(row["start"], *measures(row))
    totals.tell()
