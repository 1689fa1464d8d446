"""The tables of one emission, as Arrow columns built from arrays: no Python object per row."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.definition import Definition
from streamproc.core.payloads import Payloads
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
    TIME,
)
from streamproc.core.series import F8, I4, I8, ClosedWindows
from streamproc.core.series_table import SeriesTable
from streamproc.core.values import (
    NO_TIME,
    PAYLOAD_BYTES_MAX,
    UNKNOWN_CITY,
    AlertTransition,
    Counts,
    Emission,
    OffsetSpan,
    Reason,
    Records,
    Reject,
    TopicPartition,
)
from streamproc.core.windows import LateRows, WindowRows
from streamproc.core.zones import LocalDates
from streamproc.kernels import sketch
from streamproc.kernels import windows_layout as words
from streamproc.kernels.resolve import TIME_US_MAX, TIME_US_MIN, Accepted
from streamproc.kernels.windows_layout import Specs

CLOSE_REASONS = ("watermark", "idle", "final", "late")
WATERMARK, IDLE, FINAL, LATE = range(4)

_ACCEPTED_TYPES = (
    *(np.int32,) * 6,
    np.int64,
    np.float64,
    np.int8,
    np.uint16,
    np.int64,
    np.int64,
)

B1 = npt.NDArray[np.bool_]
Column: TypeAlias = "pa.Array[Any]"


def names(codes: npt.NDArray[np.integer[Any]], dictionary: pa.StringArray) -> Column:
    """Return a dictionary column; codes are ours, so they are not checked again."""
    indices: Any = pa.array(np.ascontiguousarray(codes, np.int32))
    return pa.DictionaryArray.from_arrays(indices, dictionary, safe=False)


def constant(name: str, count: int) -> Column:
    """Return a dictionary column of one name."""
    return names(np.zeros(count, np.int32), pa.array([name], pa.string()))


def times(values: I8, missing: B1 | None = None) -> Column:
    """Return a TIME column of µs, null where `missing`."""
    column = pa.array(np.ascontiguousarray(values), pa.int64(), mask=missing)
    return column.view(TIME)


def days(values: I4) -> Column:
    """Return a date32 column."""
    return pa.array(values, pa.int32()).view(pa.date32())


def numbers(values: npt.NDArray[np.generic], missing: B1 | None = None) -> Column:
    """Return a plain column of the array's own type, null where `missing`."""
    return pa.array(np.ascontiguousarray(values), mask=missing)


def binaries(flat: I8, ends: I8) -> Column:
    """Return a binary column from words; null where a row has none."""
    count = len(ends)
    if not len(flat):
        return pa.nulls(count, pa.binary())
    offsets = np.zeros(count + 1, np.int64)
    offsets[1:] = 8 * ends
    assert offsets[-1] < 1 << 31, "more than 2 GiB of sketches in one step"
    missing = offsets[1:] == offsets[:-1]
    valid = np.packbits(~missing, bitorder="little")
    parts: list[Any] = [valid, offsets.astype(np.int32), flat]
    buffers: list[Any] = [pa.py_buffer(part) for part in parts]
    return pa.Array.from_buffers(pa.binary(), count, buffers)


