"""The Kafka source on Apache Kafka: what the contract suite cannot ask of every broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_check import check_connection
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.values import Records, TopicPartition
from streamproc.errors import WorldError
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.kafka import (
    FETCH_MS,
    Recorder,
    fresh,
    open_at,
    options_for,
    take,
    until_assigned,
    values_of,
)

BOTH_PATHS = pytest.mark.parametrize("raw", [True, False], ids=["raw", "ordinary"])


@asynccontextmanager
async def reading(
    kafka: ApacheKafka, listener: Recorder, **settings: object
) -> AsyncIterator[KafkaSource]:
    """Yield a started source, and stop it."""
    source = KafkaSource(options_for(kafka.connection, **settings))
    await source.start(listener)
    try:
        yield source
    finally:
        await source.stop()


async def create(kafka: ApacheKafka, topic: str, partitions: int = 1) -> TopicPartition:
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([topic], partitions)
    return TopicPartition(topic, 0)


async def produce(
    kafka: ApacheKafka,
    topic: str,
    values: Sequence[bytes],
    compression: str | None = None,
) -> None:
    async with KafkaProduce(kafka.connection, compression=compression) as producer:
        await producer.send([Message(topic, value, partition=0) for value in values])


async def test_a_pattern_means_whole_names_and_finds_topics_created_later(
    kafka: ApacheKafka,
) -> None:
    stem = fresh("telemetry")
    listener = Recorder()
    for name in ("razlog", "fundao", "razlog-copy"):
        await create(kafka, f"{stem}.{name}")
        await produce(kafka, f"{stem}.{name}", [name.encode()])

    async with reading(
        kafka, listener, pattern=rf"{stem}\.(razlog|fundao|nevers)"
    ) as source:
        owned = await until_assigned(source, listener)
        assert {tp.topic for tp in owned} == {f"{stem}.razlog", f"{stem}.fundao"}
        open_at(source, 0, *owned)
        assert sorted(map(str, values_of(await take(source, 2)))) == [
            "b'fundao'",
            "b'razlog'",
        ]

        later = await create(kafka, f"{stem}.nevers")
        await until_assigned(source, listener, owned | {later})

    assert [what for what, _ in listener.events] == ["assigned", "revoked", "assigned"]


@BOTH_PATHS
@pytest.mark.fault(
    "F23",
    how="a transaction aborted on Apache Kafka",
    seen="its records are not delivered, spans have no hole",
)
async def test_aborted_records_are_skipped_and_spans_pass_the_control_batches(
    kafka: ApacheKafka, raw: bool
) -> None:
    origin = await create(kafka, fresh("transactions"))
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=fresh("tx")
    )
    await producer.start()
    for value, commit in ((b"kept", True), (b"aborted", False), (b"also kept", True)):
        await producer.begin_transaction()
        await producer.send_and_wait(origin.topic, value, partition=0)
        if commit:
            await producer.commit_transaction()
        else:
            await producer.abort_transaction()

    listener = Recorder()
    async with reading(kafka, listener, topics=(origin.topic,), raw=raw) as source:
        open_at(source, 0, *await until_assigned(source, listener))
        bounds = await source.bounds(origin)
        batches = await take(source, 2, end=bounds.end)
        assert bounds.end == 6  # three records, three markers
        assert values_of(batches) == [b"kept", b"also kept"]
        assert [o for b in batches for o in b.offsets.tolist()] == [0, 4]

        await producer.begin_transaction()
        await producer.send_and_wait(origin.topic, b"aborted", partition=0)
        assert (await source.bounds(origin)).end == 6  # undecided is not readable
        await producer.abort_transaction()
        empty = await take(source, 0, end=8)
    await producer.stop()

    assert values_of(empty) == []
    assert (empty[0].span.start, empty[-1].span.end) == (6, 8)
    assert len(await source.read_one(origin, 6)) == 0
    await source.stop()


@BOTH_PATHS
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(kafka: ApacheKafka, codec: str, raw: bool) -> None:
    origin = await create(kafka, fresh(codec))
    values = [b"%d " % n * 50 for n in range(500)]
    await produce(kafka, origin.topic, values, codec)

    listener = Recorder()
    async with reading(kafka, listener, topics=(origin.topic,), raw=raw) as source:
        open_at(source, 0, *await until_assigned(source, listener))
        assert values_of(await take(source, 500)) == values
        one = await source.read_one(origin, 77)
        assert list(one.values) == [values[77]]


async def test_headers_come_only_where_asked_for(kafka: ApacheKafka) -> None:
    origin = await create(kafka, fresh("headers"))
    async with KafkaProduce(kafka.connection) as producer:
        message = Message(origin.topic, b"1", headers=[("unit", b"Cel")])
        await producer.send([message])

    for asked, expected in ((True, [(("unit", b"Cel"),)]), (False, None)):
        listener = Recorder()
        async with reading(
            kafka, listener, topics=(origin.topic,), headers=asked
        ) as source:
            open_at(source, 0, *await until_assigned(source, listener))
            (batch,) = await take(source, 1)
            assert batch.headers == expected


async def test_a_hint_and_its_note_can_be_read_by_an_operator(
    kafka: ApacheKafka,
) -> None:
    origin = await create(kafka, fresh("hints"))
    await produce(kafka, origin.topic, [b"1", b"2", b"3"])
    listener, group = Recorder(), fresh("group")

    async with reading(kafka, listener, topics=(origin.topic,), group=group) as source:
        await until_assigned(source, listener)
        assert await source.hint(origin, 2, "17:0a1b2c3d")

    async with KafkaAdmin(kafka.connection) as admin:
        assert await admin.hints(group) == {origin: (2, "17:0a1b2c3d")}


@pytest.mark.fault(
    "F21",
    how="another offset committed for the group",
    seen="reading begins where the log says",
)
async def test_a_stored_hint_never_decides_where_reading_begins(
    kafka: ApacheKafka,
) -> None:
    origin = await create(kafka, fresh("hint-ignored"))
    await produce(kafka, origin.topic, [b"0", b"1", b"2"])
    group = fresh("group")

    for _ in range(2):
        listener = Recorder()
        async with reading(
            kafka, listener, topics=(origin.topic,), group=group
        ) as source:
            await until_assigned(source, listener)
            assert not await source.fetch(FETCH_MS)
            open_at(source, 0, origin)
            assert values_of(await take(source, 3)) == [b"0", b"1", b"2"]
            assert await source.hint(origin, 2, "1:00000000")


async def test_two_members_share_the_partitions_and_each_revokes_first(
    kafka: ApacheKafka,
) -> None:
    topic, group = fresh("shared"), fresh("group")
    await create(kafka, topic, 4)
    everything = frozenset(TopicPartition(topic, n) for n in range(4))
    one, two = Recorder(), Recorder()

    async with reading(kafka, one, topics=(topic,), group=group) as first:
        await until_assigned(first, one, everything)
        async with reading(kafka, two, topics=(topic,), group=group) as second:
            while len(one.events) < 3 or len(two.owned) != 2:
                await first.fetch(20)
                await second.fetch(20)
            assert one.owned | two.owned == everything
            assert not one.owned & two.owned
            kept = one.owned
        await until_assigned(first, one, everything)

    assert [what for what, _ in one.events] == [
        "assigned",
        "revoked",
        "assigned",
        "revoked",
        "assigned",
    ]
    assert one.events[1] == ("revoked", everything)
    assert one.events[3] == ("revoked", kept)
    assert not [event for event in two.events if event[0] == "revoked"]


async def test_fetch_keeps_its_time_while_a_rebalance_waits_for_the_listener(
    kafka: ApacheKafka,
) -> None:
    topic, group = fresh("slow-drain"), fresh("group")
    await create(kafka, topic, 2)
    released = asyncio.Event()
    draining = asyncio.Event()

    class SlowDrain(Recorder):
        async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
            await super().revoked(partitions)
            draining.set()
            await released.wait()

    one, two = SlowDrain(), Recorder()
    async with reading(kafka, one, topics=(topic,), group=group) as first:
        open_at(first, 0, *await until_assigned(first, one))
        async with reading(kafka, two, topics=(topic,), group=group) as second:
            while not draining.is_set():
                await first.fetch(20)
                await second.fetch(20)
            async with asyncio.timeout(5):
                assert not await first.fetch(FETCH_MS)
                assert not await first.fetch(FETCH_MS)
            released.set()
            while not (len(one.owned) == len(two.owned) == 1):
                await first.fetch(20)
                await second.fetch(20)


@pytest.mark.fault(
    "F12",
    how="broker killed with -9 and started again",
    seen="every record delivered once",
)
async def test_a_killed_broker_that_comes_back_costs_no_record(
    own_kafka: ApacheKafka,
) -> None:
    origin = await create(own_kafka, fresh("restart"))
    before, after = [b"%d" % n for n in range(50)], [b"%d" % n for n in range(50, 90)]
    await produce(own_kafka, origin.topic, before)
    listener = Recorder()

    async with reading(own_kafka, listener, topics=(origin.topic,)) as source:
        open_at(source, 0, *await until_assigned(source, listener))
        first = await take(source, 50)
        seen = len(listener.events)
        own_kafka.kill()
        assert not await source.fetch(FETCH_MS)
        await asyncio.to_thread(own_kafka.start)
        await produce(own_kafka, origin.topic, after)

        rest: list[Records] = []
        while sum(map(len, rest)) < len(after):
            rest += await source.fetch(FETCH_MS)
            if len(listener.events) > seen and listener.owned:
                # Joined anew: begin where we are, as the runtime does.
                seen = len(listener.events)
                open_at(source, 50 + sum(map(len, rest)), origin)

    assert values_of([*first, *rest]) == [*before, *after]


async def test_a_topic_created_anew_has_another_id(kafka: ApacheKafka) -> None:
    topic = fresh("recreated")
    await create(kafka, topic)
    async with KafkaAdmin(kafka.connection) as admin:
        first = await admin.topic_id(topic)
        await admin.delete_topics([topic])
        while topic in await admin.topics():
            pass
        await admin.create_topics([topic], 1)
        second = await admin.topic_id(topic)

    assert first != second
    assert len(first) == len(second) == 22


async def test_the_check_tells_what_to_change(kafka: ApacheKafka) -> None:
    stem = fresh("checked")
    good = {"message.timestamp.type": "LogAppendTime"}
    bad = {"retention.ms": "3600000", "cleanup.policy": "compact,delete"}
    async with KafkaAdmin(kafka.connection) as admin:
        await admin.create_topics([f"{stem}.good"], 2, good)
        await admin.create_topics([f"{stem}.bad"], 1, bad)

    report = await check_connection(
        options_for(kafka.connection, pattern=rf"{stem}\..*")
    )

    assert report.reachable
    assert not report.faults
    assert report.brokers == (kafka.bootstrap_servers,)
    worse, better = report.topics
    assert (better.name, better.partitions) == (f"{stem}.good", 2)
    assert better.timestamp_type == "LogAppendTime"
    assert better.message_bytes_max == 1_048_588
    assert [advice.split(":")[0] for advice in better.advice] == [
        "replication factor 1"
    ]
    assert worse.retention_ms == 3_600_000
    assert [advice.split(":")[0].split("=")[0] for advice in worse.advice] == [
        "message.timestamp.type",
        "retention.ms below three days",
        "cleanup.policy",
        "replication factor 1",
    ]


async def test_the_check_names_topics_that_do_not_exist(kafka: ApacheKafka) -> None:
    missing = options_for(kafka.connection, topics=("no-such-topic",))
    unmatched = options_for(kafka.connection, pattern="no-such-.*")

    assert (await check_connection(missing)).faults == (
        "topics that do not exist: no-such-topic",
    )
    assert "no topic matches" in (await check_connection(unmatched)).faults[0]


async def test_asking_for_the_id_of_a_missing_topic_is_refused(
    kafka: ApacheKafka,
) -> None:
    async with KafkaAdmin(kafka.connection) as admin:
        with pytest.raises(WorldError, match="no-such-topic"):
            await admin.topic_id("no-such-topic")


class Holding(Recorder):
    """Takes its time over a revocation: whoever wants to join has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = asyncio.Event()

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        await super().revoked(partitions)
        await self.may_go_on.wait()


async def test_a_process_that_is_replaced_while_it_joins_says_why(
    kafka: ApacheKafka,
) -> None:
    place, group = await create(kafka, fresh("twins"), 3), fresh("group")
    of_group = {"topics": (place.topic,), "group": group}
    twin = {**of_group, "instance_id": "twin"}
    listener = Holding()
    async with (
        KafkaAdmin(kafka.connection) as admin,
        reading(kafka, listener, **of_group) as slow,
    ):
        await until_assigned(slow, listener)
        async with reading(kafka, Recorder(), **twin) as older:
            while "twin" not in await admin.static_members(group):
                pass
            async with reading(kafka, Recorder(), **twin):
                with pytest.raises(WorldError, match="our instance_id 'twin'"):
                    await take(older, 1)
                listener.may_go_on.set()
