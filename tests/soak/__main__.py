"""`python -m tests.soak`: workers under an even load for hours; what they hold must not grow.

Workers and traffic are those of `tests.chaos`, without faults; with `--bulk` the workers do what
`bench.endtoend --profile full` does, with windows that close many times meanwhile, under as many
readings as half of the machine can bear. Every few seconds memory, descriptors and threads of each
worker, and what lies in staging, are noted (`samples.ndjson`); over the second half a line
is fitted to each. Flat means: by the line, an hour adds less than a tenth of what there is on
average, or less than a few pieces. Exit code 0: all are flat, and all was read.
"""

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.testing.kafka_broker import ApacheKafka
from tests.chaos.generator import end_offsets
from tests.chaos.run import reaches
from tests.chaos.setting import ALERTS
from tests.chaos.workers import Workers
from tests.oracle.folder import Folder, LocalFolder
from tests.soak.lines import Line, Samples
from tests.soak.scenes import Bulk, Mixed, Scene
from tests.support.real_data import CHECKOUT

LAG_S = 120.0


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
    every_s: float
    folder: Path
    scene: Scene


@dataclass(frozen=True)
class Outcome:
    """What was seen. `cpu` has processor-seconds a second: of the workers, of the machine."""

    lines: Sequence[Line]
    cpu: Mapping[str, float]
    records: int
    faults: Sequence[str]


async def soak(plan: Plan) -> Outcome:
    """Run; return what was seen, and what went wrong."""
    broker = ApacheKafka(plan.folder / "kafka")
    await asyncio.to_thread(broker.start)
    try:
        return await _soak(plan, broker)
    finally:
        await asyncio.to_thread(broker.stop)


async def _soak(plan: Plan, broker: ApacheKafka) -> Outcome:
    scene, folder = plan.scene, LocalFolder(plan.folder / "root")
    async with KafkaProduce(broker.connection) as produce:
        await scene.create_topics(produce)
        await produce.create_topics([ALERTS], 1)
    config = plan.folder / "soak.toml"
    text = scene.configuration(broker, plan.folder / "root")
    config.write_text(text, encoding="utf-8")
    workers = Workers(config, plan.folder, plan.workers)
    workers.start_all()
    try:
        scene.start(broker, plan.minutes * 60)
        samples, cpu = await _sampled(plan, workers, folder)
        faults = await asyncio.to_thread(scene.stop)
        ends = await asyncio.to_thread(
            end_offsets, broker.bootstrap_servers, scene.topics
        )
        if not await reaches(folder, ends, LAG_S):
            faults.append(f"not everything was read {LAG_S} s after")
        codes = await asyncio.gather(*map(workers.terminate, range(workers.count)))
        faults += [f"a worker ended with {code}" for code in codes if code]
    finally:
        scene.stop()
        workers.close()
    return Outcome(samples.lines(), cpu, sum(ends.values()), faults)


async def _sampled(
    plan: Plan, workers: Workers, folder: Folder
) -> tuple[Samples, Mapping[str, float]]:
    clock, samples = SystemClock(), Samples()
    began, before = clock.monotonic_us(), _busy_s(workers)
    while (seconds := (clock.monotonic_us() - began) / 1e6) < plan.minutes * 60:
        values = await asyncio.to_thread(measured, workers.processes())
        values["staging"] = await asyncio.to_thread(staged, folder)
        samples.add(seconds, values)
        line = json.dumps({"seconds": seconds, **values})
        await asyncio.to_thread(_append, plan.folder / "samples.ndjson", line)
        await asyncio.sleep(plan.every_s)
    after = _busy_s(workers)
    return samples, {name: (after[name] - before[name]) / seconds for name in after}


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _busy_s(workers: Workers) -> dict[str, float]:
    """Return the processor-seconds that the workers, and all of the machine, have used."""
    each = [process.cpu_times() for process in workers.processes().values()]
    machine = psutil.cpu_times()
    return {
        "workers": sum(times.user + times.system for times in each),
        "machine": sum(machine) - machine.idle - machine.iowait,
    }


def given(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5_000.0, help="records a second")
    parser.add_argument("--bulk", action="store_true", help="whole batches of readings")
    parser.add_argument("--devices", type=int, default=100_000, help="with --bulk")
    parser.add_argument(
        "--windows", default="1,5,15", help="minutes of each, with --bulk"
    )
    parser.add_argument("--every", type=float, default=5.0, help="seconds, of a look")
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "build" / "soak")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as told, print the lines and the verdict."""
    told = given(arguments)
    folder: Path = told.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    minutes = [float(one) for one in told.windows.split(",")]
    scene = (
        Bulk(told.rate, told.devices, minutes, folder)
        if told.bulk
        else Mixed(told.rate)
    )
    plan = Plan(told.minutes, told.workers, told.every, folder, scene)
    outcome = asyncio.run(soak(plan))
    summary = {
        "asked": {name: str(value) for name, value in vars(told).items()},
        "cpu": outcome.cpu,
        "records": outcome.records,
        "lines": [asdict(line) | {"flat": line.flat} for line in outcome.lines],
        "faults": outcome.faults,
    }
    text = json.dumps(summary, indent=1)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(_told(outcome))
    flat = all(line.flat for line in outcome.lines)
    return 1 if outcome.faults or not flat else 0


def _told(outcome: Outcome) -> str:
    lines = [
        f"{line.name:24} mean {line.mean:15,.1f}  an hour {line.hourly:+15,.1f}"
        f"  allowed {line.allowed:15,.1f}  {'flat' if line.flat else 'GROWS'}"
        for line in outcome.lines
    ]
    cpu = ", ".join(f"{name} {share:.2f}" for name, share in outcome.cpu.items())
    lines.append(f"{outcome.records:,} records; processors busy: {cpu}")
    lines += [f"FAULT  {fault}" for fault in outcome.faults]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
