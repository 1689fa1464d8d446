"""Every format with all it takes to hold its decoder against its strict path.

A format that comes later is one more entry of `FORMATS`: the fuzzer, the comparison of whole
tables and the guarded pages go over all of them.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.avro import AvroPlan
from streamproc.codecs.chirpstack_strict import UP, StrictUplink, kind_of
from streamproc.codecs.confluent import Plan
from streamproc.codecs.encode import WireReading, encode_json_many, encode_packed
from streamproc.codecs.encode import encode_arrow as arrow
from streamproc.codecs.encode import encode_uplink as uplink
from streamproc.codecs.json_strict import JsonOptions, StrictJson
from streamproc.codecs.packed_strict import StrictPacked
from streamproc.codecs.protobuf import OWN_FIELDS, ProtobufPlan
from streamproc.codecs.select import Format as Kind
from streamproc.codecs.select import Options, make_decoder
from streamproc.codecs.strict import (
    RECORD_BYTES_MAX,
    UNIT_NS,
    FieldOptions,
    Reading,
    Refused,
    name_of,
    unit_of,
)
from streamproc.core.ports import Decoder, SchemaProblem, WireSchema
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, Ignored, Reason, Records, Reject
from tests.support.wire import (
    AVRO_SCHEMA,
    PACKED,
    PROTOBUF_SCHEMA,
    SCHEMA_ID,
    UPLINKS,
    encoded,
    learnt,
)

Answer: TypeAlias = "list[Reading] | str"
"""Readings, or the kind of a record that holds none."""
Strict: TypeAlias = Callable[[bytes, "bytes | None"], Answer]
"""Reads one payload with its key, slowly. Raises `Refused`."""

FRAME = 5
EUI = "70b3d57ed0{:06x}"


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        kind: as the configuration has it.
        strict: makes the slow reader.
        documents: makes good records, of one reading and of several.
        options: of the decoder and the slow reader.
        framed: bytes in front of a record that say which schema is its own.
        ignored: the kind that a key tells, of records that hold no reading.
        schema: the writer's, if it is not the project's own.
    """

    kind: Kind
    strict: Callable[[], Strict]
    documents: Callable[[random.Random, Sequence[WireReading]], list[bytes]]
    options: Options | None = None
    framed: int = 0
    ignored: Callable[[bytes | None], str | None] = lambda _: None
    schema: WireSchema | None = None

    def decoder(self) -> Decoder:
        made = make_decoder(self.kind, self.options)
        if self.schema is None:
            return learnt(made, self.kind)
        made.learn(SCHEMA_ID, self.schema)
        return made

    def encode(self, readings: Sequence[WireReading]) -> list[bytes]:
        """Return a record a reading."""
        return encoded(self.kind, readings)


# --- good records ---------------------------------------------------------------------


def some_readings(rng: random.Random, count: int) -> list[WireReading]:
    return [
        WireReading(
            rng.choice(["d1", "dé2", "sensor-000017", "x" * 20]),
            rng.choice(["pm10", "no2", "temperature"]),
            rng.randrange(-(10**15), 4 * 10**15),
            rng.choice([rng.uniform(-100, 100), float(rng.randrange(100)), 0.1, -0.0]),
            rng.choice([None, "ug/m3", "Cel"]),
            rng.choice([None, 1, -1, 127]),
        )
        for _ in range(count)
    ]


