"""Flat JSON documents to readings, whole batches at a time: the certain ones.

The scanner reads a document once, left to right, and accepts it only if every byte is
one it fully understands; any doubt (an escape, an exponent, a nested object under an
ignored key, a duplicate key, an unexpected type, a null) marks the row for the strict
slow path (`streamproc.codecs.json_strict`). So it can be wrong in one way only, by
being slow. What it accepts, the strict path accepts with the same answer; a property
test holds the two together.

Technique: raw addresses, 8 bytes at a time; keys are compared as masked words in the
order of the document before; numbers are exact or refused.
"""

# ruff: noqa: PLR2004, PLR0917  (bytes by their ASCII codes; a set is no kernel type; flat)

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX, code_of
from streamproc.kernels.bytes_raw import (
    I4,
    I8,
    U1,
    U8,
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
    fits,
    put,
    set_unit,
)
from streamproc.kernels.bytes_text import (
    skip_space,
)
from streamproc.kernels.json_parts import (
    DEVICE,
    DEVICE_FROM_KEY,
    DOUBT,
    FIRST,
    FLAGS,
    KEY_WORDS,
    PROPERTY,
    QUALITY,
    ROW,
    SIZE_MAX,
    TIME,
    UNIT,
    UNIT_MAP,
    VALUE,
    VALUES,
    after_scalar,
    after_string,
    field_at,
    take_name,
    take_quality,
    take_time,
    take_value,
)

_SINGLE = (1 << PROPERTY) | (1 << VALUE) | (1 << UNIT)
_MANY = (1 << VALUES) | (1 << UNIT_MAP)
_SINGLE_NEEDS = (1 << PROPERTY) | (1 << VALUE) | (1 << TIME)
_MANY_NEEDS = (1 << VALUES) | (1 << TIME)


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
def _take(
    field: int, at: int, end: int, sheet: int, rules: int, scratch: int, seen: int
) -> int:
    """Read the value of a known key into the scratch area or the sheet."""
    if field == TIME:
        return take_time(at, end, rules, scratch)
    if field == VALUE:
        at, value = take_value(at, end, rules, scratch)
        store_f64(scratch + 8 * VALUE, value)
        return at
    if field == QUALITY:
        return take_quality(at, end, scratch)
    if field == VALUES:
        return _take_members(at, end, sheet, rules, scratch, field)
    if field == UNIT_MAP:
        # Units before their values: rare, so left to the strict path.
        if (seen >> VALUES) & 1 == 0:
            return DOUBT
        return _take_members(at, end, sheet, rules, scratch, field)
    table = DEVICES if field == DEVICE else (PROPERTIES if field == PROPERTY else UNITS)
    at, code = take_name(at, end, sheet + 8 * table)
    store_i64(scratch + 8 * field, code)
    return at


@inlined
def _document(
    at: int, end: int, sheet: int, keys: int, rules: int, scratch: int
) -> int:
    """Read one document; return the bits of the keys it has, or DOUBT."""
    at = skip_space(at, end)
    if at >= end or load_u8(at) != 123:
        return DOUBT
    at = skip_space(at + 1, end)
    seen = 0
    place = 0
    while at < end:
        field = field_at(at, end, keys, scratch, place)
        if field >= 0:
            if (seen >> field) & 1 != 0:
                return DOUBT
            at += load_i64(keys + 8 * KEY_WORDS * field)
        else:
            at = after_string(at, end)
            if at < 0:
                return DOUBT
        at = skip_space(at, end)
        if at >= end or load_u8(at) != 58:
            return DOUBT
        at = skip_space(at + 1, end)
        if at >= end:
            return DOUBT
        if field >= 0:
            at = _take(field, at, end, sheet, rules, scratch, seen)
            seen |= 1 << field
        else:
            at = after_scalar(at, end)
        if at < 0:
            return DOUBT
        at = skip_space(at, end)
        if at >= end:
            return DOUBT
        byte = load_u8(at)
        if byte == 125:
            return seen if skip_space(at + 1, end) == end else DOUBT
        if byte != 44:
            return DOUBT
        at = skip_space(at + 1, end)
        place += 1
    return DOUBT


