"""The running windows of one partition: owns the arrays the fold kernel works on.

A kernel stops at the row or window that lacks room; the store grows what was short and resumes
it there, so how large the arrays are never changes a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamproc.core import window_buffers as buffers
from streamproc.core.definition import WindowSpec
from streamproc.core.panes import specs_of
from streamproc.kernels import sketch, windows_close, windows_fold
from streamproc.kernels import windows_layout as layout
from streamproc.kernels.sketch_chains import CHUNKS_PER_VALUE
from streamproc.kernels.windows_late import rehash_late, release_chains
from streamproc.kernels.windows_layout import NONE, Rows
from streamproc.kernels.windows_restore import encode_chains, load_chains

B1 = npt.NDArray[np.bool_]
U1 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]


OUT_ROWS_KEPT = 1 << 14
"""Rows of closed windows for which the store keeps room; those of a larger close are given away."""


@dataclass(frozen=True, slots=True)
class WindowRows:
    """Rows of windows, one per (series, window), in order of their leaving.

    Attributes:
        ints, floats: int64[WORDS, n] and the same memory as float64; rows named in
            `kernels.windows_layout`.
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
        ints = self.ints[:, order]
        return WindowRows(ints, ints.view(np.float64), self.offset[order], words, ends)


@dataclass(frozen=True, slots=True)
class LateRows:
    """One entry per (late reading, window it missed); `row` indexes the folded rows."""

    row: I4
    spec: I4
    window: I8
    behind_us: I8


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
        self.specs = specs_of(windows)
        self.state = buffers.new_state(cities, dedup, len(windows), by_device=by_device)
        self.pools = buffers.new_pools(0, 0)
        self._scratch = buffers.new_scratch(sketched=bool(self.specs.sketched.any()))
        self._out = buffers.new_out(256, 1024)
        self._words_expected = 0
        self.late = buffers.new_late(64, 64)
        self._counters = np.zeros(layout.COUNTERS, np.int64)
        if not by_device:
            self.add_keys(cities)

    # --- growth -----------------------------------------------------------------------

    def add_keys(self, new: int) -> None:
        """Make room for `new` further watermark keys, without a watermark yet."""
        count, size = self.key_count, self.key_count + new
        self.state = buffers.with_keys(
            self.state, count, size, self.specs, by_device=self.by_device
        )
        self.key_count = size

    def add_series(self, key: I4, city: I4, parts: U1) -> None:
        """Make room for further series: their keys and cities (int32[n]), parts uint8[n, q]."""
        count, size = self.series_count, self.series_count + len(key)
        slots = int(self.specs.slots[0])
        self.state = buffers.with_series(self.state, count, size, slots)
        self.state.line[count:size, layout.KEY] = key
        self.state.line[count:size, layout.CITY] = city
        self.state.parts[count:size] = parts
        self.series_count = size
        self.state.series_count[0] = size

    def _grow_pools(self, values_min: int, bins_min: int) -> None:
        self.pools = buffers.grown_pools(self.pools, values_min, bins_min)

    def _grow_out(self) -> None:
        rows = int(self._counters[layout.OUT_ROWS])
        words = int(self._counters[layout.OUT_WORDS])
        wanted = int(self._counters[layout.ROWS_WANTED])
        expected = self._words_expected
        self._out = buffers.grown_out(self._out, rows, words, wanted, expected)

    def _grow_late(self, cells: int = 0) -> None:
        need = int(self.specs.late_max.sum())
        rows = int(self._counters[layout.LATE_ROWS])
        room = (need, max(need, cells))
        self.late = buffers.grown_late(self.late, rows, self.late_cells, room)

    # --- folding ----------------------------------------------------------------------

    def fold(self, rows: Rows, now_us: int) -> tuple[WindowRows, LateRows]:
        """Fold accepted rows; fills their flags, `valid` and `city_us`.

        Returns the windows that closed on the way and the late rows.
        """
        self._counters[layout.OUT_ROWS] = 0
        self._counters[layout.OUT_WORDS] = 0
        self._counters[layout.LATE_ROWS] = 0
        row = 0
        while True:
            row = windows_fold.fold(
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
            status = self._counters[layout.STATUS]
            if status == layout.DONE:
                break
            if status == layout.NEED_OUT:
                self._grow_out()
            elif status == layout.NEED_LATE:
                self._grow_late()
            else:
                need = int((self.specs.sketched * (self.specs.late_max + 1)).sum())
                self._grow_pools(need, need * CHUNKS_PER_VALUE)
        n = int(self._counters[layout.LATE_ROWS])
        late = self.late
        return self._rows(), LateRows(
            late.row[:n].copy(),
            late.spec[:n].copy(),
            late.window[:n].copy(),
            late.behind[:n].copy(),
        )

    def _rows(self) -> WindowRows:
        n = int(self._counters[layout.OUT_ROWS])
        words = int(self._counters[layout.OUT_WORDS])
        if n > OUT_ROWS_KEPT:
            # Too much to copy, and to hold on to until the next such close.
            out, self._out = self._out, buffers.new_out(256, 1024)
            # The next such close finds room at once: what lacks it is done again.
            self._words_expected = words + words // 8
            return WindowRows(
                out.ints[:, :n],
                out.floats[:, :n],
                out.offset[:n],
                out.words[:words],
                out.ends[:n],
            )
        ints = self._out.ints[:, :n].copy()
        return WindowRows(
            ints,
            ints.view(np.float64),
            self._out.offset[:n].copy(),
            self._out.words[:words].copy(),
            self._out.ends[:n].copy(),
        )

    def close(self, keys: I8, offset: int) -> WindowRows:
        """Close all windows with data of `keys`, in order of (end, spec, series)."""
        self._counters[layout.OUT_ROWS] = 0
        self._counters[layout.OUT_WORDS] = 0
        while not windows_close.close_keys(
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
        while not windows_close.evict(
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
        spec = rows.ints[layout.SPEC]
        end = rows.ints[layout.WINDOW] * self.specs.every[spec] + self.specs.size[spec]
        return rows.take(np.lexsort((rows.ints[layout.SERIES], spec, end)))

    # --- late parts -------------------------------------------------------------------

    @property
    def late_cells(self) -> int:
        """Return how many (series, window) were missed since the last cut."""
        return int(self._counters[layout.LATE_CELLS])

    def late_rows(self) -> WindowRows:
        """Return the late parts so far, in order of their first late reading."""
        n = self.late_cells
        words, ends = self.sketches(self.late.ints, np.arange(n))
        ints = np.ascontiguousarray(self.late.ints[:n].T)
        return WindowRows(
            ints, ints.view(np.float64), np.zeros(n, np.int64), words, ends
        )

    def clear_late(self) -> None:
        """Forget the late parts."""
        release_chains(self.late.ints, self.late_cells, self.pools)
        self.late.table[:] = 0
        self._counters[layout.LATE_CELLS] = 0

    def restore_late(self, ints: I8) -> None:
        """Put late cells back, their sketches still missing."""
        self._counters[layout.LATE_ROWS] = 0
        if len(ints) > len(self.late.ints):
            self._grow_late(len(ints))
        self.late.ints[: len(ints)] = ints
        self._counters[layout.LATE_CELLS] = len(ints)
        rehash_late(self.late, len(ints))

    def load_sketches(self, ints: I8, cells: I8, words: I8, ends: I8) -> None:
        """Read the sketches of single cells back: the inverse of `sketches`."""
        done = 0
        while True:
            done = load_chains(
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
        self._counters[layout.ROWS_WANTED] = len(cells)
        while not encode_chains(
            ints, cells, self.pools, self._scratch, self._out, self._counters
        ):
            self._counters[:2] = 0
            self._grow_out()
        words = int(self._counters[layout.OUT_WORDS])
        return self._out.words[:words].copy(), self._out.ends[: len(cells)].copy()

    def open_cells(self) -> I8:
        """Return the occupied cells, ordered by (spec, series, pane)."""
        slots = int(self.specs.slots[0])
        pane = self.state.ints[: self.series_count * slots, layout.PANE]
        cells = np.flatnonzero(pane != NONE)
        bucket = self.state.line[cells // slots, layout.KEY] * slots + cells % slots
        counted = self.state.bucket_count[bucket] > 0
        cells = cells[counted & (self.state.bucket_pane[bucket] == pane[cells])]
        spec = self.spec_of_slot()[cells % slots]
        ordered: I8 = cells[np.lexsort((pane[cells], cells // slots, spec))]
        return ordered

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
        owners = {a.ctypes.data: a.nbytes for group in groups for a in group}
        return sum(owners.values())
