"""Random fetch responses, read by us and by aiokafka: the same records, positions, errors."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as AioTopicPartition

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import BatchReader
from streamproc.connectors.kafka_message_set import (
    Limits,
    MessageSet,
    RawRecords,
    Slice,
)
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.kernels.bytes_raw import PAD
from tests.support.batches import CODECS, NOW_MS, Batch, Rec, Seen, marker

TP = AioTopicPartition("t", 3)
ORIGIN = TopicPartition("t", 3)
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Response:
    """What a broker might send for one partition, and what was asked for."""

    data: bytes
    aborted: Sequence[tuple[int, int]]
    position: int
    isolation: int


def response(rng: random.Random, *, legacy: bool = False) -> Response:
    """Return transactions, open and closed, gaps, a tail cut off, a bit turned over."""
    base = start = rng.randrange(1000)
    encoded: list[bytes] = []
    aborted: list[tuple[int, int]] = []
    open_transactions: dict[int, bool] = {}
    first_next = base + 1
    for number in range(rng.randrange(1, 12)):
        producer = rng.choice([1, 2, 3])
        if legacy and rng.random() < 0.5:
            data, after = old_batch(rng, base)
        elif rng.random() < 0.25 and producer in open_transactions:
            batch = marker(base, producer, abort=open_transactions.pop(producer))
            data, after = batch.encode(), batch.next
        else:
            transactional = rng.random() < 0.5
            if transactional and producer not in open_transactions:
                open_transactions[producer] = rng.random() < 0.5
                if open_transactions[producer]:
                    aborted.append((producer, base))
            batch = data_batch(rng, base, producer, transactional)
            data, after = batch.encode(), batch.next
        if number == 0:
            first_next = after
        encoded.append(data)
        base = after
    blob = b"".join(encoded)
    first = len(encoded[0])
    if rng.random() < 0.3:
        blob = blob[: rng.randrange(first, len(blob) + 1)]
    if rng.random() < 0.05 and not legacy:
        place = rng.randrange(17, first)
        blob = (
            blob[:place]
            + bytes([blob[place] ^ 1 << rng.randrange(8)])
            + blob[place + 1 :]
        )
    isolation = rng.choice([0, 1])
    position = rng.choice([start, rng.randrange(start, first_next)])
    return Response(blob, aborted if isolation else [], position, isolation)


def data_batch(
    rng: random.Random, base: int, producer: int, transactional: bool
) -> Batch:
    delta = 0
    records = []
    for number in range(rng.choice([0, *range(1, 30)])):
        key = rng.choice([None, b"", b"k%d" % number])
        value = b"value-%d" % (base + delta)
        if rng.random() < 0.3:
            value = rng.choice([b"", b"v" * rng.randrange(300)])
        headers = [("h", b"x"), ("n", None)] if rng.random() < 0.2 else []
        null = rng.random() < 0.1
        records.append(
            Rec(
                delta, None if null else value, key, rng.randrange(-5, 100_000), headers
            )
        )
        delta += 1 + (rng.randrange(3) if rng.random() < 0.1 else 0)
    return Batch(
        base,
        records,
        codec=rng.choice(["none", *CODECS]) if records else "none",
        producer=producer if transactional else rng.choice([-1, producer]),
        transactional=transactional,
        append_time=rng.random() < 0.2,
        first_ms=-1 if rng.random() < 0.05 else NOW_MS,
        last_delta=max(0, delta - 1) + rng.choice([0, 0, 2]),
    )


def old_batch(rng: random.Random, base: int) -> tuple[bytes, int]:
    """Return messages in format 0 or 1, and the offset behind them."""
    magic = rng.choice([0, 1])
    codec = rng.choice([0, 1, 2, 3] if magic else [0, 1, 2])  # format 0 knows no lz4
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    count = rng.randrange(1, 6)
    for number in range(count):
        # Format 1 has offsets relative to the first inside a compressed message.
        offset = number if codec and magic else base + number
        builder.append(
            offset,
            timestamp=NOW_MS + number,
            key=rng.choice([None, b"k"]),
            value=rng.choice([None, b"", b"old %d" % (base + number)]),
        )
    data = bytearray(builder.build())
    if codec:
        data[:8] = (base + count - 1).to_bytes(8, "big")
    return bytes(data), base + count


def by_aiokafka(asked: Response) -> tuple[list[Seen], int, type[Exception] | None]:
    records = PartitionRecords(
        *(TP, MemoryRecords(asked.data), list(asked.aborted), asked.position),
        *(None, None, True, asked.isolation),
    )
    seen: list[Seen] = []
    try:
        for record in records:
            time_ms = -1 if record.timestamp is None else record.timestamp
            time_us = NO_TIME if time_ms < 0 else 1000 * time_ms
            seen.append((record.offset, time_us, record.key, record.value))
    except CorruptRecordException as error:
        return [], 0, type(error)
    return seen, records.next_fetch_offset, None


def by_us(
    asked: Response, limits: Limits, *, arena: bool
) -> tuple[list[Seen], int, type[Exception] | None]:
    pool = ArenaPool(8 * MEBIBYTE)
    data: bytes | Slice = asked.data
    if arena:
        frame = np.frombuffer(b"\xaa" * 9 + asked.data + b"\xff" * PAD, np.uint8)
        data = Slice(frame, 9, 9 + len(asked.data))
    raw = RawRecords(
        *(limits, TP, MessageSet(pool, data), list(asked.aborted), asked.position),
        *(None, None, True, asked.isolation),
    )
    reader = BatchReader(pool)
    batches: list[Records] = []
    start = asked.position
    try:
        # As `getmany` does it: so many items, then the position behind the last one.
        while items := list(islice(raw, limits.chunks)):
            span = OffsetSpan(start, raw.next_fetch_offset)
            assert items[-1].end == span.end
            batches += reader.read(ORIGIN, items, span)
            start = span.end
    except CorruptRecordException as error:
        # An error without a place is none that anybody can act on.
        return [], 0, type(error) if "t/3: " in str(error) else None
    assert_consistent(batches, asked.position, start)
    return [s for b in batches for s in seen_in(b)], raw.next_fetch_offset, None


def seen_in(records: Records) -> list[Seen]:
    times = records.broker_us.tolist()
    return list(
        zip(records.offsets.tolist(), times, records.keys, records.values, strict=True)
    )


def assert_consistent(batches: Sequence[Records], start: int, end: int) -> None:
    """Spans follow one another without a gap and enclose their records."""
    for records in batches:
        assert records.origin == ORIGIN
        assert records.span.start == start
        start = records.span.end
        offsets = records.offsets
        assert (np.diff(offsets) > 0).all()
        assert ((records.span.start <= offsets) & (offsets < records.span.end)).all()
    assert start == end


@pytest.mark.parametrize(
    ("arena", "responses"), [(True, 3500), (False, 300)], ids=["arena", "bytes"]
)
def test_thousands_of_fetch_responses_are_read_as_aiokafka_reads_them(
    arena: bool, responses: int
) -> None:
    seed = int(os.environ.get("STREAMPROC_SEED", "3"))
    rng = random.Random(seed)
    counts = {"records": 0, "refused": 0, "read": 0}
    for number in range(responses):
        asked = response(rng)
        limits = Limits(rng.choice([3, 40, 100_000, 100_000]))

        expected, found = by_aiokafka(asked), by_us(asked, limits, arena=arena)

        assert found == expected, (seed, number)
        counts["refused" if expected[2] else "read"] += 1
        counts["records"] += len(expected[0])
    assert counts["read"] > 0.9 * responses
    assert counts["refused"] > 0.01 * responses
    assert counts["records"] > 20 * responses


def test_formats_0_and_1_are_read_among_the_others() -> None:
    """aiokafka goes by the first batch's format, so it is asked batch by batch."""
    rng = random.Random(4)
    for _ in range(200):
        asked = response(rng, legacy=True)

        found = by_us(asked, Limits(rng.choice([1, 5, 100_000])), arena=True)

        assert found == _batch_by_batch(asked)


