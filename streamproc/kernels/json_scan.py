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

from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_dict import NAME_BYTES_MAX, code_of
from streamproc.kernels.bytes_raw import (
    I4,
    I8,
    U1,
    U8,
    U64,
    int64,
    load_f64,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
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
    closing_quote,
    epoch_us,
    is_clean,
    number,
    rfc3339_us,
    skip_space,
    to_double,
)

DEVICE, PROPERTY, TIME, VALUE, VALUES, UNIT, UNIT_MAP, QUALITY = range(8)
FIELDS = 8
KEY_WORDS = 5
KEY_BYTES_MAX = 32
"""Quotes included; a key row is its length and four little-endian words."""

# Words of `rules`.
TIME_UNIT_NS, ZONE_ASSUMED, DEVICE_FROM_KEY, STRING_NUMBERS, SIZE_MAX = range(5)
RULES = 5

# Words of the scratch area: what the present document has said so far.
_FLAGS = 8
_FIRST = 9
_ROW = 10
_KEYS_KNOWN = 16  # from here on: which field the k-th key was, last time
_KEYS_KNOWN_MAX = 16
SCRATCH_WORDS = _KEYS_KNOWN + _KEYS_KNOWN_MAX

TZ_ASSUMED = 32
STRING_NUMBER = 512
DOUBT = -1

_SINGLE = (1 << PROPERTY) | (1 << VALUE) | (1 << UNIT)
_MANY = (1 << VALUES) | (1 << UNIT_MAP)
_SINGLE_NEEDS = (1 << PROPERTY) | (1 << VALUE) | (1 << TIME)
_MANY_NEEDS = (1 << VALUES) | (1 << TIME)


@kernel
def _is_key(at: int, end: int, key: int) -> bool:
    left = load_i64(key)
    if left == 0 or at + left > end:
        return False
    key += 8
    while left >= 8:
        if load_u64(at) != load_u64(key):
            return False
        at += 8
        key += 8
        left -= 8
    return left == 0 or low_bytes(load_u64(at) ^ load_u64(key), left) == U64(0)


@kernel
def _field_at(at: int, end: int, keys: int, scratch: int, place: int) -> int:
    """Return which known key stands here, -1 for none; tries last time's answer first."""
    memory = scratch + 8 * (_KEYS_KNOWN + min(place, _KEYS_KNOWN_MAX - 1))
    guess = load_i64(memory)
    if guess >= 0 and _is_key(at, end, keys + 8 * KEY_WORDS * guess):
        return guess
    for field in range(FIELDS):
        if _is_key(at, end, keys + 8 * KEY_WORDS * field):
            store_i64(memory, field)
            return field
    store_i64(memory, int64(-1))
    return -1


@kernel
def _after_string(at: int, end: int) -> int:
    """Skip a string without escapes; DOUBT if there is none or its text is not clean."""
    if at >= end or load_u8(at) != 34:
        return DOUBT
    close = closing_quote(at + 1, end)
    if close < 0 or not is_clean(at + 1, close):
        return DOUBT
    return close + 1


@kernel
def _after_scalar(at: int, end: int) -> int:
    """Skip a string, number, true, false or null; DOUBT at anything else."""
    byte = load_u8(at)
    if byte == 34:
        return _after_string(at, end)
    if byte == 45 or 48 <= byte <= 57:
        certain, _, _, _, after = number(at, end)
        return after if certain else DOUBT
    if at + 4 > end:
        return DOUBT
    word = low_bytes(load_u64(at), 4)
    if word == U64(0x65757274) or word == U64(0x6C6C756E):  # true, null
        return at + 4
    if at + 5 <= end and low_bytes(load_u64(at), 5) == U64(0x65736C6166):  # false
        return at + 5
    return DOUBT


@kernel
def _take_name(at: int, end: int, table: int) -> tuple[int, int]:
    """Read a name: (address after it or DOUBT, its code)."""
    if load_u8(at) != 34:
        return DOUBT, 0
    close = closing_quote(at + 1, end)
    if close < 0:
        return DOUBT, 0
    code = code_of(table, at + 1, close - at - 1)
    return (close + 1 if code >= 0 else DOUBT), code


@kernel
def _take_time(at: int, end: int, rules: int, scratch: int) -> int:
    if load_u8(at) == 34:
        close = closing_quote(at + 1, end)
        if close < 0:
            return DOUBT
        stated, time = rfc3339_us(at + 1, close)
        if stated < 0 or (stated == 0 and load_i64(rules + 8 * ZONE_ASSUMED) == 0):
            return DOUBT
        if stated == 0:
            flags = load_i64(scratch + 8 * _FLAGS)
            store_i64(scratch + 8 * _FLAGS, flags | TZ_ASSUMED)
        store_i64(scratch + 8 * TIME, time)
        return close + 1
    certain, negative, mantissa, decimals, after = number(at, end)
    if not certain:
        return DOUBT
    certain, time = epoch_us(
        negative, mantissa, decimals, load_i64(rules + 8 * TIME_UNIT_NS)
    )
    store_i64(scratch + 8 * TIME, time)
    return after if certain else DOUBT


