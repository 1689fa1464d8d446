"""Batches of many cities and dates → one table per file, with dictionaries of its own.

Rows of one file lie together afterwards, in their old order. The cost follows the rows:
a dictionary of the whole partition is looked at only where rows use it. One city and one
date, the usual case, moves no column but the dictionary codes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.kernels import scatter

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[Any]
Array: TypeAlias = "pa.Array[Any]"
Chunked: TypeAlias = "pa.ChunkedArray[Any]"
Named: TypeAlias = "pa.DictionaryArray[Any, Any]"

_EPOCH: Final = date(1970, 1, 1)
_GROUPS_START: Final = 64
_PLAIN: Final[dict[int, np.dtype[Any]]] = {
    width: np.dtype(f"i{width}") for width in (1, 2, 4, 8)
}
# Below this many rows a chunk, the writer's cost per chunk outweighs copying them together.
_CHUNK_ROWS_MIN: Final = 16_384


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """The Hive columns of one file; `window` is empty for datasets without one."""

    window: str
    city: str
    date: date


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A batch with its rows labelled: `routes[groups[row]]` has `counts` rows."""

    batch: pa.RecordBatch
    groups: I4
    routes: tuple[Route, ...]
    counts: I8


@dataclass(frozen=True, slots=True)
class _Codes:
    """A dictionary column of all batches, with one dictionary for them all."""

    chunks: list[I4]
    dictionary: Array


def split(
    batches: Sequence[pa.RecordBatch], published: pa.Schema
) -> Iterator[tuple[Route, pa.Table]]:
    """Yield one table of schema `published` per route, sorted by route.

    Args:
        batches: not empty, none of them empty, all of one schema: routing columns
            (`window` where there is one, `city`, `date`) in front of `published`.
        published: the schema of the files.
    """
    labelled = [_label(batch) for batch in batches]
    routes = sorted({route for item in labelled for route in item.routes})
    width = len(published)
    if len(routes) == 1:
        columns = [_join(batches, -width + i) for i in range(width)]
        starts = np.zeros(1, np.int64)
        counts = np.array([sum(len(batch) for batch in batches)])
    else:
        order = {route: at for at, route in enumerate(routes)}
        counts = np.zeros(len(routes), np.int64)
        for item in labelled:
            counts[[order[route] for route in item.routes]] += item.counts
        starts = np.cumsum(counts) - counts
        targets = _targets(labelled, order, starts)
        columns = [_scatter(batches, -width + i, targets) for i in range(width)]
    names = [_Names(column) for column in columns]
    for at, route in enumerate(routes):
        start, count = int(starts[at]), int(counts[at])
        arrays = [name.part(start, count) for name in names]
        yield route, pa.Table.from_arrays(arrays, schema=published)


# --- labelling ------------------------------------------------------------------------


def _label(batch: pa.RecordBatch) -> _Labelled:
    city, windows = _named(batch, "city"), None
    cities, major, minor = (
        city.dictionary,
        values_of(city.indices),
        batch.column("date"),
    )
    if batch.schema.names[0] == "window":
        window = _named(batch, "window")
        windows = window.dictionary
        major = _frozen(values_of(window.indices) * np.int32(len(cities)) + major)
    capacity = _GROUPS_START
    groups = _room(len(batch), np.dtype(np.int32))
    while True:
        keys, counts = np.empty(capacity, np.int64), np.zeros(capacity, np.int64)
        table = np.full(4 * capacity, -1, np.int32)
        found = scatter.label(major, values_of(minor), table, keys, counts, groups)
        if found != scatter.FULL:
            break
        capacity *= 8
    routes = tuple(_route(int(key), cities, windows) for key in keys[:found])
    return _Labelled(batch, groups, routes, counts[:found])


def _named(batch: pa.RecordBatch, name: str) -> Named:
    column = batch.column(name)
    assert isinstance(column, pa.DictionaryArray), name
    return column


