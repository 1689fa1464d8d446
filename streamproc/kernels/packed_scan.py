"""Packed records of one declared layout to readings, whole batches at a time.

The layout arrives as a plan of words. Every number is loaded as eight bytes whose highest
are the field's, so that one shift makes a number of it in either byte order. A record with
anything out of the ordinary is left to `streamproc.codecs.packed_strict`.
"""

# ruff: noqa: PLR2004, PLR0917  (ASCII codes and sizes; a kernel is flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_dict import COUNT as NAMES
from streamproc.kernels.bytes_dict import NOT_A_NAME, code_of, has_room
from streamproc.kernels.bytes_raw import (
    I8,
    U1,
    U64,
    copy_bytes,
    double_of,
    int64,
    load_i64,
    load_u8,
    load_u64,
    single_of,
    store_f64,
    store_i8,
    store_i32,
    store_i64,
    store_u16,
    store_u64,
    swapped,
)
from streamproc.kernels.bytes_sheet import (
    CAPACITY,
    COUNT,
    DEVICE,
    DEVICES,
    FLAGS,
    ORDINAL,
    PROPERTY,
    QUALITY,
    ROW,
    TIME,
    UNIT,
    VALUE,
)

# Words of a plan. A SHIFT is 64 minus the field's bits.
SIZE, BIG, RECORD_MAX, DEVICE_AT, DEVICE_SHIFT, DEVICE_KIND, DEVICE_LENGTH = range(7)
PREFIX, DEVICE_MAX, CODE_AT, CODE_SHIFT, CODE_BITS = range(7, 12)
TIME_AT, TIME_SHIFT, TIME_SIGNED, TIME_FACTOR, TIME_LOW, TIME_HIGH = range(12, 18)
VALUE_AT, VALUE_SHIFT, VALUE_KIND, QUALITY_AT, KNOWN_BITS = range(18, 23)
PLAN_WORDS = 23

UNSIGNED, SIGNED, TEXT = range(3)
INTEGER, SINGLE, DOUBLE = range(3)

NANOSECONDS = 0
"""The `TIME_FACTOR` of nanoseconds: there are a thousand to a microsecond."""

# Words of one entry of the table of property codes; an empty one has key -1.
KEY, PROPERTY_CODE, UNIT_CODE = range(3)
CODE_WORDS = 4

DIGITS = 32
"""Bytes in front of the text buffer where digits are written, last one first."""

MIX = U64(0x9E3779B97F4A7C15)


@inlined
def _top(at: int, shift: int, big: int) -> np.uint64:
    """Load a field of 64 - `shift` bits into the highest bits of a word."""
    word = load_u64(at)
    return swapped(word) if big != 0 else word << U64(shift)


@kernel
def _written(
    magnitude: np.uint64,
    negative: bool,  # noqa: FBT001  (a kernel has no keywords)
    text: int,
    prefix: int,
) -> int:
    """Write a number behind the prefix in the text buffer; return the bytes of both."""
    at = text
    while True:
        rest = magnitude // U64(10)
        at -= 1
        store_i8(at, np.int8(48 + int64(magnitude - rest * U64(10))))
        magnitude = rest
        if magnitude == U64(0):
            break
    if negative:
        at -= 1
        store_i8(at, np.int8(45))
    copy_bytes(text + prefix, at, text - at)
    return prefix + text - at


