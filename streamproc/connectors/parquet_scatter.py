"""Batches of many cities and dates → one table per file, with dictionaries of its own.

Rows of one file lie together afterwards, in their old order. The cost follows the rows:
a dictionary of the whole partition is looked at only where rows use it. One city and one
date, the usual case, moves no column but the dictionary codes. A column that is the same
everywhere (source, quality, flags, often ordinal) is not moved at all: every file gets the
beginning of one array.
"""

from collections.abc import Iterator, Sequence, Sized
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
# Dictionaries of up to so many names are the same if their names are, wherever they lie.
_COMPARED_MAX: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """The Hive columns of one file; `window` is empty for datasets without one."""

    window: str
    city: str
    date: date


@dataclass(frozen=True, slots=True)
class _Codes:
    """A dictionary column of all batches, with one dictionary for them all."""

    chunks: list[I4]
    dictionary: Array


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the rows of each file are to lie, batch by batch; `targets` None: as they are."""

    routes: tuple[Route, ...]
    counts: tuple[int, ...]
    targets: list[I8] | None

    @property
    def rows(self) -> int:
        """Return the rows of all files."""
        return sum(self.counts)


def split(
    batches: Sequence[pa.RecordBatch], published: pa.Schema
) -> Iterator[tuple[Route, pa.Table]]:
    """Yield one table of schema `published` per route, sorted by route.

    Args:
        batches: not empty, none of them empty, all of one schema: routing columns
            (`window` where there is one, `city`, `date`) in front of `published`.
        published: the schema of the files.
    """
    places = _places(batches)
    width = len(published)
    columns = [
        _column([batch.column(at - width) for batch in batches], places)
        for at in range(width)
    ]
    start = 0
    for file, route in enumerate(places.routes):
        count = places.counts[file]
        arrays = [column.part(file, start, count) for column in columns]
        yield route, pa.Table.from_arrays(arrays, schema=published)
        start += count


# --- labelling ------------------------------------------------------------------------


def _places(batches: Sequence[pa.RecordBatch]) -> _Places:
    cities = _unify([_named(batch, "city") for batch in batches])
    minor = [values_of(batch.column("date")) for batch in batches]
    major, windows = cities.chunks, None
    if batches[0].schema.names[0] == "window":
        labels = _unify([_named(batch, "window") for batch in batches])
        windows = labels.dictionary
        times = np.int32(len(cities.dictionary))
        pairs = zip(labels.chunks, major, strict=True)
        major = [_frozen(window * times + city) for window, city in pairs]

    def route(major: int, days: int) -> Route:
        window, city = divmod(major, len(cities.dictionary))
        return Route(
            "" if windows is None else windows[window].as_py(),
            cities.dictionary[city].as_py(),
            _EPOCH + timedelta(days=days),
        )

    if _is_constant(major) and _is_constant(minor):
        only = route(int(major[0][0]), int(minor[0][0]))
        return _Places((only,), (sum(map(len, major)),), None)
    keys, counts, groups = _label(major, minor)
    routes = [route(int(key) >> 32, _signed(int(key) & 0xFFFFFFFF)) for key in keys]
    order = sorted(range(len(routes)), key=routes.__getitem__)
    cursor = np.empty(len(order), np.int64)
    cursor[order] = np.cumsum(counts[order]) - counts[order]
    targets = []
    for group in groups:
        target = _room(len(group), np.dtype(np.int64))
        scatter.destinations(group, cursor, target)
        targets.append(target)
    return _Places(
        tuple(routes[at] for at in order), tuple(counts[order].tolist()), targets
    )


def _named(batch: pa.RecordBatch, name: str) -> Named:
    column = batch.column(name)
    assert isinstance(column, pa.DictionaryArray), name
    return column


def _label(major: Sequence[I4], minor: Sequence[I4]) -> tuple[I8, I8, list[I4]]:
    """Return the distinct pairs, how many rows each has, and each row's number of its pair."""
    groups = [_room(len(chunk), np.dtype(np.int32)) for chunk in major]
    capacity = _GROUPS_START
    while True:
        keys, counts = np.empty(capacity, np.int64), np.zeros(capacity, np.int64)
        table, found = np.full(4 * capacity, -1, np.int32), 0
        for upper, lower, group in zip(major, minor, groups, strict=True):
            found = scatter.label(upper, lower, table, keys, counts, found, group)
            if found == scatter.FULL:
                break
        else:
            return keys[:found], counts[:found], groups
        capacity *= 8


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


# --- columns --------------------------------------------------------------------------


