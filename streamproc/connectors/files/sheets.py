"""Rows of tables to readings, whole batches at a time.

A row goes through two stages, because merging lies between them. `SheetReader.sheet` reads
times, values and names of a batch of rows as they stand in their file and notes what is
wrong with a row; `decoded` turns merged sheets into readings and rejects. A row is decoded
whole or refused whole; a missing value gives no reading, and a row without any is decoded
all the same. The ordinal of a reading is the place of its column in the mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from streamproc.connectors.files.mapping import FileMapping
from streamproc.connectors.files.times import NO_EVENT, TimeFormat
from streamproc.connectors.files.untyped import Column, arrow, pc
from streamproc.core.schemas import DECODED, NAME, TIME
from streamproc.core.values import Decoded, Reason, Reject

B1 = npt.NDArray[np.bool_]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

_DETAIL_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class RawRows:
    """Rows as a reader hands them over.

    Attributes:
        columns: name to column; text, or for Parquet any type. Text may be invalid UTF-8
            only in columns of type binary.
        raw: the bytes of each row.
        broken: row to what is wrong with its form; its columns are null.
    """

    columns: Mapping[str, Column]
    raw: Column
    broken: Mapping[int, str] = field(default_factory=dict)


class _Problems:
    """The first thing wrong with each row."""

    def __init__(self, count: int) -> None:
        self._texts: npt.NDArray[np.object_] = np.full(count, None, np.object_)
        self._count = 0

    def add(self, rows: B1, reason: Reason, what: str, column: Column) -> None:
        """Note `reason` for rows that had nothing wrong so far; shows the row's own text."""
        for row in np.flatnonzero(rows).tolist():
            if self._texts[row] is None:
                shown = "" if column is None else f": {_shown(column[row].as_py())}"
                self._texts[row] = f"{reason} {what}{shown}"
                self._count += 1

    def column(self) -> Column:
        """Return one text a row: reason, space, detail; null where nothing is wrong."""
        if not self._count:
            return pa.nulls(len(self._texts), pa.string())
        return arrow.array(self._texts, pa.string())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _DETAIL_CHARS else f"{text[:_DETAIL_CHARS]}…"


