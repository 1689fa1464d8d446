"""One flat record's fields, whatever the wire format: what binary scanners share.

A scanner hands every field to one of the `take_*` kernels together with its role; these
note it in the scratch area or the sheet, or answer False: not certain, let the strict
path look. `complete` turns what was noted into readings.
"""

# ruff: noqa: PLR2004  (limits of int8; a kernel is flat)

import numpy as np

from streamproc.kernels._jit import inlined
from streamproc.kernels.bytes_dict import code_of, is_utf8
from streamproc.kernels.bytes_raw import (
    int64,
    load_f64,
    load_i64,
    load_u8,
    store_f64,
    store_i64,
)
from streamproc.kernels.bytes_sheet import (
    COUNT,
    DEVICES,
    NO_UNIT,
    PROPERTIES,
    UNITS,
    finish,
    first_time_here,
    put,
)
from streamproc.kernels.bytes_text import epoch_us, rfc3339_us

DEVICE, PROPERTY, TIME, VALUE, VALUES, UNIT, QUALITY, IGNORED = range(8)

# Words of `rules`.
TIME_UNIT_NS, ZONE_ASSUMED, TIME_FLAGS, SIZE_MAX, VALUE_IMPLICIT = range(5)
RULES = 5

# Words of the scratch area beyond the roles.
SEEN = 8
FLAGS = 9
FIRST = 10
ROW = 11
SCRATCH_WORDS = 12

TZ_ASSUMED = 32
_INT64_SAFE = 9_000_000_000_000_000_000

_SINGLE = (1 << PROPERTY) | (1 << VALUE) | (1 << UNIT)
_MANY = 1 << VALUES


@inlined
def begin(scratch: int, rules: int, first: int, row: int) -> None:
    """Forget the record before; `first` is the sheet's count, `row` the record's number."""
    store_i64(scratch + 8 * SEEN, int64(0))
    store_i64(scratch + 8 * FLAGS, load_i64(rules + 8 * TIME_FLAGS))
    store_i64(scratch + 8 * UNIT, int64(NO_UNIT))
    store_i64(scratch + 8 * QUALITY, int64(1))
    store_i64(scratch + 8 * FIRST, first)
    store_i64(scratch + 8 * ROW, row)


@inlined
def _note(scratch: int, role: int) -> None:
    store_i64(scratch + 8 * SEEN, load_i64(scratch + 8 * SEEN) | (1 << role))


@inlined
def take_text(
    role: int, at: int, size: int, sheet: int, rules: int, scratch: int
) -> bool:
    """Take a string of `size` bytes, already known to lie inside the record."""
    if role == IGNORED:
        return is_utf8(at, size)
    if role == TIME:
        stated, time = rfc3339_us(at, at + size)
        if stated < 0 or (stated == 0 and load_i64(rules + 8 * ZONE_ASSUMED) == 0):
            return False
        store_i64(scratch + 8 * TIME, time)
        assumed = TZ_ASSUMED if stated == 0 else 0
        store_i64(scratch + 8 * FLAGS, load_i64(rules + 8 * TIME_FLAGS) | assumed)
        _note(scratch, role)
        return True
    if role == DEVICE:
        if (load_i64(scratch + 8 * SEEN) >> DEVICE) & 1:
            return False  # there is room for one device a record, however often it is named
        code = code_of(sheet + 8 * DEVICES, at, size)
    elif role == PROPERTY:
        code = code_of(sheet + 8 * PROPERTIES, at, size)
    elif role == UNIT:
        if size == 0:
            store_i64(scratch + 8 * UNIT, int64(NO_UNIT))
            return True
        code = code_of(sheet + 8 * UNITS, at, size)
    else:
        return False
    store_i64(scratch + 8 * role, code)
    _note(scratch, role)
    return code >= 0


@inlined
def take_integer(role: int, value: int, rules: int, scratch: int) -> bool:
    """Take an integer: an epoch time, a value or a quality."""
    if role == IGNORED:
        return True
    if role == TIME:
        if value < -_INT64_SAFE:
            return False
        certain, time = epoch_us(
            value < 0, abs(value), int64(0), load_i64(rules + 8 * TIME_UNIT_NS)
        )
        if not certain:
            return False
        store_i64(scratch + 8 * TIME, time)
    elif role == VALUE:
        store_f64(scratch + 8 * VALUE, np.float64(value))
    elif role == QUALITY:
        if value < -128 or value > 127:
            return False
        store_i64(scratch + 8 * QUALITY, value)
    else:
        return False
    _note(scratch, role)
    return True


@inlined
def take_double(role: int, value: float, scratch: int) -> bool:
    """Take a floating number; only a finite one is a value."""
    if role == IGNORED:
        return True
    if role != VALUE or not np.isfinite(value):
        return False
    store_f64(scratch + 8 * VALUE, value)
    _note(scratch, role)
    return True


@inlined
def take_member(at: int, size: int, value: float, sheet: int, scratch: int) -> bool:
    """Take one entry of the map of values; False for a name met before."""
    if not np.isfinite(value):
        return False
    code = code_of(sheet + 8 * PROPERTIES, at, size)
    if code < 0:
        return False
    ordinal = load_i64(sheet + 8 * COUNT) - load_i64(scratch + 8 * FIRST)
    if not first_time_here(sheet, load_i64(scratch + 8 * ROW), code, ordinal):
        return False
    put(sheet, code, NO_UNIT, value)
    _note(scratch, VALUES)
    return True


@inlined
def complete(sheet: int, rules: int, scratch: int) -> bool:
    """Write the record's readings if all it needs was met and the two forms do not mix."""
    seen = load_i64(scratch + 8 * SEEN)
    if (seen >> DEVICE) & 1 == 0 or (seen >> TIME) & 1 == 0:
        return False
    if seen & _MANY != 0:
        if seen & _SINGLE != 0:
            return False
    else:
        if (seen >> VALUE) & 1 == 0:
            if load_i64(rules + 8 * VALUE_IMPLICIT) == 0:
                return False
            store_f64(scratch + 8 * VALUE, 0.0)
        if (seen >> PROPERTY) & 1 == 0:
            return False
        put(
            sheet,
            load_i64(scratch + 8 * PROPERTY),
            load_i64(scratch + 8 * UNIT),
            load_f64(scratch + 8 * VALUE),
        )
    finish(
        sheet,
        load_i64(scratch + 8 * FIRST),
        load_i64(scratch + 8 * ROW),
        load_i64(scratch + 8 * DEVICE),
        load_i64(scratch + 8 * TIME),
        load_i64(scratch + 8 * QUALITY),
        load_i64(scratch + 8 * FLAGS),
    )
    return True


@inlined
def varint(at: int, end: int) -> tuple[np.uint64, int]:
    """Read a base-128 varint of at most 64 bits: (value, address after or -1)."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        byte = np.uint64(load_u8(at))
        at += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return value, -1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return value, -1
    return value, -1


@inlined
def zigzag(word: np.uint64) -> int:
    """Return the signed number a zigzag varint stands for."""
    return int64(word >> np.uint64(1)) ^ -int64(word & np.uint64(1))
