"""Two workers against one: readings per CPU-second, and what they do at once.

    python -m bench.workers --rows 2000000 --repeat 3

Two ways, one table. *Kafka*: one service, then so many at once in its group, over the same
preloaded topic of a real broker (`bench.endtoend`): what a reading costs must not grow with
the workers. *Memory*: each worker has a processor for itself and record batches in its own
memory (`bench.replayed`), all begin at once, and each has as much to do as the one alone: what
they do in a second must grow with the workers. There is no broker that could be in the way, so
this shows whether anything else is shared: the file system, memory, the machine itself.
What was written is checked in both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from bench import configs
from bench.configs import Job
from bench.endtoend import Order, Place, broker_for, measure
from bench.machine import facts
from bench.preload import preload
from bench.replayed import TOPIC

LEAST_PER_CPU = 0.95
LEAST_WALL = 1.8
"""HOT_PATH.md's, of two workers."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run of so many workers together."""

    way: str
    workers: int
    readings: int
    wall_s: float
    cpu_s: float

    @property
    def per_wall_s(self) -> float:
        return self.readings / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        return self.readings / self.cpu_s


def kafka(order: Order, folder: Path, counts: Sequence[int], laps: int) -> list[Result]:
    """Measure workers that share a topic; CPU without, wall with starting and stopping."""
    results = []
    with broker_for(order, folder) as broker:
        sent = preload(broker.connection, order.load(0))
        place = Place(broker.bootstrap_servers, "", folder)
        for lap in range(laps):
            for count in counts:
                name = lap * 100 + count
                found = measure(replace(order, workers=count), place, sent, name)
                cpu_s = max(found.cpu_s - found.idle_cpu_s, 1e-9)
                results.append(
                    Result("Kafka", count, found.readings, found.wall_s, cpu_s)
                )
    return results


def memory(
    order: Order, folder: Path, counts: Sequence[int], laps: int
) -> list[Result]:
    """Measure workers on processors of their own, each with all of its own readings."""
    cores = sorted(os.sched_getaffinity(0))
    return [
        at_once(order, folder / f"memory-{lap}-{count}", cores[:count])
        for lap in range(laps)
        for count in counts
        if count <= len(cores)
    ]


