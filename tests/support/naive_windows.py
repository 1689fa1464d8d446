"""The slow, obvious twin of the window fold: lists of readings, no running state.

Every (series, spec, window) keeps its readings until it closes; everything is computed from
that list then. Shares no code with `streamproc`; floats are added in the contracted order
(sequential Welford inside a pane, Chan over panes in time order), so results are equal bit for bit.
"""

from collections import deque
from dataclasses import dataclass, field
from math import gcd

LATE, DUPLICATE, CONFLICT = 1, 2, 4


@dataclass(frozen=True)
class Spec:
    name: str
    size: int
    every: int
    lateness: int
    sketched: bool = False


@dataclass(frozen=True)
class Row:
    """An accepted reading."""

    city: str
    device: str
    property: str
    event: int
    value: float
    quality: int
    offset: int


Series = tuple[str, str, str]
Held = list[tuple[int, float, bool]]


def _moments(values: list[float]) -> tuple[int, float, float, float]:
    count, mean, m2, total = 0, 0.0, 0.0, 0.0
    for value in values:
        count += 1
        delta = value - mean
        mean = mean + delta / count
        m2 += delta * (value - mean)
        total += value
    return count, mean, m2, total


def aggregate(
    spec: Spec, window: int, held: Held, parts: int, pane: int
) -> dict[str, object]:
    """Compute one aggregate row from its readings, in order of arrival."""
    start = window * spec.every
    good = [(t, v) for t, v, valid in held if valid]
    count, mean, m2, total = 0, 0.0, 0.0, 0.0
    for begin in range(start, start + spec.size, pane):
        n, mu, sq, s = _moments([v for t, v in good if begin <= t < begin + pane])
        if n == 0:
            continue
        if count == 0:
            count, mean, m2, total = n, mu, sq, s
            continue
        both = count + n
        delta = mu - mean
        mean += delta * n / both
        m2 += sq + delta * delta * count * n / both
        total += s
        count = both
    slots = 0
    for t, _ in good:
        if parts:
            slots |= 1 << ((t - start) * parts // spec.size)
    row: dict[str, object] = {
        "window": spec.name,
        "start": start,
        "end": start + spec.size,
        "count": count,
        "invalid": len(held) - len(good),
        "sum": total,
        "m2": m2,
        "slots": slots,
        "coverage": slots.bit_count() / parts if parts else None,
        "min": None, "max": None, "mean": None, "variance": None,
        "first": None, "first_time": None, "last": None, "last_time": None,
        "values": sorted(v for _, v in good) if spec.sketched else [],
    }  # fmt: skip
    if good:
        first = min(good, key=lambda pair: pair[0])
        last = max(reversed(good), key=lambda pair: pair[0])
        row |= {
            "min": min(v for _, v in good),
            "max": max(v for _, v in good),
            "mean": mean,
            "variance": m2 / count,
            "first": first[1],
            "first_time": first[0],
            "last": last[1],
            "last_time": last[0],
        }
    return row


@dataclass
class NaiveWindows:
    """One partition. `interval` by device; `by_device` chooses the watermark key."""

    specs: list[Spec]
    by_device: bool
    dedup: int
    interval: dict[str, int] = field(default_factory=dict)
    watermark: dict[str, int] = field(default_factory=dict)
    marks: dict[tuple[str, int], int] = field(default_factory=dict)
    open: dict[tuple[int, int, Series], Held] = field(default_factory=dict)
    missed: dict[tuple[Series, int, int], Held] = field(default_factory=dict)
    rings: dict[Series, deque[tuple[int, float]]] = field(default_factory=dict)
    aggregates: list[dict[str, object]] = field(default_factory=list)
    late: list[tuple[int, str, int, int]] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def _key(self, series: Series) -> str:
        return series[1] if self.by_device else series[0]

    def _is_closed(self, key: str, q: int, window: int) -> bool:
        spec = self.specs[q]
        end = window * spec.every + spec.size
        passed = key in self.watermark and end + spec.lateness <= self.watermark[key]
        return passed or ((key, q) in self.marks and window <= self.marks[key, q])

    def _publish(
        self, q: int, window: int, series: Series, held: Held, part: int, reason: str
    ) -> None:
        spec = self.specs[q]
        interval = self.interval.get(series[1])
        parts = max(1, min(60, spec.size // interval)) if interval else 0
        pane = spec.size if reason == "late" else gcd(spec.size, spec.every)
        row = aggregate(spec, window, held, parts, pane)
        row |= {
            "city": series[0],
            "device": series[1],
            "property": series[2],
            "part": part,
            "close_reason": reason,
            "partial": reason == "final",
        }
        self.aggregates.append(row)

    def _close(self, chosen: list[tuple[int, int, Series]], reason: str) -> None:
        order = list(self.rings)

        def place(item: tuple[int, int, Series]) -> tuple[int, int, int]:
            q, window, series = item
            spec = self.specs[q]
            return window * spec.every + spec.size, q, order.index(series)

        for q, window, series in sorted(chosen, key=place):
            held = self.open.pop((q, window, series))
            self._publish(q, window, series, held, 0, reason)

    def accept(self, row: Row) -> None:
        series = (row.city, row.device, row.property)
        key = self._key(series)
        ring = self.rings.setdefault(series, deque(maxlen=self.dedup))
        flag = 0
        for time, value in ring:
            if time == row.event:
                flag = DUPLICATE if value == row.value else CONFLICT
        if not flag:
            ring.append((row.event, row.value))
        if key not in self.watermark or row.event > self.watermark[key]:
            self.watermark[key] = row.event
            due = [
                item
                for item in self.open
                if self._key(item[2]) == key and self._is_closed(key, item[0], item[1])
            ]
            self._close(due, "watermark")
        valid = row.quality > 0 and not flag
        item = (row.event, row.value, valid)
        for q, spec in enumerate(self.specs):
            first = (row.event - spec.size) // spec.every + 1
            for window in range(first, row.event // spec.every + 1):
                if self._is_closed(key, q, window):
                    flag |= LATE
                    end = window * spec.every + spec.size
                    behind = max(0, self.watermark[key] - end - spec.lateness)
                    self.late.append(
                        (row.offset, spec.name, window * spec.every, behind)
                    )
                    self.missed.setdefault((series, q, window), []).append(item)
                else:
                    self.open.setdefault((q, window, series), []).append(item)
        self.flags.append(flag)

    def close_keys(self, keys: list[str], reason: str) -> None:
        chosen = [item for item in self.open if self._key(item[2]) in keys]
        for q, window, series in chosen:
            mark = (self._key(series), q)
            self.marks[mark] = max(self.marks.get(mark, window), window)
        self._close(chosen, reason)

    def cut(self, n: int) -> None:
        for (series, q, window), held in self.missed.items():
            self._publish(q, window, series, held, n, "late")
        self.missed.clear()
