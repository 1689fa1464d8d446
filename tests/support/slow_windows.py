"""What the windows of one partition must be, computed slowly: plain Python, no shared code.

Written from DESIGN.md alone. A reading's hour is late once the highest event time seen in
the partition has reached the hour's end plus lateness. A reading repeats another if it has
the event time of one of its device's last `dedup` that stood; it is then a duplicate, or a
conflict if the value differs, and does not stand. What repeats, and what says that it is
not valid, counts as invalid and in nothing else.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LATE, DUPLICATE, CONFLICT = 1, 2, 4


class SlowReading(NamedTuple):
    offset: int
    device: str
    event_us: int
    value: float
    quality: int


class SlowHour(NamedTuple):
    """One device's hour; times are µs, None where no reading counts."""

    counted: int
    invalid: int
    mean: float | None
    variance: float | None
    low: float | None
    high: float | None
    first: float | None
    last: float | None


@dataclass
class SlowWindows:
    """The answer for one partition.

    Attributes:
        flags: offset to what the reading is flagged with (late, duplicate, conflict).
        late: (offset, start of the hour missed, how far behind), as rows come.
        on_time: (device, start) to (readings counted, invalid) in time for their hour.
        too_late: the same for those that missed it.
        hours: (device, start) to the hour, late readings included.
    """

    flags: dict[int, int] = field(default_factory=dict)
    late: list[tuple[int, int, int]] = field(default_factory=list)
    on_time: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    too_late: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    hours: dict[tuple[str, int], SlowHour] = field(default_factory=dict)


def slow_windows(
    readings: Iterable[SlowReading], every_us: int, lateness_us: int, dedup: int
) -> SlowWindows:
    """Return what a partition's readings, in order of offset, must lead to."""
    answer = SlowWindows()
    members: dict[tuple[str, int], list[tuple[SlowReading, bool]]] = {}
    standing: dict[str, deque[SlowReading]] = {}
    highest = -(2**63)
    for reading in readings:
        highest = max(highest, reading.event_us)
        start = reading.event_us - reading.event_us % every_us
        closed_at = start + every_us + lateness_us
        flag = _repeats(reading, standing.setdefault(reading.device, deque()), dedup)
        counts = flag == 0 and reading.quality > 0
        if closed_at <= highest:
            flag |= LATE
            answer.late.append((reading.offset, start, highest - closed_at))
        answer.flags[reading.offset] = flag
        part = answer.too_late if flag & LATE else answer.on_time
        counted, invalid = part.get((reading.device, start), (0, 0))
        part[reading.device, start] = (counted + counts, invalid + (not counts))
        members.setdefault((reading.device, start), []).append((reading, counts))
    answer.hours = {key: _hour(held) for key, held in members.items()}
    return answer


def _repeats(reading: SlowReading, before: deque[SlowReading], dedup: int) -> int:
    for other in before:
        if other.event_us == reading.event_us:
            return DUPLICATE if other.value == reading.value else CONFLICT
    before.append(reading)
    if len(before) > dedup:
        before.popleft()
    return 0


def _hour(held: Sequence[tuple[SlowReading, bool]]) -> SlowHour:
    good = [reading for reading, counts in held if counts]
    invalid = len(held) - len(good)
    if not good:
        return SlowHour(0, invalid, None, None, None, None, None, None)
    values = [reading.value for reading in good]
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    good.sort(key=lambda reading: (reading.event_us, reading.offset))
    return SlowHour(
        len(values),
        invalid,
        mean,
        squares / len(values),
        min(values),
        max(values),
        good[0].value,
        good[-1].value,
    )
