"""Local dates per city: the `date=` of every path.

A zone is asked once per UTC day that was ever seen; what is kept are its transitions, found
by bisection to the second, so a day of 23 or 25 hours and a midnight that happens twice come out
right. Two transitions within one UTC day that cancel out would be missed; no zone has them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np
import numpy.typing as npt

from streamproc.kernels.dates import DAY_US, local_dates

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
_BEFORE_ALL = -(1 << 62)


def east_us(zone: tzinfo, second: int) -> int:
    """Return how far local time is ahead of UTC, µs, at `second` since 1970."""
    local = (_EPOCH + timedelta(seconds=second)).astimezone(zone)
    offset = local.utcoffset()
    assert offset is not None, zone
    return offset // timedelta(microseconds=1)


class _Transitions:
    """What is known of one zone: the days `[first, last)` and the segments in them."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self.days: tuple[int, int] | None = None
        self.begins: list[int] = []
        self.east: list[int] = []

    def cover(self, first: int, last: int) -> bool:
        """Make the days `[first, last)` known; True if that changed anything."""
        if self.days is None:
            self.begins, self.east = self._scan(first, last)
            self.days = (first, last)
            return True
        low, high = self.days
        if first >= low and last <= high:
            return False
        begins, east = list(self.begins), list(self.east)
        if first < low:
            earlier, earlier_east = self._scan(first, low)
            # The first known segment reached back for ever; now it begins at day `low`.
            begins, east = [*earlier, low * DAY_US, *begins[1:]], earlier_east + east
        if last > high:
            later, later_east = self._scan(high, last)
            begins, east = [*begins, high * DAY_US, *later[1:]], east + later_east
        self.begins, self.east = _joined(begins, east)
        self.days = (min(first, low), max(last, high))
        return True

    def _scan(self, first: int, last: int) -> tuple[list[int], list[int]]:
        begins, east = [_BEFORE_ALL], [east_us(self._zone, first * _DAY_S)]
        for day in range(first, last):
            after = east_us(self._zone, (day + 1) * _DAY_S)
            if after != east[-1]:
                begins.append(self._transition(day, east[-1]) * 1_000_000)
                east.append(after)
        return begins, east

    def _transition(self, day: int, before: int) -> int:
        """Return the first second of `day` with another offset than `before`."""
        low, high = day * _DAY_S, (day + 1) * _DAY_S
        while high - low > 1:
            middle = (low + high) // 2
            if east_us(self._zone, middle) == before:
                low = middle
            else:
                high = middle
        return high


def _joined(begins: list[int], east: list[int]) -> tuple[list[int], list[int]]:
    """Drop segments that begin without a change."""
    kept = [i for i in range(len(east)) if i == 0 or east[i] != east[i - 1]]
    return [begins[i] for i in kept], [east[i] for i in kept]


class LocalDates:
    """The local date of an event time, by city code. Not thread-safe."""

    def __init__(self, cities: Sequence[str], zones: Mapping[str, tzinfo]) -> None:
        self._zones = [_Transitions(zones[city]) for city in cities]
        self._begins = np.zeros(0, np.int64)
        self._east = np.zeros(0, np.int64)
        self._first = np.zeros(len(self._zones) + 1, np.int64)

    def dates(self, city: I4, event_us: I8) -> I4:
        """Return days since 1970-01-01 (int32[n]) of event times within 1700..2200.

        Asks the zones about days not seen before: about 1 µs a day, at most 0.2 s a city.
        """
        out = np.empty(len(event_us), np.int32)
        if len(event_us) == 0:
            return out
        first = int(event_us.min()) // DAY_US
        last = int(event_us.max()) // DAY_US + 1
        present = np.flatnonzero(np.bincount(city, minlength=len(self._zones)))
        # Every city is taken over the whole range: a batch is narrow, or a flood of bad clocks.
        news = [self._zones[code].cover(first, last) for code in present]
        if any(news):
            self._rebuild()
        local_dates(event_us, city, self._begins, self._east, self._first, out)
        return out

    def _rebuild(self) -> None:
        sizes = [len(zone.begins) for zone in self._zones]
        self._first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        self._begins = np.array(
            [b for zone in self._zones for b in zone.begins], np.int64
        )
        self._east = np.array([e for zone in self._zones for e in zone.east], np.int64)
