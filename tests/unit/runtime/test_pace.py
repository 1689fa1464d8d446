import itertools

import numpy as np
import pytest

from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.runtime.pace import Pace


def batch(offsets: list[int], end: int) -> Records:
    count = len(offsets)
    return Records(
        TopicPartition("t", 0),
        np.array(offsets, np.int64),
        np.zeros(count, np.int64),
        Payloads.of([b"v"] * count),
        Payloads.nulls(count),
        OffsetSpan(offsets[0] if offsets else end, end),
    )


def test_without_a_limit_a_batch_stays_whole_and_never_waits() -> None:
    pace = Pace(None)
    records = batch([1, 2, 3], 9)

    assert list(pace.slices(records)) == [records]
    assert pace.wait_s(0, 10**9) == 0.0


@pytest.mark.parametrize("rate", [1.0, 10.0, 25.0, 40.0, 1000.0])
def test_slices_cover_the_span_once_and_in_order(rate: float) -> None:
    offsets = [3, 4, 7, 8, 20, 21, 22]

    parts = list(Pace(rate).slices(batch(offsets, 30)))

    assert [int(o) for part in parts for o in part.offsets] == offsets
    assert parts[0].span.start == 3
    assert parts[-1].span.end == 30
    for before, after in itertools.pairwise(parts):
        assert before.span.end == after.span.start


def test_an_empty_batch_still_carries_its_span() -> None:
    (part,) = Pace(5.0).slices(batch([], 12))

    assert part.span == OffsetSpan(12, 12)


def test_waits_add_up_to_the_rate() -> None:
    pace = Pace(100.0)
    now_us, waited_us = 0, 0
    for _ in range(50):
        pause_us = round(pace.wait_s(now_us, 10) * 1e6)
        now_us += pause_us
        waited_us += pause_us

    # 49 pauses of a tenth of a second: the first slice goes at once.
    assert waited_us == 49 * 100_000
