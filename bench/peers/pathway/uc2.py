"""The UC2 job on Pathway. Arguments: servers, topic, records."""

import io
import json
import sys
from typing import Any

import fastavro
import pathway as pw

from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.peers.pathway.pipeline import MINIBATCH_MS, run, settings

SCHEMA = fastavro.parse_schema(json.loads(UC2_SCHEMA))


@pw.udf
def decoded(value: bytes) -> tuple[str, int, float]:
    """Decode framed Avro of the one schema there is, without asking a registry."""
    found: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), SCHEMA)
    return found["identifier"], found["timestamp"], found["valueInW"]


def measures(row: dict[str, Any]) -> tuple[float, ...]:
    count, total = row["count"], row["total"]
    mean = total / count
    variance = row["squares"] / count - mean * mean
    return count, total, row["low"], row["high"], mean, variance


records = pw.io.kafka.read(
    settings(sys.argv[1]),
    topic=sys.argv[2],
    format="raw",
    mode="static",
    autocommit_duration_ms=MINIBATCH_MS,
)
fields = records.select(fields=decoded(pw.this.data))
run(
    fields.select(
        series=pw.this.fields[0], time=pw.this.fields[1], value=pw.this.fields[2]
    ),
    measures,
)
