"""A mergeable quantile sketch: exact values first, then counts in logarithmic bins.

Theory
------
Up to `EXACT_MAX` values are kept as they are. The value after that turns them into counts
of bins that have `BINS` per power of two, equal in the logarithm up to a cubic that needs no
`log` (the mapping of DDSketch's "cubically interpolated" variant: Masson, Rim, Lee, VLDB 2019,
and its implementations). With 35 bins per binade two edges are at most a factor exp(1/50)
apart, so the harmonic midpoint of a bin is within tanh(1/100) < 1 % of every value in it.
Only multiplications and additions are used, which IEEE 754 rounds alike on every machine:
the same values give the same bins everywhere.

The form depends on the number of values alone (exact up to 32, bins beyond) and counts are
integers, so merging in any order and grouping gives the same result.

Clamps: zero, -0.0 and subnormals (below 2.2e-308) count as 0. Everything finite beyond has a bin.

A bin is named by a *code*, int32, ascending with the value: 0 for zero, else
`sign * (BINS * (biased exponent - 1) + bin + 1)`.

In the state values live in chunks of 8 and bins in chunks of one binade, both in pools with free
lists, linked by `next`; a chain starts at the cell's SKETCH word (`NONE` = no chunk).
"""

# ruff: noqa: PLR0917  (a kernel is flat)

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

Int: TypeAlias = Any
"""A kernel's int64: an int outside, an np.int64 inside; one type to numba, two to mypy."""

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

EXACT_MAX: Final = 32
EXACT_CHUNK: Final = 8
BINS: Final = 35
BINADES: Final = 2046
VERSION: Final = 1
KIND_EXACT: Final = 0
KIND_BINS: Final = 1
NONE: Final = -1

CHUNKS_PER_VALUE: Final = EXACT_MAX + 1
"""Most chunks one value can take: the 33rd moves 32 others into bins."""

_MANTISSA: Final = (1 << 52) - 1
_ONE: Final = 1023 << 52

EXACT_FREE, EXACT_LEFT, BIN_FREE, BIN_LEFT = range(4)
COUNTERS = 4


@kernel
def bin_of(value: float) -> tuple[Int, Int]:
    """Return (signed biased exponent, bin) of a finite value; (0, 0) for zero and subnormals."""
    bits = np.float64(value).view(np.int64)
    exponent = (bits >> 52) & 0x7FF
    if exponent == 0:
        return np.int64(0), np.int64(0)
    s = np.int64((bits & _MANTISSA) | _ONE).view(np.float64) - 1.0
    place = min(np.int64(((6.0 * s - 21.0) * s + 50.0) * s), BINS - 1)
    return (-exponent if bits < 0 else exponent), place


@kernel
def code_of(key: Int, place: Int) -> Int:
    """Return the published code of a bin."""
    if key > 0:
        return BINS * (key - 1) + place + 1
    if key < 0:
        return -(BINS * (-key - 1) + place + 1)
    return 0


@kernel
def codes_of(values: F8, codes: I4) -> None:
    """Write the code of every finite value (float64[n]) into `codes` (int32[n])."""
    for i in range(values.size):
        key, place = bin_of(values[i])
        codes[i] = code_of(key, place)


def _middles() -> F8:
    """Return the harmonic midpoints of the bins of [1, 2), from edges found by bisection."""
    edges = [1.0]
    for place in range(1, BINS):
        low, high = _ONE, _ONE + _MANTISSA
        while low < high:
            middle = (low + high) // 2
            s = float(np.int64(middle).view(np.float64)) - 1.0
            if ((6.0 * s - 21.0) * s + 50.0) * s >= place:
                high = middle
            else:
                low = middle + 1
        edges.append(float(np.int64(low).view(np.float64)))
    edge = np.array([*edges, 2.0])
    middles: F8 = 2.0 * edge[:-1] * edge[1:] / (edge[:-1] + edge[1:])
    return middles


MIDDLES: Final = _middles()