@inlined
def _numbered(top: np.uint64, plan: int, known: int, text: int, sheet: int) -> int:
    """Return the code of a device with a number; `known` remembers the ones before.

    Not more of them than half its slots: whoever owns it makes it larger between batches.
    """
    number = top >> U64(load_i64(plan + 8 * DEVICE_SHIFT))
    bits = load_i64(plan + 8 * KNOWN_BITS)
    slot = int64((number * MIX) >> U64(64 - bits))
    code = load_i64(known + 16 * slot + 8)
    while code >= 0:
        if load_u64(known + 16 * slot) == number:
            return code
        slot = (slot + 1) & ((1 << bits) - 1)
        code = load_i64(known + 16 * slot + 8)
    negative = load_i64(plan + 8 * DEVICE_KIND) == SIGNED and int64(number) < 0
    magnitude = U64(0) - number if negative else number
    size = _written(magnitude, negative, text, load_i64(plan + 8 * PREFIX))
    code = code_of(sheet + 8 * DEVICES, text, size)
    # Each known number is a name of its own, so there are no more of them than names.
    if 2 * load_i64(sheet + 8 * (DEVICES + NAMES)) <= 1 << bits:
        store_u64(known + 16 * slot, number)
        store_i64(known + 16 * slot + 8, code)
    return code


@kernel
def _texted(at: int, plan: int, text: int, sheet: int) -> int:
    """Return the code of a device whose name stands in the record; only ASCII is certain."""
    end = at + load_i64(plan + 8 * DEVICE_LENGTH)
    while end > at and (load_u8(end - 1) == 0 or load_u8(end - 1) == 32):
        end -= 1
    if end == at:
        return NOT_A_NAME
    for place in range(at, end):
        if load_u8(place) >= 0x7F or load_u8(place) < 0x20:
            return NOT_A_NAME
    prefix = load_i64(plan + 8 * PREFIX)
    if prefix == 0:
        return code_of(sheet + 8 * DEVICES, at, end - at)
    copy_bytes(text + prefix, at, end - at)
    return code_of(sheet + 8 * DEVICES, text, prefix + end - at)


@inlined
def _entry(code: int, bits: int, codes: int) -> int:
    """Return the address of a property code's entry, of an empty one if it is unknown."""
    mask = (1 << bits) - 1
    slot = int64((U64(code) * MIX) >> U64(64 - bits))
    entry = codes + 8 * CODE_WORDS * slot
    while load_i64(entry) != code and load_i64(entry) >= 0:
        slot = (slot + 1) & mask
        entry = codes + 8 * CODE_WORDS * slot
    return entry


