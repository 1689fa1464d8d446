"""One cell, and the panes of one window merged into the row that leaves.

Theory of operation
-------------------
A cell folds its readings by Welford's recurrence: mean and m2 without cancellation, a plain sum,
extremes, first and last. A window is its panes merged in time order by Chan's formula, so the
result depends on the panes alone and not on when it is asked for.

Coverage: a pane keeps `fine` bits, `ratio` of which make an n-th of the window; `widen` turns
them into the window's.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

from typing import Any

import numpy as np

from streamproc.kernels import sketch_chains as chains
from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_raw import LINE_BYTES, prefetch
from streamproc.kernels.sketch import (
    EXACT_MAX,
    Int,
    Scratch,
    write_bins,
    write_values,
)
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_layout import (
    AHEAD,
    CELL_BYTES,
    CHAIN,
    COUNT,
    F8,
    FIRST,
    FIRST_US,
    I4,
    I8,
    INVALID,
    LAST,
    LAST_US,
    M2,
    MAX,
    MEAN,
    MIN,
    OUT_ROWS,
    OUT_WORDS,
    PANE,
    ROWS_WANTED,
    SERIES,
    SLOTS,
    SPEC,
    SUM,
    WINDOW,
    Out,
    Specs,
    State,
)


@kernel
def empty_cell(ints: I8, floats: F8, cell: Int, pane: Int) -> None:
    """Begin the accumulators of one pane or window."""
    ints[cell, PANE] = pane
    ints[cell, COUNT] = 0
    ints[cell, INVALID] = 0
    ints[cell, SLOTS] = 0
    ints[cell, CHAIN] = chains.EMPTY
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
def widen(bits: Int, fine: Int, ratio: Int, pane: Int) -> Int:
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
    counters[ROWS_WANTED] = row + members.size
    if row + members.size > to_offset.size:
        return False
    cell_base = ints.ctypes.data
    for m in range(members.size):
        if m + AHEAD < members.size:
            ahead = np.int64(members[m + AHEAD]) * slots + specs.first[q]
            at = cell_base + (ahead + (first_pane & mask)) * CELL_BYTES
            prefetch(at)
            prefetch(at + LINE_BYTES)
        series = np.int64(members[m])
        base = series * slots + specs.first[q]
        parts = np.int64(parts_of[series, q])
        invalid = np.int64(0)
        bits = np.int64(0)
        a = np.int64(0)
        to_ints[WINDOW, row] = window
        to_ints[FIRST_US, row] = 0
        to_ints[LAST_US, row] = 0
        for word in range(SUM, SPEC):
            to_floats[word, row] = 0.0
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
                bits |= widen(ints[cell, SLOTS], fine, ratio_of[q, parts], p)
            if a == 0:
                to_ints[FIRST_US, row] = ints[cell, FIRST_US]
                for word in range(SUM, LAST):
                    to_floats[word, row] = floats[cell, word]
            else:
                total = a + b
                delta = floats[cell, MEAN] - to_floats[MEAN, row]
                to_floats[MEAN, row] += delta * b / total
                to_floats[M2, row] += floats[cell, M2] + delta * delta * a * b / total
                to_floats[SUM, row] += floats[cell, SUM]
                to_floats[MIN, row] = min(to_floats[MIN, row], floats[cell, MIN])
                to_floats[MAX, row] = max(to_floats[MAX, row], floats[cell, MAX])
            to_ints[LAST_US, row] = ints[cell, LAST_US]
            to_floats[LAST, row] = floats[cell, LAST]
            a += b
        to_ints[COUNT, row] = a
        to_ints[INVALID, row] = invalid
        to_ints[SLOTS, row] = bits
        to_ints[SERIES, row] = series
        to_ints[SPEC, row] = q
        to_offset[row] = offset
        if not sketched:
            to_ends[row] = end
        row += 1
    if sketched:
        end = _emit_sketches(
            members, q, first_pane, end, state, specs, pools, scratch, out, counters
        )
        if end < 0:
            return False
    counters[OUT_ROWS] = row
    counters[OUT_WORDS] = end
    return True


@kernel
def _emit_sketches(
    members: I4,
    q: Int,
    first_pane: Int,
    end: Int,
    state: State,
    specs: Specs,
    pools: Pools,
    scratch: Scratch,
    out: Out,
    counters: I8,
) -> Int:
    """Write the sketch of each of `members` after word `end`; the new end, negative without room.

    Their rows are written, from `counters[OUT_ROWS]` on.
    """
    ints = state.ints
    counts = out.ints
    to_ends = out.ends
    words = out.words
    floats = out.word_floats
    halves = out.word_halves
    exact = pools.exact
    exact_next = pools.exact_next
    kept = scratch.exact
    mask = specs.mask[q]
    slots = specs.slots[0]
    first = specs.first[q]
    panes = specs.size[q] // specs.pane[q]
    row = counters[OUT_ROWS]
    exact_base = exact.ctypes.data
    for m in range(members.size):
        if m + AHEAD < members.size:
            ahead = np.int64(members[m + AHEAD]) * slots + first + (first_pane & mask)
            chunk = chains.values_of(ints[ahead, CHAIN])
            prefetch(exact_base + chunk * chains.CHUNK_BYTES)
        base = np.int64(members[m]) * slots + first
        total = counts[COUNT, row]
        have = np.int64(0)
        for p in range(panes):
            cell = base + ((first_pane + p) & mask)
            if total == 0 or ints[cell, PANE] != first_pane + p:
                continue
            chain = ints[cell, CHAIN]
            if total <= EXACT_MAX:
                have = chains.gather_values(chain, have, exact, exact_next, kept)
            else:
                have = chains.gather(chain, have, pools, scratch)
        if total > EXACT_MAX:
            end = write_bins(words, halves, end, have, scratch)
        elif total > 0:
            end = write_values(words, floats, end, total, kept)
        if end < 0:
            return end
        to_ends[row] = end
        row += 1
    return end
