"""The two topics: their columns, and the records made of them.

The README of this folder says in words what is here in code.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.peers.contract import PARTITIONS, WINDOW_MS

Column = np.ndarray[tuple[int], np.dtype[Any]]

CITY = "razlog"
START_MS = 1_772_323_200_000
VALUE_BYTES = 145
PROPERTIES = ("pm10", "pm2_5", "no2", "temperature")
CITY_PERIOD_MS = 6_000
UC2_PERIOD_MS = 1_000
DISORDER_MS = 5_000
LATE_MS = 300_000
LATE_SHARE = 0.001
LATE_AFTER_MS = LATE_MS + WINDOW_MS
"""Before that there is no minute yet for a late reading to miss."""

FLUSH_AFTER_MS = 120_000
"""How far the last record of each partition is ahead; it closes every window."""

Job = Literal["city", "uc2"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A job on so many records of so many series."""

    job: Job
    records: int
    series: int

    @property
    def topic(self) -> str:
        return f"peers-{self.job}-{self.records}-{self.series}.{CITY}"

    @property
    def sent(self) -> int:
        """How many records lie in the topic, those that close the windows included."""
        return self.records + PARTITIONS

    @property
    def end_ms(self) -> int:
        """Return a time that no reading reaches."""
        period = CITY_PERIOD_MS if self.job == "city" else UC2_PERIOD_MS
        return START_MS + (self.records // self.series + 1) * period


@dataclass(frozen=True, slots=True)
class Columns:
    """What the records say, in the order in which they are sent."""

    series: Column
    time_ms: Column
    value: Column

    @property
    def partition(self) -> Column:
        return self.series % PARTITIONS


@dataclass(frozen=True, slots=True)
class Record:
    partition: int
    key: bytes
    value: bytes


def columns(work: Workload) -> Columns:
    """Return the same columns for the same workload, always; a shorter one is a prefix."""
    return _city(work) if work.job == "city" else _uc2(work)


def _city(work: Workload) -> Columns:
    """Each series reports every six seconds, up to 5 s ago; 0.1 % come 300 s late."""
    order = np.random.default_rng(1).permutation(work.series)
    lap, slot = np.divmod(np.arange(work.records, dtype=np.int64), work.series)
    sent_ms = START_MS + lap * CITY_PERIOD_MS + slot * CITY_PERIOD_MS // work.series
    delay = np.random.default_rng(2).integers(0, DISORDER_MS, work.records)
    late = np.random.default_rng(3).random(work.records) < LATE_SHARE
    late &= sent_ms >= START_MS + LATE_AFTER_MS
    value = np.random.default_rng(4).gamma(4.0, 7.0, work.records).round(1)
    return Columns(order[slot], sent_ms - delay - late * LATE_MS, value)


def _uc2(work: Workload) -> Columns:
    """Each sensor reports every second, in order."""
    order = np.random.default_rng(1).permutation(work.series)
    lap, slot = np.divmod(np.arange(work.records, dtype=np.int64), work.series)
    time_ms = START_MS + lap * UC2_PERIOD_MS + slot * UC2_PERIOD_MS // work.series
    value = np.random.default_rng(4).uniform(0, 1000, work.records).round(2)
    return Columns(order[slot], time_ms, value)


def records(work: Workload, found: Columns, schema_id: int) -> Iterator[Record]:
    """Yield the records, and at the end one a partition that closes all windows."""
    flush_ms = work.end_ms + FLUSH_AFTER_MS
    rows = zip(
        found.series.tolist(), found.time_ms.tolist(), found.value.tolist(), strict=True
    )
    if work.job == "city":
        for number, (series, time_ms, value) in enumerate(rows):
            device = f"razlog-{series:07d}"
            kind = PROPERTIES[series % len(PROPERTIES)]
            body = document(number, device, kind, time_ms, value)
            yield Record(series % PARTITIONS, device.encode(), body)
        for partition in range(PARTITIONS):
            device = f"flush-{partition}"
            body = document(work.records, device, PROPERTIES[0], flush_ms, 0.0)
            yield Record(partition, device.encode(), body)
    else:
        for series, time_ms, value in rows:
            sensor = b"s_%d" % series
            body = power_record(schema_id, sensor, time_ms, value)
            yield Record(series % PARTITIONS, sensor, body)
        for partition in range(PARTITIONS):
            sensor = b"flush-%d" % partition
            body = power_record(schema_id, sensor, flush_ms, 0.0)
            yield Record(partition, sensor, body)


def document(number: int, device: str, kind: str, time_ms: int, value: float) -> bytes:
    """Return one flat reading of 145 bytes; nobody asks for `quality`, `seq` and `fw`."""
    head = (
        f'{{"device":"{device}","property":"{kind}","time":{time_ms},'
        f'"value":{value},"quality":1,"seq":{number},"fw":"'
    )
    return (head + "v" * (VALUE_BYTES - 2 - len(head)) + '"}').encode()


def power_record(schema_id: int, sensor: bytes, time_ms: int, value: float) -> bytes:
    """Return one framed Avro record of `contract.UC2_SCHEMA`."""
    frame = b"\0" + schema_id.to_bytes(4, "big") + _long(len(sensor)) + sensor
    return frame + _long(time_ms) + struct.pack("<d", value) + b"\x0apower"


def _long(number: int) -> bytes:
    """Return an Avro long (not negative here): zigzag, seven bits a byte, low ones first."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
