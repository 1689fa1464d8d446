"""Rows of CSV and Parquet files, in chunks, with the bytes of every row kept."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq  # noqa: TID251  (this is the connector that reads Parquet files)

from streamproc.connectors.files.content import (
    U1,
    Block,
    blocks,
    raw_rows,
)
from streamproc.connectors.files.mapping import FileMapping
from streamproc.connectors.files.sheets import RawRows
from streamproc.connectors.files.untyped import Column, arrow
from streamproc.errors import InputError
from streamproc.kernels.row_scan import STRAY_QUOTE, scan_rows

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

QUOTED_BYTES_MAX: Final = 64 * 1024
"""A quoted field that has not ended this far behind its row's start was not meant as one."""


@dataclass(frozen=True, slots=True)
class TablePiece:
    """Some rows, and where they start and stop in the content; None for Parquet."""

    rows: RawRows
    places: tuple[I8, I8] | None


class TableReader(Protocol):
    """Reads one file from its first row on."""

    def pieces(self, size: int, *, light: bool = False) -> Iterator[TablePiece]:
        """Yield rows in order, about `size` bytes at a time.

        `light` reads only the columns that placing rows needs, and leaves `raw` null.

        Raises:
            InputError: the file cannot be read, or has not the columns of the mapping.
        """
        ...