@kernel
def value_of(code: Int) -> float:
    """Return the value that stands for a bin: within 1 % of every value in it."""
    if code == 0:
        return 0.0
    place = abs(code) - 1
    bits = np.float64(MIDDLES[place % BINS]).view(np.int64) & _MANTISSA
    value = np.int64(((place // BINS + 1) << 52) | bits).view(np.float64)
    return value if code > 0 else -value


class Pools(NamedTuple):
    """Chunks of exact values and of bins, with their free lists in `counters`.

    exact: float64[n, EXACT_CHUNK], exact_next: int32[n];
    bins: int32[m, BINS], bin_key and bin_next: int32[m]; counters: int64[COUNTERS].
    """

    exact: F8
    exact_next: I4
    bins: I4
    bin_key: I4
    bin_next: I4
    counters: I8


class Scratch(NamedTuple):
    """One dense sketch to merge into; all zero between uses.

    dense: int64[2 * BINADES + 1, BINS]; used: int64[2 * BINADES + 1] keys, unordered;
    seen: int8[2 * BINADES + 1]; exact: float64[EXACT_MAX].
    """

    dense: I8
    used: I8
    seen: npt.NDArray[np.int8]
    exact: F8


@kernel
def _add_bin(
    head: Int, key: Int, place: Int, bins: I4, bin_key: I4, bin_next: I4, counters: I8
) -> Int:
    chunk = head
    while chunk >= 0 and bin_key[chunk] != key:
        chunk = bin_next[chunk]
    if chunk < 0:
        chunk = counters[BIN_FREE]
        counters[BIN_FREE] = bin_next[chunk]
        counters[BIN_LEFT] -= 1
        bin_key[chunk] = key
        bin_next[chunk] = head
        for i in range(BINS):
            bins[chunk, i] = 0
        head = chunk
    bins[chunk, place] += 1
    return head


@kernel
def _to_bins(head: Int, pools: Pools) -> Int:
    """Turn a full chain of exact values into bins; returns the new chain."""
    target = np.int64(NONE)
    while head >= 0:
        for i in range(EXACT_CHUNK):
            key, place = bin_of(pools.exact[head, i])
            target = _add_bin(
                target,
                key,
                place,
                pools.bins,
                pools.bin_key,
                pools.bin_next,
                pools.counters,
            )
        after = np.int64(pools.exact_next[head])
        pools.exact_next[head] = pools.counters[EXACT_FREE]
        pools.counters[EXACT_FREE] = head
        pools.counters[EXACT_LEFT] += 1
        head = after
    return target


@kernel
def add(head: Int, count: Int, value: Any, pools: Pools) -> Int:
    """Add a value to a chain and return its new head; `count` includes the value.

    The caller has made sure that CHUNKS_PER_VALUE chunks of bins and one of values are free.
    """
    if count <= EXACT_MAX:
        place = (count - 1) % EXACT_CHUNK
        if place == 0:
            chunk = pools.counters[EXACT_FREE]
            pools.counters[EXACT_FREE] = pools.exact_next[chunk]
            pools.counters[EXACT_LEFT] -= 1
            pools.exact_next[chunk] = head
            head = chunk
        pools.exact[head, place] = value
        return head
    if count == EXACT_MAX + 1:
        head = _to_bins(head, pools)
    key, place = bin_of(value)
    return _add_bin(
        head, key, place, pools.bins, pools.bin_key, pools.bin_next, pools.counters
    )


@kernel
def release(head: Int, count: Int, pools: Pools) -> None:
    """Give the chunks of a chain of `count` values back."""
    exact = count <= EXACT_MAX
    links = pools.exact_next if exact else pools.bin_next
    free = EXACT_FREE if exact else BIN_FREE
    left = EXACT_LEFT if exact else BIN_LEFT
    while head >= 0:
        after = np.int64(links[head])
        links[head] = pools.counters[free]
        pools.counters[free] = head
        pools.counters[left] += 1
        head = after


@kernel
def _scratch_add(key: Int, place: Int, count: Int, scratch: Scratch, used: Int) -> Int:
    row = key + BINADES
    if scratch.seen[row] == 0:
        scratch.seen[row] = 1
        scratch.used[used] = key
        used += 1
    scratch.dense[row, place] += count
    return used


@kernel
def gather(
    head: Int, count: Int, total: Int, have: Int, pools: Pools, scratch: Scratch
) -> Int:
    """Add one chain of `count` values to the scratch; returns how much it now holds.

    `total` is the number of values of the whole merge. Up to EXACT_MAX the scratch collects
    values (`have` values so far), beyond it bins (`have` binades so far).
    """
    while head >= 0 and count <= EXACT_MAX:
        held = (count - 1) % EXACT_CHUNK + 1
        for i in range(held):
            if total <= EXACT_MAX:
                scratch.exact[have] = pools.exact[head, i]
                have += 1
            else:
                key, place = bin_of(pools.exact[head, i])
                have = _scratch_add(key, place, 1, scratch, have)
        count -= held
        head = np.int64(pools.exact_next[head])
    while head >= 0:
        key = np.int64(pools.bin_key[head])
        for i in range(BINS):
            if pools.bins[head, i] > 0:
                have = _scratch_add(key, i, pools.bins[head, i], scratch, have)
        head = np.int64(pools.bin_next[head])
    return have


@kernel
def _write_exact(words: I8, values: F8, at: Int, total: Int, scratch: Scratch) -> Int:
    if at + 1 + total > words.size:
        return NONE
    kept = scratch.exact
    for i in range(1, total):
        value = kept[i]
        j = i - 1
        # -0.0 before 0.0, so that the bytes do not depend on the order of arrival.
        while j >= 0 and (
            kept[j] > value
            or (kept[j] == value and np.signbit(value) and not np.signbit(kept[j]))
        ):
            kept[j + 1] = kept[j]
            j -= 1
        kept[j + 1] = value
    words[at] = VERSION | (KIND_EXACT << 8) | (total << 32)
    for i in range(total):
        values[at + 1 + i] = kept[i]
    return at + 1 + total


@kernel
def _write_bins(words: I8, halves: I4, at: Int, used: Int, scratch: Scratch) -> Int:
    keys = np.sort(scratch.used[:used])
    entries = 0
    for i in range(used):
        row = keys[i] + BINADES
        for place in range(BINS):
            if scratch.dense[row, place] > 0:
                entries += 1
    counts = at + 1 + (entries + 1) // 2
    end = counts + entries
    fits = end <= words.size
    if fits:
        words[at] = VERSION | (KIND_BINS << 8) | (entries << 32)
        words[counts - 1] = 0
    entry = 0
    for i in range(used):
        row = keys[i] + BINADES
        for step in range(BINS):
            place = step if keys[i] >= 0 else BINS - 1 - step
            count = scratch.dense[row, place]
            scratch.dense[row, place] = 0
            if count > 0 and fits:
                halves[2 * (at + 1) + entry] = code_of(keys[i], place)
                words[counts + entry] = count
                entry += 1
        scratch.seen[row] = 0
    return end if fits else NONE


@kernel
def write(
    words: I8, values: F8, halves: I4, at: Int, total: Int, have: Int, scratch: Scratch
) -> Int:
    """Write what `gather` collected as published words; returns the end, NONE if no room.

    `values` and `halves` are float64 and int32 views of the same memory as `words`.
    The scratch is empty again afterwards, either way.
    """
    if total <= EXACT_MAX:
        return _write_exact(words, values, at, total, scratch)
    return _write_bins(words, halves, at, have, scratch)


@kernel
def quantiles(
    words: I8, values: F8, halves: I4, starts: I8, wanted: F8, out: F8
) -> None:
    """Write the quantiles of every encoded sketch; NaN where a sketch has no words.

    Sketch i is `words[starts[i]:starts[i + 1]]` (int64[n + 1]); `wanted` is float64[q],
    `out` float64[n, q]. The quantile q of n values is the one of rank floor(q * (n - 1)).
    """
    for i in range(starts.size - 1):
        at = starts[i]
        if starts[i + 1] == at:
            out[i, :] = np.nan
            continue
        entries = words[at] >> 32
        if (words[at] >> 8) & 0xFF == KIND_EXACT:
            for q in range(wanted.size):
                out[i, q] = values[at + 1 + np.int64(wanted[q] * (entries - 1))]
            continue
        counts = at + 1 + (entries + 1) // 2
        total = np.int64(0)
        for entry in range(entries):
            total += words[counts + entry]
        for q in range(wanted.size):
            rank = np.int64(wanted[q] * (total - 1))
            entry = 0
            below = words[counts]
            while below <= rank:
                entry += 1
                below += words[counts + entry]
            out[i, q] = value_of(np.int64(halves[2 * (at + 1) + entry]))


@kernel
def load(words: I8, values: F8, halves: I4, at: Int, pools: Pools) -> tuple[Int, bool]:
    """Read one encoded sketch into chunks: (its chain, whether there was room).

    Without room nothing is taken.
    """
    entries = words[at] >> 32
    head = np.int64(NONE)
    if (words[at] >> 8) & 0xFF == KIND_EXACT:
        if pools.counters[EXACT_LEFT] * EXACT_CHUNK < entries:
            return head, False
        for i in range(entries):
            head = add(head, i + 1, values[at + 1 + i], pools)
        return head, True
    if pools.counters[BIN_LEFT] < entries:
        return head, False
    counts = at + 1 + (entries + 1) // 2
    for entry in range(entries):
        code = np.int64(halves[2 * (at + 1) + entry])
        key = np.int64(0)
        place = np.int64(0)
        if code != 0:
            key = (abs(code) - 1) // BINS + 1
            place = (abs(code) - 1) % BINS
            key = key if code > 0 else -key
        head = _add_bin(
            head, key, place, pools.bins, pools.bin_key, pools.bin_next, pools.counters
        )
        # A code occurs once; _add_bin has counted it as one.
        chunk = head
        while pools.bin_key[chunk] != key:
            chunk = np.int64(pools.bin_next[chunk])
        pools.bins[chunk, place] = words[counts + entry]
    return head, True
