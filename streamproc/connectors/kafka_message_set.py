"""One partition's part of a fetch response, undecoded: which batches are to be seen, in what chunks.

`MessageSet` and `RawRecords` stand for aiokafka's `MemoryRecords` and `PartitionRecords` and
keep their meaning: aborted transactions, control batches, positions in the middle of a batch,
gaps that compaction leaves, a last batch that is cut off. Only headers are read here, some
microseconds a batch; checksums and records are `kafka_batches`' work, in a thread.

Where these differ: a position never moves back, and with a batch whose magic is not that of
the first, aiokafka would go by the first one's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from streamproc.connectors.kafka_arenas import ArenaPool
from streamproc.connectors.kafka_batches import (
    Chunk,
    Legacy,
    not_a_batch,
    verify,
    wrong,
)
from streamproc.core.values import TopicPartition
from streamproc.kernels import record_batch as kernels

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]

_CHUNK_RECORDS: Final = 16 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_TABLE_ROWS: Final = 1024
_LENGTH: Final = slice(8, 12)
_PREFIX: Final = 12
_FORMAT: Final = 2
_MARKER_BYTES: Final = 4
_READ_COMMITTED: Final = 1
_HIDING: Final = kernels.TRANSACTIONAL | kernels.CONTROL


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what was received is handed out at a time.

    A chunk ends before a batch that would take it beyond 16 k records or 1 MiB as received,
    which is some 10 ms of work; a batch of more than `records_max` is handed out in pieces.
    """

    records_max: int

    @property
    def chunk_records(self) -> int:
        """Records of a chunk that holds several batches."""
        return min(_CHUNK_RECORDS, self.records_max)

    @property
    def chunks(self) -> int:
        """Chunks of one fetch: `getmany`'s `max_records`."""
        return max(1, self.records_max // self.chunk_records)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of an arena: what aiokafka hands around as a response or a message set."""

    frame: U1
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, part: slice) -> bytes:
        """Return a copy; aiokafka shows the first bytes in its debug log."""
        return self.frame[self.start : self.end][part].tobytes()


class MessageSet:
    """Stands for `MemoryRecords`: what one response has for one partition."""

    def __init__(self, pool: ArenaPool, data: "bytes | Slice | None") -> None:
        if isinstance(data, Slice):
            self.frame, self.start, self.end = data.frame, data.start, data.end
            return
        data = data or b""
        self.frame, self.start, self.end = pool.take(len(data)), 0, len(data)
        self.frame[: len(data)] = np.frombuffer(data, np.uint8)

    def size_in_bytes(self) -> int:
        """Return the size, a batch that is cut off included."""
        return self.end - self.start

    def has_next(self) -> bool:
        """Tell whether there is one whole batch: if not, it was too large to be fetched."""
        head = self.frame[self.start : self.end][:_PREFIX].tobytes()
        if len(head) < _PREFIX:
            return False
        size = _PREFIX + int.from_bytes(head[_LENGTH], "big", signed=True)
        return size <= self.size_in_bytes()


