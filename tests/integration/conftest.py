"""Fixtures for tests that need a real broker, or a real object store."""

from collections.abc import Iterator

import pytest

from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.s3_server import S3Server
from tests.support.kafka import scram, shared_kafka, started
from tests.support.s3 import shared_s3


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """The run's broker, shared with the contract tests; topics are each test's own."""
    with shared_kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The run's S3 server, shared with the contract tests; prefixes are each test's own."""
    with shared_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A broker that a test may kill and restart."""
    broker = started(ApacheKafka(tmp_path_factory.mktemp("own-kafka")))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A broker on SASL_SSL with SCRAM-SHA-512 and a certificate for `localhost`."""
    folder = tmp_path_factory.mktemp("secure-kafka")
    broker = started(ApacheKafka(folder, scram=scram(folder / "tls")))
    yield broker
    broker.stop()
