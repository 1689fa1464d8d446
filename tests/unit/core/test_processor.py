from dataclasses import replace
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.processor import PartitionProcessor
from streamproc.core.schemas import (
    ROUTED_AGGREGATE,
    ROUTED_LATE,
    ROUTED_QUARANTINE,
    ROUTED_READING,
)
from streamproc.core.values import (
    PAYLOAD_BYTES_MAX,
    Emission,
    Flag,
    Ignored,
    Reason,
    Reject,
    TimerDecision,
    TopicPartition,
)
from tests.support.readings import Reading, Record, batch_of

ORIGIN = TopicPartition("telemetry.razlog", 0)
ZONES = {"razlog": ZoneInfo("Europe/Sofia"), "ange": UTC}
S = 1_000_000
MINUTE = 60 * S
DAY = 86_400 * S
T0 = 19_700 * DAY

BASE = Definition(
    job="test",
    windows=(WindowSpec("1m", MINUTE, MINUTE, 0),),
    rules=(),
    properties=(
        PropertySpec("pm10", "ug/m3", low=0.0, high=1000.0),
        PropertySpec("temp", "Cel", units=(("[degF]", 5 / 9, -160 / 9),)),
    ),
    cities=(
        CitySpec("ange", "Ånge", "UTC"),
        CitySpec("razlog", "Razlog", "Europe/Sofia"),
    ),
    topic_cities=(("telemetry.razlog", "razlog"),),
)


def processor_of(
    definition: Definition = BASE, topic: str = ORIGIN.topic
) -> PartitionProcessor:
    return PartitionProcessor(TopicPartition(topic, 0), definition, ZONES)


def step(processor: PartitionProcessor, *records: Record, now_us: int = 0) -> Emission:
    emission = processor.step(*batch_of(ORIGIN, records), now_us)
    assert emission.readings.schema == ROUTED_READING
    assert emission.aggregates.schema == ROUTED_AGGREGATE
    assert emission.late.schema == ROUTED_LATE
    assert emission.quarantine.schema == ROUTED_QUARANTINE
    for table in (
        emission.readings,
        emission.aggregates,
        emission.late,
        emission.quarantine,
    ):
        table.validate(full=True)
    return emission


def one(
    offset: int, event_us: int, value: float = 1.0, device: str = "d", **more: Any
) -> Record:
    return Record(offset, (Reading(device, "pm10", event_us, value, **more),))


def values(batch: pa.RecordBatch, name: str) -> list[Any]:
    column = batch.column(name)
    return (
        column.view(pa.int64()).to_pylist()
        if pa.types.is_timestamp(column.type)
        else column.to_pylist()
    )


# --- resolve --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading("d", "noise", T0, 1.0), Reason.UNKNOWN_PROPERTY),
        (Reading("d", "pm10", T0, 1.0, unit="mg/m3"), Reason.UNKNOWN_UNIT),
        (Reading("d", "temp", T0, 1.0, unit="ug/m3"), Reason.UNKNOWN_UNIT),
        (Reading("d", "pm10", -9 * 10**15, 1.0), Reason.BAD_TIME),
        (Reading("d", "pm10", 8 * 10**15, 1.0), Reason.BAD_TIME),
        (Reading("d", "pm10", T0 + 300 * S + 1, 1.0), Reason.FUTURE),
        (Reading("d", "pm10", T0 - DAY - 1, 1.0), Reason.PAST),
        (Reading("d", "pm10", T0, float("inf")), Reason.BAD_VALUE),
        (Reading("d", "pm10", T0, float("nan")), Reason.BAD_VALUE),
        (Reading("stray", "pm10", T0, 1.0), Reason.UNKNOWN_DEVICE),
    ],
)
def test_one_bad_reading_puts_its_whole_record_into_quarantine(
    reading: Reading, reason: Reason
) -> None:
    definition = replace(BASE, past_us=DAY, devices=(DeviceSpec("ange", "stray"),))
    processor = processor_of(definition)
    good = Reading("other", "pm10", T0, 5.0)

    emission = step(
        processor,
        Record(7, (good, reading), broker_us=T0, payload=b"bad"),
        one(8, T0, 2.0),
    )

    assert values(emission.quarantine, "reason") == [reason.value]
    assert values(emission.quarantine, "offset") == [7]
    assert values(emission.quarantine, "payload") == [b"bad"]
    assert values(emission.quarantine, "detail")[0].startswith("reading 1: ")
    assert values(emission.readings, "offset") == [8]
    assert processor.series_count == 1
    assert processor.watermarks == {"razlog": T0}
    assert emission.counts.quarantined == {("razlog", reason.value): 1}
    assert emission.counts.readings == {"razlog": 1}


