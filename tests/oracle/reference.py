"""What one partition must lead to: its records one by one, with lists instead of running state.

A reading is late for a window once the city's highest event time has reached the window's end
plus lateness, or once a logged decision has closed it. It repeats another if it has the event
time of the one of its series that stood last. Timer decisions come from the log: they depend
on the wall clock, and all that is asked of them is that everything else follows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.oracle.alerting import Alerting, Transition
from tests.oracle.facts import Entry, Facts, Reading, Window

LATE, DUPLICATE, CONFLICT = 1, 2, 4


class Series(NamedTuple):
    city: str
    device: str
    property: str


class Member(NamedTuple):
    """One reading in one window."""

    event: int
    value: float
    counts: bool


class Part(NamedTuple):
    """Key of one row of `aggregates/`; `part` 0 is what was there at the close."""

    series: Series
    window: str
    start: int
    part: int


class Timer(NamedTuple):
    """A logged decision: it acts before the record at `offset`."""

    offset: int
    kind: str
    city: str
    effective: int


@dataclass
class Expected:
    """The answer for one partition; rows are dictionaries with the published columns' names."""

    readings: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    late: dict[tuple[int, int, str, int], dict[str, Any]] = field(default_factory=dict)
    quarantine: dict[int, dict[str, Any]] = field(default_factory=dict)
    parts: dict[Part, dict[str, Any]] = field(default_factory=dict)
    alerts: list[Transition] = field(default_factory=list)