class Tables:
    """Builds the tables of one partition under one definition."""

    def __init__(
        self,
        origin: TopicPartition,
        definition: Definition,
        zones: Mapping[str, tzinfo],
        series: SeriesTable,
        specs: Specs,
    ) -> None:
        self._origin = origin
        self._source = origin.source
        self._series = series
        self._specs = specs
        slugs = [spec.slug for spec in definition.cities]
        self._dates = LocalDates(slugs, zones)
        self._cities = pa.array([*slugs, UNKNOWN_CITY], pa.string())
        self._unknown = len(slugs)
        kinds = definition.properties
        self._properties = pa.array([spec.property for spec in kinds], pa.string())
        self._units = pa.array([spec.unit for spec in kinds], pa.string())
        self._windows = pa.array(
            [spec.name for spec in definition.windows], pa.string()
        )
        self._close_reasons = pa.array(CLOSE_REASONS, pa.string())
        self._reasons = pa.array([reason.value for reason in Reason], pa.string())
        self._reason_codes = {reason: code for code, reason in enumerate(Reason)}
        # Most steps have none of these, and an empty table costs as much as a short one.
        self._none = {
            schema: pa.RecordBatch.from_pylist([], schema)
            for schema in (ROUTED_LATE, ROUTED_AGGREGATE, ROUTED_QUARANTINE)
        }

    # --- readings ---------------------------------------------------------------------

    def _reading_columns(self, rows: Accepted) -> list[Column]:
        return [
            names(rows.city, self._cities),
            days(self._dates.dates(rows.city, rows.event)),
            names(rows.device, self._series.dictionary()),
            names(rows.property, self._properties),
            times(rows.event),
            numbers(rows.value),
            numbers(rows.quality),
            numbers(rows.flags),
            times(rows.ingest),
            constant(self._source, len(rows.event)),
            numbers(rows.offset),
            numbers(rows.ordinal),
        ]

    def readings(self, rows: Accepted) -> pa.RecordBatch:
        """Return the accepted readings, in (offset, ordinal) order."""
        return pa.RecordBatch.from_arrays(
            self._reading_columns(rows), schema=ROUTED_READING
        )

    def late(self, rows: Accepted, late: LateRows) -> pa.RecordBatch:
        """Return one row per (late reading, window it missed)."""
        if not len(late.row):
            return self._none[ROUTED_LATE]
        missed = Accepted._make(column[late.row] for column in rows)
        start = late.window * self._specs.every[late.spec]
        columns = [
            *self._reading_columns(missed),
            names(late.spec, self._windows),
            times(start),
            numbers(late.behind_us),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=ROUTED_LATE)

    # --- aggregates -------------------------------------------------------------------

    def aggregates(
        self, rows: WindowRows, parts: npt.NDArray[np.uint8], reason: int, part: int = 0
    ) -> pa.RecordBatch:
        """Return window rows as mergeable parts; `parts` is uint8[series, q], n of coverage.

        Final closes are partial: their window had not been passed by the watermark.
        """
        if not len(rows):
            return self._none[ROUTED_AGGREGATE]
        ints, floats, count = rows.ints, rows.floats, len(rows)
        series, spec = ints[words.SERIES], ints[words.SPEC]
        city = self._series.city[series]
        start = ints[words.WINDOW] * self._specs.every[spec]
        valid = ints[words.COUNT]
        none = valid == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = floats[words.M2] / valid
        nth = parts[series, spec].astype(np.float64)
        slots = ints[words.SLOTS].view(np.uint64)
        with np.errstate(invalid="ignore", divide="ignore"):
            coverage = (np.bitwise_count(slots) / nth).astype(np.float32)
        kind = self._series.kind[series]
        columns = [
            names(spec, self._windows),
            names(city, self._cities),
            days(self._dates.dates(city, start)),
            names(self._series.device[series], self._series.dictionary()),
            names(kind, self._properties),
            names(kind, self._units),
            times(start),
            times(start + self._specs.size[spec]),
            numbers(valid),
            numbers(ints[words.INVALID]),
            numbers(floats[words.SUM]),
            numbers(floats[words.MIN], none),
            numbers(floats[words.MAX], none),
            numbers(floats[words.MEAN], none),
            numbers(floats[words.M2]),
            numbers(variance, none),
            numbers(floats[words.FIRST], none),
            times(ints[words.FIRST_US], none),
            numbers(floats[words.LAST], none),
            times(ints[words.LAST_US], none),
            binaries(rows.words, rows.ends),
            numbers(slots),
            numbers(coverage, nth == 0),
            constant(self._source, count),
            numbers(np.full(count, part, np.int64)),
            pa.array(np.full(count, reason == FINAL)),
            names(np.full(count, reason, np.int32), self._close_reasons),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=ROUTED_AGGREGATE)

    def closed(
        self,
        rows: WindowRows,
        parts: npt.NDArray[np.uint8],
        reason: int,
        quantiles: Mapping[int, Sequence[float]],
    ) -> list[ClosedWindows]:
        """Return closed rows as the alert engine takes them: one item a spec that has some.

        `quantiles` by position of the specs that are asked for.
        """
        found = []
        for q, wanted in quantiles.items():
            chosen = np.flatnonzero(rows.ints[words.SPEC] == q)
            if len(chosen):
                some = rows if len(chosen) == len(rows) else rows.take(chosen)
                found.append(self._closed(some, q, parts, reason, wanted))
        return found

    def _closed(
        self,
        rows: WindowRows,
        q: int,
        parts: npt.NDArray[np.uint8],
        reason: int,
        wanted: Sequence[float],
    ) -> ClosedWindows:
        ints, floats, count = rows.ints, rows.floats, len(rows)
        series = ints[words.SERIES].astype(np.int32)
        start = ints[words.WINDOW] * self._specs.every[q]
        none = ints[words.COUNT] == 0
        nth = parts[series, q].astype(np.float64)
        bits = np.bitwise_count(ints[words.SLOTS].view(np.uint64))
        with np.errstate(invalid="ignore", divide="ignore"):
            coverage = np.where(nth > 0, bits / nth, np.nan)
        found = np.full((count, len(wanted)), np.nan)
        if wanted:
            starts = np.concatenate((np.zeros(1, np.int64), rows.ends))
            flat = np.ascontiguousarray(rows.words)
            sketch.quantiles(
                flat,
                flat.view(np.float64),
                flat.view(np.int32),
                starts,
                np.array(wanted, np.float64),
                found,
            )

        def shown(word: int) -> F8:
            return np.where(none, np.nan, floats[word])

        return ClosedWindows(
            window=self._windows[q].as_py(),
            series=series,
            start_us=start,
            end_us=start + self._specs.size[q],
            count=ints[words.COUNT].copy(),
            invalid=ints[words.INVALID].copy(),
            sum=floats[words.SUM].copy(),
            min=shown(words.MIN),
            max=shown(words.MAX),
            mean=shown(words.MEAN),
            m2=floats[words.M2].copy(),
            first=shown(words.FIRST),
            last=shown(words.LAST),
            coverage=coverage,
            quantiles=found,
            offset=rows.offset,
            reason=np.full(count, reason, np.int32),
        )

    # --- quarantine -------------------------------------------------------------------

    def quarantine(
        self, records: Records, rejects: Sequence[Reject], city: int | None
    ) -> pa.RecordBatch:
        """Return one row per refused record, payloads bounded; `city` is the topic's code."""
        if not rejects:
            return self._none[ROUTED_QUARANTINE]
        count = len(rejects)
        rows = np.array([reject.row for reject in rejects], np.int64)
        broker = records.broker_us[rows]
        unknown = broker == NO_TIME
        dated = np.where(unknown, 0, broker).clip(TIME_US_MIN, TIME_US_MAX - 1)
        codes = np.full(count, self._unknown if city is None else city, np.int32)
        # Day 0 where there is no broker time; UTC where there is no city.
        local = (
            (dated // 86_400_000_000).astype(np.int32)
            if city is None
            else self._dates.dates(codes, dated)
        )
        local[unknown] = 0
        payload = [
            None
            if (whole := records.values[row]) is None
            else whole[:PAYLOAD_BYTES_MAX]
            for row in rows.tolist()
        ]
        size = records.values.sizes[rows]
        columns = [
            names(codes, self._cities),
            days(local),
            constant(self._source, count),
            numbers(records.offsets[rows]),
            times(broker, unknown),
            names(
                np.array([self._reason_codes[r.reason] for r in rejects], np.int32),
                self._reasons,
            ),
            pa.array([reject.detail for reject in rejects], pa.string()),
            pa.array(payload, pa.binary()),
            numbers(size),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=ROUTED_QUARANTINE)

    # --- decisions --------------------------------------------------------------------

    def without_records(
        self,
        offset: int,
        aggregates: pa.RecordBatch,
        alerts: tuple[AlertTransition, ...],
        counts: Counts,
    ) -> Emission:
        """Return what a decision before `offset` produced; no record was read for it."""
        none = Accepted._make(np.empty(0, kind) for kind in _ACCEPTED_TYPES)
        empty = np.empty(0, np.int64)
        short = np.empty(0, np.int32)
        records = Records(
            self._origin,
            empty,
            empty,
            Payloads.nulls(0),
            Payloads.nulls(0),
            OffsetSpan(offset, offset),
        )
        return Emission(
            span=records.span,
            readings=self.readings(none),
            aggregates=aggregates,
            late=self.late(none, LateRows(short, short, empty, empty)),
            quarantine=self.quarantine(records, (), None),
            alerts=alerts,
            counts=counts,
        )
