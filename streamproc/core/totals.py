"""What the records of a log add up to, one record at a time."""

from collections import Counter

from streamproc.core.record import Gap, LogRecord, RecordCounts, Totals

_COUNTS = RecordCounts.__struct_fields__


class Sums:
    """Running totals of a log's records; `totals()` of one may begin another."""

    def __init__(self, before: Totals | None = None) -> None:
        before = before or Totals()
        self.kinds: Counter[str] = Counter(before.kinds)
        self.timers: Counter[str] = Counter(before.timers)
        self.counts: Counter[str] = Counter(
            {name: getattr(before.counts, name) for name in _COUNTS}
        )
        self.rows: Counter[str] = Counter(before.rows)
        self.files = before.files
        self.file_bytes = before.file_bytes
        self.gaps = list(before.gaps)

    def add(self, record: LogRecord) -> None:
        """Count one more record."""
        self.kinds[record.kind] += 1
        self.timers.update(timer.kind for timer in record.timers)
        for name in _COUNTS:
            self.counts[name] += getattr(record.counts, name)
        for entry in record.files:
            self.files += 1
            self.file_bytes += entry.size
            self.rows[entry.dataset] += entry.rows
        if record.kind == "gap":
            self.gaps.append(gap_of(record))

    def totals(self) -> Totals:
        """Return the sums so far."""
        return Totals(
            kinds=dict(self.kinds),
            timers=dict(self.timers),
            counts=RecordCounts(**self.counts),
            rows=dict(self.rows),
            files=self.files,
            file_bytes=self.file_bytes,
            gaps=tuple(self.gaps),
        )


def gap_of(record: LogRecord) -> Gap:
    """Return what a record of kind `gap` says."""
    return Gap(
        n=record.n,
        start=record.start,
        next=record.next,
        reason=record.note,
        by=record.by,
    )
