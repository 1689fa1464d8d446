"""The fold: readings into panes, row by row, closing windows at the row that does it.

Theory of operation
-------------------
State is one table of *cells* of 16 words (two cache lines): `cells[series * slots + slot]`,
as int64 and as float64 views of the same memory. A spec owns the slots
`[first, first + mask + 1)`; pane p lives in slot `first + (p & mask)` and carries its own number,
so nothing is ever cleared in advance. There are enough slots for every pane that can be open at
once: those that start in `(watermark - lateness - size, watermark]`.

The cells of one (watermark key, pane) form a chain, headed by `bucket_head[key * slots + slot]`,
so that a close touches the series that hold data and no others.

`closed[key * specs + q]` is the highest window closed by the watermark or by a timer, whichever is
higher; `next_close` is the watermark at which the one after it goes. A row that moves its key's
watermark past it closes windows in order of (end, spec); within a window in order of series.

Nothing is written for a row before everything it may need has room. Where there is not enough the
kernel returns the row to be resumed; closes are finished window by window, so resuming there
is exact. That, and taking every decision at a row, makes the cut of batches invisible.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streamproc.kernels import sketch
from streamproc.kernels._jit import kernel
from streamproc.kernels.sketch import Int, Pools, Scratch

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
# In rows that leave: PANE is the window's number, NEXT the series.
WINDOW = PANE
SERIES = NEXT

NONE: Final = -(1 << 62)
"""No watermark, no pane, no window."""

# Counters.
OUT_ROWS, OUT_WORDS, LATE_ROWS, LATE_CELLS, STAMP, STATUS = range(6)
COUNTERS: Final = 6

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
    By series: key, city int32; ring_us int64[s, dedup], ring_value float64[s, dedup],
    ring_count, ring_next int32; last_us int64; parts uint8[s, q]; stamp int64.
    By key: key_us watermark, key_now time of the last acceptance, key_cells open cells: int64;
    closed, next_close: int64[k * q]; bucket_head, bucket_count int32, bucket_pane int64 [k * slots].
    By city: city_us, city_now int64.
    """

    ints: I8
    floats: F8
    key: I4
    city: I4
    ring_us: I8
    ring_value: F8
    ring_count: I4
    ring_next: I4
    last_us: I8
    parts: U1
    stamp: I8
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

    ints int64[n, WORDS], floats the same memory; offset int64[n]; words int64[m] with float64
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


@kernel
def empty_cell(ints: I8, floats: F8, cell: Int, pane: Int) -> None:
    """Begin the accumulators of one pane or window."""
    ints[cell, PANE] = pane
    ints[cell, COUNT] = 0
    ints[cell, INVALID] = 0
    ints[cell, SLOTS] = 0
    ints[cell, CHAIN] = sketch.NONE
    ints[cell, FIRST_US] = 0
    ints[cell, LAST_US] = 0
    floats[cell, SUM] = 0.0
    floats[cell, MEAN] = 0.0
    floats[cell, M2] = 0.0
    floats[cell, MIN] = np.inf
    floats[cell, MAX] = -np.inf
    floats[cell, FIRST] = 0.0
    floats[cell, LAST] = 0.0


@kernel
def add_value(ints: I8, floats: F8, cell: Int, event: Int, value: Any) -> None:
    """Fold one valid reading: Welford's mean and m2, plain sum, extremes, first and last.

    Of equal event times the first keeps the earlier arrival, the last takes the later.
    """
    count = ints[cell, COUNT] + 1
    ints[cell, COUNT] = count
    delta = value - floats[cell, MEAN]
    mean = floats[cell, MEAN] + delta / count
    floats[cell, MEAN] = mean
    floats[cell, M2] += delta * (value - mean)
    floats[cell, SUM] += value
    floats[cell, MIN] = min(floats[cell, MIN], value)
    floats[cell, MAX] = max(floats[cell, MAX], value)
    if count == 1 or event < ints[cell, FIRST_US]:
        ints[cell, FIRST_US] = event
        floats[cell, FIRST] = value
    if count == 1 or event >= ints[cell, LAST_US]:
        ints[cell, LAST_US] = event
        floats[cell, LAST] = value


