"""What is said of rights that are missing, and when a start may go on without them."""

import pytest
from aiokafka import TopicPartition as AioTopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_faults import concerned, fault_of, leaves_others
from streamproc.connectors.kafka_probe import KafkaProbe
from streamproc.connectors.kafka_rights import Lack, lacking, refused, told
from streamproc.connectors.kafka_settings import KafkaConnection, KafkaOptions
from streamproc.errors import Forbidden, WorldError

TOPIC = Lack("topic", "telemetry.ange", ("Read",), essential=False)
GROUP = Lack("group", "region", ("Read",), essential=True)
NOBODY = KafkaConnection(bootstrap_servers="127.0.0.1:1")


def options(connection: KafkaConnection = NOBODY) -> KafkaOptions:
    return KafkaOptions(
        connection=connection,
        group="region",
        pattern=".*",
        expected=("telemetry.ange", "telemetry.razlog"),
        alert_topic="alerts",
    )


def test_the_command_names_user_operations_and_resource() -> None:
    both = Lack("topic", "alerts", ("Write", "Describe"), essential=True)

    assert told("bob", both) == (
        "Kafka: user 'bob' lacks Write and Describe on topic alerts; allow it: kafka-acls.sh "
        "--add --allow-principal User:bob --operation Write --operation Describe --topic alerts"
    )
    assert told(None, GROUP).startswith("Kafka: this client lacks Read on group region")


def test_a_start_goes_on_without_some_topics_only() -> None:
    (left_out,) = refused("bob", [TOPIC])

    assert left_out.topic == "telemetry.ange"
    assert leaves_others(left_out)
    with pytest.raises(Forbidden) as caught:
        refused("bob", [TOPIC, GROUP])
    assert not leaves_others(caught.value)
    assert "telemetry.ange" in str(caught.value)
    assert "region" in str(caught.value)


async def test_a_broker_that_tells_no_rights_keeps_nobody_from_starting() -> None:
    with EmbeddedBroker({"telemetry.ange": 1, "alerts": 1}) as broker:
        servers = broker.bootstrap_servers
        connection = KafkaConnection(bootstrap_servers=servers)
        async with KafkaAdmin(connection, timeout_s=3) as admin:
            assert not await lacking(admin, options(connection))


async def test_a_broker_that_is_silent_keeps_nobody_from_starting() -> None:
    async with KafkaAdmin(NOBODY, timeout_s=0.3) as admin:
        assert not await lacking(admin, options())


async def test_a_refusal_concerns_its_topic_or_everything() -> None:
    probe = KafkaProbe(NOBODY, timeout_s=1)
    ours = [
        AioTopicPartition("a", 0),
        AioTopicPartition("a", 1),
        AioTopicPartition("b", 0),
    ]
    topic, group = TopicAuthorizationFailedError("a"), GroupAuthorizationFailedError()

    assert concerned(topic, ours) == ours[:2]
    assert concerned(OffsetOutOfRangeError({ours[2]: 7}), ours) == ours[2:]
    assert concerned(group, ours) == []
    one = await fault_of(topic, options(), probe)
    every = await fault_of(group, options(), probe)
    assert isinstance(one, Forbidden)
    assert one.topic == "a"
    assert isinstance(every, WorldError)
    assert not leaves_others(every)
