"""A city that invents device names without end, beside one that does not: `python -m tests.support.many_names N`.

Prints one JSON object: what became of the names, and how much the process grew, in bytes, after
the first tenth of them.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streamproc.codecs.select import make_decoder
from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from tests.support.processors import BASE, processor_of

CAP = 1000
BATCH = 20_000
START_MS = 1_772_323_200_000
CITIES = (("telemetry.razlog", "razlog"), ("telemetry.ange", "ange"))
KNOWN = 50


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def batches(topic: str, count: int, devices: int) -> Iterator[Records]:
    """Yield records whose devices are numbered up to `devices` and then anew."""
    for start in range(0, count, BATCH):
        values = [
            b'{"device":"invented-%09d","property":"pm10","time":%d,"value":1.5}'
            % (n % devices, START_MS + n // 1000)
            for n in range(start, min(start + BATCH, count))
        ]
        rows = len(values)
        yield Records(
            TopicPartition(topic, 0),
            np.arange(start, start + rows, dtype=np.int64),
            np.full(rows, (START_MS + 10**9) * 1000, np.int64),
            Payloads.of(values),
            Payloads.nulls(rows),
            OffsetSpan(start, start + rows),
        )


def run(names: int) -> dict[str, Any]:
    """Fold `names` invented devices of one town, and a few known ones of another in between."""
    made = replace(BASE, devices_max=CAP, topic_cities=CITIES)
    greedy, other = (processor_of(made, topic) for topic, _ in CITIES)
    decoder, others = make_decoder("json"), make_decoder("json")
    quarantined: Counter[str] = Counter()
    readings: Counter[str] = Counter()
    first_bytes = most_bytes = 0
    quiet = batches(CITIES[1][0], (names // BATCH + 1) * BATCH, KNOWN)
    for number, records in enumerate(batches(CITIES[0][0], names, names)):
        emission = greedy.step(records, decoder.decode(records), 0)
        for (city, reason), count in emission.counts.quarantined.items():
            quarantined[f"{city}/{reason}"] += count
        readings.update(emission.counts.readings)
        if number % 200 == 0:
            few = next(quiet)
            readings.update(other.step(few, others.decode(few), 0).counts.readings)
        if number == max(1, names // BATCH // 10):
            first_bytes = rss_bytes()
        most_bytes = max(most_bytes, rss_bytes())
    return {
        "quarantined": dict(quarantined),
        "readings": dict(readings),
        "series": [greedy.series_count, other.series_count],
        "state_bytes": greedy.state_bytes,
        "grown_bytes": most_bytes - first_bytes,
        "rss_bytes": most_bytes,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]))) + "\n")
