"""Record batches made by hand, and a slow, obvious reader of them."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import numpy.typing as npt
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from crc32c import crc32c

from streamproc.kernels import record_batch as kernels

HEADER = struct.Struct(">qiibIhiqqqhii")
CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
NOW_MS = 1_772_400_000_000

Header = tuple[str, bytes | None]
Seen = tuple[int, int, bytes | None, bytes | None]
"""Offset, broker time in microseconds, key, value."""


@dataclass(frozen=True, slots=True)
class Rec:
    """One record to be written."""

    delta: int
    value: bytes | None = b"value"
    key: bytes | None = None
    moved_ms: int = 0
    headers: Sequence[Header] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch to be written; `last_delta` None is the last record's."""

    base: int
    records: Sequence[Rec]
    codec: str = "none"
    producer: int = -1
    transactional: bool = False
    control: bool = False
    append_time: bool = False
    first_ms: int = NOW_MS
    max_ms: int = NOW_MS + 1000
    last_delta: int | None = None
    extra: bytes = field(default=b"", kw_only=True)
    """Bytes behind the last record, where none belong."""

    @property
    def last(self) -> int:
        if self.last_delta is not None:
            return self.last_delta
        return self.records[-1].delta if self.records else 0

    @property
    def next(self) -> int:
        return self.base + self.last + 1

    def encode(self) -> bytes:
        number, compress = CODECS[self.codec]
        body = b"".join(map(record, self.records)) + self.extra
        attributes = (
            number | self.append_time << 3 | self.transactional << 4 | self.control << 5
        )
        return sealed(
            HEADER.pack(
                *(self.base, 0, 7, 2, 0, attributes, self.last, self.first_ms),
                *(self.max_ms, self.producer, 0, -1, len(self.records)),
            )
            + (compress(body) if body or number else b"")
        )

    def seen(self) -> list[Seen]:
        """Return what a reader of the whole batch is to see."""
        return [
            (
                self.base + r.delta,
                1000
                * (self.max_ms if self.append_time else self.first_ms + r.moved_ms),
                r.key,
                r.value,
            )
            for r in self.records
        ]


def marker(base: int, producer: int, *, abort: bool) -> Batch:
    """Return the control batch that ends a transaction."""
    key = struct.pack(">hh", 0, 0 if abort else 1)
    record = Rec(0, bytes(6), key)
    return Batch(base, [record], producer=producer, transactional=True, control=True)


def sealed(batch: bytes) -> bytes:
    """Return the batch with the right length and checksum."""
    length = struct.pack(">i", len(batch) - 12)
    checksum = struct.pack(">I", crc32c(batch[21:]))
    return batch[:8] + length + batch[12:17] + checksum + batch[21:]


def varint(number: int) -> bytes:
    word = (number << 1) ^ (number >> 63)
    word &= (1 << 64) - 1
    out = bytearray()
    while word >= 0x80:
        out.append(word & 0x7F | 0x80)
        word >>= 7
    return bytes([*out, word])


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(rec: Rec) -> bytes:
    body = b"\0" + varint(rec.moved_ms) + varint(rec.delta)
    body += sized(rec.key) + sized(rec.value) + varint(len(rec.headers))
    for name, value in rec.headers:
        body += sized(name.encode()) + sized(value)
    return varint(len(body)) + body


# --- the slow twin ------------------------------------------------------------------------


