"""Protobuf messages of one flat type to readings, whole batches at a time.

The type arrives as a table by field number. Unknown numbers are skipped, the last of
several occurrences stands, as the wire format has it; a known number with another wire
type, and anything else that is not plain, is left to `streamproc.codecs.protobuf_strict`.
"""

# ruff: noqa: PLR2004, PLR1714, PLR0917, SIM109  (sizes of the format; a set is no kernel type; flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_fields import (
    FIRST,
    SIZE_MAX,
    begin,
    complete,
    take_double,
    take_integer,
    take_member,
    take_text,
    varint,
    zigzag,
)
from streamproc.kernels.bytes_raw import (
    I4,
    I8,
    U1,
    int64,
    load_f32,
    load_f64,
    load_i32,
    load_i64,
    load_u8,
    load_u32,
)
from streamproc.kernels.bytes_sheet import COUNT, admitted, room

UNKNOWN, INT, SINT, UINT, DOUBLE, FLOAT, FIXED, SFIXED, STRING, BYTES, MAP = range(11)
NUMBER_MAX = 63

# Words of one table row, by field number. DETAIL: for integers the bits (32 or 64), for
# a map the kind of its values, their bits in DETAIL_BITS.
KIND, ROLE, DETAIL, DETAIL_BITS = range(4)
ROW_WORDS = 4

VARINT, I64, LEN, I32 = 0, 1, 2, 5
_FAILED = -1
_TOP = np.uint64(1 << 63)


@inlined
def _wire_type(kind: int, bits: int) -> int:
    if kind == INT or kind == SINT or kind == UINT:
        return VARINT
    if kind == DOUBLE or ((kind == FIXED or kind == SFIXED) and bits == 64):
        return I64
    if kind == FLOAT or kind == FIXED or kind == SFIXED:
        return I32
    return LEN


@inlined
def _integer(kind: int, bits: int, at: int, end: int) -> tuple[int, int]:
    """Read an integer that fits its declared bits and int64: (address after or -1, it)."""
    if kind == FIXED or kind == SFIXED:
        size = bits // 8
        if size > end - at:
            return _FAILED, int64(0)
        if bits == 64:
            value = load_i64(at)
            bad = kind == FIXED and value < 0
            return (_FAILED if bad else at + 8), value
        if kind == FIXED:
            return at + 4, int64(load_u32(at))
        return at + 4, int64(load_i32(at))
    word, at = varint(at, end)
    if kind == UINT and word >= _TOP:
        return _FAILED, int64(0)
    value = zigzag(word) if kind == SINT else int64(word)
    if bits == 32:
        high = (1 << 32) - 1 if kind == UINT else (1 << 31) - 1
        low = 0 if kind == UINT else -(1 << 31)
        if value < low or value > high:
            return _FAILED, value
    return at, value


@inlined
def _double(kind: int, bits: int, at: int, end: int) -> tuple[int, float]:
    """Read any number as a double: (address after or -1, it)."""
    if kind == DOUBLE:
        if end - at < 8:
            return _FAILED, 0.0
        return at + 8, load_f64(at)
    if kind == FLOAT:
        if end - at < 4:
            return _FAILED, 0.0
        return at + 4, np.float64(load_f32(at))
    at, value = _integer(kind, bits, at, end)
    return at, np.float64(value)


@inlined
def _entry(row: int, at: int, end: int, sheet: int, scratch: int) -> bool:
    """Read one map entry written the usual way: key as field 1, then value as field 2."""
    kind = load_i64(row + 8 * DETAIL)
    bits = load_i64(row + 8 * DETAIL_BITS)
    if at >= end or load_u8(at) != (1 << 3 | LEN):
        return False
    word, at = varint(at + 1, end)
    if at < 0 or word > np.uint64(end - at):
        return False
    name = at
    size = int64(word)
    at += size
    if at >= end or load_u8(at) != (2 << 3 | _wire_type(kind, bits)):
        return False
    at, value = _double(kind, bits, at + 1, end)
    return at == end and take_member(name, size, value, sheet, scratch)


