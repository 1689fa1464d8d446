"""Records made before they are sent: one template a device, patched when it is due.

A template has a fixed size, so that many records are one matrix of bytes, and time and
value are columns in it.
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

_TIME_MS = 1_772_323_200_000


class Shape(ABC):
    """Templates of `devices` devices, in the order of their numbers."""

    def __init__(self, keys: list[bytes], values: list[bytes]) -> None:
        self.keys = keys
        self._size = len(values[0])
        flat = np.frombuffer(b"".join(values), np.uint8)
        self._templates: Bytes = flat.reshape(len(values), self._size)

    def records(self, devices: Column, time_ms: Column, value: Column) -> list[bytes]:
        """Return a record a row."""
        rows: Bytes = self._templates[devices]
        self._patch(rows, time_ms, value)
        data, size = rows.tobytes(), self._size
        return [data[at : at + size] for at in range(0, len(data), size)]

    @abstractmethod
    def _patch(self, rows: Bytes, time_ms: Column, value: Column) -> None:
        """Write times and values into copies of templates."""


class Readings(Shape):
    """Flat JSON of 145 bytes, times in milliseconds; a value is one of the two above."""

    def __init__(self, devices: int) -> None:
        names = [f"razlog-{device:07d}" for device in range(devices)]
        values = [
            document(0, name, PROPERTIES[0], _TIME_MS, NOTHING_UNUSUAL)
            for name in names
        ]
        super().__init__([name.encode() for name in names], values)
        self._time_at = values[0].index(b"%d" % _TIME_MS)
        self._value_at = values[0].index(str(NOTHING_UNUSUAL).encode())

    def _patch(self, rows: Bytes, time_ms: Column, value: Column) -> None:
        for digit in range(13):
            place = self._time_at + 12 - digit
            rows[:, place] = time_ms // 10**digit % 10 + ord("0")
        hundreds = np.where(value == FIRES, ord("9"), ord("1"))
        rows[:, self._value_at] = hundreds


class Power(Shape):
    """Theodolite's power record in Avro, as `bench.peers` has it; ids have seven digits."""

    TIME_BYTES = 6

    def __init__(self, devices: int, schema_id: int) -> None:
        keys = [b"s_%07d" % device for device in range(devices)]
        values = [power_record(schema_id, key, _TIME_MS, 0.0) for key in keys]
        super().__init__(keys, values)
        self._time_at = values[0].index(keys[0]) + len(keys[0])

    def _patch(self, rows: Bytes, time_ms: Column, value: Column) -> None:
        zigzag = time_ms * 2
        assert int(zigzag.max()) >> 7 * self.TIME_BYTES == 0, "a longer varint"
        assert int(zigzag.min()) >> 7 * (self.TIME_BYTES - 1), "a shorter varint"
        for group in range(self.TIME_BYTES):
            more = 0x80 if group < self.TIME_BYTES - 1 else 0
            rows[:, self._time_at + group] = (zigzag >> 7 * group & 0x7F) | more
        at = self._time_at + self.TIME_BYTES
        doubles = np.ascontiguousarray(value, "<f8").view(np.uint8)
        rows[:, at : at + struct.calcsize("<d")] = doubles.reshape(len(value), 8)
