"""Sketches of the running state: chains of chunks in two pools.

Theory of operation
-------------------
Values live in chunks of 8 and bins in chunks of one binade, both in pools with free lists, linked
by `next`. Also beyond `EXACT_MAX` values wait as they are, and go into bins 32 at a time: a value
is one store into a line that can be fetched ahead, and bins are touched once for many. What leaves
does not know of it: up to 32 values it is those, beyond it is counts of bins.

A cell's CHAIN word holds both heads and how many values wait; `EMPTY` is a chain without chunks.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

from typing import Any, Final, NamedTuple

import numpy as np

from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_raw import LINE_BYTES, prefetch
from streamproc.kernels.sketch import (
    BINADES,
    BINS,
    EXACT_MAX,
    F8,
    I1,
    I4,
    I8,
    KIND_EXACT,
    NONE,
    Int,
    Scratch,
    bin_of,
    write_bins,
    write_values,
)

EXACT_CHUNK: Final = 8
CHUNK_BYTES: Final = 8 * EXACT_CHUNK
CHUNKS_PER_VALUE: Final = EXACT_MAX
"""Most chunks of bins one value can take: it moves so many others into bins."""

# A chain: (head of bins + 1) << BINS_AT | (head of values + 1) << VALUES_AT | values that wait.
EMPTY: Final = 0
VALUES_AT: Final = 6
BINS_AT: Final = 35
_WAITING: Final = (1 << VALUES_AT) - 1
_HEAD: Final = (1 << (BINS_AT - VALUES_AT)) - 1
CHUNKS_MAX: Final = 1 << 28
"""Most chunks a pool may have, so that a chain is one word: 16 GiB of values."""

# Words of a chunk of bins; its size keeps key and next in one line.
BIN_KEY, BIN_NEXT, BIN_FIRST = range(3)
BIN_WORDS: Final = 40
BIN_BYTES: Final = 4 * BIN_WORDS

EXACT_FREE, EXACT_LEFT, BIN_FREE, BIN_LEFT = range(4)
COUNTERS: Final = 4


class Pools(NamedTuple):
    """Chunks of exact values and of bins, with their free lists in `counters`.

    exact: float64[n, EXACT_CHUNK], exact_next: int32[n];
    bins: int32[m, BIN_WORDS], a binade's key, the next chunk and the counts of its bins;
    counters: int64[COUNTERS].
    """

    exact: F8
    exact_next: I4
    bins: I4
    counters: I8


@kernel
def bins_of(chain: Int) -> Int:
    """Return the first chunk of bins of a chain, NONE without."""
    return (chain >> BINS_AT) - 1


@kernel
def values_of(chain: Int) -> Int:
    """Return the chunk of values of a chain that is filled, NONE without."""
    return ((chain >> VALUES_AT) & _HEAD) - 1


@kernel
def place_of(chain: Int) -> Int:
    """Return where in its chunk the next value goes, 0 where it takes a new one."""
    return (chain & _WAITING) % EXACT_CHUNK


@kernel
def _packed(bins: Int, values: Int, waiting: Int) -> Int:
    return ((bins + 1) << BINS_AT) | ((values + 1) << VALUES_AT) | waiting


@kernel
def _add_bin(head: Int, key: Int, place: Int, bins: I4, counters: I8) -> Int:
    chunk = head
    while chunk >= 0 and bins[chunk, BIN_KEY] != key:
        chunk = np.int64(bins[chunk, BIN_NEXT])
    if chunk < 0:
        chunk = counters[BIN_FREE]
        counters[BIN_FREE] = bins[chunk, BIN_NEXT]
        counters[BIN_LEFT] -= 1
        bins[chunk, BIN_KEY] = key
        bins[chunk, BIN_NEXT] = head
        for i in range(BIN_FIRST, BIN_FIRST + BINS):
            bins[chunk, i] = 0
        head = chunk
    bins[chunk, BIN_FIRST + place] += 1
    return head


@kernel
def _to_bins(head: Int, target: Int, pools: Pools) -> Int:
    """Count the values of full chunks in the bins at `target`; returns the bins' new head."""
    exact = pools.exact
    exact_next = pools.exact_next
    bins = pools.bins
    counters = pools.counters
    exact_base = exact.ctypes.data
    # One walk over both chains fetches all of them, each waiting for the other's lines too.
    base = bins.ctypes.data
    bin_chunk = target
    chunk = head
    while bin_chunk >= 0 or chunk >= 0:
        if chunk >= 0:
            prefetch(exact_base + chunk * CHUNK_BYTES)
            chunk = np.int64(exact_next[chunk])
        if bin_chunk >= 0:
            at = base + bin_chunk * BIN_BYTES
            prefetch(at + LINE_BYTES)
            prefetch(at + 2 * LINE_BYTES)
            bin_chunk = np.int64(bins[bin_chunk, BIN_NEXT])
    while head >= 0:
        for i in range(EXACT_CHUNK):
            key, place = bin_of(exact[head, i])
            target = _add_bin(target, key, place, bins, counters)
        after = np.int64(exact_next[head])
        exact_next[head] = counters[EXACT_FREE]
        counters[EXACT_FREE] = head
        counters[EXACT_LEFT] += 1
        head = after
    return target


@kernel
def is_full(chain: Int) -> bool:
    """Return whether as many values wait as may: before one more they go into bins."""
    full: bool = (chain & _WAITING) == EXACT_MAX
    return full


@kernel
def flushed(chain: Int, pools: Pools) -> Int:
    """Count the values of a full chain in its bins; return the chain without them."""
    bins = _to_bins(values_of(chain), bins_of(chain), pools)
    return _packed(bins, np.int64(NONE), np.int64(0))