class SheetReader:
    """Reads rows with one mapping. Stateless between batches."""

    def __init__(self, mapping: FileMapping, cities: Sequence[str] = ()) -> None:
        self._mapping = mapping
        self._time = TimeFormat(mapping.time_format, mapping.timezone)
        self._cities = arrow.array(list(cities), pa.string())
        self._missing = arrow.array(list(mapping.missing), pa.string())
        self._wide = list(mapping.columns.items())

    def placed(self, rows: RawRows) -> pa.RecordBatch:
        """Return what placing rows needs: `time`, and with a city column also `device`, `city`."""
        problems = _Problems(len(rows.raw))
        columns = self._placing(rows, problems)
        kept: dict[str, Column] = {
            name: columns[name]
            for name in ("time", "device", "city")
            if name in columns
        }
        return pa.RecordBatch.from_pydict({**kept, "problem": problems.column()})

    def sheet(self, rows: RawRows) -> pa.RecordBatch:
        """Return rows with all they hold read, one line each, for `decoded`."""
        problems = _Problems(len(rows.raw))
        for row, what in rows.broken.items():
            broken = np.zeros(len(rows.raw), np.bool_)
            broken[row] = True
            problems.add(broken, Reason.INVALID_ROW, what, None)
        columns = self._placing(rows, problems)
        if "device" not in columns:
            columns["device"] = self._devices(rows, problems)
        if self._wide:
            for at, (name, column) in enumerate(self._wide):
                columns[f"v{at}"] = self._values(rows, name, column.map, problems)
        else:
            columns |= self._long(rows, problems)
        columns["quality"] = self._quality(rows)
        columns["raw"] = rows.raw
        return pa.RecordBatch.from_pydict({**columns, "problem": problems.column()})

    def _placing(self, rows: RawRows, problems: _Problems) -> dict[str, Any]:
        names = self._mapping.time
        texts = [_text(rows, name, problems) for name in names]
        if len(names) == 1 and not _textual(rows.columns[names[0]].type):
            texts = [rows.columns[names[0]]]
        times = self._time.read(texts)
        problems.add(times.absent, Reason.MISSING_FIELD, names[0], None)
        bad = (times.us == NO_EVENT) & ~times.absent
        problems.add(bad, Reason.BAD_TIME, names[0], texts[0])
        columns: dict[str, Any] = {"time": times.us, "flags": times.flags}
        if self._mapping.city is not None:
            columns["device"] = self._devices(rows, problems)
            columns["city"] = self._places(rows, problems)
        return columns

    def _devices(self, rows: RawRows, problems: _Problems) -> Column:
        if self._mapping.device is None:
            fixed = pa.scalar(self._mapping.device_fixed, pa.string())
            return pa.repeat(fixed, len(rows.raw))
        texts = pc.utf8_trim_whitespace(_text(rows, self._mapping.device, problems))
        absent = _mask(pc.fill_null(pc.equal(texts, ""), fill_value=True))
        problems.add(absent, Reason.MISSING_FIELD, self._mapping.device, None)
        return texts

    def _places(self, rows: RawRows, problems: _Problems) -> Column:
        assert self._mapping.city is not None
        texts = pc.utf8_trim_whitespace(_text(rows, self._mapping.city, problems))
        strange = ~_mask(pc.is_in(texts, value_set=self._cities))
        problems.add(strange, Reason.UNKNOWN_CITY, self._mapping.city, texts)
        return texts

    def _long(self, rows: RawRows, problems: _Problems) -> dict[str, Any]:
        mapping = self._mapping
        assert mapping.property is not None
        assert mapping.value is not None
        names = pc.utf8_trim_whitespace(_text(rows, mapping.property, problems))
        absent = _mask(pc.fill_null(pc.equal(names, ""), fill_value=True))
        problems.add(absent, Reason.MISSING_FIELD, mapping.property, None)
        if mapping.properties:
            theirs = arrow.array(list(mapping.properties), pa.string())
            ours = arrow.array(list(mapping.properties.values()), pa.string())
            names = pc.coalesce(ours.take(pc.index_in(names, value_set=theirs)), names)
        columns: dict[str, Any] = {
            "property": names,
            "v0": self._values(rows, mapping.value, None, problems),
        }
        if mapping.unit is not None:
            units = pc.utf8_trim_whitespace(_text(rows, mapping.unit, problems))
            empty = pc.is_in(units, value_set=self._missing)
            columns["unit"] = pc.if_else(empty, pa.scalar(None, pa.string()), units)
        return columns

    def _values(
        self,
        rows: RawRows,
        name: str,
        words: Mapping[str, float] | None,
        problems: _Problems,
    ) -> Column:
        """Return float64, null where the row has no such value."""
        column = rows.columns[name]
        if words is None and _numeric(column.type):
            numbers = column.cast(pa.float64(), safe=False)
            if pa.types.is_floating(column.type):  # pandas writes NaN for missing
                nan = pc.fill_null(pc.is_nan(numbers), fill_value=False)
                numbers = pc.if_else(nan, pa.scalar(None, pa.float64()), numbers)
            missing = _mask(pc.is_null(numbers))
        else:
            column = pc.utf8_trim_whitespace(_text(rows, name, problems))
            gone = pc.is_in(column, value_set=self._missing)
            missing = _mask(pc.or_(pc.is_null(column), gone))
            numbers = self._numbers(column, words)
        finite = _mask(pc.fill_null(pc.is_finite(numbers), fill_value=False))
        problems.add(~finite & ~missing, Reason.BAD_VALUE, name, column)
        usable = arrow.array(finite & ~missing)
        return pc.if_else(usable, numbers, pa.scalar(None, pa.float64()))

    def _numbers(self, texts: Column, words: Mapping[str, float] | None) -> Column:
        if words is not None:
            known = arrow.array(list(words), pa.string())
            values = arrow.array(
                [float(value) for value in words.values()], pa.float64()
            )
            return values.take(pc.index_in(texts, value_set=known))
        if self._mapping.decimal == ",":
            # A point would group thousands; it is refused rather than guessed at.
            dotted = pc.match_substring(texts, ".")
            texts = pc.if_else(dotted, "", pc.replace_substring(texts, ",", "."))
        # Polars gives null where Arrow would refuse the whole column.
        series = pl.Series(values=texts, dtype=pl.String)
        return series.cast(pl.Float64, strict=False).to_arrow()

    def _quality(self, rows: RawRows) -> Column:
        name = self._mapping.validity
        if name is None:
            return pa.repeat(pa.scalar(1, pa.int8()), len(rows.raw))
        texts = pc.utf8_trim_whitespace(_text(rows, name, _Problems(len(rows.raw))))
        valid = pc.is_in(
            texts, value_set=arrow.array(list(self._mapping.valid), pa.string())
        )
        return pc.fill_null(valid, fill_value=False).cast(pa.int8())

    # --- after the merge --------------------------------------------------------------

    def decoded(self, sheet: pa.RecordBatch, homes: Mapping[str, str]) -> Decoded:
        """Return the readings and rejects of merged rows.

        `homes` gives each device its city where the mapping has a city column; a row that
        says another one is refused.
        """
        rejects = _rejects(sheet)
        fine = _mask(pc.is_null(sheet["problem"]))
        if self._mapping.city is not None:
            rejects += _strangers(sheet, fine, homes)
        row, ordinal, values = self._cells(sheet, fine)
        names, units = self._names(sheet, row, ordinal)
        devices = pc.dictionary_encode(sheet["device"].take(arrow.array(row))).cast(
            NAME
        )
        taken = arrow.array(row)
        readings = pa.RecordBatch.from_arrays(
            [
                arrow.array(row.astype(np.int32)),
                arrow.array(ordinal.astype(np.int32)),
                devices,
                names,
                units,
                sheet["time"].take(taken).cast(TIME),
                arrow.array(values),
                sheet["quality"].take(taken),
                sheet["flags"].take(taken),
            ],
            schema=DECODED,
        )
        return Decoded(readings, tuple(sorted(rejects, key=lambda reject: reject.row)))

    def _cells(self, sheet: pa.RecordBatch, fine: B1) -> tuple[I8, I8, F8]:
        count = max(1, len(self._wide))
        table = np.empty((len(fine), count), np.float64)
        for at in range(count):
            column = pc.fill_null(sheet[f"v{at}"], np.nan)
            table[:, at] = column.to_numpy(zero_copy_only=False)
        row, ordinal = np.nonzero(~np.isnan(table) & fine[:, None])
        return row, ordinal, table[row, ordinal]

    def _names(
        self,
        sheet: pa.RecordBatch,
        row: I8,
        ordinal: I8,
    ) -> tuple[Column, Column]:
        """Return property and unit of every reading."""
        if not self._wide:
            taken = arrow.array(row)
            names = pc.dictionary_encode(sheet["property"].take(taken)).cast(NAME)
            if "unit" not in sheet.schema.names:
                return names, pa.nulls(len(row), NAME)
            return names, pc.dictionary_encode(sheet["unit"].take(taken)).cast(NAME)
        columns = [column for _, column in self._wide]
        codes = ordinal.astype(np.int32)
        # Every property of the mapping is named, whether or not this batch has it.
        names = arrow.DictionaryArray.from_arrays(
            arrow.array(codes), arrow.array([column.property for column in columns])
        )
        stated = list(dict.fromkeys(column.unit for column in columns if column.unit))
        code = [stated.index(column.unit) if column.unit else -1 for column in columns]
        unit_codes = np.array(code, np.int32)[codes]
        units = arrow.DictionaryArray.from_arrays(
            arrow.array(unit_codes, mask=unit_codes < 0),
            arrow.array(stated, pa.string()),
        )
        return names, units


