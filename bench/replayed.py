"""A worker that reads nothing: record batches from its own memory, all else as it is.

    python -m bench.replayed CONFIG WARM_UP --rows 2000000 --core 0

A child of `bench.workers`. It makes the batches, says `ready`, waits for a line, runs the
real service over them (checksum, decompression, decoder, fold, Parquet, commit log) and says
what it took. Before that it has run over a few of them, so that kernels are loaded.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np
from aiokafka import TopicPartition as AioTopicPartition

from bench.batches import Template
from bench.shapes import Readings
from bench.workloads import MINUTE_US, START_US
from streamproc.app.outside import make_schemas
from streamproc.app.root import Decoders, Root
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import BatchReader
from streamproc.connectors.kafka_message_set import Limits, MessageSet, RawRecords
from streamproc.connectors.kafka_records import nothing
from streamproc.connectors.kafka_settings import MEBIBYTE
from streamproc.core.ports import AssignmentListener, Bounds
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.runtime.collector import set_for_streaming
from streamproc.runtime.observer import Totals
from streamproc.runtime.opening import Start
from streamproc.runtime.parts import ServiceOptions, ServiceParts
from streamproc.runtime.service import Service

TOPIC = "replayed.razlog"
BATCH_RECORDS = 3_600
RESPONSE_BYTES = 4 * MEBIBYTE
RECORDS_MAX = 100_000
_READY_LAPS = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """A record batch, and the offset behind it."""

    end: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker has in memory, by partition, and the sum of all values."""

    batches: Mapping[TopicPartition, Sequence[Batch]]
    readings: int
    total: float

    def first(self, laps: int) -> "Held":
        """Return the first batches of each partition; nobody asks for their sum."""
        few = {origin: found[:laps] for origin, found in self.batches.items()}
        return Held(few, sum(found[-1].end for found in few.values()), 0.0)


def hold(rows: int, devices: int, partitions: int, codec: str) -> Held:
    """Return about so many readings, a lap of all devices a minute, up to 5 s late."""
    shape, random = Readings(devices), np.random.default_rng(1)
    made: dict[TopicPartition, list[Batch]] = {}
    total, laps = 0.0, max(rows // devices, 1)
    for partition in range(partitions):
        own = np.arange(partition, devices, partitions)
        lanes = [
            (part, Template(shape, part, np.zeros(len(part), np.int64)))
            for part in np.array_split(own, ceil(len(own) / BATCH_RECORDS))
        ]
        batches = made[TopicPartition(TOPIC, partition)] = []
        end = 0
        for lap in range(laps):
            for part, template in lanes:
                due_ms = (START_US + (lap + part / devices) * MINUTE_US) // 1000
                event_ms = due_ms.astype(np.int64) - random.integers(0, 5000, len(part))
                value = random.uniform(100, 880, len(part)).round(1)
                template.put_times(event_ms)
                template.put_values(value)
                total += float(value.sum())
                data = template.batch(int(due_ms[0]), codec, base=end)
                end += len(part)
                batches.append(Batch(end, data))
    return Held(made, laps * devices, total)


class ReplayedBatches:
    """Implements `core.ports.Source` on batches in memory, all partitions its own.

    What is read at once is what a response of a broker would hold; it is copied as from a
    socket, and read on a thread, as `RawPath` does it.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._pool = ArenaPool(RESPONSE_BYTES)
        self._reader = BatchReader(self._pool)
        self._turn = 0
        self._next: dict[TopicPartition, int] = {}
        self._open: set[TopicPartition] = set()

    async def start(self, listener: AssignmentListener) -> None:
        await listener.assigned(frozenset(self._held.batches))

    @property
    def held_bytes(self) -> int:
        return self._pool.used

    @property
    def coming_bytes(self) -> int:
        return 0

    async def fetch(
        self, timeout_ms: int, among: Collection[TopicPartition] | None = None
    ) -> Sequence[Records]:
        """Return the next response of one partition after the other."""
        ready = [
            origin
            for origin in self._held.batches
            if origin in self._open
            and (among is None or origin in among)
            and self._next[origin] < self._end(origin)
        ]
        if not ready:
            await asyncio.sleep(timeout_ms / 1000)
            return ()
        self._turn += 1
        origin = ready[self._turn % len(ready)]
        return await asyncio.to_thread(self._response, origin)

    def _response(self, origin: TopicPartition) -> Sequence[Records]:
        start = self._next[origin]
        parts, size, end = [], 0, start
        for batch in self._held.batches[origin]:
            if batch.end <= start:
                continue
            if size + len(batch.data) > RESPONSE_BYTES or (
                batch.end - start > RECORDS_MAX
            ):
                break
            parts.append(batch.data)
            size, end = size + len(batch.data), batch.end
        messages = MessageSet(self._pool, b"".join(parts))
        tp = AioTopicPartition(origin.topic, origin.partition)
        limits = Limits(RECORDS_MAX)
        rest = (None, None, True, 0)
        chunks = RawRecords(limits, tp, messages, (), start, *rest)
        self._next[origin] = end
        return self._reader.read(origin, list(chunks), OffsetSpan(start, end))

    def _end(self, origin: TopicPartition) -> int:
        return self._held.batches[origin][-1].end

    async def bounds(self, partition: TopicPartition) -> Bounds:
        return Bounds(0, self._end(partition))

    async def offset_at(self, _partition: TopicPartition, _us: int, /) -> int | None:
        return None

    async def topic_id(self, topic: str) -> str:
        return f"{topic}-in-memory"

    async def partition_count(self, topic: str) -> int:
        return sum(1 for origin in self._held.batches if origin.topic == topic)

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        return nothing(partition, OffsetSpan(offset, offset + 1))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset

    def pause(self, partition: TopicPartition) -> None:
        self._open.discard(partition)

    def resume(self, partition: TopicPartition) -> None:
        self._open.add(partition)

    async def hint(self, _at: TopicPartition, _offset: int, _note: str, /) -> bool:
        return True

    async def stop(self) -> None:
        self._open.clear()


async def run(settings: Settings, held: Held) -> Totals:
    """Run the service over what is held, to its end, and close all windows."""
    clock, totals = SystemClock(), Totals()
    root = Root(settings, clock, {})
    parts = ServiceParts(
        source=ReplayedBatches(held),
        store=root.store,
        make_decoder=Decoders(settings).make,
        schemas=make_schemas(settings, None, clock, lambda: False),
        make_worker=root.make_worker,
        definition=settings.definition,
        clock=clock,
        observer=totals,
    )
    options = ServiceOptions(
        start=Start(), until_end=True, close=True, buffer=settings.buffer
    )
    await Service(parts, options).run()
    root.store.close()
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("warm_up", type=Path, help="the same with another root")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--compression", default="lz4")
    parser.add_argument("--core", type=int, help="the only processor it may use")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    held = hold(given.rows, given.devices, given.partitions, given.compression)
    set_for_streaming()
    asyncio.run(run(load_settings(given.warm_up, {}), held.first(_READY_LAPS)))
    settings = load_settings(given.config, {})
    print("ready", flush=True)
    sys.stdin.readline()
    began_ns, began_cpu_s = time.perf_counter_ns(), time.process_time()
    totals = asyncio.run(run(settings, held))
    answer = {
        "began_ns": began_ns,
        "ended_ns": time.perf_counter_ns(),
        "cpu_s": time.process_time() - began_cpu_s,
        "sent": held.readings,
        "total": held.total,
        "counted": asdict(totals),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
