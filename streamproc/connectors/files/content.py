"""The bytes of an input file: opened, bounded, hashed and cut into rows.

Plain, gzip and zstd files are told apart by their first bytes, not by their names.
Identity is that of the *decompressed* content, so that a file may be compressed between
two replays, and a log may grow as plain text today and as a further gzip member tomorrow.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.connectors.files.untyped import Column, arrow
from streamproc.errors import InputError
from streamproc.kernels.row_scan import gather

U1 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

HASH_BYTES: Final = 1 << 20
ROW_BYTES_MAX: Final = 16 << 20
BOM: Final = b"\xef\xbb\xbf"

Kind = Literal["csv", "parquet", "lines"]
_KINDS: Final[dict[str, Kind]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "lines",
    ".jsonl": "lines",
    ".json": "lines",
}
_PACKED: Final = frozenset({".gz", ".zst"})
_MAGIC: Final[tuple[tuple[bytes, Literal["gzip", "zstd"]], ...]] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


def kind_of(path: str) -> Kind:
    """Return what the name says about the content.

    Raises:
        InputError: no known ending.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        endings = ", ".join(_KINDS)
        msg = f"{path}: the name does not end in one of {endings} (text also with .gz or .zst)"
        raise InputError(msg)
    return kind


class Bounded(io.RawIOBase):
    """The first `limit` bytes of a file's decompressed content; all of it with None.

    Raises:
        InputError: the file cannot be opened or read, or its compression is damaged.
    """

    def __init__(self, path: str, limit: int | None = None) -> None:
        super().__init__()
        self._path = path
        self._left = limit
        self._file = _opened(path)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the content goes; 0 at its end."""
        view = memoryview(buffer)
        if self._left is not None:
            view = view[: self._left]
        try:
            data = self._file.read(len(view)) if len(view) else b""
        except OSError as error:
            msg = f"{self._path}: cannot be read: {error}"
            raise InputError(msg) from error
        view[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        """Close the file; safe twice, and where it was never opened, as io's finalizer does."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def _opened(path: str) -> pa.NativeFile:
    try:
        file = pa.OSFile(path, "rb")
        head = file.read(4)
        file.seek(0)
    except OSError as error:
        msg = f"{path}: cannot be opened: {error}"
        raise InputError(msg) from error
    for magic, codec in _MAGIC:
        if head.startswith(magic):
            return pa.CompressedInputStream(file, codec)
    return file


def read_up_to(file: io.RawIOBase, size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of the content."""
    pieces = bytearray()
    while len(pieces) < size:
        piece = file.read(size - len(pieces))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


# --- identity -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a content: its hash, and whether it ends where a line ends."""

    sha256: str
    whole_lines: bool


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it is now.

    Attributes:
        path: absolute.
        sha256, size: of the decompressed content (of the bytes themselves, for Parquet).
        prefixes: by length in bytes, for the lengths that were asked for and are shorter.
    """

    path: str
    sha256: str
    size: int
    prefixes: dict[int, Prefix] = field(default_factory=dict)


def facts_of(path: str, lengths: Sequence[int] = ()) -> FileFacts:
    """Read the whole content once and return what identifies it.

    Raises:
        InputError: it cannot be read.
    """
    marks = sorted({length for length in lengths if length > 0})
    digest, size, last = hashlib.sha256(), 0, b""
    prefixes: dict[int, Prefix] = {}
    with Bounded(path) as file:
        while True:
            wanted = HASH_BYTES
            if marks:
                wanted = min(wanted, marks[0] - size)
            data = read_up_to(file, wanted)
            if prefixes and size in prefixes and not data:
                del prefixes[size]
            elif size in prefixes and data[:1] in {b"\n", b"\r"}:
                prefixes[size] = Prefix(prefixes[size].sha256, whole_lines=True)
            if not data:
                break
            digest.update(data)
            size, last = size + len(data), data[-1:]
            if marks and size == marks[0]:
                marks.pop(0)
                prefixes[size] = Prefix(digest.hexdigest(), last in {b"\n", b"\r"})
    return FileFacts(path, digest.hexdigest(), size, prefixes)


# --- rows -----------------------------------------------------------------------------

Cut = Callable[[U1, bool], tuple[I8, I8, I4, int]]
"""Finds rows: (bytes, is it the end) to (starts, stops, fields, bytes used up)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows of a text, and the place of `data` in the content.

    `starts` and `stops` are places in `data`; `fields` is what `Cut` counted.
    """

    base: int
    data: U1
    starts: I8
    stops: I8
    fields: I4

    @property
    def places(self) -> tuple[I8, I8]:
        """Return where the rows start and stop in the content."""
        return self.base + self.starts, self.base + self.stops

    def without_first(self, rows: int) -> "Block":
        """Return the block from its row `rows` on."""
        return Block(
            self.base,
            self.data,
            self.starts[rows:],
            self.stops[rows:],
            self.fields[rows:],
        )


def blocks(path: str, limit: int | None, size: int, cut: Cut) -> Iterator[Block]:
    """Yield the content in pieces of about `size` bytes that hold whole rows.

    A byte order mark is passed over.

    Raises:
        InputError: a row is longer than `ROW_BYTES_MAX`, or the file cannot be read.
    """
    with Bounded(path, limit) as file:
        kept, base, first = b"", 0, True
        while True:
            fresh = read_up_to(file, size)
            final = len(fresh) < size
            held = kept + fresh
            if first and held.startswith(BOM):
                held, base = held[len(BOM) :], len(BOM)
            first = False
            data = np.frombuffer(held, np.uint8)
            starts, stops, fields, used = cut(data, final)
            if len(starts):
                yield Block(base, data, starts, stops, fields)
            kept, base = held[used:], base + used
            if final:
                return
            if len(kept) > ROW_BYTES_MAX:
                msg = f"{path}: the row at byte {base} is longer than {ROW_BYTES_MAX} bytes"
                raise InputError(msg)


def cut_lines(data: U1, final: bool) -> tuple[I8, I8, I4, int]:  # noqa: FBT001  (the shape of `Cut`)
    """Cut at LF; a CR before it belongs to the line end, and empty lines are no rows."""
    if not data.size:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, np.empty(0, np.int32), 0
    stops = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate([[0], stops + 1])
    used = int(starts[-1])
    if final:
        stops, used = np.append(stops, data.size), data.size
    else:
        starts = starts[:-1]
    ends_cr = (stops > starts) & (data[np.maximum(stops, 1) - 1] == ord("\r"))
    stops = stops - ends_cr
    full = stops > starts
    fields = np.ones(int(full.sum()), np.int32)
    return starts[full], stops[full], fields, used


def line_at(path: str, byte: int) -> int:
    """Return the number of the line, from 1, that holds a byte of the content; slow."""
    lines = 1
    with Bounded(path, byte) as file:
        while data := read_up_to(file, HASH_BYTES):
            lines += data.count(b"\n")
    return lines


def raw_rows(block: Block) -> Column:
    """Return the bytes of every row, without line ends."""
    offsets = np.empty(len(block.starts) + 1, np.int32)
    out = np.empty(int((block.stops - block.starts).sum()), np.uint8)
    gather(block.data, block.starts, block.stops, offsets, out)
    buffers = [None, arrow.py_buffer(offsets), arrow.py_buffer(out)]
    return pa.Array.from_buffers(pa.binary(), len(block.starts), buffers)