def _rejects(sheet: pa.RecordBatch) -> list[Reject]:
    problem = sheet["problem"]
    rows = np.flatnonzero(_mask(pc.is_valid(problem)))
    texts = problem.take(arrow.array(rows)).to_pylist()
    rejects = []
    for row, text in zip(rows.tolist(), texts, strict=True):
        reason, _, detail = str(text).partition(" ")
        rejects.append(Reject(row, Reason(reason), detail))
    return rejects


def _strangers(
    sheet: pa.RecordBatch, fine: B1, homes: Mapping[str, str]
) -> list[Reject]:
    """Refuse rows whose city is not their device's home; takes them out of `fine`."""
    encoded = pc.dictionary_encode(pc.fill_null(sheet["device"], ""))
    home = arrow.array(
        [homes.get(name) for name in encoded.dictionary.to_pylist()], pa.string()
    )
    same = pc.equal(home.take(encoded.indices), sheet["city"])
    strange = fine & ~_mask(pc.fill_null(same, fill_value=False))
    fine &= ~strange
    rejects = []
    for row in np.flatnonzero(strange).tolist():
        device, city = sheet["device"][row].as_py(), sheet["city"][row].as_py()
        detail = f"{_shown(device)} belongs to {homes.get(device)}, not {city}"
        rejects.append(Reject(row, Reason.UNKNOWN_CITY, detail))
    return rejects


# --- columns --------------------------------------------------------------------------


def _mask(column: Any) -> B1:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.bool_).copy()


def _numeric(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def _textual(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_dictionary(kind)
    )


def _text(rows: RawRows, name: str, problems: _Problems) -> Column:
    """Return a column as text; bytes that are no UTF-8 become null and a problem."""
    column = rows.columns[name]
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return column.cast(pa.string())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        pass  # some value is no UTF-8; looked for one by one, this is rare
    texts = [_utf8(value) for value in column.to_pylist()]
    bad = np.array([text is None for text in texts], np.bool_) & _mask(
        pc.is_valid(column)
    )
    problems.add(bad, Reason.BAD_TEXT, name, column)
    return arrow.array(texts, pa.string())


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
