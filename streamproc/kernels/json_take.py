"""The value of a known key, read into the scratch area or the sheet."""

# ruff: noqa: PLR2004, PLR0917  (bytes by their ASCII codes; a kernel is flat)

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_raw import load_i64, load_u8, store_f64, store_i64
from streamproc.kernels.bytes_sheet import (
    COUNT,
    DEVICES,
    NO_UNIT,
    PROPERTIES,
    UNITS,
    first_time_here,
    put,
    set_unit,
)
from streamproc.kernels.bytes_text import skip_space
from streamproc.kernels.json_parts import (
    DEVICE,
    DEVICE_AT,
    DEVICE_SIZE,
    DOUBT,
    FIRST,
    OTHER,
    PROPERTY,
    QUALITY,
    ROW,
    TIME,
    UNIT,
    UNIT_MAP,
    VALUE,
    VALUES,
    after_scalar,
    take_name,
    take_quality,
    take_time,
    take_value,
)


@kernel
def _take_member(
    at: int, end: int, sheet: int, rules: int, scratch: int, field: int
) -> int:
    """Read `"property":` and its value or unit; return the address after, or DOUBT."""
    at, code = take_name(at, end, sheet + 8 * PROPERTIES)
    if at < 0:
        return DOUBT
    at = skip_space(at, end)
    if at >= end or load_u8(at) != 58:
        return DOUBT
    at = skip_space(at + 1, end)
    if at >= end:
        return DOUBT
    first = load_i64(scratch + 8 * FIRST)
    row = load_i64(scratch + 8 * ROW)
    if field == VALUES:
        at, value = take_value(at, end, rules, scratch)
        ordinal = load_i64(sheet + 8 * COUNT) - first
        if at < 0 or not first_time_here(sheet, row, code, ordinal):
            return DOUBT
        put(sheet, code, NO_UNIT, value)
        return at
    at, unit = take_name(at, end, sheet + 8 * UNITS)
    if at < 0 or not set_unit(sheet, first, row, code, unit):
        return DOUBT
    return at


@kernel
def _take_members(
    at: int, end: int, sheet: int, rules: int, scratch: int, field: int
) -> int:
    """Read a non-empty object of values or units; return the address after, or DOUBT."""
    if load_u8(at) != 123:
        return DOUBT
    at = skip_space(at + 1, end)
    while at < end:
        at = _take_member(at, end, sheet, rules, scratch, field)
        if at < 0:
            return DOUBT
        at = skip_space(at, end)
        if at >= end:
            return DOUBT
        byte = load_u8(at)
        if byte == 125:
            return at + 1
        if byte != 44:
            return DOUBT
        at = skip_space(at + 1, end)
    return DOUBT


@inlined
def take(
    field: int, at: int, end: int, sheet: int, rules: int, scratch: int, seen: int
) -> int:
    """Read a field's value, or pass over that of an `OTHER` key; the address after, or DOUBT.

    There is a byte at `at`. `seen` has the bits of the fields read before.
    """
    if field == OTHER:
        return after_scalar(at, end)
    if field == TIME:
        return take_time(at, end, rules, scratch)
    if field == VALUE:
        at, value = take_value(at, end, rules, scratch)
        store_f64(scratch + 8 * VALUE, value)
        return at
    null = load_u8(at) == 110
    if field == QUALITY:
        return after_scalar(at, end) if null else take_quality(at, end, scratch)
    if field == UNIT and null:
        return after_scalar(at, end)  # as if it were not there
    if field == VALUES:
        return _take_members(at, end, sheet, rules, scratch, field)
    if field == UNIT_MAP:
        # Units before their values: rare, so left to the strict path.
        if (seen >> VALUES) & 1 == 0:
            return DOUBT
        return _take_members(at, end, sheet, rules, scratch, field)
    table = DEVICES if field == DEVICE else (PROPERTIES if field == PROPERTY else UNITS)
    start = at + 1
    at, code = take_name(at, end, sheet + 8 * table)
    store_i64(scratch + 8 * field, code)
    if field == DEVICE:
        store_i64(scratch + 8 * DEVICE_AT, start)
        store_i64(scratch + 8 * DEVICE_SIZE, at - 1 - start)
    return at
