"""What silence says: which timer decisions it justifies, and which keys they close.

Event time stands still where nothing is heard, so windows would stay open and `no_data` would
never be judged. Silence is measured by the monotonic clock since a key's last acceptance, and
proposed as a decision; nothing happens before it is logged and taken.

How far event time is taken to have gone on is never more than was waited: the key's watermark
plus its silence. An `idle` decision closes windows that may end much later (a day, after a
minute's silence), and their end says nothing of what the devices would have sent until then.

Between batches only; positions in `State` are the definition's order of cities.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streamproc.core.state import State
from streamproc.core.values import TimerDecision
from streamproc.kernels.windows_layout import NONE

I8 = npt.NDArray[np.int64]


def begin(state: State, now_us: int) -> None:
    """Count keys and cities that were never heard here as heard at `now_us`."""
    running = state.windows.state
    for heard in (running.key_now, running.city_now):
        heard[heard == NONE] = now_us


def idle(
    state: State, now_us: int, idle_us: int, next_offset: int
) -> list[TimerDecision]:
    """Propose to close each key that holds data and was silent for `idle_us`.

    `effective_us` is the end of the key's last window, but no more than its watermark plus
    its silence, and no less than the city's watermark.
    """
    windows, table = state.windows, state.series
    running, count = windows.state, windows.key_count
    silent = running.key_now[:count] <= now_us - idle_us
    keys = np.flatnonzero((running.key_cells[:count] > 0) & silent)
    city = table.device_city[keys] if windows.by_device else keys
    waited = running.key_us[keys] + (now_us - running.key_now[keys])
    until = np.maximum(
        running.city_us[city], np.minimum(windows.last_ends(keys), waited)
    )
    return [
        TimerDecision(
            "idle",
            table.cities[city[i]],
            table.devices[key] if windows.by_device else None,
            next_offset,
            int(until[i]),
        )
        for i, key in enumerate(keys)
    ]


def silent(
    state: State, now_us: int, next_offset: int, deadline: Callable[[int], int]
) -> list[TimerDecision]:
    """Propose to judge each city whose next `deadline` (event time, by city) has passed."""
    running = state.windows.state
    found = []
    for code, slug in enumerate(state.series.cities):
        watermark = int(running.city_us[code])
        if watermark == NONE:
            continue
        until = watermark + now_us - int(running.city_now[code])
        if deadline(code) <= until:
            found.append(TimerDecision("silence", slug, None, next_offset, until))
    return found


def finals(state: State, next_offset: int) -> list[TimerDecision]:
    """Return the decisions that close every open window, one per city that has some.

    `for` and `no_data` are judged up to the watermark: nothing is known beyond it.
    """
    windows, table = state.windows, state.series
    open_keys = np.flatnonzero(windows.state.key_cells[: windows.key_count] > 0)
    city = table.device_city[open_keys] if windows.by_device else open_keys
    return [
        TimerDecision(
            "final",
            table.cities[code],
            None,
            next_offset,
            int(windows.state.city_us[code]),
        )
        for code in np.unique(city)
    ]


def keys_of(timer: TimerDecision, state: State) -> I8:
    """Return the watermark keys (int64[n]) whose windows a decision closes."""
    if timer.kind == "silence":
        return np.empty(0, np.int64)
    table = state.series
    city = table.cities.index(timer.city)
    if not state.windows.by_device:
        return np.array([city], np.int64)
    if timer.device is None:
        return np.flatnonzero(table.device_city == city)
    known = table.device_ids.get(timer.device)
    return np.array([] if known is None else [known], np.int64)
