"""An S3 server for tests: one versitygw per test run, started when the first test asks."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from streamproc.testing.s3_server import S3Server, S3Unavailable
from tests.support.lending import Lent

_lent: Lent[S3Server] = Lent()


def shared_s3(folder: Path) -> AbstractContextManager[S3Server]:
    """Lend the run's one server; the first borrower starts it, the last one stops it."""
    return _lent.lend(lambda: started(S3Server(folder)))


def started(server: S3Server) -> S3Server:
    """Start it, or skip the test; with STREAMPROC_REQUIRE_S3=1 fail instead."""
    try:
        server.start()
    except S3Unavailable as error:
        if os.environ.get("STREAMPROC_REQUIRE_S3") == "1":
            raise
        pytest.skip(f"no S3 server: {error}")
    return server
