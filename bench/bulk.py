"""An open-loop generator of whole record batches: `python -m bench.bulk STREAM.json`.

For loads beyond what one call a record can send: Theodolite's power records, or the flat JSON
of `bench.load` where the stream names no schema, in batches that were made before, of which
only event times, the values of JSON, first time and checksum are new. A batch holds
what is due in a partition within `linger_ms` and is sent when its last record is due, as a
client that lingers does; whatever comes of it, the next one is sent when it is due.
Keys, event times and CreateTime are those of `bench.load`. Tells how far behind its plan a
batch was handed over at worst, and how long after that plan the broker had acknowledged it.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition

from bench.batches import Template
from bench.load import FLUSH_S, Stream, given
from bench.shapes import Column, Power, Readings, Shape
from streamproc.connectors.clock import SystemClock

RECORDS_MAX: Final = 8_192
_ACK_MS: Final = 30_000
_ALL_REPLICAS: Final = -1


@dataclass(frozen=True, slots=True)
class Lane:
    """One partition's batch of a slot: the devices in it, and the batch as it was last time."""

    partition: int
    devices: Column
    template: Template


def shape_of(stream: Stream) -> Shape:
    """Return what its records look like: Avro where it names a schema, else flat JSON."""
    if stream.schema_id:
        return Power(stream.devices, stream.schema_id)
    return Readings(stream.devices)


class Plan:
    """A lap is every device once; it is divided into slots, each sent at one moment."""

    def __init__(self, stream: Stream, shape: Shape) -> None:
        self._stream = stream
        lap_ms = stream.devices / stream.rate * 1e3
        whole = RECORDS_MAX * stream.partitions
        slots = max(ceil(lap_ms / stream.linger_ms), ceil(stream.devices / whole))
        borders = np.linspace(0, stream.devices, min(slots, stream.devices) + 1)
        self.borders = borders.astype(np.int64).tolist()
        noise = np.random.default_rng(1)
        self.slots = [
            [lane for lane in self._lanes(shape, low, high, noise) if len(lane.devices)]
            for low, high in zip(self.borders, self.borders[1:], strict=False)
        ]

    def _lanes(
        self, shape: Shape, low: int, high: int, noise: np.random.Generator
    ) -> "list[Lane]":
        partitions, lanes = self._stream.partitions, []
        for partition in range(partitions):
            first = low + (partition - low) % partitions
            devices = np.arange(first, high, partitions)
            moved_ms = ((devices - first) * (1e3 / self._stream.rate)).astype(np.int64)
            template = Template(shape, devices, moved_ms)
            if self._stream.schema_id:
                template.put_values(noise.uniform(0, 1000, len(devices)).round(2))
            lanes.append(Lane(partition, devices, template))
        return lanes

    def batches(self, lap: int, slot: int) -> list[tuple[int, bytes]]:
        """Return (partition, batch) of what is due in a slot, without what is beyond the end."""
        stream, batches = self._stream, []
        for lane in self.slots[slot]:
            numbers = lane.devices + lap * stream.devices
            count = int(np.searchsorted(numbers, stream.total))
            if not count:
                continue
            lane.template.put_times(stream.event_ms(numbers))
            if not stream.schema_id:
                lane.template.put_values(stream.values(numbers))
            first_ms = int(stream.due_us(numbers[:1])[0]) // 1000
            batch = lane.template.batch(first_ms, stream.compression, count=count)
            batches.append((lane.partition, batch))
        return batches

    def due_us(self, lap: int, slot: int) -> int:
        """Return when the last record of a slot is due."""
        last = lap * self._stream.devices + self.borders[slot + 1] - 1
        return int(self._stream.due_us(np.array([last]))[0])


class Bulk:
    """Sends a stream of power records or readings, device i % devices record i."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._plan = Plan(stream, shape_of(stream))
        self._clock = SystemClock()
        self._failed = self._acked_us = 0

    async def run(self) -> dict[str, float]:
        """Send everything; return what was sent, and how late at worst."""
        stream, plan = self._stream, self._plan
        client = AIOKafkaClient(bootstrap_servers=stream.servers)
        await client.bootstrap()
        await client.set_topics([stream.topic])
        # One broker, so it leads all partitions.
        leader = client.cluster.leader_for_partition(TopicPartition(stream.topic, 0))
        behind_us, asked = 0, set()
        for lap in range(ceil(stream.total / stream.devices)):
            for slot in range(len(plan.slots)):
                due_us = plan.due_us(lap, slot)
                early_us = due_us - self._clock.wall_us()
                await asyncio.sleep(max(0, early_us) / 1e6)
                if batches := plan.batches(lap, slot):
                    behind_us = max(behind_us, self._clock.wall_us() - due_us)
                    task = asyncio.create_task(
                        self._send(client, leader, batches, due_us)
                    )
                    asked.add(task)
                    task.add_done_callback(asked.discard)
        if asked:
            _, left = await asyncio.wait(asked, timeout=FLUSH_S)
            self._failed += len(left)
        await client.close()
        return {
            "sent": stream.total,
            "failed": self._failed,
            "behind_ms": behind_us / 1e3,
            "acked_ms": self._acked_us / 1e3,
            "cpu_s": time.process_time(),
        }

    async def _send(
        self,
        client: AIOKafkaClient,
        leader: int,
        batches: list[tuple[int, bytes]],
        due_us: int,
    ) -> None:
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ALL_REPLICAS,
            timeout=_ACK_MS,
            topics=[(self._stream.topic, batches)],
        )
        try:
            answer: Any = await client.send(leader, request)
        except KafkaError:
            self._failed += 1
            return
        for _, partitions in answer.topics:
            for _, code, *_ in partitions:
                self._failed += bool(code)
                if code:
                    print(for_code(code), flush=True)
        self._acked_us = max(self._acked_us, self._clock.wall_us() - due_us)


def main() -> None:
    print(json.dumps(asyncio.run(Bulk(given()).run())))


if __name__ == "__main__":
    main()