@inlined
def _time_us(top: np.uint64, plan: int) -> tuple[bool, int]:
    """Return (certain, µs since 1970)."""
    shift = load_i64(plan + 8 * TIME_SHIFT)
    time = (
        int64(top)
        if load_i64(plan + 8 * TIME_SIGNED) != 0
        else int64(top >> U64(shift))
    )
    if time < load_i64(plan + 8 * TIME_LOW) or time >= load_i64(plan + 8 * TIME_HIGH):
        return False, int64(0)
    factor = load_i64(plan + 8 * TIME_FACTOR)
    return True, (time // 1000 if factor == NANOSECONDS else time * factor)


@inlined
def _value(top: np.uint64, plan: int) -> float:
    kind = load_i64(plan + 8 * VALUE_KIND)
    if kind == DOUBLE:
        return double_of(top)
    if kind == SINGLE:
        return np.float64(single_of(np.uint32(top >> U64(32))))
    return np.float64(int64(top) >> load_i64(plan + 8 * VALUE_SHIFT))


@inlined
def _reading(
    at: int,
    row: int,
    ordinal: int,
    plan: int,
    scale: float,
    codes: int,
    known: int,
    text: int,
    sheet: int,
) -> bool:
    """Append the reading at `at`; False, and nothing appended, where it is not certain."""
    big = load_i64(plan + 8 * BIG)
    place = at + load_i64(plan + 8 * DEVICE_AT)
    if load_i64(plan + 8 * DEVICE_KIND) == TEXT:
        device = _texted(place, plan, text, sheet)
    else:
        top = _top(place, load_i64(plan + 8 * DEVICE_SHIFT), big)
        device = _numbered(top, plan, known, text, sheet)
    shift = load_i64(plan + 8 * CODE_SHIFT)
    top = _top(at + load_i64(plan + 8 * CODE_AT), shift, big)
    entry = _entry(int64(top >> U64(shift)), load_i64(plan + 8 * CODE_BITS), codes)
    place = at + load_i64(plan + 8 * TIME_AT)
    certain, time = _time_us(_top(place, load_i64(plan + 8 * TIME_SHIFT), big), plan)
    place = at + load_i64(plan + 8 * VALUE_AT)
    value = _value(_top(place, load_i64(plan + 8 * VALUE_SHIFT), big), plan) * scale
    if device < 0 or load_i64(entry) < 0 or not certain or not np.isfinite(value):
        return False
    quality = int64(1)
    if load_i64(plan + 8 * QUALITY_AT) >= 0:
        quality = int64(load_u8(at + load_i64(plan + 8 * QUALITY_AT)))
    k = load_i64(sheet + 8 * COUNT)
    store_i32(load_i64(sheet + 8 * ROW) + 4 * k, np.int32(row))
    store_i32(load_i64(sheet + 8 * ORDINAL) + 4 * k, np.int32(ordinal))
    store_i32(load_i64(sheet + 8 * DEVICE) + 4 * k, np.int32(device))
    name, unit = load_i64(entry + 8 * PROPERTY_CODE), load_i64(entry + 8 * UNIT_CODE)
    store_i32(load_i64(sheet + 8 * PROPERTY) + 4 * k, np.int32(name))
    store_i32(load_i64(sheet + 8 * UNIT) + 4 * k, np.int32(unit))
    store_i64(load_i64(sheet + 8 * TIME) + 8 * k, time)
    store_f64(load_i64(sheet + 8 * VALUE) + 8 * k, value)
    store_i8(load_i64(sheet + 8 * QUALITY) + k, np.int8(quality))
    store_u16(load_i64(sheet + 8 * FLAGS) + 2 * k, np.uint16(0))
    store_i64(sheet + 8 * COUNT, k + 1)
    return True


@kernel
def scan_packed(
    data: U1,
    starts: I8,
    ends: I8,
    plan: I8,
    scale: float,
    codes: I8,
    known: I8,
    text: U1,
    sheet: I8,
    doubtful: U1,
    first_row: int,
) -> int:
    """Decode records from `first_row` on; return the first that has no room, or n.

    Args:
        data: bytes, padded; record i is `data[starts[i]:ends[i]]`, null where start < 0.
        starts: int64[n].
        ends: int64[n].
        plan: int64[PLAN_WORDS].
        scale: factor of every value.
        codes: int64[CODE_WORDS << plan[CODE_BITS]], the table of property codes.
        known: int64[2 << plan[KNOWN_BITS]], pairs of a device's number and code, code -1 for none.
        text: uint8, `DIGITS` bytes, then the prefix and room for a device, padded.
        sheet: int64[bytes_sheet.WORDS], where readings go.
        doubtful: uint8[n], out: 1 where the strict path has to look.
        first_row: where to start.
    """
    base = data.ctypes.data
    place = sheet.ctypes.data
    addresses = (plan.ctypes.data, codes.ctypes.data, known.ctypes.data)
    buffer = text.ctypes.data + DIGITS
    step = plan[SIZE]
    for i in range(first_row, starts.size):
        doubtful[i] = 1
        size = ends[i] - starts[i]
        if starts[i] < 0 or size == 0 or size > plan[RECORD_MAX] or size % step != 0:
            continue
        count = size // step
        before = sheet[COUNT]
        if before + count > sheet[CAPACITY] or not has_room(
            place + 8 * DEVICES, count, count * plan[DEVICE_MAX]
        ):
            return i
        certain = True
        for k in range(count):
            at = base + starts[i] + k * step
            certain = _reading(
                at, i, k, addresses[0], scale, addresses[1], addresses[2], buffer, place
            )
            if not certain:
                sheet[COUNT] = before
                break
        doubtful[i] = 0 if certain else 1
    return starts.size
