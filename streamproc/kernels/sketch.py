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

How the running state holds sketches is `sketch_chains`.
"""

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

Int: TypeAlias = Any
"""A kernel's int64: an int outside, an np.int64 inside; one type to numba, two to mypy."""

I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

EXACT_MAX: Final = 32
BINS: Final = 35
BINADES: Final = 2046
VERSION: Final = 1
KIND_EXACT: Final = 0
KIND_BINS: Final = 1
NONE: Final = -1

FEW_KEYS: Final = 64
"""Up to so many are sorted by insertion."""

_MANTISSA: Final = (1 << 52) - 1
_ONE: Final = 1023 << 52


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


class Scratch(NamedTuple):
    """One dense sketch to merge into; all zero between uses.

    dense: int64[2 * BINADES + 1, BINS]; used: int64[2 * BINADES + 1] keys, unordered;
    seen: int8[2 * BINADES + 1]; exact: float64[EXACT_MAX].
    """

    dense: I8
    used: I8
    seen: I1
    exact: F8


@kernel
def write_values(words: I8, values: F8, at: Int, total: Int, kept: F8) -> Int:
    """Write `total` gathered values as published words; returns the end, NONE if no room.

    `values` is a view of the same memory as `words`. Leaves `kept` sorted.
    """
    if at + 1 + total > words.size:
        return NONE
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
def _sort(keys: I8, count: Int) -> None:
    """Sort the first `count` keys: nearly always few."""
    if count > FEW_KEYS:
        keys[:count] = np.sort(keys[:count])
        return
    for i in range(1, count):
        key = keys[i]
        j = i - 1
        while j >= 0 and keys[j] > key:
            keys[j + 1] = keys[j]
            j -= 1
        keys[j + 1] = key


@kernel
def write_bins(words: I8, halves: I4, at: Int, used: Int, scratch: Scratch) -> Int:
    """Write the `used` gathered binades as published words; returns the end, NONE if no room.

    `halves` is an int32 view of the same memory as `words`. The scratch is empty again
    afterwards, either way.
    """
    dense = scratch.dense
    seen = scratch.seen
    keys = scratch.used
    _sort(keys, used)
    entries: Int = np.int64(0)
    for i in range(used):
        row = keys[i] + BINADES
        for place in range(BINS):
            entries += np.int64(dense[row, place] > 0)
    counts = at + 1 + (entries + 1) // 2
    end = counts + entries
    fits = end <= words.size
    if fits:
        words[at] = VERSION | (KIND_BINS << 8) | (entries << 32)
        words[counts - 1] = 0
    entry = 0
    for i in range(used):
        key = keys[i]
        row = key + BINADES
        for step in range(BINS):
            place = step if key >= 0 else BINS - 1 - step
            count = dense[row, place]
            dense[row, place] = 0
            if count > 0 and fits:
                halves[2 * (at + 1) + entry] = code_of(key, place)
                words[counts + entry] = count
                entry += 1
        seen[row] = 0
    return end if fits else NONE


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
