"""The ports: what the core and the runtime ask of the outside world.

Implementations live in `connectors`, doubles in `streamproc.testing`; `tests/contracts`
runs every implementation of a port through one suite. A port carries the contract,
an implementation says only what it adds.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pyarrow as pa

from streamproc.core.effects import Content
from streamproc.core.values import (
    AlertTransition,
    Decoded,
    Emission,
    OffsetSpan,
    Records,
    TopicPartition,
)


class Clock(Protocol):
    """Time, as an argument of the runtime only. Monotonic for timers, wall for log lines."""

    def monotonic_us(self) -> int:
        """Return microseconds that never go back; origin unspecified."""
        ...

    def wall_us(self) -> int:
        """Return microseconds since 1970 UTC; never used in names or window logic."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller; a manual clock decides when it returns."""
        ...


# --- decoding -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WireSchema:
    """A writer schema as the registry knows it; `kind` is `avro`, `protobuf` or `json`."""

    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """Why a schema id has no schema: `missing` is certain, otherwise it may heal."""

    missing: bool
    detail: str


class Decoder(Protocol):
    """Bytes to readings, a whole batch at a time. Pure, and the same for every batch cut.

    Never raises on any input bytes: what cannot be decoded is a `Reject`.
    """

    def missing(self, records: Records) -> frozenset[int]:
        """Return the schema ids this batch needs and `learn` has not been told of."""
        ...

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take a schema, or the reason why there is none, for the batches to come.

        A `SchemaProblem` that may heal holds for the next `decode` only.
        """
        ...

    def decode(self, records: Records) -> Decoded:
        """Return the whole batch; every record is in readings, in rejects, or ignored."""
        ...


class Trial(Protocol):
    """Decodes for the sake of it where a crash does not matter."""

    def learn(self, schema_id: int, schema: WireSchema) -> None:
        """Take a schema for the batches to come."""
        ...

    def deadly(self, records: Records) -> Sequence[int]:
        """Return the rows of a batch whose decoding ends a process, or never ends. Blocking.

        Raises:
            WorldError: the batch as a whole does, none of its records alone.
        """
        ...

    def close(self) -> None:
        """Leave nothing running. It may be asked again."""
        ...


class SchemaRegistry(Protocol):
    """Writer schemas by id."""

    async def fetch(self, schema_id: int) -> WireSchema | SchemaProblem:
        """Return the schema; never guesses, never raises for the registry's faults."""
        ...


# --- the source -----------------------------------------------------------------------


class StartAt(StrEnum):
    """Where a partition without a log begins."""

    EARLIEST = "earliest"
    LATEST = "latest"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Offsets a partition can serve now: `[begin, end)`."""

    begin: int
    end: int


class AssignmentListener(Protocol):
    """Told by the source, on the source's task, before records of a new owner flow."""

    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Finish or abandon within the drain budget; afterwards nothing is ours."""
        ...

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note and return; every partition arrives paused and without a position."""
        ...


class Source(Protocol):
    """Where records come from. One consumer task calls `fetch`; nobody cancels it.

    A partition delivers nothing until `seek` and `resume` were called for it.
    """

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and join; `listener` is called from then on.

        Raises:
            Unreachable: nobody answers at the configured address.
        """
        ...

    async def fetch(
        self, timeout_ms: int, among: Collection[TopicPartition] | None = None
    ) -> Sequence[Records]:
        """Return what has arrived within about `timeout_ms`.

        Items of one partition are in the order of offsets, each span beginning where the
        one before ended. Only partitions of `among` are asked for, where it is given; the
        others lose nothing by it. It may have no effect while an earlier call goes on.

        Raises:
            SourceMismatch: a position the broker no longer has.
            WorldError: the source gave up.
        """
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes of memory in which anything lies that was fetched, whoever holds it."""
        ...

    @property
    def coming_bytes(self) -> int:
        """Most bytes that may still arrive once every partition is paused."""
        ...

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """Ask the broker afresh. Raises `Unreachable` when it does not answer."""
        ...

    async def offset_at(self, partition: TopicPartition, time_us: int) -> int | None:
        """Return the first offset with broker time ≥ `time_us`, None if there is none."""
        ...

    async def topic_id(self, topic: str) -> str:
        """Return the topic's UUID; for a stream of files the fixed word `file`."""
        ...

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions the topic has now. Raises `Unreachable`."""
        ...

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        """Read the record at `offset` for a fingerprint; empty if it is gone."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next; drops what was fetched and not yet returned."""
        ...

    def pause(self, partition: TopicPartition) -> None:
        """Stop delivering; takes effect at once."""
        ...

    def resume(self, partition: TopicPartition) -> None:
        """Deliver again."""
        ...

    async def hint(self, partition: TopicPartition, offset: int, note: str) -> bool:
        """Store the position as a hint for operators; False where the broker refused."""
        ...

    async def stop(self) -> None:
        """Leave; safe before `start` and twice. Does not call `revoked`."""
        ...