class Malformed(Exception):
    """Bytes that do not hold; the code is the kernel's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Reader:
    """Reads from bytes, and refuses to read what is not there."""

    def __init__(self, data: bytes, code: int) -> None:
        self._rest = BytesIO(data)
        self._left = len(data)
        self._code = code

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise Malformed(self._code)
        self._left -= count
        return self._rest.read(count)

    def varint(self) -> int:
        word, shift = 0, 0
        while True:
            (byte,) = self.take(1)
            word |= (byte & 0x7F) << shift
            if word >> 64 or shift > 63:
                raise Malformed(self._code)
            if byte < 0x80:
                return (word >> 1) ^ -(word & 1)
            shift += 7

    def sized(self) -> bytes | None:
        size = self.varint()
        return None if size < 0 else self.take(size)

    @property
    def left(self) -> int:
        return self._left


def naive_scan(data: bytes) -> tuple[list[dict[int, int]], int, int]:
    """Return the rows of a message set by column, where it stopped, and why."""
    rows: list[dict[int, int]] = []
    at = 0
    while at < len(data):
        try:
            row = _naive_row(data[at:])
        except Malformed as malformed:
            return rows, at, malformed.code
        size = row[kernels.END]
        rows.append(row | {kernels.START: at, kernels.END: at + size})
        at += size
    return rows, at, kernels.DONE


def _naive_row(data: bytes) -> dict[int, int]:
    """Return the row of the batch that `data` begins with; END is its size."""
    if len(data) < 12:
        raise Malformed(kernels.CUT)
    base, length = struct.unpack_from(">qi", data)
    if 12 + length > len(data):
        raise Malformed(kernels.CUT)
    if length < 14:
        raise Malformed(kernels.BAD_LENGTH)
    (magic,) = struct.unpack_from(">b", data, 16)
    if magic not in (0, 1, 2):
        raise Malformed(kernels.BAD_MAGIC)
    if magic == 2 and length < 49:
        raise Malformed(kernels.BAD_LENGTH)
    row = {kernels.END: 12 + length, kernels.BASE: base, kernels.MAGIC: magic}
    if magic == 2:
        header = HEADER.unpack_from(data)
        for column, place in _PLACES.items():
            row[column] = header[place]
        if min(row[kernels.LAST_DELTA], row[kernels.COUNT]) < 0:
            raise Malformed(kernels.BAD_HEADER)
    if not 0 <= base < kernels.OFFSET_END:
        raise Malformed(kernels.BAD_HEADER)
    return row


_PLACES = {
    kernels.CRC: 4,
    kernels.ATTRIBUTES: 5,
    kernels.LAST_DELTA: 6,
    kernels.FIRST_MS: 7,
    kernels.MAX_MS: 8,
    kernels.PRODUCER: 9,
    kernels.COUNT: 12,
}


def naive_walk(
    body: bytes, row: npt.NDArray[np.int64], low: int, high: int
) -> tuple[list[Seen], int]:
    """Return one batch's records in the window, and the offset due next.

    Raises:
        Malformed: with what was read before it lost.
    """
    if int(row[kernels.COUNT]) * 7 > len(body):
        raise Malformed(kernels.BAD_HEADER)
    rest = Reader(body, kernels.BAD_RECORD)
    found: list[Seen] = []
    for _ in range(int(row[kernels.COUNT])):
        inner = Reader(rest.take(rest.varint()), kernels.BAD_RECORD)
        inner.take(1)
        moved_ms, delta = inner.varint(), inner.varint()
        key, value = inner.sized(), inner.sized()
        for _ in range(_not_negative(inner.varint())):
            inner.take(_not_negative(inner.varint()))
            inner.sized()
        if inner.left:
            raise Malformed(kernels.BAD_RECORD)
        if not 0 <= delta <= row[kernels.LAST_DELTA]:
            raise Malformed(kernels.BAD_OFFSET)
        offset = int(row[kernels.BASE]) + delta
        if low <= offset < high:
            low = offset + 1
            time_ms = int(row[kernels.FIRST_MS]) + moved_ms
            if row[kernels.ATTRIBUTES] & kernels.APPEND_TIME:
                time_ms = int(row[kernels.MAX_MS])
            time_ms = _int64(time_ms)
            time_us = -1 if time_ms < 0 else _int64(1000 * time_ms)
            found.append((offset, time_us, key, value))
    if rest.left:
        raise Malformed(kernels.BAD_REST)
    return found, max(low, int(row[kernels.BASE] + row[kernels.LAST_DELTA]) + 1)


def _not_negative(number: int) -> int:
    if number < 0:
        raise Malformed(kernels.BAD_RECORD)
    return number


def _int64(number: int) -> int:
    """Return what is left of a number in 64 bits, for timestamps that nobody means."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
