"""From undecoded record batches to `Records`: checksums, decompression, and one kernel call.

No Python object is made per record. The payloads of what comes out lie in the frame they
were received in, or, where a batch was compressed, in an arena the batches were decompressed
into one behind the other; either is kept alive by whoever holds the `Records`.

All of it may run in a thread: checksum, decompression and kernel release the GIL.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiokafka.errors import CorruptRecordException
from crc32c import crc32c

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_codecs import Unfit, unpack
from streamproc.connectors.kafka_records import columnar, nothing
from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.kernels import record_batch as kernels
from streamproc.kernels.bytes_raw import PAD

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]

MEBIBYTE: Final = 1024 * 1024

BATCH_BYTES_MAX: Final = 256 * MEBIBYTE
"""What one batch may decompress to. Brokers bound compressed bytes alone (A9): a megabyte of
zstd can become many gigabytes, and being killed for memory would not name the batch."""

_PART_BYTES: Final = 64 * MEBIBYTE
_PART_BYTES_MIN: Final = 64 * 1024
_GROWTH: Final = 4
_RATIO_FIRST: Final = 6.0
_RATIO_MARGIN: Final = 1.15
_RECORD_BYTES_MIN: Final = 7

_WRONG: Final = {
    kernels.BAD_LENGTH: "is shorter than any batch",
    kernels.BAD_MAGIC: "has a format nobody knows",
    kernels.BAD_HEADER: "has a header with impossible numbers",
    kernels.BAD_RECORD: "has a record that does not end where it should",
    kernels.BAD_OFFSET: "has a record outside its offsets",
    kernels.BAD_REST: "has bytes behind its last record",
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some batches of one fetch, as they came.

    Attributes:
        frame: the bytes, `PAD` of them readable behind the last batch.
        table: the batches (see `kernels.record_batch`); `SKIP` marks those not to be seen.
        low: the first offset wanted.
        high: the first offset not wanted.
        end: the position behind it.
    """

    frame: U1
    table: I8
    low: int
    high: int
    end: int


@dataclass(frozen=True, slots=True)
class Legacy:
    """Records of batches in formats 0 and 1, as aiokafka reads them."""

    records: Sequence[Any]
    end: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Records of one buffer, and the offset due behind them."""

    data: U1
    offsets: I8
    broker_us: I8
    places: I8
    due: int

    def records(self, origin: TopicPartition, span: OffsetSpan) -> Records:
        value_starts, value_ends, key_starts, key_ends = self.places
        return Records(
            origin,
            self.offsets,
            self.broker_us,
            Payloads(self.data, value_starts, value_ends),
            Payloads(self.data, key_starts, key_ends),
            span,
        )


def wrong(origin: TopicPartition, row: I8, what: str) -> CorruptRecordException:
    """Return the error for one batch, with its place."""
    first = int(row[kernels.BASE])
    last = first + int(row[kernels.LAST_DELTA])
    msg = f"{origin.source}: the batch with offsets {first} to {last} {what}"
    return CorruptRecordException(msg)


def not_a_batch(origin: TopicPartition, due: int, code: int) -> CorruptRecordException:
    """Return the error for bytes that are no batch at all, found where `due` was due."""
    msg = f"{origin.source}: the batch at or after offset {due} {_WRONG[code]}"
    return CorruptRecordException(msg)


def verify(origin: TopicPartition, frame: U1, table: I8) -> None:
    """Check every batch's CRC-32C. Raises `CorruptRecordException` with the place."""
    view = frame.data
    columns = [kernels.START, kernels.END, kernels.CRC]
    for number, (start, end, said) in enumerate(table[:, columns].tolist()):
        found = crc32c(view[start + kernels.CRC_FROM : end])
        if found != said:
            what = f"has checksum {found:08x}, but says {said:08x}"
            raise wrong(origin, table[number], what)


