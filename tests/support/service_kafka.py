"""The service on a Kafka: topics with traffic, rigs that read them, what must be accounted for."""

from pathlib import Path

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.runtime.parts import ServiceOptions
from tests.support.failpoints import fill
from tests.support.kafka import fresh, options_for
from tests.support.service import Rig, definition

FAST = ServiceOptions(until_end=True, close=True, tick_us=100_000)
FOREVER = ServiceOptions(tick_us=100_000)


async def topic_with(
    connection: KafkaConnection, name: str, partitions: int, count: int
) -> str:
    """Create a topic and fill every partition with `traffic`."""
    topic = fresh(name)
    async with KafkaAdmin(connection) as admin:
        await admin.create_topics([topic], partitions)
        await admin.wait_for_topics([topic])
    await fill(connection, topic, partitions, count)
    return topic


def rig(root: Path, connection: KafkaConnection, *topics: str, **more: object) -> Rig:
    """Return a service on `topics`, the first of Razlog, the second of Ånge."""
    settings = {"group": fresh("group")} | dict(more.pop("kafka", {}))  # type: ignore[call-overload]
    source = KafkaSource(options_for(connection, topics=topics, **settings))
    cities = ("razlog", "ange")
    made = definition(topic_cities=tuple(zip(topics, cities, strict=False)))
    given = {"definition": made, "options": FAST} | more
    return Rig(root, source, SystemClock(), **given)  # type: ignore[arg-type]


def all_of(topic: str, partitions: int, count: int) -> list[tuple[str, int]]:
    """Return (source, offset) of `count` records in every partition, sorted."""
    return [(f"{topic}/{p}", n) for p in range(partitions) for n in range(count)]
