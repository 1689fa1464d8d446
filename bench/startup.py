"""From the start of the process to the first record folded: what takes how long.

    python -m bench.startup --repeat 5

`streamproc run` as a child on a real Kafka with a small topic, kernels in the cache. The child
notes wall time since its exec and its own CPU at some places (functions of the service,
wrapped by `bench.started`), and what loading compiled kernels took in between; this program prints the steps
of the least run (by CPU) and the medians of the whole. pandas, coverage and yaml are kept out of
the child: an installation (requirements-run.txt) has none of them, and they would add half a second. `--format` as in `bench.endtoend`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.child import run_child
from bench.endtoend import FORMATS, SCHEMAS, Order, Place, config
from bench.machine import facts
from bench.preload import preload
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.registry import LocalRegistry

TARGET_S = 3.0
FOLDED = "first records folded"


Found = dict[str, tuple[float, float, float]]
"""By place: wall, CPU and kernels' CPU since the start, in seconds."""


def measure(order: Order, where: Place, lap: int) -> Found:
    job = f"startup-{lap}"
    path, target = where.folder / f"{job}.toml", where.folder / f"{job}.json"
    path.write_text(config(order, where, where.folder / job, job))
    command = [sys.executable, "-m", "bench.started", str(time.monotonic_ns())]
    command += [str(target), "run", str(path), "--until-end", "--json"]
    summary, _ = run_child(command)
    assert summary["readings"] == order.rows, summary
    found: Found = json.loads(target.read_text())
    return found


def table(found: Found) -> str:
    """Return a line a place: since the start, and since the place before."""
    names = ("wall s", "CPU s", "step wall", "step CPU", "kernels")
    lines = [f"{'':24}" + "".join(f"{name:>11}" for name in names)]
    before = (0.0, 0.0, 0.0)
    for name, marks in sorted(found.items(), key=lambda item: item[1][0]):
        wall_s, cpu_s, kernels_s = marks
        steps = (now - then for now, then in zip(marks, before, strict=True))
        step_wall_s, step_cpu_s, step_kernels_s = steps
        cells = (wall_s, cpu_s, step_wall_s, step_cpu_s, step_kernels_s)
        lines.append(f"{name:24}" + "".join(f"{cell:11.2f}" for cell in cells))
        before = (wall_s, cpu_s, kernels_s)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=("core", "full"), default="core")
    parser.add_argument("--format", choices=FORMATS, default="json")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    order = Order(
        *(given.profile, given.rows, 1_000, 4, given.format, 1, 6.0, "lz4", "64MiB"),
        quantiles=True,
    )
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        with ApacheKafka(folder / "kafka") as broker, LocalRegistry() as registry:
            schema_id = 0
            if order.format in SCHEMAS:
                text = SCHEMAS[order.format]
                schema_id = registry.register("readings", order.format, text)
            preload(broker.connection, order.load(schema_id))
            where = Place(broker.bootstrap_servers, registry.url, folder)
            measure(order, where, given.repeat)  # whatever is not in the cache yet
            runs = [measure(order, where, lap) for lap in range(given.repeat)]
    print(table(min(runs, key=lambda found: found[FOLDED][1])))
    wall_s, cpu_s, kernels_s = (
        statistics.median(found[FOLDED][column] for found in runs)
        for column in range(3)
    )
    print(
        f"\n{FOLDED}, median of {len(runs)}: {wall_s:.2f} s after the start (at most "
        f"{TARGET_S:g} wanted), {cpu_s:.2f} s of CPU, {kernels_s:.2f} of it loading kernels"
    )
    given.output.mkdir(exist_ok=True)
    path = given.output / f"startup-{order.profile}-{order.format}.json"
    document = {"machine": machine, "rows": order.rows, "runs": runs}
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
