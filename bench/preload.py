"""Filling topics of a real broker with readings whose sum and number are known."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.workloads import (
    MINUTE_US,
    PACKED,
    PROPERTIES,
    START_US,
    columns,
    uplink,
)
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_packed,
    encode_protobuf,
)
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection

VALUE_BYTES = 145
KEY = b"razlog-%07d"
UPLINK_KEY = b"application.17c82e96-be03-4f38-aef3-f83d48582d97.device.%016x.event.up"
"""As ChirpStack writes them."""
CHUNK = 100_000
ARROW_READINGS = 1_000
"""Readings of one Arrow message, of as many devices where there are as many."""

Lane = tuple[int, int]
"""City and partition; a device stays in one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. `topic` may hold `{city}`; `schema_id` is for formats with a frame."""

    topic: str
    partitions: int
    rows: int
    devices: int
    format: str = "json"
    cities: tuple[str, ...] = ("razlog",)
    interval_us: int = MINUTE_US
    codec: str = "lz4"
    schema_id: int = 0

    @property
    def topics(self) -> list[str]:
        return [self.topic.format(city=city) for city in self.cities]


@dataclass(frozen=True, slots=True)
class Sent:
    """What lies in the topics; `total` is the sum of all values, bytes are of payloads."""

    readings: int
    total: float
    records: int
    payload_bytes: int


def preload(connection: KafkaConnection, load: Load) -> Sent:
    """Create the topics and fill them, in batches of up to 512 KiB before compression."""
    return asyncio.run(_preload(connection, load))


async def _preload(connection: KafkaConnection, load: Load) -> Sent:
    codec = None if load.codec == "none" else load.codec
    total = 0.0
    readings = records = size = 0
    packer = _Packer(load)
    async with KafkaProduce(connection, compression=codec) as producer:
        await producer.create_topics(load.topics, load.partitions)
        for messages, count, added in packer.chunks():
            await producer.send(messages)
            total += added
            readings += count
            records += len(messages)
            size += sum(len(message.value or b"") for message in messages)
    return Sent(readings, total, records, size)


class _Packer:
    """Makes messages of readings; Arrow's wait in their lane until there are enough."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._waiting: dict[Lane, list[WireReading]] = {}

    def chunks(self) -> Iterator[tuple[list[Message], int, float]]:
        """Yield messages in order of time, how many readings are new, and their sum."""
        load = self._load
        for lap, start in enumerate(range(0, load.rows, CHUNK)):
            count = min(CHUNK, load.rows - start)
            found = columns(CHUNK, load.devices, lap, load.interval_us)
            found = {name: column[:count] for name, column in found.items()}
            messages = self._messages(found, start)
            yield messages, count, float(found["value"].sum())
        if self._waiting:
            yield self._packed(1), 0, 0.0

    def _messages(self, found: dict[str, np.ndarray], start: int) -> list[Message]:
        devices = found["device"].tolist()
        if self._load.format == "json":
            values = _documents(found, start)
        else:
            readings = _readings(found)
            if self._load.format == "arrow":
                for device, reading in zip(devices, readings, strict=True):
                    self._waiting.setdefault(self._lane(device), []).append(reading)
                return self._packed(ARROW_READINGS)
            values = encoded(self._load.format, readings, self._load.schema_id)
        topics = self._load.topics
        key = UPLINK_KEY if self._load.format == "chirpstack" else KEY
        messages = []
        for device, value in zip(devices, values, strict=True):
            city, partition = self._lane(device)
            messages.append(Message(topics[city], value, key % device, partition))
        return messages

    def _lane(self, device: int) -> Lane:
        partitions = self._load.partitions
        return device // partitions % len(self._load.cities), device % partitions

    def _packed(self, least: int) -> list[Message]:
        """Return messages of what waits in each lane, as long as there is so much."""
        topics = self._load.topics
        messages = []
        for (city, partition), waiting in self._waiting.items():
            while len(waiting) >= least:
                value = encode_arrow(waiting[:ARROW_READINGS])
                del waiting[:ARROW_READINGS]
                messages.append(Message(topics[city], value, None, partition))
        return messages


def encoded(name: str, readings: Sequence[WireReading], schema_id: int) -> list[bytes]:
    """Return a record a reading."""
    if name == "packed":
        return [encode_packed([reading], PACKED) for reading in readings]
    if name == "chirpstack":
        return [uplink(reading) for reading in readings]
    encode = {"avro": encode_avro, "protobuf": encode_protobuf}[name]
    return encode(readings, schema_id)


def _readings(found: dict[str, np.ndarray]) -> Sequence[WireReading]:
    names = ("device", "property", "event_us", "value")
    lists = (found[name].tolist() for name in names)
    return [
        WireReading(f"razlog-{device:07d}", PROPERTIES[kind], time_us, value, None, 1)
        for device, kind, time_us, value in zip(*lists, strict=True)
    ]


def _documents(found: dict[str, np.ndarray], start: int) -> list[bytes]:
    times = np.datetime_as_string(
        (found["event_us"] // 1000).astype("datetime64[ms]"), timezone="UTC"
    ).tolist()
    lists = (found["device"].tolist(), found["property"].tolist(), times)
    return [
        document(start + row, device, PROPERTIES[kind], time, value)
        for row, (device, kind, time, value) in enumerate(
            zip(*lists, found["value"].tolist(), strict=True)
        )
    ]


def document(sequence: int, device: int, kind: str, time: str, value: float) -> bytes:
    """Return one flat reading of 145 bytes; `seq` and `fw` are keys nobody asked for."""
    head = (
        f'{{"device":"razlog-{device:07d}","property":"{kind}","time":"{time}",'
        f'"value":{value},"quality":1,"seq":{sequence},"fw":"'
    )
    return (head + "v" * (VALUE_BYTES - 2 - len(head)) + '"}').encode()


assert START_US % 1000 == 0, "times are written in milliseconds"
