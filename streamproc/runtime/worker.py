"""One owned partition, from decoded batch to durable commit. Synchronous.

Theory of operation
-------------------
`open` makes the partition ours: locate the head, finish what an earlier owner left half
published, fence it with a takeover record, load the newest snapshot and fold the readings
published since then again (S1-S4 of EXACTLY_ONCE.md 1.2). The refold reads the *published
readings*, not Kafka: they hold exactly what was accepted, so neither a registry outage nor
a newer decoder nor the topic's retention can change the state.

`step` folds a batch and buffers its emission; nothing durable happens.
A commit is the only way out, in two halves. `freeze` ends the open span: late parts are cut,
the state is taken where a snapshot is due, and nothing of the span changes any more. `write`
makes it durable: staging, record, publishing, cleaning (S6-S9, S11). What it returns may leave
the process (S10), and not before. The next span may be folded while one is written; there is
never a second one on its way. A write that fails because nobody answers, or for want of room, may
be tried again and goes on where it was; after any other failure everything folded since is void.

Timer decisions are always the last thing of a span and committed with it at once, so that
no record is ever folded on top of a decision that a crash could take back.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import tzinfo

import pyarrow as pa

from streamproc.core.definition import Definition
from streamproc.core.fingerprint import fingerprint_of
from streamproc.core.flush import FlushPolicy, FlushReason, SnapshotPolicy
from streamproc.core.ports import (
    Clock,
    Failpoint,
    Store,
    TableWriter,
    no_failpoint,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.record import (
    FileEntry,
    Fingerprint,
    InputPlan,
    LogRecord,
    RecordCounts,
)
from streamproc.core.restoring import Recovery
from streamproc.core.snapshot_write import Chunks
from streamproc.core.values import (
    Decoded,
    Emission,
    OffsetSpan,
    Records,
    TimerDecision,
    TopicPartition,
)
from streamproc.errors import Unreachable, WorldError
from streamproc.runtime.partition_log import Draft, Genesis, PartitionLog
from streamproc.runtime.span import Committed, Frozen, OpenSpan, draft_of

__all__ = ["Committed", "Frozen", "PartitionWorker", "WorkerOptions", "WorkerTools"]

ReadingsReader = Callable[[Sequence[FileEntry]], pa.Table]
"""Reads published `readings` files back as ROUTED_READING, sorted by (offset, ordinal)."""

Zones = Callable[[Definition], Mapping[str, tzinfo]]
"""Returns every city's time zone by slug; asked for older definitions, too."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How often a partition commits and snapshots."""

    flush: FlushPolicy = field(default_factory=FlushPolicy)
    snapshot: SnapshotPolicy = field(default_factory=SnapshotPolicy)


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """What a worker is built with; `log` belongs to one partition.

    `make_writer` returns an empty writer for files under a definition: what closes because
    of a change is still filed under the definition before it.
    """

    log: PartitionLog
    make_writer: Callable[[Definition], TableWriter]
    store: Store
    clock: Clock
    read_readings: ReadingsReader
    zones: Zones
    failpoint: Failpoint = no_failpoint


