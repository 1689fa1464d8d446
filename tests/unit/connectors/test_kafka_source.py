"""The gate of the Kafka source, in the orders of events that are rare with a real broker."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, RecordTooLargeError

from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_faults import fault_of
from streamproc.connectors.kafka_gates import Polled
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import TopicPartition
from streamproc.errors import Unreachable, WorldError
from tests.support.kafka import (
    FETCH_MS,
    Recorder,
    open_at,
    options_for,
    take,
    until_assigned,
    values_of,
)

ORIGIN = TopicPartition("t", 0)
VALUES = [b"%d" % number for number in range(10)]


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"t": 1}) as started:
        yield started


@pytest.fixture
async def source(broker: EmbeddedBroker) -> AsyncIterator[KafkaSource]:
    """A source with ten records waiting, open at 0."""
    connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    async with KafkaProduce(connection) as producer:
        await producer.send([Message("t", value) for value in VALUES])
    listener = Recorder()
    made = KafkaSource(options_for(connection, topics=("t",), records_max=4))
    await made.start(listener)
    await until_assigned(made, listener)
    open_at(made, 0, ORIGIN)
    yield made
    await made.stop()


async def polled(source: KafkaSource) -> Polled:
    """Let aiokafka hand out records, as far as our gate and no further."""
    while True:
        found = await source._poll(source._client, FETCH_MS, None)
        if found.fetched:
            return found


async def test_a_pause_between_poll_and_return_loses_nothing(
    source: KafkaSource,
) -> None:
    found = await polled(source)

    source.pause(ORIGIN)
    assert not source._admit(found)
    source.resume(ORIGIN)

    assert values_of(await take(source, 10)) == VALUES


async def test_a_seek_between_poll_and_return_wins(source: KafkaSource) -> None:
    found = await polled(source)

    source.seek(ORIGIN, 7)
    assert not source._admit(found)

    assert values_of(await take(source, 3)) == VALUES[7:]


async def test_a_seek_to_the_same_place_still_drops_what_was_fetched(
    source: KafkaSource,
) -> None:
    found = await polled(source)

    source.seek(ORIGIN, 0)
    assert not source._admit(found)

    assert values_of(await take(source, 10)) == VALUES


async def test_an_assignment_between_poll_and_return_closes_the_gate(
    source: KafkaSource,
) -> None:
    found = await polled(source)

    await source.assign(frozenset(source._gates))
    assert not source._admit(found)
    assert not await source.fetch(FETCH_MS)
    open_at(source, 2, ORIGIN)

    assert values_of(await take(source, 8)) == VALUES[2:]


async def test_records_for_a_gate_that_is_newer_than_the_poll_are_fetched_again(
    source: KafkaSource,
) -> None:
    """A poll under way during a rebalance hands out what was fetched after it."""
    before = {tp: (gate, gate.epoch) for tp, gate in source._gates.items()}

    await source.assign(frozenset(source._gates))
    open_at(source, 0, ORIGIN)
    found = replace(await polled(source), gates=before)
    assert not source._admit(found)

    batches = await take(source, 10)
    assert values_of(batches) == VALUES
    assert batches[0].offsets[0] == batches[0].span.start == 0


async def test_revoked_partitions_deliver_nothing(source: KafkaSource) -> None:
    found = await polled(source)

    await source.revoke(frozenset(source._gates))

    assert not source._admit(found)


async def test_a_batch_is_no_longer_than_asked_for(source: KafkaSource) -> None:
    batches = await take(source, 10)

    assert [len(batch) for batch in batches] == [4, 4, 2]


async def test_a_position_seen_only_after_a_poll_is_not_yet_consumed(
    source: KafkaSource,
) -> None:
    """aiokafka steps over a record that is too large before it says so (A10)."""
    tp = AioTopicPartition("t", 0)
    await take(source, 10)
    gates = {tp: (source._gates[tp], source._gates[tp].epoch)}

    moved = Polled(gates, before={tp: 10}, fetched={}, ends={tp: 11})
    assert not source._admit(moved)
    (quiet,) = source._admit(Polled(gates, before={tp: 12}, fetched={}, ends={}))

    assert (quiet.span.start, quiet.span.end, len(quiet)) == (10, 12, 0)


async def fault(source: KafkaSource, error: KafkaError) -> Exception:
    return await fault_of(error, source._options, source._probe)


async def test_a_record_that_is_too_large_is_fatal_and_named(
    source: KafkaSource,
) -> None:
    tp = AioTopicPartition("t", 0)

    error = await fault(source, RecordTooLargeError("%s %s %s", tp, 5, 1024))

    assert isinstance(error, WorldError)
    assert not error.retriable
    assert "t/0 offset 5" in str(error)


async def test_a_corrupt_record_is_fatal(source: KafkaSource) -> None:
    error = await fault(source, CorruptRecordException("Invalid CRC - t/0"))

    assert isinstance(error, WorldError)
    assert "CorruptRecordException: Invalid CRC - t/0" in str(error)


async def test_the_places_of_all_records_come_back_in_the_order_given(
    broker: EmbeddedBroker,
) -> None:
    broker.create_topic("many", 3)
    connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    messages = [
        Message("many", b"%d" % n, key=b"device %d" % (n % 7)) for n in range(200)
    ]

    async with KafkaProduce(connection) as producer:
        places = await producer.send(messages[:120]) + await producer.send(
            messages[120:]
        )
    listener = Recorder()
    source = KafkaSource(options_for(connection, topics=("many",)))
    await source.start(listener)
    open_at(source, 0, *await until_assigned(source, listener))
    batches = await take(source, 200)
    await source.stop()

    found = {
        (batch.origin.partition, int(offset)): value
        for batch in batches
        for offset, value in zip(batch.offsets, batch.values, strict=True)
    }
    assert [found[place] for place in places] == [m.value for m in messages]
    by_key = {m.key: p.partition for m, p in zip(messages, places, strict=True)}
    assert all(
        by_key[m.key] == p.partition for m, p in zip(messages, places, strict=True)
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "nothing listens at 127.0.0.1:1"),
        ("no-such-host.invalid:9092", "host name of no-such-host.invalid:9092"),
    ],
)
async def test_an_address_without_a_broker_is_explained(
    address: str, message: str
) -> None:
    connection = KafkaConnection(bootstrap_servers=address)
    source = KafkaSource(options_for(connection, topics=("t",)))

    with pytest.raises(Unreachable, match=message):
        await source.start(Recorder())
    with pytest.raises(Unreachable, match=message):
        await KafkaProduce(connection).__aenter__()
