"""One span of a partition on its way from open to committed: what it holds, and how far it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from streamproc.core.chain import Draft
from streamproc.core.flush import FlushReason
from streamproc.core.ports import StagedFile, TableWriter
from streamproc.core.record import (
    Fingerprint,
    InputPlan,
    Kind,
    LogRecord,
    RecordCounts,
    SnapshotRef,
)
from streamproc.core.snapshot_write import Chunks
from streamproc.core.values import AlertTransition, OffsetSpan, TimerDecision


@dataclass(slots=True)
class OpenSpan:
    """What the open span has seen so far; thrown away at every commit."""

    start: int
    opened_us: int | None = None
    counts: RecordCounts = field(default_factory=RecordCounts)
    timers: list[TimerDecision] = field(default_factory=list)
    outbox: list[AlertTransition] = field(default_factory=list)
    alerts: int = 0


@dataclass(slots=True)
class Progress:
    """How far the writing of a span has come, so that it can go on where it failed."""

    files: tuple[StagedFile, ...] | None = None
    draft: Draft | None = None
    record: LogRecord | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    """A span that is complete and not yet durable, with all that its commit needs.

    `snapshot` gives the pieces of the state, as often as they have to be written.
    """

    span: OffsetSpan
    reason: FlushReason
    writer: TableWriter
    content: OpenSpan
    snapshot: Callable[[], Mapping[str, Chunks]] | None
    watermarks: Mapping[str, int]
    fingerprint: Fingerprint | None
    inputs: tuple[InputPlan, ...]
    definition: str
    progress: Progress = field(default_factory=Progress)

    @property
    def exclusive(self) -> bool:
        """Tell whether nothing may be folded before it is durable.

        The state is not copied for a snapshot; and what follows a timer's decision must not
        be folded on top of one that a crash could take back.
        """
        return self.snapshot is not None or bool(self.content.timers)

    @property
    def kind(self) -> Kind:
        """Return what the log calls it."""
        if self.reason is FlushReason.CONFIG:
            return "config"
        if len(self.span) > 0 or not self.content.timers:
            return "commit"
        final = any(timer.kind == "final" for timer in self.content.timers)
        return "final" if final else "timer"

    @property
    def held_bytes(self) -> int:
        """Return the size of what is to be written."""
        return self.writer.buffered()[1]


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable commit: its record, what may now leave, and what it cost."""

    record: LogRecord
    reason: FlushReason
    files: int
    alerts: int
    seconds: float


def draft_of(
    frozen: Frozen, files: Sequence[StagedFile], snapshot: SnapshotRef | None
) -> Draft:
    """Return what the log is to say of a span whose files and snapshot are staged."""
    counts = frozen.content.counts
    return Draft(
        kind=frozen.kind,
        next=frozen.span.end,
        files=tuple(files),
        counts=replace(
            counts,
            skipped=len(frozen.span) - counts.records,
            aggregates=sum(f.rows for f in files if f.dataset == "aggregates"),
        ),
        snapshot=snapshot,
        watermarks=frozen.watermarks,
        timers=tuple(frozen.content.timers),
        outbox=tuple(frozen.content.outbox),
        fingerprint=frozen.fingerprint,
        inputs=frozen.inputs,
        definition=frozen.definition,
    )
