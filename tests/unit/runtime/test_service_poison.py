"""Poisonous records of every format through the whole service: one quarantine row each, no stop."""

import math
from collections.abc import Callable, Mapping
from itertools import chain, zip_longest
from pathlib import Path

import pyarrow as pa
import pytest

from streamproc.codecs.encode import WireReading, encode_uplink, varint
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import Reason, TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.failpoints import verified_logs
from tests.support.formats import FORMATS
from tests.support.service import (
    RAZLOG,
    START_US,
    Rig,
    accounted,
    published,
    reading,
    readings_of,
)

P0 = TopicPartition(RAZLOG, 0)
DEEP = 100_000
FITS = 30_000
"""Levels of a record that is not refused for its size alone."""

DIGITS = b"9" * 10_000
SURROGATE = b"\xed\xa0\x80"
"""U+D800 as UTF-8 would have it, if it might."""

Poison = tuple[bytes, Reason]

GOOD_JSON = reading(0, 12.5, "dXYZ")
GOOD_UPLINK = encode_uplink("dXYZ", START_US, {"pm10": 12.5})


def reading_of(number: int, value: float = 12.5, device: str = "") -> WireReading:
    device = device or f"d{number}"
    return WireReading(device, "pm10", START_US + number * 1_000_000, value)


def document_poison(good: bytes) -> list[Poison]:
    """Return what is poison in any JSON document with a value 12.5 and a device `dXYZ`."""
    nested = good[:-1] + b',"more":' + b"[" * FITS + b"]" * FITS + b"}"
    return [
        (b"{nonsense", Reason.MALFORMED),
        (b"[" * DEEP + b"]" * DEEP, Reason.TOO_LARGE),
        (b"[" * FITS + b"]" * FITS, Reason.MALFORMED),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, Reason.MALFORMED),
        (nested, Reason.MALFORMED),
        (good.replace(b"12.5", DIGITS), Reason.BAD_VALUE),
        (good.replace(b"12.5", b"-" + DIGITS + b"e9999"), Reason.BAD_VALUE),
        (good.replace(b"12.5", b"NaN"), Reason.MALFORMED),
        (good.replace(b"12.5", b"-Infinity"), Reason.MALFORMED),
        (good.replace(b"dXYZ", rb"d\ud800"), Reason.BAD_TEXT),
        (good.replace(b"dXYZ", b"d" + SURROGATE), Reason.BAD_TEXT),
    ]


def json_poison() -> list[Poison]:
    time = str(START_US // 1000).encode()
    return [
        *document_poison(GOOD_JSON),
        (GOOD_JSON.replace(time, DIGITS), Reason.BAD_VALUE),
        (GOOD_JSON.replace(time, DIGITS[:300]), Reason.BAD_TIME),
        (GOOD_JSON[:-1] + rb',"more":["\udc00"]}', Reason.BAD_TEXT),
    ]


def binary_poison(name: str) -> list[Poison]:
    """Return what is poison in any format with doubles and texts."""
    encode = FORMATS[name].encode
    values = encode([reading_of(0, value) for value in (math.nan, math.inf)])
    (text,) = encode([reading_of(0, device="dXYZ")])
    return [
        *((value, Reason.BAD_VALUE) for value in values),
        (text.replace(b"dXYZ", b"d" + SURROGATE), Reason.MALFORMED),
        (b"{nonsense", Reason.MALFORMED),
    ]


def avro_poison() -> list[Poison]:
    (good,) = FORMATS["avro"].encode([reading_of(0)])
    time = varint(2 * START_US)
    assert good.count(time) == 1
    return [
        *binary_poison("avro"),
        (good.replace(time, b"\xff" * 10_000), Reason.MALFORMED),
    ]


def protobuf_poison() -> list[Poison]:
    """A group of an unknown field may hold groups; a varint goes on as long as it says so."""
    (good,) = FORMATS["protobuf"].encode([reading_of(0)])
    begin, end = b"\x7b", b"\x7c"
    return [
        *binary_poison("protobuf"),
        (good + begin * DEEP + end * DEEP, Reason.TOO_LARGE),
        (good + begin * FITS + end * FITS, Reason.MALFORMED),
        (good + b"\x18" + b"\xff" * 10_000, Reason.MALFORMED),
    ]


def packed_poison() -> list[Poison]:
    good, *values = FORMATS["packed"].encode(
        [reading_of(0, value) for value in (1.0, math.nan, -math.inf)]
    )
    return [
        *((value, Reason.BAD_VALUE) for value in values),
        (good[:-1], Reason.MALFORMED),
        (good * 3000, Reason.TOO_LARGE),
    ]


def arrow_poison() -> list[Poison]:
    kind: pa.DataType = pa.int8()
    for _ in range(1000):
        kind = pa.list_(kind)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("device", kind)])):
        pass
    deep = sink.getvalue().to_pybytes()
    return [*binary_poison("arrow"), (deep, Reason.MALFORMED)]


POISON: Mapping[str, Callable[[], list[Poison]]] = {
    "json": json_poison,
    "avro": avro_poison,
    "protobuf": protobuf_poison,
    "packed": packed_poison,
    "arrow": arrow_poison,
    "chirpstack": lambda: document_poison(GOOD_UPLINK),
}


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.fault(
    "F35",
    how="depth 10⁵, numbers of 10⁴ digits, NaN, lone surrogates between good records, every format",
    seen="one quarantine row each with its reason, every good record read, the log at the end",
)
async def test_poisonous_records_get_a_quarantine_row_each_and_hold_up_nobody(
    tmp_path: Path, name: str, cut: int
) -> None:
    form, poison = FORMATS[name], POISON[name]()
    good = form.encode([reading_of(number) for number in range(len(poison) + 1)])
    pairs = zip_longest(good, [payload for payload, _ in poison])
    values = list(chain.from_iterable(pairs))[:-1]
    source = ScriptedSource({RAZLOG: 1}, records_max=cut)
    source.produce(P0, values)
    options = ServiceOptions(until_end=True, close=True)
    flush = FlushPolicy(rows_max=5)
    rig = Rig(
        *(tmp_path, source, ManualClock()),
        flush=flush,
        options=options,
        decoder=form.decoder,
    )
    await rig.run()

    refused = sorted(
        (r["offset"], r["reason"]) for r in published(tmp_path, "quarantine")
    )
    assert refused == [
        (2 * n + 1, reason.value) for n, (_, reason) in enumerate(poison)
    ]
    assert readings_of(tmp_path) == [(P0.source, 2 * n, 0) for n in range(len(good))]
    assert accounted(tmp_path) == [(P0.source, n) for n in range(len(values))]
    assert not rig.watch.failures
    (log,) = verified_logs(tmp_path).values()
    assert log[-1].next == len(values)
    assert sum(record.counts.quarantined for record in log) == len(poison)
