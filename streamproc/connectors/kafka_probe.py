"""Questions about partitions, over connections of their own.

A broker answers the requests of one connection in order, so on the consumer's a question
waits behind a long poll (250 ms and more), and reading a single record would move the
consumer's position. The probe is a consumer without a group that is started when first
asked and fetches only what `read_one` wants.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from streamproc.connectors.kafka_connect import why_no_address, why_unreachable
from streamproc.connectors.kafka_records import columnar, nothing
from streamproc.connectors.kafka_rights import READING, forbidden
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.ports import Bounds
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.errors import Unreachable, WorldError

T = TypeVar("T")

PROBES = 4
"""Connections for questions: how many partitions are asked about at once."""

_FETCH_WAIT_MS = 50
_FETCH_BYTES = 64 * 1024  # a broker sends at least one whole batch whatever the limit


class KafkaProbe:
    """Answers one question at a time; each within `timeout_s` or with an error.

    That is `Unreachable`, or `WorldError` where the brokers refuse us.
    """

    def __init__(self, connection: KafkaConnection, *, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._consumer: AIOKafkaConsumer | None = None
        self._forsaken = False
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Disconnect; safe twice. A later question connects again."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """Return begin and last stable offset, asked for now."""
        return await self._ask(partition, self._bounds(_aio(partition)))

    async def offset_at(self, partition: TopicPartition, time_us: int) -> int | None:
        """Return the first offset at or after `time_us`, None if there is none."""
        # Kafka refuses negative times; nothing is older than 1970.
        time_ms = max(0, -(-time_us // 1000))
        return await self._ask(partition, self._offset_at(_aio(partition), time_ms))

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        """Return the record at `offset`, or none where it is gone or never was one."""
        return await self._ask(partition, self._read_one(partition, offset))

    # --- the questions, under the lock and the limit -------------------------------------

    async def _bounds(self, tp: AioTopicPartition) -> Bounds:
        consumer = await self._started()
        begin, end = await asyncio.gather(
            consumer.beginning_offsets([tp]), consumer.end_offsets([tp])
        )
        return Bounds(begin[tp], end[tp])

    async def _offset_at(self, tp: AioTopicPartition, time_ms: int) -> int | None:
        consumer = await self._started()
        found = (await consumer.offsets_for_times({tp: time_ms}))[tp]
        return None if found is None else int(found.offset)

    async def _read_one(self, partition: TopicPartition, offset: int) -> Records:
        tp = _aio(partition)
        span = OffsetSpan(offset, offset + 1)
        bounds = await self._bounds(tp)
        if not bounds.begin <= offset < bounds.end:
            return nothing(partition, span)
        consumer = await self._started()
        consumer.assign([tp])
        consumer.seek(tp, offset)
        try:
            while True:
                fetched = await consumer.getmany(
                    tp, timeout_ms=_FETCH_WAIT_MS, max_records=1
                )
                found = fetched.get(tp, ())
                if found and found[0].offset == offset:
                    return columnar(partition, found, span)
                if found or await consumer.position(tp) > offset:
                    return nothing(partition, span)
        except OffsetOutOfRangeError:
            return nothing(partition, span)
        finally:
            consumer.pause(tp)

    # --- plumbing -------------------------------------------------------------------

    async def _started(self) -> AIOKafkaConsumer:
        if self._forsaken:
            await self.close()
            self._forsaken = False
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
                fetch_max_bytes=_FETCH_BYTES,
                max_partition_fetch_bytes=_FETCH_BYTES,
                **self._connection.aiokafka(),
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer

    async def _ask(
        self, partition: TopicPartition, question: Coroutine[Any, Any, T]
    ) -> T:
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                try:
                    return await question
                except asyncio.CancelledError:
                    # Its far end may have vanished without a word. aiokafka finds that out
                    # by a request that times out, and this one never will.
                    self._forsaken = True
                    raise
        except TimeoutError as error:
            # Refused at every reconnect, aiokafka tries again for as long as it may.
            refusal = await why_no_address(self._connection)
            if refusal is not None and not refusal.retriable:
                raise refusal from error
            msg = f"Kafka: {partition.source}: no answer within {self._timeout_s} s"
            raise Unreachable(msg) from error
        except KafkaError as error:
            if error.retriable or self._consumer is None:
                raise await why_unreachable(self._connection) from error
            if isinstance(error, TopicAuthorizationFailedError):
                user = self._connection.security.username
                raise forbidden(user, "topic", partition.topic, READING) from error
            msg = f"Kafka: {partition.source}: {type(error).__name__}: {error}"
            raise WorldError(msg) from error
        finally:
            question.close()


class KafkaProbes:
    """Answers several questions at once, each by a probe of its own: partitions are opened so.

    The one that was used last is used first, so a service at rest has one connection for it.
    """

    def __init__(
        self, connection: KafkaConnection, *, timeout_s: float, count: int = PROBES
    ) -> None:
        self._probes = [
            KafkaProbe(connection, timeout_s=timeout_s) for _ in range(count)
        ]
        self._free: asyncio.LifoQueue[KafkaProbe] = asyncio.LifoQueue()
        for probe in self._probes:
            self._free.put_nowait(probe)

    async def close(self) -> None:
        """Disconnect; safe twice. A later question connects again."""
        for probe in self._probes:
            await probe.close()

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """See `KafkaProbe`."""
        async with self._one() as probe:
            return await probe.bounds(partition)

    async def offset_at(self, partition: TopicPartition, time_us: int) -> int | None:
        """See `KafkaProbe`."""
        async with self._one() as probe:
            return await probe.offset_at(partition, time_us)

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        """See `KafkaProbe`."""
        async with self._one() as probe:
            return await probe.read_one(partition, offset)

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[KafkaProbe]:
        probe = await self._free.get()
        try:
            yield probe
        finally:
            self._free.put_nowait(probe)


def _aio(partition: TopicPartition) -> AioTopicPartition:
    return AioTopicPartition(partition.topic, partition.partition)