def _route(key: int, cities: Array, windows: "Array | None") -> Route:
    major, minor = key >> 32, key & 0xFFFFFFFF
    days = minor - (1 << 32) if minor >> 31 else minor
    window = "" if windows is None else windows[major // len(cities)].as_py()
    return Route(
        window, cities[major % len(cities)].as_py(), _EPOCH + timedelta(days=days)
    )


def _targets(
    labelled: Sequence[_Labelled], order: dict[Route, int], starts: I8
) -> list[I8]:
    """Return each row's place, batch by batch; routes follow `order`, rows keep theirs."""
    cursor = starts.copy()
    targets = []
    for item in labelled:
        here = [order[route] for route in item.routes]
        local = cursor[here]
        target = _room(len(item.groups), np.dtype(np.int64))
        scatter.destinations(item.groups, local, target)
        cursor[here] = local
        targets.append(target)
    return targets


# --- columns --------------------------------------------------------------------------


def _join(batches: Sequence[pa.RecordBatch], index: int) -> "Chunked | _Codes":
    """Return a column of all batches as it is, without copying unless chunks are small."""
    chunks: list[Any] = [batch.column(index) for batch in batches]
    rows = sum(len(chunk) for chunk in chunks)
    small = len(chunks) > 1 and rows < _CHUNK_ROWS_MIN * len(chunks)
    if pa.types.is_dictionary(chunks[0].type):
        codes = _unify(chunks)
        if small:
            return _Codes([_frozen(np.concatenate(codes.chunks))], codes.dictionary)
        return codes
    joined = pa.chunked_array(chunks)
    return pa.chunked_array([joined.combine_chunks()]) if small else joined


def _scatter(
    batches: Sequence[pa.RecordBatch], index: int, targets: Sequence[I8]
) -> "Chunked | _Codes":
    """Return a column of all batches with every row at its target."""
    chunks: list[Any] = [batch.column(index) for batch in batches]
    kind = chunks[0].type
    if pa.types.is_dictionary(kind):
        codes = _unify(chunks)
        return _Codes([_frozen(_place(codes.chunks, targets))], codes.dictionary)
    if is_plain(kind) and not any(chunk.null_count for chunk in chunks):
        placed = _place([values_of(chunk) for chunk in chunks], targets)
        data = pa.py_buffer(placed.data)
        return pa.chunked_array(
            [pa.Array.from_buffers(kind, len(placed), [None, data])]
        )
    where = np.empty(sum(map(len, targets)), np.int64)
    where[np.concatenate(targets)] = np.arange(len(where))
    joined: Any = pa.chunked_array(chunks).combine_chunks()
    return pa.chunked_array([joined.take(pa.array(where, pa.int64()))])


def _place(columns: Sequence[Column], targets: Sequence[I8]) -> Column:
    out = _room(sum(map(len, targets)), columns[0].dtype)
    for column, target in zip(columns, targets, strict=True):
        scatter.place(target, column, out)
    return out


def is_plain(kind: pa.DataType) -> bool:
    """Tell whether values are 1, 2, 4 or 8 bytes each (bit-packed booleans are not)."""
    return not pa.types.is_boolean(kind) and (
        pa.types.is_primitive(kind) and kind.bit_width // 8 in _PLAIN
    )


def _room(rows: int, kind: np.dtype[Any]) -> Column:
    """Return an uninitialised array.

    From Arrow's pool, which hands the pages of the last write out again: fresh ones doubled
    the cost of a scatter (36 against 18 ns a row, 7 cities, 1 M rows).
    """
    return np.frombuffer(memoryview(pa.allocate_buffer(rows * kind.itemsize)), kind)


def values_of(array: Array) -> Column:
    """Return the values of a plain array as integers, without copying; anything where null."""
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    assert data is not None, "an empty batch"
    start = array.offset * width
    view = memoryview(data)[start : start + len(array) * width]
    return _frozen(np.frombuffer(view, _PLAIN[width]))


def _frozen(column: Column) -> Column:
    """Return a view that cannot be written, so that kernels compile once, not twice."""
    view = column.view()
    view.flags.writeable = False
    return view


# --- dictionaries ---------------------------------------------------------------------


class _Names:
    """A column cut into its files; dictionaries shrink to the names a file uses."""

    def __init__(self, column: "Chunked | _Codes") -> None:
        self._column = column
        if isinstance(column, _Codes):
            self._local = np.full(len(column.dictionary), -1, np.int32)
            self._used = np.empty(len(column.dictionary), np.int32)

    def part(self, start: int, count: int) -> Chunked:
        """Return rows `[start, start + count)`; a dictionary column must be cut at chunks."""
        if not isinstance(self._column, _Codes):
            return self._column.slice(start, count)
        chunks = self._column.chunks
        if len(chunks) == 1:
            chunks = [chunks[0][start : start + count]]
        outs, known = [], 0
        for codes in chunks:
            out = _room(len(codes), codes.dtype)
            known = scatter.compact(codes, self._local, self._used, known, out)
            outs.append(out)
        used = self._used[:known].copy()
        self._local[used] = -1
        names: Any = self._column.dictionary.take(pa.array(used, pa.int32()))
        return pa.chunked_array([_coded(out, names) for out in outs])


def _coded(codes: I4, names: Any) -> Any:
    """Return a dictionary array over the very memory of `codes`, unchecked."""
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, pa.int32()), names, safe=False
    )


def _unify(chunks: Sequence[Named]) -> _Codes:
    """Return codes into one dictionary; chunks that share theirs share it for nothing."""
    assert not any(chunk.null_count for chunk in chunks), "routed names are never null"
    shared: dict[tuple[int, ...], list[int]] = {}
    for at, chunk in enumerate(chunks):
        shared.setdefault(identity(chunk.dictionary), []).append(at)
    codes = [values_of(chunk.indices) for chunk in chunks]
    if len(shared) == 1:
        return _Codes(codes, chunks[0].dictionary)
    used_names: list[Any] = []
    used_codes: dict[int, I4] = {}
    for members in shared.values():
        dictionary = chunks[members[0]].dictionary
        local = np.full(len(dictionary), -1, np.int32)
        used, known = np.empty(len(dictionary), np.int32), 0
        for at in members:
            out = _room(len(codes[at]), codes[at].dtype)
            known = scatter.compact(codes[at], local, used, known, out)
            used_codes[at] = out
        used_names.append(dictionary.take(pa.array(used[:known], pa.int32())))
    encoded: Any = pa.concat_arrays(used_names).dictionary_encode()
    everywhere = values_of(encoded.indices)
    start = 0
    for members, names in zip(shared.values(), used_names, strict=True):
        here = everywhere[start : start + len(names)]
        for at in members:
            codes[at] = _frozen(here[used_codes[at]])
        start += len(names)
    return _Codes(codes, encoded.dictionary)


def identity(array: Array) -> tuple[int, ...]:
    """Return what tells two arrays apart while both are alive: place and length in memory."""
    addresses = (0 if data is None else data.address for data in array.buffers())
    return (len(array), array.offset, *addresses)