def test_rejects_of_decoder_and_resolve_are_ordered_by_offset_and_bounded() -> None:
    huge = b"x" * (PAYLOAD_BYTES_MAX + 5)
    emission = step(
        processor_of(),
        Record(3, (Reading("d", "noise", T0, 1.0),), broker_us=T0),
        Record(4, broker_us=-1, reject=Reject(0, Reason.MALFORMED, "?"), payload=huge),
        Record(5, broker_us=T0, reject=Reject(0, Reason.EMPTY, "null"), payload=None),
        Record(9, (Reading("d", "noise", T0, 1.0),), broker_us=10**18),
    )

    quarantine = emission.quarantine
    assert values(quarantine, "offset") == [3, 4, 5, 9]
    assert values(quarantine, "broker_time") == [T0, None, T0, 10**18]
    assert values(quarantine, "payload_bytes") == [2, len(huge), 0, 2]
    assert [None if p is None else len(p) for p in values(quarantine, "payload")] == [
        2,
        PAYLOAD_BYTES_MAX,
        None,
        2,
    ]
    assert str(values(quarantine, "date")[1]) == "1970-01-01"
    assert set(values(quarantine, "city")) == {"razlog"}


def test_an_ignored_record_is_counted_and_leaves_no_row() -> None:
    records, decoded = batch_of(ORIGIN, [one(offset, T0) for offset in range(3)])
    readings = decoded.readings.slice(0, 1)
    ignored = (Ignored(1, "join"), Ignored(2, "status"))

    emission = processor_of().step(
        records, replace(decoded, readings=readings, ignored=ignored), 0
    )

    assert emission.counts.records == 3
    assert emission.counts.readings == {"razlog": 1}
    assert emission.counts.ignored == {("razlog", "join"): 1, ("razlog", "status"): 1}
    assert emission.counts.quarantined == {}
    assert emission.quarantine.num_rows == 0


def test_a_topic_without_city_places_readings_by_the_device_list() -> None:
    definition = replace(
        BASE, devices=(DeviceSpec("ange", "a"), DeviceSpec("razlog", "r"))
    )
    processor = processor_of(definition, "shared")

    emission = step(
        processor,
        one(1, T0, device="a"),
        one(2, T0, device="r"),
        one(3, T0, device="stray"),
    )

    assert values(emission.readings, "city") == ["ange", "razlog"]
    assert values(emission.quarantine, "city") == ["_unknown"]
    assert values(emission.quarantine, "reason") == ["unknown_device"]
    assert processor.watermarks == {"ange": T0, "razlog": T0}


def test_without_any_device_list_such_a_record_has_an_unknown_city() -> None:
    emission = step(processor_of(topic="shared"), one(1, T0))

    assert values(emission.quarantine, "reason") == ["unknown_city"]


def test_units_are_converted_calibrated_and_flagged() -> None:
    definition = replace(
        BASE,
        devices=(
            DeviceSpec("razlog", "d", scale=2.0, offset=1.0),
            DeviceSpec("razlog", "e"),
        ),
    )
    emission = step(
        processor_of(definition),
        Record(
            1,
            (
                Reading("d", "temp", T0, 212.0, unit="[degF]"),
                Reading("e", "temp", T0, 7.0, unit="Cel"),
                Reading("e", "temp", T0 + 1, 7.0),
                Reading("e", "pm10", T0, 1000.5),
                Reading("f", "pm10", T0, 3.0, flags=int(Flag.STRING_NUMBER)),
            ),
        ),
    )

    assert values(emission.readings, "value") == pytest.approx(
        [201.0, 7.0, 7.0, 1000.5, 3.0]
    )
    assert values(emission.readings, "flags") == [
        Flag.CALIBRATED,
        0,
        Flag.UNIT_DEFAULTED,
        Flag.OUT_OF_RANGE,
        Flag.UNREGISTERED | Flag.STRING_NUMBER,
    ]


def test_the_device_cap_counts_devices_and_a_refused_record_none() -> None:
    processor = processor_of(replace(BASE, devices_max=2))
    both = tuple(Reading(d, "pm10", T0, 1.0) for d in ("a", "b", "c"))
    emission = step(
        processor,
        Record(1, both),
        one(2, T0, device="x"),
        one(3, T0, device="y"),
        one(4, T0, device="z"),
        one(5, T0 + 1, device="x"),
    )

    assert values(emission.quarantine, "offset") == [1, 4]
    assert set(values(emission.quarantine, "reason")) == {"device_cap"}
    assert values(emission.readings, "device") == ["x", "y", "x"]


def test_ingest_time_is_broker_time_or_else_event_time() -> None:
    emission = step(
        processor_of(),
        Record(1, (Reading("d", "pm10", T0, 1.0),), broker_us=T0 + 5),
        one(2, T0 + 1),
    )

    assert values(emission.readings, "ingest_time") == [T0 + 5, T0 + 1]


def test_dates_are_local_and_columns_of_the_path() -> None:
    # 22:30 UTC is the next day in Sofia.
    processor = processor_of()
    late_evening = T0 + 22 * 3600 * S + 30 * MINUTE
    emission = step(processor, one(1, late_evening), one(2, late_evening + 2 * MINUTE))

    assert [str(d) for d in values(emission.readings, "date")] == ["2023-12-10"] * 2
    assert [str(d) for d in values(emission.aggregates, "date")] == ["2023-12-10"]
    assert values(emission.aggregates, "window") == ["1m"]


# --- watermark, late parts, timers ----------------------------------------------------


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


# --- a new definition, forgetting -----------------------------------------------------


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


def test_a_batch_without_records_is_an_empty_emission() -> None:
    emission = step(processor_of())

    assert emission.readings.num_rows == 0
    assert emission.counts.records == 0
    assert processor_of().state_bytes > 0
