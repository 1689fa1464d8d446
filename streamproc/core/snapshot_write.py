"""The state of a partition as Arrow tables, by name, in one canonical order.

Names instead of codes let a snapshot be read under a changed definition; the order (series by
first acceptance, cells by spec, series, pane) makes equal states give equal tables.

```text
cities   city, watermark_us
windows  window, size_us, every_us, lateness_us, quantiles
devices  device, city, watermark_us              null without `watermark = "device"`
closed   window, key, closed                     highest closed window number
retired  window, key, until_us                   see `core.keeping.retire`
series   device, property, last_us, ring_us, ring_value      ring: oldest first
cells    window, series, pane, accumulators, sketch
late     the same by window number: late parts since the last cut
```

`key` is a position in `cities` or `devices`; `window` a position in `windows`, in `retired`
a name. Watermark keys that are not known any more are dropped on reading (`core.snapshot_read`).

Nothing is copied as a whole: series, cells and late parts leave `CHUNK_ROWS` at a time, each chunk
made when the one before has been written. The state must stand still until the last one is.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.emission import Column, binaries, numbers
from streamproc.core.state import Keep, State
from streamproc.kernels import windows_layout as words
from streamproc.kernels.windows_layout import NONE

I8 = npt.NDArray[np.int64]

CELL_INTS = {
    "pane": words.PANE,
    "count": words.COUNT,
    "invalid": words.INVALID,
    "slots": words.SLOTS,
    "first_us": words.FIRST_US,
    "last_us": words.LAST_US,
}
CELL_FLOATS = {
    "sum": words.SUM,
    "mean": words.MEAN,
    "m2": words.M2,
    "min": words.MIN,
    "max": words.MAX,
    "first": words.FIRST,
    "last": words.LAST,
}


CHUNK_ROWS = 4_096
"""A few MiB; 64 MiB where each sketch spans fifty binades, as no measured quantity does."""

Chunks = Iterator[pa.Table]
"""One table in pieces, all of one schema, at least one; may be gone through once."""


def _nullable(values: I8) -> Column:
    return numbers(values, values == NONE)


def export(state: State, keep: Keep) -> dict[str, pa.Table]:
    """Return the whole tables; equal states give equal tables."""
    return whole(stream(state, keep))


def whole(chunks: Mapping[str, Chunks]) -> dict[str, pa.Table]:
    """Return tables from their pieces."""
    return {name: pa.concat_tables(list(parts)) for name, parts in chunks.items()}


def stream(state: State, keep: Keep) -> dict[str, Chunks]:
    """Return the tables in pieces, which are made as they are asked for."""
    small = _small(state, keep)
    return {
        **{name: iter([table]) for name, table in small.items()},
        "series": _series(state, keep),
        "cells": _cells(state, keep),
        "late": _late(state, keep),
    }


def _small(state: State, keep: Keep) -> dict[str, pa.Table]:
    table, windows = state.series, state.windows
    specs = [windows.windows[q] for q in keep.specs]
    return {
        "cities": pa.table(
            {
                "city": pa.array(table.cities, pa.string()),
                "watermark_us": _nullable(windows.state.city_us),
            }
        ),
        "windows": pa.table(
            {
                "window": pa.array([spec.name for spec in specs], pa.string()),
                "size_us": pa.array([spec.size_us for spec in specs], pa.int64()),
                "every_us": pa.array([spec.every_us for spec in specs], pa.int64()),
                "lateness_us": pa.array(
                    [spec.lateness_us for spec in specs], pa.int64()
                ),
                "quantiles": pa.array(
                    [list(spec.quantiles) for spec in specs], pa.list_(pa.float64())
                ),
            }
        ),
        "devices": _devices(state, keep),
        "closed": _closed(state, keep),
        "retired": _retired(state, keep),
    }


def _slices(count: int) -> Iterator[slice]:
    """Yield places of chunks; one that is empty where there is nothing."""
    for first in range(0, max(1, count), CHUNK_ROWS):
        yield slice(first, min(count, first + CHUNK_ROWS))


def _devices(state: State, keep: Keep) -> pa.Table:
    table, windows = state.series, state.windows
    chosen = np.flatnonzero(keep.devices)
    city = pa.array(table.cities, pa.string()).take(
        pa.array(table.device_city[chosen], pa.int32())
    )
    marks = (
        windows.state.key_us[chosen]
        if windows.by_device
        else np.full(len(chosen), NONE, np.int64)
    )
    return pa.table(
        {
            "device": table.dictionary().take(pa.array(chosen, pa.int64())),
            "city": city,
            "watermark_us": _nullable(marks),
        }
    )


def _keys(state: State, keep: Keep) -> tuple[I8, I8]:
    """Return the kept watermark keys and their new positions."""
    if not state.windows.by_device:
        keys = np.arange(state.windows.key_count)
        return keys, keys
    keys = np.flatnonzero(keep.devices)
    return keys, keep.device_ids[keys]


def _closed(state: State, keep: Keep) -> pa.Table:
    keys, places = _keys(state, keep)
    count = len(state.windows.windows)
    closed = state.windows.state.closed[: state.windows.key_count * count]
    marks = closed.reshape(state.windows.key_count, count)[
        np.ix_(keys, np.array(keep.specs, np.int64))
    ]
    row, spec = np.nonzero(marks != NONE)
    return pa.table(
        {
            "window": pa.array(spec, pa.int32()),
            "key": pa.array(places[row], pa.int32()),
            "closed": pa.array(marks[row, spec], pa.int64()),
        }
    )


def _retired(state: State, keep: Keep) -> pa.Table:
    keys, places = _keys(state, keep)
    found: list[tuple[str, int, int]] = []
    for name in sorted(state.retired):
        until = state.retired[name]
        for key, place in zip(keys.tolist(), places.tolist(), strict=True):
            if key < len(until) and until[key] != NONE:
                found.append((name, place, int(until[key])))
    columns = list(zip(*found, strict=True)) if found else [(), (), ()]
    return pa.table(
        {
            "window": pa.array(columns[0], pa.string()),
            "key": pa.array(columns[1], pa.int32()),
            "until_us": pa.array(columns[2], pa.int64()),
        }
    )


def _series(state: State, keep: Keep) -> Chunks:
    chosen = np.flatnonzero(keep.series)
    device_ids = keep.device_ids
    for part in _slices(len(chosen)):
        yield _series_table(state, chosen[part], device_ids)


def _series_table(state: State, chosen: I8, device_ids: I8) -> pa.Table:
    table, running = state.series, state.windows.state
    line, depth = running.line, int(running.depth[0])
    count = line[chosen, words.RING_COUNT]
    first = line[chosen, words.RING_NEXT] - count
    # Ring places, oldest first, of the first `count` steps of each series.
    step = np.arange(depth)
    place = (first[:, None] + step) % depth
    held = step < count[:, None]
    rows = np.repeat(chosen, count)
    offsets = pa.array(np.concatenate(([0], np.cumsum(count))), pa.int32())
    ring_us = line[rows, words.RING + place[held]]
    ring_value = running.line_floats[rows, words.RING + depth + place[held]]
    kinds = pa.array(table.properties, pa.string())
    return pa.table(
        {
            "device": pa.array(device_ids[table.device[chosen]], pa.int32()),
            "property": kinds.take(pa.array(table.kind[chosen], pa.int32())),
            "last_us": numbers(line[chosen, words.HEARD_US]),
            "ring_us": pa.ListArray.from_arrays(offsets, numbers(ring_us)),
            "ring_value": pa.ListArray.from_arrays(offsets, numbers(ring_value)),
        }
    )


def _cell_table(ints: I8, spec: I8, series: I8, sketches: tuple[I8, I8]) -> pa.Table:
    floats = ints.view(np.float64)
    return pa.table(
        {
            "window": pa.array(spec, pa.int32()),
            "series": pa.array(series, pa.int32()),
            **{name: numbers(ints[:, word]) for name, word in CELL_INTS.items()},
            **{name: numbers(floats[:, word]) for name, word in CELL_FLOATS.items()},
            "sketch": binaries(*sketches),
        }
    )


def _new_spec(state: State, keep: Keep) -> I8:
    """Return the new position of every spec, -1 for those dropped."""
    places = np.full(len(state.windows.windows), -1, np.int64)
    places[list(keep.specs)] = np.arange(len(keep.specs))
    return places


def _cells(state: State, keep: Keep) -> Chunks:
    windows = state.windows
    slots = int(windows.specs.slots[0])
    new_spec, series_ids = _new_spec(state, keep), keep.series_ids
    spec_of_slot = windows.spec_of_slot()
    found = windows.open_cells()
    kept = (new_spec[spec_of_slot[found % slots]] >= 0) & (
        series_ids[found // slots] >= 0
    )
    found = found[kept]
    for part in _slices(len(found)):
        cells = found[part]
        spec = new_spec[spec_of_slot[cells % slots]]
        series = series_ids[cells // slots]
        sketches = windows.sketches(windows.state.ints, cells)
        yield _cell_table(windows.state.ints[cells], spec, series, sketches)


def _late(state: State, keep: Keep) -> Chunks:
    rows = state.windows.late_rows()
    new_spec, series_ids = _new_spec(state, keep), keep.series_ids
    for part in _slices(len(rows)):
        ints = rows.ints[:, part]
        spec, series = new_spec[ints[words.SPEC]], series_ids[ints[words.SERIES]]
        assert (spec >= 0).all(), "late parts are cut before a window is taken out"
        assert (series >= 0).all(), "late parts are cut before a series is taken out"
        first = int(rows.ends[part.start - 1]) if part.start else 0
        ends = rows.ends[part] - first
        last = int(ends[-1]) if len(ends) else 0
        flat = rows.words[first : first + last]
        yield _cell_table(np.ascontiguousarray(ints.T), spec, series, (flat, ends))
