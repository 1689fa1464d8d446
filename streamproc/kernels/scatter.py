"""Splitting rows into groups and giving each group dictionaries of its own.

Used by the Parquet writer: rows are labelled with the file they belong to, placed so that
each file's rows lie together in their old order, and dictionary codes are renumbered so
that a file carries no name it does not use. One pass each; nothing here allocates.
"""

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Column = npt.NDArray[np.int8] | npt.NDArray[np.int16] | I4 | I8

FULL = -1
"""`label` has met more groups than it was given room for."""

# `constant` looks at so many rows before it decides: short enough to give up early, long
# enough for vector instructions.
_STRIDE = 1024
# 2^64 / golden ratio, odd: spreads consecutive dates over the table (Knuth, TAOCP 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@kernel
def constant(column: Column) -> bool:
    """Tell whether all of a column that is not empty is the same."""
    first = column[0]
    for start in range(1, column.size, _STRIDE):
        different = False
        for row in range(start, min(start + _STRIDE, column.size)):
            different |= column[row] != first
        if different:
            return False
    return True


@kernel
def label(  # noqa: PLR0917  (arrays of a flat loop)
    major: I4, minor: I4, table: I4, keys: I8, counts: I8, known: int, groups: I4
) -> int:
    """Number the distinct pairs (major, minor) in order of first appearance.

    Args:
        major: int32[n], the upper half of each row's key; any values.
        minor: int32[n], the lower half; any values.
        table: int32[2**k], filled with -1, at least twice as long as `keys`; kept for the
            next call.
        keys: int64[g]; out: `major << 32 | minor as unsigned`, by group.
        counts: int64[g], zeros; out: rows by group.
        known: how many groups the calls before have met, with the same `table`, `keys` and
            `counts`; 0 for the first.
        groups: int32[n]; out: each row's group.

    Returns:
        The number of groups met so far, or `FULL` if there are more than `len(keys)`.
    """
    mask = table.size - 1
    last_key = np.int64(0)
    last_group = -1
    for row in range(major.size):
        key = (np.int64(major[row]) << np.int64(32)) | (
            np.int64(minor[row]) & np.int64(0xFFFFFFFF)
        )
        if last_group >= 0 and key == last_key:
            groups[row] = last_group
            counts[last_group] += 1
            continue
        slot = np.int64((np.uint64(key) * _SPREAD) >> np.uint64(32)) & mask
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & mask
        group = table[slot]
        if group < 0:
            if known == keys.size:
                return FULL
            group = known
            table[slot] = group
            keys[group] = key
            known += 1
        groups[row] = group
        counts[group] += 1
        last_key = key
        last_group = group
    return known


@kernel
def destinations(groups: I4, cursor: I8, target: I8) -> None:
    """Give each row the next free place of its group: a stable counting sort.

    Args:
        groups: int32[n], all in `[0, len(cursor))`.
        cursor: int64[g], each group's next free place; moved on.
        target: int64[n]; out: the row's place.
    """
    for row in range(groups.size):
        group = groups[row]
        target[row] = cursor[group]
        cursor[group] += 1


@kernel
def place(target: I8, column: Column, out: Column) -> None:
    """Write each row to its place: `out[target[row]] = column[row]`."""
    for row in range(column.size):
        out[target[row]] = column[row]


@kernel
def compact(codes: I4, local: I4, used: I4, known: int, out: I4) -> int:
    """Renumber codes in order of first appearance, so that only used names remain.

    Args:
        codes: int32[n], all in `[0, len(local))`.
        local: int32[d], -1 for every code not met yet; kept for the next call.
        used: int32[≥ codes met at the end]; out: the old code of each new one.
        known: how many codes the calls before have met; 0 for the first.
        out: int32[n]; out: the new codes; may be `codes` itself.

    Returns:
        How many codes have been met.
    """
    for row in range(codes.size):
        code = codes[row]
        new = local[code]
        if new < 0:
            new = known
            local[code] = new
            used[new] = code
            known += 1
        out[row] = new
    return known
