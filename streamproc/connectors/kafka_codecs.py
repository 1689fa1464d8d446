"""Decompressing record batches into memory that is there already.

Nobody says beforehand how large a batch becomes, and for most codecs the libraries do not
tell "too little room" from "damaged": both are `Unfit`, and the caller tries more room until
there is no sense in it. All of them release the GIL, and none writes beyond its output.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final

import cramjam

_XERIAL: Final = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
"""What Java writes before blocks of snappy, each after its size as int32."""

_SIZE: Final = struct.Struct(">i")


class Unfit(Exception):
    """The output has too little room, or the input is damaged."""


def unpack(codec: int, packed: memoryview, out: memoryview) -> int:
    """Decompress with Kafka's codec of that number; return the bytes written.

    Raises:
        Unfit: see above; also where no codec has that number.
    """
    if codec not in _CODECS:
        msg = f"there is no compression codec {codec}"
        raise Unfit(msg)
    try:
        return _CODECS[codec](packed, out)
    except (cramjam.DecompressionError, OSError, EOFError, zlib.error) as error:
        raise Unfit(str(error)) from error


def _gzip(packed: memoryview, out: memoryview) -> int:
    with gzip.GzipFile(fileobj=BytesIO(packed)) as stream:
        size = stream.readinto(out)
        if stream.read(1):
            raise Unfit(_NO_ROOM)
        return size


def _snappy(packed: memoryview, out: memoryview) -> int:
    if bytes(packed[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(packed, out)
    at, size = len(_XERIAL), 0
    while at < len(packed):
        if len(packed) - at < _SIZE.size:
            raise Unfit(_CUT)
        (length,) = _SIZE.unpack_from(packed, at)
        at += _SIZE.size
        if not 0 <= length <= len(packed) - at:
            raise Unfit(_CUT)
        size += _snappy_block(packed[at : at + length], out[size:])
        at += length
    return size


def _snappy_block(block: memoryview, out: memoryview) -> int:
    if cramjam.snappy.decompress_raw_len(block) > len(out):
        raise Unfit(_NO_ROOM)
    return int(cramjam.snappy.decompress_raw_into(block, out))


def _lz4(packed: memoryview, out: memoryview) -> int:
    return int(cramjam.lz4.decompress_into(packed, out))


def _zstd(packed: memoryview, out: memoryview) -> int:
    return int(cramjam.zstd.decompress_into(packed, out))


_NO_ROOM: Final = "more comes out than there is room for"
_CUT: Final = "a snappy block is cut off"
_CODECS: Final[Mapping[int, Callable[[memoryview, memoryview], int]]] = {
    1: _gzip,
    2: _snappy,
    3: _lz4,
    4: _zstd,
}