class PartitionWorker:
    """The state of one assigned partition.

    `write` and `note_sent` may run in another thread than the rest, one after the other; between
    `freeze` and the end of `write` nothing else may ask for the log.
    """

    def __init__(
        self,
        origin: TopicPartition,
        tools: WorkerTools,
        options: WorkerOptions,
    ) -> None:
        self.origin = origin
        self._log = tools.log
        self._make_writer = tools.make_writer
        self._store = tools.store
        self._clock = tools.clock
        self._read_readings = tools.read_readings
        self._zones = tools.zones
        self._failpoint = tools.failpoint
        self._options = options
        self._processor: PartitionProcessor | None = None
        self._writer: TableWriter | None = None
        self._definition: Definition | None = None
        self._open = OpenSpan(start=0)
        self._position = 0
        self._fingerprint: Fingerprint | None = None
        self._inputs: tuple[InputPlan, ...] = ()
        self._snapshot_us = 0
        self._snapshot_rows = 0

    @property
    def processor(self) -> PartitionProcessor:
        """Return the running state; only after `open`."""
        assert self._processor is not None, "open() comes first"
        return self._processor

    @property
    def writer(self) -> TableWriter:
        """Return what buffers the open span; only after `open`."""
        assert self._writer is not None, "open() comes first"
        return self._writer

    @property
    def position(self) -> int:
        """Return the next offset to fold."""
        return self._position

    @property
    def head(self) -> LogRecord:
        """Return the newest record of our log."""
        return self._log.head

    @property
    def openings(self) -> int:
        """Return how many owners in a row, us among them, have done nothing but open it."""
        return self._log.openings

    @property
    def recovery(self) -> Recovery:
        """Return what a restart would have to read: the newest snapshot, and what follows it."""
        ref = self.head.snapshot
        return Recovery(0 if ref is None else ref.size, self._snapshot_rows)

    # --- becoming the owner -------------------------------------------------------

    def open(
        self, definition: Definition, genesis: Callable[[], Genesis]
    ) -> Committed | None:
        """Take the partition over and rebuild its state; return a `config` commit if one was due.

        Raises:
            Fenced: another owner keeps winning.
            LogCorrupt, StoreFault: the log cannot be trusted; the partition must stop.
        """
        head = self._log.open(definition, genesis).record
        self._position = head.next
        self._fingerprint = head.fingerprint
        self._inputs = head.inputs
        same = head.definition == definition.sha256()
        self._restore(
            head, definition if same else self._log.definition(head.definition)
        )
        self._open = OpenSpan(start=head.next)
        return None if same else self._reconfigure(definition)

    def _restore(self, head: LogRecord, definition: Definition) -> None:
        zones = self._zones(definition)
        self._begin(definition)
        now_us = self._clock.monotonic_us()
        if head.snapshot is None:
            self._processor = PartitionProcessor(self.origin, definition, zones)
        else:
            tables = self._log.read_snapshot(head.snapshot)
            self._processor = PartitionProcessor.restore(
                self.origin, definition, zones, tables, now_us
            )
        self._snapshot_us, self._snapshot_rows = now_us, 0
        for record in self._log.records_since_snapshot():
            self._refold(record, now_us)

    def _refold(self, record: LogRecord, now_us: int) -> None:
        """Do again, without emitting, what `record` did to the state; order as in `commit`."""
        files = [entry for entry in record.files if entry.dataset == "readings"]
        if files:
            rows = self._log.reading(lambda: self._read_readings(files))
            self.processor.refold(rows)
            self._snapshot_rows += record.counts.readings
        for timer in record.timers:
            self.processor.take(timer, now_us)
        self.processor.cut(record.n)

    def _reconfigure(self, definition: Definition) -> Committed:
        self._processor, emission = self.processor.reconfigure(
            definition, self._zones(definition), self._position
        )
        self._keep(emission)
        committed = self.commit(FlushReason.CONFIG, definition=definition.sha256())
        self._begin(definition)
        return committed

    def _begin(self, definition: Definition) -> None:
        """Begin to buffer under a definition."""
        self._definition = definition
        self._writer = self._make_writer(definition)

    def still_ours(self) -> bool:
        """Tell whether nobody has written to the log since our last record ("keep hot")."""
        return self._log.still_ours()

    def unsent(self) -> tuple[LogRecord, ...]:
        """Return the records whose alerts may not have left, in order."""
        return self._log.unsent()

    def note_sent(self, n: int) -> None:
        """Note that every alert up to record `n` has left."""
        self._log.note_sent(n)

    # --- folding ------------------------------------------------------------------

    def step(self, records: Records, decoded: Decoded) -> Emission:
        """Fold one batch that starts at or after `position`; nothing durable happens."""
        assert records.span.start == self._position, (records.span, self._position)
        self._failpoint("decode.after")
        emission = self.processor.step(records, decoded, self._clock.monotonic_us())
        if self._open.opened_us is None:
            self._open.opened_us = self._clock.monotonic_us()
        if len(records):
            self._fingerprint = fingerprint_of(records, len(records) - 1)
        self._position = records.span.end
        self._count(records, emission)
        self._keep(emission)
        return emission

    def decide(self, timers: Sequence[TimerDecision]) -> Emission | None:
        """Apply timer decisions at `position`; the caller commits before the next step."""
        last = None
        for timer in timers:
            assert timer.offset == self._position, (timer, self._position)
            last = self.processor.take(timer, self._clock.monotonic_us())
            self._open.timers.append(timer)
            self._keep(last)
        return last

    def proposals(self, idle_us: int) -> tuple[TimerDecision, ...]:
        """Return the timer decisions that silence up to now would justify."""
        return self.processor.due(self._clock.monotonic_us(), idle_us, self._position)

    def finals(self) -> tuple[TimerDecision, ...]:
        """Return the decisions that close every open window."""
        return self.processor.finals(self._position)

    def adopt(self, plan: InputPlan) -> None:
        """Note what the offsets from `plan.base` on mean; logged with the next commit."""
        if plan not in self._inputs:
            self._inputs = (*self._inputs, plan)

    def _keep(self, emission: Emission) -> None:
        self.writer.append(emission)
        self._open.alerts += len(emission.alerts)
        self._open.outbox.extend(emission.alerts)

    def _count(self, records: Records, emission: Emission) -> None:
        counts, was = emission.counts, self._open.counts
        quarantined = sum(counts.quarantined.values())
        ignored = sum(counts.ignored.values())
        self._open.counts = RecordCounts(
            records=was.records + len(records),
            decoded=was.decoded + len(records) - quarantined - ignored,
            readings=was.readings + sum(counts.readings.values()),
            late=was.late + sum(counts.late.values()),
            quarantined=was.quarantined + quarantined,
            skipped=was.skipped,
            aggregates=was.aggregates,
            ignored=was.ignored + ignored,
        )

    # --- committing ---------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Tell whether a commit would have anything to say."""
        return self._position > self._open.start or bool(self._open.timers)

    @property
    def held_bytes(self) -> int:
        """Return the size of what waits for a commit."""
        return self.writer.buffered()[1]

    @property
    def worth_committing(self) -> bool:
        """Tell whether a new owner gets further with a commit than by doing it again.

        Always with the first of an owner: where partitions move all the time, each brings it on.
        """
        rows, since = self._open.counts.readings, self._rows_since_snapshot
        return self.dirty and (
            self.openings > 0
            or self._options.flush.worth(rows=rows)
            or self._worth_snapshot(since)
        )

    def due(self) -> FlushReason | None:
        """Return why the open span should be committed now, None while it should not."""
        if not self.dirty or self._open.opened_us is None:
            return None
        rows, size_bytes = self.writer.buffered()
        age_us = self._clock.monotonic_us() - self._open.opened_us
        return self._options.flush.due(rows=rows, size_bytes=size_bytes, age_us=age_us)

    def commit(
        self,
        reason: FlushReason,
        *,
        definition: str | None = None,
    ) -> Committed:
        """Make the open span durable and visible (S6-S9, S11): `freeze`, then `write`.

        Raises:
            Fenced: somebody else owns the log; this worker must be dropped.
            StoreFault, LogCorrupt: the partition must stop.
        """
        return self.write(self.freeze(reason, definition=definition))

    def freeze(self, reason: FlushReason, *, definition: str | None = None) -> Frozen:
        """End the open span and begin the next; the last one frozen has been written."""
        assert self._definition is not None, "open() comes first"
        head = self._log.head
        self.writer.append_aggregates(self.processor.cut(head.n + 1))
        frozen = Frozen(
            span=OffsetSpan(self._open.start, self._position),
            reason=reason,
            writer=self.writer,
            content=self._open,
            snapshot=self._snapshot_if_due(reason),
            watermarks=dict(self.processor.watermarks),
            fingerprint=self._fingerprint,
            inputs=self._inputs,
            definition=definition or head.definition,
        )
        self._open = OpenSpan(start=self._position)
        self._begin(self._definition)
        return frozen

    def write(self, frozen: Frozen) -> Committed:
        """Make a frozen span durable and visible. Raises as `commit` does.

        After `Unreachable` it may be called again with the same span, as often as it takes:
        what is staged or committed by then is not done twice, and a record whose creation
        is not known is asked for again under the same attempt.
        """
        began_us = self._clock.monotonic_us()
        log, done = self._log, frozen.progress
        if done.record is None:
            done.draft = done.draft or self._stage(frozen)
            done.record = log.commit(done.draft)
        log.publish()
        log.clean()
        seconds = (self._clock.monotonic_us() - began_us) / 1e6
        files, alerts = len(done.files or ()), frozen.content.alerts
        return Committed(done.record, frozen.reason, files, alerts, seconds)

    def _stage(self, frozen: Frozen) -> Draft:
        """Make files and snapshot durable (S6). Files that are not all there leave again."""
        log, span, done = self._log, frozen.span, frozen.progress
        if done.files is None:
            staging = log.staging()
            try:
                done.files = tuple(
                    frozen.writer.write(self._store, staging, log.stem(span), span)
                )
            except Unreachable:
                with suppress(WorldError):
                    for file in self._store.list(staging):
                        self._store.delete(file.path)
                raise
        snapshot = None
        if frozen.snapshot is not None:
            snapshot = log.stage_snapshot(frozen.snapshot())
        # An upload may fail as late as here; what is not on its way any more is there.
        self._store.settle()
        return draft_of(frozen, done.files, snapshot)

    def _snapshot_if_due(
        self, reason: FlushReason
    ) -> Callable[[], Mapping[str, Chunks]] | None:
        now_us, rows = self._clock.monotonic_us(), self._rows_since_snapshot
        due = reason in (
            FlushReason.CONFIG,
            FlushReason.DRAIN,
        ) or self._options.snapshot.due(rows=rows, age_us=now_us - self._snapshot_us)
        if reason is FlushReason.REVOKE:
            due = due or self._worth_snapshot(rows)
        if not due:
            self._snapshot_rows = rows
            return None
        self._snapshot_us, self._snapshot_rows = now_us, 0
        return self.processor.snapshot_chunks

    @property
    def _rows_since_snapshot(self) -> int:
        return self._snapshot_rows + self._open.counts.readings

    def _worth_snapshot(self, rows: int) -> bool:
        size = self.processor.state_bytes
        return self._options.snapshot.worth(rows=rows, state_bytes=size)
