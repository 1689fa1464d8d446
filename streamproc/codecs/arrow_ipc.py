"""Arrow IPC: one stream per record, one row per reading.

Columns device, property (string, plain or dictionary), time (timestamp, or integer in
`time_unit`), value (number), and where they are there unit and quality; others are
ignored. A fault in any row refuses the whole record.

The bytes may be hostile (Arrow's own security model says: validate). So the record is
bounded; what compressed buffers claim to hold is added up before anything is
decompressed; and every array is validated in full. `trusted_producers` validates only
the columns that are read, offsets and indices included.

There are three ways, each for what the one before leaves: streams framed like one that was
read before (`arrow_template`), streams with the usual columns, opened by pyarrow (both read
by `kernels.arrow_columns`, which validates as it reads), and Arrow's own casts for the rest.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.codecs.arrow_content import content_bytes
from streamproc.codecs.arrow_layout import ArrowOptions, Layout, Layouts, tick_limits
from streamproc.codecs.arrow_template import Template, template_of
from streamproc.codecs.columns import I4, I8, Sheet
from streamproc.codecs.strict import UNIT_NS, Refused, name_of, unit_of
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Flag, Reason, Records, Reject
from streamproc.kernels import arrow_columns, arrow_match, bytes_sheet
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX
from streamproc.kernels.bytes_raw import PAD

RECORD_BYTES_MAX: Final = 8 * 1024 * 1024
CONTENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one record, after decompression."""

ENTRIES_MAX: Final = 1 << 20
"""Dictionaries with more entries are left to Arrow."""

TEMPLATES_MAX: Final = 8
"""Framings remembered; each is tried in turn."""
_PATIENCE_MAX: Final = 4095

_READING_BYTES: Final = 32
"""Fewer than a reading takes on the wire, mostly: what room is made for at first."""
_MORE_NAMES: Final = 256
_FAULTS: Final = (
    *(pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError),
    *(MemoryError, OverflowError, NotImplementedError, EOFError, struct.error),
)


_Names = tuple[Sequence[str | None], I4 | None]
"""Names, and for every row the index of its name, -1 for none; None: no row has one."""


@dataclass(frozen=True, slots=True)
class _Table:
    """The readings of one record; arrays with one entry a reading."""

    row: int
    names: Mapping[int, _Names]
    time: I8
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.int8]
    flags: int


