"""Records to decode, decoded rows to compare, and naive readers of the wire formats."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import numpy as np
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_json,
    encode_packed,
    encode_protobuf,
    encode_uplink,
)
from streamproc.codecs.packed_strict import SIZES, PackedOptions
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder, WireSchema
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, OffsetSpan, Records, TopicPartition
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN

SCHEMA_ID = 7
UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
AVRO_SCHEMA = WireSchema("avro", READING_AVSC)
PROTOBUF_SCHEMA = WireSchema("protobuf", READING_PROTO)

PACKED = PackedOptions(
    size=24,
    device_at=0,
    device_type="u32",
    device_prefix="m-",
    property_at=4,
    property_type="u16",
    properties={1: "pm10", 2: "no2"},
    units={"pm10": "ug/m3"},
    time_at=8,
    time_type="i64",
    time_unit="us",
    value_at=16,
    value_type="f32",
    quality_at=20,
)
"""A device's number, a code, µs, a value and a quality; bytes 6, 7 and 21 to 23 are free."""

PACKED_WORDS = replace(
    PACKED,
    byte_order="big",
    size=40,
    device_at=24,
    device_type="text",
    device_length=16,
    property_at=0,
    time_unit="ms",
)

UPLINKS = ChirpStackOptions(
    properties={
        "pm10": "pm10",
        "air.no2": "no2",
        "list.1.t": "temperature",
        "open": "open",
        "state": "parking_state",
    },
    units={"no2": "ug/m3"},
    states={"parking_state": {"free": 0.0, "occupied": 1.0}},
)

Row = tuple[int, int, str, str, str | None, int, float, int, int]
"""row, ordinal, device, property, unit, event time in µs, value, quality, flags."""


def records_of(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None
) -> Records:
    count = len(values)
    return Records(
        TopicPartition("telemetry.razlog", 0),
        np.arange(count, dtype=np.int64),
        np.full(count, -1, np.int64),
        Payloads.of(values),
        Payloads.of(keys if keys is not None else [None] * count),
        OffsetSpan(0, count),
    )


def rows_of(decoded: Decoded) -> list[Row]:
    """Return the readings as tuples, after Arrow's own full validation."""
    readings = decoded.readings
    readings.validate(full=True)
    assert readings.schema.equals(DECODED)
    columns = [
        (column.cast(pa.int64()) if field.name == "event_time" else column).to_pylist()
        for field, column in zip(readings.schema, readings.columns, strict=True)
    ]
    return list(zip(*columns, strict=True))


def names_of(decoded: Decoded, column: str) -> list[str]:
    """Return the dictionary of a column."""
    found: Any = decoded.readings[column]
    names: list[str] = found.dictionary.to_pylist()
    return names


def learnt(decoder: Decoder, kind: str) -> Decoder:
    """Teach a decoder the project's own schema where it needs one."""
    if kind == "avro":
        decoder.learn(SCHEMA_ID, AVRO_SCHEMA)
    elif kind == "protobuf":
        decoder.learn(SCHEMA_ID, PROTOBUF_SCHEMA)
    return decoder


def encoded(kind: str, readings: Sequence[WireReading]) -> list[bytes]:
    """Return one payload a reading in the project's own schema; packed knows devices by number."""
    if kind == "json":
        return encode_json(readings)
    if kind == "avro":
        return encode_avro(readings, SCHEMA_ID)
    if kind == "protobuf":
        return encode_protobuf(readings, SCHEMA_ID)
    if kind.startswith("chirpstack"):
        paths = {name: path for path, name in UPLINKS.properties.items()}
        return [
            encode_uplink(one.device, one.time_us, {paths[one.property]: one.value})
            if "." not in paths[one.property]
            else encode_uplink(one.device, one.time_us, {"air": {"no2": one.value}})
            for one in readings
        ]
    if kind.startswith("packed"):
        layout = PACKED if kind == "packed" else PACKED_WORDS
        numbers = [f"m-{zlib.crc32(reading.device.encode())}" for reading in readings]
        return [
            encode_packed([reading._replace(device=number)], layout)
            for reading, number in zip(readings, numbers, strict=True)
        ]
    return [encode_arrow([reading]) for reading in readings]


