"""What a step makes of records: readings, quarantine, counts."""

from dataclasses import replace

import pytest

from streamproc.core.definition import (
    DeviceSpec,
)
from streamproc.core.values import (
    PAYLOAD_BYTES_MAX,
    Flag,
    Ignored,
    Reason,
    Reject,
)
from tests.support.processors import (
    BASE,
    DAY,
    MINUTE,
    ORIGIN,
    T0,
    S,
    one,
    processor_of,
    step,
    values,
)
from tests.support.readings import Reading, Record, batch_of


@pytest.mark.parametrize(
    ("reading", "reason", "detail"),
    [
        (Reading("d", "noise", T0, 1.0), Reason.UNKNOWN_PROPERTY, "property 'noise' is not declared"),
        (Reading("d", "pm10", T0, 1.0, unit="mg/m3"), Reason.UNKNOWN_UNIT, "unit 'mg/m3' is not declared for 'pm10'"),
        (Reading("d", "temp", T0, 1.0, unit="ug/m3"), Reason.UNKNOWN_UNIT, "unit 'ug/m3' is not declared for 'temp'"),
        (Reading("d", "pm10", -9 * 10**15, 1.0), Reason.BAD_TIME, "event time -9000000000000000 us is outside 1700..2200"),
        (Reading("d", "pm10", 8 * 10**15, 1.0), Reason.BAD_TIME, "event time 8000000000000000 us is outside 1700..2200"),
        (Reading("d", "pm10", T0 + 301 * S, 1.0), Reason.FUTURE, "event time is 301.000 s ahead of broker time"),
        (Reading("d", "pm10", T0 + 300 * S + 1, 1.0), Reason.FUTURE, "event time is 300.000 s ahead of broker time"),
        (Reading("d", "pm10", T0 - DAY - S, 1.0), Reason.PAST, "event time is 86401.000 s behind broker time"),
        (Reading("d", "pm10", T0 - DAY - 1, 1.0), Reason.PAST, "event time is 86400.000 s behind broker time"),
        (Reading("d", "pm10", T0, float("inf")), Reason.BAD_VALUE, "value of 'pm10' is not finite in its canonical unit"),
        (Reading("d", "pm10", T0, float("nan")), Reason.BAD_VALUE, "value of 'pm10' is not finite in its canonical unit"),
        (
            Reading("stray", "pm10", T0, 1.0), Reason.UNKNOWN_DEVICE,
            "device 'stray' is registered under 'ange', the topic belongs to 'razlog'",
        ),
    ],
)  # fmt: skip
def test_one_bad_reading_puts_its_whole_record_into_quarantine(
    reading: Reading, reason: Reason, detail: str
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
    assert values(emission.quarantine, "detail") == [f"reading 1: {detail}"]
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
    (detail,) = values(emission.quarantine, "detail")
    assert detail == "reading 0: device 'stray' is not on the device list"
    assert processor.watermarks == {"ange": T0, "razlog": T0}


def test_without_any_device_list_such_a_record_has_an_unknown_city() -> None:
    emission = step(processor_of(topic="shared"), one(1, T0))

    assert values(emission.quarantine, "reason") == ["unknown_city"]
    (detail,) = values(emission.quarantine, "detail")
    assert detail == "reading 0: device 'd': the topic belongs to no city"


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
    assert values(emission.quarantine, "detail") == [
        "reading 2: device 'c' is one more than devices_max = 2",
        "reading 0: device 'z' is one more than devices_max = 2",
    ]
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


def test_a_batch_without_records_is_an_empty_emission() -> None:
    emission = step(processor_of())

    assert emission.readings.num_rows == 0
    assert emission.counts.records == 0
    assert processor_of().state_bytes > 0
