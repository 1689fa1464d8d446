"""Cologne, March 2013, all of it: by replay and through Apache Kafka, against DuckDB."""

from pathlib import Path

import duckdb

from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.real_data import (
    KOELN_MARCH,
    assert_hours,
    assert_once,
    assert_same_rows,
    consume,
    files_of,
    first_row,
    koeln_hours,
    koeln_march,
    koeln_rows,
    on_topic,
    produce,
    replay,
    settings,
    table,
)

RAW = (
    "select identifier, epoch_us(datetime_utc), auslastung::double, valid::int"
    " from read_csv(?)"
)


def assert_march(root: Path) -> None:
    assert_once(root, KOELN_MARCH, KOELN_MARCH)
    assert_same_rows(root, RAW, [str(koeln_march())])
    assert_hours(root, koeln_hours())
    assert days(root) == 31


def days(root: Path) -> int:
    """Count the local dates, after checking each row's against the clock of Cologne."""
    summer_us = 1_364_691_600_000_000  # 2013-03-31 01:00 UTC
    hours = f"case when epoch_us(event_time) < {summer_us} then 1 else 2 end"
    local = f"make_timestamp(epoch_us(event_time) + {hours} * 3600000000)::date"
    row = first_row(
        f"select count(distinct date), bool_and(date = {local})"  # noqa: S608  (paths and constants of this test)
        f" from {table(root, 'readings')} where date <= '2013-03-31'"
    )
    assert row[1]
    return int(row[0])


async def test_march_by_replay_equals_the_file_and_again_adds_nothing(
    tmp_path: Path,
) -> None:
    path = koeln_march()
    chosen = settings("koeln", tmp_path, output__flush_rows=300_000)
    totals = await replay(chosen, [path], "Köln, replay")
    assert (totals.records, totals.late, totals.quarantined) == (KOELN_MARCH, 0, 0)
    assert totals.commits > 3
    assert_march(tmp_path)
    before = files_of(tmp_path)
    again = await replay(chosen, [path], "Köln, replay again")
    assert again.records == 0
    assert files_of(tmp_path) == before


async def test_march_through_kafka_equals_the_file_and_again_adds_nothing(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    rows = koeln_rows(2)
    chosen, topic = on_topic(
        "koeln", tmp_path, kafka.connection, "koeln", output__flush_rows=300_000
    )
    await produce(kafka.connection, topic, rows, 2)
    totals = await consume(chosen, "Köln, Kafka")
    assert (totals.records, totals.late, totals.quarantined) == (KOELN_MARCH, 0, 0)
    assert_march(tmp_path)
    before = files_of(tmp_path)
    again = await consume(chosen, "Köln, Kafka again")
    assert again.records == 0
    assert files_of(tmp_path) == before


async def test_rows_that_say_they_are_not_valid_are_published_but_not_folded(
    tmp_path: Path,
) -> None:
    source = tmp_path / "some.csv"
    duckdb.connect().execute(
        f"copy (select datetime_utc, identifier, auslastung,"  # noqa: S608  (paths of this test)
        f" (substr(identifier, 3)::int % 3 > 0)::int as valid from read_csv('{koeln_march()}')"
        f" limit 50000) to '{source}' (header)"
    )
    root = tmp_path / "data"
    await replay(settings("koeln", root), [source], "Köln, some rows not valid")
    assert_once(root, 50_000, 50_000)
    assert_same_rows(root, RAW, [str(source)])
    invalid = first_row(
        "select sum(invalid)::int, (select count(*) from read_csv(?) where valid = 0),"  # noqa: S608  (paths of this test)
        f" count(*) filter (count > 0 and invalid > 0)"
        f" from read_parquet('{root}/aggregates/*/*/*/*.parquet')",
        [str(source)],
    )
    assert invalid[0] == invalid[1] > 10_000
    assert invalid[2] == 0
