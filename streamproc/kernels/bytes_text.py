"""Numbers and times written as ASCII text: exact, or not at all.

Every function here accepts only what it is certain of. "Not certain" is an answer: the
caller then hands the row to the slow strict path, which decides what it is worth.
"""

# ruff: noqa: PLR2004, PLR1714, FBT001  (bytes by their ASCII codes; a set or a keyword is nothing for a kernel)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import is_utf8
from streamproc.kernels.bytes_raw import (
    BLOCK,
    U64,
    int64,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
    store_i64,
    store_u64,
    string_ends,
    trailing_zeros,
)

DIGITS_MAX = 18  # what fits int64 with room to spare
EXACT_MAX = 1 << 53
EXACT_POWER_MAX = 22  # 10**22 is the last power of ten a double holds exactly
POWERS = np.array([float(10**n) for n in range(EXACT_POWER_MAX + 1)])
INT_POWERS = np.array([10**n for n in range(DIGITS_MAX + 1)], np.int64)

FIVES = np.array([5**n for n in range(DIGITS_MAX + 1)], np.uint64)
HALVES = np.array([0.5**n for n in range(160)])
_ENOUGH = U64(1 << 54)
_MANTISSA_MAX = 10**18
_WHOLE_MAX = 10**15

_ZEROS = U64(0x3030303030303030)
_HIGH = U64(0x8080808080808080)
_OVER_NINE = U64(0x7676767676767676)
_CLOCK = U64(0x30303A30303A3030)  # 00:00:00
_OVER_CLOCK = U64(
    0x767A7F767A7F767D
)  # sets the high bit beyond 29:59:59, digit by digit

_UTC = U64(0x30303A30302B)  # +00:00

DAY_S = 86_400
TIME_US_MIN = -62_135_510_400_000_000
"""0001-01-02T00:00:00Z: every zone's local date of an accepted time can be written."""
TIME_US_MAX = 253_402_214_400_000_000
"""9999-12-31T00:00:00Z, exclusive."""


@inlined
def skip_space(at: int, end: int) -> int:
    """Return the first address that is not JSON white space, `end` at most."""
    while at < end:
        byte = load_u8(at)
        if byte > 32 or (byte != 32 and byte != 10 and byte != 13 and byte != 9):
            break
        at += 1
    return at


@inlined
def closing_quote(at: int, end: int) -> int:
    """Return the address of the first `"`, or -1 if a backslash or `end` comes first."""
    while at < end:
        ends = string_ends(at)
        if ends != U64(0):
            place = at + trailing_zeros(ends)
            return place if place < end and load_u8(place) == 34 else -1
        at += BLOCK
    return -1


@inlined
def leading_digits(word: np.uint64) -> int:
    """Return how many of a word's eight bytes, from the first on, are ASCII digits."""
    x = word ^ _ZEROS
    over = ((x + _OVER_NINE) | x) & _HIGH
    # A carry only spills upwards, past the first byte that is no digit.
    return 8 if over == U64(0) else trailing_zeros(over) >> 3


@inlined
def _value_of(word: np.uint64, count: int) -> int:
    x = (word ^ _ZEROS) << U64(64 - 8 * count)
    x = (x * U64(10) + (x >> U64(8))) & U64(0x00FF00FF00FF00FF)
    x = (x * U64(100) + (x >> U64(16))) & U64(0x0000FFFF0000FFFF)
    return int64((x * U64(10000) + (x >> U64(32))) & U64(0xFFFFFFFF))


@kernel
def digits(at: int, end: int) -> tuple[int, int]:
    """Read ASCII digits: (value, address after them); stops after 24 at the latest.

    The value is meaningless where more than 18 digits were read; the caller counts.
    """
    value = int64(0)
    start = at
    while at < end and at - start <= DIGITS_MAX:
        count = min(leading_digits(load_u64(at)), end - at)
        if count == 0:
            break
        value = value * INT_POWERS[count] + _value_of(load_u64(at), count)
        at += count
        if count < 8:
            break
    return value, at


