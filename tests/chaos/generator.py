"""Sends traffic with librdkafka's idempotent producer and keeps the ledger of what was acked.

At the end the topics are read back with librdkafka, too: every acknowledged record must lie
where the broker said, and what lies there without an acknowledgement (its answer was lost) is
added to the ledger.
"""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from streamproc.connectors.clock import SystemClock
from tests.chaos.traffic import Draft, Traffic
from tests.oracle.facts import Entry

TICK_S = 0.05
FLUSH_S = 30.0
STUCK_US = 40_000_000
_SEQ = "seq"


class Generator:
    """Sends `rate` records a second in a thread of its own until it is stopped.

    Without `keeps` there is no ledger, and nothing that grows.
    """

    def __init__(
        self, bootstrap: str, rng: random.Random, rate: float, *, keeps: bool = True
    ) -> None:
        self._keeps = keeps
        self._traffic = Traffic(rng)
        self._rate = rate
        self._bootstrap = bootstrap
        self._producer = _producer(bootstrap)
        self._answered_us = 0
        self._drafts: list[Draft] = []
        self._places: dict[int, int] = {}
        self.refused: list[str] = []
        self.producers = 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generator")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """Stop, wait for what is under way; return how many were not answered by then."""
        self._stop.set()
        self._thread.join()
        return int(self._producer.flush(FLUSH_S))

    @property
    def sent(self) -> int:
        return len(self._drafts)

    @property
    def acked(self) -> int:
        return len(self._places)

    def _run(self) -> None:
        clock, owed = SystemClock(), 0.0
        before = self._answered_us = clock.monotonic_us()
        while not self._stop.wait(TICK_S):
            now = clock.monotonic_us()
            # After a stall (a full queue, a slow machine) a second's worth, no flood.
            owed = min(owed + (now - before) / 1e6 * self._rate, self._rate)
            before = now
            for draft in self._traffic.records(clock.wall_us(), int(owed)):
                self._send(draft)
            owed -= int(owed)
            self._producer.poll(0)
            self._renew_if_stuck(now)

    def _renew_if_stuck(self, now_us: int) -> None:
        """Begin with another producer where this one gets no answer for long.

        librdkafka's was seen to stay silent for good after a broker came back. What it
        was about to send may be there or not: reading back tells.
        """
        if not len(self._producer):
            self._answered_us = now_us
        elif now_us - self._answered_us > STUCK_US:
            self._producer.purge()
            self._producer.poll(0)
            self._producer = _producer(self._bootstrap)
            self._answered_us = now_us
            self.producers += 1

    def _send(self, draft: Draft) -> None:
        seq = len(self._drafts)
        if self._keeps:
            self._drafts.append(draft)

        def told(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is None and offset is not None:
                self._places[seq] = offset
                self._answered_us = SystemClock().monotonic_us()
            else:
                self.refused.append(str(error))

        while not self._stop.is_set():
            try:
                self._producer.produce(
                    draft.topic,
                    value=draft.payload,
                    key=draft.device.encode(),
                    partition=draft.partition,
                    timestamp=draft.broker // 1000,
                    headers={_SEQ: str(seq)},
                    on_delivery=told if self._keeps else None,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def ledger(self) -> tuple[list[Entry], list[str]]:
        """Read the topics back; return every record that is there, and what is wrong."""
        topics = sorted({draft.topic for draft in self._drafts})
        entries, findings, seen = [], [], set()
        for found in read_topics(self._bootstrap, topics):
            seq, offset = int(found.headers[_SEQ]), found.offset
            draft = self._drafts[seq]
            if seq in seen:
                findings.append(f"the broker has record {seq} twice")
            if self._places.get(seq, offset) != offset:
                findings.append(f"record {seq} is not where it was acknowledged")
            if found.value != draft.payload:
                findings.append(f"the broker has changed record {seq}")
            seen.add(seq)
            entries.append(draft.at(offset))
        lost = self._places.keys() - seen
        if lost:
            findings.append(f"the broker has lost {len(lost)} acknowledged records")
        return entries, findings


def _producer(bootstrap: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "linger.ms": 20,
            "log_level": 0,
        }
    )


class Found(NamedTuple):
    """A record as it lies in a topic."""

    place: tuple[str, int]
    offset: int
    value: bytes
    headers: dict[str, str]


def read_topics(bootstrap: str, topics: Sequence[str]) -> Iterator[Found]:
    """Yield every record of the topics up to the ends there are now."""
    consumer = _consumer(bootstrap)
    try:
        ends = {
            place: end for place, end in _bounds(consumer, topics).items() if end > 0
        }
        consumer.assign([TopicPartition(*place, 0) for place in ends])
        while ends:
            message = consumer.poll(10.0)
            if message is None:
                msg = f"the topics cannot be read to their ends: {ends}"
                raise RuntimeError(msg)
            if message.error():
                continue
            found = _found(message)
            yield found
            if found.offset + 1 >= ends.get(found.place, 0):
                ends.pop(found.place, None)
    finally:
        consumer.close()


def _found(message: Message) -> Found:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in dict(message.headers() or ()).items()
    }
    return Found((topic, partition), offset, message.value() or b"", headers)


def end_offsets(bootstrap: str, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the end offset of every partition."""
    consumer = _consumer(bootstrap)
    try:
        return _bounds(consumer, topics)
    finally:
        consumer.close()


def documents(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Return the JSON documents of a topic."""
    return [json.loads(found.value) for found in read_topics(bootstrap, [topic])]


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "readback",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )


def _bounds(consumer: Consumer, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    known = consumer.list_topics(timeout=30).topics
    places = [(topic, p) for topic in topics for p in known[topic].partitions]
    return {
        (topic, p): consumer.get_watermark_offsets(
            TopicPartition(topic, p), timeout=30
        )[1]
        for topic, p in places
    }
