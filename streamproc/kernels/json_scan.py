"""Flat JSON documents to readings, whole batches at a time: the certain ones.

The scanner reads a document once, left to right, and accepts it only if every byte is
one it fully understands; any doubt (an escape, an exponent, a nested object under an
ignored key, a duplicate key, an unexpected type, a null that is no unit or quality) marks the row for the strict
slow path (`streamproc.codecs.json_strict`). So it can be wrong in one way only, by
being slow. What it accepts, the strict path accepts with the same answer; a property
test holds the two together.

Technique: raw addresses; what stands between values is compared in blocks of 32 bytes as
far as documents are laid out like those before (`json_layout`), and read byte by byte from
there on; numbers are exact or refused.
"""

# ruff: noqa: PLR2004, PLR0917, FBT001  (bytes by their ASCII codes; a kernel is flat, and knows no keywords)

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
    store_i64,
)
from streamproc.kernels.bytes_sheet import (
    AHEAD,
    COUNT,
    DEVICES,
    NO_UNIT,
    admitted,
    expect_device,
    finish,
    put,
    room,
)
from streamproc.kernels.bytes_text import skip_space
from streamproc.kernels.json_layout import DONE, learn, learning_due, note, walk
from streamproc.kernels.json_parts import (
    DEVICE,
    DEVICE_AT,
    DEVICE_FROM_KEY,
    DEVICE_SIZE,
    DOUBT,
    FIRST,
    FLAGS,
    KEY_WORDS,
    OTHER,
    PROPERTY,
    QUALITY,
    ROW,
    SIZE_MAX,
    TIME,
    TRACE,
    UNIT,
    UNIT_MAP,
    VALUE,
    VALUES,
    after_string,
    field_at,
)
from streamproc.kernels.json_take import take

_SINGLE = (1 << PROPERTY) | (1 << VALUE) | (1 << UNIT)
_MANY = (1 << VALUES) | (1 << UNIT_MAP)
_SINGLE_NEEDS = (1 << PROPERTY) | (1 << VALUE) | (1 << TIME)
_MANY_NEEDS = (1 << VALUES) | (1 << TIME)


@kernel
def _read_on(
    at: int,
    end: int,
    seen: int,
    started: bool,
    sheet: int,
    keys: int,
    rules: int,
    scratch: int,
    trace: int,
) -> int:
    """Read a document from its beginning or, if `started`, from behind a value.

    Returns the bits of the fields read, `seen` included, or DOUBT. Notes every value in
    `trace`, unless that is 0.
    """
    opener = 44 if started else 123
    at = skip_space(at, end)
    while at < end:
        byte = load_u8(at)
        if byte == 125 and opener == 44:
            return seen if skip_space(at + 1, end) == end else DOUBT
        if byte != opener:
            return DOUBT
        opener = 44
        at = skip_space(at + 1, end)
        if at >= end:
            return DOUBT
        field = field_at(at, end, keys)
        if field == OTHER:
            at = after_string(at, end)
            if at < 0:
                return DOUBT
        else:
            if (seen >> field) & 1 != 0:
                return DOUBT
            at += load_i64(keys + 8 * KEY_WORDS * field)
        at = skip_space(at, end)
        if at >= end or load_u8(at) != 58:
            return DOUBT
        at = skip_space(at + 1, end)
        if at >= end:
            return DOUBT
        start = at
        at = take(field, at, end, sheet, rules, scratch, seen)
        if at < 0:
            return DOUBT
        if field != OTHER:
            seen |= 1 << field
        if trace != 0:
            note(trace, start, field, at)
        at = skip_space(at, end)
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
    layouts: int,
) -> bool:
    """Decode one record into the sheet; False leaves readings behind for the caller to drop."""
    first = load_i64(scratch + 8 * FIRST)
    row = load_i64(scratch + 8 * ROW)
    store_i64(scratch + 8 * QUALITY, int64(1))
    store_i64(scratch + 8 * FLAGS, int64(0))
    store_i64(scratch + 8 * UNIT, int64(NO_UNIT))
    at, seen, node = walk(at, end, layouts, sheet, rules, scratch)
    if at < 0:
        return False
    if node != DONE:
        trace = int64(0)
        if learning_due(layouts):
            trace = scratch + 8 * TRACE
            store_i64(trace, int64(0))
        seen = _read_on(at, end, seen, node != 0, sheet, keys, rules, scratch, trace)
        if seen < 0:
            return False
        if trace != 0:
            learn(layouts, node, at, end, trace)
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
    layouts: I8,
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
        scratch: int64[SCRATCH_WORDS], kept between calls: the day met last.
        layouts: int64[json_layout.WORDS], kept between calls: the layouts met so far.
        sheet: int64[bytes_sheet.WORDS], where readings go.
        doubtful: uint8[n], out: 1 where the strict path has to look.
        begin: where to start.
    """
    base = data.ctypes.data
    key_base = key_data.ctypes.data
    place = sheet.ctypes.data
    notes = scratch.ctypes.data
    known = layouts.ctypes.data
    readings, free = room(place)
    offset = int64(0)
    length = int64(0)
    for i in range(begin, starts.size):
        ahead = i + AHEAD
        if length > 0 and ahead < starts.size and starts[ahead] >= 0:
            expect_device(
                place, base + starts[ahead], base + ends[ahead], offset, length
            )
        size = ends[i] - starts[i]
        if starts[i] < 0 or size > rules[SIZE_MAX]:
            doubtful[i] = 1
            continue
        key_size = 0
        if key_starts[i] >= 0:
            # One byte too many is enough to be refused as a name.
            key_size = min(key_ends[i] - key_starts[i], NAME_BYTES_MAX + 1)
        readings, free = admitted(place, size, key_size, readings, free)
        if readings < 0:
            return i
        first = sheet[COUNT]
        scratch[FIRST] = first
        scratch[ROW] = rows[i]
        scratch[DEVICE_SIZE] = 0
        certain = _row(
            base + starts[i],
            base + ends[i],
            key_base + key_starts[i],
            key_size,
            place,
            keys.ctypes.data,
            rules.ctypes.data,
            notes,
            known,
        )
        length = scratch[DEVICE_SIZE]
        offset = scratch[DEVICE_AT] - base - starts[i]
        doubtful[i] = 0 if certain else 1
        if not certain:
            sheet[COUNT] = first
    return starts.size
