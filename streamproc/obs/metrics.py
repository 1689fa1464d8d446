"""Prometheus metrics on a registry of their own: `streamproc_<noun>_<unit>[_total]`.

Methods take counts, once per batch, commit or change, never once per record. Labels are
bounded: topics, partitions, cities and windows of the configuration, reasons and kinds
of closed lists; a device is never a label. Not thread-safe: called on the event loop.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from streamproc.core.values import AlertTransition, Counts, TopicPartition

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PARTITION: Final = ("topic", "partition")
_CITY: Final = ("city",)


class Metrics:
    """Everything that is counted, and its page.

    Args:
        wall_us: gives microseconds since 1970; asked when a page is rendered, so that
            delays grow while nothing happens.
        cities: slugs; their counters exist from the start, at 0.
        version: of the program.
        job: name of the job.
    """

    def __init__(
        self,
        wall_us: Callable[[], int],
        cities: tuple[str, ...] = (),
        *,
        version: str = "",
        job: str = "",
    ) -> None:
        self._wall_us = wall_us
        self.registry = CollectorRegistry(auto_describe=True)
        self._watermarks: dict[TopicPartition, dict[str, int]] = {}
        ProcessCollector(registry=self.registry)
        Info("streamproc_build", "Version and job.", registry=self.registry).info(
            {"version": version, "job": job}
        )
        self._make_flow()
        self._make_commits()
        self._make_state()
        for city in cities:
            self._readings.labels(city)
            self._late.labels(city)
            self._windows.labels(city)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"streamproc_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"streamproc_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"streamproc_{name}", text, buckets=_SECONDS, registry=self.registry
        )

    def _make_flow(self) -> None:
        self._records = self._counter("records", "Records folded.", _PARTITION)
        self._readings = self._counter("readings", "Readings accepted.", _CITY)
        self._late = self._counter(
            "late_readings", "Readings late for at least one window.", _CITY
        )
        self._quarantined = self._counter(
            "quarantined_records", "Records refused.", ("city", "reason")
        )
        self._ignored = self._counter(
            "ignored_records",
            "Records that by their kind hold no reading.",
            ("city", "kind"),
        )
        self._windows = self._counter(
            "closed_windows", "Windows of one series closed.", _CITY
        )
        self._alerts = self._counter(
            "alerts", "Alert transitions committed.", ("city", "severity", "state")
        )
        self._sent = self._counter("sent_alerts", "Alert transitions delivered.", _CITY)
        self._fetched = self._counter("fetched_bytes", "Payload bytes fetched.")
        self._fetches = self._counter("fetches", "Fetches that brought records.")
        self._step_seconds = self._histogram(
            "step_seconds", "Time to decode and fold one batch."
        )
        self._in_flight = self._gauge(
            "in_flight_bytes", "Bytes fetched or buffered and not yet committed."
        )
        self._holding = self._gauge(
            "held_bytes",
            "Bytes of memory between broker and store, by stage: fetched (not folded, or "
            "still referred to), buffered (not committed), writing.",
            ("stage",),
        )
        self._lag = self._gauge("lag_records", "Records not yet folded.", _PARTITION)
        self._delay = self._gauge(
            "watermark_delay_seconds",
            "Wall time minus the lowest watermark of a city.",
            _CITY,
        )

    def _make_commits(self) -> None:
        self._commit_seconds = self._histogram(
            "commit_seconds", "Time of one commit, from freezing to publishing."
        )
        self._commits = self._counter("commits", "Durable commits.", ("reason",))
        self._files = self._counter("files", "Parquet files published.", ("dataset",))
        self._file_bytes = self._counter(
            "file_bytes", "Bytes of Parquet published.", ("dataset",)
        )
        self._unstored = self._gauge(
            "waiting_partitions",
            "Partitions not read because the store takes no commit.",
        )
        self._fenced = self._counter(
            "fenced", "Times another owner had taken a partition over."
        )
        self._takeovers = self._counter("takeovers", "Times we took a partition over.")
        self._restore_seconds = self._histogram(
            "restore_seconds", "Time from assignment to the first record."
        )

    def _make_state(self) -> None:
        self._errors = self._counter(
            "errors", "Errors by stage (reading, processing, writing) and kind.",
            ("stage", "kind"),
        )  # fmt: skip
        self._partitions = self._gauge("owned_partitions", "Partitions that are ours.")
        self._series = self._gauge("series", "Series in the state.", _PARTITION)
        self._open = self._gauge("open_windows", "Windows open.", _PARTITION)
        self._state = self._gauge("state_bytes", "Bytes of window state.", _PARTITION)
        self._snapshot = self._gauge(
            "snapshot_bytes", "Size of the newest snapshot.", _PARTITION
        )
        self._restore = self._gauge(
            "expected_restore_seconds",
            "Time a start would take to restore a partition now, about.",
            _PARTITION,
        )
        self._progress = self._gauge(
            "progress_timestamp_seconds", "Wall time of the last batch or commit."
        )

    # --- what happened ----------------------------------------------------------------

    def fetched(self, size: int) -> None:
        """Count one fetch that brought `size` bytes."""
        self._fetches.inc()
        self._fetched.inc(size)

    def record(
        self, origin: TopicPartition, records: int, counts: Counts, seconds: float
    ) -> None:
        """Count one folded batch of `records` records."""
        self._records.labels(origin.topic, origin.partition).inc(records)
        for counter, found in (
            (self._readings, counts.readings),
            (self._late, counts.late),
            (self._windows, counts.windows),
        ):
            for city, count in found.items():
                counter.labels(city).inc(count)
        for (city, reason), count in counts.quarantined.items():
            self._quarantined.labels(city, reason).inc(count)
        for (city, kind), count in counts.ignored.items():
            self._ignored.labels(city, kind).inc(count)
        self._step_seconds.observe(seconds)
        self._note_progress()

    def committed(
        self,
        reason: str,
        seconds: float,
        files: Mapping[str, tuple[int, int]],
        alerts: tuple[AlertTransition, ...] = (),
    ) -> None:
        """Count one durable commit.

        Args:
            reason: a `FlushReason`.
            seconds: how long it took.
            files: dataset to number and bytes of its files.
            alerts: the transitions that became final.
        """
        self._commits.labels(reason).inc()
        self._commit_seconds.observe(seconds)
        for dataset, (count, size) in files.items():
            self._files.labels(dataset).inc(count)
            self._file_bytes.labels(dataset).inc(size)
        for alert in alerts:
            self._alerts.labels(alert.city, alert.severity, alert.state).inc()
        self._note_progress()

    def alerts_sent(self, alerts: tuple[AlertTransition, ...]) -> None:
        """Count transitions that have reached a receiver."""
        for alert in alerts:
            self._sent.labels(alert.city).inc()

    def error(self, stage: str, kind: str) -> None:
        """Count one error; `stage` is reading, processing or writing."""
        self._errors.labels(stage, kind).inc()

    def fenced(self) -> None:
        """Count that a partition was lost to another owner."""
        self._fenced.inc()

    # --- how things stand -------------------------------------------------------------

    def opened(self, origin: TopicPartition, seconds: float) -> None:
        """Note that a partition is ours, restored in `seconds`."""
        self._takeovers.inc()
        self._restore_seconds.observe(seconds)
        if origin not in self._watermarks:
            self._watermarks[origin] = {}
            self._partitions.set(len(self._watermarks))
        self._note_progress()

    def released(self, origin: TopicPartition) -> None:
        """Forget the gauges of a partition that is no longer ours; safe twice."""
        if self._watermarks.pop(origin, None) is None:
            return
        self._partitions.set(len(self._watermarks))
        gauges = (self._lag, self._series, self._open, self._state)
        for gauge in (*gauges, self._snapshot, self._restore):
            gauge.remove_by_labels(
                {"topic": origin.topic, "partition": str(origin.partition)}
            )

    def lag(self, origin: TopicPartition, records: int) -> None:
        """Note how many records of a partition wait."""
        self._lag.labels(origin.topic, origin.partition).set(records)

    def in_flight(self, size: int) -> None:
        """Note how many bytes are held that no commit covers."""
        self._in_flight.set(size)

    def holding(self, fetched: int, buffered: int, writing: int) -> None:
        """Note the bytes held before, in and behind the buffers."""
        for stage, size in (
            ("fetched", fetched),
            ("buffered", buffered),
            ("writing", writing),
        ):
            self._holding.labels(stage).set(size)

    def unstored(self, partitions: int) -> None:
        """Note how many partitions wait for the store."""
        self._unstored.set(partitions)

    def watermarks(self, origin: TopicPartition, by_city: Mapping[str, int]) -> None:
        """Note the watermarks of a partition, µs since 1970."""
        self._watermarks.setdefault(origin, {}).update(by_city)

    def state(
        self, origin: TopicPartition, series: int, open_windows: int, size: int
    ) -> None:
        """Note what a partition holds; `size` in bytes."""
        labels = (origin.topic, origin.partition)
        self._series.labels(*labels).set(series)
        self._open.labels(*labels).set(open_windows)
        self._state.labels(*labels).set(size)

    def recovery(self, origin: TopicPartition, size: int, seconds: float) -> None:
        """Note what a restart would cost: the snapshot's `size` in bytes, and the time."""
        labels = (origin.topic, origin.partition)
        self._snapshot.labels(*labels).set(size)
        self._restore.labels(*labels).set(seconds)

    def _note_progress(self) -> None:
        self._progress.set(self._wall_us() / 1e6)

    # --- the page ---------------------------------------------------------------------

    def render(self) -> bytes:
        """Return the page in Prometheus' text format (`CONTENT_TYPE`)."""
        lowest: dict[str, int] = {}
        for by_city in self._watermarks.values():
            for city, watermark_us in by_city.items():
                lowest[city] = min(watermark_us, lowest.get(city, watermark_us))
        self._delay.clear()
        now_us = self._wall_us()
        for city, watermark_us in lowest.items():
            self._delay.labels(city).set((now_us - watermark_us) / 1e6)
        return generate_latest(self.registry)
