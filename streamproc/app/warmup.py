"""Compiling every kernel before it is needed: all codecs, then whole replays.

A kernel compiles once per set of argument types, so everything that `run` and `replay` do
is done here once on a little data: through the codecs, through a processor of each kind,
from a record batch, and by two replays into a throw-away root, the way files really travel. Nothing else is
touched, and no configuration is read.
"""

import asyncio
import gzip
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from streamproc import kernels
from streamproc.app.replay import replay_files
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_json,
    encode_json_many,
    encode_packed,
    encode_protobuf,
    encode_uplink,
)
from streamproc.codecs.packed_strict import PackedOptions
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import FieldOptions
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.config import load as load_settings
from streamproc.config.zones import zone
from streamproc.connectors.files.envelopes import EnvelopeWriter
from streamproc.connectors.kafka_fetch import read_a_batch
from streamproc.connectors.parquet_scatter import split
from streamproc.core import sketch
from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.fingerprint import fingerprint_of
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder, WireSchema
from streamproc.core.processor import PartitionProcessor
from streamproc.core.schemas import READING
from streamproc.core.values import OffsetSpan, Records, TopicPartition

MINUTE_US = 60_000_000
DAY_US = 24 * 60 * MINUTE_US
EVENING_US = 1_772_323_200_000_000 + 21 * 60 * MINUTE_US + 30 * MINUTE_US
"""21:30 UTC on 2026-03-01: an hour of traffic has two local dates in Sofia, so two files."""

READINGS_PER_DEVICE = 80
"""More than a sketch keeps as exact values (32), so that bins are compiled, too."""

DEVICES_MAX = 1000
"""More are decoded only: with a watermark each, a processor takes seconds over their silence."""

CITIES = {"east": "Europe/Sofia", "west": "Europe/Lisbon"}
ORIGIN = TopicPartition("warmup.east", 0)

CONFIG = """
job.name = "warmup"
source = {{ bootstrap_servers = "localhost:9", topics = "warmup.{{city}}" }}
output.root = "{root}"
cities.east.timezone = "Europe/Sofia"
cities.west.timezone = "Europe/Lisbon"
windows = [
  {{ name = "1m", every = "1m", quantiles = [0.5] }},
  {{ name = "3h", every = "1h", size = "3h" }},
]
rules = [
  {{ name = "r", property = "pm10", when = "value > 9", clear = "value < 5", no_data = "5m", severity = "info" }},
  {{ name = "w", property = "pm10", window = "1m", when = "mean > 9", for = "2m", severity = "info" }},
]
[files]
stream = "warmup-files"
city_fixed = "east"
time = "time"
timezone = "UTC"
device = "device"
property = "property"
value = "value"
"""


def warm_up() -> dict[str, float]:
    """Run every kernel once; return how many signatures were compiled, and how many cached.

    Needs a temporary folder (a few MB). Not inside a running event loop.
    """
    began = time.perf_counter()
    for name, decoder in _decoders().items():
        for values in _payloads(name):
            records = _records(values)
            decoded = decoder.decode(records)
            assert not decoded.rejects, decoded.rejects
            if len(records) <= DEVICES_MAX:
                _process(records, decoder)
    read_a_batch(b"value")
    _forget()
    _merge_sketches()
    with TemporaryDirectory(prefix="streamproc-warmup-") as folder:
        _replay(Path(folder))
    hits, misses = cache_counts()
    seconds = round(time.perf_counter() - began, 3)
    return {"compiled": misses, "cached": hits, "seconds": seconds}


def cache_counts() -> tuple[int, int]:
    """Return (signatures loaded from the cache, signatures compiled) in this process."""
    hits = misses = 0
    for module in iter_modules(kernels.__path__):
        loaded = import_module(f"{kernels.__name__}.{module.name}")
        for item in vars(loaded).values():
            stats = getattr(item, "stats", None)
            if stats is not None and item.__module__ == loaded.__name__:
                hits += sum(stats.cache_hits.values())
                misses += sum(stats.cache_misses.values())
    return hits, misses


# --- codecs ---------------------------------------------------------------------------


def _decoders() -> Mapping[str, Decoder]:
    avro, protobuf = make_decoder("avro"), make_decoder("protobuf", _PROTOBUF)
    avro.learn(1, WireSchema("avro", READING_AVSC))
    protobuf.learn(1, WireSchema("protobuf", READING_PROTO))
    return {
        "json": make_decoder("json"),
        "avro": avro,
        "protobuf": protobuf,
        "arrow": make_decoder("arrow"),
        "packed": make_decoder("packed", _PACKED),
        "chirpstack": make_decoder("chirpstack", _UPLINKS),
    }


_PROTOBUF = FieldOptions(time="time_us", time_unit="us")
_PACKED = PackedOptions(
    size=24,
    device_at=0,
    device_type="u32",
    device_prefix="device-",
    property_at=4,
    property_type="u16",
    properties={1: "pm10"},
    time_at=8,
    time_type="i64",
    time_unit="us",
    value_at=16,
    value_type="f64",
)
_UPLINKS = ChirpStackOptions(properties={"air.pm10": "pm10"})


