"""Where the rows of a delimited text begin and end, and their bytes as one column.

The values themselves are read by Arrow's CSV reader. This pass exists because a row that
Arrow refuses must keep its exact bytes and its place among the others, and because one
stray quote must cost one row and not the rest of the file.
"""

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

U1 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

STRAY_QUOTE = -1
_LF = 10
_CR = 13


@kernel
def _closing(data: U1, at: int, limit: int, quote: int) -> int:
    """Return the place behind the quote that closes a field, -1 if none before `limit`.

    `at` is the first byte inside. A doubled quote is a quote of the text.
    """
    while at < limit:
        if data[at] != quote:
            at += 1
        elif at + 1 < data.size and data[at + 1] == quote:
            at += 2
        else:
            return at + 1
    return -1


@kernel
def _newline(data: U1, at: int) -> int:
    """Return the first CR or LF at or after `at`, the size if there is none."""
    while at < data.size and data[at] != _LF and data[at] != _CR:
        at += 1
    return at


@kernel
def _row(
    data: U1, start: int, separator: int, quote: int, quoted_max: int, final: int
) -> tuple[int, int]:
    """Return (end of the row's content, number of fields) of the row at `start`.

    An end of -1 says that more bytes are needed to tell.
    """
    at = start
    fields = 1
    fresh = True  # a quote opens a field only as its first byte
    while at < data.size and data[at] != _LF and data[at] != _CR:
        if fresh and data[at] == quote:
            limit = min(data.size, start + quoted_max)
            closed = _closing(data, at + 1, limit, quote)
            if closed < 0:
                if limit == data.size and not final:
                    return -1, 0
                return _newline(data, start), STRAY_QUOTE
            at = closed
            fresh = False
            continue
        fresh = data[at] == separator
        if fresh:
            fields += 1
        at += 1
    return at, fields


@kernel
def scan_rows(  # noqa: PLR0917  (a kernel)
    data: U1,
    separator: int,
    quote: int,
    quoted_max: int,
    final: int,
    starts: I8,
    stops: I8,
    fields: I4,
) -> tuple[int, int]:
    """Find the rows of `data`; return (how many, bytes used up).

    Rows end at LF, CR or CR LF outside quotes, as in Arrow's reader; empty lines are no
    rows. `starts`, `stops` (without the line end) and `fields` are filled, so they must be
    as long as there are CR and LF in `data`, plus one. A quote opens a field as its first byte
    only, and counts as stray where it is not closed within `quoted_max` bytes of the row's
    start or before the end of the text: that row ends at its first line end and has
    `STRAY_QUOTE` fields. What is not used up begins with a row that needs more bytes;
    with `final` (1, else 0) all is used. Where a text is cut into pieces does not change its rows, as long
    as each piece begins with what the one before left over.

    `quote` is -1 where nothing quotes.
    """
    rows = 0
    at = 0
    while at < data.size:
        start = at
        stop, count = _row(data, start, separator, quote, quoted_max, final)
        if stop < 0 or (stop == data.size and not final):
            return rows, start
        at = stop + 1  # a LF behind a CR is an empty line
        if stop > start:
            starts[rows] = start
            stops[rows] = stop
            fields[rows] = count
            rows += 1
    return rows, data.size


@kernel
def gather(data: U1, starts: I8, stops: I8, offsets: I4, out: U1) -> None:
    """Copy every span `[starts[i], stops[i])` of `data` one behind the other.

    `offsets` (one entry more than spans) are Arrow's; `out` holds their sum of lengths.
    """
    place = 0
    for row in range(starts.size):
        offsets[row] = place
        size = stops[row] - starts[row]
        out[place : place + size] = data[starts[row] : stops[row]]
        place += size
    offsets[starts.size] = place
