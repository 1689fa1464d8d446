"""How each published table is laid out in Parquet, and one file of it written.

Measured (pyarrow 26, the ten columns of `readings`, one city, one core; quantised values):
pyarrow's defaults 270 ns a row; the layout below 41 ns and 4.7 B, 53 ns and 8.5 B where
devices come in random order and values have two decimals. What counts, in that order: no
null bitmaps, no statistics on strings, DELTA for times and offsets, dictionary arrays in,
lz4, constants plain. zstd level 1 costs 8 to 11 ns more for 6 to 9 % less, and in a file of
1,500 rows three times as much, because each page makes a context of its own. A constant is
1.6 ns as a plain column that the codec makes nothing of, 3.4 by a dictionary and 3.8 by
DELTA. Pages of more rows, a page index and statistics on the offset cost nothing measurable.
Byte-stream split of values was 9 ns slower with one decimal, 7 ns faster with two, and half
as large again both times.

A file is encoded in memory, checked and hashed there, and written once: what it takes is a
tenth of the rows it was made from.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (this is the connector that writes Parquet)

from streamproc.connectors.parquet_scatter import is_plain, values_of
from streamproc.core.ports import Store
from streamproc.errors import StoreFault

Codec = Literal["zstd", "lz4", "snappy", "none"]


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """How files are written.

    Attributes:
        codec: `zstd` is the smaller, `lz4` the cheaper.
        level: for `zstd` only.
        row_group_rows, row_group_bytes: a file above either (uncompressed, in Arrow) gets
            further row groups; it is never split into files.
    """

    codec: Codec = "lz4"
    level: int = 1
    row_group_rows: int = 1 << 20
    row_group_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Column encodings of one dataset; a column in neither list is plain.

    `dictionary` names the columns whose values tend to repeat: see `choose`. `statistics` names the columns that readers prune by: row order and names make
    minimum and maximum of the others useless, and they cost as much as the rest.
    """

    dictionary: tuple[str, ...]
    delta: tuple[str, ...]
    statistics: tuple[str, ...]


_READING: Final = Layout(
    dictionary=("device", "property", "value", "quality", "flags", "source", "ordinal"),
    delta=("event_time", "ingest_time", "offset"),
    statistics=("event_time", "value"),
)

LAYOUTS: Final = {
    "readings": _READING,
    "late": Layout(
        dictionary=(*_READING.dictionary, "window", "start"),
        delta=(*_READING.delta, "behind_us"),
        statistics=_READING.statistics,
    ),
    "aggregates": Layout(
        dictionary=(
            *("device", "property", "unit", "start", "end", "count", "invalid"),
            *("sum", "min", "max", "mean", "first", "last", "slots", "coverage"),
            *("source", "part", "close_reason"),
        ),
        delta=("first_time", "last_time"),
        statistics=("start",),
    ),
    "alerts": Layout(
        dictionary=(
            *("state", "rule", "rule_version", "severity", "device", "property"),
            *("window", "source", "transition"),
        ),
        delta=("event_time", "offset"),
        statistics=("event_time",),
    ),
    "quarantine": Layout(
        dictionary=("source", "reason", "detail"),
        delta=("offset", "broker_time", "payload_bytes"),
        statistics=("offset",),
    ),
}

# A dictionary of more than about 20,000 doubles makes the file larger and, once it passes
# Arrow's 1 MiB page, costs 65 ns a row for nothing. So many show by one repetition in forty.
_SAMPLE_ROWS: Final = 1024
_SAMPLE_BATCHES: Final = 8
_SAMPLE_DISTINCT_MAX: Final = 0.975


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """What is durable under a staged name."""

    size: int
    sha256: str


def choose(
    dataset: str, batches: Sequence[pa.RecordBatch], options: ParquetOptions
) -> Layout:
    """Return the dataset's layout with dictionaries only where these rows call for them."""
    layout = LAYOUTS[dataset]
    some = batches[:: 1 + len(batches) // _SAMPLE_BATCHES]
    rows = sum(map(len, some))
    step = max(1, rows // _SAMPLE_ROWS)
    packed = options.codec != "none"

    def repeats(name: str) -> bool:
        if not is_plain(some[0].schema.field(name).type):
            return True
        sample = np.concatenate([values_of(part.column(name))[::step] for part in some])
        if (sample == sample[0]).all():
            return not packed
        if rows < 8 * _SAMPLE_ROWS:
            return True
        return len(np.unique(sample)) <= _SAMPLE_DISTINCT_MAX * len(sample)

    return replace(layout, dictionary=tuple(filter(repeats, layout.dictionary)))


def write_table(
    store: Store, path: str, table: pa.Table, layout: Layout, options: ParquetOptions
) -> WrittenFile:
    """Write `table` durably to the staged name `path`, and check it by reopening it.

    The table's schema, metadata included, is the file's.

    Raises:
        StoreFault: the disk is full or the like, or the footer is not what was written.
    """
    data = _encode(table, layout, options)
    _check_footer(data, path, table)
    content = memoryview(data)
    digest = hashlib.sha256(content).hexdigest()
    return WrittenFile(store.stage(path, content), digest)


def _encode(table: pa.Table, layout: Layout, options: ParquetOptions) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression=options.codec,
        compression_level=options.level if options.codec == "zstd" else None,
        use_dictionary=list(layout.dictionary),  # type: ignore[arg-type]  # the stub lacks lists
        column_encoding=dict.fromkeys(layout.delta, "DELTA_BINARY_PACKED"),
        write_statistics=list(layout.statistics),
        write_page_index=True,
        write_batch_size=65536,
    ) as writer:
        writer.write_table(table, row_group_size=_row_group_rows(table, options))
    return sink.getvalue()


def _row_group_rows(table: pa.Table, options: ParquetOptions) -> int:
    """Return how many rows make a row group within both limits."""
    if table.get_total_buffer_size() <= options.row_group_bytes:
        return options.row_group_rows
    by_bytes = options.row_group_bytes * table.num_rows // max(1, table.nbytes)
    return max(1, min(options.row_group_rows, by_bytes))


def _check_footer(data: pa.Buffer, path: str, table: pa.Table) -> None:
    footer = pq.read_metadata(pa.BufferReader(data))
    if (footer.num_rows, footer.num_columns) != (table.num_rows, table.num_columns):
        msg = (
            f"{path}: written with {table.num_rows} rows and {table.num_columns} columns, "
            f"its footer says {footer.num_rows} and {footer.num_columns}"
        )
        raise StoreFault(msg)


def file_metadata(facts: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return Parquet key-value metadata with every key under `streamproc.`."""
    return {
        f"streamproc.{key}".encode(): value.encode() for key, value in facts.items()
    }