def at_once(order: Order, folder: Path, cores: Sequence[int]) -> Result:
    """Let a worker a core begin at one moment; return what they did until the last was done."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603  (ours)
                    _command(order, folder / str(core), core),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for core in cores
        ]
        for child in children:
            assert child.stdout is not None
            said = child.stdout.readline()
            assert said == "ready\n", said
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        answers = [json.loads(child.communicate()[0]) for child in children]
    for core, answer in zip(cores, answers, strict=True):
        check(folder / str(core) / "data", answer)
    began_ns = min(answer["began_ns"] for answer in answers)
    ended_ns = max(answer["ended_ns"] for answer in answers)
    return Result(
        way="memory",
        workers=len(cores),
        readings=sum(answer["sent"] for answer in answers),
        wall_s=(ended_ns - began_ns) / 1e9,
        cpu_s=sum(answer["cpu_s"] for answer in answers),
    )


def _command(order: Order, folder: Path, core: int) -> list[str]:
    folder.mkdir(parents=True)
    paths = []
    for name in ("data", "warm-up"):
        made = Job(
            name="memory",
            servers="127.0.0.1:9",
            topics=TOPIC.replace("razlog", "{city}"),
            format="json",
            root=folder / name,
            options={
                "output.flush_bytes": f'"{order.flush_bytes}"',
                "metrics.enabled": "false",
            },
        )
        path = folder / f"{name}.toml"
        path.write_text(
            configs.text(
                made.lines()
                + configs.windows(
                    configs.windows_of(order.profile), quantiles=order.quantiles
                )
                + configs.rules(configs.ruled(order.profile))
            )
        )
        paths.append(str(path))
    command = [sys.executable, "-m", "bench.replayed", *paths, "--core", str(core)]
    for name in ("rows", "devices", "partitions", "compression"):
        command += [f"--{name}", str(getattr(order, name))]
    return command


def check(root: Path, answer: dict[str, Any]) -> None:
    """Raise `AssertionError` unless all that was held was published, once."""
    readings = duckdb.read_parquet(f"{root}/readings/**/*.parquet")
    ((rows, places, total),) = readings.aggregate(
        'count(*), count(DISTINCT (source, "offset", ordinal)), sum(value)'
    ).fetchall()
    assert answer["counted"]["quarantined"] == 0, answer
    assert (rows, places) == (answer["sent"], answer["sent"]), (rows, places, answer)
    assert abs(total - answer["total"]) <= 1e-9 * answer["total"], (total, answer)


def median(results: Sequence[Result], way: str, workers: int) -> tuple[float, float]:
    """Return readings per CPU-second and per second of some runs."""
    found = [r for r in results if (r.way, r.workers) == (way, workers)]
    return (
        statistics.median(result.per_cpu_s for result in found),
        statistics.median(result.per_wall_s for result in found),
    )


def table(results: Sequence[Result]) -> str:
    """Return every run, and the ratio of each number of workers to one."""
    names = ("", "workers", "readings", "wall s", "CPU s", "per wall s", "per CPU s")
    lines = ["".join(f"{name:>12}" for name in names)]
    for r in sorted(results, key=lambda result: (result.way, result.workers)):
        cells = [r.way, f"{r.workers}", f"{r.readings:,}"]
        cells += [f"{r.wall_s:.2f}", f"{r.cpu_s:.2f}"]
        cells += [f"{r.per_wall_s:,.0f}", f"{r.per_cpu_s:,.0f}"]
        lines.append("".join(f"{cell:>12}" for cell in cells))
    for (way, workers), (per_cpu, wall) in ratios(results).items():
        text = f"{way}, {workers} workers to one: {per_cpu:.3f} of its readings per CPU-second"
        if way == "Kafka":
            text += f" (at least {LEAST_PER_CPU})"
        else:
            text += f", {wall:.2f} times its rate (at least {LEAST_WALL} with two)"
        lines.append(text)
    return "\n".join(lines)


def ratios(results: Sequence[Result]) -> dict[tuple[str, int], tuple[float, float]]:
    """Return readings per CPU-second and per wall second, to one worker's, by medians."""
    found = {}
    for way, workers in sorted({(r.way, r.workers) for r in results}):
        if workers > 1:
            per_cpu, wall = median(results, way, workers)
            per_cpu_of_one, wall_of_one = median(results, way, 1)
            found[way, workers] = per_cpu / per_cpu_of_one, wall / wall_of_one
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", default="kafka,memory")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", choices=("core", "full"), default="core")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--series", "--devices", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--interval", type=float, default=60)
    parser.add_argument("--compression", choices=("lz4", "none", "zstd"), default="lz4")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    order = Order(
        profile=given.profile,
        rows=given.rows,
        devices=given.series,
        partitions=given.partitions,
        format="json",
        cities=1,
        interval=given.interval,
        compression=given.compression,
        flush_bytes="64MiB",
        quantiles=True,
        workers=given.workers,
    )
    machine, results = facts(), list[Result]()
    counts = (1, given.workers)
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        ways = {"kafka": kafka, "memory": memory}
        for way in given.ways.split(","):
            results += ways[way](order, Path(name), counts, given.repeat)
    print(table(results))
    given.output.mkdir(exist_ok=True)
    document = {
        "order": asdict(order),
        "machine": machine,
        "runs": [asdict(result) for result in results],
        "ratios": [
            {"way": way, "workers": workers, "per_cpu": per_cpu, "per_wall": wall}
            for (way, workers), (per_cpu, wall) in ratios(results).items()
        ],
    }
    path = given.output / f"workers-{order.profile}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
