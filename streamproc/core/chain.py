"""The commit log as a chain: what may follow what, and what one pass over it tells.

Pure. `Chain` is fed the bytes of every record, oldest first, refuses what does not fit,
and keeps the little that start-up and housekeeping need, not the whole log.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from streamproc.core.ports import StagedFile, StoredFile
from streamproc.core.record import (
    FileEntry,
    Fingerprint,
    InputPlan,
    Kind,
    LogRecord,
    RecordCounts,
    SnapshotRef,
    Squashed,
    decode_record,
    sha256_hex,
)
from streamproc.core.state_versions import advice, can_read
from streamproc.core.values import AlertTransition, TimerDecision
from streamproc.errors import LogCorrupt

REFOLDED: Final = frozenset({"commit", "timer", "config", "final", "gap", "rewrite"})
"""Kinds that a refold from a snapshot has to look at."""

MOVING: Final = frozenset({"commit", "gap"})
"""Kinds whose `[start, next)` may hold offsets."""

OPENING: Final = frozenset({"genesis", "takeover"})
"""Kinds that begin an owner's records: the first of each is there for ever (`core.squash`)."""

NO_RECORD: Final = -1

_RECORD_NAME = re.compile(r"(\d{20})\.json")
_NUMBERED = re.compile(r"(\d{1,20})-.+")


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log it is, and who writes it now.

    `owner`, `code_version` and `state_version` belong to the writing process, the rest to
    the log: a record of another job, topic or partition is refused.
    """

    job: str
    topic: str
    topic_id: str
    partition: int
    owner: str
    code_version: str
    state_version: int


@dataclass(frozen=True, slots=True)
class Genesis:
    """Where a partition without a log begins, and why (`note`, e.g. `start = earliest`).

    `partitions`: how many the topic has, where that may matter later; else 0.
    """

    start: int
    note: str
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a log and the digest of its exact bytes."""

    record: LogRecord
    sha256: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What the next record shall say; the log fills in the rest.

    None means "as in the record before". `snapshot.next` is set by the log.
    `generation` is Kafka's, for the operator only.
    """

    kind: Kind
    next: int
    files: Sequence[StagedFile] = ()
    counts: RecordCounts = field(default_factory=RecordCounts)
    snapshot: SnapshotRef | None = None
    watermarks: Mapping[str, int] | None = None
    timers: tuple[TimerDecision, ...] = ()
    outbox: tuple[AlertTransition, ...] = ()
    fingerprint: Fingerprint | None = None
    inputs: tuple[InputPlan, ...] | None = None
    definition: str | None = None
    squashed: Squashed | None = None
    generation: int = -1
    note: str = ""
    by: str = ""


class Chain:
    """One log, read or written up to `head`; `base` replaces the records up to its `through`.

    Attributes:
        head: the newest record, None before the first.
        since_snapshot: records of `REFOLDED` kinds after the newest snapshot, in order.
        unpublished: records with files that the `published` hint does not cover, in order.
        unsent: records with an outbox that the `sent` hint does not cover, in order.
        snapshots: every snapshot the log names, oldest first.
        openings: genesis and takeovers that end the log, with nothing done since.
    """

    def __init__(
        self,
        identity: LogIdentity,
        published: int,
        sent: int,
        base: Squashed | None = None,
    ) -> None:
        self._identity = identity
        # Number, digest and `next` of the record that the coming one has to follow.
        self._last = None if base is None else (base.through, base.sha256, base.next)
        self._published = published
        self._sent = sent
        self.head: Head | None = None
        self.since_snapshot: list[LogRecord] = []
        self.unpublished: list[LogRecord] = []
        self.unsent: list[LogRecord] = []
        self.snapshots: list[SnapshotRef] = [] if base is None else [*base.snapshots]
        self.openings = 0

    def append(self, data: bytes, where: str) -> LogRecord:
        """Take the next record.

        Raises:
            LogCorrupt: it does not parse, belongs elsewhere, or does not follow `head`.
        """
        record = decode_record(data, where)
        fault = self._fault(record)
        if fault:
            msg = f"{where}: {fault}"
            raise LogCorrupt(msg)
        self.head = Head(record, sha256_hex(data))
        self._last = (record.n, self.head.sha256, record.next)
        self.openings = self.openings + 1 if record.kind in OPENING else 0
        if record.snapshot is not None and record.snapshot.n == record.n:
            self.snapshots.append(record.snapshot)
            self.since_snapshot.clear()
        elif record.kind in REFOLDED:
            self.since_snapshot.append(record)
        if record.files and record.n > self._published:
            self.unpublished.append(record)
        if record.outbox and record.n > self._sent:
            self.unsent.append(record)
        return record

    def published(self, n: int) -> None:
        """Note that every file of records up to `n` has its final name, durably."""
        self.unpublished = [r for r in self.unpublished if r.n > n]

    def sent(self, n: int) -> None:
        """Note that the outboxes of records up to `n` have left."""
        self.unsent = [r for r in self.unsent if r.n > n]

    def check_hints(self) -> None:
        """Refuse hints that lead: then the log has lost its newest records."""
        newest = NO_RECORD if self.head is None else self.head.record.n
        leading = max(self._published, self._sent)
        if leading > newest:
            msg = (
                f"record {leading} was published or sent, but the log ends at {newest}"
            )
            raise LogCorrupt(msg)

    def check_refold(self) -> None:
        """Refuse a state that this version cannot have again.

        That is a snapshot there is no way from, or records of another version to refold.
        """
        mine = self._identity.state_version
        written = {r.state_version for r in self.since_snapshot}
        if self.snapshots and not can_read(self.snapshots[-1].state_version, mine):
            written.add(self.snapshots[-1].state_version)
            raise LogCorrupt(advice(max(written), mine))
        if written and max(written) > mine:
            raise LogCorrupt(advice(max(written), mine))
        if written - {mine}:
            msg = (
                f"since the last snapshot, records were folded by state version "
                f"{min(written)}, this program has {mine}: drain with the old program "
                "first (start it, stop it with SIGTERM: it ends with a snapshot)"
            )
            raise LogCorrupt(msg)

    def _fault(self, record: LogRecord) -> str | None:
        mine = self._identity
        if (record.job, record.topic, record.topic_id, record.partition) != (
            mine.job,
            mine.topic,
            mine.topic_id,
            mine.partition,
        ):
            return "a record of another job, topic or partition"
        if record.next < record.start:
            return f"offsets go back from {record.start} to {record.next}"
        if record.next > record.start and record.kind not in MOVING:
            return f"a {record.kind} record that moves from {record.start} to {record.next}"
        if (record.kind == "checkpoint") != (record.squashed is not None):
            return f"a {record.kind} record, and what it replaces: {record.squashed}"
        if record.squashed is not None and record.squashed.through >= record.n:
            return f"replaces record {record.squashed.through}, which is not before it"
        return self._link_fault(record)

    def _link_fault(self, record: LogRecord) -> str | None:
        if self._last is None:
            if record.kind == "genesis" and record.n == 0:
                return None
            return f"the log begins with {record.kind} {record.n}, records are missing"
        before, sha256, end = self._last
        if record.n != before + 1:
            return f"record {record.n} follows record {before}"
        if record.prev_sha256 != sha256:
            return f"does not name the bytes of record {before} as its predecessor"
        if record.start != end:
            return f"starts at offset {record.start}, the record before ends at {end}"
        return None


def record_numbers(files: Iterable[StoredFile], log: str) -> list[int]:
    """Return the numbers of the records listed below the folder `log`, ascending."""
    numbers = []
    for file in files:
        match = _RECORD_NAME.fullmatch(file.path.removeprefix(f"{log}/"))
        if match:
            numbers.append(int(match[1]))
    return sorted(numbers)


def sweepable(
    files: Iterable[StoredFile],
    folder: str,
    head_n: int,
    keep: frozenset[str],
) -> list[str]:
    """Return the files below `folder` that can never be committed again (S11).

    Entries are named `<n>-<attempt>…`. A number at or below the head is decided; a higher
    one may still win, whatever its age. `keep` holds paths that are still needed.
    """
    found = []
    for file in files:
        match = _NUMBERED.fullmatch(file.path.removeprefix(f"{folder}/"))
        if match and int(match[1]) <= head_n and file.path not in keep:
            found.append(file.path)
    return found


def parse_hint(data: bytes | None) -> int:
    """Return the number in a hint file; `NO_RECORD` if there is none or it is unreadable."""
    if data is None or not data.strip().isdigit():
        return NO_RECORD
    return int(data)


def genesis_record(
    identity: LogIdentity, genesis: Genesis, definition: str, attempt: str
) -> LogRecord:
    """Return record 0."""
    return LogRecord(
        n=0,
        kind="genesis",
        prev_sha256="",
        job=identity.job,
        topic=identity.topic,
        topic_id=identity.topic_id,
        partition=identity.partition,
        start=genesis.start,
        next=genesis.start,
        definition=definition,
        state_version=identity.state_version,
        code_version=identity.code_version,
        owner=identity.owner,
        attempt=attempt,
        note=genesis.note,
        partitions=genesis.partitions,
    )


def next_record(
    identity: LogIdentity, head: Head, draft: Draft, attempt: str
) -> LogRecord:
    """Return the record after `head` that says what `draft` says."""
    before = head.record
    n = before.n + 1
    assert draft.next == before.next or draft.kind in MOVING, draft
    assert draft.next >= before.next, (draft.next, before.next)
    snapshot = before.snapshot
    if draft.snapshot is not None:
        assert draft.snapshot.n == n, (draft.snapshot, n)
        snapshot = msgspec.structs.replace(draft.snapshot, next=draft.next)
    return LogRecord(
        n=n,
        kind=draft.kind,
        prev_sha256=head.sha256,
        job=identity.job,
        topic=identity.topic,
        topic_id=identity.topic_id,
        partition=identity.partition,
        start=before.next,
        next=draft.next,
        definition=draft.definition or before.definition,
        state_version=identity.state_version,
        code_version=identity.code_version,
        owner=identity.owner,
        attempt=attempt,
        generation=draft.generation,
        counts=draft.counts,
        files=tuple(file_entry(file) for file in draft.files),
        snapshot=snapshot,
        watermarks=dict(
            before.watermarks if draft.watermarks is None else draft.watermarks
        ),
        timers=draft.timers,
        outbox=draft.outbox,
        fingerprint=draft.fingerprint or before.fingerprint,
        inputs=before.inputs if draft.inputs is None else draft.inputs,
        squashed=draft.squashed,
        note=draft.note,
        by=draft.by,
    )


def file_entry(file: StagedFile) -> FileEntry:
    """Return the log's entry of a staged file."""
    return FileEntry(
        dataset=file.dataset,
        staged=file.staged,
        path=file.final,
        size=file.size,
        rows=file.rows,
        sha256=file.sha256,
        first_offset=file.first_offset,
        last_offset=file.last_offset,
    )
