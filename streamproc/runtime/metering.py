"""The observer that turns what happens into metrics, health and log lines.

Once per batch, commit or change; never per record. The log says what an operator would
want to have been told, metrics what one wants to plot.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from streamproc.core.values import AlertTransition, Emission, Records, TopicPartition
from streamproc.obs.health import Progress
from streamproc.obs.metrics import Metrics
from streamproc.runtime.observer import Observer
from streamproc.runtime.worker import Committed, PartitionWorker


class Log(Protocol):
    """What we need of a structured logger."""

    def info(self, event: str, **facts: object) -> object:
        """Log something that happened as it should."""
        ...

    def warning(self, event: str, **facts: object) -> object:
        """Log something that an operator may have to look at."""
        ...


class Metering(Observer):
    """Feeds `Metrics`, `Progress` and a log."""

    def __init__(
        self,
        metrics: Metrics,
        progress: Progress,
        log: Log,
        monotonic_us: Callable[[], int],
    ) -> None:
        self._metrics = metrics
        self._progress = progress
        self._log = log
        self._now_us = monotonic_us
        self._held: dict[TopicPartition, int] = {}
        self._unstored: set[TopicPartition] = set()

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Log what the group gave us: a standby without a partition is in it, too."""
        self._progress.joined({origin.source for origin in partitions})
        self._log.info("assigned", partitions=len(partitions))

    def opened(self, worker: PartitionWorker, seconds: float) -> None:
        """Log where a partition goes on."""
        source = worker.origin.source
        self._metrics.opened(worker.origin, seconds)
        self._progress.opened(source, worker.position, self._now_us())
        self._state(worker)
        self._log.info(
            "partition opened",
            source=source,
            offset=worker.position,
            record=worker.head.n,
            seconds=round(seconds, 3),
        )

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Count a batch."""
        size = records.values.nbytes
        origin = records.origin
        self._metrics.fetched(size)
        self._metrics.record(origin, len(records), emission.counts, seconds)
        self._held[origin] = self._held.get(origin, 0) + size
        self._metrics.in_flight(sum(self._held.values()))
        self._progress.at(origin.source, records.span.end, self._now_us())

    def committed(self, worker: PartitionWorker, committed: Committed) -> None:
        """Log a commit; it is the unit in which things become true."""
        record = committed.record
        self._held.pop(worker.origin, None)
        self._metrics.in_flight(sum(self._held.values()))
        sizes: dict[str, tuple[int, int]] = {}
        for entry in record.files:
            count, size = sizes.get(entry.dataset, (0, 0))
            sizes[entry.dataset] = (count + 1, size + entry.size)
        self._metrics.committed(
            committed.reason.value, committed.seconds, sizes, record.outbox
        )
        self._progress.committed(worker.origin.source, self._now_us())
        self._state(worker)
        self._log.info(
            "committed",
            source=worker.origin.source,
            record=record.n,
            kind=record.kind,
            reason=committed.reason.value,
            next=record.next,
            readings=record.counts.readings,
            quarantined=record.counts.quarantined,
            late=record.counts.late,
            files=len(record.files),
            alerts=len(record.outbox),
            seconds=round(committed.seconds, 3),
        )

    def lag(self, worker: PartitionWorker, end: int) -> None:
        """Note how far behind a partition is; that the question was answered is health."""
        self._metrics.lag(worker.origin, max(0, end - worker.position))
        self._progress.beat(self._now_us())
        self._progress.reachable()
        self._progress.ends(worker.origin.source, end, self._now_us())

    def alerts_sent(self, alerts: Sequence[AlertTransition]) -> None:
        """Count what has reached a receiver."""
        self._metrics.alerts_sent(tuple(alerts))

    def released(self, origin: TopicPartition) -> None:
        """Forget a partition."""
        self._held.pop(origin, None)
        self._metrics.released(origin)
        self._progress.released(origin.source)
        self._log.info("partition released", source=origin.source)

    def store(self, origin: TopicPartition, problem: str) -> None:
        """Log once that a partition waits for the store, and once that it goes on."""
        self._progress.store(origin.source, problem, self._now_us())
        if problem:
            self._unstored.add(origin)
            self._metrics.error("writing", "store")
            self._log.warning(
                "the store does not take a commit: intake is paused, nothing is lost",
                source=origin.source,
                message=problem,
            )
        elif origin in self._unstored:
            self._unstored.discard(origin)
            self._log.info("does not wait for the store any more", source=origin.source)
        self._metrics.unstored(len(self._unstored))

    def holding(self, fetched: int, buffered: int, writing: int) -> None:
        """Pass on."""
        self._metrics.holding(fetched, buffered, writing)

    def failed(self, stage: str, kind: str, message: str) -> None:
        """Count and log an error."""
        self._metrics.error(stage, kind)
        if kind == "fenced":
            self._metrics.fenced()
        if kind == "unreachable":
            self._progress.beat(self._now_us())
            self._progress.reachable(message)
        self._log.warning("failed", stage=stage, kind=kind, message=message)

    def _state(self, worker: PartitionWorker) -> None:
        processor = worker.processor
        self._metrics.watermarks(worker.origin, processor.watermarks)
        self._metrics.state(
            worker.origin,
            processor.series_count,
            sum(processor.open_windows.values()),
            processor.state_bytes,
        )
        recovery = worker.recovery
        self._metrics.recovery(worker.origin, recovery.snapshot_bytes, recovery.seconds)
