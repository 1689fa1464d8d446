"""Beijing's twelve stations: local clocks, local dates, missing values, wind by name."""

import gzip
from itertools import islice
from pathlib import Path

import pytest

from tests.support.real_data import (
    assert_hours,
    assert_once,
    assert_same_rows,
    beijing_files,
    files_of,
    first_row,
    hours_of,
    replay,
    settings,
    table,
)

HOURS = 35_064
COLUMNS = {
    '"PM2.5"': "pm2_5",
    "PM10": "pm10",
    "SO2": "so2",
    "NO2": "no2",
    "CO * 0.001::double": "co",
    "O3": "o3",
    "TEMP": "temperature",
    "PRES": "pressure",
    "DEWP": "dew_point",
    "RAIN": "precipitation",
    "WSPM": "wind_speed",
}
POINTS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)
LOCAL_AHEAD = "8 * 3600000000"


def long_form() -> str:
    """Return SQL for (device, property, time, value), times in UTC, of the raw files."""
    parts = [
        f"select station as device, '{name}' as property, t as time, {cell} as value from raw"  # noqa: S608  (constants of this test)
        for cell, name in COLUMNS.items()
    ]
    points = ", ".join(f"('{name}', {22.5 * at})" for at, name in enumerate(POINTS))
    parts.append(
        "select station, 'wind_direction', t, degrees from raw"  # noqa: S608  (constants of this test)
        f" join (values {points}) points(name, degrees) on wd = name"
    )
    return (
        "with raw as (select *, make_timestamp(year, month, day, hour, 0, 0.0)"  # noqa: S608  (constants of this test)
        " - interval 8 hours as t from read_csv(?, nullstr = 'NA', union_by_name = true))"
        f" {' union all '.join(parts)}"
    )


async def assert_replayed(files: list[Path], root: Path, hours: int) -> None:
    names = [str(path) for path in files]
    chosen = settings("beijing", root)
    totals = await replay(chosen, files, f"Beijing, {hours} hours")
    expected = hours_of(long_form(), [names])
    readings = int(expected["count"].sum())
    assert (totals.records, totals.readings) == (12 * hours, readings)
    assert readings < 12 * 12 * hours, "nothing is missing in the raw files"
    assert_once(root, 12 * hours, readings)
    raw = f"select device, epoch_us(time), value::double, 1 from ({long_form()}) where value is not null"  # noqa: S608  (constants of this test)
    assert_same_rows(root, raw, [names])
    assert_hours(root, expected)
    assert_local_dates(root, hours)
    before = files_of(root)
    again = await replay(chosen, files, "Beijing again")
    assert again.records == 0
    assert files_of(root) == before


def assert_local_dates(root: Path, hours: int) -> None:
    """Check every row's folder against the clock of Beijing, 8 hours ahead of UTC."""
    aggregates = f"read_parquet('{root}/aggregates/window=1h/*/*/*.parquet', hive_partitioning = true)"
    for rows, column in (
        (table(root, "readings"), "event_time"),
        (aggregates, "start"),
    ):
        local = f"make_timestamp(epoch_us({column}) + {LOCAL_AHEAD})::date"
        found = first_row(
            f"select bool_and(date = {local}), count(distinct date), min(date)::varchar"  # noqa: S608  (paths of this test)
            f" from {rows}"
        )
        assert found == (True, hours // 24, "2013-03-01")


async def test_two_months_replayed_equal_duckdb_in_local_dates(tmp_path: Path) -> None:
    hours = 60 * 24
    files = []
    for path in beijing_files():
        files.append(tmp_path / path.name)
        with gzip.open(path, "rb") as whole, gzip.open(files[-1], "wb") as some:
            some.writelines(islice(whole, hours + 1))
    await assert_replayed(files, tmp_path / "data", hours)


@pytest.mark.long
async def test_four_years_replayed_equal_duckdb_in_local_dates(tmp_path: Path) -> None:
    await assert_replayed(beijing_files(), tmp_path, HOURS)
