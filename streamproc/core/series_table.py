"""Names to dense ids: the devices and series of one partition, in order of first acceptance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.arrays import CAPACITY_MIN, grown
from streamproc.core.series import SeriesNames
from streamproc.kernels.resolve import Names

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
B1 = npt.NDArray[np.bool_]

COLUMNS_MIN = 8


class _Dictionary:
    """Names by id, growing: what was handed out as a view stays as it is."""

    def __init__(self) -> None:
        self._count, self._end = 0, 0
        self._offsets = np.zeros(CAPACITY_MIN, np.int32)
        self._data = np.zeros(CAPACITY_MIN, np.uint8)

    def extend(self, names: pa.StringArray) -> None:
        """Append names."""
        # Whole and from the first byte on: a slice would share the buffers of others.
        names = pa.concat_arrays([names])
        _, offsets, data = names.buffers()
        more, end = len(names), self._end
        assert offsets is not None, "an empty array may lack its offsets"
        ends = np.frombuffer(memoryview(offsets), np.int32)[names.offset :][: more + 1]
        size = int(ends[-1] - ends[0])
        self._offsets = grown(self._offsets, self._count + more + 1, self._count + 1, 0)
        self._data = grown(self._data, end + size, end, 0)
        if data is not None:
            whole = np.frombuffer(memoryview(data), np.uint8)
            self._data[end : end + size] = whole[ends[0] : ends[-1]]
        self._offsets[self._count + 1 : self._count + more + 1] = (
            ends[1:] - ends[0] + end
        )
        self._count, self._end = self._count + more, end + size

    def view(self) -> pa.StringArray:
        """Return the names so far; longer views begin with the same memory."""
        return pa.StringArray.from_buffers(
            self._count,
            pa.py_buffer(self._offsets[: self._count + 1].data),
            pa.py_buffer(self._data[: self._end].data),
        )


class SeriesTable:
    """Devices and series of one partition.

    A device belongs to one city, so a series is a device and a property here.

    Attributes:
        devices: device names by id; device_ids the inverse; device_city codes by id.
        device, kind (of property), city: int32[series_count], codes by series.
        city_devices: int64 by city, devices it has (the cap counts these).
    """

    def __init__(self, cities: Sequence[str], properties: Sequence[str]) -> None:
        self.cities = tuple(cities)
        self.properties = tuple(properties)
        self.devices: list[str] = []
        self.device_ids: dict[str, int] = {}
        self.city_devices = np.zeros(len(self.cities), np.int64)
        self.series_count = 0
        self._device_city = np.zeros(CAPACITY_MIN, np.int32)
        self._device = np.zeros(CAPACITY_MIN, np.int32)
        self._property = np.zeros(CAPACITY_MIN, np.int32)
        self._city = np.zeros(CAPACITY_MIN, np.int32)
        self._column = np.full(len(self.properties), -1, np.int32)
        self._columns = 0
        self._lookup = np.full((CAPACITY_MIN, COLUMNS_MIN), -1, np.int32)
        self._dictionary = _Dictionary()

    @property
    def device(self) -> I4:
        """Return the device of every series."""
        return self._device[: self.series_count]

    @property
    def kind(self) -> I4:
        """Return the property of every series."""
        return self._property[: self.series_count]

    @property
    def city(self) -> I4:
        """Return the city of every series."""
        return self._city[: self.series_count]

    @property
    def device_city(self) -> I4:
        """Return the city of every device."""
        return self._device_city[: len(self.devices)]

    def names(self) -> SeriesNames:
        """Return the view that the alert engine gets."""
        return SeriesNames(
            self.city,
            self.device,
            self.kind,
            self.cities,
            self.devices,
            self.properties,
        )

    def dictionary(self) -> pa.StringArray:
        """Return all device names as one Arrow array: a view, which later names do not change."""
        return self._dictionary.view()

    def working(self, batch_rows: int, codes: I4) -> Names:
        """Return what the resolve kernel may write to: room for a batch of new names.

        `codes` (int32) are the properties the batch can hold.
        """
        for code in codes[codes >= 0]:
            if self._column[code] < 0:
                self._column[code] = self._columns
                self._columns += 1
        if self._columns > self._lookup.shape[1]:
            wider = np.full((len(self._lookup), 2 * self._columns), -1, np.int32)
            wider[:, : self._lookup.shape[1]] = self._lookup
            self._lookup = wider
        used = min(len(self.devices), len(self._lookup))
        self._lookup = grown(self._lookup, len(self.devices) + batch_rows, used, -1)
        return Names(
            self._lookup,
            self._column,
            self.city_devices,
            np.empty(batch_rows, np.int32),
            np.empty(batch_rows, np.int32),
            np.empty(batch_rows, np.int32),
        )

    def add_devices(self, names: pa.StringArray, city: I4) -> None:
        """Give the next ids to new devices; the caller keeps `city_devices`."""
        if not len(names):
            return
        count = len(self.devices)
        self._dictionary.extend(names)
        self._device_city = grown(self._device_city, count + len(names), count, None)
        self._device_city[count : count + len(names)] = city
        new: list[Any] = names.to_pylist()
        self.device_ids.update(zip(new, range(count, count + len(new)), strict=True))
        self.devices += new

    def add_series(self, device: I4, code: I4) -> None:
        """Append series; the lookup knows them already (kernel) or is told by `link`."""
        count, new = self.series_count, len(device)
        self._device = grown(self._device, count + new, count, None)
        self._property = grown(self._property, count + new, count, None)
        self._city = grown(self._city, count + new, count, None)
        self._device[count : count + new] = device
        self._property[count : count + new] = code
        self._city[count : count + new] = self._device_city[device]
        self.series_count = count + new

    def link(self) -> None:
        """Rebuild the lookup from the series, after a restore."""
        self.working(0, np.unique(self.kind))
        self._lookup[self.device, self._column[self.kind]] = np.arange(
            self.series_count, dtype=np.int32
        )
        self.city_devices[:] = np.bincount(self.device_city, minlength=len(self.cities))
