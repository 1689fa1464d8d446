"""The file readers on the real files, against what DuckDB reads from the same bytes."""

import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from streamproc.codecs.json_flat import FlatJson
from streamproc.connectors.files.inputs import StreamOptions
from streamproc.connectors.files.mapping import ColumnMapping, FileMapping
from streamproc.connectors.files.stream import open_stream
from streamproc.core.record import InputPlan

DATA = Path(__file__).parents[3] / "shared" / "data"
POINTS = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)
BEIJING = {
    "PM2.5": "pm2_5",
    "PM10": "pm10",
    "SO2": "so2",
    "NO2": "no2",
    "CO": "co",
    "O3": "o3",
    "TEMP": "temperature",
    "PRES": "air_pressure",
    "DEWP": "dew_point",
    "RAIN": "precipitation",
    "WSPM": "wind_speed",
}
ABERDEEN = FileMapping(
    time=("timestamp",),
    timezone="UTC",
    device="sensor_id",
    columns={"P1": ColumnMapping("pm10"), "P2": ColumnMapping("pm2_5")},
    separator=";",
)


def folder(name: str) -> Path:
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"real data absent: {name}")
    return path


class Read:
    """All readings of a replay, and what was promised about them."""

    def __init__(
        self,
        files: Sequence[str],
        mapping: FileMapping | None,
        known: Sequence[InputPlan] = (),
        at: int = 0,
    ) -> None:
        stream = open_stream(files, StreamOptions("s", mapping), known, at, FlatJson())
        self.plan = stream.plan
        self.records = self.late = 0
        self.rejects: Counter[str] = Counter()
        tables = []
        reached = np.iinfo(np.int64).min
        for batch in stream.batches():
            decoded = batch.decoded or FlatJson().decode(batch.records)
            assert batch.records.span.start == at + self.records
            self.records += len(batch.records)
            self.rejects.update(reject.reason for reject in decoded.rejects)
            times = decoded.readings["event_time"].cast(pa.int64()).to_numpy()
            highest = np.maximum.accumulate(np.concatenate([[reached], times]))
            self.late += int((times < highest[:-1]).sum())
            reached = int(highest[-1])
            tables.append(decoded.readings)
        self.readings = pa.Table.from_batches(tables)
        assert stream.total_rows == self.records

    def sums(self) -> list[tuple[str, int, float, float]]:
        """Return (property, count, sum, sum of value times hour of day) by property."""
        readings = self.readings
        connection = duckdb.connect()
        connection.execute("set timezone = 'UTC'")
        connection.register("readings", readings)
        return connection.execute(
            "select property::varchar p, count(*), sum(value),"
            " sum(value * (epoch_us(event_time) // 3600000000 % 24))"
            " from readings group by p order by p"
        ).fetchall()


def close(
    found: Sequence[tuple[str, int, float, float]],
    expected: Sequence[tuple[str, int, float, float]],
) -> None:
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    np.testing.assert_allclose(
        [one[2:] for one in found], [one[2:] for one in expected], rtol=1e-9
    )


def test_koeln_march_is_read_row_for_row() -> None:
    path = str(folder("koeln_traffic_load") / "load_2013-03.csv.gz")
    mapping = FileMapping(
        time=("datetime_utc",),
        timezone="UTC",
        device="identifier",
        columns={"auslastung": ColumnMapping("traffic_load")},
        validity="valid",
    )
    read = Read([path], mapping)
    assert (read.records, read.late, read.rejects) == (963_976, 0, Counter())
    assert read.plan is not None
    expected = duckdb.execute(
        "select 'traffic_load', count(*), sum(auslastung)::double,"
        " sum(auslastung * hour(datetime_utc))::double from read_csv(?)",
        [path],
    ).fetchall()
    close(read.sums(), expected)
    quality = np.unique(read.readings["quality"].to_numpy())
    assert quality.tolist() == [1]
    again = open_stream(
        [path], StreamOptions("s", mapping), [read.plan], 963_976, FlatJson()
    )
    assert again.plan is None


def aberdeen(tmp_path: Path) -> list[str]:
    packed = (
        folder("sensor_community_aberdeen") / "luftdaten_2019-03-25_2019-04-07.tar.gz"
    )
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "in", filter="data")
    return sorted(str(path) for path in (tmp_path / "in").rglob("*.csv"))


