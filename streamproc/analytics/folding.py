"""Folding runs of rows into one row each, column by column, in the order of the rows.

Everything is deterministic: floats are added in row order, whatever the machine. A step
works on the k-th row of every run at once, so there are as many steps as the longest run
has rows, and the cost follows the rows. NaN stands for null.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Runs:
    """Neighbouring rows that become one: rows `[starts[i], starts[i] + sizes[i])`.

    Attributes:
        starts: int64[g], g > 0, ascending from 0; the runs cover every row.
        sizes: int64[g], all positive.
    """

    starts: I8
    sizes: I8

    @classmethod
    def of(cls, labels: npt.NDArray[Any]) -> "Runs":
        """Return the runs of equal neighbours; `labels` is not empty."""
        changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
        starts = np.concatenate(([0], changes)).astype(np.int64)
        return cls(starts, np.diff(starts, append=len(labels)).astype(np.int64))

    def steps(self) -> Iterator[tuple[I8, I8]]:
        """Yield (runs, rows) for each run's second row, where it has one, then for the third."""
        runs = np.flatnonzero(self.sizes > 1)
        nth = 1
        while len(runs):
            yield runs, self.starts[runs] + nth
            nth += 1
            runs = runs[self.sizes[runs] > nth]


def total(values: F8, runs: Runs) -> F8:
    """Add each run's values, first to last."""
    result = values[runs.starts].astype(np.float64)
    for here, rows in runs.steps():
        result[here] += values[rows]
    return result


def moments(count: I8, mean: F8, m2: F8, runs: Runs) -> tuple[F8, F8]:
    """Merge means and squared deviations (Chan, Golub, LeVeque 1979, eq. 2.1).

    Rows with count 0 change nothing, whatever their mean; a run of such rows has mean 0.
    """
    n = count[runs.starts].astype(np.float64)
    merged = np.where(n > 0, mean[runs.starts], 0.0)
    spread = m2[runs.starts].astype(np.float64)
    for runs_here, rows_here in runs.steps():
        some = count[rows_here] > 0
        here, rows = runs_here[some], rows_here[some]
        more = count[rows].astype(np.float64)
        both = n[here] + more
        delta = mean[rows] - merged[here]
        spread[here] += m2[rows] + delta * delta * (n[here] * more / both)
        # The first rows that count are taken over as they are: rounding starts with two.
        merged[here] = np.where(
            n[here] > 0, merged[here] + delta * (more / both), mean[rows]
        )
        n[here] = both
    return merged, spread


def earliest(times: I8, present: B1, runs: Runs) -> I8:
    """Return each run's row with the least time, the first of several; -1 for none."""
    return _first_at(
        np.minimum, np.where(present, times, np.iinfo(np.int64).max), present, runs
    )


def latest(times: I8, present: B1, runs: Runs) -> I8:
    """Return each run's row with the greatest time, the last of several; -1 for none."""
    rows = len(times)
    backwards = Runs(
        (rows - runs.starts - runs.sizes)[::-1].copy(), runs.sizes[::-1].copy()
    )
    flipped = np.where(present, times, np.iinfo(np.int64).min)[::-1]
    found = _first_at(np.maximum, flipped, present[::-1], backwards)[::-1]
    return np.where(found < 0, -1, rows - 1 - found)


def _first_at(extreme: np.ufunc, times: I8, present: B1, runs: Runs) -> I8:
    """Return each run's first present row that has the run's extreme time."""
    best = np.repeat(extreme.reduceat(times, runs.starts), runs.sizes)
    row = np.arange(len(times), dtype=np.int64)
    nowhere = np.int64(len(times))
    chosen = np.where(present & (times == best), row, nowhere)
    first = np.minimum.reduceat(chosen, runs.starts)
    return np.where(first == nowhere, -1, first)
