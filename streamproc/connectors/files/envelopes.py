"""Envelopes: records with their own topic, partition and offset, one JSON object a line.

```json
{"topic":"t","partition":0,"offset":12,"key":null,"headers":[["h","AA=="]],
 "timestamp":1700000000000,"value_base64":"e30="}
```

(on one line). Key, header values and value are base64, null where the record has none;
the timestamp is in milliseconds, null or negative for none. `simulate --output` writes
them, `replay` reads them; each (topic, partition) is a source of its own.
"""

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
import pyarrow as pa

from streamproc.connectors.files.content import (
    Bounded,
    blocks,
    cut_lines,
    line_at,
    raw_rows,
    read_up_to,
)
from streamproc.core.payloads import Payloads
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.errors import InputError, WorldError

_BLOCK_BYTES: Final = 4 << 20
_BATCH_ROWS_MAX: Final = 65_536
_SNIFF_BYTES: Final = 1 << 20
_US_PER_MS: Final = 1000
_OFFSET_MAX: Final = 2**63 - 2
_GZIP_LEVEL: Final = 6


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line. Bytes are base64 in JSON."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int | None
    value_base64: bytes | None


_KEYS: Final = frozenset(Envelope.__struct_fields__)
_DECODER: Final = msgspec.json.Decoder(Envelope)
_ENCODER: Final = msgspec.json.Encoder()


# --- writing --------------------------------------------------------------------------


