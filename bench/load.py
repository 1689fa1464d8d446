"""An open-loop generator, in a process of its own: `python -m bench.load STREAM.json`.

Record number i is due at `start + i / rate` and carries that moment as Kafka's timestamp
(CreateTime) and, unless shifted, as its event time, whenever it is really sent: a generator, client or broker
that cannot keep up makes the latency longer and is never left out. Nobody waits for answers.
The result on standard output says how far behind its plan the generator was at worst.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from confluent_kafka import Producer

from bench.shapes import FIRES, NOTHING_UNUSUAL, Column, Power, Readings, Shape
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
        linger_ms: how long librdkafka may wait for a larger batch.
        core: the only processor it may use; None for any.
    """

    servers: str
    topic: str
    partitions: int
    shape: Literal["readings", "power"]
    devices: int
    rate: float
    seconds: float
    start_us: int
    event_shift_us: int = 0
    every: int = 0
    schema_id: int = 0
    linger_ms: float = 1.0
    compression: str = "lz4"
    core: int | None = None

    @property
    def total(self) -> int:
        return round(self.rate * self.seconds)

    def due_us(self, numbers: Column) -> Column:
        """Return when records are due."""
        return self.start_us + (numbers * (1e6 / self.rate)).astype(np.int64)

    def event_ms(self, numbers: Column) -> Column:
        """Return the event times of records."""
        return (self.due_us(numbers) + self.event_shift_us) // 1000


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
        self._shape: Shape = (
            Readings(stream.devices)
            if stream.shape == "readings"
            else Power(stream.devices, stream.schema_id)
        )
        self._noise = np.random.default_rng(1).uniform(0, 1000, SLICE).round(2)
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
        values = self._shape.records(devices, event_ms, self._values(numbers))
        due_ms = (stream.due_us(numbers) // 1000).tolist()
        produce, keys, topic = self._producer.produce, self._shape.keys, stream.topic
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

    def _values(self, numbers: Column) -> Column:
        if self._stream.shape == "power":
            return self._noise[: len(numbers)]
        every = self._stream.every
        fires = numbers % every == 0 if every else np.zeros(len(numbers), bool)
        return np.where(fires, FIRES, NOTHING_UNUSUAL)

    def _delivered(self, error: object, _: object) -> None:
        self._failed += error is not None


def write(stream: Stream, path: Path) -> list[str]:
    """Write the stream down and return the command that sends it."""
    path.write_text(json.dumps(asdict(stream)))
    return [sys.executable, "-m", "bench.load", str(path)]


def main() -> None:
    stream = Stream(**json.loads(Path(sys.argv[1]).read_text()))
    if stream.core is not None:
        os.sched_setaffinity(0, {stream.core})
    print(json.dumps(Generator(stream).run()))


if __name__ == "__main__":
    main()
