"""Arrow columns of one record to readings, straight from the buffers they lie in.

A column arrives as words: addresses of its buffers, *and their sizes*, which are the only
thing believed. Offsets, indices, null counts and text come from the wire and are checked
before they are used. Whatever is out of the ordinary is doubtful, and the record is left to
`streamproc.codecs.arrow_ipc`, nothing of it written.

A dictionary is looked at once: the names the rows refer to get their codes, the others are
only checked to be UTF-8.
"""

# ruff: noqa: PLR2004, PLR0917, PLR1714, SIM109  (sizes of the format; a set is no kernel type; flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX, NO_ROOM, code_of, is_utf8
from streamproc.kernels.bytes_raw import (
    I4,
    I8,
    PAD,
    U1,
    copy_bytes,
    int64,
    load_f32,
    load_f64,
    load_i8,
    load_i16,
    load_i32,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    store_f64,
    store_i8,
    store_i32,
    store_i64,
    store_u16,
)
from streamproc.kernels.bytes_sheet import (
    CAPACITY,
    COUNT,
    DEVICES,
    FLAGS,
    NO_UNIT,
    ORDINAL,
    PROPERTIES,
    QUALITY,
    ROW,
    TIME,
    UNIT,
    UNITS,
    VALUE,
)
from streamproc.kernels.bytes_sheet import DEVICE as DEVICE_CODE
from streamproc.kernels.bytes_sheet import PROPERTY as PROPERTY_CODE

# The columns of a record, in this order.
DEVICE_AT, PROPERTY_AT, UNIT_AT, TIME_AT, VALUE_AT, QUALITY_AT = range(6)
COLUMNS = 6

# Words of a column. ENTRIES: of its dictionary. OFFSETS and TEXT: of the dictionary, or
# of the rows where there is none. OFFSET_BYTES: of one offset, 4 or 8. OPTIONAL: whether
# a row may have none; an empty text is none then, too.
KIND, VALIDITY, VALIDITY_SIZE, NULLS, DATA, DATA_SIZE = range(6)
ENTRIES, OFFSETS, OFFSETS_SIZE, OFFSET_BYTES, TEXT, TEXT_SIZE, OPTIONAL = range(6, 13)
COLUMN_WORDS = 13

# Kinds: what DATA holds; ABSENT: no such column; PLAIN: names without a dictionary.
ABSENT, PLAIN, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, FLOAT, DOUBLE = range(
    11
)

# Words of the rules. A time is multiplied by FACTOR, then divided by DIVISOR, floored.
TIME_LOW, TIME_HIGH, TIME_FACTOR, TIME_DIVISOR, TIME_FLAGS = range(5)
RULES = 5

DONE, DOUBTFUL, FULL = range(3)
ROWS_MAX = 1 << 30
"""More rows or entries than any buffer holds: counts up to here cannot overflow."""

READING_BYTES_MIN = 8
"""A stream that claims more rows than its content has room for at this much is refused."""

_UNKNOWN = -3
_OVERREAD = 32
"""A name is read up to so many bytes beyond its end."""


@inlined
def _width(kind: int) -> int:
    """Return the bytes of one value."""
    if kind == INT8 or kind == UINT8:
        return 1
    if kind == INT16 or kind == UINT16:
        return 2
    return 8 if kind == INT64 or kind == DOUBLE else 4


@inlined
def _integer(kind: int, data: int, k: int) -> int:
    """Return integer `k` of a column of one of the integer kinds."""
    if kind == INT32:
        return int64(load_i32(data + 4 * k))
    if kind == INT8:
        return int64(load_i8(data + k))
    if kind == INT64:
        return load_i64(data + 8 * k)
    if kind == INT16:
        return int64(load_i16(data + 2 * k))
    if kind == UINT8:
        return int64(load_u8(data + k))
    if kind == UINT16:
        return int64(load_u16(data + 2 * k))
    return int64(load_u32(data + 4 * k))


@inlined
def _is_null(validity: int, k: int) -> bool:
    return validity != 0 and (load_u8(validity + (k >> 3)) >> (k & 7)) & 1 == 0


@kernel
def _sound(column: int, rows: int) -> bool:
    """Tell whether a column has its data for all rows, and exactly the nulls it claims."""
    kind = load_i64(column + 8 * KIND)
    if kind != PLAIN and load_i64(column + 8 * DATA_SIZE) < rows * _width(kind):
        return False
    validity = load_i64(column + 8 * VALIDITY)
    if validity == 0:
        return load_i64(column + 8 * NULLS) == 0
    if (
        load_i64(column + 8 * OPTIONAL) == 0
        or load_i64(column + 8 * VALIDITY_SIZE) < (rows + 7) // 8
    ):
        return False
    nulls = int64(0)
    for k in range(rows):
        nulls += _is_null(validity, k)
    return nulls == load_i64(column + 8 * NULLS)


