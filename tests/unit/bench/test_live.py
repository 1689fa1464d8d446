"""The parts of `bench.latency`, `bench.load` and `bench.live` that need no broker."""

import io
import json
import math
from typing import Any

import fastavro
import numpy as np
import pytest

from bench.latency import due, latencies, percentiles
from bench.live import summed
from bench.load import Stream, fires_every
from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.shapes import FIRES, NOTHING_UNUSUAL, Power, Readings

NOW_MS = 1_800_000_000_123


def a_stream(**changes: Any) -> Stream:
    given: dict[str, Any] = {
        "servers": "",
        "topic": "",
        "partitions": 4,
        "devices": 10,
        "rate": 1000,
        "seconds": 2,
        "start_us": NOW_MS * 1000,
        "every": 3,
    }
    return Stream(**(given | changes))


# --- latency --------------------------------------------------------------------------


def test_percentiles_are_values_that_were_seen() -> None:
    found = percentiles(range(1, 1001), 1000, (0.5, 0.99, 0.999, 1.0))
    assert found == [500, 990, 999, 1000]
    assert percentiles([7], 1, (0.0, 0.5, 1.0)) == [7, 7, 7]


def test_what_never_came_is_not_left_out() -> None:
    assert percentiles([1] * 98, 100, (0.5, 0.98, 0.99)) == [1, 1, math.inf]


def test_more_alerts_than_were_due_are_a_fault() -> None:
    with pytest.raises(AssertionError):
        percentiles([1, 2], 1, (0.5,))


def test_an_alert_counts_once_and_the_first_time() -> None:
    alerts = [("a", 10, 25), ("a", 10, 19), ("b", 10, 12), ("a", 11, 99)]
    assert latencies({("a", 10), ("b", 10), ("c", 10)}, alerts) == [9, 2]


def test_readings_of_the_warm_up_are_not_due() -> None:
    stream = a_stream()
    every = due(stream, 0.0)
    assert len(every) == math.ceil(stream.total / stream.every)
    late = due(stream, 1.0)
    assert late < every
    assert min(moment for _, moment in late) == NOW_MS + 1002
    assert ("razlog-0000002", NOW_MS + 1002) in late


@pytest.mark.parametrize("rate", [1, 1_000, 10_000, 50_000, 123_457])
@pytest.mark.parametrize("devices", [10, 1_000, 10_000, 9_973 * 2])
def test_no_device_fires_twice_in_a_row(rate: float, devices: int) -> None:
    every = fires_every(rate, devices)
    numbers = np.arange(0, every * 50, every)
    fires = set(numbers.tolist())
    assert not any(number + devices in fires for number in fires)


# --- the generator --------------------------------------------------------------------


def test_records_are_due_by_plan_whatever_happens() -> None:
    stream = a_stream(rate=3, event_shift_us=-500_000)
    numbers = np.arange(4)
    due_us = stream.due_us(numbers) - stream.start_us
    assert due_us.tolist() == [0, 333_333, 666_666, 1_000_000]
    assert stream.event_ms(numbers)[0] == NOW_MS - 500


def test_a_reading_is_patched_into_its_template() -> None:
    shape = Readings(3)
    made = shape.records(
        np.array([2, 0]),
        np.array([NOW_MS, NOW_MS + 9]),
        np.array([FIRES, NOTHING_UNUSUAL]),
    )
    first, second = (json.loads(value) for value in made)
    assert {len(value) for value in made} == {145}
    assert (first["device"], first["time"], first["value"]) == (
        *("razlog-0000002", NOW_MS, FIRES),
    )
    assert (second["device"], second["time"], second["value"]) == (
        *("razlog-0000000", NOW_MS + 9, NOTHING_UNUSUAL),
    )
    assert shape.keys[2].tobytes() == b"razlog-0000002"


def test_a_power_record_is_what_its_schema_says() -> None:
    schema = fastavro.parse_schema(json.loads(UC2_SCHEMA))
    values = np.array([12.25, 999.99])
    made = Power(5, 7).records(np.array([4, 1]), np.array([NOW_MS, NOW_MS + 1]), values)
    for record, device, at_ms, value in zip(
        made, (4, 1), (NOW_MS, NOW_MS + 1), values, strict=True
    ):
        assert record[:FRAME_BYTES] == b"\0\0\0\0\x07"
        datum = io.BytesIO(record[FRAME_BYTES:])
        assert fastavro.schemaless_reader(datum, schema, None) == {
            "identifier": f"s_{device:07d}",
            "timestamp": at_ms,
            "valueInW": value,
            "property": "power",
        }


# --- the service ----------------------------------------------------------------------


def test_metrics_are_summed_over_their_labels() -> None:
    page = '# HELP a b\na{x="1",y="b c"} 2.0\na{x="2",y="b"} 3e+00\nb 7\n'
    assert summed(page) == {"a": 5.0, "b": 7.0}
