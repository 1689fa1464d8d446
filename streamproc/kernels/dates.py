"""Local dates from a zone's transitions."""

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

DAY_US = 86_400_000_000


@kernel
def local_dates(event: I8, city: I4, begins: I8, east: I8, first: I8, out: I4) -> None:
    """Write the local day (days since 1970-01-01) of every event time, µs UTC.

    City c owns the segments `first[c] .. first[c + 1]` (int64[cities + 1]): from `begins[i]`
    (int64[m], ascending, the first below every event) on its local time is UTC + `east[i]` µs.
    `city` is int32[n], `out` int32[n]. Runs of one day per city cost two comparisons a row.
    """
    low = np.ones(first.size - 1, np.int64)
    high = np.zeros(first.size - 1, np.int64)
    day = np.zeros(first.size - 1, np.int64)
    for i in range(event.size):
        time = event[i]
        c = np.int64(city[i])
        if time < low[c] or time >= high[c]:
            start = first[c]
            end = first[c + 1]
            segment = start + np.searchsorted(begins[start:end], time, side="right") - 1
            day[c] = (time + east[segment]) // DAY_US
            low[c] = max(day[c] * DAY_US - east[segment], begins[segment])
            high[c] = (day[c] + 1) * DAY_US - east[segment]
            if segment + 1 < end:
                high[c] = min(high[c], begins[segment + 1])
        out[i] = day[c]
