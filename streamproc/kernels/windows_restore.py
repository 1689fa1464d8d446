"""Single cells out of the running state and back: what a snapshot needs beyond plain arrays.

Theory of operation
-------------------
A cell is written as its words, except for what is only an address here: the chunks of its sketch,
which leave encoded, and its place in the chain of its pane, which is rebuilt.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

import numpy as np

from streamproc.kernels import sketch_chains as chains
from streamproc.kernels._jit import kernel
from streamproc.kernels.sketch import Int, Scratch
from streamproc.kernels.sketch_chains import Pools
from streamproc.kernels.windows_layout import (
    CHAIN,
    COUNT,
    F8,
    I4,
    I8,
    KEY,
    NEXT,
    OUT_WORDS,
    PANE,
    Out,
    Specs,
    State,
)


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
        chain = ints[cells[i], CHAIN]
        count = ints[cells[i], COUNT]
        if chain != chains.EMPTY:
            at = chains.write_chain(
                out.words,
                out.word_floats,
                out.word_halves,
                at,
                count,
                chain,
                pools,
                scratch,
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
            chain, fits = chains.load(words, values, halves, start, pools)
            if not fits:
                return i
            ints[cells[i], CHAIN] = chain
    return cells.size


@kernel
def link_cells(cells: I8, state: State, specs: Specs) -> None:
    """Enter restored cells (int64[n], ascending by series within a pane) into their chains."""
    slots = specs.slots[0]
    for cell in cells:
        series = cell // slots
        bucket = state.line[series, KEY] * slots + cell % slots
        state.ints[cell, NEXT] = state.bucket_head[bucket]
        state.bucket_head[bucket] = series
        state.bucket_count[bucket] += 1
        state.bucket_pane[bucket] = state.ints[cell, PANE]
        state.key_cells[state.line[series, KEY]] += 1
