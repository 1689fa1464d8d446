"""Avro data of one flat writer schema to readings, whole batches at a time.

The schema arrives as operations, one per field in the order they are written; a record
that does not fit them to the last byte is left to `streamproc.codecs.avro_strict`.
"""

# ruff: noqa: PLR2004, PLR1714, PLR0917, SIM109  (sizes of the format; a set is no kernel type; flat)

import numpy as np

from streamproc.kernels._jit import inlined, kernel
from streamproc.kernels.bytes_fields import (
    FIRST,
    IGNORED,
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
    load_i64,
    load_u8,
)
from streamproc.kernels.bytes_sheet import COUNT, admitted, room

NULL, BOOLEAN, INT, LONG, FLOAT, DOUBLE, STRING, BYTES, FIXED, ENUM, MAP = range(11)

# Words of one operation. DETAIL: bytes of a fixed, symbols of an enum, kind of a map's
# values. NULL_BRANCH: which branch of a union with null is null, -1 for no union.
KIND, ROLE, DETAIL, NULL_BRANCH = range(4)
OPERATION_WORDS = 4

_INT32_MAX = (1 << 31) - 1
_FAILED = -1


@inlined
def _number(kind: int, at: int, end: int) -> tuple[int, float]:
    """Read a number of a map: (address after or -1, value)."""
    if kind == DOUBLE:
        if end - at < 8:
            return _FAILED, 0.0
        return at + 8, load_f64(at)
    if kind == FLOAT:
        if end - at < 4:
            return _FAILED, 0.0
        return at + 4, np.float64(load_f32(at))
    word, at = varint(at, end)
    value = zigzag(word)
    if at < 0 or (kind == INT and (value > _INT32_MAX or value < -_INT32_MAX - 1)):
        return _FAILED, 0.0
    return at, np.float64(value)


@inlined
def _map(kind: int, at: int, end: int, sheet: int, scratch: int) -> int:
    """Read a map of values, block by block; return the address after, or -1."""
    while True:
        word, at = varint(at, end)
        if at < 0:
            return _FAILED
        count = zigzag(word)
        if count == 0:
            return at
        # A negative count states the block's bytes too: rare, so left to the strict
        # path. An entry takes a byte at least, so a greater count is a lie.
        if count < 0 or count > end - at:
            return _FAILED
        for _ in range(count):
            word, at = varint(at, end)
            size = zigzag(word)
            if at < 0 or size < 0 or size > end - at:
                return _FAILED
            name = at
            at, value = _number(kind, at + size, end)
            if at < 0 or not take_member(name, size, value, sheet, scratch):
                return _FAILED


@inlined
def _field(
    operation: int, at: int, end: int, sheet: int, rules: int, scratch: int
) -> int:
    """Read one field; return the address after, or -1."""
    kind = load_i64(operation + 8 * KIND)
    role = load_i64(operation + 8 * ROLE)
    if kind == STRING or kind == BYTES:
        word, at = varint(at, end)
        size = zigzag(word)
        if at < 0 or size < 0 or size > end - at:
            return _FAILED
        if kind == STRING and not take_text(role, at, size, sheet, rules, scratch):
            return _FAILED
        return at + size
    if kind == DOUBLE or kind == FLOAT:
        at, value = _number(kind, at, end)
        return at if at >= 0 and take_double(role, value, scratch) else _FAILED
    if kind == LONG or kind == INT or kind == ENUM:
        word, at = varint(at, end)
        number = zigzag(word)
        if at < 0 or (
            kind == INT and (number > _INT32_MAX or number < -_INT32_MAX - 1)
        ):
            return _FAILED
        if kind == ENUM:
            known = 0 <= number < load_i64(operation + 8 * DETAIL)
            return at if known and role == IGNORED else _FAILED
        return at if take_integer(role, number, rules, scratch) else _FAILED
    if kind == MAP:
        return _map(load_i64(operation + 8 * DETAIL), at, end, sheet, scratch)
    if kind == NULL:
        return at
    if kind == BOOLEAN:
        return at + 1 if at < end and load_u8(at) <= 1 else _FAILED
    size = load_i64(operation + 8 * DETAIL)
    return at + size if kind == FIXED and size <= end - at else _FAILED


@inlined
def _datum(
    at: int, end: int, operations: int, count: int, sheet: int, rules: int, scratch: int
) -> bool:
    for k in range(count):
        operation = operations + 8 * OPERATION_WORDS * k
        null_branch = load_i64(operation + 8 * NULL_BRANCH)
        if null_branch >= 0:
            if at >= end:
                return False
            branch = int64(load_u8(at))  # zigzag: 0 is branch 0, 2 is branch 1
            if branch != 0 and branch != 2:
                return False
            at += 1
            if branch >> 1 == null_branch:
                continue
        at = _field(operation, at, end, sheet, rules, scratch)
        if at < 0:
            return False
    return at == end and complete(sheet, rules, scratch)


@kernel
def scan_avro(
    data: U1,
    starts: I8,
    ends: I8,
    rows: I4,
    operations: I8,
    rules: I8,
    scratch: I8,
    sheet: I8,
    doubtful: U1,
    first_row: int,
) -> int:
    """Decode data from `first_row` on; return the first that has no room, or n.

    Args:
        data: bytes, padded; datum i is `data[starts[i]:ends[i]]`, framing left out.
        starts: int64[n].
        ends: int64[n].
        rows: int32[n], the row number to write.
        operations: int64[fields * OPERATION_WORDS].
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
    count = operations.size // OPERATION_WORDS
    readings, free = room(place)
    for i in range(first_row, starts.size):
        size = ends[i] - starts[i]
        if size > rules[SIZE_MAX]:
            doubtful[i] = 1
            continue
        readings, free = admitted(place, size, 0, readings, free)
        if readings < 0:
            return i
        begin(note, law, sheet[COUNT], int64(rows[i]))
        certain = _datum(
            base + starts[i],
            base + ends[i],
            operations.ctypes.data,
            count,
            place,
            law,
            note,
        )
        doubtful[i] = 0 if certain else 1
        if not certain:
            sheet[COUNT] = scratch[FIRST]
    return starts.size
