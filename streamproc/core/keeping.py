"""What of a state goes on: past long silence, and under another definition.

A snapshot lets go of series nobody hears any more, so state is bounded by what reports. A new
definition keeps what means the same under it; the rest has left as partial windows before.

A window's name stays bound after it is taken out. What its keys had reached by then is kept as
*retired*, so that a window of that name, should one follow, publishes no part 0 twice.

Times of acceptance are of this process and in no table: they are carried over by hand.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.definition import Definition
from streamproc.core.resolve import Resolver
from streamproc.core.state import Keep, State, keep_all
from streamproc.kernels import windows_layout as words
from streamproc.kernels.windows_layout import NONE

B1 = npt.NDArray[np.bool_]
I8 = npt.NDArray[np.int64]


def needed(state: State, forget_us: int, alerting: B1) -> Keep:
    """Choose the series that are not silent for `forget_us` of their city's event time.

    One with an open window, a late part or an active alert (`alerting`, bool by series id,
    may be short) stays. A device leaves with its last series, but not with
    `watermark = "device"`, where its watermark says what is closed.
    """
    table, windows = state.series, state.windows
    running, count = windows.state, table.series_count
    chosen = (
        running.line[:count, words.HEARD_US] > running.city_us[table.city] - forget_us
    )
    slots = int(windows.specs.slots[0])
    chosen[windows.open_cells() // slots] = True
    late = windows.late.ints[: windows.late_cells, words.SERIES]
    chosen[late] = True
    chosen[: len(alerting)] |= alerting
    devices = np.zeros(len(table.devices), bool)
    devices[table.device[chosen]] = True
    if windows.by_device:
        devices |= running.key_us[: len(devices)] != NONE
    return Keep(chosen, devices, keep_all(state).specs)


def kept_under(state: State, old: Definition, new: Definition, topic: str) -> Keep:
    """Choose what means the same under both definitions."""
    table, windows = state.series, state.windows
    resolver = Resolver(topic, new, table)
    slugs = [spec.slug for spec in new.cities]
    places = [resolver.place(name) for name in table.devices]
    devices = np.array(
        [
            place >= 0 and slugs[place] == table.cities[city]
            for place, city in zip(places, table.device_city, strict=True)
        ],
        bool,
    )
    units = {spec.property: spec.unit for spec in new.properties}
    kinds = np.array(
        [units.get(spec.property) == spec.unit for spec in old.properties], bool
    )
    same_keys = (new.watermark == "device") == windows.by_device
    specs = tuple(
        q for q, spec in enumerate(windows.windows) if same_keys and spec in new.windows
    )
    series = devices[table.device] & kinds[table.kind]
    return Keep(series.astype(bool), devices, specs)


def retire(state: State, keep: Keep) -> None:
    """Bind the names of windows that go to the watermark their keys have."""
    windows = state.windows
    marks = windows.state.key_us[: windows.key_count]
    for q, spec in enumerate(windows.windows):
        if q not in keep.specs:
            count = len(windows.windows)
            closed = windows.state.closed[q : windows.key_count * count : count]
            start = np.where(closed == NONE, NONE, closed * spec.every_us)
            state.retired[spec.name] = np.maximum(marks, start)


def rekeyed(state: State, retired: pa.Table, keep: Keep) -> pa.Table:
    """Carry what is retired over to the other kind of watermark key."""
    city_of = state.series.device_city[keep.devices].tolist()
    found: dict[tuple[str, int], int] = {}
    for row in retired.to_pylist():
        name, key, until = row["window"], row["key"], row["until_us"]
        if state.windows.by_device:
            places = [city_of[key]]
        else:
            places = [d for d, city in enumerate(city_of) if city == key]
        for place in places:
            found[name, place] = max(found.get((name, place), NONE), until)
    keys = sorted(found)
    return pa.table(
        {
            "window": pa.array([name for name, _ in keys], pa.string()),
            "key": pa.array([key for _, key in keys], pa.int32()),
            "until_us": pa.array([found[key] for key in keys], pa.int64()),
        }
    )


def heard(state: State, keep: Keep) -> tuple[I8, I8]:
    """Return the times of the last acceptance: by city, by kept device."""
    running = state.windows.state
    if not state.windows.by_device:
        return running.city_now.copy(), np.empty(0, np.int64)
    return running.city_now.copy(), running.key_now[np.flatnonzero(keep.devices)]


def hear(state: State, times: tuple[I8, I8]) -> None:
    """Set what `heard` returned; devices are renumbered as it chose them."""
    running = state.windows.state
    running.city_now[:] = times[0]
    if state.windows.by_device:
        running.key_now[: len(times[1])] = times[1]
