"""Kafka's record batches (format v2) as bytes: where each batch and each record lies.

A fetch response holds, per partition, batches one behind the other, the last one often cut
off. `scan` finds them and copies what their headers say into a table; `walk` goes through
their (decompressed) record sections and notes where keys and values lie. Nothing is copied
and nothing is trusted: every length is checked against what encloses it before a byte there
is read, and what does not hold is an error code with its row.

    batch:  base offset i64, length i32, leader epoch i32, magic i8, CRC-32C u32, attributes i16,
            last offset delta i32, first and max timestamp i64, producer id i64, producer
            epoch i16, base sequence i32, count i32, records
    record: length, attributes i8, timestamp delta, offset delta, key, value, headers
            (all but the attributes are zigzag varints, or bytes after one)

Formats 0 and 1 share the first two fields and the place of the magic: `scan` lists them, too.
"""

# ruff: noqa: PLR2004, PLR0917  (widths of the fields above; flat)

from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_fields import varint, zigzag
from streamproc.kernels.bytes_raw import int64, load_u8

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]

# Columns of the table.
START: Final = 0
END: Final = 1
MAGIC: Final = 2
CRC: Final = 3
ATTRIBUTES: Final = 4
BASE: Final = 5
LAST_DELTA: Final = 6
FIRST_MS: Final = 7
MAX_MS: Final = 8
PRODUCER: Final = 9
COUNT: Final = 10
SKIP: Final = 11
"""0; callers mark batches here whose records nobody is to see."""
COLUMNS: Final = 12

# Bits of the attributes.
CODEC: Final = 7
APPEND_TIME: Final = 8
TRANSACTIONAL: Final = 16
CONTROL: Final = 32

HEADER_BYTES: Final = 61
CRC_FROM: Final = 21
"""The checksum covers a batch from here to its end."""

_PREFIX: Final = 12  # base offset and length, which counts what follows it
_LEGACY_MIN: Final = 26
_RECORD_MIN: Final = 7

OFFSET_END: Final = 1 << 62
"""No offset reaches it: sums of offsets do not overflow, and "to the end" is a number."""

NO_TIME: Final = -1

# Outcomes.
DONE: Final = 0
FULL: Final = 1
CUT: Final = 2
BAD_LENGTH: Final = -1
BAD_MAGIC: Final = -2
BAD_HEADER: Final = -3
BAD_RECORD: Final = -4
BAD_OFFSET: Final = -5
BAD_REST: Final = -6


@kernel
def _big_endian(at: int, size: int) -> int:
    """Return the signed number of `size` bytes at an address."""
    value = int64(load_u8(at))
    if value >= 128:
        value -= 256
    for place in range(1, size):
        value = (value << 8) | int64(load_u8(at + place))
    return value


@kernel
def scan(data: U1, start: int, end: int, table: I8) -> tuple[int, int, int]:
    """Note the batches in `data[start:end]`, row by row, as far as the table reaches.

    Returns:
        Rows written, where the next batch would begin, and DONE, FULL, CUT (what is left is
        the beginning of a batch) or a negative code for the batch there.
    """
    row = 0
    at = start
    address = data.ctypes.data
    while True:
        if at == end:
            return row, at, DONE
        if row == len(table):
            return row, at, FULL
        if end - at < _PREFIX:
            return row, at, CUT
        size = _PREFIX + _big_endian(address + at + 8, 4)
        if size > end - at:
            return row, at, CUT
        if size < _LEGACY_MIN:
            return row, at, BAD_LENGTH
        batch = table[row]
        batch[:] = 0
        here = address + at
        batch[START] = at
        batch[END] = at + size
        batch[BASE] = _big_endian(here, 8)
        batch[MAGIC] = _big_endian(here + 16, 1)
        if not 0 <= batch[MAGIC] <= 2:
            return row, at, BAD_MAGIC
        if batch[MAGIC] == 2:
            if size < HEADER_BYTES:
                return row, at, BAD_LENGTH
            batch[CRC] = _big_endian(here + 17, 4) & 0xFFFFFFFF
            batch[ATTRIBUTES] = _big_endian(here + 21, 2)
            batch[LAST_DELTA] = _big_endian(here + 23, 4)
            batch[FIRST_MS] = _big_endian(here + 27, 8)
            batch[MAX_MS] = _big_endian(here + 35, 8)
            batch[PRODUCER] = _big_endian(here + 43, 8)
            batch[COUNT] = _big_endian(here + 57, 4)
            if batch[COUNT] < 0 or batch[LAST_DELTA] < 0:
                return row, at, BAD_HEADER
        if not 0 <= batch[BASE] < OFFSET_END:
            return row, at, BAD_HEADER
        at += size
        row += 1


