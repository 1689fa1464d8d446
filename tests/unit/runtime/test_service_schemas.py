"""A writer's schema changes in the middle of a topic, and back: the tables do not show it."""

import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import fastavro
import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was published)
import pytest

from streamproc.codecs.confluent import frame
from streamproc.codecs.encode import (
    WireReading,
    encode_avro,
    encode_json,
    encode_protobuf,
)
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.schema_registry import HttpSchemaRegistry, RegistryOptions
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.registry import LocalRegistry
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.failpoints import assert_same_result, verified_logs
from tests.support.service import (
    RAZLOG,
    START_US,
    Rig,
    accounted,
    published,
    readings_of,
)

P0 = TopicPartition(RAZLOG, 0)
SUBJECT = f"{RAZLOG}-value"
PHASE = 100
"""Records under each schema."""

CUT = 70
"""Records of a fetch: some hold records of two schemas."""

TO_END = ServiceOptions(until_end=True, close=True)
EACH = FlushPolicy(rows_max=1)
Encode = Callable[[Sequence[WireReading], int], list[bytes]]


def avro_with(fields: Sequence[object]) -> str:
    return json.dumps({**json.loads(READING_AVSC), "fields": fields})


def avro_encoder(schema: str, **more: object) -> Encode:
    """Return what writes readings under another schema, with `more` in the other fields."""
    parsed = fastavro.parse_schema(json.loads(schema))

    def datum(reading: WireReading) -> bytes:
        stream = BytesIO()
        known = {**reading._asdict(), "time": reading.time_us}
        text = {"value": str(reading.value)} if more.get("as_text") else {}
        fastavro.schemaless_writer(stream, parsed, {**known, **more, **text})
        return stream.getvalue()

    return lambda readings, number: [frame(number, datum(one)) for one in readings]


def protobuf_with_station(readings: Sequence[WireReading], number: int) -> list[bytes]:
    return [one + b"\x3a\x04west" for one in encode_protobuf(readings, number)]


OWN_FIELDS = json.loads(READING_AVSC)["fields"]
STATION = {"name": "station", "type": ["null", "string"], "default": None}
# In the middle, so that whoever reads it by the old schema reads nonsense.
AVRO_V2 = avro_with([*OWN_FIELDS[:1], STATION, *OWN_FIELDS[1:]])
AVRO_TEXT = avro_with(
    [{**f, "type": "string"} if f["name"] == "value" else f for f in OWN_FIELDS]
)
PROTOBUF_V2 = READING_PROTO.replace(
    "  string device = 1;", "  optional string station = 7;\n  string device = 1;"
)


@dataclass(frozen=True)
class Change:
    """A format with its first schema and the next one."""

    kind: str
    first: str
    second: str
    encode_first: Encode
    encode_second: Encode


CHANGES = [
    Change("avro", READING_AVSC, AVRO_V2, encode_avro, avro_encoder(AVRO_V2, station="west")),
    Change("protobuf", READING_PROTO, PROTOBUF_V2, encode_protobuf, protobuf_with_station),
]  # fmt: skip


def readings(first: int) -> list[WireReading]:
    """Return readings of one phase: two properties, disorder, some late, some hot."""
    return [
        WireReading(
            f"d{number % 3}",
            "pm10" if number % 3 == 2 else "temperature",
            START_US + (number * 4 - number % 7 * 3) * 1_000_000,
            round(15 + 10 * ((number * 37) % 29) / 29 + (number % 41 == 40) * 30, 3),
        )
        for number in range(first, first + PHASE)
    ]


@asynccontextmanager
async def registry_with(*schemas: str, kind: str) -> AsyncIterator[HttpSchemaRegistry]:
    """Run a registry that knows these, with ids from 1 in the order of their registration."""
    clock = ManualClock()
    with LocalRegistry() as server:
        for schema in schemas:
            server.register(SUBJECT, kind, schema)
        async with HttpSchemaRegistry(
            RegistryOptions(url=server.url),
            monotonic_us=clock.monotonic_us,
            sleep=clock.sleep,
            jitter=lambda: 0.0,
        ) as client:
            yield client


def rig(root: Path, source: ScriptedSource, kind: str, **more: object) -> Rig:
    return Rig(
        root, source, ManualClock(), flush=EACH, formats={RAZLOG: kind}, **more  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.kind)
@pytest.mark.fault(
    "F41",
    how="a nullable field comes in the middle of a topic and goes again, a crash between; Avro, Protobuf",
    seen="the tables of a topic whose schema never changed",
)
async def test_a_schema_that_changes_and_changes_back_leaves_no_trace_in_the_tables(
    tmp_path: Path, change: Change
) -> None:
    root, straight = tmp_path / "changed", tmp_path / "straight"
    phases = [readings(n * PHASE) for n in range(3)]
    source = ScriptedSource({RAZLOG: 1}, records_max=CUT)
    source.produce(P0, change.encode_first(phases[0], 1))
    source.produce(P0, change.encode_second(phases[1], 2))
    async with registry_with(change.first, change.second, kind=change.kind) as registry:
        await rig(root, source, change.kind, registry=registry).crash_at(2 * PHASE)
    again = ScriptedSource({RAZLOG: 1}, records_max=CUT)
    again.skip(P0, 2 * PHASE)
    again.produce(P0, change.encode_first(phases[2], 1))
    # The new schema is gone: what it wrote is committed, and nobody asks for it again.
    async with registry_with(change.first, kind=change.kind) as registry:
        await rig(root, again, change.kind, registry=registry, options=TO_END).run()

    same = ScriptedSource({RAZLOG: 1}, records_max=CUT)
    same.produce(P0, encode_json([one for phase in phases for one in phase]))
    await rig(straight, same, "json", options=TO_END).run()
    assert_same_result(root, straight)
    assert readings_of(root) == [(P0.source, n, 0) for n in range(3 * PHASE)]
    assert not published(root, "quarantine")
    verified_logs(root)
    files = list((root / "readings").rglob("*.parquet"))
    assert len({str(pq.read_schema(file)) for file in files}) == 1


@pytest.mark.fault(
    "F41",
    how="a field's type changes to one that no reading can have, and back",
    seen="those records in quarantine with the reason, all others read",
)
async def test_a_schema_nobody_can_read_costs_its_own_records_and_no_others(
    tmp_path: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 1}, records_max=CUT)
    as_text = avro_encoder(AVRO_TEXT, as_text=True)
    source.produce(P0, encode_avro(readings(0), 1))
    source.produce(P0, as_text(readings(PHASE), 2))
    source.produce(P0, encode_avro(readings(2 * PHASE), 1))
    async with registry_with(READING_AVSC, AVRO_TEXT, kind="avro") as registry:
        await rig(tmp_path, source, "avro", registry=registry, options=TO_END).run()

    refused = published(tmp_path, "quarantine")
    assert {row["offset"] for row in refused} == set(range(PHASE, 2 * PHASE))
    assert {row["reason"] for row in refused} == {"unknown_schema"}
    assert {"value" in row["detail"] for row in refused} == {True}
    assert accounted(tmp_path) == [(P0.source, n) for n in range(3 * PHASE)]
    verified_logs(tmp_path)


def test_the_other_schemas_are_framed_as_what_they_are() -> None:
    """The records of the tests above differ in more than their number."""
    one = readings(0)[:1]
    for change in CHANGES:
        (before,), (after,) = change.encode_first(one, 1), change.encode_second(one, 1)
        assert struct.unpack(">bi", before[:5]) == (0, 1)
        assert before != after
