"""Aberdeen's dust sensors: merged by time, and file after file with a clock per device."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.real_data import (
    ABERDEEN,
    aberdeen_files,
    aberdeen_raw,
    aberdeen_rows,
    assert_hours,
    assert_once,
    assert_same_rows,
    consume,
    files_of,
    hours_of,
    on_topic,
    produce,
    replay,
    settings,
    write_envelopes,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = aberdeen_files(tmp_path_factory.mktemp("aberdeen"))
    assert len(found) == 268
    return found


@dataclass(frozen=True)
class Expected:
    """What DuckDB reads: SQL for all values, and the hours."""

    raw: str
    hours: pl.DataFrame


@pytest.fixture(scope="module")
def expected(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Expected:
    raw = aberdeen_raw(files, tmp_path_factory.mktemp("raw") / "raw.parquet")
    hours = hours_of(raw)
    assert hours["property"].unique().sort().to_list() == ["pm10", "pm2_5"]
    return Expected(raw, hours)


def assert_fortnight(root: Path, expected: Expected) -> None:
    readings = int(expected.hours["count"].sum())
    assert readings == 2 * ABERDEEN
    assert_once(root, ABERDEEN, readings)
    raw = f"select device, epoch_us(time), value::double, 1 from ({expected.raw})"  # noqa: S608  (constants of this test)
    assert_same_rows(root, f"{raw} where value is not null")
    assert_hours(root, expected.hours)


async def test_the_files_merged_by_time_equal_duckdb_under_either_clock(
    files: list[Path], expected: Expected, tmp_path: Path
) -> None:
    chosen = settings("aberdeen", tmp_path, processing__watermark="city")
    totals = await replay(chosen, files, "Aberdeen, merged")
    assert (totals.records, totals.late) == (ABERDEEN, 0)
    assert_fortnight(tmp_path, expected)
    before = files_of(tmp_path)
    again = await replay(chosen, list(reversed(files)), "Aberdeen, merged again")
    assert again.records == 0
    assert files_of(tmp_path) == before


async def test_file_after_file_nothing_is_late_by_each_devices_own_clock(
    files: list[Path], expected: Expected, tmp_path: Path
) -> None:
    path = tmp_path / "files.ndjson.gz"
    write_envelopes(path, "telemetry.aberdeen", aberdeen_rows(files, merged=False))
    root = tmp_path / "data"
    totals = await replay(settings("aberdeen", root), [path], "Aberdeen, file by file")
    assert (totals.records, totals.late) == (ABERDEEN, 0)
    assert_fortnight(root, expected)


@pytest.mark.long
async def test_file_after_file_most_is_late_by_the_citys_clock_and_nothing_is_lost(
    files: list[Path], expected: Expected, tmp_path: Path
) -> None:
    path = tmp_path / "files.ndjson"
    write_envelopes(path, "telemetry.aberdeen", aberdeen_rows(files, merged=False))
    root = tmp_path / "data"
    chosen = settings(
        "aberdeen", root, processing__watermark="city", output__flush_rows=60_000
    )
    totals = await replay(chosen, [path], "Aberdeen, file by file, city's clock")
    assert totals.late > ABERDEEN
    assert_fortnight(root, expected)


async def test_file_after_file_through_kafka_nothing_is_late(
    files: list[Path], expected: Expected, kafka: ApacheKafka, tmp_path: Path
) -> None:
    chosen, topic = on_topic("aberdeen", tmp_path, kafka.connection, "aberdeen")
    await produce(kafka.connection, topic, aberdeen_rows(files, merged=False), 1)
    totals = await consume(chosen, "Aberdeen, Kafka, file by file")
    assert (totals.records, totals.late) == (ABERDEEN, 0)
    assert_fortnight(tmp_path, expected)


async def test_the_files_merged_by_time_through_kafka_equal_duckdb(
    files: list[Path], expected: Expected, kafka: ApacheKafka, tmp_path: Path
) -> None:
    chosen, topic = on_topic(
        "aberdeen", tmp_path, kafka.connection, "aberdeen", processing__watermark="city"
    )
    await produce(kafka.connection, topic, aberdeen_rows(files, merged=True), 1)
    totals = await consume(chosen, "Aberdeen, Kafka, merged")
    assert (totals.records, totals.late) == (ABERDEEN, 0)
    assert_fortnight(tmp_path, expected)