def _json(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    documents = encoded("json", readings)
    for k, reading in enumerate(readings):
        if k % 3 == 0:
            values = {"pm10": reading.value, "no2": 1.0}
            documents[k] = encode_json_many(
                reading.device, reading.time_us, values, {"no2": "ug/m3"}
            )
        elif k % 3 == 1:
            documents[k] = documents[k].replace(b'"time":', b'"note":"x","time":')
    return documents


def _packed(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    made = [
        reading._replace(
            device=f"m-{zlib.crc32(reading.device.encode())}",
            property="pm10" if reading.property == "pm10" else "no2",
        )
        for reading in readings
    ]
    return [
        encode_packed(made[k : k + rng.randrange(1, 4)], PACKED)
        for k in range(len(made))
    ]


def _arrow(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    return [
        arrow(readings[k : k + rng.choice([1, 1, 2, 5])]) for k in range(len(readings))
    ]


_LEAVES = (0, 7, -1, 12.5, -0.5, -0.0, 1e300, 10**20, True, None, "free", "a:b", "é")


def _uplinks(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    documents = []
    for reading in readings:
        content: dict[str, Any] = {"battery": 3.5, "pm10": reading.value}
        if rng.random() < 0.5:
            content = {
                name: rng.choice(_LEAVES)
                for name in rng.sample(["pm10", "open", "state", "x y"], 2)
            }
        if rng.random() < 0.5:
            content["air"] = {"no2": reading.value, "o3": rng.choice(_LEAVES)}
        if rng.random() < 0.3:
            content["list"] = [{}, {"t": rng.randrange(9)}, [1, {"t": 2}]]
        device = EUI.format(zlib.crc32(reading.device.encode()) % 2**24)
        documents.append(uplink(device, reading.time_us, content))
    return documents


# --- slow readers ---------------------------------------------------------------------


def _strict_json() -> Strict:
    return StrictJson(JsonOptions()).readings


def _strict_packed() -> Strict:
    strict = StrictPacked(PACKED)
    return lambda payload, _: strict.readings(payload)


def _strict_uplink() -> Strict:
    strict = StrictUplink(UPLINKS)

    return lambda payload, key: strict.answer(payload, kind_of((), key))


def _no_uplink(key: bytes | None) -> str | None:
    kind = kind_of((), key)
    return None if kind == UP else kind


def _body(payload: bytes) -> bytes:
    """Take the frame off a record of the one schema there is."""
    number = int.from_bytes(payload[1:FRAME], "big")
    if payload[0] == 1:
        raise Refused(Reason.UNKNOWN_SCHEMA, "framed by GUID")
    if payload[0] or len(payload) < FRAME or number >> 31:
        raise Refused(Reason.MALFORMED, "not framed")
    if number != SCHEMA_ID:
        raise Refused(Reason.REGISTRY_UNAVAILABLE, "nobody told of it")
    return payload[FRAME:]


def framed(make_plan: Callable[[], Plan]) -> Strict:
    """Return the slow reader of framed records of one schema."""
    plan = make_plan()
    return lambda payload, _: plan.strict(_body(payload))


def _strict_arrow() -> Strict:
    """Row by row as Python values; what is no good stream, the decoder itself tells."""
    decoder = ArrowIpc()

    def read(payload: bytes, _: bytes | None) -> Answer:
        decoder._table(0, payload)
        with pa.ipc.open_stream(payload) as stream:
            return [row for batch in stream for row in _arrow_rows(batch)]

    return read


def _arrow_rows(batch: pa.RecordBatch) -> list[Reading]:
    columns = [
        batch.column(places[0]).to_pylist() if places else [None] * batch.num_rows
        for places in map(
            batch.schema.get_all_field_indices,
            ("device", "property", "unit", "value", "quality"),
        )
    ]
    (place,) = batch.schema.get_all_field_indices("time")
    kind: Any = batch.schema.field(place).type
    ns = UNIT_NS[kind.unit if pa.types.is_timestamp(kind) else "ms"]
    ticks = batch.column(place).cast(pa.int64()).to_pylist()
    return [
        Reading(
            name_of(device, "device"),
            name_of(name, "property"),
            unit_of(unit),
            tick * ns // 1000,
            float(value),
            quality=1 if mark is None else mark,
            flags=0,
        )
        for device, name, unit, value, mark, tick in zip(*columns, ticks, strict=True)
    ]


FORMATS = {
    "json": Format("json", _strict_json, _json),
    "avro": Format(
        "avro",
        partial(framed, lambda: AvroPlan(AVRO_SCHEMA, FieldOptions())),
        lambda _, r: encoded("avro", r),
        framed=FRAME,
    ),
    "protobuf": Format(
        *(
            "protobuf",
            partial(framed, lambda: ProtobufPlan(PROTOBUF_SCHEMA, OWN_FIELDS)),
            lambda _, r: encoded("protobuf", r),
        ),
        framed=FRAME,
    ),
    "packed": Format("packed", _strict_packed, _packed, PACKED),
    "arrow": Format("arrow", _strict_arrow, _arrow),
    "chirpstack": Format(
        "chirpstack", _strict_uplink, _uplinks, UPLINKS, ignored=_no_uplink
    ),
}


# --- the slow twin of every decoder -----------------------------------------------------


class Strictly:
    """A `Decoder` that reads one record after the other by the strict path."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._strict = form.strict()

    def missing(self, records: Records) -> frozenset[int]:
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        return

    def decode(self, records: Records) -> Decoded:
        rows: list[tuple[Any, ...]] = []
        rejects: list[Reject] = []
        ignored: list[Ignored] = []
        for row, (payload, key) in enumerate(
            zip(records.values, records.keys, strict=True)
        ):
            try:
                answer = self._one(payload, key)
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
                continue
            if isinstance(answer, str):
                ignored.append(Ignored(row, answer))
                continue
            rows += [(row, k, *reading) for k, reading in enumerate(answer)]
        columns = zip(*rows, strict=True) if rows else [()] * len(DECODED)
        arrays = [
            _column(list(column), field.type)
            for column, field in zip(columns, DECODED, strict=True)
        ]
        readings = pa.RecordBatch.from_arrays(arrays, schema=DECODED)
        return Decoded(readings, tuple(rejects), None, tuple(ignored))

    def _one(self, payload: bytes | None, key: bytes | None) -> Answer:
        kind = self._form.ignored(key)
        if kind is not None:
            return kind
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        return self._strict(payload, key)


def _column(values: list[Any], kind: "pa.DataType") -> "pa.Array[Any]":
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).view(kind)
    if pa.types.is_float64(kind):
        return pa.array(np.array(values, np.float64))
    return pa.array(values, kind)
