"""streamproc itself as one of the systems: its configuration, and what it has written.

It runs as operators run it, so it does more than the peers: Parquet per city of every
reading, aggregate, late reading and alert, and a commit log that survives a crash.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from bench.peers.contract import LATENESS_MS, THRESHOLD, WINDOW_MS
from bench.peers.reference import Rows
from bench.peers.workload import CITY, PROPERTIES, Job, Workload

Profile = Literal["core", "full"]

WINDOW = "1m"
"""The one that is compared."""

WINDOWS: dict[Profile, dict[str, int]] = {
    "core": {WINDOW: WINDOW_MS},
    "full": {WINDOW: WINDOW_MS, "15m": 15 * WINDOW_MS, "1h": 60 * WINDOW_MS},
}

MARKER = "partition opened"
"""In the log line after which it reads."""

_MEASURES: dict[Job, str] = {
    "city": f"sum(min), sum(max), sum(mean), count(*) FILTER (mean > {THRESHOLD})",
    "uc2": "sum(sum), sum(min), sum(max), sum(mean), sum(variance)",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was published: the windows as they closed, late readings, alerts that opened.

    `counted` are all readings by window, with what came late.
    """

    rows: Rows
    late: int
    alerts: int
    counted: dict[str, int]


def config(
    work: Workload, servers: str, registry: str, root: Path, profile: Profile = "core"
) -> str:
    """Return the TOML for a job: its one window, or with two more and quantiles, `full`."""
    lines = [
        'job.name = "peers"',
        f'source.format = "{"json" if work.job == "city" else "avro"}"',
        f'source.bootstrap_servers = "{servers}"',
        f'source.topics = "{work.topic.replace(CITY, "{city}")}"',
        f'output.root = "{root}"',
        "metrics.enabled = false",
        f'cities.{CITY} = {{ timezone = "Europe/Sofia" }}',
        *([f'registry.url = "{registry}"'] if work.job == "uc2" else []),
    ]
    for name, size_ms in WINDOWS[profile].items():
        lines += [
            "[[windows]]",
            f'name = "{name}"',
            f'every = "{size_ms // 1000}s"',
            f'lateness = "{LATENESS_MS // 1000}s"',
            *(["quantiles = [0.5, 0.95]"] if profile == "full" else []),
        ]
    if work.job == "uc2":
        lines += [
            "[avro]",
            'device = "identifier"',
            'time = "timestamp"',
            'value = "valueInW"',
            "[[properties]]",
            'property = "power"',
            'unit = "W"',
        ]
        return "\n".join(lines) + "\n"
    for kind in PROPERTIES:
        lines += [
            "[[rules]]",
            f'name = "{kind}-high"',
            f'property = "{kind}"',
            f'window = "{WINDOW}"',
            f'when = "mean > {THRESHOLD}"',
        ]
    return "\n".join(lines) + "\n"


def found(job: Job, root: Path) -> Found:
    """Read back what was published. Parts that late readings made are not windows."""
    aggregates = duckdb.read_parquet(
        f"{root}/aggregates/**/*.parquet", hive_partitioning=True
    )
    counted = aggregates.aggregate('"window", sum("count")', '"window"').fetchall()
    aggregates = aggregates.filter(f"\"window\" = '{WINDOW}'")
    closed = aggregates.filter("close_reason <> 'late'")
    per_minute = closed.aggregate(
        f'epoch_ms("start"), count(*), sum("count"), {_MEASURES[job]}',
        'epoch_ms("start")',
    )
    late = aggregates.filter("close_reason = 'late'").aggregate(
        'coalesce(sum("count"), 0)'
    )
    alerts = 0
    if any(root.glob("alerts/**/*.parquet")):
        opened = duckdb.read_parquet(f"{root}/alerts/**/*.parquet")
        (alerts,) = opened.filter("transition = 0").aggregate("count(*)").fetchall()[0]
    return Found(
        {start: [float(cell) for cell in row] for start, *row in per_minute.fetchall()},
        late.fetchall()[0][0],
        alerts,
        dict(counted),
    )
