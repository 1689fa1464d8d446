"""Late readings: noted row by row, and folded into cells of their own until the next cut.

Theory of operation
-------------------
A reading may miss some of its windows and not others, so lateness is one entry per (row, window).
Late cells lie in order of each window's first late reading and are found by an open-addressed
hash of (series, spec, window); the table is never more than half full, which the fold sees to.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

import numpy as np

from streamproc.kernels import sketch_chains as chains
from streamproc.kernels._jit import kernel
from streamproc.kernels.sketch import Int
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_cells import add_value, empty_cell
from streamproc.kernels.windows_layout import (
    CHAIN,
    I8,
    INVALID,
    KEY,
    LATE_CELLS,
    LATE_ROWS,
    SERIES,
    SLOTS,
    SPEC,
    WINDOW,
    Late,
    Rows,
    Specs,
    State,
)


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
def fold_late(
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
    behind = state.key_us[state.line[series, KEY]] - (
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
        late.ints[cell, CHAIN] = chains.add(
            late.ints[cell, CHAIN], rows.value[r], pools
        )


@kernel
def release_chains(ints: I8, cells: Int, pools: Pools) -> None:
    """Give back the chunks of the first `cells` rows of `ints`."""
    for cell in range(cells):
        chains.release(ints[cell, CHAIN], pools)
