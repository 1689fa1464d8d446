"""Is a root what its logs say? The oracle's O4, O5 and O7 on a folder at rest.

Checks, in this order: each log's chain, offsets and counts; every file a record names (there,
size, sha256, footer, schema, path); its rows (offsets inside the record's span and unique,
source, city, local date); the newest snapshot; what compaction and retention made of the files
(`verify_compaction`); and that no visible file is named by no log.

Run it while nobody writes: a commit between two looks would be reported.
"""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from streamproc.analytics.logs import LogFolder, find_logs
from streamproc.analytics.replays import replay_faults
from streamproc.analytics.roots import Root, RootPath, root_path
from streamproc.analytics.verify_compaction import Swaps
from streamproc.analytics.verify_files import (
    FileRows,
    Placement,
    check_rows,
    doubled,
    read_rows,
)
from streamproc.core.definition import Definition
from streamproc.core.record import FileEntry, LogRecord, Squashed, log_folder
from streamproc.core.totals import Sums
from streamproc.errors import LogCorrupt

DERIVED: Final = frozenset({"properties.parquet", "stations.parquet"})
_EXAMPLES: Final = 3
_COUNTED: Final = {
    "readings": "readings",
    "quarantine": "quarantined",
    "aggregates": "aggregates",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found.

    Attributes:
        findings: one sentence each, empty if all is well.
        rows: rows of the verified files by dataset.
        offsets: offsets consumed over all logs; `gap_offsets` of them were given up.
        compacted: files that replace others; `deleted` rows that retention deleted, by dataset.
    """

    findings: tuple[str, ...]
    logs: int
    records: int
    files: int
    rows: dict[str, int]
    offsets: int
    gap_offsets: int
    compacted: int = 0
    deleted: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tell that nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def verify(root: Root) -> Report:
    """Check a root whose service is at rest. Never writes; reads every file twice.

    A root without logs is a finding: nothing speaks for the files in it.
    """
    at = root_path(root)
    return _Verifier(at, Swaps.read(at)).run()


@dataclass(slots=True)
class _Verifier:
    root: RootPath
    swaps: Swaps
    findings: list[str] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    folded: Counter[tuple[str, str]] = field(default_factory=Counter)
    records: int = 0
    offsets: int = 0
    gap_offsets: int = 0
    spans: dict[tuple[str, str], list[tuple[int, int, str]]] = field(
        default_factory=dict
    )

    def run(self) -> Report:
        logs = find_logs(self.root)
        if not logs:
            self.findings.append(f"{self.root}: no commit log")
        for log in logs:
            self._check_log(log)
        self.findings.extend(self.swaps.check(self.named))
        self.findings.extend(replay_faults(self.root, self.folded))
        self.findings.extend(self._doubly_read())
        self.findings.extend(self._unnamed())
        return Report(
            findings=tuple(self.findings),
            logs=len(logs),
            records=self.records,
            files=len(self.named),
            rows=dict(self.rows),
            offsets=self.offsets,
            gap_offsets=self.gap_offsets,
            compacted=len(self.swaps.live),
            deleted=self.swaps.deleted,
        )

    # --- one log ----------------------------------------------------------------------

    def _check_log(self, log: LogFolder) -> None:
        """Check records in order until the chain breaks; nothing after it can be trusted."""
        head: LogRecord | None = None
        definitions: dict[str, Definition] = {}
        sums = Sums()
        try:
            squashed = log.tail().squashed
            for record in log.records():
                if head is None:
                    self._check_home(log, record)
                for sha256 in {record.definition} - definitions.keys():
                    definitions[sha256] = log.definition(sha256)
                # A record's rows were made under the definition in force before it.
                before = record if head is None else head
                self._check_record(log, record, definitions[before.definition])
                head = record
                sums.add(record)
                if squashed is not None and record.n == squashed.through:
                    self._check_squashed(log, squashed, sums, record)
        except LogCorrupt as error:
            self.findings.append(str(error))
        if head is not None:
            self._check_snapshot(head)
            self._note_span(head)

    def _check_squashed(
        self, log: LogFolder, squashed: Squashed, sums: Sums, last: LogRecord
    ) -> None:
        """Compare what the newest checkpoint says with the records it has replaced."""
        if (squashed.totals, squashed.next) != (sums.totals(), last.next):
            self.findings.append(
                f"{log.folder}: its checkpoint does not add up to records 0 to {last.n}"
            )

    def _check_home(self, log: LogFolder, record: LogRecord) -> None:
        home = log_folder(record.job, record.topic, record.topic_id, record.partition)
        if home != log.folder:
            self.findings.append(f"{log.folder}: holds the log of {home}")
        key = (record.topic_id, f"{record.topic}/{record.partition}")
        self.spans.setdefault(key, []).append((record.start, record.next, log.folder))

    def _note_span(self, head: LogRecord) -> None:
        spans = self.spans[head.topic_id, f"{head.topic}/{head.partition}"]
        start, _, folder = spans[-1]
        spans[-1] = (start, head.next, folder)
        self.offsets += head.next - start

    def _check_record(
        self, log: LogFolder, record: LogRecord, definition: Definition
    ) -> None:
        self.records += 1
        if record.kind == "gap":
            self.gap_offsets += record.next - record.start
        counts = record.counts
        self.folded[record.job, record.topic_id] += counts.decoded + counts.ignored
        where = f"{log.folder} record {record.n}"
        self.findings.extend(f"{where}: {what}" for what in _count_faults(record))
        placement = Placement.of(record, definition)
        rows: Counter[str] = Counter()
        readings = []
        for entry in record.files:
            if entry.path in self.named:
                self.findings.append(f"{where}: {entry.path} is named twice")
            self.named[entry.path] = entry.rows
            found, faults = self._check_file(entry, placement)
            self.findings.extend(f"{entry.path}: {fault}" for fault in faults)
            rows[entry.dataset] += entry.rows
            if found is not None and entry.dataset == "readings":
                readings.append(found)
        self.rows.update(rows)
        for dataset, name in _COUNTED.items():
            counted = getattr(record.counts, name)
            if rows[dataset] != counted:
                self.findings.append(
                    f"{where}: counts {counted} {name}, its files hold {rows[dataset]}"
                )
        if len(readings) == sum(f.dataset == "readings" for f in record.files):
            self.findings.extend(f"{where}: {f}" for f in _row_faults(record, readings))

    def _check_file(
        self, entry: FileEntry, placement: Placement
    ) -> tuple[FileRows | None, list[str]]:
        path = self.root / entry.path
        if entry.path in self.swaps.replaced:
            how = self.swaps.replaced[entry.path]
            return None, [f"still there, {how}"] if path.is_file() else []
        if not path.is_file():
            staged = (self.root / entry.staged).is_file()
            what = "committed, but not yet published" if staged else "missing"
            return None, [what]
        size = path.stat().st_size
        if size != entry.size:
            return None, [f"has {size} bytes, the log says {entry.size}"]
        if _digest(path) != entry.sha256:
            return None, ["its sha256 is not the one in the log"]
        rows, faults = read_rows(path, entry)
        if rows is not None:
            faults = [*faults, *check_rows(rows, entry, placement)]
        return rows, faults

    def _check_snapshot(self, head: LogRecord) -> None:
        ref = head.snapshot
        if ref is None:
            return
        path = self.root / ref.path
        if not path.is_file():
            self.findings.append(f"{ref.path}: the newest snapshot is missing")
            return
        if (path.stat().st_size, _digest(path)) != (ref.size, ref.sha256):
            self.findings.append(f"{ref.path}: its bytes are not those the log names")

    # --- all logs together ------------------------------------------------------------

    def _doubly_read(self) -> Iterator[str]:
        """Yield where two logs (two jobs on one root) hold the same offsets."""
        for (_, source), spans in self.spans.items():
            spans.sort()
            for (_, end, one), (start, _, other) in itertools.pairwise(spans):
                if start < end:
                    yield f"{source}: {one} and {other} both read offsets from {start}"

    def _unnamed(self) -> Iterator[str]:
        """Yield visible files that no log names (O5)."""
        live = self.swaps.live
        for path in visible_files(self.root):
            known = path in self.named or path in live
            if path not in DERIVED and not known:
                yield f"{path}: visible, but no log names it"


def _digest(path: RootPath) -> str:
    if not isinstance(path, Path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def visible_files(root: RootPath) -> Iterator[str]:
    """Yield what Parquet readers see: files below no name that begins with `_` or `.`."""
    if not isinstance(root, Path):
        for file in root.rglob("*"):
            if not any(name[0] in "._" for name in file.path.split("/")):
                yield file.path
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        inside = Path(folder).relative_to(root)
        for name in sorted(names):
            if name[0] not in "._":
                yield (inside / name).as_posix()


def _count_faults(record: LogRecord) -> Iterator[str]:
    """Yield where a record's counts do not add up (O4)."""
    counts = record.counts
    span = record.next - record.start
    if counts.records != counts.decoded + counts.quarantined + counts.ignored:
        yield (
            f"{counts.records} records are not {counts.decoded} decoded, "
            f"{counts.quarantined} quarantined and {counts.ignored} ignored"
        )
    if record.kind == "gap" and (counts.records or record.files):
        yield "a gap that holds records or files"
    if record.kind != "gap" and span != counts.records + counts.skipped:
        yield (
            f"{span} offsets are not {counts.records} records "
            f"and {counts.skipped} skipped"
        )


def _row_faults(record: LogRecord, files: list[FileRows]) -> Iterator[str]:
    """Yield where a record's readings repeat, or its late count is another."""
    late = sum(rows.late for rows in files)
    if late != record.counts.late:
        yield f"counts {record.counts.late} late readings, its files hold {late}"
    found = doubled(files)
    for offset, ordinal in found[:_EXAMPLES]:
        yield f"offset {offset} ordinal {ordinal} is in readings/ more than once"
    if len(found) > _EXAMPLES:
        yield f"and {len(found) - _EXAMPLES} more readings that are doubled"
