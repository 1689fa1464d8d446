"""A new definition, and what a snapshot lets go of."""

from dataclasses import replace

import pytest

from streamproc.core.definition import (
    Definition,
    DeviceSpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.values import Emission, Flag
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


HIGH = RuleSpec("high", "pm10", None, "value > 50", "value < 40", 0, "warning")
QUIET = RuleSpec("quiet", "pm10", None, None, None, 0, "info", no_data_us=MINUTE)
HOURLY = RuleSpec("hourly", "pm10", "1m", "mean > 50", None, 0, "warning")


def _states(emission: Emission) -> list[tuple[str, str, int]]:
    return [(a.rule, a.state, a.transition) for a in emission.alerts]


def _reconfigured(
    processor: PartitionProcessor, definition: Definition, offset: int
) -> tuple[PartitionProcessor, Emission]:
    after, emission = processor.reconfigure(definition, ZONES, offset)
    # What a restart restores is what goes on.
    again = PartitionProcessor.restore(ORIGIN, definition, ZONES, after.snapshot(), 0)
    assert again.series_count == after.series_count
    assert again.open_windows == after.open_windows
    return again, emission


def test_a_window_that_is_added_begins_with_the_next_reading() -> None:
    processor = processor_of()
    step(processor, one(1, T0, 1.0))
    hour = WindowSpec("1h", 60 * MINUTE, 60 * MINUTE, 0)
    after, emission = _reconfigured(
        processor, replace(BASE, windows=(*BASE.windows, hour)), 2
    )
    step(after, one(2, T0 + S, 3.0))
    closing = step(after, one(3, T0 + 60 * MINUTE, 5.0)).aggregates

    assert emission.aggregates.num_rows == 0
    assert dict(
        zip(values(closing, "window"), values(closing, "count"), strict=True)
    ) == {"1m": 2, "1h": 1}


def test_a_window_that_is_removed_is_published_as_partial_and_gone() -> None:
    processor = processor_of()
    step(processor, one(1, T0, 1.0))
    after, emission = _reconfigured(processor, replace(BASE, windows=()), 2)

    (row,) = emission.aggregates.to_pylist()
    assert (row["window"], row["partial"], row["part"]) == ("1m", True, 0)
    assert after.open_windows == {}
    assert step(after, one(2, T0 + MINUTE)).aggregates.num_rows == 0


@pytest.mark.parametrize("rule", [HIGH, HOURLY])
def test_a_rule_that_is_removed_or_changed_clears_its_open_episodes(
    rule: RuleSpec,
) -> None:
    before = replace(BASE, rules=(rule,))
    changed = replace(before, rules=(replace(rule, severity="critical"),))
    for definition in (BASE, changed):
        processor = processor_of(before)
        opened = step(processor, one(1, T0, 60.0), one(2, T0 + MINUTE, 60.0))
        after, emission = _reconfigured(processor, definition, 3)

        (firing,) = opened.alerts
        (cleared,) = emission.alerts
        assert (firing.state, cleared.state) == ("firing", "cleared")
        assert (firing.alert_id, 1) == (cleared.alert_id, cleared.transition)
        assert (cleared.offset, cleared.early) == (3, False)
        assert cleared.event_us == T0 + MINUTE
        again = step(after, one(3, T0 + MINUTE + S, 60.0), one(4, T0 + 2 * MINUTE, 60))
        assert [s[1] for s in _states(again)] == (
            [] if definition is BASE else ["firing"]
        )


def test_the_silence_of_a_rule_that_is_removed_is_cleared() -> None:
    processor = processor_of(replace(BASE, rules=(QUIET,)))
    step(processor, one(1, T0, device="a"))
    opened = step(processor, one(2, T0 + 2 * MINUTE, device="b"))
    _, emission = _reconfigured(processor, BASE, 3)

    assert _states(opened) == [("quiet", "firing", 0)]
    assert _states(emission) == [("quiet", "cleared", 1)]
    assert opened.alerts[0].alert_id == emission.alerts[0].alert_id


def test_a_rule_that_stays_keeps_its_episode_and_a_new_one_judges_what_comes() -> None:
    processor = processor_of(replace(BASE, rules=(HIGH,)))
    step(processor, one(1, T0, 60.0))
    low = RuleSpec("low", "pm10", None, "value < 45", None, 0, "info")
    after, emission = _reconfigured(processor, replace(BASE, rules=(low, HIGH)), 2)
    second = step(after, one(2, T0 + S, 42.0), one(3, T0 + 2 * S, 30.0))

    assert emission.alerts == ()
    assert _states(second) == [("low", "firing", 0), ("high", "cleared", 1)]


def test_a_property_that_is_removed_closes_its_series_and_refuses_what_comes() -> None:
    processor = processor_of(replace(BASE, rules=(HIGH,)))
    step(processor, one(1, T0, 60.0))
    fewer = replace(BASE, properties=BASE.properties[1:])
    after, emission = _reconfigured(processor, fewer, 2)
    second = step(after, one(2, T0 + S, 3.0))

    assert values(emission.aggregates, "partial") == [True]
    assert _states(emission) == [("high", "cleared", 1)]
    assert after.series_count == 0
    assert second.readings.num_rows == 0
    assert values(second.quarantine, "reason") == ["unknown_property"]


def test_a_property_that_is_added_is_accepted_from_there_on() -> None:
    fewer = replace(BASE, properties=BASE.properties[1:])
    processor = processor_of(fewer)
    first = step(processor, one(1, T0, 3.0))
    after, _ = _reconfigured(processor, BASE, 2)
    second = step(after, one(2, T0 + S, 3.0))

    assert (first.readings.num_rows, second.readings.num_rows) == (0, 1)


def test_a_property_of_another_unit_begins_anew() -> None:
    processor = processor_of()
    step(processor, one(1, T0, 3.0))
    milligrams = replace(BASE.properties[0], unit="mg/m3")
    other = replace(BASE, properties=(milligrams, BASE.properties[1]))
    after, emission = _reconfigured(processor, other, 2)
    second = step(after, one(2, T0 + S, 3.0))

    assert values(emission.aggregates, "unit") == ["ug/m3"]
    assert values(emission.aggregates, "partial") == [True]
    assert after.open_windows == {"1m": 1}
    assert values(after.cut(2), "count") == []
    assert second.readings.num_rows == 1


def test_a_range_or_another_name_changes_nothing_that_is_open() -> None:
    processor = processor_of()
    step(processor, one(1, T0, 3.0))
    narrower = replace(BASE.properties[0], high=2.0, name="particles")
    other = replace(BASE, properties=(narrower, BASE.properties[1]))
    after, emission = _reconfigured(processor, other, 2)
    second = step(after, one(2, T0 + S, 3.0), one(3, T0 + MINUTE, 1.0))

    assert emission.aggregates.num_rows == 0
    assert values(second.aggregates, "count") == [2]
    assert [bool(f & Flag.OUT_OF_RANGE) for f in values(second.readings, "flags")] == [
        True,
        False,
    ]


def test_a_town_that_is_removed_closes_its_series_and_clears_its_alerts() -> None:
    both = replace(
        BASE,
        rules=(HIGH,),
        devices=(DeviceSpec("ange", "a"), DeviceSpec("razlog", "b")),
    )
    processor = processor_of(both, "shared")
    step(processor, one(1, T0, 60.0, device="a"), one(2, T0, 60.0, device="b"))
    alone = replace(
        both,
        cities=BASE.cities[1:],
        devices=(DeviceSpec("razlog", "b"),),
        topic_cities=(),
    )
    after, emission = processor.reconfigure(alone, ZONES, 3)

    assert values(emission.aggregates, "device") == ["a"]
    assert [(a.city, a.state) for a in emission.alerts] == [("ange", "cleared")]
    assert after.series_count == 1
