"""One record of a partition's commit log: the only truth about what was published.

A record is a JSON file `log/<n:020d>.json`; creating it *is* the commit
(EXACTLY_ONCE.md 1.2). Records chain by `prev_sha256` over the exact bytes of the
record before, so the bytes are kept and never re-encoded.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from streamproc.core.record_versions import RECORD_VERSION, up_to_date
from streamproc.core.values import AlertTransition, OffsetSpan, TimerDecision
from streamproc.errors import LogCorrupt, SourceMismatch

Kind = Literal[
    "genesis",
    "takeover",
    "commit",
    "config",
    "timer",
    "final",
    "gap",
    "rewrite",
    "checkpoint",
]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One published file: where it was staged, its final path, and what it holds."""

    dataset: str
    staged: str
    path: str
    size: int
    rows: int
    sha256: str
    first_offset: int
    last_offset: int


class SnapshotRef(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the state after every offset below `next`, taken with record `n`."""

    path: str
    sha256: str
    size: int
    state_version: int
    n: int
    next: int


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The last data record consumed: the log's memory of which topic it read.

    `crc32c` covers key and value, each preceded by its length (int32 LE, -1 for null).
    """

    offset: int
    broker_us: int
    crc32c: int


class RecordCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Conservation: records = decoded + quarantined + ignored; readings = rows published.

    `late` counts readings with flag late; `ignored` records that by their kind hold no reading;
    `skipped` offsets without a record, so that a span has records + skipped.
    """

    records: int = 0
    decoded: int = 0
    readings: int = 0
    late: int = 0
    quarantined: int = 0
    skipped: int = 0
    aggregates: int = 0
    ignored: int = 0


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a replay's merge: rows `[start_row, rows)` of it belong to the plan."""

    path: str
    sha256: str
    size: int
    rows: int
    start_row: int


class InputPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the offsets from `base` on mean for a stream of files, until `base + total`.

    `order` names the reading options that the rows' order hangs on; a merge that was
    interrupted can only be continued with the same ones.
    """

    base: int
    total: int
    files: tuple[InputFile, ...]
    order: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Offsets `[start, next)` that an operator has given up, in record `n`: why, and who."""

    n: int
    start: int
    next: int
    reason: str
    by: str


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What squashed records add up to: records by kind, timers by kind, files, rows by dataset."""

    kinds: dict[str, int] = {}
    timers: dict[str, int] = {}
    counts: RecordCounts = RecordCounts()
    rows: dict[str, int] = {}
    files: int = 0
    file_bytes: int = 0
    gaps: tuple[Gap, ...] = ()


class ArchiveRef(msgspec.Struct, frozen=True, kw_only=True):
    """A file that holds the records `first` to `last`, byte for byte (`core.archive`)."""

    path: str
    sha256: str
    size: int
    first: int
    last: int


class Squashed(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says of the records it replaces: all up to `through`.

    Attributes:
        through: number of the last one; `sha256` the digest of its bytes, `next` its `next`.
        start: first offset of the log.
        archive: the newest archive; each names the one before, down to record 0.
        snapshots: those of the replaced records that still exist, oldest first.
    """

    through: int
    sha256: str
    start: int
    next: int
    archive: ArchiveRef
    snapshots: tuple[SnapshotRef, ...] = ()
    totals: Totals = Totals()


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of one record; `[start, next)` is empty for all kinds but `commit` and `gap`.

    Attributes:
        prev_sha256: hex digest of record n-1's bytes; empty for n = 0.
        definition: sha256 of the definition in force from `next` on; the text is stored
            beside the log as `definitions/<sha256>.json`.
        watermarks: city → highest accepted event time, after this record.
        outbox: alerts that leave after this record is durable.
        snapshot: the newest snapshot there is, this record's or an earlier one's.
        inputs: for a stream of files, every plan so far, in order of `base`.
        squashed: of a checkpoint, which records it replaces.
        note: why, for genesis (`start = …`), gap and takeover.
        by: of a gap, who accepted it.
        partitions: of a genesis under `start = latest`, how many the topic had.
    """

    version: int = RECORD_VERSION
    n: int
    kind: Kind
    prev_sha256: str
    job: str
    topic: str
    topic_id: str
    partition: int
    start: int
    next: int
    definition: str
    state_version: int
    code_version: str
    owner: str
    attempt: str
    generation: int = -1
    counts: RecordCounts = RecordCounts()
    files: tuple[FileEntry, ...] = ()
    snapshot: SnapshotRef | None = None
    watermarks: dict[str, int] = {}
    timers: tuple[TimerDecision, ...] = ()
    outbox: tuple[AlertTransition, ...] = ()
    fingerprint: Fingerprint | None = None
    inputs: tuple[InputPlan, ...] = ()
    squashed: Squashed | None = None
    note: str = ""
    by: str = ""
    partitions: int = 0


class _Versioned(msgspec.Struct):
    version: int


_DECODER = msgspec.json.Decoder(LogRecord)
_VERSION = msgspec.json.Decoder(_Versioned)


def encode_record(record: LogRecord) -> bytes:
    """Return the record's bytes; equal records give equal bytes."""
    return msgspec.json.format(
        msgspec.json.encode(record, order="deterministic"), indent=1
    )


def decode_record(data: bytes, where: str) -> LogRecord:
    """Parse a record, also one of an older program.

    Raises:
        LogCorrupt: naming `where`, on anything unexpected, and on one of a newer program.
    """
    try:
        version = _VERSION.decode(data).version
        if version == RECORD_VERSION:
            return _DECODER.decode(data)
        document = up_to_date(msgspec.json.decode(data), version, where)
        return msgspec.convert(document, LogRecord)
    except msgspec.MsgspecError as error:
        msg = f"{where}: not a log record: {error}"
        raise LogCorrupt(msg) from error


def sha256_hex(data: bytes) -> str:
    """Return the hex digest used for chain, files and definitions."""
    return hashlib.sha256(data).hexdigest()


def log_folder(job: str, topic: str, topic_id: str, partition: int) -> str:
    """Return `_streamproc/<job>/<topic>-<topic id>/<partition>`.

    A stream of files has topic id `file`.

    Raises:
        SourceMismatch: job, topic or topic id cannot be part of a path.
    """
    for word in (job, topic_id):
        if not _WORD.fullmatch(word):
            msg = f"{word!r}: only letters, digits, dot, underscore and hyphen can name a log"
            raise SourceMismatch(msg)
    return f"_streamproc/{job}/{topic_label(topic)}-{topic_id}/{partition}"


def record_name(n: int) -> str:
    """Return the record's file name inside `log/`."""
    return f"{n:020d}.json"


_WORD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
# A file name holds 255 bytes; offsets, n and attempt need up to 110 of them.
_LABEL_MAX = 120


def topic_label(topic: str) -> str:
    """Return the topic as it stands in names of files and folders.

    The topic itself, unless it is so long that a file name could not hold it; then its
    beginning and 8 hex digits of its sha256.

    Raises:
        SourceMismatch: not a topic name Kafka allows.
    """
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        msg = f"{topic!r} is not a topic name: 1 to 249 of [a-zA-Z0-9._-], not . or .."
        raise SourceMismatch(msg)
    if len(topic) <= _LABEL_MAX:
        return topic
    digest = hashlib.sha256(topic.encode()).hexdigest()
    return f"{topic[: _LABEL_MAX - 9]}-{digest[:8]}"


def file_stem(
    topic: str, partition: int, n: int, span: OffsetSpan, attempt: str
) -> str:
    """Return `<topic>-p<p>-n<n>-<first>-<last>-<attempt8>`, how published files begin.

    `first` and `last` are the span's first and last offset, inclusive; of an empty span
    both are its `start`. Unique per log, because only one attempt becomes record n.
    """
    last = max(span.start, span.end - 1)
    label = topic_label(topic)
    return f"{label}-p{partition}-n{n}-{span.start}-{last}-{attempt[:8]}"


def final_name(dataset: str, keys: Sequence[tuple[str, str]], stem: str) -> str:
    """Return `<dataset>/<key>=<value>/…/<stem>.parquet`.

    Values come from closed lists (city slugs, window names, dates), never from payloads.

    Raises:
        SourceMismatch: a value that would need escaping all the same.
    """
    for key, value in keys:
        if not _WORD.fullmatch(value):
            msg = f"{key}={value!r} cannot be part of a published path"
            raise SourceMismatch(msg)
    folders = "/".join([dataset, *(f"{key}={value}" for key, value in keys)])
    return f"{folders}/{stem}.parquet"
