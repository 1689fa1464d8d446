"""Closing: which window of a watermark key goes next, who is in it, what is forgotten then.

Theory of operation
-------------------
A watermark that moves closes windows in order of (end, spec); within a window the rows are in
order of series. What is due is found from the oldest pane of the key that holds data, so empty
stretches cost nothing.

A window is written as a whole or not at all: where `out` lacks room nothing of it has changed,
and calling again goes on with exactly that window.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

import numpy as np

from streamproc.kernels import sketch_chains as chains
from streamproc.kernels._jit import kernel
from streamproc.kernels.sketch import Int, Scratch
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_cells import emit
from streamproc.kernels.windows_layout import (
    B1,
    CHAIN,
    COUNT,
    I4,
    I8,
    INVALID,
    KEY,
    NEXT,
    NONE,
    OUT_ROWS,
    OUT_WORDS,
    PANE,
    STAMP,
    STAMPS,
    Out,
    Specs,
    State,
)

ALL_FACTOR = 8
"""Every series is looked at where at least one in so many holds data in the window: a look in
order costs about an eighth of a step along the chain."""


@kernel
def windows_of_pane(pane: Int, q: Int, specs: Specs) -> tuple[Int, Int]:
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
    first, _ = windows_of_pane(oldest, q, specs)
    return max(first, state.closed[key * specs.size.size + q] + 1)


@kernel
def _counted(key: Int, q: Int, window: Int, state: State, specs: Specs) -> Int:
    """Return how many cells hold data in a window: at least as many as there are members."""
    first_pane = window * specs.every[q] // specs.pane[q]
    bucket = key * specs.slots[0] + specs.first[q]
    count = np.int64(0)
    for p in range(first_pane, first_pane + specs.size[q] // specs.pane[q]):
        slot = bucket + (p & specs.mask[q])
        if state.bucket_pane[slot] == p:
            count += state.bucket_count[slot]
    return count


@kernel
def _members_of_all(
    key: Int, q: Int, window: Int, state: State, specs: Specs, count: Int
) -> I4:
    """Return the series that hold data in a window, ascending, by looking at every series."""
    ints = state.ints
    line = state.line
    slots = specs.slots[0]
    mask = specs.mask[q]
    first_pane = window * specs.every[q] // specs.pane[q]
    panes = specs.size[q] // specs.pane[q]
    found = np.empty(count, np.int32)
    n = 0
    for series in range(state.series_count[0]):
        base = series * slots + specs.first[q]
        for p in range(first_pane, first_pane + panes):
            if ints[base + (p & mask), PANE] == p and line[series, KEY] == key:
                found[n] = series
                n += 1
                break
    return found[:n]


@kernel
def _members(
    key: Int, q: Int, window: Int, state: State, specs: Specs, stamp: Int
) -> I4:
    """Return the series that hold data in a window, ascending."""
    ints = state.ints
    line = state.line
    bucket_pane = state.bucket_pane
    bucket_count = state.bucket_count
    slots = specs.slots[0]
    mask = specs.mask[q]
    first_pane = window * specs.every[q] // specs.pane[q]
    panes = specs.size[q] // specs.pane[q]
    bucket = key * slots + specs.first[q]
    count = _counted(key, q, window, state, specs)
    if count * ALL_FACTOR >= state.series_count[0]:
        return _members_of_all(key, q, window, state, specs, count)
    found = np.empty(count, np.int32)
    left = count
    for p in range(first_pane, first_pane + panes):
        slot = bucket + (p & mask)
        if bucket_count[slot] == 0 or bucket_pane[slot] != p:
            continue
        series = np.int64(state.bucket_head[slot])
        place = specs.first[q] + (p & mask)
        while series >= 0:
            if line[series, STAMP] != stamp:
                line[series, STAMP] = stamp
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
        series = np.int64(state.bucket_head[slot]) if sketched else np.int64(-1)
        while series >= 0:
            cell = series * slots + place
            chains.release(ints[cell, CHAIN], pools)
            series = ints[cell, NEXT]
        state.key_cells[key] -= bucket_count[slot]
        bucket_count[slot] = 0
        state.bucket_head[slot] = -1


@kernel
def _mark_closed(key: Int, q: Int, window: Int, state: State, specs: Specs) -> None:
    at = key * specs.size.size + q
    if window > state.closed[at]:
        state.closed[at] = window
        state.next_close[at] = (
            (window + 1) * specs.every[q] + specs.size[q] + specs.lateness[q]
        )


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
    counters[STAMPS] += 1
    members = _members(key, q, window, state, specs, counters[STAMPS])
    if not emit(
        members, q, window, offset, state, specs, pools, scratch, out, counters
    ):
        return False
    _free_panes(key, q, window, state, specs, pools)
    _mark_closed(key, q, window, state, specs)
    return True


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
        key = state.line[series, KEY]
        for q in range(wanted.shape[1]):
            if not wanted[series, q]:
                continue
            low = np.int64(-NONE)
            high = np.int64(NONE)
            for place in range(specs.first[q], specs.first[q] + specs.mask[q] + 1):
                pane = state.ints[series * slots + place, PANE]
                bucket = key * slots + place
                if state.bucket_count[bucket] > 0 and state.bucket_pane[bucket] == pane:
                    first, last = windows_of_pane(pane, q, specs)
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
                if out.ints[COUNT, row] + out.ints[INVALID, row] == 0:
                    counters[OUT_ROWS] = row
    return True
