"""Squashed records, byte for byte, in one compressed file: nothing of the chain is lost.

An archive is a gzip file that holds JSON texts, each after a record separator (RFC 7464;
`zcat … | jq --seq .` shows it). The first one names the archive before, the others are the
records `first` to `last` as they were. A checkpoint names the newest archive and its sha256, so
every record back to genesis can be checked, and no file grows with the log.
"""

import zlib
from typing import Final

import msgspec

from streamproc.core.record import ArchiveRef
from streamproc.errors import LogCorrupt

SEPARATOR: Final = b"\x1e"
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 6
_HEADER_BYTES_MAX: Final = 64 << 10
BYTES_MAX: Final = 256 << 20
"""More than this no archive holds: it is closed at a few MiB, and a record is smaller still."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first text of an archive; `before` is None where it begins with record 0."""

    before: ArchiveRef | None


class ArchiveWriter:
    """Collects records; compresses as it goes, so that little is held.

    Attributes:
        count: records so far; `size` their bytes, not compressed.
    """

    def __init__(self, before: ArchiveRef | None) -> None:
        self.count = 0
        self.size = 0
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._parts: list[bytes] = []
        self._text(msgspec.json.encode(Header(before=before)))

    def add(self, record: bytes) -> None:
        """Take the next record's bytes."""
        self._text(record)
        self.count += 1
        self.size += len(record)

    def finish(self) -> bytes:
        """Return the whole file; nothing can be added any more."""
        return b"".join([*self._parts, self._deflate.flush()])

    def _text(self, text: bytes) -> None:
        self._parts.append(self._deflate.compress(SEPARATOR + text + b"\n"))


def read_archive(data: bytes, where: str) -> tuple[Header, list[bytes]]:
    """Return the header and the records' bytes; `data` has been checked against its sha256.

    Raises:
        LogCorrupt: not an archive.
    """
    try:
        inflate = zlib.decompressobj(_GZIP)
        text = inflate.decompress(data, BYTES_MAX)
        if not inflate.eof or inflate.unused_data:
            msg = f"{where}: not a whole archive"
            raise LogCorrupt(msg)
        first, *texts = text.split(SEPARATOR)
        header = msgspec.json.decode(texts[0], type=Header) if texts else None
    except (zlib.error, msgspec.MsgspecError) as error:
        msg = f"{where}: not an archive: {error}"
        raise LogCorrupt(msg) from error
    if first or header is None or not all(part.endswith(b"\n") for part in texts):
        msg = f"{where}: not an archive"
        raise LogCorrupt(msg)
    return header, [part[:-1] for part in texts[1:]]


def read_header(data: bytes, where: str) -> Header:
    """Return the header alone, without unpacking the rest. Raises `LogCorrupt`."""
    try:
        text = zlib.decompressobj(_GZIP).decompress(data, _HEADER_BYTES_MAX)
        _, first, *_ = text.split(SEPARATOR, 2)
        return msgspec.json.decode(first, type=Header)
    except (zlib.error, ValueError, msgspec.MsgspecError) as error:
        msg = f"{where}: not an archive: {error}"
        raise LogCorrupt(msg) from error
