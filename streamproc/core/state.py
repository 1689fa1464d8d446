"""What a partition remembers apart from alerts, and which part of it goes on.

Series, devices and specs are numbered densely, in order of first acceptance. Whatever leaves
renumbers what stays, in the same order: `Keep` is the choice and both numberings.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamproc.core.series_table import SeriesTable
from streamproc.core.windows import Windows

B1 = npt.NDArray[np.bool_]
I8 = npt.NDArray[np.int64]


@dataclass(slots=True)
class State:
    """What a snapshot holds, alert state apart.

    `retired` maps the name of a window that was taken out of the definition to the
    watermark each key had then (int64 by key): what was open was closed then.
    """

    series: SeriesTable
    windows: Windows
    retired: dict[str, I8] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Keep:
    """What of a state is written: masks by series and device, the specs (positions)."""

    series: B1
    devices: B1
    specs: tuple[int, ...]

    @property
    def series_ids(self) -> I8:
        """Return the new id of every series, -1 for those dropped."""
        return np.where(self.series, np.cumsum(self.series) - 1, -1).astype(np.int64)

    @property
    def device_ids(self) -> I8:
        """Return the new id of every device, -1 for those dropped."""
        return np.where(self.devices, np.cumsum(self.devices) - 1, -1).astype(np.int64)


def keep_all(state: State) -> Keep:
    """Return the choice that writes everything."""
    return Keep(
        np.ones(state.series.series_count, bool),
        np.ones(len(state.series.devices), bool),
        tuple(range(len(state.windows.windows))),
    )
