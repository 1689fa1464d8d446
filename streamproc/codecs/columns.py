"""The columns a decoder fills: by kernels in place, by the strict path row by row."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.codecs.strict import Reading
from streamproc.core.payloads import Payloads
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, Ignored, Reject
from streamproc.kernels import bytes_dict, bytes_sheet
from streamproc.kernels.bytes_raw import PAD

U1 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
B1 = npt.NDArray[np.bool_]

_COLUMN_TYPES: Final = tuple(
    np.dtype(kind) for kind in ("i4", "i4", "i4", "i4", "i4", "i8", "f8", "i1", "u2")
)
_TABLES: Final = (bytes_sheet.DEVICES, bytes_sheet.PROPERTIES, bytes_sheet.UNITS)
_COLUMN_OF: Final = {
    bytes_sheet.DEVICES: bytes_sheet.DEVICE,
    bytes_sheet.PROPERTIES: bytes_sheet.PROPERTY,
    bytes_sheet.UNITS: bytes_sheet.UNIT,
}
_ENTRIES_MIN: Final = 256

NAMES_MAX: Final = 1 << 21
"""Most names a table keeps from batch to batch: bounds what a flood of names can cost."""


class _Names:
    """One name table: `words` is its descriptor inside the sheet, the rest its memory."""

    def __init__(self, words: I8, entries: int, size: int) -> None:
        self.words = words
        self._allocate(entries, size)

    def _allocate(self, entries: int, size: int) -> None:
        bits = max(4, (2 * entries - 1).bit_length())
        self._slots = np.zeros(bytes_dict.SLOT_BYTES << bits, np.uint8)
        self.offsets = np.zeros(entries + 1, np.int32)
        self.data = np.zeros(size + PAD, np.uint8)
        addresses = (self._slots.ctypes.data, self.offsets.ctypes.data)
        self.words[:] = (
            *(addresses[0], bits, addresses[1], entries),
            *(self.data.ctypes.data, size, 0, 0),
        )

    def __len__(self) -> int:
        return int(self.words[bytes_dict.COUNT])

    def reserve(self, entries: int, size: int) -> None:
        """Have room for that many more names and bytes, doubling at least."""
        used, end = len(self), int(self.words[bytes_dict.DATA_END])
        old = (self.words.copy(), self._slots, self.offsets, self.data)
        capacity, room = int(old[0][bytes_dict.ENTRIES]), len(self.data) - PAD
        if used + entries > capacity:
            capacity = max(used + entries, 2 * capacity)
        elif end + size <= room:
            return
        if end + size > room:
            room = max(end + size, 2 * room)
        self._allocate(capacity, room)
        bytes_dict.rehash(old[0], self.words)

    def intern(self, names: Payloads) -> I4:
        """Return the code of each name, int32[n], -1 for null."""
        codes = np.empty(len(names.starts), np.int32)
        self.reserve(len(names.starts), len(names.data))
        done = bytes_dict.intern_names(
            names.data, names.starts, names.ends, self.words, codes
        )
        assert done == len(codes)
        return codes

    def strings(self) -> pa.StringArray:
        """Return the names by code."""
        count, end = len(self), int(self.words[bytes_dict.DATA_END])
        return pa.StringArray.from_buffers(
            count,
            pa.py_buffer(self.offsets[: count + 1].data),
            pa.py_buffer(self.data[:end].data),
        )


class Sheet:
    """A decoder's memory: the name tables it keeps, and the readings of the batch in hand.

    `words` is what kernels take. Rows come in any order; `decoded` sorts them. Codes of names
    hold from batch to batch until a table is as large as it may get; then all begin anew.
    """

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self.words: I8 = np.zeros(bytes_sheet.WORDS, np.int64)
        self._names_max = names_max
        self._columns: list[npt.NDArray[Any]] = []
        self._seen = np.zeros(0, np.int64)
        self._forget()
        self.begin(1)

    def _forget(self) -> None:
        self.vocabulary = object()
        self._names = {
            table: _Names(
                self.words[table : table + bytes_dict.WORDS],
                _ENTRIES_MIN,
                32 * _ENTRIES_MIN,
            )
            for table in _TABLES
        }

    def begin(self, readings: int) -> None:
        """Begin a batch of about so many readings; what was handed over before is let go."""
        if any(len(names) > self._names_max for names in self._names.values()):
            self._forget()
        self._columns = []
        self.words[bytes_sheet.COUNT] = 0
        self._seen[:] = -1
        self._reserve_seen()
        self._allocate(max(readings, 1))

    def grow(self, size: int) -> None:
        """Have room for any record of `size` bytes (see `bytes_sheet.admitted`)."""
        readings = size // bytes_sheet.MEMBER_BYTES_MIN + 2
        self.reserve(readings, readings, size + bytes_dict.NAME_BYTES_MAX + 1)

    def reserve(self, readings: int, names: int, size: int) -> None:
        """Have room for so many more readings, and new names of each kind of `size` bytes."""
        for table in self._names.values():
            table.reserve(names, size)
        self._reserve_seen()
        count, capacity = len(self), len(self._columns[0])
        if count + readings > capacity:
            self._allocate(max(2 * capacity, count + readings))

    def __len__(self) -> int:
        return int(self.words[bytes_sheet.COUNT])

    def _allocate(self, capacity: int) -> None:
        columns = [np.empty(capacity, kind) for kind in _COLUMN_TYPES]
        for new, old in zip(columns, self._columns, strict=False):
            new[: len(self)] = old[: len(self)]
        self._columns = columns
        self.words[: len(columns)] = [column.ctypes.data for column in columns]
        self.words[bytes_sheet.CAPACITY] = capacity

    def _reserve_seen(self) -> None:
        names = self._names[bytes_sheet.PROPERTIES]
        entries = int(names.words[bytes_dict.ENTRIES])
        if len(self._seen) < entries:
            seen = np.full(entries, -1, np.int64)
            seen[: len(self._seen)] = self._seen
            self._seen = seen
            self.words[bytes_sheet.SEEN] = seen.ctypes.data

    def add(self, rows: Sequence[tuple[int, Sequence[Reading]]]) -> None:
        """Append the readings of strictly decoded records, given as (row, readings)."""
        flat = [reading for _, readings in rows for reading in readings]
        if not flat:
            return
        counts = [len(readings) for _, readings in rows]
        numbers = np.array([row for row, _ in rows], np.int32)
        ordinals = [k for count in counts for k in range(count)]
        device, property_, unit, time, value, quality, flags = zip(*flat, strict=True)
        self.extend(
            [
                np.repeat(numbers, counts),
                np.array(ordinals, np.int32),
                self.codes(bytes_sheet.DEVICES, device),
                self.codes(bytes_sheet.PROPERTIES, property_),
                self.codes(bytes_sheet.UNITS, unit),
                np.array(time, np.int64),
                np.array(value, np.float64),
                np.array(quality, np.int8),
                np.array(flags, np.uint16),
            ]
        )

    def codes(self, table: int, names: Iterable[str | None]) -> I4:
        """Return the code of each name, -1 for None; the names are already checked."""
        column = pa.array(names, pa.string()).cast(pa.binary())
        codes = self._names[table].intern(Payloads.of_arrow(column))
        self._reserve_seen()
        return codes

    def extend(self, columns: Sequence[npt.NDArray[Any]]) -> None:
        """Append whole columns in the order and types of `DECODED`'s storage."""
        count, more = len(self), len(columns[0])
        if count + more > len(self._columns[0]):
            self._allocate(max(2 * count, count + more))
        for target, column in zip(self._columns, columns, strict=True):
            target[count : count + more] = column
        self.words[bytes_sheet.COUNT] = count + more

    def decoded(
        self, rejects: Iterable[Reject], ignored: Iterable[Ignored] = ()
    ) -> Decoded:
        """Return the batch: readings by (row, ordinal), rejects by row, ignored as given."""
        count = len(self)
        columns = [column[:count] for column in self._columns]
        rows = columns[bytes_sheet.ROW]
        if count and bool(np.any(rows[1:] < rows[:-1])):
            # Ordinals of one row are already ascending, and the sort is stable.
            order = np.argsort(rows, kind="stable")
            columns = [column[order] for column in columns]
        arrays: list[Any] = [pa.array(column) for column in columns]
        for table, names in self._names.items():
            place = _COLUMN_OF[table]
            arrays[place] = _dictionary(columns[place], names.strings())
        arrays[bytes_sheet.TIME] = arrays[bytes_sheet.TIME].cast(
            DECODED.field("event_time").type
        )
        # `DECODED` has its columns in the sheet's order.
        readings = pa.RecordBatch.from_arrays(arrays, schema=DECODED)
        rejects = tuple(sorted(rejects, key=lambda reject: reject.row))
        return Decoded(readings, rejects, self.vocabulary, tuple(ignored))


def _dictionary(codes: I4, names: pa.StringArray) -> "pa.Array[Any]":
    absent = codes < 0
    mask = absent if absent.any() else None
    return pa.DictionaryArray.from_arrays(codes, names, mask=mask, safe=False)
