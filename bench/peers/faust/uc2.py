"""The UC2 job on Faust. Arguments: servers, topic, records."""

import io
import json
import sys
from typing import Any

import fastavro
import faust
from faust.serializers import codecs

from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.peers.faust.worker import Stats, run

SCHEMA = fastavro.parse_schema(json.loads(UC2_SCHEMA))


class FramedAvro(codecs.Codec):
    """Confluent-framed Avro of the one schema there is, without asking a registry."""

    def _loads(self, payload: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(payload[FRAME_BYTES:]), SCHEMA)


codecs.register("framed-avro", FramedAvro())


class Reading(faust.Record, serializer="framed-avro"):
    identifier: str
    timestamp: int
    valueInW: float  # noqa: N815  (Theodolite's name)


def reading(record: Reading) -> tuple[str, int, float]:
    return record.identifier, record.timestamp, record.valueInW


def measures(stats: Stats) -> tuple[float, ...]:
    count, total, squares, low, high = stats
    mean = total / count
    return count, total, low, high, mean, squares / count - mean * mean


run(sys.argv[1:], Reading, reading, measures)
