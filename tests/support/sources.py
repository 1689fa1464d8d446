"""One face for everything the source contract is run against."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.core.ports import Source
from streamproc.core.values import TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.kafka import Recorder, fresh, options_for


class Rig(ABC):
    """A broker with one topic of `partitions` partitions, and sources that read it."""

    def __init__(self) -> None:
        self.topic = fresh("contract")

    def at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    @abstractmethod
    async def source(self, partitions: int = 1) -> Source:
        """Create the topic and return a source for it, not yet started."""

    @abstractmethod
    async def produce(
        self,
        partition: int,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        times_ms: Sequence[int] | None = None,
    ) -> None:
        """Append records."""

    @abstractmethod
    async def delete_records(self, partition: int, before: int) -> None:
        """Do what retention does."""

    @abstractmethod
    def cut_off(self) -> AbstractContextManager[None]:
        """Make the broker unreachable for a while."""

    @abstractmethod
    async def rebalance(self, source: Source, listener: Recorder) -> None:
        """Make the group revoke everything and assign something to `source` again."""


class ScriptedRig(Rig):
    """The shipped double: source and broker in one."""

    def __init__(self) -> None:
        super().__init__()
        self._source: ScriptedSource | None = None
        self._partitions = 0

    @property
    def script(self) -> ScriptedSource:
        assert self._source is not None
        return self._source

    async def source(self, partitions: int = 1) -> Source:
        self._partitions = partitions
        self._source = ScriptedSource({self.topic: partitions}, records_max=7)
        return self._source

    async def produce(
        self,
        partition: int,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        times_ms: Sequence[int] | None = None,
    ) -> None:
        times_us = -1 if times_ms is None else [time * 1000 for time in times_ms]
        self.script.produce(self.at(partition), values, keys=keys, broker_us=times_us)

    async def delete_records(self, partition: int, before: int) -> None:
        self.script.delete_records(self.at(partition), before)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self.script.unreachable = True
        yield
        self.script.unreachable = False

    async def rebalance(self, source: Source, listener: Recorder) -> None:
        await self.script.rebalance(frozenset({self.at(0)}))


class KafkaRig(Rig):
    """Our Kafka source on some broker."""

    session_s = 6
    raw = True

    def __init__(self, connection: KafkaConnection) -> None:
        super().__init__()
        self.connection = connection
        self.group = fresh("group")

    @abstractmethod
    async def create(self, partitions: int) -> None:
        """Create the topic."""

    def member(self) -> Source:
        return KafkaSource(
            options_for(
                self.connection,
                group=self.group,
                pattern=rf"{self.topic}(-more)?",
                ask_timeout_s=3,
                session_timeout_s=self.session_s,
                stop_timeout_s=2,
                raw=self.raw,
            )
        )

    async def source(self, partitions: int = 1) -> Source:
        await self.create(partitions)
        return self.member()

    async def produce(
        self,
        partition: int,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        times_ms: Sequence[int] | None = None,
    ) -> None:
        async with KafkaProduce(self.connection) as producer:
            await producer.send(
                [
                    Message(
                        self.topic,
                        value,
                        None if keys is None else keys[row],
                        partition,
                        None if times_ms is None else times_ms[row],
                    )
                    for row, value in enumerate(values)
                ]
            )


class EmbeddedRig(KafkaRig):
    """The broker of the confluent-kafka wheel; it cannot look up times."""

    session_s = 3  # its rebalances always last that long

    def __init__(self, broker: EmbeddedBroker) -> None:
        super().__init__(KafkaConnection(bootstrap_servers=broker.bootstrap_servers))
        self._broker = broker

    async def create(self, partitions: int) -> None:
        self._broker.create_topic(self.topic, partitions)

    async def rebalance(self, source: Source, listener: Recorder) -> None:
        """A further topic matches; groups of two are beyond this broker."""
        seen = len(listener.events)
        self._broker.create_topic(f"{self.topic}-more", 1)
        while len(listener.events) < seen + 2:
            await source.fetch(20)

    async def delete_records(self, partition: int, before: int) -> None:
        self._broker.delete_records(self.topic, partition, before)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self._broker.set_down()
        yield
        self._broker.set_up()


class ApacheRig(KafkaRig):
    """A real broker; cutting it off has a test of its own, on a broker of its own."""

    def __init__(self, broker: ApacheKafka, *, raw: bool = True) -> None:
        super().__init__(broker.connection)
        self.raw = raw

    async def create(self, partitions: int) -> None:
        async with KafkaAdmin(self.connection) as admin:
            await admin.create_topics([self.topic], partitions)

    async def rebalance(self, source: Source, listener: Recorder) -> None:
        """A second member comes and goes."""
        other, seen = self.member(), len(listener.events)
        await other.start(Recorder())
        try:
            while len(listener.events) < seen + 2:
                await other.fetch(20)
                await source.fetch(20)
        finally:
            await other.stop()

    async def delete_records(self, partition: int, before: int) -> None:
        async with KafkaAdmin(self.connection) as admin:
            await admin.delete_records(self.at(partition), before)

    def cut_off(self) -> AbstractContextManager[None]:
        raise NotImplementedError