@kernel
def with_chunk(chain: Int, exact_next: I4, counters: I8) -> Int:
    """Return the chain with a free chunk for its next values."""
    chunk = counters[EXACT_FREE]
    counters[EXACT_FREE] = exact_next[chunk]
    counters[EXACT_LEFT] -= 1
    exact_next[chunk] = values_of(chain)
    return _packed(bins_of(chain), chunk, chain & _WAITING)


@kernel
def add(chain: Int, value: Any, pools: Pools) -> Int:
    """Add a value to a chain and return what the chain is then.

    The caller has made sure that CHUNKS_PER_VALUE chunks of bins and one of values are free.
    """
    place = place_of(chain)
    if place == 0:
        if is_full(chain):
            chain = flushed(chain, pools)
        chain = with_chunk(chain, pools.exact_next, pools.counters)
    pools.exact[values_of(chain), place] = value
    return chain + 1


@kernel
def release(chain: Int, pools: Pools) -> None:
    """Give the chunks of a chain back."""
    exact_next = pools.exact_next
    bins = pools.bins
    counters = pools.counters
    head = values_of(chain)
    while head >= 0:
        after = np.int64(exact_next[head])
        exact_next[head] = counters[EXACT_FREE]
        counters[EXACT_FREE] = head
        counters[EXACT_LEFT] += 1
        head = after
    head = bins_of(chain)
    while head >= 0:
        after = np.int64(bins[head, BIN_NEXT])
        bins[head, BIN_NEXT] = counters[BIN_FREE]
        counters[BIN_FREE] = head
        counters[BIN_LEFT] += 1
        head = after


@kernel
def _noted(key: Int, seen: I1, used: I8, have: Int) -> Int:
    """Note that a binade is in use; returns how many are."""
    row = key + BINADES
    if seen[row] == 0:
        seen[row] = 1
        used[have] = key
        return have + 1
    return have


@kernel
def gather_values(chain: Int, have: Int, exact: F8, exact_next: I4, kept: F8) -> Int:
    """Copy the values of a chain without bins behind the `have` in `kept`; how many it now holds."""
    waiting = chain & _WAITING
    head = values_of(chain)
    while head >= 0:
        held = (waiting - 1) % EXACT_CHUNK + 1
        for i in range(held):
            kept[have + i] = exact[head, i]
        have += held
        waiting -= held
        head = np.int64(exact_next[head])
    return have


@kernel
def gather(chain: Int, have: Int, pools: Pools, scratch: Scratch) -> Int:
    """Add one chain to the bins of the scratch; returns how many binades it now holds."""
    exact = pools.exact
    exact_next = pools.exact_next
    bins = pools.bins
    dense = scratch.dense
    used = scratch.used
    seen = scratch.seen
    waiting = chain & _WAITING
    head = values_of(chain)
    while head >= 0:
        held = (waiting - 1) % EXACT_CHUNK + 1
        for i in range(held):
            key, place = bin_of(exact[head, i])
            have = _noted(key, seen, used, have)
            dense[key + BINADES, place] += 1
        waiting -= held
        head = np.int64(exact_next[head])
    head = bins_of(chain)
    while head >= 0:
        key = np.int64(bins[head, BIN_KEY])
        have = _noted(key, seen, used, have)
        for i in range(BINS):
            dense[key + BINADES, i] += bins[head, BIN_FIRST + i]
        head = np.int64(bins[head, BIN_NEXT])
    return have


@kernel
def write_chain(
    words: I8,
    values: F8,
    halves: I4,
    at: Int,
    count: Int,
    chain: Int,
    pools: Pools,
    scratch: Scratch,
) -> Int:
    """Write the sketch of one chain of `count` values; returns the end, NONE if no room.

    `values` and `halves` are float64 and int32 views of the same memory as `words`.
    """
    if count <= EXACT_MAX:
        gather_values(chain, 0, pools.exact, pools.exact_next, scratch.exact)
        return write_values(words, values, at, count, scratch.exact)
    have = gather(chain, 0, pools, scratch)
    return write_bins(words, halves, at, have, scratch)


@kernel
def load(words: I8, values: F8, halves: I4, at: Int, pools: Pools) -> tuple[Int, bool]:
    """Read one encoded sketch into chunks: (its chain, whether there was room).

    Without room nothing is taken.
    """
    entries = words[at] >> 32
    chain = np.int64(EMPTY)
    if (words[at] >> 8) & 0xFF == KIND_EXACT:
        if pools.counters[EXACT_LEFT] * EXACT_CHUNK < entries:
            return chain, False
        for i in range(entries):
            chain = add(chain, values[at + 1 + i], pools)
        return chain, True
    if pools.counters[BIN_LEFT] < entries:
        return chain, False
    counts = at + 1 + (entries + 1) // 2
    head = np.int64(NONE)
    for entry in range(entries):
        code = np.int64(halves[2 * (at + 1) + entry])
        key = np.int64(0)
        place = np.int64(0)
        if code != 0:
            key = (abs(code) - 1) // BINS + 1
            place = (abs(code) - 1) % BINS
            key = key if code > 0 else -key
        head = _add_bin(head, key, place, pools.bins, pools.counters)
        # A code occurs once; _add_bin has counted it as one.
        chunk = head
        while pools.bins[chunk, BIN_KEY] != key:
            chunk = np.int64(pools.bins[chunk, BIN_NEXT])
        pools.bins[chunk, BIN_FIRST + place] = words[counts + entry]
    return _packed(head, np.int64(NONE), np.int64(0)), True
