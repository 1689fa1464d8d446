"""Opening the published tables as polars frames.

The Hive columns (`city`, `date`, for aggregates also `window`) come back as columns of the
frames. A root without files gives an empty frame of the same schema, so that a query
written on the first day still runs on the day before it.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (reads footers of published files)

from streamproc.analytics.roots import (
    Root,
    RootPath,
    content,
    in_order,
    root_path,
    scan,
)
from streamproc.core.schemas import PUBLISHED

_HIVE: Final = pl.Schema({"city": pl.String(), "date": pl.Date()})
ZONE_KEY: Final = b"streamproc.timezone"


def open_readings(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `readings/`; only the folders of these cities and local dates are read."""
    return _open(root_path(root) / "readings", "readings", cities, dates)


def open_aggregates(
    root: Root,
    window: str,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return the parts of one window's aggregates, with a column `window`.

    Several rows may speak of one window: `analytics.merge.aggregates` merges them.
    """
    folder = root_path(root) / f"aggregates/window={window}"
    frame = _open(folder, "aggregates", cities, dates)
    return frame.with_columns(window=pl.lit(window))


def open_alerts(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `alerts/`: one row a transition; (alert_id, transition) is unique."""
    return _open(root_path(root) / "alerts", "alerts", cities, dates)


def open_late(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `late/`: one row per late reading and window it missed."""
    return _open(root_path(root) / "late", "late", cities, dates)


def open_quarantine(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `quarantine/`: the refused records; the city may be `_unknown`."""
    return _open(root_path(root) / "quarantine", "quarantine", cities, dates)


def schema_of(dataset: str) -> pl.Schema:
    """Return the polars schema of a dataset's frames, Hive columns last."""
    published: pa.Schema = PUBLISHED[dataset]
    empty = pl.from_arrow(published.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return pl.Schema({**empty.schema, **_HIVE})


def time_zones(root: Root) -> dict[str, str]:
    """Return each city's time zone, as the newest name among its aggregate files says."""
    zones: dict[str, RootPath] = {}
    folder = root_path(root) / "aggregates"
    files = folder.glob("window=*/city=*/date=*/*.parquet")
    for file in in_order(files):
        city = file.parent.parent.name.removeprefix("city=")
        zones[city] = file
    return {city: _zone(file) for city, file in zones.items()}


def _zone(file: RootPath) -> str:
    metadata = pq.read_schema(content(file)).metadata or {}
    return metadata.get(ZONE_KEY, b"UTC").decode()


def _open(
    folder: RootPath,
    dataset: str,
    cities: Sequence[str] | None,
    dates: Sequence[date] | None,
) -> pl.LazyFrame:
    schema = schema_of(dataset)
    if next(folder.glob("city=*/date=*/*.parquet"), None) is None:
        return pl.LazyFrame(schema=schema)
    frame = scan(folder, _HIVE)
    if cities is not None:
        frame = frame.filter(pl.col("city").is_in(list(cities)))
    if dates is not None:
        frame = frame.filter(pl.col("date").is_in(list(dates)))
    return frame.select(schema.names())