@kernel
def number(at: int, end: int) -> tuple[bool, bool, int, int, int]:
    """Read a JSON number without exponent: (certain, negative, mantissa, decimals, after).

    The number is ±mantissa / 10**decimals, with at most 18 digits in all.
    """
    negative = False
    if at < end and load_u8(at) == 45:
        negative = True
        at += 1
    start = at
    mantissa, at = digits(at, end)
    whole = at - start
    if whole == 0 or whole > DIGITS_MAX or (whole > 1 and load_u8(start) == 48):
        return False, negative, int64(0), int64(0), at
    decimals = int64(0)
    if at < end and load_u8(at) == 46:
        start = at + 1
        fraction, at = digits(start, end)
        decimals = at - start
        digits_used = decimals if mantissa == 0 else whole + decimals
        if decimals == 0 or digits_used > DIGITS_MAX:
            return False, negative, int64(0), int64(0), at
        # A leading zero is no digit of the mantissa: 0.1234567890123456 has sixteen.
        mantissa = mantissa * INT_POWERS[decimals] + fraction
    if at < end and (load_u8(at) | 32) == 101:
        return False, negative, int64(0), int64(0), at
    return True, negative, mantissa, decimals, at


@inlined
def short_number(at: int, end: int) -> tuple[bool, bool, int, int, int]:
    """Read what `number` reads, with the same answer, if it has at most 7 characters.

    Without a branch on the number of digits, which no processor can foresee. Not certain
    means: ask `number`.
    """
    negative = load_u8(at) == 45
    if negative:
        at += 1
    word = load_u64(at)
    whole = leading_digits(word)
    if whole == 0 or whole == 8 or (whole > 1 and (word & U64(0xFF)) == U64(48)):
        return False, negative, int64(0), int64(0), at
    count = whole
    after = at + whole
    if (word >> U64(8 * whole)) & U64(0xFF) == U64(46):
        below = (U64(1) << U64(8 * whole)) - U64(1)
        word = (word & below) | ((word >> U64(8)) & ~below)
        count = leading_digits(word)
        after = at + count + 1
        if count == whole or count == 7:
            return False, negative, int64(0), int64(0), at
    if after >= end or (load_u8(after) | 32) == 101:
        return False, negative, int64(0), int64(0), at
    return True, negative, _value_of(word, count), count - whole, after


@kernel
def _quotient(mantissa: np.uint64, decimals: int) -> float:
    """Return the double nearest to mantissa / 10**decimals, by long division.

    Takes off the power of two and divides by 5**decimals < 2**42, bits by bits, until the
    quotient has 55: with the remainder noted in its last bit, one rounding decides.
    """
    divisor = FIVES[decimals]
    quotient = mantissa // divisor
    left = mantissa - quotient * divisor
    shifted = decimals
    while quotient < _ENOUGH:
        step = U64(22)
        while (quotient >> (U64(62) - step)) > U64(0):
            step -= U64(1)
        left <<= step
        bits = left // divisor
        left -= bits * divisor
        quotient = (quotient << step) | bits
        shifted += int64(step)
    if left > U64(0):
        quotient |= U64(1)
    return float(int64(quotient)) * float(HALVES[shifted])


@inlined
def to_double(negative: bool, mantissa: int, decimals: int) -> tuple[bool, float]:
    """Return (certain, the nearest double): one division of exact doubles, or a long one."""
    if decimals > DIGITS_MAX or mantissa > _MANTISSA_MAX:
        return False, 0.0
    if decimals == 0 or mantissa <= EXACT_MAX:
        value = np.float64(mantissa) / POWERS[decimals]
    else:
        value = _quotient(U64(mantissa), decimals)
    return True, (-value if negative else value)


