"""The pieces of a flat JSON document: keys, names, times, numbers, what may be passed over.

Each takes the address where its piece begins and returns the address after it, or `DOUBT`
where the strict path has to read the row; see `json_scan`.
"""

# ruff: noqa: PLR2004  (bytes by their ASCII codes)

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import code_of
from streamproc.kernels.bytes_raw import (
    BLOCK,
    U64,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
    store_i64,
    string_stops,
    trailing_zeros,
)
from streamproc.kernels.bytes_text import (
    closing_quote,
    epoch_us,
    is_clean,
    known_day_us,
    number,
    remember_day,
    rfc3339_us,
    short_number,
    to_double,
)

DEVICE, PROPERTY, TIME, VALUE, VALUES, UNIT, UNIT_MAP, QUALITY = range(8)
FIELDS = 8
OTHER = FIELDS
"""A key nobody asked for."""
KEY_WORDS = 5
KEY_BYTES_MAX = 32
"""Quotes included; a key row is its length and four little-endian words."""

# Words of `rules`.
TIME_UNIT_NS, ZONE_ASSUMED, DEVICE_FROM_KEY, STRING_NUMBERS, SIZE_MAX = range(5)
RULES = 5

# Words of the scratch area: what the present document has said so far, by field, and
FLAGS = 8
FIRST = 9
ROW = 10
DAY = 11  # three words of `bytes_text.known_day_us`
DEVICE_AT = 14  # the address of the device's name
DEVICE_SIZE = 15
TRACE = 16  # `TRACE_WORDS` words: a count and, per value, where it begins, what it is, its end
TRACE_MAX = 32
TRACE_WORDS = 1 + 3 * TRACE_MAX
SCRATCH_WORDS = TRACE + TRACE_WORDS

TZ_ASSUMED = 32
STRING_NUMBER = 512
DOUBT = -1


@inlined
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


@inlined
def field_at(at: int, end: int, keys: int) -> int:
    """Return which known key stands here, `OTHER` for none."""
    for field in range(FIELDS):
        if _is_key(at, end, keys + 8 * KEY_WORDS * field):
            return field
    return OTHER


@inlined
def after_string(at: int, end: int) -> int:
    """Skip a string without escapes; DOUBT if there is none or its text is not clean."""
    if at >= end or load_u8(at) != 34:
        return DOUBT
    at += 1
    start = at
    while at < end:
        stops = string_stops(at)
        if stops != U64(0):
            at += trailing_zeros(stops)
            if at < end and load_u8(at) == 34:
                return at + 1
            break
        at += BLOCK
    close = closing_quote(start, end)
    if close < 0 or not is_clean(start, close):
        return DOUBT
    return close + 1


@inlined
def _number(at: int, end: int) -> tuple[bool, bool, int, int, int]:
    certain, negative, mantissa, decimals, after = short_number(at, end)
    if certain:
        return certain, negative, mantissa, decimals, after
    return number(at, end)


@inlined
def after_scalar(at: int, end: int) -> int:
    """Skip a string, number, true, false or null; DOUBT at anything else."""
    byte = load_u8(at)
    if byte == 34:
        return after_string(at, end)
    if byte == 45 or 48 <= byte <= 57:
        certain, _, _, _, after = _number(at, end)
        return after if certain else DOUBT
    return after_word(at, end)


@inlined
def after_word(at: int, end: int) -> int:
    """Skip true, false or null; DOUBT at anything else."""
    if at + 4 > end:
        return DOUBT
    word = low_bytes(load_u64(at), 4)
    if word == U64(0x65757274) or word == U64(0x6C6C756E):  # true, null
        return at + 4
    if at + 5 <= end and low_bytes(load_u64(at), 5) == U64(0x65736C6166):  # false
        return at + 5
    return DOUBT


@inlined
def take_name(at: int, end: int, table: int) -> tuple[int, int]:
    """Read a name: (address after it or DOUBT, its code)."""
    if load_u8(at) != 34:
        return DOUBT, 0
    close = closing_quote(at + 1, end)
    if close < 0:
        return DOUBT, 0
    code = code_of(table, at + 1, close - at - 1)
    return (close + 1 if code >= 0 else DOUBT), code


@kernel
def text_time(at: int, end: int, rules: int, scratch: int) -> int:
    """Read a text up to its quote as RFC 3339; return the address after the quote, or DOUBT."""
    close = closing_quote(at, end)
    if close < 0:
        return DOUBT
    stated, time = rfc3339_us(at, close)
    if stated < 0 or (stated == 0 and load_i64(rules + 8 * ZONE_ASSUMED) == 0):
        return DOUBT
    if stated == 0:
        flags = load_i64(scratch + 8 * FLAGS)
        store_i64(scratch + 8 * FLAGS, flags | TZ_ASSUMED)
    store_i64(scratch + 8 * TIME, time)
    remember_day(at, scratch + 8 * DAY)
    return close + 1


@inlined
def take_time(at: int, end: int, rules: int, scratch: int) -> int:
    """Read a time, RFC 3339 or a number; return the address after, or DOUBT."""
    if load_u8(at) == 34:
        after, time = known_day_us(at + 1, end, scratch + 8 * DAY)
        if after > 0 and after < end and load_u8(after) == 34:
            store_i64(scratch + 8 * TIME, time)
            return after + 1
        return text_time(at + 1, end, rules, scratch)
    certain, negative, mantissa, decimals, after = number(at, end)
    if not certain:
        return DOUBT
    certain, time = epoch_us(
        negative, mantissa, decimals, load_i64(rules + 8 * TIME_UNIT_NS)
    )
    store_i64(scratch + 8 * TIME, time)
    return after if certain else DOUBT


@inlined
def take_value(at: int, end: int, rules: int, scratch: int) -> tuple[int, float]:
    """Read a number, or where allowed a number in quotes: (after or DOUBT, value)."""
    quoted = load_u8(at) == 34
    if quoted:
        if load_i64(rules + 8 * STRING_NUMBERS) == 0:
            return DOUBT, 0.0
        at += 1
    certain, negative, mantissa, decimals, after = _number(at, end)
    if not certain:
        return DOUBT, 0.0
    certain, value = to_double(negative, mantissa, decimals)
    if not certain:
        return DOUBT, 0.0
    if quoted:
        if after >= end or load_u8(after) != 34:
            return DOUBT, 0.0
        flags = load_i64(scratch + 8 * FLAGS)
        store_i64(scratch + 8 * FLAGS, flags | STRING_NUMBER)
        after += 1
    return after, value


@inlined
def take_quality(at: int, end: int, scratch: int) -> int:
    """Read a quality, a small integer; return the address after, or DOUBT."""
    certain, negative, mantissa, decimals, after = _number(at, end)
    if not certain or decimals > 0 or mantissa > 127:
        return DOUBT
    store_i64(scratch + 8 * QUALITY, -mantissa if negative else mantissa)
    return after
