"""A new definition, and what a snapshot lets go of."""

from dataclasses import replace

import pytest

from streamproc.core.definition import (
    DeviceSpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from tests.support.processors import (
    BASE,
    DAY,
    MINUTE,
    ORIGIN,
    T0,
    ZONES,
    S,
    one,
    processor_of,
    step,
    values,
)


def test_a_changed_window_closes_partial_and_an_unchanged_one_keeps_its_state() -> None:
    hour = WindowSpec("1h", 60 * MINUTE, 60 * MINUTE, 0)
    processor = processor_of(replace(BASE, windows=(*BASE.windows, hour)))
    step(processor, one(1, T0, 1.0), one(2, T0 + S, 3.0))
    slower = WindowSpec("1m", MINUTE, MINUTE, 30 * S)
    after, emission = processor.reconfigure(
        replace(BASE, windows=(hour, slower)), ZONES, 3
    )

    (row,) = emission.aggregates.to_pylist()
    assert (row["window"], row["partial"], row["count"]) == ("1m", True, 2)
    assert after.open_windows == {"1h": 1, "1m": 0}
    second = step(after, one(3, T0 + 2 * S, 5.0))
    assert values(second.late, "window") == ["1m"]
    assert values(after.cut(4), "part") == [4]
    third = step(after, one(5, T0 + 60 * MINUTE, 1.0))
    assert values(third.aggregates, "window") == ["1h"]
    assert values(third.aggregates, "count") == [3]


def test_a_window_that_was_taken_out_and_comes_back_publishes_no_part_twice() -> None:
    processor = processor_of()
    step(processor, one(1, T0))
    without, first = processor.reconfigure(replace(BASE, windows=()), ZONES, 2)
    step(without, one(2, T0 + S))
    again, none = without.reconfigure(BASE, ZONES, 3)
    emission = step(again, one(3, T0 + 2 * S), one(4, T0 + MINUTE))

    assert first.aggregates.num_rows == 1
    assert none.aggregates.num_rows == 0
    assert values(emission.late, "start") == [T0]
    assert again.open_windows == {"1m": 1}


@pytest.mark.parametrize("watermarks", [("city", "device"), ("device", "city")])
def test_another_kind_of_watermark_closes_all_and_reopens_nothing(
    watermarks: tuple[str, str],
) -> None:
    before = replace(BASE, watermark=watermarks[0])  # type: ignore[arg-type]  # a literal
    processor = processor_of(before)
    step(processor, one(1, T0, device="a"), one(2, T0 + 2 * S, device="b"))
    definition = replace(BASE, watermark=watermarks[1])  # type: ignore[arg-type]  # a literal
    after, emission = processor.reconfigure(definition, ZONES, 3)
    second = step(after, one(3, T0 + 3 * S, device="a"))

    assert emission.aggregates.num_rows == 2
    assert after.series_count == 2
    assert values(second.late, "start") == [T0]


def test_series_whose_city_or_unit_changed_are_closed_and_dropped() -> None:
    definition = replace(BASE, devices=tuple(DeviceSpec("ange", d) for d in "ab"))
    processor = processor_of(definition, "shared")
    step(processor, one(1, T0, device="a"), one(2, T0, device="b"))
    moved = replace(
        definition, devices=(DeviceSpec("razlog", "a"), DeviceSpec("ange", "b"))
    )
    after, emission = processor.reconfigure(moved, ZONES, 3)

    assert values(emission.aggregates, "device") == ["a"]
    assert after.series_count == 1
    assert after.open_windows == {"1m": 1}
    assert values(step(after, one(3, T0 + S, device="a")).readings, "city") == [
        "razlog"
    ]


def test_a_snapshot_lets_go_of_series_silent_for_too_long() -> None:
    processor = processor_of(replace(BASE, forget_us=DAY))
    step(processor, one(1, T0, device="old"), one(2, T0, device="new"), now_us=5)
    step(processor, one(3, T0 + DAY, device="new"), now_us=6)
    tables = processor.snapshot()

    assert processor.series_count == 1
    assert tables["devices"]["device"].to_pylist() == ["new"]
    restored = PartitionProcessor.restore(
        ORIGIN, replace(BASE, forget_us=DAY), ZONES, tables, 0
    )
    for each in (processor, restored):
        emission = step(
            each,
            one(4, T0 + DAY + S, device="old"),
            one(5, T0 + DAY + 2 * MINUTE, device="new"),
        )
        assert values(emission.aggregates, "device") == ["new", "old"]


def test_an_open_window_or_an_alert_keeps_a_silent_series() -> None:
    week = WindowSpec("1w", 7 * DAY, 7 * DAY, 0)
    processor = processor_of(replace(BASE, windows=(week,), forget_us=MINUTE))
    step(processor, one(1, T0, device="old"), one(2, T0 + DAY, device="new"))
    processor.snapshot()

    assert processor.series_count == 2
