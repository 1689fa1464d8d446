"""`python -m tests.soak`: workers under an even load for hours; what they hold must not grow.

Workers and traffic are those of `tests.chaos`, without faults. Every few seconds memory,
descriptors and threads of each worker, and what lies in staging, are noted; over the second
half a line is fitted to each. Flat means: by the line, an hour adds less than a tenth of what
there is on average, or less than a few pieces. Exit code 0: all are flat, and all was read.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.testing.kafka_broker import ApacheKafka
from tests.chaos.generator import Generator, end_offsets
from tests.chaos.run import TOPICS, reaches
from tests.chaos.setting import ALERTS, PARTITIONS, configuration
from tests.chaos.stores import LocalRoot
from tests.chaos.workers import Workers
from tests.oracle.folder import Folder
from tests.support.real_data import CHECKOUT

LAG_S = 120.0
SHARE_MAX = 0.10
FEW: Mapping[str, float] = {
    "rss": 16 << 20,
    "descriptors": 3,
    "threads": 2,
    "staging": 4 << 20,
}
"""What an hour may add whatever the average is: bytes, or pieces."""


@dataclass(frozen=True)
class Line:
    """A line fitted to one measure: `hourly` is its slope."""

    name: str
    mean: float
    hourly: float
    allowed: float

    @property
    def flat(self) -> bool:
        return self.hourly <= self.allowed


@dataclass
class Samples:
    """Measures by name, each a list of (seconds, value)."""

    of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, seconds: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.of.setdefault(name, []).append((seconds, value))

    def lines(self) -> list[Line]:
        """Fit the second half of each."""
        return [fitted(name, of[len(of) // 2 :]) for name, of in self.of.items()]


def fitted(name: str, points: Sequence[tuple[float, float]]) -> Line:
    """Return the line of least squares; `name` ends with one of `FEW`."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    common = sum((x - mean_x) * (y - mean_y) for x, y in points)
    slope = common / spread if spread else 0.0
    allowed = max(FEW[name.rpartition(" ")[2]], SHARE_MAX * mean_y)
    return Line(name, mean_y, slope * 3600, allowed)


def measured(processes: Mapping[int, psutil.Process]) -> dict[str, float]:
    """Return what each worker holds now."""
    found: dict[str, float] = {}
    for worker, process in processes.items():
        with process.oneshot():
            found[f"worker {worker} rss"] = process.memory_info().rss
            found[f"worker {worker} descriptors"] = process.num_fds()
            found[f"worker {worker} threads"] = process.num_threads()
    return found


def staged(folder: Folder) -> float:
    """Return the bytes in staging; what goes meanwhile counts as nothing."""
    total = 0
    for name in folder.names():
        if "/staging/" in name:
            try:
                total += len(folder.read(name))
            except FileNotFoundError:
                continue
    return total


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    minutes: float
    workers: int
    rate: float
    every_s: float
    folder: Path


async def soak(plan: Plan) -> tuple[list[Line], list[str]]:
    """Run; return the lines and what went wrong."""
    plan.folder.mkdir(parents=True)
    broker = ApacheKafka(plan.folder / "kafka")
    await asyncio.to_thread(broker.start)
    try:
        return await _soak(plan, broker)
    finally:
        await asyncio.to_thread(broker.stop)


async def _soak(plan: Plan, broker: ApacheKafka) -> tuple[list[Line], list[str]]:
    async with KafkaProduce(broker.connection) as produce:
        await produce.create_topics(TOPICS, PARTITIONS)
        await produce.create_topics([ALERTS], 1)
    store = LocalRoot(plan.folder / "root")
    config = plan.folder / "soak.toml"
    text = configuration(broker.bootstrap_servers, store.output())
    config.write_text(text, encoding="utf-8")
    workers = Workers(config, plan.folder, plan.workers)
    generator = Generator(
        broker.bootstrap_servers, random.Random(0), plan.rate, keeps=False
    )
    faults: list[str] = []
    workers.start_all()
    generator.start()
    try:
        samples = await _sampled(plan, workers, store.folder())
        await asyncio.to_thread(generator.stop)
        ends = await asyncio.to_thread(end_offsets, broker.bootstrap_servers, TOPICS)
        if not await reaches(store.folder(), ends, LAG_S):
            faults.append(f"not everything was read {LAG_S} s after")
        codes = await asyncio.gather(*map(workers.terminate, range(workers.count)))
        faults += [f"a worker ended with {code}" for code in codes if code]
    finally:
        generator.stop()
        workers.close()
    return samples.lines(), faults


async def _sampled(plan: Plan, workers: Workers, folder: Folder) -> Samples:
    clock, samples = SystemClock(), Samples()
    began = clock.monotonic_us()
    while (seconds := (clock.monotonic_us() - began) / 1e6) < plan.minutes * 60:
        values = await asyncio.to_thread(measured, workers.processes())
        values["staging"] = await asyncio.to_thread(staged, folder)
        samples.add(seconds, values)
        await asyncio.sleep(plan.every_s)
    return samples


def main() -> int:
    """Run as told, print the lines and the verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5_000.0, help="records a second")
    parser.add_argument("--every", type=float, default=5.0, help="seconds, of a look")
    given = parser.parse_args()
    folder = CHECKOUT / "build" / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    plan = Plan(given.minutes, given.workers, given.rate, given.every, folder)
    lines, faults = asyncio.run(soak(plan))
    told = [asdict(line) | {"flat": line.flat} for line in lines]
    text = json.dumps({"minutes": given.minutes, "rate": given.rate, "lines": told})
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    for line in lines:
        verdict = "flat" if line.flat else "GROWS"
        sys.stdout.write(
            f"{line.name:24} mean {line.mean:15,.1f}  an hour {line.hourly:+15,.1f}"
            f"  allowed {line.allowed:15,.1f}  {verdict}\n"
        )
    for fault in faults:
        sys.stdout.write(f"FAULT  {fault}\n")
    return 1 if faults or not all(line.flat for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
