"""The city job on Faust. Arguments: servers, topic, records."""

import sys

import faust

from bench.peers.contract import THRESHOLD
from bench.peers.faust.worker import Stats, run


class Reading(faust.Record, serializer="json"):
    device: str
    property: str
    time: int
    value: float


def reading(record: Reading) -> tuple[str, int, float]:
    return f"{record.device}/{record.property}", record.time, record.value


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, _, low, high = stats
    mean = total / count
    return count, low, high, mean, mean > THRESHOLD


run(sys.argv[1:], Reading, reading, measures)