def naive_json(payload: bytes) -> list[tuple[Any, ...]]:
    """Read a flat document with msgspec and datetime: (device, property, unit, time, value).

    Raises ValueError, KeyError or TypeError for what is no such document.
    """
    document = msgspec.json.decode(payload)
    device, time = document["device"], document["time"]
    if isinstance(time, str):
        moment = datetime.fromisoformat(time.upper().replace(" ", "T"))
        passed = moment - datetime(1970, 1, 1, tzinfo=UTC)
        event_us = (passed.days * 86_400 + passed.seconds) * 10**6 + passed.microseconds
    else:
        event_us = (
            None  # the text is needed for exactness: compared with the strict path
        )
    if document.get("values") is not None:
        units = document.get("units") or {}
        return [
            (device, name, units.get(name) or None, event_us, float(value))
            for name, value in document["values"].items()
        ]
    unit = document.get("unit") or None
    value = float(document["value"])
    return [(device, document["property"], unit, event_us, value)]


_AVRO = fastavro.parse_schema(msgspec.json.decode(READING_AVSC))


def naive_avro(payload: bytes) -> tuple[Any, ...]:
    """Read a framed datum of the project's schema with fastavro."""
    stream = BytesIO(payload[5:])
    found: Any = fastavro.schemaless_reader(stream, _AVRO)
    assert not stream.read()
    passed = found["time"] - datetime(1970, 1, 1, tzinfo=UTC)
    event_us = (passed.days * 86_400 + passed.seconds) * 10**6 + passed.microseconds
    quality = 1 if found["quality"] is None else found["quality"]
    unit = found["unit"] or None
    return (
        *(found["device"], found["property"], unit, event_us, found["value"], quality),
    )


def _reading_class() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="naive.proto", package="naive", syntax="proto3"
    )
    message = file.message_type.add(name="Reading")
    for number, (name, kind, optional) in enumerate(
        [
            ("device", kinds.TYPE_STRING, False),
            ("property", kinds.TYPE_STRING, False),
            ("time_us", kinds.TYPE_INT64, False),
            ("value", kinds.TYPE_DOUBLE, True),
            ("unit", kinds.TYPE_STRING, True),
            ("quality", kinds.TYPE_SINT32, True),
        ],
        start=1,
    ):
        field = message.field.add(
            name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL
        )
        if optional:
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("naive.Reading"))


ProtobufReading = _reading_class()


def naive_protobuf(payload: bytes) -> tuple[Any, ...]:
    """Read a framed message of the project's schema with the protobuf package."""
    assert payload[5] == 0
    found = ProtobufReading.FromString(payload[6:])
    quality = found.quality if found.HasField("quality") else 1
    unit = found.unit or None
    return (found.device, found.property, unit, found.time_us, found.value, quality)


def naive_packed(
    options: PackedOptions, payload: bytes
) -> Iterator[tuple[Any, ...] | None]:
    """Yield what numpy reads, None for each reading that is nothing acceptable."""
    order = "<" if options.byte_order == "little" else ">"
    codes = {
        name: f"{order}{kind[0]}{int(kind[1:]) // 8}"
        for name, kind in (
            ("property", options.property_type),
            ("time", options.time_type),
            ("value", options.value_type),
        )
    }
    text = options.device_type == "text"
    length = options.device_length
    kind = f"{order}{options.device_type[0]}{SIZES.get(options.device_type, 0)}"
    codes["device"] = f"V{length}" if text else kind
    places = {
        "device": options.device_at,
        "property": options.property_at,
        "time": options.time_at,
        "value": options.value_at,
    }
    if options.quality_at is not None:
        codes["quality"], places["quality"] = "i1", options.quality_at
    dtype = np.dtype(
        {
            "names": list(places),
            "formats": [codes[name] for name in places],
            "offsets": list(places.values()),
            "itemsize": options.size,
        }
    )
    for row in np.frombuffer(payload, dtype):
        time_us = int(row["time"]) * UNIT_NS[options.time_unit] // 1000
        value = float(row["value"]) * options.value_scale
        name = options.properties.get(int(row["property"]))
        device = str(row["device"])
        if text:
            raw = row["device"].tobytes().rstrip(b"\0 ")
            printable = all(0x20 <= byte < 0x7F for byte in raw)
            device = raw.decode() if raw and printable else ""
        if not (
            device
            and name
            and math.isfinite(value)
            and TIME_US_MIN <= time_us < TIME_US_MAX
        ):
            yield None
            continue
        unit = "ug/m3" if name == "pm10" else None
        quality = int(row["quality"]) if options.quality_at is not None else 1
        device = options.device_prefix + device
        yield device, name, unit, time_us, value, quality, 0
