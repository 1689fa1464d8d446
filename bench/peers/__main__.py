"""The same two jobs on streamproc and on what users could take instead, in turn.

    python -m bench.peers --records 2000000 --repeat 3

One Apache Kafka, one machine, the same topics; README.md in this folder says what exactly is
computed, how each system is set up, and what is not equal. Writes `peers.json`, `peers.md`
and `peers-<job>.svg` below `.benchmarks/`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.chart import peers
from bench.machine import facts
from bench.peers.report import markdown
from bench.peers.suite import NAMES, Order, Suite
from bench.peers.systems import BASELINES
from bench.peers.workload import Job

JOBS: tuple[Job, ...] = ("city", "uc2")


def order_of(arguments: Sequence[str] | None) -> tuple[Order, Path]:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--job", action="append", choices=JOBS, help="this one alone (default: both)")
    add("--only", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add("--records", type=int, default=2_000_000, help="of the city job")
    add("--series", type=int, default=10_000, help="of the city job")
    add("--uc2-records", type=int, default=2_000_000)
    add("--sensors", type=int, default=10_000, help="of UC2, a message a second each")
    add("--repeat", type=int, default=1)
    add("--limit", type=float, default=900.0, help="seconds a run may take")
    add("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    order = Order(
        jobs=given.job or JOBS,
        names=[name for name in NAMES if not given.only or name in given.only],
        records=given.records,
        series=given.series,
        uc2_records=given.uc2_records,
        sensors=given.sensors,
        repeat=given.repeat,
        limit_s=given.limit,
    )
    return order, given.output


def main(arguments: Sequence[str] | None = None) -> int:
    order, output = order_of(arguments)
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="streamproc-peers-") as name:
        suite = Suite(order, Path(name))
        with suite.started():
            lines = suite.lines()
    text = markdown(list(lines.items()), BASELINES, machine)
    print(text)
    output.mkdir(parents=True, exist_ok=True)
    (output / "peers.md").write_text(text)
    document = {
        "order": asdict(order),
        "machine": machine,
        "jobs": {
            job: [{**asdict(line), "verdict": line.verdict} for line in of_job]
            for job, of_job in lines.items()
        },
    }
    (output / "peers.json").write_text(json.dumps(document, indent=2) + "\n")
    for name_of_chart, chart in peers(document):
        (output / f"{name_of_chart}.svg").write_text(chart)
    return 0 if all(line.runs for of_job in lines.values() for line in of_job) else 1


if __name__ == "__main__":
    sys.exit(main())
