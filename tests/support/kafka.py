"""Brokers for tests: one Apache Kafka per test run, started when the first test asks."""

import os
import subprocess
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from streamproc.connectors.kafka_settings import KafkaConnection, KafkaOptions
from streamproc.core.ports import Source
from streamproc.core.values import Records, TopicPartition
from streamproc.testing.kafka_broker import ApacheKafka, KafkaUnavailable, Scram
from streamproc.testing.kafka_cluster import KafkaCluster, Tls
from tests.support.lending import Lent

_numbers = count()


def fresh(name: str) -> str:
    """Return a name no other test of this run uses."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def options_for(connection: KafkaConnection, **settings: object) -> KafkaOptions:
    """Return options that notice things quickly."""
    quick: dict[str, object] = {
        "group": fresh("group"),
        "session_timeout_s": 6,
        "heartbeat_s": 1,
        "rebalance_timeout_s": 20,
        "topics_refresh_s": 1,
        "fetch_wait_ms": 50,
    }
    return KafkaOptions(connection=connection, **(quick | settings))  # type: ignore[arg-type]


_lent: Lent[ApacheKafka] = Lent()


def shared_kafka(folder: Path) -> AbstractContextManager[ApacheKafka]:
    """Lend the run's one broker; the first borrower starts it, the last one stops it."""
    return _lent.lend(lambda: started(ApacheKafka(folder)))


Broker = TypeVar("Broker", ApacheKafka, KafkaCluster)


def started(broker: Broker) -> Broker:
    """Start it, or skip the test; with STREAMPROC_REQUIRE_KAFKA=1 fail instead."""
    try:
        broker.start()
    except KafkaUnavailable as error:
        if os.environ.get("STREAMPROC_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(f"no Apache Kafka: {error}")
    return broker


# With the extensions that Python 3.13 and later insist on. `-days -1`: over since yesterday.
_AUTHORITIES = r"""
set -e
for name in ca stranger; do
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-$name -keyout $name.key -out $name.pem \
    -addext keyUsage=critical,keyCertSign,cRLSign
done
"""

_BROKERS_KEYS = r"""
set -e
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout b.key -out b.csr
printf 'subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\n' > names
openssl pkcs8 -topk8 -nocrypt -in b.key -out b.p8
for days in 2 -1; do
  openssl x509 -req -in b.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $days -extfile names -out b.crt
  cat b.p8 b.crt ca.pem > broker$days.pem
done
"""


def certificates(folder: Path) -> Tls:
    """Make throw-away authorities, and certificates for `localhost`: good and expired."""
    folder.mkdir(parents=True, exist_ok=True)
    _sh(_AUTHORITIES, folder)
    _sh(_BROKERS_KEYS, folder)
    return Tls(
        keys=folder / "broker2.pem",
        expired=folder / "broker-1.pem",
        authority=folder / "ca.pem",
        stranger=folder / "stranger.pem",
    )


def renew(tls: Tls) -> None:
    """Put new keys and certificates, signed by the same authority, in the place of the old."""
    _sh(_BROKERS_KEYS, tls.keys.parent)


def _sh(script: str, folder: Path) -> None:
    subprocess.run(
        ["/bin/sh", "-c", script], cwd=folder, check=True, capture_output=True
    )


def scram(folder: Path) -> Scram:
    """Make a throw-away authority and a certificate for `localhost`."""
    made = certificates(folder)
    return Scram(keys=made.keys, authority=made.authority)


class Recorder:
    """A listener that remembers what it was told, and may be told to fail."""

    def __init__(self) -> None:
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.fail_on = ""

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._note("revoked", partitions)

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._note("assigned", partitions)

    def _note(self, what: str, partitions: frozenset[TopicPartition]) -> None:
        self.events.append((what, partitions))
        if self.fail_on == what:
            msg = f"{what} failed on purpose"
            raise RuntimeError(msg)

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """Return the newest assignment, empty while there is none."""
        if not self.events or self.events[-1][0] != "assigned":
            return frozenset()
        return self.events[-1][1]


FETCH_MS = 100
FETCHES_MAX = 200


async def until_assigned(
    source: Source, listener: Recorder, wanted: frozenset[TopicPartition] | None = None
) -> frozenset[TopicPartition]:
    """Fetch, expecting nothing, until the listener owns `wanted`, or anything."""
    for _ in range(FETCHES_MAX):
        if listener.owned and wanted in (None, listener.owned):
            return listener.owned
        assert not await source.fetch(FETCH_MS)
    msg = f"no such assignment: {listener.events}"
    raise AssertionError(msg)


async def take(source: Source, records: int, end: int | None = None) -> list[Records]:
    """Fetch until that many records have come and, if asked, a span has reached `end`."""
    batches: list[Records] = []
    for _ in range(FETCHES_MAX):
        batches += await source.fetch(FETCH_MS)
        enough = sum(map(len, batches)) >= records
        if enough and (end is None or any(b.span.end >= end for b in batches)):
            return batches
    msg = f"only {sum(map(len, batches))} of {records} records came"
    raise AssertionError(msg)


def open_at(source: Source, offset: int, *partitions: TopicPartition) -> None:
    """Let the partitions deliver from `offset`."""
    for partition in partitions:
        source.seek(partition, offset)
        source.resume(partition)


def values_of(batches: list[Records]) -> list[bytes | None]:
    """Return all values in the order they came."""
    return [value for batch in batches for value in batch.values]
