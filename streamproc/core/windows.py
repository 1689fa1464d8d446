"""The running windows of one partition: owns the arrays the fold kernel works on.

Growth is by doubling and happens between kernel calls; the kernel stops at the row or window
that lacks room and is resumed there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from streamproc.core.definition import WindowSpec
from streamproc.core.series_table import grown
from streamproc.kernels import sketch
from streamproc.kernels import windows as kernels
from streamproc.kernels.sketch import Pools, Scratch
from streamproc.kernels.windows import NONE, WORDS, Late, Out, Rows, Specs, State

B1 = npt.NDArray[np.bool_]
U1 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

SLOTS_MAX = 4096
"""Panes of one series and spec that may be open at once (512 KiB of cells a series).

More would need `(size + lateness) / gcd(every, size)` above this: a configuration fault.
"""

PARTS_MAX = kernels.PARTS_MAX


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Rows of windows, one per (series, window), in order of their leaving.

    Attributes:
        ints, floats: int64[n, WORDS] and the same memory as float64; columns named in
            `kernels.windows`.
        offset: int64[n], the offset at which each closed.
        words, ends: the encoded sketches, row i's end at `ends[i]` (int64[n]).
    """

    ints: I8
    floats: F8
    offset: I8
    words: I8
    ends: I8

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, order: I8) -> "WindowRows":
        """Return the rows in another order; only for rows whose sketches stay in place."""
        starts = np.concatenate(([0], self.ends))
        sizes = np.diff(starts)[order]
        ends = np.cumsum(sizes)
        where = np.repeat(starts[:-1][order] - (ends - sizes), sizes)
        words = self.words[where + np.arange(int(sizes.sum()))]
        ints = self.ints[order]
        return WindowRows(ints, ints.view(np.float64), self.offset[order], words, ends)


@dataclass(frozen=True, slots=True)
class LateRows:
    """One entry per (late reading, window it missed); `row` indexes the folded rows."""

    row: I4
    spec: I4
    window: I8
    behind_us: I8


