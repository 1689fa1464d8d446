"""The city job on Pathway. Arguments: servers, topic, records."""

import sys
from typing import Any

import pathway as pw

from bench.peers.contract import THRESHOLD
from bench.peers.pathway.pipeline import MINIBATCH_MS, run, settings


class Reading(pw.Schema):
    device: str
    property: str
    time: int
    value: float


def measures(row: dict[str, Any]) -> tuple[float, ...]:
    mean = row["total"] / row["count"]
    return row["count"], row["low"], row["high"], mean, mean > THRESHOLD


readings = pw.io.kafka.read(
    settings(sys.argv[1]),
    topic=sys.argv[2],
    format="json",
    schema=Reading,
    mode="static",
    autocommit_duration_ms=MINIBATCH_MS,
)
run(
    readings.select(
        series=pw.this.device + "/" + pw.this.property,
        time=pw.this.time,
        value=pw.this.value,
    ),
    measures,
)
