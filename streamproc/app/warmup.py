"""Compiling every kernel before it is needed: a pass of every codec through everything."""

import time
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pyarrow as pa

from streamproc import kernels
from streamproc.codecs.encode import (
    WireReading,
    encode_arrow,
    encode_avro,
    encode_json,
    encode_json_many,
    encode_protobuf,
)
from streamproc.codecs.select import make_decoder
from streamproc.codecs.strict import FieldOptions
from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.config.zones import zone
from streamproc.connectors.parquet_scatter import split
from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
    WindowSpec,
)
from streamproc.core.fingerprint import fingerprint_of
from streamproc.core.ports import Decoder, WireSchema
from streamproc.core.processor import PartitionProcessor
from streamproc.core.schemas import READING
from streamproc.core.values import OffsetSpan, Records, TopicPartition

MINUTE_US = 60_000_000
READINGS_PER_DEVICE = 80
ORIGIN = TopicPartition("warmup", 0)


def warm_up() -> dict[str, float]:
    """Run every kernel once on a little data; return how many came from the cache."""
    began = time.perf_counter()
    for name, decoder in _decoders().items():
        for values in _payloads(name):
            records = _records(values)
            decoded = decoder.decode(records)
            assert not decoded.rejects, decoded.rejects
            _process(records, decoder)
    hits, misses = _cache_counts()
    seconds = round(time.perf_counter() - began, 3)
    return {"compiled": misses, "cached": hits, "seconds": seconds}


def _decoders() -> Mapping[str, Decoder]:
    avro, protobuf = make_decoder("avro"), make_decoder("protobuf", _PROTOBUF)
    avro.learn(1, WireSchema("avro", READING_AVSC))
    protobuf.learn(1, WireSchema("protobuf", READING_PROTO))
    return {
        "json": make_decoder("json"),
        "avro": avro,
        "protobuf": protobuf,
        "arrow": make_decoder("arrow"),
    }


_PROTOBUF = FieldOptions(time="time_us", time_unit="us")


def _payloads(name: str) -> list[list[bytes]]:
    readings = [
        WireReading(f"device-{n % 2}", "warm", (n // 2) * 2 * MINUTE_US // 3, 1.5 + n)
        for n in range(2 * READINGS_PER_DEVICE)
    ]
    if name == "json":
        many = [encode_json_many("d", n * MINUTE_US, {"warm": 1.0}) for n in range(9)]
        return [encode_json(readings), many]
    if name == "avro":
        return [encode_avro(readings, 1)]
    if name == "protobuf":
        return [encode_protobuf(readings, 1)]
    return [[encode_arrow(readings)]]


def _records(values: list[bytes]) -> Records:
    count = len(values)
    return Records(
        ORIGIN,
        np.arange(count, dtype=np.int64),
        np.full(count, 10**15, np.int64),
        pa.array(values, pa.binary()),
        pa.nulls(count, pa.binary()),
        OffsetSpan(0, count),
    )


def _definition(watermark: str) -> Definition:
    windows = (
        WindowSpec("tumbling", MINUTE_US, MINUTE_US, 0, (0.5,)),
        WindowSpec("hopping", 3 * MINUTE_US, MINUTE_US, 0),
        WindowSpec("long", 600 * MINUTE_US, 600 * MINUTE_US, 0, (0.95,)),
    )
    rules = (
        RuleSpec("reading", "warm", None, "value > 9", "value < 5", 1, "info", 90),
        RuleSpec("window", "warm", "tumbling", "mean > 9", None, MINUTE_US, "info"),
    )
    return Definition(
        job="warmup",
        windows=windows,
        rules=rules,
        properties=(PropertySpec("warm", "1"),),
        cities=(CitySpec("town", "Town", "Europe/Sofia"),),
        devices=(DeviceSpec("town", "device-0", 1_000_000),),
        topic_cities=((ORIGIN.topic, "town"),),
        watermark="device" if watermark == "device" else "city",
    )


def _process(records: Records, decoder: Decoder) -> None:
    for watermark in ("city", "device"):
        definition = _definition(watermark)
        zones = {"town": zone("Europe/Sofia")}
        processor = PartitionProcessor(ORIGIN, definition, zones)
        emission = processor.step(records, decoder.decode(records), 0)
        for _ in split([emission.readings], READING):
            pass
        # The same readings again are late for what is closed: the late path.
        processor.step(records, decoder.decode(records), 0)
        processor.cut(1)
        restored = PartitionProcessor.restore(
            ORIGIN, definition, zones, processor.snapshot(), 0
        )
        for timer in restored.finals(len(records)):
            restored.take(timer, 0)
        fingerprint_of(records, 0)


def _cache_counts() -> tuple[int, int]:
    """Return (signatures loaded from the cache, signatures compiled now)."""
    hits = misses = 0
    for module in iter_modules(kernels.__path__):
        loaded = import_module(f"{kernels.__name__}.{module.name}")
        for item in vars(loaded).values():
            stats = getattr(item, "stats", None)
            if stats is not None and item.__module__ == loaded.__name__:
                hits += sum(stats.cache_hits.values())
                misses += sum(stats.cache_misses.values())
    return hits, misses
