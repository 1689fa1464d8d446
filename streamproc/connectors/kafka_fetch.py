"""How fetched bytes become `Records`: from raw batches, or through aiokafka's own records.

The raw path is for every consumer that wants no headers. The ordinary one is complete, and
some ten times slower: it is taken where headers are wanted, where the options say so, and
where aiokafka is not what `kafka_raw` knows; then `notes` tells, and somebody is to say it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import BatchReader
from streamproc.connectors.kafka_message_set import Limits, MessageSet, RawRecords
from streamproc.connectors.kafka_raw import (
    hand_out_batches,
    receive_into_arenas,
    why_not_arenas,
    why_not_batches,
)
from streamproc.connectors.kafka_records import columnar
from streamproc.connectors.kafka_settings import MEBIBYTE, KafkaOptions
from streamproc.core.values import OffsetSpan, Records, TopicPartition

Fetched = Mapping[AioTopicPartition, tuple[Sequence[Any], OffsetSpan]]
"""What `getmany` returned, and the offsets it accounts for."""

Made = dict[AioTopicPartition, Sequence[Records]]

_RECORDS_ON_LOOP_MAX: Final = 20_000
"""The ordinary path makes them on the event loop: about 50 ms without heartbeats."""

_IDLE_FRAMES: Final = 1


class FetchPath(ABC):
    """One way from a consumer to `Records`.

    Attributes:
        notes: what does not work as it should, in words for an operator.
        items_max: `getmany`'s `max_records`.
        bytes_held: bytes of memory in which anything fetched lies; 0 where nobody counts.
    """

    notes: tuple[str, ...] = ()
    items_max: int

    @property
    def bytes_held(self) -> int:
        """Bytes of memory in which anything fetched lies; 0 where nobody counts."""
        return 0

    @abstractmethod
    def prepare(self, consumer: AIOKafkaConsumer) -> None:
        """Get a consumer ready that is not yet started."""

    @abstractmethod
    async def read(self, fetched: Fetched) -> Made:
        """Return the records of each partition; they account for its span."""

    def close(self) -> None:
        """Let go of threads, where there are any; safe twice."""
        return


class OrdinaryPath(FetchPath):
    """A Python object per record, made by aiokafka."""

    def __init__(self, options: KafkaOptions, notes: tuple[str, ...] = ()) -> None:
        self.notes = notes
        self.items_max = min(options.records_max, _RECORDS_ON_LOOP_MAX)
        self._headers = options.headers

    def prepare(self, consumer: AIOKafkaConsumer) -> None:
        """Nothing to do."""

    async def read(self, fetched: Fetched) -> Made:
        """Make columns of the records, on the loop."""
        return {
            tp: (columnar(_origin(tp), items, span, headers=self._headers),)
            for tp, (items, span) in fetched.items()
        }


class RawPath(FetchPath):
    """No object per record; all but looking at headers happens on a thread of its own."""

    def __init__(self, options: KafkaOptions) -> None:
        self._limits = Limits(options.records_max)
        self.items_max = self._limits.chunks
        self._pool = ArenaPool(_IDLE_FRAMES * options.fetch_bytes_max)
        self._reader = BatchReader(self._pool)
        self._thread = ThreadPoolExecutor(1, "records")
        reason = why_not_arenas()
        self._arenas = reason is None
        if reason is not None:
            self.notes = (
                f"{reason}; every byte from the broker is copied three times",
            )

    @property
    def bytes_held(self) -> int:
        """Bytes of the arenas that somebody still holds a part of."""
        return self._pool.used

    def prepare(self, consumer: AIOKafkaConsumer) -> None:
        """Bind the consumer's functions anew."""
        hand_out_batches(consumer, self._pool, self._limits)
        if self._arenas:
            receive_into_arenas(consumer, self._pool)

    async def read(self, fetched: Fetched) -> Made:
        """Check and decompress; a wrong checksum is an error with its place."""
        if not fetched:
            return {}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._read, fetched)

    def _read(self, fetched: Fetched) -> Made:
        return {
            tp: self._reader.read(_origin(tp), items, span)
            for tp, (items, span) in fetched.items()
        }

    def close(self) -> None:
        """Let the thread end; what it is at, it finishes."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def path_for(options: KafkaOptions) -> FetchPath:
    """Return the fastest path there is for these options."""
    if options.headers or not options.raw:
        return OrdinaryPath(options)
    reason = why_not_batches()
    if reason is not None:
        note = f"{reason}; records take the ordinary path, some ten times slower"
        return OrdinaryPath(options, (note,))
    return RawPath(options)


def _origin(tp: AioTopicPartition) -> TopicPartition:
    return TopicPartition(tp.topic, tp.partition)


def read_a_batch(value: bytes) -> Records:
    """Return a record of a batch made here and read as raw ones are: for the warm-up."""
    origin = AioTopicPartition("warmup", 0)
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(value) + MEBIBYTE)
    builder.append(0, 0, b"key", value, [("name", b"value")])
    pool = ArenaPool(0)
    messages = MessageSet(pool, bytes(builder.build()))
    found = RawRecords(*(Limits(1), origin, messages, ()), *(0, None, None, True, 1))
    (records,) = BatchReader(pool).read(_origin(origin), list(found), OffsetSpan(0, 1))
    return records
