"""Builders for commit-log tests."""

import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

from streamproc.core.chain import Genesis, LogIdentity
from streamproc.core.definition import Definition
from streamproc.core.ports import StagedFile, Store
from streamproc.core.record import log_folder

FOLDER = log_folder("job", "telemetry.razlog", "id", 0)
DEFINITION = Definition(job="job", windows=(), rules=(), properties=(), cities=())


def identity(
    owner: str = "a", *, state_version: int = 1, partition: int = 0
) -> LogIdentity:
    return LogIdentity(
        job="job",
        topic="telemetry.razlog",
        topic_id="id",
        partition=partition,
        owner=owner,
        code_version="test",
        state_version=state_version,
    )


def attempts(owner: str) -> Callable[[], str]:
    numbers = count()
    return lambda: f"{owner}{next(numbers):07d}"


def earliest() -> Genesis:
    return Genesis(0, "start = earliest")


def stage(
    store: Store, staged: str, final: str, data: bytes, offset: int = 0
) -> StagedFile:
    size = store.stage(staged, data)
    return StagedFile(
        staged=staged,
        final=final,
        size=size,
        rows=1,
        sha256=hashlib.sha256(data).hexdigest(),
        dataset="readings",
        first_offset=offset,
        last_offset=offset,
    )


def _fill(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
