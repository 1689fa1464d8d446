"""Merge of sorted inputs by event time, a chunk of each in memory.

Theory of operation
-------------------
Rows are ordered by (event time, input, row). Every open input holds one chunk of times,
ascending, with its rows. The *frontier* is the time up to which nothing that is not yet
loaded can come first: the smallest last time among the inputs that have more. Rows up to
it are cut off every chunk, put one behind the other in input order, and sorted by a stable
sort of their times; inputs are already sorted, so that is a merge of runs.

At the frontier itself the input that sets it, the first one in order, may go on with the
same time. So inputs behind it hold their rows of that very time back until it has moved on.

Inputs are opened when the frontier reaches their first time and closed with their last
chunk: a year of daily files holds a day's files open.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.connectors.files.untyped import arrow
from streamproc.errors import InputError

I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one input with their times: int64[n], ascending."""

    times: I8
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Sorted:
    """One input of a merge.

    Attributes:
        name: for messages.
        first_us: no row is earlier.
        rows: how many rows `open` yields; further ones are left alone.
        open: starts reading; each chunk follows the one before in time.
    """

    name: str
    first_us: int
    rows: int
    open: Callable[[], Iterator[Chunk]]


class _Cursor:
    """The loaded, not yet merged rows of one open input."""

    def __init__(self, order: int, source: Sorted) -> None:
        self.order = order
        self._name = source.name
        self._chunks = source.open()
        self._left = source.rows
        self._at = 0
        self._chunk: Chunk | None = None
        self.load()

    @property
    def more(self) -> bool:
        """Tell whether rows are left that are not loaded."""
        return self._left > 0

    @property
    def last_us(self) -> int:
        assert self._chunk is not None
        return int(self._chunk.times[-1])

    def cut(self, frontier_us: int, *, inclusive: bool) -> Chunk:
        """Take the rows up to the frontier off the loaded ones; maybe none."""
        assert self._chunk is not None
        side = "right" if inclusive else "left"
        times = self._chunk.times
        start = self._at
        self._at = start + int(
            np.searchsorted(times[start:], frontier_us, side=side)  # type: ignore[call-overload]  # side is one of the two words
        )
        rows = self._chunk.rows.slice(start, self._at - start)
        return Chunk(times[start : self._at], rows)

    def load(self) -> bool:
        """Hold at least one row; False, and closed, where none is left."""
        while self._chunk is None or self._at == len(self._chunk.times):
            if self._left == 0:
                return False
            chunk = next(self._chunks, None)
            if chunk is None:
                msg = f"{self._name}: {self._left} rows fewer than a moment ago"
                raise InputError(msg)
            size = min(len(chunk.times), self._left)
            self._chunk = Chunk(chunk.times[:size], chunk.rows.slice(0, size))
            self._at = 0
            self._left -= size
            if self._left == 0:
                self._chunks = iter(())  # lets go of the file
        return True


def merged(inputs: Sequence[Sorted]) -> Iterator[pa.RecordBatch]:
    """Yield all rows in order of (event time, input, row), in batches of any size.

    Raises:
        InputError: an input has fewer rows than it said, or cannot be read.
    """
    waiting = deque(
        sorted(
            (order for order, source in enumerate(inputs) if source.rows),
            key=lambda order: (inputs[order].first_us, order),
        )
    )
    cursors: list[_Cursor] = []
    while waiting or cursors:
        if not cursors:
            cursors.append(_opened(waiting.popleft(), inputs))
        frontier_us = _frontier(cursors)
        while waiting and inputs[waiting[0]].first_us <= frontier_us:
            cursors.append(_opened(waiting.popleft(), inputs))
            if cursors[-1].more:
                frontier_us = min(frontier_us, cursors[-1].last_us)
        cursors.sort(key=lambda cursor: cursor.order)
        yield from _round(cursors, frontier_us)
        cursors = [cursor for cursor in cursors if cursor.load()]


def _opened(order: int, inputs: Sequence[Sorted]) -> _Cursor:
    return _Cursor(order, inputs[order])


def _frontier(cursors: Sequence[_Cursor]) -> int:
    unloaded = [cursor.last_us for cursor in cursors if cursor.more]
    if unloaded:
        return min(unloaded)
    # Nothing is left to load; not further, so that later files stay closed for now.
    return max(cursor.last_us for cursor in cursors)


def _round(cursors: Sequence[_Cursor], frontier_us: int) -> Iterator[pa.RecordBatch]:
    setter = min(
        (
            cursor.order
            for cursor in cursors
            if cursor.more and cursor.last_us == frontier_us
        ),
        default=len(cursors) + max(cursor.order for cursor in cursors),
    )
    pieces = [
        cursor.cut(frontier_us, inclusive=cursor.order <= setter) for cursor in cursors
    ]
    pieces = [piece for piece in pieces if len(piece.times)]
    if len(pieces) == 1:
        yield pieces[0].rows
    elif pieces:
        order = np.argsort(
            np.concatenate([piece.times for piece in pieces]), kind="stable"
        )
        rows = arrow.concat_batches([piece.rows for piece in pieces])
        yield rows.take(pa.array(order))
