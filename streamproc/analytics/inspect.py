"""What is in a root: logs, positions, files and leftovers, as plain values."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (row counts from footers)

from streamproc.analytics.logs import LogFolder, find_logs
from streamproc.analytics.roots import Root, RootPath, content, in_order, root_path
from streamproc.core.record import LogRecord
from streamproc.errors import LogCorrupt


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """The newest snapshot: the record it was taken with, and its size."""

    n: int
    next: int
    size: int


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
        unpublished: files that are committed and not at their final names.
        staging_files, staging_bytes: what lies in staging, committed or not.
        unsent: records whose alerts may not have left yet.
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
    unpublished: int
    staging_files: int
    staging_bytes: int
    unsent: int
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
    """A root at a glance."""

    root: str
    partitions: tuple[PartitionSummary, ...]
    datasets: tuple[DatasetSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def inspect(root: Root) -> RootSummary:
    """Summarise a root without judging it; `verify` judges. Never writes."""
    at = root_path(root)
    return RootSummary(
        root=str(root),
        partitions=tuple(_partition(log) for log in find_logs(at)),
        datasets=tuple(_datasets(at)),
    )


# --- logs -----------------------------------------------------------------------------


class _Sums:
    """What is added up over the records of one log."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.timers: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.files = 0
        self.file_bytes = 0
        self.unpublished = 0
        self.unsent = 0

    def add(self, record: LogRecord, log: LogFolder, published: int, sent: int) -> None:
        self.kinds[record.kind] += 1
        self.timers.update(timer.kind for timer in record.timers)
        counts = record.counts
        self.rows.update(
            records=counts.records,
            ignored=counts.ignored,
            skipped=counts.skipped,
            late_readings=counts.late,
        )
        for entry in record.files:
            self.files += 1
            self.file_bytes += entry.size
            self.rows[entry.dataset] += entry.rows
            if record.n > published and not (log.root / entry.path).is_file():
                self.unpublished += 1
        self.unsent += bool(record.outbox) and record.n > sent


def _partition(log: LogFolder) -> PartitionSummary:
    published, sent = log.hint("published"), log.hint("sent")
    sums, first, head, fault = _Sums(), None, None, None
    try:
        for record in log.records():
            sums.add(record, log, published, sent)
            first, head = first or record, record
    except LogCorrupt as error:
        fault = str(error)
    staged = [p for p in log.at("staging").rglob("*") if p.is_file()]
    ref = None if head is None else head.snapshot
    return PartitionSummary(
        job=log.folder.split("/")[1],
        topic="" if head is None else head.topic,
        topic_id="" if head is None else head.topic_id,
        partition=int(log.folder.rpartition("/")[2]),
        folder=log.folder,
        head=-1 if head is None else head.n,
        kind="" if head is None else head.kind,
        owner="" if head is None else head.owner,
        start=0 if first is None else first.start,
        next=0 if head is None else head.next,
        watermarks={} if head is None else dict(head.watermarks),
        kinds=dict(sums.kinds),
        timers=dict(sums.timers),
        rows=dict(sums.rows),
        files=sums.files,
        file_bytes=sums.file_bytes,
        snapshot=None if ref is None else SnapshotSummary(ref.n, ref.next, ref.size),
        unpublished=sums.unpublished,
        staging_files=len(staged),
        staging_bytes=sum(p.stat().st_size for p in staged),
        unsent=sums.unsent,
        fault=fault,
    )


# --- files ----------------------------------------------------------------------------


def _datasets(root: RootPath) -> Iterator[DatasetSummary]:
    for folder in in_order(root.iterdir()) if root.is_dir() else ():
        if folder.name[0] in "._" or not folder.is_dir():
            continue
        for city in in_order(folder.glob("city=*")):
            yield _dataset(folder.name, "", city)
        for window in in_order(folder.glob("window=*")):
            for city in in_order(window.glob("city=*")):
                yield _dataset(folder.name, window.name.removeprefix("window="), city)


def _dataset(dataset: str, window: str, city: RootPath) -> DatasetSummary:
    files = in_order(city.glob("date=*/*.parquet"))
    dates = [file.parent.name.removeprefix("date=") for file in files]
    return DatasetSummary(
        dataset=dataset,
        window=window,
        city=city.name.removeprefix("city="),
        files=len(files),
        rows=sum(_rows(file) for file in files),
        file_bytes=sum(file.stat().st_size for file in files),
        first_date=min(dates, default=""),
        last_date=max(dates, default=""),
    )


def _rows(file: RootPath) -> int:
    """Return a file's rows; 0 where it cannot be read, which is for `verify` to tell."""
    try:
        return int(pq.read_metadata(content(file)).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0
