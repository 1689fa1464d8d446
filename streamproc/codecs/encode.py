"""Readings to wire bytes, in every format the decoders read: for the simulator and tests."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from typing import Final, NamedTuple

import fastavro
import msgspec
import pyarrow as pa

from streamproc.codecs.confluent import frame
from streamproc.codecs.packed_strict import PackedOptions, struct_of
from streamproc.codecs.strict import UNIT_NS
from streamproc.codecs.wire_schemas import READING_AVSC
from streamproc.core.schemas import NAME, TIME

_SECOND_US: Final = 1_000_000
_MORE: Final = 0x80
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AVRO: Final = fastavro.parse_schema(msgspec.json.decode(READING_AVSC))
_JSON: Final = msgspec.json.Encoder()
_ARROW: Final = pa.schema(
    [
        pa.field("device", NAME, nullable=False),
        pa.field("property", NAME, nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("unit", NAME),
        pa.field("quality", pa.int8()),
    ]
)


class WireReading(NamedTuple):
    """One reading to be sent; `time_us` µs since 1970 UTC, `value` finite."""

    device: str
    property: str
    time_us: int
    value: float
    unit: str | None = None
    quality: int | None = None


class _Single(msgspec.Struct, omit_defaults=True):
    device: str
    property: str
    time: str
    value: float
    unit: str | None = None
    quality: int | None = None


class _Many(msgspec.Struct, omit_defaults=True):
    device: str
    time: str
    values: Mapping[str, float]
    units: Mapping[str, str] | None = None


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds").removesuffix("+00:00")


def rfc3339(time_us: int) -> str:
    """Return the shortest RFC 3339 text of a time, in UTC, with as many decimals as needed."""
    seconds, micros = divmod(time_us, _SECOND_US)
    if not micros:
        return _second(seconds) + "Z"
    fraction = f"{micros // 1000:03d}" if micros % 1000 == 0 else f"{micros:06d}"
    return f"{_second(seconds)}.{fraction}Z"


def encode_json(readings: Iterable[WireReading]) -> list[bytes]:
    """Return one flat document a reading."""
    encode = _JSON.encode
    return [
        encode(_Single(device, name, rfc3339(time_us), value, unit, quality))
        for device, name, time_us, value, unit, quality in readings
    ]


def encode_json_many(
    device: str,
    time_us: int,
    values: Mapping[str, float],
    units: Mapping[str, str] | None = None,
) -> bytes:
    """Return one document of a device with many properties."""
    return _JSON.encode(_Many(device, rfc3339(time_us), values, units or None))


def encode_avro(readings: Iterable[WireReading], schema_id: int) -> list[bytes]:
    """Return one framed datum a reading, of `schemas/reading.avsc`."""
    return [frame(schema_id, _avro_datum(reading)) for reading in readings]


def _avro_datum(reading: WireReading) -> bytes:
    stream = BytesIO()
    record = {
        "device": reading.device,
        "property": reading.property,
        "time": reading.time_us,
        "value": reading.value,
        "unit": reading.unit,
        "quality": reading.quality,
    }
    fastavro.schemaless_writer(stream, _AVRO, record)
    return stream.getvalue()


def encode_protobuf(readings: Iterable[WireReading], schema_id: int) -> list[bytes]:
    """Return one framed message a reading, of `schemas/reading.proto`."""
    # The list of message indexes: 0 stands for the first message of the file.
    return [frame(schema_id, b"\0" + _message(reading)) for reading in readings]


def _message(reading: WireReading) -> bytes:
    parts = [
        _text_field(1, reading.device),
        _text_field(2, reading.property),
        b"\x18" + varint(reading.time_us & ((1 << 64) - 1)),
        b"\x21" + struct.pack("<d", reading.value),
    ]
    if reading.unit is not None:
        parts.append(_text_field(5, reading.unit))
    if reading.quality is not None:
        quality = reading.quality
        parts.append(
            b"\x30" + varint(2 * quality if quality >= 0 else -2 * quality - 1)
        )
    return b"".join(parts)


def _text_field(number: int, text: str) -> bytes:
    data = text.encode()
    return bytes((number << 3 | 2,)) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Return a base-128 varint of 0 ≤ `value` < 2**64."""
    if value < _MORE:
        return bytes((value,))
    groups = bytearray()
    while value >= _MORE:
        groups.append(value & 0x7F | _MORE)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def encode_arrow(readings: Sequence[WireReading]) -> bytes:
    """Return one Arrow IPC stream that holds all readings, one or more."""
    columns = list(zip(*readings, strict=True))
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, _ARROW, strict=True)
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _ARROW) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_ARROW))
    return sink.getvalue().to_pybytes()


def encode_uplink(device: str, time_us: int, content: Mapping[str, object]) -> bytes:
    """Return a ChirpStack v4 uplink event whose `object` is `content`, as Kafka gets it."""
    return _JSON.encode(
        {
            "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
            "time": rfc3339(time_us).replace("Z", "+00:00"),
            "deviceInfo": {
                "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
                "tenantName": "Town",
                "applicationId": "17c82e96-be03-4f38-aef3-f83d48582d97",
                "applicationName": "Sensors",
                "deviceProfileId": "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
                "deviceProfileName": "Air",
                "deviceName": f"Device {device}",
                "devEui": device,
                "tags": {"street": "Hauptstraße"},
            },
            "devAddr": "00189440",
            "adr": True,
            "dr": 1,
            "fCnt": 10,
            "fPort": 1,
            "confirmed": False,
            "data": "qg==",
            "object": content,
            "rxInfo": [
                {
                    "gatewayId": "0016c001f153a14c",
                    "uplinkId": 4217106255,
                    "nsTime": "2022-07-18T09:34:15.775023242+00:00",
                    "rssi": -36,
                    "snr": 10.5,
                    "channel": 2,
                    "location": {"latitude": 41.88, "longitude": 23.47},
                    "context": "E3OWOQ==",
                    "metadata": {"region_common_name": "EU868"},
                }
            ],
            "txInfo": {
                "frequency": 867100000,
                "modulation": {
                    "lora": {
                        "bandwidth": 125000,
                        "spreadingFactor": 11,
                        "codeRate": "CR_4_5",
                    }
                },
            },
        }
    )


def encode_packed(readings: Iterable[WireReading], options: PackedOptions) -> bytes:
    """Return one record of a layout that holds all readings, one or more.

    Raises:
        KeyError: a property without a code.
        ValueError, struct.error: a device or a number that does not fit.
    """
    layout, order = struct_of(options), options.order()
    codes = {name: code for code, name in options.properties.items()}
    parts = []
    for reading in readings:
        device = reading.device.removeprefix(options.device_prefix)
        raw = reading.value / options.value_scale
        fields: dict[str, object] = {
            "device": device.encode() if options.device_type == "text" else int(device),
            "property": codes[reading.property],
            "time": reading.time_us * 1000 // UNIT_NS[options.time_unit],
            "value": round(raw) if options.value_type[0] == "i" else raw,
            "quality": 1 if reading.quality is None else reading.quality,
        }
        parts.append(layout.pack(*(fields[name] for name in order)))
    return b"".join(parts)