@inlined
def _offset(column: int, k: int) -> int:
    offsets = load_i64(column + 8 * OFFSETS)
    if load_i64(column + 8 * OFFSET_BYTES) == 4:
        return int64(load_i32(offsets + 4 * k))
    return load_i64(offsets + 8 * k)


@kernel
def _offsets_ascend(column: int, count: int) -> bool:
    """Tell whether `count` texts lie one after the other inside the text buffer."""
    size = load_i64(column + 8 * OFFSETS_SIZE)
    if count == 0 and size == 0:
        return True
    if count > ROWS_MAX or size < (count + 1) * load_i64(column + 8 * OFFSET_BYTES):
        return False
    before = _offset(column, 0)
    ascending = before >= 0
    for k in range(1, count + 1):
        offset = _offset(column, k)
        ascending &= offset >= before
        before = offset
    return ascending and before <= load_i64(column + 8 * TEXT_SIZE)


@inlined
def _code(column: int, k: int, table: int, copy: int) -> int:
    """Return the code of text `k`, < -1 or `NOT_A_NAME` where it gets none; `copy` is free."""
    start = _offset(column, k)
    size = _offset(column, k + 1) - start
    at = load_i64(column + 8 * TEXT) + start
    if start + size + _OVERREAD > load_i64(column + 8 * TEXT_SIZE):
        if size > NAME_BYTES_MAX:
            return -1
        copy_bytes(copy, at, size)
        at = copy
    return code_of(table, at, size)


@inlined
def _empty(column: int, k: int) -> bool:
    return _offset(column, k) == _offset(column, k + 1)


@kernel
def _plain_names(
    column: int,
    rows: int,
    table: int,
    out: int,
    copy: int,
) -> int:
    """Write the code of every row's name; an empty or absent unit has none."""
    optional = load_i64(column + 8 * OPTIONAL) != 0
    validity = load_i64(column + 8 * VALIDITY)
    if not _offsets_ascend(column, rows):
        return DOUBTFUL
    for k in range(rows):
        code = int64(NO_UNIT)
        if _is_null(validity, k):
            start = _offset(column, k)
            text = load_i64(column + 8 * TEXT) + start
            if not is_utf8(text, _offset(column, k + 1) - start):
                return DOUBTFUL
        elif not (optional and _empty(column, k)):
            code = _code(column, k, table, copy)
            if code < 0:
                return FULL if code == NO_ROOM else DOUBTFUL
        store_i32(out + 4 * k, np.int32(code))
    return DONE


@kernel
def _coded_names(
    column: int,
    rows: int,
    table: int,
    out: int,
    copy: int,
    codes: int,
) -> int:
    """The same through a dictionary; `codes` has room for one int32 an entry."""
    kind = load_i64(column + 8 * KIND)
    validity = load_i64(column + 8 * VALIDITY)
    data = load_i64(column + 8 * DATA)
    entries = load_i64(column + 8 * ENTRIES)
    optional = load_i64(column + 8 * OPTIONAL) != 0
    if not _offsets_ascend(column, entries):
        return DOUBTFUL
    for k in range(entries):
        store_i32(codes + 4 * k, np.int32(_UNKNOWN))
    for k in range(rows):
        if _is_null(validity, k):
            store_i32(out + 4 * k, np.int32(NO_UNIT))
            continue
        index = _integer(kind, data, k)
        if index < 0 or index >= entries:
            return DOUBTFUL
        code = int64(load_i32(codes + 4 * index))
        if code == _UNKNOWN:
            code = int64(NO_UNIT)
            if not (optional and _empty(column, index)):
                code = _code(column, index, table, copy)
                if code < 0:
                    return FULL if code == NO_ROOM else DOUBTFUL
            store_i32(codes + 4 * index, np.int32(code))
        store_i32(out + 4 * k, np.int32(code))
    for k in range(entries):
        if load_i32(codes + 4 * k) == _UNKNOWN:
            start = _offset(column, k)
            text = load_i64(column + 8 * TEXT) + start
            if not is_utf8(text, _offset(column, k + 1) - start):
                return DOUBTFUL
    return DONE


@inlined
def _names(
    column: int,
    rows: int,
    table: int,
    out: int,
    copy: int,
    codes: int,
) -> int:
    kind = load_i64(column + 8 * KIND)
    if kind == ABSENT:
        for k in range(rows):
            store_i32(out + 4 * k, np.int32(NO_UNIT))
        return DONE
    if not _sound(column, rows):
        return DOUBTFUL
    if kind == PLAIN:
        return _plain_names(column, rows, table, out, copy)
    return _coded_names(column, rows, table, out, copy, codes)


