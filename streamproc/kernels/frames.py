"""Confluent framing, whole batches at a time: which schema each record names."""

import numpy as np

from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_raw import I8, U1, int64, load_u8, load_u32

HEADER_BYTES = 5
UNFRAMED = -1
ID_HEAD_MAX = 0x7F
"""The first byte of an id that is not negative is at most this."""


@kernel
def read_frames(data: U1, starts: I8, ends: I8, size_max: int, ids: I8) -> bool:
    """Write every record's schema id; return whether all records are framed with the same one.

    Args:
        data: bytes, padded; record i is `data[starts[i]:ends[i]]`, null where start < 0.
        starts: int64[n].
        ends: int64[n].
        size_max: a record of more bytes is not looked at.
        ids: int64[n], out: `UNFRAMED` for whatever is not the byte 0, an id of 0 to
            2**31 - 1 as int32 big endian, and a body, empty or not.
    """
    base = data.ctypes.data
    uniform = starts.size > 0
    for i in range(starts.size):
        size = ends[i] - starts[i]
        ids[i] = UNFRAMED
        if starts[i] >= 0 and HEADER_BYTES <= size <= size_max:
            at = base + starts[i]
            if load_u8(at) == 0 and load_u8(at + 1) <= ID_HEAD_MAX:
                ids[i] = _big_endian(load_u32(at + 1))
        uniform = uniform and ids[i] != UNFRAMED and ids[i] == ids[0]
    return uniform


@kernel
def _big_endian(word: int) -> int:
    """Return what the four bytes of a little-endian word stand for the other way round."""
    pairs = (word & 0x00FF00FF) << 8 | (word >> 8) & 0x00FF00FF
    return int64(np.uint32(pairs << 16 | pairs >> 16))
