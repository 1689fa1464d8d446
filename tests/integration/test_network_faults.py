"""What a bad network does to our clients: a TCP proxy of our own stands before a real broker."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.connectors.kafka_probe import KafkaProbe
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.values import TopicPartition
from streamproc.errors import Unreachable
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.tcp_proxy import TcpProxy
from tests.support.kafka import fresh, started


@dataclass(frozen=True)
class Far:
    """A broker, the proxy before it, and a partition with three records."""

    broker: ApacheKafka
    proxy: TcpProxy
    place: TopicPartition

    @property
    def connection(self) -> KafkaConnection:
        return KafkaConnection(bootstrap_servers=f"127.0.0.1:{self.proxy.port}")


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    async with TcpProxy() as proxy:
        broker = ApacheKafka(tmp_path, proxy_port=proxy.port)
        await asyncio.to_thread(started, broker)
        try:
            proxy.target = broker.front
            topic = fresh("far")
            async with KafkaProduce(broker.connection) as produce:
                await produce.create_topics([topic], 1)
                await produce.send([Message(topic, b"x", partition=0)] * 3)
            yield Far(broker, proxy, TopicPartition(topic, 0))
        finally:
            await asyncio.to_thread(broker.stop)


@pytest.mark.fault(
    "F17",
    how="proxy: the far end of a question's connection vanishes",
    seen="given up after its time, asked anew",
)
async def test_a_question_whose_far_end_vanished_is_asked_anew(far: Far) -> None:
    probe = KafkaProbe(far.connection, timeout_s=2)
    try:
        assert (await probe.bounds(far.place)).end == 3
        assert far.proxy.cut_off() > 0
        with pytest.raises(Unreachable, match="no answer within 2 s"):
            await probe.bounds(far.place)

        assert (await probe.bounds(far.place)).end == 3
    finally:
        await probe.close()


@pytest.mark.fault(
    "F17", how="proxy: answers held back", seen="given up after its time, asked anew"
)
async def test_a_question_outlives_a_network_that_is_silent_for_a_while(
    far: Far,
) -> None:
    probe = KafkaProbe(far.connection, timeout_s=2)
    try:
        far.proxy.hold("down")
        with pytest.raises(Unreachable, match="no answer within 2 s"):
            await probe.bounds(far.place)
        far.proxy.heal()

        assert (await probe.bounds(far.place)).end == 3
    finally:
        await probe.close()


async def test_clients_that_come_through_a_proxy_stay_behind_it(far: Far) -> None:
    """The broker tells them the proxy's address, so no connection goes round it."""
    before = far.proxy.accepted
    async with KafkaProduce(far.connection) as produce:
        (acked,) = await produce.send([Message(far.place.topic, b"y", partition=0)])

    assert acked.offset == 3
    assert far.proxy.accepted > before + 1
