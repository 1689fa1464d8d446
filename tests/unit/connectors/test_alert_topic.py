"""The alert topic against the embedded broker."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamproc.connectors.alert_topic import AlertTopic
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.core.alerts import alert_document
from streamproc.core.values import AlertTransition
from streamproc.errors import Unreachable

TOPIC = "alerts"
ALERT = AlertTransition(
    alert_id="0123456789abcdef0123456789abcdef",
    transition=0,
    state="firing",
    rule="gone",
    rule_version="00ff00ff00ff00ff",
    severity="critical",
    city="nevers",
    device="d/1",
    property="no2",
    window=None,
    event_us=1_790_000_000_000_000,
    value=None,
    source="telemetry.nevers/0",
    offset=7,
    early=False,
)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({TOPIC: 1}) as started:
        yield started


def sink(broker: EmbeddedBroker, **changes: Any) -> AlertTopic:
    arguments = {"bootstrap_servers": broker.bootstrap_servers}
    return AlertTopic(TOPIC, arguments, **changes)


async def consumed(broker: EmbeddedBroker, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(TOPIC, 0)])
        await consumer.seek_to_beginning()
        async with asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_alerts_arrive_in_order_with_key_headers_and_document(
    broker: EmbeddedBroker,
) -> None:
    topic = sink(broker)
    cleared = replace(ALERT, transition=1, state="cleared")

    await topic.send([ALERT, cleared])
    await topic.send([])
    await topic.close()
    await topic.close()

    first, second = await consumed(broker, 2)
    assert first.key == b"nevers/d/1"
    assert dict(first.headers) == {
        "alert_id": ALERT.alert_id.encode(),
        "transition": b"0",
    }
    assert json.loads(first.value) == alert_document(ALERT)
    assert json.loads(first.value)["event_time"] == "2026-09-21T14:13:20.000000Z"
    assert json.loads(second.value)["state"] == "cleared"


@pytest.mark.fault(
    "F43",
    how="the alert topic's broker goes and comes",
    seen="unreachable, then found again",
)
async def test_a_broker_that_goes_away_is_unreachable_and_found_again(
    broker: EmbeddedBroker,
) -> None:
    topic = sink(broker, delivery_s=1.0)
    await topic.send([ALERT])

    broker.set_down()
    with pytest.raises(Unreachable, match="alert topic alerts"):
        await topic.send([ALERT])
    broker.set_up()

    async with asyncio.timeout(20):
        while True:
            try:
                await topic.send([replace(ALERT, transition=1, state="cleared")])
            except Unreachable:
                continue
            break
    await topic.close()
    first, *_ = await consumed(broker, 2)
    assert first.headers[1] == ("transition", b"0")


async def test_nobody_listening_is_unreachable() -> None:
    topic = AlertTopic(TOPIC, {"bootstrap_servers": "127.0.0.1:1"}, delivery_s=5.0)

    with pytest.raises(Unreachable):
        await topic.send([ALERT])

    await topic.close()