@kernel
def _take_value(at: int, end: int, rules: int, scratch: int) -> tuple[int, float]:
    """Read a number, or where allowed a number in quotes: (after or DOUBT, value)."""
    quoted = load_u8(at) == 34
    if quoted:
        if load_i64(rules + 8 * STRING_NUMBERS) == 0:
            return DOUBT, 0.0
        at += 1
    certain, negative, mantissa, decimals, after = number(at, end)
    if not certain:
        return DOUBT, 0.0
    certain, value = to_double(negative, mantissa, decimals)
    if not certain:
        return DOUBT, 0.0
    if quoted:
        if after >= end or load_u8(after) != 34:
            return DOUBT, 0.0
        flags = load_i64(scratch + 8 * _FLAGS)
        store_i64(scratch + 8 * _FLAGS, flags | STRING_NUMBER)
        after += 1
    return after, value


@kernel
def _take_quality(at: int, end: int, scratch: int) -> int:
    certain, negative, mantissa, decimals, after = number(at, end)
    if not certain or decimals > 0 or mantissa > 127:
        return DOUBT
    store_i64(scratch + 8 * QUALITY, -mantissa if negative else mantissa)
    return after


@kernel
def _take_member(
    at: int, end: int, sheet: int, rules: int, scratch: int, field: int
) -> int:
    """Read `"property":` and its value or unit; return the address after, or DOUBT."""
    at, code = _take_name(at, end, sheet + 8 * PROPERTIES)
    if at < 0:
        return DOUBT
    at = skip_space(at, end)
    if at >= end or load_u8(at) != 58:
        return DOUBT
    at = skip_space(at + 1, end)
    if at >= end:
        return DOUBT
    first = load_i64(scratch + 8 * _FIRST)
    row = load_i64(scratch + 8 * _ROW)
    if field == VALUES:
        at, value = _take_value(at, end, rules, scratch)
        ordinal = load_i64(sheet + 8 * COUNT) - first
        if at < 0 or not first_time_here(sheet, row, code, ordinal):
            return DOUBT
        put(sheet, code, NO_UNIT, value)
        return at
    at, unit = _take_name(at, end, sheet + 8 * UNITS)
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


@kernel
def _take(
    field: int, at: int, end: int, sheet: int, rules: int, scratch: int, seen: int
) -> int:
    """Read the value of a known key into the scratch area or the sheet."""
    if field == TIME:
        return _take_time(at, end, rules, scratch)
    if field == VALUE:
        at, value = _take_value(at, end, rules, scratch)
        store_f64(scratch + 8 * VALUE, value)
        return at
    if field == QUALITY:
        return _take_quality(at, end, scratch)
    if field == VALUES:
        return _take_members(at, end, sheet, rules, scratch, field)
    if field == UNIT_MAP:
        # Units before their values: rare, so left to the strict path.
        if (seen >> VALUES) & 1 == 0:
            return DOUBT
        return _take_members(at, end, sheet, rules, scratch, field)
    table = DEVICES if field == DEVICE else (PROPERTIES if field == PROPERTY else UNITS)
    at, code = _take_name(at, end, sheet + 8 * table)
    store_i64(scratch + 8 * field, code)
    return at


@kernel
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
        field = _field_at(at, end, keys, scratch, place)
        if field >= 0:
            if (seen >> field) & 1 != 0:
                return DOUBT
            at += load_i64(keys + 8 * KEY_WORDS * field)
        else:
            at = _after_string(at, end)
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
            at = _after_scalar(at, end)
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


@kernel
def _device_of(
    seen: int, sheet: int, rules: int, scratch: int, key: int, key_size: int
) -> int:
    """Return the device's code: from the document, else where allowed from the key."""
    if (seen >> DEVICE) & 1 != 0:
        return load_i64(scratch + 8 * DEVICE)
    if load_i64(rules + 8 * DEVICE_FROM_KEY) == 0 or key_size <= 0:
        return DOUBT
    return code_of(sheet + 8 * DEVICES, key, key_size)


@kernel
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
    first = load_i64(scratch + 8 * _FIRST)
    row = load_i64(scratch + 8 * _ROW)
    store_i64(scratch + 8 * QUALITY, int64(1))
    store_i64(scratch + 8 * _FLAGS, int64(0))
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
        load_i64(scratch + 8 * _FLAGS),
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
        scratch[_FIRST] = first
        scratch[_ROW] = rows[i]
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