def aberdeen_sums(files: Sequence[str]) -> list[tuple[str, int, float, float]]:
    return duckdb.execute(
        "with raw as (select * from read_csv(?, delim = ';'))"
        " select 'pm10', count(P1), sum(P1), sum(P1 * hour(timestamp)) from raw"
        " union all select 'pm2_5', count(P2), sum(P2), sum(P2 * hour(timestamp)) from raw",
        [files],
    ).fetchall()


def test_aberdeen_merges_into_one_stream_without_a_step_back(tmp_path: Path) -> None:
    files = aberdeen(tmp_path)
    assert len(files) == 268
    read = Read(files, ABERDEEN)
    assert (read.records, read.late, read.rejects) == (150_457, 0, Counter())
    close(read.sums(), sorted(aberdeen_sums(files)))


def test_aberdeen_file_by_file_goes_on_from_plan_to_plan(tmp_path: Path) -> None:
    files = aberdeen(tmp_path)[:40]
    known: list[InputPlan] = []
    records, tables = 0, []
    for path in files:
        read = Read([path], ABERDEEN, known, records)
        assert read.plan is not None
        assert read.plan.base == records
        assert read.late == 0
        known.append(read.plan)
        records += read.records
        tables.append(read.readings)
    whole = Read(files, ABERDEEN)
    assert whole.records == records
    found = np.sort(pa.concat_tables(tables)["value"].to_numpy())
    assert np.array_equal(found, np.sort(whole.readings["value"].to_numpy()))
    after = open_stream(files, StreamOptions("s", ABERDEEN), known, records, FlatJson())
    assert after.plan is None
    assert len(after.skipped) == 40


def test_beijing_local_hours_missing_values_and_wind_names_are_read() -> None:
    files = sorted(str(path) for path in folder("beijing_prsa").glob("*.csv.gz"))
    degrees = {name: 22.5 * at for at, name in enumerate(POINTS)}
    columns = {column: ColumnMapping(name) for column, name in BEIJING.items()}
    mapping = FileMapping(
        time=("year", "month", "day", "hour"),
        time_format="%Y %m %d %H",
        timezone="Asia/Shanghai",
        device="station",
        columns={**columns, "wd": ColumnMapping("wind_direction", "deg", degrees)},
        missing=("", "NA"),
    )
    read = Read(files, mapping)
    assert (read.records, read.late, read.rejects) == (420_768, 0, Counter())
    cells = {f'"{column}"': name for column, name in BEIJING.items()}
    cells["d"] = "wind_direction"
    points = ", ".join(f"('{name}', {value})" for name, value in degrees.items())
    parts = [
        f"select '{name}' p, count({cell}), sum({cell})::double, sum({cell} * h)::double from raw"  # noqa: S608  (constants of this test)
        for cell, name in cells.items()
    ]
    expected = duckdb.execute(
        "with raw as (select *, (hour + 16) % 24 h from read_csv(?, nullstr = 'NA')"  # noqa: S608  (constants of this test)
        f" left join (values {points}) points(n, d) on wd = n)"
        f" {' union all '.join(parts)} order by p",
        [files],
    ).fetchall()
    close(read.sums(), expected)
    assert len(read.readings["device"].unique()) == 12


def test_real_rows_as_json_lines_give_what_the_table_gives(tmp_path: Path) -> None:
    source = folder("koeln_traffic_load") / "load_2013-10.csv.gz"
    path = str(tmp_path / "rows.json")
    duckdb.execute(
        "copy (select identifier device, 'traffic_load' property,"  # noqa: S608  (paths of this test)
        " strftime(datetime_utc, '%Y-%m-%dT%H:%M:%SZ') as time, auslastung as value"
        f" from read_csv('{source}') limit 100000) to '{path}' (format json)"
    )
    read = Read([path], None)
    assert (read.records, read.rejects) == (100_000, Counter())
    expected = duckdb.execute(
        "select 'traffic_load', count(*), sum(auslastung)::double,"  # noqa: S608  (paths of this test)
        f" sum(auslastung * hour(datetime_utc))::double from (from read_csv('{source}') limit 100000)"
    ).fetchall()
    close(read.sums(), expected)
