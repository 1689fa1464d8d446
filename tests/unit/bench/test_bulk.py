"""Batches made whole are what records written one by one would be, and all are sent."""

import io
import json
from dataclasses import replace

import fastavro
import numpy as np
import pytest
from aiokafka.codec import lz4_decode, zstd_decode
from crc32c import crc32c

from bench.batches import Template
from bench.bulk import RECORDS_MAX, Plan, shape_of
from bench.load import Stream
from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.shapes import FIRES, NOTHING_UNUSUAL, Power, Readings, Shape
from streamproc.kernels import record_batch as kernels
from tests.support.batches import Batch, Rec, Seen, naive_scan, naive_walk

NOW_MS = 1_800_000_000_123
UNPACK = {"none": bytes, "lz4": lz4_decode, "zstd": zstd_decode}
SCHEMA = fastavro.parse_schema(json.loads(UC2_SCHEMA))


def template(shape: Shape, devices: list[int], moved_ms: list[int]) -> Template:
    made = Template(shape, np.array(devices), np.array(moved_ms))
    made.put_values(np.full(len(devices), 112.5))
    made.put_times(NOW_MS + np.arange(len(devices)))
    return made


def seen(batch: bytes, codec: str) -> list[Seen]:
    """Return the one batch's records as the slow reader sees them."""
    ((row,), end, code) = naive_scan(batch)
    assert (end, code) == (len(batch), kernels.DONE)
    assert crc32c(batch[kernels.CRC_FROM :]) == row[kernels.CRC]
    body = UNPACK[codec](batch[row[kernels.START] + kernels.HEADER_BYTES :])
    columns = np.array([row[column] for column in sorted(row)], np.int64)
    assert sorted(row) == list(range(len(columns)))
    return naive_walk(body, columns, 0, kernels.OFFSET_END)[0]


@pytest.mark.parametrize("codec", UNPACK)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 8_191, 8_192, 8_193, 9_000])
def test_a_batch_has_every_record_in_order(codec: str, count: int) -> None:
    moved_ms = np.arange(count) // 7
    shape = Readings(count)
    made = template(shape, list(range(count)), moved_ms.tolist())
    found = seen(made.batch(NOW_MS, codec), codec)
    assert [offset for offset, *_ in found] == list(range(count))
    assert [at_us for _, at_us, *_ in found] == ((NOW_MS + moved_ms) * 1000).tolist()
    assert [key for *_, key, _ in found] == [b"razlog-%07d" % n for n in range(count)]
    values = [json.loads(value or b"") for *_, value in found]
    assert [value["time"] for value in values] == [NOW_MS + n for n in range(count)]
    assert {value["value"] for value in values} == {112.5}


def test_a_batch_is_byte_for_byte_what_an_encoder_writes() -> None:
    shape = Power(100, 7)
    devices = list(range(0, 100, 3))
    moved_ms = [4 * n for n in range(len(devices))]
    made = template(shape, devices, moved_ms)
    values = shape.records(
        np.array(devices),
        NOW_MS + np.arange(len(devices)),
        np.full(len(devices), 112.5),
    )
    records = [
        Rec(n, value, b"s_%07d" % device, moved)
        for n, (device, value, moved) in enumerate(
            zip(devices, values, moved_ms, strict=True)
        )
    ]
    by_hand = Batch(5, records, first_ms=NOW_MS, max_ms=NOW_MS + moved_ms[-1])
    said, expected = bytearray(made.batch(NOW_MS, "none", base=5)), by_hand.encode()
    for epoch in (slice(12, 16), slice(17, 21), slice(51, 57)):
        # Leader and producer epochs and the sequence: whatever, where there is no producer id.
        said[epoch] = expected[epoch]
    assert bytes(said) == expected


def test_the_first_records_alone_are_a_batch() -> None:
    made = template(Readings(100), list(range(100)), list(range(100)))
    part = made.batch(NOW_MS, "none", count=65)
    assert seen(part, "none") == seen(made.batch(NOW_MS, "none"), "none")[:65]


def a_stream(devices: int, rate: float, seconds: float) -> Stream:
    return Stream(
        servers="",
        topic="",
        partitions=4,
        devices=devices,
        rate=rate,
        seconds=seconds,
        start_us=NOW_MS * 1000,
        event_shift_us=-5_000_000,
        linger_ms=20.0,
        schema_id=3,
        compression="none",
    )


@pytest.mark.parametrize(
    "stream",
    [
        *(a_stream(1, 1, 3), a_stream(3, 3, 2), a_stream(1_003, 1_003, 2.5)),
        *(a_stream(50_000, 50_000, 1.31), replace(a_stream(700, 70, 4), partitions=1)),
    ],
    ids=lambda stream: f"{stream.devices}",
)
def test_every_record_is_in_one_batch_with_its_own_times(stream: Stream) -> None:
    plan = Plan(stream, Power(stream.devices, stream.schema_id))
    found: dict[tuple[bytes, int], int] = {}
    for lap in range(-(-stream.total // stream.devices)):
        for slot in range(len(plan.slots)):
            for partition, batch in plan.batches(lap, slot):
                for _, at_us, key, value in seen(batch, "none"):
                    assert key is not None
                    assert value is not None
                    assert int(key[2:]) % stream.partitions == partition
                    assert at_us <= plan.due_us(lap, slot)
                    datum = fastavro.schemaless_reader(
                        io.BytesIO(value[FRAME_BYTES:]), SCHEMA, None
                    )
                    assert isinstance(datum, dict)
                    assert datum["identifier"].encode() == key
                    found[key, datum["timestamp"]] = at_us // 1000
    numbers = np.arange(stream.total)
    event_ms, due_ms = stream.event_ms(numbers), stream.due_us(numbers) // 1000
    assert found.keys() == {
        (b"s_%07d" % (number % stream.devices), moment)
        for number, moment in enumerate(event_ms.tolist())
    }
    told = np.array(
        [
            found[b"s_%07d" % (number % stream.devices), moment]
            for number, moment in enumerate(event_ms.tolist())
        ]
    )
    assert np.abs(told - due_ms).max() <= 1


def test_readings_fire_as_often_as_those_sent_one_by_one() -> None:
    stream = replace(a_stream(100, 1_000, 1.0), schema_id=0, every=7)
    plan = Plan(stream, shape_of(stream))
    fired = set()
    for lap in range(stream.total // stream.devices):
        for slot in range(len(plan.slots)):
            for _, batch in plan.batches(lap, slot):
                for *_, value in seen(batch, "none"):
                    reading = json.loads(value or b"")
                    assert reading["value"] in {FIRES, NOTHING_UNUSUAL}
                    if reading["value"] == FIRES:
                        fired.add((reading["device"], reading["time"]))
    numbers = np.arange(0, stream.total, 7)
    assert fired == {
        (f"razlog-{number % stream.devices:07d}", moment)
        for number, moment in zip(numbers, stream.event_ms(numbers), strict=True)
    }


def test_no_batch_is_longer_than_a_client_would_make_it() -> None:
    stream = a_stream(1_000_000, 1_000_000, 1)
    plan = Plan(stream, Power(stream.devices, 1))
    lengths = [len(lane.devices) for slot in plan.slots for lane in slot]
    assert sum(lengths) == stream.devices
    assert max(lengths) <= RECORDS_MAX
    late_us = plan.due_us(0, 0) - stream.start_us
    assert late_us <= stream.linger_ms * 1000
