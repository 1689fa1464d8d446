"""Opening the published tables as polars frames.

The Hive columns (`city`, `date`, for aggregates also `window`) come back as columns of the
frames. A root without files gives an empty frame of the same schema, so that a query
written on the first day still runs on the day before it.

Frames are exact: they read the files that the logs say hold each committed row once
(`analytics.live`), also while the service commits and dates are compacted. A file that is
replaced between `open_…` and `collect` makes the query fail; `read_dataset` asks again.
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (reads footers of published files)

from streamproc.analytics.live import LiveFile, Wanted, live_files
from streamproc.analytics.roots import (
    Root,
    RootPath,
    content,
    in_order,
    root_path,
    scan,
)
from streamproc.core.schemas import PUBLISHED
from streamproc.errors import InputError

_HIVE: Final = pl.Schema({"city": pl.String(), "date": pl.Date()})
ZONE_KEY: Final = b"streamproc.timezone"
DATASETS: Final = ("readings", "aggregates", "alerts", "late", "quarantine")
TRIES: Final = 5


def open_dataset(
    root: Root,
    dataset: str,
    *,
    window: str | None = None,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return a dataset; only the folders of these cities and local dates are read.

    Every row that was committed when this is called is there exactly once, whatever service
    and compaction are doing. `aggregates` needs its `window`, and gets a column of it.

    Raises:
        InputError: no such dataset, or a window where there is none.
        LogCorrupt: the logs below the root do not hold together.
    """
    if dataset not in DATASETS:
        msg = f"{dataset!r} is no dataset: {', '.join(DATASETS)}"
        raise InputError(msg)
    if (window is not None) != (dataset == "aggregates"):
        msg = "a window belongs to aggregates, and only there"
        raise InputError(msg)
    wanted = Wanted(dataset, window, cities, dates)
    at = root_path(root)
    frame = _scan(at, dataset, live_files(at, wanted))
    return frame if window is None else frame.with_columns(window=pl.lit(window))


def read_dataset(
    root: Root,
    dataset: str,
    query: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda frame: frame,
    *,
    window: str | None = None,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.DataFrame:
    """Return what `query` makes of a dataset; again, where a file was replaced under it.

    Raises: as `open_dataset`; FileNotFoundError after five times.
    """
    for attempt in range(TRIES):
        frame = open_dataset(root, dataset, window=window, cities=cities, dates=dates)
        try:
            return query(frame).collect()
        except FileNotFoundError:
            if attempt == TRIES - 1:
                raise
    raise AssertionError


def open_readings(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `readings/`; only the folders of these cities and local dates are read."""
    return open_dataset(root, "readings", cities=cities, dates=dates)


def open_aggregates(
    root: Root,
    window: str,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return the parts of one window's aggregates, with a column `window`.

    Several rows may speak of one window: `analytics.merge.aggregates` merges them.
    """
    return open_dataset(root, "aggregates", window=window, cities=cities, dates=dates)


def open_alerts(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `alerts/`: one row a transition; (alert_id, transition) is unique."""
    return open_dataset(root, "alerts", cities=cities, dates=dates)


def open_late(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `late/`: one row per late reading and window it missed."""
    return open_dataset(root, "late", cities=cities, dates=dates)


def open_quarantine(
    root: Root,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
) -> pl.LazyFrame:
    """Return `quarantine/`: the refused records; the city may be `_unknown`."""
    return open_dataset(root, "quarantine", cities=cities, dates=dates)


def schema_of(dataset: str) -> pl.Schema:
    """Return the polars schema of a dataset's frames, Hive columns last."""
    published: pa.Schema = PUBLISHED[dataset]
    empty = pl.from_arrow(published.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return pl.Schema({**empty.schema, **_HIVE})


def time_zones(root: Root) -> dict[str, str]:
    """Return each city's time zone, as the newest name among its aggregate files says."""
    zones: dict[str, str] = {}
    files = (root_path(root) / "aggregates").glob("window=*/city=*/date=*/*.parquet")
    for file in reversed(in_order(files)):
        city = file.parent.parent.name.removeprefix("city=")
        if city not in zones:
            try:
                metadata = pq.read_schema(content(file)).metadata or {}
            except FileNotFoundError:  # Replaced meanwhile; an older one says the same.
                continue
            zones[city] = metadata.get(ZONE_KEY, b"UTC").decode()
    return zones


def _scan(root: RootPath, dataset: str, files: Sequence[LiveFile]) -> pl.LazyFrame:
    schema = schema_of(dataset)
    hive = pl.Schema({"window": pl.String(), **_HIVE})
    if dataset != "aggregates":
        hive = _HIVE
    # Paths are taken apart as a whole: a root such as /data/region=north is no column.
    odd = isinstance(root, Path) and "=" in str(root)
    plain = [root / file.at for file in files if file.published and not odd]
    frames = [scan(plain, hive).select(schema.names())] if plain else []
    for file in files:
        if not file.published or odd:
            one = scan([root / file.at])
            keys = {"city": pl.lit(file.unit.city), "date": pl.lit(file.unit.day)}
            frames.append(one.with_columns(**keys).select(schema.names()))
    return pl.concat(frames) if frames else pl.LazyFrame(schema=schema)
