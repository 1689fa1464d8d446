"""The service against a real Apache Kafka, as a child process: readings per CPU-second.

    python -m bench.endtoend --profile core --rows 2000000 --repeat 3
    python -m bench.endtoend --format avro --cities 100 --interval 6 --stages
    python -m bench.endtoend --series 100000 --workers 2
    python -m bench.endtoend --store s3

The topics are filled first and checked afterwards: every reading is in `readings/` once, their
sum is right, and the merged aggregates of each window count them all. CPU is user + system
of the streamproc process alone; the broker, the schema registry and this program are others.
A second run that finds nothing to read gives the cost of starting and stopping; `net` is
without it. `--workers N` starts N services at once in one group, as an operator would, each with
the whole job; CPU and memory are summed, wall is until the last has ended, and what they wrote
is checked together. Then the broker waits three seconds for a group's members, which is Kafka's default
(and in the wall time); else it would give everything to the first.
`--store s3` writes to a bucket of a versitygw on this machine, whose CPU does not count. `--stages` adds a run whose CPU is divided among the stages (`bench.staged`).
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from bench import configs
from bench.budget import per_reading, shown
from bench.child import Cost, run_child, run_together, together
from bench.configs import Job
from bench.machine import facts
from bench.preload import Load, Sent, preload
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.registry import LocalRegistry
from streamproc.testing.s3_server import S3Server

CITY = "razlog"
BUCKET = "bench"
FLOOR_CORE_JSON = 300_000
"""Readings per CPU-second that issue 3 asks for; HOT_PATH.md has the later targets."""

GROUP_DELAY_MS = 3_000
"""Kafka's default for `group.initial.rebalance.delay.ms`."""

FORMATS = ("json", "avro", "protobuf", "arrow", "packed", "chirpstack")
SCHEMAS = {"avro": READING_AVSC, "protobuf": READING_PROTO}


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure. Every device is a series and reports once in `interval` seconds."""

    profile: str
    rows: int
    devices: int
    partitions: int
    format: str
    cities: int
    interval: float
    compression: str
    flush_bytes: str
    quantiles: bool
    workers: int = 1
    store: str = "local"

    @property
    def city_names(self) -> tuple[str, ...]:
        if self.cities == 1:
            return (CITY,)
        return tuple(f"town-{number:03d}" for number in range(self.cities))

    @property
    def topic(self) -> str:
        parts = (self.rows, self.devices, self.partitions, self.interval)
        kind = f"{self.format}-{self.compression}"
        return f"telemetry-{kind}-{'-'.join(map(str, parts))}.{{city}}"

    def load(self, schema_id: int) -> Load:
        return Load(
            topic=self.topic,
            partitions=self.partitions,
            rows=self.rows,
            devices=self.devices,
            format=self.format,
            cities=self.city_names,
            interval_us=round(self.interval * 1e6),
            codec=self.compression,
            schema_id=schema_id,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One run. Rates are readings, or payload bytes, per second of wall and of CPU."""

    readings: int
    wall_s: float
    cpu_s: float
    idle_wall_s: float
    idle_cpu_s: float
    rss_max_bytes: int
    files: int
    per_wall_s: float
    per_cpu_s: float
    per_cpu_s_net: float
    mb_per_wall_s: float
    mb_per_cpu_s_net: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where the topics and the schemas are, and where runs may write."""

    servers: str
    registry: str
    folder: Path
    s3: S3Server | None = None

    def root(self, name: str) -> tuple[Path, str, dict[str, str]]:
        """Return where a run's files are, what its `root` is, and further options."""
        if self.s3 is None:
            return self.folder / name, str(self.folder / name), {}
        options = self.s3.options(BUCKET, name)
        secret = self.folder / "s3.secret"
        secret.write_text(str(options.secret_access_key))
        given = {
            "s3.endpoint": f'"{options.endpoint}"',
            "s3.access_key_id": f'"{options.access_key_id}"',
            "s3.secret_access_key_file": f'"{secret}"',
            "s3.path_style": "true",
        }
        return self.s3.folder(BUCKET) / name, options.url, given


def config(order: Order, place: Place, root: Path | str, job: str) -> str:
    """Return the TOML of a profile, as HOT_PATH.md defines it (no second stage yet)."""
    made = Job(
        name=job,
        servers=place.servers,
        topics=order.topic,
        format=order.format,
        root=root,
        cities=order.city_names,
        registry=place.registry if order.format in SCHEMAS else "",
        options={
            "output.flush_bytes": f'"{order.flush_bytes}"',
            "metrics.enabled": "false",
            **place.root(job)[2],
        },
    )
    specs = configs.windows_of(order.profile)
    return configs.text(
        made.lines()
        + configs.windows(specs, quantiles=order.quantiles)
        + configs.rules(configs.ruled(order.profile))
    )


