"""ChirpStack v4 uplinks in JSON to readings, whole batches at a time: the certain ones.

An uplink is read once, left to right: the device and the time are taken, what is mapped in
`object` too (`uplink_content`), all else is passed over (`json_skip`). As with flat JSON
(`json_scan`) whatever is not fully understood marks the record for the strict path
(`streamproc.codecs.chirpstack_strict`), which says what it is worth; what is accepted here is
accepted there with the same answer, and a property test holds the two together.
"""

# ruff: noqa: PLR2004, PLR0917  (bytes by their ASCII codes; a kernel is flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_raw import (
    I8,
    U1,
    U64,
    int64,
    load_i64,
    load_u8,
    load_u64,
    low_bytes,
    store_i64,
)
from streamproc.kernels.bytes_sheet import (
    AHEAD,
    COUNT,
    DEVICES,
    admitted,
    expect_device,
    finish,
    room,
)
from streamproc.kernels.bytes_text import known_day_ns, skip_space
from streamproc.kernels.json_parts import (
    DAY,
    DEVICE,
    DEVICE_AT,
    DEVICE_SIZE,
    DOUBT,
    FIRST,
    ROW,
    SIZE_MAX,
    TIME,
    after_string,
    take_name,
    text_time,
)
from streamproc.kernels.json_skip import after_value, to_value
from streamproc.kernels.uplink_content import DEVICE_KEY, DEVICE_KEY_SIZE, take_content

# What became of a record.
DECODED, DOUBTED, EMPTY, UNDECODED = range(4)
"""`EMPTY`: an uplink without a payload, or in which nothing is mapped; `UNDECODED`: one whose
payload no codec has decoded."""

# What of an event is read, by bits of `seen`, and all else; and what its payload is.
_TIME, _INFO, _OBJECT, _DATA, _PORT, _OTHER = range(6)
_A_PORT = 1 << 6
_NO_BYTES = 1 << 7
_SOME_BYTES = 1 << 8
_NEEDED = (1 << _TIME) | (1 << _INFO)


def _word(text: bytes) -> np.uint64:
    return U64(int.from_bytes(text, "little"))


_W_TIME = _word(b'"time"')
_W_DATA = _word(b'"data"')
_W_PORT = _word(b'"fPort"')
_W_OBJECT = _word(b'"object"')
_W_DEVICE = _word(b'"deviceI')
_W_INFO = _word(b'nfo"')
_W_EVENT = _word(b".event.")
_W_EVENT_U = _word(b".event.u")


@inlined
def _field(at: int, size: int) -> int:
    """Return what the key is, given with its quotes."""
    word = low_bytes(load_u64(at), size)
    if size == 6:
        return _TIME if word == _W_TIME else (_DATA if word == _W_DATA else _OTHER)
    if size == 7:
        return _PORT if word == _W_PORT else _OTHER
    if size == 8:
        return _OBJECT if word == _W_OBJECT else _OTHER
    if size == 12 and word == _W_DEVICE:
        return _INFO if low_bytes(load_u64(at + 8), 4) == _W_INFO else _OTHER
    return _OTHER


@inlined
def _take_time(at: int, end: int, rules: int, scratch: int) -> int:
    if load_u8(at) != 34:
        return DOUBT
    after, time = known_day_ns(at + 1, end, scratch + 8 * DAY)
    if after > 0 and after < end and load_u8(after) == 34:
        store_i64(scratch + 8 * TIME, time)
        return after + 1
    return text_time(at + 1, end, rules, scratch)


@inlined
def _is_device(at: int, size: int, rules: int) -> bool:
    return (
        size == load_i64(rules + 8 * DEVICE_KEY_SIZE)
        and low_bytes(load_u64(at), size) == load_u64(rules + 8 * DEVICE_KEY)
        and low_bytes(load_u64(at + 8), max(size - 8, 0))
        == load_u64(rules + 8 * DEVICE_KEY + 8)
    )


@kernel
def _take_info(at: int, end: int, sheet: int, rules: int, scratch: int) -> int:
    """Read `deviceInfo`; return the address after it, or DOUBT, also if it names no device."""
    if load_u8(at) != 123:
        return DOUBT
    named = False
    at = skip_space(at + 1, end)
    while at < end:
        start = at
        at = after_string(at, end)
        size = at - start
        at = to_value(at, end) if at > 0 else DOUBT
        if at < 0:
            return DOUBT
        if _is_device(start, size, rules):
            if named:
                return DOUBT
            named = True
            start = at + 1
            at, code = take_name(at, end, sheet + 8 * DEVICES)
            store_i64(scratch + 8 * DEVICE, code)
            store_i64(scratch + 8 * DEVICE_AT, start)
            store_i64(scratch + 8 * DEVICE_SIZE, at - 1 - start)
        else:
            at = after_value(at, end)
        if at < 0:
            return DOUBT
        at = skip_space(at, end)
        if at >= end:
            return DOUBT
        byte = load_u8(at)
        if byte == 125:
            return at + 1 if named else DOUBT
        if byte != 44:
            return DOUBT
        at = skip_space(at + 1, end)
    return DOUBT


