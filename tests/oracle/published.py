"""The visible files as rows, every value in plain Python; times in µs."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq  # noqa: TID251  (reads what was published)

from tests.oracle.folder import Folder, is_visible

DERIVED = ("properties.parquet", "stations.parquet")
Row = dict[str, Any]


def visible(folder: Folder) -> list[str]:
    """Return the names of what a reader of folders sees."""
    return sorted(name for name in folder.names() if is_visible(name))


def rows_in(name: str, data: bytes) -> list[Row]:
    """Return a file's rows with the columns of its path; `dataset` is the first folder."""
    table = pq.read_table(io.BytesIO(data))
    rows = [
        {key: _plain(value) for key, value in row.items()} for row in table.to_pylist()
    ]
    dataset, *keys = name.split("/")[:-1]
    place = {"dataset": dataset, **dict(key.split("=", 1) for key in keys)}
    return [{**row, **place} for row in rows]


def key_of(row: Row) -> tuple[object, ...]:
    """Return what no two rows of a dataset may share."""
    names = {
        "readings": ("source", "offset", "ordinal"),
        "quarantine": ("source", "offset"),
        "late": ("source", "offset", "ordinal", "window", "start"),
        "aggregates": (
            *("source", "city", "device", "property", "window", "start", "part"),
        ),
        "alerts": ("alert_id", "transition"),
    }[row["dataset"]]
    return (row["dataset"], *(row[name] for name in names))


def micros(moment: datetime) -> int:
    """Return µs since 1970 UTC, exactly."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _plain(value: Any) -> Any:
    return micros(value) if isinstance(value, datetime) else value


def all_rows(folder: Folder) -> Iterator[tuple[str, Row]]:
    """Yield (file, row) of every published table."""
    for name in visible(folder):
        if name not in DERIVED:
            for row in rows_in(name, folder.read(name)):
                yield name, row
