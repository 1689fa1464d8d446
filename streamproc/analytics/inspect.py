"""What is in a root: logs, positions, files and leftovers, as plain values."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from streamproc.analytics.files import DateFiles, date_files
from streamproc.analytics.live import visible_files
from streamproc.analytics.logs import LogFolder, Tail, find_logs
from streamproc.analytics.replays import Conservation, conservation
from streamproc.analytics.roots import Root, RootPath, root_path
from streamproc.core.record import LogRecord, SnapshotRef, Squashed
from streamproc.core.restoring import Recovery
from streamproc.core.totals import Sums
from streamproc.errors import LogCorrupt


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """The newest snapshot: the record it was taken with, and its size in bytes."""

    n: int
    next: int
    size: int
    state_version: int


@dataclass(frozen=True, slots=True)
class GapSummary:
    """Offsets `[start, next)` that somebody has given up, in record `n`: why, and who."""

    n: int
    start: int
    next: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """One commit log.

    Attributes:
        head: number of the newest record, -1 if none can be read; `kind` its kind.
        start: first offset of the log; `next` the first one not consumed.
        watermarks: city → highest accepted event time, µs since 1970 UTC.
        kinds: records by kind.
        timers: logged timer decisions by kind.
        rows: published rows by dataset, with `late_readings`, `records`, `ignored`, `skipped`.
        refold_readings: readings published since the snapshot, which a start folds again.
        restore_seconds: what that and loading the snapshot take, about.
        unpublished: files that are committed and not at their final names.
        staging_files, staging_bytes: what lies in staging, committed or not.
        unsent: records whose alerts may not have left yet.
        squashed: records that a checkpoint has replaced.
        gaps: offsets that an operator has given up.
        fault: why reading stopped, None if the chain holds.
    """

    job: str
    topic: str
    topic_id: str
    partition: int
    folder: str
    head: int
    kind: str
    owner: str
    start: int
    next: int
    watermarks: dict[str, int]
    kinds: dict[str, int]
    timers: dict[str, int]
    rows: dict[str, int]
    files: int
    file_bytes: int
    snapshot: SnapshotSummary | None
    refold_readings: int
    restore_seconds: float
    unpublished: int
    staging_files: int
    staging_bytes: int
    unsent: int
    squashed: int
    gaps: tuple[GapSummary, ...]
    fault: str | None


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """Published files of one dataset, window (or empty) and city."""

    dataset: str
    window: str
    city: str
    files: int
    rows: int
    file_bytes: int
    first_date: str
    last_date: str


@dataclass(frozen=True, slots=True)
class RootSummary:
    """A root at a glance; `dead_letters` is None where a replay cannot be read."""

    root: str
    partitions: tuple[PartitionSummary, ...]
    datasets: tuple[DatasetSummary, ...]
    dead_letters: Conservation | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def inspect(root: Root) -> RootSummary:
    """Summarise a root without judging it; `verify` judges. Never writes."""
    at = root_path(root)
    partitions = inspect_logs(at)
    refused = sum(summary.rows.get("quarantine", 0) for summary in partitions)
    return RootSummary(
        root=str(root),
        partitions=partitions,
        datasets=tuple(_datasets(at)),
        dead_letters=_dead_letters(at, refused),
    )


def _dead_letters(root: RootPath, refused: int) -> Conservation | None:
    try:
        return conservation(root, refused)
    except LogCorrupt:
        return None


def inspect_logs(root: Root) -> tuple[PartitionSummary, ...]:
    """Summarise the logs of a root alone; no published file is looked at."""
    return tuple(_partition(log) for log in find_logs(root_path(root)))


# --- logs -----------------------------------------------------------------------------


def _partition(log: LogFolder) -> PartitionSummary:
    published, sent = log.hint("published"), log.hint("sent")
    try:
        tail = log.tail()
    except LogCorrupt as error:
        tail = Tail(None, [], str(error))
    squashed, records = tail.squashed, tail.records
    sums = Sums(None if squashed is None else squashed.totals)
    for record in records:
        sums.add(record)
    head = records[-1] if records else None
    staged = [p for p in log.at("staging").rglob("*") if p.is_file()]
    ref = None if head is None else head.snapshot
    recovery = _recovery(ref, records)
    return PartitionSummary(
        job=log.folder.split("/")[1],
        topic="" if head is None else head.topic,
        topic_id="" if head is None else head.topic_id,
        partition=int(log.folder.rpartition("/")[2]),
        folder=log.folder,
        head=-1 if head is None else head.n,
        kind="" if head is None else head.kind,
        owner="" if head is None else head.owner,
        start=_start(squashed, records),
        next=0 if head is None else head.next,
        watermarks={} if head is None else dict(head.watermarks),
        kinds=dict(sums.kinds),
        timers=dict(sums.timers),
        rows=_rows_of(sums),
        files=sums.files,
        file_bytes=sums.file_bytes,
        snapshot=None if ref is None else _snapshot(ref),
        refold_readings=recovery.readings,
        restore_seconds=recovery.seconds,
        unpublished=sum(
            not (log.root / entry.path).is_file()
            for record in records
            if record.n > published
            for entry in record.files
        ),
        staging_files=len(staged),
        staging_bytes=sum(p.stat().st_size for p in staged),
        unsent=sum(bool(r.outbox) and r.n > sent for r in records),
        squashed=0 if squashed is None else squashed.through + 1,
        gaps=tuple(GapSummary(g.n, g.start, g.next, g.reason, g.by) for g in sums.gaps),
        fault=tail.fault,
    )


def _snapshot(ref: SnapshotRef) -> SnapshotSummary:
    return SnapshotSummary(ref.n, ref.next, ref.size, ref.state_version)


def _recovery(ref: SnapshotRef | None, records: Sequence[LogRecord]) -> Recovery:
    """Return what a start reads; no checkpoint replaces what follows the snapshot."""
    first = -1 if ref is None else ref.n
    readings = sum(r.counts.readings for r in records if r.n > first)
    return Recovery(0 if ref is None else ref.size, readings)


def _start(squashed: Squashed | None, records: Sequence[LogRecord]) -> int:
    if squashed is not None:
        return squashed.start
    return records[0].start if records else 0


def _rows_of(sums: Sums) -> dict[str, int]:
    counts = sums.counts
    return {
        "records": counts["records"],
        "ignored": counts["ignored"],
        "skipped": counts["skipped"],
        "late_readings": counts["late"],
        **sums.rows,
    }


# --- files ----------------------------------------------------------------------------


def _datasets(root: RootPath) -> Iterator[DatasetSummary]:
    def key(found: DateFiles) -> tuple[str, str, str]:
        return found.dataset, found.window, found.city

    try:
        found = list(date_files(root))
    except LogCorrupt:  # Shown as the partition's fault, or found by `verify`.
        found = list(date_files(root, visible_files))
    for (dataset, window, city), group in groupby(found, key=key):
        dates = list(group)
        yield DatasetSummary(
            dataset=dataset,
            window=window,
            city=city,
            files=sum(found.files for found in dates),
            rows=sum(found.rows for found in dates),
            file_bytes=sum(found.file_bytes for found in dates),
            first_date=dates[0].date,
            last_date=dates[-1].date,
        )
