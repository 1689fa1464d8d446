"""confluent-kafka, tuned, feeding a job on polars, in chunks of 100,000 records."""

import os
from typing import Any, Protocol

from confluent_kafka import Consumer, TopicPartition

from bench.peers.contract import PARTITIONS
from bench.peers.totals import first_record

CHUNK = 100_000
TUNING = {
    # librdkafka's queue is 64 MiB and a full one is looked at again after a second, which
    # leaves a reader that catches up waiting most of the time.
    "queued.max.messages.kbytes": 262_144,
    "queued.min.messages": 500_000,
    "fetch.queue.backoff.ms": 5,
}


class Job(Protocol):
    def add(self, partition: int, values: list[bytes]) -> None: ...
    def close(self) -> None: ...
    def tell(self) -> None: ...


def consume(job: Job, servers: str, topic: str, records: int) -> None:
    """Hand the topic's first `records` records to the job."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"peers-{os.getpid()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **TUNING,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    waiting: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    read = held = 0
    while read < records:
        messages: list[Any] = consumer.consume(10_000, 1.0)
        if messages and not read:
            first_record()
        for message in messages:
            assert message.error() is None, message.error()
            waiting[message.partition()].append(message.value())
        read += len(messages)
        held += len(messages)
        if held >= CHUNK or read >= records:
            for partition, values in enumerate(waiting):
                if values:
                    job.add(partition, values)
            waiting = [[] for _ in range(PARTITIONS)]
            held = 0
            job.close()
    consumer.close()
    job.tell()
