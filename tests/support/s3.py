"""An S3 server for tests: one versitygw per test run, started when the first test asks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.testing.s3_server import S3Server, S3Unavailable


@dataclass
class _Shared:
    server: S3Server | None = None
    users: int = 0


_shared = _Shared()


@contextmanager
def shared_s3(folder: Path) -> Iterator[S3Server]:
    """Lend the run's one server; the first borrower starts it, the last one stops it."""
    if _shared.server is None:
        _shared.server = started(S3Server(folder))
    _shared.users += 1
    try:
        yield _shared.server
    finally:
        _shared.users -= 1
        if not _shared.users:
            _shared.server.stop()
            _shared.server = None


def started(server: S3Server) -> S3Server:
    """Start it, or skip the test; with STREAMPROC_REQUIRE_S3=1 fail instead."""
    try:
        server.start()
    except S3Unavailable as error:
        if os.environ.get("STREAMPROC_REQUIRE_S3") == "1":
            raise
        pytest.skip(f"no S3 server: {error}")
    return server
