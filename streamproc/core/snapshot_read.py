"""A state read back from the tables `core.snapshot_write` describes.

Names are looked up under the definition of today, cells are put into the slots it gives them,
and what was an address when it was written (chains of cells, chunks of sketches) is built anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.definition import Definition, WindowSpec
from streamproc.core.panes import parts_of
from streamproc.core.resolve import Resolver
from streamproc.core.series_table import SeriesTable
from streamproc.core.snapshot_write import CELL_FLOATS, CELL_INTS
from streamproc.core.state import State
from streamproc.core.windows import Windows
from streamproc.kernels import windows_layout as words
from streamproc.kernels.sketch_chains import EMPTY
from streamproc.kernels.windows_layout import NONE, WORDS
from streamproc.kernels.windows_restore import link_cells

I8 = npt.NDArray[np.int64]


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


def _load_names(
    state: State, resolver: Resolver, tables: Mapping[str, pa.Table]
) -> None:
    table, windows = state.series, state.windows
    devices: list[Any] = tables["devices"]["device"].to_pylist()
    cities = {slug: code for code, slug in enumerate(table.cities)}
    slugs: list[Any] = tables["devices"]["city"].to_pylist()
    city = [cities[slug] for slug in slugs]
    table.add_devices(pa.array(devices, pa.string()), np.array(city, np.int32))
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
    interval = np.array([resolver.interval_us(name) for name in devices], np.int64)
    parts = parts_of(interval, windows.windows)
    windows.add_series(
        device if windows.by_device else table.city, table.city, parts[device]
    )
    running, count = windows.state, table.series_count
    line, depth = running.line, int(running.depth[0])
    line[:count, words.HEARD_US] = rows["last_us"].to_numpy()
    for name, target in (
        ("ring_us", line[:, words.RING :]),
        ("ring_value", running.line_floats[:, words.RING + depth :]),
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
        line[:count, words.RING_COUNT] = held
        line[:count, words.RING_NEXT] = held % depth


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
    for name, word in CELL_INTS.items():
        ints[:, word] = table[name].to_numpy()
    for name, word in CELL_FLOATS.items():
        floats[:, word] = table[name].to_numpy()
    ints[:, words.CHAIN] = EMPTY
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
    link_cells(cells, windows.state, specs)


def _load_late(state: State, places: Sequence[int], table: pa.Table) -> None:
    ints = _ints(table)
    ints[:, words.SPEC] = np.array(places, np.int64)[table["window"].to_numpy()]
    ints[:, words.SERIES] = table["series"].to_numpy()
    state.windows.restore_late(ints)
    flat, ends = _sketch_words(table["sketch"])
    cells = np.arange(len(ints))
    state.windows.load_sketches(state.windows.late.ints, cells, flat, ends)