def test_a_batch_that_was_too_large_to_be_fetched_is_told_from_none() -> None:
    """Both answers together are what aiokafka makes `RecordTooLargeError` of."""
    batch = Batch(0, [Rec(0)]).encode()
    for data in [batch[:size] for size in range(len(batch) + 1)]:
        ours, theirs = MessageSet(ArenaPool(0), data), MemoryRecords(data)

        assert ours.has_next() == theirs.has_next() == (data == batch)
        assert ours.size_in_bytes() == theirs.size_in_bytes() == len(data)


def _batch_by_batch(asked: Response) -> tuple[list[Seen], int, None]:
    """Return what aiokafka reads, given one batch at a time and what was aborted so far."""
    seen: list[Seen] = []
    position, at = asked.position, 0
    aborting: set[int] = set()
    while len(asked.data) - at >= 12:
        size = 12 + int.from_bytes(asked.data[at + 8 : at + 12], "big")
        if size > len(asked.data) - at:
            break
        one = asked.data[at : at + size]
        at += size
        base = int.from_bytes(one[:8], "big")
        started = {p for p, first in asked.aborted if first == base}
        aborting |= started
        listed = [(producer, 0) for producer in aborting]
        records, after, error = by_aiokafka(
            Response(one, listed, position, asked.isolation)
        )
        assert error is None
        seen += records
        position = max(position, after)
        if one[16] == 2 and one[22] & 0x20:
            aborting.discard(int.from_bytes(one[43:51], "big"))
    return seen, position, None
