"""Filling a topic of the real broker with a workload."""

import asyncio
from itertools import islice

from bench.peers.contract import PARTITIONS
from bench.peers.workload import Columns, Workload, records
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection

CHUNK = 100_000


def fill(
    connection: KafkaConnection,
    work: Workload,
    found: Columns,
    schema_id: int,
) -> None:
    """Create the workload's topic and fill it, lz4, in batches of thousands of records."""
    asyncio.run(_fill(connection, work, found, schema_id))


async def _fill(
    connection: KafkaConnection,
    work: Workload,
    found: Columns,
    schema_id: int,
) -> None:
    made = records(work, found, schema_id)
    async with KafkaProduce(connection, compression="lz4") as producer:
        await producer.create_topics([work.topic], PARTITIONS)
        while chunk := [
            Message(work.topic, record.value, record.key, record.partition)
            for record in islice(made, CHUNK)
        ]:
            await producer.send(chunk)
