"""Records made before they are sent: one template a device, patched when it is due.

A template has a fixed size, so that many records are one matrix of bytes, and number, time
and value are columns in it.
"""

import struct
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from bench.peers.workload import document, power_record
from bench.workloads import PROPERTIES

Bytes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Column = np.ndarray[tuple[int], np.dtype[Any]]

NOTHING_UNUSUAL, FIRES = 100.5, 900.5
"""Values; the rules of `bench.configs` fire above 890."""

DIGITS = 7
_TIME_MS = 1_772_323_200_000


class Shape(ABC):
    """Keys and values of `devices` devices, in the order of their numbers, a row each."""

    def __init__(self, key: bytes, value: bytes, devices: int) -> None:
        """Take the record of device 0, whose number is written in seven digits."""
        self.keys = _numbered(key, key, devices)
        self.values = _numbered(value, key, devices)

    def records(self, devices: Column, time_ms: Column, value: Column) -> list[bytes]:
        """Return a record a row."""
        rows: Bytes = self.values[devices]
        self.put_times(rows, time_ms)
        self.put_values(rows, value)
        data, size = rows.tobytes(), rows.shape[1]
        return [data[at : at + size] for at in range(0, len(data), size)]

    @abstractmethod
    def put_times(self, rows: Bytes, time_ms: Column) -> None:
        """Write times into copies of values."""

    @abstractmethod
    def put_values(self, rows: Bytes, value: Column) -> None:
        """Write measured values into copies of values."""


def _numbered(template: bytes, key: bytes, devices: int) -> Bytes:
    """Return a copy of the template for each device, with its own number."""
    assert devices <= 10**DIGITS
    rows = np.tile(np.frombuffer(template, np.uint8), (devices, 1))
    at = template.index(key) + len(key) - DIGITS
    put_digits(rows[:, at : at + DIGITS], np.arange(devices))
    return rows


def put_digits(rows: Bytes, numbers: Column) -> None:
    """Write decimal digits, as many as there are columns."""
    for column in range(rows.shape[1]):
        power = rows.shape[1] - 1 - column
        rows[:, column] = numbers // 10**power % 10 + ord("0")


def put_varint(rows: Bytes, numbers: Column, size: int) -> None:
    """Write numbers that are not negative as zigzag varints of `size` bytes."""
    zigzag = numbers * 2
    for group in range(size):
        more = 0x80 if group < size - 1 else 0
        rows[:, group] = (zigzag >> 7 * group & 0x7F) | more


class Readings(Shape):
    """Flat JSON of 145 bytes, times in milliseconds; values from 100.0 to 999.9."""

    def __init__(self, devices: int) -> None:
        key = f"razlog-{0:0{DIGITS}d}"
        value = document(0, key, PROPERTIES[0], _TIME_MS, NOTHING_UNUSUAL)
        super().__init__(key.encode(), value, devices)
        self._time_at = value.index(b"%d" % _TIME_MS)
        self._value_at = value.index(str(NOTHING_UNUSUAL).encode())

    def put_times(self, rows: Bytes, time_ms: Column) -> None:
        put_digits(rows[:, self._time_at : self._time_at + 13], time_ms)

    def put_values(self, rows: Bytes, value: Column) -> None:
        tenths = np.rint(value * 10).astype(np.int64)
        at = self._value_at
        put_digits(rows[:, at : at + 3], tenths // 10)
        put_digits(rows[:, at + 4 : at + 5], tenths)


class Power(Shape):
    """Theodolite's power record in Avro, as `bench.peers` has it; ids have seven digits."""

    TIME_BYTES = 6

    def __init__(self, devices: int, schema_id: int) -> None:
        key = b"s_" + b"0" * DIGITS
        value = power_record(schema_id, key, _TIME_MS, 0.0)
        super().__init__(key, value, devices)
        self._time_at = value.index(key) + len(key)

    def put_times(self, rows: Bytes, time_ms: Column) -> None:
        assert int(time_ms.max()) * 2 >> 7 * self.TIME_BYTES == 0, "a longer varint"
        assert int(time_ms.min()) * 2 >> 7 * (self.TIME_BYTES - 1), "a shorter varint"
        put_varint(rows[:, self._time_at :], time_ms, self.TIME_BYTES)

    def put_values(self, rows: Bytes, value: Column) -> None:
        at = self._time_at + self.TIME_BYTES
        doubles = np.ascontiguousarray(value, "<f8").view(np.uint8)
        rows[:, at : at + struct.calcsize("<d")] = doubles.reshape(len(value), 8)