@kernel
def epoch_us(
    negative: bool, mantissa: int, decimals: int, unit_ns: int
) -> tuple[bool, int]:
    """Return (certain, µs since 1970) of a number counted in units of `unit_ns`, floored.

    Only whole numbers of seconds to microseconds, and of nanoseconds, are certain here;
    a number with decimals is certain in seconds and milliseconds while it fits.
    """
    if decimals > 9 or unit_ns < 1:
        return False, int64(0)
    if decimals == 0 and unit_ns == 1_000_000 and mantissa <= _WHOLE_MAX:
        time = (-mantissa if negative else mantissa) * 1000
        return TIME_US_MIN <= time < TIME_US_MAX, time
    # us = mantissa * unit_ns / (1000 * 10**decimals), as one exact division
    divisor = INT_POWERS[decimals] * 1000
    shared = min(divisor, unit_ns)  # both are powers of ten
    factor = unit_ns // shared
    divisor //= shared
    if mantissa > 9_000_000_000_000_000_000 // factor:
        return False, int64(0)
    ticks = mantissa * factor
    time = -((ticks + divisor - 1) // divisor) if negative else ticks // divisor
    return TIME_US_MIN <= time < TIME_US_MAX, time


@kernel
def _two(at: int) -> int:
    tens = int64(load_u8(at)) - 48
    ones = int64(load_u8(at + 1)) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return 1 << 20
    return 10 * tens + ones


@kernel
def day_number(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 of a proleptic Gregorian date (Hinnant's algorithm)."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return (
        era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    )


@kernel
def _days_in(year: int, month: int) -> int:
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if leap else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@kernel
def _fraction_us(at: int, end: int) -> tuple[bool, int, int]:
    """Read `.` and 1..9 digits, if there: (well formed, µs truncated, address after)."""
    if at >= end or load_u8(at) != 46:
        return True, int64(0), at
    value, after = digits(at + 1, end)
    count = after - at - 1
    if count < 1 or count > 9:
        return False, int64(0), after
    if count <= 6:
        return True, value * INT_POWERS[6 - count], after
    return True, value // INT_POWERS[count - 6], after


@kernel
def _zone_us(at: int, end: int) -> tuple[int, int]:
    """Read `Z` or `±HH:MM` up to `end`: (1 stated, 0 absent, -1 malformed; µs east)."""
    if at == end:
        return 0, int64(0)
    sign = load_u8(at)
    if end - at == 1 and (sign | 32) == 122:
        return 1, int64(0)
    if end - at != 6 or (sign != 43 and sign != 45) or load_u8(at + 3) != 58:
        return -1, int64(0)
    hours = _two(at + 1)
    minutes = _two(at + 4)
    if hours > 23 or minutes > 59:
        return -1, int64(0)
    east = int64(hours * 3600 + minutes * 60) * 1_000_000
    return 1, (-east if sign == 45 else east)


@kernel
def _date(at: int) -> tuple[bool, int]:
    """Read `YYYY-MM-DD`, ten readable bytes: (certain, days since 1970-01-01)."""
    year = _two(at) * 100 + _two(at + 2)
    month = _two(at + 5)
    day = _two(at + 8)
    if load_u8(at + 4) != 45 or load_u8(at + 7) != 45:
        return False, int64(0)
    if year < 1 or year > 9999 or month < 1 or month > 12 or day < 1:
        return False, int64(0)
    if day > _days_in(year, month):
        return False, int64(0)
    return True, day_number(year, month, day)


@kernel
def rfc3339_us(at: int, end: int) -> tuple[int, int]:
    """Read a whole RFC 3339 time: (1 with zone, 0 without, -1 not certain; µs since 1970).

    `T`, `t` or a space between date and time; up to nine decimals, truncated to µs.
    Without a zone the time is read as UTC; whether that is allowed is the caller's.
    """
    if end - at < 19 or end - at > 35:
        return -1, int64(0)
    certain, day = _date(at)
    hour = _two(at + 11)
    minute = _two(at + 14)
    second = _two(at + 17)
    between = load_u8(at + 10)
    if (
        not certain
        or ((between | 32) != 116 and between != 32)
        or load_u8(at + 13) != 58
        or load_u8(at + 16) != 58
    ):
        return -1, int64(0)
    if hour > 23 or minute > 59 or second > 59:
        return -1, int64(0)
    fine, fraction, at = _fraction_us(at + 19, end)
    stated, east = _zone_us(at, end)
    if not fine or stated < 0:
        return -1, int64(0)
    seconds = day * DAY_S + hour * 3600 + minute * 60 + second
    time = seconds * 1_000_000 + fraction - east
    if time < TIME_US_MIN or time >= TIME_US_MAX:
        return -1, int64(0)
    return stated, time


@kernel
def remember_day(at: int, day: int) -> None:
    """Note the date of a time that `rfc3339_us` accepted at `at`, for `known_day_us`."""
    _, number = _date(at)
    begin = number * DAY_S * 1_000_000
    if TIME_US_MIN <= begin < TIME_US_MAX:
        store_u64(day, load_u64(at))
        store_u64(day + 8, load_u64(at + 3))
        store_i64(day + 16, begin)


@inlined
def _known_second_us(at: int, day: int) -> tuple[bool, int]:
    """Read 19 bytes of the day noted at address `day`: (certain, µs since 1970 if it is UTC)."""
    clock = load_u64(at + 11) ^ _CLOCK
    if (
        load_u64(at) != load_u64(day)
        or load_u64(at + 3) != load_u64(day + 8)
        or ((clock + _OVER_CLOCK) | clock) & _HIGH != U64(0)
    ):
        return False, int64(0)
    pairs = clock * U64(10) + (clock >> U64(8))
    hour = int64(pairs & U64(0xFF))
    minute = int64((pairs >> U64(24)) & U64(0xFF))
    second = int64((pairs >> U64(48)) & U64(0xFF))
    time = load_i64(day + 16) + (hour * 3600 + minute * 60 + second) * 1_000_000
    return hour <= 23, time


@inlined
def known_day_us(at: int, end: int, day: int) -> tuple[int, int]:
    """Read a time in UTC of the day noted at address `day`: (address after or -1, µs since 1970).

    Accepts a part of what `rfc3339_us` accepts, up to six decimals, with the same answer.
    """
    certain, time = _known_second_us(at, day)
    if not certain:
        return -1, int64(0)
    at += 19
    if load_u8(at) == 46:
        word = load_u64(at + 1)
        count = leading_digits(word)
        if count == 0 or count > 6:
            return -1, int64(0)
        time += _value_of(word, count) * INT_POWERS[6 - count]
        at += 1 + count
    if at >= end or (load_u8(at) | 32) != 122:
        return -1, int64(0)
    return at + 1, time


@inlined
def known_day_ns(at: int, end: int, day: int) -> tuple[int, int]:
    """Read what `known_day_us` reads, up to nine decimals, and `+00:00` for `Z`, too."""
    certain, time = _known_second_us(at, day)
    if not certain:
        return -1, int64(0)
    at += 19
    if load_u8(at) == 46:
        word = load_u64(at + 1)
        count = leading_digits(word)
        if count == 0:
            return -1, int64(0)
        fraction = _value_of(word, count) * INT_POWERS[8 - count]
        at += 1 + count
        if count == 8 and 48 <= load_u8(at) <= 57:
            at += 1
        time += fraction // 100
    if at < end and (load_u8(at) | 32) == 122:
        return at + 1, time
    if at + 6 <= end and low_bytes(load_u64(at), 6) == _UTC:
        return at + 6, time
    return -1, int64(0)


@kernel
def is_clean(at: int, end: int) -> bool:
    """Tell whether the bytes are UTF-8 without control characters below U+0020."""
    start = at
    high = False
    while at < end:
        byte = load_u8(at)
        if byte < 0x20:
            return False
        high = high or byte >= 0x80
        at += 1
    return not high or is_utf8(start, end - start)