class ArrowIpc:
    """`Decoder` of Arrow IPC streams."""

    def __init__(self, options: ArrowOptions | None = None) -> None:
        self._options = options or ArrowOptions()
        self._layouts = Layouts(self._options)
        self._words = np.zeros(
            arrow_columns.COLUMNS * arrow_columns.COLUMN_WORDS, np.int64
        )
        self._codes = np.zeros(ENTRIES_MAX, np.int32)
        self._copy = np.zeros(NAME_BYTES_MAX + PAD, np.uint8)
        self._templates: list[Template] = []
        self._misses, self._patience = 0, 0
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:  # noqa: ARG002  (the port's shape)
        """Return nothing: a stream carries its schema."""
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take no notice: a stream carries its schema."""

    def decode(self, records: Records) -> Decoded:
        """Return readings and rejects of the whole batch."""
        payloads = records.values
        sheet = self._sheet
        sheet.begin(payloads.nbytes // _READING_BYTES + 64)
        tables: list[_Table] = []
        rejects: list[Reject] = []
        whole = pa.py_buffer(payloads.data.data)
        places = zip(payloads.starts.tolist(), payloads.ends.tolist(), strict=True)
        for row, (start, end) in enumerate(places):
            size = end - start
            if start >= 0 and 0 < size <= RECORD_BYTES_MAX:
                if self._match(row, whole.address + start, size):
                    continue
                if self._read(row, whole.slice(start, size)):
                    continue
            try:
                tables.append(self._table(row, payloads[row]))
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
        if tables:
            sheet.extend(_columns(sheet, tables))
        return sheet.decoded(rejects)

    def _read(self, row: int, payload: pa.Buffer) -> bool:
        """Read a record as its buffers lie; False, and nothing read, where `_table` has to."""
        try:
            content = content_bytes(payload)
            if content > CONTENT_BYTES_MAX:
                return False
            with pa.ipc.open_stream(payload) as reader:
                layout = self._layouts.of(reader.schema)
                batch = None if layout is None else next(reader, None)
                if layout is None or batch is None or next(reader, None) is not None:
                    return False
            # Sizes only; the kernel looks at what it reads.
            batch.validate()
            if not self._options.trusted_producers:
                for index in layout.others:
                    batch.column(index).validate(full=True)
            dense = batch.num_rows * arrow_columns.READING_BYTES_MIN > content
            if dense or not layout.describe(batch, self._words):
                return False
        except (Refused, *_FAULTS):
            return False
        if not self._append(layout, self._words, batch.num_rows, row):
            return False
        self._learn(payload, batch.schema, layout)
        return True

    def _match(self, row: int, address: int, size: int) -> bool:
        """Read a record that is framed like one before; False, and nothing read, for others."""
        for template in self._templates:
            rows = template.match(address, size)
            if rows != arrow_match.NO_MATCH:
                return self._append(template.layout, template.words, rows, row)
        return False

    def _learn(self, payload: pa.Buffer, schema: pa.Schema, layout: Layout) -> None:
        """Learn the framing of a record, with less and less zeal if they never repeat."""
        self._misses += 1
        if self._misses <= self._patience:
            return
        self._misses = 0
        template = template_of(payload.to_pybytes(), schema, layout)
        if template is None or any(map(template.same_as, self._templates)):
            self._patience = min(2 * self._patience + 1, _PATIENCE_MAX)
            return
        if len(self._templates) >= TEMPLATES_MAX:
            self._patience = min(2 * self._patience + 1, _PATIENCE_MAX)
            self._templates.clear()
        self._templates.append(template)

    def _append(self, layout: Layout, words: I8, rows: int, row: int) -> bool:
        while True:
            state = arrow_columns.read_columns(
                *(words, layout.rules, rows, row),
                *(self._codes, self._copy, self._sheet.words),
            )
            if state != arrow_columns.FULL:
                return state == arrow_columns.DONE
            self._sheet.reserve(rows, _MORE_NAMES, _MORE_NAMES * NAME_BYTES_MAX)

    def _table(self, row: int, payload: bytes | None) -> "_Table":
        """Return the readings of one record, one or more. Raises `Refused`."""
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        try:
            batch = self._batch(payload)
            names = {
                bytes_sheet.DEVICES: _names(self._required(batch, "device"), "device"),
                bytes_sheet.PROPERTIES: _names(
                    self._required(batch, "property"), "property"
                ),
                bytes_sheet.UNITS: _names(self._column(batch, "unit"), "unit"),
            }
            time, flags = self._time(self._required(batch, "time"))
            value = _doubles(self._required(batch, "value"))
            quality = _qualities(self._column(batch, "quality"), len(value))
        except _FAULTS as error:
            if isinstance(error, MemoryError):
                _have_memory()
            raise Refused(Reason.MALFORMED, f"no Arrow stream: {error}") from error
        return _Table(row, names, time, value, quality, flags)

    def _batch(self, payload: bytes) -> pa.RecordBatch:
        """Return all rows of the stream as one batch."""
        batches = list(self._batches(payload))
        rows = sum(batch.num_rows for batch in batches)
        if rows == 0:
            raise Refused(Reason.EMPTY, "the stream holds no reading")
        if len(batches) == 1:
            return batches[0]
        # Dictionaries may differ from batch to batch; the table unifies them, and believes
        # every index, so that trust in producers does not go as far as this.
        for batch in batches:
            batch.validate(full=True)
        table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
        return table.to_batches()[0]

    def _batches(self, payload: bytes) -> Iterator[pa.RecordBatch]:
        buffer = pa.py_buffer(payload)
        content = content_bytes(buffer)
        if content > CONTENT_BYTES_MAX:
            detail = f"{content} bytes decompressed, at most {CONTENT_BYTES_MAX}"
            raise Refused(Reason.TOO_LARGE, detail)
        with pa.ipc.open_stream(buffer) as reader:
            for batch in reader:
                if batch.num_rows * arrow_columns.READING_BYTES_MIN > content:
                    detail = f"{batch.num_rows} rows in {content} bytes"
                    raise Refused(Reason.MALFORMED, detail)
                if not self._options.trusted_producers:
                    batch.validate(full=True)
                yield batch

    def _column(self, batch: pa.RecordBatch, role: str) -> "pa.Array[Any] | None":
        name = getattr(self._options, role)
        places = batch.schema.get_all_field_indices(name)
        if not places:
            return None
        if len(places) > 1:
            raise Refused(Reason.MALFORMED, f"column {name} comes twice")
        column = batch.column(places[0])
        if self._options.trusted_producers:
            column.validate(full=True)
        return column

    def _required(self, batch: pa.RecordBatch, role: str) -> "pa.Array[Any]":
        column = self._column(batch, role)
        if column is None:
            detail = f"column {getattr(self._options, role)} is missing"
            raise Refused(Reason.MISSING_FIELD, detail)
        return column

    def _time(self, column: "pa.Array[Any]") -> tuple[I8, int]:
        flags = 0
        _without_nulls(column, "time")
        if pa.types.is_timestamp(column.type):
            unit_ns = UNIT_NS[column.type.unit]
            if column.type.tz is None:
                if self._options.assume_zone != "UTC":
                    raise Refused(Reason.BAD_TIME, "time has no zone")
                flags = int(Flag.TZ_ASSUMED)
        elif pa.types.is_integer(column.type):
            unit_ns = UNIT_NS[self._options.time_unit]
        else:
            raise Refused(Reason.WRONG_TYPE, f"time has type {column.type}")
        try:
            ticks = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise Refused(Reason.BAD_TIME, f"time: {error}") from error
        low, high = tick_limits(unit_ns)
        if ((ticks < low) | (ticks >= high)).any():
            raise Refused(Reason.BAD_TIME, "a time is outside the years 1 to 9999")
        if unit_ns < UNIT_NS["us"]:
            return ticks // UNIT_NS["us"], flags
        return ticks * (unit_ns // UNIT_NS["us"]), flags


def _have_memory() -> None:
    """Tell a record that asks for more than any may from a process that has none left.

    Raises:
        MemoryError: there is no room for the largest record that is read.
    """
    bytearray(CONTENT_BYTES_MAX)


def _without_nulls(column: "pa.Array[Any]", what: str) -> None:
    if column.null_count:
        detail = f"{what} is missing in {column.null_count} rows"
        raise Refused(Reason.MISSING_FIELD, detail)


def _doubles(column: "pa.Array[Any]") -> npt.NDArray[np.float64]:
    _without_nulls(column, "value")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise Refused(Reason.WRONG_TYPE, f"value has type {column.type}")
    doubles = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if not np.isfinite(doubles).all():
        raise Refused(Reason.BAD_VALUE, "a value is not finite")
    return doubles


def _qualities(column: "pa.Array[Any] | None", count: int) -> npt.NDArray[np.int8]:
    if column is None:
        return np.ones(count, np.int8)
    if not pa.types.is_integer(column.type):
        raise Refused(Reason.WRONG_TYPE, f"quality has type {column.type}")
    try:
        marks = column.cast(pa.int8())
    except pa.ArrowInvalid as error:
        raise Refused(Reason.BAD_VALUE, f"quality: {error}") from error
    return marks.fill_null(1).to_numpy(zero_copy_only=False)


def _names(column: "pa.Array[Any] | None", what: str) -> _Names:
    """Return the checked names in use and each row's index into them, -1 for none."""
    if column is None:
        return (), None
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = cast("pa.DictionaryType[Any, Any]", kind).value_type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        raise Refused(Reason.WRONG_TYPE, f"{what} has type {column.type}")
    # Through plain strings, so that only names in use count, and each once.
    encoded = column.cast(pa.string()).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if what == "unit":
        names = [unit_of(name) for name in names]
    else:
        _without_nulls(encoded, what)
        names = [name_of(name, what) for name in names]
    return names, encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def _columns(sheet: Sheet, tables: Sequence[_Table]) -> list[npt.NDArray[Any]]:
    """Return all readings as the sheet's columns."""
    counts = [len(table.time) for table in tables]
    rows = np.array([table.row for table in tables], np.int32)
    flags = np.array([table.flags for table in tables], np.uint16)
    return [
        np.repeat(rows, counts),
        np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        _codes(sheet, bytes_sheet.DEVICES, tables),
        _codes(sheet, bytes_sheet.PROPERTIES, tables),
        _codes(sheet, bytes_sheet.UNITS, tables),
        np.concatenate([table.time for table in tables]),
        np.concatenate([table.value for table in tables]),
        np.concatenate([table.quality for table in tables]),
        np.repeat(flags, counts),
    ]


def _codes(sheet: Sheet, kind: int, tables: Sequence[_Table]) -> I4:
    """Return the sheet's code of every row's name, -1 where there is none."""
    given = [table.names[kind] for table in tables]
    codes = sheet.codes(kind, [name for names, _ in given for name in names])
    columns = []
    base = 0
    for table, (names, indices) in zip(tables, given, strict=True):
        # Index -1 finds the -1 behind the record's own codes.
        own = np.append(codes[base : base + len(names)], np.int32(-1))
        base += len(names)
        columns.append(
            np.full(len(table.time), -1, np.int32) if indices is None else own[indices]
        )
    return np.concatenate(columns)
