"""The files of one plan: checked whole, then read as inputs of a merge."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.connectors.files.content import (
    Block,
    blocks,
    cut_lines,
    kind_of,
    line_at,
    raw_rows,
)
from streamproc.connectors.files.mapping import FileMapping
from streamproc.connectors.files.merge import Chunk, Sorted
from streamproc.connectors.files.plan import Part
from streamproc.connectors.files.sheets import SheetReader
from streamproc.connectors.files.tables import CsvReader, ParquetReader, TableReader
from streamproc.connectors.files.times import NO_EVENT
from streamproc.connectors.files.untyped import Column, pc
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder
from streamproc.core.values import NO_TIME, Decoded, OffsetSpan, Records, TopicPartition
from streamproc.errors import InputError

I8 = npt.NDArray[np.int64]

# All open files together hold about this much text, so that merging hundreds stays small.
_LOADED_BYTES: Final = 48 << 20
_CHUNK_BYTES: Final = 4 << 20
_CHUNK_BYTES_MIN: Final = 128 << 10


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How the files of one stream are read.

    Attributes:
        stream: names the partition `<stream>/0`.
        mapping: needed for CSV and Parquet.
        codec: name of the decoder that reads the lines of NDJSON files.
        cities: slugs that a city column may hold.
        homes: cities of devices known before; they outrank what the files say.
        batch_rows, batch_bytes: a batch holds about this much.
    """

    stream: str
    mapping: FileMapping | None = None
    codec: str = "json"
    cities: tuple[str, ...] = ()
    homes: Mapping[str, str] = field(default_factory=dict)
    batch_rows: int = 65_536
    batch_bytes: int = 16 << 20

    def order(self) -> str:
        """Return what `InputPlan.order` keeps."""
        mapping = "" if self.mapping is None else self.mapping.order()
        return hashlib.sha256(f"{self.codec}\n{mapping}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Records in merged order; `decoded` None asks for the stream's decoder."""

    records: Records
    decoded: Decoded | None


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows with their times, `NO_EVENT` where they have none, and where they lie."""

    times: I8
    rows: pa.RecordBatch
    places: tuple[I8, I8] | None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A part whose rows were counted; `first_us` is its first time, 0 without any."""

    part: Part
    first_us: int


class Inputs:
    """The files of one plan."""

    def __init__(self, options: StreamOptions, decoder: Decoder) -> None:
        self.options = options
        self.homes: dict[str, str] = dict(options.homes)
        self._decoder = decoder
        self._checked: list[_Checked] = []
        self._sheets = (
            None
            if options.mapping is None
            else SheetReader(options.mapping, options.cities)
        )

    def check(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """Read every part once: order of times, number of rows, homes of devices.

        Raises:
            InputError: times go back, or the rows are not those the plan counted.
        """
        for part in parts:
            self._checked.append(self._check(part))
        return tuple(checked.part for checked in self._checked)

    def _check(self, part: Part) -> _Checked:
        rows, known_rows = 0, 0
        first_us: int | None = None
        last_us = NO_EVENT
        for piece in self._rows(part, _CHUNK_BYTES, light=True):
            valid = piece.times != NO_EVENT
            times = piece.times[valid]
            before = np.concatenate([[last_us], times[:-1]])
            back = np.flatnonzero(times < before[: len(times)])
            if len(back):
                at = int(np.flatnonzero(valid)[back[0]])
                raise InputError(_unsorted(part.path, rows + at, piece, at))
            if len(times):
                first_us = int(times[0]) if first_us is None else first_us
                last_us = int(times[-1])
            known_rows += _rows_before(part, piece)
            self._settle(piece.rows)
            rows += len(piece.times)
        _check_count(part, rows, known_rows)
        return _Checked(replace(part, rows=rows), first_us or 0)

    def _settle(self, rows: pa.RecordBatch) -> None:
        """Note the city of devices seen for the first time."""
        if "city" not in rows.schema.names:
            return
        good = pa.Table.from_batches([rows]).filter(pc.is_null(rows["problem"]))
        pairs = good.select(["device", "city"]).group_by(
            ["device", "city"], use_threads=False
        )
        for pair in pairs.aggregate([]).to_pylist():
            self.homes.setdefault(pair["device"], pair["city"])

    def sources(self) -> list[Sorted]:
        """Return the parts as inputs of a merge, in the plan's order."""
        size = _LOADED_BYTES // max(1, len(self._checked))
        size = max(_CHUNK_BYTES_MIN, min(_CHUNK_BYTES, size))
        sources = []
        for checked in self._checked:
            part = checked.part
            assert part.rows is not None
            sources.append(
                Sorted(
                    part.path,
                    checked.first_us,
                    part.rows - part.start_row,
                    self._opener(checked, size),
                )
            )
        return sources

    def _opener(self, checked: _Checked, size: int) -> Callable[[], Iterator[Chunk]]:
        return lambda: self._chunks(checked, size)

    def _chunks(self, checked: _Checked, size: int) -> Iterator[Chunk]:
        carried_us = checked.first_us
        left = checked.part.start_row
        for piece in self._rows(checked.part, size, light=False):
            times = _carried(piece.times, carried_us)
            carried_us = int(times[-1])
            passed = min(left, len(times))
            left -= passed
            if passed < len(times):
                yield Chunk(times[passed:], piece.rows.slice(passed))

    def batch(
        self, rows: pa.RecordBatch, origin: TopicPartition, offset: int
    ) -> FileBatch:
        """Return merged rows as a batch whose first record has `offset`."""
        records = _records(rows["raw"], origin, offset)
        if "time" not in rows.schema.names:
            return FileBatch(records, None)
        assert self._sheets is not None
        return FileBatch(records, self._sheets.decoded(rows, self.homes))

    # --- by kind ----------------------------------------------------------------------

    def _rows(self, part: Part, size: int, *, light: bool) -> Iterator[_Rows]:
        """Yield all rows of a file; `light` reads no more than placing them needs."""
        kind = kind_of(part.path)
        if kind == "lines":
            for block in blocks(part.path, part.size, size, cut_lines):
                yield self._lines(block)
            return
        mapping, sheets = self.options.mapping, self._sheets
        assert mapping is not None
        assert sheets is not None
        reader: TableReader = (
            CsvReader(part.path, part.size, mapping)
            if kind == "csv"
            else ParquetReader(part.path, mapping)
        )
        for table in reader.pieces(size, light=light):
            sheet = sheets.placed(table.rows) if light else sheets.sheet(table.rows)
            times = np.asarray(sheet["time"].to_numpy())
            yield _Rows(times, sheet, table.places)

    def _lines(self, block: Block) -> _Rows:
        raw = raw_rows(block)
        records = _records(raw, TopicPartition(self.options.stream, 0), 0)
        if self._decoder.missing(records):
            msg = (
                f"codec {self.options.codec!r} needs a schema registry; lines have none"
            )
            raise InputError(msg)
        readings = self._decoder.decode(records).readings
        times = np.full(len(raw), NO_EVENT, np.int64)
        rows = readings["row"].to_numpy()
        first = np.flatnonzero(np.diff(rows, prepend=np.int32(-1)) != 0)
        event_us = readings["event_time"].cast(pa.int64()).to_numpy()
        times[rows[first]] = event_us[first]
        batch = pa.RecordBatch.from_pydict({"raw": raw})
        return _Rows(times, batch, block.places)


def _records(raw: Column, origin: TopicPartition, offset: int) -> Records:
    count = len(raw)
    return Records(
        origin,
        np.arange(offset, offset + count, dtype=np.int64),
        np.full(count, NO_TIME, np.int64),
        Payloads.of_arrow(raw),
        Payloads.nulls(count),
        OffsetSpan(offset, offset + count),
    )


def _carried(times: I8, before_us: int) -> I8:
    """Return times with every gap filled by the time before it."""
    place = np.where(times != NO_EVENT, np.arange(1, len(times) + 1), 0)
    filled = np.concatenate([[before_us], times])
    return np.asarray(filled[np.maximum.accumulate(place)])


def _unsorted(path: str, row: int, piece: _Rows, at: int) -> str:
    where = f"row {row}"
    if piece.places is not None:
        where = f"line {line_at(path, int(piece.places[0][at]))}"
    return (
        f"{path}: {where}: its time is before that of a row above it. Files of a stream "
        "must be sorted by time; local times also go back when clocks do"
    )


def _rows_before(part: Part, piece: _Rows) -> int:
    """Return how many rows lie in the known beginning of a grown file.

    Raises:
        InputError: a row lies across its end.
    """
    if piece.places is None:
        return 0
    starts, stops = piece.places
    inside = int(np.count_nonzero(starts < part.start_byte))
    if inside != np.count_nonzero(stops <= part.start_byte):
        msg = (
            f"{part.path}: changed since it was read; row {part.start_row - 1} does not "
            "end any more where it ended"
        )
        raise InputError(msg)
    return inside


def _check_count(part: Part, rows: int, known_rows: int) -> None:
    if part.rows is not None and part.rows != rows:
        msg = f"{part.path}: {rows} rows, {part.rows} when the last replay began"
        raise InputError(msg)
    if part.start_byte and known_rows != part.start_row:
        msg = (
            f"{part.path}: changed since it was read; the part that was read had "
            f"{part.start_row} rows and has {known_rows} now"
        )
        raise InputError(msg)
