"""Raw batches on Apache Kafka: what a broker wrote is read as aiokafka reads it."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioTopicPartition

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_fetch import RawPath
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_raw import _Frames
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import Records, TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.batches import Seen
from tests.support.kafka import (
    Recorder,
    fresh,
    open_at,
    options_for,
    take,
    until_assigned,
)

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ROUNDS = 40


def named(codec: str) -> str | None:
    return None if codec == "none" else codec


async def write_transactions(
    kafka: ApacheKafka, topic: str, codec: str, rng: random.Random
) -> None:
    """Let two transactional producers and a plain one take turns; some give up."""
    producers = [
        AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            transactional_id=name and fresh(name),
            compression_type=named(codec),
            linger_ms=5,
        )
        for name in ("one", "two", None)
    ]
    for producer in producers:
        await producer.start()
    *transactional, plain = producers
    for lap in range(ROUNDS):
        for producer in transactional:
            await producer.begin_transaction()
        sent = []
        for number in range(rng.randrange(1, 30)):
            producer = rng.choice(producers)
            value = rng.choice([b"%d/%d" % (lap, number), b"", None, b"x" * 900])
            key = rng.choice([b"", b"key"] if value is None else [None, b"", b"key"])
            headers = [("unit", b"Cel")] if rng.random() < 0.2 else []
            sent.append(await producer.send(topic, value, key, 0, headers=headers))
            if rng.random() < 0.2:
                await producer.flush()
        await asyncio.gather(*sent)
        for producer in transactional:
            if rng.random() < 0.4:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
    await plain.send_and_wait(topic, b"last", None, 0)
    for producer in producers:
        await producer.stop()


async def by_aiokafka(connection: KafkaConnection, tp: TopicPartition) -> list[Seen]:
    """Read from the beginning to the end, as an ordinary consumer does."""
    consumer = AIOKafkaConsumer(
        group_id=None, isolation_level="read_committed", **connection.aiokafka()
    )
    await consumer.start()
    aio = AioTopicPartition(tp.topic, tp.partition)
    consumer.assign([aio])
    consumer.seek(aio, 0)
    (end,) = (await consumer.end_offsets([aio])).values()
    seen: list[Seen] = []
    while await consumer.position(aio) < end:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            seen += [(r.offset, 1000 * r.timestamp, r.key, r.value) for r in records]
    await consumer.stop()
    return seen


def seen_in(batches: Sequence[Records]) -> list[Seen]:
    return [
        row
        for b in batches
        for row in zip(
            b.offsets.tolist(), b.broker_us.tolist(), b.keys, b.values, strict=True
        )
    ]


async def by_us(
    connection: KafkaConnection, tp: TopicPartition, start: int = 0, **options: object
) -> list[Records]:
    """Read to the end with a source; what it owns beside is nobody's business."""
    listener = Recorder()
    source = KafkaSource(options_for(connection, topics=(tp.topic,), **options))
    assert isinstance(source._path, RawPath)
    assert not source.notes
    await source.start(listener)
    try:
        await until_assigned(source, listener)
        open_at(source, start, tp)
        end = (await source.bounds(tp)).end
        return await take(source, 0, end=end)
    finally:
        await source.stop()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.fault(
    "F23", how="several producers commit and abort", seen="read as aiokafka reads them"
)
async def test_transactions_of_several_producers_are_read_as_aiokafka_reads_them(
    kafka: ApacheKafka, codec: str
) -> None:
    topic = fresh(f"raw-{codec}")
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([topic], 1)
    origin = TopicPartition(topic, 0)
    rng = random.Random(codec)
    await write_transactions(kafka, topic, codec, rng)

    expected = await by_aiokafka(kafka.connection, origin)
    batches = await by_us(kafka.connection, origin)

    assert seen_in(batches) == expected
    assert len(expected) > ROUNDS
    ends = [batch.span.end for batch in batches]
    assert [batch.span.start for batch in batches] == [0, *ends[:-1]]
    # Wherever one begins, most of the time in the middle of a batch, nothing else comes.
    for limit in (9, 1000, 100_000):
        start = rng.randrange(ends[-1])
        found = await by_us(kafka.connection, origin, start, records_max=limit)
        assert seen_in(found) == [row for row in expected if row[0] >= start]
        assert all(len(batch) <= limit for batch in found)


@pytest.mark.parametrize("codec", CODECS)
async def test_batches_that_the_broker_compressed_itself_are_read(
    kafka: ApacheKafka, codec: str
) -> None:
    """Java's own gzip, snappy, lz4 and zstd, and its LogAppendTime."""
    topic = fresh(f"broker-{codec}")
    config = {"compression.type": "uncompressed" if codec == "none" else codec}
    config["message.timestamp.type"] = "LogAppendTime"
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([topic], 1, config)
    origin = TopicPartition(topic, 0)
    rng = random.Random(codec)
    async with KafkaProduce(kafka.connection) as producer:
        for _ in range(5):
            values = [b"%d," % n * rng.randrange(200) for n in range(2000)]
            await producer.send([Message(topic, value) for value in values])

    batches = await by_us(kafka.connection, origin)

    assert seen_in(batches) == await by_aiokafka(kafka.connection, origin)
    assert sum(map(len, batches)) == 10_000


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls and sasl"])
async def test_responses_are_received_into_arenas_that_are_used_again(
    request: pytest.FixtureRequest, secure: bool
) -> None:
    """What is still held of an earlier fetch stays as it was while fetching goes on."""
    name = "secure_kafka" if secure else "kafka"
    broker: ApacheKafka = request.getfixturevalue(name)
    topic, listener = fresh("arenas"), Recorder()
    rng = random.Random(5)
    values = [rng.randbytes(1000) for _ in range(24_000)]
    async with KafkaProduce(broker.connection) as producer:
        await producer.create_topics([topic], 1)
        await producer.send([Message(topic, value) for value in values])
    source = KafkaSource(
        options_for(broker.connection, topics=(topic,), partition_bytes_max=1 << 20)
    )
    path = source._path
    assert isinstance(path, RawPath)

    await source.start(listener)
    (origin,) = await until_assigned(source, listener)
    open_at(source, 0, origin)
    kept: list[Records] = []
    held_max = at = 0
    addresses = set()
    while at < len(values):
        for records in await source.fetch(100):
            assert list(records.values) == values[at : at + len(records)]
            at += len(records)
            addresses.add(records.values.data.ctypes.data)
            if rng.random() < 0.2 and len(records):
                kept.append(records.between(records.span.start, records.span.end - 1))
            held_max = max(held_max, path.bytes_held)
    protocols = [
        conn._writer.transport.get_protocol()
        for conn in source._client._client._conns.values()
    ]
    await source.stop()

    assert any(isinstance(protocol, _Frames) for protocol in protocols)
    assert held_max > 1 << 20
    assert len(addresses) < 16 + len(kept)
    for records in kept:
        first = int(records.span.start)
        assert list(records.values) == values[first : first + len(records)]
    assert np.shares_memory(kept[0].values.data, kept[0].keys.data)
