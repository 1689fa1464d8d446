"""One embedded broker for the module; every start of a service is a group of its own."""

from collections.abc import Iterator

import pytest

from streamproc.connectors.embedded_broker import EmbeddedBrokerProcess
from tests.support.failpoints import TOPICS


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBrokerProcess]:
    with EmbeddedBrokerProcess(TOPICS) as running:
        yield running
