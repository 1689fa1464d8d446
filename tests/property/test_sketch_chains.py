"""Sketches of the running state: whatever the order of work, what leaves is `sketch.encode`."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from streamproc.core import sketch
from streamproc.core.window_buffers import grown_pools, new_pools, new_scratch
from streamproc.kernels import sketch_chains as chains
from streamproc.kernels.sketch_chains import Pools

CELLS = 3
ROOM = 1 << 12


def many(count: int, seed: int) -> list[float]:
    """Return values that fill several binades, of both signs."""
    return np.random.default_rng(seed).normal(0.0, 30.0, count).tolist()  # type: ignore[no-any-return]


few = st.lists(
    st.one_of(
        st.floats(1.0, 100.0),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, -0.0, 1.0]),
    ),
    min_size=1,
    max_size=40,
)
values = st.one_of(few, st.builds(many, st.integers(20, 90), st.integers(0, 2**32)))
actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, CELLS - 1), values),
        st.tuples(st.just("reload"), st.integers(0, CELLS - 1), st.just([])),
        st.tuples(st.just("release"), st.integers(0, CELLS - 1), st.just([])),
    ),
    max_size=25,
)


@dataclass
class Cells:
    """Some chains in one pair of pools, and the values that each should stand for."""

    pools: Pools = field(default_factory=lambda: new_pools(0, 0))
    chain: list[int] = field(default_factory=lambda: [chains.EMPTY] * CELLS)
    held: list[list[float]] = field(default_factory=lambda: [[] for _ in range(CELLS)])

    def make_room(self) -> None:
        self.pools = grown_pools(self.pools, chains.CHUNKS_PER_VALUE, ROOM)

    def add(self, cell: int, added: list[float]) -> None:
        for value in added:
            self.make_room()
            self.chain[cell] = chains.add(self.chain[cell], value, self.pools)
            self.held[cell].append(value)

    def encoded(self, cell: int) -> bytes:
        words = np.zeros(ROOM, np.int64)
        end = chains.write_chain(
            words,
            words.view(np.float64),
            words.view(np.int32),
            0,
            len(self.held[cell]),
            self.chain[cell],
            self.pools,
            new_scratch(sketched=True),
        )
        return words[:end].tobytes()

    def reload(self, cell: int) -> None:
        """Write the chain as a snapshot does, and read it back."""
        if not self.held[cell]:
            return
        words = np.frombuffer(self.encoded(cell), np.int64).copy()
        chains.release(self.chain[cell], self.pools)
        self.make_room()
        self.chain[cell], fits = chains.load(
            words, words.view(np.float64), words.view(np.int32), 0, self.pools
        )
        assert fits

    def release(self, cell: int) -> None:
        chains.release(self.chain[cell], self.pools)
        self.chain[cell] = chains.EMPTY
        self.held[cell] = []


def after(acts: list[tuple[str, int, list[float]]]) -> Cells:
    """Return cells to which all that was done."""
    cells = Cells()
    for act, cell, added in acts:
        if act == "add":
            cells.add(cell, added)
        else:
            getattr(cells, act)(cell)
    return cells


@given(actions)
def test_a_chain_leaves_as_the_encoding_of_its_values(
    acts: list[tuple[str, int, list[float]]],
) -> None:
    cells = after(acts)

    for cell in range(CELLS):
        if cells.held[cell]:
            assert cells.encoded(cell) == sketch.encode(np.array(cells.held[cell]))


@given(actions)
def test_released_chains_leave_every_chunk_free(
    acts: list[tuple[str, int, list[float]]],
) -> None:
    cells = after(acts)
    for cell in range(CELLS):
        cells.release(cell)

    pools = cells.pools
    assert pools.counters[chains.EXACT_LEFT] == len(pools.exact)
    assert pools.counters[chains.BIN_LEFT] == len(pools.bins)
    assert _walked(pools.exact_next, pools.counters[chains.EXACT_FREE]) == len(
        pools.exact
    )
    links = pools.bins[:, chains.BIN_NEXT]
    assert _walked(links, pools.counters[chains.BIN_FREE]) == len(pools.bins)


def _walked(links: np.ndarray, head: int) -> int:
    """Return how many different chunks a free list holds."""
    seen: set[int] = set()
    while 0 <= head < len(links) and head not in seen:
        seen.add(int(head))
        head = int(links[head])
    return len(seen)
