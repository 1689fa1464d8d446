"""Producing in bulk: for the simulator, the demo and tests.

Records are packed into batches here, one acknowledgement per batch, because a future per
record halves the rate. The producer is idempotent: its own retries never double a record.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.partitioner import DefaultPartitioner

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_connect import why_unreachable
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.errors import Unreachable, WorldError

BATCH_BYTES = 512 * 1024
KEYS_REMEMBERED_MAX = 200_000


class Message(NamedTuple):
    """One record to send; a None partition is chosen from the key, as Java clients do."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Acked(NamedTuple):
    """Where a record went, acknowledged by every replica in sync."""

    partition: int
    offset: int


@dataclass(slots=True)
class _Lane:
    """One partition's share of a `send`: rows of the input, and the batch being filled."""

    topic: str
    partition: int
    batch: Any
    rows: list[int]


class KafkaProduce:
    """Sends records and tells their offsets. Use as an async context manager."""

    def __init__(
        self, connection: KafkaConnection, *, compression: str | None = None
    ) -> None:
        self._connection = connection
        self._compression = compression
        self._producer: AIOKafkaProducer | None = None
        self._partition_of: dict[tuple[str, bytes], int] = {}
        self._turns = count()
        self._choose = DefaultPartitioner()

    async def __aenter__(self) -> Self:
        """Connect. Raises `Unreachable`, or `WorldError` where we are refused."""
        producer = AIOKafkaProducer(
            enable_idempotence=True,
            acks="all",
            compression_type=self._compression,
            max_batch_size=BATCH_BYTES,
            **self._connection.aiokafka(),
        )
        try:
            await producer.start()
        except KafkaConnectionError as error:
            await producer.stop()
            raise await why_unreachable(self._connection) from error
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def create_topics(
        self,
        names: Sequence[str],
        partitions: int,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create what does not exist and return once producing to all of it works.

        Raises:
            WorldError: the broker creates no topics (the embedded one does not over the
                wire; see `EmbeddedBroker.create_topic`).
        """
        async with KafkaAdmin(self._connection) as admin:
            missing = sorted(set(names) - await admin.topics())
            if missing:
                await admin.create_topics(missing, partitions, config)
            await admin.wait_for_topics(names)

    async def send(self, messages: Sequence[Message]) -> list[Acked]:
        """Send all and return their places in the order given, once all are acknowledged.

        Order within a partition is the order given.

        Raises:
            Unreachable, WorldError: not everything was acknowledged; some may be there.
        """
        places: list[Acked | None] = [None] * len(messages)
        try:
            async with asyncio.TaskGroup() as group:
                await self._pack(messages, places, group)
        except* KafkaError as errors:
            first = errors.exceptions[0]
            kind = Unreachable if getattr(first, "retriable", False) else WorldError
            msg = f"Kafka: not all was acknowledged: {type(first).__name__}: {first}"
            raise kind(msg) from first
        assert None not in places
        return [place for place in places if place is not None]

    async def _pack(
        self,
        messages: Sequence[Message],
        places: list[Acked | None],
        group: asyncio.TaskGroup,
    ) -> None:
        lanes: dict[tuple[str, int], _Lane] = {}
        for row, message in enumerate(messages):
            partition = message.partition
            if partition is None:
                partition = await self._partition(message.topic, message.key)
            lane = lanes.get((message.topic, partition))
            if lane is None:
                lane = _Lane(message.topic, partition, self._batch(), [])
                lanes[message.topic, partition] = lane
            if not _append(lane.batch, message):
                await self._submit(lane, places, group)
                lane.batch, lane.rows = self._batch(), []
                _append(lane.batch, message)
            lane.rows.append(row)
        for lane in lanes.values():
            await self._submit(lane, places, group)

    def _batch(self) -> Any:
        return self._started.create_batch()

    @property
    def _started(self) -> AIOKafkaProducer:
        assert self._producer is not None, "enter the context first"
        return self._producer

    async def _partition(self, topic: str, key: bytes | None) -> int:
        """Choose as Java does by key, in turn without one; murmur2 is slow here, so kept."""
        if key is not None:
            known = self._partition_of.get((topic, key))
            if known is not None:
                return known
        every: list[int] = sorted(await self._started.partitions_for(topic))
        if key is None:
            return every[next(self._turns) % len(every)]
        chosen: int = self._choose(key, every, every)
        if len(self._partition_of) >= KEYS_REMEMBERED_MAX:
            self._partition_of.clear()
        self._partition_of[topic, key] = chosen
        return chosen

    async def _submit(
        self, lane: _Lane, places: list[Acked | None], group: asyncio.TaskGroup
    ) -> None:
        """Hand a batch to the client, which keeps a partition's batches in order."""
        lane.batch.close()
        acknowledged = await self._started.send_batch(
            lane.batch, lane.topic, partition=lane.partition
        )
        group.create_task(_note(acknowledged, lane.partition, lane.rows, places))


def _append(batch: Any, message: Message) -> bool:
    """Add a record; False where the batch is full."""
    return (
        batch.append(
            timestamp=message.timestamp_ms,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
        )
        is not None
    )


async def _note(
    acknowledged: "asyncio.Future[Any]",
    partition: int,
    rows: list[int],
    places: list[Acked | None],
) -> None:
    base = (await acknowledged).offset
    for index, row in enumerate(rows):
        places[row] = Acked(partition, base + index)
