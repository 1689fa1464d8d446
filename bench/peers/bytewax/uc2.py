"""The UC2 job on Bytewax. Arguments: servers, topic, records."""

import io
import json
import sys
from typing import Any

import fastavro

from bench.peers.bytewax.flow import Reading, Stats, run
from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA

SCHEMA = fastavro.parse_schema(json.loads(UC2_SCHEMA))


def decode(value: bytes) -> tuple[str, Reading]:
    found: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), SCHEMA)
    return found["identifier"], (found["timestamp"], found["valueInW"])


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, squares, low, high = stats
    mean = total / count
    return count, total, low, high, mean, squares / count - mean * mean


run(sys.argv[1:], decode, measures)
