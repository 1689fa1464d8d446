"""The city job on Bytewax. Arguments: servers, topic, records."""

import sys

import orjson

from bench.peers.bytewax.flow import Reading, Stats, run
from bench.peers.contract import THRESHOLD


def decode(value: bytes) -> tuple[str, Reading]:
    found = orjson.loads(value)
    series = f"{found['device']}/{found['property']}"
    return series, (found["time"], found["value"])


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, _, low, high = stats
    mean = total / count
    return count, low, high, mean, mean > THRESHOLD


run(sys.argv[1:], decode, measures)