class Partition:
    """Replays one partition. `part_of` tells with which record an offset was committed."""

    def __init__(self, facts: Facts, source: str, part_of: dict[int, int]) -> None:
        self._facts = facts
        self._source = source
        self._part_of = part_of
        self._windows = {window.name: window for window in facts.windows}
        self._highest: dict[str, int] = {}
        self._closed_to: dict[tuple[str, str], int] = {}
        self._open: dict[tuple[str, str], dict[int, dict[Series, list[Member]]]] = {}
        self._missed: dict[Part, list[Member]] = {}
        self._last: dict[Series, tuple[int, float]] = {}
        self._alerting = Alerting(facts, source)
        self.expected = Expected()

    def run(self, entries: Sequence[Entry], timers: Iterable[Timer]) -> Expected:
        """Return what records in order of offset, and decisions in order, lead to."""
        waiting = list(timers)
        for entry in entries:
            while waiting and waiting[0].offset <= entry.offset:
                self._decide(waiting.pop(0))
            if entry.refused is None:
                for ordinal, reading in enumerate(entry.readings):
                    self._accept(entry, ordinal, reading)
            else:
                self._refuse(entry, entry.refused)
        for timer in waiting:
            self._decide(timer)
        for part, members in self._missed.items():
            self.expected.parts[part] = self._row(part, members, "late")
        self.expected.alerts = self._alerting.transitions
        return self.expected

    # --- records ----------------------------------------------------------------------

    def _refuse(self, entry: Entry, reason: str) -> None:
        self.expected.quarantine[entry.offset] = {
            "city": entry.city,
            "broker_time": entry.broker,
            "reason": reason,
            "payload": entry.payload,
            "payload_bytes": len(entry.payload),
        }

    def _accept(self, entry: Entry, ordinal: int, reading: Reading) -> None:
        series = Series(entry.city, entry.device, reading.property)
        flag = self._repeats(series, reading)
        counts = flag == 0 and reading.quality > 0
        if reading.event > self._highest.get(entry.city, -math.inf):
            self._highest[entry.city] = reading.event
            self._close_due(entry.city, entry.offset)
        row = {
            "city": entry.city,
            "device": entry.device,
            "property": reading.property,
            "event_time": reading.event,
            "value": reading.value,
            "quality": reading.quality,
            "ingest_time": entry.broker,
        }
        member = Member(reading.event, reading.value, counts)
        for window in self._facts.windows:
            for start in _starts(window, reading.event):
                key = (series, window.name, start)
                if not self._is_closed(entry.city, window, start):
                    starts = self._open.setdefault((entry.city, window.name), {})
                    starts.setdefault(start, {}).setdefault(series, []).append(member)
                    continue
                flag |= LATE
                part = Part(*key, self._part_of[entry.offset])
                self._missed.setdefault(part, []).append(member)
                closes = start + window.size + window.lateness
                behind = max(0, self._highest[entry.city] - closes)
                self.expected.late[entry.offset, ordinal, window.name, start] = {
                    **row,
                    "behind_us": behind,
                }
        self.expected.readings[entry.offset, ordinal] = {**row, "flags": flag}
        highest = self._highest[entry.city]
        self._alerting.saw(series, reading, entry.offset, highest, counts=counts)

    def _repeats(self, series: Series, reading: Reading) -> int:
        before = self._last.get(series)
        if before is not None and before[0] == reading.event:
            return DUPLICATE if before[1] == reading.value else CONFLICT
        self._last[series] = (reading.event, reading.value)
        return 0

    # --- closing ----------------------------------------------------------------------

    def _is_closed(self, city: str, window: Window, start: int) -> bool:
        passed = start + window.size + window.lateness <= self._highest[city]
        return passed or start <= self._closed_to.get((city, window.name), -math.inf)

    def _close_due(self, city: str, offset: int) -> None:
        due = [
            (window, start)
            for window in self._facts.windows
            for start in self._open.get((city, window.name), ())
            if self._is_closed(city, window, start)
        ]
        self._close(city, due, "watermark", offset)

    def _decide(self, timer: Timer) -> None:
        if timer.kind != "silence":
            chosen = [
                (window, start)
                for window in self._facts.windows
                for start in self._open.get((timer.city, window.name), ())
            ]
            for window, start in chosen:
                place = (timer.city, window.name)
                reached = self._closed_to.get(place, start)
                self._closed_to[place] = max(reached, start)
            self._close(timer.city, chosen, timer.kind, timer.offset)
        highest = self._highest.get(timer.city)
        if highest is not None:
            until = max(timer.effective, highest)
            self._alerting.until(timer.city, until, timer.offset)

    def _close(
        self, city: str, due: list[tuple[Window, int]], reason: str, offset: int
    ) -> None:
        """Close a city's windows, in order of their ends."""
        for window, start in sorted(due, key=lambda one: one[1] + one[0].size):
            held = self._open[city, window.name].pop(start)
            for series, members in held.items():
                part = Part(series, window.name, start, 0)
                row = self._row(part, members, reason)
                self.expected.parts[part] = row
                self._alerting.closed(series, window, row, offset)

    def _row(self, part: Part, members: list[Member], reason: str) -> dict[str, Any]:
        good = [member for member in members if member.counts]
        row: dict[str, Any] = {
            "unit": self._facts.units[part.series.property],
            "end": part.start + self._windows[part.window].size,
            "count": len(good),
            "invalid": len(members) - len(good),
            "sum": math.fsum(member.value for member in good),
            "close_reason": reason,
            "partial": reason == "final",
        }
        return row | _moments(good)


def _moments(good: list[Member]) -> dict[str, Any]:
    """Return the rest of a row; members are in order of offset."""
    if not good:
        names = ("min", "max", "mean", "variance", "first", "first_time", "last")
        return dict.fromkeys((*names, "last_time"), None) | {"m2": 0.0}
    values = [member.value for member in good]
    mean = math.fsum(values) / len(values)
    m2 = math.fsum((value - mean) ** 2 for value in values)
    first = min(good, key=lambda member: member.event)
    last = max(reversed(good), key=lambda member: member.event)
    return {
        "min": min(values),
        "max": max(values),
        "mean": mean,
        "m2": m2,
        "variance": m2 / len(values),
        "first": first.value,
        "first_time": first.event,
        "last": last.value,
        "last_time": last.event,
    }


def _starts(window: Window, event: int) -> Iterable[int]:
    """Return the starts of the windows that cover an event time."""
    newest = event - event % window.every
    return range(newest, event - window.size, -window.every)
