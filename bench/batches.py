"""Whole record batches of records that all look alike, as bytes: patched, not encoded anew.

In a batch (format 2) only sizes depend on a record's number: its offset and its time are
written as differences to the first, one to three bytes each. So records lie in a few
matrices, one for each pair of sizes, and times and values are columns of them.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
from aiokafka.codec import lz4_encode, zstd_encode
from crc32c import crc32c

from bench.shapes import Bytes, Column, Shape, put_varint

HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_CRC_AT: Final = 17
_CRC_FROM: Final = 21
_LENGTH_FROM: Final = 12
CODECS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "none": (0, bytes),
    "lz4": (3, partial(lz4_encode, level=1)),
    "zstd": (4, partial(zstd_encode, level=1)),
}
"""Number and function; as fast as clients usually have it, aiokafka's own levels are high."""


class Template:
    """Records of some devices, in this order; `moved_ms` is how long each is after the first."""

    def __init__(self, shape: Shape, devices: Column, moved_ms: Column) -> None:
        self._shape = shape
        keys, values = shape.keys[devices], shape.values[devices]
        numbers = np.arange(len(devices))
        sizes = _varint_bytes(moved_ms) * 8 + _varint_bytes(numbers)
        borders = np.flatnonzero(np.diff(sizes, prepend=-1, append=-1))
        parts = [
            _encoded(
                moved_ms[low:high], numbers[low:high], keys[low:high], values[low:high]
            )
            for low, high in pairwise(borders.tolist())
        ]
        self._moved_ms = moved_ms
        self._data = np.zeros(
            HEADER.size + sum(part.size for part, _ in parts), np.uint8
        )
        self._rows: list[tuple[slice, Bytes]] = []
        self._ends = np.zeros(len(devices), np.int64)
        at = HEADER.size
        for (part, value_at), (low, high) in zip(
            parts, pairwise(borders.tolist()), strict=True
        ):
            place = self._data[at : at + part.size].reshape(part.shape)
            place[:] = part
            self._rows.append(
                (slice(low, high), place[:, value_at : value_at + values.shape[1]])
            )
            self._ends[low:high] = at + np.arange(1, high - low + 1) * part.shape[1]
            at += part.size

    def __len__(self) -> int:
        return len(self._ends)

    def put_values(self, value: Column) -> None:
        """Write a value into each record."""
        for rows, place in self._rows:
            self._shape.put_values(place, value[rows])

    def put_times(self, time_ms: Column) -> None:
        """Write the event times."""
        for rows, place in self._rows:
            self._shape.put_times(place, time_ms[rows])

    def batch(
        self, first_ms: int, codec: str, *, base: int = 0, count: int | None = None
    ) -> bytes:
        """Return the batch, or its first `count` records, with the right checksum.

        Args:
            first_ms: the first record's CreateTime.
            codec: `none`, `lz4` or `zstd`.
            base: the first offset; brokers overwrite it.
            count: how many records, None for all.
        """
        count = len(self) if count is None else count
        number, compress = CODECS[codec]
        body = compress(self._data[HEADER.size : self._ends[count - 1]].tobytes())
        last_ms = first_ms + int(self._moved_ms[count - 1])
        head = HEADER.pack(
            *(base, HEADER.size - _LENGTH_FROM + len(body), 0, 2, 0, number),
            *(count - 1, first_ms, last_ms, -1, -1, -1, count),
        )
        checksum = crc32c(body, crc32c(head[_CRC_FROM:]))
        return b"".join(
            (head[:_CRC_AT], checksum.to_bytes(4, "big"), head[_CRC_FROM:], body)
        )


def _encoded(
    moved_ms: Column, numbers: Column, keys: Bytes, values: Bytes
) -> tuple[Bytes, int]:
    """Return records that have one size, and where in each the value begins."""
    count = len(numbers)
    pieces = list(_pieces(moved_ms, numbers, keys, values))
    body_bytes = sum(piece.shape[1] for piece in pieces)
    pieces.insert(0, _varints(np.full(count, body_bytes)))
    value_at = sum(piece.shape[1] for piece in pieces[:-2])
    return np.concatenate(pieces, axis=1), value_at


def _pieces(
    moved_ms: Column, numbers: Column, keys: Bytes, values: Bytes
) -> Iterator[Bytes]:
    count = len(numbers)
    yield np.zeros((count, 1), np.uint8)  # attributes
    yield _varints(moved_ms)
    yield _varints(numbers)
    yield _varints(np.full(count, keys.shape[1]))
    yield keys
    yield _varints(np.full(count, values.shape[1]))
    yield values
    yield np.zeros((count, 1), np.uint8)  # no headers


def _varints(numbers: Column) -> Bytes:
    """Return numbers that are not negative and have one size, a row each."""
    size = int(_varint_bytes(numbers[:1])[0])
    out = np.zeros((len(numbers), size), np.uint8)
    put_varint(out, numbers, size)
    return out


def _varint_bytes(numbers: Column) -> Column:
    """Return how many bytes each takes: seven bits a byte, one for the sign."""
    sizes = np.ones(len(numbers), np.int64)
    for size in range(1, 9):
        sizes += numbers * 2 >= 1 << 7 * size
    return sizes
