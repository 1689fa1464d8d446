"""Memory of the state: one process, many series, three windows, quantiles off.

    python -m bench.memory --series 100000

Prints one JSON object: the resident set after the imports and making the devices' names, after the load (every series has
been heard in every window, nothing is buffered), its peak, and what the state says it takes.
Batches are of 20,000 readings, as a fetch hands them over; emissions are let go at once, so
this is the state and the work on it, without buffers that wait for a commit.
"""

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import workloads as w
from streamproc.config.zones import zone
from streamproc.core.definition import Definition
from streamproc.core.processor import PartitionProcessor
from streamproc.runtime.collector import set_for_streaming

BATCH = 20_000
LAPS = 3


def three_windows() -> Definition:
    full = w.definition("full")
    windows = tuple(replace(window, quantiles=()) for window in full.windows)
    return replace(full, windows=windows)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100_000)
    series = parser.parse_args(arguments).series
    set_for_streaming()
    w.vocabulary_of(
        series
    )  # which a decoder would hold; what making it takes is the bench's
    before = resident_bytes()
    processor = PartitionProcessor(
        w.ORIGIN, three_windows(), {"razlog": zone("Europe/Sofia")}
    )
    batch = min(BATCH, series)
    for lap in range(LAPS * series // batch):
        processor.step(*w.decoded(batch, series, lap), 0)
    assert processor.series_count == series
    print(
        json.dumps(
            {
                "series": series,
                "imports_mb": round(before / 1e6),
                "loaded_mb": round(resident_bytes() / 1e6),
                "peak_mb": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
                ),
                "state_mb": round(processor.state_bytes / 1e6),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
