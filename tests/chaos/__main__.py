"""`python -m tests.chaos`: kill, stop, cut and restart, and see that nothing is lost or doubled.

Three workers read three towns from a real Apache Kafka while faults come by the dice. Then
an oracle that shares no code with the product computes what must have been published and
compares (O1 to O8 of EXACTLY_ONCE.md 3.4). Exit code 0: every promise held.
"""

import argparse
import asyncio
import random
import shutil
import sys
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.run import Chaos, Plan, Summary
from tests.support.real_data import CHECKOUT


def arguments() -> Plan:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long it lasts")
    parser.add_argument("--seed", type=int, help="of faults and traffic")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--rate", type=float, default=300.0, help="records a second")
    parser.add_argument(
        "--only", action="append", choices=tuple(FAULTS), help="these faults alone"
    )
    parser.add_argument("--folder", type=Path, help="where everything is kept")
    given = parser.parse_args()
    seed = given.seed
    if seed is None:
        seed = random.SystemRandom().getrandbits(32)
    folder = given.folder or CHECKOUT / "build" / f"chaos-{given.store}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    return Plan(
        given.minutes,
        seed,
        given.workers,
        given.store,
        given.rate,
        folder.absolute(),
        tuple(given.only or ()),
    )


def show(summary: Summary) -> None:
    lines = [
        f"seed {summary.seed}, {summary.store}, {summary.seconds:.0f} s",
        f"{summary.workers} workers, {summary.starts} starts",
        f"{summary.sent} sent, {summary.acked} acknowledged to {summary.producers} producers",
        "faults: " + ", ".join(f"{k} {n}" for k, n in sorted(summary.faults.items())),
        "found: " + ", ".join(f"{k} {n}" for k, n in summary.counts.items()),
        "told: " + ", ".join(f"{k} {n}" for k, n in summary.events.items()),
        f"lag 0 after {summary.recovery_s} s, {summary.looks} looks while it ran",
    ]
    lines += [
        f"worker {end['worker']} ended by itself with {end['code']}: "
        f"{end['words'].strip().splitlines()[-1:]}"
        for end in summary.ended_by_themselves
    ]
    lines += [f"FAULT  {finding}" for finding in summary.findings]
    lines += ["every promise held" if not summary.findings else "NOT everything held"]
    lines += [f"again: {summary.repeat}"]
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> int:
    plan = arguments()
    sys.stderr.write(f"seed {plan.seed}, {plan.folder}\n")
    summary = asyncio.run(Chaos(plan).run())
    show(summary)
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