def _payloads(name: str) -> Iterator[list[bytes]]:
    readings = _readings()
    if name == "json":
        yield encode_json(readings)
        yield [
            encode_json_many(f"many-{n}", EVENING_US, {"pm10": 1.0}) for n in range(9)
        ]
        # More names than a decoder's dictionary begins with: it grows.
        yield [
            encode_json_many(f"m-{n}", EVENING_US, {"pm10": 1.0}) for n in range(9_000)
        ]
    elif name == "avro":
        yield encode_avro(readings, 1)
    elif name == "protobuf":
        yield encode_protobuf(readings, 1)
    elif name == "packed":
        yield [encode_packed([reading], _PACKED) for reading in readings]
        # More devices than a name table begins with: it is made anew.
        many = [readings[0]._replace(device=f"device-{n}") for n in range(9_000)]
        yield [encode_packed(many[k : k + 9], _PACKED) for k in range(0, 9_000, 9)]
    elif name == "chirpstack":
        yield [
            encode_uplink(one.device, one.time_us, {"air": {"pm10": one.value}})
            for one in readings
        ]
    else:
        # The second one is framed like the first: another kernel's.
        yield [encode_arrow(readings[::2]), encode_arrow(readings[1::2])]


def _readings(start_us: int = EVENING_US) -> list[WireReading]:
    """Return readings of two devices, 40 s apart, in order of time."""
    every_us = 2 * MINUTE_US // 3
    return [
        WireReading(f"device-{n % 2}", "pm10", start_us + n // 2 * every_us, 1.5 + n)
        for n in range(2 * READINGS_PER_DEVICE)
    ]


def _records(values: list[bytes], start: int = 0) -> Records:
    count = len(values)
    return Records(
        ORIGIN,
        np.arange(start, start + count, dtype=np.int64),
        np.full(count, EVENING_US + 100 * DAY_US, np.int64),
        Payloads.of(values),
        Payloads.nulls(count),
        OffsetSpan(start, start + count),
    )


# --- the processor --------------------------------------------------------------------


def _definition(**changes: Any) -> Definition:
    windows = (
        WindowSpec("tumbling", MINUTE_US, MINUTE_US, 0, (0.5,)),
        WindowSpec("hopping", 3 * MINUTE_US, MINUTE_US, 0),
        WindowSpec("long", 600 * MINUTE_US, 600 * MINUTE_US, 0, (0.95,)),
    )
    rules = (
        RuleSpec("reading", "pm10", None, "value > 9", "value < 5", 1, "info", 90),
        RuleSpec("window", "pm10", "tumbling", "mean > 9", None, MINUTE_US, "info"),
    )
    made = Definition(
        job="warmup",
        windows=windows,
        rules=rules,
        properties=(PropertySpec("pm10", "ug/m3", states=(("high", 1.0),)),),
        cities=tuple(CitySpec(slug, slug, tz) for slug, tz in CITIES.items()),
        devices=(DeviceSpec("east", "device-0", 1_000_000),),
        topic_cities=((ORIGIN.topic, "east"),),
        dedup=2,
    )
    return replace(made, **changes)


def _process(records: Records, decoder: Decoder) -> None:
    zones = {slug: zone(name) for slug, name in CITIES.items()}
    for definition in (_definition(), _definition(watermark="device")):
        processor = PartitionProcessor(ORIGIN, definition, zones)
        emission = processor.step(records, decoder.decode(records), 0)
        for _ in split([emission.readings], READING):
            pass
        # The same readings again are late for what is closed: the late path.
        processor.step(records, decoder.decode(records), 0)
        processor.cut(1)
        for timer in processor.due(DAY_US, MINUTE_US, len(records)):
            processor.take(timer, 0)
        restored = PartitionProcessor.restore(
            ORIGIN, definition, zones, processor.snapshot(), 0
        )
        for timer in restored.finals(len(records)):
            restored.take(timer, 0)
        refolded = PartitionProcessor(ORIGIN, definition, zones)
        refolded.refold(pa.Table.from_batches([emission.readings]))
        fingerprint_of(records, 0)


def _forget() -> None:
    """Let a snapshot drop what was silent too long."""
    definition = _definition(forget_us=DAY_US)
    zones = {slug: zone(name) for slug, name in CITIES.items()}
    processor = PartitionProcessor(ORIGIN, definition, zones)
    decoder = make_decoder("json")
    for day in (0, 40):
        later = [
            reading._replace(device=f"of-day-{day}")
            for reading in _readings(EVENING_US + day * DAY_US)
        ]
        records = _records(encode_json(later), day * len(later))
        processor.step(records, decoder.decode(records), 0)
    processor.cut(1)
    processor.snapshot()


def _merge_sketches() -> None:
    few, many = np.arange(9.0), np.arange(90.0)
    sketch.quantile(sketch.merge([sketch.encode(few), sketch.encode(many)]), 0.5)


# --- replays --------------------------------------------------------------------------


def _replay(folder: Path) -> None:
    """Replay envelopes of two towns, and a CSV in long form, into a throw-away root."""
    config = folder / "warmup.toml"
    config.write_text(CONFIG.format(root=folder / "data"))
    settings = load_settings(config, {})
    envelopes, table = folder / "all.ndjson", folder / "long.csv.gz"
    with EnvelopeWriter(str(envelopes)) as writer:
        for city in CITIES:
            records = _records(encode_json(_readings()))
            writer.write_records(
                replace(records, origin=TopicPartition(f"warmup.{city}", 0))
            )
    with gzip.open(table, "wt") as file:
        file.write("time,device,property,value\n")
        for reading in _readings():
            moment = np.datetime64(reading.time_us, "us")
            file.write(f"{moment}Z,{reading.device},pm10,{reading.value}\n")
    for path in (envelopes, table):
        asyncio.run(replay_files(settings, [path], close=True, env={}))
