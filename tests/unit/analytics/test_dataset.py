"""Opening published tables: schemas, selection, empty roots, and merging through a root."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from streamproc.analytics import sql
from streamproc.analytics.dataset import (
    open_aggregates,
    open_alerts,
    open_late,
    open_quarantine,
    open_readings,
    schema_of,
    time_zones,
)
from streamproc.analytics.merge import aggregates
from tests.support.tables import (
    HOUR_US,
    START_US,
    alert,
    emission,
    late_row,
    part,
    reading,
    refused,
    town,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two towns, two commits each, with a `=` in the root's own name."""
    root = tmp_path / "job=x"
    for city, source in (
        ("razlog", "telemetry.razlog/0"),
        ("nevers", "telemetry.nevers/0"),
    ):
        here = town(root, city)
        mine: dict[str, Any] = {"city": city, "source": source}
        here.commit(
            emission(
                [reading(i, **mine) for i in range(5)],
                [
                    part([1.0, 2.0, 4.0], **mine),
                    part([3.0], START_US + HOUR_US, **mine),
                    part([], device="d2", invalid=4, **mine),
                    part([8.0], device="d3", slots=0, coverage=None, **mine),
                ],
                quarantine=[refused(5, **mine)],
                alerts=[alert(3, **mine)],
            ),
            records=6,
        )
        here.commit(
            emission(
                [reading(6, flags=1, quality=0, **mine)],
                [
                    part([7.0, 0.5], part=2, close_reason="late", partial=True, **mine),
                    part([9.0], START_US + 26 * HOUR_US, **mine),
                ],
                late=[late_row(6, **mine)],
            ),
            records=1,
            late=1,
        )
    return root


def test_a_root_without_files_gives_empty_frames_of_the_full_schema(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "nothing"
    for frame, dataset in (
        (open_readings(missing), "readings"),
        (open_alerts(missing), "alerts"),
        (open_late(missing), "late"),
        (open_quarantine(missing), "quarantine"),
    ):
        assert frame.collect().schema == schema_of(dataset)
        assert frame.collect().is_empty()
    assert aggregates(missing, "1h", every="1d", quantiles=[0.5]).is_empty()
    assert time_zones(missing) == {}


def test_frames_have_the_schema_an_empty_root_promises(root: Path) -> None:
    assert open_readings(root).collect_schema() == schema_of("readings")
    assert open_alerts(root).collect_schema() == schema_of("alerts")
    assert open_late(root).collect_schema() == schema_of("late")
    assert open_quarantine(root).collect_schema() == schema_of("quarantine")
    expected = {**schema_of("aggregates"), "window": pl.String()}
    assert dict(open_aggregates(root, "1h").collect_schema()) == expected


def test_cities_and_dates_select_folders(root: Path) -> None:
    everything = open_readings(root).collect()
    one = open_readings(root, ["nevers"], [date(2023, 11, 14)]).collect()

    assert len(everything) == 12
    assert one["city"].unique().to_list() == ["nevers"]
    assert len(one) == 6
    assert open_readings(root, ["jelgava"]).collect().is_empty()


def test_time_zones_come_from_the_files(root: Path) -> None:
    assert time_zones(root) == {"razlog": "Europe/Sofia", "nevers": "Europe/Paris"}


def test_a_root_is_merged_and_rolled_up_into_local_days(root: Path) -> None:
    merged = aggregates(root, "1h", cities=["razlog"])
    days = aggregates(root, "1h", cities=["razlog"], every="1d")

    assert merged["parts"].to_list() == [2, 1, 1, 1, 1]
    assert merged["partial"].to_list() == [True, False, False, False, False]
    of_d1 = days.filter(device="d1")
    assert of_d1["date"].to_list() == [date(2023, 11, 15), date(2023, 11, 16)]
    assert of_d1["count"].to_list() == [6, 1]
    assert of_d1["start"].dt.hour().to_list() == [22, 22]
    only = aggregates(root, "1h", dates=[date(2023, 11, 16)])
    assert only["sum"].to_list() == [9.0, 9.0]


def _floats(column: pl.Series) -> list[float]:
    """Null becomes a value of its own, because approx cannot compare None."""
    return column.cast(pl.Float64).fill_null(-1e300).to_list()


def _same(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    assert len(ours) == len(theirs)
    for name in theirs.columns:
        left, right = ours[name], theirs[name]
        if left.dtype.is_float():
            # Coverage is a float4 in the files, and computed anew as double in SQL.
            slack = 1e-6 if name == "coverage" else 1e-9
            assert _floats(left) == pytest.approx(_floats(right), rel=slack), name
        elif left.dtype.is_temporal() and left.dtype != pl.Date:
            assert left.dt.epoch("us").to_list() == right.dt.epoch("us").to_list(), name
        else:
            assert left.to_list() == right.to_list(), name


def _ask(statement: str, root: Path) -> pl.DataFrame:
    asked = statement.format(root=root, window="1h")
    answer = duckdb.sql(asked)
    assert answer is not None
    frame = answer.pl()
    assert isinstance(frame, pl.DataFrame)
    return frame


def test_the_sql_for_windows_gives_what_python_gives(root: Path) -> None:
    ours = aggregates(root, "1h")

    theirs = _ask(sql.MERGED, root)

    assert set(theirs.columns) == set(ours.columns) - {"window"}
    _same(ours, theirs)


def test_the_sql_for_days_gives_what_python_gives(root: Path) -> None:
    ours = aggregates(root, "1h", every="1d")

    theirs = _ask(sql.DAYS, root)

    assert theirs["windows"].to_list() == [1, 1, 1, 1, 1, 2, 1, 1, 1]
    _same(ours, theirs.drop("windows"))


def test_the_sql_for_readings_counts_what_is_valid(root: Path) -> None:
    theirs = _ask(sql.READINGS, root)

    assert theirs.rows() == [
        ("nevers", date(2023, 11, 14), "pm10", 6, 5, 2.0),
        ("razlog", date(2023, 11, 15), "pm10", 6, 5, 2.0),
    ]
