"""The commit logs, read as JSON; what is wrong with a chain is found on the way (O4).

A log may have been squashed: a `checkpoint` names an archive, a gzip file of JSON texts, each
after a record separator; the first names the archive before it, the others are records.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from tests.oracle.folder import Folder

SEPARATOR = b"\x1e"
Record = dict[str, Any]


@dataclass
class Log:
    """One partition's log: its records from the first on, and what is wrong with them."""

    folder: str
    records: list[Record] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return f"{self.records[0]['topic']}/{self.records[0]['partition']}"

    @property
    def next(self) -> int:
        return int(self.records[-1]["next"])

    def kinds(self, kind: str) -> int:
        return sum(record["kind"] == kind for record in self.records)


def read_logs(folder: Folder) -> list[Log]:
    """Return all logs below `_streamproc/`, by folder."""
    homes: dict[str, dict[int, str]] = {}
    for name in folder.names():
        parts = name.split("/")
        if parts[0] == "_streamproc" and parts[-2:-1] == ["log"]:
            number, _, ending = parts[-1].partition(".")
            if ending == "json":
                homes.setdefault("/".join(parts[:-2]), {})[int(number)] = name
    return [_read(folder, home, names) for home, names in sorted(homes.items())]


def _read(folder: Folder, home: str, names: dict[int, str]) -> Log:
    log = Log(home)
    texts = {n: folder.read(name) for n, name in names.items()}
    _unsquash(folder, log, texts)
    before: bytes | None = None
    for n in range(max(texts) + 1):
        if n not in texts:
            log.findings.append(f"O4 {home}: record {n} is missing")
            before = None
            continue
        _append(log, n, texts[n], before)
        before = texts[n]
    return log


def _unsquash(folder: Folder, log: Log, texts: dict[int, bytes]) -> None:
    """Add the records of the archives that the newest checkpoint leads to."""
    checkpoints = [
        document
        for document in (json.loads(texts[n]) for n in sorted(texts))
        if document["kind"] == "checkpoint"
    ]
    archive = checkpoints[-1]["squashed"]["archive"] if checkpoints else None
    while archive:
        data = folder.read(archive["path"])
        if hashlib.sha256(data).hexdigest() != archive["sha256"]:
            log.findings.append(f"O4 {archive['path']}: its sha256 is another")
            return
        _, header, *records = gzip.decompress(data).split(SEPARATOR)
        for n, record in enumerate(records, archive["first"]):
            if texts.setdefault(n, record[:-1]) != record[:-1]:
                log.findings.append(f"O4 {log.folder}: record {n} differs in archive")
        archive = json.loads(header)["before"]


def _append(log: Log, n: int, text: bytes, before: bytes | None) -> None:
    record = json.loads(text)
    where = f"O4 {log.folder} record {n}"
    if record["n"] != n:
        log.findings.append(f"{where}: says it is {record['n']}")
    if log.records:
        if before is not None:
            digest = hashlib.sha256(before).hexdigest()
            if record["prev_sha256"] != digest:
                log.findings.append(f"{where}: does not name the record before it")
        if record["start"] != log.next:
            log.findings.append(
                f"{where}: begins with {record['start']}, not {log.next}"
            )
    elif record["kind"] != "genesis":
        log.findings.append(f"{where}: the log begins with {record['kind']}")
    if record["next"] < record["start"] or (
        record["next"] > record["start"] and record["kind"] not in {"commit", "gap"}
    ):
        log.findings.append(f"{where}: {record['kind']} from {record['start']}")
    log.records.append(record)
