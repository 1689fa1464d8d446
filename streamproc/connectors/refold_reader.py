"""Published readings back into the shape the processor folds: the restore's second half.

The files are those a commit record names; a file whose bytes are not those it names would
change the state behind published windows, so it is refused. City and date are in the path only
and come back from there.
"""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a connector: reading Parquet is its business)

from streamproc.core.ports import Store
from streamproc.core.record import FileEntry
from streamproc.core.schemas import NAME, READING, ROUTED_READING
from streamproc.errors import StoreFault

_NAMES: Final = [field.name for field in READING if field.type == NAME]


def read_readings(store: Store, files: Sequence[FileEntry]) -> pa.Table:
    """Return the rows of published `readings` files as ROUTED_READING, in order of fold.

    Sorted by (offset, ordinal); one chunk, one dictionary a column, whatever the files'
    own. Memory: about twice the rows, and one file's bytes.

    Raises:
        StoreFault: a file is missing or not the one the log names, cannot be read, lacks a
            column, or is filed elsewhere.
    """
    tables = [_read(store, file) for file in files]
    if not tables:
        return ROUTED_READING.empty_table()
    rows = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return rows.sort_by([("offset", "ascending"), ("ordinal", "ascending")])


def _read(store: Store, file: FileEntry) -> pa.Table:
    city, day = _filed_under(file.path)
    data = store.read(file.path)
    if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
        what = "missing" if data is None else "not the bytes that the log names"
        msg = f"{file.path}: cannot be read back: {what}"
        raise StoreFault(msg)
    try:
        # Not by dataset: `city=` in the path must not be taken for a column.
        with pq.ParquetFile(pa.BufferReader(data), read_dictionary=_NAMES) as parquet:
            stored = parquet.read(READING.names)
        rows = stored.select(READING.names).cast(READING)
    except (OSError, KeyError, pa.ArrowException) as error:
        msg = f"{file.path}: cannot be read back: {error}"
        raise StoreFault(msg) from error
    if rows.num_rows != file.rows:
        msg = f"{file.path}: has {rows.num_rows} rows, the log says {file.rows}"
        raise StoreFault(msg)
    columns: list[Any] = [
        pa.chunked_array([_same(pa.array([city]), rows.num_rows)]),
        pa.chunked_array([pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)]),
        *rows.columns,
    ]
    return pa.Table.from_arrays(columns, schema=ROUTED_READING)


def _same(name: pa.StringArray, count: int) -> "pa.Array[Any]":
    codes: pa.Int32Array = pa.repeat(pa.scalar(0, pa.int32()), count)
    return pa.DictionaryArray.from_arrays(codes, name)


def _filed_under(path: str) -> tuple[str, date]:
    """Return city and date of `readings/city=<slug>/date=<date>/<file>`."""
    found = dict(part.split("=", 1) for part in path.split("/")[1:-1] if "=" in part)
    try:
        return found["city"], date.fromisoformat(found["date"])
    except (KeyError, ValueError) as error:
        msg = f"{path}: not the path of a readings file"
        raise StoreFault(msg) from error
