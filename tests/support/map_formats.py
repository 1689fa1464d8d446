"""Avro and Protobuf by schemas of others: maps of values, and fields nobody asked for."""

import json
import random
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final

import fastavro

from streamproc.codecs.avro import AvroPlan
from streamproc.codecs.confluent import frame
from streamproc.codecs.encode import WireReading, rfc3339, varint
from streamproc.codecs.protobuf import ProtobufPlan
from streamproc.codecs.strict import FieldOptions
from streamproc.core.ports import WireSchema
from tests.support.formats import FRAME, Format, framed
from tests.support.wire import SCHEMA_ID

AVRO_ALL: Final[dict[str, Any]] = {
    "type": "record",
    "name": "All",
    "fields": [
        {"name": "none", "type": "null"},
        {"name": "yes", "type": "boolean"},
        {"name": "raw", "type": ["null", "bytes"]},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 7}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
        {"name": "single", "type": "float"},
        {"name": "device", "type": "string"},
        {"name": "time", "type": ["string", "null"]},
        {"name": "values", "type": {"type": "map", "values": "int"}},
    ],
}
AVRO_MAP: Final = WireSchema("avro", json.dumps(AVRO_ALL))
PROTOBUF_MAP: Final = WireSchema(
    "protobuf",
    'syntax = "proto3"; message R { string device = 1; int64 time = 2;'
    " map<string, double> values = 3; optional sint32 quality = 4; fixed32 crc = 5; }",
)
_PARSED: Final = fastavro.parse_schema(AVRO_ALL)


def avro_of(
    device: str, time: str, values: Mapping[str, int], raw: bytes | None
) -> bytes:
    """Return a framed record of `AVRO_ALL`."""
    datum = {
        "none": None,
        "yes": True,
        "raw": raw,
        "hash": b"7 bytes",
        "kind": "A",
        "single": 1.5,
        "device": device,
        "time": time,
        "values": values,
    }
    stream = BytesIO()
    fastavro.schemaless_writer(stream, _PARSED, datum)
    return frame(SCHEMA_ID, stream.getvalue())


def protobuf_of(reading: WireReading, values: Mapping[str, float]) -> bytes:
    """Return a framed message of `PROTOBUF_MAP`."""
    device = reading.device.encode()
    parts = [b"\x0a", varint(len(device)), device]
    parts += [b"\x10", varint(reading.time_us // 1000 % 2**64)]
    for name, value in values.items():
        entry = b"\x0a%c%s\x11%s" % (len(name), name.encode(), struct.pack("<d", value))
        parts += [b"\x1a", varint(len(entry)), entry]
    parts += [b"\x20\x05", b"\x2dCRC!"]
    return frame(SCHEMA_ID, b"\0" + b"".join(parts))


def _values(rng: random.Random, reading: WireReading) -> dict[str, float]:
    names = rng.sample(["pm10", "no2", "t", "x", "y"], rng.randrange(1, 5))
    return {name: reading.value * k for k, name in enumerate(names, 1)}


def _avro(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    return [
        avro_of(
            *(one.device, rfc3339(one.time_us)),
            {name: int(value) for name, value in _values(rng, one).items()},
            rng.choice([None, b"", b"raw"]),
        )
        for one in readings
    ]


def _protobuf(rng: random.Random, readings: Sequence[WireReading]) -> list[bytes]:
    return [protobuf_of(one, _values(rng, one)) for one in readings]


MAPS: Final = {
    "avro map": Format(
        "avro",
        partial(framed, lambda: AvroPlan(AVRO_MAP, FieldOptions())),
        _avro,
        FieldOptions(),
        framed=FRAME,
        schema=AVRO_MAP,
    ),
    "protobuf map": Format(
        "protobuf",
        partial(framed, lambda: ProtobufPlan(PROTOBUF_MAP, FieldOptions())),
        _protobuf,
        FieldOptions(),
        framed=FRAME,
        schema=PROTOBUF_MAP,
    ),
}
