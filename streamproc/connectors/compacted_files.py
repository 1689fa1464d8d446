"""Many published files of one folder into few: read, compared, sorted, written, compared.

Sorted by device, property and time, with statistics on device, and in zstd: what one device
did on a day is then in few row groups. Every input's bytes are compared with what the log
says of them, every output is read back from the store, and the rows of all outputs must be
the rows of all inputs as a multiset, bit for bit (NaN by its bits, 0.0 and -0.0 apart).

Memory: as many rows as one output holds, about three times. What is more becomes several
outputs, each with the devices of one range of names, and the inputs are read once per range.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a connector: Parquet is its business)

from streamproc.connectors.parquet_files import (
    Layout,
    ParquetOptions,
    choose,
    write_table,
)
from streamproc.core.ports import Store
from streamproc.core.schemas import NAME, PUBLISHED
from streamproc.core.swaps import InputFile, OutputEntry
from streamproc.errors import StoreFault

ORDER: Final = {
    "readings": ("device", "property", "event_time", "source", "offset", "ordinal"),
    "late": (
        *("device", "property", "event_time", "window", "start"),
        *("source", "offset", "ordinal"),
    ),
    "aggregates": ("device", "property", "start", "source", "part"),
    "alerts": (
        *("device", "property", "event_time", "source", "offset"),
        *("alert_id", "transition"),
    ),
    "quarantine": ("source", "offset"),
}
"""What the rows of a compacted file are sorted by."""

COMPACTED: Final = ParquetOptions(codec="zstd", level=3, row_group_rows=1 << 17)
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one output may hold: rows, and bytes of them in Arrow."""

    rows: int = 4_000_000
    size_bytes: int = 512 << 20


@dataclass(slots=True)
class _Seen:
    """What the first pass over all inputs found; `tables` is None once they are too much."""

    rows: int = 0
    size_bytes: int = 0
    digest: int = 0
    names: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    tables: list[pa.Table] | None = field(default_factory=list)
    facts: dict[bytes, bytes] = field(default_factory=dict)


