"""An open-loop generator of readings, in a process of its own: `python -m bench.load STREAM.json`.

A call of librdkafka a record, so some 150,000 a second; `bench.bulk` sends whole batches.

Record number i is due at `start + i / rate` and carries that moment as Kafka's timestamp
(CreateTime) and, unless shifted, as its event time, whenever it is really sent: a generator, client or broker
that cannot keep up makes the latency longer and is never left out. Nobody waits for answers.
The result on standard output says how far behind its plan the generator was at worst.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from bench.shapes import FIRES, NOTHING_UNUSUAL, Column, Readings
from streamproc.connectors.clock import SystemClock

TICK_S = 0.002
SLICE = 20_000
FLUSH_S = 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What to send, and when.

    Attributes:
        start_us: when the first record is due.
        event_shift_us: event times are this far from when a record is due.
        every: each so many-th reading fires the rule of its property; 0 for none.
        linger_ms: how long a record may wait for a larger batch.
    """

    servers: str
    topic: str
    partitions: int
    devices: int
    rate: float
    seconds: float
    start_us: int
    event_shift_us: int = 0
    every: int = 0
    schema_id: int = 0
    linger_ms: float = 1.0
    compression: str = "lz4"

    @property
    def total(self) -> int:
        return round(self.rate * self.seconds)

    def due_us(self, numbers: Column) -> Column:
        """Return when records are due."""
        return self.start_us + (numbers * (1e6 / self.rate)).astype(np.int64)

    def event_ms(self, numbers: Column) -> Column:
        """Return the event times of records."""
        return (self.due_us(numbers) + self.event_shift_us) // 1000

    def values(self, numbers: Column) -> Column:
        """Return the values of readings: some fire a rule."""
        fires = (
            numbers % self.every == 0 if self.every else np.zeros(len(numbers), bool)
        )
        return np.where(fires, FIRES, NOTHING_UNUSUAL)


def fires_every(rate: float, devices: int, per_second: float = 200.0) -> int:
    """Return an `every` with which a device never fires twice in a row, so that each fires."""
    every = max(3, round(rate / per_second))
    while devices % every == 0:
        every += 1
    return every


class Generator:
    """Sends a stream. Device i % devices sends record i."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._shape = Readings(stream.devices)
        self._keys = [key.tobytes() for key in self._shape.keys]
        self._clock = SystemClock()
        self._failed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": stream.servers,
                "acks": "all",
                "linger.ms": stream.linger_ms,
                "compression.type": stream.compression,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 1_000_000,
                "delivery.report.only.error": True,
                "log_level": 0,
            },
            on_delivery=self._delivered,
        )

    def run(self) -> dict[str, float]:
        """Send everything; return what was sent, and how late at worst."""
        stream, sent, behind_us = self._stream, 0, 0
        while sent < stream.total:
            now_us = self._clock.wall_us()
            due = int((now_us - stream.start_us) * stream.rate / 1e6) + 1
            until = min(due, stream.total, sent + SLICE)
            if until <= sent:
                self._producer.poll(0)
                time.sleep(TICK_S)
                continue
            numbers = np.arange(sent, until)
            behind_us = max(behind_us, now_us - int(stream.due_us(numbers[:1])[0]))
            self._send(numbers)
            sent = until
        left = self._producer.flush(FLUSH_S)
        return {
            "sent": sent,
            "failed": self._failed + left,
            "behind_ms": behind_us / 1e3,
            "cpu_s": time.process_time(),
        }

    def _send(self, numbers: Column) -> None:
        stream = self._stream
        devices = numbers % stream.devices
        event_ms = stream.event_ms(numbers)
        values = self._shape.records(devices, event_ms, stream.values(numbers))
        due_ms = (stream.due_us(numbers) // 1000).tolist()
        produce, keys, topic = self._producer.produce, self._keys, stream.topic
        partitions = (devices % stream.partitions).tolist()
        rows = zip(*(values, devices.tolist(), partitions, due_ms), strict=True)
        for value, device, partition, timestamp in rows:
            while True:
                try:
                    produce(topic, value, keys[device], partition, timestamp=timestamp)
                    break
                except BufferError:
                    self._producer.poll(0.01)
        self._producer.poll(0)

    def _delivered(self, error: object, _: object) -> None:
        self._failed += error is not None


def write(stream: Stream, path: Path, generator: str = "bench.load") -> list[str]:
    """Write the stream down and return the command that sends it."""
    path.write_text(json.dumps(asdict(stream)))
    return [sys.executable, "-m", generator, str(path)]


def given() -> Stream:
    """Return the stream that the command names."""
    return Stream(**json.loads(Path(sys.argv[1]).read_text()))


def main() -> None:
    print(json.dumps(Generator(given()).run()))


if __name__ == "__main__":
    main()
