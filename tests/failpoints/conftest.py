"""One embedded broker for the module; every start of a service is a group of its own."""

from collections.abc import Iterator

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from streamproc.testing.s3_server import S3Server
from tests.support.failpoints import TOPICS
from tests.support.s3 import shared_s3


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBrokerProcess]:
    with EmbeddedBrokerProcess(TOPICS) as running:
        yield running


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The run's S3 server."""
    with shared_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
