"""The arrays the window kernels work on: made empty, and grown.

Growth is by doubling and happens between kernel calls: a kernel stops at the row or window that
lacks room, gets the larger arrays and is resumed there. Nothing here keeps state; the store of
`core.windows` owns the arrays and knows how much of each is in use.
"""

from typing import Any

import numpy as np

from streamproc.core.arrays import aligned, grown
from streamproc.kernels import sketch
from streamproc.kernels import sketch_chains as chains
from streamproc.kernels.bytes_raw import LINE_BYTES
from streamproc.kernels.sketch import Scratch
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_late import rehash_late
from streamproc.kernels.windows_layout import (
    HEARD_US,
    NONE,
    PANE,
    RING,
    RING_COUNT,
    RING_NEXT,
    STAMP,
    WORDS,
    Late,
    Out,
    Specs,
    State,
)


def new_state(cities: int, dedup: int, specs: int, *, by_device: bool) -> State:
    """Return the state without series; cities are keys already unless `by_device`."""
    city_us = np.full(cities, NONE, np.int64)
    city_now = np.full(cities, NONE, np.int64)
    ints = np.empty((0, WORDS), np.int64)
    width = -(-(RING + 2 * dedup) * ints.itemsize // LINE_BYTES) * LINE_BYTES
    line = np.empty((0, width // ints.itemsize), np.int64)
    return State(
        ints=ints,
        floats=ints.view(np.float64),
        line=line,
        line_floats=line.view(np.float64),
        depth=np.array([dedup], np.int64),
        series_count=np.zeros(1, np.int64),
        parts=np.empty((0, specs), np.uint8),
        key_us=np.empty(0, np.int64) if by_device else city_us,
        key_now=np.empty(0, np.int64) if by_device else city_now,
        key_cells=np.empty(0, np.int64),
        closed=np.empty(0, np.int64),
        next_close=np.empty(0, np.int64),
        bucket_head=np.empty(0, np.int32),
        bucket_count=np.empty(0, np.int32),
        bucket_pane=np.empty(0, np.int64),
        city_us=city_us,
        city_now=city_now,
    )


def new_pools(values: int, bins: int) -> Pools:
    """Return pools of so many chunks, none of them in the free lists yet."""
    return Pools(
        exact=aligned((values, chains.EXACT_CHUNK), np.dtype(np.float64)),
        exact_next=np.empty(values, np.int32),
        bins=aligned((bins, chains.BIN_WORDS), np.dtype(np.int32)),
        counters=np.array([-1, 0, -1, 0], np.int64),
    )


def new_scratch(*, sketched: bool) -> Scratch:
    """Return the workspace of the sketch kernels; empty where nothing is sketched."""
    keys = 2 * sketch.BINADES + 1 if sketched else 0
    return Scratch(
        dense=np.zeros((keys, sketch.BINS), np.int64),
        used=np.zeros(keys, np.int64),
        seen=np.zeros(keys, np.int8),
        exact=np.zeros(sketch.EXACT_MAX),
    )


def new_out(rows: int, words: int) -> Out:
    """Return room for so many rows of closed windows and words of sketches."""
    ints = np.empty((WORDS, rows), np.int64)
    flat = np.empty(words, np.int64)
    return Out(
        ints=ints,
        floats=ints.view(np.float64),
        offset=np.empty(rows, np.int64),
        words=flat,
        word_floats=flat.view(np.float64),
        word_halves=flat.view(np.int32),
        ends=np.empty(rows, np.int64),
    )


def new_late(rows: int, cells: int) -> Late:
    """Return room for late readings and late cells, a table twice as large as the cells."""
    ints = np.empty((cells, WORDS), np.int64)
    return Late(
        row=np.empty(rows, np.int32),
        spec=np.empty(rows, np.int32),
        window=np.empty(rows, np.int64),
        behind=np.empty(rows, np.int64),
        ints=ints,
        floats=ints.view(np.float64),
        table=np.zeros(2 * cells, np.int32),
    )


def _more(left: int, right: int) -> int:
    """Return a capacity of at least `right`, a power of two, at least double `left`."""
    return 1 << (max(2 * left, right) - 1).bit_length()


def with_keys(
    state: State, count: int, size: int, specs: Specs, *, by_device: bool
) -> State:
    """Return the state with room for `size` watermark keys, those from `count` on new."""
    windows, slots = len(specs.size), int(specs.slots[0])
    changes: dict[str, Any] = {
        "key_cells": grown(state.key_cells, size, count, 0),
        "closed": grown(state.closed, size * windows, count * windows, NONE),
        "next_close": grown(state.next_close, size * windows, count * windows, NONE),
        "bucket_head": grown(state.bucket_head, size * slots, count * slots, -1),
        "bucket_count": grown(state.bucket_count, size * slots, count * slots, 0),
        "bucket_pane": grown(state.bucket_pane, size * slots, count * slots, NONE),
    }
    if by_device:
        changes["key_us"] = grown(state.key_us, size, count, NONE)
        changes["key_now"] = grown(state.key_now, size, count, NONE)
    return state._replace(**changes)


def with_series(state: State, count: int, size: int, slots: int) -> State:
    """Return the state with room for `size` series, those from `count` on without data.

    Their key, city and `parts` are for the caller to fill.
    """
    line = grown(state.line, size, count, None)
    line[count:size, [RING_COUNT, RING_NEXT, STAMP]] = 0
    line[count:size, HEARD_US] = NONE
    ints = grown(state.ints, size * slots, count * slots, None)
    ints[count * slots : size * slots, PANE] = NONE
    return state._replace(
        ints=ints,
        floats=ints.view(np.float64),
        line=line,
        line_floats=line.view(np.float64),
        parts=grown(state.parts, size, count, None),
    )


def grown_pools(old: Pools, values_min: int, bins_min: int) -> Pools:
    """Return pools with at least so many chunks free; only what is short doubles."""
    values, bins = len(old.exact), len(old.bins)
    if old.counters[chains.EXACT_LEFT] < values_min:
        values = _more(values, values + values_min)
    if old.counters[chains.BIN_LEFT] < bins_min:
        bins = _more(bins, bins + bins_min)
    assert max(values, bins) <= chains.CHUNKS_MAX, "a chain's heads are 28 bits"
    new = new_pools(values, bins)
    for name in ("exact", "exact_next", "bins"):
        kept = getattr(old, name)
        getattr(new, name)[: len(kept)] = kept
    new.counters[:] = old.counters
    for links, was, free, left in (
        (new.exact_next, len(old.exact), chains.EXACT_FREE, chains.EXACT_LEFT),
        (new.bins[:, chains.BIN_NEXT], len(old.bins), chains.BIN_FREE, chains.BIN_LEFT),
    ):
        if len(links) > was:
            links[was:] = np.arange(was + 1, len(links) + 1)
            links[-1] = new.counters[free]
            new.counters[free] = was
            new.counters[left] += len(links) - was
    return new


def grown_out(old: Out, rows: int, words: int, wanted: int, expected: int) -> Out:
    """Return output with room for `wanted` rows, keeping the `rows` and `words` written so far.

    Where it has room for those, it was words that lacked; what is short doubles at least, and
    words are not fewer than `expected`.
    """
    have, words_room = len(old.offset), len(old.words)
    if wanted > have:
        have = max(2 * have, wanted)
    else:
        words_room *= 2
    new = new_out(have, max(words_room, expected))
    new.ints[:, :rows] = old.ints[:, :rows]
    new.offset[:rows] = old.offset[:rows]
    new.ends[:rows] = old.ends[:rows]
    new.words[:words] = old.words[:words]
    return new


def grown_late(old: Late, rows: int, cells: int, room: tuple[int, int]) -> Late:
    """Return at least double the room, keeping `rows` late readings and `cells` late cells.

    `room`: the least capacity for readings and for cells.
    """
    new = new_late(_more(len(old.row), room[0]), _more(len(old.ints), room[1]))
    for name in ("row", "spec", "window", "behind"):
        getattr(new, name)[:rows] = getattr(old, name)[:rows]
    new.ints[:cells] = old.ints[:cells]
    rehash_late(new, cells)
    return new
