"""What decoding flat JSON costs by the way producers write it; ns per record as elsewhere."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import workloads as w
from bench.preload import document
from bench.test_stages import per_row
from streamproc.codecs.encode import WireReading, encode_json_many, rfc3339
from streamproc.codecs.select import make_decoder

ROWS = 50_000
DEVICES = 10_000


def compact(sequence: int, reading: WireReading) -> bytes:
    """145 bytes, with keys nobody asked for."""
    time = rfc3339(reading.time_us)
    number = int(reading.device.removeprefix("razlog-"))
    return document(sequence, number, reading.property, time, reading.value)


def spaced(sequence: int, reading: WireReading) -> bytes:
    return json.dumps(json.loads(compact(sequence, reading))).encode()


def epoch(sequence: int, reading: WireReading) -> bytes:
    found: dict[str, Any] = json.loads(compact(sequence, reading))
    found["time"] = reading.time_us // 1000
    return json.dumps(found, separators=(",", ":")).encode()


def four_values(_: int, reading: WireReading) -> bytes:
    values = {name: reading.value + k for k, name in enumerate(w.PROPERTIES)}
    return encode_json_many(reading.device, reading.time_us, values)


WRITERS: dict[str, tuple[Callable[[int, WireReading], bytes], ...]] = {
    "compact": (compact,),
    "spaced": (spaced,),
    "epoch": (epoch,),
    "four values": (four_values,),
    "three producers": (compact, spaced, epoch),
}


@pytest.mark.parametrize("name", WRITERS)
def test_decode_json(benchmark: BenchmarkFixture, name: str) -> None:
    rng = random.Random(1)
    readings = w.wire_readings(ROWS, DEVICES)
    rng.shuffle(readings)
    values = [rng.choice(WRITERS[name])(k, one) for k, one in enumerate(readings)]
    decoder, records = make_decoder("json"), w.records(values)
    assert decoder.decode(records).readings.num_rows >= ROWS

    benchmark(decoder.decode, records)

    per_row(benchmark, ROWS)
