"""Merging the parts of aggregates into one row per window, and windows into longer ones.

A published aggregate row is a partial: late readings add further ones, and so does a device
whose records moved to another partition. Parts merge by Chan's formula, one after the other
in order of (part, source), so the result does not depend on files, threads or the order of
rows. A window with one part comes back bit for bit as it was published.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from streamproc.analytics.dataset import read_dataset, time_zones
from streamproc.analytics.folding import Runs, earliest, latest, moments, total
from streamproc.analytics.roots import Root
from streamproc.core import sketch

SERIES: Final = ("city", "device", "property", "unit")
_TIME: Final = pl.Datetime("us", "UTC")
_MERGED: Final = pl.Schema(
    {
        "window": pl.String(),
        "city": pl.String(),
        "date": pl.Date(),
        "device": pl.String(),
        "property": pl.String(),
        "unit": pl.String(),
        "start": _TIME,
        "end": _TIME,
        "count": pl.Int64(),
        "invalid": pl.Int64(),
        "sum": pl.Float64(),
        "min": pl.Float64(),
        "max": pl.Float64(),
        "mean": pl.Float64(),
        "m2": pl.Float64(),
        "variance": pl.Float64(),
        "first": pl.Float64(),
        "first_time": _TIME,
        "last": pl.Float64(),
        "last_time": _TIME,
        "slots": pl.UInt64(),
        "coverage": pl.Float32(),
        "partial": pl.Boolean(),
        "parts": pl.Int64(),
        "sketch": pl.Binary(),
    }
)


def aggregates(
    source: Root | pl.DataFrame | pl.LazyFrame,
    window: str,
    *,
    cities: Sequence[str] | None = None,
    dates: Sequence[date] | None = None,
    every: str | None = None,
    quantiles: Sequence[float] = (),
) -> pl.DataFrame:
    """Return one row per series and window, sorted by city, device, property, unit, start.

    The columns are those of the published table without `source`, `part` and
    `close_reason`, plus `window`, `city`, `date`, `parts` (how many there were), and `p50`,
    `p95` … for `quantiles`. `partial` tells that any part was. What no valid reading
    defines is null; so is a quantile where a part with readings has no sketch.

    Coverage is popcount(slots) / n. The n is not published; it is what the parts' own
    popcount / coverage say, the greatest of them, and coverage is 0 where every part has
    none. Null where no part has a coverage: the device declares no interval.

    Two units of one property stay two rows: parts of different units cannot be merged.

    Args:
        source: a root, or a frame from `open_aggregates`.
        window: the window's name.
        cities: only these; None for all.
        dates: only these local dates; None for all.
        every: roll up, see `roll_up`; needs a root, whose files know the time zones.
        quantiles: each in [0, 1].

    Raises:
        ValueError: `every` with a frame, or with windows that overlap.
    """
    zones: Mapping[str, str] = {}
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        if every is not None:
            msg = "rolling up needs a root; for frames see roll_up()"
            raise ValueError(msg)
        parts = _chosen(source.lazy(), window, cities, dates).collect()
    else:
        parts = read_dataset(
            source, "aggregates", window=window, cities=cities, dates=dates
        )
        zones = {} if every is None else time_zones(source)
    merged = merge_parts(parts, sketches=bool(quantiles))
    if every is not None:
        merged = roll_up(merged, every, zones)
    return _with_quantiles(merged, quantiles)


def merge_parts(parts: pl.DataFrame, *, sketches: bool = False) -> pl.DataFrame:
    """Merge parts of one window as `aggregates` does, but keep a column `sketch`.

    Args:
        parts: rows of `open_aggregates`.
        sketches: merge them too; else the column is null. About 20 µs a window of parts.
    """
    # Categories sort by their own order; what has to be reproducible is that of the names.
    names = pl.col("window", *SERIES, "source").cast(pl.String)
    frame = parts.with_columns(names).sort(*SERIES, "start", "part", "source")
    if frame.is_empty():
        return _MERGED.to_frame()
    runs = _runs(frame, *SERIES, "start")
    merged = _fold(frame, runs, sketches=sketches)
    slots = frame["slots"].to_numpy()
    merged["slots"] = np.bitwise_or.reduceat(slots, runs.starts)
    merged["coverage"] = _coverage(
        slots, _floats(frame, "coverage"), merged["slots"], runs
    )
    merged["parts"] = runs.sizes
    return _frame(frame, runs, merged)


def roll_up(
    windows: pl.DataFrame, every: str, timezones: Mapping[str, str]
) -> pl.DataFrame:
    """Merge windows into longer ones, for example hours into days.

    A window belongs to where its start lies. `every = "1d"` takes local days of 23, 24 or
    25 hours; other durations (`"15m"`, `"6h"`, polars' notation) count from 1970 UTC.
    `coverage` becomes the covered share of the longer window, in which a missing window is
    uncovered; `slots` becomes null; `parts` still counts parts.

    Args:
        windows: what `merge_parts` or `aggregates` returned, of one window.
        every: how long the result's windows are.
        timezones: city → IANA name, for `"1d"`.

    Raises:
        ValueError: the windows overlap, or a city has no time zone.
    """
    if windows.is_empty():
        return windows
    if "sketch" not in windows.columns:
        windows = windows.with_columns(sketch=pl.lit(None, pl.Binary))
    frame = windows.sort(*SERIES, "start")
    _refuse_overlap(frame)
    bounds = _local_days(frame, timezones) if every == "1d" else _fixed(frame, every)
    runs = _runs(frame.with_columns(bounds), *SERIES, "start")
    merged = _fold(frame, runs, sketches=True)
    merged["start"] = bounds["start"].gather(runs.starts)
    merged["end"] = bounds["end"].gather(runs.starts)
    merged["slots"] = None
    merged["coverage"] = _share(frame, bounds, runs)
    merged["parts"] = np.add.reduceat(frame["parts"].to_numpy(), runs.starts)
    return _frame(frame, runs, merged)


# --- folding columns ------------------------------------------------------------------


def _chosen(
    frame: pl.LazyFrame,
    window: str,
    cities: Sequence[str] | None,
    dates: Sequence[date] | None,
) -> pl.LazyFrame:
    frame = frame.filter(pl.col("window").cast(pl.String) == window)
    if cities is not None:
        frame = frame.filter(pl.col("city").cast(pl.String).is_in(list(cities)))
    if dates is not None:
        frame = frame.filter(pl.col("date").is_in(list(dates)))
    return frame


def _runs(frame: pl.DataFrame, *keys: str) -> Runs:
    return Runs.of(frame.select(pl.struct(*keys).rle_id()).to_series().to_numpy())


def _floats(frame: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """Return a column with NaN for null."""
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _fold(frame: pl.DataFrame, runs: Runs, *, sketches: bool) -> dict[str, Any]:
    """Return the columns of `_MERGED` that merge alike for parts and for windows."""
    starts = runs.starts
    counts = frame["count"].to_numpy()
    count = np.add.reduceat(counts, starts)
    mean, m2 = moments(counts, _floats(frame, "mean"), _floats(frame, "m2"), runs)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = m2 / count
    # A row alone keeps its bits, however its writer divided.
    variance = np.where(runs.sizes == 1, _floats(frame, "variance")[starts], variance)
    nothing = count == 0
    columns: dict[str, Any] = {
        "count": count,
        "invalid": np.add.reduceat(frame["invalid"].to_numpy(), starts),
        "sum": total(_floats(frame, "sum"), runs),
        "min": np.fmin.reduceat(_floats(frame, "min"), starts),
        "max": np.fmax.reduceat(_floats(frame, "max"), starts),
        "mean": np.where(nothing, np.nan, mean),
        "m2": m2,
        "variance": np.where(nothing, np.nan, variance),
        "partial": np.logical_or.reduceat(frame["partial"].to_numpy(), starts),
        "sketch": _sketches(frame, runs) if sketches else None,
    }
    for name, pick in (("first", earliest), ("last", latest)):
        times = frame[f"{name}_time"]
        present = times.is_not_null().to_numpy()
        rows = pick(times.to_physical().fill_null(0).to_numpy(), present, runs)
        where = pl.Series(rows).replace(-1, None)
        columns[name] = frame[name].gather(where)
        columns[f"{name}_time"] = times.gather(where)
    return columns


def _frame(frame: pl.DataFrame, runs: Runs, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Put the merged columns beside the keys of each run's first row."""
    heads = frame[runs.starts]
    series = []
    for name, kind in _MERGED.items():
        values = columns[name] if name in columns else heads[name]
        if values is None:
            made = pl.Series(name, [None] * len(heads), dtype=kind)
        else:
            made = pl.Series(name, values, nan_to_null=True).cast(kind)
        series.append(made)
    return pl.DataFrame(series)


def _coverage(
    slots: npt.NDArray[np.uint64],
    stated: npt.NDArray[np.float64],
    merged: npt.NDArray[np.uint64],
    runs: Runs,
) -> npt.NDArray[np.float64]:
    covered = stated > 0
    n = np.zeros(len(slots))
    n[covered] = np.round(np.bitwise_count(slots[covered]) / stated[covered])
    most = np.maximum.reduceat(n, runs.starts)
    share = np.bitwise_count(merged) / np.maximum(most, 1.0)
    unknown = np.logical_and.reduceat(np.isnan(stated), runs.starts)
    return np.where(unknown, np.nan, share)


def _sketches(frame: pl.DataFrame, runs: Runs) -> list[bytes | None]:
    """Merge each run's sketches; None where a part with readings has none."""
    column, counts = frame["sketch"].to_list(), frame["count"].to_list()
    merged: list[bytes | None] = []
    for start, size in zip(runs.starts.tolist(), runs.sizes.tolist(), strict=True):
        rows = [row for row in range(start, start + size) if counts[row]]
        found = [column[row] for row in rows]
        whole = bool(found) and None not in found
        merged.append(sketch.merge(found) if whole else None)
    return merged


def _with_quantiles(merged: pl.DataFrame, quantiles: Sequence[float]) -> pl.DataFrame:
    sketches = merged["sketch"].to_list() if quantiles else []
    columns = []
    for q in quantiles:
        values = [
            None if data is None else sketch.quantile(data, q) for data in sketches
        ]
        columns.append(pl.Series(f"p{100 * q:g}", values, dtype=pl.Float64))
    return merged.drop("sketch").with_columns(columns)


# --- rolling up -----------------------------------------------------------------------


def _refuse_overlap(frame: pl.DataFrame) -> None:
    before = pl.col("end").shift(1).over(SERIES)
    if frame.select((pl.col("start") < before).any()).item():
        msg = "these windows overlap, so a longer window would count readings twice"
        raise ValueError(msg)


def _fixed(frame: pl.DataFrame, every: str) -> pl.DataFrame:
    start = pl.col("start").dt.truncate(every)
    return frame.select(start=start, end=start.dt.offset_by(every))


def _local_days(frame: pl.DataFrame, timezones: Mapping[str, str]) -> pl.DataFrame:
    """Return for each row the UTC bounds of its city's local day `date`."""
    days = frame.select("city", "date").unique()
    rows = [(city, day, *_day(city, day, timezones)) for city, day in days.iter_rows()]
    schema = {**days.schema, "start": _TIME, "end": _TIME}
    known = pl.DataFrame(rows, schema=schema, orient="row")
    joined = frame.select("city", "date").join(
        known, on=["city", "date"], how="left", maintain_order="left"
    )
    return joined.select("start", "end")


def _day(
    city: str, day: date, timezones: Mapping[str, str]
) -> tuple[datetime, datetime]:
    if city not in timezones:
        msg = f"no time zone is known for city {city!r}"
        raise ValueError(msg)
    zone = ZoneInfo(timezones[city])
    after = day + timedelta(days=1)
    first, last = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, after))
    return first.astimezone(UTC), last.astimezone(UTC)


def _share(
    frame: pl.DataFrame, bounds: pl.DataFrame, runs: Runs
) -> npt.NDArray[np.float64]:
    """Return which share of each longer window was covered; NaN where nobody knows."""
    size = (frame["end"] - frame["start"]).dt.total_microseconds().to_numpy()
    coverage = _floats(frame, "coverage")
    covered = total(np.where(np.isnan(coverage), 0.0, coverage) * size, runs)
    length = (bounds["end"] - bounds["start"]).dt.total_microseconds().to_numpy()
    unknown = np.logical_and.reduceat(np.isnan(coverage), runs.starts)
    return np.where(unknown, np.nan, covered / length[runs.starts])
