"""What the names of a decoder mean here, looked up once each and not once a batch.

A decoder keeps its name tables from batch to batch (`Decoded.vocabulary`): the same object, and
what a code meant before it means now. So arrays by code hold the answers, and a batch costs
only the names it brings for the first time. Another vocabulary, or none, begins anew.
"""

from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.arrays import grown
from streamproc.core.definition import DeviceSpec
from streamproc.core.series_table import SeriesTable
from streamproc.kernels import resolve as kernels

I4 = npt.NDArray[np.int32]


class _Known:
    """How many codes of which vocabulary are known."""

    def __init__(self) -> None:
        self._vocabulary: object | None = None
        self._count = 0

    def forget(self) -> None:
        """Look every name up again from the next batch on."""
        self._vocabulary, self._count = None, 0

    def _news(self, names: pa.StringArray, vocabulary: object | None) -> list[Any]:
        """Return the names that were not known yet; they are from here on."""
        if vocabulary is None or vocabulary is not self._vocabulary:
            self._vocabulary, self._count = vocabulary, 0
        first, self._count = self._count, len(names)
        return names.slice(first).to_pylist() if first < len(names) else []


class KnownCodes(_Known):
    """Names of properties or units as codes of the definition, -1 for those it lacks."""

    def __init__(self, codes: Mapping[str, int]) -> None:
        super().__init__()
        self._codes = codes
        self._of = np.empty(0, np.int32)

    def codes(self, names: pa.StringArray, vocabulary: object | None) -> I4:
        """Return the definition's code by the batch's code, int32[names]."""
        news = self._news(names, vocabulary)
        if news:
            first, count = self._count - len(news), self._count
            self._of = grown(self._of, count, first, None)
            self._of[first:count] = [self._codes.get(name, -1) for name in news]
        return self._of[: self._count]


class KnownDevices(_Known):
    """Names of devices as ids of the table, or where a new one would belong.

    `place` gives the code of a device's city, or minus the fault.
    """

    def __init__(
        self,
        table: SeriesTable,
        listed: Mapping[str, DeviceSpec],
        place: Callable[[str], int],
    ) -> None:
        super().__init__()
        self._table = table
        self._listed = listed
        self._place = place
        self._by_code = kernels.Devices(
            rows=np.empty((0, kernels.DEVICE_WORDS), np.int64),
            scale=np.empty(0, np.float64),
            shift=np.empty(0, np.float64),
        )

    def devices(
        self, names: pa.StringArray, vocabulary: object | None
    ) -> kernels.Devices:
        """Return the kernel's view by code; it writes the ids of those it accepts first."""
        news = self._news(names, vocabulary)
        if news:
            self._enter(news)
        return kernels.Devices._make(column[: self._count] for column in self._by_code)

    def _enter(self, news: list[Any]) -> None:
        first, count = self._count - len(news), self._count
        self._by_code = kernels.Devices._make(
            grown(column, count, first, None) for column in self._by_code
        )
        new = kernels.Devices._make(column[first:count] for column in self._by_code)
        ids, city = new.rows[:, kernels.ID], new.rows[:, kernels.CITY]
        known = map(self._table.device_ids.get, news, repeat(-1))
        ids[:] = np.fromiter(known, np.int64, len(news))
        old = ids >= 0
        city[old] = self._table.device_city[ids[old]]
        city[~old] = [self._place(news[code]) for code in np.flatnonzero(~old).tolist()]
        new.rows[:, kernels.FLAGS], new.scale[:], new.shift[:] = 0, 1.0, 0.0
        if self._listed:
            self._calibrate(news, new)

    def _calibrate(self, news: list[Any], new: kernels.Devices) -> None:
        flags = new.rows[:, kernels.FLAGS]
        for code, name in enumerate(news):
            spec = self._listed.get(name)
            if spec is None:
                flags[code] = kernels.UNREGISTERED_FLAG
            elif spec.scale != 1.0 or spec.offset != 0.0:
                flags[code] = kernels.CALIBRATED_FLAG
                new.scale[code], new.shift[code] = spec.scale, spec.offset