class _Same:
    """A column with the same content in every row: as long as the longest file."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def part(self, _file: int, _start: int, count: int) -> Array:
        """Return `count` rows."""
        return self._array.slice(0, count)


class _Plain:
    """A column whose files lie one after the other."""

    def __init__(self, column: "Array | Chunked") -> None:
        self._column = column

    def part(self, _file: int, start: int, count: int) -> "Array | Chunked":
        """Return rows `[start, start + count)`."""
        return self._column.slice(start, count)


class _Names:
    """A dictionary column; each file gets the names it uses, in order of appearance.

    The names of all files are taken at once: one by one that was a quarter of the cost of
    small files.
    """

    def __init__(self, codes: _Codes, counts: Sequence[int]) -> None:
        local = np.full(len(codes.dictionary), -1, np.int32)
        rows = sum(counts)
        used, base = _room(rows, np.dtype(np.int32)), 0
        self._codes: list[list[Array]] = []
        self._bounds: list[tuple[int, int]] = []
        for chunks in _cut(codes.chunks, counts):
            known, outs, mine = 0, [], used[base:]
            for chunk in chunks:
                out = _room(len(chunk), chunk.dtype)
                known = scatter.compact(chunk, local, mine, known, out)
                outs.append(_array(pa.int32(), out))
            local[mine[:known]] = -1
            self._codes.append(outs)
            self._bounds.append((base, known))
            base += known
        self._names: Any = codes.dictionary.take(_array(pa.int32(), used[:base]))

    def part(self, file: int, _start: int, _count: int) -> Chunked:
        """Return the rows of a file."""
        names = self._names.slice(*self._bounds[file])
        return pa.chunked_array([_coded(codes, names) for codes in self._codes[file]])


def _cut(chunks: list[I4], counts: Sequence[int]) -> Iterator[list[I4]]:
    """Yield each file's chunks: all of them for the only file, else a part of the only one."""
    if len(counts) == 1:
        yield chunks
        return
    (whole,) = chunks
    start = 0
    for count in counts:
        yield [whole[start : start + count]]
        start += count


_Column: TypeAlias = _Same | _Plain | _Names


def _column(chunks: list[Any], places: _Places) -> _Column:
    """Return a column of all batches with every row at its place."""
    kind = chunks[0].type
    if pa.types.is_dictionary(kind):
        return _names(_unify(chunks), places)
    nulls = sum(chunk.null_count for chunk in chunks)
    if nulls == places.rows:
        return _Same(pa.nulls(max(places.counts), kind))
    if places.targets is not None:
        return _moved(chunks, nulls, places, places.targets)
    whole = pa.chunked_array(chunks)
    return _Plain(whole.combine_chunks() if _is_small(chunks) else whole)


def _names(codes: _Codes, places: _Places) -> _Column:
    chunks = codes.chunks
    if _is_constant(chunks):
        only = codes.dictionary.slice(int(chunks[0][0]), 1)
        zeros = np.zeros(max(places.counts), np.int32)
        return _Same(_coded(_array(pa.int32(), zeros), only))
    if places.targets is not None:
        chunks = [_frozen(_place(chunks, places.targets))]
    elif _is_small(chunks):
        chunks = [_frozen(np.concatenate(chunks))]
    return _Names(_Codes(chunks, codes.dictionary), places.counts)


def _moved(
    chunks: list[Any], nulls: int, places: _Places, targets: Sequence[I8]
) -> _Column:
    kind = chunks[0].type
    if is_plain(kind):
        columns = [values_of(chunk) for chunk in chunks]
        if not nulls and _is_constant(columns):
            filled = np.full(max(places.counts), columns[0][0])
            return _Same(_array(kind, filled))
        valid = [chunk.is_valid() for chunk in chunks] if nulls else None
        return _Plain(
            _array(kind, _place(columns, targets), _place_bits(valid, targets))
        )
    if pa.types.is_boolean(kind) and not nulls:
        data = _place_bits(chunks, targets)
        return _Plain(pa.Array.from_buffers(kind, places.rows, [None, data]))
    where = np.empty(places.rows, np.int64)
    where[np.concatenate(targets)] = np.arange(len(where))
    joined: Any = pa.chunked_array(chunks).combine_chunks()
    return _Plain(joined.take(pa.array(where, pa.int64())))


def _place(columns: Sequence[Column], targets: Sequence[I8]) -> Column:
    out = _room(sum(map(len, targets)), columns[0].dtype)
    for column, target in zip(columns, targets, strict=True):
        scatter.place(target, column, out)
    return out


def _place_bits(
    columns: "Sequence[pa.BooleanArray] | None", targets: Sequence[I8]
) -> pa.Buffer | None:
    if columns is None:
        return None
    wide = [column.cast(pa.int8()) for column in columns]
    placed = _place([values_of(column) for column in wide], targets)
    return pa.py_buffer(np.packbits(placed, bitorder="little").data)


def _array(kind: pa.DataType, values: Column, valid: pa.Buffer | None = None) -> Array:
    """Return an array over the very memory of `values`."""
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values.data)])


def _is_constant(chunks: Sequence[Column]) -> bool:
    first = chunks[0][0]
    return all(chunk[0] == first and scatter.constant(chunk) for chunk in chunks)


def _is_small(chunks: Sequence[Sized]) -> bool:
    """Tell whether the writer's cost per chunk outweighs copying them together."""
    return len(chunks) > 1 and sum(map(len, chunks)) < _CHUNK_ROWS_MIN * len(chunks)


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


def _coded(codes: Any, names: Any) -> Any:
    """Return a dictionary array; codes are ours, so they are not checked again."""
    return pa.DictionaryArray.from_arrays(codes, names, safe=False)


def _unify(chunks: Sequence[Named]) -> _Codes:
    """Return codes into one dictionary; chunks that share theirs share it for nothing."""
    assert not any(chunk.null_count for chunk in chunks), "routed names are never null"
    shared: dict[tuple[int, ...], list[int]] = {}
    first = chunks[0].dictionary
    key = identity(first)
    for at, chunk in enumerate(chunks):
        names = chunk.dictionary
        small = len(names) <= _COMPARED_MAX and names.equals(first)
        shared.setdefault(key if small else identity(names), []).append(at)
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