def broker_for(order: Order, folder: Path) -> ApacheKafka:
    """Return a broker that waits for all workers before it shares the partitions out."""
    delay_ms = GROUP_DELAY_MS if order.workers > 1 else 0
    return ApacheKafka(folder / "kafka", rebalance_delay_ms=delay_ms)


def measure(order: Order, place: Place, sent: Sent, lap: int) -> Result:
    """Run the service over all topics once, check what it wrote, say what it cost."""
    root, _, _ = place.root(f"bench-{lap}")
    command = ["streamproc", *_run(order, place, f"bench-{lap}")]
    commands = [[sys.executable, "-m", *command]] * order.workers
    summaries, costs = zip(*run_together(commands), strict=True)
    summary = summed(summaries)
    check(order, root, summary, sent)
    idle = together([cost for _, cost in run_together(commands)])
    shutil.rmtree(root)
    return result_of(summary, together(costs), idle, sent)


def summed(summaries: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the counts of all workers together."""
    names = ("readings", "quarantined", "files")
    return {name: sum(summary[name] for summary in summaries) for name in names}


def measure_stages(order: Order, place: Place, sent: Sent) -> dict[str, float]:
    """Run it once more, with its stages measured; return ns a reading."""
    (root, _, _), stages = place.root("bench-stages"), place.folder / "stages.json"
    command = ["bench.staged", str(stages), *_run(order, place, "bench-stages")]
    summary, cost = run_child([sys.executable, "-m", *command])
    check(order, root, summary, sent)
    shutil.rmtree(root)
    return per_reading(json.loads(stages.read_text()), cost.cpu_s, sent.readings)


def _run(order: Order, place: Place, job: str) -> list[str]:
    path = place.folder / f"{job}.toml"
    path.write_text(config(order, place, place.root(job)[1], job))
    return ["run", str(path), "--until-end", "--close", "--json"]


def result_of(summary: dict[str, Any], cost: Cost, idle: Cost, sent: Sent) -> Result:
    readings = summary["readings"]
    net_s = max(cost.cpu_s - idle.cpu_s, 1e-9)
    return Result(
        readings=readings,
        wall_s=cost.wall_s,
        cpu_s=cost.cpu_s,
        idle_wall_s=idle.wall_s,
        idle_cpu_s=idle.cpu_s,
        rss_max_bytes=cost.rss_max_bytes,
        files=summary["files"],
        per_wall_s=readings / cost.wall_s,
        per_cpu_s=readings / cost.cpu_s,
        per_cpu_s_net=readings / net_s,
        mb_per_wall_s=sent.payload_bytes / 1e6 / cost.wall_s,
        mb_per_cpu_s_net=sent.payload_bytes / 1e6 / net_s,
    )


def check(order: Order, root: Path, summary: dict[str, Any], sent: Sent) -> None:
    """Raise `AssertionError` unless all that was sent was published, once."""
    assert summary["readings"] == sent.readings, summary
    assert summary["quarantined"] == 0, summary
    readings = duckdb.read_parquet(f"{root}/readings/**/*.parquet")
    place = '(source, "offset", ordinal)'
    ((rows, places, total),) = readings.aggregate(
        f"count(*), count(DISTINCT {place}), sum(value)"
    ).fetchall()
    assert (rows, places) == (sent.readings, sent.readings), (rows, places)
    assert abs(total - sent.total) <= 1e-9 * abs(sent.total), (total, sent.total)
    aggregates = duckdb.read_parquet(
        f"{root}/aggregates/**/*.parquet", hive_partitioning=True
    )
    counted = aggregates.aggregate('"window", sum(count + invalid)').fetchall()
    windows = 3 if order.profile == "full" else 1
    assert len(counted) == windows, counted
    assert all(count == sent.readings for _, count in counted), counted


COLUMNS: dict[str, tuple[Callable[[Result], float], str]] = {
    "wall s": (lambda r: r.wall_s, ".1f"),
    "CPU s": (lambda r: r.cpu_s, ".1f"),
    "idle CPU s": (lambda r: r.idle_cpu_s, ".1f"),
    "peak MB": (lambda r: r.rss_max_bytes / 1e6, ".0f"),
    "per wall s": (lambda r: r.per_wall_s, ",.0f"),
    "per CPU s": (lambda r: r.per_cpu_s, ",.0f"),
    "net": (lambda r: r.per_cpu_s_net, ",.0f"),
    "MB/wall s": (lambda r: r.mb_per_wall_s, ",.1f"),
    "MB/CPU s": (lambda r: r.mb_per_cpu_s_net, ",.1f"),
}
"""What the table shows: a value of a run, and how it is written."""


def spreads(results: Sequence[Result]) -> list[float]:
    """Return each column's greatest less its least value, as a part of its median."""
    found = []
    for value, _ in COLUMNS.values():
        values = [value(result) for result in results]
        found.append((max(values) - min(values)) / statistics.median(values))
    return found


def table(order: Order, sent: Sent, results: Sequence[Result]) -> str:
    """Return a table, one line a run, then medians, and how far runs lie apart."""
    head = (
        f"{order.profile}, {order.format}, {order.compression}, {sent.readings:,} readings "
        f"of {sent.payload_bytes / sent.readings:.0f} payload bytes in {sent.records:,} "
        f"records, {order.devices:,} devices every {order.interval:g} s, {order.cities} "
        f"cities, {order.partitions} partitions each"
        + (f", {order.workers} workers" if order.workers > 1 else "")
        + (", output in a bucket" if order.store == "s3" else "")
    )
    if order.profile == "full":
        head += (
            " (no second stage" + ("" if order.quantiles else ", no quantiles") + ")"
        )
    lines = [head, "       " + "".join(f"{name:>12}" for name in COLUMNS)]
    rows = [("run", result) for result in results]
    rows.append(("median", median(results)))
    for name, result in rows:
        cells = (f"{value(result):12{style}}" for value, style in COLUMNS.values())
        lines.append(f"{name:7}" + "".join(cells))
    if len(results) > 1:
        lines.append(
            "spread " + "".join(f"{spread:12.0%}" for spread in spreads(results))
        )
    return "\n".join(lines)


def median(results: Sequence[Result]) -> Result:
    """Return the median of each column."""
    columns = zip(*(asdict(result).values() for result in results), strict=True)
    return Result(*(statistics.median(column) for column in columns))


def parsed(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("core", "full"), default="core")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument(
        *("--devices", "--series"),
        type=int,
        default=10_000,
        help="a device measures one property, so it is a series",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="services that share the partitions"
    )
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--partitions", type=int, default=4, help="of each topic")
    parser.add_argument("--format", choices=FORMATS, default="json")
    parser.add_argument("--cities", type=int, default=1, help="a topic each")
    parser.add_argument(
        "--interval", type=float, default=60, help="seconds between a device's readings"
    )
    parser.add_argument("--compression", choices=("lz4", "none", "zstd"), default="lz4")
    parser.add_argument("--flush-bytes", default="64MiB", help="[output] flush_bytes")
    parser.add_argument(
        "--quantiles", action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument("--stages", action="store_true", help="ns a reading by stage")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    return vars(parser.parse_args(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    repeat, output, stages = (given.pop(k) for k in ("repeat", "output", "stages"))
    order = Order(**given)
    machine = facts()
    budget: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        s3 = S3Server(folder / "s3") if order.store == "s3" else None
        with (
            broker_for(order, folder) as broker,
            LocalRegistry() as registry,
            s3 or nullcontext(),
        ):
            schema_id = 0
            if order.format in SCHEMAS:
                text = SCHEMAS[order.format]
                schema_id = registry.register("readings", order.format, text)
            sent = preload(broker.connection, order.load(schema_id))
            place = Place(broker.bootstrap_servers, registry.url, folder, s3)
            results = [measure(order, place, sent, lap) for lap in range(repeat)]
            if stages:
                budget = measure_stages(order, place, sent)
    print(table(order, sent, results))
    if budget:
        print(shown(budget))
    output.mkdir(exist_ok=True)
    document = {
        "order": asdict(order),
        "machine": machine,
        "sent": asdict(sent),
        "runs": [asdict(result) for result in results],
        "median": asdict(median(results)),
        "stages_ns_per_reading": budget,
    }
    parts = (order.profile, order.format, order.compression, order.devices)
    shape = f"{order.cities}c-{order.interval:g}s"
    if order.workers > 1:
        shape += f"-{order.workers}w"
    if order.store != "local":
        shape += f"-{order.store}"
    path = output / f"endtoend-{'-'.join(map(str, parts))}-{shape}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return below_the_floor(order, median(results))


def below_the_floor(order: Order, result: Result) -> int:
    """Return the exit code: 1 where issue 3's floor for core and JSON does not hold."""
    floor = FLOOR_CORE_JSON if (order.profile, order.format) == ("core", "json") else 0
    if result.per_cpu_s >= floor:
        return 0
    print(f"below the floor of {floor:,} readings per CPU-second")
    return 1


if __name__ == "__main__":
    sys.exit(main())
