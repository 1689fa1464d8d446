"""The fold: readings into panes, row by row, closing windows at the row that does it.

Theory of operation
-------------------
A row that moves its key's watermark past `next_close` closes windows before it is folded itself.

Nothing is written for a row before everything it may need has room. Where there is not enough the
kernel returns the row to be resumed; closes are finished window by window, so resuming there
is exact. That, and taking every decision at a row, makes the cut of batches invisible.

State of many series lies outside of the caches, so a series' line and the cells its reading most
likely goes to are fetched `AHEAD` rows before their turn.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

import numpy as np

from streamproc.kernels import sketch_chains as chains
from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_raw import LINE_BYTES, prefetch
from streamproc.kernels.sketch import Int, Scratch
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_cells import add_value, empty_cell
from streamproc.kernels.windows_close import close_due, windows_of_pane
from streamproc.kernels.windows_late import fold_late
from streamproc.kernels.windows_layout import (
    AHEAD,
    CELL_BYTES,
    CHAIN,
    CITY,
    CONFLICT_FLAG,
    DONE,
    DUPLICATE_FLAG,
    HEARD_US,
    I8,
    INVALID,
    KEY,
    LATE_CELLS,
    LATE_FLAG,
    LATE_ROWS,
    NEED_LATE,
    NEED_OUT,
    NEED_POOLS,
    NEXT,
    NONE,
    PANE,
    RING,
    RING_COUNT,
    RING_NEXT,
    SLOTS,
    STATUS,
    Late,
    Out,
    Rows,
    Specs,
    State,
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
    bin_chunks = pool_chunks * chains.CHUNKS_PER_VALUE
    # Attributes of a tuple cost a reference count at each use; locals do not.
    row_series = rows.series
    row_event = rows.event
    row_value = rows.value
    row_quality = rows.quality
    row_offset = rows.offset
    row_flags = rows.flags
    row_city_us = rows.city_us
    row_valid = rows.valid
    line = state.line
    line_floats = state.line_floats
    depth = state.depth[0]
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
    # The pane of the last row, per spec: start, number, first and last window.
    pane_start = np.full(count, NONE, np.int64)
    pane_number = np.zeros(count, np.int64)
    window_first = np.zeros(count, np.int64)
    window_last = np.zeros(count, np.int64)
    counters[STATUS] = DONE
    line_base = line.ctypes.data
    line_bytes = 8 * line.shape[1]
    cell_base = ints.ctypes.data
    values = pools.exact
    values_next = pools.exact_next
    chunk_base = values.ctypes.data
    for r in range(begin, row_event.size):
        if r + AHEAD < row_event.size:
            ahead = np.int64(row_series[r + AHEAD])
            prefetch(line_base + ahead * line_bytes)
            for q in range(count):
                place = spec_first[q] + (pane_number[q] & spec_mask[q])
                at = cell_base + (ahead * slots + place) * CELL_BYTES
                prefetch(at)
                prefetch(at + LINE_BYTES)
            if pool_chunks > 0:
                # Its cells are there by now, and say where its values go.
                near = np.int64(row_series[r + AHEAD // 2]) * slots
                for q in range(count):
                    place = spec_first[q] + (pane_number[q] & spec_mask[q])
                    chunk = chains.values_of(ints[near + place, CHAIN])
                    prefetch(chunk_base + chunk * chains.CHUNK_BYTES)
        series = np.int64(row_series[r])
        event = row_event[r]
        value = row_value[r]
        key = line[series, KEY]
        city = line[series, CITY]
        if (
            counters[LATE_ROWS] + late_rows > late_rows_max
            or counters[LATE_CELLS] + late_rows > late_cells_max
            or 2 * (counters[LATE_CELLS] + late_rows) > table_size
        ):
            counters[STATUS] = NEED_LATE
            return r
        if pool_chunks > 0 and (
            pool_left[chains.EXACT_LEFT] < pool_chunks
            or pool_left[chains.BIN_LEFT] < bin_chunks
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
        kept = line[series, RING_COUNT]
        same: Int = np.int64(0)
        for i in range(kept):
            if line[series, RING + i] == event:
                equal = line_floats[series, RING + depth + i] == value
                same = DUPLICATE_FLAG if equal else CONFLICT_FLAG
        if same == 0:
            place = line[series, RING_NEXT]
            line[series, RING + place] = event
            line_floats[series, RING + depth + place] = value
            line[series, RING_NEXT] = place + 1 if place + 1 < depth else 0
            if kept < depth:
                line[series, RING_COUNT] = kept + 1
        line[series, HEARD_US] = max(line[series, HEARD_US], event)
        valid = row_quality[r] > 0 and same == 0

        for q in range(count):
            width = spec_pane[q]
            if event < pane_start[q] or event >= pane_start[q] + width:
                pane_number[q] = event // width
                pane_start[q] = pane_number[q] * width
                first, last = windows_of_pane(pane_number[q], q, specs)
                window_first[q] = first
                window_last[q] = last
            closed = of_closed[key * count + q]
            if window_first[q] <= closed:
                for window in range(window_first[q], min(window_last[q], closed) + 1):
                    flags |= LATE_FLAG
                    fold_late(
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
                # As `chains.add`; a call with all pools costs the references of their arrays.
                chain = ints[cell, CHAIN]
                into = chains.place_of(chain)
                if into == 0:
                    if chains.is_full(chain):
                        chain = chains.flushed(chain, pools)
                    chain = chains.with_chunk(chain, values_next, pool_left)
                values[chains.values_of(chain), into] = value
                ints[cell, CHAIN] = chain + 1
        row_flags[r] = flags | same
        row_valid[r] = valid
        row_city_us[r] = of_city_us[city]
    return row_event.size
