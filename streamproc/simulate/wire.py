"""Messages as Kafka records: topic, partition, key and bytes in the town's format.

The record key is the device, so a device stays in its partition; the partition is chosen
here (CRC-32 of the key), not by the client, so files and brokers get the same split.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_json,
    encode_json_many,
    encode_protobuf,
)
from streamproc.simulate.traffic import Fault, Message

Format = Literal["json", "avro", "protobuf", "arrow", "mixed"]

UNKNOWN_SCHEMA_ID = 2**31 - 1
TRUNCATED_BYTES = 9
"""Short enough to cut every format inside its first field or header."""


@dataclass(frozen=True, slots=True)
class WireOptions:
    """How messages become records.

    `schema_ids`: the registry's id of our schema, by format; needed for avro and protobuf.
    `mixed` gives each town the format it is listed with.
    """

    format: Format = "json"
    topics: str = "telemetry.{city}"
    partitions: int = 1
    schema_ids: Mapping[str, int] | None = None
    future_us: int = 300_000_000


@dataclass(frozen=True, slots=True)
class WireRecord:
    """One Kafka record and what it should become.

    `refused`: the whole record belongs into quarantine.
    """

    topic: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int
    city: str
    readings: tuple[WireReading, ...]
    refused: bool


def records_of(message: Message, options: WireOptions) -> list[WireRecord]:
    """Return a message's records: one, or one per reading where the format has no list."""
    chosen = message.format if options.format == "mixed" else options.format
    readings = tuple(
        WireReading(message.device, name, message.event_us, value)
        for name, value in message.values
    )
    groups = [readings] if chosen in ("json", "arrow") else [(r,) for r in readings]
    key = message.device.encode()
    early = message.event_us > message.send_us + options.future_us
    return [
        WireRecord(
            topic=options.topics.replace("{city}", message.city),
            partition=zlib.crc32(key) % options.partitions,
            key=key,
            value=_payload(chosen, group, message.fault, options),
            timestamp_ms=message.send_us // 1000,
            city=message.city,
            readings=group,
            refused=early or message.fault is not None,
        )
        for group in groups
    ]


def _payload(
    chosen: str,
    readings: tuple[WireReading, ...],
    fault: Fault | None,
    options: WireOptions,
) -> bytes:
    if fault == "empty":
        return b""
    sound = _sound(chosen, readings, options)
    if fault is None:
        return sound
    if fault == "truncated":
        return sound[:TRUNCATED_BYTES]
    if chosen == "json":
        return _spoilt_json(sound, fault)
    if fault == "wrong_type" and chosen != "arrow":
        return b"\0" + UNKNOWN_SCHEMA_ID.to_bytes(4, "big") + sound[5:]
    return b"\x42" + sound[1:]


def _sound(
    chosen: str, readings: tuple[WireReading, ...], options: WireOptions
) -> bytes:
    first = readings[0]
    if chosen == "json":
        if len(readings) == 1:
            return encode_json(readings)[0]
        values = {reading.property: reading.value for reading in readings}
        return encode_json_many(first.device, first.time_us, values)
    if chosen == "arrow":
        return encode_arrow(readings)
    assert options.schema_ids is not None
    encode = encode_avro if chosen == "avro" else encode_protobuf
    return encode(readings, options.schema_ids[chosen])[0]


def _spoilt_json(sound: bytes, fault: Fault) -> bytes:
    if fault == "wrong_type":
        return sound.replace(b'"device":"', b'"device":[], "was":"', 1)
    if fault == "no_device":
        return sound.replace(b'"device":', b'"devise":', 1)
    return sound.replace(b'"device":"', b'"device":"\xff\xfe', 1)