def slots_of(spec: WindowSpec) -> int:
    """Return how many panes of one series can be open at once, as a power of two."""
    pane = gcd(spec.every_us, spec.size_us)
    needed = max(1, -(-(spec.size_us + spec.lateness_us) // pane))
    return 1 << (needed - 1).bit_length()


def cell_bytes(specs: Sequence[WindowSpec]) -> int:
    """Return the bytes of window state per series, quantiles not counted."""
    return 8 * WORDS * sum(slots_of(spec) for spec in specs)


def _specs(windows: Sequence[WindowSpec]) -> Specs:
    pane = [gcd(spec.every_us, spec.size_us) for spec in windows]
    slots = [slots_of(spec) for spec in windows]
    for spec, count in zip(windows, slots, strict=True):
        assert count <= SLOTS_MAX, (
            f"window {spec.name}: {count} panes, at most {SLOTS_MAX}"
        )
    fine = np.ones((len(windows), PARTS_MAX + 1), np.int64)
    ratio = np.ones((len(windows), PARTS_MAX + 1), np.int64)
    for q, spec in enumerate(windows):
        panes = spec.size_us // pane[q]
        for parts in range(1, PARTS_MAX + 1):
            common = gcd(parts, panes)
            fine[q, parts], ratio[q, parts] = parts // common, panes // common
    return Specs(
        size=np.array([spec.size_us for spec in windows], np.int64),
        every=np.array([spec.every_us for spec in windows], np.int64),
        lateness=np.array([spec.lateness_us for spec in windows], np.int64),
        pane=np.array(pane, np.int64),
        sketched=np.array([bool(spec.quantiles) for spec in windows], np.int64),
        first=np.array([sum(slots[:q]) for q in range(len(slots))], np.int64),
        mask=np.array(slots, np.int64) - 1,
        fine=fine,
        ratio=ratio,
        slots=np.array([sum(slots)], np.int64),
        late_max=np.array(
            [-(-spec.size_us // spec.every_us) for spec in windows], np.int64
        ),
    )


def _state(cities: int, dedup: int, specs: int, *, by_device: bool) -> State:
    city_us = np.full(cities, NONE, np.int64)
    city_now = np.full(cities, NONE, np.int64)
    ints = np.empty((0, WORDS), np.int64)
    return State(
        ints=ints,
        floats=ints.view(np.float64),
        key=np.empty(0, np.int32),
        city=np.empty(0, np.int32),
        ring_us=np.empty((0, dedup), np.int64),
        ring_value=np.empty((0, dedup), np.float64),
        ring_count=np.empty(0, np.int32),
        ring_next=np.empty(0, np.int32),
        last_us=np.empty(0, np.int64),
        parts=np.empty((0, specs), np.uint8),
        stamp=np.empty(0, np.int64),
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


def _pools(values: int, bins: int) -> Pools:
    return Pools(
        exact=np.empty((values, sketch.EXACT_CHUNK)),
        exact_next=np.empty(values, np.int32),
        bins=np.empty((bins, sketch.BINS), np.int32),
        bin_key=np.empty(bins, np.int32),
        bin_next=np.empty(bins, np.int32),
        counters=np.array([-1, 0, -1, 0], np.int64),
    )


def _scratch(*, sketched: bool) -> Scratch:
    keys = 2 * sketch.BINADES + 1 if sketched else 0
    return Scratch(
        dense=np.zeros((keys, sketch.BINS), np.int64),
        used=np.zeros(keys, np.int64),
        seen=np.zeros(keys, np.int8),
        exact=np.zeros(sketch.EXACT_MAX),
    )


def _out(rows: int, words: int) -> Out:
    ints = np.empty((rows, WORDS), np.int64)
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


def _late(rows: int, cells: int) -> Late:
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


class Windows:
    """Open windows, watermarks and dedup rings, by series and watermark key.

    A key is a city, or with `by_device` a device. Not thread-safe.
    """

    def __init__(
        self,
        windows: Sequence[WindowSpec],
        cities: int,
        dedup: int,
        *,
        by_device: bool,
    ) -> None:
        self.windows = tuple(windows)
        self.by_device = by_device
        self.series_count = 0
        self.key_count = 0
        self.specs = _specs(windows)
        self.state = _state(cities, dedup, len(windows), by_device=by_device)
        self.pools = _pools(0, 0)
        self._scratch = _scratch(sketched=bool(self.specs.sketched.any()))
        self._out = _out(256, 1024)
        self.late = _late(64, 64)
        self._counters = np.zeros(kernels.COUNTERS, np.int64)
        if not by_device:
            self.add_keys(cities)

    # --- growth -----------------------------------------------------------------------

    def add_keys(self, new: int) -> None:
        """Make room for `new` further watermark keys, without a watermark yet."""
        count, size = self.key_count, self.key_count + new
        specs, slots = len(self.windows), int(self.specs.slots[0])
        state = self.state
        changes: dict[str, Any] = {
            "key_cells": grown(state.key_cells, size, count, 0),
            "closed": grown(state.closed, size * specs, count * specs, NONE),
            "next_close": grown(state.next_close, size * specs, count * specs, NONE),
            "bucket_head": grown(state.bucket_head, size * slots, count * slots, -1),
            "bucket_count": grown(state.bucket_count, size * slots, count * slots, 0),
            "bucket_pane": grown(state.bucket_pane, size * slots, count * slots, NONE),
        }
        if self.by_device:
            changes["key_us"] = grown(state.key_us, size, count, NONE)
            changes["key_now"] = grown(state.key_now, size, count, NONE)
        self.state = state._replace(**changes)
        self.key_count = size

    def add_series(self, key: I4, city: I4, parts: U1) -> None:
        """Make room for further series: their keys and cities (int32[n]), parts uint8[n, q]."""
        count, size = self.series_count, self.series_count + len(key)
        slots, state = int(self.specs.slots[0]), self.state
        ints = grown(state.ints, size * slots, count * slots, None)
        ints[count * slots : size * slots, kernels.PANE] = NONE
        self.state = state = state._replace(
            ints=ints,
            floats=ints.view(np.float64),
            key=grown(state.key, size, count, None),
            city=grown(state.city, size, count, None),
            ring_us=grown(state.ring_us, size, count, None),
            ring_value=grown(state.ring_value, size, count, None),
            ring_count=grown(state.ring_count, size, count, 0),
            ring_next=grown(state.ring_next, size, count, 0),
            last_us=grown(state.last_us, size, count, NONE),
            parts=grown(state.parts, size, count, None),
            stamp=grown(state.stamp, size, count, 0),
        )
        state.key[count:size] = key
        state.city[count:size] = city
        state.parts[count:size] = parts
        self.series_count = size

    def _grow_pools(self, values_min: int, bins_min: int) -> None:
        """Have at least so many chunks free; only what is short doubles."""
        old = self.pools
        values, bins = len(old.exact), len(old.bins)
        if old.counters[sketch.EXACT_LEFT] < values_min:
            values = _more(values, values + values_min)
        if old.counters[sketch.BIN_LEFT] < bins_min:
            bins = _more(bins, bins + bins_min)
        new = _pools(values, bins)
        for name in ("exact", "exact_next", "bins", "bin_key", "bin_next"):
            kept = getattr(old, name)
            getattr(new, name)[: len(kept)] = kept
        new.counters[:] = old.counters
        for links, was, free, left in (
            (new.exact_next, len(old.exact), sketch.EXACT_FREE, sketch.EXACT_LEFT),
            (new.bin_next, len(old.bins), sketch.BIN_FREE, sketch.BIN_LEFT),
        ):
            if len(links) > was:
                links[was:] = np.arange(was + 1, len(links) + 1)
                links[-1] = new.counters[free]
                new.counters[free] = was
                new.counters[left] += len(links) - was
        self.pools = new

    def _grow_out(self) -> None:
        """Double the output, keeping what was written."""
        old = self._out
        new = _out(2 * len(old.offset), 2 * len(old.words))
        rows, words = int(self._counters[0]), int(self._counters[1])
        new.ints[:rows] = old.ints[:rows]
        new.offset[:rows] = old.offset[:rows]
        new.ends[:rows] = old.ends[:rows]
        new.words[:words] = old.words[:words]
        self._out = new

    def _grow_late(self, cells: int = 0) -> None:
        old, need = self.late, int(self.specs.late_max.sum())
        rows = _more(len(old.row), need)
        new = _late(rows, _more(len(old.ints), max(need, cells)))
        count = int(self._counters[kernels.LATE_ROWS])
        for name in ("row", "spec", "window", "behind"):
            getattr(new, name)[:count] = getattr(old, name)[:count]
        kept = self.late_cells
        new.ints[:kept] = old.ints[:kept]
        kernels.rehash_late(new, kept)
        self.late = new

    # --- folding ----------------------------------------------------------------------

    def fold(self, rows: Rows, now_us: int) -> tuple[WindowRows, LateRows]:
        """Fold accepted rows; fills their flags, `valid` and `city_us`.

        Returns the windows that closed on the way and the late rows.
        """
        self._counters[kernels.OUT_ROWS] = 0
        self._counters[kernels.OUT_WORDS] = 0
        self._counters[kernels.LATE_ROWS] = 0
        row = 0
        while True:
            row = kernels.fold(
                row,
                now_us,
                rows,
                self.state,
                self.specs,
                self.pools,
                self._scratch,
                self._out,
                self.late,
                self._counters,
            )
            status = self._counters[kernels.STATUS]
            if status == kernels.DONE:
                break
            if status == kernels.NEED_OUT:
                self._grow_out()
            elif status == kernels.NEED_LATE:
                self._grow_late()
            else:
                need = int((self.specs.sketched * (self.specs.late_max + 1)).sum())
                self._grow_pools(need, need * sketch.CHUNKS_PER_VALUE)
        n = int(self._counters[kernels.LATE_ROWS])
        late = self.late
        return self._rows(), LateRows(
            late.row[:n].copy(),
            late.spec[:n].copy(),
            late.window[:n].copy(),
            late.behind[:n].copy(),
        )

    def _rows(self) -> WindowRows:
        n = int(self._counters[kernels.OUT_ROWS])
        words = int(self._counters[kernels.OUT_WORDS])
        ints = self._out.ints[:n].copy()
        return WindowRows(
            ints,
            ints.view(np.float64),
            self._out.offset[:n].copy(),
            self._out.words[:words].copy(),
            self._out.ends[:n].copy(),
        )

    def close(self, keys: I8, offset: int) -> WindowRows:
        """Close all windows with data of `keys`, in order of (end, spec, series)."""
        self._counters[kernels.OUT_ROWS] = 0
        self._counters[kernels.OUT_WORDS] = 0
        while not kernels.close_keys(
            keys,
            offset,
            self.state,
            self.specs,
            self.pools,
            self._scratch,
            self._out,
            self._counters,
        ):
            self._grow_out()
        return self._in_order(self._rows())

    def evict(self, wanted: B1, offset: int) -> WindowRows:
        """Return the open windows of (series, spec) in `wanted`, without closing them."""
        while not kernels.evict(
            wanted,
            offset,
            self.state,
            self.specs,
            self.pools,
            self._scratch,
            self._out,
            self._counters,
        ):
            self._grow_out()
        return self._in_order(self._rows())

    def _in_order(self, rows: WindowRows) -> WindowRows:
        spec = rows.ints[:, kernels.SPEC]
        end = (
            rows.ints[:, kernels.WINDOW] * self.specs.every[spec]
            + self.specs.size[spec]
        )
        return rows.take(np.lexsort((rows.ints[:, kernels.SERIES], spec, end)))

    # --- late parts -------------------------------------------------------------------

    @property
    def late_cells(self) -> int:
        """Return how many (series, window) were missed since the last cut."""
        return int(self._counters[kernels.LATE_CELLS])

    def late_rows(self) -> WindowRows:
        """Return the late parts so far, in order of their first late reading."""
        n = self.late_cells
        words, ends = self.sketches(self.late.ints, np.arange(n))
        ints = self.late.ints[:n].copy()
        return WindowRows(
            ints, ints.view(np.float64), np.zeros(n, np.int64), words, ends
        )

    def clear_late(self) -> None:
        """Forget the late parts."""
        kernels.release_chains(self.late.ints, self.late_cells, self.pools)
        self.late.table[:] = 0
        self._counters[kernels.LATE_CELLS] = 0

    def restore_late(self, ints: I8) -> None:
        """Put late cells back, their sketches still missing."""
        self._counters[kernels.LATE_ROWS] = 0
        if len(ints) > len(self.late.ints):
            self._grow_late(len(ints))
        self.late.ints[: len(ints)] = ints
        self._counters[kernels.LATE_CELLS] = len(ints)
        kernels.rehash_late(self.late, len(ints))

    def load_sketches(self, ints: I8, cells: I8, words: I8, ends: I8) -> None:
        """Read the sketches of single cells back: the inverse of `sketches`."""
        done = 0
        while True:
            done = kernels.load_chains(
                done,
                ints,
                cells,
                words,
                words.view(np.float64),
                words.view(np.int32),
                ends,
                self.pools,
            )
            if done == len(cells):
                return
            size = int(ends[done] - (ends[done - 1] if done else 0))
            self._grow_pools(sketch.EXACT_MAX, size)

    # --- what is open -----------------------------------------------------------------

    def sketches(self, ints: I8, cells: I8) -> tuple[I8, I8]:
        """Encode the sketches of single cells: (words, where each one ends)."""
        while not kernels.encode_chains(
            ints, cells, self.pools, self._scratch, self._out, self._counters
        ):
            self._counters[:2] = 0
            self._grow_out()
        words = int(self._counters[kernels.OUT_WORDS])
        return self._out.words[:words].copy(), self._out.ends[: len(cells)].copy()

    def open_cells(self) -> I8:
        """Return the occupied cells, ordered by (spec, series, pane)."""
        slots = int(self.specs.slots[0])
        pane = self.state.ints[: self.series_count * slots, kernels.PANE]
        cells = np.flatnonzero(pane != NONE)
        spec = self.spec_of_slot()[cells % slots]
        return cells[np.lexsort((pane[cells], cells // slots, spec))]

    def spec_of_slot(self) -> I8:
        """Return which spec owns each slot."""
        return np.repeat(np.arange(len(self.windows)), self.specs.mask + 1)

    def open_counts(self) -> dict[str, int]:
        """Return how many (series, pane) hold data, by window name."""
        slots = int(self.specs.slots[0])
        counts = self.state.bucket_count[: self.key_count * slots]
        by_slot = counts.reshape(self.key_count, slots).sum(axis=0)
        firsts = self.specs.first
        return {
            spec.name: int(
                by_slot[firsts[q] : firsts[q] + self.specs.mask[q] + 1].sum()
            )
            for q, spec in enumerate(self.windows)
        }

    def last_ends(self, keys: I8) -> I8:
        """Return the end of the last window with data of each key (int64[n]); NONE without."""
        ends = np.full(len(keys), NONE, np.int64)
        slots, state, specs = int(self.specs.slots[0]), self.state, self.specs
        count = state.bucket_count[: self.key_count * slots].reshape(
            self.key_count, slots
        )
        pane = state.bucket_pane[: self.key_count * slots].reshape(
            self.key_count, slots
        )
        for slot, q in enumerate(self.spec_of_slot()):
            last = pane[keys, slot] * specs.pane[q] // specs.every[q]
            end = last * specs.every[q] + specs.size[q]
            ends = np.where(count[keys, slot] > 0, np.maximum(ends, end), ends)
        return ends

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays, room for growth included."""
        groups = (self.state, self.pools, self._scratch, self._out, self.late)
        # Float views share the memory of the arrays they are views of.
        owners = {id(a): a.nbytes for group in groups for a in group if a.base is None}
        return sum(owners.values())
