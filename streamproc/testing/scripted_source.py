"""A source whose records, rebalances and faults a test writes down."""

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from streamproc.core.payloads import Payloads
from streamproc.core.ports import AssignmentListener, Bounds
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.errors import SourceMismatch, Unreachable, WorldError


class ScriptedRecord(NamedTuple):
    """One record in memory."""

    offset: int
    key: bytes | None
    value: bytes | None
    broker_us: int
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class _Partition:
    begin: int = 0
    end: int = 0
    records: list[ScriptedRecord] = field(default_factory=list)

    def from_offset(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=lambda record: record.offset)


@dataclass(slots=True)
class _Gate:
    next: int | None = None
    wanted: bool = False


class ScriptedSource:
    """Implements `core.ports.Source` in memory, with rebalances as aiokafka makes them.

    Partitions exist from the start and are assigned by `start`, unless `assign` names
    fewer. `fetch` waits at most `wait_s` of real time, whatever its timeout.

    Attributes:
        unreachable: while True questions raise `Unreachable` and nothing is delivered.
        records_max: most records of one partition in one fetch; a test varies the cuts.
        held_bytes: what it says to hold.
        coming_bytes: what it says may still come.
        hints: what `hint` stored, per partition.
        refuse_hints: `hint` returns False.
    """

    def __init__(
        self,
        partitions: Mapping[str, int],
        *,
        assign: frozenset[TopicPartition] | None = None,
        records_max: int = 1000,
        wait_s: float = 0.001,
    ) -> None:
        self._partitions = {
            TopicPartition(topic, partition): _Partition()
            for topic, count in partitions.items()
            for partition in range(count)
        }
        self._first = frozenset(self._partitions) if assign is None else assign
        self._ids = {topic: f"{topic}-1" for topic in partitions}
        self._wait_s = wait_s
        self._listener: AssignmentListener | None = None
        self._gates: dict[TopicPartition, _Gate] = {}
        self._kept: BaseException | None = None
        self._faults: list[Exception] = []
        self._changed = asyncio.Event()
        self._stopped = False
        self.records_max = records_max
        self.unreachable = False
        self.held_bytes = 0
        self.coming_bytes = 0
        self.refuse_hints = False
        self.hints: dict[TopicPartition, tuple[int, str]] = {}

    # --- the script -----------------------------------------------------------------

    def produce(
        self,
        partition: TopicPartition,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        broker_us: Sequence[int] | int = NO_TIME,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> list[int]:
        """Append records and return their offsets."""
        log = self._partitions[partition]
        offsets = list(range(log.end, log.end + len(values)))
        for row, (offset, value) in enumerate(zip(offsets, values, strict=True)):
            key = None if keys is None else keys[row]
            time_us = broker_us if isinstance(broker_us, int) else broker_us[row]
            log.records.append(ScriptedRecord(offset, key, value, time_us, headers))
        log.end += len(values)
        self._changed.set()
        return offsets

    def skip(self, partition: TopicPartition, offsets: int) -> None:
        """Use up offsets without records, as control batches and compaction do."""
        self._partitions[partition].end += offsets
        self._changed.set()

    def delete_records(self, partition: TopicPartition, before: int) -> None:
        """Drop every record below `before`, as retention does."""
        log = self._partitions[partition]
        assert log.begin <= before <= log.end, (before, log.begin, log.end)
        del log.records[: log.from_offset(before)]
        log.begin = before

    def recreate(self, topic: str) -> None:
        """Delete the topic and create it anew: same name, no records, another id."""
        name, _, generation = self._ids[topic].rpartition("-")
        self._ids[topic] = f"{name}-{int(generation) + 1}"
        for partition in self._partitions:
            if partition.topic == topic:
                self._partitions[partition] = _Partition()

    def fail_fetch(self, error: Exception) -> None:
        """Let the next `fetch` raise `error`, once."""
        self._faults.append(error)
        self._changed.set()

    async def rebalance(self, assigned: frozenset[TopicPartition]) -> None:
        """Revoke everything, then assign `assigned`: eager, as aiokafka does it."""
        revoked = frozenset(self._gates)
        self._gates.clear()
        await self._call("revoked", revoked)
        self._gates = {partition: _Gate() for partition in assigned}
        await self._call("assigned", assigned)
        self._changed.set()

    async def _call(self, name: str, partitions: frozenset[TopicPartition]) -> None:
        assert self._listener is not None, "start comes first"
        try:
            if name == "assigned":
                await self._listener.assigned(partitions)
            elif partitions:
                await self._listener.revoked(partitions)
        except Exception as error:  # noqa: BLE001 (kept, `fetch` raises it: as KafkaSource does)
            if self._kept is None:
                self._kept = error

    # --- the port -------------------------------------------------------------------

    async def start(self, listener: AssignmentListener) -> None:
        """Assign the first partitions."""
        self._answer()
        self._listener = listener
        await self.rebalance(self._first)

    async def fetch(
        self, timeout_ms: int, among: Collection[TopicPartition] | None = None
    ) -> Sequence[Records]:
        """Return up to `records_max` records of each open partition."""
        if self._kept is not None:
            raise self._kept
        if self._stopped:
            msg = "the source is stopped"
            raise WorldError(msg)
        if self._faults:
            raise self._faults.pop(0)
        if not self.unreachable:
            found = [
                self._take(partition, gate, gate.next)
                for partition, gate in self._gates.items()
                if gate.wanted
                and (among is None or partition in among)
                and gate.next is not None
                and gate.next != self._partitions[partition].end
            ]
            if found:
                await asyncio.sleep(0)
                return found
        self._changed.clear()
        try:
            async with asyncio.timeout(min(self._wait_s, timeout_ms / 1000)):
                await self._changed.wait()
        except TimeoutError:
            pass
        return ()

    def _take(self, partition: TopicPartition, gate: _Gate, start: int) -> Records:
        log = self._partitions[partition]
        if not log.begin <= start <= log.end:
            gate.wanted = False
            msg = (
                f"{partition.source}: offset {start} is gone, "
                f"the broker has [{log.begin}, {log.end})"
            )
            raise SourceMismatch(msg, source=partition.source)
        first = log.from_offset(start)
        taken = log.records[first : first + self.records_max]
        last = first + len(taken) == len(log.records)
        gate.next = log.end if last else taken[-1].offset + 1
        return _columns(partition, taken, OffsetSpan(start, gate.next))

    async def bounds(self, partition: TopicPartition) -> Bounds:
        """Return what is kept now."""
        self._answer()
        log = self._partitions[partition]
        return Bounds(log.begin, log.end)

    async def offset_at(self, partition: TopicPartition, time_us: int) -> int | None:
        """Search linearly, as times need not ascend."""
        self._answer()
        log = self._partitions[partition]
        return next((r.offset for r in log.records if r.broker_us >= time_us), None)

    async def topic_id(self, topic: str) -> str:
        """Return `<topic>-<n>`, n counting recreations from 1."""
        self._answer()
        return self._ids[topic]

    async def partition_count(self, topic: str) -> int:
        """Count the partitions there are."""
        self._answer()
        return sum(1 for origin in self._partitions if origin.topic == topic)

    async def read_one(self, partition: TopicPartition, offset: int) -> Records:
        """Look it up."""
        self._answer()
        log = self._partitions[partition]
        row = log.from_offset(offset)
        found = [
            record for record in log.records[row : row + 1] if record.offset == offset
        ]
        return _columns(partition, found, OffsetSpan(offset, offset + 1))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Ignored for a partition that is not ours."""
        if partition in self._gates:
            self._gates[partition].next = offset
            self._changed.set()

    def pause(self, partition: TopicPartition) -> None:
        """Ignored for a partition that is not ours."""
        if partition in self._gates:
            self._gates[partition].wanted = False

    def resume(self, partition: TopicPartition) -> None:
        """Ignored for a partition that is not ours."""
        if partition in self._gates:
            self._gates[partition].wanted = True
            self._changed.set()

    async def hint(self, partition: TopicPartition, offset: int, note: str) -> bool:
        """Keep it in `hints`, unless refused, unreachable or not ours."""
        if self.refuse_hints or self.unreachable or partition not in self._gates:
            return False
        self.hints[partition] = (offset, note)
        return True

    async def stop(self) -> None:
        """Deliver no more."""
        self._stopped = True
        self._gates.clear()

    def _answer(self) -> None:
        if self.unreachable:
            msg = "the scripted source is unreachable"
            raise Unreachable(msg)


def _columns(
    partition: TopicPartition, taken: Sequence[ScriptedRecord], span: OffsetSpan
) -> Records:
    return Records(
        origin=partition,
        offsets=np.array([r.offset for r in taken], np.int64),
        broker_us=np.array([r.broker_us for r in taken], np.int64),
        values=Payloads.of([r.value for r in taken]),
        keys=Payloads.of([r.key for r in taken]),
        span=span,
        headers=[r.headers for r in taken],
    )
