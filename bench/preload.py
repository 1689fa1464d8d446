"""Filling topics of a real broker with readings whose sum and number are known."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.workloads import PROPERTIES, START_US, columns
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection

VALUE_BYTES = 145
CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class Sent:
    """What lies in the topic; `total` is the sum of all values."""

    readings: int
    total: float


def preload(
    connection: KafkaConnection,
    topic: str,
    partitions: int,
    rows: int,
    devices: int,
    *,
    codec: str = "lz4",
) -> Sent:
    """Create `topic` and fill it, in batches of some 3,600 records of 145 bytes."""
    compression = None if codec == "none" else codec
    producer = KafkaProduce(connection, compression=compression)
    return asyncio.run(_preload(producer, topic, partitions, rows, devices))


async def _preload(
    fresh: KafkaProduce, topic: str, partitions: int, rows: int, devices: int
) -> Sent:
    total = 0.0
    sent = 0
    async with fresh as producer:
        await producer.create_topics([topic], partitions)
        for messages, added in _chunks(topic, partitions, rows, devices):
            await producer.send(messages)
            total += added
            sent += len(messages)
    return Sent(sent, total)


def _chunks(
    topic: str, partitions: int, rows: int, devices: int
) -> Iterator[tuple[list[Message], float]]:
    """Yield messages in order of time; a device stays in one partition."""
    for lap, start in enumerate(range(0, rows, CHUNK)):
        count = min(CHUNK, rows - start)
        found = columns(CHUNK, devices, lap)
        times = np.datetime_as_string(
            (found["event_us"] // 1000).astype("datetime64[ms]"), timezone="UTC"
        ).tolist()
        lists = (found["device"].tolist(), found["property"].tolist(), times)
        messages = [
            Message(
                topic,
                document(start + row, device, PROPERTIES[kind], time, value),
                b"razlog-%07d" % device,
                device % partitions,
            )
            for row, (device, kind, time, value) in enumerate(
                zip(*lists, found["value"].tolist(), strict=True)
            )
            if row < count
        ]
        yield messages, float(found["value"][:count].sum())


def document(sequence: int, device: int, kind: str, time: str, value: float) -> bytes:
    """Return one flat reading of 145 bytes; `seq` and `fw` are keys nobody asked for."""
    head = (
        f'{{"device":"razlog-{device:07d}","property":"{kind}","time":"{time}",'
        f'"value":{value},"quality":1,"seq":{sequence},"fw":"'
    )
    return (head + "v" * (VALUE_BYTES - 2 - len(head)) + '"}').encode()


assert START_US % 1000 == 0, "times are written in milliseconds"
