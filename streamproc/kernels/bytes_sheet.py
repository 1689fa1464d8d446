"""Where the wire kernels write readings: one sheet of columns, three tables of names.

A sheet is an array of int64 words handed around as one address: the addresses of the
nine columns of `core.schemas.DECODED`, their capacity and count, three name-table
descriptors (`bytes_dict`), and `SEEN`, one int64 per property code that remembers where
in the present record the property was met. `streamproc.codecs.columns.Sheet` owns the
memory; it grows between records, never within one.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

import numpy as np

from streamproc.kernels._jit import inlined
from streamproc.kernels.bytes_dict import (
    BITS,
    DATA_END,
    DATA_SIZE,
    ENTRIES,
    expect,
)
from streamproc.kernels.bytes_dict import COUNT as NAMES
from streamproc.kernels.bytes_dict import WORDS as TABLE_WORDS
from streamproc.kernels.bytes_raw import (
    int64,
    load_i32,
    load_i64,
    store_f64,
    store_i8,
    store_i32,
    store_i64,
    store_u16,
)

ROW, ORDINAL, DEVICE, PROPERTY, UNIT, TIME, VALUE, QUALITY, FLAGS = range(9)
CAPACITY = 9
COUNT = 10
SEEN = 11
DEVICES = 16
PROPERTIES = 24
UNITS = 32
WORDS = 40

NO_UNIT = -1
MEMBER_BYTES_MIN = 3
"""A further reading takes at least this many bytes of a record in every wire format.

In Avro's map of int: the length of a name, its one byte, a number below 64."""

AHEAD = 6
"""So many records before its turn, a device's slot is fetched: from memory, with many devices."""

ORDINAL_BITS = 20
"""A record of at most 64 KiB holds fewer readings than this many bits can count."""


@inlined
def _room_of(table: int) -> tuple[int, int]:
    """Return how many more names, and of how many bytes together, a table takes."""
    entries = min(load_i64(table + 8 * ENTRIES), (1 << load_i64(table + 8 * BITS)) // 2)
    return (
        entries - load_i64(table + 8 * NAMES),
        load_i64(table + 8 * DATA_SIZE) - load_i64(table + 8 * DATA_END),
    )


@inlined
def room(sheet: int) -> tuple[int, int]:
    """Return how many readings, of records of how many bytes together, have room for certain.

    So a kernel asks once for many records, and counts down (`admitted`).
    """
    readings = load_i64(sheet + 8 * CAPACITY) - load_i64(sheet + 8 * COUNT)
    size = int64(1) << 62
    for table in range(sheet + 8 * DEVICES, sheet + 8 * WORDS, 8 * TABLE_WORDS):
        entries, free = _room_of(table)
        readings = min(readings, entries)
        size = min(size, free)
    return readings, size


@inlined
def readings_of(size: int) -> int:
    """Return how many readings, and names of each kind, a record of `size` bytes may hold."""
    return size // MEMBER_BYTES_MIN + 2


@inlined
def admitted(
    sheet: int, size: int, key_size: int, readings: int, free: int
) -> tuple[int, int]:
    """Return what is left of `room` once a record has taken what it may: negative, no room.

    It may take its bytes and those of its key, and `readings_of` so many.
    """
    needed = readings_of(size)
    taken = size + key_size
    if needed > readings or taken > free:
        readings, free = room(sheet)
        if needed > readings or taken > free:
            return int64(-1), int64(-1)
    return readings - needed, free - taken


@inlined
def expect_device(sheet: int, at: int, end: int, offset: int, size: int) -> None:
    """Guess that a record names its device where the one before did, to have it ready."""
    if offset + size < end - at:
        expect(sheet + 8 * DEVICES, at + offset, size)


@inlined
def put(sheet: int, code: int, unit: int, value: float) -> None:
    """Append one reading of property `code`; `finish` gives it the rest."""
    count = load_i64(sheet + 8 * COUNT)
    store_i32(load_i64(sheet + 8 * PROPERTY) + 4 * count, np.int32(code))
    store_i32(load_i64(sheet + 8 * UNIT) + 4 * count, np.int32(unit))
    store_f64(load_i64(sheet + 8 * VALUE) + 8 * count, value)
    store_i64(sheet + 8 * COUNT, count + 1)


@inlined
def first_time_here(sheet: int, row: int, code: int, ordinal: int) -> bool:
    """Note that property `code` is reading `ordinal` of `row`; False if it already was met."""
    place = load_i64(sheet + 8 * SEEN) + 8 * code
    if load_i64(place) >> ORDINAL_BITS == row:
        return False
    store_i64(place, (row << ORDINAL_BITS) | ordinal)
    return True


@inlined
def set_unit(sheet: int, first: int, row: int, code: int, unit: int) -> bool:
    """Give the reading of property `code` in `row` its unit; False if it has one already.

    A property the record has no value for is ignored. `first` is the index of the
    record's first reading.
    """
    seen = load_i64(load_i64(sheet + 8 * SEEN) + 8 * code)
    if seen >> ORDINAL_BITS != row:
        return True
    place = first + (seen & ((1 << ORDINAL_BITS) - 1))
    address = load_i64(sheet + 8 * UNIT) + 4 * place
    if load_i32(address) != NO_UNIT:
        return False
    store_i32(address, np.int32(unit))
    return True


@inlined
def finish(
    sheet: int, first: int, row: int, device: int, time: int, quality: int, flags: int
) -> None:
    """Fill the columns that all readings of one record, from index `first` on, share."""
    rows = load_i64(sheet + 8 * ROW)
    ordinals = load_i64(sheet + 8 * ORDINAL)
    devices = load_i64(sheet + 8 * DEVICE)
    times = load_i64(sheet + 8 * TIME)
    qualities = load_i64(sheet + 8 * QUALITY)
    marks = load_i64(sheet + 8 * FLAGS)
    for k in range(first, load_i64(sheet + 8 * COUNT)):
        store_i32(rows + 4 * k, np.int32(row))
        store_i32(ordinals + 4 * k, np.int32(k - first))
        store_i32(devices + 4 * k, np.int32(device))
        store_i64(times + 8 * k, time)
        store_i8(qualities + k, np.int8(quality))
        store_u16(marks + 2 * k, np.uint16(flags))