class FileMerger:
    """Reads, merges and writes the files of one folder at a time. Not thread-safe.

    Args:
        store: where they lie.
        code_version: goes into the files' metadata.
    """

    def __init__(
        self,
        store: Store,
        code_version: str,
        options: ParquetOptions = COMPACTED,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._version = code_version.encode()
        self._options = options
        self._limits = limits or Limits()
        self._names: dict[Any, int] = {}

    def merge(
        self,
        dataset: str,
        inputs: Sequence[InputFile],
        staging: str,
        name_of: Callable[[int, int], str],
    ) -> tuple[OutputEntry, ...]:
        """Write the rows of `inputs` durably below `staging`; return what was written.

        Args:
            dataset: decides schema and order.
            inputs: in order of their commits.
            staging: a folder that nobody else uses.
            name_of: (k, of) → the final name of output k of so many.

        Raises:
            StoreFault: an input is not what the log says, has columns this version does not
                know, or the outputs do not hold the rows of the inputs.
        """
        seen = self._survey(dataset, inputs)
        portions = list(self._portions(dataset, inputs, seen))
        seen.tables = None
        outputs = []
        for k, portion in enumerate(portions):
            table = _sorted(portion(), dataset)
            table = table.replace_schema_metadata(seen.facts)
            name = name_of(k, len(portions))
            outputs.append(self._write(dataset, f"{staging}/{name}", name, table))
            del table
        self._store.settle()  # A store may still be sending what it was given.
        digest = sum(
            self._digest(self._load(dataset, self._staged(entry))) for entry in outputs
        )
        rows = sum(entry.rows for entry in outputs)
        if (rows, digest & _MASK) != (seen.rows, seen.digest & _MASK):
            msg = f"{staging}: {rows} rows were written, and not the {seen.rows} read"
            raise StoreFault(msg)
        return tuple(outputs)

    # --- reading ----------------------------------------------------------------------

    def _survey(self, dataset: str, inputs: Sequence[InputFile]) -> _Seen:
        seen = _Seen()
        for file in inputs:
            table = self._load(dataset, file)
            seen.rows += table.num_rows
            seen.size_bytes += table.nbytes
            seen.sizes.append(table.nbytes)
            seen.digest += self._digest(table)
            seen.facts = self._facts(seen.facts, table.schema.metadata or {})
            if "device" in table.schema.names:
                seen.names.update(_counts(table, "device"))
            if seen.tables is not None:
                seen.tables.append(table)
                if self._too_much(seen.rows, seen.size_bytes):
                    seen.tables = None
        return seen

    def _load(self, dataset: str, file: InputFile) -> pa.Table:
        data = self._store.read(file.path)
        if data is None:
            msg = f"{file.path}: is not there any more"
            raise StoreFault(msg)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            msg = f"{file.path}: its sha256 is not the one in the log"
            raise StoreFault(msg)
        published = PUBLISHED[dataset]
        names = [column.name for column in published if column.type == NAME]
        try:
            with pq.ParquetFile(
                pa.BufferReader(data), read_dictionary=names
            ) as parquet:
                # Threads cost a small file more than its rows.
                table = _conformed(parquet.read(use_threads=False), published)
        except (pa.ArrowException, OSError, ValueError) as error:
            msg = f"{file.path}: cannot be read back: {error}"
            raise StoreFault(msg) from error
        if table.num_rows != file.rows:
            msg = f"{file.path}: has {table.num_rows} rows, the log says {file.rows}"
            raise StoreFault(msg)
        return table

    def _staged(self, entry: OutputEntry) -> InputFile:
        return InputFile(entry.staged, entry.sha256, entry.rows)

    def _facts(
        self, before: dict[bytes, bytes], found: dict[bytes, bytes]
    ) -> dict[bytes, bytes]:
        """Return what the files say of themselves, the newest first; inputs come in order."""
        key = b"streamproc.definition"
        facts = {**found, b"streamproc.code_version": self._version}
        facts.pop(b"ARROW:schema", None)
        if before and before.get(key) != found.get(key):
            facts[key] = b"several"
        return facts

    # --- portions ---------------------------------------------------------------------

    def _too_much(self, rows: int, size_bytes: int) -> bool:
        return rows > self._limits.rows or size_bytes > self._limits.size_bytes

    def _portions(
        self, dataset: str, inputs: Sequence[InputFile], seen: _Seen
    ) -> Iterator[Callable[[], list[pa.Table]]]:
        """Yield what makes the tables of each output; together every row once."""
        if seen.tables is not None:
            tables = seen.tables
            yield lambda: tables
        elif seen.names:
            row_bytes = max(1, seen.size_bytes // max(1, seen.rows))
            rows = min(self._limits.rows, self._limits.size_bytes // row_bytes)
            bounds = _bounds(seen.names, max(1, rows))
            for at in range(len(bounds) + 1):
                yield lambda at=at: [  # type: ignore[misc]  # at is bound now
                    _between(self._load(dataset, file), bounds, at) for file in inputs
                ]
        else:
            for files in self._runs(inputs, seen.sizes):
                yield lambda files=files: [  # type: ignore[misc]  # files is bound now
                    self._load(dataset, file) for file in files
                ]

    def _runs(
        self, inputs: Sequence[InputFile], sizes: Sequence[int]
    ) -> Iterator[list[InputFile]]:
        """Yield neighbouring inputs that fit into one output; without devices, that must do."""
        run: list[InputFile] = []
        held = 0
        for file, size in zip(inputs, sizes, strict=True):
            if run and held + size > self._limits.size_bytes:
                yield run
                run, held = [], 0
            run.append(file)
            held += size
        if run:
            yield run

    # --- writing ----------------------------------------------------------------------

    def _write(
        self, dataset: str, staged: str, name: str, table: pa.Table
    ) -> OutputEntry:
        layout = _layout(dataset, table, self._options)
        written = write_table(self._store, staged, table, layout, self._options)
        return OutputEntry(
            staged=staged,
            name=name,
            size=written.size,
            rows=table.num_rows,
            sha256=written.sha256,
        )

    def _digest(self, table: pa.Table) -> int:
        """Return a sum over all rows that does not depend on their order.

        Equal rows have equal hashes of 64 bits; a row that is lost, doubled or changed
        in one bit changes the sum but once in 2**64.
        """
        if not table.num_rows:
            return 0
        columns = {
            name: self._bits(column)
            for name, column in zip(table.schema.names, table.columns, strict=True)
        }
        frame = pl.from_arrow(pa.table(columns))
        assert isinstance(frame, pl.DataFrame)
        return int(frame.hash_rows(seed=1).to_numpy().sum(dtype=np.uint64))

    def _bits(self, column: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
        """Return the column with floats as their bits and names as numbers of their own."""
        kind: Any = column.type
        chunks: list[Any] = column.chunks
        if kind == NAME:
            chunks = [self._named(chunk) for chunk in chunks]
        elif pa.types.is_floating(kind):
            bits = pa.int64() if kind.bit_width == 64 else pa.int32()  # noqa: PLR2004
            chunks = [chunk.view(bits) for chunk in chunks]
        return pa.chunked_array(chunks)

    def _named(self, column: Any) -> Any:
        numbers = [
            self._names.setdefault(name, len(self._names))
            for name in column.dictionary.to_pylist()
        ]
        return pa.array(numbers, pa.int64()).take(column.indices)


# --- tables ---------------------------------------------------------------------------


def _conformed(table: pa.Table, published: pa.Schema) -> pa.Table:
    """Return the table in today's schema: columns of later versions are null before them."""
    unknown = set(table.schema.names) - set(published.names)
    if unknown:
        msg = f"has columns this version does not know: {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    columns: list[Any] = []
    for column in published:
        if column.name in table.schema.names:
            columns.append(table.column(column.name).cast(column.type))
        elif column.nullable:
            nulls: Any = pa.nulls(table.num_rows, column.type)
            columns.append(nulls)
        else:
            msg = f"lacks the column {column.name}"
            raise ValueError(msg)
    made = pa.Table.from_arrays(columns, schema=published)
    return made.replace_schema_metadata(table.schema.metadata)


def _sorted(tables: list[pa.Table], dataset: str) -> pa.Table:
    """Return the rows of all tables as one, sorted by `ORDER`."""
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    keys = {name: _key(table.column(name)) for name in ORDER[dataset]}
    order = pl.DataFrame(keys).select(pl.arg_sort_by(*keys)).to_series()
    return table.take(order.to_arrow())


def _key(column: "pa.ChunkedArray[Any]") -> pl.Series:
    """Return what sorts as the column does; names by their rank."""
    if column.type != NAME:
        series = pl.from_arrow(column)
        assert isinstance(series, pl.Series)
        return series
    chunk: Any = column.combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):
        chunk = chunk.chunk(0)
    names = chunk.dictionary.to_pylist()
    ranks = np.empty(len(names) + 1, np.int32)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    ranks[-1] = -1  # Null sorts first.
    return pl.Series(ranks[chunk.indices.fill_null(-1).to_numpy()])


def _counts(table: pa.Table, column: str) -> Counter[str]:
    """Return the rows of each name."""
    found: Counter[str] = Counter()
    for chunk in table.column(column).chunks:
        some: Any = chunk
        rows = np.bincount(some.indices.to_numpy(), minlength=len(some.dictionary))
        found.update(
            {
                name: int(count)
                for name, count in zip(some.dictionary.to_pylist(), rows, strict=True)
                if count
            }
        )
    return found


def _bounds(names: Counter[str], rows_max: int) -> list[str]:
    """Return the names, ascending, at which a new output begins; a name is never cut."""
    bounds, held = [], 0
    for name in sorted(names):
        if held and held + names[name] > rows_max:
            bounds.append(name)
            held = 0
        held += names[name]
    return bounds


def _between(table: pa.Table, bounds: Sequence[str], at: int) -> pa.Table:
    """Return the rows whose device belongs to range `at` of those that `bounds` make."""
    masks: list[npt.NDArray[np.bool_]] = []
    for chunk in table.column("device").chunks:
        some: Any = chunk
        names = some.dictionary.to_pylist()
        chosen = np.array([bisect_right(bounds, name) == at for name in names], bool)
        masks.append(chosen[some.indices.to_numpy()])
    return table.filter(pa.array(np.concatenate(masks)))


def _layout(dataset: str, table: pa.Table, options: ParquetOptions) -> Layout:
    layout = choose(dataset, table.to_batches(), options)
    sorted_by = [name for name in ORDER[dataset] if name in {"device", "property"}]
    return replace(layout, statistics=(*sorted_by, *layout.statistics))
