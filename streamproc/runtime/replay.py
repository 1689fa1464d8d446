"""Backfill from files: the same workers, the same layout, no broker.

A stream of files is one partition whose offsets count the rows of the merged stream; the
plans that give those rows their meaning are kept in the log, in the first record that
holds rows of them. Envelopes keep their own topic, partition and offset, so every
(topic, partition) is opened on its own. Replays send nothing outside: an alarm about last
March helps nobody at night. Its transitions are in `alerts/` like all others.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from streamproc.core.chain import Genesis
from streamproc.core.definition import Definition
from streamproc.core.flush import BufferPolicy, FlushReason
from streamproc.core.ports import Clock, Decoder
from streamproc.core.record import InputPlan
from streamproc.core.values import Decoded, Records, TopicPartition
from streamproc.runtime.observer import Observer
from streamproc.runtime.pace import Pace
from streamproc.runtime.schemas import Schemas
from streamproc.runtime.worker import PartitionWorker

FILE_TOPIC_ID = "file"


@dataclass(frozen=True, slots=True)
class ReplayParts:
    """What the composition root hands in; `topic_id` and `begin` are of the logs written."""

    make_worker: Callable[[TopicPartition, str], PartitionWorker]
    decoder_for: Callable[[str], Decoder]
    schemas: Schemas
    definition: Definition
    clock: Clock
    observer: Observer
    max_rate: float | None = None
    buffer: BufferPolicy = field(default_factory=BufferPolicy)
    topic_id: str = FILE_TOPIC_ID
    begin: Callable[[TopicPartition], Genesis] = lambda _: Genesis(0, "files")


class Replay:
    """Feeds batches of files to workers, one worker per (topic, partition)."""

    def __init__(self, parts: ReplayParts) -> None:
        self._parts = parts
        self._workers: dict[TopicPartition, PartitionWorker] = {}
        self._pace = Pace(parts.max_rate)
        self._stopping = False

    def stop(self) -> None:
        """Ask for an end after the batch at hand; the next run goes on from there."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Tell whether an end was asked for."""
        return self._stopping

    def open(self, origin: TopicPartition) -> PartitionWorker:
        """Return the worker of a partition, taken over and restored on the first call."""
        worker = self._workers.get(origin)
        if worker is None:
            began_us = self._parts.clock.monotonic_us()
            worker = self._parts.make_worker(origin, self._parts.topic_id)
            begin = self._parts.begin
            committed = worker.open(self._parts.definition, lambda: begin(origin))
            self._workers[origin] = worker
            if committed is not None:
                self._parts.observer.committed(worker, committed)
            seconds = (self._parts.clock.monotonic_us() - began_us) / 1e6
            self._parts.observer.opened(worker, seconds)
        return worker

    async def feed(
        self,
        batches: Iterable[tuple[Records, Decoded | None]],
        plan: InputPlan | None = None,
    ) -> None:
        """Fold every batch; `plan` is what their offsets mean, for a stream of files."""
        for records, decoded in batches:
            worker = self.open(records.origin)
            if plan is not None:
                worker.adopt(plan)
            await self._take(worker, records, decoded)
            if self._stopping:
                return

    async def finish(self, *, close: bool) -> None:
        """Commit what is held and, where asked to, close every open window."""
        for worker in self._workers.values():
            if close and not self._stopping:
                worker.decide(worker.finals())
            if worker.dirty:
                self._commit(worker, FlushReason.DRAIN)

    async def _take(
        self, worker: PartitionWorker, records: Records, decoded: Decoded | None
    ) -> None:
        if decoded is None:
            # An envelope file begins anew at every run; the log knows how far we are.
            if len(records.span) and records.span.end <= worker.position:
                return
            if records.span.start < worker.position:
                records = records.between(worker.position, records.span.end)
        # Batches that come decoded are not cut: their rejects are by row of the whole.
        slices = [records] if decoded is not None else self._pace.slices(records)
        for part in slices:
            pause_s = self._pace.wait_s(self._parts.clock.monotonic_us(), len(part))
            await self._parts.clock.sleep(pause_s)
            began_us = self._parts.clock.monotonic_us()
            if decoded is None:
                decoder = self._parts.decoder_for(records.origin.topic)
                if not await self._parts.schemas.teach(decoder, part):
                    return
                emission = worker.step(part, decoder.decode(part))
            else:
                emission = worker.step(part, decoded)
            seconds = (self._parts.clock.monotonic_us() - began_us) / 1e6
            self._parts.observer.stepped(part, emission, seconds)
            self._commit_what_is_due(worker)

    def _commit_what_is_due(self, worker: PartitionWorker) -> None:
        reason = worker.due()
        if reason is not None:
            self._commit(worker, reason)
        held = {origin: one.held_bytes for origin, one in self._workers.items()}
        fullest = self._parts.buffer.fullest(held)
        if fullest is not None:
            self._commit(self._workers[fullest], FlushReason.BUFFER)

    def _commit(self, worker: PartitionWorker, reason: FlushReason) -> None:
        self._parts.observer.committed(worker, worker.commit(reason))
        worker.note_sent(worker.head.n)
