"""What each further window and its quantiles cost: ns a reading, bytes a series.

    python -m bench.windows --series 10000 --intervals 60,6

The windows of the full profile, one after the other, without and with quantiles, folded by
the processor alone (`streamproc.app.costing`, which `streamproc check --measure` runs on a
configuration's own windows for a second). Each run covers so many minutes of event time, the
greatest windows once by default, so closing is in it; CPU time of the thread, least of rounds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.machine import facts
from bench.workloads import FULL_WINDOWS, MINUTE_US
from streamproc.app.costing import Traffic, WindowCost, window_costs

Costs = Mapping[float, Sequence[WindowCost]]
"""By interval, in seconds."""


def table(found: Costs) -> str:
    """Return a line per set of windows, two columns per interval."""
    head, under = f"{'':14}", f"{'windows':14}"
    for interval in found:
        head += f"{f'ns a reading, one every {interval:g} s':>38}"
        under += f"{'plain':>10}{'quantiles':>10}{'bytes a series':>18}"
    lines = [head, under]
    some = next(iter(found.values()))
    for windows in dict.fromkeys(cost.windows for cost in some):
        line = f"{' '.join(windows):14}"
        for costs in found.values():
            plain, full = (c for c in costs if c.windows == windows)
            ns = (plain.ns_per_reading, full.ns_per_reading)
            size = f"{plain.bytes_per_series:,} · {full.bytes_per_series:,}"
            line += "".join(f"{value:10.0f}" for value in ns) + f"{size:>18}"
        lines.append(line)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", "--devices", type=int, default=10_000)
    parser.add_argument("--intervals", default="60,6", help="seconds between readings")
    parser.add_argument("--minutes", type=int, default=60, help="of event time")
    parser.add_argument("--repeat", type=int, default=2, help="the least of so many")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args(arguments)
    machine, found = facts(), {}
    for interval in map(float, given.intervals.split(",")):
        interval_us = round(interval * 1e6)
        laps = given.minutes * MINUTE_US / interval_us
        traffic = Traffic(given.series, interval_us, round(given.series * laps))
        found[interval] = list(window_costs(FULL_WINDOWS, traffic, given.repeat))
    print(table(found))
    given.output.mkdir(exist_ok=True)
    document = {
        "order": {key: str(value) for key, value in vars(given).items()},
        "machine": machine,
        "costs": {f"{i:g}": [asdict(c) for c in costs] for i, costs in found.items()},
    }
    path = given.output / "windows.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
