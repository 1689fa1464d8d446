"""Who is told what the runtime did: metrics, logs, a live view. Called on the event loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamproc.core.values import AlertTransition, Emission, Records, TopicPartition
from streamproc.runtime.worker import Committed, PartitionWorker


class Observer:
    """Told once per batch or per change, never per record. Must be quick and not raise.

    Every method does nothing here; an observer overrides what it cares for.
    """

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note that the group has given us just these partitions, perhaps none."""

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        """Take note that a partition is ours and restored."""

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Take note of one folded batch."""

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        """Take note of one durable commit."""

    def lag(self, worker: PartitionWorker, end: int) -> None:
        """Take note of the partition's end offset, freshly asked for."""

    def alerts_sent(self, alerts: Sequence[AlertTransition]) -> None:
        """Take note of alerts that have left."""

    def released(self, origin: TopicPartition) -> None:
        """Take note that a partition is no longer ours."""

    def store(self, origin: TopicPartition, problem: str) -> None:
        """Take note that a partition waits for the store, or, if empty, goes on again."""

    def holding(self, fetched: int, buffered: int, writing: int) -> None:
        """Take note of the bytes that are held now: before, in, and behind the buffers."""

    def failed(self, stage: str, kind: str, message: str) -> None:
        """Take note of an error; `stage` is reading, processing or writing."""


class Observers(Observer):
    """Tells several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._all = observers

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Pass on."""
        for observer in self._all:
            observer.assigned(partitions)

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        """Pass on."""
        for observer in self._all:
            observer.opened(worker, seconds)

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Pass on."""
        for observer in self._all:
            observer.stepped(records, emission, seconds)

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        """Pass on."""
        for observer in self._all:
            observer.committed(worker, committed)

    def lag(self, worker: PartitionWorker, end: int) -> None:
        """Pass on."""
        for observer in self._all:
            observer.lag(worker, end)

    def alerts_sent(self, alerts: Sequence[AlertTransition]) -> None:
        """Pass on."""
        for observer in self._all:
            observer.alerts_sent(alerts)

    def released(self, origin: TopicPartition) -> None:
        """Pass on."""
        for observer in self._all:
            observer.released(origin)

    def store(self, origin: TopicPartition, problem: str) -> None:
        """Pass on."""
        for observer in self._all:
            observer.store(origin, problem)

    def holding(self, fetched: int, buffered: int, writing: int) -> None:
        """Pass on."""
        for observer in self._all:
            observer.holding(fetched, buffered, writing)

    def failed(self, stage: str, kind: str, message: str) -> None:
        """Pass on."""
        for observer in self._all:
            observer.failed(stage, kind, message)


@dataclass(slots=True)
class Totals(Observer):
    """The summary's numbers: what was read, and what commits made final."""

    records: int = 0
    readings: int = 0
    late: int = 0
    quarantined: int = 0
    ignored: int = 0
    windows: int = 0
    alerts: int = 0
    files: int = 0
    commits: int = 0
    busy_s: float = 0.0
    positions: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Add a batch."""
        counts = emission.counts
        self.records += len(records)
        self.readings += sum(counts.readings.values())
        self.late += sum(counts.late.values())
        self.quarantined += sum(counts.quarantined.values())
        self.ignored += sum(counts.ignored.values())
        self.busy_s += seconds

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        """Add a commit: only here are windows, alerts and files final."""
        self.commits += 1
        self.files += committed.files
        self.alerts += committed.alerts
        self.windows += committed.record.counts.aggregates
        self.positions[worker.origin.source] = committed.record.next

    def failed(self, stage: str, kind: str, message: str) -> None:
        """Keep the message for the end."""
        self.errors.append(f"{stage}: {kind}: {message}")
