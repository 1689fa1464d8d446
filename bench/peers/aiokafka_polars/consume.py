"""aiokafka feeding a job on polars, in chunks of 100,000 records."""

import asyncio
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.peers.contract import PARTITIONS
from bench.peers.totals import first_record

CHUNK = 100_000


class Job(Protocol):
    def add(self, partition: int, values: list[bytes]) -> None: ...
    def close(self) -> None: ...
    def tell(self) -> None: ...


def consume(job: Job, servers: str, topic: str, records: int) -> None:
    """Hand the topic's first `records` records to the job."""
    asyncio.run(_consume(job, servers, topic, records))


async def _consume(job: Job, servers: str, topic: str, records: int) -> None:
    # Without a group: no commits. `getmany` instead of iteration, as its documentation
    # advises for throughput.
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    await consumer.start()
    await consumer.seek_to_beginning(*places)
    waiting: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    read = held = 0
    while read < records:
        fetched = await consumer.getmany(timeout_ms=1000)
        if fetched and not read:
            first_record()
        for place, messages in fetched.items():
            waiting[place.partition].extend([message.value for message in messages])
            read += len(messages)
            held += len(messages)
        if held >= CHUNK or read >= records:
            for partition, values in enumerate(waiting):
                if values:
                    job.add(partition, values)
            waiting = [[] for _ in range(PARTITIONS)]
            held = 0
            job.close()
    await consumer.stop()
    job.tell()
