"""The broker inside the wheel: limits, faults, and a life in a process of its own."""

import psutil
import pytest

from streamproc.connectors.embedded_broker import (
    PARTITION_BYTES_MAX,
    EmbeddedBroker,
    EmbeddedBrokerProcess,
)
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_probe import KafkaProbe
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.values import TopicPartition
from streamproc.errors import WorldError


async def test_topics_have_the_partitions_and_ids_they_should() -> None:
    with EmbeddedBroker({"a": 1, "b": 5}) as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        async with KafkaAdmin(connection) as admin:
            facts = await admin.describe(["a", "b"])
            first = facts["a"].topic_id
            broker.delete_topic("a")
            broker.create_topic("a", 1)
            again = await admin.topic_id("a")

    assert [facts[name].partitions for name in "ab"] == [1, 5]
    assert len({first, again, facts["b"].topic_id}) == 3


async def test_a_partition_forgets_what_is_beyond_its_limit() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        values = [b"x" * 10_000] * (2 * PARTITION_BYTES_MAX // 10_000)
        async with KafkaProduce(connection) as producer:
            await producer.send([Message("t", value) for value in values])
        probe = KafkaProbe(connection, timeout_s=5)
        bounds = await probe.bounds(TopicPartition("t", 0))
        await probe.close()

    assert bounds.end == len(values)
    assert bounds.begin > 0
    kept_bytes = (bounds.end - bounds.begin) * 10_000
    assert kept_bytes == pytest.approx(PARTITION_BYTES_MAX, rel=0.25)


def test_a_topic_is_created_once() -> None:
    with EmbeddedBroker({"t": 1}) as broker, pytest.raises(WorldError, match="topic t"):
        broker.create_topic("t", 1)


async def test_a_topic_cannot_be_created_over_the_wire() -> None:
    with EmbeddedBroker() as broker:
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        async with KafkaProduce(connection) as producer:
            with pytest.raises(WorldError, match="create topic t"):
                await producer.create_topics(["t"], 1)


async def test_it_serves_from_a_child_process_and_leaves_none_behind() -> None:
    with EmbeddedBrokerProcess({"telemetry.razlog": 2}) as broker:
        child = psutil.Process(broker.pid)
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        async with KafkaProduce(connection) as producer:
            await producer.create_topics(["telemetry.razlog"], 2)
            (place,) = await producer.send(
                [Message("telemetry.razlog", b"1", partition=1)]
            )

    assert place == (1, 0)
    assert not child.is_running()