class BatchReader:
    """Makes `Records` of fetched chunks; one call at a time, in any thread."""

    def __init__(self, pool: ArenaPool) -> None:
        self._pool = pool
        self._ratio = _RATIO_FIRST

    def read(
        self, origin: TopicPartition, chunks: Sequence[Chunk | Legacy], span: OffsetSpan
    ) -> list[Records]:
        """Return records that together account for `span`: one item, if one buffer does.

        Raises:
            CorruptRecordException: a checksum or a batch is wrong; the message has its place.
        """
        parts: list[_Part | Legacy] = []
        whole: list[Chunk] = []
        for chunk in chunks:
            if isinstance(chunk, Chunk) and chunk.high == kernels.OFFSET_END:
                whole.append(chunk)
                continue
            parts += self._parts(origin, whole)
            whole = []
            parts += (
                [chunk] if isinstance(chunk, Legacy) else self._parts(origin, [chunk])
            )
        parts += self._parts(origin, whole)
        return _records(origin, parts, span)

    def _parts(
        self, origin: TopicPartition, chunks: Sequence[Chunk]
    ) -> Iterator[_Part]:
        """Yield what chunks of one frame hold, in order."""
        if not chunks:
            return
        first = chunks[0]
        table = np.concatenate([chunk.table for chunk in chunks])
        verify(origin, first.frame, table)
        window = np.array([first.low, first.high], np.int64)
        seen = table[(table[:, kernels.SKIP] == 0) & (table[:, kernels.COUNT] > 0)]
        for data, bodies in self._unpacked(origin, first.frame, seen):
            rows, seen = seen[: len(bodies)], seen[len(bodies) :]
            part = _walked(origin, data, bodies, rows, window)
            if len(part.offsets):
                yield part

    def _unpacked(
        self, origin: TopicPartition, frame: U1, table: I8
    ) -> Iterator[tuple[U1, I8]]:
        """Yield buffers, and where the record sections of the next batches lie in each."""
        bodies = np.ascontiguousarray(table[:, [kernels.START, kernels.END]])
        bodies[:, 0] += kernels.HEADER_BYTES
        if not (table[:, kernels.ATTRIBUTES] & kernels.CODEC).any():
            yield frame, bodies
            return
        first = 0
        while first < len(table):
            packed = int((bodies[first:, 1] - bodies[first:, 0]).sum())
            room = min(max(int(packed * self._ratio), _PART_BYTES_MIN), _PART_BYTES)
            data, placed = self._fill(origin, frame, table[first:], room)
            yield data, placed
            taken = int((bodies[first:, 1] - bodies[first:, 0])[: len(placed)].sum())
            self._ratio = int(placed[-1, 1]) / max(taken, 1) * _RATIO_MARGIN
            first += len(placed)

    def _fill(
        self, origin: TopicPartition, frame: U1, table: I8, room: int
    ) -> tuple[U1, I8]:
        """Decompress as many batches as fit into `room`, but at least one."""
        view = frame.data
        columns = [kernels.START, kernels.END, kernels.ATTRIBUTES]
        batches = table[:, columns].tolist()
        while True:
            data = self._pool.take(room)
            out = data.data[: len(data) - PAD]
            placed, at = [], 0
            try:
                for start, end, attributes in batches:
                    body = view[start + kernels.HEADER_BYTES : end]
                    size = _put(attributes & kernels.CODEC, body, out[at:])
                    placed.append((at, at + size))
                    at += size
            except Unfit as unfit:
                if not placed and room >= BATCH_BYTES_MAX:
                    what = f"cannot be decompressed into {room} bytes: {unfit}"
                    raise wrong(origin, table[0], what) from unfit
            if placed:
                return data, np.array(placed, np.int64)
            room = min(room * _GROWTH, BATCH_BYTES_MAX)


def _put(codec: int, body: memoryview, out: memoryview) -> int:
    """Write a record section as it is or decompressed; return its size."""
    if codec:
        return unpack(codec, body, out)
    if len(body) > len(out):
        msg = "an uncompressed batch is larger than that"
        raise Unfit(msg)
    out[: len(body)] = body
    return len(body)


def _walked(
    origin: TopicPartition, data: U1, bodies: I8, table: I8, window: I8
) -> _Part:
    """Find all records of batches whose record sections lie in `data`."""
    sizes = bodies[:, 1] - bodies[:, 0]
    room = int(np.minimum(table[:, kernels.COUNT], sizes // _RECORD_BYTES_MIN).sum())
    times = np.empty((2, room), np.int64)
    places = np.empty((4, room), np.int64)
    data = data.view()
    data.flags.writeable = (
        False  # one type of array for all kernels, and nobody's to change
    )
    count, number, outcome = kernels.walk(
        data, bodies, table, window, times[0], times[1], places
    )
    if outcome != kernels.DONE:
        raise wrong(origin, table[number], _WRONG[outcome])
    due = min(int(window[0]), int(window[1]))
    return _Part(data, times[0, :count], times[1, :count], places[:, :count], due)


def _records(
    origin: TopicPartition, parts: Sequence[_Part | Legacy], span: OffsetSpan
) -> list[Records]:
    """Divide the span among the parts: each accounts for what lies before the next one."""
    made: list[Records] = []
    start = span.start
    for number, part in enumerate(parts, 1):
        due = part.end if isinstance(part, Legacy) else part.due
        share = OffsetSpan(start, span.end if number == len(parts) else due)
        start = share.end
        if isinstance(part, Legacy):
            made.append(columnar(origin, part.records, share))
        else:
            made.append(part.records(origin, share))
    return made or [nothing(origin, span)]
