"""The UC2 job on Quix Streams. Arguments: servers, topic, records."""

import io
import json
import sys
from typing import Any

import fastavro
from quixstreams.models.serializers import Deserializer

from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.peers.quix.application import Stats, run


class FramedAvro(Deserializer):
    """Confluent-framed Avro of the one schema there is, without asking a registry."""

    def __init__(self) -> None:
        super().__init__()
        self._schema = fastavro.parse_schema(json.loads(UC2_SCHEMA))

    def __call__(self, value: bytes, ctx: Any) -> Any:  # noqa: ARG002  (called so)
        return fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), self._schema)


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, squares, low, high = stats
    mean = total / count
    return count, total, low, high, mean, squares / count - mean * mean


run(sys.argv[1:], FramedAvro(), "timestamp", "valueInW", measures)
