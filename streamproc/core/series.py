"""The series of one partition: dense ids, and the names behind them.

A series is (city, device, property). Ids are given in order of first acceptance and are
never part of any output; codes of cities and properties are positions in the definition.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SeriesNames:
    """A view of the names: index arrays by series id, names by code.

    Attributes:
        city, device, property: int32[n_series], codes.
        cities, devices, properties: names by code.
    """

    city: I4
    device: I4
    property: I4
    cities: tuple[str, ...]
    devices: "list[str]"
    properties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoldedRows:
    """The accepted readings of one step in (offset, ordinal) order, after the fold.

    Attributes:
        series, city: int32[n].
        event_us, offset: int64[n]; value: float64[n].
        valid: bool[n]; False for quality ≤ 0, duplicates and conflicts (not folded).
        watermark_us: int64[n], the (partition, city) watermark just after this row.
    """

    series: I4
    city: I4
    event_us: I8
    offset: I8
    value: F8
    valid: B1
    watermark_us: I8


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """Windows of one spec that closed in one step, ordered by (close row, end, series).

    All arrays have one entry per (series, window). Quantiles are float64[n, q] in the
    order of the spec's `quantiles`, NaN where nothing was folded. A window whose readings
    were all invalid has count 0 and NaN min, max, mean, variance, first, last.

    Attributes:
        offset: int64[n], offset of the reading that moved the watermark, or of the timer.
        reason: 0 watermark, 1 idle, 2 final.
    """

    window: str
    series: I4
    start_us: I8
    end_us: I8
    count: I8
    invalid: I8
    sum: F8
    min: F8
    max: F8
    mean: F8
    m2: F8
    first: F8
    last: F8
    coverage: F8
    quantiles: F8
    offset: I8
    reason: I4