class RawRecords:
    """Stands for `PartitionRecords`: iterates over chunks, and knows the position behind each.

    Which transactions were aborted is decided here, batch by batch in the order of offsets.
    A position never moves back.
    """

    def __init__(
        self,
        limits: Limits,
        tp: Any,
        records: MessageSet,
        aborted: Sequence[tuple[int, int]] | None,
        fetch_offset: int,
        *rest: Any,
    ) -> None:
        *_, check_crcs, isolation_level = rest
        self._limits = limits
        self._origin = TopicPartition(tp.topic, tp.partition)
        self._set = records
        self._aborted = sorted(aborted or (), key=lambda entry: entry[1])
        self._aborting: set[int] = set()
        self._check_crcs = check_crcs
        self._committed = isolation_level == _READ_COMMITTED
        self.next_fetch_offset = fetch_offset
        self._items = self._of_set()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk | Legacy:
        return next(self._items)

    def _of_set(self) -> Iterator[Chunk | Legacy]:
        frame, at, end = self._set.frame, self._set.start, self._set.end
        outcome = kernels.FULL
        while outcome == kernels.FULL:
            rows = min((end - at) // kernels.HEADER_BYTES + 1, _TABLE_ROWS)
            table = np.empty((rows, kernels.COLUMNS), np.int64)
            count, at, outcome = kernels.scan(_read_only(frame), at, end, table)
            legacy = table[:count, kernels.MAGIC] < _FORMAT
            if not legacy.any():
                yield from self._of_batches(table[:count])
                continue
            turns = np.flatnonzero(np.diff(legacy)) + 1
            for run in np.split(table[:count], turns):
                of = (
                    self._of_batches
                    if run[0, kernels.MAGIC] == _FORMAT
                    else self._of_legacy
                )
                yield from of(run)
        if outcome < 0:
            raise not_a_batch(self._origin, self.next_fetch_offset, outcome)

    def _of_batches(self, table: I8) -> Iterator[Chunk]:
        """Yield chunks of batches in format 2."""
        first = records = size = 0
        for number, row in enumerate(table.tolist()):
            base, due = (
                row[kernels.BASE],
                row[kernels.BASE] + row[kernels.LAST_DELTA] + 1,
            )
            hidden = row[kernels.ATTRIBUTES] & _HIDING and self._hides(table[number])
            table[number, kernels.SKIP] = hidden
            records += row[kernels.COUNT]
            size += row[kernels.END] - row[kernels.START]
            wide = due - max(base, self.next_fetch_offset) > self._limits.records_max
            in_pieces = wide and not hidden
            full = records > self._limits.chunk_records or size > _CHUNK_BYTES
            if number > first and (in_pieces or full):
                yield self._chunk(table[first:number])
                first, records = number, row[kernels.COUNT]
                size = row[kernels.END] - row[kernels.START]
            if in_pieces:
                yield from self._pieces(table[number : number + 1], base, due)
                first, records, size = number + 1, 0, 0
        if first < len(table):
            yield self._chunk(table[first:])

    def _chunk(self, table: I8) -> Chunk:
        low, last = self.next_fetch_offset, table[-1]
        due = int(last[kernels.BASE] + last[kernels.LAST_DELTA]) + 1
        self.next_fetch_offset = max(low, due)
        frame = self._set.frame
        return Chunk(frame, table, low, kernels.OFFSET_END, self.next_fetch_offset)

    def _pieces(self, table: I8, base: int, due: int) -> Iterator[Chunk]:
        """Yield one batch several times, some of its offsets each time."""
        low = max(base, self.next_fetch_offset)
        while low < due:
            high = min(low + self._limits.records_max, due)
            self.next_fetch_offset = high
            yield Chunk(self._set.frame, table, low, high, high)
            low = high

    def _hides(self, row: I8) -> bool:
        """Tell whether nobody is to see this batch, as aiokafka does."""
        producer = int(row[kernels.PRODUCER])
        control = bool(row[kernels.ATTRIBUTES] & kernels.CONTROL)
        if self._committed:
            while self._aborted and self._aborted[0][1] <= row[kernels.BASE]:
                self._aborting.add(self._aborted.pop(0)[0])
            if control and self._is_abort(row):
                self._aborting.discard(producer)
        return control or (self._committed and producer in self._aborting)

    def _is_abort(self, row: I8) -> bool:
        verify(self._origin, self._set.frame, row.reshape(1, -1))
        batch = MemoryRecords(self._bytes(row)).next_batch()
        record = next(iter(batch), None)
        if record is None or len(record.key or b"") < _MARKER_BYTES:
            raise wrong(self._origin, row, "is a control batch without a marker")
        return bool(ControlRecord.parse(record.key) == ABORT_MARKER)

    def _of_legacy(self, table: I8) -> Iterator[Legacy]:
        """Yield records in formats 0 and 1, read one batch at a time by aiokafka."""
        found: list[Any] = []
        for row in table:
            batch = MemoryRecords(self._bytes(row)).next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise wrong(self._origin, row, "has a wrong checksum")
            due = self.next_fetch_offset
            for record in batch:
                if record.offset >= due:
                    found.append(record)
                    due = record.offset + 1
            self.next_fetch_offset = max(due, batch.next_offset)
            if len(found) >= self._limits.chunk_records:
                yield Legacy(found, self.next_fetch_offset)
                found = []
        if found:
            yield Legacy(found, self.next_fetch_offset)

    def _bytes(self, row: I8) -> bytes:
        return self._set.frame[row[kernels.START] : row[kernels.END]].tobytes()


def _read_only(data: U1) -> U1:
    """Return the kind of array every kernel is compiled for."""
    view = data.view()
    view.flags.writeable = False
    return view