@inlined
def _device_of(
    seen: int, sheet: int, rules: int, scratch: int, key: int, key_size: int
) -> int:
    """Return the device's code: from the document, else where allowed from the key."""
    if (seen >> DEVICE) & 1 != 0:
        return load_i64(scratch + 8 * DEVICE)
    if load_i64(rules + 8 * DEVICE_FROM_KEY) == 0 or key_size <= 0:
        return DOUBT
    return code_of(sheet + 8 * DEVICES, key, key_size)


@inlined
def _row(
    at: int,
    end: int,
    key: int,
    key_size: int,
    sheet: int,
    keys: int,
    rules: int,
    scratch: int,
) -> bool:
    """Decode one record into the sheet; False leaves readings behind for the caller to drop."""
    first = load_i64(scratch + 8 * FIRST)
    row = load_i64(scratch + 8 * ROW)
    store_i64(scratch + 8 * QUALITY, int64(1))
    store_i64(scratch + 8 * FLAGS, int64(0))
    store_i64(scratch + 8 * UNIT, int64(NO_UNIT))
    seen = _document(at, end, sheet, keys, rules, scratch)
    if seen < 0:
        return False
    if seen & _MANY != 0:
        if seen & _SINGLE != 0 or seen & _MANY_NEEDS != _MANY_NEEDS:
            return False
    else:
        if seen & _SINGLE_NEEDS != _SINGLE_NEEDS:
            return False
        put(
            sheet,
            load_i64(scratch + 8 * PROPERTY),
            load_i64(scratch + 8 * UNIT),
            load_f64(scratch + 8 * VALUE),
        )
    device = _device_of(seen, sheet, rules, scratch, key, key_size)
    if device < 0:
        return False
    finish(
        sheet,
        first,
        row,
        device,
        load_i64(scratch + 8 * TIME),
        load_i64(scratch + 8 * QUALITY),
        load_i64(scratch + 8 * FLAGS),
    )
    return True


@kernel
def scan_json(
    data: U1,
    starts: I8,
    ends: I8,
    key_data: U1,
    key_starts: I8,
    key_ends: I8,
    rows: I4,
    keys: U8,
    rules: I8,
    scratch: I8,
    sheet: I8,
    doubtful: U1,
    begin: int,
) -> int:
    """Decode rows from `begin` on; return the first that has no room, or n.

    Args:
        data: payload bytes, padded; row i is `data[starts[i]:ends[i]]`.
        starts: int64[n], -1 for a null payload; `ends` likewise.
        ends: int64[n].
        key_data: record keys, padded, or empty where no key is needed.
        key_starts: int64[n], -1 for a null key.
        key_ends: int64[n].
        rows: int32[n], the row number to write.
        keys: uint64[FIELDS, KEY_WORDS], the quoted key names.
        rules: int64[RULES].
        scratch: int64[SCRATCH_WORDS], kept between calls: the expected order of keys.
        sheet: int64[bytes_sheet.WORDS], where readings go.
        doubtful: uint8[n], out: 1 where the strict path has to look.
        begin: where to start.
    """
    base = data.ctypes.data
    key_base = key_data.ctypes.data
    place = sheet.ctypes.data
    note = scratch.ctypes.data
    for i in range(begin, starts.size):
        size = ends[i] - starts[i]
        if starts[i] < 0 or size > rules[SIZE_MAX]:
            doubtful[i] = 1
            continue
        key_size = 0
        if key_starts[i] >= 0:
            # One byte too many is enough to be refused as a name.
            key_size = min(key_ends[i] - key_starts[i], NAME_BYTES_MAX + 1)
        if not fits(place, size, key_size):
            return i
        first = sheet[COUNT]
        scratch[FIRST] = first
        scratch[ROW] = rows[i]
        certain = _row(
            base + starts[i],
            base + ends[i],
            key_base + key_starts[i],
            key_size,
            place,
            keys.ctypes.data,
            rules.ctypes.data,
            note,
        )
        doubtful[i] = 0 if certain else 1
        if not certain:
            sheet[COUNT] = first
    return starts.size
