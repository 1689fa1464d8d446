"""The memory the fold works on: words of a cell, and the arrays by what they belong to.

Theory of operation
-------------------
State is one table of *cells* of 16 words (two cache lines): `cells[series * slots + slot]`,
as int64 and as float64 views of the same memory. A spec owns the slots
`[first, first + mask + 1)`; pane p lives in slot `first + (p & mask)` and carries its own number,
so nothing is ever cleared in advance. There are enough slots for every pane that can be open at
once: those that start in `(watermark - lateness - size, watermark]`.

What is known of a series apart from its windows is its *line*, a row of words (one cache line
where the last accepted reading alone is remembered for dedup): `RING` times, then as many values.

The cells of one (watermark key, pane) form a chain, headed by `bucket_head[key * slots + slot]`,
so that a close touches the series that hold data and no others; where most do, going over all of
them in order is cheaper than following the chain, and they are. A cell holds data if its pane is
its bucket's and the bucket counts any: what is closed is forgotten by the bucket alone.

Rows of closed windows leave column by column: what is made of them are columns.

`closed[key * specs + q]` is the highest window closed by the watermark or by a timer, whichever is
higher; `next_close` is the watermark at which the one after it goes.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

B1 = npt.NDArray[np.bool_]
U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]


# Words of a cell; FIRST_US .. LAST and the extremes mean nothing while COUNT is 0.
PANE, COUNT, INVALID, SLOTS, NEXT, CHAIN, FIRST_US, LAST_US = range(8)
SUM, MEAN, M2, MIN, MAX, FIRST, LAST, SPEC = range(8, 16)
WORDS: Final = 16
CELL_BYTES: Final = 8 * WORDS
AHEAD: Final = 12
"""How many rows ahead memory is asked for; at 8 and 16 a million series are as fast."""

# Words of a series' line.
KEY, CITY, HEARD_US, RING_COUNT, RING_NEXT, STAMP, RING = range(7)

# In rows that leave: PANE is the window's number, NEXT the series.
WINDOW = PANE
SERIES = NEXT

NONE: Final = -(1 << 62)
"""No watermark, no pane, no window."""

# Counters.
# ROWS_WANTED: rows `out` has to have room for; where it has and a kernel stopped, words lacked.
OUT_ROWS, OUT_WORDS, LATE_ROWS, LATE_CELLS, STAMPS, STATUS, ROWS_WANTED = range(7)
COUNTERS: Final = 7

DONE, NEED_OUT, NEED_LATE, NEED_POOLS = range(4)

LATE_FLAG: Final = 1
DUPLICATE_FLAG: Final = 2
CONFLICT_FLAG: Final = 4

PARTS_MAX: Final = 60
"""Most n-ths of a window that `slots` tells apart (DESIGN.md, Coverage)."""


class Specs(NamedTuple):
    """The windows, struct of arrays; int64[q] unless said.

    first, mask: the spec's slots; slots: int64[1], slots of one series over all specs.
    fine, ratio: int64[q, PARTS_MAX + 1] by n: a pane has `fine` coverage bits, `ratio` of them
    make an n-th of the window. late_max: most windows a reading of the spec may miss.
    """

    size: I8
    every: I8
    lateness: I8
    pane: I8
    sketched: I8
    first: I8
    mask: I8
    fine: I8
    ratio: I8
    slots: I8
    late_max: I8


class State(NamedTuple):
    """All that is remembered of series, watermark keys and cities.

    By cell: ints int64[cells, WORDS], floats the same memory.
    By series: line int64[s, RING + 2 * dedup or more], line_floats the same memory;
    parts uint8[s, q]. depth int64[1]: accepted readings remembered for dedup; series_count int64[1]:
    how many series there are.
    By key: key_us watermark, key_now time of the last acceptance, key_cells open cells: int64;
    closed, next_close: int64[k * q]; bucket_head, bucket_count int32, bucket_pane int64 [k * slots].
    By city: city_us, city_now int64.
    """

    ints: I8
    floats: F8
    line: I8
    line_floats: F8
    depth: I8
    series_count: I8
    parts: U1
    key_us: I8
    key_now: I8
    key_cells: I8
    closed: I8
    next_close: I8
    bucket_head: I4
    bucket_count: I4
    bucket_pane: I8
    city_us: I8
    city_now: I8


class Out(NamedTuple):
    """Rows of closed windows, in order, and their sketches as words.

    ints int64[WORDS, n], floats the same memory; offset int64[n]; words int64[m] with float64
    and int32 views of the same memory; ends int64[n], where each row's sketch ends.
    """

    ints: I8
    floats: F8
    offset: I8
    words: I8
    word_floats: F8
    word_halves: I4
    ends: I8


class Late(NamedTuple):
    """Late readings of this step, and the late cells since the last cut.

    row, spec int32[n]; window, behind int64[n]; ints int64[m, WORDS], floats the same memory;
    table int32[2**b]: hash of (series, spec, window) to cell + 1.
    """

    row: I4
    spec: I4
    window: I8
    behind: I8
    ints: I8
    floats: F8
    table: I4


class Rows(NamedTuple):
    """Accepted readings in (offset, ordinal) order, and what the fold says of them.

    series int32, event int64, value float64, quality int8, offset int64: in.
    flags uint16: in and out. city_us int64, valid bool: out.
    """

    series: I4
    event: I8
    value: F8
    quality: I1
    offset: I8
    flags: U2
    city_us: I8
    valid: B1
