"""The city job on Quix Streams. Arguments: servers, topic, records."""

import sys

from bench.peers.contract import THRESHOLD
from bench.peers.quix.application import Stats, run


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, _, low, high = stats
    mean = total / count
    return count, low, high, mean, mean > THRESHOLD


run(sys.argv[1:], "json", "time", "value", measures)
