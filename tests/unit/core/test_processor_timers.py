"""Watermarks, late parts, silence, and what closes when."""

from dataclasses import replace

import pyarrow as pa
import pytest

from streamproc.core.definition import (
    DeviceSpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.values import (
    Emission,
    Flag,
    TimerDecision,
)
from tests.support.processors import (
    BASE,
    DAY,
    MINUTE,
    T0,
    S,
    one,
    processor_of,
    step,
    values,
)


def outage(watermark: str) -> tuple[list[Emission], PartitionProcessor]:
    """Three devices report each minute; one goes silent, and catches up a day later."""
    definition = replace(BASE, watermark=watermark)  # type: ignore[arg-type]  # a literal
    processor = processor_of(definition)
    emissions, offset = [], 0

    def send(device: str, event_us: int) -> None:
        nonlocal offset
        emissions.append(
            step(processor, one(offset, event_us, device=device), now_us=event_us)
        )
        offset += 1

    half = MINUTE // 2
    for minute in range(5):
        for device in ("a", "b", "c"):
            send(device, T0 + minute * MINUTE)
    for minute in range(5, 30):
        for device in ("a", "b"):
            send(device, T0 + minute * MINUTE)
        now_us = T0 + minute * MINUTE
        timers = processor.due(now_us, 10 * MINUTE, offset)
        emissions.extend(processor.take(timer, now_us) for timer in timers)
    for device in ("a", "b"):
        send(device, T0 + DAY)
    for place in range(9, 2 * 30):
        send("c", T0 + place * half)
    return emissions, processor


def test_a_device_a_day_behind_is_late_for_the_boundary_window_of_its_outage_only() -> (
    None
):
    emissions, _ = outage("device")
    late = [row for e in emissions for row in e.late.to_pylist()]

    assert len(late) > 0
    assert {row["device"] for row in late} == {"c"}
    boundary = T0 + 4 * MINUTE
    starts = {start for e in emissions for start in values(e.late, "start")}
    assert starts == {boundary}


def test_with_a_city_watermark_the_same_backlog_is_late_throughout() -> None:
    emissions, _ = outage("city")

    assert sum(e.late.num_rows for e in emissions) == 51


def test_idle_closes_the_silent_key_alone_and_moves_no_watermark() -> None:
    processor = processor_of(replace(BASE, watermark="device"))
    step(processor, one(1, T0, device="a"), now_us=100)
    step(processor, one(2, T0 + S, device="b"), now_us=900)

    assert processor.due(1000, 200, 3) == (
        TimerDecision("idle", "razlog", "a", 3, T0 + S),
    )
    (timer,) = processor.due(1000, 200, 3)
    emission = processor.take(timer, 1000)

    assert values(emission.aggregates, "device") == ["a"]
    assert values(emission.aggregates, "close_reason") == ["idle"]
    assert values(emission.aggregates, "partial") == [False]
    assert (emission.span.start, emission.span.end) == (3, 3)
    assert emission.counts.windows == {"razlog": 1}
    assert processor.watermarks == {"razlog": T0 + S}
    assert processor.open_windows == {"1m": 1}
    assert processor.due(1000, 200, 3) == ()


@pytest.mark.parametrize(
    ("size_us", "lateness_us", "silent_us", "until_us"),
    [
        (DAY, 0, MINUTE, T0 + 10 * MINUTE + MINUTE),
        (15 * MINUTE, 0, DAY, T0 + 15 * MINUTE),
        (MINUTE, MINUTE, MINUTE, T0 + 11 * MINUTE),
    ],
    ids=["as long as was waited", "to the last end", "short windows"],
)
def test_an_idle_decision_reaches_to_the_last_end_but_no_further_than_was_waited(
    size_us: int, lateness_us: int, silent_us: int, until_us: int
) -> None:
    window = WindowSpec("w", size_us, size_us, lateness_us)
    processor = processor_of(replace(BASE, windows=(window,)))
    step(processor, one(1, T0 + 10 * MINUTE), now_us=0)

    (timer,) = processor.due(silent_us, MINUTE, 2)

    assert timer == TimerDecision("idle", "razlog", None, 2, until_us)


def test_an_idle_decision_never_reaches_back_behind_the_watermark() -> None:
    window = WindowSpec("w", MINUTE, MINUTE, DAY)
    processor = processor_of(replace(BASE, windows=(window,), watermark="device"))
    step(processor, one(1, T0, device="a"), now_us=0)
    step(processor, one(2, T0 + 60 * MINUTE, device="b"), now_us=2 * MINUTE)

    (timer,) = processor.due(2 * MINUTE, MINUTE, 3)

    assert timer == TimerDecision("idle", "razlog", "a", 3, T0 + 60 * MINUTE)


def test_the_silence_of_a_device_counts_from_its_own_watermark() -> None:
    day = WindowSpec("1d", DAY, DAY, 0)
    processor = processor_of(replace(BASE, windows=(day,), watermark="device"))
    step(processor, one(1, T0, device="a"), now_us=0)
    step(processor, one(2, T0 + 10 * MINUTE, device="b"), now_us=10 * MINUTE)

    (timer,) = processor.due(11 * MINUTE, 5 * MINUTE, 3)

    assert timer == TimerDecision("idle", "razlog", "a", 3, T0 + 11 * MINUTE)


def test_a_minute_of_silence_closes_a_day_without_judging_no_data_for_it() -> None:
    rule = RuleSpec(
        "gone", "pm10", None, None, None, 0, "critical", no_data_us=10 * MINUTE
    )
    day = WindowSpec("1d", DAY, DAY, 0)
    processor = processor_of(replace(BASE, windows=(day,), rules=(rule,)))
    step(processor, one(1, T0), now_us=0)
    (timer,) = processor.due(MINUTE, MINUTE, 2)
    emission = processor.take(timer, MINUTE)

    assert timer == TimerDecision("idle", "razlog", None, 2, T0 + MINUTE)
    assert values(emission.aggregates, "window") == ["1d"]
    assert emission.alerts == ()
    (timer,) = processor.due(10 * MINUTE, MINUTE, 3)
    (alert,) = processor.take(timer, 10 * MINUTE).alerts
    assert (timer.kind, alert.rule, alert.state) == ("silence", "gone", "firing")


def test_a_reading_after_an_idle_close_is_late_and_leaves_with_the_cut() -> None:
    processor = processor_of()
    step(processor, one(1, T0, 2.0), now_us=0)
    (timer,) = processor.due(10, 5, 2)
    processor.take(timer, 10)
    emission = step(processor, one(2, T0 + S, 4.0), one(3, T0 + S, 5.0), now_us=20)
    part = processor.cut(17)

    assert values(emission.readings, "flags") == [
        Flag.LATE,
        Flag.LATE | Flag.CONFLICT,
    ]
    assert emission.counts.late == {"razlog": 2}
    assert values(emission.late, "behind_us") == [0, 0]
    assert [
        values(part, name) for name in ("count", "invalid", "part", "close_reason")
    ] == [
        [1],
        [1],
        [17],
        ["late"],
    ]
    assert processor.cut(18).num_rows == 0


def test_a_key_from_before_this_process_is_silent_from_the_first_question_on() -> None:
    processor = processor_of()
    rows = pa.Table.from_batches([step(processor_of(), one(1, T0)).readings])
    processor.refold(rows)

    assert processor.due(10**12, 5, 2) == ()
    assert len(processor.due(10**12 + 5, 5, 2)) == 1


def test_finals_close_everything_partial_and_once() -> None:
    processor = processor_of(replace(BASE, watermark="device"))
    step(processor, one(1, T0, device="b"), one(2, T0, device="a"))
    (timer,) = processor.finals(3)
    emission = processor.take(timer, 0)

    assert timer == TimerDecision("final", "razlog", None, 3, T0)
    assert values(emission.aggregates, "device") == ["b", "a"]
    assert values(emission.aggregates, "partial") == [True, True]
    assert values(emission.aggregates, "close_reason") == ["final", "final"]
    assert processor.finals(3) == ()


def test_silence_is_proposed_when_a_deadline_lies_within_it() -> None:
    rule = RuleSpec(
        "gone", "pm10", None, None, None, 0, "critical", no_data_us=10 * MINUTE
    )
    processor = processor_of(replace(BASE, rules=(rule,)))
    step(processor, one(1, T0), now_us=0)

    assert [t.kind for t in processor.due(10 * MINUTE - 1, DAY, 2)] == []
    (timer,) = processor.due(10 * MINUTE, DAY, 2)
    assert timer == TimerDecision("silence", "razlog", None, 2, T0 + 10 * MINUTE)
    emission = processor.take(timer, 10 * MINUTE)
    assert [(a.rule, a.state, a.offset) for a in emission.alerts] == [
        ("gone", "firing", 2)
    ]
    assert emission.aggregates.num_rows == 0
    assert processor.due(10 * MINUTE, DAY, 2) == ()


def test_coverage_tells_which_parts_of_the_window_held_a_valid_reading() -> None:
    definition = replace(BASE, devices=(DeviceSpec("razlog", "d", interval_us=10 * S),))
    processor = processor_of(definition)
    records = [
        one(i, T0 + t * S, q + 1.0, quality=q)
        for i, (t, q) in enumerate([(0, 1), (9, 1), (20, 0), (59, 1)])
    ]
    emission = step(processor, *records, one(9, T0 + 2 * MINUTE, device="e"))

    (row,) = emission.aggregates.to_pylist()
    assert (row["slots"], row["count"], row["invalid"]) == (0b100001, 3, 1)
    assert row["coverage"] == pytest.approx(2 / 6)
