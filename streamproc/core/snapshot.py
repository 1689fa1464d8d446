"""The state of a partition as Arrow tables, by name, in one canonical order.

Names instead of codes let a snapshot be read under a changed definition; the order (series by
first acceptance, cells by spec, series, pane) makes equal states give equal tables.

```text
cities   city, watermark_us
windows  window, size_us, every_us, lateness_us, quantiles
devices  device, city, watermark_us              null without `watermark = "device"`
closed   window, key, closed                     highest closed window number
retired  window, key, until_us                   see `reconfigured`
series   device, property, last_us, ring_us, ring_value      ring: oldest first
cells    window, series, pane, accumulators, sketch
late     the same by window number: late parts since the last cut
```

`key` is a position in `cities` or `devices`; `window` a position in `windows`, in `retired`
a name. Watermark keys that are not known any more are dropped on reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.definition import Definition, WindowSpec
from streamproc.core.emission import Column, binaries, numbers
from streamproc.core.resolve import Resolver
from streamproc.core.series_table import SeriesTable
from streamproc.core.windows import Windows
from streamproc.kernels import windows as words
from streamproc.kernels.windows import NONE, WORDS

B1 = npt.NDArray[np.bool_]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

_INTS = {
    "pane": words.PANE,
    "count": words.COUNT,
    "invalid": words.INVALID,
    "slots": words.SLOTS,
    "first_us": words.FIRST_US,
    "last_us": words.LAST_US,
}
_FLOATS = {
    "sum": words.SUM,
    "mean": words.MEAN,
    "m2": words.M2,
    "min": words.MIN,
    "max": words.MAX,
    "first": words.FIRST,
    "last": words.LAST,
}


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


def _nullable(values: I8) -> Column:
    return numbers(values, values == NONE)


# --- writing --------------------------------------------------------------------------


def export(state: State, keep: Keep) -> dict[str, pa.Table]:
    """Return the tables; equal states give equal tables."""
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
        "series": _series(state, keep),
        "cells": _cells(state, keep),
        "late": _late(state, keep),
    }


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


def _series(state: State, keep: Keep) -> pa.Table:
    table, running = state.series, state.windows.state
    chosen = np.flatnonzero(keep.series)
    count = running.ring_count[chosen].astype(np.int64)
    depth = running.ring_us.shape[1]
    first = running.ring_next[chosen] - count
    # Ring places, oldest first, of the first `count` steps of each series.
    step = np.arange(depth)
    place = (first[:, None] + step) % depth
    held = step < count[:, None]
    rows = np.repeat(chosen, count)
    offsets = pa.array(np.concatenate(([0], np.cumsum(count))), pa.int32())
    ring_us = running.ring_us[rows, place[held]]
    ring_value = running.ring_value[rows, place[held]]
    kinds = pa.array(table.properties, pa.string())
    return pa.table(
        {
            "device": pa.array(keep.device_ids[table.device[chosen]], pa.int32()),
            "property": kinds.take(pa.array(table.kind[chosen], pa.int32())),
            "last_us": numbers(running.last_us[chosen]),
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
            **{name: numbers(ints[:, word]) for name, word in _INTS.items()},
            **{name: numbers(floats[:, word]) for name, word in _FLOATS.items()},
            "sketch": binaries(*sketches),
        }
    )


def _new_spec(state: State, keep: Keep) -> I8:
    """Return the new position of every spec, -1 for those dropped."""
    places = np.full(len(state.windows.windows), -1, np.int64)
    places[list(keep.specs)] = np.arange(len(keep.specs))
    return places


def _cells(state: State, keep: Keep) -> pa.Table:
    windows = state.windows
    slots = int(windows.specs.slots[0])
    cells = windows.open_cells()
    spec = _new_spec(state, keep)[windows.spec_of_slot()[cells % slots]]
    series = keep.series_ids[cells // slots]
    kept = (spec >= 0) & (series >= 0)
    sketches = windows.sketches(windows.state.ints, cells[kept])
    return _cell_table(
        windows.state.ints[cells[kept]], spec[kept], series[kept], sketches
    )


def _late(state: State, keep: Keep) -> pa.Table:
    rows = state.windows.late_rows()
    spec = _new_spec(state, keep)[rows.ints[:, words.SPEC]]
    series = keep.series_ids[rows.ints[:, words.SERIES]]
    assert (spec >= 0).all(), "late parts are cut before a window is taken out"
    assert (series >= 0).all(), "late parts are cut before a series is taken out"
    return _cell_table(rows.ints, spec, series, (rows.words, rows.ends))


# --- reading --------------------------------------------------------------------------


def load(
    definition: Definition, resolver: Resolver, tables: Mapping[str, pa.Table]
) -> State:
    """Rebuild a state; `resolver` knows the declared intervals.

    The tables may have been written under another definition, if what changed was left out
    of them: specs, series and devices are found by name.
    """
    table = SeriesTable(
        [spec.slug for spec in definition.cities],
        [spec.property for spec in definition.properties],
    )
    windows = Windows(
        definition.windows,
        len(definition.cities),
        definition.dedup,
        by_device=definition.watermark == "device",
    )
    state = State(table, windows)
    cities = {slug: code for code, slug in enumerate(table.cities)}
    for slug, mark in zip(
        tables["cities"]["city"].to_pylist(),
        tables["cities"]["watermark_us"].to_pylist(),
        strict=True,
    ):
        if mark is not None and slug in cities:
            windows.state.city_us[cities[slug]] = mark
    _load_names(state, resolver, tables)
    written = _written_windows(tables["windows"])
    _load_closed(state, written, tables)
    places = [definition.windows.index(spec) for spec in written]
    _load_cells(state, places, tables["cells"])
    _load_late(state, places, tables["late"])
    return state


def _written_windows(table: pa.Table) -> list[WindowSpec]:
    return [
        WindowSpec(
            row["window"],
            row["size_us"],
            row["every_us"],
            row["lateness_us"],
            tuple(row["quantiles"]),
        )
        for row in table.to_pylist()
    ]


def parts_of(
    resolver: Resolver, windows: Sequence[WindowSpec], devices: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Return n of DESIGN.md's coverage, uint8[device, spec]: 1..60, 0 without an interval.

    A window shorter than the interval has one part: one reading covers it.
    """
    interval = np.array([resolver.interval_us(name) for name in devices], np.int64)
    size = np.array([spec.size_us for spec in windows], np.int64)
    nth = np.clip(size[None, :] // np.maximum(interval, 1)[:, None], 1, words.PARTS_MAX)
    return np.where(interval[:, None] > 0, nth, 0).astype(np.uint8)


def _load_names(
    state: State, resolver: Resolver, tables: Mapping[str, pa.Table]
) -> None:
    table, windows = state.series, state.windows
    devices: list[Any] = tables["devices"]["device"].to_pylist()
    cities = {slug: code for code, slug in enumerate(table.cities)}
    slugs: list[Any] = tables["devices"]["city"].to_pylist()
    city = [cities[slug] for slug in slugs]
    table.add_devices(devices, np.array(city, np.int32))
    kinds = {name: code for code, name in enumerate(table.properties)}
    rows = tables["series"]
    device = rows["device"].to_numpy().astype(np.int32)
    named: list[Any] = rows["property"].to_pylist()
    kind = np.array([kinds[name] for name in named], np.int32)
    table.add_series(device, kind)
    table.link()
    if windows.by_device:
        windows.add_keys(len(devices))
        column = tables["devices"]["watermark_us"]
        marks = column.fill_null(pa.scalar(NONE, pa.int64())).to_numpy()
        windows.state.key_us[: len(devices)] = marks
    parts = parts_of(resolver, windows.windows, devices)
    windows.add_series(
        device if windows.by_device else table.city, table.city, parts[device]
    )
    running, count = windows.state, table.series_count
    running.last_us[:count] = rows["last_us"].to_numpy()
    depth = running.ring_us.shape[1]
    for name, target in (
        ("ring_us", running.ring_us),
        ("ring_value", running.ring_value),
    ):
        lists: Any = rows[name].combine_chunks()
        sizes = np.asarray(lists.value_lengths()).astype(np.int64)
        held = np.minimum(sizes, depth)
        # The newest `depth` of what was kept, oldest first from place 0.
        ends = np.cumsum(sizes)
        place = np.arange(int(held.sum())) - np.repeat(np.cumsum(held) - held, held)
        source = np.repeat(ends - held, held) + place
        flat = np.asarray(lists.flatten())
        target[np.repeat(np.arange(count), held), place] = flat[source]
        running.ring_count[:count] = held
        running.ring_next[:count] = held % depth


def _new_keys(state: State, tables: Mapping[str, pa.Table]) -> list[int]:
    """Return the watermark key behind every written one, -1 where its city is gone."""
    if state.windows.by_device:
        return list(range(tables["devices"].num_rows))
    cities = {slug: code for code, slug in enumerate(state.series.cities)}
    slugs: list[Any] = tables["cities"]["city"].to_pylist()
    return [cities.get(slug, -1) for slug in slugs]


def _load_closed(
    state: State, written: Sequence[WindowSpec], tables: Mapping[str, pa.Table]
) -> None:
    windows = state.windows
    specs, count = windows.specs, len(windows.windows)
    places = {spec: q for q, spec in enumerate(windows.windows)}
    marks: list[tuple[int, int, int]] = []
    keys = _new_keys(state, tables)
    for row in tables["closed"].to_pylist():
        if keys[row["key"]] >= 0:
            q = places[written[row["window"]]]
            marks.append((keys[row["key"]], q, row["closed"]))
    by_name = {spec.name: q for q, spec in enumerate(windows.windows)}
    for row in tables["retired"].to_pylist():
        name, key, until = row["window"], keys[row["key"]], row["until_us"]
        if key < 0:
            continue
        if name in by_name:
            q = by_name[name]
            marks.append((key, q, until // int(specs.every[q])))
        else:
            fresh = np.full(windows.key_count, NONE, np.int64)
            state.retired.setdefault(name, fresh)[key] = until
    for key, q, closed in marks:
        at = key * count + q
        if closed > windows.state.closed[at]:
            windows.state.closed[at] = closed
            windows.state.next_close[at] = (
                (closed + 1) * specs.every[q] + specs.size[q] + specs.lateness[q]
            )


def _ints(table: pa.Table) -> I8:
    ints = np.zeros((table.num_rows, WORDS), np.int64)
    floats = ints.view(np.float64)
    for name, word in _INTS.items():
        ints[:, word] = table[name].to_numpy()
    for name, word in _FLOATS.items():
        floats[:, word] = table[name].to_numpy()
    ints[:, words.CHAIN] = -1
    return ints


def _sketch_words(column: "pa.ChunkedArray[Any]") -> tuple[I8, I8]:
    parts = [b"" if item is None else item for item in column.to_pylist()]
    sizes = np.array([len(part) // 8 for part in parts], np.int64)
    flat = np.frombuffer(b"".join(parts), np.int64)
    return flat.copy(), np.cumsum(sizes)


def _load_cells(state: State, places: Sequence[int], table: pa.Table) -> None:
    windows, specs = state.windows, state.windows.specs
    q = np.array(places, np.int64)[table["window"].to_numpy()]
    series = table["series"].to_numpy().astype(np.int64)
    ints = _ints(table)
    slot = specs.first[q] + (ints[:, words.PANE] & specs.mask[q])
    cells = series * specs.slots[0] + slot
    windows.state.ints[cells] = ints
    flat, ends = _sketch_words(table["sketch"])
    windows.load_sketches(windows.state.ints, cells, flat, ends)
    words.link_cells(cells, windows.state, specs)


def _load_late(state: State, places: Sequence[int], table: pa.Table) -> None:
    ints = _ints(table)
    ints[:, words.SPEC] = np.array(places, np.int64)[table["window"].to_numpy()]
    ints[:, words.SERIES] = table["series"].to_numpy()
    state.windows.restore_late(ints)
    flat, ends = _sketch_words(table["sketch"])
    cells = np.arange(len(ints))
    state.windows.load_sketches(state.windows.late.ints, cells, flat, ends)