# --- the store ------------------------------------------------------------------------


class Created(StrEnum):
    """The outcome of a conditional create."""

    CREATED = "created"
    EXISTS = "exists"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One entry of a listing: path relative to the root, size in bytes."""

    path: str
    size: int


class Store(Protocol):
    """Durable named bytes under one root; paths are relative, `/`-separated, already safe.

    Every method is blocking and may be called from several threads at once. `StoreFault`: the
    store said no. `Unreachable`: it did not answer within its patience; `StoreFull`: it has no
    room. After both it may be called again, and nothing half-done is visible.
    """

    def create(self, path: str, data: bytes) -> Created:
        """Create `path` with exactly `data`, or leave what is there; atomic and durable.

        CREATED: it is ours and durable. EXISTS: somebody's bytes are there, read them.
        UNKNOWN: nobody can tell, read back until known.
        """
        ...

    def read(self, path: str) -> bytes | None:
        """Return the whole content, None where nothing has that name."""
        ...

    def list(self, folder: str, after: str = "") -> Sequence[StoredFile]:
        """Return every file below `folder`, sorted by path; empty where there is none.

        Only those whose path is greater than `after` (code point by code point), where it
        is given: a store that lists in order then begins there.
        Names directly in `folder` are durable when they are returned, whoever made them.
        """
        ...

    def stage(self, path: str, content: Content) -> int:
        """Make `content` durable under `path`, return its size.

        Durable after `settle`, at the latest before a later `create` takes effect: a store
        may have several on their way at once, and raise there what went wrong here.
        Overwrites a leftover of the same name. Raises `StoreFault` (disk full and the like),
        `Fenced` if a newer owner swept the folder meanwhile.
        """
        ...

    def publish(self, staged: str, final: str, size: int, sha256: str) -> None:
        """Give staged bytes their final name; idempotent, and durable after `settle`.

        Already there with the same size and sha256: fine. With others: `StoreFault`, here
        or from `settle`.
        """
        ...

    def settle(self) -> None:
        """Make every `stage`, `publish` and `delete` since the last call durable."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put `data` under `path` atomically, whatever was there (derived files only)."""
        ...

    def delete(self, path: str) -> None:
        """Remove `path`; no error where nothing has that name."""
        ...


# --- leaving the process --------------------------------------------------------------


class AlertSink(Protocol):
    """Somewhere alerts go. At least once; receivers drop doubles by (alert_id, transition)."""

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        """Return once all are accepted; raises `Unreachable` to be tried again."""
        ...

    async def close(self) -> None:
        """Release what is held; safe twice."""
        ...


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One Parquet file in staging and the name it will be published under."""

    staged: str
    final: str
    size: int
    rows: int
    sha256: str
    dataset: str
    first_offset: int
    last_offset: int


class TableWriter(Protocol):
    """Buffers emissions of one partition and writes them as Parquet files, per city and date."""

    def append(self, emission: Emission) -> None:
        """Keep the emission's tables; cheap."""
        ...

    def append_aggregates(self, aggregates: pa.RecordBatch) -> None:
        """Keep further rows of schema `ROUTED_AGGREGATE`: the late parts of this commit."""
        ...

    def buffered(self) -> tuple[int, int]:
        """Return (rows, bytes) held now."""
        ...

    def write(
        self, store: Store, staging: str, stem: str, span: OffsetSpan
    ) -> Sequence[StagedFile]:
        """Write all that is held below `staging`, durably, and forget it.

        `stem` begins each file's name (`<topic>-p<p>-n<n>-<first>-<last>-<attempt8>`).
        """
        ...

    def clear(self) -> None:
        """Drop what is held."""
        ...


Failpoint = Callable[[str], None]
"""Called with a step's name; a test makes it kill the process there."""


def no_failpoint(name: str) -> None:
    """Do nothing: production's failpoint."""