@kernel
def _times(column: int, rows: int, rules: int, out: int) -> bool:
    if not _sound(column, rows):
        return False
    kind = load_i64(column + 8 * KIND)
    data = load_i64(column + 8 * DATA)
    low, high = load_i64(rules + 8 * TIME_LOW), load_i64(rules + 8 * TIME_HIGH)
    factor = load_i64(rules + 8 * TIME_FACTOR)
    divisor = load_i64(rules + 8 * TIME_DIVISOR)
    good = True
    for k in range(rows):
        ticks = _integer(kind, data, k)
        good &= (ticks >= low) & (ticks < high)
        time = ticks * factor
        store_i64(out + 8 * k, time if divisor == 1 else time // divisor)
    return good


@kernel
def _values(column: int, rows: int, out: int) -> bool:
    if not _sound(column, rows):
        return False
    kind = load_i64(column + 8 * KIND)
    data = load_i64(column + 8 * DATA)
    good = True
    for k in range(rows):
        if kind == DOUBLE:
            value = load_f64(data + 8 * k)
        elif kind == FLOAT:
            value = np.float64(load_f32(data + 4 * k))
        else:
            value = np.float64(_integer(kind, data, k))
        good &= np.isfinite(value)
        store_f64(out + 8 * k, value)
    return good


@kernel
def _qualities(column: int, rows: int, out: int) -> bool:
    kind = load_i64(column + 8 * KIND)
    if kind == ABSENT:
        for k in range(rows):
            store_i8(out + k, np.int8(1))
        return True
    if not _sound(column, rows):
        return False
    data = load_i64(column + 8 * DATA)
    validity = load_i64(column + 8 * VALIDITY)
    good = True
    for k in range(rows):
        quality = int64(1) if _is_null(validity, k) else _integer(kind, data, k)
        good &= (quality >= -128) & (quality <= 127)
        store_i8(out + k, np.int8(quality))
    return good


@kernel
def _shared(sheet: int, first: int, rows: int, row: int, flags: int) -> None:
    """Write the columns whose content is known beforehand."""
    numbers = load_i64(sheet + 8 * ROW) + 4 * first
    ordinals = load_i64(sheet + 8 * ORDINAL) + 4 * first
    marks = load_i64(sheet + 8 * FLAGS) + 2 * first
    for k in range(rows):
        store_i32(numbers + 4 * k, np.int32(row))
    for k in range(rows):
        store_i32(ordinals + 4 * k, np.int32(k))
    for k in range(rows):
        store_u16(marks + 2 * k, np.uint16(flags))


@inlined
def _all_names(
    base: int, rows: int, sheet: int, first: int, copy: int, codes: int
) -> int:
    out = load_i64(sheet + 8 * DEVICE_CODE) + 4 * first
    column = base + 8 * COLUMN_WORDS * DEVICE_AT
    state = _names(column, rows, sheet + 8 * DEVICES, out, copy, codes)
    if state == DONE:
        out = load_i64(sheet + 8 * PROPERTY_CODE) + 4 * first
        column = base + 8 * COLUMN_WORDS * PROPERTY_AT
        state = _names(column, rows, sheet + 8 * PROPERTIES, out, copy, codes)
    if state == DONE:
        out = load_i64(sheet + 8 * UNIT) + 4 * first
        column = base + 8 * COLUMN_WORDS * UNIT_AT
        state = _names(column, rows, sheet + 8 * UNITS, out, copy, codes)
    return state


@kernel
def read_columns(
    columns: I8, rules: I8, rows: int, row: int, codes: I4, copy: U1, sheet: I8
) -> int:
    """Append the readings of record `row`; return `DONE`, `DOUBTFUL`, or `FULL`: no room.

    Args:
        columns: int64[COLUMNS * COLUMN_WORDS].
        rules: int64[RULES].
        rows: readings in the record.
        row: the record's number.
        codes: int32, scratch of one an entry of the largest dictionary.
        copy: uint8[NAME_BYTES_MAX + PAD], scratch.
        sheet: int64[bytes_sheet.WORDS], where readings go.
    """
    # An address is unsigned to numba, and with a signed one becomes a double.
    base, place = int64(columns.ctypes.data), int64(sheet.ctypes.data)
    assert copy.size >= NAME_BYTES_MAX + PAD
    first = sheet[COUNT]
    if rows < 1 or rows > ROWS_MAX:
        return DOUBTFUL
    for k in range(COLUMNS):
        if columns[k * COLUMN_WORDS + ENTRIES] > codes.size:
            return DOUBTFUL
    if first + rows > sheet[CAPACITY]:
        return FULL
    state = _all_names(
        base, rows, place, first, int64(copy.ctypes.data), int64(codes.ctypes.data)
    )
    if state != DONE:
        return state
    step = 8 * COLUMN_WORDS
    times, values = sheet[TIME] + 8 * first, sheet[VALUE] + 8 * first
    if (
        not _times(base + step * TIME_AT, rows, int64(rules.ctypes.data), times)
        or not _values(base + step * VALUE_AT, rows, values)
        or not _qualities(base + step * QUALITY_AT, rows, sheet[QUALITY] + first)
    ):
        return DOUBTFUL
    _shared(place, first, rows, row, rules[TIME_FLAGS])
    sheet[COUNT] = first + rows
    return DONE
