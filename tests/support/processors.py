"""A processor of two towns, steps that are checked against their schemas, and columns."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from streamproc.core.definition import (
    CitySpec,
    Definition,
    PropertySpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.values import (
    Emission,
    TopicPartition,
)
from tests.support.readings import Reading, Record, batch_of

ORIGIN = TopicPartition("telemetry.razlog", 0)
ZONES = {"razlog": ZoneInfo("Europe/Sofia"), "ange": UTC}
S = 1_000_000
MINUTE = 60 * S
DAY = 86_400 * S
T0 = 19_700 * DAY

BASE = Definition(
    job="test",
    windows=(WindowSpec("1m", MINUTE, MINUTE, 0),),
    rules=(),
    properties=(
        PropertySpec("pm10", "ug/m3", low=0.0, high=1000.0),
        PropertySpec("temp", "Cel", units=(("[degF]", 5 / 9, -160 / 9),)),
    ),
    cities=(
        CitySpec("ange", "Ånge", "UTC"),
        CitySpec("razlog", "Razlog", "Europe/Sofia"),
    ),
    topic_cities=(("telemetry.razlog", "razlog"),),
)


def processor_of(
    definition: Definition = BASE, topic: str = ORIGIN.topic
) -> PartitionProcessor:
    return PartitionProcessor(TopicPartition(topic, 0), definition, ZONES)


def step(processor: PartitionProcessor, *records: Record, now_us: int = 0) -> Emission:
    emission = processor.step(*batch_of(ORIGIN, records), now_us)
    assert emission.readings.schema == ROUTED_READING
    assert emission.aggregates.schema == ROUTED_AGGREGATE
    assert emission.late.schema == ROUTED_LATE
    assert emission.quarantine.schema == ROUTED_QUARANTINE
    for table in (
        emission.readings,
        emission.aggregates,
        emission.late,
        emission.quarantine,
    ):
        table.validate(full=True)
    return emission


def one(
    offset: int, event_us: int, value: float = 1.0, device: str = "d", **more: Any
) -> Record:
    return Record(offset, (Reading(device, "pm10", event_us, value, **more),))


def values(batch: pa.RecordBatch, name: str) -> list[Any]:
    column = batch.column(name)
    return (
        column.view(pa.int64()).to_pylist()
        if pa.types.is_timestamp(column.type)
        else column.to_pylist()
    )