@kernel
def _widen(bits: Int, fine: Int, ratio: Int, pane: Int) -> Int:
    """Turn a pane's `fine` coverage bits into the window's; `pane` counts from its first."""
    slots = np.int64(0)
    for bit in range(fine):
        if (bits >> bit) & 1:
            slots |= np.int64(1) << ((pane * fine + bit) // ratio)
    return slots


@kernel
def emit(
    members: I4,
    q: Int,
    window: Int,
    offset: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> bool:
    """Write the row of one window for each of `members` from its panes; False without room.

    Changes no cell. Panes merge in time order by Chan's formula.
    """
    # Attributes of a tuple cost a reference count at each use; locals do not.
    ints = state.ints
    floats = state.floats
    parts_of = state.parts
    to_ints = out.ints
    to_floats = out.floats
    to_offset = out.offset
    to_ends = out.ends
    fine_of = specs.fine
    ratio_of = specs.ratio
    mask = specs.mask[q]
    slots = specs.slots[0]
    sketched = specs.sketched[q]
    first_pane = window * specs.every[q] // specs.pane[q]
    panes = specs.size[q] // specs.pane[q]
    row = counters[OUT_ROWS]
    end = counters[OUT_WORDS]
    if row + members.size > to_offset.size:
        return False
    for series in members:
        base = series * slots + specs.first[q]
        parts = np.int64(parts_of[series, q])
        invalid = np.int64(0)
        bits = np.int64(0)
        a = np.int64(0)
        empty_cell(to_ints, to_floats, row, window)
        for p in range(panes):
            cell = base + ((first_pane + p) & mask)
            if ints[cell, PANE] != first_pane + p:
                continue
            invalid += ints[cell, INVALID]
            b = ints[cell, COUNT]
            if b == 0:
                continue
            if parts > 0:
                fine = fine_of[q, parts]
                bits |= _widen(ints[cell, SLOTS], fine, ratio_of[q, parts], p)
            if a == 0:
                to_ints[row, FIRST_US] = ints[cell, FIRST_US]
                for word in range(SUM, LAST):
                    to_floats[row, word] = floats[cell, word]
            else:
                total = a + b
                delta = floats[cell, MEAN] - to_floats[row, MEAN]
                to_floats[row, MEAN] += delta * b / total
                to_floats[row, M2] += floats[cell, M2] + delta * delta * a * b / total
                to_floats[row, SUM] += floats[cell, SUM]
                to_floats[row, MIN] = min(to_floats[row, MIN], floats[cell, MIN])
                to_floats[row, MAX] = max(to_floats[row, MAX], floats[cell, MAX])
            to_ints[row, LAST_US] = ints[cell, LAST_US]
            to_floats[row, LAST] = floats[cell, LAST]
            a += b
        to_ints[row, COUNT] = a
        to_ints[row, INVALID] = invalid
        to_ints[row, SLOTS] = bits
        to_ints[row, SERIES] = series
        to_ints[row, SPEC] = q
        to_offset[row] = offset
        if sketched and a > 0:
            have = np.int64(0)
            for p in range(panes):
                cell = base + ((first_pane + p) & mask)
                if ints[cell, PANE] == first_pane + p:
                    have = sketch.gather(
                        ints[cell, CHAIN], ints[cell, COUNT], a, have, pools, scratch
                    )
            end = sketch.write(
                out.words, out.word_floats, out.word_halves, end, a, have, scratch
            )
            if end < 0:
                return False
        to_ends[row] = end
        row += 1
    counters[OUT_ROWS] = row
    counters[OUT_WORDS] = end
    return True


@kernel
def _windows_of_pane(pane: Int, q: Int, specs: Specs) -> tuple[Int, Int]:
    """Return the first and the last window that hold a pane; none where first > last."""
    start = pane * specs.pane[q]
    first = (start + specs.pane[q] - specs.size[q] - 1) // specs.every[q] + 1
    return first, start // specs.every[q]


@kernel
def _next_window(key: Int, q: Int, state: State, specs: Specs) -> Int:
    """Return the first window of a key that is open and holds data; NONE if there is none."""
    base = key * specs.slots[0] + specs.first[q]
    oldest = np.int64(-NONE)
    for slot in range(base, base + specs.mask[q] + 1):
        if state.bucket_count[slot] > 0:
            oldest = min(oldest, state.bucket_pane[slot])
    if oldest == -NONE:
        return NONE
    first, _ = _windows_of_pane(oldest, q, specs)
    return max(first, state.closed[key * specs.size.size + q] + 1)


@kernel
def _members(
    key: Int, q: Int, window: Int, state: State, specs: Specs, stamp: Int
) -> I4:
    """Return the series that hold data in a window, ascending."""
    ints = state.ints
    stamps = state.stamp
    bucket_pane = state.bucket_pane
    bucket_count = state.bucket_count
    slots = specs.slots[0]
    mask = specs.mask[q]
    first_pane = window * specs.every[q] // specs.pane[q]
    panes = specs.size[q] // specs.pane[q]
    bucket = key * slots + specs.first[q]
    count = 0
    for p in range(first_pane, first_pane + panes):
        slot = bucket + (p & mask)
        if bucket_count[slot] > 0 and bucket_pane[slot] == p:
            count += bucket_count[slot]
    found = np.empty(count, np.int32)
    left = count
    for p in range(first_pane, first_pane + panes):
        slot = bucket + (p & mask)
        if bucket_count[slot] == 0 or bucket_pane[slot] != p:
            continue
        series = np.int64(state.bucket_head[slot])
        place = specs.first[q] + (p & mask)
        while series >= 0:
            if stamps[series] != stamp:
                stamps[series] = stamp
                left -= 1
                found[left] = series
            series = ints[series * slots + place, NEXT]
    found = found[left:]
    for i in range(1, found.size):
        if found[i - 1] > found[i]:
            return np.sort(found)
    return found


@kernel
def _free_panes(
    key: Int, q: Int, window: Int, state: State, specs: Specs, pools: Pools
) -> None:
    """Forget the panes that no window after `window` holds."""
    ints = state.ints
    bucket_count = state.bucket_count
    slots = specs.slots[0]
    first = specs.first[q]
    sketched = specs.sketched[q]
    until = (window + 1) * specs.every[q]
    for place in range(first, first + specs.mask[q] + 1):
        slot = key * slots + place
        if bucket_count[slot] == 0:
            continue
        if state.bucket_pane[slot] * specs.pane[q] >= until:
            continue
        series = np.int64(state.bucket_head[slot])
        while series >= 0:
            cell = series * slots + place
            if sketched:
                sketch.release(ints[cell, CHAIN], ints[cell, COUNT], pools)
            ints[cell, PANE] = NONE
            series = ints[cell, NEXT]
        state.key_cells[key] -= bucket_count[slot]
        bucket_count[slot] = 0
        state.bucket_head[slot] = -1


@kernel
def _close_window(
    key: Int,
    q: Int,
    window: Int,
    offset: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> bool:
    """Emit one window of a key and forget what only it needed; all or nothing."""
    counters[STAMP] += 1
    members = _members(key, q, window, state, specs, counters[STAMP])
    if not emit(
        members, q, window, offset, state, specs, pools, scratch, out, counters
    ):
        return False
    _free_panes(key, q, window, state, specs, pools)
    _mark_closed(key, q, window, state, specs)
    return True


@kernel
def _mark_closed(key: Int, q: Int, window: Int, state: State, specs: Specs) -> None:
    at = key * specs.size.size + q
    if window > state.closed[at]:
        state.closed[at] = window
        state.next_close[at] = (
            (window + 1) * specs.every[q] + specs.size[q] + specs.lateness[q]
        )


@kernel
def close_due(
    key: Int,
    watermark: Int,
    offset: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> bool:
    """Close every window of a key that `watermark` has passed; NONE closes all with data.

    Returns False where `out` is full; to be called again with more room.
    """
    count = specs.size.size
    while True:
        # Typed at once: an untyped constant would compile every callee twice.
        best: Int = np.int64(-1)
        best_end: Int = np.int64(-NONE)
        best_window: Int = np.int64(NONE)
        for q in range(count):
            at = key * count + q
            if watermark != NONE and watermark < state.next_close[at]:
                continue
            window = _next_window(key, q, state, specs)
            end = window * specs.every[q] + specs.size[q] if window != NONE else -NONE
            if watermark != NONE and (
                window == NONE or end + specs.lateness[q] > watermark
            ):
                passed = (watermark - specs.lateness[q] - specs.size[q]) // specs.every[
                    q
                ]
                _mark_closed(key, q, passed, state, specs)
                continue
            if window != NONE and end < best_end:
                best, best_end, best_window = q, end, window
        if best < 0:
            return True
        if not _close_window(
            key, best, best_window, offset, state, specs, pools, scratch, out, counters
        ):
            return False


@kernel
def _slot_of_late(late: Late, series: Int, q: Int, window: Int) -> Int:
    """Return the place in the hash table that holds the key, or the free one it would take."""
    mask = late.table.size - 1
    mixed = np.uint64(series * 64 + q) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ np.uint64(window)) * np.uint64(0xC4CEB9FE1A85EC53)
    place = np.int64(mixed >> np.uint64(20)) & mask
    while True:
        cell = np.int64(late.table[place]) - 1
        if cell < 0 or (
            late.ints[cell, SERIES] == series
            and late.ints[cell, WINDOW] == window
            and late.ints[cell, SPEC] == q
        ):
            return place
        place = (place + 1) & mask


@kernel
def rehash_late(late: Late, cells: Int) -> None:
    """Enter the first `cells` late cells into the (zeroed) table."""
    for cell in range(cells):
        place = _slot_of_late(
            late,
            late.ints[cell, SERIES],
            late.ints[cell, SPEC],
            late.ints[cell, WINDOW],
        )
        late.table[place] = cell + 1


@kernel
def _fold_late(
    r: Int,
    q: Int,
    window: Int,
    valid: Int,
    rows: Rows,
    state: State,
    specs: Specs,
    pools: Pools,
    late: Late,
    counters: I8,
) -> None:
    """Note that row `r` missed `window`, and fold it into that window's late cell."""
    series = np.int64(rows.series[r])
    event = rows.event[r]
    start = window * specs.every[q]
    behind = state.key_us[state.key[series]] - (
        start + specs.size[q] + specs.lateness[q]
    )
    n = counters[LATE_ROWS]
    late.row[n] = r
    late.spec[n] = q
    late.window[n] = window
    late.behind[n] = max(behind, np.int64(0))
    counters[LATE_ROWS] = n + 1
    place = _slot_of_late(late, series, q, window)
    cell = np.int64(late.table[place]) - 1
    if cell < 0:
        cell = counters[LATE_CELLS]
        counters[LATE_CELLS] = cell + 1
        late.table[place] = cell + 1
        empty_cell(late.ints, late.floats, cell, window)
        late.ints[cell, SERIES] = series
        late.ints[cell, SPEC] = q
    if not valid:
        late.ints[cell, INVALID] += 1
        return
    add_value(late.ints, late.floats, cell, event, rows.value[r])
    parts = np.int64(state.parts[series, q])
    if parts > 0:
        bit = (event - start) * parts // specs.size[q]
        late.ints[cell, SLOTS] |= np.int64(1) << bit
    if specs.sketched[q]:
        late.ints[cell, CHAIN] = sketch.add(
            late.ints[cell, CHAIN], late.ints[cell, COUNT], rows.value[r], pools
        )


@kernel
def fold(
    begin: Int,
    now: Int,
    rows: Rows,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    late: Late,
    counters: I8,
) -> Int:
    """Fold rows from `begin` on; return the row to be resumed, or the number of rows.

    `counters[STATUS]` tells what has to grow first. `now` is kept as the time of acceptance.
    """
    count = specs.size.size
    slots = specs.slots[0]
    late_rows = np.int64(0)
    pool_chunks = np.int64(0)
    for q in range(count):
        late_rows += specs.late_max[q]
        if specs.sketched[q]:
            pool_chunks += specs.late_max[q] + 1
    bin_chunks = pool_chunks * sketch.CHUNKS_PER_VALUE
    # Attributes of a tuple cost a reference count at each use; locals do not.
    row_series = rows.series
    row_event = rows.event
    row_value = rows.value
    row_quality = rows.quality
    row_offset = rows.offset
    row_flags = rows.flags
    row_city_us = rows.city_us
    row_valid = rows.valid
    of_key = state.key
    of_city = state.city
    ring_us = state.ring_us
    of_ring_value = state.ring_value
    of_ring_count = state.ring_count
    of_ring_next = state.ring_next
    of_last_us = state.last_us
    of_parts = state.parts
    of_key_us = state.key_us
    of_key_now = state.key_now
    of_key_cells = state.key_cells
    of_closed = state.closed
    of_next_close = state.next_close
    of_bucket_head = state.bucket_head
    of_bucket_count = state.bucket_count
    of_bucket_pane = state.bucket_pane
    of_city_us = state.city_us
    of_city_now = state.city_now
    ints = state.ints
    floats = state.floats
    spec_pane = specs.pane
    spec_first = specs.first
    spec_mask = specs.mask
    spec_fine = specs.fine
    spec_sketched = specs.sketched
    pool_left = pools.counters
    late_cells_max = late.ints.shape[0]
    late_rows_max = late.row.size
    table_size = late.table.size
    depth = ring_us.shape[1]
    # The pane of the last row, per spec: start, number, first and last window.
    pane_start = np.full(count, NONE, np.int64)
    pane_number = np.zeros(count, np.int64)
    window_first = np.zeros(count, np.int64)
    window_last = np.zeros(count, np.int64)
    counters[STATUS] = DONE
    for r in range(begin, row_event.size):
        series = np.int64(row_series[r])
        event = row_event[r]
        value = row_value[r]
        key = np.int64(of_key[series])
        city = np.int64(of_city[series])
        if (
            counters[LATE_ROWS] + late_rows > late_rows_max
            or counters[LATE_CELLS] + late_rows > late_cells_max
            or 2 * (counters[LATE_CELLS] + late_rows) > table_size
        ):
            counters[STATUS] = NEED_LATE
            return r
        if pool_chunks > 0 and (
            pool_left[sketch.EXACT_LEFT] < pool_chunks
            or pool_left[sketch.BIN_LEFT] < bin_chunks
        ):
            counters[STATUS] = NEED_POOLS
            return r
        if event > of_key_us[key]:
            due = False
            for q in range(count):
                due = due or event >= of_next_close[key * count + q]
            if due and not close_due(
                key, event, row_offset[r], state, specs, pools, scratch, out, counters
            ):
                counters[STATUS] = NEED_OUT
                return r
            of_key_us[key] = event
        of_city_us[city] = max(of_city_us[city], event)
        of_key_now[key] = now
        of_city_now[city] = now

        flags = np.int64(row_flags[r])
        kept = np.int64(of_ring_count[series])
        same: Int = np.int64(0)
        for i in range(kept):
            if ring_us[series, i] == event:
                equal = of_ring_value[series, i] == value
                same = DUPLICATE_FLAG if equal else CONFLICT_FLAG
        if same == 0:
            place = np.int64(of_ring_next[series])
            ring_us[series, place] = event
            of_ring_value[series, place] = value
            of_ring_next[series] = place + 1 if place + 1 < depth else 0
            if kept < depth:
                of_ring_count[series] = kept + 1
        of_last_us[series] = max(of_last_us[series], event)
        valid = row_quality[r] > 0 and same == 0

        for q in range(count):
            width = spec_pane[q]
            if event < pane_start[q] or event >= pane_start[q] + width:
                pane_number[q] = event // width
                pane_start[q] = pane_number[q] * width
                first, last = _windows_of_pane(pane_number[q], q, specs)
                window_first[q] = first
                window_last[q] = last
            closed = of_closed[key * count + q]
            if window_first[q] <= closed:
                for window in range(window_first[q], min(window_last[q], closed) + 1):
                    flags |= LATE_FLAG
                    _fold_late(
                        r, q, window, valid, rows, state, specs, pools, late, counters
                    )
            if window_last[q] <= closed or window_first[q] > window_last[q]:
                continue
            pane = pane_number[q]
            place = spec_first[q] + (pane & spec_mask[q])
            cell = series * slots + place
            if ints[cell, PANE] != pane:
                empty_cell(ints, floats, cell, pane)
                bucket = key * slots + place
                ints[cell, NEXT] = of_bucket_head[bucket]
                of_bucket_head[bucket] = series
                of_bucket_count[bucket] += 1
                of_bucket_pane[bucket] = pane
                of_key_cells[key] += 1
            if not valid:
                ints[cell, INVALID] += 1
                continue
            add_value(ints, floats, cell, event, value)
            parts = np.int64(of_parts[series, q])
            if parts > 0:
                bit = (event - pane_start[q]) * spec_fine[q, parts] // width
                ints[cell, SLOTS] |= np.int64(1) << bit
            if spec_sketched[q]:
                ints[cell, CHAIN] = sketch.add(
                    ints[cell, CHAIN], ints[cell, COUNT], value, pools
                )
        row_flags[r] = flags | same
        row_valid[r] = valid
        row_city_us[r] = of_city_us[city]
    return row_event.size


@kernel
def close_keys(
    keys: I8,
    offset: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> bool:
    """Close all windows with data of `keys` (int64[n]); False where `out` has to grow.

    A key that was closed holds no data, so calling again goes on where it stopped.
    """
    for key in keys:
        if not close_due(
            key, np.int64(NONE), offset, state, specs, pools, scratch, out, counters
        ):
            return False
    return True


@kernel
def evict(
    wanted: B1,
    offset: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> bool:
    """Emit every open window with data of the (series, spec) in `wanted` (bool[s, q]).

    Changes no cell; to be called again from the start with more room where it returns False.
    """
    counters[OUT_ROWS] = 0
    counters[OUT_WORDS] = 0
    slots = specs.slots[0]
    one = np.empty(1, np.int32)
    for series in range(wanted.shape[0]):
        key = np.int64(state.key[series])
        for q in range(wanted.shape[1]):
            if not wanted[series, q]:
                continue
            low = np.int64(-NONE)
            high = np.int64(NONE)
            for place in range(specs.first[q], specs.first[q] + specs.mask[q] + 1):
                pane = state.ints[series * slots + place, PANE]
                if pane != NONE:
                    first, last = _windows_of_pane(pane, q, specs)
                    low = min(low, first)
                    high = max(high, last)
            low = max(low, state.closed[key * specs.size.size + q] + 1)
            for window in range(low, high + 1):
                one[0] = series
                if not emit(
                    one,
                    q,
                    window,
                    offset,
                    state,
                    specs,
                    pools,
                    scratch,
                    out,
                    counters,
                ):
                    return False
                row = counters[OUT_ROWS] - 1
                if out.ints[row, COUNT] + out.ints[row, INVALID] == 0:
                    counters[OUT_ROWS] = row
    return True


@kernel
def encode_chains(
    ints: I8, cells: I8, pools: Pools, scratch: Scratch, out: Out, counters: I8
) -> bool:
    """Write the sketches of single cells (rows `cells` of `ints`) into `out.words` and `out.ends`.

    A cell without chunks takes no words. False where `out` has to grow; start again then.
    """
    at = np.int64(0)
    if cells.size > out.ends.size:
        return False
    for i in range(cells.size):
        head = ints[cells[i], CHAIN]
        count = ints[cells[i], COUNT]
        if head >= 0:
            have = sketch.gather(head, count, count, 0, pools, scratch)
            at = sketch.write(
                out.words, out.word_floats, out.word_halves, at, count, have, scratch
            )
            if at < 0:
                return False
        out.ends[i] = at
    counters[OUT_WORDS] = at
    return True


@kernel
def load_chains(
    begin: Int,
    ints: I8,
    cells: I8,
    words: I8,
    values: F8,
    halves: I4,
    ends: I8,
    pools: Pools,
) -> Int:
    """Read the sketch of each of `cells` back; return the first for which chunks lack.

    Sketch i ends at word `ends[i]` (int64[n]) and begins where the one before ends.
    """
    for i in range(begin, cells.size):
        start = ends[i - 1] if i > 0 else np.int64(0)
        if ends[i] > start:
            head, fits = sketch.load(words, values, halves, start, pools)
            if not fits:
                return i
            ints[cells[i], CHAIN] = head
    return cells.size


@kernel
def release_chains(ints: I8, cells: Int, pools: Pools) -> None:
    """Give back the chunks of the first `cells` rows of `ints`."""
    for cell in range(cells):
        sketch.release(ints[cell, CHAIN], ints[cell, COUNT], pools)


@kernel
def link_cells(cells: I8, state: State, specs: Specs) -> None:
    """Enter restored cells (int64[n], ascending by series within a pane) into their chains."""
    slots = specs.slots[0]
    for cell in cells:
        series = cell // slots
        bucket = state.key[series] * slots + cell % slots
        state.ints[cell, NEXT] = state.bucket_head[bucket]
        state.bucket_head[bucket] = series
        state.bucket_count[bucket] += 1
        state.bucket_pane[bucket] = state.ints[cell, PANE]
        state.key_cells[state.key[series]] += 1