@kernel
def _number(at: int, end: int) -> tuple[int, int]:
    """Return a zigzag varint and the address behind it, -1 where it is not whole."""
    word, at = varint(at, end)
    return zigzag(word), at


@kernel
def _past_headers(at: int, end: int) -> int:
    """Return the address behind a record's headers, -1 where they do not hold."""
    count, at = _number(at, end)
    if at < 0 or count < 0:
        return -1
    for _ in range(count):
        size, at = _number(at, end)
        if at < 0 or size < 0 or size > end - at:
            return -1
        at += size
        size, at = _number(at, end)
        if at < 0 or size > end - at:
            return -1
        at += max(size, 0)
    return at


@kernel
def walk(
    data: U1, bodies: I8, table: I8, window: I8, offsets: I8, broker_us: I8, places: I8
) -> tuple[int, int, int]:
    """Note every record with `window[0] <= offset < window[1]`, in strictly ascending order.

    An offset below the one that is due is passed over, as aiokafka does: that is how a
    position in the middle of a batch is met. `window[0]` moves on to what is due next.

    Args:
        data: what `bodies` points into.
        bodies: int64[n, 2], where each batch's record section begins and ends.
        table: int64[n, COLUMNS], from `scan`.
        window: int64[2], changed.
        offsets: out, int64, room for every record.
        broker_us: out, likewise; `NO_TIME` where the record has none.
        places: out, int64[4, room]: starts and ends of values, then of keys; start -1 for null.

    Returns:
        Records written, the batch that was last looked at, and DONE or a negative code.
    """
    row = 0
    address = data.ctypes.data
    due = window[0]
    for number in range(len(table)):
        batch = table[number]
        at = address + bodies[number, 0]
        end = address + bodies[number, 1]
        base = batch[BASE]
        last = batch[LAST_DELTA]
        appended = batch[ATTRIBUTES] & APPEND_TIME
        if batch[COUNT] * _RECORD_MIN > end - at:
            return row, number, BAD_HEADER
        for _ in range(batch[COUNT]):
            size, at = _number(at, end)
            if at < 0 or size < 1 or size > end - at:
                return row, number, BAD_RECORD
            stop = at + size
            moved_ms, at = _number(at + 1, stop)
            if at < 0:
                return row, number, BAD_RECORD
            delta, at = _number(at, stop)
            if at < 0:
                return row, number, BAD_RECORD
            key_size, key = _number(at, stop)
            if key < 0 or key_size > stop - key:
                return row, number, BAD_RECORD
            value_size, value = _number(key + max(key_size, 0), stop)
            if value < 0 or value_size > stop - value:
                return row, number, BAD_RECORD
            if _past_headers(value + max(value_size, 0), stop) != stop:
                return row, number, BAD_RECORD
            at = stop
            if not 0 <= delta <= last:
                return row, number, BAD_OFFSET
            offset = base + delta
            if offset < due or offset >= window[1]:
                continue
            due = offset + 1
            time_ms = batch[MAX_MS] if appended else batch[FIRST_MS] + moved_ms
            offsets[row] = offset
            broker_us[row] = NO_TIME if time_ms < 0 else time_ms * 1000
            places[0, row] = value - address if value_size >= 0 else -1
            places[1, row] = value - address + max(value_size, 0)
            places[2, row] = key - address if key_size >= 0 else -1
            places[3, row] = key - address + max(key_size, 0)
            row += 1
        if at != end:
            return row, number, BAD_REST
        due = max(due, base + last + 1)
    window[0] = due
    return row, len(table), DONE
