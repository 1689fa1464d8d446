"""The service against a real Apache Kafka, as a child process: readings per CPU-second.

    python -m bench.endtoend --profile core --rows 2000000 --repeat 3
    python -m bench.endtoend --format avro --cities 100 --interval 6 --stages

The topics are filled first and checked afterwards: every reading is in `readings/` once, their
sum is right, and the merged aggregates of each window count them all. CPU is user + system
of the streamproc process alone; the broker, the schema registry and this program are others.
A second run that finds nothing to read gives the cost of starting and stopping; `net` is
without it. `--stages` adds a run whose CPU is divided among the stages (`bench.staged`).
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from bench import configs
from bench.budget import per_reading, shown
from bench.child import Cost, run_child
from bench.configs import Job
from bench.machine import facts
from bench.preload import Load, Sent, preload
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.registry import LocalRegistry

CITY = "razlog"
FLOOR_CORE_JSON = 300_000
"""Readings per CPU-second that issue 3 asks for; HOT_PATH.md has the later targets."""


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


def config(order: Order, place: Place, root: Path, job: str) -> str:
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
        },
    )
    specs = configs.windows_of(order.profile)
    return configs.text(
        made.lines()
        + configs.windows(specs, quantiles=order.quantiles)
        + configs.rules(configs.ruled(order.profile))
    )


def measure(order: Order, place: Place, sent: Sent, lap: int) -> Result:
    """Run the service over all topics once, check what it wrote, say what it cost."""
    root = place.folder / f"data-{lap}"
    command = ["streamproc", *_run(order, place, root, f"bench-{lap}")]
    summary, cost = run_child([sys.executable, "-m", *command])
    check(order, root, summary, sent)
    _, idle = run_child([sys.executable, "-m", *command])
    shutil.rmtree(root)
    return result_of(summary, cost, idle, sent)


def measure_stages(order: Order, place: Place, sent: Sent) -> dict[str, float]:
    """Run it once more, with its stages measured; return ns a reading."""
    root, stages = place.folder / "data-stages", place.folder / "stages.json"
    command = ["bench.staged", str(stages), *_run(order, place, root, "bench-stages")]
    summary, cost = run_child([sys.executable, "-m", *command])
    check(order, root, summary, sent)
    shutil.rmtree(root)
    return per_reading(json.loads(stages.read_text()), cost.cpu_s, sent.readings)


def _run(order: Order, place: Place, root: Path, job: str) -> list[str]:
    path = place.folder / f"{job}.toml"
    path.write_text(config(order, place, root, job))
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


def table(order: Order, sent: Sent, results: Sequence[Result]) -> str:
    """Return a table, one line a run and the medians last."""
    head = (
        f"{order.profile}, {order.format}, {order.compression}, {sent.readings:,} readings "
        f"of {sent.payload_bytes / sent.readings:.0f} payload bytes in {sent.records:,} "
        f"records, {order.devices:,} devices every {order.interval:g} s, {order.cities} "
        f"cities, {order.partitions} partitions each"
    )
    if order.profile == "full":
        head += (
            " (no second stage" + ("" if order.quantiles else ", no quantiles") + ")"
        )
    columns: dict[str, Callable[[Result], str]] = {
        "wall s": lambda r: f"{r.wall_s:.1f}",
        "CPU s": lambda r: f"{r.cpu_s:.1f}",
        "idle CPU s": lambda r: f"{r.idle_cpu_s:.1f}",
        "peak MB": lambda r: f"{r.rss_max_bytes / 1e6:.0f}",
        "per wall s": lambda r: f"{r.per_wall_s:,.0f}",
        "per CPU s": lambda r: f"{r.per_cpu_s:,.0f}",
        "net": lambda r: f"{r.per_cpu_s_net:,.0f}",
        "MB/wall s": lambda r: f"{r.mb_per_wall_s:,.1f}",
        "MB/CPU s": lambda r: f"{r.mb_per_cpu_s_net:,.1f}",
    }
    lines = [head, "       " + "".join(f"{name:>12}" for name in columns)]
    rows = [("run", result) for result in results]
    rows.append(("median", median(results)))
    lines += [
        f"{name:7}" + "".join(f"{cell(result):>12}" for cell in columns.values())
        for name, result in rows
    ]
    return "\n".join(lines)


def median(results: Sequence[Result]) -> Result:
    """Return the median of each column."""
    columns = zip(*(asdict(result).values() for result in results), strict=True)
    return Result(*(statistics.median(column) for column in columns))


def parsed(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("core", "full"), default="core")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4, help="of each topic")
    parser.add_argument(
        "--format",
        choices=("json", "avro", "protobuf", "arrow", "chirpstack"),
        default="json",
    )
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
        with ApacheKafka(folder / "kafka") as broker, LocalRegistry() as registry:
            schema_id = 0
            if order.format in SCHEMAS:
                text = SCHEMAS[order.format]
                schema_id = registry.register("readings", order.format, text)
            sent = preload(broker.connection, order.load(schema_id))
            place = Place(broker.bootstrap_servers, registry.url, folder)
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
