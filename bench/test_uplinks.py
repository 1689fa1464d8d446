"""What decoding ChirpStack's uplinks costs by what is in them; ns per uplink."""

import json
import random
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import workloads as w
from bench.test_stages import per_row
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.encode import WireReading, encode_uplink
from streamproc.codecs.select import make_decoder

ROWS = 20_000
DEVICES = 10_000
OPTIONS = ChirpStackOptions(
    properties={"temperature": "temperature", "air.pm10": "pm10", "air.no2": "no2"}
)


def uplink(reading: WireReading) -> bytes:
    """Three readings among five numbers; 1 kB."""
    content = {
        "temperature": reading.value,
        "humidity": 61,
        "battery": 3.61,
        "air": {"pm10": reading.value + 1, "no2": 30.5},
    }
    return encode_uplink(reading.device, reading.time_us, content)


def changed(reading: WireReading, name: str) -> bytes:
    document: dict[str, Any] = json.loads(uplink(reading))
    if name == "three gateways":
        document["rxInfo"] *= 3
    elif name == "nothing mapped":
        document["object"] = {"humidity": 61, "battery": 3.61}
    elif name == "the strict path":
        document["time"] = document["time"].replace("2026", "\\u0032026")
        return json.dumps(document).replace("\\\\", "\\").encode()
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "name", ["three readings", "three gateways", "nothing mapped", "the strict path"]
)
def test_decode_uplinks(benchmark: BenchmarkFixture, name: str) -> None:
    readings = w.wire_readings(ROWS, DEVICES)
    random.Random(1).shuffle(readings)
    decoder = make_decoder("chirpstack", OPTIONS)
    records = w.records([changed(reading, name) for reading in readings])
    decoded = decoder.decode(records)
    assert not decoded.rejects
    expected = 0 if name == "nothing mapped" else 3 * ROWS
    assert decoded.readings.num_rows == expected

    benchmark(decoder.decode, records)

    per_row(benchmark, ROWS)
