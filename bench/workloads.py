"""The data the benches run on: many devices, one reading a minute each, city `razlog`."""

from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa

from streamproc.app.costing import decoded_batch
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_json,
    encode_packed,
    encode_protobuf,
    encode_uplink,
)
from streamproc.codecs.packed_strict import PackedOptions
from streamproc.core.definition import (
    CitySpec,
    Definition,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.payloads import Payloads
from streamproc.core.values import Decoded, OffsetSpan, Records, TopicPartition

MINUTE_US = 60_000_000
PACKED = PackedOptions(
    size=24,
    device_at=0,
    device_type="u32",
    device_prefix="razlog-",
    property_at=4,
    property_type="u16",
    properties=dict(enumerate(("pm10", "pm2_5", "no2", "temperature"))),
    time_at=8,
    time_type="i64",
    time_unit="us",
    value_at=16,
    value_type="f64",
)
UPLINKS = ChirpStackOptions(
    properties={f"air.{name}": name for name in ("pm10", "pm2_5", "no2", "temperature")}
)
START_US = 1_772_323_200_000_000
TOPIC = "telemetry.razlog"
ORIGIN = TopicPartition(TOPIC, 0)
PROPERTIES = ("pm10", "pm2_5", "no2", "temperature")

WINDOW_1M = WindowSpec("1m", MINUTE_US, MINUTE_US, 30_000_000)
FULL_WINDOWS = tuple(
    WindowSpec(name, size, size, 30_000_000, (0.5, 0.95))
    for name, size in (
        ("1m", MINUTE_US),
        ("15m", 15 * MINUTE_US),
        ("1h", 60 * MINUTE_US),
    )
)


def definition(profile: str) -> Definition:
    """HOT_PATH's two profiles: `core` and `full` (without second-stage parts)."""
    names = PROPERTIES if profile == "full" else PROPERTIES[:1]
    rules = tuple(
        RuleSpec(f"{name}-high", name, None, "value > 890", "value < 880", 0, "warning")
        for name in names
    )
    return Definition(
        job="bench",
        windows=FULL_WINDOWS if profile == "full" else (WINDOW_1M,),
        rules=rules,
        properties=tuple(PropertySpec(name, "ug/m3") for name in PROPERTIES),
        cities=(CitySpec("razlog", "Razlog", "Europe/Sofia"),),
        topic_cities=((TOPIC, "razlog"),),
    )


def with_rules(made: Definition, rules: tuple[RuleSpec, ...]) -> Definition:
    return replace(made, rules=rules)


def with_lateness(made: Definition, minutes: int) -> Definition:
    """Return the definition with windows of a minute that stay open for `minutes` more."""
    window = replace(made.windows[0], lateness_us=minutes * MINUTE_US)
    return replace(made, windows=(window,))


def columns(
    rows: int, devices: int, lap: int = 0, interval_us: int = MINUTE_US
) -> dict[str, np.ndarray]:
    """Return device number, property number, event time and value of `rows` readings.

    A device reports once an interval, up to 5 s late but never out of its own order.
    """
    rng = np.random.default_rng(lap + 1)
    index = np.arange(lap * rows, (lap + 1) * rows, dtype=np.int64)
    device = index % devices
    event_us = (
        START_US
        + index // devices * interval_us
        + index % devices * (interval_us // max(devices, 1))
    )
    event_us = event_us - rng.integers(0, min(5_000_000, interval_us * 5 // 6), rows)
    value = np.round(rng.gamma(4.0, 7.0, rows), 1)
    return {
        "device": device,
        "property": device % len(PROPERTIES),
        "event_us": event_us // 1000 * 1000,
        "value": value,
    }


def wire_readings(rows: int, devices: int) -> list[WireReading]:
    found = columns(rows, devices)
    return [
        WireReading(f"razlog-{int(d):07d}", PROPERTIES[int(p)], int(t), float(v))
        for d, p, t, v in zip(
            found["device"],
            found["property"],
            found["event_us"],
            found["value"],
            strict=True,
        )
    ]


def records(values: list[bytes], start: int = 0) -> Records:
    count = len(values)
    return Records(
        ORIGIN,
        np.arange(start, start + count, dtype=np.int64),
        np.full(count, START_US + 10**13, np.int64),
        Payloads.of(values),
        Payloads.nulls(count),
        OffsetSpan(start, start + count),
    )


def encoded(name: str, rows: int, devices: int) -> list[bytes]:
    readings = wire_readings(rows, devices)
    if name == "json":
        return encode_json(readings)
    if name == "avro":
        return encode_avro(readings, 1)
    if name == "protobuf":
        return encode_protobuf(readings, 1)
    if name == "packed":
        return [encode_packed([reading], PACKED) for reading in readings]
    if name == "chirpstack":
        return [uplink(reading) for reading in readings]
    return [encode_arrow(readings[i : i + 1000]) for i in range(0, rows, 1000)]


def uplink(reading: WireReading) -> bytes:
    """Return an uplink of 1 kB with one reading and three leaves that are not mapped."""
    content = {
        "battery": 3.61,
        "status": "ok",
        "air": {reading.property: reading.value, "raw": 417},
    }
    return encode_uplink(reading.device, reading.time_us, content)


def decoded(rows: int, devices: int, lap: int = 0) -> tuple[Records, Decoded]:
    """Return a batch as a decoder would hand it over, with its (empty) payloads."""
    found = columns(rows, devices, lap)
    names, vocabulary = vocabulary_of(devices)
    kinds = found["property"], pa.array(PROPERTIES)
    batch = decoded_batch(
        (found["device"], names), kinds, found["event_us"], found["value"]
    )
    return records([b""] * rows, lap * rows), Decoded(batch, (), vocabulary)


@cache
def vocabulary_of(devices: int) -> tuple[pa.StringArray, object]:
    """Return the names of so many devices as a decoder keeps them from batch to batch."""
    names = [f"razlog-{device:07d}" for device in range(devices)]
    return pa.array(names, pa.string()), object()