class EnvelopeWriter:
    """Writes a file of envelopes; `.gz` and `.zst` in its name compress it.

    Equal envelopes give equal bytes. Not atomic: the file is whole after `close`.

    Raises:
        InputError: the file cannot be created.
        WorldError: from the other methods: writing failed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._closing, self._file = _sink(path)
        except OSError as error:
            raise InputError(self._refused(error)) from error

    def _refused(self, error: OSError) -> str:
        return f"{self._path}: cannot be written: {error}"

    def write(self, envelopes: Iterable[Envelope]) -> None:
        """Append lines."""
        self._put(_ENCODER.encode_lines(envelopes))

    def write_records(self, records: Records) -> None:
        """Append the records of one partition."""
        self.write(_envelopes_of(records))

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise WorldError(self._refused(error)) from error

    def close(self) -> None:
        """Finish the file; safe twice."""
        try:
            for closable in self._closing:
                closable.close()
        except OSError as error:
            raise WorldError(self._refused(error)) from error
        self._closing = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _sink(path: str) -> tuple[tuple[Any, ...], Any]:
    """Return (what to close, in order, what to write to)."""
    if path.lower().endswith(".gz"):
        # Without name and time in its head the same envelopes give the same bytes.
        below = Path(path).open("wb")  # noqa: SIM115  (closed by the writer)
        packed = gzip.GzipFile(
            filename="", mode="wb", fileobj=below, compresslevel=_GZIP_LEVEL, mtime=0
        )
        return (packed, below), packed
    file = pa.OSFile(path, "wb")
    if path.lower().endswith(".zst"):
        stream = pa.CompressedOutputStream(file, "zstd")
        return (stream, file), stream
    return (file,), file


def _envelopes_of(records: Records) -> Iterator[Envelope]:
    origin = records.origin
    keys, values = list(records.keys), list(records.values)
    headers = records.headers or [()] * len(records)
    times = [
        None if us == NO_TIME else us // _US_PER_MS for us in records.broker_us.tolist()
    ]
    for row, offset in enumerate(records.offsets.tolist()):
        yield Envelope(
            origin.topic,
            origin.partition,
            offset,
            keys[row],
            list(headers[row]),
            times[row],
            values[row],
        )


# --- reading --------------------------------------------------------------------------


def is_envelopes(path: str) -> bool:
    """Tell whether the first line is an object with exactly the keys of an envelope.

    Raises:
        InputError: the file cannot be read.
    """
    with Bounded(path) as file:
        head = read_up_to(file, _SNIFF_BYTES)
    line = head.lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[0]
    try:
        first = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return isinstance(first, dict) and first.keys() == _KEYS


def all_envelopes(files: Sequence[str]) -> bool:
    """Tell whether the files are envelopes (True) or none of them is (False).

    Raises:
        InputError: some are and some are not; they cannot be replayed together.
    """
    kinds = {path: is_envelopes(path) for path in files}
    if len(set(kinds.values())) > 1:
        yes = next(path for path, is_one in kinds.items() if is_one)
        no = next(path for path, is_one in kinds.items() if not is_one)
        msg = (
            f"{yes} holds envelopes and {no} does not: replay them one after the other"
        )
        raise InputError(msg)
    return any(kinds.values())


@dataclass(slots=True)
class _Source:
    """Where one (topic, partition) stands.

    `last` is the highest offset read, `next` the first one that is still to be accounted for.
    """

    origin: TopicPartition
    next: int
    last: int = -1
    rows: list[Envelope] = field(default_factory=list)


class EnvelopeStream:
    """Envelopes of any topics, in file order; several files continue one another."""

    def __init__(
        self, files: Sequence[str], start: Callable[[TopicPartition], int]
    ) -> None:
        self._files = tuple(files)
        self._start = start

    def partitions(self) -> dict[TopicPartition, int]:
        """Return how many records each partition has; reads everything once.

        Raises:
            InputError: as `batches`.
        """
        counts: dict[TopicPartition, int] = {}
        for path in self._files:
            for envelopes, _, _ in _decoded(path):
                for envelope in envelopes:
                    origin = TopicPartition(envelope.topic, envelope.partition)
                    counts[origin] = counts.get(origin, 0) + 1
        return dict(sorted(counts.items()))

    def batches(self) -> Iterator[Records]:
        """Yield records at or above each partition's start, in file order within it.

        Spans are contiguous: each begins where the one before ended, the first at the
        partition's start. `start` is asked when a partition's first record is met.

        Raises:
            InputError: a line is no envelope, or its offset is not above the one before
                it in its partition; the message names file and line.
        """
        sources: dict[tuple[str, int], _Source] = {}
        for path in self._files:
            for envelopes, base, starts in _decoded(path):
                touched = self._sorted_in(envelopes, sources, path, base, starts)
                for source in touched:
                    yield from _taken(source)

    def _sorted_in(
        self,
        envelopes: Sequence[Envelope],
        sources: dict[tuple[str, int], _Source],
        path: str,
        base: int,
        starts: Sequence[int],
    ) -> list[_Source]:
        """Give each envelope to its source; return those that got some, in order of arrival."""
        touched: dict[int, _Source] = {}
        for at, envelope in enumerate(envelopes):
            name = (envelope.topic, envelope.partition)
            source = sources.get(name)
            if source is None:
                origin = TopicPartition(*name)
                source = sources[name] = _Source(origin, self._start(origin))
            if not source.last < envelope.offset <= _OFFSET_MAX:
                line = line_at(path, base + starts[at])
                msg = (
                    f"{path}: line {line}: offset {envelope.offset} of "
                    f"{source.origin.source} is not above {source.last}"
                )
                raise InputError(msg)
            source.last = envelope.offset
            if envelope.offset >= source.next:
                source.rows.append(envelope)
                touched.setdefault(id(source), source)
        return list(touched.values())


def open_envelopes(
    files: Sequence[str], start: Callable[[TopicPartition], int]
) -> EnvelopeStream:
    """Return the records of files of envelopes, given in the order they continue each other.

    `start` returns the `next` of a partition's log: what is below was committed before.

    Raises:
        InputError: a file holds no envelopes, or cannot be read.
    """
    for path in files:
        if not is_envelopes(path):
            msg = f"{path}: line 1: not an envelope with {', '.join(sorted(_KEYS))}"
            raise InputError(msg)
    return EnvelopeStream(files, start)


def _decoded(path: str) -> Iterator[tuple[list[Envelope], int, list[int]]]:
    """Yield (envelopes, place of the piece, places of the lines in it)."""
    for block in blocks(path, None, _BLOCK_BYTES, cut_lines):
        starts = block.starts.tolist()
        try:
            text = block.data[: block.stops[-1]].tobytes()
            envelopes = _DECODER.decode_lines(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            envelopes = []
        if len(envelopes) != len(starts):
            envelopes = _one_by_one(
                path, block.base, starts, raw_rows(block).to_pylist()
            )
        _check_partitions(path, block.base, starts, envelopes)
        yield envelopes, block.base, starts


def _one_by_one(
    path: str, base: int, starts: Sequence[int], lines: Sequence[bytes]
) -> list[Envelope]:
    """Decode line by line, to name the line at fault."""
    envelopes = []
    for start, line in zip(starts, lines, strict=True):
        try:
            envelopes.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            where = line_at(path, base + start)
            msg = f"{path}: line {where}: not an envelope: {error}"
            raise InputError(msg) from error
    return envelopes


def _check_partitions(
    path: str, base: int, starts: Sequence[int], envelopes: Sequence[Envelope]
) -> None:
    for at, envelope in enumerate(envelopes):
        if not 0 <= envelope.partition < 2**31 or not envelope.topic:
            where = line_at(path, base + starts[at])
            name = f"{envelope.topic!r} {envelope.partition}"
            msg = f"{path}: line {where}: {name} is not a topic and a partition"
            raise InputError(msg)


def _taken(source: _Source) -> Iterator[Records]:
    """Yield what a source holds as batches, and empty it."""
    rows, source.rows = source.rows, []
    for first in range(0, len(rows), _BATCH_ROWS_MAX):
        part = rows[first : first + _BATCH_ROWS_MAX]
        end = part[-1].offset + 1
        records = _records(source.origin, part, OffsetSpan(source.next, end))
        source.next = end
        yield records


def _records(
    origin: TopicPartition, rows: Sequence[Envelope], span: OffsetSpan
) -> Records:
    times = [
        NO_TIME
        if row.timestamp is None or row.timestamp < 0
        else row.timestamp * _US_PER_MS
        for row in rows
    ]
    return Records(
        origin,
        np.array([row.offset for row in rows], np.int64),
        np.array(times, np.int64),
        Payloads.of([row.value_base64 for row in rows]),
        Payloads.of([row.key for row in rows]),
        span,
        [[(name, value or b"") for name, value in row.headers] for row in rows],
    )