@inlined
def _skip(wire: int, at: int, end: int) -> int:
    """Skip an unknown field; return the address after, or -1 (groups included)."""
    if wire == VARINT:
        _, at = varint(at, end)
        return at
    if wire == LEN:
        word, at = varint(at, end)
        if at < 0 or word > np.uint64(end - at):
            return _FAILED
        return at + int64(word)
    if wire == I64 or wire == I32:
        size = 8 if wire == I64 else 4
        return at + size if size <= end - at else _FAILED
    return _FAILED


@inlined
def _field(
    row: int, wire: int, at: int, end: int, sheet: int, rules: int, scratch: int
) -> int:
    """Read one known field; return the address after, or -1."""
    kind = load_i64(row + 8 * KIND)
    role = load_i64(row + 8 * ROLE)
    bits = load_i64(row + 8 * DETAIL)
    if kind == UNKNOWN:
        return _skip(wire, at, end)
    if wire != _wire_type(kind, bits):
        return _FAILED
    if kind == DOUBLE or kind == FLOAT:
        at, value = _double(kind, bits, at, end)
        return at if at >= 0 and take_double(role, value, scratch) else _FAILED
    if wire != LEN:
        at, number = _integer(kind, bits, at, end)
        return at if at >= 0 and take_integer(role, number, rules, scratch) else _FAILED
    word, at = varint(at, end)
    if at < 0 or word > np.uint64(end - at):
        return _FAILED
    size = int64(word)
    if kind == STRING and not take_text(role, at, size, sheet, rules, scratch):
        return _FAILED
    if kind == MAP and not _entry(row, at, at + size, sheet, scratch):
        return _FAILED
    return at + size


@inlined
def _message(
    at: int, end: int, table: int, sheet: int, rules: int, scratch: int
) -> bool:
    while at < end:
        tag, at = varint(at, end)
        if at < 0 or tag > np.uint64(0xFFFFFFFF) or tag < np.uint64(8):
            return False
        number = int64(tag >> np.uint64(3))
        wire = int64(tag & np.uint64(7))
        if number > NUMBER_MAX:
            at = _skip(wire, at, end)
        else:
            row = table + 8 * ROW_WORDS * number
            at = _field(row, wire, at, end, sheet, rules, scratch)
        if at < 0:
            return False
    return complete(sheet, rules, scratch)


@kernel
def scan_protobuf(
    data: U1,
    starts: I8,
    ends: I8,
    rows: I4,
    table: I8,
    rules: I8,
    scratch: I8,
    sheet: I8,
    doubtful: U1,
    first_row: int,
) -> int:
    """Decode messages from `first_row` on; return the first that has no room, or n.

    Args:
        data: bytes, padded; `data[starts[i]:ends[i]]` is the list of message indexes and
            message i. Any list but the single byte 0, the first message, is doubtful.
        starts: int64[n].
        ends: int64[n].
        rows: int32[n], the row number to write.
        table: int64[(NUMBER_MAX + 1) * ROW_WORDS].
        rules: int64[bytes_fields.RULES].
        scratch: int64[bytes_fields.SCRATCH_WORDS].
        sheet: int64[bytes_sheet.WORDS], where readings go.
        doubtful: uint8[n], out: 1 where the strict path has to look.
        first_row: where to start.
    """
    base = data.ctypes.data
    place = sheet.ctypes.data
    note = scratch.ctypes.data
    law = rules.ctypes.data
    readings, free = room(place)
    for i in range(first_row, starts.size):
        size = ends[i] - starts[i]
        if size < 1 or size > rules[SIZE_MAX] or data[starts[i]] != 0:
            doubtful[i] = 1
            continue
        readings, free = admitted(place, size, 0, readings, free)
        if readings < 0:
            return i
        begin(note, law, sheet[COUNT], int64(rows[i]))
        certain = _message(
            base + starts[i] + 1, base + ends[i], table.ctypes.data, place, law, note
        )
        doubtful[i] = 0 if certain else 1
        if not certain:
            sheet[COUNT] = scratch[FIRST]
    return starts.size
