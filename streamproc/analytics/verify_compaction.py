"""Compacted and deleted files against the chains that name them.

For `verify`: which files of the commit logs may be missing because a record of a chain
replaced or deleted them; and whether what replaced them is there, unchanged, sorted into
the right folder, and holds each row once. That the rows are those of the inputs, bit for
bit, was compared before the swap; here the counts must still agree.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfoNotFoundError

import polars as pl
import pyarrow.parquet as pq  # noqa: TID251  (verification reads what was published)

from streamproc.analytics.live import below, read_records
from streamproc.analytics.logs import LOGS
from streamproc.analytics.roots import RootPath, content, scan
from streamproc.analytics.verify_files import dated_by, read_rows
from streamproc.core.record import FileEntry
from streamproc.core.swaps import (
    CompactionChain,
    CompactionRecord,
    OutputEntry,
    Unit,
)
from streamproc.errors import LogCorrupt

_ZONE_KEY: Final = b"streamproc.timezone"
_ID: Final = ("source", "offset", "ordinal")


@dataclass(slots=True)
class Swaps:
    """Every chain below a root.

    Attributes:
        records: of all chains that hold together, by (job, unit), oldest first.
        replaced: path → what took it out, for people.
        findings: chains that do not hold together.
    """

    root: RootPath
    records: dict[tuple[str, Unit], list[CompactionRecord]] = field(
        default_factory=dict
    )
    replaced: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, root: RootPath) -> "Swaps":
        """Read every chain there is."""
        made = cls(root)
        logs: set[str] = set()
        for folder in root.glob(f"{LOGS}/*/compact"):
            paths = (below(root, path) for path in folder.rglob("*.json"))
            logs.update(path.rpartition("/")[0] for path in paths)
        for log in sorted(logs):
            parts = log.split("/")
            unit = Unit.of("/".join(parts[3:-1]))
            if unit is None or parts[-1] != "log":
                made.findings.append(f"{log}: a chain of no folder")
                continue
            made._add(parts[1], unit, log)
        return made

    def _add(self, job: str, unit: Unit, log: str) -> None:
        chain = CompactionChain(unit.folder)
        records = self.records.setdefault((job, unit), [])
        try:
            for where, data in read_records(self.root, log):
                records.append(chain.append(data, where))
        except LogCorrupt as error:
            self.findings.append(str(error))
        for record in records:
            how = "replaced" if record.kind == "compact" else "deleted"
            for name in record.inputs:
                path = f"{unit.folder}/{name}"
                self.replaced[path] = f"{how} by record {record.n} of {unit.home(job)}"

    @property
    def live(self) -> dict[str, OutputEntry]:
        """Return the outputs that are valid now, by path."""
        return {
            f"{unit.folder}/{entry.name}": entry
            for (_, unit), records in self.records.items()
            if records
            for entry in records[-1].outputs
        }

    @property
    def deleted(self) -> dict[str, int]:
        """Return the rows that retention has deleted, by dataset."""
        rows: Counter[str] = Counter()
        for (_, unit), records in self.records.items():
            rows[unit.dataset] += sum(r.rows for r in records if r.kind == "retain")
        return {dataset: count for dataset, count in rows.items() if count}

    def check(self, named: Mapping[str, int]) -> Iterator[str]:
        """Yield what is wrong; `named` are the rows of the commit logs' files by path."""
        yield from self.findings
        for (job, unit), records in self.records.items():
            known = dict(named)
            for record in records:
                where = f"{unit.home(job)} record {record.n}"
                yield from _sum_faults(where, record, known)
                known.update(
                    {f"{unit.folder}/{e.name}": e.rows for e in record.outputs}
                )
            if records:
                yield from self._output_faults(unit, records[-1])

    def _output_faults(self, unit: Unit, head: CompactionRecord) -> Iterator[str]:
        sound = []
        for entry in head.outputs:
            path = f"{unit.folder}/{entry.name}"
            faults = list(_file_faults(self.root, path, entry, unit))
            yield from (f"{path}: {fault}" for fault in faults)
            if not faults:
                sound.append(self.root / path)
        if unit.dataset == "readings" and len(sound) == len(head.outputs) > 0:
            rows = scan(sound).select(_ID).collect()
            twice = rows.with_columns(pl.col("source").cast(pl.String))
            count = int(twice.is_duplicated().sum())
            if count:
                yield f"{unit.folder}: {count} rows of its compaction are doubled"


def _sum_faults(
    where: str, record: CompactionRecord, known: Mapping[str, int]
) -> Iterator[str]:
    paths = [f"{record.folder}/{name}" for name in record.inputs]
    unknown = [path for path in paths if path not in known]
    if unknown:
        yield f"{where}: takes out {unknown[0]}, which no log names"
    elif sum(known[path] for path in paths) != record.rows:
        yield f"{where}: says {record.rows} rows, its inputs had {sum(known[p] for p in paths)}"
    written = sum(entry.rows for entry in record.outputs)
    if record.kind == "compact" and written != record.rows:
        yield f"{where}: replaced {record.rows} rows by {written}"


def _file_faults(
    root: RootPath, path: str, entry: OutputEntry, unit: Unit
) -> Iterator[str]:
    at = root / path
    if not at.is_file():
        there = (root / entry.staged).is_file()
        yield "compacted, but not yet published" if there else "missing"
        return
    data = at.read_bytes()
    if (len(data), hashlib.sha256(data).hexdigest()) != (entry.size, entry.sha256):
        yield "its bytes are not those its compaction names"
        return
    named = FileEntry(
        dataset=unit.dataset,
        staged=entry.staged,
        path=path,
        size=entry.size,
        rows=entry.rows,
        sha256=entry.sha256,
        first_offset=0,
        last_offset=0,
    )
    rows, faults = read_rows(at, named)
    yield from faults
    if rows is None or rows.times is None:
        return
    zone = (pq.read_schema(content(at)).metadata or {}).get(_ZONE_KEY, b"UTC").decode()
    try:
        local = rows.times.dt.convert_time_zone(zone).dt.date()
    except (ZoneInfoNotFoundError, pl.exceptions.PolarsError):
        yield f"names no time zone: {zone}"
        return
    others = local.filter(local != unit.day)
    if len(others):
        column = dated_by(unit.dataset)
        yield f"{len(others)} of its rows have {column} on another local date: {others[0]}"