def check_columns(path: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a file without the columns of the mapping, or with one of them twice.

    Raises:
        InputError: naming them and what is there.
    """
    for name in wanted:
        count = list(present).count(name)
        if count != 1:
            what = "has no column" if count == 0 else "has more than one column"
            msg = f"{path}: {what} {name!r}; it has {', '.join(map(repr, present))}"
            raise InputError(msg)


def _wanted(mapping: FileMapping, *, light: bool) -> list[str]:
    return list(mapping.time_columns() if light else mapping.used_columns())


def _no_raw(block: Block) -> Column:
    return pa.nulls(len(block.starts), pa.binary())


# --- CSV ------------------------------------------------------------------------------


class CsvReader:
    """CSV with a header line.

    Rows end at LF, CR or CR LF outside quotes; empty lines are no rows. A row with
    another number of fields than the header, or with a quote that never closes, is kept
    as broken. The values are read by Arrow, the bytes of the rows are the file's own.
    """

    def __init__(self, path: str, limit: int | None, mapping: FileMapping) -> None:
        self._path = path
        self._limit = limit
        self._mapping = mapping

    def pieces(self, size: int, *, light: bool = False) -> Iterator[TablePiece]:
        """Yield rows in order, about `size` bytes at a time."""
        wanted = _wanted(self._mapping, light=light)
        header: list[str] | None = None
        for block in blocks(self._path, self._limit, size, self._cut):
            rows = block
            if header is None:
                header = self._header(block)
                check_columns(self._path, header, wanted)
                rows = block.without_first(1)
            if len(rows.starts):
                raw = _no_raw(rows) if light else raw_rows(rows)
                yield self._piece(rows, header, wanted, raw)

    def _cut(self, data: U1, final: bool) -> tuple[I8, I8, I4, int]:  # noqa: FBT001  (the shape of `Cut`)
        ends = int(np.count_nonzero((data == ord("\n")) | (data == ord("\r"))))
        starts, stops = np.empty(ends + 1, np.int64), np.empty(ends + 1, np.int64)
        fields = np.empty(ends + 1, np.int32)
        quote = -1 if self._mapping.quote is None else ord(self._mapping.quote)
        separator = ord(self._mapping.separator)
        rows, used = scan_rows(
            data, separator, quote, QUOTED_BYTES_MAX, int(final), starts, stops, fields
        )
        return starts[:rows], stops[:rows], fields[:rows], used

    def _header(self, block: Block) -> list[str]:
        text = block.data[block.starts[0] : block.stops[0]].tobytes()
        try:
            reader = csv.reader(
                io.StringIO(text.decode(), newline=""),
                delimiter=self._mapping.separator,
                quotechar=self._mapping.quote,
                quoting=csv.QUOTE_NONE
                if self._mapping.quote is None
                else csv.QUOTE_MINIMAL,
            )
            return next(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            msg = f"{self._path}: line 1 is no header: {error}"
            raise InputError(msg) from error

    def _piece(
        self, block: Block, header: list[str], wanted: list[str], raw: Column
    ) -> TablePiece:
        good = block.fields == len(header)
        broken = {
            row: _what_is_broken(int(block.fields[row]), len(header))
            for row in np.flatnonzero(~good).tolist()
        }
        table = self._table(_text_of(block, good), header, wanted)
        assert table.num_rows == int(good.sum()), (self._path, block.base)
        if broken:  # null where the row is broken
            place = arrow.array(np.cumsum(good) - 1, mask=~good)
            table = table.take(place)
        columns = {name: table[name].combine_chunks() for name in wanted}
        return TablePiece(RawRows(columns, raw, broken), block.places)

    def _table(self, text: bytes, header: list[str], wanted: list[str]) -> Any:
        kinds = dict.fromkeys(wanted, pa.binary())
        if not text:
            return pa.table({name: pa.array([], pa.binary()) for name in wanted})
        return arrow.csv.read_csv(
            pa.BufferReader(text),
            read_options=pyarrow.csv.ReadOptions(
                column_names=header, use_threads=False, block_size=len(text) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._mapping.separator,
                quote_char=self._mapping.quote or False,
                newlines_in_values=True,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted,
                column_types=kinds,
                strings_can_be_null=False,
            ),
        )


def _what_is_broken(fields: int, expected: int) -> str:
    if fields == STRAY_QUOTE:
        return "a quote is never closed"
    return f"{fields} fields, the header has {expected}"


def _text_of(block: Block, good: npt.NDArray[np.bool_]) -> bytes:
    """Return the text of the good rows, as they stand where no row is broken."""
    last = int(block.stops[-1])
    if good.all():
        return block.data[int(block.starts[0]) : last].tobytes()
    # Stretches of good rows between the broken ones.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    stretches = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return b"\n".join(
        block.data[int(block.starts[first]) : int(block.stops[end - 1])].tobytes()
        for first, end in stretches
    )


# --- Parquet --------------------------------------------------------------------------


class ParquetReader:
    """Parquet. The payload of a row is its JSON, because a row has no bytes of its own."""

    def __init__(self, path: str, mapping: FileMapping) -> None:
        self._path = path
        self._mapping = mapping

    def pieces(self, size: int, *, light: bool = False) -> Iterator[TablePiece]:
        """Yield rows in order, about `size` bytes at a time."""
        wanted = _wanted(self._mapping, light=light)
        try:
            with pq.ParquetFile(self._path, memory_map=True, pre_buffer=False) as file:
                check_columns(self._path, file.schema_arrow.names, wanted)
                rows = _rows_of(file.metadata, size)
                columns = wanted if light else None
                for batch in file.iter_batches(batch_size=rows, columns=columns):
                    yield _parquet_piece(batch, with_raw=not light)
        except (pa.ArrowException, OSError) as error:
            msg = f"{self._path}: not a readable Parquet file: {error}"
            raise InputError(msg) from error


def _rows_of(metadata: pq.FileMetaData, size: int) -> int:
    """Return how many rows make up about `size` bytes, within reason."""
    groups = range(metadata.num_row_groups)
    stored = sum(metadata.row_group(at).total_byte_size for at in groups)
    return max(1024, min(65_536, size * metadata.num_rows // max(1, stored)))


def _parquet_piece(batch: pa.RecordBatch, *, with_raw: bool) -> TablePiece:
    names = batch.schema.names
    columns = {name: batch[name] for name in names if names.count(name) == 1}
    raw = _as_json(batch) if with_raw else pa.nulls(batch.num_rows, pa.binary())
    return TablePiece(RawRows(columns, raw), None)


def _as_json(batch: pa.RecordBatch) -> Column:
    """Return one JSON object a row."""
    if all(_plain(kind) for kind in batch.schema.types):
        frame = pl.DataFrame(pl.from_arrow(batch))
        texts = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
        return texts.to_arrow().cast(pa.binary())
    rows = batch.to_pylist()
    lines = [json.dumps(row, default=str, ensure_ascii=False) for row in rows]
    return pa.array([line.encode() for line in lines], pa.binary())


def _plain(kind: pa.DataType) -> bool:
    """Tell whether Polars can write the type as JSON."""
    return (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_timestamp(kind)
    )