@inlined
def _payload(at: int, end: int, field: int) -> tuple[int, int]:
    """Skip `data`, `fPort` or what else: (address after it or DOUBT, bits of `seen`)."""
    after = after_value(at, end)
    byte = load_u8(at)
    if field == _PORT:
        return after, (_A_PORT if 48 <= byte <= 57 else 0)
    if field == _DATA and byte == 34:
        return after, (_SOME_BYTES if after > at + 2 else _NO_BYTES)
    return after, 0


@inlined
def _fate(seen: int) -> int:
    """Return what an event is in which all of this was seen, and read with certainty."""
    if seen & _NEEDED != _NEEDED:
        return DOUBTED
    if (seen >> _OBJECT) & 1 != 0:
        return DECODED
    if seen & _SOME_BYTES != 0:
        return UNDECODED
    if seen & _NO_BYTES != 0 or (seen & _A_PORT != 0 and (seen >> _DATA) & 1 == 0):
        return EMPTY
    # Perhaps no uplink at all.
    return DOUBTED


@kernel
def _read_event(at: int, end: int, sheet: int, rules: int, scratch: int) -> int:
    """Read an event into the scratch area and the sheet; return what became of it."""
    at = skip_space(at, end)
    if at >= end or load_u8(at) != 123:
        return DOUBTED
    seen = 0
    at = skip_space(at + 1, end)
    while at < end:
        start = at
        at = after_string(at, end)
        if at < 0:
            return DOUBTED
        field = _field(start, at - start)
        at = to_value(at, end)
        if at < 0 or (field != _OTHER and (seen >> field) & 1 != 0):
            return DOUBTED
        seen |= 1 << field
        if field == _TIME:
            at = _take_time(at, end, rules, scratch)
        elif field == _INFO:
            at = _take_info(at, end, sheet, rules, scratch)
        elif field == _OBJECT:
            at = take_content(at, end, sheet, rules, scratch)
        else:
            at, bits = _payload(at, end, field)
            seen |= bits
        if at < 0:
            return DOUBTED
        at = skip_space(at, end)
        if at >= end:
            return DOUBTED
        byte = load_u8(at)
        if byte == 125:
            return _fate(seen) if skip_space(at + 1, end) == end else DOUBTED
        if byte != 44:
            return DOUBTED
        at = skip_space(at + 1, end)
    return DOUBTED


@inlined
def _tells_other(at: int, size: int) -> bool:
    """Tell whether a record key may tell another kind of event than an uplink."""
    end = at + size
    if size >= 9 and load_u64(end - 9) == _W_EVENT_U and load_u8(end - 1) == 112:
        return False
    while at + 7 <= end:
        if low_bytes(load_u64(at), 7) == _W_EVENT:
            return True
        at += 1
    return False


@kernel
def scan_uplinks(
    data: U1,
    starts: I8,
    ends: I8,
    key_data: U1,
    key_starts: I8,
    key_ends: I8,
    rules: I8,
    scratch: I8,
    sheet: I8,
    fates: U1,
    begin: int,
) -> int:
    """Decode rows from `begin` on; return the first that has no room, or n.

    Args:
        data: payload bytes, padded; row i is `data[starts[i]:ends[i]]`.
        starts: int64[n], -1 for a null payload; `ends` likewise.
        ends: int64[n].
        key_data: record keys, padded.
        key_starts: int64[n], -1 for a null key.
        key_ends: int64[n].
        rules: int64[uplink_content.RULES].
        scratch: int64[uplink_content.SCRATCH_WORDS], kept between calls: the day met last.
        sheet: int64[bytes_sheet.WORDS], where readings go.
        fates: uint8[n], in: `DOUBTED` where the strict path looks anyway; out: what became
            of each record.
        begin: where to start.
    """
    base = data.ctypes.data
    key_base = key_data.ctypes.data
    place = sheet.ctypes.data
    notes = scratch.ctypes.data
    known = rules.ctypes.data
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
        if (
            fates[i] != DECODED
            or starts[i] < 0
            or size > rules[SIZE_MAX]
            or (
                key_starts[i] >= 0
                and _tells_other(key_base + key_starts[i], key_ends[i] - key_starts[i])
            )
        ):
            fates[i] = DOUBTED
            continue
        readings, free = admitted(place, size, 0, readings, free)
        if readings < 0:
            return i
        first = sheet[COUNT]
        scratch[FIRST] = first
        scratch[ROW] = i
        scratch[DEVICE_SIZE] = 0
        fate = _read_event(base + starts[i], base + ends[i], place, known, notes)
        length = scratch[DEVICE_SIZE]
        offset = scratch[DEVICE_AT] - base - starts[i]
        if fate != DECODED:
            sheet[COUNT] = first
        elif sheet[COUNT] == first:
            fate = EMPTY
        else:
            finish(place, first, i, scratch[DEVICE], scratch[TIME], int64(1), int64(0))
        fates[i] = fate
    return starts.size
